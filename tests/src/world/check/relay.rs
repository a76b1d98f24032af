//! Is nothing relayed without a permission that lives, an allowed peer, and somebody who has sent it?
//!
//! This is a model of RFC 8656 of its own. It reads requests and answers as they pass the edge, keeps who may talk to whom
//! until when, and holds each relayed datagram against that. Of clients that come by a stream it sees only what they
//! themselves write and read, so that a permission may begin a little earlier there than it is known, and end later.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    peers::stun::{Class, Message, attribute, hmac_sha1, long_term_key, method},
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

/// Everything that is allocated, and what is under way to and from it.
#[derive(Debug, Default)]
pub struct Relay {
    clients: BTreeMap<SocketAddr, Client>,
    /// Whose relayed address this is.
    relays: BTreeMap<SocketAddr, SocketAddr>,
    /// Relayed addresses whose sockets are open.
    bound: BTreeSet<SocketAddr>,
}

/// One client, by its address.
#[derive(Debug, Default)]
struct Client {
    is_stream: bool,
    asked: BTreeMap<[u8; 12], Message>,
    expires: Time,
    permissions: BTreeMap<IpAddr, Time>,
    /// Whom a channel has ever been bound to, and until when.
    channels: BTreeMap<u16, BTreeMap<SocketAddr, Time>>,
    /// Payloads that may yet go to a peer, with how often.
    up: Payloads,
    /// Payloads that may yet come from a peer.
    down: Payloads,
}

type Payloads = BTreeMap<(SocketAddr, Vec<u8>), u32>;

impl Relay {
    /// Something has happened.
    ///
    /// # Errors
    /// With what must not be.
    pub fn see(&mut self, now: Time, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::ToEdge { from, to, bytes } if *to == site::TURN => {
                self.said(now, *from, bytes, false);
                Ok(())
            }
            Seen::TurnUp { client, bytes } => {
                self.said(now, *client, bytes, true);
                Ok(())
            }
            Seen::FromEdge { from, to, bytes } if *from == site::TURN => self.heard(now, *to, bytes),
            Seen::TurnDown { client, bytes } => self.heard(now, *client, bytes),
            Seen::ToEdge { from, to, bytes } if to.ip() == site::EDGE_OUTSIDE => {
                self.from_peer(now, *to, *from, bytes);
                Ok(())
            }
            Seen::FromEdge { from, to, bytes } if from.ip() == site::EDGE_OUTSIDE => {
                self.to_peer(now, *from, *to, bytes)
            }
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

    /// A client has said something to the edge.
    fn said(&mut self, now: Time, from: SocketAddr, bytes: &[u8], is_stream: bool) {
        let client = self.clients.entry(from).or_default();
        client.is_stream = is_stream;
        if let Some((channel, payload)) = channel_data(bytes) {
            let peers: Vec<SocketAddr> = client.peers_of(channel, now).collect();
            for peer in peers {
                self.sent(now, from, peer, payload);
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
                    self.sent(now, from, peer, data);
                }
            }
            (Class::Request, _) if is_signed(bytes) => {
                client.asked.insert(message.transaction, message);
            }
            _ => {}
        }
    }

    /// A client has something for a peer. Where the peer is relayed as well, it need not cross the network.
    fn sent(&mut self, now: Time, from: SocketAddr, peer: SocketAddr, payload: &[u8]) {
        let client = self.clients.entry(from).or_default();
        *client.up.entry((peer, payload.to_vec())).or_default() += 1;
        let own = self.relays.iter().filter(|(_, owner)| **owner == from);
        let own: Vec<SocketAddr> = own.map(|(relayed, _)| *relayed).collect();
        if client.may_talk(now, peer) {
            for relayed in own {
                self.from_peer(now, peer, relayed, payload);
            }
        }
    }

