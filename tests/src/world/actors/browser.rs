//! What does a browser that reads pages see? One exchange after the other by HTTPS, and a new connection when one breaks.

use std::{net::SocketAddr, sync::Arc};

use rustls::ClientConfig;

use crate::world::{
    actor::{Actor, Cx},
    agenda::{MS, SEC, Time},
    history::Seen,
    http::{self, Message},
    net::{End, Notice},
    secure::Stream,
    site,
};

/// A browser.
#[derive(Debug)]
pub struct Browser {
    number: usize,
    config: Arc<ClientConfig>,
    stream: Option<Stream>,
    is_up: bool,
    reader: http::Reader,
    asked: Option<Asked>,
    exchanges: u64,
    heard_at: Time,
    is_resting: bool,
    outcome: Vec<String>,
}

/// What it waits for.
#[derive(Debug)]
struct Asked {
    id: u64,
    /// How it is called in the outcome.
    what: String,
}

/// The next thing to do.
const GO_ON: u64 = 0;
/// Read again.
const READ: u64 = 1;
/// Give an exchange up, whose number is added.
const GIVE_UP: u64 = 1 << 32;

/// How long it waits without a byte: longer than a body of ours takes by the narrowest way, and an upstream may think.
const PATIENCE: Time = 150 * SEC;

/// How an upstream answers; the path says so.
pub const WAYS: [&str; 10] = [
    "length", "chunked", "close", "length", "chunked", "short", "cut", "refuse", "slow", "silence",
];

impl Browser {
    /// A browser of its own address.
    pub fn new(number: usize, config: Arc<ClientConfig>) -> Self {
        Self {
            number,
            config,
            stream: None,
            is_up: false,
            reader: http::Reader::default(),
            asked: None,
            exchanges: 0,
            heard_at: 0,
            is_resting: false,
            outcome: Vec::new(),
        }
    }

    fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting || self.asked.is_some() {
            return;
        }
        match (&self.stream, self.is_up) {
            (None, _) => {
                let from = SocketAddr::new(site::client(self.number), 0);
                self.stream = Some(Stream::secure(cx, from, site::HTTPS, &self.config));
                self.reader = http::Reader::default();
            }
            (Some(_), true) => self.ask(cx),
            (Some(_), false) => {}
        }
    }

    fn ask(&mut self, cx: &mut Cx<'_>) {
        self.exchanges += 1;
        let id = (self.number as u64) << 32 | self.exchanges;
        let place = [
            "/page", "/page", "/page", "/named", "/secure", "/login", "/absent", "/nowhere",
        ];
        let place = *cx.dice.pick(&place);
        let way = *cx.dice.pick(&WAYS);
        let length = match cx.dice.from_to(0, 9) {
            0 => 0,
            1..=6 => cx.dice.from_to(1, 2_000),
            _ => cx.dice.from_to(2_000, 200_000),
        };
        let body = match cx.dice.from_to(0, 3) {
            0 => pattern(id, cx.dice.from_to(1, 60_000) as usize),
            1 => pattern(id, cx.dice.from_to(1, 300) as usize),
            _ => Vec::new(),
        };
        let method = if body.is_empty() { "GET" } else { "POST" };
        let target = format!("{place}/{id}/{length}/{way}");
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", site::NAME);
        let mut rest = Vec::new();
        if !body.is_empty() && cx.dice.happens(5_000) {
            request.push_str("Transfer-Encoding: chunked\r\n\r\n");
            rest = http::chunked(&body, cx.dice.from_to(1, 9_000) as usize);
        } else if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
            rest.clone_from(&body);
        } else {
            request.push_str("\r\n");
        }
        cx.note(|| format!("{method} {target} with {} bytes", body.len()));
        cx.see(&Seen::HttpAsked { id, body: &body });
        cx.met(if body.is_empty() {
            "a page was asked for"
        } else {
            "a body was posted"
        });
        if place == "/login" {
            cx.met("somebody logged in");
        }
        let stream = self.stream.as_mut().expect("a connection that is up");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(&rest);
        stream.write(cx, &bytes);
        let what = format!("{method} {place} {length} {way}");
        self.asked = Some(Asked { id, what });
        // A reader that takes a rest in the middle.
        if length > 20_000 && cx.dice.happens(4_000) {
            cx.met("a browser read slowly");
            cx.net.set_reading(stream.end, false);
            cx.between(100 * MS, 4 * SEC, READ);
        }
        self.heard_at = cx.now();
        cx.after(PATIENCE, GIVE_UP + id);
    }

    fn read(&mut self, cx: &mut Cx<'_>, bytes: Vec<u8>) {
        let Some(stream) = &mut self.stream else { return };
        let Ok(plain) = stream.read(cx, bytes) else {
            return self.lost(cx, "TLS failed");
        };
        self.heard_at = cx.now();
        self.reader.add(&plain);
        loop {
            match self.reader.message() {
                Ok(Some(message)) => {
                    let closes = message.head.field("connection").is_some_and(|value| value == "close");
                    self.got(cx, &message);
                    if closes {
                        return self.hang_up(cx);
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    cx.checkers.fail(format!("browser {}: no HTTP came", self.number));
                    return self.lost(cx, "no HTTP");
                }
            }
        }
    }

    fn got(&mut self, cx: &mut Cx<'_>, message: &Message) {
        let status = message.head.status().unwrap_or_default();
        if status == 100 {
            return;
        }
        let Some(asked) = self.asked.take() else {
            // RFC 9112 section 9.3: what nobody asked for. The edge says 408 to a connection that rests for too long.
            if status != 408 {
                cx.checkers
                    .fail(format!("browser {}: {status} came without a request", self.number));
            }
            return;
        };
        let id = asked.id;
        let body = &message.body[..];
        cx.note(|| format!("got {status} with {} bytes for {}", body.len(), id & 0xffff_ffff));
        cx.see(&Seen::HttpGot { id, status, body });
        if status == 200 {
            cx.met("a body came whole");
        } else {
            cx.met("an exchange failed visibly");
        }
        self.outcome
            .push(format!("{}: {status}, {} bytes", asked.what, body.len()));
        cx.between(MS, 3 * SEC, GO_ON);
    }

    /// The connection is of no use any more.
    fn lost(&mut self, cx: &mut Cx<'_>, why: &str) {
        self.give_up(cx, why, None);
    }

    fn give_up(&mut self, cx: &mut Cx<'_>, why: &str, silent: Option<u32>) {
        if let Some(asked) = self.asked.take() {
            cx.note(|| format!("lost {} ({why})", asked.id & 0xffff_ffff));
            cx.see(&Seen::HttpFailed { id: asked.id, silent });
            cx.met("an exchange failed visibly");
            self.outcome.push(format!("{}: lost", asked.what));
        }
        if let Some(stream) = self.stream.take() {
            cx.net.reset(stream.end);
        }
        self.is_up = false;
        cx.between(100 * MS, 3 * SEC, GO_ON);
    }

    fn hang_up(&mut self, cx: &mut Cx<'_>) {
        if let Some(mut stream) = self.stream.take() {
            stream.close(cx);
        }
        self.is_up = false;
        cx.between(MS, SEC, GO_ON);
    }

    fn is_mine(&self, end: End) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.end == end)
    }
}

