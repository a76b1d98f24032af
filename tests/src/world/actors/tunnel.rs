//! Does a WebSocket through the edge carry everything, in order? A page of the CTI, whose server says all again.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::ClientConfig;

use crate::{
    random,
    world::{
        actor::{Actor, Cx},
        actors::browser::pattern,
        agenda::{MS, SEC},
        http,
        net::{End, Notice},
        secure::Stream,
        site, ws,
    },
};

/// A page with a WebSocket.
#[derive(Debug)]
pub struct Tunnel {
    number: usize,
    config: Arc<ClientConfig>,
    stream: Option<Stream>,
    /// The answer that is awaited, until it has come.
    opening: Option<http::Reader>,
    frames: ws::Reader,
    /// What was said and has not come back.
    said: VecDeque<Vec<u8>>,
    count: u64,
    is_resting: bool,
    outcome: Vec<String>,
}

/// Say something.
const GO_ON: u64 = 0;
/// Come back.
const BEGIN: u64 = 1;
/// Read again.
const READ: u64 = 2;

/// Messages under way at once.
const SAID_MAX: usize = 40;

impl Tunnel {
    /// A page of an address of its own.
    pub fn new(number: usize, config: Arc<ClientConfig>) -> Self {
        Self {
            number,
            config,
            stream: None,
            opening: None,
            frames: ws::Reader::default(),
            said: VecDeque::new(),
            count: 0,
            is_resting: false,
            outcome: Vec::new(),
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting || self.stream.is_some() {
            return;
        }
        let from = SocketAddr::new(site::client(self.number), 0);
        self.stream = Some(Stream::secure(cx, from, site::HTTPS, &self.config));
        self.opening = Some(http::Reader::default());
        self.frames = ws::Reader::default();
        self.said.clear();
    }

    fn open(&mut self, cx: &mut Cx<'_>) {
        let key = BASE64_STANDARD.encode(random::<16>());
        let request = format!(
            "GET /cti HTTP/1.1\r\nHost: {name}\r\nOrigin: https://{name}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n",
            name = site::NAME,
        );
        let stream = self.stream.as_mut().expect("a connection");
        stream.connected(cx);
        stream.write(cx, request.as_bytes());
    }

    fn read(&mut self, cx: &mut Cx<'_>, bytes: Vec<u8>) {
        let Some(stream) = &mut self.stream else { return };
        let Ok(mut plain) = stream.read(cx, bytes) else {
            return self.lost(cx);
        };
        if let Some(reader) = &mut self.opening {
            reader.add(&plain);
            let answer = match reader.message() {
                Ok(Some(answer)) => answer,
                Ok(None) => return,
                Err(_) => return cx.checkers.fail(format!("page {}: no HTTP came", self.number)),
            };
            plain = reader.take_rest();
            self.opening = None;
            if answer.head.status() != Some(101) {
                self.outcome.push(format!("refused: {}", answer.head.start));
                return self.lost(cx);
            }
            cx.met("a tunnel opened");
            self.outcome.push("opened".into());
            cx.between(MS, SEC, GO_ON);
        }
        self.frames.add(&plain);
        while let Some((opcode, payload)) = self.frames.message() {
            match opcode {
                ws::CLOSE => return self.lost(cx),
                ws::TEXT => self.echo(cx, &payload),
                _ => {}
            }
        }
    }

    fn echo(&mut self, cx: &mut Cx<'_>, payload: &[u8]) {
        if self.said.pop_front().as_deref() != Some(payload) {
            cx.checkers.fail(format!(
                "tunnel: page {} got {} bytes that it had not said",
                self.number,
                payload.len()
            ));
        }
        self.outcome.push(format!("{} bytes came back", payload.len()));
        cx.met("a message went through a tunnel and back");
    }

    fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting || self.opening.is_some() || self.stream.is_none() {
            return;
        }
        let is_much = cx.dice.happens(500);
        let messages = if is_much { cx.dice.from_to(10, 30) } else { 1 };
        for _ in 0..messages {
            if self.said.len() >= SAID_MAX {
                break;
            }
            self.count += 1;
            let length = match is_much {
                true => cx.dice.from_to(10_000, 40_000),
                false => cx.dice.from_to(0, 2_000),
            };
            let payload = pattern((self.number as u64) << 32 | self.count, length as usize);
            let frame = ws::frame(ws::TEXT, true, &payload, Some(random()));
            self.said.push_back(payload);
            self.stream.as_mut().expect("a connection").write(cx, &frame);
        }
        if is_much && cx.dice.happens(5_000) {
            cx.met("a page did not read its tunnel");
            cx.net
                .set_reading(self.stream.as_ref().expect("a connection").end, false);
            cx.between(SEC, 20 * SEC, READ);
        }
        cx.between(20 * MS, 20 * SEC, GO_ON);
    }

    fn lost(&mut self, cx: &mut Cx<'_>) {
        if let Some(stream) = self.stream.take() {
            cx.net.reset(stream.end);
        }
        self.opening = None;
        cx.between(100 * MS, 10 * SEC, BEGIN);
    }

    fn is_mine(&self, end: End) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.end == end)
    }
}

impl Actor for Tunnel {
    fn start(&mut self, cx: &mut Cx<'_>) {
        cx.between(0, 5 * SEC, BEGIN);
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Connected { end, .. } if self.is_mine(end) => self.open(cx),
            Notice::Bytes { end, bytes } if self.is_mine(end) => self.read(cx, bytes),
            Notice::Eof(end) | Notice::Refused { end, .. } | Notice::Reset(end) | Notice::TimedOut(end)
                if self.is_mine(end) =>
            {
                self.lost(cx);
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        match token {
            GO_ON => self.go_on(cx),
            BEGIN => self.begin(cx),
            _ => {
                if let Some(stream) = &self.stream {
                    cx.net.set_reading(stream.end, true);
                }
            }
        }
    }

    fn rest(&mut self) {
        self.is_resting = true;
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.rest();
        if let Some(mut stream) = self.stream.take() {
            stream.close(cx);
        }
    }

    fn outcome(&self) -> Vec<String> {
        self.outcome.clone()
    }
}
