//! Does the TURN server relay what it should, and nothing else? Over every transport, with clients of others.

use std::{
    collections::BTreeSet,
    io::Write as _,
    iter,
    net::SocketAddr,
    time::{Duration, Instant},
};

use edgeward_tests::{
    deadline,
    peers::{
        ip_witness::{IpWitness, Seen},
        stream::Stream,
        stun::{self, Class, Message, RawClient, attribute, channel_data, method},
        turn_client::{Credentials, TurnClient},
        udp_peer::UdpPeer,
    },
    scene::{ALICE, ASTERISK, CONFIG, SECRETS, Scene},
};
use socket2::SockRef;

/// A request to allocate.
fn allocate() -> Message {
    Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::UDP)
}

fn permission(peer: SocketAddr) -> Message {
    Message::request(method::CREATE_PERMISSION).with_peer(peer)
}

fn bind(channel: u16, peer: SocketAddr) -> Message {
    let number = [channel.to_be_bytes(), [0; 2]].concat();
    Message::request(method::CHANNEL_BIND)
        .with(attribute::CHANNEL_NUMBER, number)
        .with_peer(peer)
}

/// Asks by a Binding request that is answered only after everything sent before it was looked at.
fn settle(client: &RawClient) {
    let answer = client.ask(&Message::request(method::BINDING));
    assert_eq!(answer.class, Class::Success);
}

#[test]
fn media_is_relayed_over_every_transport() {
    let scene = Scene::new();
    for (transport, mut client) in scene.turn_clients() {
        let relayed = client.allocate().expect(transport);
        assert_eq!(relayed.ip(), scene.site.host(1), "{transport}");
        assert!((30_000..=30_099).contains(&relayed.port()), "{transport}: {relayed}");
        let peer = UdpPeer::bind(scene.site.at(120, 20_000));
        client.permit(peer.address().ip()).expect(transport);
        for channel in [false, true] {
            if channel {
                client.bind(peer.address()).expect(transport);
            }
            // Lengths around the padding of ChannelData and attributes, and one above a usual MTU.
            for length in [1, 2, 3, 4, 5, 160, 1200, 4000] {
                let payload = vec![u8::try_from(length % 251).expect("small"); length];
                client.send(peer.address(), &payload);
                assert_eq!(
                    peer.receive(),
                    (payload.clone(), relayed),
                    "{transport}, {length} bytes out"
                );
                peer.send(relayed, &payload);
                assert_eq!(
                    client.receive_from(peer.address()),
                    payload,
                    "{transport}, {length} bytes in"
                );
            }
        }
        client.delete();
    }
}

#[test]
fn allocations_outlive_their_lifetime_when_they_are_refreshed() {
    let scene = Scene::new();
    for (transport, mut client) in scene.turn_clients() {
        let relayed = client.allocate().expect(transport);
        let peer = UdpPeer::bind(scene.site.at(120, 20_001));
        client.bind(peer.address()).expect(transport);
        client.advance(Duration::from_secs(1300));
        client.send(peer.address(), b"still there");
        assert_eq!(peer.receive(), (b"still there".to_vec(), relayed), "{transport}");
    }
}

#[test]
fn a_deleted_allocation_relays_nothing() {
    let scene = Scene::new();
    let mut client = scene.raw_turn(100);
    let relayed = client.allocate();
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    assert_eq!(client.ask_signed(bind(0x4000, peer.address())).class, Class::Success);
    let refresh = Message::request(method::REFRESH).with(attribute::LIFETIME, [0; 4]);
    assert_eq!(client.ask_signed(refresh).class, Class::Success);
    client
        .socket()
        .send(&channel_data(0x4000, b"after the end"))
        .expect("sent");
    peer.send(relayed, b"after the end");
    settle(&client);
    // Another client gets through, and its datagram is the first that the peer sees.
    let mut other = scene.allocated(101);
    other.bind(peer.address()).expect("a channel");
    other.send(peer.address(), b"alive");
    assert_eq!(peer.receive().0, b"alive");
    assert_eq!(
        client.ask_signed(Message::request(method::REFRESH)).error_code(),
        Some(437)
    );
}

