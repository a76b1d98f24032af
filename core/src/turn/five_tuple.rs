//! Which allocation has this client? One look-up by 5-tuple for every datagram.

use core::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
};
use std::collections::HashMap;

use ahash::RandomState;

use crate::{action::SocketId, rng::Rng, slab::Key};

/// A client by datagrams in few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FiveTuple {
    V4(V4),
    V6(V6),
}

/// All of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct V4 {
    /// The peer, its port, and the listening socket.
    peer: u64,
    /// 0 where the listening socket has only one address.
    local: u32,
}

/// All of IPv6, or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct V6 {
    peer: u128,
    /// 0 where the listening socket has only one address.
    local: u128,
    /// Scope of a link-local peer, its port, and the listening socket.
    rest: u64,
}

impl FiveTuple {
    pub(super) fn new(socket: SocketId, peer: SocketAddr, local: Option<IpAddr>) -> Self {
        let socket = match socket {
            SocketId::Turn(number) => number,
            // No client ever comes by these.
            SocketId::Sip | SocketId::Relay(_) => u16::MAX,
        };
        let rest = u64::from(peer.port()) << 16 | u64::from(socket);
        let v4 = |peer: u32, local: u32| {
            Self::V4(V4 {
                peer: u64::from(peer) << 32 | rest,
                local,
            })
        };
        match (peer, local) {
            (SocketAddr::V4(peer), None) => v4(peer.ip().to_bits(), 0),
            (SocketAddr::V4(peer), Some(IpAddr::V4(local))) => v4(peer.ip().to_bits(), local.to_bits()),
            (SocketAddr::V4(_), Some(IpAddr::V6(_))) | (SocketAddr::V6(_), _) => {
                let scope = match peer {
                    SocketAddr::V4(_) => 0,
                    SocketAddr::V6(peer) => peer.scope_id(),
                };
                Self::V6(V6 {
                    peer: bits(peer.ip()),
                    local: local.map_or(0, bits),
                    rest: u64::from(scope) << 32 | rest,
                })
            }
        }
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Hash for V4 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.peer);
        if self.local != 0 {
            state.write_u32(self.local);
        }
    }
}

impl Hash for V6 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.peer);
        state.write_u64(self.rest);
        if self.local != 0 {
            state.write_u128(self.local);
        }
    }
}

/// Allocations by 5-tuple. Those of IPv4 stand apart: ten thousand of them fit into a cache that is near.
#[derive(Debug)]
pub(super) struct FiveTuples {
    v4: HashMap<V4, Key, RandomState>,
    v6: HashMap<V6, Key, RandomState>,
}

impl FiveTuples {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            v4: HashMap::with_hasher(rng.hasher()),
            v6: HashMap::with_hasher(rng.hasher()),
        }
    }

    pub(super) fn insert(&mut self, tuple: FiveTuple, allocation: Key) -> Option<Key> {
        match tuple {
            FiveTuple::V4(tuple) => self.v4.insert(tuple, allocation),
            FiveTuple::V6(tuple) => self.v6.insert(tuple, allocation),
        }
    }

    pub(super) fn remove(&mut self, tuple: &FiveTuple) -> Option<Key> {
        match tuple {
            FiveTuple::V4(tuple) => self.v4.remove(tuple),
            FiveTuple::V6(tuple) => self.v6.remove(tuple),
        }
    }

    #[inline]
    pub(super) fn get(&self, tuple: &FiveTuple) -> Option<&Key> {
        match tuple {
            FiveTuple::V4(tuple) => self.v4.get(tuple),
            FiveTuple::V6(tuple) => self.v6.get(tuple),
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let v4 = self.v4.capacity() * (size_of::<(V4, Key)>() + 1);
        let v6 = self.v6.capacity() * (size_of::<(V6, Key)>() + 1);
        (v4 + v6) * 8 / 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_5_tuple_tells_clients_apart() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let ip = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        let scoped = |scope| {
            SocketAddr::V6(core::net::SocketAddrV6::new(
                "fe80::1".parse().expect("an address"),
                1,
                0,
                scope,
            ))
        };
        let all = [
            (SocketId::Turn(0), address("192.0.2.1:1"), None),
            (SocketId::Turn(1), address("192.0.2.1:1"), None),
            (SocketId::Turn(0), address("192.0.2.2:1"), None),
            (SocketId::Turn(0), address("192.0.2.1:2"), None),
            (SocketId::Turn(0), address("192.0.2.1:1"), ip("192.0.2.1")),
            (SocketId::Turn(0), address("192.0.2.1:1"), ip("192.0.2.2")),
            (SocketId::Turn(0), address("192.0.2.1:1"), ip("2001:db8::1")),
            (SocketId::Turn(0), address("[2001:db8::1]:1"), None),
            (SocketId::Turn(1), address("[2001:db8::1]:1"), None),
            (SocketId::Turn(0), address("[2001:db8::2]:1"), None),
            (SocketId::Turn(0), address("[2001:db8::1]:2"), None),
            (SocketId::Turn(0), address("[2001:db8::1]:1"), ip("2001:db8::1")),
            (SocketId::Turn(0), address("[2001:db8::1]:1"), ip("2001:db8::2")),
            (SocketId::Turn(0), scoped(1), None),
            (SocketId::Turn(0), scoped(2), None),
        ];
        let mut tuples = FiveTuples::new(&mut Rng::new([5; 32]));
        let tuple = |(socket, peer, local)| FiveTuple::new(socket, peer, local);
        for (n, client) in (0..).zip(all) {
            assert_eq!(tuples.insert(tuple(client), Key::from_parts(n, 0)), None, "{client:?}");
        }
        for (n, client) in (0..).zip(all) {
            assert_eq!(tuples.get(&tuple(client)), Some(&Key::from_parts(n, 0)));
        }
        assert_eq!(tuples.len(), all.len());
        for client in all {
            assert!(tuples.remove(&tuple(client)).is_some());
            assert_eq!(tuples.get(&tuple(client)), None);
        }
    }
}
