//! RFC 8656 section 7: what a client gets, and when it gets nothing.

use super::*;

const HERE: &str = "198.51.100.7:40000";

/// The families and codes in ADDRESS-ERROR-CODE.
fn missing(reply: &Reply) -> Option<(u8, u16)> {
    let value = reply.value(Kind::ADDRESS_ERROR_CODE)?;
    Some((value[0], u16::from(value[2]) * 100 + u16::from(value[3])))
}

#[test]
fn an_allocation_is_made_and_carries_data() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, relayed) = lab.allocation(client);
    assert_eq!(relayed.ip(), address("192.0.2.10:0").ip());
    assert_eq!(lab.permit(client, &login, &["203.0.113.1:0"]), 0);
    let sent = lab.send(client, "203.0.113.1:5000", b"hello").expect("relayed");
    let to = To::Datagram {
        socket: SocketId::Relay(relay),
        peer: address("203.0.113.1:5000"),
        local: None,
    };
    assert_eq!((sent.to, sent.bytes.as_slice()), (to, b"hello".as_slice()));
    let sent = lab.peer(relay, "203.0.113.1:5000", b"world").expect("relayed");
    let reply = Reply::read(sent.bytes);
    assert_eq!(reply.value(Kind::DATA).as_deref(), Some(b"world".as_slice()));
    assert_eq!(lab.bind(client, &login, 0x4000, "203.0.113.1:5000"), 0);
    let sent = lab.channel(client, 0x4000, b"hi").expect("relayed");
    assert_eq!((sent.to, sent.bytes.as_slice()), (to, b"hi".as_slice()));
    let sent = lab.peer(relay, "203.0.113.1:5000", b"ho").expect("relayed");
    assert_eq!(sent.bytes, b"\x40\x00\x00\x02ho");
    assert_eq!(lab.refresh(client, &login, 0), 0);
    assert_eq!(
        (lab.closed.as_slice(), lab.server.allocations()),
        ([relay].as_slice(), 0)
    );
    let stats = lab.stats.turn;
    assert_eq!((stats.allocated, stats.released, stats.dropped), (1, 1, 0));
    assert_eq!(
        (
            stats.to_peer,
            stats.to_peer_bytes,
            stats.to_client,
            stats.to_client_bytes
        ),
        (2, 7, 2, 7)
    );
}

#[test]
fn the_answer_says_what_was_allocated() {
    for client in [datagrams(HERE), datagrams("[2001:db8::7]:40000"), stream(1, HERE)] {
        let mut lab = Lab::new();
        let login = lab.login(client, ALICE);
        let request = lab.allocate().signed(&login);
        let reply = lab.ask(client, &request).expect("an answer");
        assert!(reply.class() == Class::Success && reply.is_signed_by(&login));
        let relayed = reply.addresses(Kind::XOR_RELAYED_ADDRESS);
        assert_eq!(relayed.len(), 1);
        assert!((30_000..=30_099).contains(&relayed[0].port()));
        assert_eq!(reply.addresses(Kind::XOR_MAPPED_ADDRESS), [client.source()]);
        assert_eq!(reply.u32(Kind::LIFETIME), Some(600));
        assert_eq!((reply.value(Kind::RESERVATION_TOKEN), missing(&reply)), (None, None));
    }
}

#[test]
fn the_advertised_address_is_told_and_the_other_one_bound() {
    let mut lab = Lab::with(|turn| turn.relays[0].bind = "10.9.9.9".parse().expect("an address"));
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let request = lab.allocate().signed(&login);
    assert_eq!(lab.client(client, &request), None);
    let (relay, at) = lab.binds()[0];
    assert_eq!(at.ip(), address("10.9.9.9:0").ip());
    let reply = Reply::read(lab.bound(relay, Ok(at)).expect("an answer").bytes);
    let expected = SocketAddr::new(address("192.0.2.10:0").ip(), at.port());
    assert_eq!(reply.addresses(Kind::XOR_RELAYED_ADDRESS), [expected]);
}

#[test]
fn a_retransmitted_allocate_is_answered_alike() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let request = lab.allocate().even_port(true).signed(&login);
    // While the socket is not bound, the answer is on its way.
    assert_eq!(
        (lab.client(client, &request), lab.client(client, &request)),
        (None, None)
    );
    let binds = lab.binds();
    assert_eq!(binds.len(), 1);
    let first = lab.bound(binds[0].0, Ok(binds[0].1)).expect("an answer");
    assert_eq!(lab.client(client, &request), Some(first.clone()));
    lab.pass(30);
    let later = Reply::read(lab.client(client, &request).expect("an answer").bytes);
    let first = Reply::read(first.bytes);
    assert_eq!(
        (first.u32(Kind::LIFETIME), later.u32(Kind::LIFETIME)),
        (Some(600), Some(570))
    );
    assert_eq!(
        first.value(Kind::RESERVATION_TOKEN),
        later.value(Kind::RESERVATION_TOKEN)
    );
    assert_eq!((lab.binds(), lab.server.allocations()), (vec![], 1));
}

