//! When does an allocation end, and what becomes of what it had? (RFC 8656 sections 6 and 8)

use core::time::Duration;

use super::{Ask, Server};
use crate::{
    action::{ConnId, RelayId},
    cx::Cx,
    slab::Key,
    time::Instant,
    turn::table::{Allocation, Relay},
    wire::stun::Family,
};

/// Looking for what has expired: a little at a time, round and round.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// When to look next; `None` while there is nothing to look at.
    at: Option<Instant>,
    /// The slot to go on with.
    slot: usize,
}

impl Sweep {
    /// Between two looks.
    const INTERVAL: Duration = Duration::from_secs(1);
    /// Slots looked at in one go.
    const SLOTS: usize = 2048;

    /// There is something to look at.
    pub(super) fn start(&mut self, now: Instant) {
        self.at.get_or_insert(now + Self::INTERVAL);
    }
}

impl Server {
    /// Takes notice that a connection is gone: a client's, and its allocation with it, or a peer's.
    pub fn closed(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(key) = self.table.find_stream(conn) {
            if !self.goes_on_without(key, conn) {
                self.release(cx, key);
            }
        } else if let Some(key) = self.connections.of_conn(conn) {
            self.forget_connection(key);
        }
    }

    /// When [`Server::timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sweep.at
    }

    /// Lets go of what has expired. Whether that happens early or late, nothing that has expired is ever used.
    pub fn timeout(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        if self.sweep.at.is_none_or(|at| now < at) {
            return;
        }
        let slots = self.sweep.slot..(self.sweep.slot + Sweep::SLOTS).min(self.table.allocations.slots());
        self.sweep.slot = if slots.end < self.table.allocations.slots() {
            slots.end
        } else {
            0
        };
        let mut expired = Vec::new();
        for (key, allocation) in self.table.allocations.range_mut(slots) {
            allocation.peers.sweep(now);
            if Family::ALL.iter().any(|family| allocation.has_expired(*family, now)) {
                expired.push(key);
            }
        }
        for key in expired {
            self.expire(cx, key);
        }
        while let Some(reservation) = self.reservations.front()
            && reservation.expires <= now
        {
            self.forget_reservation(now, reservation.token);
        }
        for person in self.roaming.forwards.sweep(now) {
            self.table.count_down(&person);
        }
        let idle =
            self.table.allocations.is_empty() && self.reservations.is_empty() && self.roaming.forwards.is_empty();
        self.sweep.at = (!idle).then_some(now + Sweep::INTERVAL);
    }

    /// Lets go of what has expired of an allocation, and says whether anything is left of it.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>, key: Key) -> bool {
        let now = cx.now.mono;
        let Some(allocation) = self.table.allocations.get(key) else {
            return false;
        };
        for family in Family::ALL.map(|family| allocation.has_expired(family, now).then_some(family)) {
            family.inspect(|family| self.release_family(now, key, *family));
        }
        let live = self.table.allocations.get(key).is_some_and(Allocation::is_live);
        if !live {
            self.release(cx, key);
        }
        live
    }

    /// Ends an allocation.
    pub(super) fn release(&mut self, cx: &mut Cx<'_>, key: Key) {
        self.forget_next(key);
        let Some(allocation) = self.table.remove(key) else {
            return;
        };
        let now = cx.now.mono;
        for connection in allocation.connections {
            self.cut(connection);
        }
        for relayed in allocation.relayed.into_iter().flatten() {
            self.close(now, relayed.relay);
        }
        self.table.count_down(allocation.owner.person());
        if allocation.pending.is_none() {
            cx.stats.turn.released += 1;
            tracing::debug!(client = %allocation.client.source(), "allocation ended");
        } else if let Some(token) = allocation.token {
            self.forget_reservation(now, token);
        }
    }

    /// Ends one relayed transport address of an allocation.
    // RFC 8656 section 8.1: this "destroys any permissions or channels associated with that particular allocation", and
    // none of the other family.
    pub(super) fn release_family(&mut self, now: Instant, key: Key, family: Family) {
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return;
        };
        allocation.peers.forget(family);
        let connections = allocation.connections.clone();
        if let Some(relayed) = allocation.relayed[family as usize].take() {
            self.close(now, relayed.relay);
        }
        for connection in connections {
            if self
                .connections
                .get(connection)
                .is_some_and(|made| Family::of(made.peer.ip()) == family)
            {
                self.cut(connection);
            }
        }
    }

    /// Has a bound socket closed.
    pub(super) fn close(&mut self, now: Instant, relay: RelayId) {
        self.discard(now, relay);
        self.asks.push_back(Ask::Close(relay));
    }

    /// Lets go of a socket that is not there any more.
    pub(super) fn discard(&mut self, now: Instant, relay: RelayId) {
        if let Some(Relay { family, port, .. }) = self.table.relays.remove(relay.0) {
            if let Some(pool) = &mut self.pools[family as usize]
                && pool.bound.get(&port) == Some(&relay)
            {
                pool.bound.remove(&port);
            }
            self.give_back(now, family, port);
        }
    }

    fn give_back(&mut self, now: Instant, family: Family, port: u16) {
        if let Some(pool) = &mut self.pools[family as usize] {
            pool.ports.give_back(port, now);
        }
    }

    /// Lets go of a held port that nobody came for.
    pub(super) fn forget_reservation(&mut self, now: Instant, token: [u8; 8]) {
        let place = self
            .reservations
            .iter()
            .position(|reservation| reservation.token == token);
        if let Some(reservation) = place.and_then(|place| self.reservations.remove(place)) {
            self.table.count_down(reservation.owner.person());
            self.give_back(now, reservation.family, reservation.port);
        }
    }
}
