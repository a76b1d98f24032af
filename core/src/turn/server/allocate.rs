//! Which relayed transport addresses does a client get? From the Allocate request to its answer. (RFC 8656 section 7)

use core::{net::SocketAddr, time::Duration};

use arrayvec::ArrayVec;

use super::{Ask, Pool, Reservation, Server, answer_error, refuse};
use crate::{
    action::{BindError, Prefix, RelayId, Transport},
    cx::Cx,
    slab::Key,
    time::Now,
    turn::{
        auth::{Identity, Owner, SessionKey},
        peers::Peers,
        policy::is_tunnel,
        rate::Meter,
        reply::Form,
        request::Request,
        table::{Allocation, Client, Mobility, Pending, Relay, Relayed, Wish},
        token::{Held, STEP_SECS, TOKEN_LIFETIME_SECS},
        verdict::{Payload, Verdict},
    },
    wire::stun::{Code, Family, Kind},
};

/// Lifetime of an allocation in seconds when the client asks for less, or for nothing.
// RFC 8656 section 6: "the default lifetime value of 600 seconds (10 minutes)".
const LIFETIME_DEFAULT_SECS: u32 = 600;

/// How long a port is held: as long as its token can be good.
const RESERVATION_LIFETIME: Duration = Duration::from_secs(TOKEN_LIFETIME_SECS + STEP_SECS);

/// How many ports are tried when others have taken them.
const BIND_TRIES: u8 = 10;

/// The number of UDP in REQUESTED-TRANSPORT.
const UDP: u8 = 17;

/// The number of TCP there (RFC 6062 section 4.1).
const TCP: u8 = 6;

/// What an Allocate request that passed all checks is to get.
struct Plan {
    owner: Owner,
    transport: Transport,
    lifetime_secs: u32,
    wishes: ArrayVec<(Family, Wish), 2>,
    missing: Option<(Family, Code)>,
    wants_ticket: bool,
}

impl Server {
    /// Takes an Allocate request of a user; `slot` is what the 5-tuple has already.
    pub(super) fn allocate(
        &mut self,
        cx: &mut Cx<'_>,
        from: Client,
        request: &Request<'_>,
        identity: Identity<'_>,
        form: Form,
        slot: Option<Key>,
    ) -> Verdict {
        if let Some((key, allocation)) = slot.and_then(|key| Some((key, self.table.allocations.get(key)?))) {
            let same =
                allocation.transaction == request.header().transaction && allocation.owner.name() == &*identity.user;
            // RFC 8656 section 7.2: an Allocate request on a 5-tuple in use is rejected with a 437; but one that comes
            // again is answered again, or when its sockets are bound.
            return match &allocation.pending {
                _ if !same => refuse(cx, &from, &form, Code::ALLOCATION_MISMATCH),
                Some(_) => Verdict::NOTHING,
                None => self.allocated(cx, &form, key),
            };
        }
        match self.plan(cx.now, &from, request, &identity) {
            Ok(plan) => self.begin(cx, from, request, identity.session, form, plan),
            Err(Code::TRY_ALTERNATE) => self.redirect(cx, &from, &form),
            Err(code) => refuse(cx, &from, &form, code),
        }
    }

