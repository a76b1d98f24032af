//! RFC 5780: from where an answer comes and where it goes, and that nobody is flooded by it.

use super::*;
use crate::config::Square;

const HERE: &str = "198.51.100.7:40000";

/// In the order of the configuration, which is not that of the corners.
const SOCKETS: [&str; 5] = [
    "192.0.2.11:3479",
    "192.0.2.10:3478",
    "[2001:db8::10]:3478",
    "192.0.2.10:3479",
    "192.0.2.11:3478",
];

fn lab() -> Lab {
    Lab::with(|turn| {
        turn.listen_udp = SOCKETS.into_iter().map(address).collect();
        turn.discovery = Square::of(&turn.listen_udp, true).into_iter().collect();
    })
}

/// A client at one of the sockets.
fn at(socket: u16, peer: &str) -> Client {
    Client::Datagram {
        socket: SocketId::Turn(socket),
        peer: address(peer),
        local: None,
    }
}

fn place(address: &str) -> u16 {
    let place = SOCKETS.iter().position(|socket| *socket == address);
    place.expect("a socket") as u16
}

fn plain_address(reply: &Reply, kind: Kind) -> Option<SocketAddr> {
    // RFC 8489 section 14.2: XORed with nothing, it is MAPPED-ADDRESS.
    let mut value = reply.value(kind)?;
    for (byte, mask) in value[2..8].iter_mut().zip([0x21, 0x12, 0x21, 0x12, 0xa4, 0x42]) {
        *byte ^= mask;
    }
    read_address(&value, TransactionId([0; 12]))
}

#[test]
fn four_addresses_make_a_square_or_none() {
    let check = |text: &str, is_ipv4, expected: Option<[u16; 4]>| {
        let listen: Vec<SocketAddr> = text.split_whitespace().map(address).collect();
        assert_eq!(Square::of(&listen, is_ipv4), expected.map(Square), "{text}");
    };
    check(&SOCKETS.join(" "), true, Some([1, 3, 4, 0]));
    check(&SOCKETS.join(" "), false, None);
    check("10.0.0.1:1 10.0.0.1:2 10.0.0.2:1 10.0.0.2:2", true, Some([0, 1, 2, 3]));
    check("[::1]:1 [::1]:2 [::2]:1 [::2]:2 10.0.0.1:1", false, Some([0, 1, 2, 3]));
    for text in [
        "",
        "10.0.0.1:1 10.0.0.1:2",
        "10.0.0.1:1 10.0.0.1:2 10.0.0.2:1 10.0.0.2:3",
        "10.0.0.1:1 10.0.0.1:2 10.0.0.2:3 10.0.0.2:4",
        "10.0.0.1:1 10.0.0.2:1 10.0.0.3:1 10.0.0.4:1",
        "10.0.0.1:1 10.0.0.1:2 10.0.0.1:3 10.0.0.1:4",
        "10.0.0.1:1 10.0.0.1:2 10.0.0.2:1 10.0.0.2:2 10.0.0.3:1",
        "0.0.0.0:1 0.0.0.0:2 10.0.0.2:1 10.0.0.2:2",
    ] {
        check(text, true, None);
    }
}

#[test]
fn table_1_of_rfc5780() {
    let check = |arrived: &str, flags: u32, source: &str, other: &str| {
        let mut lab = lab();
        let draft = lab.draft(Method::BINDING);
        let request = draft.raw(Kind::CHANGE_REQUEST, &flags.to_be_bytes()).plain();
        let sent = lab.client(at(place(arrived), HERE), &request).expect("an answer");
        let expected = To::Datagram {
            socket: SocketId::Turn(place(source)),
            peer: address(HERE),
            local: None,
        };
        assert_eq!(sent.to, expected, "{arrived} {flags}");
        let reply = Reply::read(sent.bytes);
        assert_eq!(reply.class(), Class::Success);
        assert_eq!(reply.addresses(Kind::XOR_MAPPED_ADDRESS), [address(HERE)]);
        assert_eq!(plain_address(&reply, Kind::MAPPED_ADDRESS), Some(address(HERE)));
        assert_eq!(plain_address(&reply, Kind::RESPONSE_ORIGIN), Some(address(source)));
        assert_eq!(plain_address(&reply, Kind::OTHER_ADDRESS), Some(address(other)));
    };
    let (a1p1, a1p2, a2p1, a2p2) = (
        "192.0.2.10:3478",
        "192.0.2.10:3479",
        "192.0.2.11:3478",
        "192.0.2.11:3479",
    );
    for (da_dp, ca_dp, da_cp, ca_cp) in [
        (a1p1, a2p1, a1p2, a2p2),
        (a1p2, a2p2, a1p1, a2p1),
        (a2p1, a1p1, a2p2, a1p2),
        (a2p2, a1p2, a2p1, a1p1),
    ] {
        check(da_dp, 0, da_dp, ca_cp);
        check(da_dp, 4, ca_dp, ca_cp);
        check(da_dp, 2, da_cp, ca_cp);
        check(da_dp, 6, ca_cp, ca_cp);
        // Other bits mean nothing.
        check(da_dp, !6, da_dp, ca_cp);
    }
}

