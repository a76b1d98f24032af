//! Who holds the strings of the bridge? Flows, transactions, timers and what is to be sent; the messages themselves are
//! handled in `from_flow` and `from_trunk`.

use alloc::{collections::VecDeque, sync::Arc};
use core::{net::SocketAddr, ops::Range};
use std::collections::HashMap;

use ahash::RandomState;

use super::{
    branch::{BRANCH_LEN, Branch, Kind},
    flow::{Flow, Owner},
    home,
    limit::{Locks, Strangers},
    link::LinkId,
    names::Names,
    refusals::Refusals,
    rewrite,
    strip::FieldSet,
    token::{Identity, Token, TokenText},
    transaction::{ServerId, Transaction},
    trunk::{Trunk, TrunkId},
    trunks::Question,
};
use crate::{
    action::{ConnId, ShardId},
    config::{Config, Sip},
    cx::Cx,
    rng::Rng,
    slab::{Key, Slab},
    time::Instant,
    timers::Timers,
    wire::sip::Splices,
};

/// The largest UDP payload over IPv4.
pub(super) const DATAGRAM_MAX: usize = 65_507;
/// What fits one Ethernet frame, with the headers of IP and UDP.
const UNFRAGMENTED_MAX: [usize; 2] = [1472, 1452];

/// A browser, by its WebSocket; outlives a lost WebSocket for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub Key);

