//! RFC 6062 through the doors of two shards: a client comes for a peer, and bytes pass.

use super::*;
use crate::{
    action::{Parcel, RelayId, Transport},
    shard::tests::turn_user::{PEER, config, request},
    wire::stun::{Class, Header, Kind, Message, Method},
};

/// What two shards wrote and closed, by the number of the shard and the name of the connection.
#[derive(Default)]
struct Seen {
    written: HashMap<(usize, ConnId), Vec<u8>>,
    closed: Vec<(usize, ConnId)>,
    shut: Vec<(usize, ConnId)>,
    unread: Vec<(usize, ConnId)>,
    dialed: Vec<(usize, ConnId, Option<SocketAddr>, SocketAddr)>,
    relay: Option<RelayId>,
    moved: Option<(usize, ConnId)>,
}

struct Pair {
    shards: [Shard; 2],
    now: Now,
    out: Egress,
    seen: Seen,
    /// A connection that takes nothing.
    stuck: Option<(usize, ConnId)>,
    clients: u16,
}

impl Pair {
    fn new() -> Self {
        Self::limited("")
    }

    /// With further keys of `[turn]`.
    fn limited(limits: &str) -> Self {
        let config = config(&format!("tcp_relay = true\n{limits}"));
        let now = Now {
            mono: Instant::ZERO,
            unix: UnixTime(1_790_000_000),
        };
        let shard = |number| Shard::new(config.clone(), ShardId(number), 2, [7 + number as u8; 32], now);
        Self {
            shards: [shard(0), shard(1)],
            now,
            out: Egress::default(),
            seen: Seen::default(),
            stuck: None,
            clients: 0,
        }
    }

    /// Carries out what the shards ask.
    fn act(&mut self) {
        for at in [0, 1, 0, 1] {
            while let Some(action) = self.shards[at].poll_action() {
                self.carry_out(at, action);
            }
        }
    }

    fn carry_out(&mut self, at: usize, action: Action) {
        match action {
            Action::Flush(conn) if self.stuck == Some((at, conn)) => {}
            Action::Flush(conn) => {
                if let Some(bytes) = self.shards[at].take_output(conn) {
                    self.seen
                        .written
                        .entry((at, conn))
                        .or_default()
                        .extend_from_slice(&bytes);
                    self.shards[at].handle(self.now, Input::Written(conn), &mut self.out);
                }
            }
            Action::Read(conn, false) => self.seen.unread.push((at, conn)),
            Action::Read(conn, true) => self.seen.unread.retain(|held| *held != (at, conn)),
            Action::Shut(conn) => self.seen.shut.push((at, conn)),
            Action::Close(conn, bytes) => {
                self.seen
                    .written
                    .entry((at, conn))
                    .or_default()
                    .extend_from_slice(&bytes);
                self.seen.closed.push((at, conn));
            }
            Action::Dial { conn, from, to } => self.seen.dialed.push((at, conn, from, to)),
            Action::BindRelay {
                relay,
                transport,
                at: address,
            } => {
                assert_eq!(transport, Transport::Tcp);
                self.seen.relay = Some(relay);
                self.shards[at].handle(self.now, Input::RelayBound(relay, Ok(address)), &mut self.out);
            }
            Action::Forward {
                to,
                parcel: Parcel::Conn(_, conn),
            } => {
                let to = usize::from(to.0);
                let id = self.shards[to].adopt(self.now, conn).expect("room");
                self.shards[to].resume(self.now, id, &mut self.out);
                self.seen.moved = Some((to, id));
            }
            Action::CloseSocket(_) => {}
            other => panic!("not asked for here: {other:?}"),
        }
    }

    /// A client connects to a shard.
    fn client(&mut self, at: usize) -> ConnId {
        self.clients += 1;
        let (local, peer) = (
            address("192.0.2.1:3478"),
            SocketAddr::from(([198, 51, 100, 1], 50_000 + self.clients)),
        );
        let id = self.shards[at]
            .accept(self.now, ListenerId(0), local, peer)
            .expect("room");
        self.act();
        id
    }

    fn receive(&mut self, at: usize, conn: ConnId, bytes: &[u8]) {
        self.shards[at].receive(self.now, conn, &mut bytes.to_vec(), &mut self.out);
        self.act();
    }

    /// What was written to a connection since the last look.
    fn read(&mut self, at: usize, conn: ConnId) -> Vec<u8> {
        self.seen.written.remove(&(at, conn)).unwrap_or_default()
    }

    /// REALM and NONCE for a connection.
    fn nonce(&mut self, at: usize, conn: ConnId) -> Vec<u8> {
        self.receive(at, conn, &request(Method::REFRESH, &[], None));
        let answer = self.read(at, conn);
        attribute(&answer, Kind::NONCE)
    }

