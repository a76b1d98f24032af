//! Whom may this allocation exchange data with, and by which channel? (RFC 8656 sections 9 and 12)

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::few::Few;
use crate::{time::Instant, wire::stun::Family};

/// How long a permission lasts.
// RFC 8656 section 9: "The Permission Lifetime MUST be 300 seconds".
pub(super) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// How long a channel binding lasts.
// RFC 8656 section 12: "A channel binding lasts for 10 minutes unless refreshed."
pub(super) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// Permissions and channels of one allocation. What has expired is not found, whether it has been swept or not.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Peers {
    /// Sorted by number. A packet of a peer looks through them all, which are few: a list that can be searched by peer
    /// would cost more than it saves.
    channels: Few<Channel>,
    /// Sorted by address.
    permissions: Few<Permission>,
}

#[derive(Debug)]
struct Permission {
    address: IpAddr,
    expires: Instant,
}

#[derive(Debug)]
#[repr(C)]
struct Channel {
    /// When it or the permission of its peer's address expires, whichever comes first: so a packet needs one look-up.
    open_until: Instant,
    peer: SocketAddr,
    number: u16,
    /// The peer's address as permissions know it.
    address: IpAddr,
    expires: Instant,
}

/// Why a channel was not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unbindable {
    /// The number has another peer, or the peer another number.
    Taken,
    /// There are as many channels or permissions as there may be.
    Full,
}

impl Peers {
    /// Installs or refreshes a permission for each address, or changes nothing and returns `false` when there would be
    /// more than `permissions_max`.
    pub(super) fn permit(&mut self, addresses: &[IpAddr], now: Instant, permissions_max: usize) -> bool {
        self.sweep(now);
        let mut new: Vec<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| self.find(*address).is_err())
            .collect();
        new.sort_unstable();
        new.dedup();
        if self.permissions.len() + new.len() > permissions_max {
            return false;
        }
        for address in addresses {
            self.install(*address, now);
        }
        true
    }

    /// Binds a channel, or refreshes it, and the permission of the peer's `address` with it.
    pub(super) fn bind(
        &mut self,
        number: u16,
        peer: SocketAddr,
        address: IpAddr,
        now: Instant,
        channels_max: usize,
        permissions_max: usize,
    ) -> Result<(), Unbindable> {
        self.channels.retain(|channel| channel.expires > now);
        // RFC 8656 section 12.2: "The channel number is not currently bound to a different transport address", and "The
        // transport address is not currently bound to a different channel number".
        let clash = |channel: &Channel| (channel.number == number) != (channel.peer == peer);
        if self.channels.iter().any(clash) {
            return Err(Unbindable::Taken);
        }
        let place = self.channels.binary_search_by_key(&number, |channel| channel.number);
        if place.is_err() && self.channels.len() >= channels_max || !self.permit(&[address], now, permissions_max) {
            return Err(Unbindable::Full);
        }
        let channel = Channel {
            number,
            peer,
            address,
            open_until: now + PERMISSION_LIFETIME.min(CHANNEL_LIFETIME),
            expires: now + CHANNEL_LIFETIME,
        };
        match place {
            Ok(place) => self.channels[place] = channel,
            Err(place) => self.channels.insert(place, channel),
        }
        Ok(())
    }

    /// The peer that is bound to a channel and has a permission.
    pub(super) fn peer_of(&self, number: u16, now: Instant) -> Option<SocketAddr> {
        let place = self
            .channels
            .binary_search_by_key(&number, |channel| channel.number)
            .ok()?;
        let channel = &self.channels[place];
        (now < channel.open_until).then_some(channel.peer)
    }

    /// The channel that is bound to a peer who has a permission.
    pub(super) fn channel_of(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        let channel = self.channels.iter().find(|channel| channel.peer == peer)?;
        (now < channel.open_until).then_some(channel.number)
    }

    /// Whether there is a permission for an address.
    pub(super) fn permits(&self, address: IpAddr, now: Instant) -> bool {
        self.find(address)
            .is_ok_and(|place| self.permissions[place].expires > now)
    }

    /// Whether there is a permission for anybody.
    pub(super) fn is_any(&self, now: Instant) -> bool {
        self.permissions.iter().any(|permission| permission.expires > now)
    }

    /// Lets go of what has expired.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.permissions.retain(|permission| permission.expires > now);
        self.channels.retain(|channel| channel.expires > now);
    }

    /// Lets go of the channels to peers that are not wanted.
    pub(super) fn retain_channels(&mut self, wanted: impl Fn(SocketAddr) -> bool) {
        self.channels.retain(|channel| wanted(channel.peer));
    }

    /// Lets go of one family.
    pub(super) fn forget(&mut self, family: Family) {
        self.permissions
            .retain(|permission| Family::of(permission.address) != family);
        self.channels.retain(|channel| Family::of(channel.peer.ip()) != family);
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.permissions.bytes() + self.channels.bytes()
    }

    fn find(&self, address: IpAddr) -> Result<usize, usize> {
        self.permissions
            .binary_search_by_key(&address, |permission| permission.address)
    }

    fn install(&mut self, address: IpAddr, now: Instant) {
        let expires = now + PERMISSION_LIFETIME;
        match self.find(address) {
            Ok(place) => self.permissions[place].expires = expires,
            Err(place) => self.permissions.insert(place, Permission { address, expires }),
        }
        for channel in self.channels.iter_mut().filter(|channel| channel.address == address) {
            channel.open_until = expires.min(channel.expires);
        }
    }
}
