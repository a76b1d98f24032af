//! RFC 8656 sections 9, 11 and 12: which packets pass, and in what form.

use super::*;
use crate::action::{Icmp, Prefix};

const HERE: &str = "198.51.100.7:40000";
const PEER: &str = "203.0.113.1:5000";

/// A client with a permission for the peer.
fn permitted(lab: &mut Lab, client: Client) -> (Login, RelayId) {
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(lab.permit(client, &login, &[PEER]), 0);
    (login, relay)
}

/// The peer and the data in a Data indication.
fn data(sent: Option<Sent>) -> Option<(SocketAddr, Vec<u8>)> {
    let reply = Reply::read(sent?.bytes);
    let header = reply.message().header();
    assert_eq!((header.class, header.method), (Class::Indication, Method::DATA));
    Some((reply.addresses(Kind::XOR_PEER_ADDRESS)[0], reply.value(Kind::DATA)?))
}

/// A datagram from the relay to the peer.
fn to(relay: RelayId, peer: &str, bytes: &[u8]) -> Option<Sent> {
    Some(Sent {
        to: To::Datagram {
            socket: SocketId::Relay(relay),
            peer: address(peer),
            local: None,
        },
        bytes: bytes.into(),
    })
}

#[test]
fn nothing_passes_without_a_permission() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(
        (lab.send(client, PEER, b"x"), lab.peer(relay, PEER, b"x")),
        (None, None)
    );
    assert_eq!(lab.stats.turn.dropped, 2);
    assert_eq!(lab.permit(client, &login, &["203.0.113.1:0"]), 0);
    assert_eq!(lab.send(client, PEER, b"x"), to(relay, PEER, b"x"));
    assert_eq!(data(lab.peer(relay, PEER, b"x")), Some((address(PEER), b"x".into())));
    // Any port of the address, and no other address.
    assert!(lab.send(client, "203.0.113.1:4001", b"x").is_some());
    assert!(lab.peer(relay, "203.0.113.1:65535", b"x").is_some());
    assert_eq!(lab.send(client, "203.0.113.2:5000", b"x"), None);
    assert_eq!(lab.peer(relay, "203.0.113.2:5000", b"x"), None);
    // Nobody without an allocation.
    assert_eq!(lab.send(datagrams("198.51.100.7:1"), PEER, b"x"), None);
    assert_eq!(lab.peer(RelayId(SlabKey::from_parts(9, 9)), PEER, b"x"), None);
}

#[test]
fn a_permission_lasts_300_seconds_whatever_is_sent() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (_, relay) = permitted(&mut lab, client);
    for _ in 0..299 {
        lab.pass(1);
        assert!(lab.send(client, PEER, b"x").is_some() && lab.peer(relay, PEER, b"x").is_some());
    }
    lab.pass(1);
    assert_eq!(
        (lab.send(client, PEER, b"x"), lab.peer(relay, PEER, b"x")),
        (None, None)
    );
}

#[test]
fn a_channel_lasts_600_seconds_whatever_is_sent() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay) = permitted(&mut lab, client);
    assert_eq!(lab.bind(client, &login, 0x4000, PEER), 0);
    assert_eq!(lab.refresh(client, &login, 3600), 0);
    for _ in 0..599 {
        lab.pass(1);
        assert_eq!(lab.permit(client, &login, &[PEER]), 0);
        assert_eq!(lab.channel(client, 0x4000, b"x"), to(relay, PEER, b"x"));
        assert_eq!(
            lab.peer(relay, PEER, b"x").map(|sent| sent.bytes),
            Some(b"\x40\0\0\x01x".to_vec())
        );
    }
    lab.pass(1);
    assert_eq!(lab.channel(client, 0x4000, b"x"), None);
    // The permission is still there, so data comes in the other form.
    assert_eq!(data(lab.peer(relay, PEER, b"x")), Some((address(PEER), b"x".into())));
}

