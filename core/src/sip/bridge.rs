//! Who holds the strings of the bridge? Flows, transactions, timers and what is to be sent; the messages themselves are
//! handled in `from_flow` and `from_trunk`.

use alloc::{collections::VecDeque, sync::Arc};
use core::{net::SocketAddr, ops::Range};
use std::collections::HashMap;

use ahash::RandomState;
use arrayvec::ArrayVec;

use super::{
    branch::{BRANCH_LEN, Branch, Kind},
    check::{Detail, Request},
    flow::{Flow, GRACE, HELD_MAX, HOLD, Held, Owner},
    home,
    limit::{Buckets, Locks},
    local::{Answer, TopVia, hop_request},
    names::Names,
    token::{Identity, Token, TokenText},
    transaction::{Cancel, Due, Method, ServerId, Side, State, Transaction},
    trunk::{self, Health},
};
use crate::{
    action::{ConnId, IoKind, ShardId},
    config::{Config, Sip},
    cx::Cx,
    rng::Rng,
    slab::{Key, Slab},
    time::Instant,
    timers::Timers,
    wire::sip::{Framing, Message, Splices, via::MAGIC_COOKIE},
};

/// Transactions of one shard at once, those that only absorb repeats included.
const TRANSACTIONS_MAX: usize = 1 << 18;
/// The largest UDP payload over IPv4.
pub(super) const DATAGRAM_MAX: usize = 65_507;
/// What fits one Ethernet frame, with the headers of IPv4 and UDP.
const UNFRAGMENTED_MAX: usize = 1472;

/// A browser, by its WebSocket; outlives a lost WebSocket for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub Key);

/// A WebSocket whose subprotocol is SIP.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The WebSocket.
    pub conn: ConnId,
    /// The mediaserver of its path, by its place in [`Sip::mediaservers`].
    pub mediaserver: usize,
    /// The browser's address.
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The user that the token of the WebSocket's URL names, if it can be read.
    pub subject: Option<String>,
}

/// There are as many flows as the configuration allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Something to send. The bytes are a range of [`Cx::made`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// One WebSocket message.
    Flow {
        /// The WebSocket.
        conn: ConnId,
        /// The message.
        bytes: Range<usize>,
    },
    /// One datagram from the SIP socket.
    Trunk {
        /// Where to.
        to: SocketAddr,
        /// The datagram.
        bytes: Range<usize>,
    },
    /// Ping a WebSocket whose user has come back on another one: if it does not answer within seconds, it is
    /// [lost](Bridge::lost).
    Probe {
        /// The WebSocket.
        conn: ConnId,
    },
    /// Close a WebSocket; its flow is closed already.
    Close {
        /// The WebSocket.
        conn: ConnId,
        /// RFC 6455 section 7.4.1.
        code: u16,
        /// For the close frame.
        reason: &'static str,
    },
}

/// SIP over WebSocket on one side, SIP over UDP on the other.
///
/// Every call may leave something in [`Bridge::poll_out`], which the caller takes before it clears [`Cx::made`].
#[derive(Debug)]
pub struct Bridge {
    pub(super) config: Arc<Config>,
    pub(super) names: Names,
    shard: ShardId,
    shards: u16,
    /// Tells this run's flows and branches from those before it.
    epoch: u32,
    pub(super) flows: Slab<Flow>,
    pub(super) transactions: Slab<Transaction>,
    /// Transactions as those know them who sent their requests.
    servers: HashMap<ServerId, Key, RandomState>,
    server_hashers: [RandomState; 2],
    /// The newest flow on which a registration was accepted.
    pub(super) identities: HashMap<Identity, FlowId, RandomState>,
    pub(super) health: Vec<Health>,
    pub(super) locks: Locks,
    /// How many transactions have begun.
    begun: u64,
    timers: Timers<Owner>,
    out: VecDeque<Out>,
    pub(super) splices: Splices,
    /// Parameters of the Via that a request came with, as they go on.
    pub(super) stamped: Vec<u8>,
}

