//! Is it cheaper to be woken for each datagram, or to look by the clock? To sleep and be woken costs half of what a
//! relayed packet costs, so while they come often, a nap that gathers several is the better way.

use std::time::{Duration, Instant};

/// Decides between waiting for the kernel and napping. A function of time: it reads no clock.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    /// When the last look was; the next one of a nap is an interval later.
    looked: Instant,
    /// Mean time between two wake-ups, lately; never above the interval.
    gap: Duration,
    napping: bool,
}

impl Pace {
    /// Never naps when `interval` is zero.
    pub(crate) const fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            looked: now,
            gap: interval,
            napping: false,
        }
    }

    /// How long to sleep before the next look.
    pub(crate) fn nap(&self, now: Instant) -> Option<Duration> {
        if !self.napping {
            return None;
        }
        (self.looked + self.interval)
            .checked_duration_since(now)
            .filter(|nap| !nap.is_zero())
    }

    /// Tells what a look found, in runs; returns whether the next look is by the clock.
    pub(crate) fn looked(&mut self, now: Instant, runs: usize) -> bool {
        if self.interval.is_zero() {
            return false;
        }
        let gap = now.saturating_duration_since(self.looked);
        self.looked = now;
        if self.napping {
            // What came would have cost as many wake-ups as naps do.
            self.napping = runs >= FOUND_MIN;
            // Falling out by chance is made good sooner than a beginning.
            self.gap = self.interval / 2;
        } else {
            self.gap = match gap < self.interval * 2 {
                true => (self.gap * 3 + gap.min(self.interval)) / 4,
                false => self.interval,
            };
            self.napping = self.gap * WAKES_MIN < self.interval;
        }
        self.napping
    }
}

/// Wake-ups that must fall into an interval, on average, for a nap to pay.
const WAKES_MIN: u32 = 3;
/// Runs that a nap must find for another to follow.
const FOUND_MIN: usize = 2;
