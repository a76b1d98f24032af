//! What does the other end of relayed media do? It answers whoever talks to it, and goes on when it should have stopped.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::world::{
    actor::{Actor, Cx},
    agenda::{MS, SEC},
    net::{Notice, Owner},
};

/// Somebody with UDP sockets.
#[derive(Debug)]
pub struct Peer {
    sockets: Vec<SocketAddr>,
    /// Whom it has heard from, and by which of its sockets.
    known: BTreeSet<(SocketAddr, SocketAddr)>,
    sent: u64,
    is_resting: bool,
}

impl Peer {
    /// A peer at these addresses.
    pub fn new(sockets: Vec<SocketAddr>) -> Self {
        Self {
            sockets,
            known: BTreeSet::new(),
            sent: 0,
            is_resting: false,
        }
    }
}

impl Actor for Peer {
    fn start(&mut self, cx: &mut Cx<'_>) {
        for at in &self.sockets {
            cx.net.bind(*at, Owner::Actor(cx.me));
        }
        cx.between(0, 10 * SEC, 0);
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        if let Notice::Datagram { from, to, bytes } = notice {
            cx.met("a peer was reached by a relay");
            self.known.insert((to, from));
            let mut answer = b"echo of ".to_vec();
            answer.extend_from_slice(&bytes);
            cx.send(to, from, &answer);
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, _: u64) {
        if self.is_resting {
            return;
        }
        let known: Vec<_> = self.known.iter().copied().collect();
        if !known.is_empty() {
            let (at, to) = *cx.dice.pick(&known);
            // From the socket that was reached, or from another one, whose address has a permission all the same.
            let others = self.sockets.iter().filter(|other| other.is_ipv6() == at.is_ipv6());
            let others: Vec<SocketAddr> = others.copied().collect();
            let other = *cx.dice.pick(&others);
            let from = *cx.dice.pick(&[at, at, other]);
            for _ in 0..cx.dice.from_to(1, 5) {
                self.sent += 1;
                cx.met("a peer talked by itself");
                cx.send(from, to, format!("unasked {}", self.sent).as_bytes());
            }
        }
        cx.between(20 * MS, 20 * SEC, 0);
    }

    fn rest(&mut self) {
        self.is_resting = true;
    }

    fn leave(&mut self, _: &mut Cx<'_>) {
        self.rest();
    }

    fn outcome(&self) -> Vec<String> {
        Vec::new()
    }
}
