//! RFC 8656 sections 8 to 12: what a client may change about its allocation.

use super::*;

const HERE: &str = "198.51.100.7:40000";
const PEER: &str = "203.0.113.1:5000";

/// Each request that needs an allocation, as it would succeed on one.
fn requests(lab: &mut Lab) -> [Draft; 3] {
    [
        lab.draft(Method::REFRESH),
        lab.draft(Method::CREATE_PERMISSION).peer(PEER),
        lab.draft(Method::CHANNEL_BIND).channel(0x4000).peer(PEER),
    ]
}

#[test]
fn without_an_allocation_requests_are_a_mismatch() {
    for client in [datagrams(HERE), stream(1, HERE)] {
        let mut lab = Lab::new();
        let login = lab.login(client, ALICE);
        for draft in requests(&mut lab) {
            assert_eq!(lab.code(client, &login, draft), 437);
        }
        // One that is being made is none yet.
        let request = lab.allocate().signed(&login);
        assert_eq!(lab.client(client, &request), None);
        for draft in requests(&mut lab) {
            let reply = lab.client(client, &draft.signed(&login)).expect("an answer");
            assert_eq!(Reply::read(reply.bytes).code(), 437);
        }
        let (relay, at) = lab.binds()[0];
        assert!(lab.bound(relay, Ok(at)).is_some());
        for draft in requests(&mut lab) {
            assert_eq!(lab.code(client, &login, draft), 0);
        }
        // One that has expired is none any more, swept or not.
        lab.pass(600);
        for draft in requests(&mut lab) {
            assert_eq!(lab.code(client, &login, draft), 437);
        }
    }
}

#[test]
fn an_allocation_listens_only_to_who_made_it() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    lab.allocation(client);
    let bob = lab.login(client, BOB);
    for draft in requests(&mut lab) {
        assert_eq!(lab.code(client, &bob, draft), 441);
    }
}

#[test]
fn a_refresh_says_how_long_it_lasts() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(lab.permit(client, &login, &[PEER]), 0);
    lab.pass(250);
    let request = lab.draft(Method::REFRESH).lifetime(900).signed(&login);
    assert_eq!(
        lab.ask(client, &request).and_then(|reply| reply.u32(Kind::LIFETIME)),
        Some(900)
    );
    for _ in 0..3 {
        assert_eq!(lab.permit(client, &login, &[PEER]), 0);
        lab.pass(299);
    }
    assert!(lab.peer(relay, PEER, b"x").is_some());
    assert_eq!(lab.permit(client, &login, &[PEER]), 0);
    lab.pass(2);
    assert!(lab.peer(relay, PEER, b"x").is_some());
    lab.pass(1);
    assert_eq!(lab.peer(relay, PEER, b"x"), None);
    let draft = lab.draft(Method::REFRESH).raw(Kind::LIFETIME, b"");
    let other = datagrams("198.51.100.7:1");
    let (login, ..) = lab.allocation(other);
    assert_eq!(lab.code(other, &login, draft), 400);
}

#[test]
fn a_refresh_of_zero_ends_the_allocation() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(lab.permit(client, &login, &[PEER]), 0);
    let request = lab.draft(Method::REFRESH).lifetime(0).signed(&login);
    let reply = lab.ask(client, &request).expect("an answer");
    assert!(reply.u32(Kind::LIFETIME) == Some(0) && reply.is_signed_by(&login));
    assert_eq!((lab.binds(), lab.closed.as_slice()), (vec![], [relay].as_slice()));
    assert_eq!(lab.peer(relay, PEER, b"x"), None);
    assert_eq!(lab.send(client, PEER, b"x"), None);
    // Sent again, it finds nothing, which a client takes for success (RFC 8656 section 8.3).
    assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(437));
}

#[test]
fn a_refresh_may_be_for_one_family() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    let code = |lab: &mut Lab, family: u8| {
        let draft = lab
            .draft(Method::REFRESH)
            .raw(Kind::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        lab.code(client, &login, draft)
    };
    assert_eq!([code(&mut lab, 1), code(&mut lab, 2), code(&mut lab, 3)], [0, 443, 443]);
}