#[test]
fn a_send_indication_needs_peer_and_data() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (_, relay) = permitted(&mut lab, client);
    let mut check = |edit: &dyn Fn(Draft) -> Draft, expected: Option<&[u8]>| {
        let bytes = edit(lab.draft(Method::SEND).indication()).plain();
        let expected = expected.and_then(|bytes| to(relay, PEER, bytes));
        assert_eq!(lab.client(client, &bytes), expected);
    };
    check(&|draft| draft.peer(PEER).raw(Kind::DATA, b"abc"), Some(b"abc"));
    check(&|draft| draft.raw(Kind::DATA, b"abc").peer(PEER), Some(b"abc"));
    check(&|draft| draft.peer(PEER).raw(Kind::DATA, b""), Some(b""));
    check(&|draft| draft.peer(PEER), None);
    check(&|draft| draft.raw(Kind::DATA, b"abc"), None);
    check(
        &|draft| draft.raw(Kind::XOR_PEER_ADDRESS, b"").raw(Kind::DATA, b"abc"),
        None,
    );
    // Of each kind the first one counts.
    check(
        &|draft| {
            draft
                .peer(PEER)
                .peer("127.0.0.1:1")
                .raw(Kind::DATA, b"a")
                .raw(Kind::DATA, b"b")
        },
        Some(b"a"),
    );
    check(
        &|draft| draft.peer("127.0.0.1:1").peer(PEER).raw(Kind::DATA, b"a"),
        None,
    );
    check(
        &|draft| draft.peer(PEER).raw(Kind::DATA, b"abc").raw(Kind::DONT_FRAGMENT, b""),
        Some(b"abc"),
    );
    check(
        &|draft| draft.peer(PEER).raw(Kind::DATA, b"abc").raw(Kind(0x7fff), b""),
        None,
    );
    check(
        &|draft| draft.peer(PEER).raw(Kind::DATA, b"abc").raw(Kind(0xffff), b""),
        Some(b"abc"),
    );
    check(
        &|draft| draft.peer(PEER).raw(Kind::DATA, b"abc").fingerprint(),
        Some(b"abc"),
    );
}

#[test]
fn channel_data_is_taken_at_its_word() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay) = permitted(&mut lab, client);
    assert_eq!(lab.bind(client, &login, 0x4001, PEER), 0);
    let mut check = |bytes: &[u8], expected: Option<&[u8]>| {
        let expected = expected.and_then(|bytes| to(relay, PEER, bytes));
        assert_eq!(lab.client(client, bytes), expected, "{bytes:02x?}");
    };
    check(b"\x40\x01\0\x03abc", Some(b"abc"));
    // Padding is allowed by UDP too, and an empty message is a message.
    check(b"\x40\x01\0\x03abc\0", Some(b"abc"));
    check(b"\x40\x01\0\0", Some(b""));
    check(b"\x40\x01\0\x04abc", None);
    check(b"\x40\x01\xff\xffabc", None);
    check(b"\x40\x01\0", None);
    check(b"\x40\x00\0\x03abc", None);
    check(b"\x4f\xff\0\x03abc", None);
    check(b"\x50\x01\0\x03abc", None);
    check(b"\x7f\xff\0\x03abc", None);
}

#[test]
fn data_of_a_peer_with_a_channel_comes_by_the_channel() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay) = permitted(&mut lab, client);
    assert_eq!(lab.bind(client, &login, 0x4fff, PEER), 0);
    assert_eq!(
        lab.peer(relay, PEER, b"").map(|sent| sent.bytes),
        Some(b"\x4f\xff\0\0".to_vec())
    );
    assert_eq!(
        lab.peer(relay, PEER, b"abc").map(|sent| sent.bytes),
        Some(b"\x4f\xff\0\x03abc".to_vec())
    );
    // A channel is for a port; others of the same address have none.
    let other = "203.0.113.1:5001";
    assert_eq!(
        data(lab.peer(relay, other, b"abc")),
        Some((address(other), b"abc".into()))
    );
    assert_eq!(data(lab.peer(relay, other, b"")), Some((address(other), b"".into())));
    // The client may go on with Send indications.
    assert_eq!(lab.send(client, PEER, b"x"), to(relay, PEER, b"x"));
}