impl FlowId {
    /// Of no browser: no table gives this key away.
    pub(super) const NOBODY: Self = Self(Key::from_parts(u32::MAX, u32::MAX));
}

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
    /// The user that the token of the WebSocket's URL names, if it can be read and believed: when that user's flow was
    /// lost, a REGISTER of the same contact takes it over before the mediaserver has answered.
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
    /// Part of a TCP connection with a mediaserver.
    Link {
        /// The connection.
        conn: ConnId,
        /// A message, or the sign that keeps the connection alive.
        bytes: Range<usize>,
    },
    /// Make a TCP connection with a mediaserver; answered by [`Bridge::linked`] or [`Bridge::unlinked`].
    Dial(LinkId),
    /// Close a TCP connection with a mediaserver, about which nothing need be said any more.
    Unlink {
        /// The connection.
        conn: ConnId,
    },
    /// Look up the name of a mediaserver; answered by [`Bridge::resolved`], or not at all when that fails.
    Resolve(Question),
    /// Mediaservers have other addresses: [`Bridge::media`] tells which.
    Moved,
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
    pub(super) shard: ShardId,
    shards: u16,
    /// Tells this run's flows and branches from those before it.
    pub(super) epoch: u32,
    pub(super) flows: Slab<Flow>,
    pub(super) transactions: Slab<Transaction>,
    /// Transactions as those know them who sent their requests.
    pub(super) servers: HashMap<ServerId, Key, RandomState>,
    pub(super) server_hashers: [RandomState; 2],
    pub(super) refusals: Refusals,
    /// The newest flow on which a registration was accepted.
    pub(super) identities: HashMap<Identity, FlowId, RandomState>,
    /// Mediaservers; each keeps its place, whatever becomes of the configuration.
    pub(super) trunks: Vec<Trunk>,
    pub(super) locks: Locks,
    strangers: Strangers,
    /// What does not pass from browsers, and what not to them.
    pub(super) strip: FieldSet,
    pub(super) hide: FieldSet,
    /// Until when flows of an earlier run may be [revived](Self::revive), from the first time that one is asked for.
    pub(super) revival_ends: Option<Instant>,
    /// How many transactions have begun.
    pub(super) begun: u64,
    pub(super) timers: Timers<Owner>,
    pub(super) out: VecDeque<Out>,
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
        let trunks = sip.mediaservers.iter();
        let mut bridge = Self {
            names: Names::new(sip),
            shard,
            shards,
            // 0 is the epoch of tokens that belong to no run.
            epoch: rng.u32().max(1),
            flows: Slab::new(),
            transactions: Slab::new(),
            servers: HashMap::with_hasher(rng.hasher()),
            server_hashers: [rng.hasher(), rng.hasher()],
            refusals: Refusals::new(rng),
            identities: HashMap::with_hasher(rng.hasher()),
            trunks: trunks.map(|trunk| Trunk::new(Instant::ZERO, trunk)).collect(),
            locks: Locks::new(rng.hasher()),
            strangers: Strangers::default(),
            strip: FieldSet::new(&sip.policy.strip),
            hide: FieldSet::new(&sip.policy.hide),
            revival_ends: None,
            begun: 0,
            timers: Timers::new(),
            out: VecDeque::new(),
            splices: Splices::new(),
            stamped: Vec::new(),
            config,
        };
        for trunk in 0..bridge.trunks.len() {
            bridge.arm_trunk(TrunkId(trunk));
        }
        bridge
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
                Owner::Trunk(trunk) => self.tend(cx, trunk, at),
            }
        }
    }

    /// The next thing to send.
    pub fn poll_out(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// The shard that a datagram belongs to; `None` when it is this one, or nobody in particular. Of strangers there are
    /// few whom another shard may know: a mediaserver has moved, and it was told first.
    pub fn home(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<ShardId> {
        if !self.is_trunk(from) && !self.strangers.admit(now) {
            return None;
        }
        home::home(datagram).filter(|shard| *shard != self.shard && shard.0 < self.shards)
    }

    /// How many flows there are, lost ones included.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Whether a flow has a transaction that waits for a final response.
    pub fn is_busy(&self, flow: FlowId) -> bool {
        self.flows.get(flow.0).is_some_and(|flow| flow.pending > 0)
    }

    /// How many transactions there are, those that only absorb repeats included.
    pub fn transactions(&self) -> usize {
        self.transactions.len()
    }

    pub(super) fn sip(&self) -> &Sip {
        self.config.sip.as_ref().expect("the sip role is configured")
    }

    /// A token that leads to a flow of this run, and after it to whoever has the identity.
    pub(super) fn token(&self, flow: Key, trunk: TrunkId, identity: Identity) -> TokenText {
        self.seal(self.epoch, flow, trunk, identity)
    }

    /// A token that leads to whoever has the identity, the same in each run.
    pub(super) fn token_of(&self, trunk: TrunkId, identity: Identity) -> TokenText {
        self.seal(0, Key::from_parts(0, 0), trunk, identity)
    }

    fn seal(&self, epoch: u32, flow: Key, trunk: TrunkId, identity: Identity) -> TokenText {
        Token {
            shard: self.shard,
            epoch,
            flow,
            mediaserver: self.trunk(trunk).mark,
            identity,
        }
        .seal(&self.config.keys.flow)
    }

    /// Whether a token is one of [`Self::token`], made in this run.
    pub(super) fn is_current(&self, token: &Token) -> bool {
        token.shard == self.shard && token.epoch == self.epoch
    }

    /// A branch of ours for something with this key.
    pub(super) fn branch(&self, kind: Kind, key: Key) -> [u8; BRANCH_LEN] {
        Branch {
            shard: self.shard,
            epoch: self.epoch,
            kind,
            key,
        }
        .write()
    }

    /// What a branch of ours is for, if it is one of this run.
    pub(super) fn branch_key(&self, branch: &Branch, kind: Kind) -> Option<Key> {
        let ours = branch.shard == self.shard && branch.epoch == self.epoch && branch.kind == kind;
        ours.then_some(branch.key)
    }

    /// A number for the same thing each time, which nobody else can tell.
    pub(super) fn hash(&self, what: &impl core::hash::Hash) -> u64 {
        self.server_hashers[0].hash_one(what)
    }

    pub(super) fn send_trunk(&mut self, cx: &mut Cx<'_>, to: SocketAddr, bytes: Range<usize>) {
        cx.stats.sip.to_trunk += 1;
        cx.stats.sip.fragmented += u64::from(bytes.len() > UNFRAGMENTED_MAX[usize::from(to.is_ipv6())]);
        self.out.push_back(Out::Trunk { to, bytes });
    }

    /// The same by TCP, where `by_stream` says so and there is a connection; else by UDP.
    pub(super) fn send_remote(&mut self, cx: &mut Cx<'_>, to: SocketAddr, by_stream: bool, bytes: Range<usize>) {
        if !by_stream {
            return self.send_trunk(cx, to, bytes);
        }
        let Some(conn) = self.link_with(cx.now.mono, to) else {
            rewrite::set_transport(&mut cx.made[bytes.clone()], rewrite::UDP);
            return self.send_trunk(cx, to, bytes);
        };
        cx.stats.sip.by_stream += 1;
        self.out.push_back(Out::Link { conn, bytes });
    }
}
