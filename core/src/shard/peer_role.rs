//! How do the connections of a TCP relay come about? Peers are dialled and taken in, clients come for them, and both
//! become one tunnel. (RFC 6062)

use core::{net::SocketAddr, time::Duration};

use crate::{
    action::{Action, ConnId, Egress, Endpoints, IoKind, Refused, RelayId},
    conn::{Conn, Side, Stage, Tunnel},
    shard::Shard,
    time::{Instant, Now},
    turn::{BIND_TIMEOUT, CONNECT_TIMEOUT, ConnectionId},
};

/// How long an end of a relay may be silent when the other end has said all it had to say.
// RFC 6062 section 5.5: who closes one connection has the other closed too. A peer that answers only when it has seen the
// end of the question still gets its answer through.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(30);

impl Shard {
    /// A peer has connected: somebody wants it, or it is not taken.
    pub(super) fn take_peer(
        &mut self,
        now: Now,
        on: RelayId,
        local: SocketAddr,
        peer: SocketAddr,
        out: &mut Egress,
    ) -> Result<ConnId, Refused> {
        let is_full = self.draining.is_some() || self.conns.len() >= self.config.server.connections_max;
        let turn = self.turn.as_mut().filter(|_| !is_full);
        let Some(turn) = turn else {
            self.stats.edge.refused += 1;
            return Err(Refused);
        };
        let id = ConnId(self.conns.insert(Conn::from_peer(local, peer)));
        let cx = &mut Self::cx(now, &mut self.rng, &mut self.stats, out);
        let Some(verdict) = turn.attempt(cx, on, id, peer) else {
            self.conns.remove(id.0);
            self.stats.edge.refused += 1;
            return Err(Refused);
        };
        self.stats.edge.accepted += 1;
        self.carry_made(verdict, out);
        self.set_deadline(id, Some(now.mono + BIND_TIMEOUT));
        self.list(id);
        Ok(id)
    }

    /// Connects to a peer from a relayed transport address.
    pub(super) fn dial_peer(
        &mut self,
        now: Now,
        connection: ConnectionId,
        from: SocketAddr,
        to: SocketAddr,
        out: &mut Egress,
    ) {
        let Some(turn) = &mut self.turn else { return };
        let is_full = self.conns.len() >= self.config.server.connections_max;
        let conn = ConnId(self.conns.insert(Conn::dialing(Stage::Peer, None)));
        if !turn.dialing(connection, conn) {
            self.conns.remove(conn.0);
        } else if is_full {
            self.peer_failed(now, conn, out);
        } else {
            self.set_deadline(conn, Some(now.mono + CONNECT_TIMEOUT));
            let from = Some(from);
            self.actions.push_back(Action::Dial { conn, from, to });
        }
    }

    /// A dialled peer has answered, or not.
    pub(super) fn peer_dialed(&mut self, now: Now, id: ConnId, result: Result<Endpoints, IoKind>, out: &mut Egress) {
        let (Some(conn), Some(turn)) = (self.conns.get_mut(id.0), &mut self.turn) else {
            return;
        };
        let connected = result
            .ok()
            .and_then(|ends| conn.connected(ends.local, &mut self.transcript).ok());
        if connected.is_none() {
            return self.peer_failed(now, id, out);
        }
        let verdict = turn.connected(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), id);
        self.carry_made(verdict, out);
        self.set_deadline(id, Some(now.mono + BIND_TIMEOUT));
        self.list(id);
    }

    /// Gives up a peer that has not answered, or that nobody has come for; a client that waits for an answer gets it.
    pub(super) fn peer_failed(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(turn) = &mut self.turn else { return };
        let verdict = turn.connect_failed(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), id);
        self.carry_made(verdict, out);
        self.close(now, id, out);
    }

    /// Makes one tunnel of a client's and a peer's connection. What has come already passes at once.
    pub(super) fn join(&mut self, now: Now, client: ConnId, peer: ConnId, out: &mut Egress) {
        for (end, other, side) in [(client, peer, Side::Client), (peer, client, Side::Peer)] {
            let Some(conn) = self.conns.get_mut(end.0) else {
                return self.close(now, other, out);
            };
            conn.stage = Stage::Tunnel(Box::new(Tunnel::relayed(other, side)));
            // A relay is as old as its allocation lets it become.
            self.set_deadline(end, None);
            self.list(end);
        }
        self.go_on(now, peer, out);
    }

    /// Charges bytes from an end of a relay; whether they have to wait, because the allocation has had its share.
    pub(super) fn relay_has_to_wait(&mut self, now: Now, id: ConnId, bytes: usize) -> bool {
        let (Some(turn), Some(conn)) = (&mut self.turn, self.conns.get_mut(id.0)) else {
            return false;
        };
        let Stage::Tunnel(tunnel) = &mut conn.stage else {
            return false;
        };
        let peer = match tunnel.relayed {
            Some(Side::Client) => tunnel.pair,
            Some(Side::Peer) => id,
            None => return false,
        };
        let Err(from) = turn.charge_connection(now, peer, bytes) else {
            return false;
        };
        self.stats.turn.limited += 1;
        tunnel.waits = true;
        self.set_deadline(id, Some(from));
        self.list(id);
        true
    }

    /// The allocation of a relay may pass bytes again.
    pub(super) fn relay_goes_on(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        if let Some(Stage::Tunnel(tunnel)) = self.conns.get_mut(id.0).map(|conn| &mut conn.stage) {
            tunnel.waits = false;
        }
        let idle = self.relay_deadline(now, id).flatten();
        self.set_deadline(id, idle);
        self.list(id);
        self.go_on(now, id, out);
    }

    /// Until when an end of a relay may be silent; `None` for what is no relay.
    pub(super) fn relay_deadline(&self, now: Now, id: ConnId) -> Option<Option<Instant>> {
        let Stage::Tunnel(tunnel) = &self.conns.get(id.0)?.stage else {
            return None;
        };
        tunnel.relayed?;
        let ends = [id, tunnel.pair].map(|end| self.conns.get(end.0).is_some_and(|conn| conn.ended));
        Some(ends.contains(&true).then_some(now.mono + HALF_CLOSED_IDLE))
    }
}
