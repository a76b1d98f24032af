//! What does a TURN client want of its server? One request, however often it has to be made.

use std::net::SocketAddr;

use crate::{
    peers::stun::{self, Message, attribute, long_term_key, method},
    world::site,
};

/// What a request is for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) method: u16,
    pub(super) peer: Option<SocketAddr>,
    pub(super) channel: Option<u16>,
    pub(super) lifetime: Option<u32>,
    pub(super) families: Families,
    /// MOBILITY-TICKET: an empty one asks for one.
    pub(super) ticket: Option<Vec<u8>>,
}

/// Which relayed addresses it is about (RFC 8656 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Families {
    Unsaid,
    V4,
    V6,
    Both,
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) wish: Wish,
    pub(super) transaction: [u8; 12],
    pub(super) bytes: Vec<u8>,
    /// How often it was sent.
    pub(super) tries: u32,
}

/// REALM and NONCE.
#[derive(Debug)]
pub(super) struct Challenge {
    realm: Vec<u8>,
    nonce: Vec<u8>,
}

impl Wish {
    pub(super) const fn new(method: u16) -> Self {
        Self {
            method,
            peer: None,
            channel: None,
            lifetime: None,
            families: Families::Unsaid,
            ticket: None,
        }
    }

    /// A request for this, signed as soon as there is a nonce.
    pub(super) fn ask(self, challenge: Option<&Challenge>) -> Pending {
        let request = self.message();
        let transaction = request.transaction;
        let bytes = match challenge {
            None => request.encode(),
            Some(Challenge { realm, nonce }) => {
                let (name, password) = site::TURN_USERS[0];
                let signed = request.with(attribute::USERNAME, name);
                let signed = signed.with(attribute::REALM, realm.clone());
                let key = long_term_key(name, realm, password);
                signed.with(attribute::NONCE, nonce.clone()).encode_signed(&key)
            }
        };
        Pending {
            wish: self,
            transaction,
            bytes,
            tries: 1,
        }
    }

    fn message(&self) -> Message {
        let mut message = Message::request(self.method);
        if self.method == method::ALLOCATE {
            message = message.with(attribute::REQUESTED_TRANSPORT, stun::UDP);
        }
        if let Some(channel) = self.channel {
            let [a, b] = channel.to_be_bytes();
            message = message.with(attribute::CHANNEL_NUMBER, [a, b, 0, 0]);
        }
        if let Some(lifetime) = self.lifetime {
            message = message.with(attribute::LIFETIME, lifetime.to_be_bytes());
        }
        message = match self.families {
            Families::Unsaid => message,
            Families::V4 => message.with(attribute::REQUESTED_ADDRESS_FAMILY, stun::IPV4),
            Families::V6 => message.with(attribute::REQUESTED_ADDRESS_FAMILY, stun::IPV6),
            Families::Both => message.with(attribute::ADDITIONAL_ADDRESS_FAMILY, stun::IPV6),
        };
        if let Some(ticket) = &self.ticket {
            message = message.with(attribute::MOBILITY_TICKET, ticket.clone());
        }
        match self.peer {
            Some(peer) => message.with_peer(peer),
            None => message,
        }
    }
}

impl Challenge {
    /// What a refusal wants the next request to be signed with.
    pub(super) fn of(refusal: &Message) -> Self {
        let take = |kind| refusal.attribute(kind).unwrap_or_default().to_vec();
        Self {
            realm: take(attribute::REALM),
            nonce: take(attribute::NONCE),
        }
    }
}
