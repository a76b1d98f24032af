//! Is this mediaserver alive? OPTIONS over the same socket as everything else (RFC 3261 section 11).

use core::{net::SocketAddr, time::Duration};

use super::{
    branch::{BRANCH_LEN, Branch, Kind},
    local::put,
    names::{Names, text},
};
use crate::{action::ShardId, slab::Key, time::Instant};

/// Between two questions.
const PING: Duration = Duration::from_secs(10);
/// Questions without an answer, after which a mediaserver is down.
const FAILURES_MAX: u32 = 3;
/// After an ICMP error, others say nothing new for so long.
pub(super) const SUSPECT: Duration = Duration::from_millis(100);

/// What is known of one mediaserver.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Whether it is asked.
    pub(super) watched: bool,
    /// Whether it has ever answered: one that never does may be silent by its own policy, and counts as alive.
    answers: bool,
    /// The question that waits for an answer, by its number.
    asked: Option<u32>,
    number: u32,
    failures: u32,
    /// Until when ICMP errors say nothing new.
    pub(super) suspect_until: Option<Instant>,
}

impl Health {
    /// Whether requests may go there.
    pub(super) const fn is_up(&self) -> bool {
        !(self.answers && self.failures >= FAILURES_MAX)
    }

    /// Time to ask: the number of the question, and when to ask again.
    pub(super) fn ask(&mut self, now: Instant) -> (u32, Instant) {
        if self.asked.is_some() {
            self.failures = self.failures.saturating_add(1);
        }
        self.number = self.number.wrapping_add(1);
        self.asked = Some(self.number);
        (self.number, now + PING)
    }

    /// The answer to a question. 408 and 503 are what others say in its place.
    pub(super) fn answered(&mut self, number: u32, status: u16) {
        if self.asked == Some(number) && !matches!(status, 408 | 503) {
            self.answers = true;
            self.heard();
        }
    }

    /// Something came from it.
    pub(super) fn heard(&mut self) {
        self.asked = None;
        self.failures = 0;
    }
}

/// Appends an OPTIONS for mediaserver number `index`.
pub(super) fn ping(
    names: &Names,
    shard: ShardId,
    epoch: u32,
    (index, to): (usize, SocketAddr),
    number: u32,
    out: &mut Vec<u8>,
) {
    let key = Key::from_parts(index as u32, number);
    let branch: [u8; BRANCH_LEN] = Branch {
        shard,
        epoch,
        kind: Kind::Ping,
        key,
    }
    .write();
    let (to, us) = (text(to), names.udp.as_bytes());
    let call = text(format_args!("{epoch:08x}{:04x}{index:04x}", shard.0));
    put(out, &[b"OPTIONS sip:", to.as_bytes(), b" SIP/2.0\r\n"]);
    put(out, &[b"Via: SIP/2.0/UDP ", us, b";branch=", &branch, b";rport\r\n"]);
    put(out, &[b"From: <sip:edgeward@", us, b">;tag=", call.as_bytes(), b"\r\n"]);
    put(out, &[b"To: <sip:", to.as_bytes(), b">\r\n"]);
    put(
        out,
        &[
            b"Call-ID: ",
            call.as_bytes(),
            b"\r\nCSeq: ",
            text(number & 0x7fff_ffff).as_bytes(),
        ],
    );
    put(out, &[b" OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"]);
}