#[test]
fn two_relayed_clients_reach_each_other() {
    let scene = Scene::new();
    for (transport, mut one) in scene.turn_clients() {
        let mut other = scene.allocated(110);
        let here = one.allocate().expect(transport);
        let there = other.relayed().expect("an allocation");
        one.bind(there).expect(transport);
        other.bind(here).expect(transport);
        one.send(there, b"ping");
        assert_eq!(other.receive_from(here), b"ping", "{transport}");
        other.send(here, b"pong");
        assert_eq!(one.receive_from(there), b"pong", "{transport}");
    }
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let scene = Scene::new();
    let mut client = scene.allocated(100);
    let relayed = client.relayed().expect("an allocation");
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    client.bind(peer.address()).expect("a channel");
    // Trains of equal lengths, as the kernel likes them, and lengths that break a train.
    let packets: Vec<Vec<u8>> = (0..400u32)
        .map(|number| {
            let length = if number % 50 == 49 { 100 + number as usize } else { 172 };
            let mut packet = number.to_be_bytes().to_vec();
            packet.resize(length, 7);
            packet
        })
        .collect();
    for burst in packets.chunks(100) {
        for packet in burst {
            client.send(peer.address(), packet);
        }
        for packet in burst {
            assert_eq!(peer.receive(), (packet.clone(), relayed));
        }
        for packet in burst {
            peer.send(relayed, packet);
        }
        for packet in burst {
            assert_eq!(&client.receive_from(peer.address()), packet);
        }
    }
}

#[test]
fn dscp_and_ecn_go_along_and_df_where_the_client_says_so() {
    // RFC 8656 section 14.
    let scene = Scene::new();
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    let mut client = scene.raw_turn(100);
    let at = client.socket().local_addr().expect("a bound socket");
    let witnesses = (IpWitness::at(peer.address().ip()), IpWitness::at(at.ip()));
    let (Some(mut at_peer), Some(mut at_client)) = witnesses else {
        return;
    };
    let relayed = client.allocate();
    assert_eq!(client.ask_signed(bind(0x4000, peer.address())).class, Class::Success);
    let seen = |tos, dont_fragment, payload: &[u8]| Seen {
        tos,
        dont_fragment,
        // Whatever the sender's was: it is an address of this host that sends here.
        ttl: 64,
        payload: payload.to_vec(),
    };
    SockRef::from(client.socket()).set_ttl_v4(9).expect("an option");
    for tos in [0, 0xb8, 0x02, 0xbb] {
        SockRef::from(client.socket())
            .set_tos_v4(tos.into())
            .expect("an option");
        let port = peer.address().port();
        // Linux sends this with DF, which nobody can see who receives it: "always assume the incoming DF bit is 0".
        client.socket().send(&channel_data(0x4000, b"channel")).expect("sent");
        assert_eq!(at_peer.see(port), seen(tos, false, b"channel"));
        let send = Message::indication(method::SEND)
            .with_peer(peer.address())
            .with(attribute::DATA, *b"send");
        let whole = send.clone().with(attribute::DONT_FRAGMENT, []);
        for (message, dont_fragment) in [(&whole, true), (&send, false)] {
            client.socket().send(&message.encode()).expect("sent");
            assert_eq!(at_peer.see(port), seen(tos, dont_fragment, b"send"));
        }
        peer.mark(tos);
        peer.send(relayed, b"down");
        let expected = channel_data(0x4000, b"down");
        let mut down = iter::repeat_with(|| at_client.see(at.port())).skip_while(|seen| seen.payload != expected);
        assert_eq!(down.next(), Some(seen(tos, false, &expected)));
    }
}

#[test]
fn a_closed_port_is_told_by_its_icmp_message() {
    let scene = Scene::new();
    let mut client = scene.raw_turn(100);
    client.allocate();
    let gone = UdpPeer::bind(scene.site.at(120, 20_000)).address();
    assert_eq!(client.ask_signed(permission(gone)).class, Class::Success);
    let send = Message::indication(method::SEND)
        .with_peer(gone)
        .with(attribute::DATA, *b"anybody?");
    client.socket().send(&send.encode()).expect("sent");
    let told = client.receive(deadline()).and_then(|bytes| Message::decode(&bytes));
    let told = told.expect("an indication");
    assert_eq!((told.class, told.method), (Class::Indication, method::DATA));
    assert_eq!(told.address(attribute::XOR_PEER_ADDRESS), Some(gone));
    // RFC 792: "destination unreachable", for a port.
    assert_eq!(
        told.attribute(attribute::ICMP),
        Some([0, 0, 3, 3, 0, 0, 0, 0].as_slice())
    );
    assert_eq!(told.attribute(attribute::DATA), None);
}

