//! Has this one had its share of bytes or packets? A comparison with the clock, no timer.

use core::time::Duration;

use crate::time::Instant;

/// So much a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate(u64);

/// What has been drawn: one point in time tells how full the bucket is (generic cell rate algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Meter {
    /// When all that was drawn will have been earned.
    paid: Instant,
}

impl Rate {
    /// What may be drawn at once, as the time in which it is earned.
    const BURST: Duration = Duration::from_secs(1);

    /// `per_second` bytes or packets; 0 counts as 1.
    pub(super) fn new(per_second: u64) -> Self {
        Self(per_second.max(1))
    }

    /// In which time `amount` is earned.
    fn earns(self, amount: usize) -> Duration {
        Duration::from_nanos((amount as u64).saturating_mul(1_000_000_000) / self.0)
    }
}

impl Meter {
    /// Whether any may be drawn. The last packet may overdraw, so that one larger than the burst passes too.
    pub(super) fn admits(&self, now: Instant) -> bool {
        self.paid < now + Rate::BURST
    }

    /// From when on it admits, when it does not now.
    pub(super) fn admits_from(&self) -> Instant {
        let burst = Rate::BURST.as_nanos() as u64;
        Instant::from_nanos(self.paid.as_nanos().saturating_sub(burst) + 1)
    }

    /// Draws.
    pub(super) fn charge(&mut self, rate: Rate, now: Instant, amount: usize) {
        self.paid = self.paid.max(now) + rate.earns(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000 * millis)
    }

    fn draw(meter: &mut Meter, now: Instant, packets: usize, bytes: usize) -> usize {
        let admitted = (0..packets).filter(|_| {
            let admitted = meter.admits(now);
            if admitted {
                meter.charge(Rate::new(10_000), now, bytes);
            }
            admitted
        });
        admitted.count()
    }

    #[test]
    fn so_many_bytes_a_second_pass() {
        let mut meter = Meter::default();
        assert_eq!(draw(&mut meter, at(5000), 100, 1000), 10);
        assert_eq!(draw(&mut meter, at(5099), 100, 1000), 1, "the last one overdraws");
        assert_eq!(draw(&mut meter, at(5199), 100, 1000), 1);
        assert_eq!(
            draw(&mut meter, at(9000), 100, 1000),
            10,
            "what is saved is one second's"
        );
    }

    #[test]
    fn a_packet_larger_than_a_second_passes_and_is_paid_for() {
        let mut meter = Meter::default();
        assert_eq!(draw(&mut meter, at(5000), 2, 30_000), 1);
        assert_eq!(draw(&mut meter, at(6999), 1, 1), 0);
        assert_eq!(draw(&mut meter, at(7001), 1, 1), 1);
    }
}
