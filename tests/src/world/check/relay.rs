//! Is nothing relayed without a permission that lives, an allowed peer, and somebody who has sent it?
//!
//! This is a model of RFC 8656 of its own. It reads requests and answers as they pass the edge, keeps who may talk to whom
//! until when, and holds each relayed datagram against that. Of clients that come by a stream it sees only what they
//! themselves write and read, so that a permission may begin a little earlier there than it is known, and end later.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use client::Client;

use crate::{
    peers::stun::{self, Class, Message, attribute, hmac_sha1, long_term_key, method},
    world::{
        agenda::{SEC, Time},
        history::Seen,
        site,
    },
};

/// RFC 8656 section 9.
const PERMISSION: Time = 300 * SEC;
/// RFC 8656 section 12.
const CHANNEL: Time = 600 * SEC;

mod client;

/// Everything that is allocated, and what is under way to and from it.
#[derive(Debug, Default)]
pub struct Relay {
    clients: Vec<Client>,
    /// Which client is there; one that moves is at several addresses (RFC 8016).
    places: BTreeMap<SocketAddr, usize>,
    /// Whose relayed address this is.
    relays: BTreeMap<SocketAddr, usize>,
    /// Relayed addresses whose sockets are open.
    bound: BTreeSet<SocketAddr>,
    tickets: BTreeMap<Vec<u8>, Ticket>,
}

type Payloads = BTreeMap<(SocketAddr, Vec<u8>), u32>;

/// What lets an allocation follow its client.
#[derive(Debug)]
struct Ticket {
    client: usize,
    /// Where to it has done so.
    used_at: Option<SocketAddr>,
}