#[test]
fn a_second_allocate_on_the_same_5_tuple_is_a_mismatch() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    let draft = lab.allocate();
    assert_eq!(lab.code(client, &login, draft.clone()), 437);
    // The same transaction of somebody else is not the same request.
    let login = lab.login(client, BOB);
    assert_eq!(lab.code(client, &login, draft), 437);
    assert_eq!(lab.server.allocations(), 1);
}

#[test]
fn every_part_of_the_5_tuple_counts() {
    let mut lab = Lab::new();
    let local = |last| Some([192, 0, 2, last].into());
    let clients = [
        (SocketId::Turn(0), HERE, local(1)),
        (SocketId::Turn(0), HERE, local(2)),
        (SocketId::Turn(1), HERE, local(1)),
        (SocketId::Turn(0), "198.51.100.7:40001", local(1)),
        (SocketId::Turn(0), "198.51.100.8:40000", local(1)),
    ];
    for (socket, peer, local) in clients {
        let peer = address(peer);
        lab.allocation(Client::Datagram { socket, peer, local });
    }
    lab.allocation(stream(1, HERE));
    lab.allocation(stream(2, HERE));
    assert_eq!(lab.server.allocations(), 7);
}

#[test]
fn requested_transport_is_udp_or_nothing() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let check = |lab: &mut Lab, value: Option<&[u8]>, code: u16| {
        let draft = lab.draft(Method::ALLOCATE);
        let draft = value.map_or(draft.clone(), |value| draft.raw(Kind::REQUESTED_TRANSPORT, value));
        assert_eq!(lab.code(client, &login, draft), code, "{value:?}");
    };
    check(&mut lab, None, 400);
    check(&mut lab, Some(&[17]), 400);
    check(&mut lab, Some(&[17, 0, 0, 0, 0]), 400);
    check(&mut lab, Some(&[6, 0, 0, 0]), 442);
    check(&mut lab, Some(&[0, 0, 0, 17]), 442);
    // What is reserved is ignored.
    check(&mut lab, Some(&[17, 1, 2, 3]), 0);
}

#[test]
fn dont_fragment_is_understood() {
    // RFC 8656 section 7.2: a server that could not set the DF bit would answer with a 420.
    let mut lab = Lab::new();
    for client in [datagrams(HERE), stream(1, HERE)] {
        let login = lab.login(client, ALICE);
        let draft = lab.allocate().raw(Kind::DONT_FRAGMENT, b"");
        assert_eq!(lab.code(client, &login, draft), 0);
    }
}

#[test]
fn lifetimes_lie_between_default_and_maximum() {
    let check = |max: u32, requested: Option<u32>, expected: u32| {
        let mut lab = Lab::with(|turn| turn.limits.lifetime_max_secs = max);
        let client = datagrams(HERE);
        let login = lab.login(client, ALICE);
        let draft = lab.allocate();
        let draft = requested.map_or(draft.clone(), |secs| draft.lifetime(secs));
        let reply = lab.ask(client, &draft.signed(&login)).expect("an answer");
        assert_eq!(reply.u32(Kind::LIFETIME), Some(expected), "{max} {requested:?}");
        lab.pass(u64::from(expected) - 1);
        let login = lab.login(client, ALICE);
        let draft = lab.draft(Method::REFRESH);
        let draft = requested.map_or(draft.clone(), |secs| draft.lifetime(secs));
        let reply = lab.ask(client, &draft.signed(&login)).expect("an answer");
        let expected = if requested == Some(0) { 0 } else { expected };
        assert_eq!(reply.u32(Kind::LIFETIME), Some(expected), "{max} {requested:?}");
    };
    check(3600, None, 600);
    check(3600, Some(0), 600);
    check(3600, Some(1), 600);
    check(3600, Some(600), 600);
    check(3600, Some(777), 777);
    check(3600, Some(3600), 3600);
    check(3600, Some(3601), 3600);
    check(3600, Some(u32::MAX), 3600);
    check(300, None, 300);
    check(300, Some(600), 300);
    let mut lab = Lab::new();
    let login = lab.login(datagrams(HERE), ALICE);
    let draft = lab.allocate().raw(Kind::LIFETIME, &[0, 0]);
    assert_eq!(lab.code(datagrams(HERE), &login, draft), 400);
}