#[test]
fn clients_of_every_shard_are_served() {
    let scene = Scene::new();
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    let mut clients: Vec<TurnClient> = (130..154).map(|client| scene.allocated(client)).collect();
    let relayed: BTreeSet<SocketAddr> = clients.iter().filter_map(TurnClient::relayed).collect();
    assert_eq!(relayed.len(), clients.len());
    for client in &mut clients {
        client.bind(peer.address()).expect("a channel");
        client.send(peer.address(), b"hello");
        let (_, from) = peer.receive();
        assert_eq!(Some(from), client.relayed());
        peer.send(from, b"world");
        assert_eq!(client.receive_from(peer.address()), b"world");
    }
}

#[test]
fn ephemeral_credentials_are_good_until_they_expire() {
    let scene = Scene::new();
    let mut client = 100;
    let mut check = |credentials: Credentials, expected: Option<u16>| {
        client += 1;
        let mut raw = RawClient::new(
            scene.client(client),
            scene.turn(),
            &credentials.user,
            &credentials.password,
        );
        assert_eq!(
            raw.ask_signed(allocate()).error_code(),
            expected,
            "{}",
            credentials.user
        );
    };
    check(Credentials::rest(SECRETS[0], "bob", 60), None);
    check(Credentials::rest(SECRETS[1], "bob", 60), None);
    // Far beyond what 32 bits hold.
    check(Credentials::rest(SECRETS[0], "bob", 10_000_000_000), None);
    check(Credentials::rest(SECRETS[0], "bob", -10), Some(401));
    check(Credentials::rest("a secret of somebody else", "bob", 60), Some(401));
    check(Credentials::new(ALICE.0, ALICE.1), None);
    check(Credentials::new(ALICE.0, ASTERISK.1), Some(401));
    check(Credentials::new("nobody", ALICE.1), Some(401));
    check(Credentials::new("", ""), Some(401));
}

#[test]
fn a_static_user_comes_from_where_it_may() {
    let scene = Scene::new();
    let from = |host| RawClient::new(scene.client(host), scene.turn(), ASTERISK.0, ASTERISK.1);
    assert_eq!(from(3).ask_signed(allocate()).class, Class::Success);
    assert_eq!(from(100).ask_signed(allocate()).class, Class::Error);
}

#[test]
fn peers_are_allowed_by_address_and_port() {
    let scene = Scene::new();
    let mut client = scene.raw_turn(100);
    client.allocate();
    let refused = [
        // Ports of the mediaserver that are not for media, and the web server.
        scene.site.at(3, 5060),
        scene.site.at(3, 443),
        scene.site.at(2, 8080),
        scene.site.at(120, 19_999),
        scene.site.at(120, 20_100),
        // The services of the edge itself, also where its relay ports are allowed.
        scene.https(),
        scene.turn(),
        scene.sip(),
        scene.site.at(1, 22),
        "127.0.0.1:80".parse().expect("an address"),
        "0.0.0.0:80".parse().expect("an address"),
        "10.0.0.1:10000".parse().expect("an address"),
        "169.254.169.254:80".parse().expect("an address"),
        "224.0.0.1:5000".parse().expect("an address"),
        "255.255.255.255:5000".parse().expect("an address"),
        "192.0.2.1:5000".parse().expect("an address"),
        "8.8.8.8:53".parse().expect("an address"),
    ];
    for (channel, peer) in (0x4000..).zip(refused) {
        let answer = client.ask_signed(bind(channel, peer));
        assert_eq!(answer.error_code(), Some(403), "{peer}");
    }
    let allowed = [
        scene.site.at(3, 10_000),
        scene.site.at(4, 10_099),
        scene.site.at(120, 20_050),
    ];
    for (channel, peer) in (0x4100..).zip(allowed) {
        let answer = client.ask_signed(bind(channel, peer));
        assert_eq!(answer.class, Class::Success, "{peer}: {:?}", answer.error_code());
    }
    // A permission is for an address (RFC 8656 section 9), and yet opens none of its other ports.
    let secret = UdpPeer::bind(scene.site.at(120, 25_000));
    let open = UdpPeer::bind(scene.site.at(120, 20_000));
    assert_eq!(client.ask_signed(permission(secret.address())).class, Class::Success);
    for to in [secret.address(), open.address()] {
        let indication = Message::indication(method::SEND)
            .with_peer(to)
            .with(attribute::DATA, *b"knock");
        client.socket().send(&indication.encode()).expect("sent");
    }
    assert_eq!(open.receive().0, b"knock");
    assert!(secret.receive_until(Instant::now()).is_none());
}

