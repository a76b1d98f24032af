//! What is broken on purpose, so that it is seen that a checker sees it?

use super::Edge;
use crate::world::agenda::Time;

/// A fault of the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Relayed datagrams go on to somebody else.
    Misdirect,
    /// A byte of what an upstream gets is another one.
    Corrupt,
    /// Relay sockets are never closed.
    KeepRelays,
    /// The clock of the shards loses an eighth, so that everything lives for too long.
    SlowClock,
    /// The alarm of a shard never rings.
    Sleep,
    /// Names are looked up, and nobody is told.
    Mute,
    /// Who connects is called by another address.
    Misname,
    /// A response of a mediaserver names the transaction of the one before.
    CrossVia,
}

impl Edge {
    /// What the shards take for the time.
    pub fn mono(&self, now: Time) -> Time {
        match self.sabotage {
            Some(Sabotage::SlowClock) => now - now / 8,
            _ => now,
        }
    }

    /// When it is this time for the shards.
    pub(super) fn when(&self, mono: Time) -> Time {
        match self.sabotage {
            Some(Sabotage::SlowClock) => mono + mono / 7 + 1,
            _ => mono,
        }
    }

    pub(super) fn cross_via(&mut self, bytes: &mut Vec<u8>) {
        let Some(text) = str::from_utf8(bytes).ok().filter(|text| text.starts_with("SIP/2.0")) else {
            return;
        };
        let via = text.lines().find(|line| line.starts_with("Via:"));
        let via = via.unwrap_or_default().to_owned();
        let other = std::mem::replace(&mut self.last_via, via.clone());
        if !other.is_empty() {
            *bytes = text.replacen(&via, &other, 1).into_bytes();
        }
    }
}