#[test]
fn the_family_is_ipv4_unless_another_one_is_requested() {
    let both = |_: &mut config::Turn| ();
    let v4 = |turn: &mut config::Turn| turn.relays.truncate(1);
    let v6 = |turn: &mut config::Turn| _ = turn.relays.remove(0);
    let check = |edit: &dyn Fn(&mut config::Turn), family: Option<u8>, expected: Result<bool, u16>| {
        let mut lab = Lab::with(|turn| edit(turn));
        let client = datagrams(HERE);
        let login = lab.login(client, ALICE);
        let draft = lab.allocate();
        let draft = family.map_or(draft.clone(), |family| {
            draft.raw(Kind::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
        });
        let reply = lab.ask(client, &draft.signed(&login)).expect("an answer");
        assert_eq!(reply.code(), expected.err().unwrap_or(0), "{family:?}");
        let relayed = reply.addresses(Kind::XOR_RELAYED_ADDRESS);
        assert_eq!(relayed.first().map(SocketAddr::is_ipv6), expected.ok(), "{family:?}");
    };
    check(&both, None, Ok(false));
    check(&both, Some(1), Ok(false));
    check(&both, Some(2), Ok(true));
    check(&both, Some(3), Err(440));
    check(&v4, Some(2), Err(440));
    check(&v6, Some(2), Ok(true));
    check(&v6, Some(1), Err(440));
    // RFC 8656 section 7.2: without the attribute and without IPv4, 440 too.
    check(&v6, None, Err(440));
    let mut lab = Lab::new();
    let login = lab.login(datagrams(HERE), ALICE);
    let draft = lab.allocate().raw(Kind::REQUESTED_ADDRESS_FAMILY, &[1]);
    assert_eq!(lab.code(datagrams(HERE), &login, draft), 400);
}

#[test]
fn a_dual_allocation_has_an_address_of_each_family() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let request = lab.allocate().additional(Family::V6).signed(&login);
    let reply = lab.ask(client, &request).expect("an answer");
    let relayed = reply.addresses(Kind::XOR_RELAYED_ADDRESS);
    assert_eq!(
        relayed.iter().map(SocketAddr::is_ipv6).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!((missing(&reply), lab.server.allocations()), (None, 1));
}

#[test]
fn a_dual_allocation_may_be_half_of_one() {
    for (v6_only, expected) in [(false, (2, 440)), (true, (1, 440))] {
        let mut lab = Lab::with(|turn| _ = turn.relays.remove(usize::from(!v6_only)));
        let client = datagrams(HERE);
        let login = lab.login(client, ALICE);
        let request = lab.allocate().additional(Family::V6).signed(&login);
        let reply = lab.ask(client, &request).expect("an answer");
        assert_eq!(reply.addresses(Kind::XOR_RELAYED_ADDRESS).len(), 1);
        assert_eq!(missing(&reply), Some(expected));
    }
    // The sockets can be bound in any order, and each may fail.
    for (failing, first) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut lab = Lab::new();
        let client = datagrams(HERE);
        let login = lab.login(client, ALICE);
        let request = lab.allocate().additional(Family::V6).signed(&login);
        assert_eq!(lab.client(client, &request), None);
        let binds = lab.binds();
        let answer = |place: usize| {
            if place == failing {
                Err(BindError::Failed)
            } else {
                Ok(binds[place].1)
            }
        };
        assert_eq!(lab.bound(binds[first].0, answer(first)), None);
        let sent = lab.bound(binds[1 - first].0, answer(1 - first)).expect("an answer");
        let reply = Reply::read(sent.bytes);
        assert_eq!(reply.addresses(Kind::XOR_RELAYED_ADDRESS).len(), 1);
        assert_eq!(missing(&reply), Some((failing as u8 + 1, 508)));
        // It is told again when the request comes again.
        let again = lab.ask(client, &request).expect("an answer");
        assert_eq!(again.bytes, reply.bytes);
    }
    // Both fail: there is nothing to answer but that.
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let request = lab.allocate().additional(Family::V6).signed(&login);
    assert_eq!(lab.client(client, &request), None);
    let binds = lab.binds();
    assert_eq!(lab.bound(binds[0].0, Err(BindError::Failed)), None);
    let reply = Reply::read(lab.bound(binds[1].0, Err(BindError::Failed)).expect("an answer").bytes);
    assert_eq!((reply.code(), lab.server.allocations()), (508, 0));
}

#[test]
fn a_dual_allocation_may_find_the_ports_of_one_family_gone() {
    let mut lab = Lab::with(|turn| turn.relay_ports = 30_000..=30_000);
    let (one, two, three) = (
        datagrams(HERE),
        datagrams("198.51.100.7:1"),
        datagrams("198.51.100.7:2"),
    );
    lab.allocation(one);
    let login = lab.login(two, ALICE);
    let request = lab.allocate().additional(Family::V6).signed(&login);
    let reply = lab.ask(two, &request).expect("an answer");
    let relayed = reply.addresses(Kind::XOR_RELAYED_ADDRESS);
    assert_eq!(
        (relayed.len(), relayed[0].is_ipv6(), missing(&reply)),
        (1, true, Some((1, 508)))
    );
    // Then of both.
    let login = lab.login(three, ALICE);
    let draft = lab.allocate().additional(Family::V6);
    assert_eq!(lab.code(three, &login, draft), 508);
    assert_eq!(lab.server.allocations(), 2);
}