#[test]
fn half_of_a_dual_allocation_may_end() {
    for (ended, left) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let mut lab = Lab::new();
        let client = datagrams(HERE);
        let login = lab.login(client, ALICE);
        let request = lab.allocate().additional(Family::V6).signed(&login);
        assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(0));
        let peers = [PEER, "[2001:db8:1::1]:5000"];
        assert_eq!(lab.permit(client, &login, &peers), 0);
        assert_eq!(lab.bind(client, &login, 0x4000, peers[0]), 0);
        assert_eq!(lab.bind(client, &login, 0x4001, peers[1]), 0);
        for number in [0x4000, 0x4001] {
            assert!(lab.channel(client, number, b"x").is_some());
        }
        let draft = lab.draft(Method::REFRESH).lifetime(0).family(ended);
        assert_eq!(lab.code(client, &login, draft.clone()), 0);
        assert_eq!((lab.closed.len(), lab.server.allocations()), (1, 1));
        // RFC 8656 section 8.1: its permissions and channels are gone, the others are not touched.
        assert_eq!(lab.channel(client, 0x4000 + ended as u16, b"x"), None);
        assert!(lab.channel(client, 0x4000 + left as u16, b"x").is_some());
        assert_eq!(lab.permit(client, &login, &[peers[ended as usize]]), 443);
        assert_eq!(
            lab.bind(client, &login, 0x4000 + ended as u16, peers[ended as usize]),
            443
        );
        assert_eq!(lab.code(client, &login, draft), 443);
        // A refresh for all is one for what is left.
        assert_eq!(lab.refresh(client, &login, 3600), 0);
        let draft = lab.draft(Method::REFRESH).lifetime(0).family(left);
        assert_eq!(lab.code(client, &login, draft), 0);
        assert_eq!(lab.server.table_sizes()[..4], [0; 4]);
    }
}

#[test]
fn the_families_of_a_dual_allocation_expire_apart() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let request = lab.allocate().additional(Family::V6).signed(&login);
    assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(0));
    let draft = lab.draft(Method::REFRESH).lifetime(1800).family(Family::V6);
    assert_eq!(lab.code(client, &login, draft), 0);
    lab.pass(600);
    assert_eq!(lab.permit(client, &login, &[PEER]), 443);
    assert_eq!(lab.permit(client, &login, &["[2001:db8:1::1]:4001"]), 0);
    assert_eq!((lab.binds(), lab.closed.len()), (vec![], 1));
    lab.pass(1200);
    assert_eq!(lab.permit(client, &login, &["[2001:db8:1::1]:4001"]), 437);
}

#[test]
fn create_permission_wants_peers() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    assert_eq!(lab.permit(client, &login, &[]), 400);
    let bad: [&[u8]; 4] = [b"", b"\0\x01\0\0\0\0\0", b"\0\x03\0\0\0\0\0\0", b"\0\x02\0\0\0\0\0\0"];
    for value in bad {
        // A bad one spoils the good ones before and behind it.
        let draft = lab.draft(Method::CREATE_PERMISSION);
        let draft = draft.peer(PEER).raw(Kind::XOR_PEER_ADDRESS, value).peer(PEER);
        assert_eq!(lab.code(client, &login, draft), 400, "{value:?}");
    }
    assert_eq!(lab.send(client, PEER, b"x"), None);
}

