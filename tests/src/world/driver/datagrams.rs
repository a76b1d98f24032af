//! How do datagrams come to a shard, and leave it? Through sockets that fill up, as trains, on the shard of their sender.

use std::net::{IpAddr, SocketAddr};

use edgeward_core::action::{Icmp, Input, IoKind, Run, SocketId};

use super::{Cx, Edge, INBOX_MAX, Sabotage, Task, now};
use crate::world::{
    agenda::{Event, US},
    history::Seen,
    site,
};

impl Edge {
    pub(super) fn datagram(&mut self, cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let (shard, socket) = match self.relays.get(&to) {
            Some((shard, relay)) => (*shard, SocketId::Relay(*relay)),
            None => (self.shard_of(from), self.shared_socket(to)),
        };
        let inbox = self.cores[shard].inboxes.entry(socket).or_default();
        if inbox.len() >= INBOX_MAX {
            cx.net.met.count("a socket was full");
            return;
        }
        inbox.push((from, bytes));
        if inbox.len() == 1 {
            let delay = cx.net.from_to(0, 300) * US;
            cx.net.agenda.after(delay, Event::Edge(Task::Poll(shard, socket)));
        }
    }

    pub(super) fn unreachable(&mut self, cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr) {
        let (shard, socket) = match self.relays.get(&from) {
            Some((shard, relay)) => (*shard, SocketId::Relay(*relay)),
            None => (self.shard_of(to), self.shared_socket(from)),
        };
        cx.net.met.count("a datagram came to nothing");
        // Port unreachable, by RFC 792 and RFC 4443 section 3.1.
        let (kind, code) = if to.is_ipv6() { (1, 4) } else { (3, 3) };
        let icmp = Icmp { kind, code, mtu: 0 };
        self.handle(cx, shard, Input::SocketError(socket, to, IoKind::Refused, Some(icmp)));
    }

    pub(super) fn poll(&mut self, cx: &mut Cx<'_>, shard: usize, socket: SocketId) {
        let Some(mut inbox) = self.cores[shard].inboxes.remove(&socket) else {
            return;
        };
        if self.sabotage == Some(Sabotage::CrossVia) {
            inbox.iter_mut().for_each(|(_, bytes)| self.cross_via(bytes));
        }
        let Some(at) = self.address(shard, socket) else { return };
        let now_sim = cx.net.now();
        for (from, bytes) in &inbox {
            let (from, to) = (*from, at);
            cx.checkers.see(now_sim, &Seen::ToEdge { from, to, bytes });
        }
        // Datagrams of one sender that are of one length come as one run, as UDP_GRO joins them.
        let mut runs: Vec<(SocketAddr, usize, Vec<u8>)> = Vec::new();
        let mut is_open = false;
        for (from, bytes) in inbox {
            match runs.last_mut() {
                Some((peer, stride, run))
                    if is_open && *peer == from && bytes.len() <= *stride && !bytes.is_empty() =>
                {
                    cx.net.met.count("datagrams came as a train");
                    is_open = bytes.len() == *stride;
                    run.extend_from_slice(&bytes);
                }
                _ => {
                    is_open = !bytes.is_empty();
                    runs.push((from, bytes.len(), bytes));
                }
            }
        }
        let views: Vec<Run<'_>> = runs
            .iter()
            .map(|(peer, stride, bytes)| Run {
                stride: *stride,
                ..Run::one(*peer, bytes)
            })
            .collect();
        let core = &mut self.cores[shard];
        core.shard.datagrams(now(cx), socket, &views, &mut core.egress);
        self.settle(cx, shard, &views);
    }

    /// The name of a socket that each shard has.
    fn shared_socket(&self, at: SocketAddr) -> SocketId {
        let turn = self.config.turn_sockets().iter().position(|turn| *turn == at);
        turn.map_or(SocketId::Sip, |place| SocketId::Turn(place as u16))
    }

    /// A 4-tuple stays with one shard, as the kernel hashes it.
    fn shard_of(&self, from: SocketAddr) -> usize {
        let ip = match from.ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits() as u64,
        };
        let mixed = (ip ^ u64::from(from.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed as usize % self.cores.len()
    }

    pub(super) fn send(&mut self, cx: &mut Cx<'_>, shard: usize, runs: &[Run<'_>]) {
        let egress = std::mem::take(&mut self.cores[shard].egress);
        let mut gathered = Vec::new();
        for transmit in &egress.transmits {
            egress.gather(transmit, |run| runs[run as usize].bytes, &mut gathered);
            // A socket that is closed already sends nothing.
            let Some(from) = self.address(shard, transmit.socket) else {
                continue;
            };
            let to = match self.sabotage {
                Some(Sabotage::Misdirect) if matches!(transmit.socket, SocketId::Relay(_)) => site::BYSTANDER,
                _ => transmit.peer,
            };
            let segments = match gathered.is_empty() {
                true => vec![&[][..]],
                false => gathered.chunks(transmit.segment.max(1)).collect(),
            };
            for bytes in segments {
                cx.checkers.see(cx.net.now(), &Seen::FromEdge { from, to, bytes });
                let arrives = cx.net.send_datagram(from, to, bytes);
                cx.trace.datagram(cx.net.now(), from, to, bytes, arrives);
            }
        }
        self.cores[shard].egress = egress;
        self.cores[shard].egress.clear();
    }

    fn address(&self, shard: usize, socket: SocketId) -> Option<SocketAddr> {
        match socket {
            SocketId::Turn(place) => self.config.turn_sockets().get(usize::from(place)).copied(),
            SocketId::Sip => self.config.sip.as_ref().map(|sip| sip.listen),
            SocketId::Relay(relay) => self.cores[shard].relays.get(&relay).map(|(at, _)| *at),
        }
    }
}