#[test]
fn attributes_that_contradict_each_other_are_a_bad_request() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let token = |draft: Draft| draft.raw(Kind::RESERVATION_TOKEN, &[0; 8]);
    let drafts: [&dyn Fn(Draft) -> Draft; 10] = [
        &|draft| token(draft).even_port(false),
        &|draft| token(draft).family(Family::V4),
        &|draft| token(draft).additional(Family::V6),
        &|draft| draft.family(Family::V4).additional(Family::V6),
        &|draft| draft.even_port(true).additional(Family::V6),
        &|draft| draft.additional(Family::V4),
        &|draft| draft.raw(Kind::ADDITIONAL_ADDRESS_FAMILY, &[3, 0, 0, 0]),
        &|draft| draft.raw(Kind::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0]),
        &|draft| draft.raw(Kind::EVEN_PORT, &[]),
        &|draft| draft.raw(Kind::RESERVATION_TOKEN, &[0; 7]),
    ];
    for (place, edit) in drafts.into_iter().enumerate() {
        let draft = edit(lab.allocate());
        assert_eq!(lab.code(client, &login, draft), 400, "{place}");
    }
    assert_eq!(lab.server.allocations(), 0);
}

#[test]
fn an_even_port_is_given_without_holding_the_next() {
    let mut lab = Lab::new();
    for port in 1..=20 {
        let client = datagrams(&format!("198.51.100.7:{port}"));
        let login = lab.login(client, ALICE);
        let request = lab.allocate().even_port(false).signed(&login);
        let reply = lab.ask(client, &request).expect("an answer");
        assert_eq!(reply.addresses(Kind::XOR_RELAYED_ADDRESS)[0].port() % 2, 0);
        assert_eq!(reply.value(Kind::RESERVATION_TOKEN), None);
        lab.pass(1);
    }
}

/// An allocation with an even port and a token for the next one.
fn reserve(lab: &mut Lab, client: Client, login: &Login) -> (u16, Vec<u8>) {
    let request = lab.allocate().even_port(true).signed(login);
    let reply = lab.ask(client, &request).expect("an answer");
    assert_eq!(reply.code(), 0);
    let port = reply.addresses(Kind::XOR_RELAYED_ADDRESS)[0].port();
    assert_eq!(port % 2, 0);
    (port, reply.value(Kind::RESERVATION_TOKEN).expect("a token"))
}

#[test]
fn the_next_port_is_held_for_its_token() {
    let mut lab = Lab::new();
    let (rtp, rtcp) = (datagrams(HERE), stream(1, "198.51.100.8:40001"));
    let login = lab.login(rtp, ALICE);
    let (port, token) = reserve(&mut lab, rtp, &login);
    lab.pass(30);
    let login = lab.login(rtcp, ALICE);
    let (_, relayed) = lab.allocated(rtcp, &login, |draft| draft.raw(Kind::RESERVATION_TOKEN, &token));
    assert_eq!(relayed.port(), port + 1);
    // Once.
    let draft = lab.allocate().raw(Kind::RESERVATION_TOKEN, &token);
    let third = datagrams("198.51.100.8:1");
    let login = lab.login(third, ALICE);
    assert_eq!(lab.code(third, &login, draft), 508);
}

#[test]
fn a_port_is_held_in_each_family_by_itself() {
    let mut lab = Lab::with(|turn| turn.relay_ports = 30_000..=30_001);
    let mut tokens = Vec::new();
    for (port, family) in [(1, Family::V4), (2, Family::V6)] {
        let client = datagrams(&format!("198.51.100.7:{port}"));
        let login = lab.login(client, ALICE);
        let request = lab.allocate().family(family).even_port(true).signed(&login);
        let reply = lab.ask(client, &request).expect("an answer");
        tokens.push((family, reply.value(Kind::RESERVATION_TOKEN).expect("a token")));
    }
    for (port, (family, token)) in (3..).zip(&tokens) {
        let client = datagrams(&format!("198.51.100.7:{port}"));
        let login = lab.login(client, ALICE);
        let (_, relayed) = lab.allocated(client, &login, |draft| draft.raw(Kind::RESERVATION_TOKEN, token));
        assert_eq!((Family::of(relayed.ip()), relayed.port()), (*family, 30_001));
    }
}

#[test]
fn a_token_is_for_its_user_and_its_time() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let (_, token) = reserve(&mut lab, client, &login);
    let other = datagrams("198.51.100.8:1");
    let mut check = |user, token: &[u8], secs: u64, code: u16| {
        lab.pass(secs);
        let login = lab.login(other, user);
        let draft = lab.allocate().raw(Kind::RESERVATION_TOKEN, token);
        assert_eq!(lab.code(other, &login, draft), code);
    };
    check(BOB, &token, 0, 508);
    check(ALICE, &[0; 8], 1, 508);
    check(ALICE, &token, 63, 508);
}

#[test]
fn a_port_that_is_held_is_not_given_to_others() {
    let mut lab = Lab::with(|turn| turn.relay_ports = 30_000..=30_001);
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let _ = reserve(&mut lab, client, &login);
    let other = datagrams("198.51.100.8:1");
    let bob = lab.login(other, BOB);
    let draft = lab.allocate();
    assert_eq!(lab.code(other, &bob, draft), 508);
    // When nobody has come for it, it is free again.
    lab.pass(64);
    lab.sweep();
    lab.allocated(other, &bob, |draft| draft);
}

