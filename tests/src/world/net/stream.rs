//! What becomes of the bytes of a connection? They come in their order, in other pieces, late, or not at all.

use std::{collections::VecDeque, net::SocketAddr};

use super::{Net, Notice, Owner, Refusal};
use crate::world::agenda::{Event, MS, SEC, Time, US};

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// Which connection.
    pub tcp: u32,
    /// 0 has called, 1 was called.
    pub side: u8,
}

impl End {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        Self {
            tcp: self.tcp,
            side: 1 - self.side,
        }
    }
}

/// A connection that takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) halves: [Half; 2],
    pub(super) addresses: [SocketAddr; 2],
    /// Bytes on their way to one end, or unread there, at the most.
    room: usize,
    /// The call was answered.
    pub(super) is_open: bool,
    /// Nothing passes any more, and nobody knows.
    is_black: bool,
}

/// What one end knows, and what is on its way to it.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) owner: Option<Owner>,
    pub(super) refused: Option<Refusal>,
    flight: VecDeque<(Time, Segment)>,
    unread: usize,
    last_arrival: Time,
    is_armed: bool,
    is_unread: bool,
    /// What is to be written as soon as there is room.
    outbox: Vec<u8>,
    wants_room: bool,
    wants_fin: bool,
    fin_sent: bool,
    /// What still comes is of no interest to anybody.
    pub(super) gone: bool,
}

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    Fin,
    Rst,
}

/// Read at once at the most.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long a closed end waits until its last bytes are written, and then until the other end has closed as well.
const LINGER: [Time; 2] = [30 * SEC, 3 * SEC];

impl Tcp {
    pub(super) fn new(caller: Owner, addresses: [SocketAddr; 2], room: usize) -> Self {
        let mut halves = [Half::default(), Half::default()];
        halves[0].owner = Some(caller);
        Self {
            halves,
            addresses,
            room,
            is_open: false,
            is_black: false,
        }
    }
}

impl Net {
    /// Writes as much as there is room for, as a kernel does; [`Notice::Room`] tells when there is more.
    ///
    /// # Errors
    /// When the other end has broken the connection.
    pub fn write(&mut self, end: End, bytes: &[u8]) -> Result<usize, Broken> {
        if !self.is_up(end) || self.is_broken(end) {
            return Err(Broken);
        }
        if !self.half(end).outbox.is_empty() {
            self.half(end).wants_room = true;
            return Ok(0);
        }
        Ok(self.push(end, bytes))
    }

    /// Writes everything, sooner or later.
    pub fn send(&mut self, end: End, bytes: &[u8]) {
        if self.is_up(end) {
            self.half(end).outbox.extend_from_slice(bytes);
            self.flush(end);
        }
    }

    /// Reads on, or leaves what comes where it is.
    pub fn set_reading(&mut self, end: End, reading: bool) {
        if self.is_up(end) {
            self.half(end).is_unread = !reading;
            self.arm(end);
        }
    }

    /// Ends our direction behind all that was written.
    pub fn shut(&mut self, end: End) {
        if self.is_up(end) {
            self.half(end).wants_fin = true;
            self.flush(end);
        }
    }

    /// Says the last words and lets go, as who closes a socket in good order.
    pub fn close(&mut self, end: End, last_words: &[u8]) {
        if !self.is_up(end) {
            return;
        }
        self.send(end, last_words);
        let half = self.half(end);
        (half.owner, half.is_unread, half.wants_fin) = (None, false, true);
        self.agenda.after(LINGER[0], Event::Lingered(end));
        self.flush(end);
        self.arm(end);
    }

    /// Breaks the connection.
    pub fn reset(&mut self, end: End) {
        if self.is_up(end) {
            self.end(end);
            self.put(end.other(), Segment::Rst);
        }
    }

    /// Both addresses, the caller's first.
    pub fn addresses(&self, end: End) -> Option<[SocketAddr; 2]> {
        self.streams.get(&end.tcp).map(|tcp| tcp.addresses)
    }

