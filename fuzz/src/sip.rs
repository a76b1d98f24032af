//! Does any sequence of SIP messages reach somebody whom it is not for, or leave something behind?

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use arbitrary::Arbitrary;
use edgeward_core::{
    action::{ConnId, ShardId},
    config::Config,
    cx::Cx,
    rng::Rng,
    sip::{Bridge, FlowId, Opening, Out},
    slab::Key,
    stats::Stats,
    time::{Instant, Now, UnixTime},
    wire::sip::{Framing, Message, Name, Start},
};

use crate::{
    config::{Machine, keys},
    sequence::sequence,
};

/// Longest sequence; what is behind it is left.
const OPS_MAX: usize = 120;

/// One message: whatever it is, the index points into it, in order, and covers all of its header.
pub fn message(bytes: &[u8]) {
    for framing in [Framing::Datagram, Framing::Message] {
        let Some(message) = Message::read(bytes, framing) else {
            continue;
        };
        let all = message.bytes();
        let mut end = message.fields_start();
        for field in message.fields() {
            // A line that is no field is left out, and makes the message a faulty one.
            assert!(field.line().start == end || (field.line().start > end && message.fault().is_some()));
            assert!(field.line().contains(&field.value().start) || field.value().is_empty());
            assert!(field.value().end <= field.line().end);
            end = field.line().end;
        }
        assert!(end <= message.head_end() && message.head_end() <= all.len());
        let body = message.body();
        assert!(body.start <= body.end && body.end <= all.len());
        if message.fault().is_none() {
            assert_eq!(&all[message.head_end()..body.start], b"\r\n");
            assert_eq!(end, message.head_end());
        }
    }
}

const CONFIG: &str = r#"
[https]
listen = "192.0.2.1:443"
certificates = [{ cert = "cert", key = "key" }]
hosts = ["edge.example.org"]

[sip]
listen = "10.0.0.1:5060"

[[sip.mediaserver]]
name = "default"
address = "10.0.0.2:5060"

[[sip.mediaserver]]
name = "contacts"
address = "10.0.0.3:5060"
reach = "contact"
"#;

/// People with telephones. Each has one mediaserver, and one Contact for life.
const USERS: usize = 3;

/// One thing that happens.
#[derive(Debug, Arbitrary)]
enum Op {
    Open {
        user: u8,
    },
    Close {
        user: u8,
    },
    Lose {
        user: u8,
    },
    Register {
        user: u8,
        expires: Option<u16>,
    },
    Request {
        user: u8,
        method: u8,
        call: u8,
        branch: u8,
        extra: Extra,
    },
    Respond {
        user: u8,
        which: u8,
        status: u16,
        to_tag: bool,
    },
    TrunkRequest {
        user: u8,
        method: u8,
        call: u8,
        branch: u8,
        extra: Extra,
    },
    TrunkRespond {
        which: u8,
        status: u16,
        to_tag: bool,
    },
    Unreachable {
        second: bool,
    },
    RawFlow {
        user: u8,
        bytes: Vec<u8>,
    },
    RawTrunk {
        second: bool,
        bytes: Vec<u8>,
    },
    Pass {
        millis: u16,
    },
}

/// What makes a message unusual.
#[derive(Debug, Arbitrary)]
struct Extra {
    lines: Vec<u8>,
    no_length: bool,
    max_forwards: Option<u8>,
}

/// Browsers, mediaservers, losses and time in any order: what is sent is SIP; a response reaches only the user who asked,
/// a request only the user whom it is for; when all have left, nothing is left.
pub fn ops(bytes: &[u8]) {
    let mut world = World::new();
    sequence(bytes, OPS_MAX).for_each(|op| world.apply(op));
    world.leave();
}

struct World {
    bridge: Bridge,
    rng: Rng,
    stats: Stats,
    now: Instant,
    made: Vec<u8>,
    opened: u32,
    flows: [Option<FlowId>; USERS],
    /// Whose a connection is, for ever.
    owners: HashMap<ConnId, usize>,
    /// What each user's browser was asked, and what the mediaservers were asked.
    asked: [Vec<Vec<u8>>; USERS],
    trunk_asked: Vec<(SocketAddr, Vec<u8>)>,
    /// What a mediaserver knows of each user: the Path, and the Contact.
    bindings: [Option<(Vec<u8>, Vec<u8>)>; USERS],
}

