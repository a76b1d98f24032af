//! Whose packet is this? Allocations by client and by relayed transport address. (RFC 8656 section 6)

use core::net::{IpAddr, SocketAddr};
use std::collections::HashMap;

use ahash::RandomState;

use super::{
    auth::{Owner, SessionKey},
    five_tuple::{FiveTuple, FiveTuples},
    peers::Peers,
    rate::{Meter, Rate},
    reply::Form,
    verdict::{IpHeader, Payload, To, Verdict},
};
use crate::{
    action::{ConnId, Prefix, RelayId, SocketId, Transport},
    config::TurnLimits,
    rng::Rng,
    slab::{Key, Slab},
    time::Instant,
    wire::stun::{Code, Family, TransactionId},
};

/// The 5-tuple: a client as the server sees it, and by which way it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// By datagrams.
    Datagram {
        /// The listening socket.
        socket: SocketId,
        /// The client.
        peer: SocketAddr,
        /// Which of our addresses it uses, where the socket has several.
        local: Option<IpAddr>,
    },
    /// By a TCP or TLS connection.
    Stream {
        /// The connection, which stands for the rest: it names no other one, ever.
        conn: ConnId,
        /// The client.
        peer: SocketAddr,
        /// Our end.
        local: SocketAddr,
    },
}

impl Client {
    /// Where the client is, in canonical form.
    pub(super) fn source(&self) -> SocketAddr {
        let (Self::Datagram { peer, .. } | Self::Stream { peer, .. }) = self;
        SocketAddr::new(peer.ip().to_canonical(), peer.port())
    }

    /// Sends something to the client.
    pub(super) fn send(&self, prefix: Prefix, payload: Payload) -> Verdict {
        let to = match *self {
            Self::Datagram { socket, peer, local } => To::Datagram { socket, peer, local },
            Self::Stream { conn, .. } => To::Stream(conn),
        };
        Verdict {
            to,
            header: IpHeader::Own,
            prefix,
            payload,
        }
    }

    /// Sends something of a peer to the client.
    pub(super) fn relay(&self, prefix: Prefix, payload: Payload) -> Verdict {
        Verdict {
            header: IpHeader::Relayed,
            ..self.send(prefix, payload)
        }
    }
}

/// What a client has been given. What each packet needs stands first, so that it comes into the cache together:
/// sockets and the first channel, with what tells whether they have expired.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Allocation {
    /// What it speaks with peers.
    pub(super) transport: Transport,
    /// The sockets of the relayed transport addresses by family.
    pub(super) relayed: [Option<Relayed>; 2],
    pub(super) peers: Peers,
    pub(super) client: Client,
    /// The relayed transport addresses by family, as clients and peers see them.
    pub(super) addresses: [Option<SocketAddr>; 2],
    /// Bytes relayed.
    pub(super) relays: Meter,
    /// Packets that came by the socket from relayed transport addresses of ours.
    pub(super) returned: Meter,
    /// Whom it counts for.
    pub(super) person: Key,
    /// Who made it.
    pub(super) owner: Owner,
    pub(super) session: SessionKey,
    /// The transaction that made it.
    pub(super) transaction: TransactionId,
    /// The family that was asked for and not given, and why.
    pub(super) missing: Option<(Family, Code)>,
    /// Its peer data connections (RFC 6062), in no order.
    pub(super) connections: Vec<Key>,
    /// RESERVATION-TOKEN that it was given.
    pub(super) token: Option<[u8; 8]>,
    /// How it follows its client, where it does (RFC 8016).
    pub(super) mobility: Option<Box<Mobility>>,
    /// What is needed to answer the Allocate request, until all sockets are bound.
    pub(super) pending: Option<Box<Pending>>,
}

/// The socket of one relayed transport address of an allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relayed {
    pub(super) relay: RelayId,
    pub(super) expires: Instant,
}

/// An Allocate request that waits for its sockets.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) form: Form,
    pub(super) lifetime_secs: u32,
    /// Sockets that are not bound yet.
    pub(super) outstanding: u8,
}

