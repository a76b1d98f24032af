//! Does anything that a runtime may say, in any order, upset two shards, or leave an ask without its end?

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arbitrary::Arbitrary;
use bytes::BytesMut;
use edgeward_core::{
    Shard,
    action::{
        Action, Addresses, BindError, ConnId, Egress, Endpoints, Input, IoKind, ListenerId, Parcel, QueryId, RelayId,
        ResolveError, Run, ShardId, SocketId, Source,
    },
    config::Config,
    time::{Instant, Now, UnixTime},
    tls::{ClientTls, Tls},
};

use crate::{
    config::{Machine, keys},
    sequence::sequence,
};

const CONFIG: &str = r#"
[https]
listen = "192.0.2.1:443"
certificates = [{ cert = "cert", key = "key" }]
hosts = ["edge.example.org"]

[[web.upstream]]
name = "cc"
url = "http://10.0.0.10:8080"

[[web.upstream]]
name = "named"
url = "http://cc.example.org:8080"

[[web.route]]
path = "/page"
upstream = "cc"

[[web.route]]
path = "/named"
upstream = "named"

[[web.route]]
path = "/cti"
upstream = "cc"
websocket = true

[sip]
listen = "10.0.0.1:5060"

[[sip.mediaserver]]
address = "10.0.0.2"

[turn]
listen = "192.0.2.1:3478"
relay = "192.0.2.1"
relay_ports = "30000-30063"
realm = "example.org"
tcp_relay = true

[[turn.user]]
name = "alice"
password = { file = "secret" }
"#;

/// Longest sequence; what is behind it is left.
const OPS_MAX: usize = 100;
const SHARDS: u16 = 2;

/// Listeners as [`Config::tcp_listeners`] numbers them.
const HTTPS: ListenerId = ListenerId(0);
const TURN: ListenerId = ListenerId(1);

/// One thing that happens. Numbers pick something that is there.
#[derive(Debug, Arbitrary)]
enum Op {
    Accept {
        shard: bool,
        turn: bool,
        tls: bool,
    },
    Raw {
        conn: u8,
        bytes: Vec<u8>,
    },
    Say {
        conn: u8,
        what: u8,
    },
    SayRaw {
        conn: u8,
        bytes: Vec<u8>,
    },
    Upstream {
        conn: u8,
        what: u8,
    },
    Eof {
        conn: u8,
    },
    Failed {
        conn: u8,
    },
    Written {
        conn: u8,
    },
    Dialed {
        well: bool,
    },
    Resolved {
        well: bool,
    },
    Bound {
        well: bool,
    },
    Datagram {
        shard: bool,
        socket: u8,
        peer: u8,
        stride: u8,
        bytes: Vec<u8>,
    },
    SocketError {
        socket: u8,
        peer: u8,
    },
    Pass {
        millis: u32,
    },
    Drain,
}

const REQUESTS: [&str; 9] = [
    "GET /page HTTP/1.1\r\nHost: edge.example.org\r\n\r\n",
    "GET /named/x HTTP/1.1\r\nHost: edge.example.org\r\n\r\n",
    "POST /page HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 5\r\n\r\nhello",
    "POST /page HTTP/1.1\r\nHost: edge.example.org\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /page HTTP/1.1\r\nHost: edge.example.org\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "GET /cti HTTP/1.1\r\nHost: edge.example.org\r\nOrigin: https://edge.example.org\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    "GET /wssip HTTP/1.1\r\nHost: edge.example.org\r\nOrigin: https://edge.example.org\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
     Sec-WebSocket-Protocol: sip\r\n\r\n",
    "\u{1}\u{fe}\0\u{1a}\0\0\0\0REGISTER sip:a SIP/2.0\r\n\r\n",
    "GET /wssip?token=aa.bb.cc HTTP/1.1\r\nHost: edge.example.org\r\nOrigin: https://edge.example.org\r\n\
     Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sip\r\n\r\n",
];

const RESPONSES: [&str; 7] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 500 Nothing works\r\nContent-Length: 9999999999\r\n\r\nnot all of it",
];

/// Connections, datagrams, failures and time in any order. No fault of ours is met; what a shard names is there; when all
/// have left, a drain ends.
pub fn ops(bytes: &[u8]) {
    let mut world = World::new();
    sequence(bytes, OPS_MAX).for_each(|op| world.apply(op));
    world.leave();
}

/// A connection as the runtime knows it.
struct Link {
    shard: usize,
    conn: ConnId,
    /// The client's end of TLS, where it speaks that.
    tls: Option<Box<Tls>>,
    /// Whether the shard has dialled it.
    is_dialed: bool,
    /// Output that was taken and not written yet.
    unwritten: bool,
}