#[test]
fn nothing_passes_without_a_permission() {
    let scene = Scene::new();
    let mut client = scene.raw_turn(100);
    let relayed = client.allocate();
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    let send = Message::indication(method::SEND).with_peer(peer.address());
    client
        .socket()
        .send(&send.with(attribute::DATA, *b"early").encode())
        .expect("sent");
    client.socket().send(&channel_data(0x4000, b"early")).expect("sent");
    peer.send(relayed, b"early");
    settle(&client);
    assert_eq!(client.ask_signed(bind(0x4000, peer.address())).class, Class::Success);
    client.socket().send(&channel_data(0x4000, b"now")).expect("sent");
    assert_eq!(peer.receive().0, b"now");
    peer.send(relayed, b"now");
    let datagram = client.receive(deadline()).expect("a datagram");
    assert_eq!(&datagram[..7], channel_data(0x4000, b"now"));
}

#[test]
fn requests_are_refused_as_the_rfc_says() {
    let scene = Scene::new();
    let mut client = scene.raw_turn(100);

    // RFC 8489 section 9.2.4: no credentials, and a nonce that is not ours.
    let challenge = client.ask(&allocate());
    assert_eq!(challenge.error_code(), Some(401));
    assert!(challenge.attribute(attribute::MESSAGE_INTEGRITY).is_none());
    assert_eq!(challenge.attribute(attribute::REALM), Some(b"edge.test".as_slice()));
    let forged = Message {
        attributes: vec![
            (attribute::REALM, b"edge.test".to_vec()),
            (attribute::NONCE, b"forged".to_vec()),
        ],
        ..challenge
    };
    client.take_challenge(&forged);
    let stale = client.ask_signed(allocate());
    assert_eq!(stale.error_code(), Some(438));
    client.take_challenge(&stale);

    // RFC 8656 section 7.2.
    let without = Message::request(method::ALLOCATE);
    assert_eq!(client.ask_signed(without).error_code(), Some(400));
    let tcp = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, [6, 0, 0, 0]);
    assert_eq!(client.ask_signed(tcp).error_code(), Some(442));
    let unknown = allocate().with(0x7ff0, [1, 2, 3, 4]);
    let unknown = client.ask_signed(unknown);
    assert_eq!(unknown.error_code(), Some(420));
    assert_eq!(
        unknown.attribute(attribute::UNKNOWN_ATTRIBUTES),
        Some([0x7f, 0xf0].as_slice())
    );
    let peer = scene.site.at(120, 20_000);
    for request in [permission(peer), bind(0x4000, peer), Message::request(method::REFRESH)] {
        assert_eq!(client.ask_signed(request).error_code(), Some(437));
    }
    let even = allocate().with(attribute::EVEN_PORT, [0x00]);
    let answer = client.ask_signed(even);
    let relayed = answer
        .address(attribute::XOR_RELAYED_ADDRESS)
        .expect("a relayed address");
    assert_eq!(relayed.port() % 2, 0);
    assert_eq!(client.ask_signed(allocate()).error_code(), Some(437));

    // RFC 8656 section 11.2.
    for channel in [0x3fff, 0x5000, 0x7fff, 0xffff] {
        assert_eq!(
            client.ask_signed(bind(channel, peer)).error_code(),
            Some(400),
            "{channel:#x}"
        );
    }
    assert_eq!(client.ask_signed(bind(0x4fff, peer)).class, Class::Success);
    assert_eq!(client.ask_signed(bind(0x4fff, peer)).class, Class::Success);
    assert_eq!(client.ask_signed(bind(0x4ffe, peer)).error_code(), Some(400));
    let other = scene.site.at(120, 20_001);
    assert_eq!(client.ask_signed(bind(0x4fff, other)).error_code(), Some(400));
    assert_eq!(
        client
            .ask_signed(Message::request(method::CREATE_PERMISSION))
            .error_code(),
        Some(400)
    );
}