    /// An allocation for TCP on the first shard: its connection and how it signs.
    fn allocation(&mut self) -> (ConnId, Vec<u8>) {
        let control = self.client(0);
        let nonce = self.nonce(0, control);
        let allocate = request(
            Method::ALLOCATE,
            &[(Kind::REQUESTED_TRANSPORT, vec![6, 0, 0, 0])],
            Some(&nonce),
        );
        self.receive(0, control, &allocate);
        assert_eq!(header(&self.read(0, control)).class, Class::Success);
        (control, nonce)
    }

    /// A peer that was called and waits: its connection, and CONNECTION-ID.
    fn peer(&mut self) -> (ConnId, Vec<u8>) {
        let (control, nonce) = self.allocation();
        let connect = request(
            Method::CONNECT,
            &[(Kind::XOR_PEER_ADDRESS, PEER.to_vec())],
            Some(&nonce),
        );
        self.receive(0, control, &connect);
        let (at, conn, from, to) = self.seen.dialed.pop().expect("a dial");
        assert_eq!((at, to), (0, address("203.0.113.1:4080")));
        let from = from.expect("the relayed address");
        assert_eq!(from.ip(), address("192.0.2.1:0").ip());
        assert_eq!(self.read(0, control), b"");
        let ends = Endpoints { local: from, peer: to };
        self.shards[0].handle(self.now, Input::Dialed(conn, Ok(ends)), &mut self.out);
        self.act();
        let answer = self.read(0, control);
        assert_eq!(header(&answer).class, Class::Success);
        // Until somebody comes, what the peer sends stays in the kernel.
        assert_eq!(self.seen.unread, [(0, conn)]);
        (conn, attribute(&answer, Kind::CONNECTION_ID))
    }

