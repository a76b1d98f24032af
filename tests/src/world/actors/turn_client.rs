//! What does a browser do whose media is relayed? It allocates, lets peers in, talks to them, forgets to refresh, and moves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls::ClientConfig;
use wish::{Challenge, Families, Pending, Wish};

use crate::{
    peers::stun::{Class, Message, attribute, method},
    world::{
        actor::{Actor, Cx},
        agenda::{MS, SEC, Time},
        history::Seen,
        net::{End, Notice, Owner},
        secure::Stream,
        site,
    },
};

mod deeds;
mod wish;

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
    /// Where it was before it moved, and may still hear something.
    left: Option<SocketAddr>,
    server: SocketAddr,
    stream: Option<Stream>,
    incoming: Vec<u8>,
    challenge: Option<Challenge>,
    /// The relayed addresses, at most one of each family.
    relayed: Vec<SocketAddr>,
    /// What lets the allocation follow it (RFC 8016).
    ticket: Option<Vec<u8>>,
    /// Requests without an answer, by their number.
    pending: BTreeMap<u64, Pending>,
    requests: u64,
    channels: BTreeMap<u16, SocketAddr>,
    sent: u64,
    ports: u16,
    /// When it does the next thing, where it has one to do.
    next_at: Option<Time>,
    is_resting: bool,
    outcome: Vec<String>,
}

/// The next thing to do.
const GO_ON: u64 = 0;
/// Come again.
const BEGIN: u64 = 1;
/// Come back to what it has.
const COME_BACK: u64 = 2;
/// Send a request again, whose number is added.
const REPEAT: u64 = 1 << 32;

/// RFC 8489 section 6.2.1.
const TRIES_MAX: u32 = 7;

