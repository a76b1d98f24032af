//! How do answers leave in few calls? What goes out by one socket in a row leaves by one call.

use std::{
    io::{self, IoSlice},
    os::fd::AsFd,
};

use arrayvec::ArrayVec;
use edgeward_core::action::{Egress, SocketId, Source, Transmit};

use crate::{
    counters::Counters,
    socket::Socket,
    sys::{self, MESSAGES_MAX, Message},
    table::Table,
};

/// Collects transmits and sends them, in their order, without copying what they name.
#[derive(Debug)]
pub(crate) struct Outbox<'a, 'b> {
    sockets: &'a mut Table<Socket>,
    counters: &'a mut Counters,
    /// What all messages are sent from.
    socket: SocketId,
    /// Whether they may not be fragmented on the way.
    dont_fragment: bool,
    messages: ArrayVec<Message, MESSAGES_MAX>,
    slices: ArrayVec<IoSlice<'b>, SLICES_MAX>,
}

impl<'a, 'b> Outbox<'a, 'b> {
    /// Sends what `fill` pushes.
    pub(crate) fn send(sockets: &'a mut Table<Socket>, counters: &'a mut Counters, fill: impl FnOnce(&mut Self)) {
        let mut outbox = Self {
            sockets,
            counters,
            socket: SocketId::Sip,
            dont_fragment: false,
            messages: ArrayVec::new(),
            slices: ArrayVec::new(),
        };
        fill(&mut outbox);
        outbox.flush();
    }

    /// Adds all transmits of an egress. `run` gives the bytes of a run by its index.
    pub(crate) fn push(&mut self, egress: &'b Egress, run: impl Fn(u32) -> &'b [u8]) {
        for transmit in &egress.transmits {
            self.push_one(transmit, egress, &run);
        }
    }

    fn push_one(&mut self, transmit: &Transmit, egress: &'b Egress, run: impl Fn(u32) -> &'b [u8]) {
        let pieces = &egress.pieces[transmit.pieces.clone()];
        let room = !self.messages.is_full() && self.slices.remaining_capacity() >= 2 * pieces.len();
        let dont_fragment = transmit.fields.dont_fragment;
        if !room || self.socket != transmit.socket || self.dont_fragment != dont_fragment {
            self.flush();
            (self.socket, self.dont_fragment) = (transmit.socket, dont_fragment);
        }
        let first = self.slices.len();
        for piece in pieces {
            let payload = match &piece.payload {
                Source::Run(index, range) => &run(*index)[range.clone()],
                Source::Made(range) => &egress.made[range.clone()],
            };
            // No slice is empty: where a train is sent apart, each datagram ends with the slice that fills it.
            let slices = [piece.prefix.as_slice(), payload];
            self.slices
                .extend(slices.into_iter().filter(|slice| !slice.is_empty()).map(IoSlice::new));
        }
        self.messages.push(Message {
            peer: transmit.peer,
            local: transmit.local,
            traffic_class: transmit.fields.traffic_class,
            segment: (pieces.len() > 1).then_some(transmit.segment as u16),
            datagrams: pieces.len(),
            slices: first..self.slices.len(),
        });
    }

    fn flush(&mut self) {
        match self.sockets.get_mut(self.socket) {
            Some(socket) => match socket.set_dont_fragment(self.dont_fragment) {
                Ok(()) => send(socket, &self.messages, &self.slices, self.counters),
                Err(_) => self.counters.dropped_refused += datagrams(&self.messages),
            },
            None => self.counters.dropped_closed += datagrams(&self.messages),
        }
        self.messages.clear();
        self.slices.clear();
    }
}

fn send(socket: &mut Socket, mut messages: &[Message], slices: &[IoSlice<'_>], counters: &mut Counters) {
    let mut retried = false;
    while let [first, rest @ ..] = messages {
        if first.segment.is_some() && !socket.trains {
            send_apart(socket, first, slices, counters);
            messages = rest;
            continue;
        }
        counters.send_calls += 1;
        match sys::send(socket.io.as_fd(), messages, slices) {
            Ok(count) => {
                let (sent, rest) = messages.split_at(count);
                counters.sent += datagrams(sent);
                messages = rest;
                retried = false;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                counters.dropped_full += datagrams(messages);
                return;
            }
            // Perhaps of a datagram sent before (ICMP); that is gone once told.
            Err(error) if !retried && !socket.is_too_large(&error) => retried = true,
            Err(error) if first.segment.is_some() => {
                // `EIO` is for good: the device cannot do it. Other errors are of this train, the datagrams of which
                // may be too large for the next link, say.
                socket.trains &= error.raw_os_error() != Some(libc::EIO);
                send_apart(socket, first, slices, counters);
                messages = rest;
                retried = false;
            }
            Err(_) => {
                counters.dropped_refused += 1;
                messages = rest;
                retried = false;
            }
        }
    }
}

/// Sends the datagrams of a train one by one.
fn send_apart(socket: &mut Socket, train: &Message, slices: &[IoSlice<'_>], counters: &mut Counters) {
    let segment = usize::from(train.segment.unwrap_or(0));
    let mut start = train.slices.start;
    let mut len = 0;
    for next in train.slices.clone() {
        len += slices[next].len();
        if len >= segment || next + 1 == train.slices.end {
            let datagram = Message {
                segment: None,
                datagrams: 1,
                slices: start..next + 1,
                ..*train
            };
            send(socket, &[datagram], slices, counters);
            (start, len) = (next + 1, 0);
        }
    }
}

fn datagrams(messages: &[Message]) -> u64 {
    messages.iter().map(|message| message.datagrams as u64).sum()
}

/// Slices in one call at most: two trains of the longest with prefixes, or a batch of single datagrams with theirs.
const SLICES_MAX: usize = 4 * Egress::SEGMENTS_MAX;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

    use edgeward_core::action::Prefix;

    use super::*;
    use crate::socket::Buffers;

    #[test]
    fn a_train_falls_apart_where_the_kernel_takes_none() -> io::Result<()> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let peer = UdpSocket::bind(any)?;
        let buffers = Buffers {
            receive_bytes: 100_000,
            send_bytes: 100_000,
        };
        let ours = UdpSocket::bind(any)?;
        let local = ours.local_addr()?;
        let mut socket = Socket::new(SocketId::Sip, ours, local, buffers)?;
        socket.trains = false;
        let mut sockets = Table::new();
        sockets.insert(SocketId::Sip, socket);

        let mut egress = Egress::default();
        let (whole, to) = (b"aaabbbc", peer.local_addr()?);
        for range in [0..3, 3..6, 6..7, 0..0, 0..0] {
            egress.push(SocketId::Sip, to, None, Prefix::four(*b"head"), Source::Run(0, range));
        }
        assert_eq!(egress.transmits.len(), 2);
        let mut counters = Counters::default();
        Outbox::send(&mut sockets, &mut counters, |outbox| outbox.push(&egress, |_| whole));

        let mut bytes = [0; 10];
        for expected in [b"headaaa".as_slice(), b"headbbb", b"headc", b"head", b"head"] {
            let len = peer.recv(&mut bytes)?;
            assert_eq!(&bytes[..len], expected);
        }
        assert_eq!((counters.sent, counters.send_calls), (5, 5));
        Ok(())
    }
}