    /// Checks an Allocate request on a 5-tuple that is not in use.
    // RFC 8656 section 7.2, steps 3 and 5 to 10.
    fn plan(&self, now: Now, from: &Client, request: &Request<'_>, identity: &Identity<'_>) -> Result<Plan, Code> {
        let transport = self.transport(from, request)?;
        let wants_ticket = self.wants_ticket(request)?;
        let (token, even) = (request.token()?, request.even_port()?);
        let (requested, additional) = (request.requested_family()?, request.additional_family()?);
        let lifetime_secs = self.lifetime_secs(request.lifetime()?);
        let contradictory = token.is_some() && (even.is_some() || requested.is_some() || additional.is_some())
            || requested.is_some() && additional.is_some()
            || even == Some(true) && additional.is_some()
            || additional.is_some_and(|family| family != Ok(Family::V6));
        if contradictory {
            return Err(Code::BAD_REQUEST);
        }
        // RFC 8656 section 21.4: "TURN servers not accept allocation [...] requests from addresses known to be
        // tunneled".
        if is_tunnel(from.source().ip()) {
            return Err(Code::FORBIDDEN);
        }
        // RFC 8656 section 21.1.7: whoever asks in the name of this server wants its packets to go round in a loop.
        if matches!(from, Client::Datagram { .. }) && self.policy.is_service(self.policy.seen(from.source())) {
            return Err(Code::FORBIDDEN);
        }
        let wish = match even {
            None => Wish::Any,
            Some(false) => Wish::Even,
            Some(true) => Wish::Pair,
        };
        let (mut wishes, mut missing) = (ArrayVec::new(), None);
        let mut is_held_here = false;
        if let Some(token) = token {
            let held = self.auth.held(token, &identity.user, now.unix);
            let held = held.ok_or(Code::INSUFFICIENT_CAPACITY)?;
            let ports = self.pools[held.family as usize].as_ref().map(|pool| &pool.ports);
            let ports = ports.filter(|ports| ports.spans(held.port));
            // Of another shard's port, only the attempt to bind it tells whether it is still to be had: that shard gives
            // it to nobody else for as long as the token is good.
            is_held_here = ports.ok_or(Code::INSUFFICIENT_CAPACITY)?.owns(held.port);
            if is_held_here && !self.reservations.iter().any(|held| held.token == token) {
                return Err(Code::INSUFFICIENT_CAPACITY);
            }
            wishes.push((held.family, Wish::Held(held.port)));
        } else if additional.is_some() {
            for family in Family::ALL {
                match self.pools[family as usize] {
                    Some(_) => wishes.push((family, wish)),
                    None => missing = Some((family, Code::ADDRESS_FAMILY_NOT_SUPPORTED)),
                }
            }
        } else {
            let family = requested.unwrap_or(Ok(Family::V4)).ok();
            let family = family.filter(|family| self.pools[*family as usize].is_some());
            wishes.push((family.ok_or(Code::ADDRESS_FAMILY_NOT_SUPPORTED)?, wish));
        }
        let owner = self.auth.owner(&identity.user);
        let more = match wish {
            _ if is_held_here => 0,
            Wish::Pair => 2,
            _ => 1,
        };
        if self.table.count(owner.person()) + more > self.limits.allocations_per_user_max {
            return Err(Code::ALLOCATION_QUOTA_REACHED);
        }
        let is_full = self.table.allocations.len() >= self.limits.allocations_max;
        if self.redirects(from, is_full) {
            return Err(Code::TRY_ALTERNATE);
        }
        if self.draining || is_full {
            return Err(Code::INSUFFICIENT_CAPACITY);
        }
        Ok(Plan {
            owner,
            transport,
            lifetime_secs,
            wishes,
            missing,
            wants_ticket,
        })
    }

    /// What a request asks its relayed transport addresses to speak.
    fn transport(&self, from: &Client, request: &Request<'_>) -> Result<Transport, Code> {
        match request.requested_transport()? {
            UDP => Ok(Transport::Udp),
            // RFC 6062 section 5.1: over another transport than TCP or TLS, or with DONT-FRAGMENT, EVEN-PORT or
            // RESERVATION-TOKEN, "the server MUST reject the request with a 400".
            TCP if self.tcp_relay => {
                let is_udp_only =
                    request.dont_fragment() || request.even_port()?.is_some() || request.token()?.is_some();
                let is_misplaced = is_udp_only || matches!(from, Client::Datagram { .. });
                (!is_misplaced).then_some(Transport::Tcp).ok_or(Code::BAD_REQUEST)
            }
            _ => Err(Code::UNSUPPORTED_TRANSPORT_PROTOCOL),
        }
    }

