//! Is it cheaper to be woken for each datagram, or to look by the clock? To block and be woken costs as much as to
//! relay a packet, so while datagrams come often, a nap that gathers several is the better way, if a nap is cheap.

use std::time::{Duration, Instant};

/// Decides between waiting for the kernel and napping. A function of what it is told: it reads no clock.
///
/// It counts wake-ups for a while. When enough of them would fall into one nap to pay for it, it naps, until a nap
/// finds nothing, or too little for some time, or naps have gone on for so long that it is time to count again: many
/// datagrams in one nap may be one train, which is worth one wake-up, and only waking tells.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The longest nap.
    interval_max: Duration,
    mode: Mode,
    /// What a nap costs in processor time, as measured: where timers are emulated, as much as several wake-ups.
    nap_cost: Duration,
    /// What it costs to block and to be woken, as measured.
    wake_cost: Duration,
    /// How much later than asked for a nap ends.
    lag: Duration,
    /// When the last look was.
    looked: Instant,
}

#[derive(Debug)]
enum Mode {
    /// Waiting for the kernel, and counting wake-ups and what they found.
    Waking { since: Instant, wakes: u32, runs: usize },
    /// Looking once each interval.
    Napping {
        interval: Duration,
        naps: u32,
        /// Runs that a nap finds, on average.
        found: f32,
        /// Runs that a wake-up found.
        runs_each: f32,
    },
}

impl Pace {
    /// Never naps when `interval_max` is zero.
    pub(crate) const fn new(interval_max: Duration, now: Instant) -> Self {
        Self {
            interval_max,
            mode: Mode::counting(now),
            nap_cost: COST_ASSUMED,
            wake_cost: COST_ASSUMED,
            lag: Duration::ZERO,
            looked: now,
        }
    }

