//! Which port does the next relayed transport address get? (RFC 8656 section 7.2)

use alloc::collections::VecDeque;
use core::{ops::RangeInclusive, time::Duration};

use crate::{action::ShardId, rng::Rng, time::Instant};

/// The ports of one shard and one relay address. A port is free, taken, or resting after use.
#[derive(Debug)]
pub(super) struct Ports {
    first: u16,
    shard: ShardId,
    shards: u16,
    /// Even ports and odd ports, each in no order.
    free: [Vec<u16>; 2],
    /// Of each port of the whole range, where in its list of free ones it is, or [`NOWHERE`].
    places: Vec<u16>,
    /// Ports and when they may be used again, soonest first.
    resting: VecDeque<(Instant, u16)>,
}

const NOWHERE: u16 = u16::MAX;

impl Ports {
    /// How long a port is not used again, so that a peer that has not noticed sends nothing to the next client.
    pub(super) const REST: Duration = Duration::from_secs(120);

    /// The slice of `shard` in the range. An even port and the odd one above it are in the same slice.
    pub(super) fn new(range: &RangeInclusive<u16>, shard: ShardId, shards: u16) -> Self {
        let mut ports = Self {
            first: *range.start(),
            shard,
            shards: shards.max(1),
            free: [Vec::new(), Vec::new()],
            places: vec![NOWHERE; range.clone().count()],
            resting: VecDeque::new(),
        };
        for port in range.clone() {
            if ports.owns(port) {
                ports.release(port);
            }
        }
        ports
    }

    /// Takes any port, none more likely than another.
    // RFC 8656 section 7.2: "It is RECOMMENDED that a TURN server implement a randomized port assignment algorithm".
    pub(super) fn take_any(&mut self, now: Instant, rng: &mut Rng) -> Option<u16> {
        self.take(now, |ports| {
            let [even, odd] = ports.free.each_ref();
            let place = rng.below((even.len() + odd.len()) as u32) as usize;
            even.get(place).or_else(|| odd.get(place - even.len())).copied()
        })
    }

    /// Takes an even port.
    pub(super) fn take_even(&mut self, now: Instant, rng: &mut Rng) -> Option<u16> {
        self.take(now, |ports| {
            let [even, _] = ports.free.each_ref();
            even.get(rng.below(even.len() as u32) as usize).copied()
        })
    }

    /// Takes an even port, which is returned, and the odd one above it.
    pub(super) fn take_pair(&mut self, now: Instant, rng: &mut Rng) -> Option<u16> {
        let even = self.take(now, |ports| {
            let [even, _] = ports.free.each_ref();
            let start = rng.below(even.len() as u32) as usize;
            let (before, behind) = even.split_at(start);
            let mut candidates = behind.iter().chain(before).copied();
            candidates.find(|port| port.checked_add(1).is_some_and(|odd| ports.is_free(odd)))
        })?;
        self.occupy(even + 1);
        Some(even)
    }

    /// Gives a port back. One of another shard's slice is not ours to give again.
    pub(super) fn give_back(&mut self, port: u16, now: Instant) {
        if self.owns(port) {
            self.resting.push_back((now + Self::REST, port));
        }
    }

    /// Whether a port is in the range, of this shard or another.
    pub(super) fn spans(&self, port: u16) -> bool {
        port.checked_sub(self.first)
            .is_some_and(|place| usize::from(place) < self.places.len())
    }

    /// Whether a port of the range is in our slice of it.
    pub(super) fn owns(&self, port: u16) -> bool {
        port / 2 % self.shards == self.shard.0
    }

    /// Takes what `choose` finds among the free ports.
    fn take(&mut self, now: Instant, mut choose: impl FnMut(&Self) -> Option<u16>) -> Option<u16> {
        while let Some((rested, port)) = self.resting.front().copied()
            && rested <= now
        {
            self.resting.pop_front();
            self.release(port);
        }
        loop {
            if let Some(port) = choose(self) {
                self.occupy(port);
                return Some(port);
            }
            // A port that has rested too short beats no port. Half of them at once, so that the choice stays open.
            let half = self.resting.len().div_ceil(2);
            if half == 0 {
                return None;
            }
            for (_, port) in self.resting.drain(..half).collect::<Vec<_>>() {
                self.release(port);
            }
        }
    }

    fn is_free(&self, port: u16) -> bool {
        let place = port
            .checked_sub(self.first)
            .and_then(|at| self.places.get(usize::from(at)));
        place.is_some_and(|place| *place != NOWHERE)
    }

    fn release(&mut self, port: u16) {
        let list = &mut self.free[usize::from(port % 2)];
        self.places[usize::from(port - self.first)] = list.len() as u16;
        list.push(port);
    }

    fn occupy(&mut self, port: u16) {
        let place = core::mem::replace(&mut self.places[usize::from(port - self.first)], NOWHERE);
        let list = &mut self.free[usize::from(port % 2)];
        list.swap_remove(usize::from(place));
        if let Some(moved) = list.get(usize::from(place)) {
            self.places[usize::from(moved - self.first)] = place;
        }
    }

