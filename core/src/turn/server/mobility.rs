//! Where has this client gone? Its allocation follows it to another address, and to another shard's part of the network.
//! (RFC 8016)

use core::time::Duration;

use super::{Door, Server};
use crate::{
    action::{ConnId, Prefix, ShardId},
    config::Config,
    cx::Cx,
    rng::Rng,
    slab::Key,
    time::Instant,
    turn::{
        forwards::Forwards,
        reply::Form,
        request::Request,
        table::{Client, Mobility},
        ticket::{TICKET_BYTES, Ticket, Tickets},
        verdict::{Payload, Verdict},
    },
    wire::stun::{Code, Kind, Method},
};

/// For how long a Refresh with the ticket before is one that comes again.
// RFC 8016 section 3.2.2: "for a period of at least 30 seconds". A client repeats its request for nearly 40.
const RETRANSMISSION: Duration = Duration::from_secs(40);

/// Clients on the move.
#[derive(Debug)]
pub(super) struct Roaming {
    pub(super) is_on: bool,
    shard: ShardId,
    shards: u16,
    tickets: Tickets,
    /// Clients whose allocations are on other shards.
    pub(super) forwards: Forwards,
    /// How many allocations have a client that was heard of at two addresses.
    moving: usize,
}

/// What came of a Refresh with a ticket.
pub(super) enum Moved {
    /// The allocation is here, and lasts so many seconds from now on; 0 is the end of it.
    Here(Key, u32),
    /// It is on another shard, which answers.
    Elsewhere(ShardId),
}

impl Roaming {
    pub(super) fn new(config: &Config, is_on: bool, shard: ShardId, shards: u16, rng: &mut Rng) -> Self {
        Self {
            is_on,
            shard,
            shards,
            tickets: Tickets::new(&config.keys.nonce),
            forwards: Forwards::new(rng),
            moving: 0,
        }
    }
}

impl Server {
    /// Whether an Allocate request asks for a ticket.
    // RFC 8016 section 3.1.2.
    pub(super) fn wants_ticket(&self, request: &Request<'_>) -> Result<bool, Code> {
        match request.ticket {
            None => Ok(false),
            Some([]) if !self.roaming.is_on => Err(Code::MOBILITY_FORBIDDEN),
            Some([]) => Ok(true),
            Some(_) => Err(Code::BAD_REQUEST),
        }
    }

    /// The ticket of an allocation that may follow its client.
    pub(super) fn ticket(&self, key: Key) -> Option<[u8; TICKET_BYTES]> {
        let mobility = self.table.allocations.get(key)?.mobility.as_ref()?;
        let ticket = Ticket {
            shard: self.roaming.shard,
            allocation: key,
            name: mobility.name,
            serial: mobility.serial,
        };
        Some(self.roaming.tickets.seal(ticket))
    }

    /// The ticket in a Refresh request, or what is wrong with it.
    // RFC 8016 section 3.2.2: with a ticket, the server "will not retrieve the 5-tuple from the packet to identify an
    // associated allocation".
    pub(super) fn ticket_of(&self, request: &Request<'_>) -> Option<Result<Ticket, Code>> {
        let sealed = request.ticket.filter(|_| request.header().method == Method::REFRESH)?;
        if !self.roaming.is_on {
            return Some(Err(Code::MOBILITY_FORBIDDEN));
        }
        Some(self.roaming.tickets.open(sealed).ok_or(Code::BAD_REQUEST))
    }

    /// Whether the allocation of a ticket is on another shard, which knows whether it lives.
    pub(super) fn is_elsewhere(&self, ticket: Ticket) -> bool {
        ticket.shard != self.roaming.shard
    }

    /// Takes a Refresh request that a user sends with a ticket, from where the client is now.
    // RFC 8016 section 3.2.2.
    pub(super) fn relocate(
        &mut self,
        cx: &mut Cx<'_>,
        from: Client,
        door: Door,
        request: &Request<'_>,
        user: &[u8],
        ticket: Ticket,
    ) -> Result<Moved, Code> {
        if self.is_elsewhere(ticket) {
            return self.forward(cx, &from, door, user, ticket.shard);
        }
        let (key, now) = (ticket.allocation, cx.now.mono);
        let is_live = self.expire(cx, key);
        let own = self.table.find(&from);
        let allocation = self.table.allocations.get(key).filter(|_| is_live);
        let named = allocation.and_then(|allocation| Some((allocation, allocation.mobility.as_ref()?)));
        let Some((allocation, mobility)) = named.filter(|(_, mobility)| mobility.name == ticket.name) else {
            return Err(Code::ALLOCATION_MISMATCH);
        };
        if allocation.owner.name() != user {
            return Err(Code::WRONG_CREDENTIALS);
        }
        if ticket.serial == mobility.serial {
            match own {
                Some(own) if own == key => return Err(Code::BAD_REQUEST),
                // The 5-tuple has an allocation of its own.
                Some(_) => return Err(Code::ALLOCATION_MISMATCH),
                None => {}
            }
            let secs = self.refresh(cx, key, request)?;
            if secs > 0 {
                self.forget_next(key);
                self.expect_at(key, from, now);
            }
            return Ok(Moved::Here(key, secs));
        }
        // "The old ticket can only be used for the purposes of retransmission."
        let is_newest = mobility.next.unwrap_or(allocation.client) == from;
        let is_recent = mobility.moved.is_some_and(|moved| now < moved + RETRANSMISSION);
        if ticket.serial.wrapping_add(1) != mobility.serial || !is_newest || !is_recent {
            return Err(Code::ALLOCATION_MISMATCH);
        }
        self.refresh(cx, key, request).map(|secs| Moved::Here(key, secs))
    }

