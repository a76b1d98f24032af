//! What happens by chance in a world that can be repeated? Everything follows from a seed.

use std::cell::RefCell;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

thread_local! {
    /// What peers and TLS draw from on this thread.
    static SOURCE: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
}

/// From now on, random bytes of this thread follow from a seed; without one, they come from the operating system again.
pub fn seed(seed: Option<u64>) {
    SOURCE.with_borrow_mut(|source| *source = seed.map(ChaCha8Rng::seed_from_u64));
}

/// Fills a buffer where this thread has a seed; tells whether it has.
pub fn fill(bytes: &mut [u8]) -> bool {
    SOURCE.with_borrow_mut(|source| source.as_mut().map(|source| source.fill_bytes(bytes)).is_some())
}

/// Decides. Each part of a world has dice of its own, so that one more decision here changes none there.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice whose every fall follows from a seed and a name.
    pub fn new(seed: u64, name: u64) -> Self {
        // Two seeds side by side share nothing once they are mixed.
        Self(ChaCha8Rng::seed_from_u64(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ name.wrapping_mul(0xd1b5_4a32_d192_ed03),
        ))
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `low` to `high`, both included.
    pub fn from_to(&mut self, low: u64, high: u64) -> u64 {
        low + self.u64() % (high - low + 1).max(1)
    }

    /// A place in a list of this length, which is not empty.
    pub fn place(&mut self, length: usize) -> usize {
        (self.u64() % length.max(1) as u64) as usize
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.place(items.len())]
    }

    /// Whether something happens that happens so many times in ten thousand.
    pub fn happens(&mut self, times: u64) -> bool {
        // Drawn even when it never happens, so that one rate does not change what else is decided.
        self.u64() % 10_000 < times
    }

    /// Random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