impl World {
    fn new() -> Self {
        let config = Config::parse(CONFIG, &mut Machine::new(), keys()).unwrap_or_else(|errors| panic!("{errors}"));
        let mut rng = Rng::new([4; 32]);
        Self {
            bridge: Bridge::new(Arc::new(config), ShardId(0), 1, &mut rng),
            rng,
            stats: Stats::default(),
            now: Instant::from_nanos(1_000_000_000),
            made: Vec::new(),
            opened: 0,
            flows: [None; USERS],
            owners: HashMap::new(),
            asked: Default::default(),
            trunk_asked: Vec::new(),
            bindings: Default::default(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Open { user } => self.open(usize::from(user) % USERS),
            Op::Close { user } => {
                if let Some(flow) = self.flows[usize::from(user) % USERS].take() {
                    self.call(|bridge, cx| bridge.close(cx, flow));
                }
            }
            Op::Lose { user } => {
                if let Some(flow) = self.flows[usize::from(user) % USERS].take() {
                    self.call(|bridge, cx| bridge.lost(cx, flow));
                }
            }
            Op::Register { user, expires } => {
                let user = usize::from(user) % USERS;
                let mut text = request(
                    &format!("u{user}"),
                    "REGISTER",
                    "sip:example.org",
                    &format!("u{user}-r"),
                    1,
                );
                text.push_str(&format!("Contact: <sip:c{user}@c{user}.invalid;transport=ws>\r\n"));
                if let Some(expires) = expires {
                    text.push_str(&format!("Expires: {expires}\r\n"));
                }
                text.push_str("Content-Length: 0\r\n\r\n");
                self.from_flow(user, text.as_bytes());
            }
            Op::Request {
                user,
                method,
                call,
                branch,
                extra,
            } => {
                let user = usize::from(user) % USERS;
                let call = format!("u{user}-{}", call % 4);
                let mut text = request(
                    &format!("u{user}"),
                    METHODS[usize::from(method) % METHODS.len()],
                    "sip:9@example.org",
                    &call,
                    branch,
                );
                text.push_str(&format!("Contact: <sip:c{user}@c{user}.invalid;transport=ws>\r\n"));
                extra.finish(&mut text);
                self.from_flow(user, text.as_bytes());
            }
            Op::Respond {
                user,
                which,
                status,
                to_tag,
            } => {
                let user = usize::from(user) % USERS;
                let Some(asked) = pick(&self.asked[user], which) else {
                    return;
                };
                if let Some(text) = response(asked, status, to_tag) {
                    self.from_flow(user, &text);
                }
            }
            Op::TrunkRequest {
                user,
                method,
                call,
                branch,
                extra,
            } => {
                let user = usize::from(user) % USERS;
                let Some((path, contact)) = self.bindings[user].clone() else {
                    return;
                };
                let call = format!("m{user}-{}", call % 4);
                let contact = String::from_utf8_lossy(&contact).into_owned();
                let mut text = request(
                    "pbx",
                    METHODS[usize::from(method) % METHODS.len()],
                    &contact,
                    &call,
                    branch,
                );
                if !path.is_empty() {
                    text.push_str(&format!("Route: {}\r\n", String::from_utf8_lossy(&path)));
                }
                text.push_str("Contact: <sip:pbx@10.0.0.2:5060>\r\n");
                extra.finish(&mut text);
                self.from_trunk(mediaserver(user), text.as_bytes());
            }
            Op::TrunkRespond { which, status, to_tag } => {
                let Some((from, asked)) = pick(&self.trunk_asked, which).cloned() else {
                    return;
                };
                if let Some(text) = response(&asked, status, to_tag) {
                    self.from_trunk(from, &text);
                }
            }
            Op::Unreachable { second } => {
                let to = mediaserver(usize::from(second));
                self.call(|bridge, cx| bridge.trunk_error(cx, to, edgeward_core::action::IoKind::Refused));
            }
            // Nobody may claim to be another one's call, since that is how the checks tell them apart.
            Op::RawFlow { user, bytes } if !names_a_call(&bytes) => self.from_flow(usize::from(user) % USERS, &bytes),
            Op::RawTrunk { second, bytes } if !names_a_call(&bytes) => {
                self.from_trunk(mediaserver(usize::from(second)), &bytes);
            }
            Op::RawFlow { .. } | Op::RawTrunk { .. } => {}
            Op::Pass { millis } => self.pass(Duration::from_millis(u64::from(millis))),
        }
    }

    fn open(&mut self, user: usize) {
        if self.flows[user].is_some() {
            return;
        }
        self.opened += 1;
        let conn = ConnId(Key::from_parts(self.opened, 1));
        self.owners.insert(conn, user);
        let opening = Opening {
            conn,
            mediaserver: user % 2,
            peer: SocketAddr::from(([198, 51, 100, 1], 40_000)),
            secure: true,
            subject: None,
        };
        let mut flow = None;
        self.call(|bridge, _| flow = bridge.open(opening).ok());
        self.flows[user] = flow;
    }

    fn from_flow(&mut self, user: usize, bytes: &[u8]) {
        self.open(user);
        if let Some(flow) = self.flows[user] {
            self.call(|bridge, cx| bridge.from_flow(cx, flow, bytes));
        }
    }

    fn from_trunk(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.call(|bridge, cx| bridge.from_trunk(cx, from, bytes));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.call(Bridge::timeout);
    }

    /// Calls the bridge and looks at everything that it sends.
    fn call(&mut self, call: impl FnOnce(&mut Bridge, &mut Cx<'_>)) {
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
        while let Some(out) = self.bridge.poll_out() {
            match out {
                Out::Flow { conn, bytes } => {
                    let bytes = self.made[bytes].to_vec();
                    self.to_browser(conn, bytes);
                }
                Out::Trunk { to, bytes } => {
                    let bytes = self.made[bytes].to_vec();
                    self.to_mediaserver(to, bytes);
                }
                Out::Close { conn, .. } => {
                    let user = self.owners[&conn];
                    self.flows[user] = None;
                }
                Out::Probe { .. } | Out::Moved => {}
                Out::Link { .. } | Out::Dial(_) | Out::Unlink { .. } | Out::Resolve(_) => {
                    panic!("the mediaservers have addresses and speak UDP")
                }
            }
        }
    }

    fn to_browser(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            // RFC 7118 section 6: the answer to a keep-alive.
            return;
        }
        let user = self.owners[&conn];
        let message = sound(&bytes);
        let call = message.value(Name::CallId).unwrap_or_default();
        match message.start() {
            Start::Request { .. } => {
                let wanted = format!("m{user}-");
                assert!(
                    !call.starts_with(b"m") || call.starts_with(wanted.as_bytes()),
                    "a request for somebody else"
                );
                remember(&mut self.asked[user], bytes);
            }
            Start::Response { .. } => {
                let wanted = format!("u{user}-");
                assert!(
                    !call.starts_with(b"u") || call.starts_with(wanted.as_bytes()),
                    "a response for somebody else"
                );
            }
        }
    }

    fn to_mediaserver(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        let message = sound(&bytes);
        let call = message.value(Name::CallId).unwrap_or_default();
        let Start::Request { method, .. } = message.start() else {
            return;
        };
        if *method == b"REGISTER"
            && let Some(user) = call.strip_prefix(b"u").and_then(|rest| rest.first())
        {
            let user = usize::from(user - b'0');
            if user < USERS {
                assert_eq!(to, mediaserver(user), "a registration went astray");
                let contact = message.value(Name::Contact).unwrap_or_default();
                let uri = contact
                    .split(|byte| matches!(byte, b'<' | b'>'))
                    .nth(1)
                    .unwrap_or_default()
                    .to_vec();
                let path = message.value(Name::Path).unwrap_or_default().to_vec();
                self.bindings[user] = Some((path, uri));
            }
        }
        remember(&mut self.trunk_asked, (to, bytes));
    }

    /// Everybody hangs up and leaves: after the longest timer nothing is left.
    fn leave(&mut self) {
        for user in 0..USERS {
            if let Some(flow) = self.flows[user].take() {
                self.call(|bridge, cx| bridge.close(cx, flow));
            }
        }
        // Timer C and what follows it (RFC 3261 section 16.6), in steps as an alarm would ring.
        for _ in 0..400 {
            self.pass(Duration::from_secs(1));
        }
        assert_eq!(self.bridge.flows(), 0, "a flow was left");
        assert_eq!(self.bridge.transactions(), 0, "a transaction was left");
    }
}

const METHODS: [&str; 11] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "NOTIFY",
    "SUBSCRIBE",
    "MESSAGE",
    "REFER",
    "UPDATE",
    "WHATEVER",
];