#[test]
fn an_allocation_belongs_to_its_user() {
    let scene = Scene::new();
    let mut client = scene.raw_turn(100);
    client.allocate();
    client.sign_as(ASTERISK.0, ASTERISK.1);
    let answer = client.ask_signed(permission(scene.site.at(120, 20_000)));
    assert!(
        matches!(answer.error_code(), Some(401 | 441)),
        "{:?}",
        answer.error_code()
    );
    let rest = Credentials::rest(SECRETS[0], "bob", 60);
    client.sign_as(&rest.user, &rest.password);
    let answer = client.ask_signed(permission(scene.site.at(120, 20_000)));
    assert_eq!(answer.error_code(), Some(441));
}

#[test]
fn a_user_and_the_range_of_ports_have_an_end() {
    let config = CONFIG
        .replace("relay_ports = \"30000-30099\"", "relay_ports = \"30000-30002\"")
        .replace("workers = 3", "workers = 1");
    let scene = Scene::with(&config);
    let mut clients: Vec<RawClient> = (100..103).map(|client| scene.raw_turn(client)).collect();
    let ports: BTreeSet<u16> = clients.iter_mut().map(|client| client.allocate().port()).collect();
    assert_eq!(ports, BTreeSet::from([30_000, 30_001, 30_002]));
    assert_eq!(scene.raw_turn(104).ask_signed(allocate()).error_code(), Some(508));

    let limited = CONFIG.to_owned() + "\n[turn.limits]\nallocations_per_user_max = 1\n";
    let scene = Scene::with(&limited.replace("workers = 3", "workers = 1"));
    let mut first = scene.raw_turn(100);
    first.allocate();
    assert_eq!(scene.raw_turn(101).ask_signed(allocate()).error_code(), Some(486));
    let refresh = Message::request(method::REFRESH).with(attribute::LIFETIME, [0; 4]);
    assert_eq!(first.ask_signed(refresh).class, Class::Success);
    assert_eq!(scene.raw_turn(101).ask_signed(allocate()).class, Class::Success);
}

#[test]
fn who_proves_nothing_is_answered_a_few_times_a_second() {
    let scene = Scene::with(&CONFIG.replace("workers = 3", "workers = 1"));
    let noisy = scene.raw_turn(100);
    for _ in 0..100 {
        noisy.socket().send(&allocate().encode()).expect("sent");
    }
    // One shard answers in order: when somebody else has his answer, these have had theirs.
    settle(&scene.raw_turn(101));
    let mut answers = 0;
    while noisy.receive(Instant::now() + Duration::from_millis(1)).is_some() {
        answers += 1;
    }
    assert!((1..50).contains(&answers), "{answers} answers to 100 requests");
}

#[test]
fn a_client_that_does_not_read_costs_no_memory() {
    let scene = Scene::new();
    let credentials = Credentials::new(ALICE.0, ALICE.1);
    let mut deaf = TurnClient::tcp(scene.client(100), scene.turn(), &credentials);
    let relayed = deaf.allocate().expect("an allocation");
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    deaf.bind(peer.address()).expect("a channel");
    let mut other = scene.allocated(101);
    other.bind(peer.address()).expect("a channel");
    let there = other.relayed().expect("an allocation");
    let before = scene.edge.process().resident_kib();
    for _ in 0..200 {
        for _ in 0..100 {
            peer.send(relayed, &[7; 1200]);
        }
        // Keeps pace with the edge, and shows that nobody else waits.
        peer.send(there, b"tick");
        assert_eq!(other.receive_from(peer.address()), b"tick");
    }
    let grown = scene.edge.process().resident_kib().saturating_sub(before);
    assert!(grown < 8_000, "{grown} KiB more after 24 MB that nobody reads");
}