impl Relay {
    /// Something has happened.
    ///
    /// # Errors
    /// With what must not be.
    pub fn see(&mut self, now: Time, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::ToEdge { from, to, bytes } if is_server(*to) => {
                self.said(now, *from, bytes, false);
                Ok(())
            }
            Seen::TurnUp { client, bytes } => {
                self.said(now, *client, bytes, true);
                Ok(())
            }
            Seen::FromEdge { from, to, bytes } if is_server(*from) => self.heard(now, *to, bytes),
            Seen::TurnDown { client, bytes } => self.heard(now, *client, bytes),
            Seen::ToEdge { from, to, bytes } if site::is_outside(to.ip()) => {
                self.from_peer(now, *to, *from, bytes);
                Ok(())
            }
            Seen::FromEdge { from, to, bytes } if site::is_outside(from.ip()) => self.to_peer(now, *from, *to, bytes),
            Seen::Relay { at, is_there: true } => {
                self.bound.insert(*at);
                Ok(())
            }
            Seen::Relay { at, is_there: false } => {
                self.bound.remove(at);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The client at an address, who may be new.
    fn at(&mut self, place: SocketAddr) -> usize {
        let clients = &mut self.clients;
        *self.places.entry(place).or_insert_with(|| {
            clients.push(Client::default());
            clients.len() - 1
        })
    }

    /// A client has said something to the edge.
    fn said(&mut self, now: Time, from: SocketAddr, bytes: &[u8], is_stream: bool) {
        let number = self.at(from);
        let client = &mut self.clients[number];
        client.is_stream |= is_stream;
        if let Some((channel, payload)) = channel_data(bytes) {
            let peers: Vec<SocketAddr> = client.peers_of(channel, now).collect();
            if is_stream {
                client.said.push((channel, payload.to_vec()));
            }
            for peer in peers {
                self.sent(now, number, peer, payload);
            }
            return;
        }
        let Some(message) = Message::decode(bytes) else { return };
        match (message.class, message.method) {
            (Class::Indication, method::SEND) => {
                let (peer, data) = (
                    message.address(attribute::XOR_PEER_ADDRESS),
                    message.attribute(attribute::DATA),
                );
                if let (Some(peer), Some(data)) = (peer, data) {
                    self.sent(now, number, peer, data);
                }
            }
            (Class::Request, _) if is_signed(bytes) => {
                if message.method == method::CHANNEL_BIND && is_stream && client.has_moved {
                    client.said_too_early(&message);
                }
                client.asked.insert(message.transaction, message);
            }
            _ => {}
        }
    }

    /// A client has something for a peer. Where the peer is relayed as well, it need not cross the network.
    fn sent(&mut self, now: Time, number: usize, peer: SocketAddr, payload: &[u8]) {
        let client = &mut self.clients[number];
        *client.up.entry((peer, payload.to_vec())).or_default() += 1;
        if !client.may_talk(now, peer) {
            return;
        }
        let own = self.relays.iter();
        let own = own.filter(|(relayed, owner)| **owner == number && relayed.is_ipv6() == peer.is_ipv6());
        let own: Vec<SocketAddr> = own.map(|(relayed, _)| *relayed).collect();
        for relayed in own {
            self.from_peer(now, peer, relayed, payload);
        }
    }

    /// A client hears something from the edge.
    fn heard(&mut self, now: Time, to: SocketAddr, bytes: &[u8]) -> Result<(), String> {
        let number = self.at(to);
        let client = &mut self.clients[number];
        if let Some((channel, payload)) = channel_data(bytes) {
            let peers: Vec<SocketAddr> = client.peers_of(channel, now).collect();
            return match peers.iter().any(|peer| take(&mut client.down, *peer, payload)) {
                true => Ok(()),
                false => Err(format!(
                    "{to} was sent {} bytes by channel {channel:#x}, which no allowed peer sent",
                    payload.len()
                )),
            };
        }
        let Some(message) = Message::decode(bytes) else {
            return Ok(());
        };
        match (message.class, message.method) {
            (Class::Indication, method::DATA) => {
                let (Some(peer), Some(data)) = (
                    message.address(attribute::XOR_PEER_ADDRESS),
                    message.attribute(attribute::DATA),
                ) else {
                    return Ok(());
                };
                match take(&mut client.down, peer, data) {
                    true => Ok(()),
                    false => Err(format!(
                        "{to} was sent {} bytes that {peer} was not allowed to send",
                        data.len()
                    )),
                }
            }
            (Class::Success, method::BINDING) => Ok(()),
            (Class::Success, _) => self.granted(now, to, &message),
            _ => Ok(()),
        }
    }

    fn granted(&mut self, now: Time, to: SocketAddr, answer: &Message) -> Result<(), String> {
        let mut number = self.at(to);
        // A request that was lost behind its answer is answered once more, so it stays.
        let Some(request) = self.clients[number].asked.get(&answer.transaction).cloned() else {
            return Err(format!("{to} was granted what it had not asked for with a password"));
        };
        let lifetime = answer
            .attribute(attribute::LIFETIME)
            .and_then(|value| value.try_into().ok())
            .map(|bytes| Time::from(u32::from_be_bytes(bytes)) * SEC);
        match request.method {
            method::ALLOCATE => self.allocated(now, to, &request, answer, lifetime)?,
            method::REFRESH => {
                if let Some(ticket) = request.attribute(attribute::MOBILITY_TICKET) {
                    number = self.moved(now, to, ticket)?;
                }
                let family = request.attribute(attribute::REQUESTED_ADDRESS_FAMILY);
                self.clients[number].refreshed(now, family, lifetime.unwrap_or(0));
            }
            method::CREATE_PERMISSION => {
                for peer in request.addresses(attribute::XOR_PEER_ADDRESS) {
                    self.clients[number].permissions.insert(peer.ip(), now + PERMISSION);
                }
            }
            method::CHANNEL_BIND => {
                let client = &mut self.clients[number];
                for peer in request.addresses(attribute::XOR_PEER_ADDRESS) {
                    client.permissions.insert(peer.ip(), now + PERMISSION);
                    let channel = channel_number(&request);
                    client.channels.entry(channel).or_default().insert(peer, now + CHANNEL);
                }
            }
            _ => {}
        }
        if let Some(ticket) = answer.attribute(attribute::MOBILITY_TICKET) {
            let new = Ticket {
                client: number,
                used_at: None,
            };
            self.tickets.entry(ticket.to_vec()).or_insert(new);
        }
        Ok(())
    }

    fn allocated(
        &mut self,
        now: Time,
        to: SocketAddr,
        request: &Message,
        answer: &Message,
        lifetime: Option<Time>,
    ) -> Result<(), String> {
        let number = self.at(to);
        let relayed = answer.addresses(attribute::XOR_RELAYED_ADDRESS);
        let (false, Some(lifetime)) = (relayed.is_empty(), lifetime) else {
            return Err(format!(
                "{to} was granted an allocation without an address or a lifetime"
            ));
        };
        // RFC 8656 section 7.2: IPv4 where nothing is asked for; of two families perhaps one.
        let is_asked = |is_v6| match request.attribute(attribute::REQUESTED_ADDRESS_FAMILY) {
            Some(family) => family == if is_v6 { stun::IPV6 } else { stun::IPV4 },
            None => !is_v6 || request.attribute(attribute::ADDITIONAL_ADDRESS_FAMILY).is_some(),
        };
        let is_one_each = relayed.len() == 1 || relayed.len() == 2 && relayed[0].is_ipv6() != relayed[1].is_ipv6();
        if !is_one_each || !relayed.iter().all(|relayed| is_asked(relayed.is_ipv6())) {
            return Err(format!("{to} was granted {relayed:?}, which is not what it asked for"));
        }
        for relayed in relayed {
            let client = &mut self.clients[number];
            if self.relays.insert(relayed, number) != Some(number) {
                client.permissions.clear();
                client.channels.clear();
            }
            client.expires[usize::from(relayed.is_ipv6())] = now + lifetime;
        }
        Ok(())
    }

    /// An allocation has followed its client here; tells whose it is.
    fn moved(&mut self, now: Time, to: SocketAddr, ticket: &[u8]) -> Result<usize, String> {
        let Some(ticket) = self.tickets.get_mut(ticket) else {
            return Err(format!("{to} moved an allocation with a ticket that nobody was given"));
        };
        // RFC 8016 section 3.2.2: "The old ticket can only be used for the purposes of retransmission."
        if *ticket.used_at.get_or_insert(to) != to {
            return Err(format!(
                "{to} moved an allocation with a ticket that was used at {:?}",
                ticket.used_at
            ));
        }
        let (home, here) = (ticket.client, self.at(to));
        if home == here {
            return Ok(home);
        }
        let found = std::mem::take(&mut self.clients[here]);
        if !found.is_stream && found.expires.iter().any(|until| now < *until) {
            return Err(format!("{to} moved an allocation to where it has another one"));
        }
        let client = &mut self.clients[home];
        client.is_stream |= found.is_stream;
        client.has_moved = true;
        client.asked.extend(found.asked);
        for (payloads, more) in [(&mut client.up, found.up), (&mut client.down, found.down)] {
            for (payload, count) in more {
                *payloads.entry(payload).or_default() += count;
            }
        }
        self.places.insert(to, home);
        Ok(home)
    }

    fn from_peer(&mut self, now: Time, relayed: SocketAddr, peer: SocketAddr, bytes: &[u8]) {
        if let Some(owner) = self.relays.get(&relayed) {
            let client = &mut self.clients[*owner];
            if client.may_talk(now, peer) {
                *client.down.entry((peer, bytes.to_vec())).or_default() += 1;
            }
        }
    }

    fn to_peer(&mut self, now: Time, relayed: SocketAddr, peer: SocketAddr, bytes: &[u8]) -> Result<(), String> {
        if !self.bound.contains(&relayed) {
            return Err(format!("{relayed} sends to {peer}, but is not there"));
        }
        if !site::is_allowed_peer(peer) || peer.is_ipv6() != relayed.is_ipv6() {
            return Err(format!("{relayed} relays to {peer}, which nobody may"));
        }
        let Some(owner) = self.relays.get(&relayed) else {
            return Err(format!("{relayed} relays to {peer}, but belongs to nobody"));
        };
        let client = &mut self.clients[*owner];
        if !client.may_talk(now, peer) {
            return Err(format!(
                "{relayed} relays to {peer} for somebody whose permission does not live"
            ));
        }
        match take(&mut client.up, peer, bytes) {
            true => Ok(()),
            false => Err(format!(
                "{relayed} relays {} bytes to {peer} that its client has not sent",
                bytes.len()
            )),
        }
    }
}

/// Whether TURN clients are served there.
fn is_server(at: SocketAddr) -> bool {
    [site::TURN, site::TURN_V6].contains(&at)
}

fn take(payloads: &mut Payloads, peer: SocketAddr, bytes: &[u8]) -> bool {
    let Some(count) = payloads.get_mut(&(peer, bytes.to_vec())).filter(|count| **count > 0) else {
        return false;
    };
    *count -= 1;
    true
}

fn channel_number(request: &Message) -> u16 {
    match request.attribute(attribute::CHANNEL_NUMBER) {
        Some([first, second, ..]) => u16::from_be_bytes([*first, *second]),
        _ => 0,
    }
}

/// RFC 8656 section 12.4.
fn channel_data(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let [a, b, c, d] = *bytes.first_chunk()?;
    let (channel, length) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let payload = bytes.get(4..4 + usize::from(length))?;
    (0x4000..=0x4fff).contains(&channel).then_some((channel, payload))
}

/// Whether a user of ours has signed it (RFC 8489 section 14.5).
fn is_signed(bytes: &[u8]) -> bool {
    let Some(message) = Message::decode(bytes) else {
        return false;
    };
    let user = message
        .attribute(attribute::USERNAME)
        .and_then(|user| std::str::from_utf8(user).ok());
    let known = site::TURN_USERS.iter().find(|(name, _)| Some(*name) == user);
    let (Some((name, password)), Some(signature)) = (known, message.attribute(attribute::MESSAGE_INTEGRITY)) else {
        return false;
    };
    let Some(at) = bytes
        .windows(24)
        .position(|window| window[..4] == [0, 8, 0, 20] && window[4..] == *signature)
    else {
        return false;
    };
    let mut covered = bytes[..at].to_vec();
    let length = (at + 24 - 20) as u16;
    covered[2..4].copy_from_slice(&length.to_be_bytes());
    hmac_sha1(&long_term_key(name, site::REALM.as_bytes(), password), &covered) == signature
}

#[cfg(test)]
mod tests;
