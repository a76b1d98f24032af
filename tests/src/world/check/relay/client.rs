//! Who may talk to this client, until when, and by which channel?

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{Payloads, channel_number};
use crate::{
    peers::stun::{self, Message, attribute, method},
    world::agenda::Time,
};

/// One client.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) is_stream: bool,
    pub(super) asked: BTreeMap<[u8; 12], Message>,
    /// Until when it has a relayed address of IPv4, and of IPv6.
    pub(super) expires: [Time; 2],
    pub(super) permissions: BTreeMap<IpAddr, Time>,
    /// Whom a channel has ever been bound to, and until when.
    pub(super) channels: BTreeMap<u16, BTreeMap<SocketAddr, Time>>,
    /// Whether its allocation has followed it. What is still on its way by the connection that it has left may come behind
    /// what it says by the new one.
    pub(super) has_moved: bool,
    /// What it has said by channels.
    pub(super) said: Vec<(u16, Vec<u8>)>,
    /// Payloads that may yet go to a peer, with how often.
    pub(super) up: Payloads,
    /// Payloads that may yet come from a peer.
    pub(super) down: Payloads,
}

impl Client {
    /// RFC 8656 section 8.1: without a family, the request is about all that there are.
    pub(super) fn refreshed(&mut self, now: Time, family: Option<&[u8]>, lifetime: Time) {
        for (place, meant) in [stun::IPV4, stun::IPV6].into_iter().enumerate() {
            let is_there = now <= self.expires[place] || self.is_stream && self.expires[place] > 0;
            if is_there && family.is_none_or(|family| family == meant) {
                self.expires[place] = now + lifetime;
            }
        }
    }

    /// What was said by a channel that is bound only now may yet come to its peer.
    pub(super) fn said_too_early(&mut self, bind: &Message) {
        for peer in bind.addresses(attribute::XOR_PEER_ADDRESS) {
            let said = self.said.iter();
            for (_, payload) in said.filter(|(channel, _)| *channel == channel_number(bind)) {
                *self.up.entry((peer, payload.clone())).or_default() += 1;
            }
        }
    }

    /// Whether this peer and the client may talk now.
    pub(super) fn may_talk(&self, now: Time, peer: SocketAddr) -> bool {
        let expires = self.expires[usize::from(peer.is_ipv6())];
        let is_allocated = now <= expires || self.is_stream && self.has_asked(method::REFRESH, |_| true);
        let is_permitted = self.permissions.get(&peer.ip()).is_some_and(|until| now <= *until);
        let is_for_peer = |request: &Message| {
            let peers = request.addresses(attribute::XOR_PEER_ADDRESS);
            peers.iter().any(|other| other.ip() == peer.ip())
        };
        let is_asked = || {
            self.has_asked(method::CREATE_PERMISSION, is_for_peer) || self.has_asked(method::CHANNEL_BIND, is_for_peer)
        };
        is_allocated && (is_permitted || self.is_stream && is_asked())
    }

    /// Of a stream nobody knows when the edge takes a request: whether there was such a one.
    fn has_asked(&self, method: u16, fits: impl Fn(&Message) -> bool) -> bool {
        self.asked
            .values()
            .any(|request| request.method == method && fits(request))
    }

    /// Whom a channel may stand for.
    pub(super) fn peers_of(&self, channel: u16, now: Time) -> impl Iterator<Item = SocketAddr> {
        let bound = self.channels.get(&channel).into_iter().flatten();
        let bound = bound.filter(move |(_, until)| now <= **until || self.is_stream);
        let asked = self.asked.values().filter(move |request| {
            self.is_stream && request.method == method::CHANNEL_BIND && channel_number(request) == channel
        });
        let asked = asked.flat_map(|request| request.addresses(attribute::XOR_PEER_ADDRESS));
        let found: BTreeSet<SocketAddr> = bound.map(|(peer, _)| *peer).chain(asked).collect();
        found.into_iter()
    }
}