#[test]
fn data_goes_out_by_the_way_the_client_came() {
    let client = Client::Datagram {
        socket: SocketId::Turn(3),
        peer: address(HERE),
        local: Some([192, 0, 2, 11].into()),
    };
    for client in [client, stream(7, HERE)] {
        let mut lab = Lab::new();
        let (login, relay) = permitted(&mut lab, client);
        let by_indication = lab.peer(relay, PEER, b"x").expect("relayed").to;
        assert_eq!(lab.bind(client, &login, 0x4000, PEER), 0);
        let by_channel = lab.peer(relay, PEER, b"x").expect("relayed").to;
        let expected = client.send(Prefix::NONE, Payload::Made(0..0)).to;
        assert_eq!((by_indication, by_channel), (expected, expected));
    }
}

#[test]
fn what_would_not_fit_is_dropped() {
    let check = |client: Client, peer: &str, channel: bool, len: usize, expected: bool| {
        let mut lab = Lab::new();
        let login = lab.login(client, ALICE);
        let family = Family::of(address(peer).ip());
        let (relay, _) = lab.allocated(client, &login, |draft| draft.family(family));
        assert_eq!(lab.permit(client, &login, &[peer]), 0);
        if channel {
            assert_eq!(lab.bind(client, &login, 0x4000, peer), 0);
        }
        let sent = lab.peer(relay, peer, &vec![1; len]);
        assert_eq!(sent.is_some(), expected, "{client:?} {peer} {channel} {len}");
        if let (Some(sent), false) = (sent, channel) {
            assert_eq!(data(Some(sent)).map(|(_, data)| data.len()), Some(len));
        }
    };
    let (datagrams, stream, v6) = (datagrams(HERE), stream(1, HERE), "[2001:db8:1::1]:5000");
    check(datagrams, PEER, true, 65_503, true);
    check(datagrams, PEER, true, 65_504, false);
    check(stream, PEER, true, 65_507, true);
    check(datagrams, PEER, false, 65_468, true);
    check(datagrams, PEER, false, 65_469, false);
    check(datagrams, v6, false, 65_456, true);
    check(datagrams, v6, false, 65_457, false);
    check(stream, PEER, false, 65_507, true);
    check(stream, v6, false, 65_504, true);
    check(stream, v6, false, 65_505, false);
}

#[test]
fn a_dual_allocation_sends_each_family_by_its_own_socket() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let request = lab.allocate().additional(Family::V6).signed(&login);
    assert_eq!(lab.client(client, &request), None);
    let binds = lab.binds();
    for (relay, at) in &binds {
        lab.bound(*relay, Ok(*at));
    }
    let (v4, v6) = (binds[0].0, binds[1].0);
    let peer6 = "[2001:db8:1::1]:5000";
    assert_eq!(lab.permit(client, &login, &[PEER, peer6]), 0);
    assert_eq!(lab.send(client, PEER, b"x"), to(v4, PEER, b"x"));
    assert_eq!(lab.send(client, peer6, b"x"), to(v6, peer6, b"x"));
    assert_eq!(data(lab.peer(v6, peer6, b"x")), Some((address(peer6), b"x".into())));
    // A socket has no peers of the other family.
    assert_eq!((lab.peer(v4, peer6, b"x"), lab.peer(v6, PEER, b"x")), (None, None));
}

#[test]
fn the_port_of_a_peer_is_checked_each_time() {
    // A rule allows ports 10000 to 20000 of 10.0.0.5. The permission has no port, so each packet is asked about.
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(lab.permit(client, &login, &["10.0.0.5:5060"]), 0);
    for (peer, passes) in [
        ("10.0.0.5:9999", false),
        ("10.0.0.5:10000", true),
        ("10.0.0.5:20000", true),
        ("10.0.0.5:20001", false),
        ("10.0.0.5:5060", false),
        ("10.0.0.5:0", false),
        ("10.0.0.6:10000", false),
    ] {
        assert_eq!(lab.send(client, peer, b"x").is_some(), passes, "{peer}");
        assert_eq!(lab.peer(relay, peer, b"x").is_some(), passes, "{peer}");
    }
}