#[test]
fn create_permission_is_all_or_nothing() {
    let mut lab = Lab::with(|turn| turn.limits.permissions_max = 3);
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    let check = |lab: &mut Lab, peers: &[&str], code: u16| {
        assert_eq!(lab.permit(client, &login, peers), code, "{peers:?}");
        for peer in peers {
            assert_eq!(lab.send(client, peer, b"x").is_some(), code == 0, "{peer}");
        }
    };
    check(&mut lab, &[PEER, "[2001:db8:1::1]:4001"], 443);
    check(&mut lab, &[PEER, "192.168.1.1:1"], 403);
    check(&mut lab, &["127.0.0.1:1", PEER], 403);
    check(
        &mut lab,
        &[
            "203.0.113.1:4001",
            "203.0.113.2:4001",
            "203.0.113.3:4001",
            "203.0.113.4:4001",
        ],
        508,
    );
    // One address is one permission, however often it is named, and whatever the port.
    check(
        &mut lab,
        &[
            "203.0.113.1:4001",
            "203.0.113.1:4002",
            "203.0.113.2:4001",
            "203.0.113.1:4001",
        ],
        0,
    );
    check(&mut lab, &["203.0.113.3:4001"], 0);
    check(&mut lab, &["203.0.113.4:4001"], 508);
    // Those that are there can be refreshed, and those that have expired do not count.
    check(
        &mut lab,
        &["203.0.113.1:4001", "203.0.113.2:4001", "203.0.113.3:4001"],
        0,
    );
    lab.pass(299);
    check(&mut lab, &["203.0.113.1:4001"], 0);
    lab.pass(1);
    check(&mut lab, &["203.0.113.4:4001", "203.0.113.5:4001"], 0);
    check(&mut lab, &["203.0.113.2:4001"], 508);
}

#[test]
fn channel_bind_wants_a_number_and_a_peer() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    let draft = lab.draft(Method::CHANNEL_BIND).channel(0x4000);
    assert_eq!(lab.code(client, &login, draft), 400);
    let draft = lab.draft(Method::CHANNEL_BIND).peer(PEER);
    assert_eq!(lab.code(client, &login, draft), 400);
    let draft = lab
        .draft(Method::CHANNEL_BIND)
        .peer(PEER)
        .raw(Kind::CHANNEL_NUMBER, &[0x40, 0]);
    assert_eq!(lab.code(client, &login, draft), 400);
    let draft = lab
        .draft(Method::CHANNEL_BIND)
        .channel(0x4000)
        .raw(Kind::XOR_PEER_ADDRESS, b"");
    assert_eq!(lab.code(client, &login, draft), 400);
    for (number, code) in [
        (0x0000, 400),
        (0x3fff, 400),
        (0x5000, 400),
        (0x7fff, 400),
        (0xffff, 400),
        (0x4fff, 0),
    ] {
        assert_eq!(lab.bind(client, &login, number, PEER), code, "{number:x}");
    }
}

#[test]
fn a_channel_has_one_peer_and_a_peer_one_channel() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    assert_eq!(lab.bind(client, &login, 0x4000, PEER), 0);
    assert_eq!(lab.bind(client, &login, 0x4000, PEER), 0);
    assert_eq!(lab.bind(client, &login, 0x4001, PEER), 400);
    assert_eq!(lab.bind(client, &login, 0x4000, "203.0.113.1:5001"), 400);
    assert_eq!(lab.bind(client, &login, 0x4001, "203.0.113.1:5001"), 0);
    // Another allocation has channels of its own.
    let other = datagrams("198.51.100.7:1");
    let (theirs, ..) = lab.allocation(other);
    assert_eq!(lab.bind(other, &theirs, 0x4001, PEER), 0);
    // Once a binding has expired, number and peer are free.
    lab.pass(599);
    assert_eq!(lab.bind(client, &login, 0x4000, "203.0.113.9:4001"), 400);
    assert_eq!(lab.refresh(client, &login, 600), 0);
    lab.pass(1);
    assert_eq!(lab.bind(client, &login, 0x4001, PEER), 0);
    assert_eq!(lab.bind(client, &login, 0x4000, "203.0.113.9:4001"), 0);
}

