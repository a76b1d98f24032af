//! What time is it? Both clocks of the core, from those of the system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edgeward_core::time::{Instant, Now, UnixTime};

/// The same for all shards, since connections take their deadlines along.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self {
            origin: std::time::Instant::now(),
        }
    }

    /// What the core calls now.
    pub fn now(self) -> Now {
        self.at(std::time::Instant::now())
    }

    /// What the core calls a time that has just been read.
    pub fn at(self, mono: std::time::Instant) -> Now {
        let nanos = mono.saturating_duration_since(self.origin).as_nanos();
        Now {
            // 2^64 nanoseconds are 584 years.
            mono: Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
            unix: unix_time(),
        }
    }

    /// What the system calls a time of the core.
    pub fn system(self, at: Instant) -> std::time::Instant {
        self.origin + Duration::from_nanos(at.as_nanos())
    }
}

/// The time of day, as the core counts it.
pub(crate) fn unix_time() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(since.as_secs())
}
