//! What does somebody do who means harm? Garbage, forgeries, halves of everything, and bytes that mean two things.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rustls::ClientConfig;

use crate::{
    peers::stun::{self, Message, attribute, method},
    world::{
        actor::{Actor, Cx},
        agenda::{MS, SEC},
        net::Notice,
        secure::Stream,
        site,
    },
};

/// Somebody who means harm.
#[derive(Debug)]
pub struct Attacker {
    number: usize,
    config: Arc<ClientConfig>,
    /// Connections, and what is said there.
    streams: BTreeMap<u32, (Stream, Vec<u8>)>,
    is_resting: bool,
}

/// Requests that one server reads as one and another as two, and others that nobody should send. None of them may reach an
/// upstream.
const HEADS: [&str; 9] = [
    "POST /page HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\
     Host: edge.test\r\n\r\n",
    "POST /page HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "POST /page HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /page HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n",
    "GET /page HTTP/1.1\nHost: edge.test\n\nGET /evil HTTP/1.1\nHost: edge.test\n\n",
    "GET /page HTTP/1.1\r\nHost: edge.test\r\nHost: evil.test\r\n\r\n",
    "GET /page/../../evil HTTP/1.1\r\nHost: edge.test\r\n\r\n",
    "GET /wssip HTTP/1.1\r\nHost: edge.test\r\nOrigin: https://evil.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sip\r\n\r\n",
    "GET /page HTTP/1.1\r\nHost: edge.te",
];

impl Attacker {
    /// Somebody with an address.
    pub fn new(number: usize, config: Arc<ClientConfig>) -> Self {
        Self {
            number,
            config,
            streams: BTreeMap::new(),
            is_resting: false,
        }
    }

    fn datagram(&self, cx: &mut Cx<'_>) {
        let own = SocketAddr::new(site::client(self.number), 6_666);
        match cx.dice.from_to(0, 6) {
            0 => {
                let length = cx.dice.from_to(0, 1_500) as usize;
                let garbage = cx.dice.bytes(length);
                let relay = 30_000 + cx.dice.from_to(0, 199) as u16;
                let at = [
                    site::TURN,
                    site::SIP,
                    SocketAddr::new(site::EDGE_OUTSIDE, relay),
                    site::TURN_V6,
                    SocketAddr::new(site::EDGE_OUTSIDE_V6, relay),
                ];
                let to = *cx.dice.pick(&at);
                let from = if to.is_ipv6() {
                    site::client_v6(self.number)
                } else {
                    own.ip()
                };
                cx.met("garbage came by UDP");
                cx.send(SocketAddr::new(from, own.port()), to, &garbage);
            }
            1 => {
                let message = Message::request(*cx.dice.pick(&[method::ALLOCATE, method::REFRESH, method::BINDING]));
                let forged = message
                    .with(attribute::USERNAME, site::TURN_USERS[0].0)
                    .with(attribute::REALM, site::REALM)
                    .with(attribute::NONCE, *b"0123456789abcdef")
                    .with(attribute::LIFETIME, [0; 4])
                    .encode_signed(b"a wrong password");
                cx.met("forged STUN came");
                // In the name of a client that is there, perhaps.
                let victim = cx.dice.from_to(0, 9) as usize;
                let from = *cx.dice.pick(&[own, SocketAddr::new(site::client(victim), 50_001)]);
                cx.send(from, site::TURN, &forged);
            }
            2 => {
                let media = SocketAddr::new(site::MEDIASERVERS[0].ip(), site::MEDIA_PORTS.0);
                let send = Message::indication(method::SEND).with_peer(media);
                cx.send(own, site::TURN, &send.with(attribute::DATA, *b"harm").encode());
            }
            3 => cx.send(own, site::TURN, &stun::channel_data(0x4000, b"harm")),
            4 | 5 => {
                let stranger = SocketAddr::new(site::STRANGER, 5_060);
                let words = *cx.dice.pick(&["INVITE", "REGISTER", "OPTIONS", "MESSAGE"]);
                let message = format!(
                    "{words} sip:user0@edge.test SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKevil{}\r\n\
                     From: <sip:evil@evil.test>;tag=1\r\nTo: <sip:user0@edge.test>\r\nCall-ID: evil\r\nCSeq: 1 {words}\r\n\
                     Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
                    cx.dice.u64()
                );
                cx.met("SIP came from a stranger");
                cx.send(stranger, site::SIP, message.as_bytes());
            }
            _ => {
                // One who may speak, and says nonsense.
                let length = cx.dice.from_to(0, 300) as usize;
                let mut garbage = b"SIP/2.0 200 OK\r\nVia: ".to_vec();
                garbage.extend(cx.dice.bytes(length));
                cx.send(site::MEDIASERVERS[0], site::SIP, &garbage);
            }
        }
    }

    fn connect(&mut self, cx: &mut Cx<'_>) {
        let from = SocketAddr::new(site::client(self.number), 0);
        let to = *cx.dice.pick(&[site::HTTPS, site::TURN]);
        let length = cx.dice.from_to(0, 3_000) as usize;
        let (stream, words) = match cx.dice.from_to(0, 3) {
            0 => {
                cx.met("garbage came by TCP");
                (Stream::plain(cx, from, to), cx.dice.bytes(length))
            }
            1 => {
                cx.met("half a ClientHello came");
                // A record that promises more than comes.
                let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
                hello.extend(cx.dice.bytes(length.min(200)));
                (Stream::plain(cx, from, to), hello)
            }
            _ => {
                cx.met("a head that means two things came");
                let head = *cx.dice.pick(&HEADS);
                (Stream::secure(cx, from, site::HTTPS, &self.config), head.into())
            }
        };
        self.streams.insert(stream.end.tcp, (stream, words));
    }
}

impl Actor for Attacker {
    fn start(&mut self, cx: &mut Cx<'_>) {
        cx.between(0, 3 * SEC, 0);
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Connected { end, .. } => {
                if let Some((stream, words)) = self.streams.get_mut(&end.tcp) {
                    stream.connected(cx);
                    let words = std::mem::take(words);
                    stream.write(cx, &words);
                }
            }
            Notice::Bytes { end, bytes } => {
                if let Some((stream, _)) = self.streams.get_mut(&end.tcp)
                    && stream.read(cx, bytes).is_err()
                {
                    self.streams.remove(&end.tcp);
                    cx.net.reset(end);
                }
            }
            Notice::Eof(end) => {
                self.streams.remove(&end.tcp);
                cx.net.close(end, &[]);
            }
            Notice::Refused { end, .. } | Notice::Reset(end) | Notice::TimedOut(end) => {
                self.streams.remove(&end.tcp);
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, _: u64) {
        if self.is_resting {
            return;
        }
        let (often, most) = if cx.dice.happens(300) { (80, 80) } else { (1, 2) };
        for _ in 0..cx.dice.from_to(1, often) {
            self.datagram(cx);
        }
        for _ in 0..cx.dice.from_to(0, most) {
            self.connect(cx);
        }
        cx.between(20 * MS, 8 * SEC, 0);
    }

    fn rest(&mut self) {
        self.is_resting = true;
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.rest();
        for (stream, _) in std::mem::take(&mut self.streams).into_values() {
            cx.net.reset(stream.end);
        }
    }

    fn outcome(&self) -> Vec<String> {
        Vec::new()
    }
}
