//! Is there a TCP connection with this address of a mediaserver? One of each shard, made again whenever it ends.

use core::{net::SocketAddr, time::Duration};

use super::trunk::TrunkId;
use crate::{action::ConnId, time::Instant};

/// RFC 5626 section 4.4: between 95 and 120 seconds where nobody says otherwise.
const KEEP_ALIVE: Duration = Duration::from_secs(95);
/// Before the first attempt after one that failed, and twice as long each time.
const BACK_OFF_SHORTEST: Duration = Duration::from_secs(1);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(60);

/// A TCP connection with one address of a mediaserver, whether it is there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkId {
    pub(super) trunk: TrunkId,
    /// Where to.
    pub address: SocketAddr,
}

/// How far such a connection is.
#[derive(Debug)]
pub(super) enum Link {
    /// Not there; the next attempt is at `at`.
    Down {
        at: Instant,
        /// How long to wait when that fails too.
        back_off: Duration,
    },
    /// Being made.
    Dialing {
        /// How long to wait when that fails.
        back_off: Duration,
    },
    /// There.
    Up {
        conn: ConnId,
        /// When something must be said, so that whoever keeps track of connections does not forget this one.
        keep_alive_at: Instant,
    },
}

impl Link {
    /// One that is made now, where it is wanted.
    pub(super) const fn new(now: Instant) -> Self {
        Self::Down {
            at: now,
            back_off: BACK_OFF_SHORTEST,
        }
    }

    /// The connection.
    pub(super) const fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Up { conn, .. } => Some(*conn),
            Self::Down { .. } | Self::Dialing { .. } => None,
        }
    }

    /// When there is something to do.
    pub(super) const fn wake(&self) -> Option<Instant> {
        match self {
            Self::Down { at, .. } => Some(*at),
            Self::Dialing { .. } => None,
            Self::Up { keep_alive_at, .. } => Some(*keep_alive_at),
        }
    }

    /// The connection is being made. Only what is down is due for that.
    pub(super) const fn dial(&mut self) {
        if let Self::Down { back_off, .. } = *self {
            *self = Self::Dialing { back_off };
        }
    }

    /// The connection is there; tells whether that was waited for.
    pub(super) fn up(&mut self, now: Instant, conn: ConnId) -> bool {
        let is_awaited = matches!(self, Self::Dialing { .. });
        if is_awaited {
            *self = Self::Up {
                conn,
                keep_alive_at: now + KEEP_ALIVE,
            };
        }
        is_awaited
    }

    /// This connection has ended, or did not come about; tells whether it was the one.
    pub(super) fn down(&mut self, now: Instant, ended: ConnId) -> bool {
        let back_off = match self {
            Self::Dialing { back_off } => *back_off,
            Self::Up { conn, .. } if *conn == ended => BACK_OFF_SHORTEST,
            Self::Up { .. } | Self::Down { .. } => return false,
        };
        *self = Self::Down {
            at: now + back_off,
            back_off: (back_off * 2).min(BACK_OFF_LONGEST),
        };
        true
    }

    /// Something is said now.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        if let Self::Up { keep_alive_at, .. } = self {
            *keep_alive_at = now + KEEP_ALIVE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Key;

    #[test]
    fn it_comes_back_slower_and_slower() {
        let mut link = Link::new(Instant::ZERO);
        let conn = ConnId(Key::from_parts(1, 0));
        let mut now = Instant::ZERO;
        let mut waits = Vec::new();
        for _ in 0..8 {
            link.dial();
            assert!(link.down(now, conn));
            let next = link.wake().expect("another attempt");
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        link.dial();
        assert!(link.up(now, conn) && !link.up(now, conn));
        assert_eq!(link.conn(), Some(conn));
        assert!(!link.down(now, ConnId(Key::from_parts(2, 0))) && link.down(now, conn));
        assert_eq!(link.wake(), Some(now + BACK_OFF_SHORTEST));
    }
}