    pub(super) fn break_both(&mut self, number: u32) {
        self.met.count("a connection was cut");
        for side in 0..2 {
            let end = End { tcp: number, side };
            let half = self.half(end);
            half.flight.clear();
            self.put(end, Segment::Rst);
        }
    }

    pub(super) fn blacken(&mut self, number: u32) {
        self.met.count("a connection was half open");
        let tcp = self.streams.get_mut(&number).expect("a connection that is there");
        tcp.is_black = true;
        for half in &mut tcp.halves {
            half.flight.clear();
        }
    }

    /// Something may be read.
    pub(super) fn due(&mut self, end: End) -> Option<(Owner, Notice)> {
        if !self.is_up(end) {
            return None;
        }
        let now = self.now();
        let is_split = self.fails(self.faults.split);
        let half = self.half(end);
        half.is_armed = false;
        if half.is_unread || half.flight.front().is_none_or(|(at, _)| *at > now) {
            self.arm(end);
            return None;
        }
        let mut bytes = Vec::new();
        while bytes.len() < READ_BYTES_MAX
            && let Some((at, Segment::Bytes(_))) = half.flight.front()
            && *at <= now
            && let Some((_, Segment::Bytes(more))) = half.flight.pop_front()
        {
            bytes.extend_from_slice(&more);
        }
        let owner = half.owner;
        if bytes.is_empty() {
            let (_, segment) = half.flight.pop_front()?;
            return match segment {
                Segment::Bytes(_) => None,
                Segment::Rst => {
                    self.end(end);
                    owner.map(|owner| (owner, Notice::Reset(end)))
                }
                Segment::Fin => {
                    if owner.is_none() && self.half(end).fin_sent {
                        self.end(end);
                    }
                    self.arm_if_up(end);
                    owner.map(|owner| (owner, Notice::Eof(end)))
                }
            };
        }
        let whole = bytes.len();
        let read = match is_split {
            true => self.from_to(1, whole as u64) as usize,
            false => whole,
        };
        if read < whole {
            self.met.count("a read was split");
            let rest = bytes.split_off(read);
            self.half(end).flight.push_front((now, Segment::Bytes(rest)));
        }
        self.half(end).unread -= read;
        self.make_room(end.other());
        self.arm(end);
        owner.map(|owner| (owner, Notice::Bytes { end, bytes }))
    }

    /// There may be room to write.
    pub(super) fn room(&mut self, end: End) -> Option<(Owner, Notice)> {
        if !self.is_up(end) {
            return None;
        }
        self.flush(end);
        let half = self.half(end);
        if !half.wants_room || !half.outbox.is_empty() {
            return None;
        }
        half.wants_room = false;
        half.owner.map(|owner| (owner, Notice::Room(end)))
    }

    /// What was written into the dark was sent again often enough.
    pub(super) fn unheard(&mut self, end: End) -> Option<(Owner, Notice)> {
        if !self.is_up(end) {
            return None;
        }
        let owner = self.half(end).owner;
        self.end(end);
        self.met.count("a half open connection timed out");
        owner.map(|owner| (owner, Notice::TimedOut(end)))
    }

    pub(super) fn lingered(&mut self, end: End) {
        if self.is_up(end) {
            // Whoever still writes will be told by a reset; whoever has not read all never gets it.
            if !self.half(end).outbox.is_empty() {
                self.put(end.other(), Segment::Rst);
            }
            self.end(end);
        }
    }

    fn flush(&mut self, end: End) {
        let outbox = std::mem::take(&mut self.half(end).outbox);
        let written = match outbox.is_empty() {
            true => 0,
            false => self.push(end, &outbox),
        };
        let half = self.half(end);
        half.outbox = outbox;
        half.outbox.drain(..written);
        if half.outbox.is_empty() && half.wants_fin && !half.fin_sent {
            half.fin_sent = true;
            let is_let_go = half.owner.is_none();
            self.put(end.other(), Segment::Fin);
            if is_let_go {
                self.agenda.after(LINGER[1], Event::Lingered(end));
            }
        }
    }

