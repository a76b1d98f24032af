//! How long does the TURN server take for a packet, and how much memory for an allocation? The core alone, no socket.
//!
//! `cargo bench -p edgeward-core --bench turn` prints a table: of each figure the median of [`ROUNDS`] rounds and, where a
//! machine has other work as well, the best one.

#![allow(unsafe_code, reason = "counting bytes takes an allocator")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench has a clock and speaks"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant as Stopwatch},
};

use edgeward_core::{
    action::{RelayId, ShardId, SocketId},
    config::{self, Config, Secret, SecretHash, TurnLimits, User},
    cx::Cx,
    rng::Rng,
    stats::Stats,
    time::{Instant, Now, UnixTime},
    turn::{Ask, Client, Payload, Server, To, Verdict},
    wire::{
        channel,
        stun::{Class, Header, Integrity, Key, Kind, Message, Method, TransactionId, Writer},
    },
};

/// Short ones, most of which nobody else's work gets into.
const ROUNDS: usize = 99;
const PACKETS: usize = 100_000;
const CYCLES: usize = 1_000;
const SPOOFED: u32 = 1_000_000;
const PAYLOAD_BYTES: usize = 160;
const CHANNEL: u16 = 0x4000;
const REALM: &str = "example.org";
const USER: (&str, &str) = ("alice", "wonderland");

fn main() {
    println!("{:<48} {:>12} {:>12}", "what", "median", "best");
    for allocations in [10, 1_000, 10_000] {
        for is_shuffled in [false, true] {
            verdicts(allocations, is_shuffled);
        }
    }
    cycles();
    memory();
    growth();
}

/// Nanoseconds for a packet in either direction.
fn verdicts(allocations: u32, is_shuffled: bool) {
    let mut world = World::new(usize::MAX);
    let mut flows: Vec<Flow> = (0..allocations).map(|n| world.open(n)).collect();
    if is_shuffled {
        world.rng.shuffle(&mut flows);
    }
    let order = if is_shuffled { "random" } else { "in order" };
    let mut message = channel::header(CHANNEL, PAYLOAD_BYTES as u16).to_vec();
    message.resize(channel::HEADER_BYTES + PAYLOAD_BYTES, 7);
    let up = rounds(|| {
        let start = Stopwatch::now();
        for flow in flows.iter().cycle().take(PACKETS) {
            let verdict = world.call(|server, cx| server.client(cx, flow.client, &message));
            assert!(matches!(black_box(verdict).to, To::Datagram { .. }));
        }
        start.elapsed().as_nanos() as f64 / PACKETS as f64
    });
    row(&format!("ChannelData verdict, {allocations} {order}"), up, "ns");
    let payload = &message[channel::HEADER_BYTES..];
    let down = rounds(|| {
        let start = Stopwatch::now();
        for flow in flows.iter().cycle().take(PACKETS) {
            let verdict = world.call(|server, cx| server.peer(cx, flow.relay, flow.peer, payload));
            assert!(matches!(black_box(verdict).to, To::Datagram { .. }));
        }
        start.elapsed().as_nanos() as f64 / PACKETS as f64
    });
    row(&format!("peer verdict, {allocations} {order}"), down, "ns");
}

/// Allocations a second from the challenge to Refresh 0: Allocate twice, CreatePermission, ChannelBind, Refresh.
fn cycles() {
    let mut world = World::new(usize::MAX);
    let scripts: Vec<(Client, [Vec<u8>; 5])> = (0..CYCLES as u32)
        .map(|n| {
            let (client, login) = world.login(n);
            let challenge = request(Method::ALLOCATE, None, |_| ());
            (
                client,
                [
                    challenge,
                    login.allocate(),
                    login.permit(peer(n)),
                    login.bind(peer(n)),
                    login.end(),
                ],
            )
        })
        .collect();
    let secs = rounds(|| {
        let start = Stopwatch::now();
        for (client, script) in &scripts {
            for message in script {
                world.ask(*client, message);
            }
        }
        start.elapsed().as_secs_f64()
    });
    assert_eq!(world.server.allocations(), 0);
    assert_eq!(world.stats.turn.released, (CYCLES * ROUNDS) as u64);
    row(
        "allocation cycles a second, 5 requests, SHA-1",
        secs.map(|secs| CYCLES as f64 / secs),
        "/s",
    );
}

