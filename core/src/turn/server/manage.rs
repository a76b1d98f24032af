//! What may a client change about its allocation? Refresh, CreatePermission, ChannelBind. (RFC 8656 sections 8, 10, 12)

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::Server;
use crate::{
    action::Transport,
    cx::Cx,
    slab::Key,
    time::Instant,
    turn::{peers::Unbindable, request::Request},
    wire::{
        channel,
        stun::{Code, Family},
    },
};

impl Server {
    /// Sets the lifetime, or ends the allocation; returns the seconds that are left.
    pub(super) fn refresh(&mut self, cx: &mut Cx<'_>, key: Key, request: &Request<'_>) -> Result<u32, Code> {
        let now = cx.now.mono;
        let (lifetime, requested) = (request.lifetime()?, request.requested_family()?);
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return Err(Code::ALLOCATION_MISMATCH);
        };
        // RFC 8656 section 8.2: a family that "does not match the address family of the allocation" is a 443. Without
        // one, the request applies "to all current allocations" (section 8.1).
        let meant = |family: &Family| requested.is_none_or(|requested| requested == Ok(*family));
        let families = Family::ALL.map(|family| meant(&family) && allocation.relayed(family, now).is_some());
        if families == [false, false] {
            return Err(Code::PEER_ADDRESS_FAMILY_MISMATCH);
        }
        if lifetime == Some(0) {
            for family in Family::ALL.into_iter().filter(|family| families[*family as usize]) {
                self.release_family(now, key, family);
            }
            self.expire(cx, key);
            return Ok(0);
        }
        let secs = self.lifetime_secs(lifetime);
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return Err(Code::ALLOCATION_MISMATCH);
        };
        for (relayed, _) in allocation.relayed.iter_mut().zip(families).filter(|(_, meant)| *meant) {
            if let Some(relayed) = relayed {
                relayed.expires = now + Duration::from_secs(secs.into());
            }
        }
        Ok(secs)
    }

    /// Installs or refreshes a permission for each peer address, or none at all.
    pub(super) fn create_permission(&mut self, now: Instant, key: Key, request: &Request<'_>) -> Result<(), Code> {
        let peers = request.peers().collect::<Result<Vec<SocketAddr>, Code>>()?;
        if peers.is_empty() {
            return Err(Code::BAD_REQUEST);
        }
        let addresses: Vec<IpAddr> = peers.iter().map(|peer| self.policy.seen_address(peer.ip())).collect();
        for address in &addresses {
            self.check_family(key, *address, now)?;
        }
        if !addresses.iter().all(|address| self.policy.allows_address(*address)) {
            return Err(Code::FORBIDDEN);
        }
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return Err(Code::ALLOCATION_MISMATCH);
        };
        let permitted = allocation.peers.permit(&addresses, now, self.limits.permissions_max);
        permitted.then_some(()).ok_or(Code::INSUFFICIENT_CAPACITY)
    }

    /// Binds a channel to a peer, or refreshes it, and the permission with it.
    pub(super) fn channel_bind(&mut self, now: Instant, key: Key, request: &Request<'_>) -> Result<(), Code> {
        let (number, peer) = (request.channel()?, self.policy.seen(request.peer()?));
        if !channel::NUMBERS.contains(&number) {
            return Err(Code::BAD_REQUEST);
        }
        self.check_family(key, peer.ip(), now)?;
        if !self.policy.allows(peer) {
            return Err(Code::FORBIDDEN);
        }
        let address = self.policy.seen_address(peer.ip());
        let Some(allocation) = self.table.allocations.get_mut(key) else {
            return Err(Code::ALLOCATION_MISMATCH);
        };
        // Channels carry datagrams: RFC 6062 has none.
        if allocation.transport == Transport::Tcp {
            return Err(Code::FORBIDDEN);
        }
        let (channels_max, permissions_max) = (self.limits.channels_max, self.limits.permissions_max);
        let bound = allocation
            .peers
            .bind(number, peer, address, now, channels_max, permissions_max);
        bound.map_err(|unbindable| match unbindable {
            Unbindable::Taken => Code::BAD_REQUEST,
            Unbindable::Full => Code::INSUFFICIENT_CAPACITY,
        })
    }

    /// Whether the allocation has a relayed transport address of the family of this peer address.
    // RFC 8656 sections 10.2 and 12.2: if not, "the server MUST generate an error response with the 443".
    pub(super) fn check_family(&self, key: Key, address: IpAddr, now: Instant) -> Result<(), Code> {
        let allocation = self.table.allocations.get(key);
        let relayed = allocation.and_then(|allocation| allocation.relayed(Family::of(address), now));
        relayed.map(|_| ()).ok_or(Code::PEER_ADDRESS_FAMILY_MISMATCH)
    }
}
