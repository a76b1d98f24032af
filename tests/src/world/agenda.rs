//! What happens next? Events of the whole world in the order of their time.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::world::{driver::Task, net::End, scenario::Step};

/// Nanoseconds since the beginning of the world.
pub type Time = u64;

/// A microsecond.
pub const US: Time = 1_000;
/// A millisecond.
pub const MS: Time = 1_000_000;
/// A second.
pub const SEC: Time = 1_000 * MS;

/// Something that will happen.
#[derive(Debug)]
pub enum Event {
    /// A datagram arrives.
    Datagram {
        /// Who sent it.
        from: SocketAddr,
        /// Where it arrives.
        to: SocketAddr,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// A datagram came to nothing, and its sender is told.
    Unreachable {
        /// Who sent it.
        from: SocketAddr,
        /// Who does not take it.
        to: SocketAddr,
    },
    /// Something may be read at this end.
    Due(End),
    /// This end may write again.
    Room(End),
    /// A call of this end is answered, or not.
    Dialed(End),
    /// Nobody has acknowledged what this end wrote.
    Unheard(End),
    /// This end has waited long enough for the other one's goodbye.
    Lingered(End),
    /// An actor wanted to be woken.
    Timer {
        /// Which one.
        actor: usize,
        /// What for.
        token: u64,
    },
    /// The runtime of the edge has something to do.
    Edge(Task),
    /// The scenario goes on.
    Step(Step),
}

/// The clock of the world, and all that will happen.
#[derive(Debug, Default)]
pub struct Agenda {
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    written: u64,
}

impl Agenda {
    /// What time it is.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Something will happen at this time, or now where that is over.
    pub fn at(&mut self, time: Time, event: Event) {
        self.written += 1;
        self.events.insert((time.max(self.now), self.written), event);
    }

    /// Something will happen after this time.
    pub fn after(&mut self, time: Time, event: Event) {
        self.at(self.now.saturating_add(time), event);
    }

    /// Lets the clock go on to the next event, if there is one before `end`.
    pub fn next(&mut self, end: Time) -> Option<Event> {
        let ((time, _), _) = self.events.first_key_value()?;
        if *time > end {
            return None;
        }
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }
}
