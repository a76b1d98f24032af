//! What does the TURN server do with what arrives? The doors of the machine, and the way of a request through it.

use alloc::{collections::VecDeque, sync::Arc};
use core::net::SocketAddr;
use std::collections::HashMap;

use ahash::RandomState;

use super::{
    auth::{Auth, Denied, Owner, PASSWORD_ALGORITHMS, turn},
    connections::{Connection, ConnectionId, Connections},
    discovery::Discovery,
    limiter::{Cost, Limiter},
    policy::Policy,
    ports::Ports,
    reply::Form,
    request::Request,
    table::{Client, Rates, Table},
    verdict::{Payload, Verdict},
};
use crate::{
    action::{ConnId, Prefix, RelayId, ShardId, Transport},
    config::{self, Alternate, Config, PeerRule, TurnLimits},
    cx::Cx,
    refusal::{Role, refused},
    rng::Rng,
    time::Instant,
    wire::{
        channel,
        stun::{Class, Code, Family, Kind, Message, Method, ParseError},
    },
};

mod allocate;
mod alternate;
mod binding;
mod connect;
mod expire;
mod manage;
mod mobility;
mod relay;

pub use connect::{BIND_TIMEOUT, CONNECT_TIMEOUT};

/// The TURN server of one shard.
#[derive(Debug)]
pub struct Server {
    limits: TurnLimits,
    auth: Auth,
    policy: Policy,
    limiter: Limiter,
    rates: Rates,
    table: Table,
    /// Relay addresses by family.
    pools: [Option<Pool>; 2],
    /// Whether the last port that was wanted could not be had from the system.
    is_unbound: bool,
    /// Held ports, soonest to expire first.
    reservations: VecDeque<Reservation>,
    asks: VecDeque<Ask>,
    /// Whether TCP is relayed too.
    tcp_relay: bool,
    connections: Connections,
    sweep: expire::Sweep,
    draining: bool,
    /// Where clients may be sent to.
    alternate: Option<Alternate>,
    discovery: Discovery,
    roaming: mobility::Roaming,
}

/// Which way a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// By a socket of this shard.
    Own,
    /// By one of another shard.
    OtherShard,
}

/// What the server wants done with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Bind a socket; answered once, by [`Server::bound`].
    Bind {
        /// The name of the socket from now on.
        relay: RelayId,
        /// What it is to speak.
        transport: Transport,
        /// The address to bind.
        at: SocketAddr,
    },
    /// Close a socket; its name is dead already.
    Close(RelayId),
    /// Connect to a peer. The connection is named at once, by [`Server::dialing`]; how it ends is told by
    /// [`Server::connected`] or [`Server::connect_failed`].
    Dial {
        /// For which it is.
        connection: ConnectionId,
        /// The socket address of the relayed transport address.
        from: SocketAddr,
        /// The peer.
        to: SocketAddr,
    },
    /// From now on, what one of these connections sends goes to the other, as it is.
    Join {
        /// The client data connection, right behind the message that this answers.
        client: ConnId,
        /// The peer data connection.
        peer: ConnId,
    },
    /// Close a peer data connection, and the client's with it.
    Cut(ConnId),
}

/// A relay address and its ports.
#[derive(Debug)]
struct Pool {
    relay: config::Relay,
    ports: Ports,
    /// The sockets by port.
    bound: HashMap<u16, RelayId, RandomState>,
}

/// A port that is held for a token.
#[derive(Debug)]
struct Reservation {
    token: [u8; 8],
    family: Family,
    port: u16,
    /// Whom it counts for.
    owner: Owner,
    expires: Instant,
}

impl Server {
    /// The server of one of `shards` shards, whose ports are its slice of the range.
    ///
    /// # Panics
    /// When the configuration has no turn role.
    pub fn new(config: Arc<Config>, shard: ShardId, shards: u16, rng: &mut Rng) -> Self {
        let turn = turn(&config);
        let pools = Family::ALL.map(|family| {
            let relay = turn.relays.iter().find(|relay| Family::of(relay.bind) == family)?;
            Some(Pool {
                relay: *relay,
                ports: Ports::new(&turn.relay_ports, shard, shards),
                bound: HashMap::with_hasher(rng.hasher()),
            })
        });
        Self {
            tcp_relay: turn.tcp_relay,
            connections: Connections::new(shard, shards, rng),
            limits: turn.limits.clone(),
            rates: Rates::new(&turn.limits),
            policy: Policy::new(&config, turn),
            limiter: Limiter::new(turn.limits.unauthenticated_per_second, rng),
            table: Table::new(rng),
            pools,
            is_unbound: false,
            reservations: VecDeque::new(),
            asks: VecDeque::new(),
            sweep: expire::Sweep::default(),
            draining: false,
            alternate: turn.alternate.clone(),
            discovery: Discovery::new(turn),
            roaming: mobility::Roaming::new(&config, turn.mobility, shard, shards, rng),
            auth: Auth::new(config, 0, rng),
        }
    }