/// How an allocation follows its client (RFC 8016).
#[derive(Debug)]
pub(super) struct Mobility {
    /// Which allocation it is, in its tickets.
    pub(super) name: u32,
    /// The number of the ticket that is good.
    pub(super) serial: u16,
    /// When the ticket before that was used.
    pub(super) moved: Option<Instant>,
    /// Where the client has said that it is, until it sends data from there.
    pub(super) next: Option<Client>,
    /// Whether the connection that the client came by is closed, and it may come back by another one.
    pub(super) is_away: bool,
}

impl Mobility {
    /// For an allocation whose client has not moved yet.
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            name: rng.u32() >> 8,
            serial: 0,
            moved: None,
            next: None,
            is_away: false,
        }
    }
}

/// A socket, from the question to bind it to the question to close it. It may outlive its allocation by the time that
/// the answer takes.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) allocation: Key,
    pub(super) family: Family,
    pub(super) port: u16,
    pub(super) wish: Wish,
    /// How often another port may still be tried; `None` once the socket is bound.
    pub(super) tries: Option<u8>,
}

/// Which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Any.
    Any,
    /// An even one.
    Even,
    /// An even one, and the next is held for later.
    Pair,
    /// This one, which was held.
    Held(u16),
}

/// All allocations of a shard.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) allocations: Slab<Allocation>,
    pub(super) relays: Slab<Relay>,
    datagrams: FiveTuples,
    streams: HashMap<ConnId, Key, RandomState>,
    persons: Slab<Person>,
    names: HashMap<Box<[u8]>, Key, RandomState>,
}

/// Somebody who has allocations.
#[derive(Debug, Default)]
struct Person {
    /// How many allocations and held ports; nobody has none.
    count: usize,
    /// Bytes relayed by all of them.
    relays: Meter,
}

/// How much may pass in a second.
#[derive(Debug)]
pub(super) struct Rates {
    allocation: Option<Rate>,
    person: Option<Rate>,
    /// Packets from relayed transport addresses of other shards.
    pub(super) returned: Rate,
}

impl Rates {
    pub(super) fn new(limits: &TurnLimits) -> Self {
        Self {
            allocation: limits.allocation_bytes_per_second.map(Rate::new),
            person: limits.user_bytes_per_second.map(Rate::new),
            returned: Rate::new(limits.returned_packets_per_second),
        }
    }

    /// Whether bytes need not be counted.
    pub(super) fn are_off(&self) -> bool {
        self.allocation.is_none() && self.person.is_none()
    }
}

