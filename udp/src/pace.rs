//! Is it cheaper to be woken for each datagram, or to look by the clock? To block and be woken costs as much as to
//! relay a packet, so while datagrams come often, a nap that gathers several is the better way, if a nap is cheap.

use std::time::{Duration, Instant};

/// Decides between waiting for the kernel and napping. A function of what it is told: it reads no clock.
///
/// It counts wake-ups for a while. When enough of them would fall into one nap to pay for it, it naps, until a nap
/// finds next to nothing, or has gone on for so long that it is time to count again: many datagrams in one nap may be
/// one train, which is worth one wake-up, and only waking tells.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The longest nap.
    interval_max: Duration,
    mode: Mode,
    /// When the last look was.
    looked: Instant,
    /// What a nap costs in processor time, as measured: where timers are emulated, as much as several wake-ups.
    nap_cost: Duration,
    /// How much later than asked for a nap ends.
    lag: Duration,
}

#[derive(Debug)]
enum Mode {
    /// Waiting for the kernel, and counting wake-ups.
    Waking { since: Instant, wakes: u32 },
    /// Looking once each interval.
    Napping { interval: Duration, naps: u32 },
}

impl Pace {
    /// Never naps when `interval_max` is zero.
    pub(crate) const fn new(interval_max: Duration, now: Instant) -> Self {
        Self {
            interval_max,
            mode: Mode::Waking { since: now, wakes: 0 },
            looked: now,
            nap_cost: WAKE_COST,
            lag: Duration::ZERO,
        }
    }

    /// How long to nap before the next look.
    pub(crate) fn nap(&self, now: Instant) -> Option<Duration> {
        let Mode::Napping { interval, .. } = self.mode else {
            return None;
        };
        (self.looked + interval.saturating_sub(self.lag))
            .checked_duration_since(now)
            .filter(|nap| !nap.is_zero())
    }

    /// Tells that a nap ended `lag` later than asked for, and what it cost.
    pub(crate) fn napped(&mut self, lag: Duration, cost: Duration) {
        // Once in a while a thread is not let run for long, which says nothing about naps.
        self.lag = (self.lag * 7 + lag.min(self.interval_max / 2)) / 8;
        self.nap_cost = (self.nap_cost * 7 + cost.min(NAP_COST_MAX)) / 8;
    }

    /// Tells what a look found, in runs; returns whether the next look is by the clock.
    pub(crate) fn looked(&mut self, now: Instant, runs: usize) -> bool {
        self.looked = now;
        self.mode = match self.mode {
            Mode::Waking { since, wakes } if wakes < WAKES_COUNTED => Mode::Waking {
                since,
                wakes: wakes + u32::from(runs > 0),
            },
            Mode::Waking { since, wakes } => self.decide((now - since) / wakes, now),
            Mode::Napping { interval, naps } if self.paid(runs) && naps < NAPS_MAX => Mode::Napping {
                interval,
                naps: naps + 1,
            },
            Mode::Napping { .. } => Mode::Waking { since: now, wakes: 0 },
        };
        matches!(self.mode, Mode::Napping { .. })
    }

    /// Whether a nap that found so many runs was worth it, had each been a wake-up.
    fn paid(&self, runs: usize) -> bool {
        runs >= FOUND_MIN && WAKE_COST * runs.min(RUNS_ENOUGH) as u32 >= self.nap_cost
    }

    /// Chooses a mode when wake-ups are `gap` apart.
    fn decide(&mut self, gap: Duration, now: Instant) -> Mode {
        // Wake-ups that cost as much as a nap.
        let worth = self.nap_cost.div_duration_f32(WAKE_COST).max(1.0);
        let interval = gap.mul_f32(worth * WORTH_WANTED).min(self.interval_max);
        if interval >= gap.mul_f32(worth * WORTH_MIN).max(gap * WAKES_MIN) {
            return Mode::Napping { interval, naps: 0 };
        }
        // What has been measured long ago may be wrong: this leads to another try.
        self.nap_cost -= self.nap_cost / 256;
        Mode::Waking { since: now, wakes: 0 }
    }
}

/// What it costs to block and to be woken by a datagram, in processor time: 4 to 7 µs were measured.
const WAKE_COST: Duration = Duration::from_micros(5);
/// No nap costs more.
const NAP_COST_MAX: Duration = Duration::from_micros(50);
/// Wake-ups after which a decision is taken.
const WAKES_COUNTED: u32 = 8;
/// A nap must take the place of so many wake-ups.
const WAKES_MIN: u32 = 3;
/// A nap must save so many times what it costs.
const WORTH_MIN: f32 = 1.25;
/// A nap that saves so many times what it costs need not be longer.
const WORTH_WANTED: f32 = 5.0;
/// Runs that a nap must find for another to follow.
const FOUND_MIN: usize = 2;
/// Runs that pay for any nap.
const RUNS_ENOUGH: usize = 1000;
/// Naps after which wake-ups are counted again.
const NAPS_MAX: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// Naps and wake-ups of one second in which a datagram comes each `gap`, in groups of `train`.
    fn check(gap: Duration, train: u32, nap_cost: Duration, expected: impl FnOnce(u32, u32) -> bool) {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_micros(200), start);
        let (mut naps, mut wakes) = (0, 0);
        let (mut now, mut taken) = (start, 0);
        let arrived = |now: Instant| ((now - start).as_nanos() / (gap * train).as_nanos()) as u32 * train;
        while now - start < Duration::from_secs(1) {
            if let Some(nap) = pace.nap(now) {
                naps += 1;
                now += nap;
                pace.napped(Duration::ZERO, nap_cost);
            } else {
                wakes += 1;
                now = now.max(start + gap * train * (taken / train + 1));
            }
            let runs = arrived(now) - taken;
            taken += runs;
            pace.looked(now, runs as usize);
        }
        assert!(
            expected(naps, wakes),
            "{gap:?} x {train}, nap {nap_cost:?}: {naps} naps, {wakes} wakes"
        );
    }

    #[test]
    fn naps_only_where_that_pays() {
        let micros = Duration::from_micros;
        // 50,000 a second: about 100 µs where naps are cheap, the longest nap where they are not.
        check(micros(20), 1, micros(4), |naps, wakes| {
            (9_000..11_000).contains(&naps) && wakes < 500
        });
        check(micros(20), 1, micros(18), |naps, wakes| {
            (4_500..5_500).contains(&naps) && wakes < 500
        });
        // 500,000 a second: a shorter nap gathers enough.
        check(micros(2), 1, micros(4), |naps, _| naps > 50_000);
        // 20,000 a second: only where naps are cheap.
        check(micros(50), 1, micros(4), |naps, _| naps > 4_000);
        check(micros(50), 1, micros(25), |naps, wakes| naps < 500 && wakes > 18_000);
        // 5,000 a second: never.
        check(micros(200), 1, micros(4), |naps, wakes| naps == 0 && wakes >= 4_999);
        // Trains are worth one wake-up each.
        check(micros(20), 8, micros(4), |naps, wakes| naps == 0 && wakes >= 6_249);
    }

    #[test]
    fn a_nap_that_finds_nothing_is_the_last() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Duration::from_micros(200), now);
        while !pace.looked(now, 1) {
            now += Duration::from_micros(10);
        }
        assert!(pace.nap(now).is_some());
        assert!(!pace.looked(now, 0));
        assert_eq!(pace.nap(now), None);
    }

    #[test]
    fn no_interval_no_nap() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, now);
        for micros in 0..100 {
            assert!(!pace.looked(now + Duration::from_micros(micros), 1));
        }
    }
}
