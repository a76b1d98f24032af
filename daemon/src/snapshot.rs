//! What is known of a shard? Its own numbers, and those of its UDP sockets.

use edgeward_core::stats::{Sample, Snapshot};
use edgeward_udp::{Counters, Poller};

use crate::Shard;

/// What answers [`Letter::Snapshot`](crate::Letter::Snapshot).
pub fn snapshot(shard: &Shard, poller: &Poller) -> Snapshot {
    let mut snapshot = shard.snapshot();
    let Counters {
        turns,
        naps,
        runs,
        received,
        sent,
        send_calls,
        dropped_full,
        dropped_refused,
        dropped_closed,
        dropped_unread,
        errors,
    } = poller.counters();
    snapshot.counters.extend([
        Sample::new("udp_turns", "Turns of the UDP poller", turns),
        Sample::new("udp_naps", "Turns that began with a nap", naps),
        Sample::new("udp_runs", "Runs of datagrams received", runs),
        Sample::new("udp_received", "Datagrams received", received),
        Sample::new("udp_sent", "Datagrams sent", sent),
        Sample::new("udp_send_calls", "Calls that sent them", send_calls),
        Sample::new(
            "udp_dropped_full",
            "Datagrams dropped because a send buffer was full",
            dropped_full,
        ),
        Sample::new(
            "udp_dropped_refused",
            "Datagrams that the kernel refused",
            dropped_refused,
        ),
        Sample::new(
            "udp_dropped_closed",
            "Datagrams to be sent from a socket that is closed",
            dropped_closed,
        ),
        Sample::new(
            "udp_dropped_unread",
            "Datagrams dropped because a receive buffer was full",
            dropped_unread,
        ),
        Sample::new("udp_errors", "Reports that a datagram came to nothing (ICMP)", errors),
    ]);
    snapshot
}
