//! What do the clock, a CANCEL or a dead flow do to a transaction? The machine of `transaction.rs` decides, and here it
//! is carried out.

use core::{ops::Range, time::Duration};

use ahash::RandomState;

use super::{
    branch::{Branch, Kind},
    bridge::{Bridge, FlowId},
    check::{Detail, Rejection, Request, Response},
    flow::Owner,
    from_flow::RETRY_AFTER_SECS,
    local::{Answer, TopVia, hop_request},
    rewrite,
    transaction::{Cancel, Due, Method, ServerId, Side, State, Transaction},
};
use crate::{
    cx::Cx,
    slab::Key,
    time::Instant,
    wire::sip::{Framing, Message, via::MAGIC_COOKIE},
};

/// What a response is an answer to.
pub(super) enum Answered {
    /// The request of this transaction.
    Request(Key),
    /// Our CANCEL, which waits for nothing else.
    Cancel,
}

/// Transactions of one shard at once, those that only absorb repeats included.
const TRANSACTIONS_MAX: usize = 1 << 18;

/// Alarms of transactions go off at multiples of this, so that one wake-up serves many: a transaction has two on its
/// way, which at hundreds a second would cost as much as its messages. No timer of RFC 3261 minds being this much late.
const GRAIN: Duration = Duration::from_millis(50);

impl Bridge {
    /// The transaction that a branch of ours names.
    pub(super) fn transaction_of(&self, branch: &Branch) -> Option<Key> {
        self.branch_key(branch, Kind::Transaction)
            .filter(|key| self.transactions.get(*key).is_some())
    }

    /// What a response answers, unless that was asked of somebody else than who answers now.
    pub(super) fn answered(
        &mut self,
        response: &Response<'_>,
        is_asked: impl FnOnce(&Transaction) -> bool,
    ) -> Option<Answered> {
        let key = self.transaction_of(&response.branch)?;
        let transaction = self.transactions.get_mut(key).filter(|asked| is_asked(asked))?;
        if response.is_to_cancel(transaction.method) {
            transaction.cancel_answered();
            return Some(Answered::Cancel);
        }
        // RFC 3261 section 16.7, item 3: without another Via it was meant for us.
        let goes_on = response.goes_on || transaction.is_ours();
        let is_to_request = response.method.is_invite() == transaction.method.is_invite();
        (goes_on && is_to_request).then_some(Answered::Request(key))
    }

    /// A transaction as its sender knows it (RFC 3261 section 17.2.3). ACK and CANCEL have that of their INVITE.
    pub(super) fn server_id(&self, side: Side, request: &Request<'_>) -> ServerId {
        let method = match request.method {
            Method::Ack | Method::Cancel => &b"INVITE"[..],
            _ => request.method_text,
        };
        let via = &request.via;
        let half = |hasher: &RandomState| match via.branch() {
            Some(branch) if branch.len() > MAGIC_COOKIE.len() && branch.starts_with(MAGIC_COOKIE) => {
                hasher.hash_one((side == Side::Up, method, branch, via.host, via.port))
            }
            // A branch of RFC 2543 is unique to nothing.
            branch => hasher.hash_one((
                (side == Side::Up, method, branch, via.host, via.port),
                (request.uri, request.from.tag(), request.call_id, request.cseq),
            )),
        };
        let [high, low] = self.server_hashers.each_ref().map(half);
        ServerId(u128::from(high) << 64 | u128::from(low))
    }

    pub(super) fn server(&self, id: ServerId) -> Option<Key> {
        self.servers.get(&id).copied()
    }

    /// Whether one more transaction may begin.
    pub(super) fn has_room(&self) -> bool {
        self.transactions.len() < TRANSACTIONS_MAX
    }

    /// Takes a transaction in; the caller forwards its request.
    pub(super) fn begin(&mut self, mut transaction: Transaction) -> Key {
        self.begun += 1;
        transaction.serial = self.begun;
        let (server, flow) = (transaction.server, transaction.flow);
        let key = self.transactions.insert(transaction);
        self.servers.insert(server, key);
        self.enlist(flow, key);
        self.arm(key);
        key
    }

