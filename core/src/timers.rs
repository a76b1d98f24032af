//! What is due next? A heap of deadlines with one entry for each owner that acts by itself.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::time::Instant;

/// Deadlines of owners `K`, soonest first; equal deadlines come out in the order they went in.
///
/// There is no removal: whoever pops a deadline compares it with what the owner wants by then, and arms it again or
/// lets it go. An owner that keeps one entry in the heap and only ever moves its own wish costs nothing per packet.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, u64, K)>>,
    armed: u64,
}

impl<K: Ord> Timers<K> {
    /// No deadline.
    pub(crate) const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            armed: 0,
        }
    }

    /// Wakes `owner` at `at`.
    pub(crate) fn arm(&mut self, at: Instant, owner: K) {
        self.armed += 1;
        self.heap.push(Reverse((at, self.armed, owner)));
    }

    /// The next owner whose deadline has come, if any.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, owner))| (at, owner))
    }

    /// The soonest deadline, in O(1).
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// How many entries the heap holds.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soonest_first_and_first_in_first_out() {
        let mut timers = Timers::new();
        for (at, owner) in [(30, 'c'), (10, 'a'), (10, 'b'), (20, 'd')] {
            timers.arm(Instant::from_nanos(at), owner);
        }
        assert_eq!(timers.next(), Some(Instant::from_nanos(10)));
        let due: Vec<char> =
            core::iter::from_fn(|| timers.pop_due(Instant::from_nanos(20)).map(|(_, owner)| owner)).collect();
        assert_eq!(due, ['a', 'b', 'd']);
        assert_eq!(timers.len(), 1);
    }
}
