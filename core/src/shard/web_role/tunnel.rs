//! How do bytes pass through a WebSocket that is not ours, or a TCP relay? As they are; a WebSocket gets a goodbye between
//! two frames at the end.

use crate::{
    action::{ConnId, Egress},
    conn::{Conn, Side, Stage, Tunnel},
    shard::{Shard, Step},
    time::{Instant, Now},
    ws::{self, close_code},
};

impl Shard {
    pub(in crate::shard) fn through_tunnel(&mut self, now: Now, id: ConnId, bytes: &[u8], out: &mut Egress) -> Step {
        if bytes.is_empty() || self.is_held_up(id) {
            return Step::Wait;
        }
        let idle = match self.relay_deadline(now, id) {
            Some(deadline) => deadline,
            None => self.http_deadline(now, |limits| limits.tunnel_idle),
        };
        if self.relay_has_to_wait(now, id, bytes.len()) {
            return Step::Wait;
        }
        let Some(Stage::Tunnel(tunnel)) = self.conns.get_mut(id.0).map(|conn| &mut conn.stage) else {
            return Step::Gone;
        };
        if let Some(frames) = &mut tunnel.frames {
            frames.pass(bytes);
        }
        match tunnel.relayed {
            Some(Side::Client) => self.stats.turn.to_peer_bytes += bytes.len() as u64,
            Some(Side::Peer) => self.stats.turn.to_client_bytes += bytes.len() as u64,
            None => {}
        }
        if let Some(exchange) = &mut tunnel.exchange {
            exchange.access.received_bytes += bytes.len() as u64;
        }
        let (pair, ends) = (
            tunnel.pair,
            tunnel.is_ending && tunnel.frames.is_some_and(|f| f.is_between_frames()),
        );
        if let Some(conn) = self.conns.get_mut(pair.0) {
            conn.out().extend_from_slice(bytes);
            if let Stage::Tunnel(other) = &mut conn.stage
                && let Some(exchange) = &mut other.exchange
            {
                exchange.access.sent_bytes += bytes.len() as u64;
            }
        }
        self.list(pair);
        self.set_idle_deadline(id, idle);
        self.set_idle_deadline(pair, idle);
        if ends {
            self.end_tunnel(now, id, pair, out);
            return Step::Gone;
        }
        Step::Used(bytes.len())
    }

    /// One end sends no more; the other is told so, and may go on.
    pub(in crate::shard) fn tunnel_ended(&mut self, now: Now, id: ConnId) {
        let Some(pair) = self.conns.get(id.0).and_then(|conn| conn.stage.pair()) else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(pair.0) {
            conn.shut_when_written();
        }
        if let Some(deadline) = self.relay_deadline(now, pair) {
            self.set_idle_deadline(pair, deadline);
        }
        self.list(pair);
        self.list(id);
    }

    /// Until when an end may be silent. One that waits for its share is woken before, and given this deadline then.
    fn set_idle_deadline(&mut self, id: ConnId, at: Option<Instant>) {
        let waits = |conn: &Conn| matches!(&conn.stage, Stage::Tunnel(tunnel) if tunnel.waits);
        if !self.conns.get(id.0).is_some_and(waits) {
            self.set_deadline(id, at);
        }
    }

    /// One end is gone, so the other goes too.
    pub(in crate::shard) fn tunnel_gone(&mut self, now: Now, id: ConnId, tunnel: &Tunnel, out: &mut Egress) {
        if let Some((config, index)) = &tunnel.counted {
            self.leave(config, *index);
        }
        self.close(now, tunnel.pair, out);
        if tunnel.relayed.is_some() {
            self.turn_stream_gone(now, id, out);
        }
    }

    /// Ends a tunnel in an orderly way: at once between two frames, else after the one on its way.
    pub(in crate::shard) fn drain_tunnel(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(Stage::Tunnel(tunnel)) = self.conns.get_mut(id.0).map(|conn| &mut conn.stage) else {
            return;
        };
        let Some(frames) = tunnel.frames else { return };
        let pair = tunnel.pair;
        tunnel.is_ending = true;
        if frames.is_between_frames() {
            self.end_tunnel(now, id, pair, out);
        }
    }

    fn end_tunnel(&mut self, now: Now, upstream: ConnId, browser: ConnId, out: &mut Egress) {
        if let Some(conn) = self.conns.get_mut(browser.0) {
            ws::Conn::new(0).close(close_code::GOING_AWAY, "the edge is going away", conn.out());
        }
        self.close(now, browser, out);
        self.close(now, upstream, out);
    }
}
