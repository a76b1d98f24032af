//! How does a thread sleep until it is worth looking again?

use std::{
    io, thread,
    time::{Duration, Instant},
};

use crate::{pace::Pace, sys};

/// Lets a thread gather what comes often, instead of being woken for each: it sleeps by the clock between two looks,
/// for as long as that is cheaper.
#[derive(Debug)]
pub struct Napper {
    pace: Pace,
}

impl Napper {
    /// For naps of `interval_max` at the longest; never, when that is zero. Made on the thread that will nap: it makes
    /// the timers of this thread more exact.
    ///
    /// # Errors
    /// When the kernel refuses that.
    pub fn new(interval_max: Duration) -> io::Result<Self> {
        if !interval_max.is_zero() {
            sys::sharpen_timers()?;
        }
        Ok(Self {
            pace: Pace::new(interval_max, Instant::now()),
        })
    }

    /// Sleeps until the next look, if that is by the clock; returns the time after.
    ///
    /// # Errors
    /// When the kernel does not tell what it cost.
    pub fn nap(&mut self, now: Instant) -> io::Result<Option<Instant>> {
        let Some(nap) = self.pace.nap(now) else { return Ok(None) };
        let spent = sys::thread_time()?;
        thread::sleep(nap);
        let cost = sys::thread_time()?.saturating_sub(spent);
        let woken = Instant::now();
        self.pace.napped((woken - now).saturating_sub(nap), cost);
        Ok(Some(woken))
    }

    /// Tells how much a look found; returns whether the next look is by the clock.
    pub fn looked(&mut self, now: Instant, found: usize) -> bool {
        self.pace.looked(now, found)
    }
}