impl Bridge {
    /// A bridge without flows, for shard number `shard` of `shards`.
    ///
    /// # Panics
    /// When the configuration has no sip role.
    pub fn new(config: Arc<Config>, shard: ShardId, shards: u16, rng: &mut Rng) -> Self {
        let sip = config.sip.as_ref().expect("the sip role is configured");
        let names = Names::new(sip);
        let health = sip.mediaservers.iter().map(|_| Health::default()).collect();
        Self {
            names,
            shard,
            shards,
            epoch: rng.u32(),
            flows: Slab::new(),
            transactions: Slab::new(),
            servers: HashMap::with_hasher(rng.hasher()),
            server_hashers: [rng.hasher(), rng.hasher()],
            identities: HashMap::with_hasher(rng.hasher()),
            health,
            locks: Locks::new(rng.hasher()),
            begun: 0,
            timers: Timers::new(),
            out: VecDeque::new(),
            splices: Splices::new(),
            stamped: Vec::new(),
            config,
        }
    }

    /// A WebSocket is open.
    ///
    /// # Errors
    /// When there are too many.
    pub fn open(&mut self, cx: &mut Cx<'_>, opening: Opening) -> Result<FlowId, Full> {
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
        self.watch(cx, mediaserver);
        let key = self.flows.insert_with(|key| Flow {
            conn: Some(conn),
            mediaserver,
            peer,
            secure,
            subject,
            address_of_record: None,
            token: Token {
                shard: self.shard,
                epoch: self.epoch,
                flow: key,
                mediaserver: mediaserver as u16,
                identity: Identity::NONE,
            }
            .seal(&self.config.keys.flow),
            registrations: ArrayVec::new(),
            transactions: Vec::new(),
            pending: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            grace: None,
            buckets: Buckets::default(),
            faults: 0,
        });
        Ok(FlowId(key))
    }

    /// A WebSocket was closed by whoever is at its other end: the flow is gone, its transactions fail at once.
    pub fn close(&mut self, cx: &mut Cx<'_>, flow: FlowId) {
        let Some(transactions) = self.flows.get(flow.0).map(|flow| flow.transactions.clone()) else {
            return;
        };
        if let Some(flow) = self.flows.get_mut(flow.0) {
            flow.conn = None;
        }
        for key in transactions {
            self.abandon(cx, key);
        }
        self.forget(flow);
    }

    /// A WebSocket broke without a word, as it does when a browser changes its network: the flow may come back for a
    /// while, by a REGISTER of the same user and contact on another WebSocket.
    pub fn lost(&mut self, cx: &mut Cx<'_>, flow: FlowId) {
        let Some(lost) = self.flows.get_mut(flow.0) else { return };
        // Whoever has nothing to come back to need not be waited for.
        if lost.registrations.is_empty() {
            self.close(cx, flow);
            return;
        }
        let until = cx.now.mono + GRACE;
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

    /// A datagram could not be delivered: requests that wait for a first answer fail with 503 (RFC 3261 section 16.9).
    pub fn trunk_error(&mut self, cx: &mut Cx<'_>, to: SocketAddr, kind: IoKind) {
        let Some(mediaserver) = self.mediaserver_at(to) else {
            return;
        };
        if kind == IoKind::MessageSize {
            return;
        }
        let health = &mut self.health[mediaserver];
        if health.suspect_until.is_some_and(|until| cx.now.mono < until) {
            return;
        }
        health.suspect_until = Some(cx.now.mono + trunk::SUSPECT);
        let waiting: Vec<Key> = self
            .transactions
            .iter()
            .filter(|(_, transaction)| transaction.mediaserver == mediaserver && transaction.is_unanswered())
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            self.fail(cx, key, 503, "Service Unavailable");
        }
    }