    /// Goes on with another configuration: users, secrets, peers and limits. Relay addresses and ports remain as they are.
    /// What is allocated remains, but for channels and connections to peers that are no longer allowed.
    ///
    /// # Panics
    /// When the configuration has no turn role.
    pub fn configure(&mut self, config: Arc<Config>, rng: &mut Rng) {
        let turn = turn(&config);
        self.limits = turn.limits.clone();
        self.rates = Rates::new(&turn.limits);
        self.limiter = Limiter::new(turn.limits.unauthenticated_per_second, rng);
        self.policy = Policy::new(&config, turn).after(&mut self.policy);
        self.alternate = turn.alternate.clone();
        self.roaming.is_on = turn.mobility;
        self.discovery = Discovery::new(turn);
        self.enforce_policy();
        self.tcp_relay = turn.tcp_relay;
        self.auth = Auth::new(config, self.auth.epoch().wrapping_add(1), rng);
    }

    /// The mediaservers of the sip role are at these addresses from now on.
    pub fn follow(&mut self, mediaservers: &[PeerRule]) {
        self.policy.follow(mediaservers);
        self.enforce_policy();
    }

    fn enforce_policy(&mut self) {
        for (_, allocation) in self.table.allocations.range_mut(0..self.table.allocations.slots()) {
            // Other packets are asked about one by one.
            allocation.peers.retain_channels(|peer| self.policy.allows(peer));
        }
        for key in self.connections.keys_where(|peer| !self.policy.allows(peer)) {
            self.cut(key);
        }
    }

    /// Takes one message of a client: a datagram, or a unit that [`Stream`](super::Stream) cut out.
    pub fn client(&mut self, cx: &mut Cx<'_>, from: Client, bytes: &[u8]) -> Verdict {
        match self.forwarded_to(cx, &from) {
            Some(home) => Verdict::to_shard(home),
            None => self.take(cx, from, Door::Own, bytes),
        }
    }

    /// Takes one datagram of a client that came to another shard. It goes no further.
    pub fn client_of_other_shard(&mut self, cx: &mut Cx<'_>, from: Client, bytes: &[u8]) -> Verdict {
        self.take(cx, from, Door::OtherShard, bytes)
    }

    /// Refuses new allocations from now on, with an answer.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The next thing to be done with a socket, in order.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// Whether a connection has an allocation, or one in the making.
    pub fn has_allocation(&self, conn: ConnId) -> bool {
        self.table.find_stream(conn).is_some()
    }

    /// How many allocations there are, with those in the making.
    pub fn allocations(&self) -> usize {
        self.table.allocations.len()
    }

    /// Whether any allocation has a peer to exchange data with.
    pub fn is_in_use(&self, now: Instant) -> bool {
        let mut allocations = self.table.allocations.iter();
        allocations.any(|(_, allocation)| allocation.peers.is_any(now) || !allocation.connections.is_empty())
    }

    /// The sizes of all tables that clients could make grow.
    #[cfg(test)]
    pub(super) fn table_sizes(&self) -> [usize; 8] {
        let [clients, connections, persons] = self.table.sizes();
        let (relays, reservations) = (self.table.relays.len(), self.reservations.len());
        let peers = self.connections.len();
        [
            clients,
            connections,
            persons,
            relays,
            reservations,
            peers,
            self.asks.len(),
            self.roaming.forwards.len(),
        ]
    }

    /// Bytes that all allocations take.
    #[cfg(test)]
    pub(super) fn table_bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Ports of each family that nobody has.
    #[cfg(test)]
    pub(super) fn free_ports(&self) -> [usize; 2] {
        let available = |pool: &Option<Pool>| pool.as_ref().map_or(0, |pool| pool.ports.available());
        self.pools.each_ref().map(available)
    }

    fn take(&mut self, cx: &mut Cx<'_>, from: Client, door: Door, bytes: &[u8]) -> Verdict {
        match bytes.first() {
            Some(first) if channel::FIRST_BYTES.contains(first) => {
                self.data_came(&from);
                self.channel_data(cx, &from, bytes)
            }
            Some(_) => self.message(cx, from, door, bytes),
            None => dropped(cx),
        }
    }

