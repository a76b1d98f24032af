//! TURN by TCP: who is slow, silent or deaf is let go, and nobody else.

use super::*;
use crate::{
    action::{RelayId, Run, SocketId},
    shard::tests::turn_user::{PEER, config, request},
    wire::stun::{Kind, Message, Method},
};

/// One shard, and whether its clients read.
struct Edge {
    shard: Shard,
    now: Now,
    out: Egress,
    relay: Option<RelayId>,
    closed: Vec<ConnId>,
    written: Vec<u8>,
    is_deaf: bool,
    /// Whether the shard leaves what its client sends unread.
    is_unread: bool,
}

impl Edge {
    fn new() -> Self {
        let config = config("");
        let now = Now {
            mono: Instant::ZERO,
            unix: UnixTime(1_790_000_000),
        };
        Self {
            shard: Shard::new(config, ShardId(0), 1, [7; 32], now),
            now,
            out: Egress::default(),
            relay: None,
            closed: vec![],
            written: vec![],
            is_deaf: false,
            is_unread: false,
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.shard.poll_action() {
            match action {
                Action::Flush(conn) => {
                    // What is taken waits in the kernel until the client reads.
                    self.written.extend(self.shard.take_output(conn).unwrap_or_default());
                    if !self.is_deaf {
                        self.shard.handle(self.now, Input::Written(conn), &mut self.out);
                    }
                }
                Action::BindRelay { relay, at, .. } => {
                    self.relay = Some(relay);
                    let bound = Input::RelayBound(relay, Ok(at));
                    self.shard.handle(self.now, bound, &mut self.out);
                }
                Action::Close(conn, _) => self.closed.push(conn),
                Action::Read(_, wanted) => self.is_unread = !wanted,
                Action::CloseSocket(_) => {}
                other => panic!("not asked for here: {other:?}"),
            }
        }
        self.out.clear();
    }

    fn client(&mut self) -> ConnId {
        let (local, peer) = ("192.0.2.1:3478", "198.51.100.1:50000");
        let (local, peer) = (local.parse().expect("an address"), peer.parse().expect("an address"));
        self.shard.accept(self.now, ListenerId(0), local, peer).expect("room")
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.shard.receive(self.now, conn, &mut bytes.to_vec(), &mut self.out);
        self.act();
    }

    fn pass(&mut self, secs: u64) {
        self.now.mono += Duration::from_secs(secs);
        self.shard.timeout(self.now, &mut self.out);
        self.act();
    }

    /// A client with an allocation and a channel.
    fn allocated(&mut self) -> ConnId {
        let conn = self.client();
        self.receive(conn, &request(Method::ALLOCATE, &[], None));
        let challenge = core::mem::take(&mut self.written);
        let message = Message::parse(&challenge).expect("a challenge");
        let nonce = message.attributes().find(|attribute| attribute.kind == Kind::NONCE);
        let nonce = nonce.expect("a nonce").value;
        let allocate = [(Kind::REQUESTED_TRANSPORT, vec![17, 0, 0, 0])];
        self.receive(conn, &request(Method::ALLOCATE, &allocate, Some(nonce)));
        let bind = [
            (Kind::CHANNEL_NUMBER, vec![0x40, 0, 0, 0]),
            (Kind::XOR_PEER_ADDRESS, PEER.to_vec()),
        ];
        self.receive(conn, &request(Method::CHANNEL_BIND, &bind, Some(nonce)));
        let answers = core::mem::take(&mut self.written);
        let success = [0x01, 0x09];
        assert!(answers.windows(2).any(|bytes| bytes == success), "{answers:02x?}");
        conn
    }

    /// The peer sends a burst.
    fn burst(&mut self) {
        let peer = "203.0.113.1:4080".parse().expect("an address");
        let relay = SocketId::Relay(self.relay.expect("a relay"));
        for _ in 0..400 {
            let bytes = [7; 1000];
            self.shard
                .datagrams(self.now, relay, &[Run::one(peer, &bytes)], &mut self.out);
            self.act();
        }
    }
}

#[test]
fn a_client_that_says_nothing_is_cut() {
    let mut edge = Edge::new();
    let silent = edge.client();
    edge.pass(29);
    assert_eq!(edge.closed, []);
    edge.pass(1);
    assert_eq!(edge.closed, [silent]);
}

#[test]
fn a_client_that_sends_a_byte_a_second_is_cut() {
    let long = request(Method::ALLOCATE, &[(Kind::REALM, vec![b'x'; 100])], None);
    let mut edge = Edge::new();
    let slow = edge.client();
    for (second, byte) in long.iter().enumerate() {
        edge.receive(slow, &[*byte]);
        if !edge.closed.is_empty() {
            // From the first byte, as long as from a whole message to the next.
            assert_eq!((second, &edge.closed), (30, &vec![slow]));
            return;
        }
        edge.pass(1);
    }
    panic!("it may go on for ever");
}

#[test]
fn a_client_with_an_allocation_may_be_silent() {
    let mut edge = Edge::new();
    let client = edge.allocated();
    edge.pass(299);
    edge.receive(client, &request(Method::BINDING, &[], None));
    edge.pass(299);
    assert_eq!(edge.closed, []);
}

#[test]
fn a_client_that_asks_for_nothing_but_its_address_is_cut() {
    let mut edge = Edge::new();
    let stranger = edge.client();
    for _ in 0..3 {
        edge.receive(stranger, &request(Method::BINDING, &[], None));
        edge.pass(10);
    }
    assert_eq!(edge.closed, [stranger]);
}

#[test]
fn a_client_that_never_reads_is_cut_though_it_goes_on_sending() {
    let mut edge = Edge::new();
    let deaf = edge.allocated();
    edge.is_deaf = true;
    let mut secs = 0;
    while edge.closed.is_empty() {
        edge.burst();
        edge.receive(deaf, &request(Method::BINDING, &[], None));
        edge.pass(5);
        secs += 5;
        assert!(secs <= 65, "it may go on for ever");
    }
    assert!(secs >= 30, "{secs}: it had time to read");
    assert_eq!(edge.closed, [deaf]);
    // What waited for it is bounded: `buffer_bytes_max` and one message.
    assert!(edge.written.len() <= 256 * 1024 + 2048, "{}", edge.written.len());
}

#[test]
fn a_client_that_reads_now_and_then_is_kept() {
    let mut edge = Edge::new();
    let slow = edge.allocated();
    for _ in 0..10 {
        edge.is_deaf = true;
        edge.burst();
        edge.pass(20);
        edge.is_deaf = false;
        edge.shard.handle(edge.now, Input::Written(slow), &mut edge.out);
        edge.act();
    }
    assert_eq!(edge.closed, []);
}

#[test]
fn a_slow_downlink_holds_up_neither_data_nor_answers() {
    let mut edge = Edge::new();
    let client = edge.allocated();
    edge.is_deaf = true;
    edge.burst();
    let dropped = edge.shard.stats.turn.dropped;
    assert!(dropped > 0, "the way down is full");
    let channel_data = b"\x40\0\0\x04data";
    let ask = request(Method::BINDING, &[], None);
    for _ in 0..20 {
        edge.receive(client, &[channel_data, &*ask].concat());
    }
    assert!(!edge.is_unread);
    assert_eq!(
        (edge.shard.stats.turn.to_peer, edge.shard.stats.turn.dropped),
        (20, dropped)
    );
    edge.is_deaf = false;
    edge.shard.handle(edge.now, Input::Written(client), &mut edge.out);
    edge.act();
    let success = [&[0x01, 0x01][..], &ask[4..20]];
    let is_answer = |bytes: &&[u8]| bytes[..2] == *success[0] && bytes[4..20] == *success[1];
    assert_eq!(edge.written.windows(20).filter(is_answer).count(), 20);
}

#[test]
fn a_client_that_asks_and_does_not_read_is_not_read() {
    let mut edge = Edge::new();
    let client = edge.allocated();
    edge.is_deaf = true;
    let asks = request(Method::BINDING, &[], None).repeat(100);
    let mut sent = 0;
    while !edge.is_unread {
        edge.receive(client, &asks);
        sent += 100;
        assert!(sent < 100_000, "it may go on for ever");
    }
    // What had come by then is answered when there is room for it.
    edge.is_deaf = false;
    edge.shard.handle(edge.now, Input::Written(client), &mut edge.out);
    edge.act();
    assert!(!edge.is_unread);
    assert_eq!(
        edge.written
            .windows(8)
            .filter(|bytes| bytes[..2] == [1, 1] && bytes[4..] == [0x21, 0x12, 0xa4, 0x42])
            .count(),
        sent
    );
    assert_eq!(edge.shard.stats.turn.dropped, 0);
}