    /// When the clock must be shown to it at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn timeout(&mut self, cx: &mut Cx<'_>) {
        while let Some((at, owner)) = self.timers.pop_due(cx.now.mono) {
            match owner {
                Owner::Transaction(key) => self.wake(cx, key, at),
                Owner::Flow(flow) => self.give_up(cx, flow),
                Owner::Mediaserver(index) => self.ping(cx, index),
            }
        }
    }

    /// The next thing to send.
    pub fn poll_out(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// The shard that a datagram of a mediaserver belongs to; `None` when it is this one, or nobody in particular.
    pub fn home(&self, datagram: &[u8]) -> Option<ShardId> {
        home::home(datagram).filter(|shard| *shard != self.shard && shard.0 < self.shards)
    }

    /// How many flows there are, lost ones included.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// How many transactions there are, those that only absorb repeats included.
    pub fn transactions(&self) -> usize {
        self.transactions.len()
    }

    /// Whether a mediaserver answers, as far as is known; a WebSocket for one that does not had better be refused.
    pub fn is_available(&self, mediaserver: usize) -> bool {
        self.health.get(mediaserver).is_some_and(Health::is_up)
    }

    pub(super) fn sip(&self) -> &Sip {
        self.config.sip.as_ref().expect("the sip role is configured")
    }

    /// Which mediaserver has this address. There are a handful.
    pub(super) fn mediaserver_at(&self, address: SocketAddr) -> Option<usize> {
        self.sip()
            .mediaservers
            .iter()
            .position(|mediaserver| mediaserver.address == address)
    }

    pub(super) fn address_of(&self, mediaserver: usize) -> SocketAddr {
        self.sip().mediaservers[mediaserver].address
    }

    pub(super) fn token(&self, flow: Key, mediaserver: usize, identity: Identity) -> TokenText {
        Token {
            shard: self.shard,
            epoch: self.epoch,
            flow,
            mediaserver: mediaserver as u16,
            identity,
        }
        .seal(&self.config.keys.flow)
    }

    /// The flow that a token leads to by now (RFC 5626 section 5.3): the one it was made for while that is connected,
    /// else the newest one that the same registration was accepted on.
    pub(super) fn resolve(&self, token: &Token) -> Option<FlowId> {
        let ours = token.shard == self.shard && token.epoch == self.epoch;
        let own = self.flows.get(token.flow).filter(|_| ours);
        if own.is_some_and(|flow| flow.conn.is_some()) {
            return Some(FlowId(token.flow));
        }
        let newest = self.identities.get(&token.identity).copied();
        newest.or(own.map(|_| FlowId(token.flow)))
    }

    pub(super) fn branch(&self, kind: Kind, key: Key) -> [u8; BRANCH_LEN] {
        Branch {
            shard: self.shard,
            epoch: self.epoch,
            kind,
            key,
        }
        .write()
    }

    /// The transaction that a branch of ours names.
    pub(super) fn transaction_of(&self, branch: &Branch) -> Option<Key> {
        let ours = branch.shard == self.shard && branch.epoch == self.epoch && branch.kind == Kind::Transaction;
        (ours && self.transactions.get(branch.key).is_some()).then_some(branch.key)
    }

    /// The number of a ping that a branch of ours names, and the mediaserver.
    pub(super) fn ping_of(&self, branch: &Branch) -> Option<(usize, u32)> {
        let ours = branch.shard == self.shard && branch.epoch == self.epoch && branch.kind == Kind::Ping;
        ours.then(|| (branch.key.index() as usize, branch.key.generation()))
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

    /// A number for the same thing each time, which nobody else can tell.
    pub(super) fn hash(&self, what: &impl core::hash::Hash) -> u64 {
        self.server_hashers[0].hash_one(what)
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
        let Some(transaction) = self.transactions.remove(key) else {
            return;
        };
        if self.servers.get(&transaction.server) == Some(&key) {
            self.servers.remove(&transaction.server);
        }
    }

    /// Puts a transaction on the list of a flow.
    fn enlist(&mut self, flow: FlowId, key: Key) {
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
    fn delist(&mut self, key: Key) {
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
        let wake = transaction.wake();
        // One alarm is enough; it is moved when it goes off, unless it would go off too late.
        if transaction.armed.is_none_or(|armed| wake < armed) {
            transaction.armed = Some(wake);
            self.timers.arm(wake, Owner::Transaction(key));
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, key: Key, at: Instant) {
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
            Due::GiveUp => self.send_cancel(cx, key, &[]),
            Due::Fail(status) => {
                let reason = match status {
                    408 => "Request Timeout",
                    487 => "Request Terminated",
                    _ => "Flow Failed",
                };
                self.drop_held(key);
                self.fail(cx, key, status, reason);
            }
            Due::End => self.end(key),
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
        let to = match transaction.side {
            Side::Up => self.address_of(transaction.mediaserver),
            Side::Down => transaction.reply_to,
        };
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
        if transaction.side == Side::Up && transaction.method != Method::Invite {
            // Nobody will repeat the request.
            self.end(key);
            return;
        }
        transaction.complete(cx.now.mono);
        transaction.request = Vec::new();
        self.settle(key);
    }

    fn answer_own(&mut self, cx: &mut Cx<'_>, key: Key, status: u16, reason: &str) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let Some(message) = Message::read(&transaction.request, Framing::Datagram) else {
            return;
        };
        let answer = Answer {
            status,
            reason,
            detail: Detail::None,
            tag: transaction.server.0 as u64,
        };
        let start = cx.made.len();
        answer.write(&message, TopVia::Ours, cx.made);
        let (bytes, flow, to) = (start..cx.made.len(), transaction.flow, transaction.reply_to);
        match transaction.side {
            Side::Up => self.send_flow(cx, flow, bytes, None),
            Side::Down => {
                transaction.response.clear();
                transaction.response.extend_from_slice(&cx.made[bytes.clone()]);
                self.send_trunk(cx, to, bytes);
            }
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
            Side::Up => self.send_trunk(cx, self.address_of(transaction.mediaserver), bytes),
            Side::Down => self.send_flow(cx, transaction.flow, bytes, None),
        }
    }

    pub(super) fn send_trunk(&mut self, cx: &mut Cx<'_>, to: SocketAddr, bytes: Range<usize>) {
        cx.stats.sip.to_trunk += 1;
        cx.stats.sip.fragmented += u64::from(bytes.len() > UNFRAGMENTED_MAX);
        self.out.push_back(Out::Trunk { to, bytes });
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

    /// What a flow that is gone leaves behind: requests to it fail, requests of its own are cancelled.
    fn abandon(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(transaction) = self.transactions.get(key) else {
            return;
        };
        match transaction.side {
            Side::Down => self.fail(cx, key, 430, "Flow Failed"),
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

    /// Until when a request for a lost flow is held.
    pub(super) fn hold_until(&self, now: Instant) -> Instant {
        now + HOLD
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
        let (held, mut transactions) = (core::mem::take(&mut flow.held), core::mem::take(&mut flow.transactions));
        // Requests of one dialog must not overtake each other.
        transactions.sort_by_key(|key| self.transactions.get(*key).map(|transaction| transaction.serial));
        for key in &transactions {
            self.enlist(new, *key);
        }
        self.forget(old);
        // What it may have missed while it only seemed to be there: requests that it said nothing to.
        for key in transactions {
            let Some(transaction) = self
                .transactions
                .get(key)
                .filter(|transaction| transaction.is_unheard())
            else {
                continue;
            };
            let start = cx.made.len();
            cx.made.extend_from_slice(&transaction.request);
            let end = cx.made.len();
            self.send_flow(cx, new, start..end, Some(key));
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

    fn give_up(&mut self, cx: &mut Cx<'_>, id: FlowId) {
        let lost = self
            .flows
            .get(id.0)
            .is_some_and(|flow| flow.grace.is_some_and(|until| until <= cx.now.mono));
        if lost {
            self.close(cx, id);
        }
    }

    fn watch(&mut self, cx: &Cx<'_>, mediaserver: usize) {
        if let Some(health) = self.health.get_mut(mediaserver)
            && !core::mem::replace(&mut health.watched, true)
        {
            self.timers.arm(cx.now.mono, Owner::Mediaserver(mediaserver));
        }
    }

    fn ping(&mut self, cx: &mut Cx<'_>, index: usize) {
        let to = self.address_of(index);
        let (number, next) = self.health[index].ask(cx.now.mono);
        self.timers.arm(next, Owner::Mediaserver(index));
        let start = cx.made.len();
        trunk::ping(&self.names, self.shard, self.epoch, (index, to), number, cx.made);
        let end = cx.made.len();
        self.send_trunk(cx, to, start..end);
    }
}
