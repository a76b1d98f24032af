//! What becomes of what is sent? A network with two kinds of traffic, whose faults follow from a seed.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    chance::Dice,
    world::{
        agenda::{Agenda, Event, MS, SEC, Time},
        met::Met,
    },
};

mod stream;

pub use stream::{Broken, End};
use stream::{Half, Tcp};

/// Who is told what happens at an address or at an end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The runtime of the edge.
    Edge,
    /// An actor, by its number.
    Actor(usize),
}

/// Why a call came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody listens there.
    Refused,
    /// There is no way.
    Unreachable,
    /// Nobody answers.
    TimedOut,
}

/// What somebody is told.
#[derive(Debug)]
pub enum Notice {
    /// A datagram has arrived.
    Datagram {
        /// Who sent it.
        from: SocketAddr,
        /// Where it has arrived.
        to: SocketAddr,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// A datagram came to nothing (ICMP).
    Unreachable {
        /// Whose it was.
        from: SocketAddr,
        /// Who did not take it.
        to: SocketAddr,
    },
    /// Somebody has connected.
    Accepted {
        /// Our end.
        end: End,
        /// Our address.
        local: SocketAddr,
        /// Theirs.
        peer: SocketAddr,
    },
    /// A call was answered.
    Connected {
        /// Our end.
        end: End,
        /// Our address.
        local: SocketAddr,
    },
    /// A call was not answered; the end is gone.
    Refused {
        /// Our end.
        end: End,
        /// Why.
        why: Refusal,
    },
    /// Bytes of a stream.
    Bytes {
        /// Our end.
        end: End,
        /// The next ones.
        bytes: Vec<u8>,
    },
    /// The other end sends no more.
    Eof(End),
    /// The connection is broken; the end is gone.
    Reset(End),
    /// Nobody acknowledges what was written; the end is gone.
    TimedOut(End),
    /// There is room to write again.
    Room(End),
}

/// How often each fault happens, in ten thousand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The shortest and the longest way.
    pub delay: (Time, Time),
    /// A datagram is lost.
    pub lost: u64,
    /// A datagram arrives twice.
    pub repeated: u64,
    /// A datagram arrives behind those that were sent after it.
    pub late: u64,
    /// A part of a stream has to be sent again, and takes a while.
    pub stalled: u64,
    /// A read or a write is done in parts.
    pub split: u64,
    /// A connection has small buffers.
    pub narrow: u64,
    /// A call is not answered.
    pub dial: u64,
    /// A name is not found.
    pub name: u64,
    /// A socket is not bound.
    pub bind: u64,
    /// What one shard sends to another is lost, where that may be.
    pub parcel: u64,
}

impl Faults {
    /// Nothing goes wrong, and everything takes the same time.
    pub const NONE: Self = Self {
        delay: (10 * MS, 10 * MS),
        lost: 0,
        repeated: 0,
        late: 0,
        stalled: 0,
        split: 0,
        narrow: 0,
        dial: 0,
        name: 0,
        bind: 0,
        parcel: 0,
    };

    /// A network with a mood of its own.
    pub fn of(dice: &mut Dice) -> Self {
        let mut rate = |most| match dice.happens(6_000) {
            true => dice.from_to(0, most),
            false => 0,
        };
        Self {
            lost: rate(1_500),
            repeated: rate(1_000),
            late: rate(1_000),
            stalled: rate(500),
            split: rate(8_000),
            narrow: rate(5_000),
            dial: rate(3_000),
            name: rate(5_000),
            bind: rate(4_000),
            parcel: rate(300),
            delay: (MS / 10, dice.from_to(1, 80) * MS),
        }
    }
}

/// A way for datagrams and streams between everybody.
#[derive(Debug)]
pub struct Net {
    /// What will happen.
    pub agenda: Agenda,
    /// What has happened.
    pub met: Met,
    /// What goes wrong.
    pub faults: Faults,
    dice: Dice,
    streams: BTreeMap<u32, Tcp>,
    dialled: u32,
    sockets: BTreeMap<SocketAddr, Owner>,
    listeners: BTreeMap<SocketAddr, Owner>,
}

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_507;

impl Net {
    /// A network without anybody.
    pub fn new(faults: Faults, dice: Dice) -> Self {
        Self {
            agenda: Agenda::default(),
            met: Met::default(),
            faults,
            dice,
            streams: BTreeMap::new(),
            dialled: 0,
            sockets: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    /// What time it is.
    pub const fn now(&self) -> Time {
        self.agenda.now()
    }

    /// Whether a fault with this rate happens now.
    pub fn fails(&mut self, rate: u64) -> bool {
        self.dice.happens(rate)
    }

    /// A number for a decision of the network.
    pub fn from_to(&mut self, low: u64, high: u64) -> u64 {
        self.dice.from_to(low, high)
    }

    /// How long the way takes this time.
    pub fn delay(&mut self) -> Time {
        let (low, high) = self.faults.delay;
        self.dice.from_to(low, high)
    }

    /// From now on, datagrams to this address have somebody who gets them.
    pub fn bind(&mut self, at: SocketAddr, owner: Owner) -> bool {
        let is_free = !self.sockets.contains_key(&at);
        if is_free {
            self.sockets.insert(at, owner);
        }
        is_free
    }

    /// And from now on not.
    pub fn unbind(&mut self, at: SocketAddr) {
        self.sockets.remove(&at);
    }

    /// From now on, somebody listens for connections there.
    pub fn listen(&mut self, at: SocketAddr, owner: Owner) -> bool {
        let is_free = !self.listeners.contains_key(&at);
        if is_free {
            self.listeners.insert(at, owner);
        }
        is_free
    }

    /// And from now on not.
    pub fn unlisten(&mut self, at: SocketAddr) {
        self.listeners.remove(&at);
    }

    /// Who listens there.
    pub fn listener(&self, at: SocketAddr) -> Option<Owner> {
        self.listeners.get(&at).copied()
    }

    /// Sends a datagram; tells whether it arrives.
    pub fn send_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "a datagram that no network takes");
        if self.dice.happens(self.faults.lost) {
            self.met.count("a datagram was lost");
            return false;
        }
        let mut copies = 1;
        if self.dice.happens(self.faults.repeated) {
            self.met.count("a datagram came twice");
            copies = 2;
        }
        for _ in 0..copies {
            let mut delay = self.delay();
            if self.dice.happens(self.faults.late) {
                self.met.count("a datagram was overtaken");
                delay += self.dice.from_to(20, 800) * MS;
            }
            let bytes = bytes.to_vec();
            self.agenda.after(delay, Event::Datagram { from, to, bytes });
        }
        true
    }