impl TurnClient {
    /// A client of its own addresses.
    pub fn new(number: usize, transport: Transport, config: Arc<ClientConfig>) -> Self {
        Self {
            number,
            transport,
            config,
            local: SocketAddr::new(site::client(number), 0),
            left: None,
            server: site::TURN,
            stream: None,
            incoming: Vec::new(),
            challenge: None,
            relayed: Vec::new(),
            ticket: None,
            pending: BTreeMap::new(),
            requests: 0,
            channels: BTreeMap::new(),
            sent: 0,
            ports: 0,
            next_at: None,
            is_resting: false,
            outcome: Vec::new(),
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting {
            return;
        }
        self.challenge = None;
        if self.transport == Transport::Udp {
            self.forget_sockets(cx);
        }
        self.connect(cx);
        if self.transport == Transport::Udp {
            self.allocate(cx);
        }
    }

    /// Takes a new port of one of its addresses, and calls the server where it does that.
    fn connect(&mut self, cx: &mut Cx<'_>) {
        let (ip, server): (IpAddr, _) = match cx.dice.happens(3_000) {
            true => (site::client_v6(self.number), site::TURN_V6),
            false => (site::client(self.number), site::TURN),
        };
        self.server = server;
        let from = SocketAddr::new(ip, 0);
        match self.transport {
            Transport::Udp => {
                self.ports += 1;
                self.local = SocketAddr::new(ip, 50_000 + self.ports);
                cx.net.bind(self.local, Owner::Actor(cx.me));
            }
            Transport::Tcp => self.stream = Some(Stream::plain(cx, from, server)),
            Transport::Tls => {
                let to = *cx.dice.pick(&[server, site::HTTPS]);
                let from = if to == site::HTTPS {
                    site::client(self.number)
                } else {
                    ip
                };
                self.stream = Some(Stream::secure(cx, SocketAddr::new(from, 0), to, &self.config));
            }
        }
    }

    fn allocate(&mut self, cx: &mut Cx<'_>) {
        let families = [
            Families::Unsaid,
            Families::Unsaid,
            Families::V4,
            Families::V6,
            Families::Both,
        ];
        let wish = Wish {
            families: *cx.dice.pick(&families),
            ticket: cx.dice.happens(4_000).then(Vec::new),
            ..Wish::new(method::ALLOCATE)
        };
        self.request(cx, wish);
    }

    fn request(&mut self, cx: &mut Cx<'_>, wish: Wish) {
        self.requests += 1;
        let pending = wish.ask(self.challenge.as_ref());
        self.say(cx, &pending.bytes);
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
            (_, Transport::Udp) => cx.send(self.local, self.server, bytes),
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
                self.challenge = Some(Challenge::of(&message));
                if message.error_code() == Some(438) {
                    cx.met("a nonce was stale");
                }
                self.request(cx, pending.wish);
            }
            Some(code) => self.refused(cx, &pending.wish, code),
        }
    }

    fn granted(&mut self, cx: &mut Cx<'_>, wish: &Wish, answer: &Message) {
        if let Some(ticket) = answer.attribute(attribute::MOBILITY_TICKET) {
            self.ticket = Some(ticket.to_vec());
        }
        match wish.method {
            method::ALLOCATE => {
                self.relayed = answer.addresses(attribute::XOR_RELAYED_ADDRESS);
                cx.met(match self.transport {
                    Transport::Udp => "an allocation by UDP",
                    Transport::Tcp => "an allocation by TCP",
                    Transport::Tls => "an allocation by TLS",
                });
                match self.relayed[..] {
                    [SocketAddr::V6(_)] => cx.met("an allocation of IPv6"),
                    [_, _] => cx.met("an allocation of both families"),
                    _ => {}
                }
                self.outcome.push(format!("allocated {}", self.relayed.len()));
                self.think(cx, MS, SEC);
            }
            method::REFRESH if wish.ticket.is_some() => {
                cx.met("an allocation followed its client");
                self.outcome.push("moved".into());
                self.think(cx, MS, SEC);
            }
            method::REFRESH if answer.attribute(attribute::LIFETIME) == Some(&[0; 4]) => {
                self.outcome.push("deleted".into());
                self.relayed.retain(|relayed| match wish.families {
                    Families::V4 => relayed.is_ipv6(),
                    Families::V6 => relayed.is_ipv4(),
                    Families::Unsaid | Families::Both => false,
                });
                match self.relayed.is_empty() {
                    true => self.lost(cx),
                    false => cx.met("half of an allocation ended"),
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
        if wish.method == method::ALLOCATE || wish.ticket.is_some() || code == 437 {
            self.lost(cx);
        }
    }

    /// The allocation is gone; perhaps it comes again.
    fn lost(&mut self, cx: &mut Cx<'_>) {
        self.relayed.clear();
        self.ticket = None;
        self.channels.clear();
        self.hang_up(cx);
        cx.between(500 * MS, 20 * SEC, BEGIN);
    }

    /// The connection broke. Who has a ticket may come back by another one.
    fn broke(&mut self, cx: &mut Cx<'_>) {
        cx.note(|| "has lost its TURN server".into());
        if self.ticket.is_none() || cx.dice.happens(3_000) {
            return self.lost(cx);
        }
        self.hang_up(cx);
        cx.between(100 * MS, 20 * SEC, COME_BACK);
    }

    fn hang_up(&mut self, cx: &mut Cx<'_>) {
        self.pending.clear();
        self.incoming.clear();
        self.next_at = None;
        if let Some(mut stream) = self.stream.take() {
            match cx.dice.happens(5_000) {
                true => stream.close(cx),
                false => cx.net.reset(stream.end),
            }
        }
    }

    /// It goes on from another address (RFC 8016 section 3.1.3), before or after it leaves the one that it has.
    fn relocate(&mut self, cx: &mut Cx<'_>) {
        cx.met("a TURN client moved");
        cx.note(|| "moves".into());
        if self.transport != Transport::Udp {
            self.hang_up(cx);
            return self.connect(cx);
        }
        if let Some(left) = self.left.replace(self.local) {
            cx.net.unbind(left);
        }
        if cx.dice.happens(5_000) {
            cx.net.unbind(self.local);
        }
        self.connect(cx);
        self.take_along(cx);
    }

    /// Asks that the allocation follow.
    fn take_along(&mut self, cx: &mut Cx<'_>) {
        let wish = Wish {
            ticket: self.ticket.clone(),
            ..Wish::new(method::REFRESH)
        };
        self.request(cx, wish);
    }

    fn think(&mut self, cx: &mut Cx<'_>, low: Time, high: Time) {
        let wait = cx.dice.from_to(low, high);
        self.next_at = Some(cx.now() + wait);
        cx.after(wait, GO_ON);
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

    fn forget_sockets(&mut self, cx: &mut Cx<'_>) {
        cx.net.unbind(self.local);
        if let Some(left) = self.left.take() {
            cx.net.unbind(left);
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
            Notice::Datagram { bytes, to, .. } if to == self.local || Some(to) == self.left => {
                self.hear_message(cx, &bytes);
            }
            Notice::Connected { end, local } if self.is_mine(end) => {
                self.local = local;
                self.stream.as_mut().expect("mine").connected(cx);
                match self.ticket {
                    Some(_) => self.take_along(cx),
                    None => self.allocate(cx),
                }
            }
            Notice::Bytes { end, bytes } if self.is_mine(end) => self.read(cx, bytes),
            Notice::Eof(end) | Notice::Refused { end, .. } | Notice::Reset(end) | Notice::TimedOut(end)
                if self.is_mine(end) =>
            {
                self.broke(cx);
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        match token {
            GO_ON if self.next_at == Some(cx.now()) => self.go_on(cx),
            BEGIN if self.relayed.is_empty() && self.pending.is_empty() && self.stream.is_none() => self.begin(cx),
            COME_BACK if self.ticket.is_some() && self.stream.is_none() && !self.is_resting => self.connect(cx),
            GO_ON | BEGIN | COME_BACK => {}
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
            Transport::Udp => self.forget_sockets(cx),
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
