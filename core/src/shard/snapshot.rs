//! What has happened on a shard, and what is there now?

use crate::{
    conn::Stage,
    shard::Shard,
    stats::{Liveness, Sample, Snapshot},
    turn::Server,
};

impl Shard {
    /// Counters, and a count of what there is. It looks at every connection: for whoever asks every few seconds.
    pub fn snapshot(&self) -> Snapshot {
        let mut kinds = [0; 7];
        for (_, conn) in self.conns.iter() {
            kinds[match conn.stage {
                Stage::Http(_) => 0,
                Stage::Upstream(_) => 1,
                Stage::Tunnel(_) => 2,
                Stage::Sip(_) => 3,
                Stage::Turn(_) => 4,
                Stage::Trunk(_) => 5,
                Stage::Proxied(_) | Stage::Sniff(_) | Stage::Opening(_) | Stage::Peer => 6,
            }] += 1;
        }
        let [http, upstream, tunnel, sip, turn, trunk, other] = kinds;
        let (flows, transactions) = self
            .sip
            .as_ref()
            .map_or((0, 0), |sip| (sip.flows(), sip.transactions()));
        let allocations = self.turn.as_ref().map_or(0, Server::allocations);
        let mediaservers = self.config.sip.as_ref().map_or(0, |sip| sip.mediaservers.len());
        let liveness = |place| self.sip.as_ref().map_or(Liveness::Down, |sip| sip.liveness(place));
        Snapshot {
            counters: self.stats.samples(),
            gauges: vec![
                Sample::new("http_connections", "Connections of browsers that speak HTTP", http),
                Sample::new(
                    "upstream_connections",
                    "Connections to upstreams, idle ones included",
                    upstream,
                ),
                Sample::new(
                    "tunnel_connections",
                    "Ends of tunnels: two for each WebSocket and TCP relay",
                    tunnel,
                ),
                Sample::new(
                    "web_backends_failing",
                    "Servers of upstreams whose last calls or checks have failed, as each worker finds",
                    self.web.backends_failing() as u64,
                ),
                Sample::new("sip_connections", "WebSockets for SIP", sip),
                Sample::new("turn_connections", "Connections of TURN clients", turn),
                Sample::new("mediaserver_connections", "TCP connections to mediaservers", trunk),
                Sample::new(
                    "other_connections",
                    "Connections that have not shown yet what they are",
                    other,
                ),
                Sample::new("sip_flows", "Browsers that SIP knows, lost ones included", flows as u64),
                Sample::new("sip_transactions", "SIP transactions", transactions as u64),
                Sample::new("turn_allocations", "TURN allocations", allocations as u64),
            ],
            mediaservers: (0..mediaservers).map(liveness).collect(),
        }
    }
}