#[test]
fn a_held_port_may_be_lost_to_somebody_else() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let (port, token) = reserve(&mut lab, client, &login);
    let other = datagrams("198.51.100.8:1");
    let login = lab.login(other, ALICE);
    let request = lab.allocate().raw(Kind::RESERVATION_TOKEN, &token).signed(&login);
    assert_eq!(lab.client(other, &request), None);
    let binds = lab.binds();
    assert_eq!(binds[0].1.port(), port + 1);
    // No other port will do.
    let reply = Reply::read(lab.bound(binds[0].0, Err(BindError::InUse)).expect("an answer").bytes);
    assert_eq!((reply.code(), lab.binds()), (508, vec![]));
}

#[test]
fn a_port_in_use_is_replaced_by_another() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    for even in [None, Some(false), Some(true)] {
        let draft = lab.allocate();
        let draft = even.map_or(draft.clone(), |reserve| draft.even_port(reserve));
        assert_eq!(lab.client(client, &draft.signed(&login)), None);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (relay, at) = lab.binds()[0];
            assert!(!seen.contains(&at));
            assert!(even.is_none() || at.port() % 2 == 0);
            seen.push(at);
            assert_eq!(lab.bound(relay, Err(BindError::InUse)), None);
        }
        let (relay, at) = lab.binds()[0];
        let reply = Reply::read(lab.bound(relay, Ok(at)).expect("an answer").bytes);
        assert_eq!(
            (reply.code(), reply.value(Kind::RESERVATION_TOKEN).is_some()),
            (0, even == Some(true))
        );
        assert_eq!(lab.refresh(client, &login, 0), 0);
    }
    // Only the port of the token is still held: the failed attempts hold nothing.
    assert_eq!(lab.server.table_sizes(), [0, 0, 1, 0, 1, 0, 0, 0]);
}

#[test]
fn the_tries_come_to_an_end() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let request = lab.allocate().even_port(true).signed(&login);
    let mut sent = lab.client(client, &request);
    let mut tries = 0;
    while sent.is_none() {
        let (relay, _) = lab.binds()[0];
        sent = lab.bound(relay, Err(BindError::InUse));
        tries += 1;
    }
    let reply = Reply::read(sent.expect("an answer").bytes);
    assert_eq!((reply.code(), tries), (508, 10));
    assert_eq!(lab.server.table_sizes(), [0; 8]);
    // What another port would not heal is not tried again.
    let request = lab.allocate().signed(&login);
    assert_eq!(lab.client(client, &request), None);
    let (relay, _) = lab.binds()[0];
    let reply = Reply::read(lab.bound(relay, Err(BindError::Failed)).expect("an answer").bytes);
    assert_eq!((reply.code(), lab.server.table_sizes()), (508, [0; 8]));
}

#[test]
fn an_answer_that_was_not_asked_for_is_ignored() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, relayed) = lab.allocation(client);
    assert_eq!(lab.bound(relay, Ok(relayed)), None);
    assert_eq!(lab.bound(relay, Err(BindError::InUse)), None);
    assert_eq!(lab.bound(RelayId(SlabKey::from_parts(77, 7)), Ok(relayed)), None);
    assert_eq!(lab.permit(client, &login, &["203.0.113.1:0"]), 0);
    assert!(lab.send(client, "203.0.113.1:5000", b"x").is_some());
}

#[test]
fn a_client_that_leaves_while_its_socket_is_bound_leaves_nothing() {
    for result in [Ok(()), Err(BindError::InUse), Err(BindError::Failed)] {
        let mut lab = Lab::with(|turn| turn.relay_ports = 30_000..=30_001);
        let client = stream(1, HERE);
        let login = lab.login(client, ALICE);
        let request = lab.allocate().even_port(true).signed(&login);
        assert_eq!(lab.client(client, &request), None);
        let Client::Stream { conn, .. } = client else {
            panic!("a stream")
        };
        assert!(lab.server.has_allocation(conn));
        lab.close(conn);
        assert!(!lab.server.has_allocation(conn));
        let (relay, at) = lab.binds()[0];
        assert_eq!(lab.bound(relay, result.map(|()| at)), None);
        assert_eq!(lab.binds(), []);
        assert_eq!(lab.closed, if result.is_ok() { vec![relay] } else { vec![] });
        assert_eq!(lab.server.table_sizes(), [0; 8]);
        assert_eq!((lab.stats.turn.allocated, lab.stats.turn.released), (0, 0));
        // Both ports can be had again.
        let (_, relayed) = lab.allocated(client, &login, |draft| draft.even_port(true));
        assert_eq!(relayed.port(), 30_000);
    }
}

