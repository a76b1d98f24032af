//! What time is it? Two clocks, both inputs: nothing in the core reads one.

use core::{
    fmt,
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// Both clocks, read once by the runtime for each turn of its loop, never per packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For durations and deadlines.
    pub mono: Instant,
    /// For what the outside dates: credentials, certificates, nonces.
    pub unix: UnixTime,
}

/// A point of the monotonic clock, in nanoseconds since an origin that the runtime chooses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the clock.
    pub const ZERO: Self = Self(0);

    /// The point `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The first point from here on that is a multiple of `grain` after the origin.
    pub const fn round_up(self, grain: Duration) -> Self {
        let nanos = self.0.checked_next_multiple_of(grain.as_nanos() as u64);
        Self(match nanos {
            Some(nanos) => nanos,
            None => u64::MAX,
        })
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// Wall-clock time in whole seconds since 1970-01-01 UTC, in 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct UnixTime(pub u64);