#[test]
fn a_plain_binding_request_learns_of_the_other_address() {
    let mut lab = lab();
    let request = lab.draft(Method::BINDING).plain();
    let reply = lab.ask(at(1, HERE), &request).expect("an answer");
    assert_eq!(
        plain_address(&reply, Kind::OTHER_ADDRESS),
        Some(address("192.0.2.11:3479"))
    );
    assert_eq!(reply.value(Kind::PADDING), None);
    assert!(reply.bytes.len() <= 4 * request.len());
}

#[test]
fn response_port_is_where_the_answer_goes() {
    for value in [[0x13, 0x88].as_slice(), &[0x13, 0x88, 0, 0]] {
        let mut lab = lab();
        let request = lab.draft(Method::BINDING).raw(Kind::RESPONSE_PORT, value).plain();
        let sent = lab.client(at(1, HERE), &request).expect("an answer");
        let expected = To::Datagram {
            socket: SocketId::Turn(1),
            peer: address("198.51.100.7:5000"),
            local: None,
        };
        assert_eq!(sent.to, expected);
        // What is told is where the request came from.
        assert_eq!(
            Reply::read(sent.bytes).addresses(Kind::XOR_MAPPED_ADDRESS),
            [address(HERE)]
        );
    }
}

#[test]
fn padding_is_answered_with_padding_no_longer_than_it() {
    for (asked, answered) in [(0, 0), (5, 5), (1500, 1500), (1501, 1500), (60_000, 1500)] {
        let mut lab = lab();
        let request = lab
            .draft(Method::BINDING)
            .raw(Kind::PADDING, &vec![b'x'; asked])
            .plain();
        let reply = lab.ask(at(1, HERE), &request).expect("an answer");
        assert_eq!(reply.value(Kind::PADDING), Some(vec![0; answered]));
        assert!(reply.bytes.len() <= 4 * request.len());
    }
}

#[test]
fn what_rfc5780_forbids_is_a_bad_request() {
    let check = |items: &[(Kind, &[u8])]| {
        let mut lab = lab();
        let draft = lab.draft(Method::BINDING);
        let draft = items.iter().fold(draft, |draft, (kind, value)| draft.raw(*kind, value));
        let reply = lab.ask(at(1, HERE), &draft.plain()).expect("an answer");
        assert_eq!(reply.code(), 400, "{items:?}");
    };
    check(&[(Kind::RESPONSE_PORT, &[0x13, 0x88]), (Kind::PADDING, b"1234")]);
    check(&[(Kind::RESPONSE_PORT, &[0, 0])]);
    check(&[(Kind::RESPONSE_PORT, &[1])]);
    check(&[(Kind::CHANGE_REQUEST, &[0, 2])]);
}

#[test]
fn without_another_address_nothing_is_offered_or_understood() {
    let requests = [
        (Kind::CHANGE_REQUEST, [0, 0, 0, 6]),
        (Kind::RESPONSE_PORT, [0x13, 0x88, 0, 0]),
        (Kind::PADDING, *b"pads"),
    ];
    // It is off; the socket has no other; a connection cannot be answered from elsewhere.
    for (mut lab, client) in [
        (Lab::new(), datagrams(HERE)),
        (lab(), at(place("[2001:db8::10]:3478"), "[2001:db8::7]:4001")),
        (lab(), stream(1, HERE)),
    ] {
        let request = lab.draft(Method::BINDING).plain();
        let reply = lab.ask(client, &request).expect("an answer");
        let known = [Kind::OTHER_ADDRESS, Kind::RESPONSE_ORIGIN, Kind::MAPPED_ADDRESS];
        assert!(known.iter().all(|kind| reply.value(*kind).is_none()));
        for (kind, value) in requests {
            let request = lab.draft(Method::BINDING).raw(kind, &value).plain();
            let reply = lab.ask(client, &request).expect("an answer");
            assert_eq!(reply.code(), 420);
            assert_eq!(reply.value(Kind::UNKNOWN_ATTRIBUTES), Some(kind.0.to_be_bytes().into()));
        }
    }
    // They are for Binding requests only.
    let mut lab = lab();
    let (login, ..) = lab.allocation(at(1, HERE));
    let draft = lab.draft(Method::REFRESH).raw(Kind::CHANGE_REQUEST, &[0, 0, 0, 6]);
    assert_eq!(lab.code(at(1, HERE), &login, draft), 420);
}

#[test]
fn a_square_is_no_reflector() {
    // However they ask, and at however many sockets and ports, strangers of one address draw ten answers a second.
    let mut lab = lab();
    let requests = [
        lab.draft(Method::BINDING).plain(),
        lab.draft(Method::BINDING)
            .raw(Kind::CHANGE_REQUEST, &[0, 0, 0, 6])
            .plain(),
        lab.draft(Method::BINDING).raw(Kind::RESPONSE_PORT, &[0, 53]).plain(),
        lab.draft(Method::BINDING).raw(Kind::PADDING, &[0; 1500]).plain(),
    ];
    let mut answers = 0;
    for n in 0..1000_u16 {
        let client = at([0, 1, 3, 4][usize::from(n) % 4], &format!("198.51.100.7:{}", 1000 + n));
        for request in &requests {
            answers += usize::from(lab.client(client, request).is_some());
        }
    }
    assert_eq!(answers, 10);
}
