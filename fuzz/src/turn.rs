//! Does any sequence of requests, honest or not, of users who have proved who they are, get a packet relayed that should
//! not be?

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arbitrary::Arbitrary;
use edgeward_core::{
    action::{BindError, ConnId, RelayId, ShardId, SocketId},
    config::Config,
    cx::Cx,
    rng::Rng,
    slab::Key as Slot,
    stats::Stats,
    time::{Instant, Now, UnixTime},
    turn::{Ask, Client, Payload, Server, To, Verdict},
    wire::{
        channel,
        stun::{self, Class, Header, Integrity, Key, Kind, Message, Method, TransactionId, Writer},
    },
};

use crate::{
    config::{Machine, keys},
    sequence::sequence,
};

const CONFIG: &str = r#"
[turn]
listen = "192.0.2.10:3478"
relay = ["192.0.2.10", "2001:db8::10"]
relay_ports = "30000-30063"
realm = "example.org"
tcp_relay = true
meetingroom = "10.0.0.9"

[[turn.user]]
name = "alice"
password = { file = "secret" }

[[turn.user]]
name = "bob"
password = { file = "secret" }
"#;

const PASSWORD: &[u8] = b"a secret that is long enough";

/// Longest sequence; what is behind it is left.
const OPS_MAX: usize = 200;

/// Two public peers, one of them with two ports, one of IPv6, the Meetingroom with its port and with another one, loopback
/// and a relayed transport address of the server's.
const PEERS: [&str; 8] = [
    "203.0.113.1:5000",
    "203.0.113.1:5001",
    "198.51.101.2:5000",
    "[2a00:1450::1]:5000",
    "10.0.0.9:10000",
    "10.0.0.9:22",
    "127.0.0.1:5000",
    "192.0.2.10:30001",
];

/// One thing that happens.
#[derive(Debug, Arbitrary)]
enum Op {
    Pass {
        secs: u16,
    },
    Allocate {
        from: From,
        tcp: bool,
        family: Option<bool>,
        even_port: Option<bool>,
        lifetime: Option<u32>,
    },
    Refresh {
        from: From,
        lifetime: Option<u32>,
        family: Option<bool>,
    },
    Permit {
        from: From,
        peers: [u8; 2],
    },
    Bind {
        from: From,
        number: u8,
        peer: u8,
    },
    Connect {
        from: From,
        peer: u8,
    },
    Any {
        from: From,
        method: u8,
        attributes: Vec<(u16, Vec<u8>)>,
    },
    Send {
        client: u8,
        peer: u8,
    },
    Channel {
        client: u8,
        number: u8,
        declared: u16,
    },
    Peer {
        relay: u8,
        peer: u8,
    },
    Answer {
        well: bool,
        in_use: bool,
    },
    Raw {
        client: u8,
        bytes: Vec<u8>,
    },
    Close {
        client: u8,
    },
    Drain,
}

/// Who sends a request.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct From {
    client: u8,
    is_bob: bool,
    sha256: bool,
}

/// Requests, packets, time and failures in any order. What goes to a peer must have a live permission and a port that the
/// policy allows; what goes to a client must come from a peer with a live permission.
pub fn ops(bytes: &[u8]) {
    let mut world = World::new();
    sequence(bytes, OPS_MAX).for_each(|op| world.apply(op));
    world.leave();
}

/// What a client may do as far as anybody can tell from the answers that it got.
#[derive(Debug, Default)]
struct Granted {
    permissions: HashMap<IpAddr, Instant>,
    channels: HashMap<u16, SocketAddr>,
    expires: Option<Instant>,
}

