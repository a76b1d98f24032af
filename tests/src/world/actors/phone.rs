//! What does a telephone in a browser do? It registers, calls, is called, hangs up, and comes back when its network was gone.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::ClientConfig;

use crate::{
    chance::Dice,
    peers::sip::{Dialog, Message},
    random, word,
    world::{
        actor::{Actor, Cx},
        agenda::{MS, SEC},
        history::Seen,
        http,
        net::{End, Notice},
        secure::Stream,
        site, token, ws,
    },
};

mod sip;

/// A telephone.
#[derive(Debug)]
pub struct Phone {
    number: usize,
    /// What it does by itself, whatever happens to it meanwhile.
    choices: Dice,
    config: Arc<ClientConfig>,
    stream: Option<Stream>,
    stage: Stage,
    /// What it shows of who sits at it, which may be a lie.
    token: String,
    flow: u64,
    flows: u64,
    frames: ws::Reader,
    host: String,
    contact: String,
    registration: (String, String, u32),
    is_registered: bool,
    /// INVITEs of ours without a final answer, and whether they were taken back.
    invites: Vec<(Message, bool)>,
    /// Calls in the order of their beginning.
    calls: Vec<Dialog>,
    /// INVITEs that ring here, by token.
    ringing: BTreeMap<u64, (Message, String)>,
    /// Requests of ours that wait, by branch: the token of their patience.
    asked: BTreeMap<String, u64>,
    tokens: u64,
    is_resting: bool,
    outcome: Vec<String>,
}

#[derive(Debug)]
enum Stage {
    Away,
    Opening(http::Reader),
    Open,
}

/// Do something.
const GO_ON: u64 = 0;
/// Come back.
const BEGIN: u64 = 1;
/// Pick up, by token.
const PICK_UP: u64 = 1 << 32;
/// Give up waiting for an answer, by token.
const GIVE_UP: u64 = 1 << 33;

/// Whom it calls: who answers, who is busy, and who answers late.
const CALLEES: [&str; 4] = ["echo", "busy", "late", "echo"];

impl Phone {
    /// A telephone with a user of its own.
    pub fn new(number: usize, config: Arc<ClientConfig>) -> Self {
        Self {
            number,
            choices: Dice::new(0, 0),
            config,
            stream: None,
            stage: Stage::Away,
            token: String::new(),
            flow: 0,
            flows: 0,
            frames: ws::Reader::default(),
            host: String::new(),
            contact: String::new(),
            registration: (String::new(), String::new(), 0),
            is_registered: false,
            invites: Vec::new(),
            calls: Vec::new(),
            ringing: BTreeMap::new(),
            asked: BTreeMap::new(),
            tokens: 0,
            is_resting: false,
            outcome: Vec::new(),
        }
    }

    /// The mediaserver of this telephone, by its place.
    fn mediaserver(&self) -> usize {
        self.number % site::MEDIASERVERS.len()
    }

    fn user(&self) -> String {
        format!("user{}", self.number)
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting || self.stream.is_some() {
            return;
        }
        if self.host.is_empty() {
            self.host = format!("{}.invalid", word());
            self.contact = format!("sip:{}@{};transport=ws", word(), self.host);
            self.registration = (word(), word(), 0);
        }
        self.token = match cx.dice.happens(800) {
            true => token::bad(&self.user(), cx.dice),
            false => token::good(&self.user()),
        };
        let from = SocketAddr::new(site::client(self.number), 0);
        self.stream = Some(Stream::secure(cx, from, site::HTTPS, &self.config));
        self.stage = Stage::Opening(http::Reader::default());
        self.frames = ws::Reader::default();
    }

    fn open(&mut self, cx: &mut Cx<'_>) {
        let path = ["/wssip", "/wssip-contacts"][self.mediaserver()];
        let key = BASE64_STANDARD.encode(random::<16>());
        let request = format!(
            "GET {path}?token={token} HTTP/1.1\r\nHost: {name}\r\nOrigin: https://{name}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Protocol: sip\r\n\r\n",
            token = self.token,
            name = site::NAME,
        );
        self.stream.as_mut().expect("a connection").connected(cx);
        self.stream
            .as_mut()
            .expect("a connection")
            .write(cx, request.as_bytes());
    }

