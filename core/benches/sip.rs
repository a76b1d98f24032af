//! How long does the bridge take for a message? The core alone, no socket.
//!
//! `cargo bench -p edgeward-core --bench sip` prints a table.

use std::{hint::black_box, net::SocketAddr, sync::Arc, time::Duration};

use edgeward_core::{
    action::{ConnId, ShardId},
    cx::Cx,
    rng::Rng,
    sip::{Bridge, FlowId, Opening, Out},
    slab::Key,
    stats::Stats,
    time::{Instant, Now, UnixTime},
    wire::sip::{Framing, Message},
};

mod common;

/// Browsers, and calls of each: no more than its limits let through at once.
const FLOWS: u32 = 500;
const CALLS: u32 = 20;
const MESSAGES: usize = (FLOWS * CALLS) as usize;

fn main() {
    common::head();
    let invite = invite(0, 0);
    common::time(
        &format!("index an INVITE of {} bytes", invite.len()),
        MESSAGES,
        || (),
        |()| {
            for _ in 0..MESSAGES {
                let message = Message::read(black_box(invite.as_bytes()), Framing::Message);
                assert!(black_box(message).is_some());
            }
        },
    );
    common::time(
        "relay an INVITE, WebSocket to UDP",
        MESSAGES,
        || (World::new(), invites()),
        |(mut world, invites)| world.call(&invites),
    );
    common::time(
        "relay its 200, UDP to WebSocket",
        MESSAGES,
        || {
            let mut world = World::new();
            world.forwarded = Some(Vec::new());
            world.call(&invites());
            let answers = world
                .forwarded
                .take()
                .into_iter()
                .flatten()
                .map(|invite| answer(&invite))
                .collect::<Vec<_>>();
            (world, answers)
        },
        |(mut world, answers)| world.answer(&answers),
    );
}

/// A bridge with browsers, and what it needs.
struct World {
    bridge: Bridge,
    flows: Vec<FlowId>,
    rng: Rng,
    made: Vec<u8>,
    stats: Stats,
    /// How many datagrams have gone to the mediaserver, and which, where they are kept.
    sent: usize,
    forwarded: Option<Vec<Vec<u8>>>,
}

impl World {
    fn new() -> Self {
        let mut rng = Rng::new([5; 32]);
        let config = Arc::new(common::config(CONFIG));
        let mut world = Self {
            bridge: Bridge::new(config, ShardId(0), 1, &mut rng),
            flows: Vec::new(),
            rng,
            made: Vec::new(),
            stats: Stats::default(),
            sent: 0,
            forwarded: None,
        };
        for number in 0..FLOWS {
            let opening = Opening {
                conn: ConnId(Key::from_parts(number, 0)),
                mediaserver: 0,
                peer: SocketAddr::from(([203, 0, 113, 9], 40_000)),
                secure: true,
                subject: None,
            };
            let flow = world.bridge.open(opening).expect("there is room");
            world.flows.push(flow);
        }
        world
    }

    /// Each browser sends its INVITEs.
    fn call(&mut self, invites: &[String]) {
        for (number, invite) in invites.iter().enumerate() {
            let flow = self.flows[number % self.flows.len()];
            self.turn(|bridge, cx| bridge.from_flow(cx, flow, invite.as_bytes()));
        }
        assert_eq!(self.sent, MESSAGES, "INVITEs that were relayed");
    }

    /// The mediaserver answers them.
    fn answer(&mut self, answers: &[Vec<u8>]) {
        for answer in answers {
            self.turn(|bridge, cx| bridge.from_trunk(cx, MEDIASERVER.into(), answer));
        }
        assert_eq!(self.sent, MESSAGES, "nothing is repeated");
    }

    fn turn<R>(&mut self, call: impl FnOnce(&mut Bridge, &mut Cx<'_>) -> R) -> R {
        self.made.clear();
        let mut cx = Cx {
            now: Now {
                mono: Instant::ZERO + Duration::from_secs(1000),
                unix: UnixTime(1_700_000_000),
            },
            rng: &mut self.rng,
            made: &mut self.made,
            stats: &mut self.stats,
        };
        let result = call(&mut self.bridge, &mut cx);
        while let Some(out) = self.bridge.poll_out() {
            if let Out::Trunk { bytes, .. } = black_box(out) {
                self.sent += 1;
                if let Some(forwarded) = &mut self.forwarded {
                    forwarded.push(self.made[bytes].to_vec());
                }
            }
        }
        result
    }
}

const MEDIASERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 5060);

const CONFIG: &str = r#"
[https]
listen = "192.0.2.10:443"
certificates = [{ cert = "edge.pem", key = "edge.key" }]

[sip]
listen = "10.0.0.1:5060"

[[sip.mediaserver]]
name = "default"
address = "10.0.0.2:5060"
"#;

fn invites() -> Vec<String> {
    (0..CALLS)
        .flat_map(|call| (0..FLOWS).map(move |flow| invite(flow, call)))
        .collect()
}

/// An INVITE as a browser sends it, with what it offers.
fn invite(flow: u32, call: u32) -> String {
    let candidate = "a=candidate:1467250027 1 udp 2122260223 192.0.2.10 46243 typ host generation 0 network-id 1\r\n";
    let body = format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0 8\r\n{}",
        candidate.repeat(12)
    );
    format!(
        "INVITE sip:600@pbx.example.org SIP/2.0\r\n\
         Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK{flow}x{call}\r\n\
         Max-Forwards: 70\r\n\
         To: <sip:600@pbx.example.org>\r\n\
         From: \"Alice\" <sip:user{flow}@pbx.example.org>;tag=9zrbvcg0hi{call}\r\n\
         Call-ID: 3848276298220188511x{flow}x{call}\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:user{flow}@df7jal23ls0d.invalid;transport=ws>;ob\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, UPDATE, MESSAGE, OPTIONS, REFER, INFO, NOTIFY\r\n\
         Supported: outbound, path, gruu\r\n\
         User-Agent: a telephone in a browser\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A 200 to an INVITE as the mediaserver got it.
fn answer(invite: &[u8]) -> Vec<u8> {
    let invite = std::str::from_utf8(invite).expect("an INVITE");
    let copied = ["Via:", "Record-Route:", "From:", "Call-ID:", "CSeq:"];
    let mut answer = String::from("SIP/2.0 200 OK\r\nTo: <sip:600@pbx.example.org>;tag=as5d8e\r\n");
    let lines = invite
        .split("\r\n")
        .filter(|line| copied.iter().any(|name| line.starts_with(name)));
    for line in lines {
        answer.push_str(line);
        answer.push_str("\r\n");
    }
    answer.push_str("Contact: <sip:600@10.0.0.2:5060>\r\nContent-Length: 0\r\n\r\n");
    answer.into_bytes()
}