/// Bytes on the heap for an allocation with a permission and a channel.
fn memory() {
    for allocations in [1_000, 10_000] {
        let mut world = World::new(usize::MAX);
        let before = live();
        for n in 0..allocations {
            world.open(n);
        }
        world.made = Vec::new();
        row(
            &format!("bytes an allocation, of {allocations}"),
            [(live() - before) as f64 / f64::from(allocations); 2],
            "B",
        );
    }
}

/// Bytes that the server takes more when strangers flood it, each packet from another address.
fn growth() {
    let stranger = Login {
        key: Key::md5(b"alice", REALM.as_bytes(), b"a guess"),
        nonce: b"obMatJos2gAAAAAAAAAAAAAAAAAAA".to_vec(),
    };
    let binding = request(Method::BINDING, None, |_| ());
    let allocate = request(Method::ALLOCATE, None, |writer| {
        writer.attribute(Kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    });
    for (name, message) in [
        ("Binding", binding),
        ("Allocate", allocate),
        ("forged integrity", stranger.allocate()),
    ] {
        let mut world = World::new(TurnLimits::default().unauthenticated_per_second as usize);
        world.call(|server, cx| server.client(cx, client(0), &message));
        let before = live();
        let start = Stopwatch::now();
        for n in 0..SPOOFED {
            let at = Duration::from_micros(u64::from(n));
            world.now.mono = Instant::from_nanos(1_000_000_000_000) + at;
            black_box(world.call(|server, cx| server.client(cx, client(n), &message)));
        }
        let nanos = start.elapsed().as_nanos() as f64 / f64::from(SPOOFED);
        row(
            &format!("growth by {SPOOFED} spoofed, {name}"),
            [live().saturating_sub(before) as f64; 2],
            "B",
        );
        row(&format!("time for each spoofed, {name}"), [nanos; 2], "ns");
    }
}

/// A server and what it needs.
struct World {
    server: Server,
    rng: Rng,
    stats: Stats,
    now: Now,
    made: Vec<u8>,
}

/// An allocation with one channel.
struct Flow {
    client: Client,
    relay: RelayId,
    peer: SocketAddr,
}

/// A user with a nonce for one address.
struct Login {
    key: Key,
    nonce: Vec<u8>,
}

impl World {
    /// A server that answers each stranger so often; `usize::MAX` is always.
    fn new(unauthenticated_per_second: usize) -> Self {
        let mut rng = Rng::new([5; 32]);
        let relay = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
        let turn = config::Turn {
            tcp_relay: false,
            listen_udp: vec![SocketAddr::new(relay, 3478)],
            listen_tcp: vec![],
            proxy_protocol_from: vec![],
            relays: vec![config::Relay {
                bind: relay,
                advertise: relay,
            }],
            relay_ports: 10_000..=65_000,
            realm: REALM.into(),
            secrets: vec![],
            secret_hashes: vec![SecretHash::Sha1],
            strict_expiry: false,
            users: vec![User {
                name: USER.0.into(),
                password: Secret::new(USER.1),
                sources: vec![],
            }],
            peers: vec![],
            public_peers: true,
            mobility: false,
            discovery: vec![],
            alternate: None,
            limits: TurnLimits {
                allocations_max: 100_000,
                allocations_per_user_max: 100_000,
                // 0 is no limit.
                unauthenticated_per_second: u32::try_from(unauthenticated_per_second).unwrap_or(0),
                ..TurnLimits::default()
            },
        };
        let config = Config {
            server: config::Server::default(),
            https: None,
            web: None,
            sip: None,
            turn: Some(turn),
            rates: config::Rates::default(),
            metrics: None,
            token: None,
            access_log: None,
            keys: config::Keys {
                nonce: [9; 32],
                flow: vec![],
            },
        };
        Self {
            server: Server::new(Arc::new(config), ShardId(0), 1, &mut rng),
            rng,
            stats: Stats::default(),
            now: Now {
                mono: Instant::from_nanos(1_000_000_000_000),
                unix: UnixTime(1_700_000_000),
            },
            made: Vec::new(),
        }
    }

    fn call(&mut self, call: impl FnOnce(&mut Server, &mut Cx<'_>) -> Verdict) -> Verdict {
        self.made.clear();
        let mut cx = Cx {
            now: self.now,
            rng: &mut self.rng,
            made: &mut self.made,
            stats: &mut self.stats,
        };
        call(&mut self.server, &mut cx)
    }

    /// Sends a request, binds what is asked for, and returns the socket and the answer.
    fn ask(&mut self, from: Client, bytes: &[u8]) -> (Option<RelayId>, Vec<u8>) {
        let (mut verdict, mut bound) = (self.call(|server, cx| server.client(cx, from, bytes)), None);
        while let Some(ask) = self.server.poll_ask() {
            if let Ask::Bind { relay, at, .. } = ask {
                verdict = self.call(|server, cx| server.bound(cx, relay, Ok(at)));
                bound = Some(relay);
            }
        }
        let Payload::Made(range) = verdict.payload else {
            panic!("a response")
        };
        (bound, self.made[range].to_vec())
    }

    fn login(&mut self, n: u32) -> (Client, Login) {
        let (_, challenge) = self.ask(client(n), &request(Method::ALLOCATE, None, |_| ()));
        let challenge = Message::parse(&challenge).expect("a message");
        let nonce = challenge.attributes().find(|attribute| attribute.kind == Kind::NONCE);
        let nonce = nonce.expect("a nonce").value.to_vec();
        let key = Key::md5(USER.0.as_bytes(), REALM.as_bytes(), USER.1.as_bytes());
        (client(n), Login { key, nonce })
    }

    /// Makes an allocation with a permission and a channel.
    fn open(&mut self, n: u32) -> Flow {
        let (client, login) = self.login(n);
        let (relay, _) = self.ask(client, &login.allocate());
        self.ask(client, &login.bind(peer(n)));
        Flow {
            client,
            relay: relay.expect("a socket"),
            peer: peer(n),
        }
    }
}

impl Login {
    fn allocate(&self) -> Vec<u8> {
        request(Method::ALLOCATE, Some(self), |writer| {
            writer.attribute(Kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        })
    }

    fn permit(&self, peer: SocketAddr) -> Vec<u8> {
        request(Method::CREATE_PERMISSION, Some(self), |writer| {
            writer.address(Kind::XOR_PEER_ADDRESS, peer);
        })
    }

    fn bind(&self, peer: SocketAddr) -> Vec<u8> {
        request(Method::CHANNEL_BIND, Some(self), |writer| {
            writer.u32(Kind::CHANNEL_NUMBER, u32::from(CHANNEL) << 16);
            writer.address(Kind::XOR_PEER_ADDRESS, peer);
        })
    }

    fn end(&self) -> Vec<u8> {
        request(Method::REFRESH, Some(self), |writer| writer.u32(Kind::LIFETIME, 0))
    }
}

fn request(method: Method, login: Option<&Login>, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let header = Header {
        class: Class::Request,
        method,
        transaction: TransactionId(*b"transaction."),
    };
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, header);
    fill(&mut writer);
    if let Some(login) = login {
        writer.attribute(Kind::USERNAME, USER.0.as_bytes());
        writer.attribute(Kind::REALM, REALM.as_bytes());
        writer.attribute(Kind::NONCE, &login.nonce);
        writer.sign(Integrity::Sha1, &login.key);
    }
    let _ = writer.finish();
    out
}

fn client(n: u32) -> Client {
    Client::Datagram {
        socket: SocketId::Turn(0),
        peer: SocketAddr::new(Ipv4Addr::from_bits(0x0b00_0000 + n).into(), 40_000),
        local: None,
    }
}

fn peer(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0x2d00_0000 + n).into(), 5000)
}

/// The median and the least of all rounds.
fn rounds(mut round: impl FnMut() -> f64) -> [f64; 2] {
    let mut figures: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    figures.sort_by(f64::total_cmp);
    [figures[ROUNDS / 2], figures[0]]
}

fn row(what: &str, [median, best]: [f64; 2], unit: &str) {
    println!("{what:<48} {median:>12.1} {best:>12.1} {unit}");
}

fn live() -> usize {
    LIVE.load(Relaxed)
}

/// The system's allocator, counting the bytes that are in use.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}
