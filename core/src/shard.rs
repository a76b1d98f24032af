//! Everything that one CPU core owns.

/// Everything that one CPU core owns.
#[derive(Debug)]
pub struct Shard {}
