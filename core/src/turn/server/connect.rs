//! Which connections with peers may a client have, and how does it come by them? Connect, ConnectionAttempt,
//! ConnectionBind. (RFC 6062 section 5)

use core::{net::SocketAddr, time::Duration};

use super::{Ask, Server, refuse};
use crate::{
    action::{ConnId, Prefix, RelayId, Transport},
    cx::Cx,
    slab::Key,
    time::Instant,
    turn::{
        connections::{ConnectionId, State},
        reply::Form,
        request::Request,
        table::Client,
        verdict::{Payload, Verdict},
    },
    wire::stun::{Class, Code, Family, Header, Kind, Method, TransactionId, Writer},
};

/// How long a peer may take to answer.
// RFC 6062 section 5.2: "The timeout value MUST be at least 30 seconds."
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a peer data connection waits for its client.
// RFC 6062 sections 5.2 and 5.3: without a ConnectionBind request "after 30 seconds, the peer data connection MUST be
// closed".
pub const BIND_TIMEOUT: Duration = Duration::from_secs(30);

impl Server {
    /// Takes a Connect request; it is answered when the peer has, or has not.
    // RFC 6062 section 5.2.
    pub(super) fn connect(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        request: &Request<'_>,
        form: &Form,
    ) -> Result<(), Code> {
        let now = cx.now.mono;
        let Some(allocation) = self.table.allocations.get(key) else {
            return Err(Code::ALLOCATION_MISMATCH);
        };
        // There is an allocation, but none that this request could be about.
        if allocation.transport != Transport::Tcp {
            return Err(Code::ALLOCATION_MISMATCH);
        }
        let peer = self.policy.seen(request.peer()?);
        self.check_family(key, peer.ip(), now)?;
        let mut peers = allocation
            .connections
            .iter()
            .filter_map(|key| self.connections.get(*key));
        // One connection between two addresses is all that TCP knows, whoever began it.
        if peers.any(|made| made.peer == peer) {
            return Err(Code::CONNECTION_ALREADY_EXISTS);
        }
        let relayed = allocation
            .relayed(Family::of(peer.ip()), now)
            .ok_or(Code::PEER_ADDRESS_FAMILY_MISMATCH)?;
        // A connection with itself would be a mirror.
        if !self.policy.allows(peer) || allocation.addresses.contains(&Some(peer)) {
            return Err(Code::FORBIDDEN);
        }
        if !self.has_room(key) {
            return Err(Code::INSUFFICIENT_CAPACITY);
        }
        let from = self.socket_address(relayed.relay).ok_or(Code::ALLOCATION_MISMATCH)?;
        let state = State::Connecting(Box::new(form.clone()));
        let connection = self.open_connection(cx, key, peer, state);
        if let Some(connection) = self.connections.get(connection) {
            self.asks.push_back(Ask::Dial {
                connection: connection.id,
                from,
                to: self.policy.reached(peer),
            });
        }
        Ok(())
    }

    /// Takes the name of a connection that [`Ask::Dial`] asked for; `false` when nobody wants it any more.
    pub fn dialing(&mut self, connection: ConnectionId, conn: ConnId) -> bool {
        let found = self.connections.find(connection);
        found.inspect(|key| self.connections.attach(*key, conn)).is_some()
    }

    /// A dialled peer has answered: tells the client, which may come for the connection now.
    pub fn connected(&mut self, cx: &mut Cx<'_>, conn: ConnId) -> Verdict {
        let found = self.connections.of_conn(conn);
        let Some(connection) = found.and_then(|key| self.connections.get_mut(key)) else {
            return Verdict::NOTHING;
        };
        let waiting = State::Waiting(cx.now.mono + BIND_TIMEOUT);
        let State::Connecting(form) = core::mem::replace(&mut connection.state, waiting) else {
            return Verdict::NOTHING;
        };
        let Some(allocation) = self.table.allocations.get(connection.allocation) else {
            return Verdict::NOTHING;
        };
        let range = form.success(cx.made, |writer| writer.u32(Kind::CONNECTION_ID, connection.id.0));
        allocation.client.send(Prefix::NONE, Payload::Made(range))
    }

    /// A dialled peer has not answered in time, or not well.
    // RFC 6062 section 5.2: "If the connection attempt fails or times out, the server MUST return a 447".
    pub fn connect_failed(&mut self, cx: &mut Cx<'_>, conn: ConnId) -> Verdict {
        let Some(key) = self.connections.of_conn(conn) else {
            return Verdict::NOTHING;
        };
        let Some(connection) = self.forget_connection(key) else {
            return Verdict::NOTHING;
        };
        match (connection.state, self.table.allocations.get(connection.allocation)) {
            (State::Connecting(form), Some(allocation)) => {
                refuse(cx, &allocation.client, &form, Code::CONNECTION_TIMEOUT_OR_FAILURE)
            }
            _ => Verdict::NOTHING,
        }
    }