    /// Makes the allocation and asks for its sockets; the answer waits for them.
    fn begin(
        &mut self,
        cx: &mut Cx<'_>,
        from: Client,
        request: &Request<'_>,
        session: SessionKey,
        form: Form,
        plan: Plan,
    ) -> Verdict {
        let held = self.reservations.len();
        if let Some((family, Wish::Held(port))) = plan.wishes.first() {
            let taken = |held: &Reservation| held.family == *family && held.port == *port;
            self.reservations.retain(|held| !taken(held));
        }
        // What was one held port of ours is one allocation now, so the count stays.
        let more = usize::from(held == self.reservations.len());
        let person = self.table.count_up(plan.owner.person(), more);
        let key = self.table.insert(Allocation {
            client: from,
            owner: plan.owner,
            person,
            session,
            transaction: request.header().transaction,
            relayed: [None; 2],
            addresses: [None; 2],
            peers: Peers::default(),
            missing: plan.missing,
            transport: plan.transport,
            connections: Vec::new(),
            token: None,
            mobility: plan.wants_ticket.then(|| Box::new(Mobility::new(cx.rng))),
            relays: Meter::default(),
            returned: Meter::default(),
            pending: Some(Box::new(Pending {
                form,
                lifetime_secs: plan.lifetime_secs,
                outstanding: plan.wishes.len() as u8,
            })),
        });
        self.sweep.start(cx.now.mono);
        let mut verdict = Verdict::NOTHING;
        for (family, wish) in plan.wishes {
            if !self.open(cx, key, family, wish, BIND_TRIES) {
                verdict = self.miss(cx, key, family);
            }
        }
        verdict
    }

    /// Asks for a socket, if there is a port for it.
    fn open(&mut self, cx: &mut Cx<'_>, allocation: Key, family: Family, wish: Wish, tries: u8) -> bool {
        let transport = self.table.allocations.get(allocation).map(|made| made.transport);
        let (Some(transport), Some(Pool { relay, ports, .. })) = (transport, &mut self.pools[family as usize]) else {
            return false;
        };
        let now = cx.now.mono;
        let port = match wish {
            Wish::Any => ports.take_any(now, cx.rng),
            Wish::Even => ports.take_even(now, cx.rng),
            Wish::Pair => ports.take_pair(now, cx.rng),
            Wish::Held(port) => Some(port),
        };
        let Some(port) = port else {
            return false;
        };
        let at = SocketAddr::new(relay.bind, port);
        if wish == Wish::Pair {
            self.reserve(cx, allocation, family, port + 1);
        }
        let relay = RelayId(self.table.relays.insert(Relay {
            allocation,
            family,
            port,
            wish,
            tries: Some(tries),
        }));
        self.asks.push_back(Ask::Bind { relay, transport, at });
        true
    }