#[test]
fn a_closed_connection_takes_its_allocation_with_it() {
    let mut lab = Lab::new();
    let client = stream(1, HERE);
    let (_, relay, _) = lab.allocation(client);
    let (_, other, _) = lab.allocation(stream(2, HERE));
    let Client::Stream { conn, .. } = client else {
        panic!("a stream")
    };
    lab.close(conn);
    lab.close(conn);
    assert_eq!((lab.binds(), lab.closed.as_slice()), (vec![], [relay].as_slice()));
    assert_eq!(lab.server.allocations(), 1);
    assert_ne!(relay, other);
}

#[test]
fn a_user_has_a_quota() {
    let mut lab = Lab::with(|turn| turn.limits.allocations_per_user_max = 3);
    let client = |port: u16| datagrams(&format!("198.51.100.7:{port}"));
    for port in 1..=3 {
        lab.allocation(client(port));
    }
    let login = lab.login(client(4), ALICE);
    let draft = lab.allocate();
    assert_eq!(lab.code(client(4), &login, draft), 486);
    let bob = lab.login(client(5), BOB);
    // A port that is held counts too, for as long as it is held.
    lab.allocated(client(5), &bob, |draft| draft.even_port(true));
    let bob = lab.login(client(6), BOB);
    let draft = lab.allocate().even_port(true);
    assert_eq!(lab.code(client(6), &bob, draft), 486);
    lab.allocated(client(6), &bob, |draft| draft);
    let bob = lab.login(client(7), BOB);
    let draft = lab.allocate();
    assert_eq!(lab.code(client(7), &bob, draft), 486);
    lab.pass(61);
    lab.sweep();
    lab.allocated(client(7), &bob, |draft| draft);
    // What ends makes room.
    let login = lab.login(client(1), ALICE);
    assert_eq!(lab.refresh(client(1), &login, 0), 0);
    let login = lab.login(client(4), ALICE);
    lab.allocated(client(4), &login, |draft| draft);
}

#[test]
fn claiming_a_token_needs_no_more_quota() {
    let mut lab = Lab::with(|turn| turn.limits.allocations_per_user_max = 2);
    let (rtp, rtcp) = (datagrams(HERE), datagrams("198.51.100.7:40001"));
    let login = lab.login(rtp, ALICE);
    let (_, token) = reserve(&mut lab, rtp, &login);
    let login = lab.login(rtcp, ALICE);
    lab.allocated(rtcp, &login, |draft| draft.raw(Kind::RESERVATION_TOKEN, &token));
    for client in [rtp, rtcp] {
        let login = lab.login(client, ALICE);
        assert_eq!(lab.refresh(client, &login, 0), 0);
    }
    assert_eq!(lab.server.table_sizes(), [0; 8]);
}

#[test]
fn an_ephemeral_user_with_new_credentials_is_the_same_person() {
    use base64::Engine as _;
    use hmac::{KeyInit as _, Mac as _};
    let mut lab = Lab::with(|turn| turn.limits.allocations_per_user_max = 1);
    let mut code = |port: u16, user: &str| {
        let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(user.as_bytes());
        let password = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        let client = datagrams(&format!("198.51.100.7:{port}"));
        let login = lab.login(client, (user, &password));
        let draft = lab.allocate();
        lab.code(client, &login, draft)
    };
    assert_eq!(code(1, "1800000000:carol"), 0);
    assert_eq!(code(2, "1800000001:carol"), 486);
    assert_eq!(code(3, "1800000001:dave"), 0);
    // Without a name, the credentials are the person.
    assert_eq!(code(4, "1800000000"), 0);
    assert_eq!(code(5, "1800000000:"), 0);
    assert_eq!(code(6, "1800000001"), 0);
    assert_eq!(code(7, "1800000001"), 486);
}

#[test]
fn a_full_server_says_so() {
    let mut lab = Lab::with(|turn| turn.limits.allocations_max = 2);
    lab.allocation(datagrams("198.51.100.7:1"));
    lab.allocation(datagrams("198.51.100.7:2"));
    let client = datagrams("198.51.100.7:3");
    let login = lab.login(client, ALICE);
    let draft = lab.allocate();
    assert_eq!(lab.code(client, &login, draft), 508);

    let mut lab = Lab::with(|turn| turn.relay_ports = 30_000..=30_002);
    for port in 1..=3 {
        lab.allocation(datagrams(&format!("198.51.100.7:{port}")));
    }
    let login = lab.login(client, ALICE);
    for even in [None, Some(false), Some(true)] {
        let client = datagrams("198.51.100.7:4");
        let login = login.with(|fresh| fresh.nonce = lab.login(client, ALICE).nonce);
        let draft = lab.allocate();
        let draft = even.map_or(draft.clone(), |reserve| draft.even_port(reserve));
        assert_eq!(lab.code(client, &login, draft), 508);
        lab.pass(1);
    }
    // The other family has ports of its own.
    let client = datagrams("198.51.100.7:5");
    let login = lab.login(client, ALICE);
    lab.allocated(client, &login, |draft| draft.family(Family::V6));
}

