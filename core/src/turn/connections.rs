//! Which connections with peers are there, and by which name does a client come for them? (RFC 6062)

use core::net::SocketAddr;
use std::collections::HashMap;

use ahash::RandomState;

use super::reply::Form;
use crate::{
    action::{ConnId, ShardId},
    rng::Rng,
    slab::{Key, Slab},
    time::Instant,
};

/// CONNECTION-ID (RFC 6062 section 6.2.1): names a peer data connection, on whichever shard it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u32);

impl ConnectionId {
    /// One that nobody can guess and that leads to `shard`; never 0. Of its 32 bits only as many are given to the number
    /// of the shard as that needs: it is the remainder of a division by how many shards there are.
    fn new(shard: ShardId, shards: u16, rng: &mut Rng) -> Self {
        let (shard, shards) = (u32::from(shard.0), u32::from(shards.max(1)));
        let multiple = 1 + rng.below((u32::MAX - shard) / shards);
        Self(multiple * shards + shard)
    }

    /// The shard that made it, if it was made by one of so many.
    pub(super) fn home(self, shards: u16) -> ShardId {
        ShardId((self.0 % u32::from(shards.max(1))) as u16)
    }
}

/// A peer data connection, from the wish for it to its end.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) allocation: Key,
    pub(super) peer: SocketAddr,
    pub(super) state: State,
    /// Its name in the shard; one that is to be dialled has none until it is.
    pub(super) conn: Option<ConnId>,
}

/// How far a peer data connection is.
#[derive(Debug)]
pub(super) enum State {
    /// It is being made; then the Connect request is answered in this form.
    Connecting(Box<Form>),
    /// The client may come for it until then.
    Waiting(Instant),
    /// It is joined to a client data connection.
    Bound,
}

/// All peer data connections of a shard.
#[derive(Debug)]
pub(super) struct Connections {
    shard: ShardId,
    shards: u16,
    made: Slab<Connection>,
    by_id: HashMap<ConnectionId, Key, RandomState>,
    by_conn: HashMap<ConnId, Key, RandomState>,
}

impl Connections {
    pub(super) fn new(shard: ShardId, shards: u16, rng: &mut Rng) -> Self {
        Self {
            shard,
            shards,
            made: Slab::new(),
            by_id: HashMap::with_hasher(rng.hasher()),
            by_conn: HashMap::with_hasher(rng.hasher()),
        }
    }

    /// Adds one, under a name that no other one has.
    pub(super) fn insert(&mut self, allocation: Key, peer: SocketAddr, state: State, rng: &mut Rng) -> Key {
        let mut id = ConnectionId::new(self.shard, self.shards, rng);
        while self.by_id.contains_key(&id) {
            id = ConnectionId::new(self.shard, self.shards, rng);
        }
        let key = self.made.insert(Connection {
            id,
            allocation,
            peer,
            state,
            conn: None,
        });
        self.by_id.insert(id, key);
        key
    }

    /// Tells which connection of the shard it is.
    pub(super) fn attach(&mut self, key: Key, conn: ConnId) {
        if let Some(made) = self.made.get_mut(key) {
            made.conn = Some(conn);
            self.by_conn.insert(conn, key);
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Connection> {
        let gone = self.made.remove(key)?;
        self.by_id.remove(&gone.id);
        if let Some(conn) = gone.conn {
            self.by_conn.remove(&conn);
        }
        Some(gone)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Connection> {
        self.made.get(key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.made.get_mut(key)
    }

    /// The one that a client names.
    pub(super) fn find(&self, id: ConnectionId) -> Option<Key> {
        self.by_id.get(&id).copied()
    }

    /// The one that a connection of the shard is.
    pub(super) fn of_conn(&self, conn: ConnId) -> Option<Key> {
        self.by_conn.get(&conn).copied()
    }

    /// Whether a name was made here, and if not, by whom.
    pub(super) fn home(&self, id: ConnectionId) -> Option<ShardId> {
        Some(id.home(self.shards)).filter(|home| *home != self.shard)
    }

    /// Those whose peer is like this.
    pub(super) fn keys_where(&self, is_meant: impl Fn(SocketAddr) -> bool) -> Vec<Key> {
        let meant = self.made.iter().filter(|(_, made)| is_meant(made.peer));
        meant.map(|(key, _)| key).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.made.len(), self.by_id.len());
        self.made.len().max(self.by_conn.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_home_and_cannot_be_guessed() {
        let mut rng = Rng::new([3; 32]);
        for shards in [1, 2, 3, 16, 64, u16::MAX] {
            for shard in [0, shards / 2, shards - 1] {
                let names: Vec<u32> = (0..1000)
                    .map(|_| ConnectionId::new(ShardId(shard), shards, &mut rng))
                    .inspect(|id| assert_eq!(id.home(shards), ShardId(shard)))
                    .map(|id| id.0)
                    .collect();
                assert!(!names.contains(&0));
                // Neither a counter nor small.
                let rising = names.windows(2).filter(|pair| pair[0] < pair[1]).count();
                assert!((400..600).contains(&rising), "{rising}");
                assert!(names.iter().any(|name| *name > u32::MAX / 2));
            }
        }
    }

    #[test]
    fn no_two_have_one_name() {
        let mut rng = Rng::new([3; 32]);
        // With so many shards a name has 65,537 forms only.
        let mut connections = Connections::new(ShardId(7), u16::MAX, &mut rng);
        let peer = SocketAddr::from(([192, 0, 2, 1], 80));
        let allocation = Key::from_parts(0, 0);
        for _ in 0..2000 {
            connections.insert(allocation, peer, State::Bound, &mut rng);
        }
        assert_eq!(connections.len(), 2000);
        for key in connections.keys_where(|_| true) {
            assert!(connections.remove(key).is_some());
        }
        assert_eq!(connections.len(), 0);
    }
}