    /// Forgets a transaction.
    pub(super) fn end(&mut self, key: Key) {
        self.delist(key);
        if let Some(transaction) = self.transactions.remove(key)
            && self.servers.get(&transaction.server) == Some(&key)
        {
            self.servers.remove(&transaction.server);
        }
    }

    /// The request of a transaction leaves for the mediaserver, by TCP where that is due and can be had. `bytes` is the
    /// request, which the transaction has as well, with UDP in its Via.
    pub(super) fn depart(&mut self, cx: &mut Cx<'_>, key: Key, asks_stream: bool, bytes: Range<usize>) {
        let Some(transaction) = self.transactions.get(key) else {
            return;
        };
        let (trunk, to) = (transaction.trunk, transaction.remote);
        let by_stream = self.is_for_stream(cx, trunk, to, asks_stream, bytes.len());
        let overdue_at = cx.now.mono + self.sip().health.failover;
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        if by_stream {
            // RFC 3261 section 18.1.1: the Via names the transport that is used. Record-Route and Path stay as they are:
            // what comes back need not come by TCP.
            rewrite::set_transport(&mut transaction.request, rewrite::TCP);
            rewrite::set_transport(&mut cx.made[bytes.clone()], rewrite::TCP);
        }
        transaction.by_stream = by_stream;
        transaction.start(cx.now.mono);
        transaction.overdue_at(overdue_at);
        self.send_onward(cx, key, bytes);
        self.settle(key);
    }

    /// Puts a transaction on the list of a flow.
    pub(super) fn enlist(&mut self, flow: FlowId, key: Key) {
        let (Some(flow_entry), Some(transaction)) = (self.flows.get_mut(flow.0), self.transactions.get_mut(key)) else {
            return;
        };
        transaction.flow = flow;
        transaction.place = Some(flow_entry.transactions.len());
        flow_entry.transactions.push(key);
        transaction.counted = transaction.is_pending();
        flow_entry.pending += usize::from(transaction.counted);
    }

