//! What does a web server in the LAN answer? What the path says: well, in any framing, too little, or nothing.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rustls::ServerConfig;

use crate::{
    chance::Dice,
    world::{
        actor::{Actor, Cx},
        actors::browser::pattern,
        agenda::MS,
        history::Seen,
        http::{self, Message},
        net::{End, Faults, Notice, Owner},
        secure::Stream,
        token, ws,
    },
};

/// A web server.
#[derive(Debug)]
pub struct Upstream {
    at: SocketAddr,
    /// What it speaks TLS with, where it does.
    tls: Option<Arc<ServerConfig>>,
    seed: u64,
    links: BTreeMap<End, Link>,
    /// Answers that are given later.
    late: BTreeMap<u64, (End, Vec<u8>)>,
    /// Answers in the order that they were promised.
    promised: u64,
}

#[derive(Debug)]
struct Link {
    stream: Stream,
    talk: Talk,
}

#[derive(Debug)]
enum Talk {
    Http(http::Reader),
    WebSocket(ws::Reader),
}

impl Upstream {
    /// A web server that listens there.
    pub fn new(at: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        Self {
            at,
            tls,
            seed: 0,
            links: BTreeMap::new(),
            late: BTreeMap::new(),
            promised: 0,
        }
    }

    fn read(&mut self, cx: &mut Cx<'_>, end: End, bytes: Vec<u8>) {
        let Some(link) = self.links.get_mut(&end) else { return };
        let Ok(bytes) = link.stream.read(cx, bytes) else {
            self.links.remove(&end);
            return cx.net.reset(end);
        };
        match &mut link.talk {
            Talk::Http(reader) => reader.add(&bytes),
            Talk::WebSocket(reader) => {
                reader.add(&bytes);
                return self.echo(cx, end);
            }
        }
        while let Some(Link {
            talk: Talk::Http(reader),
            ..
        }) = self.links.get_mut(&end)
        {
            match reader.message() {
                Ok(Some(message)) => self.answer(cx, end, &message),
                Ok(None) => return,
                Err(_) => {
                    cx.checkers.fail("an upstream was sent what is no HTTP".into());
                    return;
                }
            }
        }
    }

    fn say(&mut self, cx: &mut Cx<'_>, end: End, bytes: &[u8]) {
        if let Some(link) = self.links.get_mut(&end) {
            link.stream.write(cx, bytes);
        }
    }

    /// Says the last thing, and goodbye.
    fn close(&mut self, cx: &mut Cx<'_>, end: End, last_words: &[u8]) {
        if let Some(mut link) = self.links.remove(&end) {
            link.stream.write(cx, last_words);
            link.stream.close(cx);
        }
    }

    fn answer(&mut self, cx: &mut Cx<'_>, end: End, request: &Message) {
        let Some((_, target)) = request.head.request() else {
            return cx.checkers.fail("an upstream was sent no request".into());
        };
        if target.starts_with("/cti") {
            return self.upgrade(cx, end, request);
        }
        if target == "/auth" {
            return self.judge(cx, end, request);
        }
        let parts: Vec<&str> = target.split('/').collect();
        let [_, _, id, length, way] = parts[..] else {
            return cx.checkers.fail(format!("an upstream was asked for {target}"));
        };
        let (Ok(id), Ok(length)) = (id.parse::<u64>(), length.parse::<usize>()) else {
            return cx.checkers.fail(format!("an upstream was asked for {target}"));
        };
        let body = pattern(id ^ 0xffff, length);
        // Of its own for each exchange, so that no browser changes what happens to another.
        let dice = &mut Dice::new(self.seed, id);
        let asked = &request.body[..];
        let answer = Some(&body[..]).filter(|_| !matches!(way, "short" | "cut" | "refuse" | "silence"));
        cx.note(|| format!("answers {} by {way}, {length} bytes", id & 0xffff_ffff));
        let client = request.head.field("x-real-ip").and_then(|ip| ip.parse().ok());
        cx.see(&Seen::HttpServed {
            id,
            client,
            asked,
            answer,
        });
        let head = "HTTP/1.1 200 OK\r\n";
        let with_length = |body: &[u8], shown: usize| {
            let mut bytes = format!("{head}Content-Length: {shown}\r\n\r\n").into_bytes();
            bytes.extend_from_slice(body);
            bytes
        };
        match way {
            "chunked" => {
                let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                bytes.extend(http::chunked(&body, dice.from_to(1, 20_000) as usize));
                self.say(cx, end, &bytes);
            }
            "close" => {
                cx.met("an upstream answered until its end");
                let mut bytes = format!("{head}Connection: close\r\n\r\n").into_bytes();
                bytes.extend_from_slice(&body);
                self.close(cx, end, &bytes);
            }
            "short" => {
                cx.met("an upstream answered too little");
                self.close(cx, end, &with_length(&body[..length / 2], length + 1));
            }
            "silence" if self.tls.is_some() => {
                // RFC 9112 section 9.8: without the goodbye of TLS, what ends with the connection may have been cut.
                cx.met("an upstream ended without the goodbye of TLS");
                let mut bytes = format!("{head}Connection: close\r\n\r\n").into_bytes();
                bytes.extend_from_slice(&body);
                self.say(cx, end, &bytes);
                self.links.remove(&end);
                cx.net.close(end, &[]);
            }
            "cut" => {
                cx.met("an upstream broke off");
                let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                bytes.extend_from_slice(format!("{:x}\r\n", length + 10).as_bytes());
                bytes.extend_from_slice(&body);
                if dice.happens(5_000) {
                    return self.close(cx, end, &bytes);
                }
                self.say(cx, end, &bytes);
                self.links.remove(&end);
                cx.net.reset(end);
            }
            "refuse" | "silence" => {
                cx.met("an upstream answered nothing");
                self.close(cx, end, &[]);
            }
            "slow" => {
                self.promised += 1;
                self.late.insert(self.promised, (end, with_length(&body, length)));
                cx.after(dice.from_to(50 * MS, 15_000 * MS), self.promised);
            }
            _ => self.say(cx, end, &with_length(&body, length)),
        }
    }

