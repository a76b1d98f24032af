//! RFC 6062: allocations for TCP, and the connections with peers that they have.

use super::*;

const HERE: &str = "198.51.100.7:40000";
const PEER: &str = "203.0.113.1:5000";

/// The control connection, and one for data.
const CONTROL: u32 = 1;
const DATA: u32 = 2;

fn control() -> Client {
    stream(CONTROL, HERE)
}

/// A client data connection.
fn data() -> Client {
    stream(DATA, "198.51.100.7:40001")
}

/// A connection of a peer.
fn peer_conn(number: u32) -> ConnId {
    ConnId(SlabKey::from_parts(number, 0))
}

impl Lab {
    fn tcp() -> Self {
        Self::tcp_with(|_| ())
    }

    fn tcp_with(edit: impl FnOnce(&mut config::Turn)) -> Self {
        Self::with(|turn| {
            turn.tcp_relay = true;
            edit(turn);
        })
    }

    fn allocate_tcp(&mut self) -> Draft {
        self.draft(Method::ALLOCATE)
            .raw(Kind::REQUESTED_TRANSPORT, &[6, 0, 0, 0])
    }

    /// Alice's allocation for TCP on the control connection.
    fn tcp_allocation(&mut self) -> (Login, RelayId, SocketAddr) {
        let login = self.login(control(), ALICE);
        let request = self.allocate_tcp().signed(&login);
        assert_eq!(self.client(control(), &request), None);
        let Some(Ask::Bind { relay, transport, at }) = self.server.poll_ask() else {
            panic!("a socket to bind")
        };
        assert_eq!(transport, Transport::Tcp);
        let reply = Reply::read(self.bound(relay, Ok(at)).expect("an answer").bytes);
        assert_eq!(reply.class(), Class::Success);
        assert_eq!(reply.value(Kind::RESERVATION_TOKEN), None);
        (login, relay, reply.addresses(Kind::XOR_RELAYED_ADDRESS)[0])
    }

    /// A Connect request that comes as far as the dial; what is dialled, and from where.
    fn connect(&mut self, login: &Login, peer: &str, conn: ConnId) -> (SocketAddr, SocketAddr) {
        let request = self.draft(Method::CONNECT).peer(peer).signed(login);
        assert_eq!(self.client(control(), &request), None);
        self.binds();
        let Some(Ask::Dial { connection, from, to }) = self.asked.pop() else {
            panic!("nobody is dialled")
        };
        assert!(self.server.dialing(connection, conn));
        (from, to)
    }

    fn connect_code(&mut self, login: &Login, peer: &str) -> u16 {
        let draft = self.draft(Method::CONNECT).peer(peer);
        self.code(control(), login, draft)
    }

    /// The dial succeeds: CONNECTION-ID as the client learns it.
    fn connected(&mut self, login: &Login, conn: ConnId) -> u32 {
        let sent = self
            .call(&[], |server, cx| server.connected(cx, conn))
            .expect("an answer");
        assert_eq!(sent.to, To::Stream(peer_conn(CONTROL)));
        let reply = Reply::read(sent.bytes);
        assert_eq!(reply.class(), Class::Success);
        assert!(reply.is_signed_by(login));
        reply.u32(Kind::CONNECTION_ID).expect("a name")
    }

    /// A peer connects: CONNECTION-ID and XOR-PEER-ADDRESS of the indication, if the connection is taken.
    fn attempt(&mut self, relay: RelayId, conn: ConnId, from: &str) -> Option<(u32, SocketAddr)> {
        let mut taken = false;
        let sent = self.call(&[], |server, cx| {
            let verdict = server.attempt(cx, relay, conn, address(from));
            taken = verdict.is_some();
            verdict.unwrap_or(Verdict::NOTHING)
        });
        assert_eq!(sent.is_some(), taken);
        let sent = sent?;
        assert_eq!(sent.to, To::Stream(peer_conn(CONTROL)));
        let message = Reply::read(sent.bytes);
        let header = message.message().header();
        assert_eq!(
            (header.class, header.method),
            (Class::Indication, Method::CONNECTION_ATTEMPT)
        );
        let peers = message.addresses(Kind::XOR_PEER_ADDRESS);
        Some((message.u32(Kind::CONNECTION_ID)?, peers[0]))
    }

