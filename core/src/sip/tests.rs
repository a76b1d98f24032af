//! A bridge with a browser on one side and a mediaserver on the other, both played by the tests.

use alloc::sync::Arc;
use core::{net::SocketAddr, ops::Range, time::Duration};

use super::{Bridge, FlowId, LinkId, Opening, Out, Question};
use crate::{
    action::{ConnId, ShardId},
    config::{Config, Health, Keys, Mediaserver, Reach, Server, Sip, SipLimits, SipPolicy, TrunkTransport},
    cx::Cx,
    rng::Rng,
    slab::Key,
    stats::Stats,
    time::{Instant, Now, UnixTime},
};

mod calls;
mod exact;
mod failover;
mod ghosts;
mod guard;
mod links;
mod model;
mod rebind;
mod register;
mod requests;
mod torture;
mod trunk;

/// The address that mediaserver number `index` has.
fn mediaserver(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2 + index as u8], 5060))
}

fn config(reach: Reach) -> Config {
    let server = |index: usize, name: &str| Mediaserver {
        name: name.into(),
        addresses: vec![mediaserver(index).into()],
        transport: TrunkTransport::Udp,
        reach,
        media_ports: 10_000..=20_000,
    };
    Config {
        server: Server {
            drain: Duration::ZERO,
            connections_max: 1000,
            connections_per_address_max: 1000,
            ..Server::default()
        },
        https: None,
        web: None,
        sip: Some(Sip {
            listen: SocketAddr::from(([10, 0, 0, 1], 5060)),
            advertise: SocketAddr::from(([10, 0, 0, 1], 5060)),
            public_host: "edge.example.com".into(),
            mediaservers: vec![server(0, "default"), server(1, "mds1")],
            health: Health::default(),
            resolve: Duration::from_secs(30),
            origins: Vec::new(),
            token_required: false,
            policy: SipPolicy::default(),
            limit: None,
            limits: SipLimits::default(),
        }),
        turn: None,
        token: None,
        rates: crate::config::Rates::default(),
        metrics: None,
        access_log: None,
        keys: Keys {
            nonce: [0; 32],
            flow: vec![[7; 32]],
        },
    }
}

/// What came out of the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sent {
    /// To the browser with this connection.
    Browser(ConnId, String),
    /// To a mediaserver.
    Trunk(SocketAddr, String),
    Probe(ConnId),
    Close(ConnId, u16),
    /// To a mediaserver by TCP.
    Link(ConnId, String),
    Dial(LinkId),
    Unlink(ConnId),
    Resolve(Question),
    Moved,
}

impl Sent {
    /// The text of a message to a mediaserver.
    #[track_caller]
    fn trunk(self) -> String {
        match self {
            Self::Trunk(_, text) => text,
            other => panic!("not for a mediaserver: {other:?}"),
        }
    }

    /// The text of a message to a browser.
    #[track_caller]
    fn browser(self) -> String {
        match self {
            Self::Browser(_, text) => text,
            other => panic!("not for a browser: {other:?}"),
        }
    }

    /// Whom it is for and its start line, for comparisons.
    fn head(&self) -> String {
        match self {
            Self::Browser(_, text) => format!("browser: {}", start_line(text)),
            Self::Trunk(_, text) => format!("trunk: {}", start_line(text)),
            Self::Link(_, text) => format!("link: {}", start_line(text)),
            Self::Dial(link) => format!("dial {}", link.address),
            Self::Unlink(_) => "unlink".into(),
            Self::Resolve(question) => format!("resolve {}", question.host()),
            Self::Moved => "moved".into(),
            Self::Probe(_) => "probe".into(),
            Self::Close(_, code) => format!("close {code}"),
        }
    }
}

fn start_line(text: &str) -> &str {
    text.split("\r\n").next().unwrap_or_default()
}

/// A bridge and what it needs.
struct World {
    bridge: Bridge,
    rng: Rng,
    made: Vec<u8>,
    stats: Stats,
    now: Instant,
}