#[test]
fn channel_bind_is_refused_for_the_same_reasons() {
    let mut lab = Lab::with(|turn| (turn.limits.channels_max, turn.limits.permissions_max) = (2, 2));
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    assert_eq!(lab.bind(client, &login, 0x4000, "[2001:db8:1::1]:4001"), 443);
    assert_eq!(lab.bind(client, &login, 0x4000, "10.0.0.5:5060"), 403);
    assert_eq!(lab.bind(client, &login, 0x4000, "10.0.0.5:10000"), 0);
    assert_eq!(lab.bind(client, &login, 0x4001, "10.0.0.5:10001"), 0);
    assert_eq!(lab.bind(client, &login, 0x4002, "10.0.0.5:10002"), 508);
    assert_eq!(lab.bind(client, &login, 0x4001, "10.0.0.5:10001"), 0);
    // The permission is limited as well.
    let other = datagrams("198.51.100.7:1");
    let (login, ..) = lab.allocation(other);
    assert_eq!(lab.permit(other, &login, &["203.0.113.1:0", "203.0.113.2:0"]), 0);
    assert_eq!(lab.bind(other, &login, 0x4000, "203.0.113.3:4001"), 508);
    assert_eq!(lab.channel(other, 0x4000, b"x"), None);
    assert_eq!(lab.bind(other, &login, 0x4000, "203.0.113.2:4001"), 0);
}

#[test]
fn channel_bind_refreshes_the_permission() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    assert_eq!(lab.bind(client, &login, 0x4000, PEER), 0);
    lab.pass(200);
    // The permission is for the address: other ports of it profit.
    assert!(lab.peer(relay, "203.0.113.1:4009", b"x").is_some());
    assert_eq!(lab.bind(client, &login, 0x4000, PEER), 0);
    lab.pass(299);
    assert!(lab.peer(relay, "203.0.113.1:4009", b"x").is_some());
    assert!(lab.channel(client, 0x4000, b"x").is_some());
    lab.pass(1);
    assert_eq!(lab.peer(relay, "203.0.113.1:4009", b"x"), None);
    assert_eq!(lab.channel(client, 0x4000, b"x"), None);
    // CreatePermission brings the channel back, which has not expired.
    assert_eq!(lab.permit(client, &login, &["203.0.113.1:0"]), 0);
    assert!(lab.channel(client, 0x4000, b"x").is_some());
    assert_eq!(
        lab.peer(relay, PEER, b"x").map(|sent| sent.bytes),
        Some(b"\x40\0\0\x01x".to_vec())
    );
}

#[test]
fn permissions_of_one_allocation_are_not_those_of_another() {
    let mut lab = Lab::new();
    let (one, two) = (datagrams(HERE), datagrams("198.51.100.7:1"));
    let (login, ..) = lab.allocation(one);
    let (_, relay, _) = lab.allocation(two);
    assert_eq!(lab.permit(one, &login, &[PEER]), 0);
    assert_eq!((lab.send(two, PEER, b"x"), lab.peer(relay, PEER, b"x")), (None, None));
}

#[test]
fn the_address_matrix_is_refused_by_every_method() {
    for client in [datagrams(HERE), stream(1, HERE)] {
        let mut lab = Lab::with(|turn| turn.peers.clear());
        let login = lab.login(client, ALICE);
        let request = lab.allocate().additional(Family::V6).signed(&login);
        assert_eq!(lab.client(client, &request), None);
        let relays = lab.binds();
        for (relay, at) in &relays {
            lab.bound(*relay, Ok(*at));
        }
        for text in policy::tests::MATRIX {
            let address = text.parse().expect("an address");
            for port in [0, 80, 3478, 30_000] {
                let peer = SocketAddr::new(address, port).to_string();
                assert_eq!(lab.permit(client, &login, &[&peer]), 403, "{peer}");
                assert_eq!(lab.bind(client, &login, 0x4000, &peer), 403, "{peer}");
                assert_eq!(lab.send(client, &peer, b"x"), None, "{peer}");
                for (relay, _) in &relays {
                    assert_eq!(lab.peer(*relay, &peer, b"x"), None, "{peer}");
                }
            }
        }
    }
}