impl Link {
    /// Whether the shard may have said its goodbye by TLS. What breaks TLS behind that is a fault to rustls in builds with
    /// debug assertions, and one more alert in others: <https://github.com/rustls/rustls/issues/959>.
    fn may_have_heard_goodbye(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| tls.peer_closed() || tls.is_ready() && self.unwritten)
    }
}

struct World {
    shards: Vec<Shard>,
    now: Now,
    egress: Egress,
    trust: ClientTls,
    links: Vec<Link>,
    dials: VecDeque<(usize, ConnId, SocketAddr)>,
    queries: VecDeque<(usize, QueryId)>,
    binds: VecDeque<(usize, RelayId, SocketAddr)>,
    relays: HashMap<(usize, RelayId), SocketAddr>,
    parcels: VecDeque<(usize, usize, Parcel)>,
    drained: [bool; SHARDS as usize],
    accepted: u16,
}

impl World {
    fn new() -> Self {
        let machine = &mut Machine::new();
        let config = Config::parse(CONFIG, machine, keys()).unwrap_or_else(|errors| panic!("{errors}"));
        let config = Arc::new(config);
        let now = Now {
            mono: Instant::ZERO,
            unix: UnixTime(1_790_000_000),
        };
        let shard = |n| Shard::new(config.clone(), ShardId(n), SHARDS, [5; 32], now);
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            now,
            egress: Egress::default(),
            trust: machine.trust("edge.example.org"),
            links: Vec::new(),
            dials: VecDeque::new(),
            queries: VecDeque::new(),
            binds: VecDeque::new(),
            relays: HashMap::new(),
            parcels: VecDeque::new(),
            drained: [false; SHARDS as usize],
            accepted: 0,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Accept { shard, turn, tls } => self.accept(usize::from(shard), if turn { TURN } else { HTTPS }, tls),
            Op::Raw { conn, bytes } => {
                if let Some(link) = self.pick(conn, |link| !link.may_have_heard_goodbye()) {
                    self.receive(link, &bytes);
                }
            }
            Op::Say { conn, what } => self.say(conn, REQUESTS[usize::from(what) % REQUESTS.len()].as_bytes()),
            Op::SayRaw { conn, bytes } => self.say(conn, &bytes),
            Op::Upstream { conn, what } => {
                if let Some(link) = self.pick(conn, |link| link.is_dialed) {
                    self.receive(link, RESPONSES[usize::from(what) % RESPONSES.len()].as_bytes());
                }
            }
            Op::Eof { conn } => {
                if let Some(link) = self.pick(conn, |_| true) {
                    let (shard, conn) = (self.links[link].shard, self.links[link].conn);
                    self.handle(shard, Input::Eof(conn));
                }
            }
            Op::Failed { conn } => {
                if let Some(link) = self.pick(conn, |_| true) {
                    self.fail(link);
                }
            }
            Op::Written { conn } => {
                if let Some(link) = self.pick(conn, |link| link.unwritten) {
                    self.written(link);
                }
            }
            Op::Dialed { well } => self.dialed(well),
            Op::Resolved { well } => self.resolved(well),
            Op::Bound { well } => self.bound(well),
            Op::Datagram {
                shard,
                socket,
                peer,
                stride,
                bytes,
            } => {
                self.datagrams(usize::from(shard), socket, peer, stride, &bytes);
            }
            Op::SocketError { socket, peer } => {
                let input = Input::SocketError(self.socket(socket), address(peer), IoKind::Unreachable, None);
                self.handle(0, input);
            }
            Op::Pass { millis } => self.pass(Duration::from_millis(u64::from(millis % 200_000))),
            Op::Drain => {
                let until = self.now.mono + Duration::from_secs(10);
                for shard in 0..self.shards.len() {
                    self.handle(shard, Input::Drain(until));
                }
            }
        }
        self.check();
    }

    fn accept(&mut self, shard: usize, on: ListenerId, tls: bool) {
        self.accepted += 1;
        let local = SocketAddr::from(([192, 0, 2, 1], if on == HTTPS { 443 } else { 3478 }));
        let peer = SocketAddr::from(([198, 51, 100, 1], self.accepted));
        let Ok(conn) = self.shards[shard].accept(self.now, on, local, peer) else {
            return;
        };
        let tls = tls.then(|| Box::new(Tls::client(&self.trust).expect("a client")));
        self.links.push(Link {
            shard,
            conn,
            tls,
            is_dialed: false,
            unwritten: false,
        });
        let link = self.links.len() - 1;
        let mut hello = BytesMut::new();
        if let Some(tls) = &mut self.links[link].tls {
            tls.receive(&mut [], &mut Vec::new(), &mut hello)
                .expect("a first flight");
        }
        if !hello.is_empty() {
            self.receive(link, &hello);
        }
        self.settle(shard);
    }

    /// A client says something, over TLS when it speaks that.
    fn say(&mut self, conn: u8, bytes: &[u8]) {
        let Some(link) = self.pick(conn, |link| !link.is_dialed) else {
            return;
        };
        let mut sealed = BytesMut::new();
        match &mut self.links[link].tls {
            Some(tls) if tls.is_ready() => {
                if tls.seal(bytes, &mut sealed).is_err() {
                    return;
                }
            }
            Some(_) => return,
            None => sealed.extend_from_slice(bytes),
        }
        self.receive(link, &sealed);
    }

    fn receive(&mut self, link: usize, bytes: &[u8]) {
        let (shard, conn) = (self.links[link].shard, self.links[link].conn);
        self.shards[shard].receive(self.now, conn, &mut bytes.to_vec(), &mut self.egress);
        self.settle(shard);
    }

    fn handle(&mut self, shard: usize, input: Input) {
        self.shards[shard].handle(self.now, input, &mut self.egress);
        self.settle(shard);
    }

    fn written(&mut self, link: usize) {
        self.links[link].unwritten = false;
        let (shard, conn) = (self.links[link].shard, self.links[link].conn);
        self.handle(shard, Input::Written(conn));
    }

    fn fail(&mut self, link: usize) {
        let Link { shard, conn, .. } = self.links.swap_remove(link);
        self.handle(shard, Input::Failed(conn, IoKind::Reset));
    }

    fn dialed(&mut self, well: bool) {
        let Some((shard, conn, to)) = self.dials.pop_front() else {
            return;
        };
        let local = SocketAddr::from(([192, 0, 2, 1], 50_000));
        let result = if well {
            Ok(Endpoints { local, peer: to })
        } else {
            Err(IoKind::Refused)
        };
        if well {
            self.links.push(Link {
                shard,
                conn,
                tls: None,
                is_dialed: true,
                unwritten: false,
            });
        }
        self.handle(shard, Input::Dialed(conn, result));
    }

    fn resolved(&mut self, well: bool) {
        let Some((shard, query)) = self.queries.pop_front() else {
            return;
        };
        let addresses = vec![IpAddr::from([10, 0, 0, 11])];
        let result = if well {
            Ok(Addresses { addresses })
        } else {
            Err(ResolveError)
        };
        self.handle(shard, Input::Resolved(query, result));
    }

    fn bound(&mut self, well: bool) {
        let Some((shard, relay, at)) = self.binds.pop_front() else {
            return;
        };
        if well {
            self.relays.insert((shard, relay), at);
        }
        self.handle(
            shard,
            Input::RelayBound(relay, if well { Ok(at) } else { Err(BindError::InUse) }),
        );
    }

    fn datagrams(&mut self, shard: usize, socket: u8, peer: u8, stride: u8, bytes: &[u8]) {
        let on = self.socket(socket);
        let run = Run {
            stride: usize::from(stride).max(1),
            ..Run::one(address(peer), bytes)
        };
        self.shards[shard].datagrams(self.now, on, &[run], &mut self.egress);
        for transmit in &self.egress.transmits {
            for piece in &self.egress.pieces[transmit.pieces.clone()] {
                match &piece.payload {
                    Source::Run(index, range) => assert!(*index == 0 && range.end <= bytes.len()),
                    Source::Made(range) => assert!(range.end <= self.egress.made.len()),
                }
            }
        }
        self.settle(shard);
    }

    fn socket(&self, number: u8) -> SocketId {
        match number % 4 {
            0 | 1 => SocketId::Turn(0),
            2 => SocketId::Sip,
            _ => {
                let mut relays: Vec<_> = self.relays.keys().map(|(_, relay)| *relay).collect();
                relays.sort_by_key(|relay| relay.0);
                relays.first().map_or(SocketId::Sip, |relay| SocketId::Relay(*relay))
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix.0 += time.as_secs();
        for shard in 0..self.shards.len() {
            self.shards[shard].timeout(self.now, &mut self.egress);
            self.settle(shard);
        }
    }

    /// Carries out what a shard asks, as far as that does not wait for an operation, and delivers parcels.
    fn settle(&mut self, shard: usize) {
        self.egress.clear();
        while let Some(action) = self.shards[shard].poll_action() {
            self.carry_out(shard, action);
        }
        while let Some((from, to, parcel)) = self.parcels.pop_front() {
            match parcel {
                Parcel::Conn(old, value) => {
                    let index = self
                        .position(from, old)
                        .expect("a connection that is there is handed on");
                    let Ok(conn) = self.shards[to].adopt(self.now, value) else {
                        self.links.swap_remove(index);
                        continue;
                    };
                    (self.links[index].shard, self.links[index].conn) = (to, conn);
                    self.shards[to].resume(self.now, conn, &mut self.egress);
                }
                parcel => self.shards[to].handle(self.now, Input::Parcel(parcel), &mut self.egress),
            }
            self.settle(to);
        }
    }

    fn carry_out(&mut self, shard: usize, action: Action) {
        match action {
            Action::Flush(conn) => {
                let Some(link) = self.position(shard, conn) else {
                    panic!("output for nobody: {conn:?}")
                };
                // The runtime takes no more before the last output is written.
                if !self.links[link].unwritten
                    && let Some(bytes) = self.shards[shard].take_output(conn)
                {
                    self.links[link].unwritten = true;
                    self.hear(link, bytes);
                }
            }
            Action::Reset(conn) | Action::Close(conn, _) => match self.position(shard, conn) {
                Some(link) => {
                    self.links.swap_remove(link);
                }
                None => self.dials.retain(|(at, dial, _)| (*at, *dial) != (shard, conn)),
            },
            Action::Dial { conn, to, .. } => self.dials.push_back((shard, conn, to)),
            Action::Resolve { query, .. } => self.queries.push_back((shard, query)),
            Action::BindRelay { relay, at, .. } => self.binds.push_back((shard, relay, at)),
            Action::CloseSocket(relay) => {
                assert!(
                    self.relays.remove(&(shard, relay)).is_some(),
                    "a socket that is not open was closed"
                );
            }
            Action::Forward { to, parcel } => self.parcels.push_back((shard, usize::from(to.0), parcel)),
            Action::Drained => self.drained[shard] = true,
            Action::Read(..) | Action::Shut(_) | Action::Log(_) => {}
        }
    }

    /// A client hears what was sent to it; TLS answers by itself until it is up.
    fn hear(&mut self, link: usize, mut bytes: BytesMut) {
        let mut answer = BytesMut::new();
        let Some(tls) = &mut self.links[link].tls else { return };
        let was_ready = tls.is_ready();
        if tls.receive(&mut bytes, &mut Vec::new(), &mut answer).is_err() || was_ready || answer.is_empty() {
            return;
        }
        self.links[link].unwritten = false;
        let (shard, conn) = (self.links[link].shard, self.links[link].conn);
        self.shards[shard].handle(self.now, Input::Written(conn), &mut self.egress);
        self.shards[shard].receive(self.now, conn, &mut answer, &mut self.egress);
    }

    fn position(&self, shard: usize, conn: ConnId) -> Option<usize> {
        self.links
            .iter()
            .position(|link| (link.shard, link.conn) == (shard, conn))
    }

    fn pick(&self, number: u8, fits: impl Fn(&Link) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.links.len())
            .filter(|index| fits(&self.links[*index]))
            .collect();
        fitting.get(usize::from(number) % fitting.len().max(1)).copied()
    }

    fn check(&self) {
        for shard in &self.shards {
            assert_eq!(shard.stats().edge.panics, 0, "a fault of ours was contained");
        }
    }

    /// Everybody leaves and every ask gets its answer: then a drain has nothing to wait for.
    fn leave(&mut self) {
        loop {
            self.dialed(false);
            self.resolved(false);
            self.bound(false);
            while !self.links.is_empty() {
                self.fail(self.links.len() - 1);
            }
            if self.dials.is_empty() && self.queries.is_empty() && self.binds.is_empty() && self.links.is_empty() {
                break;
            }
        }
        // Longer than an allocation lives.
        self.pass(Duration::from_secs(3700));
        let until = self.now.mono + Duration::from_secs(10);
        for shard in 0..self.shards.len() {
            self.handle(shard, Input::Drain(until));
        }
        self.pass(Duration::from_secs(11));
        self.check();
        assert_eq!(self.drained, [true; SHARDS as usize], "a drain did not end");
        assert!(self.relays.is_empty(), "a relay socket was left");
    }
}

fn address(number: u8) -> SocketAddr {
    let addresses = [
        ([198, 51, 100, 1], 1000),
        ([198, 51, 100, 2], 1000),
        ([10, 0, 0, 2], 5060),
        ([203, 0, 113, 1], 5000),
    ];
    SocketAddr::from(addresses[usize::from(number) % addresses.len()])
}
