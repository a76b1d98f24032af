//! Where does chance come from? A seeded generator of the shard's own, so that a run can be replayed.

use ahash::RandomState;
use rand_chacha::{
    ChaCha12Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

/// A cryptographic generator; the runtime seeds it from the operating system, the simulator from its own seed.
#[derive(Debug)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// A generator whose every output follows from `seed`.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A number below `bound`, each as likely as the other; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // Multiply and take the high half; rejecting the short first interval makes it exact.
        let reject = if bound == 0 { 0 } else { bound.wrapping_neg() % bound };
        loop {
            let product = u64::from(self.u32()) * u64::from(bound);
            if product as u32 >= reject {
                return (product >> 32) as u32;
            }
        }
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }

    /// Keys for a hash table: no outsider can choose colliding keys, and a replay hashes alike.
    pub fn hasher(&mut self) -> RandomState {
        RandomState::with_seeds(self.u64(), self.u64(), self.u64(), self.u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_run() {
        let draw = |seed| {
            let mut rng = Rng::new([seed; 32]);
            (rng.u64(), rng.bytes::<7>(), rng.below(1000))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = Rng::new([3; 32]);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::new([4; 32]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