    /// Answers a Refresh request with a ticket.
    pub(super) fn relocated(&self, cx: &mut Cx<'_>, from: &Client, form: &Form, moved: Moved) -> Verdict {
        let (key, secs) = match moved {
            Moved::Here(key, secs) => (key, secs),
            Moved::Elsewhere(shard) => return Verdict::to_shard(shard),
        };
        let ticket = self.ticket(key);
        let range = form.success(cx.made, |writer| {
            writer.u32(Kind::LIFETIME, secs);
            if let Some(ticket) = ticket {
                writer.attribute(Kind::MOBILITY_TICKET, &ticket);
            }
        });
        from.send(Prefix::NONE, Payload::Made(range))
    }

    /// Data of a client has come: where it comes from a place that the client has said it moves to, the move is over.
    // RFC 8016 section 3.2.2: the server continues on the old 5-tuple "until it receives a Send Indication or ChannelData
    // message from the client on the new 5-tuple".
    pub(super) fn data_came(&mut self, from: &Client) {
        if self.roaming.moving > 0
            && let Some(key) = self.table.find(from)
            && self.mobility(key).is_some_and(|mobility| mobility.next == Some(*from))
        {
            self.arrive(key);
        }
    }

    /// A connection of a client is gone; says whether its allocation stays, because the client is somewhere else too or
    /// has a ticket to come back by.
    // RFC 8016 section 3.2.2: the old 5-tuple is good until "a message from the client to close the old connection". Who
    // leaves a network before it is in the next one ("Break Before Make") closes it earlier.
    pub(super) fn goes_on_without(&mut self, key: Key, conn: ConnId) -> bool {
        let is_gone = |client: &Client| matches!(client, Client::Stream { conn: held, .. } if *held == conn);
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return false;
        };
        let client = allocation.client;
        let Some(mobility) = allocation.mobility.as_mut().filter(|_| allocation.pending.is_none()) else {
            return false;
        };
        match mobility.next {
            Some(next) if is_gone(&next) => self.forget_next(key),
            Some(_) => self.arrive(key),
            None => {
                mobility.is_away = true;
                self.table.unlink(&client);
            }
        }
        true
    }

    /// Gives up a move that no data has confirmed.
    pub(super) fn forget_next(&mut self, key: Key) {
        if let Some(next) = self.mobility(key).and_then(|mobility| mobility.next.take()) {
            self.table.unlink(&next);
            self.roaming.moving -= 1;
        }
    }

    /// To which shard the messages of a client go that has moved its allocation from there.
    pub(super) fn forwarded_to(&mut self, cx: &Cx<'_>, from: &Client) -> Option<ShardId> {
        if self.roaming.forwards.is_empty() {
            return None;
        }
        let lifetime = Duration::from_secs(self.limits.lifetime_max_secs.into());
        let now = cx.now.mono;
        self.roaming.forwards.home(from, now, now + lifetime)
    }

    /// The allocation is known by this client too from now on, under another ticket.
    fn expect_at(&mut self, key: Key, from: Client, now: Instant) {
        let Some(mobility) = self.mobility(key) else { return };
        mobility.serial = mobility.serial.wrapping_add(1);
        mobility.moved = Some(now);
        mobility.next = Some(from);
        let is_away = core::mem::take(&mut mobility.is_away);
        self.roaming.moving += 1;
        self.table.link(&from, key);
        if is_away {
            self.arrive(key);
        }
        tracing::debug!(client = %from.source(), "an allocation follows its client");
    }

    /// The client is where it said it would be.
    fn arrive(&mut self, key: Key) {
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return;
        };
        let next = allocation.mobility.as_mut().and_then(|mobility| mobility.next.take());
        if let Some(next) = next {
            let old = core::mem::replace(&mut allocation.client, next);
            self.table.unlink(&old);
            self.roaming.moving -= 1;
        }
    }

    /// Lets the messages of a client go to the shard of its allocation. A connection moves there itself; for datagrams,
    /// that is remembered, and counts for the user like an allocation.
    fn forward(&mut self, cx: &Cx<'_>, from: &Client, door: Door, user: &[u8], to: ShardId) -> Result<Moved, Code> {
        // What has an allocation here cannot have another one there, and what came from another shard would go in circles.
        if to.0 >= self.roaming.shards || door == Door::OtherShard || self.table.find(from).is_some() {
            return Err(Code::ALLOCATION_MISMATCH);
        }
        if matches!(from, Client::Stream { .. }) {
            return Ok(Moved::Elsewhere(to));
        }
        let owner = self.auth.owner(user);
        if self.table.count(owner.person()) >= self.limits.allocations_per_user_max {
            return Err(Code::ALLOCATION_QUOTA_REACHED);
        }
        if self.table.allocations.len() + self.roaming.forwards.len() >= self.limits.allocations_max {
            return Err(Code::INSUFFICIENT_CAPACITY);
        }
        self.table.count_up(owner.person(), 1);
        let expires = cx.now.mono + Duration::from_secs(self.limits.lifetime_max_secs.into());
        // One that has expired may not have been swept.
        if let Some(person) = self.roaming.forwards.insert(*from, to, owner.person(), expires) {
            self.table.count_down(&person);
        }
        self.sweep.start(cx.now.mono);
        Ok(Moved::Elsewhere(to))
    }

    fn mobility(&mut self, key: Key) -> Option<&mut Mobility> {
        self.table.allocations.get_mut(key)?.mobility.as_deref_mut()
    }
}
