//! What happens when a browser comes, goes, and comes back?

use core::{net::SocketAddr, ops::Range};

use super::{
    bridge::{Bridge, FlowId, Full, Opening, Out},
    check::Rejection,
    flow::{Flow, HELD_MAX, Held, Owner, Registration},
    ghosts::is_answer,
    token::{Identity, Token},
    trunk::TrunkId,
};
use crate::{
    action::ConnId,
    cx::Cx,
    slab::Key,
    time::Instant,
    wire::sip::{Framing, Message, uri::Uri},
};

impl Bridge {
    /// A WebSocket is open.
    ///
    /// # Errors
    /// When there are too many, or there is no such mediaserver.
    pub fn open(&mut self, opening: Opening) -> Result<FlowId, Full> {
        if self.flows.len() >= self.sip().limits.flows_max {
            return Err(Full);
        }
        let Opening {
            conn,
            mediaserver,
            peer,
            secure,
            subject,
        } = opening;
        let trunk = self.trunk_of(mediaserver).ok_or(Full)?;
        let id = self.admit_flow(Some(conn), trunk, peer, Identity::NONE);
        if let Some(flow) = self.flows.get_mut(id.0) {
            (flow.secure, flow.subject) = (secure, subject);
        }
        Ok(id)
    }

    fn admit_flow(&mut self, conn: Option<ConnId>, trunk: TrunkId, peer: SocketAddr, identity: Identity) -> FlowId {
        let (shard, epoch, mediaserver) = (self.shard, self.epoch, self.trunk(trunk).mark);
        let keys = &self.config.keys.flow;
        FlowId(self.flows.insert_with(|flow| {
            let token = Token {
                shard,
                epoch,
                flow,
                mediaserver,
                identity,
            };
            Flow::new(conn, trunk, peer, token.seal(keys))
        }))
    }

    /// A browser has said goodbye: it does not come back.
    pub fn leave(&mut self, cx: &mut Cx<'_>, flow: FlowId) {
        self.unregister_all(cx, flow);
        self.close(cx, flow);
    }

    /// A WebSocket was closed: the flow is gone, its transactions fail at once.
    pub fn close(&mut self, cx: &mut Cx<'_>, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id.0) else { return };
        flow.conn = None;
        let (trunk, transactions) = (flow.trunk, flow.transactions.clone());
        let held = core::mem::take(&mut flow.held);
        for key in transactions {
            self.abandon(cx, key);
        }
        self.forget(id);
        for Held { bytes, .. } in &held {
            if let Some(answer) = Message::read(bytes, Framing::Message).filter(is_answer) {
                self.hang_up(cx, (id, trunk, None), &answer);
            }
        }
    }

    /// Removes at the mediaserver what a flow has registered, where the configuration wants that, and nobody else has
    /// the same registration by now.
    fn unregister_all(&mut self, cx: &mut Cx<'_>, id: FlowId) {
        let Some(flow) = self.flows.get(id.0).filter(|_| self.sip().policy.unregister_gone) else {
            return;
        };
        let (trunk, registrations) = (flow.trunk, flow.registrations.clone());
        for registration in registrations {
            if self.identities.get(&registration.identity) == Some(&id) {
                self.unregister(cx, id, trunk, &registration);
            }
        }
    }

    /// A flow of an earlier run of this process, for whose dialog a mediaserver has something to say before its browser
    /// is back. Only a token that was signed then makes one, and only for as long as browsers may come back.
    pub(super) fn revive(&mut self, now: Instant, token: &Token) -> Option<FlowId> {
        let until = *self.revival_ends.get_or_insert(now + self.sip().limits.grace);
        let is_of_earlier_run = token.shard == self.shard && token.epoch != 0 && !self.is_current(token);
        let has_room = self.flows.len() < self.sip().limits.flows_max;
        if !is_of_earlier_run || !has_room || token.identity == Identity::NONE || until <= now {
            return None;
        }
        let trunk = self.trunk_marked(token.mediaserver)?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let id = self.admit_flow(None, trunk, nowhere, token.identity);
        let flow = self.flows.get_mut(id.0)?;
        flow.grace = Some(until);
        flow.register(Registration {
            identity: token.identity,
            alias: None,
            contact: Box::default(),
            register: None,
        });
        self.identities.insert(token.identity, id);
        self.timers.arm(until, Owner::Flow(id));
        Some(id)
    }

    /// A WebSocket broke without a word, as it does when a browser changes its network: the flow may come back for a
    /// while, by a REGISTER of the same user and contact on another WebSocket.
    pub fn lost(&mut self, cx: &mut Cx<'_>, flow: FlowId) {
        let until = cx.now.mono + self.sip().limits.grace;
        let Some(lost) = self.flows.get_mut(flow.0) else { return };
        // Whoever has nothing to come back to need not be waited for.
        if lost.registrations.is_empty() {
            self.close(cx, flow);
            return;
        }
        lost.conn = None;
        lost.grace = Some(until);
        let newer = lost.registrations.iter().find_map(|registration| {
            let newest = self.identities.get(&registration.identity);
            newest.copied().filter(|newest| *newest != flow)
        });
        match newer {
            Some(newer) => self.take_over(cx, flow, newer),
            None => self.timers.arm(until, Owner::Flow(flow)),
        }
    }

    /// The flow that a token leads to by now (RFC 5626 section 5.3): the one it was made for while that is connected,
    /// else the newest one that the same registration was accepted on.
    pub(super) fn resolve(&self, token: &Token) -> Option<FlowId> {
        let own = self.flows.get(token.flow).filter(|_| self.is_current(token));
        if own.is_some_and(|flow| flow.conn.is_some()) {
            return Some(FlowId(token.flow));
        }
        let newest = self.identities.get(&token.identity).copied();
        newest.or(own.map(|_| FlowId(token.flow)))
    }