    /// Takes a transaction off the list of its flow.
    pub(super) fn delist(&mut self, key: Key) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let (Some(place), Some(flow)) = (transaction.place.take(), self.flows.get_mut(transaction.flow.0)) else {
            return;
        };
        flow.pending -= usize::from(core::mem::take(&mut transaction.counted));
        flow.transactions.swap_remove(place);
        if let Some(moved) = flow
            .transactions
            .get(place)
            .and_then(|moved| self.transactions.get_mut(*moved))
        {
            moved.place = Some(place);
        }
    }

    /// After a transaction changed: counts it and sets its alarm.
    pub(super) fn settle(&mut self, key: Key) {
        if let Some(transaction) = self.transactions.get_mut(key)
            && transaction.counted
            && !transaction.is_pending()
        {
            transaction.counted = false;
            if let Some(flow) = self.flows.get_mut(transaction.flow.0) {
                flow.pending -= 1;
            }
        }
        self.arm(key);
    }

    fn arm(&mut self, key: Key) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let wake = transaction.wake().round_up(GRAIN);
        // One alarm is enough; it is moved when it goes off, unless it would go off too late.
        if transaction.armed.is_none_or(|armed| wake < armed) {
            transaction.armed = Some(wake);
            self.timers.arm(wake, Owner::Transaction(key));
        }
    }

    pub(super) fn wake(&mut self, cx: &mut Cx<'_>, key: Key, at: Instant) {
        match self.transactions.get_mut(key) {
            Some(transaction) if transaction.armed == Some(at) => transaction.armed = None,
            _ => return,
        }
        while let Some(due) = self
            .transactions
            .get_mut(key)
            .and_then(|transaction| transaction.due(cx.now.mono))
        {
            self.carry_out(cx, key, due);
        }
        self.settle(key);
    }

    fn carry_out(&mut self, cx: &mut Cx<'_>, key: Key, due: Due) {
        match due {
            Due::Request => self.repeat(cx, key, |transaction| &transaction.request),
            Due::Response => self.repeat(cx, key, |transaction| &transaction.response),
            Due::Cancel => self.repeat(cx, key, |transaction| match &transaction.cancel {
                Cancel::Sent(bytes) => bytes,
                Cancel::None | Cancel::Wanted(_) => &[],
            }),
            Due::Trying => self.trying(cx, key),
            Due::RequestAndTrying => {
                self.repeat(cx, key, |transaction| &transaction.request);
                self.trying(cx, key);
            }
            Due::FailOver => self.overdue(cx, key),
            Due::GiveUp => self.send_cancel(cx, key, &[]),
            Due::Fail(status) => {
                let reason = match status {
                    408 => "Request Timeout",
                    _ => "Request Terminated",
                };
                self.fail(cx, key, status, reason);
            }
            Due::FlowFailed => {
                self.drop_held(key);
                let failed = self.flow_failed();
                self.fail(cx, key, failed.status, failed.reason);
            }
            Due::End => self.end(key),
        }
    }

    /// What a mediaserver is told of a browser that is not there.
    pub(super) fn flow_failed(&self) -> Rejection {
        match self.sip().policy.gone_status {
            // RFC 5626 section 11.1.
            430 => Rejection::new(430, "Flow Failed"),
            status => Rejection::new(status, "Temporarily Unavailable"),
        }
    }

    /// Sends something again, which happens over UDP only.
    fn repeat(&mut self, cx: &mut Cx<'_>, key: Key, what: impl Fn(&Transaction) -> &[u8]) {
        let Some(transaction) = self.transactions.get(key) else {
            return;
        };
        let bytes = what(transaction);
        if bytes.is_empty() {
            return;
        }
        let to = transaction.remote;
        let start = cx.made.len();
        cx.made.extend_from_slice(bytes);
        cx.stats.sip.retransmitted += 1;
        let end = cx.made.len();
        self.send_trunk(cx, to, start..end);
    }

    /// Says 100 to whoever waits for an answer.
    pub(super) fn trying(&mut self, cx: &mut Cx<'_>, key: Key) {
        self.answer_own(cx, key, 100, "Trying");
    }

    /// Answers a transaction with a final response of our own, instead of one that will not come.
    pub(super) fn fail(&mut self, cx: &mut Cx<'_>, key: Key, status: u16, reason: &'static str) {
        if !self.transactions.get(key).is_some_and(Transaction::is_pending) {
            return;
        }
        cx.stats.sip.refused += 1;
        self.answer_own(cx, key, status, reason);
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let is_heard = self.flows.get(transaction.flow.0).is_some();
        if transaction.side == Side::Up && !(is_heard && transaction.method.is_invite()) {
            // Nobody will repeat the request.
            self.end(key);
            return;
        }
        transaction.complete(cx.now.mono);
        transaction.request = Vec::new();
        self.settle(key);
    }

    fn answer_own(&mut self, cx: &mut Cx<'_>, key: Key, status: u16, reason: &str) {
        let detail = match status {
            503 => Detail::RetryAfter(RETRY_AFTER_SECS),
            _ => Detail::None,
        };
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let Some(message) = Message::read(&transaction.request, Framing::Datagram) else {
            return;
        };
        let answer = Answer {
            status,
            reason,
            detail,
            tag: transaction.server.0 as u64,
        };
        let start = cx.made.len();
        answer.write(&message, TopVia::Ours, cx.made);
        let bytes = start..cx.made.len();
        let (to, by_stream) = (transaction.remote, transaction.by_stream);
        match transaction.side {
            Side::Up => self.answer_browser(cx, key, status, bytes),
            Side::Down => {
                transaction.response.clear();
                transaction.response.extend_from_slice(&cx.made[bytes.clone()]);
                self.send_remote(cx, to, by_stream, bytes);
            }
        }
    }

    /// A response goes to the browser that asked. A refusal of an INVITE is kept until it is acknowledged, for one that is
    /// lost, or seems to be there and is not: nobody else would say it again.
    pub(super) fn answer_browser(&mut self, cx: &mut Cx<'_>, key: Key, status: u16, bytes: Range<usize>) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let flow = transaction.flow;
        let is_kept = transaction.method.is_invite() && status >= 300;
        if is_kept {
            transaction.response = cx.made[bytes.clone()].to_vec();
        }
        let is_lost = self.flows.get(flow.0).is_some_and(|flow| flow.conn.is_none());
        if !(is_kept && is_lost) {
            self.send_flow(cx, flow, bytes, None);
        }
    }

    /// Sends a CANCEL after the request of a transaction (RFC 3261 section 9.1). `reason` are whole fields.
    pub(super) fn send_cancel(&mut self, cx: &mut Cx<'_>, key: Key, reason: &[u8]) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let start = cx.made.len();
        if let Some(message) = Message::read(&transaction.request, Framing::Datagram) {
            hop_request(b"CANCEL", &message, None, reason, cx.made);
        }
        let bytes = start..cx.made.len();
        let kept = match transaction.side {
            Side::Up => cx.made[bytes.clone()].to_vec(),
            Side::Down => Vec::new(),
        };
        transaction.cancelled(cx.now.mono, kept);
        self.send_onward(cx, key, bytes);
        self.settle(key);
    }

    /// Sends the way that the request of a transaction went.
    pub(super) fn send_onward(&mut self, cx: &mut Cx<'_>, key: Key, bytes: Range<usize>) {
        let Some(transaction) = self.transactions.get(key) else {
            return;
        };
        match transaction.side {
            Side::Up => self.send_remote(cx, transaction.remote, transaction.by_stream, bytes),
            Side::Down => self.send_flow(cx, transaction.flow, bytes, None),
        }
    }

    /// What a flow that is gone leaves behind: requests to it fail, requests of its own are cancelled.
    pub(super) fn abandon(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(transaction) = self.transactions.get(key) else {
            return;
        };
        match transaction.side {
            Side::Down => {
                let failed = self.flow_failed();
                self.fail(cx, key, failed.status, failed.reason);
            }
            Side::Up if transaction.method == Method::Invite && transaction.is_pending() => {
                self.cancel(cx, key, &[]);
            }
            // Its answer has nowhere to go, but is waited for all the same: repeats of it must be absorbed.
            Side::Up => {}
        }
        self.delist(key);
    }

    /// Cancels the request of a transaction, now or as soon as that may be (RFC 3261 section 9.1).
    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>, key: Key, reason: &[u8]) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        match (transaction.state(), &transaction.cancel) {
            (State::Held, _) => {
                self.drop_held(key);
                self.fail(cx, key, 487, "Request Terminated");
            }
            (State::Trying, Cancel::None) => transaction.cancel = Cancel::Wanted(reason.into()),
            (State::Proceeding, Cancel::None) => self.send_cancel(cx, key, reason),
            _ => {}
        }
    }

    /// A transaction whose request waits for a lost flow is over: the request is not delivered any more.
    fn drop_held(&mut self, key: Key) {
        let Some(transaction) = self.transactions.get(key) else {
            return;
        };
        let Some(flow) = self.flows.get_mut(transaction.flow.0) else {
            return;
        };
        flow.held.retain(|held| held.request_of != Some(key));
        flow.held_bytes = flow.held.iter().map(|held| held.bytes.len()).sum();
    }

    /// After a response: a CANCEL may have waited for it.
    pub(super) fn after_response(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        transaction.trim();
        if let (State::Proceeding, Cancel::Wanted(reason)) = (transaction.state(), &mut transaction.cancel) {
            let reason = core::mem::take(reason);
            self.send_cancel(cx, key, &reason);
        }
        self.settle(key);
    }
}