    /// Gives bytes to the network, as many as it takes now.
    fn push(&mut self, end: End, bytes: &[u8]) -> usize {
        let is_split = self.fails(self.faults.split);
        let tcp = self.streams.get_mut(&end.tcp).expect("a connection that is there");
        let other = usize::from(end.other().side);
        let room = tcp.room.saturating_sub(tcp.halves[other].unread);
        let is_black = tcp.is_black;
        let fits = bytes.len().min(room);
        if fits < bytes.len() {
            self.met.count("a buffer was full");
        }
        let taken = match is_split && fits > 0 {
            true => self.from_to(1, fits as u64) as usize,
            false => fits,
        };
        if taken < fits {
            self.met.count("a write was short");
            let soon = self.from_to(1, 500) * US;
            self.agenda.after(soon, Event::Room(end));
        }
        if taken < bytes.len() {
            self.half(end).wants_room = true;
        }
        self.half(end.other()).unread += taken;
        if is_black {
            let patience = self.from_to(20, 900) * SEC;
            self.agenda.after(patience, Event::Unheard(end));
            return taken;
        }
        let mut rest = &bytes[..taken];
        while !rest.is_empty() {
            let piece = match is_split {
                true => self.from_to(1, rest.len() as u64) as usize,
                false => rest.len(),
            };
            let (first, behind) = rest.split_at(piece);
            self.put(end.other(), Segment::Bytes(first.to_vec()));
            rest = behind;
        }
        taken
    }

    /// Sends a segment to this end, behind those that are on their way.
    fn put(&mut self, to: End, segment: Segment) {
        let mut delay = self.delay();
        if self.fails(self.faults.stalled) {
            self.met.count("a stream stalled");
            delay += self.from_to(200, 3_000) * MS;
        }
        let at = self.now() + delay;
        let Some(tcp) = self.streams.get_mut(&to.tcp).filter(|tcp| !tcp.is_black) else {
            return;
        };
        let half = &mut tcp.halves[usize::from(to.side)];
        if half.gone {
            // RFC 9293 section 3.10.7.1: a segment to nobody is answered by a reset, but no reset is.
            let answers = matches!(segment, Segment::Bytes(_)) && !tcp.halves[usize::from(to.other().side)].gone;
            if answers {
                self.put(to.other(), Segment::Rst);
            }
            return;
        }
        half.last_arrival = half.last_arrival.max(at);
        half.flight.push_back((half.last_arrival, segment));
        self.arm(to);
    }

    fn arm_if_up(&mut self, end: End) {
        if self.is_up(end) {
            self.arm(end);
        }
    }

    fn arm(&mut self, end: End) {
        let half = self.half(end);
        if let Some((at, _)) = half.flight.front()
            && !half.is_armed
            && !half.is_unread
        {
            half.is_armed = true;
            let at = *at;
            self.agenda.at(at, Event::Due(end));
        }
    }

    fn make_room(&mut self, writer: End) {
        let half = self.half(writer);
        if !half.gone && (half.wants_room || !half.outbox.is_empty()) {
            let delay = self.delay();
            self.agenda.after(delay, Event::Room(writer));
        }
    }

    fn is_up(&self, end: End) -> bool {
        let half = self.streams.get(&end.tcp).map(|tcp| &tcp.halves[usize::from(end.side)]);
        half.is_some_and(|half| !half.gone)
    }

    /// Whether a reset has arrived, read or not.
    fn is_broken(&self, end: End) -> bool {
        let (now, half) = (self.now(), &self.streams[&end.tcp].halves[usize::from(end.side)]);
        half.flight
            .iter()
            .any(|(at, segment)| *at <= now && matches!(segment, Segment::Rst))
    }

    fn end(&mut self, end: End) {
        let half = self.half(end);
        *half = Half {
            gone: true,
            ..Half::default()
        };
        if self.half(end.other()).gone {
            self.streams.remove(&end.tcp);
        }
    }
}