#[test]
fn the_quota_is_told_before_the_capacity() {
    let mut lab = Lab::with(|turn| {
        turn.limits.allocations_per_user_max = 1;
        turn.limits.allocations_max = 1;
    });
    lab.allocation(datagrams("198.51.100.7:1"));
    for (user, code) in [(ALICE, 486), (BOB, 508)] {
        let client = datagrams("198.51.100.7:2");
        let login = lab.login(client, user);
        let draft = lab.allocate();
        assert_eq!(lab.code(client, &login, draft), code);
    }
}

#[test]
fn a_draining_server_refuses_new_allocations_with_an_answer() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, _) = lab.allocation(client);
    lab.server.drain();
    let other = stream(1, HERE);
    let bob = lab.login(other, BOB);
    let draft = lab.allocate();
    assert_eq!(lab.code(other, &bob, draft), 508);
    // Those that are there go on.
    assert_eq!(lab.refresh(client, &login, 600), 0);
    assert_eq!(lab.permit(client, &login, &["203.0.113.1:0"]), 0);
    assert!(lab.peer(relay, "203.0.113.1:4001", b"x").is_some());
}

/// ALTERNATE-SERVER attributes, which are not XORed.
fn alternates(reply: &Reply) -> Vec<Vec<u8>> {
    let attributes = reply.message().attributes();
    let alternates = attributes.filter(|attribute| attribute.kind == Kind::ALTERNATE_SERVER);
    alternates.map(|attribute| attribute.value.into()).collect()
}

#[test]
fn clients_are_sent_to_another_server_when_it_is_time() {
    use crate::config::{Alternate, AlternateWhen};
    let v4 = vec![0, 1, 0x0d, 0x96, 192, 0, 2, 20];
    let mut v6 = vec![
        0, 2, 0x0d, 0x96, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    v6.push(0x20);
    let both = ["192.0.2.20:3478", "[2001:db8::20]:3478"].as_slice();
    let check = |when, servers: &[&str], from: &str, draining: bool, full: bool, expected: Result<&[&Vec<u8>], u16>| {
        let mut lab = Lab::with(|turn| {
            turn.limits.allocations_max = 1;
            turn.alternate = Some(Alternate {
                servers: servers.iter().map(|text| address(text)).collect(),
                domain: Some("turn2.example.org".into()),
                when,
            });
        });
        if full && when != Always {
            lab.allocation(datagrams("198.51.100.9:1"));
        }
        if draining {
            lab.server.drain();
        }
        let login = lab.login(datagrams(from), ALICE);
        let request = lab.allocate().signed(&login);
        let reply = lab.ask(datagrams(from), &request).expect("an answer");
        match expected {
            Err(code) => assert_eq!((reply.code(), alternates(&reply)), (code, vec![]), "{when:?} {from}"),
            Ok(servers) => {
                assert_eq!(reply.code(), 300, "{when:?} {from}");
                assert_eq!(alternates(&reply).iter().collect::<Vec<_>>(), servers);
                assert_eq!(reply.value(Kind::ALTERNATE_DOMAIN), Some(b"turn2.example.org".to_vec()));
                assert!(reply.is_signed_by(&login));
                assert_eq!(lab.stats.turn.redirected, 1);
            }
        }
    };
    use AlternateWhen::{Always, Draining, Full};
    check(Always, both, HERE, false, false, Ok(&[&v4, &v6]));
    check(Always, both, "[2001:db8::7]:40000", false, false, Ok(&[&v6, &v4]));
    check(Always, &both[..1], "[2001:db8::7]:40000", false, false, Err(0));
    check(Draining, both, HERE, false, false, Err(0));
    check(Draining, both, HERE, false, true, Err(508));
    check(Draining, both, HERE, true, false, Ok(&[&v4, &v6]));
    check(Draining, &both[1..], HERE, true, false, Err(508));
    check(Full, both, HERE, false, false, Err(0));
    check(Full, &both[..1], HERE, false, true, Ok(&[&v4]));
    check(Full, both, HERE, true, false, Ok(&[&v4, &v6]));
}

#[test]
fn clients_behind_tunnels_get_no_allocation() {
    // RFC 8656 section 21.4.
    let mut lab = Lab::new();
    for client in ["[2001::1]:1", "[2002:c000:201::1]:1", "192.88.99.1:1"] {
        let client = datagrams(client);
        let login = lab.login(client, ALICE);
        let draft = lab.allocate();
        assert_eq!(lab.code(client, &login, draft), 403);
    }
}

#[test]
fn a_5_tuple_is_free_right_after_its_end() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    let mut ports = Vec::new();
    for _ in 0..50 {
        assert_eq!(lab.refresh(client, &login, 0), 0);
        ports.push(lab.allocated(client, &login, |draft| draft).1.port());
    }
    // A port rests for a while after its end, so none of them came twice.
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 50);
}

#[test]
fn an_expired_allocation_is_in_nobodys_way() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (_, relay, _) = lab.allocation(client);
    lab.pass(600);
    // Nothing has swept yet.
    let login = lab.login(client, ALICE);
    let (other, _) = lab.allocated(client, &login, |draft| draft);
    assert!(relay != other && lab.closed == [relay]);
}