    /// Takes a STUN message.
    fn message(&mut self, cx: &mut Cx<'_>, from: Client, door: Door, bytes: &[u8]) -> Verdict {
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(ParseError::Attributes(header)) if header.class == Class::Request => {
                return self.refuse_stranger(cx, &from, &Form::bare(header), Code::BAD_REQUEST);
            }
            Err(_) => return dropped(cx),
        };
        match (message.header().class, message.header().method) {
            (Class::Request, Method::BINDING) => self.binding(cx, &from, message),
            (Class::Request, Method::ALLOCATE | Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND) => {
                self.request(cx, from, door, &Request::read(message))
            }
            (Class::Request, Method::CONNECT | Method::CONNECTION_BIND) if self.tcp_relay => {
                self.request(cx, from, door, &Request::read(message))
            }
            (Class::Indication, Method::SEND) => {
                self.data_came(&from);
                self.send(cx, &from, &message, bytes)
            }
            // RFC 8489 section 6.3.2 and RFC 8445 section 11: a Binding indication keeps a NAT open, no more.
            (Class::Indication, Method::BINDING) => Verdict::NOTHING,
            // RFC 8489 section 6.3: the agent checks "that the method value is a supported method" and "that the message
            // class is allowed for the particular method"; else "the message is silently discarded".
            _ => dropped(cx),
        }
    }

    /// Takes a request that needs credentials.
    fn request(&mut self, cx: &mut Cx<'_>, from: Client, door: Door, request: &Request<'_>) -> Verdict {
        let slot = self.table.find(&from).filter(|key| self.expire(cx, *key));
        let form = Form::unsigned(request);
        let ticket = self.ticket_of(request);
        let meant = ticket.map_or(slot, |ticket| ticket.ok().map(|ticket| ticket.allocation));
        let session = meant.and_then(|key| self.table.allocations.get(key));
        let session = session.map(|allocation| (allocation.owner.name(), &allocation.session));
        let is_elsewhere = ticket.is_some_and(|ticket| ticket.is_ok_and(|ticket| self.is_elsewhere(ticket)));
        let authenticated = self
            .auth
            .authenticate(cx.now.unix, from.source(), request, session, is_elsewhere);
        let identity = match authenticated {
            Ok(identity) => identity,
            Err(denied) => {
                if denied == Denied::Wrong {
                    self.tell_guess(cx, &from, request);
                }
                return self.deny(cx, &from, &form, denied);
            }
        };
        let form = form.signed(identity.integrity, identity.session.key.clone());
        if request.has_unknown {
            return refuse_unknown(cx, &from, &form, request);
        }
        if let Some(ticket) = ticket {
            return match ticket.and_then(|ticket| self.relocate(cx, from, door, request, &identity.user, ticket)) {
                Ok(moved) => self.relocated(cx, &from, &form, moved),
                Err(code) => refuse(cx, &from, &form, code),
            };
        }
        let method = request.header().method;
        if method == Method::ALLOCATE {
            return self.allocate(cx, from, request, identity, form, slot);
        }
        if method == Method::CONNECTION_BIND {
            return self.connection_bind(cx, &from, request, &identity.user, &form, slot);
        }
        // RFC 8656 section 5: a request on a 5-tuple without an allocation is rejected with a 437, one of another user
        // than who made it with a 441.
        let made = slot.and_then(|key| Some((key, self.table.allocations.get(key)?)));
        let Some((key, allocation)) = made.filter(|(_, allocation)| allocation.pending.is_none()) else {
            return refuse(cx, &from, &form, Code::ALLOCATION_MISMATCH);
        };
        if allocation.owner.name() != &*identity.user {
            return refuse(cx, &from, &form, Code::WRONG_CREDENTIALS);
        }
        if method == Method::CONNECT {
            return match self.connect(cx, key, request, &form) {
                Ok(()) => Verdict::NOTHING,
                Err(code) => refuse(cx, &from, &form, code),
            };
        }
        let lifetime = match method {
            Method::REFRESH => self.refresh(cx, key, request).map(Some),
            Method::CREATE_PERMISSION => self.create_permission(cx.now.mono, key, request).map(|()| None),
            _ => self.channel_bind(cx.now.mono, key, request).map(|()| None),
        };
        match lifetime {
            Err(code) => refuse(cx, &from, &form, code),
            Ok(lifetime) => {
                let range = form.success(cx.made, |writer| {
                    if let Some(secs) = lifetime {
                        writer.u32(Kind::LIFETIME, secs);
                    }
                });
                from.send(Prefix::NONE, Payload::Made(range))
            }
        }
    }

    /// Answers somebody whose credentials are missing or not good.
    fn deny(&mut self, cx: &mut Cx<'_>, from: &Client, form: &Form, denied: Denied) -> Verdict {
        let code = match denied {
            Denied::Malformed => return self.refuse_stranger(cx, from, form, Code::BAD_REQUEST),
            Denied::Unsigned | Denied::Wrong => Code::UNAUTHENTICATED,
            Denied::Stale => Code::STALE_NONCE,
        };
        let guess = denied == Denied::Wrong;
        if !self.may_answer(cx, from, if guess { Cost::Guess } else { Cost::Full }) {
            return Verdict::NOTHING;
        }
        if guess {
            cx.stats.turn.refused += 1;
            tracing::debug!(client = %from.source(), "credentials refused");
        } else {
            cx.stats.turn.challenged += 1;
        }
        let nonce = self.auth.nonce(cx.now.unix, from.source());
        // RFC 8489 section 9.2.4: what REALM, NONCE and PASSWORD-ALGORITHMS are in, and nothing that depends on the user.
        let range = form.error(cx.made, code, |writer| {
            writer.attribute(Kind::REALM, self.auth.realm());
            writer.attribute(Kind::NONCE, &nonce);
            writer.attribute(Kind::PASSWORD_ALGORITHMS, &PASSWORD_ALGORITHMS);
        });
        from.send(Prefix::NONE, Payload::Made(range))
    }

    /// Tells of credentials that are not good. Whoever has a nonce of ours is where it says to be.
    fn tell_guess(&self, cx: &Cx<'_>, from: &Client, request: &Request<'_>) {
        let source = from.source();
        let is_proved = matches!(from, Client::Stream { .. }) || self.auth.has_nonce(cx.now.unix, source, request);
        let reason = if is_proved { "credentials" } else { "unproved" };
        refused(Role::Turn, source.ip(), reason, "credentials that are not good");
    }

    /// Refuses a request of somebody who has proved nothing.
    fn refuse_stranger(&mut self, cx: &mut Cx<'_>, from: &Client, form: &Form, code: Code) -> Verdict {
        if self.may_answer(cx, from, Cost::Full) {
            return refuse(cx, from, form, code);
        }
        Verdict::NOTHING
    }

    /// Whether somebody who has proved nothing gets an answer of this cost.
    fn may_answer(&mut self, cx: &mut Cx<'_>, from: &Client, cost: Cost) -> bool {
        // Whoever has a connection has proved its address: answers there flood nobody else.
        let proved = matches!(from, Client::Stream { .. }) && cost != Cost::Guess;
        let source = from.source().ip();
        let admitted = proved || self.policy.is_trusted(source) || self.limiter.admit(cx.now.mono, source, cost);
        cx.stats.turn.withheld += u64::from(!admitted);
        admitted
    }
}