    /// Sends to a browser, or keeps for when it is back. `request_of` is the transaction whose request this is.
    pub(super) fn send_flow(&mut self, cx: &mut Cx<'_>, id: FlowId, bytes: Range<usize>, request_of: Option<Key>) {
        let most = self.sip().limits.buffer_bytes_max;
        let Some(flow) = self.flows.get_mut(id.0) else { return };
        if let Some(conn) = flow.conn {
            cx.stats.sip.to_flows += 1;
            self.out.push_back(Out::Flow { conn, bytes });
            return;
        }
        if flow.held.len() >= HELD_MAX || flow.held_bytes + bytes.len() > most {
            cx.stats.sip.dropped += 1;
            return;
        }
        flow.held_bytes += bytes.len();
        flow.held.push_back(Held {
            request_of,
            bytes: cx.made[bytes].into(),
        });
    }

    /// Closes the WebSocket of a flow ourselves.
    pub(super) fn shut(&mut self, cx: &mut Cx<'_>, id: FlowId, code: u16, reason: &'static str) {
        if let Some(conn) = self.flows.get(id.0).and_then(|flow| flow.conn) {
            self.close(cx, id);
            self.out.push_back(Out::Close { conn, code, reason });
        }
    }

    /// The mediaserver has accepted on `new` what was registered on `old`. If `old` still lives, the browser has two
    /// windows, and each keeps its calls; if it only seems to, it is lost soon.
    pub(super) fn succeed(&mut self, cx: &mut Cx<'_>, old: FlowId, new: FlowId) {
        match self.flows.get(old.0).map(|flow| flow.conn) {
            Some(Some(conn)) => self.out.push_back(Out::Probe { conn }),
            Some(None) => self.take_over(cx, old, new),
            None => {}
        }
    }

    /// The user of the lost flow `old` has come back as `new`: what is under way goes on there.
    pub(super) fn take_over(&mut self, cx: &mut Cx<'_>, old: FlowId, new: FlowId) {
        let Some(flow) = self.flows.get_mut(old.0) else { return };
        tracing::debug!(lost = ?old, back = ?new, "a browser is back");
        let (held, mut transactions) = (core::mem::take(&mut flow.held), core::mem::take(&mut flow.transactions));
        // Requests of one dialog must not overtake each other.
        transactions.sort_by_key(|key| self.transactions.get(*key).map(|transaction| transaction.serial));
        for key in &transactions {
            self.enlist(new, *key);
        }
        self.forget(old);
        // What it may have missed while it only seemed to be there.
        for key in transactions {
            let Some(transaction) = self.transactions.get(key) else {
                continue;
            };
            if let Some(message) = transaction.to_be_told_again() {
                let start = cx.made.len();
                cx.made.extend_from_slice(message);
                let end = cx.made.len();
                self.send_flow(cx, new, start..end, None);
            } else if transaction.is_cancelled_below() {
                self.send_cancel(cx, key, &[]);
            } else if transaction.is_call_under_way() {
                self.trying(cx, key);
            }
        }
        for Held { request_of, bytes } in held {
            if let Some(transaction) = request_of.and_then(|key| self.transactions.get_mut(key)) {
                transaction.start(cx.now.mono);
            }
            let start = cx.made.len();
            cx.made.extend_from_slice(&bytes);
            let end = cx.made.len();
            self.send_flow(cx, new, start..end, request_of);
            if let Some(key) = request_of {
                self.settle(key);
            }
        }
    }

    fn forget(&mut self, id: FlowId) {
        let Some(flow) = self.flows.remove(id.0) else { return };
        for registration in flow.registrations {
            self.disown(registration.identity, id);
        }
    }

    /// A flow no longer has a registration.
    pub(super) fn disown(&mut self, identity: Identity, id: FlowId) {
        if self.identities.get(&identity) == Some(&id) {
            self.identities.remove(&identity);
        }
    }

    pub(super) fn give_up(&mut self, cx: &mut Cx<'_>, id: FlowId) {
        let lost = self
            .flows
            .get(id.0)
            .is_some_and(|flow| flow.grace.is_some_and(|until| until <= cx.now.mono));
        if lost {
            self.leave(cx, id);
        }
    }

    /// Whether a URI is ours, and the token in it.
    ///
    /// # Errors
    /// RFC 5626 section 5.3: 403 when it claims to be ours and is not.
    pub(super) fn own(&self, uri: &Uri<'_>) -> Result<Own, Rejection> {
        let Some(user) = uri.user else {
            return Ok(if self.names.are_at(uri) { Own::Plain } else { Own::No });
        };
        // A mediaserver may have put the address it sees us at in place of our host; the user part stays.
        if Token::claim(user).is_none() && !self.names.are_at(uri) {
            return Ok(Own::No);
        }
        let token = self.open_token(user).ok_or(Rejection::new(403, "Bad Flow Token"))?;
        Ok(Own::Token(token))
    }

    /// Reads a token of ours. Those of live flows are known by heart.
    fn open_token(&self, user: &[u8]) -> Option<Token> {
        let claim = Token::claim(user)?;
        let known = self.flows.get(claim.flow).is_some_and(|flow| flow.token.is(user));
        if known {
            Some(claim)
        } else {
            Token::open(user, &self.config.keys.flow)
        }
    }
}

/// Whether a URI is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    No,
    /// It leads to us, and no further.
    Plain,
    Token(Token),
}