#[test]
fn ipv4_in_ipv6_clothes_is_ipv4() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(lab.permit(client, &login, &["[::ffff:203.0.113.1]:0"]), 0);
    assert_eq!(lab.send(client, PEER, b"x"), to(relay, PEER, b"x"));
    assert_eq!(
        lab.send(client, "[::ffff:203.0.113.1]:5000", b"x"),
        to(relay, PEER, b"x")
    );
    assert_eq!(
        data(lab.peer(relay, "[::ffff:203.0.113.1]:5000", b"x")),
        Some((address(PEER), b"x".into()))
    );
    assert_eq!(lab.bind(client, &login, 0x4000, "[::ffff:203.0.113.1]:5000"), 0);
    assert_eq!(lab.bind(client, &login, 0x4001, PEER), 400);
    assert_eq!(lab.permit(client, &login, &["[::ffff:127.0.0.1]:0"]), 403);
}

#[test]
fn two_clients_meet_by_their_relayed_addresses() {
    // Whether the server is behind a static NAT or not, both know each other by the advertised address.
    for bind in ["192.0.2.10", "10.9.9.9"] {
        let mut lab = Lab::with(|turn| turn.relays[0].bind = bind.parse().expect("an address"));
        let (one, two) = (datagrams(HERE), stream(1, "198.51.100.8:40000"));
        let (login1, relay1, relayed1) = lab.allocation(one);
        let (login2, relay2, relayed2) = lab.allocation(two);
        assert_eq!(lab.permit(one, &login1, &[&relayed2.to_string()]), 0);
        assert_eq!(lab.bind(two, &login2, 0x4000, &relayed1.to_string()), 0);
        // What is for the other client goes there at once, by no relayed socket.
        let sent = lab.send(one, &relayed2.to_string(), b"hello").expect("relayed");
        assert_eq!(sent.bytes, b"\x40\0\0\x05hello");
        assert_eq!(sent.to, two.send(Prefix::NONE, Payload::Made(0..0)).to);
        let sent = lab.channel(two, 0x4000, b"hi").expect("relayed");
        assert_eq!(sent.to, one.send(Prefix::NONE, Payload::Made(0..0)).to);
        assert_eq!(data(Some(sent)), Some((relayed2, b"hi".into())));
        let turn = lab.stats.turn;
        assert_eq!((turn.to_peer, turn.to_peer_bytes), (2, 7));
        assert_eq!((turn.to_client, turn.to_client_bytes), (2, 7));
        // The sockets have nothing to do with it, so what comes by them comes from somebody else.
        let on_host = |relayed: SocketAddr| SocketAddr::new(bind.parse().expect("an address"), relayed.port());
        assert_eq!(lab.peer(relay1, &on_host(relayed2).to_string(), b"x"), None);
        assert_eq!(lab.peer(relay2, &on_host(relayed1).to_string(), b"x"), None);
    }
}

#[test]
fn a_hairpin_needs_the_permission_of_the_receiver() {
    let mut lab = Lab::new();
    let (one, two) = (datagrams(HERE), datagrams("198.51.100.8:40000"));
    let (login1, _, relayed1) = lab.allocation(one);
    let (login2, _, relayed2) = lab.allocation(two);
    assert_eq!(lab.bind(one, &login1, 0x4000, &relayed2.to_string()), 0);
    assert_eq!(lab.channel(one, 0x4000, b"x"), None);
    assert_eq!((lab.stats.turn.to_client, lab.stats.turn.dropped), (0, 1));
    assert_eq!(lab.permit(two, &login2, &[&relayed1.to_string()]), 0);
    assert_eq!(data(lab.channel(one, 0x4000, b"x")), Some((relayed1, b"x".into())));
    // Its time counts too, and so does the life of the allocation.
    lab.pass(299);
    assert_eq!(lab.bind(one, &login1, 0x4000, &relayed2.to_string()), 0);
    lab.pass(1);
    assert_eq!(lab.channel(one, 0x4000, b"x"), None);
    assert_eq!(lab.permit(two, &login2, &[&relayed1.to_string()]), 0);
    assert_eq!(lab.refresh(two, &login2, 0), 0);
    assert!(matches!(
        lab.channel(one, 0x4000, b"x").map(|sent| sent.to),
        Some(To::Datagram {
            socket: SocketId::Relay(_),
            ..
        })
    ));
}