    /// Whether it ever naps.
    pub(crate) const fn may_nap(&self) -> bool {
        !self.interval_max.is_zero()
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

    /// Tells that a nap ended `lag` later than asked for, and what it cost, if that was measured.
    pub(crate) fn napped(&mut self, lag: Duration, cost: Option<Duration>) {
        // Once in a while a thread is not let run for long, which says nothing about naps.
        self.lag = (self.lag * 7 + lag.min(self.interval_max / 2)) / 8;
        if let Some(cost) = cost {
            self.nap_cost = average(self.nap_cost, cost);
        }
    }

    /// Tells what it cost to block and to be woken.
    pub(crate) fn woken(&mut self, cost: Duration) {
        self.wake_cost = average(self.wake_cost, cost);
    }

    /// Tells what a look found, in runs; returns whether the next look is by the clock.
    pub(crate) fn looked(&mut self, now: Instant, runs: usize) -> bool {
        self.looked = now;
        let worth = self.worth();
        match &mut self.mode {
            Mode::Waking { wakes, runs: all, .. } if *wakes < WAKES_COUNTED => {
                *wakes += u32::from(runs > 0);
                *all += runs;
            }
            Mode::Waking { since, wakes, runs } => {
                let (gap, runs_each) = ((now - *since) / *wakes, *runs as f32 / *wakes as f32);
                self.decide(gap, runs_each, now);
            }
            Mode::Napping {
                naps, found, runs_each, ..
            } => {
                *naps += 1;
                *found += (runs as f32 - *found) / AVERAGED as f32;
                if runs == 0 || *found < worth * *runs_each || *naps > NAPS_MAX {
                    self.mode = Mode::counting(now);
                }
            }
        }
        matches!(self.mode, Mode::Napping { .. })
    }

    /// Chooses a mode when wake-ups are `gap` apart and find so many runs each.
    fn decide(&mut self, gap: Duration, runs_each: f32, now: Instant) {
        let worth = self.worth();
        let interval = gap.mul_f32(worth * WORTH_WANTED).min(self.interval_max);
        if interval >= gap.mul_f32(worth * WORTH_MIN).max(gap * WAKES_MIN) {
            self.mode = Mode::Napping {
                interval,
                naps: 0,
                found: interval.div_duration_f32(gap) * runs_each,
                runs_each,
            };
            return;
        }
        // What has been measured long ago may be wrong: this leads to another try.
        self.nap_cost -= self.nap_cost / 256;
        self.mode = Mode::counting(now);
    }

    /// Wake-ups that cost as much as a nap.
    fn worth(&self) -> f32 {
        self.nap_cost.div_duration_f32(self.wake_cost).max(1.0)
    }
}

impl Mode {
    const fn counting(since: Instant) -> Self {
        Self::Waking {
            since,
            wakes: 0,
            runs: 0,
        }
    }
}

fn average(so_far: Duration, cost: Duration) -> Duration {
    // Once in a while a measurement has something else in it.
    (so_far * (AVERAGED - 1) + cost.clamp(COST_MIN, COST_MAX)) / AVERAGED
}

/// What both a nap and a wake-up cost, until they are measured.
const COST_ASSUMED: Duration = Duration::from_micros(5);
/// Neither costs less.
const COST_MIN: Duration = Duration::from_micros(1);
/// Neither costs more.
const COST_MAX: Duration = Duration::from_micros(50);
/// Averages go over about so many.
const AVERAGED: u32 = 8;
/// Wake-ups after which a decision is taken.
const WAKES_COUNTED: u32 = 8;
/// A nap must take the place of so many wake-ups.
const WAKES_MIN: u32 = 3;
/// A nap must save so many times what it costs.
const WORTH_MIN: f32 = 1.25;
/// A nap that saves so many times what it costs need not be longer.
const WORTH_WANTED: f32 = 5.0;
/// Naps after which wake-ups are counted again.
const NAPS_MAX: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// Naps and wake-ups of one second in which a datagram comes each `gap`, in groups of `train`. A nap and
    /// a wake-up cost so many µs.
    fn check(gap: Duration, train: u32, [nap, wake]: [u64; 2], expected: impl FnOnce(u32, u32) -> bool) {
        let [nap_cost, wake_cost] = [nap, wake].map(Duration::from_micros);
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_micros(200), start);
        let (mut naps, mut wakes) = (0, 0);
        let (mut now, mut taken) = (start, 0);
        let arrived = |now: Instant| ((now - start).as_nanos() / (gap * train).as_nanos()) as u32 * train;
        while now - start < Duration::from_secs(1) {
            if let Some(nap) = pace.nap(now) {
                naps += 1;
                now += nap;
                pace.napped(Duration::ZERO, Some(nap_cost));
            } else {
                wakes += 1;
                pace.woken(wake_cost);
                now = now.max(start + gap * train * (taken / train + 1));
            }
            let runs = arrived(now) - taken;
            taken += runs;
            pace.looked(now, runs as usize);
        }
        assert!(
            expected(naps, wakes),
            "{gap:?} x {train}, costs {nap} and {wake} µs: {naps} naps, {wakes} wakes"
        );
    }

    #[test]
    fn naps_only_where_that_pays() {
        let micros = Duration::from_micros;
        // 50,000 a second: about 100 µs where naps are cheap, the longest nap where they are not.
        check(micros(20), 1, [4, 5], |naps, wakes| {
            (9_000..11_000).contains(&naps) && wakes < 500
        });
        check(micros(20), 1, [18, 5], |naps, wakes| {
            (4_500..5_500).contains(&naps) && wakes < 500
        });
        // 500,000 a second: a shorter nap gathers enough.
        check(micros(2), 1, [4, 5], |naps, _| naps > 50_000);
        // 20,000 a second: only where naps are cheap.
        check(micros(50), 1, [4, 5], |naps, _| naps > 4_000);
        check(micros(50), 1, [25, 5], |naps, wakes| naps < 500 && wakes > 18_000);
        // A nap that costs 3.6 wake-ups must take the place of 4.5, and here it can of 3.6; where waking is dear, 3 do.
        check(micros(55), 1, [18, 5], |naps, wakes| naps < 1_000 && wakes > 15_000);
        check(micros(55), 1, [18, 10], |naps, _| naps > 4_000);
        // 5,000 a second: never.
        check(micros(200), 1, [4, 5], |naps, wakes| naps == 0 && wakes >= 4_999);
        // Trains are worth one wake-up each.
        check(micros(20), 8, [4, 5], |naps, wakes| naps == 0 && wakes >= 6_249);
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
