//! Where are the mediaservers, and are they alive? OPTIONS over the same socket as everything else (RFC 3261 section 11),
//! and errors of the network.

use alloc::sync::Arc;
use core::{net::SocketAddr, time::Duration};

use sha2::{Digest as _, Sha256};

use super::{
    branch::{Branch, Kind},
    bridge::{Bridge, FlowId},
    flow::Owner,
    local::put,
    names::{Names, text},
    strip::FieldSet,
};
use crate::{
    action::IoKind,
    config::{Config, Mediaserver, Reach},
    cx::Cx,
    slab::Key,
    time::Instant,
};

/// Between two questions.
const PING: Duration = Duration::from_secs(10);
/// Questions without an answer, after which a mediaserver is down.
const FAILURES_MAX: u32 = 3;
/// After an ICMP error, others say nothing new for so long.
const SUSPECT: Duration = Duration::from_millis(100);

/// A mediaserver, by its place in [`Bridge::trunks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct TrunkId(usize);

impl TrunkId {
    pub(super) const fn index(self) -> usize {
        self.0
    }
}

/// A mediaserver.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) name: Box<str>,
    pub(super) address: SocketAddr,
    pub(super) reach: Reach,
    /// Stands for the name in tokens.
    pub(super) mark: u16,
    /// Whether it is no longer configured.
    is_gone: bool,
    /// Whether it is asked for its health.
    is_watched: bool,
    health: Health,
    /// Until when ICMP errors say nothing new.
    suspect_until: Option<Instant>,
}

/// What is known of a mediaserver's health.
#[derive(Debug, Default)]
struct Health {
    /// Whether it has ever answered: one that never does may be silent by its own policy, and counts as alive.
    answers: bool,
    /// Whether a question waits for its answer.
    is_asked: bool,
    /// The number of the last question.
    number: u32,
    failures: u32,
}

impl Trunk {
    pub(super) fn new(config: &Mediaserver) -> Self {
        let digest = Sha256::digest(&config.name);
        Self {
            name: config.name.as_str().into(),
            address: config.address,
            reach: config.reach,
            mark: u16::from_be_bytes([digest[0], digest[1]]),
            is_gone: false,
            is_watched: false,
            health: Health::default(),
            suspect_until: None,
        }
    }

    /// Whether requests may go there.
    pub(super) fn is_up(&self) -> bool {
        !(self.health.answers && self.health.failures >= FAILURES_MAX)
    }

    fn hear(&mut self, what: impl FnOnce(&mut Health)) {
        let was_up = self.is_up();
        what(&mut self.health);
        if self.is_up() && !was_up {
            tracing::info!(mediaserver = %self.name, "a mediaserver answers again");
        }
    }
}

impl Health {
    /// Time to ask: returns the number of the question.
    fn ask(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(u32::from(self.is_asked));
        self.is_asked = true;
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// The answer to a question. 408 and 503 are what others say in its place.
    fn answered(&mut self, number: u32, status: u16) {
        if self.is_asked && self.number == number && !matches!(status, 408 | 503) {
            self.answers = true;
            self.heard();
        }
    }

    /// Something came from it.
    fn heard(&mut self) {
        self.is_asked = false;
        self.failures = 0;
    }
}

impl Bridge {
    /// The configuration has changed. Flows to a mediaserver of the same name go on, those to one that is gone end.
    /// Without a sip role in it, nothing changes.
    pub fn configure(&mut self, cx: &mut Cx<'_>, config: Arc<Config>) {
        let Some(sip) = &config.sip else { return };
        self.names = Names::new(sip);
        self.strip = FieldSet::new(&sip.policy.strip);
        self.hide = FieldSet::new(&sip.policy.hide);
        for trunk in &mut self.trunks {
            trunk.is_gone = true;
        }
        for mediaserver in &sip.mediaservers {
            match self.trunks.iter_mut().find(|trunk| *trunk.name == *mediaserver.name) {
                Some(trunk) => {
                    (trunk.address, trunk.reach) = (mediaserver.address, mediaserver.reach);
                    trunk.is_gone = false;
                }
                None => self.trunks.push(Trunk::new(mediaserver)),
            }
        }
        self.config = config;
        let orphans: Vec<FlowId> = self
            .flows
            .iter()
            .filter(|(_, flow)| self.trunk(flow.trunk).is_gone)
            .map(|(key, _)| FlowId(key))
            .collect();
        for flow in orphans {
            self.shut(cx, flow, 1001, "mediaserver gone");
        }
    }