#[test]
fn an_empty_and_a_large_hairpin_are_like_any_datagram() {
    let mut lab = Lab::new();
    let (one, two) = (datagrams(HERE), datagrams("198.51.100.8:40000"));
    let (login1, _, relayed1) = lab.allocation(one);
    let (login2, _, relayed2) = lab.allocation(two);
    assert_eq!(lab.bind(one, &login1, 0x4000, &relayed2.to_string()), 0);
    assert_eq!(lab.permit(two, &login2, &[&relayed1.to_string()]), 0);
    for (len, fits) in [(0, true), (65_468, true), (65_469, false)] {
        let sent = lab.channel(one, 0x4000, &vec![7; len]);
        assert_eq!(data(sent).map(|(_, data)| data.len()), fits.then_some(len));
    }
}

#[test]
fn allocations_that_point_at_each_other_form_no_loop() {
    let mut lab = Lab::with(|turn| turn.limits.unauthenticated_per_second = 0);
    let (one, two) = (datagrams(HERE), datagrams("198.51.100.8:40000"));
    let (login1, _, relayed1) = lab.allocation(one);
    let (login2, _, relayed2) = lab.allocation(two);
    for (client, login, peers) in [
        (one, &login1, [relayed2, relayed1]),
        (two, &login2, [relayed1, relayed2]),
    ] {
        for (number, peer) in (0x4000..).zip(peers) {
            assert_eq!(lab.bind(client, login, number, &peer.to_string()), 0);
        }
    }
    // One packet in, one packet out: to the other, and to oneself.
    assert_eq!(
        lab.channel(one, 0x4000, b"x").map(|sent| sent.bytes),
        Some(b"\x40\0\0\x01x".to_vec())
    );
    assert_eq!(
        lab.channel(one, 0x4001, b"x").map(|sent| sent.bytes),
        Some(b"\x40\x01\0\x01x".to_vec())
    );
    assert_eq!((lab.stats.turn.to_peer, lab.stats.turn.to_client), (2, 2));
    // What closes a loop is an allocation whose client is this server.
    let server = datagrams("192.0.2.10:3478");
    let login = lab.login(server, ALICE);
    let draft = lab.allocate();
    assert_eq!(lab.code(server, &login, draft), 403);
}

#[test]
fn packets_of_other_shards_come_back_within_a_budget() {
    let config = config(|turn| turn.limits.returned_packets_per_second = 100);
    let [mut lab, mut other] = [0, 1].map(|shard| Lab::shard(Arc::clone(&config), shard, 2));
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    let (_, _, relayed) = other.allocation(datagrams("198.51.100.8:40000"));
    assert_eq!(lab.permit(client, &login, &[&relayed.to_string(), PEER]), 0);
    // The other shard's address is reached by the socket, as the kernel carries it.
    assert_eq!(
        lab.send(client, &relayed.to_string(), b"x"),
        to(relay, &relayed.to_string(), b"x")
    );
    let passed = |lab: &mut Lab, from: &str| (0..1000).filter(|_| lab.peer(relay, from, b"x").is_some()).count();
    assert_eq!(passed(&mut lab, &relayed.to_string()), 100);
    assert_eq!(passed(&mut lab, PEER), 1000);
    lab.pass(1);
    assert_eq!(passed(&mut lab, &relayed.to_string()), 100);
}

#[test]
fn an_allocation_relays_so_many_bytes_a_second() {
    let mut lab = Lab::with(|turn| turn.limits.allocation_bytes_per_second = Some(10_000));
    let (one, two) = (datagrams(HERE), datagrams("198.51.100.8:40000"));
    let ((_, relay1), (_, relay2)) = (permitted(&mut lab, one), permitted(&mut lab, two));
    let from_peer = |lab: &mut Lab, relay| (0..50).filter(|_| lab.peer(relay, PEER, &[0; 1000]).is_some()).count();
    // Both directions draw from one bucket.
    assert!((0..5).all(|_| lab.send(one, PEER, &[0; 1000]).is_some()));
    assert_eq!(from_peer(&mut lab, relay1), 5);
    assert_eq!(lab.send(one, PEER, &[0; 1000]), None);
    assert_eq!((lab.stats.turn.limited, lab.stats.turn.dropped), (46, 0));
    assert_eq!((lab.stats.turn.to_peer, lab.stats.turn.to_client), (5, 5));
    // Others have their own, and time fills it.
    assert_eq!(from_peer(&mut lab, relay2), 10);
    lab.pass(1);
    assert_eq!(from_peer(&mut lab, relay1), 10);
}