#[test]
fn an_expired_allocation_is_swept() {
    let mut lab = Lab::new();
    for port in 1..=50 {
        lab.allocation(datagrams(&format!("198.51.100.7:{port}")));
        lab.pass(1);
    }
    lab.pass(560);
    lab.sweep();
    assert_eq!(lab.server.allocations() + lab.closed.len(), 50);
    lab.pass(50);
    lab.sweep();
    assert_eq!((lab.server.allocations(), lab.closed.len()), (0, 50));
    assert_eq!(lab.server.table_sizes(), [0; 8]);
    // Nothing is left to wait for.
    assert_eq!(lab.server.poll_timeout(), None);
}

#[test]
fn no_port_is_lost_in_thousands_of_allocations() {
    // GHSA-847g-qmc6-6m4r: EVEN-PORT without the R bit lost a port each time.
    let mut lab = Lab::with(|turn| turn.relay_ports = 30_000..=30_003);
    let client = datagrams(HERE);
    let mut login = lab.login(client, ALICE);
    for round in 0..3000 {
        if round % 30 == 0 {
            login = lab.login(client, ALICE);
        }
        let edit = |draft: Draft| match round % 3 {
            0 => draft,
            1 => draft.even_port(false),
            _ => draft.even_port(true),
        };
        lab.allocated(client, &login, edit);
        assert_eq!(lab.refresh(client, &login, 0), 0);
        if round % 3 == 2 {
            lab.pass(60);
            lab.sweep();
        }
    }
    lab.pass(60);
    lab.sweep();
    assert_eq!(lab.server.table_sizes(), [0; 8]);
    assert_eq!(lab.server.free_ports(), [4, 4]);
}

#[test]
fn shards_have_ports_of_their_own() {
    let config = config(|turn| turn.relay_ports = 30_000..=30_007);
    let mut seen = Vec::new();
    for shard in 0..2 {
        let mut lab = Lab::shard(Arc::clone(&config), shard, 2);
        for port in 1..=4 {
            seen.push(lab.allocation(datagrams(&format!("198.51.100.7:{port}"))).2.port());
        }
        let client = datagrams(HERE);
        let login = lab.login(client, ALICE);
        let draft = lab.allocate();
        assert_eq!(lab.code(client, &login, draft), 508);
    }
    seen.sort_unstable();
    assert_eq!(seen, (30_000..=30_007).collect::<Vec<_>>());
}

/// Two shards of one server; a client of the first holds a port.
fn shards_and_token() -> ([Lab; 2], u16, Vec<u8>) {
    let config = config(|turn| turn.relay_ports = 30_000..=30_007);
    let mut labs = [0, 1].map(|shard| Lab::shard(Arc::clone(&config), shard, 2));
    let client = datagrams(HERE);
    let login = labs[0].login(client, ALICE);
    let (port, token) = reserve(&mut labs[0], client, &login);
    (labs, port + 1, token)
}

#[test]
fn a_token_is_good_on_every_shard() {
    let ([_, mut other], port, token) = shards_and_token();
    let client = datagrams("198.51.100.8:1");
    let login = other.login(client, ALICE);
    let free = other.server.free_ports();
    let (_, relayed) = other.allocated(client, &login, |draft| draft.raw(Kind::RESERVATION_TOKEN, &token));
    assert_eq!(relayed.port(), port);
    // It counts for the user there, and ends without a port too many.
    assert_eq!(other.refresh(client, &login, 0), 0);
    other.sweep();
    assert_eq!((other.server.free_ports(), other.server.table_sizes()), (free, [0; 8]));
}

#[test]
fn a_port_claimed_on_another_shard_is_claimed_once() {
    let ([mut own, mut other], port, token) = shards_and_token();
    let client = datagrams("198.51.100.8:1");
    for (lab, result) in [(&mut own, true), (&mut other, false)] {
        let login = lab.login(client, ALICE);
        let request = lab.allocate().raw(Kind::RESERVATION_TOKEN, &token).signed(&login);
        assert_eq!(lab.client(client, &request), None);
        let (relay, at) = lab.binds()[0];
        assert_eq!(at.port(), port);
        // Both ask for the very port; the kernel gives it to the first.
        let result = result.then_some(at).ok_or(BindError::InUse);
        let reply = Reply::read(lab.bound(relay, result).expect("an answer").bytes);
        assert_eq!(reply.code(), if result.is_ok() { 0 } else { 508 });
    }
}

#[test]
fn a_token_of_another_shard_is_for_its_user_and_its_time() {
    let ([_, mut other], _, token) = shards_and_token();
    let client = datagrams("198.51.100.8:1");
    let forged: Vec<u8> = token.iter().map(|byte| byte ^ 1).collect();
    for (user, token, secs) in [(BOB, &token, 0), (ALICE, &forged, 0), (ALICE, &token, 64)] {
        other.pass(secs);
        let login = other.login(client, user);
        let draft = other.allocate().raw(Kind::RESERVATION_TOKEN, token);
        assert_eq!(other.code(client, &login, draft), 508);
    }
}
