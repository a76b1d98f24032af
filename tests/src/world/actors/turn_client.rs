//! What does a browser do whose media is relayed? It allocates, lets peers in, talks to them, and forgets to refresh.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rustls::ClientConfig;

use crate::{
    peers::stun::{self, Class, Message, attribute, long_term_key, method},
    world::{
        actor::{Actor, Cx},
        agenda::{MS, SEC},
        history::Seen,
        net::{End, Notice, Owner},
        secure::Stream,
        site,
    },
};

/// By what it speaks with the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
    /// A connection with TLS, at the port of TURN or at that of browsers.
    Tls,
}

/// A TURN client.
#[derive(Debug)]
pub struct TurnClient {
    number: usize,
    transport: Transport,
    config: Arc<ClientConfig>,
    local: SocketAddr,
    stream: Option<Stream>,
    incoming: Vec<u8>,
    /// REALM and NONCE.
    challenge: Option<(Vec<u8>, Vec<u8>)>,
    relayed: Option<SocketAddr>,
    /// Requests without an answer, how often they were sent, and their bytes.
    pending: BTreeMap<u64, Pending>,
    requests: u64,
    channels: BTreeMap<u16, SocketAddr>,
    sent: u64,
    ports: u16,
    is_resting: bool,
    outcome: Vec<String>,
}

#[derive(Debug)]
struct Pending {
    wish: Wish,
    transaction: [u8; 12],
    bytes: Vec<u8>,
    tries: u32,
}

/// What a request is for, however often it has to be made.
#[derive(Debug, Clone)]
struct Wish {
    method: u16,
    peer: Option<SocketAddr>,
    channel: Option<u16>,
    lifetime: Option<u32>,
}

impl Wish {
    const fn new(method: u16) -> Self {
        Self {
            method,
            peer: None,
            channel: None,
            lifetime: None,
        }
    }

    fn message(&self) -> Message {
        let mut message = Message::request(self.method);
        if self.method == method::ALLOCATE {
            message = message.with(attribute::REQUESTED_TRANSPORT, stun::UDP);
        }
        if let Some(channel) = self.channel {
            let [a, b] = channel.to_be_bytes();
            message = message.with(attribute::CHANNEL_NUMBER, [a, b, 0, 0]);
        }
        if let Some(lifetime) = self.lifetime {
            message = message.with(attribute::LIFETIME, lifetime.to_be_bytes());
        }
        match self.peer {
            Some(peer) => message.with_peer(peer),
            None => message,
        }
    }
}

/// The next thing to do.
const GO_ON: u64 = 0;
/// Come again.
const BEGIN: u64 = 1;
/// Send a request again, whose number is added.
const REPEAT: u64 = 1 << 32;

/// RFC 8489 section 6.2.1.
const TRIES_MAX: u32 = 7;