    /// A peer has connected to a relayed transport address: tells the client, or `None` when the connection is to be
    /// closed at once.
    // RFC 6062 section 5.3: "If no permission for this peer has been installed for this allocation, the server MUST close
    // the connection".
    pub fn attempt(&mut self, cx: &mut Cx<'_>, relay: RelayId, conn: ConnId, from: SocketAddr) -> Option<Verdict> {
        let (now, peer) = (cx.now.mono, self.policy.seen(from));
        let (key, allocation) = self.allocation_at(relay)?;
        let relayed = allocation.relayed(Family::of(peer.ip()), now)?;
        let is_wanted =
            relayed.relay == relay && allocation.pending.is_none() && self.may_exchange(cx, allocation, peer);
        if !is_wanted || !self.has_room(key) {
            cx.stats.turn.dropped += 1;
            return None;
        }
        let client = allocation.client;
        let connection = self.open_connection(cx, key, peer, State::Waiting(now + BIND_TIMEOUT));
        self.connections.attach(connection, conn);
        let id = self.connections.get(connection)?.id;
        let header = Header {
            class: Class::Indication,
            method: Method::CONNECTION_ATTEMPT,
            transaction: TransactionId(cx.rng.bytes()),
        };
        let mut writer = Writer::new(cx.made, header);
        writer.address(Kind::XOR_PEER_ADDRESS, peer);
        writer.u32(Kind::CONNECTION_ID, id.0);
        Some(client.send(Prefix::NONE, Payload::Made(writer.finish())))
    }

    /// Takes a ConnectionBind request of `user`; `slot` is what the 5-tuple has already.
    // RFC 6062 section 5.4.
    pub(super) fn connection_bind(
        &mut self,
        cx: &mut Cx<'_>,
        from: &Client,
        request: &Request<'_>,
        user: &[u8],
        form: &Form,
        slot: Option<Key>,
    ) -> Verdict {
        let Client::Stream { conn: client, .. } = *from else {
            return refuse(cx, from, form, Code::BAD_REQUEST);
        };
        // Who has an allocation on this connection needs it for messages.
        let Ok(id) = request.connection().and_then(|id| match slot {
            Some(_) => Err(Code::BAD_REQUEST),
            None => Ok(id),
        }) else {
            return refuse(cx, from, form, Code::BAD_REQUEST);
        };
        if let Some(home) = self.connections.home(id) {
            return Verdict::to_shard(home);
        }
        let Some(peer) = self.bindable(id, user, cx.now.mono) else {
            return refuse(cx, from, form, Code::BAD_REQUEST);
        };
        self.asks.push_back(Ask::Join { client, peer });
        let range = form.success(cx.made, |_| ());
        from.send(Prefix::NONE, Payload::Made(range))
    }

    /// Makes the connection that waits for this user under this name a bound one. Who asks for that of another learns
    /// no more than who asks for none.
    fn bindable(&mut self, id: ConnectionId, user: &[u8], now: Instant) -> Option<ConnId> {
        let connection = self.connections.get_mut(self.connections.find(id)?)?;
        let allocation = self.table.allocations.get(connection.allocation)?;
        let is_live = allocation.relayed(Family::of(connection.peer.ip()), now).is_some();
        let waits = matches!(connection.state, State::Waiting(until) if now < until);
        if !is_live || !waits || allocation.owner.name() != user {
            return None;
        }
        connection.state = State::Bound;
        connection.conn
    }

    /// Has a peer data connection closed.
    pub(super) fn cut(&mut self, key: Key) {
        if let Some(conn) = self.forget_connection(key).and_then(|connection| connection.conn) {
            self.asks.push_back(Ask::Cut(conn));
        }
    }

    /// Lets go of a peer data connection that is gone.
    pub(super) fn forget_connection(&mut self, key: Key) -> Option<super::Connection> {
        let connection = self.connections.remove(key)?;
        if let Some(allocation) = self.table.allocations.get_mut(connection.allocation) {
            allocation.connections.retain(|held| *held != key);
        }
        Some(connection)
    }

    fn open_connection(&mut self, cx: &mut Cx<'_>, allocation: Key, peer: SocketAddr, state: State) -> Key {
        let key = self.connections.insert(allocation, peer, state, cx.rng);
        if let Some(allocation) = self.table.allocations.get_mut(allocation) {
            allocation.connections.push(key);
        }
        key
    }

    /// Whether an allocation may have one more connection that nobody has come for.
    fn has_room(&self, allocation: Key) -> bool {
        let connections = self.table.allocations.get(allocation).map(|made| &made.connections);
        connections.is_some_and(|connections| {
            let states = connections.iter().filter_map(|key| self.connections.get(*key));
            let pending = states.filter(|made| !matches!(made.state, State::Bound)).count();
            connections.len() < self.limits.peer_connections_max && pending < self.limits.pending_peer_connections_max
        })
    }

    /// What the socket of a relayed transport address is bound to.
    fn socket_address(&self, relay: RelayId) -> Option<SocketAddr> {
        let relay = self.table.relays.get(relay.0)?;
        let pool = self.pools[relay.family as usize].as_ref()?;
        Some(SocketAddr::new(pool.relay.bind, relay.port))
    }
}
