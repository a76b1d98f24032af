//! What does a relayed packet, message or request cost here, and what does it cost others?
//!
//! A load generator of ours offers the same fixed load to each server in turns, round by round, and reads from `/proc`
//! what the server used for it. The servers, the generator and what is behind the servers share one machine, so
//! absolute figures say little; the ratio of two servers in the same round says much.

use std::{path::PathBuf, time::Duration};

pub mod cost;
pub mod fleet;
mod frame;
pub mod report;
pub mod rounds;
pub mod server;
pub mod sip;
pub mod turn;
pub mod web;

/// What to measure, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds that count; one more before them does not.
    pub rounds: usize,
    /// How long each load is offered in a round.
    pub window: Duration,
    /// Whether to take fewer loads and clients, for a first look.
    pub quick: bool,
    /// Only loads with one of these words in their name; all when there is none.
    pub only: Vec<String>,
    /// Binaries of the edge to compare; that of this source when there is none.
    pub edges: Vec<PathBuf>,
}

impl Plan {
    /// The first number, or the second in a quick run.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}
