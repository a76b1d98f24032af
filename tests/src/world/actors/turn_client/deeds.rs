//! What does a TURN client do next? It asks for things, talks, forgets, and goes elsewhere.

use std::net::SocketAddr;

use super::{
    TurnClient,
    wish::{Families, Wish},
};
use crate::{
    peers::stun::{self, Message, attribute, method},
    world::{
        actor::Cx,
        agenda::{MS, SEC},
        site,
    },
};

impl TurnClient {
    pub(super) fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.is_resting || self.relayed.is_empty() {
            return;
        }
        let peer = self.some_peer(cx);
        match cx.dice.from_to(0, 16) {
            0..=1 => {
                let wish = Wish {
                    peer: Some(peer),
                    ..Wish::new(method::CREATE_PERMISSION)
                };
                self.request(cx, wish);
            }
            2 => {
                let channel = 0x4000 + cx.dice.from_to(0, 3) as u16;
                let wish = Wish {
                    peer: Some(peer),
                    channel: Some(channel),
                    ..Wish::new(method::CHANNEL_BIND)
                };
                self.request(cx, wish);
            }
            3..=6 => {
                let payload = self.payload(cx);
                let send = Message::indication(method::SEND).with_peer(peer);
                self.say(cx, &send.with(attribute::DATA, payload).encode());
            }
            7..=11 => {
                let channel = 0x4000 + cx.dice.from_to(0, 3) as u16;
                // A burst, as media comes.
                for _ in 0..cx.dice.from_to(1, 6) {
                    let payload = self.payload(cx);
                    self.say(cx, &stun::channel_data(channel, &payload));
                }
            }
            12 if !self.is_forgetful => {
                let lifetime = if cx.dice.happens(2_000) { 0 } else { 600 };
                let families = [Families::Unsaid, Families::Unsaid, Families::V4, Families::V6];
                let wish = Wish {
                    lifetime: Some(lifetime),
                    families: *cx.dice.pick(&families),
                    ..Wish::new(method::REFRESH)
                };
                self.request(cx, wish);
            }
            13 => {
                let bytes = Message::request(method::BINDING).encode();
                self.say(cx, &bytes);
            }
            // What is under way would come from an address that the server does not know.
            14 if self.ticket.is_some() && self.pending.is_empty() => return self.relocate(cx),
            _ => {
                // Long enough for a permission to end, sometimes for a channel or the allocation.
                cx.met("a TURN client was silent for long");
                let longest = if self.is_forgetful { 60 * SEC } else { 400 * SEC };
                return self.think(cx, 5 * SEC, longest);
            }
        }
        self.think(cx, 5 * MS, 3 * SEC);
    }

    fn some_peer(&self, cx: &mut Cx<'_>) -> SocketAddr {
        // Mostly of a family that it can reach.
        let has_v6 = self.relayed.iter().any(SocketAddr::is_ipv6);
        let is_v6 = cx.dice.happens(if has_v6 { 6_000 } else { 1_000 });
        match cx.dice.from_to(0, 9) {
            0 => *cx.dice.pick(&[
                site::BYSTANDER,
                // Whom media may be relayed to, and other things not.
                SocketAddr::new(site::media(0, is_v6), 5_060),
                SocketAddr::new(site::media(1, is_v6), 22),
            ]),
            1 => {
                let stranger = if is_v6 { site::STRANGER_V6 } else { site::STRANGER };
                SocketAddr::new(stranger, 5_000)
            }
            2 => {
                let (first, last) = site::RELAY_PORTS;
                let port = cx.dice.from_to(first.into(), last.into()) as u16;
                SocketAddr::new(
                    if is_v6 {
                        site::EDGE_OUTSIDE_V6
                    } else {
                        site::EDGE_OUTSIDE
                    },
                    port,
                )
            }
            _ => {
                let media = site::media(cx.dice.place(2), is_v6);
                SocketAddr::new(media, site::MEDIA_PORTS.0 + cx.dice.from_to(0, 2) as u16)
            }
        }
    }

    fn payload(&mut self, cx: &mut Cx<'_>) -> Vec<u8> {
        self.sent += 1;
        let mut payload = format!("media {} {} ", self.number, self.sent).into_bytes();
        let length = match cx.dice.from_to(0, 9) {
            0 => cx.dice.from_to(0, 1_400) as usize,
            _ => 160,
        };
        payload.resize(payload.len() + length, b'.');
        payload
    }
}
