//! Where does this data go? The way of every relayed packet. (RFC 8656 sections 11 and 12)

use core::{net::SocketAddr, ops::Range};

use super::{Server, dropped};
use crate::{
    action::{ConnId, Icmp, Prefix, RelayId, SocketId, Transport},
    cx::Cx,
    slab::Key,
    time::{Instant, Now},
    turn::{
        request::is_unknown,
        table::{Allocation, Client, Relayed},
        verdict::{IpHeader, Payload, To, Verdict},
    },
    wire::{
        channel::{self, ChannelData},
        stun::{Class, Family, Header, Kind, Message, Method, TransactionId, Writer, read_address},
    },
};

/// The largest datagram: what an IPv4 packet has room for.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The largest STUN message: what its length field can say.
const MESSAGE_BYTES_MAX: usize = 20 + 65_532;

impl Server {
    /// Client to peer, by channel.
    // RFC 8656 section 12.6: on a channel that is not bound, "the message is silently discarded". A packet refreshes
    // neither channel nor permission.
    pub(super) fn channel_data(&mut self, cx: &mut Cx<'_>, from: &Client, bytes: &[u8]) -> Verdict {
        let now = cx.now.mono;
        let Some(data) = ChannelData::parse(bytes) else {
            return dropped(cx);
        };
        let Some((key, allocation)) = self.allocation_of(from) else {
            return dropped(cx);
        };
        // The policy was asked when the channel was bound.
        let Some(peer) = allocation.peers.peer_of(data.number, now) else {
            return dropped(cx);
        };
        let relayed = allocation.relayed(Family::of(peer.ip()), now).copied();
        self.to_peer(cx, key, relayed, peer, bytes, data.payload)
    }

    /// Client to peer, by Send indication.
    // RFC 8656 section 11.2: whatever is missing, wrong or not allowed, "the message is discarded".
    pub(super) fn send(&mut self, cx: &mut Cx<'_>, from: &Client, message: &Message<'_>, bytes: &[u8]) -> Verdict {
        let (mut peer, mut data, mut dont_fragment) = (None, None, false);
        for attribute in message.attributes() {
            match attribute.kind {
                Kind::XOR_PEER_ADDRESS if peer.is_none() => peer = Some(attribute.value),
                Kind::DATA if data.is_none() => data = Some(attribute.range),
                Kind::DONT_FRAGMENT => dont_fragment = true,
                kind if is_unknown(kind) => return dropped(cx),
                _ => {}
            }
        }
        let (Some(peer), Some(data), Some((key, allocation))) = (peer, data, self.allocation_of(from)) else {
            return dropped(cx);
        };
        let Some(peer) = read_address(peer, message.header().transaction) else {
            return dropped(cx);
        };
        let peer = self.policy.seen(peer);
        if !self.may_exchange(cx, allocation, peer) {
            return dropped(cx);
        }
        let relayed = allocation.relayed(Family::of(peer.ip()), cx.now.mono).copied();
        let verdict = self.to_peer(cx, key, relayed, peer, bytes, data);
        match verdict.to {
            To::Datagram {
                socket: SocketId::Relay(_),
                peer,
                ..
            } if dont_fragment && is_whole(from, peer) => Verdict {
                header: IpHeader::RelayedWhole,
                ..verdict
            },
            _ => verdict,
        }
    }

    /// Takes one datagram that arrived at a relayed transport address, for the client: by channel where there is one.
    pub fn peer(&mut self, cx: &mut Cx<'_>, relay: RelayId, from: SocketAddr, bytes: &[u8]) -> Verdict {
        let peer = self.policy.seen(from);
        if self.policy.is_relayed(peer) && !self.may_come_back(cx, relay, peer) {
            return dropped(cx);
        }
        self.to_client(cx, relay, peer, bytes, 0..bytes.len())
    }

    /// Whether a packet may come by the socket from a relayed transport address of ours: not from one of this shard, whose
    /// packets take the short way, and from those of other shards only so many.
    // RFC 8656 section 21.1.7: what goes round in a loop of allocations comes by here in each round.
    fn may_come_back(&mut self, cx: &Cx<'_>, relay: RelayId, peer: SocketAddr) -> bool {
        let now = cx.now.mono;
        let (None, Some(relay)) = (self.relay_at(peer), self.table.relays.get(relay.0)) else {
            return false;
        };
        let Some(allocation) = self.table.allocations.get_mut(relay.allocation) else {
            return false;
        };
        let admitted = allocation.returned.admits(now);
        if admitted {
            allocation.returned.charge(self.rates.returned, now, 1);
        }
        admitted
    }

