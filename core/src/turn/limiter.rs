//! How many answers may one source draw that has proved nothing? (RFC 8489 section 16.2.1, RFC 8656 section 21)

use core::{net::IpAddr, time::Duration};

use ahash::RandomState;

use crate::{rng::Rng, time::Instant};

/// What an answer costs, in parts of what a source may draw in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    /// An answer that is several times as long as the question may be: a challenge, an error.
    Full,
    /// An answer that is hardly longer than the question: to Binding.
    Tenth,
    /// As much as [`Cost::Full`], and asked for by a guess at a password.
    Guess,
}

/// A bucket for each source, in a table of fixed size: a flood from invented sources takes no memory. Ports do not
/// count, and all addresses of an IPv6 subnet are one source.
#[derive(Debug)]
pub(super) struct Limiter {
    /// Time in which one [`Cost::Full`] is earned; `None` is no limit.
    interval: Option<Duration>,
    hasher: RandomState,
    buckets: Vec<Bucket>,
}

/// Generic cell rate algorithm: one point in time tells how full the bucket is.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Hash of the source; two sources with equal hashes would share a bucket.
    source: u64,
    /// When all that was drawn will have been earned.
    paid: Instant,
}

impl Limiter {
    /// Sets of buckets.
    const SETS: usize = 512;
    /// Buckets of a set; a source may take any of those of its set.
    const WAYS: usize = 4;
    /// What a source may draw at once, in seconds of earning.
    const BURST: Duration = Duration::from_secs(1);

    /// A limiter of `per_second` full answers for each source; 0 is no limit.
    pub(super) fn new(per_second: u32, rng: &mut Rng) -> Self {
        Self {
            interval: Duration::from_secs(1).checked_div(per_second),
            hasher: rng.hasher(),
            buckets: vec![Bucket::default(); Self::SETS * Self::WAYS],
        }
    }

    /// Whether `source` may have an answer of this cost now; if so, it is charged.
    pub(super) fn admit(&mut self, now: Instant, source: IpAddr, cost: Cost) -> bool {
        let Some(interval) = self.interval else {
            return true;
        };
        let source = self.hasher.hash_one(subnet(source));
        let set = source as usize % Self::SETS * Self::WAYS;
        let set = &mut self.buckets[set..set + Self::WAYS];
        // A new source takes the bucket that is paid soonest: who draws much is not forgotten for who draws little.
        let bucket = match set.iter().position(|bucket| bucket.source == source) {
            Some(known) => &mut set[known],
            None => {
                let bucket = set.iter_mut().min_by_key(|bucket| bucket.paid).expect("a set has ways");
                *bucket = Bucket { source, paid: now };
                bucket
            }
        };
        let cost = match cost {
            Cost::Full | Cost::Guess => interval,
            Cost::Tenth => interval / 10,
        };
        let paid = bucket.paid.max(now) + cost;
        let admitted = paid <= now + Self::BURST;
        if admitted {
            bucket.paid = paid;
        }
        admitted
    }
}

/// An IPv4 address, or the /64 that an IPv6 address is in.
fn subnet(source: IpAddr) -> u128 {
    match source {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000 * millis)
    }

    /// How many of `questions` within one millisecond are answered.
    fn answered(limiter: &mut Limiter, now: Instant, source: &str, cost: Cost, questions: usize) -> usize {
        let source = source.parse().expect("an address");
        (0..questions).filter(|_| limiter.admit(now, source, cost)).count()
    }

    #[test]
    fn a_source_draws_so_many_answers_a_second() {
        let mut limiter = Limiter::new(10, &mut Rng::new([1; 32]));
        assert_eq!(answered(&mut limiter, at(5000), "192.0.2.1", Cost::Full, 100), 10);
        assert_eq!(answered(&mut limiter, at(5099), "192.0.2.1", Cost::Full, 100), 0);
        assert_eq!(answered(&mut limiter, at(5100), "192.0.2.1", Cost::Full, 100), 1);
        assert_eq!(answered(&mut limiter, at(5600), "192.0.2.1", Cost::Full, 100), 5);
        assert_eq!(answered(&mut limiter, at(9000), "192.0.2.1", Cost::Full, 100), 10);
        // Others are not touched by it.
        assert_eq!(answered(&mut limiter, at(9000), "192.0.2.2", Cost::Full, 100), 10);
    }

    #[test]
    fn short_answers_cost_a_tenth() {
        let mut limiter = Limiter::new(10, &mut Rng::new([1; 32]));
        assert_eq!(answered(&mut limiter, at(5000), "192.0.2.1", Cost::Tenth, 1000), 100);
        assert_eq!(answered(&mut limiter, at(5000), "192.0.2.1", Cost::Full, 1000), 0);
    }

    #[test]
    fn a_subnet_of_ipv6_is_one_source() {
        let mut limiter = Limiter::new(10, &mut Rng::new([1; 32]));
        assert_eq!(answered(&mut limiter, at(5000), "2001:db8::1", Cost::Full, 100), 10);
        assert_eq!(
            answered(&mut limiter, at(5000), "2001:db8::2:0:0:2", Cost::Full, 100),
            0
        );
        assert_eq!(answered(&mut limiter, at(5000), "2001:db8:0:1::1", Cost::Full, 100), 10);
    }

    #[test]
    fn zero_is_no_limit() {
        let mut limiter = Limiter::new(0, &mut Rng::new([1; 32]));
        assert_eq!(answered(&mut limiter, at(5000), "192.0.2.1", Cost::Full, 1000), 1000);
    }

    #[test]
    fn invented_sources_take_no_memory_and_free_nobody() {
        let mut limiter = Limiter::new(10, &mut Rng::new([1; 32]));
        let capacity = limiter.buckets.capacity();
        let mut victim = 0;
        for n in 0..100_000_u32 {
            let now = at(5000) + Duration::from_micros(u64::from(n) * 10);
            // Each invented source is answered: a real new client among them is too.
            assert!(limiter.admit(now, Ipv4Addr::from_bits(0x2000_0000 + n).into(), Cost::Full));
            victim += answered(&mut limiter, now, "192.0.2.1", Cost::Full, 1);
        }
        assert_eq!(limiter.buckets.capacity(), capacity);
        // One second of flood: what the burst and the second allow.
        assert!((19..=21).contains(&victim), "{victim}");
    }
}