#[test]
fn all_allocations_of_a_user_share_so_many_bytes_a_second() {
    let mut lab = Lab::with(|turn| {
        turn.limits.user_bytes_per_second = Some(10_000);
        turn.limits.allocation_bytes_per_second = Some(8_000);
    });
    let (one, two) = (datagrams(HERE), datagrams("198.51.100.8:40000"));
    let ((_, relay1), (_, relay2)) = (permitted(&mut lab, one), permitted(&mut lab, two));
    let from_peer = |lab: &mut Lab, relay| (0..50).filter(|_| lab.peer(relay, PEER, &[0; 1000]).is_some()).count();
    assert_eq!(
        [relay1, relay2, relay1].map(|relay| from_peer(&mut lab, relay)),
        [8, 2, 0]
    );
    let bob = datagrams("198.51.100.9:40000");
    let login = lab.login(bob, BOB);
    let (relay, _) = lab.allocated(bob, &login, |draft| draft);
    assert_eq!(lab.permit(bob, &login, &[PEER]), 0);
    assert_eq!(from_peer(&mut lab, relay), 8);
}

#[test]
fn without_limits_nothing_is_metered() {
    let mut lab = Lab::new();
    let (_, relay) = permitted(&mut lab, datagrams(HERE));
    assert!((0..5000).all(|_| lab.peer(relay, PEER, &[0; 60_000]).is_some()));
}

#[test]
fn a_relayed_address_may_be_given_as_it_is_on_the_host() {
    let mut lab = Lab::with(|turn| turn.relays[0].bind = "10.9.9.9".parse().expect("an address"));
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(lab.permit(client, &login, &["10.9.9.9:0"]), 0);
    assert_eq!(
        lab.send(client, "10.9.9.9:30001", b"x"),
        to(relay, "10.9.9.9:30001", b"x")
    );
    assert_eq!(lab.bind(client, &login, 0x4000, "10.9.9.9:30001"), 0);
    assert_eq!(lab.bind(client, &login, 0x4001, "192.0.2.10:30001"), 400);
    assert_eq!(lab.channel(client, 0x4000, b"x"), to(relay, "10.9.9.9:30001", b"x"));
    assert_eq!(
        lab.peer(relay, "10.9.9.9:30001", b"x").map(|sent| sent.bytes),
        Some(b"\x40\0\0\x01x".to_vec())
    );
    // Only the ports of relayed addresses are ours to give.
    for peer in [
        "10.9.9.9:22",
        "10.9.9.9:29999",
        "10.9.9.9:30100",
        "192.0.2.10:3478",
        "192.0.2.10:443",
    ] {
        assert_eq!(
            (lab.send(client, peer, b"x"), lab.peer(relay, peer, b"x")),
            (None, None),
            "{peer}"
        );
        assert_eq!(lab.bind(client, &login, 0x4002, peer), 403, "{peer}");
    }
}

#[test]
fn a_service_beside_ours_on_the_same_host_can_be_named() {
    // The edge and a mediaserver on one host, with a static NAT: its ports are reached by the address on the host.
    let mut lab = Lab::with(|turn| {
        turn.relays[0].bind = "10.0.0.5".parse().expect("an address");
        turn.listen_udp = vec![address("10.0.0.5:12000")];
    });
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(lab.permit(client, &login, &["10.0.0.5:0"]), 0);
    assert_eq!(
        lab.send(client, "10.0.0.5:10000", b"x"),
        to(relay, "10.0.0.5:10000", b"x")
    );
    assert_eq!(
        data(lab.peer(relay, "10.0.0.5:10000", b"x")),
        Some((address("10.0.0.5:10000"), b"x".into()))
    );
    assert_eq!(lab.bind(client, &login, 0x4000, "10.0.0.5:10000"), 0);
    assert_eq!(
        lab.peer(relay, "10.0.0.5:10000", b"x").map(|sent| sent.bytes),
        Some(b"\x40\0\0\x01x".to_vec())
    );
    lab.pass(200);
    assert_eq!(lab.permit(client, &login, &["10.0.0.5:0"]), 0);
    lab.pass(200);
    assert!(lab.channel(client, 0x4000, b"x").is_some());
    // Our own service within the rule's ports is not to be reached.
    assert_eq!(lab.send(client, "10.0.0.5:12000", b"x"), None);
    assert_eq!(lab.bind(client, &login, 0x4001, "10.0.0.5:12000"), 403);
}