    /// A client hears something from the edge.
    fn heard(&mut self, now: Time, to: SocketAddr, bytes: &[u8]) -> Result<(), String> {
        if let Some((channel, payload)) = channel_data(bytes) {
            let client = self.clients.entry(to).or_default();
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
        let client = self.clients.entry(to).or_default();
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
        let client = self.clients.entry(to).or_default();
        // A request that was lost behind its answer is answered once more, so it stays.
        let Some(request) = client.asked.get(&answer.transaction).cloned() else {
            return Err(format!("{to} was granted what it had not asked for with a password"));
        };
        let lifetime = answer
            .attribute(attribute::LIFETIME)
            .and_then(|value| value.try_into().ok())
            .map(|bytes| Time::from(u32::from_be_bytes(bytes)) * SEC);
        match request.method {
            method::ALLOCATE => {
                let relayed = answer.address(attribute::XOR_RELAYED_ADDRESS);
                let (Some(relayed), Some(lifetime)) = (relayed, lifetime) else {
                    return Err(format!(
                        "{to} was granted an allocation without an address or a lifetime"
                    ));
                };
                if self.relays.insert(relayed, to) != Some(to) {
                    client.permissions.clear();
                    client.channels.clear();
                }
                client.expires = now + lifetime;
            }
            method::REFRESH => client.expires = now + lifetime.unwrap_or(0),
            method::CREATE_PERMISSION => {
                for peer in peers(&request) {
                    client.permissions.insert(peer.ip(), now + PERMISSION);
                }
            }
            method::CHANNEL_BIND => {
                for peer in peers(&request) {
                    client.permissions.insert(peer.ip(), now + PERMISSION);
                    let channel = channel_number(&request);
                    client.channels.entry(channel).or_default().insert(peer, now + CHANNEL);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn from_peer(&mut self, now: Time, relayed: SocketAddr, peer: SocketAddr, bytes: &[u8]) {
        if let Some(client) = self
            .relays
            .get(&relayed)
            .and_then(|client| self.clients.get_mut(client))
            && client.may_talk(now, peer)
        {
            *client.down.entry((peer, bytes.to_vec())).or_default() += 1;
        }
    }

    fn to_peer(&mut self, now: Time, relayed: SocketAddr, peer: SocketAddr, bytes: &[u8]) -> Result<(), String> {
        if !self.bound.contains(&relayed) {
            return Err(format!("{relayed} sends to {peer}, but is not there"));
        }
        if !site::is_allowed_peer(peer) {
            return Err(format!("{relayed} relays to {peer}, which nobody may"));
        }
        let owner = self.relays.get(&relayed);
        let Some((owner, client)) = owner.and_then(|owner| Some((owner, self.clients.get_mut(owner)?))) else {
            return Err(format!("{relayed} relays to {peer}, but belongs to nobody"));
        };
        if !client.may_talk(now, peer) {
            return Err(format!(
                "{relayed} relays to {peer} for {owner}, whose permission does not live"
            ));
        }
        match take(&mut client.up, peer, bytes) {
            true => Ok(()),
            false => Err(format!(
                "{relayed} relays {} bytes to {peer} that {owner} has not sent",
                bytes.len()
            )),
        }
    }
}

impl Client {
    /// Whether this peer and the client may talk now.
    fn may_talk(&self, now: Time, peer: SocketAddr) -> bool {
        let is_allocated = now <= self.expires || self.is_stream && self.has_asked(method::REFRESH, |_| true);
        let is_permitted = self.permissions.get(&peer.ip()).is_some_and(|until| now <= *until);
        let is_for_peer = |request: &Message| peers(request).iter().any(|other| other.ip() == peer.ip());
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
    fn peers_of(&self, channel: u16, now: Time) -> impl Iterator<Item = SocketAddr> {
        let bound = self.channels.get(&channel).into_iter().flatten();
        let bound = bound.filter(move |(_, until)| now <= **until || self.is_stream);
        let asked = self.asked.values().filter(move |request| {
            self.is_stream && request.method == method::CHANNEL_BIND && channel_number(request) == channel
        });
        let found: BTreeSet<SocketAddr> = bound.map(|(peer, _)| *peer).chain(asked.flat_map(peers)).collect();
        found.into_iter()
    }
}

fn take(payloads: &mut Payloads, peer: SocketAddr, bytes: &[u8]) -> bool {
    let Some(count) = payloads.get_mut(&(peer, bytes.to_vec())).filter(|count| **count > 0) else {
        return false;
    };
    *count -= 1;
    true
}

fn peers(request: &Message) -> Vec<SocketAddr> {
    let values = request.attributes.iter();
    let values = values.filter(|(kind, _)| *kind == attribute::XOR_PEER_ADDRESS);
    values
        .filter_map(|value| {
            let one = Message {
                attributes: vec![value.clone()],
                ..request.clone()
            };
            one.address(attribute::XOR_PEER_ADDRESS)
        })
        .collect()
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
mod tests {
    use super::*;
    use crate::peers::stun;

    const CLIENT: &str = "198.51.100.1:1000";
    const RELAYED: &str = "192.0.2.1:30000";
    const PEER: &str = "10.0.0.2:10000";

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn request(method: u16) -> Message {
        Message::request(method).with(attribute::USERNAME, site::TURN_USERS[0].0)
    }

    fn sign(request: &Message) -> Vec<u8> {
        let (name, password) = site::TURN_USERS[0];
        request.encode_signed(&long_term_key(name, site::REALM.as_bytes(), password))
    }

    /// A client with an allocation and a permission for a peer since time 0.
    fn allocated() -> Relay {
        let mut relay = Relay::default();
        let allocate = request(method::ALLOCATE);
        let mut granted = Message {
            class: Class::Success,
            attributes: Vec::new(),
            ..allocate.clone()
        }
        .with_peer(at(RELAYED))
        .with(attribute::LIFETIME, 600_u32.to_be_bytes());
        granted.attributes[0].0 = attribute::XOR_RELAYED_ADDRESS;
        relay
            .see(
                0,
                &Seen::Relay {
                    at: at(RELAYED),
                    is_there: true,
                },
            )
            .expect("a socket");
        grant(&mut relay, &allocate, &granted);
        let permit = request(method::CREATE_PERMISSION).with_peer(at(PEER));
        let granted = Message {
            class: Class::Success,
            attributes: Vec::new(),
            ..permit.clone()
        };
        grant(&mut relay, &permit, &granted);
        relay
    }

    fn grant(relay: &mut Relay, request: &Message, answer: &Message) {
        to_edge(relay, 0, CLIENT, &site::TURN.to_string(), &sign(request)).expect("a request");
        from_edge(relay, 0, &site::TURN.to_string(), CLIENT, &answer.encode()).expect("an answer");
    }

    fn to_edge(relay: &mut Relay, now: Time, from: &str, to: &str, bytes: &[u8]) -> Result<(), String> {
        let (from, to) = (at(from), at(to));
        relay.see(now, &Seen::ToEdge { from, to, bytes })
    }

    fn from_edge(relay: &mut Relay, now: Time, from: &str, to: &str, bytes: &[u8]) -> Result<(), String> {
        let (from, to) = (at(from), at(to));
        relay.see(now, &Seen::FromEdge { from, to, bytes })
    }

    fn send(peer: &str) -> Vec<u8> {
        let send = Message::indication(method::SEND).with_peer(at(peer));
        send.with(attribute::DATA, *b"data").encode()
    }

    #[test]
    fn what_may_not_be_relayed_to_a_peer_is_found() {
        let check = |now, peer, payload: &[u8]| {
            let relay = &mut allocated();
            to_edge(relay, now, CLIENT, &site::TURN.to_string(), &send(peer)).expect("an indication");
            from_edge(relay, now, RELAYED, peer, payload)
        };
        assert_eq!(check(PERMISSION, PEER, b"data"), Ok(()));
        check(PERMISSION + 1, PEER, b"data").expect_err("a permission that has ended");
        check(0, PEER, b"dat").expect_err("other data");
        check(0, "10.0.0.3:10000", b"data").expect_err("a peer without a permission");
        check(0, "10.0.0.2:22", b"data").expect_err("a peer that nobody may reach");
    }

    #[test]
    fn what_may_not_be_relayed_to_a_client_is_found() {
        let check = |now, peer: &str, payload: &[u8]| {
            let relay = &mut allocated();
            to_edge(relay, now, peer, RELAYED, b"data").expect("a datagram");
            let data = Message::indication(method::DATA).with_peer(at(peer));
            let data = data.with(attribute::DATA, payload).encode();
            from_edge(relay, now, &site::TURN.to_string(), CLIENT, &data)
        };
        assert_eq!(check(PERMISSION, PEER, b"data"), Ok(()));
        check(PERMISSION + 1, PEER, b"data").expect_err("a permission that has ended");
        check(0, PEER, b"atad").expect_err("other data");
        check(0, "10.0.0.3:10000", b"data").expect_err("a peer without a permission");
        let mut unbound = allocated();
        let data = stun::channel_data(0x4000, b"data");
        from_edge(&mut unbound, 0, &site::TURN.to_string(), CLIENT, &data).expect_err("a channel that is not bound");
    }

    #[test]
    fn what_is_granted_without_a_password_is_found() {
        let permit = request(method::CREATE_PERMISSION).with_peer(at(PEER));
        let wrong = [permit.encode(), permit.encode_signed(b"wrong")];
        let granted = Message {
            class: Class::Success,
            attributes: Vec::new(),
            ..permit
        };
        for bytes in wrong {
            let relay = &mut Relay::default();
            to_edge(relay, 0, CLIENT, &site::TURN.to_string(), &bytes).expect("a request");
            from_edge(relay, 0, &site::TURN.to_string(), CLIENT, &granted.encode()).expect_err("no password");
        }
    }
}