    fn connection_bind(&mut self, from: Client, login: &Login, id: u32) -> u16 {
        let draft = self
            .draft(Method::CONNECTION_BIND)
            .raw(Kind::CONNECTION_ID, &id.to_be_bytes());
        self.code(from, login, draft)
    }
}

#[test]
fn no_datagram_comes_to_an_allocation_for_tcp() {
    let mut lab = Lab::tcp();
    let (login, _, relayed) = lab.tcp_allocation();
    let other = datagrams(HERE);
    let (login2, _, relayed2) = lab.allocation(other);
    assert_eq!(lab.permit(control(), &login, &[&relayed2.to_string()]), 0);
    assert_eq!(lab.permit(other, &login2, &[&relayed.to_string()]), 0);
    // Not even by the way that needs no socket.
    assert_eq!(lab.send(other, &relayed.to_string(), b"hello"), None);
    assert_eq!(lab.stats.turn.to_client, 0);
}

#[test]
fn tcp_is_relayed_only_where_it_is_wanted() {
    let mut lab = Lab::new();
    let login = lab.login(control(), ALICE);
    let draft = lab.allocate_tcp();
    assert_eq!(lab.code(control(), &login, draft), 442);
    // Methods that are not supported are dropped.
    for method in [Method::CONNECT, Method::CONNECTION_BIND] {
        let request = lab.draft(method).peer(PEER).signed(&login);
        assert_eq!(lab.client(control(), &request), None);
    }
}

#[test]
fn what_an_allocation_for_tcp_may_not_ask() {
    // RFC 6062 section 5.1.
    let check = |client: Client, edit: fn(Draft) -> Draft, expected: u16| {
        let mut lab = Lab::tcp();
        let login = lab.login(client, ALICE);
        let draft = edit(lab.allocate_tcp());
        assert_eq!(lab.code(client, &login, draft), expected);
    };
    check(control(), |draft| draft, 0);
    check(control(), |draft| draft.lifetime(900), 0);
    check(control(), |draft| draft.family(Family::V6), 0);
    check(datagrams(HERE), |draft| draft, 400);
    check(control(), |draft| draft.even_port(false), 400);
    check(control(), |draft| draft.even_port(true), 400);
    check(control(), |draft| draft.raw(Kind::RESERVATION_TOKEN, b"12345678"), 400);
    check(control(), |draft| draft.raw(Kind::DONT_FRAGMENT, b""), 400);
    check(
        control(),
        |draft| draft.raw(Kind::DONT_FRAGMENT, b"").raw(Kind(0x7ffe), b""),
        420,
    );
    let mut lab = Lab::tcp();
    let login = lab.login(control(), ALICE);
    for (protocol, expected) in [(0, 442), (132, 442), (17, 0)] {
        let draft = lab
            .draft(Method::ALLOCATE)
            .raw(Kind::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0]);
        assert_eq!(lab.code(control(), &login, draft), expected, "{protocol}");
    }
}

#[test]
fn an_allocation_for_tcp_carries_no_datagrams() {
    let mut lab = Lab::tcp();
    let (login, ..) = lab.tcp_allocation();
    assert_eq!(lab.permit(control(), &login, &[PEER]), 0);
    assert_eq!(lab.send(control(), PEER, b"x"), None);
    assert_eq!(lab.bind(control(), &login, 0x4000, PEER), 403);
    assert_eq!(lab.channel(control(), 0x4000, b"x"), None);
}

#[test]
fn connect_dials_from_the_relayed_address_and_names_the_connection() {
    let mut lab = Lab::tcp();
    let (login, _, relayed) = lab.tcp_allocation();
    let conn = peer_conn(10);
    assert_eq!(lab.connect(&login, PEER, conn), (relayed, address(PEER)));
    // In the making, made, and bound: one connection to one peer.
    assert_eq!(lab.connect_code(&login, PEER), 446);
    let id = lab.connected(&login, conn);
    assert_ne!(id, 0);
    assert_eq!(lab.connect_code(&login, PEER), 446);
    let there = lab.login(data(), ALICE);
    assert_eq!(lab.connection_bind(data(), &there, id), 0);
    let joined = Ask::Join {
        client: peer_conn(DATA),
        peer: conn,
    };
    assert_eq!(lab.asked, [joined]);
    assert_eq!(lab.connect_code(&login, PEER), 446);
    // Another port is another peer; and what has ended may begin again.
    lab.connect(&login, "203.0.113.1:5001", peer_conn(11));
    lab.close(conn);
    lab.connect(&login, PEER, peer_conn(12));
}