#[test]
fn an_icmp_message_is_told_to_the_client() {
    let v6 = "[2001:db8:1::1]:5000";
    let check = |client: Client, peer: &str, [kind, code]: [u8; 2], expected: Option<u32>| {
        let mut lab = Lab::new();
        let login = lab.login(client, ALICE);
        let family = Family::of(address(peer).ip());
        let (relay, _) = lab.allocated(client, &login, |draft| draft.family(family));
        let icmp = Icmp { kind, code, mtu: 1400 };
        let report = |lab: &mut Lab| lab.call(&[], |server, cx| server.socket_error(cx, relay, address(peer), icmp));
        // RFC 8656 section 11.5: without a permission for the destination, the message is discarded.
        assert_eq!(report(&mut lab), None);
        assert_eq!(lab.permit(client, &login, &[peer]), 0);
        // It is an indication also where a channel is bound.
        let bound = SocketAddr::new(address(peer).ip(), 5000).to_string();
        assert_eq!(lab.bind(client, &login, 0x4000, &bound), 0);
        let sent = report(&mut lab);
        let told = sent.map(|sent| {
            let reply = Reply::read(sent.bytes);
            let header = reply.message().header();
            assert_eq!((header.class, header.method), (Class::Indication, Method::DATA));
            assert_eq!(reply.addresses(Kind::XOR_PEER_ADDRESS), [address(peer)]);
            assert_eq!(reply.value(Kind::DATA), None);
            reply.value(Kind::ICMP).expect("the ICMP attribute")
        });
        let expected = expected.map(|mtu| [[0, 0, kind, code], mtu.to_be_bytes()].concat());
        assert_eq!(told, expected, "{peer} {kind} {code}");
        lab.pass(300);
        assert_eq!(report(&mut lab), None);
    };
    for client in [datagrams(HERE), stream(1, HERE)] {
        // RFC 8656 section 18.13: of all but these two types, the error data is zero.
        check(client, PEER, [3, 4], Some(1400));
        check(client, v6, [2, 0], Some(1400));
        // Where the port is not known, it is zero.
        check(client, "203.0.113.1:0", [3, 4], Some(1400));
        for kind in [[3, 0], [3, 1], [3, 3], [3, 13], [11, 0], [11, 1]] {
            check(client, PEER, kind, Some(0));
        }
        for kind in [[1, 0], [1, 3], [1, 4], [1, 6], [3, 0], [3, 1]] {
            check(client, v6, kind, Some(0));
        }
        // RFC 8656 section 11.5: of all other types the client is not told.
        for kind in [[0, 0], [1, 4], [2, 0], [4, 0], [5, 1], [12, 0]] {
            check(client, PEER, kind, None);
        }
        for kind in [[0, 0], [4, 1], [11, 0], [128, 0]] {
            check(client, v6, kind, None);
        }
    }
}

#[test]
fn what_is_relayed_keeps_its_ip_header_and_what_we_say_does_not() {
    let mut lab = Lab::new();
    for client in [datagrams(HERE), stream(1, HERE)] {
        let (login, relay) = permitted(&mut lab, client);
        assert_eq!(lab.header, IpHeader::Own);
        for channel in [false, true] {
            if channel {
                assert_eq!(lab.bind(client, &login, 0x4000, PEER), 0);
                assert!(lab.channel(client, 0x4000, b"x").is_some());
                assert_eq!(lab.header, IpHeader::Relayed);
            }
            assert!(lab.send(client, PEER, b"x").is_some());
            assert_eq!(lab.header, IpHeader::Relayed);
            assert!(lab.peer(relay, PEER, b"x").is_some());
            assert_eq!(lab.header, IpHeader::Relayed);
        }
        let icmp = Icmp {
            kind: 3,
            code: 3,
            mtu: 0,
        };
        let sent = lab.call(&[], |server, cx| server.socket_error(cx, relay, address(PEER), icmp));
        assert!(sent.is_some());
        assert_eq!(lab.header, IpHeader::Own);
    }
}

