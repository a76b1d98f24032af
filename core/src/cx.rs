//! What does every machine need at hand? Time, chance, a place for bytes it makes, and counters.

use crate::{rng::Rng, stats::Stats, time::Now};

/// Handed to every call of a machine, first.
#[derive(Debug)]
pub struct Cx<'a> {
    /// Both clocks.
    pub now: Now,
    /// The shard's random numbers.
    pub rng: &'a mut Rng,
    /// Where a machine writes messages of its own; what it returns names ranges of it. It is never cut by a machine.
    pub made: &'a mut Vec<u8>,
    /// Counters.
    pub stats: &'a mut Stats,
}