    fn read(&mut self, cx: &mut Cx<'_>, bytes: Vec<u8>) {
        let Some(stream) = &mut self.stream else { return };
        let Ok(mut plain) = stream.read(cx, bytes) else {
            return self.lost(cx, "TLS failed");
        };
        if let Stage::Opening(reader) = &mut self.stage {
            reader.add(&plain);
            let answer = match reader.message() {
                Ok(Some(answer)) => answer,
                Ok(None) => return,
                Err(_) => return cx.checkers.fail(format!("phone {}: no HTTP came", self.number)),
            };
            plain = reader.take_rest();
            let status = answer.head.status().unwrap_or_default();
            let holds = token::user(&self.token).is_some();
            cx.see(&Seen::TokenShown { status, holds });
            if status != 101 {
                if !holds && status == 401 {
                    cx.met("a token that does not hold was refused");
                }
                self.outcome.push(format!("WebSocket refused: {}", answer.head.start));
                return self.lost(cx, "no WebSocket");
            }
            self.opened(cx);
        }
        self.frames.add(&plain);
        while matches!(self.stage, Stage::Open)
            && let Some((opcode, payload)) = self.frames.message()
        {
            match opcode {
                ws::PING => self.frame(cx, ws::PONG, &payload),
                ws::PONG => {}
                ws::CLOSE => {
                    self.frame(cx, ws::CLOSE, &payload);
                    self.lost(cx, "the edge said goodbye");
                }
                _ => self.hear_sip(cx, &payload),
            }
        }
    }

    fn opened(&mut self, cx: &mut Cx<'_>) {
        self.flows += 1;
        if self.flows > 1 {
            cx.met("a telephone came back");
        }
        self.flow = (self.number as u64) << 32 | self.flows;
        self.stage = Stage::Open;
        let tcp = self.stream.as_ref().expect("a connection").end.tcp;
        let (flow, user) = (self.flow, self.number);
        cx.see(&Seen::FlowOpened { flow, user, tcp });
        cx.met("a WebSocket for SIP opened");
        self.is_registered = false;
        self.register(cx, None);
    }

    fn frame(&mut self, cx: &mut Cx<'_>, opcode: u8, payload: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        // A message may come in parts (RFC 6455 section 5.4).
        if opcode == ws::TEXT && payload.len() > 2 && cx.dice.happens(1_000) {
            cx.met("a message came in fragments");
            let (first, rest) = payload.split_at(cx.dice.place(payload.len()));
            stream.write(cx, &ws::frame(ws::TEXT, false, first, Some(random())));
            stream.write(cx, &ws::frame(ws::CONTINUATION, true, rest, Some(random())));
            return;
        }
        stream.write(cx, &ws::frame(opcode, true, payload, Some(random())));
    }

    fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting || !self.is_registered || !matches!(self.stage, Stage::Open) {
            return;
        }
        match self.choices.from_to(0, 12) {
            0..=3 => self.invite(cx),
            4 => self.cancel(cx),
            5 => self.message(cx),
            6..=7 => self.within(cx, "BYE"),
            8 => self.within(cx, "INFO"),
            9 => self.register(cx, None),
            10 => self.frame(cx, ws::PING, b"there?"),
            11 => self.register_as_another(cx),
            _ => {}
        }
        let wait = self.choices.from_to(50 * MS, 15 * SEC);
        cx.after(wait, GO_ON);
    }

    fn lost(&mut self, cx: &mut Cx<'_>, why: &str) {
        cx.note(|| format!("has lost its WebSocket: {why}"));
        let flow = self.flow;
        if matches!(self.stage, Stage::Open) {
            cx.see(&Seen::FlowClosed { flow });
        }
        if let Some(stream) = self.stream.take() {
            cx.net.reset(stream.end);
        }
        self.stage = Stage::Away;
        self.is_registered = false;
        self.invites.clear();
        self.asked.clear();
        cx.between(100 * MS, 8 * SEC, BEGIN);
    }

    fn is_mine(&self, end: End) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.end == end)
    }
}

impl Actor for Phone {
    fn start(&mut self, cx: &mut Cx<'_>) {
        self.choices = Dice::new(cx.dice.u64(), 0);
        cx.between(0, 4 * SEC, BEGIN);
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Connected { end, .. } if self.is_mine(end) => self.open(cx),
            Notice::Bytes { end, bytes } if self.is_mine(end) => self.read(cx, bytes),
            Notice::Eof(end) | Notice::Refused { end, .. } | Notice::Reset(end) | Notice::TimedOut(end)
                if self.is_mine(end) =>
            {
                self.lost(cx, "it broke");
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        match token {
            GO_ON => self.go_on(cx),
            BEGIN => self.begin(cx),
            token if token & GIVE_UP != 0 => {
                // RFC 3261 section 17.1.2.2 gives up after 32 s; whoever sits at it then loads the page again.
                let is_waiting = self.asked.values().any(|asked| GIVE_UP + asked == token);
                if is_waiting && cx.dice.happens(5_000) {
                    self.lost(cx, "no answer");
                }
            }
            token => self.pick_up(cx, token - PICK_UP),
        }
    }

    fn rest(&mut self) {
        self.is_resting = true;
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.rest();
        if matches!(self.stage, Stage::Open) {
            let flow = self.flow;
            cx.see(&Seen::FlowClosed { flow });
            if cx.dice.happens(5_000) {
                self.frame(cx, ws::CLOSE, &1000_u16.to_be_bytes());
            }
        }
        self.stage = Stage::Away;
        if let Some(mut stream) = self.stream.take() {
            stream.close(cx);
        }
    }

    fn outcome(&self) -> Vec<String> {
        self.outcome.clone()
    }
}