const LINES: [&str; 8] = [
    "Alert-Info: xivo-autoanswer\r\n",
    "Route: <sip:10.0.0.1:5060;lr>\r\n",
    "Max-Breadth: 1\r\n",
    "Require: 100rel\r\n",
    "Proxy-Require: sec-agree\r\n",
    "Record-Route: <sip:other.example.org;lr>\r\n",
    "X-Folded: a\r\n b\r\n",
    "Supported: path, outbound\r\n",
];

impl Extra {
    fn finish(&self, text: &mut String) {
        for line in self.lines.iter().take(4) {
            text.push_str(LINES[usize::from(*line) % LINES.len()]);
        }
        if let Some(hops) = self.max_forwards {
            text.push_str(&format!("Max-Forwards: {hops}\r\n"));
        }
        text.push_str(if self.no_length {
            "\r\n"
        } else {
            "Content-Length: 4\r\n\r\nv=0\n"
        });
    }
}

/// The beginning of a request; fields may follow.
fn request(user: &str, method: &str, uri: &str, call: &str, branch: u8) -> String {
    let (transport, host) = match user {
        "pbx" => ("UDP", "10.0.0.2:5060"),
        _ => ("WSS", "browser.invalid"),
    };
    let number = branch % 4;
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {host};branch=z9hG4bK{call}{number}\r\n\
         From: <sip:{user}@example.org>;tag=f\r\nTo: <sip:{user}@example.org>\r\nCall-ID: {call}\r\nCSeq: {number} {method}\r\n"
    )
}