impl Table {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            allocations: Slab::new(),
            relays: Slab::new(),
            datagrams: FiveTuples::new(rng),
            streams: HashMap::with_hasher(rng.hasher()),
            persons: Slab::new(),
            names: HashMap::with_hasher(rng.hasher()),
        }
    }

    /// Adds an allocation, by which its client is known from now on.
    pub(super) fn insert(&mut self, allocation: Allocation) -> Key {
        let client = allocation.client;
        let key = self.allocations.insert(allocation);
        self.link(&client, key);
        key
    }

    /// From now on, a client finds this allocation.
    pub(super) fn link(&mut self, client: &Client, key: Key) {
        match *client {
            Client::Datagram { socket, peer, local } => self.datagrams.insert(FiveTuple::new(socket, peer, local), key),
            Client::Stream { conn, .. } => self.streams.insert(conn, key),
        };
    }

    /// From now on, a client finds no allocation.
    pub(super) fn unlink(&mut self, client: &Client) {
        match *client {
            Client::Datagram { socket, peer, local } => self.datagrams.remove(&FiveTuple::new(socket, peer, local)),
            Client::Stream { conn, .. } => self.streams.remove(&conn),
        };
    }

    /// Takes an allocation out. Its sockets remain.
    pub(super) fn remove(&mut self, key: Key) -> Option<Allocation> {
        let allocation = self.allocations.remove(key)?;
        self.unlink(&allocation.client);
        Some(allocation)
    }

    /// The allocation of a client, expired or not.
    #[inline]
    pub(super) fn find(&self, client: &Client) -> Option<Key> {
        match client {
            Client::Datagram { socket, peer, local } => {
                let tuple = FiveTuple::new(*socket, *peer, *local);
                self.datagrams.get(&tuple).copied()
            }
            Client::Stream { conn, .. } => self.find_stream(*conn),
        }
    }

    /// The allocation of a connection, expired or not.
    pub(super) fn find_stream(&self, conn: ConnId) -> Option<Key> {
        self.streams.get(&conn).copied()
    }

    /// How many allocations and held ports a person has.
    pub(super) fn count(&self, person: &[u8]) -> usize {
        let key = self.names.get(person).copied();
        key.and_then(|key| self.persons.get(key))
            .map_or(0, |person| person.count)
    }

    /// A person has so many more.
    pub(super) fn count_up(&mut self, name: &[u8], more: usize) -> Key {
        let key = match self.names.get(name) {
            Some(key) => *key,
            None => {
                let key = self.persons.insert(Person::default());
                self.names.insert(name.into(), key);
                key
            }
        };
        if let Some(person) = self.persons.get_mut(key) {
            person.count += more;
        }
        key
    }

    /// A person has one less.
    pub(super) fn count_down(&mut self, name: &[u8]) {
        let key = self.names.get(name).copied();
        let Some((key, person)) = key.and_then(|key| Some((key, self.persons.get_mut(key)?))) else {
            return;
        };
        person.count -= 1;
        if person.count == 0 {
            self.persons.remove(key);
            self.names.remove(name);
        }
    }

    /// Charges so many bytes to an allocation and to its person.
    ///
    /// # Errors
    /// When they may not pass now: from when on they may.
    pub(super) fn charge(&mut self, key: Key, rates: &Rates, now: Instant, bytes: usize) -> Result<(), Instant> {
        let Some(allocation) = self.allocations.get_mut(key) else {
            return Ok(());
        };
        let Some(person) = self.persons.get_mut(allocation.person) else {
            return Ok(());
        };
        let meters = [
            (rates.allocation, &mut allocation.relays),
            (rates.person, &mut person.relays),
        ];
        let refusing = meters
            .iter()
            .filter(|(rate, meter)| rate.is_some() && !meter.admits(now));
        if let Some(from) = refusing.map(|(_, meter)| meter.admits_from()).max() {
            return Err(from);
        }
        for (rate, meter) in meters {
            rate.inspect(|rate| meter.charge(*rate, now, bytes));
        }
        Ok(())
    }

    /// How many clients by datagrams and by connections there are, and persons.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.datagrams.len(), self.streams.len(), self.names.len()]
    }

    /// Bytes that the tables of allocations take, with what they point to.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let slots = self.allocations.slots() * size_of::<Option<Allocation>>();
        let relays = self.relays.slots() * size_of::<Option<Relay>>();
        let owned = self.allocations.iter().map(|(_, allocation)| allocation.bytes());
        slots + relays + self.datagrams.bytes() + owned.sum::<usize>()
    }
}

impl Allocation {
    /// The relayed transport address of a family, if it has not expired.
    pub(super) fn relayed(&self, family: Family, now: Instant) -> Option<&Relayed> {
        self.relayed[family as usize]
            .as_ref()
            .filter(|relayed| now < relayed.expires)
    }

    /// Whether the relayed transport address of a family has expired.
    pub(super) fn has_expired(&self, family: Family, now: Instant) -> bool {
        self.relayed[family as usize].is_some_and(|relayed| relayed.expires <= now)
    }

    /// Bytes on the heap.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let connections = self.connections.capacity() * size_of::<Key>();
        connections
            + self.peers.bytes()
            + self.owner.name().len()
            + self.pending.as_ref().map_or(0, |_| size_of::<Pending>())
    }

    /// Whether anything of it is left, when what has expired is gone.
    pub(super) fn is_live(&self) -> bool {
        self.pending.is_some() || self.relayed.iter().any(Option::is_some)
    }
}