#[test]
fn a_peer_that_cannot_be_reached_is_a_447() {
    let mut lab = Lab::tcp();
    let (login, ..) = lab.tcp_allocation();
    let conn = peer_conn(10);
    lab.connect(&login, PEER, conn);
    let sent = lab
        .call(&[], |server, cx| server.connect_failed(cx, conn))
        .expect("an answer");
    let reply = Reply::read(sent.bytes);
    assert_eq!(reply.code(), 447);
    assert!(reply.is_signed_by(&login));
    // Once is enough.
    assert_eq!(lab.call(&[], |server, cx| server.connect_failed(cx, conn)), None);
    lab.connect(&login, PEER, conn);
}

#[test]
fn connect_needs_an_allocation_for_tcp() {
    let mut lab = Lab::tcp();
    for client in [control(), datagrams(HERE)] {
        let login = lab.login(client, ALICE);
        let draft = lab.draft(Method::CONNECT).peer(PEER);
        assert_eq!(lab.code(client, &login, draft.clone()), 437);
        lab.allocated(client, &login, |draft| draft);
        assert_eq!(lab.code(client, &login, draft), 437);
    }
    let mut lab = Lab::tcp();
    let (login, ..) = lab.tcp_allocation();
    let draft = lab.draft(Method::CONNECT);
    assert_eq!(lab.code(control(), &login, draft), 400);
    let draft = lab.draft(Method::CONNECT).raw(Kind::XOR_PEER_ADDRESS, b"short");
    assert_eq!(lab.code(control(), &login, draft), 400);
    let bob = lab.login(control(), BOB);
    assert_eq!(lab.connect_code(&bob, PEER), 441);
    let draft = lab.draft(Method::CONNECT).peer(PEER).plain();
    assert_eq!(lab.ask(control(), &draft).expect("a challenge").code(), 401);
    assert_eq!(lab.connect_code(&login, "[2001:4860::1]:80"), 443);
    lab.pass(600);
    assert_eq!(lab.connect_code(&login, PEER), 437);
}

#[test]
fn policy_is_asked_about_address_and_port() {
    // The address matrix of Connect; a permission makes no difference.
    let mut lab = Lab::tcp_with(|turn| turn.limits.unauthenticated_per_second = 0);
    let login = lab.login(control(), ALICE);
    let request = lab.allocate_tcp().additional(Family::V6).signed(&login);
    assert_eq!(lab.client(control(), &request), None);
    for (relay, at) in lab.binds() {
        lab.bound(relay, Ok(at));
    }
    let ours = [
        "192.0.2.10:3478",
        "192.0.2.10:22",
        "10.0.0.5:22",
        "10.0.0.5:9999",
        "10.0.0.5:20001",
        "203.0.113.1:0",
    ];
    let matrix = policy::tests::MATRIX.iter().flat_map(|text| {
        let ip = text.parse().expect("an address");
        [0, 80, 3478, 30_000].map(|port| SocketAddr::new(ip, port).to_string())
    });
    for peer in matrix.chain(ours.map(String::from)) {
        assert_eq!(lab.connect_code(&login, &peer), 403, "{peer}");
        assert_eq!(lab.asked, []);
    }
    let mut lab = Lab::tcp();
    let (login, _, relayed) = lab.tcp_allocation();
    for (number, peer) in (10..).zip([
        "10.0.0.5:10000",
        "10.0.0.5:20000",
        "203.0.113.1:4022",
        "192.0.2.10:30050",
    ]) {
        if address(peer) != relayed {
            assert_eq!(lab.connect(&login, peer, peer_conn(number)), (relayed, address(peer)));
        }
    }
    // Nor is an allocation its own peer.
    assert_eq!(lab.connect_code(&login, &relayed.to_string()), 403);
}

