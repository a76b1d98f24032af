//! What does a web server in the LAN answer? What the path says: well, in any framing, too little, or nothing.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    chance::Dice,
    world::{
        actor::{Actor, Cx},
        actors::browser::pattern,
        agenda::MS,
        history::Seen,
        http::{self, Message},
        net::{End, Notice, Owner},
        ws,
    },
};

/// A web server.
#[derive(Debug)]
pub struct Upstream {
    at: SocketAddr,
    seed: u64,
    links: BTreeMap<End, Link>,
    /// Answers that are given later.
    late: BTreeMap<u64, (End, Vec<u8>)>,
    /// Answers in the order that they were promised.
    promised: u64,
}

#[derive(Debug)]
enum Link {
    Http(http::Reader),
    WebSocket(ws::Reader),
}

impl Upstream {
    /// A web server that listens there.
    pub fn new(at: SocketAddr) -> Self {
        Self {
            at,
            seed: 0,
            links: BTreeMap::new(),
            late: BTreeMap::new(),
            promised: 0,
        }
    }

    fn read(&mut self, cx: &mut Cx<'_>, end: End, bytes: &[u8]) {
        match self.links.get_mut(&end) {
            Some(Link::Http(reader)) => reader.add(bytes),
            Some(Link::WebSocket(reader)) => {
                reader.add(bytes);
                return self.echo(cx, end);
            }
            None => return,
        }
        while let Some(Link::Http(reader)) = self.links.get_mut(&end) {
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

    fn answer(&mut self, cx: &mut Cx<'_>, end: End, request: &Message) {
        let Some((_, target)) = request.head.request() else {
            return cx.checkers.fail("an upstream was sent no request".into());
        };
        if target.starts_with("/cti") {
            return self.upgrade(cx, end, request);
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
        let answer = Some(&body[..]).filter(|_| !matches!(way, "short" | "cut" | "refuse"));
        cx.note(|| format!("answers {} by {way}, {length} bytes", id & 0xffff_ffff));
        cx.see(&Seen::HttpServed { id, asked, answer });
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
                cx.net.send(end, &bytes);
            }
            "close" => {
                cx.met("an upstream answered until its end");
                let mut bytes = format!("{head}Connection: close\r\n\r\n").into_bytes();
                bytes.extend_from_slice(&body);
                self.links.remove(&end);
                cx.net.close(end, &bytes);
            }
            "short" => {
                cx.met("an upstream answered too little");
                self.links.remove(&end);
                cx.net.close(end, &with_length(&body[..length / 2], length + 1));
            }
            "cut" => {
                cx.met("an upstream broke off");
                let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
                bytes.extend_from_slice(format!("{:x}\r\n", length + 10).as_bytes());
                bytes.extend_from_slice(&body);
                cx.net.send(end, &bytes);
                self.links.remove(&end);
                cx.net.reset(end);
            }
            "refuse" => {
                cx.met("an upstream answered nothing");
                self.links.remove(&end);
                cx.net.close(end, &[]);
            }
            "slow" => {
                self.promised += 1;
                self.late.insert(self.promised, (end, with_length(&body, length)));
                cx.after(dice.from_to(50 * MS, 15_000 * MS), self.promised);
            }
            _ => cx.net.send(end, &with_length(&body, length)),
        }
    }

    fn upgrade(&mut self, cx: &mut Cx<'_>, end: End, request: &Message) {
        let key = request.head.field("sec-websocket-key").unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            ws::accept(key)
        );
        cx.net.send(end, answer.as_bytes());
        let Some(Link::Http(mut reader)) = self.links.remove(&end) else {
            return;
        };
        let mut frames = ws::Reader::default();
        frames.add(&reader.take_rest());
        self.links.insert(end, Link::WebSocket(frames));
        self.echo(cx, end);
    }

    fn echo(&mut self, cx: &mut Cx<'_>, end: End) {
        let Some(Link::WebSocket(frames)) = self.links.get_mut(&end) else {
            return;
        };
        while let Some((opcode, payload)) = frames.message() {
            match opcode {
                ws::PONG => {}
                ws::PING => cx.net.send(end, &ws::frame(ws::PONG, true, &payload, None)),
                ws::CLOSE => {
                    cx.net.close(end, &ws::frame(ws::CLOSE, true, &payload, None));
                    self.links.remove(&end);
                    return;
                }
                _ => cx.net.send(end, &ws::frame(opcode, true, &payload, None)),
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
                self.links.insert(end, Link::Http(http::Reader::default()));
            }
            Notice::Bytes { end, bytes } => self.read(cx, end, &bytes),
            Notice::Eof(end) => {
                self.links.remove(&end);
                cx.net.close(end, &[]);
            }
            Notice::Reset(end) | Notice::TimedOut(end) => {
                self.links.remove(&end);
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        if let Some((end, bytes)) = self.late.remove(&token)
            && self.links.contains_key(&end)
        {
            cx.net.send(end, &bytes);
        }
    }

    fn rest(&mut self) {}

    fn leave(&mut self, cx: &mut Cx<'_>) {
        for end in std::mem::take(&mut self.links).into_keys() {
            cx.net.close(end, &[]);
        }
    }

    fn outcome(&self) -> Vec<String> {
        Vec::new()
    }
}
