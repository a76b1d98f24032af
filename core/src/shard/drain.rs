//! How does a shard end? It stops taking in, lets exchanges finish, says goodbye to WebSockets one after the other, lets
//! calls go on over its relays, and cuts the rest when time is up.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::{
    action::{Action, ConnId, Egress},
    conn::Stage,
    shard::Shard,
    time::{Instant, Now},
    turn::Server,
    ws::close_code,
};

/// Between two goodbyes at the most: a handful of clients need not wait.
const APART_MAX: Duration = Duration::from_millis(10);

/// Between two looks at what the end waits for.
const LOOK: Duration = Duration::from_millis(250);

/// An end that is under way.
#[derive(Debug)]
pub(super) struct Drain {
    deadline: Instant,
    /// WebSockets, in the order of their goodbyes.
    waiting: VecDeque<ConnId>,
    /// WebSockets whose turn has come, but not in the middle of a transaction.
    busy: Vec<ConnId>,
    /// Between two goodbyes, so that not all clients come back at once.
    apart: Duration,
    next_goodbye: Instant,
    next_look: Instant,
    is_done: bool,
}

impl Drain {
    /// When to look after it next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let goodbye = (!self.waiting.is_empty()).then_some(self.next_goodbye);
        let next = self.deadline.min(self.next_look);
        (!self.is_done).then_some(goodbye.map_or(next, |goodbye| goodbye.min(next)))
    }
}

impl Shard {
    pub(super) fn drain(&mut self, now: Now, deadline: Instant, out: &mut Egress) {
        if let Some(turn) = &mut self.turn {
            turn.drain();
        }
        let ids: Vec<ConnId> = self.conns.iter().map(|(key, _)| ConnId(key)).collect();
        let (waiting, others): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| self.is_websocket(*id));
        let window = self.config.server.drain.min(deadline.saturating_since(now.mono));
        let apart = u32::try_from(waiting.len()).map_or(Duration::ZERO, |count| window / count.max(1));
        self.draining = Some(Drain {
            deadline,
            waiting: waiting.into(),
            busy: Vec::new(),
            apart: apart.min(APART_MAX),
            next_goodbye: now.mono,
            next_look: now.mono,
            is_done: false,
        });
        for id in others {
            self.drain_one(now, id, out);
        }
        self.drain_timeout(now, out);
    }

    /// Goes on with the end of the shard.
    pub(super) fn drain_timeout(&mut self, now: Now, out: &mut Egress) {
        while let Some(drain) = &mut self.draining
            && drain.next_goodbye <= now.mono
            && let Some(id) = drain.waiting.pop_front()
        {
            drain.next_goodbye += drain.apart;
            self.say_goodbye(now, id, out);
        }
        let Some(drain) = &mut self.draining else { return };
        if drain.deadline <= now.mono {
            return self.cut(now, out);
        }
        if drain.next_look <= now.mono {
            drain.next_look = now.mono + LOOK;
            for id in core::mem::take(&mut drain.busy) {
                self.say_goodbye(now, id, out);
            }
            if !self.holds_drain(now) {
                self.cut(now, out);
            }
        }
    }

    /// Whether time is up.
    pub(super) fn is_cut(&self, now: Now) -> bool {
        self.draining.as_ref().is_some_and(|drain| drain.deadline <= now.mono)
    }

    /// The usual end: nothing is left.
    pub(super) fn check_drained(&mut self) {
        if self.conns.is_empty() && self.turn.as_ref().is_none_or(|turn| turn.allocations() == 0) {
            self.finish_drain();
        }
    }

    /// Whether it is a WebSocket, by that end which may say something itself.
    fn is_websocket(&self, id: ConnId) -> bool {
        match self.conns.get(id.0).map(|conn| &conn.stage) {
            Some(Stage::Sip(_)) => true,
            Some(Stage::Tunnel(tunnel)) => tunnel.frames.is_some(),
            _ => false,
        }
    }

    /// Asks a connection to end that is no WebSocket, in the way of its protocol.
    fn drain_one(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.get(id.0) else { return };
        match &conn.stage {
            Stage::Http(_) => self.drain_browser(now, id, out),
            Stage::Proxied(_) | Stage::Sniff(_) | Stage::Peer | Stage::Opening(_) => self.close(now, id, out),
            // Ends with the exchange that it serves.
            Stage::Upstream(_) => self.drain_upstream(now, id, out),
            // A call may go over it.
            Stage::Turn(_) if self.turn.as_ref().is_some_and(|turn| turn.has_allocation(id)) => {}
            Stage::Turn(_) => self.close(now, id, out),
            // The other end of a WebSocket goes with it, and a TCP relay with its allocation.
            Stage::Sip(_) | Stage::Tunnel(_) => {}
            // Carries what WebSockets have to say to the last.
            Stage::Trunk(_) => {}
        }
    }

    /// Ends a WebSocket, but one for SIP not while a transaction waits for its answer.
    fn say_goodbye(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.get(id.0) else { return };
        match (&conn.stage, &mut self.draining) {
            (Stage::Sip(socket), Some(drain)) if self.sip.as_ref().is_some_and(|sip| sip.is_busy(socket.flow)) => {
                drain.busy.push(id);
            }
            (Stage::Sip(_), _) => self.close_websocket(now, id, close_code::SERVICE_RESTART, "the edge restarts", out),
            _ => self.drain_tunnel(now, id, out),
        }
    }

    /// Whether something is left that is worth waiting for. An allocation is, as long as it has anybody to talk to: a
    /// client asks for that when a call begins, and lets its allocation go when the call ends.
    fn holds_drain(&self, now: Now) -> bool {
        let is_call = |turn: &Server| turn.is_in_use(now.mono);
        self.conns
            .iter()
            .any(|(_, conn)| !matches!(conn.stage, Stage::Turn(_) | Stage::Trunk(_)))
            || self.turn.as_ref().is_some_and(is_call)
    }

    /// Closes what is left. Allocations over UDP have nobody to be told.
    fn cut(&mut self, now: Now, out: &mut Egress) {
        let ids: Vec<ConnId> = self.conns.iter().map(|(key, _)| ConnId(key)).collect();
        for id in ids {
            match self.conns.get(id.0).map(|conn| &conn.stage) {
                Some(Stage::Sip(_)) => {
                    self.close_websocket(now, id, close_code::SERVICE_RESTART, "the edge restarts", out);
                }
                Some(Stage::Tunnel(_)) => self.drain_tunnel(now, id, out),
                _ => {}
            }
            self.close(now, id, out);
        }
        self.finish_drain();
    }

    fn finish_drain(&mut self) {
        if let Some(drain) = &mut self.draining
            && !core::mem::replace(&mut drain.is_done, true)
        {
            self.actions.push_back(Action::Drained);
        }
    }
}