#[test]
fn peers_get_in_with_a_permission_only() {
    let mut lab = Lab::tcp();
    let (login, relay, _) = lab.tcp_allocation();
    assert_eq!(lab.attempt(relay, peer_conn(10), PEER), None);
    assert_eq!(lab.permit(control(), &login, &[PEER, "10.0.0.5:0"]), 0);
    // Permissions know no port; the policy does.
    let (id, from) = lab
        .attempt(relay, peer_conn(10), "203.0.113.1:6000")
        .expect("an indication");
    assert_eq!(from, address("203.0.113.1:6000"));
    assert_ne!(id, 0);
    assert_eq!(lab.attempt(relay, peer_conn(11), "10.0.0.5:22"), None);
    assert!(lab.attempt(relay, peer_conn(11), "10.0.0.5:12000").is_some());
    assert_eq!(lab.attempt(relay, peer_conn(12), "203.0.113.2:5000"), None);
    // The peer that has come is one that need not be called.
    assert_eq!(lab.connect_code(&login, "203.0.113.1:6000"), 446);
    let there = lab.login(data(), ALICE);
    assert_eq!(lab.connection_bind(data(), &there, id), 0);
    lab.pass(299);
    assert!(lab.attempt(relay, peer_conn(13), PEER).is_some());
    lab.pass(1);
    assert_eq!(lab.attempt(relay, peer_conn(14), "203.0.113.1:5001"), None);
}

#[test]
fn a_connection_is_bound_once_by_its_user_in_time() {
    let mut lab = Lab::tcp();
    let (login, relay, _) = lab.tcp_allocation();
    assert_eq!(lab.permit(control(), &login, &[PEER]), 0);
    let (id, _) = lab.attempt(relay, peer_conn(10), PEER).expect("an indication");
    let alice = lab.login(data(), ALICE);
    let bob = lab.login(data(), BOB);
    // RFC 6062 section 5.4: all of these are a 400, also what is another user's.
    assert_eq!(lab.connection_bind(data(), &bob, id), 400);
    assert_eq!(lab.connection_bind(data(), &alice, id ^ 1), 400);
    assert_eq!(lab.connection_bind(data(), &alice, 0), 400);
    let draft = lab.draft(Method::CONNECTION_BIND);
    assert_eq!(lab.code(data(), &alice, draft), 400);
    let draft = lab
        .draft(Method::CONNECTION_BIND)
        .raw(Kind::CONNECTION_ID, &id.to_be_bytes()[1..]);
    assert_eq!(lab.code(data(), &alice, draft), 400);
    // Not by the control connection, not by datagrams, not without credentials.
    assert_eq!(lab.connection_bind(control(), &login, id), 400);
    let there = lab.login(datagrams(HERE), ALICE);
    assert_eq!(lab.connection_bind(datagrams(HERE), &there, id), 400);
    let draft = lab
        .draft(Method::CONNECTION_BIND)
        .raw(Kind::CONNECTION_ID, &id.to_be_bytes());
    assert_eq!(lab.ask(data(), &draft.plain()).expect("a challenge").code(), 401);
    assert_eq!(lab.asked, []);

    lab.pass(29);
    assert_eq!(lab.connection_bind(data(), &alice, id), 0);
    assert_eq!(lab.connection_bind(data(), &alice, id), 400);
    let (id, _) = lab
        .attempt(relay, peer_conn(11), "203.0.113.1:5001")
        .expect("an indication");
    lab.pass(30);
    assert_eq!(lab.connection_bind(data(), &alice, id), 400);
    assert_eq!(lab.asked.len(), 1);
    // What has not been dialled yet cannot be bound either.
    lab.connect(&login, "203.0.113.9:4001", peer_conn(12));
    let id = lab.connected(&login, peer_conn(12));
    lab.close(peer_conn(12));
    assert_eq!(lab.connection_bind(data(), &alice, id), 400);
}

#[test]
fn a_name_of_another_shard_sends_the_connection_there() {
    let config = config(|turn| turn.tcp_relay = true);
    let mut home = Lab::shard(config.clone(), 1, 3);
    let (login, relay, _) = home.tcp_allocation();
    assert_eq!(home.permit(control(), &login, &[PEER]), 0);
    let (id, _) = home.attempt(relay, peer_conn(10), PEER).expect("an indication");
    assert_eq!(id % 3, 1);

    let mut other = Lab::shard(config, 2, 3);
    let alice = other.login(data(), ALICE);
    let draft = other
        .draft(Method::CONNECTION_BIND)
        .raw(Kind::CONNECTION_ID, &id.to_be_bytes());
    // Nobody moves who has not proved to be a user.
    assert_eq!(other.ask(data(), &draft.plain()).expect("a challenge").code(), 401);
    let request = draft.signed(&alice);
    let sent = other.client(data(), &request).expect("a way");
    assert_eq!(sent.to, To::Shard(ShardId(1)));
    // The same request is good there.
    assert_eq!(home.ask(data(), &request).expect("an answer").code(), 0);
}