    /// Holds a port for the next allocation of the same user.
    fn reserve(&mut self, cx: &Cx<'_>, key: Key, family: Family, port: u16) {
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return;
        };
        let owner = allocation.owner.clone();
        let token = self.auth.token(Held { family, port }, owner.name(), cx.now.unix);
        allocation.token = Some(token);
        self.table.count_up(owner.person(), 1);
        self.reservations.push_back(Reservation {
            token,
            family,
            port,
            owner,
            expires: cx.now.mono + RESERVATION_LIFETIME,
        });
    }

    /// Takes the answer to [`Ask::Bind`], the address that the socket has; the last one that an Allocate request waits
    /// for lets it be answered.
    pub fn bound(&mut self, cx: &mut Cx<'_>, relay: RelayId, result: Result<SocketAddr, BindError>) -> Verdict {
        let (now, id) = (cx.now.mono, relay);
        let Some(relay) = self.table.relays.get_mut(id.0) else {
            return Verdict::NOTHING;
        };
        let Some(tries) = relay.tries.take() else {
            return Verdict::NOTHING;
        };
        let (key, family, wish) = (relay.allocation, relay.family, relay.wish);
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            // The client has left meanwhile.
            match result {
                Ok(_) => self.close(now, id),
                Err(_) => self.discard(now, id),
            }
            return Verdict::NOTHING;
        };
        match result {
            Ok(at) => {
                self.is_unbound = false;
                let mut advertise = at.ip();
                if let Some(pool) = &mut self.pools[family as usize] {
                    pool.bound.insert(at.port(), id);
                    advertise = pool.relay.advertise;
                }
                let lifetime_secs = allocation.pending.as_ref().map_or(0, |pending| pending.lifetime_secs);
                allocation.addresses[family as usize] = Some(SocketAddr::new(advertise, at.port()));
                allocation.relayed[family as usize] = Some(Relayed {
                    relay: id,
                    expires: now + Duration::from_secs(lifetime_secs.into()),
                });
                self.settle(cx, key)
            }
            Err(error) => {
                if let Some(token) = allocation.token.take() {
                    self.forget_reservation(now, token);
                }
                self.discard(now, id);
                let again = error == BindError::InUse && tries > 1 && !matches!(wish, Wish::Held(_));
                if again && self.open(cx, key, family, wish, tries - 1) {
                    return Verdict::NOTHING;
                }
                self.tell_unbound(family, error);
                self.miss(cx, key, family)
            }
        }
    }

    /// The system gives no port. That is told once, until it gives one again.
    fn tell_unbound(&mut self, family: Family, error: BindError) {
        let Some(pool) = self.pools[family as usize].as_ref().filter(|_| !self.is_unbound) else {
            return;
        };
        self.is_unbound = true;
        let fix = match error {
            BindError::InUse => "keep other programs off `relay_ports`, or choose others",
            BindError::Failed => "`relay` must be an address of this host, and the limit of open files large enough",
        };
        tracing::error!(relay = %pool.relay.bind, ?error, fix, "no relay port can be bound; allocations get 508");
    }

    /// One family less for an allocation in the making.
    fn miss(&mut self, cx: &mut Cx<'_>, key: Key, family: Family) -> Verdict {
        if let Some(allocation) = self.table.allocations.get_mut(key) {
            allocation.missing = Some((family, Code::INSUFFICIENT_CAPACITY));
        }
        self.settle(cx, key)
    }

    /// One socket less to wait for; with the last one the request is answered.
    fn settle(&mut self, cx: &mut Cx<'_>, key: Key) -> Verdict {
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return Verdict::NOTHING;
        };
        let Some(pending) = &mut allocation.pending else {
            return Verdict::NOTHING;
        };
        pending.outstanding -= 1;
        if pending.outstanding > 0 {
            return Verdict::NOTHING;
        }
        let (client, form) = (allocation.client, pending.form.clone());
        if allocation.relayed.iter().all(Option::is_none) {
            self.release(cx, key);
            if self.is_unbound {
                cx.stats.turn.refused += 1;
                return answer_error(cx, &client, &form, Code::INSUFFICIENT_CAPACITY);
            }
            return refuse(cx, &client, &form, Code::INSUFFICIENT_CAPACITY);
        }
        allocation.pending = None;
        cx.stats.turn.allocated += 1;
        tracing::debug!(client = %client.source(), relayed = ?allocation.addresses, "allocation made");
        self.allocated(cx, &form, key)
    }

    /// Answers an Allocate request with what the allocation is.
    fn allocated(&self, cx: &mut Cx<'_>, form: &Form, key: Key) -> Verdict {
        let Some(allocation) = self.table.allocations.get(key) else {
            return Verdict::NOTHING;
        };
        let now = cx.now.mono;
        let ticket = self.ticket(key);
        let range = form.success(cx.made, |writer| {
            let mut left = Duration::ZERO;
            let live = allocation.relayed.iter().zip(allocation.addresses);
            for (relayed, address) in live.filter_map(|(relayed, address)| relayed.zip(address)) {
                writer.address(Kind::XOR_RELAYED_ADDRESS, address);
                left = left.max(relayed.expires - now);
            }
            writer.u32(Kind::LIFETIME, seconds(left));
            if let Some(token) = allocation.token {
                writer.attribute(Kind::RESERVATION_TOKEN, &token);
            }
            if let Some(ticket) = ticket {
                writer.attribute(Kind::MOBILITY_TICKET, &ticket);
            }
            writer.address(Kind::XOR_MAPPED_ADDRESS, allocation.client.source());
            if let Some((family, code)) = allocation.missing {
                writer.address_error(family, code);
            }
        });
        allocation.client.send(Prefix::NONE, Payload::Made(range))
    }

    /// For how long an allocation lasts that is made or refreshed with this LIFETIME.
    // RFC 8656 section 7.2: the minimum of what is proposed and the maximum, but at least the default.
    pub(super) fn lifetime_secs(&self, requested: Option<u32>) -> u32 {
        let max = self.limits.lifetime_max_secs;
        let default = LIFETIME_DEFAULT_SECS.min(max);
        requested.map_or(default, |secs| secs.clamp(default, max))
    }
}

/// Whole seconds, the last one too when it has begun.
fn seconds(left: Duration) -> u32 {
    left.as_nanos().div_ceil(1_000_000_000) as u32
}
