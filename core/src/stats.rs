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

/// A number with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// In lower case, with `_` between words.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// The number.
    pub value: u64,
}

impl Sample {
    /// A number with its name.
    pub const fn new(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, value }
    }
}

/// What is known of a shard, or of several at a time, in an order that is always the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// What has happened.
    pub counters: Vec<Sample>,
    /// What is there now.
    pub gauges: Vec<Sample>,
    /// What each mediaserver is, in the order of the configuration.
    pub mediaservers: Vec<Liveness>,
}

/// Whether a mediaserver lives, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing has come from it yet, nor from the network about it.
    Unknown,
    /// Something has come from it, and it has not been found dead since.
    Up,
    /// It has been found dead, or no address of it is known.
    Down,
}

impl Liveness {
    /// What two shards know together: one that misses answers is believed, and one that has heard something.
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Down, _) | (_, Self::Down) => Self::Down,
            (Self::Up, _) | (_, Self::Up) => Self::Up,
            (Self::Unknown, Self::Unknown) => Self::Unknown,
        }
    }
}

impl Snapshot {
    /// Joins what is known of another shard.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.counters, &other.counters);
        add(&mut self.gauges, &other.gauges);
        match self.mediaservers.is_empty() {
            true => self.mediaservers.clone_from(&other.mediaservers),
            false => self
                .mediaservers
                .iter_mut()
                .zip(&other.mediaservers)
                .for_each(|(mine, other)| *mine = mine.and(*other)),
        }
    }
}

fn add(sum: &mut Vec<Sample>, more: &[Sample]) {
    if sum.is_empty() {
        sum.extend_from_slice(more);
        return;
    }
    sum.iter_mut().zip(more).for_each(|(sum, more)| sum.value += more.value);
}

impl Stats {
    /// Every counter.
    pub fn samples(&self) -> Vec<Sample> {
        let Self { edge, web, sip, turn } = *self;
        [&edge.samples()[..], &web.samples(), &sip.samples(), &turn.samples()].concat()
    }
}

impl EdgeStats {
    fn samples(self) -> [Sample; 5] {
        let Self {
            accepted,
            refused,
            handshakes,
            faults,
            panics,
        } = self;
        [
            Sample::new("connections_accepted", "TCP connections accepted", accepted),
            Sample::new("connections_refused", "TCP connections refused by a limit", refused),
            Sample::new("tls_handshakes", "TLS handshakes completed with clients", handshakes),
            Sample::new(
                "connections_faulted",
                "Connections closed because they broke their protocol or a limit",
                faults,
            ),
            Sample::new("faults", "Faults of ours that were contained", panics),
        ]
    }
}

impl WebStats {
    fn samples(self) -> [Sample; 5] {
        let Self {
            requests,
            forwarded,
            refused,
            failed,
            tunnels,
        } = self;
        [
            Sample::new("web_requests", "Requests whose head was read", requests),
            Sample::new("web_forwarded", "Requests passed to an upstream", forwarded),
            Sample::new("web_refused", "Requests answered by the edge itself with 4xx", refused),
            Sample::new(
                "web_failed",
                "Requests answered by the edge itself with 502, 503 or 504",
                failed,
            ),
            Sample::new("web_tunnels", "WebSocket tunnels opened", tunnels),
        ]
    }
}

impl SipStats {
    fn samples(self) -> [Sample; 11] {
        let Self {
            from_flows,
            from_trunk,
            to_flows,
            to_trunk,
            retransmitted,
            fragmented,
            by_stream,
            stream_missing,
            failed_over,
            dropped,
            refused,
        } = self;
        [
            Sample::new("sip_from_browsers", "Messages from browsers", from_flows),
            Sample::new("sip_from_mediaservers", "Messages from mediaservers", from_trunk),
            Sample::new("sip_to_browsers", "Messages sent to browsers", to_flows),
            Sample::new("sip_to_mediaservers", "Datagrams sent to mediaservers", to_trunk),
            Sample::new(
                "sip_to_mediaservers_repeated",
                "Datagrams sent to mediaservers that repeat others",
                retransmitted,
            ),
            Sample::new(
                "sip_to_mediaservers_fragmented",
                "Datagrams sent to mediaservers that are larger than what one packet carries",
                fragmented,
            ),
            Sample::new(
                "sip_to_mediaservers_by_tcp",
                "Messages sent to mediaservers by TCP",
                by_stream,
            ),
            Sample::new(
                "sip_to_mediaservers_tcp_missing",
                "Requests sent by UDP although they were for TCP, since there was no connection",
                stream_missing,
            ),
            Sample::new(
                "sip_to_mediaservers_failed_over",
                "Requests sent to another address of their mediaserver, since the first one did not answer",
                failed_over,
            ),
            Sample::new("sip_dropped", "Messages dropped without an answer", dropped),
            Sample::new(
                "sip_refused",
                "Requests answered by the edge itself with an error",
                refused,
            ),
        ]
    }
}

impl TurnStats {
    fn samples(self) -> [Sample; 12] {
        let Self {
            allocated,
            released,
            to_peer,
            to_peer_bytes,
            to_client,
            to_client_bytes,
            dropped,
            limited,
            refused,
            redirected,
            challenged,
            withheld,
        } = self;
        [
            Sample::new("turn_allocated", "Allocations made", allocated),
            Sample::new("turn_released", "Allocations that ended", released),
            Sample::new("turn_to_peer_packets", "Packets relayed from client to peer", to_peer),
            Sample::new(
                "turn_to_peer_bytes",
                "Payload bytes relayed from client to peer",
                to_peer_bytes,
            ),
            Sample::new(
                "turn_to_client_packets",
                "Packets relayed from peer to client",
                to_client,
            ),
            Sample::new(
                "turn_to_client_bytes",
                "Payload bytes relayed from peer to client",
                to_client_bytes,
            ),
            Sample::new(
                "turn_dropped",
                "Packets dropped: no permission, no channel, not parsable",
                dropped,
            ),
            Sample::new(
                "turn_limited",
                "Packets dropped because their allocation or user had relayed as many bytes as it may",
                limited,
            ),
            Sample::new(
                "turn_refused",
                "Requests answered with an error, but for challenges",
                refused,
            ),
            Sample::new(
                "turn_redirected",
                "Requests answered with the address of another server",
                redirected,
            ),
            Sample::new(
                "turn_challenged",
                "Requests answered with a challenge: not signed, or with an old nonce",
                challenged,
            ),
            Sample::new(
                "turn_withheld",
                "Answers withheld from sources that have proved nothing and ask too often",
                withheld,
            ),
        ]
    }
}
