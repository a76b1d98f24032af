//! How does a shard end? It stops taking in, says goodbye to WebSockets, lets exchanges finish, and cuts the rest when
//! time is up.

use crate::{
    action::{Action, ConnId, Egress},
    conn::Stage,
    shard::Shard,
    time::{Instant, Now},
    ws::close_code,
};

impl Shard {
    pub(super) fn drain(&mut self, now: Now, deadline: Instant, out: &mut Egress) {
        self.draining = Some(deadline);
        if let Some(turn) = &mut self.turn {
            turn.drain();
        }
        let ids: Vec<ConnId> = self.conns.iter().map(|(key, _)| ConnId(key)).collect();
        for id in ids {
            self.drain_one(now, id, out);
        }
    }

    /// Asks one connection to end, each in the way of its protocol.
    fn drain_one(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        match &mut conn.stage {
            Stage::Sip(_) => self.close_websocket(now, id, close_code::GOING_AWAY, "the edge is going away", out),
            Stage::Http(_) => self.drain_browser(now, id, out),
            Stage::Tunnel(_) => self.drain_tunnel(now, id, out),
            Stage::Proxied(_)
            | Stage::Sniff(_)
            | Stage::Peer
            | Stage::Opening(_)
            | Stage::Trunk(_)
            | Stage::Turn(_) => {
                self.close(now, id, out);
            }
            // Ends with the exchange that it serves.
            Stage::Upstream(_) => self.drain_upstream(now, id, out),
        }
    }

    pub(super) fn drain_timeout(&mut self, now: Now, out: &mut Egress) {
        if self.draining.is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        let ids: Vec<ConnId> = self.conns.iter().map(|(key, _)| ConnId(key)).collect();
        for id in ids {
            self.close(now, id, out);
        }
        self.finish_drain();
    }

    /// A drain is over when no connection is left. Allocations over UDP do not hold it up: their clients notice by
    /// themselves, and would hold it for minutes.
    pub(super) fn check_drained(&mut self) {
        if self.draining.is_some() && self.conns.is_empty() {
            self.finish_drain();
        }
    }

    fn finish_drain(&mut self) {
        if !core::mem::replace(&mut self.drained, true) {
            self.actions.push_back(Action::Drained);
        }
    }
}