#[test]
fn a_stream_without_an_allocation_is_let_go() {
    let scene = Scene::with(&(CONFIG.to_owned() + "\n[turn.limits]\nstream_idle_secs = 1\n"));
    let mut silent = Stream::connect(scene.client(100), scene.turn()).expect("a connection");
    let mut asked = Stream::connect(scene.client(101), scene.turn()).expect("a connection");
    asked
        .write_all(&Message::request(method::BINDING).encode())
        .expect("sent");
    let credentials = Credentials::new(ALICE.0, ALICE.1);
    let mut allocated = TurnClient::tcp(scene.client(102), scene.turn(), &credentials);
    allocated.allocate().expect("an allocation");
    assert!(silent.read_to_close(deadline()).is_empty());
    assert!(!asked.read_to_close(deadline()).is_empty());
    // With an allocation, silence is golden.
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    allocated.bind(peer.address()).expect("a channel");
}

#[test]
fn everybody_learns_his_address() {
    let scene = Scene::new();
    let client = scene.raw_turn(100);
    let answer = client.ask(&Message::request(method::BINDING));
    let own = client.socket().local_addr().expect("a bound socket");
    assert_eq!(answer.address(attribute::XOR_MAPPED_ADDRESS), Some(own));
}

#[test]
fn datagrams_that_cannot_be_read_are_dropped() {
    let scene = Scene::new();
    let client = scene.raw_turn(100);
    let binding = Message::request(method::BINDING).encode();
    let mut longer = binding.clone();
    longer[3] = 200;
    let mut cookie = binding.clone();
    cookie[4] = 0;
    let garbage: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0xff; 1400],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"INVITE sip:x@y SIP/2.0\r\n\r\n".to_vec(),
        binding[..19].to_vec(),
        longer,
        cookie,
        vec![0x40; 3],
        [&[0x40, 0x00, 0xff, 0xff][..], &[0; 10]].concat(),
        vec![0x16, 3, 1, 0, 200],
        vec![0x80; 200],
    ];
    for datagram in &garbage {
        client.socket().send(datagram).expect("sent");
    }
    // Answers come in order, so the first one is the answer to what could be read.
    let asked = Message::request(method::BINDING);
    client.socket().send(&asked.encode()).expect("sent");
    let answer = client.receive(deadline()).expect("an answer");
    let answer = Message::decode(&answer).expect("a STUN message");
    assert_eq!(answer.transaction, asked.transaction);
}

#[test]
fn messages_on_a_stream_are_found_however_they_are_split() {
    let scene = Scene::new();
    let mut stream = Stream::connect(scene.client(100), scene.turn()).expect("a connection");
    let requests: Vec<Message> = (0..3).map(|_| Message::request(method::BINDING)).collect();
    for byte in requests[0].encode() {
        stream.write_all(&[byte]).expect("sent");
    }
    let together: Vec<u8> = requests[1..].iter().flat_map(Message::encode).collect();
    stream.write_all(&together).expect("sent");
    let mut read = Vec::new();
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let mut buffer = [0; 1000];
        let length = stream.read_until(deadline(), &mut buffer).expect("an answer");
        assert!(length > 0, "the connection was closed");
        read.extend_from_slice(&buffer[..length]);
        while read.len() >= 20 && read.len() >= 20 + usize::from(u16::from_be_bytes([read[2], read[3]])) {
            let length = 20 + usize::from(u16::from_be_bytes([read[2], read[3]]));
            let message: Vec<u8> = read.drain(..length).collect();
            answers.push(Message::decode(&message).expect("a STUN message").transaction);
        }
    }
    let asked: Vec<[u8; 12]> = requests.iter().map(|request| request.transaction).collect();
    assert_eq!(answers, asked);
}

#[test]
fn a_stream_that_breaks_the_protocol_is_closed() {
    let scene = Scene::new();
    let broken: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        &[0xff; 64],
        // A STUN header without the magic cookie.
        &[0, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // A channel number that is none.
        &[0x50, 0x00, 0x00, 0x04, 1, 2, 3, 4],
    ];
    for (client, bytes) in (100..).zip(broken) {
        let mut stream = Stream::connect(scene.client(client), scene.turn()).expect("a connection");
        stream.write_all(bytes).expect("sent");
        stream.read_to_close(deadline());
    }
    assert!(scene.allocated(110).relayed().is_some());
}