    /// Peer to client: `range` of `bytes` came from `peer`, under the name that [`Policy::seen`] gives it, to a relayed
    /// transport address.
    ///
    /// [`Policy::seen`]: crate::turn::policy::Policy::seen
    fn to_client(
        &mut self,
        cx: &mut Cx<'_>,
        relay: RelayId,
        peer: SocketAddr,
        bytes: &[u8],
        range: Range<usize>,
    ) -> Verdict {
        let now = cx.now.mono;
        // Of a TCP allocation peers know the address as well, and datagrams of ours go there without a socket.
        let relayed = self.allocation_at(relay);
        let Some((key, allocation)) = relayed.filter(|(_, allocation)| allocation.transport == Transport::Udp) else {
            return dropped(cx);
        };
        if allocation
            .relayed(Family::of(peer.ip()), now)
            .is_none_or(|relayed| relayed.relay != relay)
        {
            return dropped(cx);
        }
        let (datagram, stream) = (DATAGRAM_BYTES_MAX, MESSAGE_BYTES_MAX);
        let room = if matches!(allocation.client, Client::Stream { .. }) {
            stream
        } else {
            datagram
        };
        // RFC 8656 section 12.5: the server "MUST use the ChannelData message if a channel has been bound to the peer".
        let (client, len) = (allocation.client, range.len());
        let channel = allocation.peers.channel_of(peer, now);
        let fits = match channel {
            Some(_) => channel::HEADER_BYTES + len <= room && len <= usize::from(u16::MAX),
            // RFC 8656 section 9: without a permission, "the server silently discards the UDP datagram".
            None => self.may_exchange(cx, allocation, peer) && data_indication_len(peer, len) <= room,
        };
        if !fits {
            return dropped(cx);
        }
        if !self.meter(cx, key, len) {
            return Verdict::NOTHING;
        }
        cx.stats.turn.to_client += 1;
        cx.stats.turn.to_client_bytes += len as u64;
        if let Some(number) = channel {
            let prefix = Prefix::four(channel::header(number, len as u16));
            return client.relay(prefix, Payload::Input(range));
        }
        let made = data_indication(cx, peer, |writer| writer.attribute(Kind::DATA, &bytes[range]));
        client.relay(Prefix::NONE, Payload::Made(made))
    }

    /// Takes notice that a datagram to `peer` came to nothing, and tells the client.
    // RFC 8656 section 11.5: the permission that counts is that of the encapsulated packet's destination, of which "only
    // addresses are compared", since the port may not be known and is zero then; and "the server forms and sends a Data
    // indication" even where a channel is bound.
    pub fn socket_error(&self, cx: &mut Cx<'_>, relay: RelayId, peer: SocketAddr, icmp: Icmp) -> Verdict {
        let Some((_, allocation)) = self.allocation_at(relay) else {
            return Verdict::NOTHING;
        };
        let peer = self.policy.seen(peer);
        let family = Family::of(peer.ip());
        let live = allocation
            .relayed(family, cx.now.mono)
            .is_some_and(|relayed| relayed.relay == relay);
        let Some(value) = icmp_value(family, icmp) else {
            return Verdict::NOTHING;
        };
        let address = self.policy.seen_address(peer.ip());
        if !live || !allocation.peers.permits(address, cx.now.mono) || !self.policy.allows_address(peer.ip()) {
            return Verdict::NOTHING;
        }
        let range = data_indication(cx, peer, |writer| writer.attribute(Kind::ICMP, &value));
        allocation.client.send(Prefix::NONE, Payload::Made(range))
    }

    /// Sends part of a client's message to a peer that it may send to, by its relayed transport address.
    #[inline]
    fn to_peer(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        relayed: Option<Relayed>,
        peer: SocketAddr,
        bytes: &[u8],
        data: Range<usize>,
    ) -> Verdict {
        let Some(relayed) = relayed else {
            return dropped(cx);
        };
        if !self.meter(cx, key, data.len()) {
            return Verdict::NOTHING;
        }
        cx.stats.turn.to_peer += 1;
        cx.stats.turn.to_peer_bytes += data.len() as u64;
        // The way from one relayed transport address of ours to another needs no socket. It ends at a client, so there
        // is never a second hop within one call.
        if let Some(other) = self.relay_at(peer) {
            return match self.address_of(key, Family::of(peer.ip())) {
                Some(address) => self.to_client(cx, other, address, bytes, data),
                None => dropped(cx),
            };
        }
        Verdict {
            to: To::Datagram {
                socket: SocketId::Relay(relayed.relay),
                peer: self.policy.reached(peer),
                local: None,
            },
            header: IpHeader::Relayed,
            prefix: Prefix::NONE,
            payload: Payload::Input(data),
        }
    }

