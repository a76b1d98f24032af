//! Has a shard done the same again? A number that follows from all that it has done.
//!
//! Of streams it knows how much was sent, not what: that is encrypted once and not the other time, and may hold what a
//! recording leaves out. Datagrams count with all their bytes but those.

use std::fmt::{self, Write as _};

use bytes::BytesMut;
use edgeward_core::action::{Action, ConnId, Egress, Parcel, Refused, Run, SocketId, Source};

use super::mask::blank;

/// FNV-1a over all that a shard has done so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

impl Digest {
    /// What it comes to.
    pub(crate) const fn value(self) -> u32 {
        (self.0 ^ self.0 >> 32) as u32
    }

    /// A connection was taken, or not.
    pub(crate) fn accepted(&mut self, result: Result<ConnId, Refused>) {
        self.debug(&result);
    }

    /// A stream has so much to send.
    pub(crate) fn output(&mut self, conn: ConnId, bytes: Option<&BytesMut>) {
        self.debug(&(conn, bytes.map(|bytes| bytes.len())));
    }

    /// What counts of an action.
    pub(crate) fn text(action: &Action) -> String {
        match action {
            Action::Close(conn, bytes) => format!("Close({conn:?}, {})", bytes.len()),
            Action::Forward {
                to,
                parcel: Parcel::Conn(conn, _),
            } => format!("Forward({to:?}, {conn:?})"),
            _ => format!("{action:?}"),
        }
    }

    /// The shard asks for the action of which this counts.
    pub(crate) fn action(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Datagrams from the piece `from` on are to be sent. `runs` are those of the call.
    pub(crate) fn egress(&mut self, egress: &Egress, from: usize, runs: &[Run<'_>]) {
        let first = egress.transmits.partition_point(|transmit| transmit.pieces.end <= from);
        for transmit in &egress.transmits[first..] {
            for piece in &egress.pieces[transmit.pieces.start.max(from)..transmit.pieces.end] {
                // For each: what leaves as one train depends on what went before.
                self.debug(&(transmit.socket, transmit.peer, transmit.local, transmit.fields));
                self.bytes(piece.prefix.as_slice());
                let payload = match &piece.payload {
                    Source::Made(range) => &egress.made[range.clone()],
                    Source::Run(run, range) => match runs.get(*run as usize) {
                        Some(run) => &run.bytes[range.clone()],
                        None => &[],
                    },
                };
                match transmit.socket {
                    SocketId::Sip => self.bytes(&blank(payload)),
                    SocketId::Turn(_) | SocketId::Relay(_) => self.bytes(payload),
                }
            }
        }
    }

    /// What tells a parcel from another one.
    pub(crate) fn parcel(parcel: &Parcel) -> u32 {
        let mut digest = Self::default();
        digest.debug(parcel);
        digest.value()
    }

    fn debug(&mut self, value: &impl fmt::Debug) {
        // It takes everything.
        let _ = write!(self, "{value:?};");
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