    /// Says whether a token holds, and whom it names.
    fn judge(&mut self, cx: &mut Cx<'_>, end: End, request: &Message) {
        cx.met("an upstream was asked about a token");
        if cx.net.faults != Faults::NONE && cx.dice.happens(1_000) {
            cx.met("an upstream knew nothing about a token");
            return match cx.dice.happens(5_000) {
                true => self.close(cx, end, &[]),
                false => self.say(cx, end, b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
            };
        }
        let bearer = request.head.field("authorization").unwrap_or_default();
        let user = bearer.strip_prefix("Bearer ").and_then(token::user);
        let (status, body) = match user {
            Some(user) => ("200 OK", format!("{{\"login\":\"{user}\"}}")),
            None => ("401 Unauthorized", String::new()),
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.say(cx, end, answer.as_bytes());
    }

    fn upgrade(&mut self, cx: &mut Cx<'_>, end: End, request: &Message) {
        let key = request.head.field("sec-websocket-key").unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            ws::accept(key)
        );
        self.say(cx, end, answer.as_bytes());
        let Some(Link { talk, .. }) = self.links.get_mut(&end) else {
            return;
        };
        let mut frames = ws::Reader::default();
        if let Talk::Http(reader) = talk {
            frames.add(&reader.take_rest());
        }
        *talk = Talk::WebSocket(frames);
        self.echo(cx, end);
    }

    fn echo(&mut self, cx: &mut Cx<'_>, end: End) {
        while let Some(Link {
            talk: Talk::WebSocket(frames),
            stream,
        }) = self.links.get_mut(&end)
            && let Some((opcode, payload)) = frames.message()
        {
            match opcode {
                ws::PONG => {}
                ws::PING => stream.write(cx, &ws::frame(ws::PONG, true, &payload, None)),
                ws::CLOSE => self.close(cx, end, &ws::frame(ws::CLOSE, true, &payload, None)),
                _ => stream.write(cx, &ws::frame(opcode, true, &payload, None)),
            }
        }
    }
}

impl Actor for Upstream {
    fn start(&mut self, cx: &mut Cx<'_>) {
        self.seed = cx.dice.u64();
        cx.net.listen(self.at, Owner::Actor(cx.me));
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Accepted { end, .. } => {
                let stream = Stream::accepted(end, self.tls.as_ref());
                let talk = Talk::Http(http::Reader::default());
                self.links.insert(end, Link { stream, talk });
            }
            Notice::Bytes { end, bytes } => self.read(cx, end, bytes),
            Notice::Eof(end) => self.close(cx, end, &[]),
            Notice::Reset(end) | Notice::TimedOut(end) => {
                self.links.remove(&end);
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        if let Some((end, bytes)) = self.late.remove(&token) {
            self.say(cx, end, &bytes);
        }
    }

    fn rest(&mut self) {}

    fn leave(&mut self, cx: &mut Cx<'_>) {
        for mut link in std::mem::take(&mut self.links).into_values() {
            link.stream.close(cx);
        }
    }

    fn outcome(&self) -> Vec<String> {
        Vec::new()
    }
}