    /// A client that came to shard `at` and binds the peer, with more bytes right behind; where it is now, and what it
    /// was answered.
    fn bind(&mut self, at: usize, id: &[u8], early: &[u8]) -> (ConnId, Vec<u8>) {
        let data = self.client(at);
        let nonce = self.nonce(at, data);
        let bind = request(
            Method::CONNECTION_BIND,
            &[(Kind::CONNECTION_ID, id.to_vec())],
            Some(&nonce),
        );
        self.receive(at, data, &[&bind, early].concat());
        let data = match at {
            0 => data,
            _ => self
                .seen
                .moved
                .and_then(|(to, id)| (to == 0).then_some(id))
                .expect("moved home"),
        };
        let answer = self.read(0, data);
        assert_eq!(header(&answer).class, Class::Success);
        (data, answer)
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn header(message: &[u8]) -> Header {
    Message::parse(message).expect("one message").header()
}

fn attribute(message: &[u8], kind: Kind) -> Vec<u8> {
    let message = Message::parse(message).expect("one message");
    let mut attributes = message.attributes();
    let found = attributes.find(|attribute| attribute.kind == kind);
    found.expect("the attribute").value.to_vec()
}

#[test]
fn bytes_behind_a_bind_pass_on_whichever_shard_it_came() {
    for at in [0, 1] {
        for early in [b"".as_slice(), b"early", &[0x40; 5000]] {
            let mut pair = Pair::new();
            let (peer, id) = pair.peer();
            let (data, _) = pair.bind(at, &id, early);
            assert_eq!(pair.read(0, peer), early);
            // Now the peer is read.
            assert_eq!(pair.seen.unread, []);
            pair.receive(0, data, b"\0\x01\0\0 looks like STUN");
            assert_eq!(pair.read(0, peer), b"\0\x01\0\0 looks like STUN");
            pair.receive(0, peer, b"back");
            assert_eq!(pair.read(0, data), b"back");
        }
    }
}

#[test]
fn a_bind_may_come_in_pieces() {
    let mut pair = Pair::new();
    let (peer, id) = pair.peer();
    let data = pair.client(1);
    let nonce = pair.nonce(1, data);
    let bind = request(Method::CONNECTION_BIND, &[(Kind::CONNECTION_ID, id)], Some(&nonce));
    let (first, second) = bind.split_at(30);
    pair.receive(1, data, first);
    pair.receive(1, data, &[second, b"early"].concat());
    assert_eq!(pair.read(0, peer), b"early");
}

#[test]
fn a_slow_end_leaves_the_other_unread() {
    for slow_peer in [true, false] {
        let mut pair = Pair::new();
        let (peer, id) = pair.peer();
        let (data, _) = pair.bind(0, &id, b"");
        let (slow, fast) = if slow_peer { (peer, data) } else { (data, peer) };
        pair.stuck = Some((0, slow));
        let mut sent = 0;
        while pair.seen.unread.is_empty() {
            pair.receive(0, fast, &[7; 10_000]);
            sent += 10_000;
            assert!(sent < 1_000_000, "the other end is never held up");
        }
        assert_eq!(pair.seen.unread, [(0, fast)]);
        // The other direction goes on: who is slow to read may be busy writing.
        pair.receive(0, slow, b"still heard");
        assert_eq!(pair.read(0, fast), b"still heard");
        // What was read already is kept, and nothing is lost.
        pair.stuck = None;
        let bytes = pair.shards[0].take_output(slow).expect("bytes to write");
        pair.seen.written.insert((0, slow), bytes.to_vec());
        pair.shards[0].handle(pair.now, Input::Written(slow), &mut pair.out);
        pair.act();
        assert_eq!(pair.read(0, slow), vec![7; sent]);
        assert_eq!(pair.seen.unread, []);
    }
}

#[test]
fn a_relay_passes_what_its_allocation_may_have_in_a_second() {
    for from_peer in [true, false] {
        let mut pair = Pair::limited("[turn.limits]\nallocation_bytes_per_second = 10_000");
        let (peer, id) = pair.peer();
        let (data, _) = pair.bind(0, &id, b"");
        let (from, to) = if from_peer { (peer, data) } else { (data, peer) };
        for number in 0..4 {
            pair.receive(0, from, &[number; 10_000]);
        }
        // The first was within the burst; the others wait, and more is left in the kernel.
        assert_eq!(pair.read(0, to), [0; 10_000]);
        assert_eq!(pair.seen.unread, [(0, from)]);
        // Nothing is lost, be it that the sender has ended meanwhile.
        pair.shards[0].handle(pair.now, Input::Eof(from), &mut pair.out);
        pair.act();
        let mut passed = Vec::new();
        let mut secs = 0;
        while passed.len() < 30_000 {
            pair.now.mono += Duration::from_secs(1);
            pair.shards[0].timeout(pair.now, &mut pair.out);
            pair.act();
            passed.extend(pair.read(0, to));
            secs += 1;
            assert!(secs < 5, "{}", passed.len());
        }
        assert!(secs >= 1);
        assert_eq!(passed, [[1; 10_000], [2; 10_000], [3; 10_000]].concat());
        assert_eq!(pair.seen.shut, [(0, to)]);
    }
}

#[test]
fn one_end_closes_the_other() {
    for peer_first in [true, false] {
        let mut pair = Pair::new();
        let (peer, id) = pair.peer();
        let (data, _) = pair.bind(1, &id, b"");
        let (first, other) = if peer_first { (peer, data) } else { (data, peer) };
        // The end of one direction is told, and the other one may still be used for a while.
        pair.shards[0].handle(pair.now, Input::Eof(first), &mut pair.out);
        pair.act();
        assert_eq!(pair.seen.shut, [(0, other)]);
        pair.receive(0, other, b"last words");
        assert_eq!(pair.read(0, first), b"last words");
        assert_eq!(pair.seen.closed, []);
        pair.now.mono += Duration::from_secs(30);
        pair.shards[0].timeout(pair.now, &mut pair.out);
        pair.act();
        pair.seen.closed.sort();
        let mut both = [(0, first), (0, other)];
        both.sort();
        assert_eq!(pair.seen.closed, both);

        let mut pair = Pair::new();
        let (peer, id) = pair.peer();
        let (data, _) = pair.bind(0, &id, b"");
        let first = if peer_first { peer } else { data };
        pair.shards[0].handle(pair.now, Input::Failed(first, IoKind::Reset), &mut pair.out);
        pair.act();
        assert_eq!(pair.seen.closed.len(), 2);
        assert_eq!(pair.shards[0].conns.len(), 1);
    }
}

#[test]
fn a_silent_relay_lasts_as_long_as_its_allocation() {
    let mut pair = Pair::new();
    let (peer, id) = pair.peer();
    let (data, _) = pair.bind(0, &id, b"");
    for _ in 0..599 {
        pair.now.mono += Duration::from_secs(1);
        pair.shards[0].timeout(pair.now, &mut pair.out);
        pair.act();
    }
    assert_eq!(pair.seen.closed, []);
    for _ in 0..3 {
        pair.now.mono += Duration::from_secs(1);
        pair.shards[0].timeout(pair.now, &mut pair.out);
        pair.act();
    }
    assert!(pair.seen.closed.contains(&(0, peer)) && pair.seen.closed.contains(&(0, data)));
}

#[test]
fn who_waits_too_long_is_closed() {
    let mut pair = Pair::new();
    let (peer, _) = pair.peer();
    pair.now.mono += Duration::from_secs(30);
    pair.shards[0].timeout(pair.now, &mut pair.out);
    pair.act();
    assert!(pair.seen.closed.contains(&(0, peer)));

    // Strangers are not taken at all.
    let relay = pair.seen.relay.expect("a relay");
    let (local, stranger) = (address("192.0.2.1:30000"), address("203.0.113.7:4000"));
    let taken = pair.shards[0].accept_peer(pair.now, relay, local, stranger, &mut pair.out);
    assert_eq!(taken, Err(Refused));
}
