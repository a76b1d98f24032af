//! Whose packet is this? Allocations by client and by relayed transport address. (RFC 8656 section 6)

use core::{
    hash::Hash,
    net::{IpAddr, SocketAddr},
};
use std::collections::HashMap;

use ahash::RandomState;

use super::{
    auth::{Owner, SessionKey},
    peers::Peers,
    reply::Form,
    verdict::{Payload, To, Verdict},
};
use crate::{
    action::{ConnId, Prefix, RelayId, SocketId, Transport},
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
        Verdict { to, prefix, payload }
    }
}

/// What a client has been given.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) client: Client,
    /// Who made it.
    pub(super) owner: Owner,
    pub(super) session: SessionKey,
    /// The transaction that made it.
    pub(super) transaction: TransactionId,
    /// The relayed transport addresses by family.
    pub(super) relayed: [Option<Relayed>; 2],
    pub(super) peers: Peers,
    /// The family that was asked for and not given, and why.
    pub(super) missing: Option<(Family, Code)>,
    /// What it speaks with peers.
    pub(super) transport: Transport,
    /// Its peer data connections (RFC 6062), in no order.
    pub(super) connections: Vec<Key>,
    /// RESERVATION-TOKEN that it was given.
    pub(super) token: Option<[u8; 8]>,
    /// What is needed to answer the Allocate request, until all sockets are bound.
    pub(super) pending: Option<Box<Pending>>,
}

/// One relayed transport address of an allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relayed {
    pub(super) relay: RelayId,
    /// As clients and peers see it.
    pub(super) address: SocketAddr,
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
    datagrams: HashMap<Client, Key, RandomState>,
    streams: HashMap<ConnId, Key, RandomState>,
    /// How many allocations and held ports each person has; nobody has none.
    counts: HashMap<Box<[u8]>, usize, RandomState>,
}

impl Table {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            allocations: Slab::new(),
            relays: Slab::new(),
            datagrams: HashMap::with_hasher(rng.hasher()),
            streams: HashMap::with_hasher(rng.hasher()),
            counts: HashMap::with_hasher(rng.hasher()),
        }
    }

    /// Adds an allocation, by which its client is known from now on.
    pub(super) fn insert(&mut self, allocation: Allocation) -> Key {
        let client = allocation.client;
        let key = self.allocations.insert(allocation);
        match client {
            Client::Datagram { .. } => self.datagrams.insert(client, key),
            Client::Stream { conn, .. } => self.streams.insert(conn, key),
        };
        key
    }

    /// Takes an allocation out. Its sockets remain.
    pub(super) fn remove(&mut self, key: Key) -> Option<Allocation> {
        let allocation = self.allocations.remove(key)?;
        match allocation.client {
            Client::Datagram { .. } => self.datagrams.remove(&allocation.client),
            Client::Stream { conn, .. } => self.streams.remove(&conn),
        };
        Some(allocation)
    }

    /// The allocation of a client, expired or not.
    pub(super) fn find(&self, client: &Client) -> Option<Key> {
        match client {
            Client::Datagram { .. } => self.datagrams.get(client).copied(),
            Client::Stream { conn, .. } => self.find_stream(*conn),
        }
    }

    /// The allocation of a connection, expired or not.
    pub(super) fn find_stream(&self, conn: ConnId) -> Option<Key> {
        self.streams.get(&conn).copied()
    }

    /// How many allocations and held ports a person has.
    pub(super) fn count(&self, person: &[u8]) -> usize {
        self.counts.get(person).copied().unwrap_or_default()
    }

    /// A person has one more.
    pub(super) fn count_up(&mut self, person: &[u8]) {
        match self.counts.get_mut(person) {
            Some(count) => *count += 1,
            None => _ = self.counts.insert(person.into(), 1),
        }
    }

    /// A person has one less.
    pub(super) fn count_down(&mut self, person: &[u8]) {
        if let Some(count) = self.counts.get_mut(person) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(person);
            }
        }
    }

    /// How many clients by datagrams and by connections there are, and persons.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.datagrams.len(), self.streams.len(), self.counts.len()]
    }

    /// Bytes that the tables of allocations take, with what they point to.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let slots = self.allocations.slots() * size_of::<Option<Allocation>>();
        let relays = self.relays.slots() * size_of::<Option<Relay>>();
        let clients = self.datagrams.capacity() * (size_of::<(Client, Key)>() + 1) * 8 / 7;
        let owned = self.allocations.iter().map(|(_, allocation)| allocation.bytes());
        slots + relays + clients + owned.sum::<usize>()
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