impl TurnClient {
    /// A client of its own address.
    pub fn new(number: usize, transport: Transport, config: Arc<ClientConfig>) -> Self {
        Self {
            number,
            transport,
            config,
            local: SocketAddr::new(site::client(number), 0),
            stream: None,
            incoming: Vec::new(),
            challenge: None,
            relayed: None,
            pending: BTreeMap::new(),
            requests: 0,
            channels: BTreeMap::new(),
            sent: 0,
            ports: 0,
            is_resting: false,
            outcome: Vec::new(),
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting {
            return;
        }
        self.challenge = None;
        match self.transport {
            Transport::Udp => {
                cx.net.unbind(self.local);
                self.ports += 1;
                self.local.set_port(50_000 + self.ports);
                cx.net.bind(self.local, Owner::Actor(cx.me));
                self.allocate(cx);
            }
            Transport::Tcp => {
                let from = SocketAddr::new(self.local.ip(), 0);
                self.stream = Some(Stream::plain(cx, from, site::TURN));
            }
            Transport::Tls => {
                let from = SocketAddr::new(self.local.ip(), 0);
                let to = *cx.dice.pick(&[site::TURN, site::HTTPS]);
                self.stream = Some(Stream::secure(cx, from, to, &self.config));
            }
        }
    }

    fn allocate(&mut self, cx: &mut Cx<'_>) {
        self.request(cx, Wish::new(method::ALLOCATE));
    }

    /// Sends a request, signed as soon as there is a nonce.
    fn request(&mut self, cx: &mut Cx<'_>, wish: Wish) {
        self.requests += 1;
        let request = wish.message();
        let transaction = request.transaction;
        let bytes = match &self.challenge {
            None => request.encode(),
            Some((realm, nonce)) => {
                let (name, password) = site::TURN_USERS[0];
                let signed = request.with(attribute::USERNAME, name);
                let signed = signed.with(attribute::REALM, realm.clone());
                let key = long_term_key(name, realm, password);
                signed.with(attribute::NONCE, nonce.clone()).encode_signed(&key)
            }
        };
        self.say(cx, &bytes);
        let pending = Pending {
            wish,
            transaction,
            bytes,
            tries: 1,
        };
        self.pending.insert(self.requests, pending);
        let patience = match self.transport {
            Transport::Udp => 500 * MS,
            Transport::Tcp | Transport::Tls => 40 * SEC,
        };
        cx.after(patience, REPEAT + self.requests);
    }

    fn repeat(&mut self, cx: &mut Cx<'_>, number: u64) {
        let Some(pending) = self.pending.get_mut(&number) else {
            return;
        };
        pending.tries += 1;
        let tries = pending.tries;
        if self.transport != Transport::Udp || tries > TRIES_MAX {
            cx.note(|| "gives up on the TURN server".into());
            return self.lost(cx);
        }
        let bytes = pending.bytes.clone();
        self.say(cx, &bytes);
        cx.after((500 * MS) << (tries - 1), REPEAT + number);
    }

    fn say(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) {
        match (&mut self.stream, self.transport) {
            (_, Transport::Udp) => cx.send(self.local, site::TURN, bytes),
            (Some(stream), _) => {
                let client = self.local;
                cx.checkers.see(cx.net.now(), &Seen::TurnUp { client, bytes });
                // RFC 8656 section 12.5.
                let mut padded = bytes.to_vec();
                padded.resize(bytes.len().next_multiple_of(4), 0);
                stream.write(cx, &padded);
                cx.note(|| format!("says {}", site::what(bytes)));
            }
            (None, _) => {}
        }
    }

    fn hear_message(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) {
        // What comes unasked is no matter of this client alone.
        if bytes.windows(7).any(|window| window == b"echo of") {
            self.outcome.push("an echo".into());
        }
        if self.transport != Transport::Udp {
            let client = self.local;
            cx.see(&Seen::TurnDown { client, bytes });
            cx.note(|| format!("hears {}", site::what(bytes)));
        }
        let Some(message) = Message::decode(bytes) else {
            cx.met("media came by a channel");
            return;
        };
        if message.class == Class::Indication {
            cx.met("media came by an indication");
            return;
        }
        let found = self
            .pending
            .iter()
            .find(|(_, pending)| pending.transaction == message.transaction);
        let Some(number) = found.map(|(number, _)| *number) else {
            return;
        };
        let pending = self.pending.remove(&number).expect("found above");
        match message.error_code() {
            None => self.granted(cx, &pending.wish, &message),
            Some(401 | 438) if self.challenge.is_none() || message.error_code() == Some(438) => {
                let take = |kind| message.attribute(kind).unwrap_or_default().to_vec();
                self.challenge = Some((take(attribute::REALM), take(attribute::NONCE)));
                if message.error_code() == Some(438) {
                    cx.met("a nonce was stale");
                }
                self.request(cx, pending.wish);
            }
            Some(code) => self.refused(cx, &pending.wish, code),
        }
    }

    fn granted(&mut self, cx: &mut Cx<'_>, wish: &Wish, answer: &Message) {
        match wish.method {
            method::ALLOCATE => {
                self.relayed = answer.address(attribute::XOR_RELAYED_ADDRESS);
                cx.met(match self.transport {
                    Transport::Udp => "an allocation by UDP",
                    Transport::Tcp => "an allocation by TCP",
                    Transport::Tls => "an allocation by TLS",
                });
                self.outcome.push("allocated".into());
                cx.between(MS, SEC, GO_ON);
            }
            method::REFRESH => {
                let is_deleted = answer.attribute(attribute::LIFETIME) == Some(&[0; 4]);
                if is_deleted {
                    self.outcome.push("deleted".into());
                    self.lost(cx);
                }
            }
            method::CREATE_PERMISSION => self.outcome.push("permitted".into()),
            method::CHANNEL_BIND => {
                self.channels.extend(wish.channel.zip(wish.peer));
                self.outcome.push("bound".into());
            }
            _ => {}
        }
    }

    fn refused(&mut self, cx: &mut Cx<'_>, wish: &Wish, code: u16) {
        cx.note(|| format!("is refused with {code}"));
        cx.met("a TURN request was refused");
        self.outcome.push(format!("method {} refused: {code}", wish.method));
        // RFC 8656 section 7.2: 437, the allocation is gone.
        if wish.method == method::ALLOCATE || code == 437 {
            self.lost(cx);
        }
    }

    /// The allocation is gone; perhaps it comes again.
    fn lost(&mut self, cx: &mut Cx<'_>) {
        self.relayed = None;
        self.pending.clear();
        self.channels.clear();
        self.incoming.clear();
        if let Some(mut stream) = self.stream.take() {
            match cx.dice.happens(5_000) {
                true => stream.close(cx),
                false => cx.net.reset(stream.end),
            }
        }
        cx.between(500 * MS, 20 * SEC, BEGIN);
    }

    fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting || self.relayed.is_none() {
            return;
        }
        let peer = self.some_peer(cx);
        match cx.dice.from_to(0, 15) {
            0..=1 => {
                let wish = Wish::new(method::CREATE_PERMISSION);
                self.request(
                    cx,
                    Wish {
                        peer: Some(peer),
                        ..wish
                    },
                );
            }
            2 => {
                let channel = 0x4000 + cx.dice.from_to(0, 3) as u16;
                let wish = Wish {
                    peer: Some(peer),
                    channel: Some(channel),
                    ..Wish::new(method::CHANNEL_BIND)
                };
                self.request(cx, wish);
            }
            3..=6 => {
                let payload = self.payload(cx);
                let send = Message::indication(method::SEND).with_peer(peer);
                self.say(cx, &send.with(attribute::DATA, payload).encode());
            }
            7..=11 => {
                let channel = 0x4000 + cx.dice.from_to(0, 3) as u16;
                // A burst, as media comes.
                for _ in 0..cx.dice.from_to(1, 6) {
                    let payload = self.payload(cx);
                    self.say(cx, &stun::channel_data(channel, &payload));
                }
            }
            12 => {
                let lifetime = if cx.dice.happens(1_000) { 0 } else { 600 };
                let wish = Wish::new(method::REFRESH);
                self.request(
                    cx,
                    Wish {
                        lifetime: Some(lifetime),
                        ..wish
                    },
                );
            }
            13 => {
                let bytes = Message::request(method::BINDING).encode();
                self.say(cx, &bytes);
            }
            _ => {
                // Long enough for a permission to end, sometimes for a channel or the allocation.
                cx.met("a TURN client was silent for long");
                return cx.between(5 * SEC, 400 * SEC, GO_ON);
            }
        }
        cx.between(5 * MS, 3 * SEC, GO_ON);
    }