#[test]
fn the_end_of_an_allocation_cuts_its_connections() {
    let end: [fn(&mut Lab, &Login); 3] = [
        |lab, login| assert_eq!(lab.refresh(control(), login, 0), 0),
        |lab, _| lab.close(peer_conn(CONTROL)),
        |lab, _| {
            lab.pass(600);
            lab.sweep();
        },
    ];
    for end in end {
        let mut lab = Lab::tcp();
        let (login, relay, _) = lab.tcp_allocation();
        assert_eq!(lab.permit(control(), &login, &[PEER]), 0);
        lab.connect(&login, PEER, peer_conn(10));
        lab.connect(&login, "203.0.113.1:5001", peer_conn(11));
        lab.connected(&login, peer_conn(11));
        let (id, _) = lab
            .attempt(relay, peer_conn(12), "203.0.113.1:5002")
            .expect("an indication");
        let alice = lab.login(data(), ALICE);
        assert_eq!(lab.connection_bind(data(), &alice, id), 0);
        lab.asked.clear();
        end(&mut lab, &login);
        lab.binds();
        assert_eq!(lab.asked, [10, 11, 12].map(|number| Ask::Cut(peer_conn(number))));
        assert_eq!(lab.closed, [relay]);
        assert_eq!(lab.server.table_sizes(), [0; 8]);
        // Whatever comes of them now comes too late.
        assert_eq!(lab.call(&[], |server, cx| server.connected(cx, peer_conn(10))), None);
        assert_eq!(
            lab.call(&[], |server, cx| server.connect_failed(cx, peer_conn(10))),
            None
        );
        assert_eq!(lab.attempt(relay, peer_conn(13), PEER), None);
    }
}

#[test]
fn connections_are_limited() {
    let mut lab = Lab::tcp_with(|turn| {
        turn.limits.peer_connections_max = 3;
        turn.limits.pending_peer_connections_max = 2;
    });
    let (login, relay, _) = lab.tcp_allocation();
    assert_eq!(lab.permit(control(), &login, &[PEER]), 0);
    lab.connect(&login, "203.0.113.1:4001", peer_conn(11));
    let (id, _) = lab
        .attempt(relay, peer_conn(12), "203.0.113.1:4002")
        .expect("an indication");
    // Two that nobody has come for are as many as may be.
    assert_eq!(lab.attempt(relay, peer_conn(13), "203.0.113.1:4003"), None);
    assert_eq!(lab.connect_code(&login, "203.0.113.1:4003"), 508);
    let alice = lab.login(data(), ALICE);
    assert_eq!(lab.connection_bind(data(), &alice, id), 0);
    let (id, _) = lab
        .attempt(relay, peer_conn(13), "203.0.113.1:4003")
        .expect("an indication");
    assert_eq!(lab.connection_bind(stream(3, "198.51.100.7:40002"), &login, id), 438);
    let other = stream(3, "198.51.100.7:40002");
    let alice = lab.login(other, ALICE);
    assert_eq!(lab.connection_bind(other, &alice, id), 0);
    // Three in all, of whatever kind.
    assert_eq!(lab.connect_code(&login, "203.0.113.1:4004"), 508);
    assert_eq!(lab.attempt(relay, peer_conn(14), "203.0.113.1:4004"), None);
    lab.close(peer_conn(13));
    assert!(lab.attempt(relay, peer_conn(14), "203.0.113.1:4004").is_some());
}

#[test]
fn a_new_configuration_cuts_peers_that_are_no_longer_allowed() {
    let mut lab = Lab::tcp();
    let (login, ..) = lab.tcp_allocation();
    lab.connect(&login, PEER, peer_conn(10));
    lab.connect(&login, "10.0.0.5:10000", peer_conn(11));
    let narrower = config(|turn| {
        turn.tcp_relay = true;
        turn.public_peers = false;
    });
    lab.server.configure(narrower, &mut lab.rng);
    lab.binds();
    assert_eq!(lab.asked, [Ask::Cut(peer_conn(10))]);
}