    /// A datagram could not be delivered: requests that wait for a first answer fail with 503 (RFC 3261 section 16.9).
    pub fn trunk_error(&mut self, cx: &mut Cx<'_>, to: SocketAddr, kind: IoKind) {
        let now = cx.now.mono;
        if kind == IoKind::MessageSize {
            // Says nothing of those that are smaller.
            return;
        }
        let mut is_new = false;
        for trunk in self.trunks.iter_mut().filter(|trunk| trunk.address == to) {
            if trunk.suspect_until.is_none_or(|until| until <= now) {
                trunk.suspect_until = Some(now + SUSPECT);
                is_new = true;
            }
        }
        if !is_new {
            return;
        }
        tracing::debug!(%to, ?kind, "a datagram came to nothing");
        let waiting: Vec<Key> = self
            .transactions
            .iter()
            .filter(|(_, transaction)| transaction.is_unanswered() && self.trunk(transaction.trunk).address == to)
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            self.fail(cx, key, 503, "Service Unavailable");
        }
    }

    /// Whether a mediaserver answers, as far as is known; a WebSocket for one that does not had better be refused.
    /// `mediaserver` is its place in [`Sip::mediaservers`](crate::config::Sip::mediaservers).
    pub fn is_available(&self, mediaserver: usize) -> bool {
        self.trunk_of(mediaserver)
            .is_some_and(|trunk| self.trunk(trunk).is_up())
    }

    pub(super) fn trunk(&self, id: TrunkId) -> &Trunk {
        &self.trunks[id.0]
    }

    /// The mediaserver at a place of the configuration.
    pub(super) fn trunk_of(&self, mediaserver: usize) -> Option<TrunkId> {
        let name = self.sip().mediaservers.get(mediaserver)?.name.as_str();
        self.trunks.iter().position(|trunk| *trunk.name == *name).map(TrunkId)
    }

    /// The mediaserver that a token names.
    pub(super) fn trunk_marked(&self, mark: u16) -> Option<TrunkId> {
        self.trunks.iter().position(|trunk| trunk.mark == mark).map(TrunkId)
    }

    /// Whether somebody may speak to us: there are a handful of mediaservers, and nobody else may.
    pub(super) fn is_trunk(&self, from: SocketAddr) -> bool {
        self.trunks.iter().any(|trunk| trunk.address == from && !trunk.is_gone)
    }

    /// Something came from a mediaserver.
    pub(super) fn heard(&mut self, from: SocketAddr) {
        for trunk in self.trunks.iter_mut().filter(|trunk| trunk.address == from) {
            trunk.hear(Health::heard);
        }
    }

    /// Asks a mediaserver for its health from now on.
    pub(super) fn watch(&mut self, cx: &Cx<'_>, id: TrunkId) {
        if !core::mem::replace(&mut self.trunks[id.0].is_watched, true) {
            self.timers.arm(cx.now.mono, Owner::Trunk(id));
        }
    }

    pub(super) fn ping(&mut self, cx: &mut Cx<'_>, id: TrunkId) {
        let trunk = &mut self.trunks[id.0];
        if trunk.is_gone {
            trunk.is_watched = false;
            return;
        }
        let was_up = trunk.is_up();
        let (number, address) = (trunk.health.ask(), trunk.address);
        if was_up && !trunk.is_up() {
            tracing::warn!(mediaserver = %trunk.name, "a mediaserver does not answer");
        }
        self.timers.arm(cx.now.mono + PING, Owner::Trunk(id));
        let branch = self.branch(Kind::Ping, Key::from_parts(id.0 as u32, number));
        let (to, us) = (text(address), self.names.udp.as_bytes());
        let call = text(format_args!("{:08x}{:04x}{:04x}", self.epoch, self.shard.0, id.0));
        let (start, out) = (cx.made.len(), &mut *cx.made);
        put(out, &[b"OPTIONS sip:", to.as_bytes(), b" SIP/2.0\r\n"]);
        put(out, &[b"Via: SIP/2.0/UDP ", us, b";branch=", &branch, b";rport\r\n"]);
        put(out, &[b"From: <sip:edgeward@", us, b">;tag=", call.as_bytes(), b"\r\n"]);
        put(out, &[b"To: <sip:", to.as_bytes(), b">\r\n"]);
        put(
            out,
            &[b"Call-ID: ", call.as_bytes(), b"\r\nCSeq: ", text(number).as_bytes()],
        );
        put(out, &[b" OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"]);
        let end = cx.made.len();
        self.send_trunk(cx, address, start..end);
    }

    /// Takes a response if it answers one of our own questions.
    pub(super) fn take_pong(&mut self, from: SocketAddr, branch: &Branch, status: u16) -> bool {
        let Some(key) = self.branch_key(branch, Kind::Ping) else {
            return false;
        };
        if let Some(trunk) = self
            .trunks
            .get_mut(key.index() as usize)
            .filter(|trunk| trunk.address == from)
        {
            trunk.hear(|health| health.answered(key.generation(), status));
        }
        true
    }
}