#[test]
fn dont_fragment_counts_from_ipv4_to_ipv4_and_from_streams() {
    let (v4, v6) = (PEER, "[2001:db8:1::1]:5000");
    let check = |client: Client, peer: &str, expected: IpHeader| {
        let mut lab = Lab::new();
        let login = lab.login(client, ALICE);
        let family = Family::of(address(peer).ip());
        lab.allocated(client, &login, |draft| draft.family(family));
        assert_eq!(lab.bind(client, &login, 0x4000, peer), 0);
        let draft = lab.draft(Method::SEND).indication().peer(peer);
        let draft = draft.raw(Kind::DONT_FRAGMENT, b"").raw(Kind::DATA, b"x");
        assert!(lab.client(client, &draft.plain()).is_some());
        assert_eq!(lab.header, expected, "{client:?} {peer}");
        // It is said of one datagram, not of the allocation.
        for next in [lab.send(client, peer, b"x"), lab.channel(client, 0x4000, b"x")] {
            assert!(next.is_some());
            assert_eq!(lab.header, IpHeader::Relayed);
        }
    };
    let here6 = "[2001:db8:2::7]:40000";
    check(datagrams(HERE), v4, IpHeader::RelayedWhole);
    check(stream(1, HERE), v4, IpHeader::RelayedWhole);
    check(stream(1, here6), v4, IpHeader::RelayedWhole);
    check(stream(1, here6), v6, IpHeader::RelayedWhole);
    check(stream(1, HERE), v6, IpHeader::RelayedWhole);
    // RFC 8656 section 13: what is translated, and what is IPv6 on both sides, ignores it.
    check(datagrams(HERE), v6, IpHeader::Relayed);
    check(datagrams(here6), v4, IpHeader::Relayed);
    check(datagrams(here6), v6, IpHeader::Relayed);
}

#[test]
fn dont_fragment_ends_at_a_client_of_ours() {
    let mut lab = Lab::new();
    let (one, two) = (datagrams(HERE), datagrams("198.51.100.8:40000"));
    let (login1, _, relayed1) = lab.allocation(one);
    let (login2, _, relayed2) = lab.allocation(two);
    assert_eq!(lab.permit(one, &login1, &[&relayed2.to_string()]), 0);
    assert_eq!(lab.permit(two, &login2, &[&relayed1.to_string()]), 0);
    let draft = lab.draft(Method::SEND).indication().peer(&relayed2.to_string());
    let draft = draft.raw(Kind::DONT_FRAGMENT, b"").raw(Kind::DATA, b"x");
    assert_eq!(data(lab.client(one, &draft.plain())), Some((relayed1, b"x".into())));
    // RFC 8656 section 14: only "in response to a Send indication" is it set, not for a Data indication.
    assert_eq!(lab.header, IpHeader::Relayed);
}

#[test]
fn late_packets_do_not_reach_the_next_allocation() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay) = permitted(&mut lab, client);
    assert_eq!(lab.refresh(client, &login, 0), 0);
    assert_eq!(lab.peer(relay, PEER, b"x"), None);
    let (_, next) = permitted(&mut lab, client);
    // The slot is the same, the name is not.
    assert_eq!(lab.peer(relay, PEER, b"x"), None);
    assert!(lab.peer(next, PEER, b"x").is_some());
}

#[test]
fn two_data_indications_differ_in_their_transaction() {
    let mut lab = Lab::new();
    let (_, relay) = permitted(&mut lab, datagrams(HERE));
    let mut transaction = || {
        let sent = lab.peer(relay, PEER, b"x").expect("relayed");
        Reply::read(sent.bytes).message().header().transaction
    };
    assert_ne!(transaction(), transaction());
}

#[test]
fn an_allocation_is_small() {
    // Ten thousand of them live in one process.
    let mut lab = Lab::with(|turn| turn.limits.unauthenticated_per_second = 0);
    let client = |n: u32| datagrams(&format!("198.51.{}.{}:40000", n / 250, n % 250 + 1));
    for n in 0..90 {
        let (login, ..) = lab.allocation(client(n));
        assert_eq!(lab.bind(client(n), &login, 0x4000, PEER), 0);
    }
    let bytes = lab.server.table_bytes() / 90;
    assert!(bytes <= 2048, "{bytes}");
}
