//! How much has the poller of a shard moved, and what was lost? Plain counters, rendered elsewhere.

/// Counters since the poller was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Turns taken.
    pub turns: u64,
    /// Turns that began with a nap, so as to find several datagrams at once.
    pub naps: u64,
    /// Runs received: what the kernel hands over as one piece.
    pub runs: u64,
    /// Datagrams received; a run holds at least one.
    pub received: u64,
    /// Datagrams given to the kernel.
    pub sent: u64,
    /// Calls that gave them to it.
    pub send_calls: u64,
    /// Datagrams dropped because the send buffer of their socket was full.
    pub dropped_full: u64,
    /// Datagrams that the kernel refused for another reason.
    pub dropped_refused: u64,
    /// Datagrams to be sent from a socket that is not there any more.
    pub dropped_closed: u64,
    /// Datagrams that the kernel dropped because nobody had taken them in time; of the sockets that are open.
    pub dropped_unread: u64,
    /// Reports that a datagram sent before came to nothing (ICMP).
    pub errors: u64,
}