impl Actor for Browser {
    fn start(&mut self, cx: &mut Cx<'_>) {
        cx.between(0, 2 * SEC, GO_ON);
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Connected { end, .. } if self.is_mine(end) => {
                self.is_up = true;
                self.stream.as_mut().expect("mine").connected(cx);
                self.go_on(cx);
            }
            Notice::Bytes { end, bytes } if self.is_mine(end) => self.read(cx, bytes),
            Notice::Eof(end) if self.is_mine(end) => {
                let stream = self.stream.as_mut().expect("mine");
                // RFC 9112 section 9.8: an end without the notice of TLS is a cut.
                if stream.is_closed()
                    && let Ok(Some(message)) = self.reader.end()
                {
                    self.got(cx, &message);
                    return self.hang_up(cx);
                }
                self.lost(cx, "the end came");
            }
            Notice::Refused { end, .. } | Notice::Reset(end) | Notice::TimedOut(end) if self.is_mine(end) => {
                self.lost(cx, "it broke");
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        match token {
            GO_ON => self.go_on(cx),
            READ => {
                if let Some(stream) = &self.stream {
                    cx.net.set_reading(stream.end, true);
                }
            }
            _ => {
                if self.asked.as_ref().is_some_and(|asked| GIVE_UP + asked.id == token) {
                    match cx.now().saturating_sub(self.heard_at) {
                        silence @ 0..PATIENCE => cx.after(PATIENCE - silence, token),
                        _ => {
                            let tcp = self.stream.as_ref().map(|stream| stream.end.tcp);
                            self.give_up(cx, "nothing came", tcp);
                        }
                    }
                }
            }
        }
    }

    fn rest(&mut self) {
        self.is_resting = true;
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.rest();
        match self.stream.take() {
            Some(mut stream) if cx.dice.happens(5_000) => stream.close(cx),
            Some(stream) => cx.net.reset(stream.end),
            None => {}
        }
        if let Some(asked) = self.asked.take() {
            cx.see(&Seen::HttpFailed {
                id: asked.id,
                silent: None,
            });
        }
    }

    fn outcome(&self) -> Vec<String> {
        self.outcome.clone()
    }
}

/// A body that is like no other.
pub fn pattern(id: u64, length: usize) -> Vec<u8> {
    let mut state = id | 1;
    let bytes = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    bytes.take(length).collect()
}