    /// Free and resting ports.
    #[cfg(test)]
    pub(super) fn available(&self) -> usize {
        self.free[0].len() + self.free[1].len() + self.resting.len()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn pool(range: RangeInclusive<u16>) -> Ports {
        Ports::new(&range, ShardId(0), 1)
    }

    #[test]
    fn shards_share_the_range_without_overlap_and_pairs_stay_together() {
        let mut seen = BTreeSet::new();
        for shard in 0..3 {
            let slice = Ports::new(&(30_001..=30_098), ShardId(shard), 3);
            for port in slice.free.iter().flatten() {
                assert!(seen.insert(*port));
                assert!(*port == 30_001 || *port == 30_098 || slice.is_free(port ^ 1));
            }
        }
        assert_eq!(seen, (30_001..=30_098).collect());
    }

    #[test]
    fn each_port_is_given_once_in_no_order() {
        let (mut ports, mut rng) = (pool(30_000..=30_999), Rng::new([1; 32]));
        let given: Vec<u16> = core::iter::from_fn(|| ports.take_any(Instant::ZERO, &mut rng)).collect();
        assert_eq!(
            given.iter().copied().collect::<BTreeSet<_>>(),
            (30_000..=30_999).collect()
        );
        let rising = given.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((400..600).contains(&rising), "{rising}");
    }

    #[test]
    fn ports_are_uniformly_distributed() {
        // Chi-square over 50 ports and 50,000 draws: 49 degrees of freedom, 99.9 % below 85.4.
        let (mut ports, mut rng) = (pool(30_000..=30_049), Rng::new([2; 32]));
        let mut counts = [0_i32; 50];
        for _ in 0..50_000 {
            let port = ports.take_any(Instant::ZERO, &mut rng).expect("a free port");
            counts[usize::from(port - 30_000)] += 1;
            ports.release(port);
        }
        let chi: f64 = counts
            .iter()
            .map(|count| f64::from((count - 1000).pow(2)) / 1000.0)
            .sum();
        assert!(chi < 85.4, "{chi}");
    }

    #[test]
    fn even_ports_and_pairs() {
        let (mut ports, mut rng) = (pool(30_000..=30_009), Rng::new([1; 32]));
        let pair = ports.take_pair(Instant::ZERO, &mut rng).expect("a pair");
        assert!(pair % 2 == 0 && !ports.is_free(pair + 1));
        for _ in 0..4 {
            let even = ports.take_even(Instant::ZERO, &mut rng).expect("an even port");
            assert!(even % 2 == 0 && even != pair);
        }
        assert_eq!(ports.take_even(Instant::ZERO, &mut rng), None);
        assert_eq!(ports.take_pair(Instant::ZERO, &mut rng), None);
        assert!(
            ports
                .take_any(Instant::ZERO, &mut rng)
                .is_some_and(|port| port % 2 == 1)
        );
    }

    #[test]
    fn a_port_rests_while_others_are_free() {
        let (mut ports, mut rng) = (pool(30_000..=30_003), Rng::new([1; 32]));
        let now = Instant::ZERO + Duration::from_secs(1000);
        let used = ports.take_any(now, &mut rng).expect("a port");
        ports.give_back(used, now);
        for _ in 0..3 {
            assert_ne!(ports.take_any(now, &mut rng), Some(used));
        }
        // It is the last one, and better than none.
        assert_eq!(ports.take_any(now, &mut rng), Some(used));
        assert_eq!(ports.take_any(now, &mut rng), None);
    }

    #[test]
    fn a_rested_port_is_free_again() {
        let (mut ports, mut rng) = (pool(30_000..=30_001), Rng::new([1; 32]));
        let pair = ports.take_pair(Instant::ZERO, &mut rng).expect("a pair");
        ports.give_back(pair, Instant::ZERO);
        ports.give_back(pair + 1, Instant::ZERO);
        assert_eq!(ports.take_pair(Instant::ZERO + Ports::REST, &mut rng), Some(30_000));
    }

    proptest! {
        #[test]
        fn no_port_is_lost_or_given_twice(
            seed in any::<[u8; 32]>(),
            first in 1000_u16..1010,
            steps in prop::collection::vec((0..5_u8, any::<prop::sample::Index>(), 0..200_u64), 0..300),
        ) {
            let (mut rng, mut now) = (Rng::new(seed), Instant::ZERO);
            let mut ports = pool(first..=first + 20);
            let mut taken = BTreeSet::new();
            for (step, index, secs) in steps {
                now += Duration::from_secs(secs);
                let given = match step {
                    0 => ports.take_any(now, &mut rng).into_iter().collect(),
                    1 => ports.take_even(now, &mut rng).into_iter().collect(),
                    2 => ports.take_pair(now, &mut rng).map_or(vec![], |even| vec![even, even + 1]),
                    _ => vec![],
                };
                for port in given {
                    prop_assert!((first..=first + 20).contains(&port) && taken.insert(port));
                }
                if step > 2 && !taken.is_empty() {
                    let port = *taken.iter().nth(index.index(taken.len())).expect("within");
                    taken.remove(&port);
                    ports.give_back(port, now);
                }
                prop_assert_eq!(ports.available() + taken.len(), 21);
            }
        }
    }
}