impl World {
    fn new(reach: Reach) -> Self {
        Self::with(config(reach), 1)
    }

    /// One whose configuration lets other things pass than usual.
    fn with_policy(reach: Reach, change: impl FnOnce(&mut SipPolicy)) -> Self {
        let mut config = config(reach);
        change(&mut config.sip.as_mut().expect("a sip role").policy);
        Self::with(config, 1)
    }

    fn with(config: Config, seed: u8) -> Self {
        let mut rng = Rng::new([seed; 32]);
        let bridge = Bridge::new(Arc::new(config), ShardId(0), 1, &mut rng);
        let mut world = Self {
            bridge,
            rng,
            made: Vec::new(),
            stats: Stats::default(),
            now: Instant::from_nanos(1_000_000_000),
        };
        // The first question after the health of the mediaservers is no matter to most tests.
        world.call(|bridge, cx| bridge.timeout(cx));
        world
    }

    /// Calls the bridge and takes what comes out.
    fn call<R>(&mut self, call: impl FnOnce(&mut Bridge, &mut Cx<'_>) -> R) -> (R, Vec<Sent>) {
        self.made.clear();
        let mut cx = Cx {
            now: Now {
                mono: self.now,
                unix: UnixTime(1_700_000_000),
            },
            rng: &mut self.rng,
            made: &mut self.made,
            stats: &mut self.stats,
        };
        let result = call(&mut self.bridge, &mut cx);
        let mut sent = Vec::new();
        while let Some(out) = self.bridge.poll_out() {
            let text = |bytes: Range<usize>| {
                assert!(!bytes.is_empty(), "nothing is not worth sending");
                String::from_utf8_lossy(&self.made[bytes]).into_owned()
            };
            sent.push(match out {
                Out::Flow { conn, bytes } => Sent::Browser(conn, text(bytes)),
                Out::Trunk { to, bytes } => Sent::Trunk(to, text(bytes)),
                Out::Link { conn, bytes } => Sent::Link(conn, text(bytes)),
                Out::Dial(link) => Sent::Dial(link),
                Out::Unlink { conn } => Sent::Unlink(conn),
                Out::Resolve(question) => Sent::Resolve(question),
                Out::Moved => Sent::Moved,
                Out::Probe { conn } => Sent::Probe(conn),
                Out::Close { conn, code, .. } => Sent::Close(conn, code),
            });
        }
        (result, sent)
    }

    /// Calls the bridge; the bytes of what it sends.
    fn bytes(&mut self, call: impl FnOnce(&mut Bridge, &mut Cx<'_>)) -> Vec<Vec<u8>> {
        self.raw(call).into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// Calls the bridge; the bytes of what it sends, and whether to a mediaserver.
    fn raw(&mut self, call: impl FnOnce(&mut Bridge, &mut Cx<'_>)) -> Vec<(bool, Vec<u8>)> {
        self.made.clear();
        let mut cx = Cx {
            now: Now {
                mono: self.now,
                unix: UnixTime(1_700_000_000),
            },
            rng: &mut self.rng,
            made: &mut self.made,
            stats: &mut self.stats,
        };
        call(&mut self.bridge, &mut cx);
        core::iter::from_fn(|| self.bridge.poll_out())
            .map(|out| match out {
                Out::Flow { bytes, .. } => (false, self.made[bytes].to_vec()),
                Out::Trunk { bytes, .. } => (true, self.made[bytes].to_vec()),
                _ => (false, Vec::new()),
            })
            .collect()
    }

    fn open(&mut self, conn: u32) -> FlowId {
        self.open_as(conn, 0, None)
    }

    fn open_as(&mut self, conn: u32, mediaserver: usize, subject: Option<&str>) -> FlowId {
        let opening = Opening {
            conn: connection(conn),
            mediaserver,
            peer: SocketAddr::from(([203, 0, 113, 9], 40_000)),
            secure: true,
            subject: subject.map(Into::into),
        };
        self.bridge.open(opening).expect("there is room")
    }

    fn browser(&mut self, flow: FlowId, message: &str) -> Vec<Sent> {
        self.call(|bridge, cx| bridge.from_flow(cx, flow, message.as_bytes())).1
    }

    /// Where what a mediaserver says belongs, if not here.
    fn home(&mut self, message: &str) -> Option<ShardId> {
        self.bridge.home(self.now, mediaserver(0), message.as_bytes())
    }

    fn trunk(&mut self, message: &str) -> Vec<Sent> {
        self.trunk_from(mediaserver(0), message)
    }

    fn trunk_from(&mut self, from: SocketAddr, message: &str) -> Vec<Sent> {
        self.call(|bridge, cx| bridge.from_trunk(cx, from, message.as_bytes()))
            .1
    }

    /// Lets time pass, and the timers of it run; what they send, but for health checks, with the time since now.
    fn wait(&mut self, duration: Duration) -> Vec<(Duration, Sent)> {
        let (start, end) = (self.now, self.now + duration);
        let mut all = Vec::new();
        while let Some(at) = self.bridge.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let sent = self.call(|bridge, cx| bridge.timeout(cx)).1;
            let sent = sent
                .into_iter()
                .filter(|sent| !sent.head().starts_with("trunk: OPTIONS sip:10."));
            all.extend(sent.map(|sent| (self.now - start, sent)));
        }
        self.now = end;
        all
    }

    /// Registers `alice` with the contact `user@host.invalid` on a flow; returns the REGISTER as the mediaserver got it.
    fn register(&mut self, flow: FlowId, contact: &str) -> String {
        let request = register(contact, "60");
        let forwarded = self.browser(flow, &request).remove(0).trunk();
        let answer = reply(
            &forwarded,
            "200 OK",
            &format!("Contact: <sip:{contact}>;expires=60\r\n"),
        );
        let sent = self.trunk(&answer);
        assert_eq!(sent.len(), 1);
        forwarded
    }
}

fn connection(number: u32) -> ConnId {
    ConnId(Key::from_parts(number, 0))
}

/// A REGISTER as a browser sends it.
fn register(contact: &str, expires: &str) -> String {
    let branch = format!("z9hG4bKr{}", contact.len() + expires.len());
    lines(&[
        "REGISTER sip:xivo SIP/2.0",
        &format!(
            "Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch={branch}{};rport",
            SERIAL.with(|serial| {
                serial.set(serial.get() + 1);
                serial.get()
            })
        ),
        "From: <sip:alice@xivo>;tag=r1",
        "To: <sip:alice@xivo>",
        &format!("Contact: <sip:{contact};transport=ws>;expires={expires}"),
        "Call-ID: reg-1",
        "CSeq: 1 REGISTER",
        "Max-Forwards: 70",
        "Content-Length: 0",
    ])
}

std::thread_local! {
    /// Makes branches unique.
    static SERIAL: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

/// A message without body.
fn lines(lines: &[&str]) -> String {
    format!("{}\r\n\r\n", lines.join("\r\n"))
}

/// The fields of a name, in order.
fn fields<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(candidate, _)| *candidate == name)
        .map(|(_, value)| value)
        .collect()
}

/// The answer to a request as its receiver writes it: all Vias and Record-Routes, a tag in To, and `more` fields.
fn reply(request: &str, status: &str, more: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
        for value in fields(request, name) {
            let tag = if name == "To" && !value.contains(";tag=") {
                ";tag=uas"
            } else {
                ""
            };
            text.push_str(&format!("{name}: {value}{tag}\r\n"));
        }
    }
    format!("{text}{more}Content-Length: 0\r\n\r\n")
}

/// The flow token in the first URI of a field.
fn token(value: &str) -> &str {
    let start = value.find("sip:").expect("a URI") + 4;
    let end = value.find('@').expect("a user");
    &value[start..end]
}

fn heads(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(Sent::head).collect()
}