struct World {
    server: Server,
    rng: Rng,
    stats: Stats,
    now: Instant,
    made: Vec<u8>,
    clients: [Client; 4],
    nonces: [Option<Vec<u8>>; 4],
    granted: [Granted; 4],
    /// Requests that were not answered yet, by the last bytes of their transaction.
    requests: HashMap<TransactionId, (usize, Vec<u8>)>,
    /// Sockets that were asked for and nobody has bound yet.
    asked: Vec<(RelayId, SocketAddr)>,
    /// Sockets that are open, and for whom.
    open: Vec<(RelayId, usize)>,
    sent: u32,
}

impl World {
    fn new() -> Self {
        let config = Config::parse(CONFIG, &mut Machine::new(), keys()).unwrap_or_else(|errors| panic!("{errors}"));
        let mut rng = Rng::new([3; 32]);
        let datagrams = |port| Client::Datagram {
            socket: SocketId::Turn(0),
            peer: SocketAddr::from(([198, 51, 100, 1], port)),
            local: None,
        };
        let stream = |n| Client::Stream {
            conn: ConnId(Slot::from_parts(n, 1)),
            peer: SocketAddr::from(([198, 51, 100, 1], 50)),
            local: SocketAddr::from(([192, 0, 2, 10], 3478)),
        };
        Self {
            server: Server::new(Arc::new(config), ShardId(0), 1, &mut rng),
            rng,
            stats: Stats::default(),
            now: Instant::from_nanos(1_000_000_000_000),
            made: Vec::new(),
            clients: [datagrams(1), datagrams(2), stream(3), stream(4)],
            nonces: [const { None }; 4],
            granted: Default::default(),
            requests: HashMap::new(),
            asked: Vec::new(),
            open: Vec::new(),
            sent: 0,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Pass { secs } => {
                self.now += Duration::from_secs(u64::from(secs % 1300));
                self.call(None, |server, cx| {
                    server.timeout(cx);
                    Verdict::NOTHING
                });
            }
            Op::Allocate {
                from,
                tcp,
                family,
                even_port,
                lifetime,
            } => {
                self.request(from, Method::ALLOCATE, |writer| {
                    writer.attribute(Kind::REQUESTED_TRANSPORT, &[if tcp { 6 } else { 17 }, 0, 0, 0]);
                    write_family(writer, family);
                    if let Some(reserve) = even_port {
                        writer.attribute(Kind::EVEN_PORT, &[u8::from(reserve) << 7]);
                    }
                    write_lifetime(writer, lifetime);
                });
            }
            Op::Refresh { from, lifetime, family } => self.request(from, Method::REFRESH, |writer| {
                write_lifetime(writer, lifetime);
                write_family(writer, family);
            }),
            Op::Permit { from, peers } => self.request(from, Method::CREATE_PERMISSION, |writer| {
                for index in peers {
                    writer.address(Kind::XOR_PEER_ADDRESS, peer(index));
                }
            }),
            Op::Bind {
                from,
                number,
                peer: index,
            } => self.request(from, Method::CHANNEL_BIND, |writer| {
                writer.u32(Kind::CHANNEL_NUMBER, u32::from(channel_number(number)) << 16);
                writer.address(Kind::XOR_PEER_ADDRESS, peer(index));
            }),
            Op::Connect { from, peer: index } => self.request(from, Method::CONNECT, |writer| {
                writer.address(Kind::XOR_PEER_ADDRESS, peer(index));
            }),
            Op::Any {
                from,
                method,
                attributes,
            } => {
                self.request(from, Method(u16::from(method % 16)), |writer| {
                    for (kind, value) in attributes.iter().take(16) {
                        writer.attribute(Kind(*kind), &value[..value.len().min(200)]);
                    }
                });
            }
            Op::Send { client, peer: index } => {
                let message = self.message(Class::Indication, Method::SEND, |writer| {
                    writer.address(Kind::XOR_PEER_ADDRESS, peer(index));
                    writer.attribute(Kind::DATA, b"data");
                });
                self.from_client(usize::from(client % 4), &message);
            }
            Op::Channel {
                client,
                number,
                declared,
            } => {
                let mut message = channel::header(channel_number(number), declared % 8).to_vec();
                message.extend_from_slice(b"data");
                self.from_client(usize::from(client % 4), &message);
            }
            Op::Peer { relay, peer: index } => self.from_peer(relay, peer(index)),
            Op::Answer { well, in_use } => self.answer_ask(well, in_use),
            Op::Raw { client, bytes } => self.from_client(usize::from(client % 4), &bytes),
            Op::Close { client } => {
                let client = usize::from(client % 4);
                if let Client::Stream { conn, .. } = self.clients[client] {
                    self.call(None, |server, cx| {
                        server.closed(cx, conn);
                        Verdict::NOTHING
                    });
                    self.granted[client] = Granted::default();
                }
            }
            Op::Drain => self.server.drain(),
        }
    }

