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
    /// Naps and wake-ups since one was measured.
    unmeasured: u32,
    /// What the thread had used before it blocked, while that is measured.
    used: Option<Duration>,
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
            unmeasured: 0,
            used: None,
        })
    }

    /// Sleeps until the next look, if that is by the clock; returns the time after.
    ///
    /// # Errors
    /// When the kernel does not tell what it cost.
    pub fn nap(&mut self, now: Instant) -> io::Result<Option<Instant>> {
        let Some(nap) = self.pace.nap(now) else { return Ok(None) };
        let used = self.begin_measure()?;
        thread::sleep(nap);
        let cost = used.map(since).transpose()?;
        let woken = Instant::now();
        self.pace.napped((woken - now).saturating_sub(nap), cost);
        Ok(Some(woken))
    }

    /// Tells that the thread blocks next, unless something has happened.
    ///
    /// # Errors
    /// When the kernel does not tell what it has used.
    pub fn blocks(&mut self) -> io::Result<()> {
        self.used = self.begin_measure()?;
        Ok(())
    }

    /// Tells that it goes on.
    ///
    /// # Errors
    /// When the kernel does not tell what it has used.
    pub fn goes_on(&mut self) -> io::Result<()> {
        if let Some(used) = self.used.take() {
            self.pace.woken(since(used)?);
        }
        Ok(())
    }

    /// Tells how much a look found; returns whether the next look is by the clock.
    pub fn looked(&mut self, now: Instant, found: usize) -> bool {
        self.pace.looked(now, found)
    }

    /// What the thread has used until now, if it is time to measure.
    fn begin_measure(&mut self) -> io::Result<Option<Duration>> {
        self.unmeasured = self.unmeasured.saturating_add(1);
        if self.unmeasured < MEASURED_EACH || !self.pace.may_nap() {
            return Ok(None);
        }
        self.unmeasured = 0;
        sys::thread_time().map(Some)
    }
}

/// What the thread has used since it had used so much.
fn since(used: Duration) -> io::Result<Duration> {
    Ok(sys::thread_time()?.saturating_sub(used))
}

/// One of so many naps and wake-ups is measured, since that takes two system calls.
const MEASURED_EACH: u32 = 8;
