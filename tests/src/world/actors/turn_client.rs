//! What does a browser do whose media is relayed? It allocates, lets peers in, talks to them, forgets to refresh, and moves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls::ClientConfig;
use wish::{Challenge, Families, Pending, Wish};

use crate::{
    peers::stun::method,
    world::{
        actor::{Actor, Cx},
        agenda::{MS, SEC, Time},
        net::{End, Notice, Owner},
        secure::Stream,
        site,
    },
};

mod deeds;
mod requests;
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
    /// The ticket before, which it has used.
    used_ticket: Option<Vec<u8>>,
    /// Requests without an answer, by their number.
    pending: BTreeMap<u64, Pending>,
    requests: u64,
    channels: BTreeMap<u16, SocketAddr>,
    sent: u64,
    ports: u16,
    /// When it does the next thing, where it has one to do.
    next_at: Option<Time>,
    /// It never refreshes its allocation, whatever it does with it.
    is_forgetful: bool,
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
            used_ticket: None,
            pending: BTreeMap::new(),
            requests: 0,
            channels: BTreeMap::new(),
            sent: 0,
            ports: 0,
            next_at: None,
            is_forgetful: false,
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

    /// The allocation is gone; perhaps it comes again.
    fn lost(&mut self, cx: &mut Cx<'_>) {
        self.relayed.clear();
        (self.ticket, self.used_ticket) = (None, None);
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
        let is_wrong = self.used_ticket.is_some() && cx.dice.happens(1_500);
        let ticket = if is_wrong { &self.used_ticket } else { &self.ticket };
        let wish = Wish {
            ticket: ticket.clone(),
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
        self.is_forgetful = cx.dice.happens(2_500);
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