    fn message(&mut self, class: Class, method: Method, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(
            &mut out,
            Header {
                class,
                method,
                transaction: self.transaction(),
            },
        );
        fill(&mut writer);
        let _ = writer.finish();
        out
    }

    fn transaction(&mut self) -> TransactionId {
        self.sent += 1;
        let mut id = [0; 12];
        id[8..].copy_from_slice(&self.sent.to_be_bytes());
        TransactionId(id)
    }

    /// Sends a signed request; gets a nonce first where there is none.
    fn request(&mut self, from: From, method: Method, fill: impl FnOnce(&mut Writer<'_>)) {
        let client = usize::from(from.client % 4);
        if self.nonces[client].is_none() {
            let challenge = self.message(Class::Request, Method::ALLOCATE, |_| ());
            self.from_client(client, &challenge);
        }
        let Some(nonce) = self.nonces[client].clone() else {
            return;
        };
        let user: &[u8] = if from.is_bob { b"bob" } else { b"alice" };
        let transaction = self.transaction();
        let mut out = Vec::new();
        let mut writer = Writer::new(
            &mut out,
            Header {
                class: Class::Request,
                method,
                transaction,
            },
        );
        fill(&mut writer);
        writer.attribute(Kind::USERNAME, user);
        writer.attribute(Kind::REALM, b"example.org");
        writer.attribute(Kind::NONCE, &nonce);
        // Without PASSWORD-ALGORITHM the key is the one of MD5, whatever signs (RFC 8489 section 9.2.4).
        let key = Key::md5(user, b"example.org", PASSWORD);
        writer.sign(
            if from.sha256 {
                Integrity::Sha256
            } else {
                Integrity::Sha1
            },
            &key,
        );
        let _ = writer.finish();
        self.requests.insert(transaction, (client, out.clone()));
        self.from_client(client, &out);
    }

    fn from_client(&mut self, client: usize, bytes: &[u8]) {
        let who = self.clients[client];
        let (verdict, made) = self.call(Some(client), |server, cx| server.client(cx, who, bytes));
        if let To::Datagram {
            socket: SocketId::Relay(relay),
            peer,
            ..
        } = verdict.to
        {
            self.relayed_to(relay, peer);
            let payload = match verdict.payload {
                Payload::Input(range) => &bytes[range],
                Payload::Made(range) => &made[range],
            };
            assert!(payload.len() <= bytes.len(), "more than came was relayed");
        }
    }

    fn from_peer(&mut self, index: u8, from: SocketAddr) {
        let Some((relay, owner)) = self.open.get(usize::from(index) % self.open.len().max(1)).copied() else {
            return;
        };
        let (verdict, _) = self.call(None, |server, cx| server.peer(cx, relay, from, b"voice"));
        match verdict.to {
            To::Nobody => {}
            To::Datagram {
                socket: SocketId::Relay(next),
                peer,
                ..
            } => self.relayed_to(next, peer),
            To::Datagram { .. } | To::Stream(_) => {
                let live = self.granted[owner].permissions.get(&from.ip()).copied();
                assert!(live.is_some_and(|until| self.now < until), "{from} had no permission");
                assert!(self.is_alive(owner), "the allocation had expired");
            }
            To::Shard(_) => panic!("there is one shard"),
        }
    }

    fn relayed_to(&self, relay: RelayId, to: SocketAddr) {
        let owner = self
            .open
            .iter()
            .find(|(open, _)| *open == relay)
            .map(|(_, owner)| *owner);
        let owner = owner.expect("a packet left by a socket that is not open");
        let live = self.granted[owner].permissions.get(&to.ip()).copied();
        assert!(live.is_some_and(|until| self.now < until), "no permission for {to}");
        assert!(self.is_alive(owner), "the allocation had expired");
        assert!(is_allowed(to), "{to} is nobody's peer");
    }

    fn is_alive(&self, client: usize) -> bool {
        self.granted[client].expires.is_some_and(|until| self.now < until)
    }

    fn answer_ask(&mut self, well: bool, in_use: bool) {
        if self.asked.is_empty() {
            return;
        }
        let (relay, at) = self.asked.remove(0);
        let result = match (well, in_use) {
            (true, _) => Ok(at),
            (false, true) => Err(BindError::InUse),
            (false, false) => Err(BindError::Failed),
        };
        // A bind that failed is tried again with another port.
        let owner = self
            .open
            .iter()
            .find(|(open, _)| *open == relay)
            .map(|(_, owner)| *owner);
        if result.is_err() {
            self.open.retain(|(open, _)| *open != relay);
        }
        self.call(owner, |server, cx| server.bound(cx, relay, result));
    }

    /// Calls the server, carries out what it asks and takes note of what it grants.
    fn call(
        &mut self,
        client: Option<usize>,
        call: impl FnOnce(&mut Server, &mut Cx<'_>) -> Verdict,
    ) -> (Verdict, Vec<u8>) {
        self.made.clear();
        let unix = UnixTime(1_700_000_000 + self.now.as_nanos() / 1_000_000_000);
        let mut cx = Cx {
            now: Now { mono: self.now, unix },
            rng: &mut self.rng,
            made: &mut self.made,
            stats: &mut self.stats,
        };
        let verdict = call(&mut self.server, &mut cx);
        while let Some(ask) = self.server.poll_ask() {
            match ask {
                Ask::Bind { relay, at, .. } => {
                    self.asked.push((relay, at));
                    self.open.push((relay, client.expect("somebody asked for a socket")));
                }
                Ask::Close(relay) => {
                    self.asked.retain(|(asked, _)| *asked != relay);
                    self.open.retain(|(open, _)| *open != relay);
                }
                Ask::Dial { to, .. } => assert!(is_allowed(to), "{to} is nobody's peer"),
                Ask::Join { .. } | Ask::Cut(_) => {}
            }
        }
        let made = self.made.clone();
        if let (To::Datagram { .. } | To::Stream(_), Payload::Made(range)) = (verdict.to, &verdict.payload) {
            self.read_answer(&made[range.clone()]);
        }
        (verdict, made)
    }

    fn read_answer(&mut self, bytes: &[u8]) {
        let Ok(answer) = Message::parse(bytes) else {
            panic!("what the server says is no STUN message: {}", bytes.escape_ascii())
        };
        let header = answer.header();
        let find = |kind| {
            answer
                .attributes()
                .find(|attribute| attribute.kind == kind)
                .map(|found| found.value)
        };
        let Some((client, request)) = self.requests.remove(&header.transaction) else {
            // The challenge that every sequence begins with.
            if let (Class::Error, Some(nonce)) = (header.class, find(Kind::NONCE)) {
                self.nonces
                    .iter_mut()
                    .filter(|held| held.is_none())
                    .for_each(|held| *held = Some(nonce.to_vec()));
            }
            return;
        };
        if let (Class::Error, Some(nonce)) = (header.class, find(Kind::NONCE)) {
            self.nonces[client] = Some(nonce.to_vec());
        }
        if header.class != Class::Success {
            return;
        }
        let request = Message::parse(&request).expect("it was parsed before");
        let peers: Vec<SocketAddr> = request
            .attributes()
            .filter(|attribute| attribute.kind == Kind::XOR_PEER_ADDRESS)
            .filter_map(|attribute| stun::read_address(attribute.value, request.header().transaction))
            .collect();
        let granted = &mut self.granted[client];
        let permit = |granted: &mut Granted, peer: SocketAddr, until| {
            granted.permissions.insert(peer.ip(), until);
        };
        match header.method {
            Method::ALLOCATE | Method::REFRESH => {
                let secs = find(Kind::LIFETIME).and_then(stun::read_u32).expect("a LIFETIME");
                assert!(secs <= 3600, "longer than RFC 8656 section 7.2 allows");
                let until = self.now + Duration::from_secs(u64::from(secs));
                granted.expires = Some(granted.expires.map_or(until, |other| match secs {
                    // One of two families may be let go of while the other one lives.
                    0 => other,
                    _ => other.max(until),
                }));
            }
            Method::CREATE_PERMISSION => {
                for peer in peers {
                    permit(granted, peer, self.now + Duration::from_secs(300));
                }
            }
            Method::CHANNEL_BIND => {
                let number = request
                    .attributes()
                    .find(|attribute| attribute.kind == Kind::CHANNEL_NUMBER);
                let number = number
                    .and_then(|found| stun::read_u16(found.value))
                    .expect("a number was granted");
                assert!((0x4000..0x5000).contains(&number), "RFC 8656 section 12");
                let peer = *peers.first().expect("a peer was granted");
                assert!(is_allowed(peer), "{peer} got a channel");
                granted.channels.insert(number, peer);
                permit(granted, peer, self.now + Duration::from_secs(300));
            }
            _ => {}
        }
    }

    /// Everybody leaves: after the longest lifetime nothing is left, neither an allocation nor a socket.
    fn leave(&mut self) {
        while !self.asked.is_empty() {
            self.answer_ask(false, false);
        }
        for _ in 0..4 {
            self.now += Duration::from_secs(3601);
            self.call(None, |server, cx| {
                server.timeout(cx);
                Verdict::NOTHING
            });
        }
        assert_eq!(self.server.allocations(), 0, "an allocation outlived its lifetime");
        assert!(self.open.is_empty(), "a socket outlived its allocation");
    }
}

fn peer(index: u8) -> SocketAddr {
    PEERS[usize::from(index) % PEERS.len()].parse().expect("an address")
}

/// The policy of [`CONFIG`], in other words.
fn is_allowed(peer: SocketAddr) -> bool {
    let is_ours = |ip: IpAddr| ip.to_string() == "192.0.2.10" || ip.to_string() == "2001:db8::10";
    match peer.ip().to_canonical() {
        ip if is_ours(ip) => (30_000..=30_063).contains(&peer.port()),
        IpAddr::V4(ip) if ip.is_private() => ip.octets() == [10, 0, 0, 9] && peer.port() == 10_000,
        IpAddr::V4(ip) => {
            !(ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()),
    }
}

/// Mostly a number that may be bound.
fn channel_number(number: u8) -> u16 {
    match number {
        0 => 0x3fff,
        255 => 0x5000,
        number => 0x4000 + u16::from(number % 4),
    }
}

fn write_family(writer: &mut Writer<'_>, family: Option<bool>) {
    if let Some(v6) = family {
        writer.attribute(Kind::REQUESTED_ADDRESS_FAMILY, &[if v6 { 2 } else { 1 }, 0, 0, 0]);
    }
}

fn write_lifetime(writer: &mut Writer<'_>, lifetime: Option<u32>) {
    if let Some(secs) = lifetime {
        writer.u32(Kind::LIFETIME, secs);
    }
}