/// The response of somebody who does what RFC 3261 section 8.2.6 says.
fn response(request: &[u8], status: u16, to_tag: bool) -> Option<Vec<u8>> {
    let message = Message::read(request, Framing::Datagram)?;
    let mut text = format!("SIP/2.0 {} Whatever\r\n", 100 + status % 600).into_bytes();
    for field in message.fields() {
        let line = &message.bytes()[field.line()];
        match field.name {
            Name::Via | Name::From | Name::CallId | Name::CSeq | Name::RecordRoute | Name::Contact | Name::Path => {
                text.extend_from_slice(line);
            }
            Name::To => {
                text.extend_from_slice(line.strip_suffix(b"\r\n").unwrap_or(line));
                text.extend_from_slice(if to_tag { b";tag=t\r\n" } else { b"\r\n" });
            }
            _ => {}
        }
    }
    text.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    Some(text)
}

/// What the bridge sends is SIP in which nothing is wrong.
fn sound(bytes: &[u8]) -> Message<'_> {
    let message = Message::read(bytes, Framing::Message).unwrap_or_else(|| panic!("no SIP: {}", bytes.escape_ascii()));
    assert_eq!(message.fault(), None, "{}", bytes.escape_ascii());
    assert!(
        message.count(Name::CallId) == 1 && message.count(Name::CSeq) == 1,
        "{}",
        bytes.escape_ascii()
    );
    message
}

fn mediaserver(user: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2 + (user % 2) as u8], 5060))
}

/// Whether something like a Call-ID of ours is in it.
fn names_a_call(bytes: &[u8]) -> bool {
    bytes
        .windows(3)
        .any(|window| matches!(window, [b'u' | b'm', b'0'..=b'9', b'-']))
}

/// Remembers the newest few.
fn remember<T>(list: &mut Vec<T>, item: T) {
    if list.len() == 8 {
        list.remove(0);
    }
    list.push(item);
}

fn pick<T>(list: &[T], which: u8) -> Option<&T> {
    list.get(usize::from(which) % list.len().max(1))
}