    /// Whether there is a permission for the peer's address, and the policy lets address and port through.
    pub(super) fn may_exchange(&self, cx: &Cx<'_>, allocation: &Allocation, peer: SocketAddr) -> bool {
        let address = self.policy.seen_address(peer.ip());
        allocation.peers.permits(address, cx.now.mono) && self.policy.allows(peer)
    }

    /// Whether so many bytes of an allocation may pass now; if so, they are charged.
    #[inline]
    fn meter(&mut self, cx: &mut Cx<'_>, key: Key, bytes: usize) -> bool {
        if self.rates.are_off() || self.table.charge(key, &self.rates, cx.now.mono, bytes).is_ok() {
            return true;
        }
        cx.stats.turn.limited += 1;
        false
    }

    /// Charges bytes of a connection with a peer to its allocation, as those of datagrams are.
    ///
    /// # Errors
    /// When the limit is reached: from when on more may pass. A stream loses nothing, it waits.
    pub fn charge_connection(&mut self, now: Now, peer: ConnId, bytes: usize) -> Result<(), Instant> {
        if self.rates.are_off() {
            return Ok(());
        }
        let connection = self.connections.of_conn(peer);
        match connection.and_then(|key| self.connections.get(key)) {
            Some(connection) => self.table.charge(connection.allocation, &self.rates, now.mono, bytes),
            None => Ok(()),
        }
    }

    /// The allocation by which a client may exchange datagrams.
    fn allocation_of(&self, client: &Client) -> Option<(Key, &Allocation)> {
        let key = self.table.find(client)?;
        let allocation = self.table.allocations.get(key)?;
        (allocation.transport == Transport::Udp).then_some((key, allocation))
    }

    pub(super) fn allocation_at(&self, relay: RelayId) -> Option<(Key, &Allocation)> {
        let key = self.table.relays.get(relay.0)?.allocation;
        Some((key, self.table.allocations.get(key)?))
    }

    /// The relayed transport address of an allocation, as peers see it.
    fn address_of(&self, key: Key, family: Family) -> Option<SocketAddr> {
        self.table.allocations.get(key)?.addresses[family as usize]
    }

    /// The socket of this shard that has this relayed transport address.
    fn relay_at(&self, address: SocketAddr) -> Option<RelayId> {
        let pool = self.pools[Family::of(address.ip()) as usize].as_ref()?;
        let ours = pool.relay.advertise == address.ip();
        ours.then(|| pool.bound.get(&address.port()).copied())?
    }
}

/// Writes a Data indication about a peer.
fn data_indication(cx: &mut Cx<'_>, peer: SocketAddr, fill: impl FnOnce(&mut Writer<'_>)) -> Range<usize> {
    let header = Header {
        class: Class::Indication,
        method: Method::DATA,
        transaction: TransactionId(cx.rng.bytes()),
    };
    let mut writer = Writer::new(cx.made, header);
    writer.address(Kind::XOR_PEER_ADDRESS, peer);
    fill(&mut writer);
    writer.finish()
}

/// How long a Data indication with `data` bytes of a peer is: header, address and data.
fn data_indication_len(peer: SocketAddr, data: usize) -> usize {
    let address = if peer.is_ipv4() { 8 } else { 20 };
    20 + (4 + address) + (4 + data.next_multiple_of(4))
}

/// Whether a DONT-FRAGMENT of this client counts for this peer.
// RFC 8656 section 13: between the families and from IPv6 to IPv6, it "MUST be ignored by the server", but "only [...]
// for UDP-to-UDP relay and not for TCP-to-UDP relay".
fn is_whole(client: &Client, peer: SocketAddr) -> bool {
    matches!(client, Client::Stream { .. }) || client.source().is_ipv4() && peer.is_ipv4()
}

/// The value of the ICMP attribute; `None` where the client is not told.
// RFC 8656 section 11.5: "the type is either 3 or 11 for an ICMPv4 packet or either 1, 2, or 3 for an ICMPv6 packet".
// Section 18.13: two reserved bytes, type, code, and four bytes that are the MTU where the message is about that.
fn icmp_value(family: Family, icmp: Icmp) -> Option<[u8; 8]> {
    let mtu = match (family, icmp.kind, icmp.code) {
        (Family::V4, 3, 4) | (Family::V6, 2, _) => icmp.mtu,
        (Family::V4, 3 | 11, _) | (Family::V6, 1 | 3, _) => 0,
        _ => return None,
    };
    let [a, b, c, d] = mtu.to_be_bytes();
    Some([0, 0, icmp.kind, icmp.code, a, b, c, d])
}
