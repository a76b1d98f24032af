//! What happens to the mediaservers? They are asked after their health over the same socket as everything else (RFC 3261
//! section 11), their names are looked up, TCP connections with them are kept, and the network tells what it cannot do.

use alloc::sync::Arc;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    branch::{Branch, Kind},
    bridge::{Bridge, FlowId, Out},
    check::Request,
    flow::{Flow, Owner},
    health::{AVOIDED_INTERVALS, Health},
    link::LinkId,
    local::put,
    names::{Names, text},
    rewrite::{self, Route},
    strip::FieldSet,
    trunk::{Trunk, TrunkId},
};
use crate::{
    action::{ConnId, IoKind},
    config::{self, Config, PeerRule},
    cx::Cx,
    slab::Key,
    stats::Liveness,
    time::Instant,
    wire::sip::{Message, Name, field, uri::Uri},
};

/// After an ICMP error, others say nothing new for so long.
const SUSPECT: Duration = Duration::from_millis(100);
/// RFC 3261 section 18.1.1: a larger request goes by TCP where the MTU of the path is not known.
const LARGE: usize = 1300;

/// A question after the addresses of a mediaserver's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    trunk: TrunkId,
    host: Box<str>,
}

impl Question {
    /// The name.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// Where a request of a browser goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination {
    pub(super) address: SocketAddr,
    /// Whether its URI asks for TCP.
    pub(super) asks_stream: bool,
}