    /// Calls a listener from an address, or from any port of it where that is 0.
    pub fn dial(&mut self, owner: Owner, from: SocketAddr, to: SocketAddr) -> End {
        self.dialled += 1;
        let port = match from.port() {
            0 => 20_000 + (self.dialled % 40_000) as u16,
            port => port,
        };
        let local = SocketAddr::new(from.ip(), port);
        let is_narrow = self.dice.happens(self.faults.narrow);
        let room = match is_narrow {
            true => self.dice.from_to(256, 4_096) as usize,
            false => 128 * 1024,
        };
        let end = End {
            tcp: self.dialled,
            side: 0,
        };
        self.streams.insert(end.tcp, Tcp::new(owner, [local, to], room));
        let (mut delay, mut fails) = (2 * self.delay(), None);
        // Only who lives in the LAN may be called in vain by a fault: a client that cannot connect says nothing.
        if owner == Owner::Edge && self.dice.happens(self.faults.dial) {
            let (why, name) = match self.dice.from_to(0, 2) {
                0 => (Refusal::Refused, "a dial was refused"),
                1 => (Refusal::Unreachable, "a dial found no way"),
                _ => (Refusal::TimedOut, "a dial was not answered"),
            };
            if why == Refusal::TimedOut {
                delay = self.dice.from_to(1, 130) * SEC;
            }
            self.met.count(name);
            fails = Some(why);
        }
        self.half(end).refused = fails;
        self.agenda.after(delay, Event::Dialed(end));
        end
    }

    /// Lets an event of the network happen; tells who is to be told what.
    pub fn happen(&mut self, event: Event) -> Vec<(Owner, Notice)> {
        match event {
            Event::Datagram { from, to, bytes } => self.arrive(from, to, bytes),
            Event::Unreachable { from, to } => {
                let owner = self.sockets.get(&from).copied();
                owner
                    .map(|owner| (owner, Notice::Unreachable { from, to }))
                    .into_iter()
                    .collect()
            }
            Event::Dialed(end) => self.dialed(end),
            Event::Due(end) => self.due(end).into_iter().collect(),
            Event::Room(end) => self.room(end).into_iter().collect(),
            Event::Unheard(end) => self.unheard(end).into_iter().collect(),
            Event::Lingered(end) => {
                self.lingered(end);
                Vec::new()
            }
            Event::Timer { .. } | Event::Edge(_) | Event::Step(_) => Vec::new(),
        }
    }

    /// Breaks connections, one in `one_in`: half of them for both ends to see, half for none.
    /// Tells which.
    pub fn cut(&mut self, one_in: u64) -> Vec<u32> {
        let mut cut = Vec::new();
        let numbers: Vec<u32> = self.streams.keys().copied().collect();
        for number in numbers {
            if self.streams[&number].is_open && self.dice.place(one_in as usize) == 0 {
                cut.push(number);
                match self.dice.happens(5_000) {
                    true => self.break_both(number),
                    false => self.blacken(number),
                }
            }
        }
        cut
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) -> Vec<(Owner, Notice)> {
        let Some(owner) = self.sockets.get(&to).copied() else {
            // RFC 1122 section 4.1.3.1: port unreachable, where nothing on the way swallows it.
            if self.dice.happens(5_000) {
                let delay = self.delay();
                self.agenda.after(delay, Event::Unreachable { from, to });
            }
            return Vec::new();
        };
        vec![(owner, Notice::Datagram { from, to, bytes })]
    }

    fn dialed(&mut self, end: End) -> Vec<(Owner, Notice)> {
        let Some(tcp) = self.streams.get_mut(&end.tcp) else {
            return Vec::new();
        };
        let [local, to] = tcp.addresses;
        let half: &Half = &tcp.halves[0];
        let (Some(caller), false) = (half.owner, half.gone) else {
            self.streams.remove(&end.tcp);
            return Vec::new();
        };
        let listener = self.listeners.get(&to).copied();
        let (Some(listener), None) = (listener, half.refused) else {
            let why = half.refused.unwrap_or(Refusal::Refused);
            self.streams.remove(&end.tcp);
            return vec![(caller, Notice::Refused { end, why })];
        };
        tcp.is_open = true;
        self.half(end.other()).owner = Some(listener);
        let accepted = Notice::Accepted {
            end: end.other(),
            local: to,
            peer: local,
        };
        vec![(listener, accepted), (caller, Notice::Connected { end, local })]
    }

    fn half(&mut self, end: End) -> &mut Half {
        let tcp = self.streams.get_mut(&end.tcp).expect("a connection that is there");
        &mut tcp.halves[usize::from(end.side)]
    }
}
