//! How much of what has happened? Plain counters of one shard; rendered elsewhere, summed when shown.

/// Counters since the start of the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Of connections and of the shard as a whole.
    pub edge: EdgeStats,
    /// Of the web role.
    pub web: WebStats,
    /// Of the sip role.
    pub sip: SipStats,
    /// Of the turn role.
    pub turn: TurnStats,
}

/// Counters of connections and of the shard as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EdgeStats {
    /// TCP connections accepted.
    pub accepted: u64,
    /// TCP connections refused by a limit.
    pub refused: u64,
    /// TLS handshakes completed with clients.
    pub handshakes: u64,
    /// Connections closed because they broke their protocol or a limit.
    pub faults: u64,
    /// Faults of ours that were contained.
    pub panics: u64,
}

/// Counters of the web role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WebStats {
    /// Requests whose head was read.
    pub requests: u64,
    /// Requests passed to an upstream.
    pub forwarded: u64,
    /// Requests answered by the edge itself with 4xx.
    pub refused: u64,
    /// Requests answered by the edge itself with 502, 503 or 504.
    pub failed: u64,
    /// WebSocket tunnels opened.
    pub tunnels: u64,
}

/// Counters of the sip role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SipStats {
    /// Messages from browsers.
    pub from_flows: u64,
    /// Messages from mediaservers.
    pub from_trunk: u64,
    /// Messages sent to browsers.
    pub to_flows: u64,
    /// Datagrams sent to mediaservers.
    pub to_trunk: u64,
    /// Of those, repeats.
    pub retransmitted: u64,
    /// Of those, larger than what one packet carries.
    pub fragmented: u64,
    /// Messages sent to mediaservers by TCP.
    pub by_stream: u64,
    /// Requests sent by UDP although they were for TCP, since there was no connection.
    pub stream_missing: u64,
    /// Requests sent to another address of their mediaserver, since the first one did not answer.
    pub failed_over: u64,
    /// Messages dropped without an answer.
    pub dropped: u64,
    /// Requests answered by the edge itself with an error.
    pub refused: u64,
}

/// Counters of the turn role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TurnStats {
    /// Allocations made.
    pub allocated: u64,
    /// Allocations that ended.
    pub released: u64,
    /// Packets relayed from client to peer.
    pub to_peer: u64,
    /// Payload bytes of those.
    pub to_peer_bytes: u64,
    /// Packets relayed from peer to client.
    pub to_client: u64,
    /// Payload bytes of those.
    pub to_client_bytes: u64,
    /// Packets dropped: no permission, no channel, not parsable.
    pub dropped: u64,
    /// Packets dropped because their allocation or user had relayed as many bytes as it may.
    pub limited: u64,
    /// Requests answered with an error, but for challenges.
    pub refused: u64,
    /// Requests answered with the address of another server.
    pub redirected: u64,
    /// Requests answered with a challenge: not signed, or with an old nonce.
    pub challenged: u64,
    /// Answers withheld from sources that have proved nothing and ask too often.
    pub withheld: u64,
}