    fn some_peer(&self, cx: &mut Cx<'_>) -> SocketAddr {
        match cx.dice.from_to(0, 9) {
            0 => site::BYSTANDER,
            1 => SocketAddr::new(site::STRANGER, 5_000),
            2 => SocketAddr::new(site::EDGE_OUTSIDE, 30_000 + cx.dice.from_to(0, 199) as u16),
            _ => {
                let media = *cx.dice.pick(&site::MEDIASERVERS);
                SocketAddr::new(media.ip(), site::MEDIA_PORTS.0 + cx.dice.from_to(0, 2) as u16)
            }
        }
    }

    fn payload(&mut self, cx: &mut Cx<'_>) -> Vec<u8> {
        self.sent += 1;
        let mut payload = format!("media {} {} ", self.number, self.sent).into_bytes();
        let length = match cx.dice.from_to(0, 9) {
            0 => cx.dice.from_to(0, 1_400) as usize,
            _ => 160,
        };
        payload.resize(payload.len() + length, b'.');
        payload
    }

    /// Takes whole messages off a stream.
    fn read(&mut self, cx: &mut Cx<'_>, bytes: Vec<u8>) {
        let Some(stream) = &mut self.stream else { return };
        let Ok(plain) = stream.read(cx, bytes) else {
            return self.lost(cx);
        };
        self.incoming.extend_from_slice(&plain);
        while let Some(header) = self.incoming.first_chunk::<4>() {
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let length = length + if header[0] & 0xc0 == 0 { 20 } else { 4 };
            let padded = length.next_multiple_of(4);
            if self.incoming.len() < padded {
                return;
            }
            let mut message: Vec<u8> = self.incoming.drain(..padded).collect();
            message.truncate(length);
            self.hear_message(cx, &message);
        }
    }

    fn is_mine(&self, end: End) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.end == end)
    }
}

impl Actor for TurnClient {
    fn start(&mut self, cx: &mut Cx<'_>) {
        cx.between(0, 5 * SEC, BEGIN);
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Datagram { bytes, to, .. } if to == self.local => self.hear_message(cx, &bytes),
            Notice::Connected { end, local } if self.is_mine(end) => {
                self.local = local;
                self.stream.as_mut().expect("mine").connected(cx);
                self.allocate(cx);
            }
            Notice::Bytes { end, bytes } if self.is_mine(end) => self.read(cx, bytes),
            Notice::Eof(end) | Notice::Refused { end, .. } | Notice::Reset(end) | Notice::TimedOut(end)
                if self.is_mine(end) =>
            {
                cx.note(|| "has lost its TURN server".into());
                self.lost(cx);
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        match token {
            GO_ON => self.go_on(cx),
            BEGIN if self.relayed.is_none() && self.pending.is_empty() && self.stream.is_none() => self.begin(cx),
            BEGIN => {}
            number => self.repeat(cx, number - REPEAT),
        }
    }

    fn rest(&mut self) {
        self.is_resting = true;
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.rest();
        self.pending.clear();
        match self.transport {
            // Its network is gone: the allocation ends by its lifetime.
            Transport::Udp => cx.net.unbind(self.local),
            Transport::Tcp | Transport::Tls => {
                if let Some(mut stream) = self.stream.take() {
                    stream.close(cx);
                }
            }
        }
    }

    fn outcome(&self) -> Vec<String> {
        self.outcome.clone()
    }
}