impl Bridge {
    /// The configuration has changed. Flows to a mediaserver of the same name go on, those to one that is gone end.
    /// Without a sip role in it, nothing changes.
    pub fn configure(&mut self, cx: &mut Cx<'_>, config: Arc<Config>) {
        let Some(sip) = &config.sip else { return };
        let now = cx.now.mono;
        self.names = Names::new(sip);
        self.strip = FieldSet::new(&sip.policy.strip);
        self.hide = FieldSet::new(&sip.policy.hide);
        for trunk in &mut self.trunks {
            trunk.is_gone = true;
        }
        for mediaserver in &sip.mediaservers {
            match self.trunks.iter_mut().find(|trunk| *trunk.name == *mediaserver.name) {
                Some(trunk) => trunk.configure(now, mediaserver),
                None => self.trunks.push(Trunk::new(now, mediaserver)),
            }
        }
        self.config = config;
        for id in (0..self.trunks.len()).map(TrunkId) {
            self.drop_links(now, id);
            self.arm_trunk(id);
        }
        self.out.push_back(Out::Moved);
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

    /// Where the media of the mediaservers is by now.
    pub fn media(&self) -> Vec<PeerRule> {
        self.trunks.iter().flat_map(Trunk::media).collect()
    }

    /// Whether a mediaserver may answer; a WebSocket for one that has been found dead had better be refused. `mediaserver`
    /// is its place in [`Sip::mediaservers`](crate::config::Sip::mediaservers).
    pub fn is_available(&self, mediaserver: usize) -> bool {
        self.trunk_of(mediaserver)
            .is_some_and(|trunk| self.trunk(trunk).is_available())
    }

    /// Whether that mediaserver lives, as far as is known.
    pub fn liveness(&self, mediaserver: usize) -> Liveness {
        let trunk = self.trunk_of(mediaserver);
        trunk.map_or(Liveness::Down, |trunk| self.trunk(trunk).liveness())
    }

    /// The answer to a question after a name. A failure changes nothing: what was known is better than nothing.
    pub fn resolved(&mut self, cx: &mut Cx<'_>, question: &Question, found: &[IpAddr]) {
        let is_ipv4 = self.sip().listen.is_ipv4();
        let usable = |ip: &IpAddr| ip.is_ipv4() == is_ipv4 && !ip.is_unspecified() && !ip.is_multicast();
        let found: Vec<IpAddr> = found.iter().map(IpAddr::to_canonical).filter(usable).collect();
        let (now, lifetime) = (cx.now.mono, self.sip().resolve);
        let Some(trunk) = self.trunks.get_mut(question.trunk.index()) else {
            return;
        };
        let has_moved = !found.is_empty() && trunk.resolved(now, &question.host, &found);
        trunk.resolve_at = trunk.next_resolve(now, lifetime);
        if has_moved {
            tracing::info!(mediaserver = %trunk.name, host = %question.host, ?found, "a mediaserver has other addresses");
            // A new address is as good as any until it has been asked; the sooner the better.
            trunk.ask_at = now;
            self.out.push_back(Out::Moved);
            self.drop_links(now, question.trunk);
        }
        self.arm_trunk(question.trunk);
    }

    /// A datagram could not be delivered: requests that wait for a first answer go to another address, or fail with 503
    /// (RFC 3261 section 16.9).
    pub fn trunk_error(&mut self, cx: &mut Cx<'_>, to: SocketAddr, kind: IoKind) {
        let now = cx.now.mono;
        if kind == IoKind::MessageSize {
            // Says nothing of those that are smaller.
            return;
        }
        let config = self.config.clone();
        let Some(sip) = &config.sip else { return };
        let mut is_new = false;
        for node in self.trunks.iter_mut().flat_map(Trunk::nodes_mut) {
            if node.address == to && node.suspect_until.is_none_or(|until| until <= now) {
                node.suspect_until = Some(now + SUSPECT);
                node.health.refused(now, &sip.health);
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
            .filter(|(_, transaction)| {
                transaction.is_unanswered() && transaction.remote == to && !transaction.by_stream
            })
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            if !self.fail_over(cx, key) {
                self.fail(cx, key, 503, "Service Unavailable");
            }
        }
    }

    /// A TCP connection with a mediaserver is there.
    pub fn linked(&mut self, cx: &mut Cx<'_>, link: LinkId, conn: ConnId) {
        let now = cx.now.mono;
        let trunk = self
            .trunks
            .get_mut(link.trunk.index())
            .filter(|trunk| trunk.is_linked());
        let node = trunk.and_then(|trunk| trunk.nodes_mut().iter_mut().find(|node| node.address == link.address));
        if node.is_some_and(|node| node.link.up(now, conn)) {
            self.arm_trunk(link.trunk);
        } else {
            self.out.push_back(Out::Unlink { conn });
        }
    }

    /// A TCP connection with a mediaserver has ended, or did not come about. Requests that wait for a first answer on
    /// it go by UDP.
    pub fn unlinked(&mut self, cx: &mut Cx<'_>, link: LinkId, conn: ConnId) {
        let now = cx.now.mono;
        let Some(trunk) = self.trunks.get_mut(link.trunk.index()) else {
            return;
        };
        let mut nodes = trunk.nodes_mut().iter_mut();
        let node = nodes.find(|node| node.address == link.address);
        if !node.is_some_and(|node| node.link.down(now, conn)) {
            return;
        }
        self.arm_trunk(link.trunk);
        let waiting: Vec<Key> = self
            .transactions
            .iter()
            .filter(|(_, transaction)| {
                let is_there = transaction.trunk == link.trunk && transaction.remote == link.address;
                is_there && transaction.by_stream && transaction.may_go_elsewhere()
            })
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            self.go_by_datagram(cx, key);
        }
    }

    pub(super) fn trunk(&self, id: TrunkId) -> &Trunk {
        &self.trunks[id.index()]
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
        self.trunks.iter().any(|trunk| trunk.node(from).is_some())
    }

    /// Something came from a mediaserver.
    pub(super) fn heard(&mut self, now: Instant, from: SocketAddr) {
        self.sign_of_life(from, |health, limits| health.heard(now, limits));
    }

    /// Where a request of a browser goes (RFC 3261 section 16.5): within a dialog to the address that it began at, by
    /// what its route or remote target says; else to the one that its registration is at; each as long as it lives.
    pub(super) fn destination(
        &self,
        now: Instant,
        flow: &Flow,
        request: &Request<'_>,
        route: &Route,
    ) -> Option<Destination> {
        let trunk = self.trunk(flow.trunk);
        let next = match request.is_in_dialog() {
            true => Uri::parse(rewrite::next_hop(request.message, route, request.uri)).ok(),
            false => None,
        };
        let dialog = next.and_then(|uri| trunk.named_by(&uri));
        let home = flow.home.filter(|home| trunk.is_current(*home));
        let known = dialog.filter(|address| trunk.node(*address).is_some_and(|node| node.health.has_dialogs(now)));
        let address = known.or_else(|| trunk.pick(now, dialog.or(home), &[]))?;
        // RFC 3263 section 4.1: a transport in the URI is the one to use.
        let transport = next.and_then(|uri| uri.params.value(b"transport"));
        Some(Destination {
            address,
            asks_stream: transport.is_some_and(|transport| transport.eq_ignore_ascii_case(b"tcp")),
        })
    }

    /// Whether a request is one for TCP, and there is a connection.
    pub(super) fn is_for_stream(
        &self,
        cx: &mut Cx<'_>,
        trunk: TrunkId,
        to: SocketAddr,
        asks: bool,
        len: usize,
    ) -> bool {
        let trunk = self.trunk(trunk);
        if !trunk.is_linked() || !asks && len <= LARGE {
            return false;
        }
        let is_linked = trunk.node(to).is_some_and(|node| node.link.conn().is_some());
        cx.stats.sip.stream_missing += u64::from(!is_linked);
        is_linked
    }

    /// The TCP connection with an address.
    pub(super) fn link_with(&mut self, now: Instant, address: SocketAddr) -> Option<ConnId> {
        let mut nodes = self.trunks.iter_mut().flat_map(Trunk::nodes_mut);
        let node = nodes.find(|node| node.address == address && node.link.conn().is_some())?;
        node.link.keep_alive(now);
        node.link.conn()
    }

    /// An address has left a request without an answer.
    pub(super) fn avoid(&mut self, now: Instant, trunk: TrunkId, address: SocketAddr) {
        let duration = self.sip().health.interval * AVOIDED_INTERVALS;
        let nodes = self.trunks[trunk.index()].nodes_mut();
        if let Some(node) = nodes.iter_mut().find(|node| node.address == address) {
            node.health.avoid(now, duration);
        }
    }

    /// A mediaserver has said 503. RFC 3261 section 21.5.4: other requests should not go there for as long as Retry-After
    /// says, if it does.
    pub(super) fn told_to_wait(&mut self, now: Instant, from: SocketAddr, message: &Message<'_>) {
        // RFC 3261 section 20.33: a comment and parameters may follow.
        let value = message.value(Name::RetryAfter).unwrap_or_default();
        let digits = value.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
        let Some(retry_after) = field::number(digits) else {
            return;
        };
        for node in self.trunks.iter_mut().flat_map(Trunk::nodes_mut) {
            if node.address == from {
                node.health.busy(now, Duration::from_secs(retry_after));
            }
        }
    }

    /// Takes a response if it answers one of our own questions.
    pub(super) fn take_pong(&mut self, now: Instant, from: SocketAddr, branch: &Branch, status: u16) -> bool {
        let Some(key) = self.branch_key(branch, Kind::Ping) else {
            return false;
        };
        self.sign_of_life(from, |health, limits| {
            health.answered(now, key.generation(), status, limits);
        });
        true
    }

    /// Does for a mediaserver what is due.
    pub(super) fn tend(&mut self, cx: &mut Cx<'_>, id: TrunkId, at: Instant) {
        let now = cx.now.mono;
        let (interval, lifetime) = (self.sip().health.interval, self.sip().resolve);
        let trunk = &mut self.trunks[id.index()];
        if trunk.armed != Some(at) {
            return;
        }
        trunk.armed = None;
        if trunk.is_gone {
            return;
        }
        if trunk.resolve_at <= now {
            // An answer that does not come is waited for no longer than it would hold.
            trunk.resolve_at = now + lifetime;
            let questions = trunk.names().into_iter().map(|host| Question { trunk: id, host });
            self.out.extend(questions.map(Out::Resolve));
        }
        let trunk = &mut self.trunks[id.index()];
        if trunk.ask_at <= now {
            trunk.ask_at = now + interval;
            if trunk.let_go(now) {
                self.out.push_back(Out::Moved);
                self.drop_links(now, id);
            }
            self.ask(cx, id);
        }
        self.keep_links(cx, id);
        self.arm_trunk(id);
    }

    /// Sends a question after its health to each address of a mediaserver.
    fn ask(&mut self, cx: &mut Cx<'_>, id: TrunkId) {
        let config = self.config.clone();
        let Some(sip) = &config.sip else { return };
        for (address, number) in self.trunks[id.index()].ask(&sip.health) {
            let branch = self.branch(Kind::Ping, Key::from_parts(id.index() as u32, number));
            let (to, us) = (text(address), self.names.udp.as_bytes());
            let call = text(format_args!("{:08x}{:04x}{:04x}", self.epoch, self.shard.0, id.index()));
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
    }

    /// Makes TCP connections that are missing, and keeps the others alive.
    fn keep_links(&mut self, cx: &mut Cx<'_>, id: TrunkId) {
        let now = cx.now.mono;
        let trunk = &mut self.trunks[id.index()];
        if !trunk.is_linked() {
            return;
        }
        for node in trunk.nodes_mut() {
            if node.link.wake().is_none_or(|at| at > now) {
                continue;
            }
            match node.link.conn() {
                // RFC 5626 section 3.5.1: a double CRLF, which everybody reads over (RFC 3261 section 7.5).
                Some(conn) => {
                    let start = cx.made.len();
                    cx.made.extend_from_slice(b"\r\n\r\n");
                    let bytes = start..cx.made.len();
                    node.link.keep_alive(now);
                    self.out.push_back(Out::Link { conn, bytes });
                }
                None => {
                    node.link.dial();
                    let address = node.address;
                    self.out.push_back(Out::Dial(LinkId { trunk: id, address }));
                }
            }
        }
    }

    /// Ends TCP connections that nobody needs any more.
    fn drop_links(&mut self, now: Instant, id: TrunkId) {
        let unwanted = self.trunks[id.index()].unwanted_links(now);
        self.out.extend(unwanted.into_iter().map(|conn| Out::Unlink { conn }));
    }

    pub(super) fn arm_trunk(&mut self, id: TrunkId) {
        let trunk = &mut self.trunks[id.index()];
        let wake = trunk.wake();
        if !trunk.is_gone && trunk.armed.is_none_or(|armed| wake < armed) {
            trunk.armed = Some(wake);
            self.timers.arm(wake, Owner::Trunk(id));
        }
    }

    fn sign_of_life(&mut self, from: SocketAddr, sign: impl Fn(&mut Health, &config::Health)) {
        let Some(sip) = &self.config.sip else { return };
        for trunk in &mut self.trunks {
            trunk.heard(from, |health| sign(health, &sip.health));
        }
    }
}
