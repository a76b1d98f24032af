//! What becomes of the requests of a TURN client? They are sent again, granted or refused.

use std::net::SocketAddr;

use super::{
    REPEAT, TRIES_MAX, Transport, TurnClient,
    wish::{Challenge, Families, Wish},
};
use crate::{
    peers::stun::{Class, Message, attribute, method},
    world::{
        actor::Cx,
        agenda::{MS, SEC},
        history::Seen,
        site,
    },
};

impl TurnClient {
    pub(super) fn request(&mut self, cx: &mut Cx<'_>, wish: Wish) {
        self.requests += 1;
        let pending = wish.ask(self.challenge.as_ref());
        self.say(cx, &pending.bytes);
        self.pending.insert(self.requests, pending);
        let patience = match self.transport {
            Transport::Udp => 500 * MS,
            Transport::Tcp | Transport::Tls => 40 * SEC,
        };
        cx.after(patience, REPEAT + self.requests);
    }

    pub(super) fn repeat(&mut self, cx: &mut Cx<'_>, number: u64) {
        let Some(pending) = self.pending.get_mut(&number) else {
            return;
        };
        pending.tries += 1;
        let tries = pending.tries;
        if self.transport != Transport::Udp || tries > TRIES_MAX {
            cx.note(|| "gives up on the TURN server".into());
            return self.lost(cx);
        }
        let bytes = pending.bytes.clone();
        self.say(cx, &bytes);
        cx.after((500 * MS) << (tries - 1), REPEAT + number);
    }

    pub(super) fn say(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) {
        match (&mut self.stream, self.transport) {
            (_, Transport::Udp) => cx.send(self.local, self.server, bytes),
            (Some(stream), _) => {
                let client = self.local;
                cx.checkers.see(cx.net.now(), &Seen::TurnUp { client, bytes });
                // RFC 8656 section 12.5.
                let mut padded = bytes.to_vec();
                padded.resize(bytes.len().next_multiple_of(4), 0);
                stream.write(cx, &padded);
                cx.note(|| format!("says {}", site::what(bytes)));
            }
            (None, _) => {}
        }
    }

    pub(super) fn hear_message(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) {
        // What comes unasked is no matter of this client alone.
        if bytes.windows(7).any(|window| window == b"echo of") {
            self.outcome.push("an echo".into());
        }
        if self.transport != Transport::Udp {
            let client = self.local;
            cx.see(&Seen::TurnDown { client, bytes });
            cx.note(|| format!("hears {}", site::what(bytes)));
        }
        let Some(message) = Message::decode(bytes) else {
            cx.met("media came by a channel");
            return;
        };
        if message.class == Class::Indication {
            cx.met("media came by an indication");
            return;
        }
        let found = self
            .pending
            .iter()
            .find(|(_, pending)| pending.transaction == message.transaction);
        let Some(number) = found.map(|(number, _)| *number) else {
            return;
        };
        let pending = self.pending.remove(&number).expect("found above");
        match message.error_code() {
            None => self.granted(cx, &pending.wish, &message),
            Some(401 | 438) if self.challenge.is_none() || message.error_code() == Some(438) => {
                self.challenge = Some(Challenge::of(&message));
                if message.error_code() == Some(438) {
                    cx.met("a nonce was stale");
                }
                self.request(cx, pending.wish);
            }
            Some(code) => self.refused(cx, &pending.wish, code),
        }
    }

    fn granted(&mut self, cx: &mut Cx<'_>, wish: &Wish, answer: &Message) {
        if let Some(ticket) = answer.attribute(attribute::MOBILITY_TICKET) {
            self.used_ticket = self.ticket.replace(ticket.to_vec());
        }
        match wish.method {
            method::ALLOCATE => {
                self.relayed = answer.addresses(attribute::XOR_RELAYED_ADDRESS);
                cx.met(match self.transport {
                    Transport::Udp => "an allocation by UDP",
                    Transport::Tcp => "an allocation by TCP",
                    Transport::Tls => "an allocation by TLS",
                });
                match self.relayed[..] {
                    [SocketAddr::V6(_)] => cx.met("an allocation of IPv6"),
                    [_, _] => cx.met("an allocation of both families"),
                    _ => {}
                }
                self.outcome.push(format!("allocated {}", self.relayed.len()));
                self.think(cx, MS, SEC);
            }
            method::REFRESH if wish.ticket.is_some() => {
                cx.met("an allocation followed its client");
                self.outcome.push("moved".into());
                self.think(cx, MS, SEC);
            }
            method::REFRESH if answer.attribute(attribute::LIFETIME) == Some(&[0; 4]) => {
                self.outcome.push("deleted".into());
                self.relayed.retain(|relayed| match wish.families {
                    Families::V4 => relayed.is_ipv6(),
                    Families::V6 => relayed.is_ipv4(),
                    Families::Unsaid | Families::Both => false,
                });
                match self.relayed.is_empty() {
                    true => self.lost(cx),
                    false => cx.met("half of an allocation ended"),
                }
            }
            method::CREATE_PERMISSION => self.outcome.push("permitted".into()),
            method::CHANNEL_BIND => {
                self.channels.extend(wish.channel.zip(wish.peer));
                self.outcome.push("bound".into());
            }
            _ => {}
        }
    }

    fn refused(&mut self, cx: &mut Cx<'_>, wish: &Wish, code: u16) {
        cx.note(|| format!("is refused with {code}"));
        cx.met("a TURN request was refused");
        self.outcome.push(format!("method {} refused: {code}", wish.method));
        if wish.ticket.is_some() && wish.ticket == self.used_ticket {
            cx.met("a ticket was not good twice");
        }
        // RFC 8656 section 7.2: 437, the allocation is gone.
        if wish.method == method::ALLOCATE || wish.ticket.is_some() || code == 437 {
            self.lost(cx);
        }
    }
}