/// Nothing comes of what arrived.
fn dropped(cx: &mut Cx<'_>) -> Verdict {
    cx.stats.turn.dropped += 1;
    Verdict::NOTHING
}

/// Answers with an error.
fn refuse(cx: &mut Cx<'_>, from: &Client, form: &Form, code: Code) -> Verdict {
    cx.stats.turn.refused += 1;
    tracing::debug!(client = %from.source(), code = code.0, "request refused");
    let reason = match code {
        Code::FORBIDDEN => Some(("peer", "a peer that may not be relayed to")),
        Code::WRONG_CREDENTIALS => Some(("user", "the allocation is somebody else's")),
        Code::ALLOCATION_QUOTA_REACHED => Some(("quota", "a user has as many allocations as it may")),
        Code::INSUFFICIENT_CAPACITY => Some(("capacity", "there are as many allocations as there may be")),
        // Mistakes, and what a client has to do first.
        _ => None,
    };
    if let Some((reason, detail)) = reason {
        refused(Role::Turn, from.source().ip(), reason, detail);
    }
    answer_error(cx, from, form, code)
}

/// Answers with an error that the client has no part in.
fn answer_error(cx: &mut Cx<'_>, from: &Client, form: &Form, code: Code) -> Verdict {
    let range = form.error(cx.made, code, |_| ());
    from.send(Prefix::NONE, Payload::Made(range))
}

/// Answers with an error that lists what was not understood.
// RFC 8489 section 6.3.1: the server "includes an UNKNOWN-ATTRIBUTES attribute in the response".
fn refuse_unknown(cx: &mut Cx<'_>, from: &Client, form: &Form, request: &Request<'_>) -> Verdict {
    cx.stats.turn.refused += 1;
    let kinds: Vec<u8> = request.unknown().flat_map(|kind| kind.0.to_be_bytes()).collect();
    let range = form.error(cx.made, Code::UNKNOWN_ATTRIBUTE, |writer| {
        writer.attribute(Kind::UNKNOWN_ATTRIBUTES, &kinds);
    });
    from.send(Prefix::NONE, Payload::Made(range))
}
