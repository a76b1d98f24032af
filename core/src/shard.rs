//! Everything that one CPU core owns, and the doors to it.

use alloc::collections::VecDeque;
use core::{net::SocketAddr, time::Duration};

use bytes::{Buf as _, BytesMut};

use crate::{
    access::End,
    action::{
        Action, ConnId, Egress, Endpoints, Input, IoKind, ListenerId, Parcel, QueryId, Refused, RelayId, Run, ShardId,
        SocketId,
    },
    config::{Offer, SharedConfig},
    conn::{Conn, Stage},
    cx::Cx,
    limit::Account,
    refusal::{Role, refused},
    rng::Rng,
    sip::{self, Bridge},
    slab::Slab,
    stats::Stats,
    time::{Instant, Now},
    timers::Timers,
    tls::{ALPN_ACME, ALPN_HTTP, Heard, Transcript},
    turn,
};

mod clients;
mod configure;
mod drain;
mod peer_role;
pub(crate) mod sip_role;
mod snapshot;
mod sniff;
mod trunk_role;
mod turn_role;
pub(crate) mod web_role;

/// One CPU core's part of the edge. It shares its configuration with others, and through that what TLS knows: certificates,
/// the time, sessions. What it does follows from its configuration, its seed and its inputs.
///
/// A runtime calls one of the doors (`accept`, `accept_peer`, `adopt` and `resume`, `receive`, `datagrams`, `handle`,
/// `timeout`), then takes actions until there are none, then sends the [`Egress`] and clears it.
#[derive(Debug)]
pub struct Shard {
    config: SharedConfig,
    id: ShardId,
    shards: u16,
    rng: Rng,
    stats: Stats,
    offers: Vec<Offer>,
    conns: Slab<Conn>,
    timers: Timers<ConnId>,
    /// Connections that something happened to in this call.
    listed: Vec<ConnId>,
    actions: VecDeque<Action>,
    /// What TLS decrypts into.
    plain: Vec<u8>,
    transcript: Transcript,
    clients: clients::Clients,
    /// What each name that is being looked up is wanted for.
    questions: Slab<Question>,
    web: web_role::Web,
    sip: Option<Bridge>,
    turn: Option<turn::Server>,
    draining: Option<drain::Drain>,
    /// When timers of a machine may run again, after one of them has met a fault of ours.
    recovers_at: Instant,
}

/// What a name is looked up for.
#[derive(Debug)]
enum Question {
    /// Upstreams that have it.
    Upstream(String),
    /// A mediaserver.
    Mediaserver(sip::Question),
}

/// How a connection goes on after one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// This many bytes are done with; there may be more to understand.
    Used(usize),
    /// More bytes must come, or something else must happen first.
    Wait,
    /// The connection is gone, and what it sent is of no interest.
    Gone,
}

impl Shard {
    /// A shard of a process that has `shards` of them.
    pub fn new(config: SharedConfig, id: ShardId, shards: u16, seed: [u8; 32], now: Now) -> Self {
        let mut rng = Rng::new(seed);
        let offers = config.tcp_listeners().into_iter().map(|(_, offer)| offer).collect();
        let turn = config
            .turn
            .is_some()
            .then(|| turn::Server::new(config.clone(), id, shards, &mut rng));
        let sip = config
            .sip
            .is_some()
            .then(|| Bridge::new(config.clone(), id, shards, &mut rng));
        let web = web_role::Web::new(&config, &mut rng);
        let clients = clients::Clients::new(rng.hasher());
        let shard = Self {
            config,
            id,
            shards,
            rng,
            stats: Stats::default(),
            offers,
            conns: Slab::new(),
            timers: Timers::new(),
            listed: Vec::new(),
            actions: VecDeque::new(),
            plain: Vec::new(),
            transcript: Transcript::None,
            clients,
            questions: Slab::new(),
            web,
            sip,
            turn,
            draining: None,
            recovers_at: Instant::ZERO,
        };
        shard.set_clock(now);
        shard
    }

    /// A client has connected to a listener.
    ///
    /// # Errors
    /// When a limit is reached or the process is about to end: close the socket.
    pub fn accept(&mut self, now: Now, on: ListenerId, local: SocketAddr, peer: SocketAddr) -> Result<ConnId, Refused> {
        let offer = self.offers.get(usize::from(on.0)).copied().ok_or(Refused)?;
        let server = &self.config.server;
        let is_full = self.draining.is_some() || self.conns.len() >= server.connections_max;
        let source = peer.ip().to_canonical();
        let is_proxied = self.config.proxies(offer).iter().any(|net| net.contains(&source));
        if is_full || !is_proxied && !self.admit(source) {
            self.stats.edge.refused += 1;
            return Err(Refused);
        }
        self.stats.edge.accepted += 1;
        let conn = match is_proxied {
            true => Conn::proxied(offer, local, peer),
            false => Conn::accepted(offer, local, peer),
        };
        let conn = ConnId(self.conns.insert(conn));
        self.set_deadline(conn, Some(now.mono + self.sniff_limit(offer)));
        Ok(conn)
    }

    /// A peer has connected to a relayed transport address (RFC 6062 section 5.3).
    ///
    /// # Errors
    /// When it has no permission, or a limit is reached: close the socket.
    pub fn accept_peer(
        &mut self,
        now: Now,
        on: RelayId,
        local: SocketAddr,
        peer: SocketAddr,
        out: &mut Egress,
    ) -> Result<ConnId, Refused> {
        self.set_clock(now);
        let mut accepted = Err(Refused);
        self.contain(now, None, out, |shard, out| {
            accepted = shard.take_peer(now, on, local, peer, out);
        });
        self.settle(now, out);
        accepted
    }

    /// Takes in a connection that another shard gave away; [`Shard::resume`] follows once its stream is here.
    ///
    /// # Errors
    /// When a limit is reached and nobody waits for an answer: close the stream.
    pub fn adopt(&mut self, now: Now, conn: Box<Conn>) -> Result<ConnId, Refused> {
        let is_full = self.draining.is_some() || self.conns.len() >= self.config.server.connections_max;
        // A request is answered, be it with a refusal.
        if is_full && !matches!(conn.stage, Stage::Opening(_)) {
            self.stats.edge.refused += 1;
            return Err(Refused);
        }
        if conn.is_accepted() {
            self.clients.add(Account::of(conn.peer.ip()));
        }
        let deadline = conn.deadline;
        let mut conn = *conn;
        conn.moved();
        let id = ConnId(self.conns.insert(conn));
        self.set_deadline(id, Some(deadline.unwrap_or(now.mono)));
        Ok(id)
    }

    /// Goes on with an adopted connection.
    pub fn resume(&mut self, now: Now, conn: ConnId, out: &mut Egress) {
        self.set_clock(now);
        self.contain(now, Some(conn), out, |shard, out| shard.go_on(now, conn, out));
        self.settle(now, out);
    }

    /// Bytes of a stream. They may be changed in place and are of no use afterwards.
    pub fn receive(&mut self, now: Now, conn: ConnId, bytes: &mut [u8], out: &mut Egress) {
        self.set_clock(now);
        let first = bytes.first_chunk::<8>().copied();
        if !self.contain(now, Some(conn), out, |shard, out| shard.take_in(now, conn, bytes, out)) {
            tracing::error!(?conn, len = bytes.len(), ?first, "these bytes were the cause");
        }
        self.settle(now, out);
    }

    /// Datagrams of one socket. `out` may name them by their index until it is cleared.
    pub fn datagrams(&mut self, now: Now, on: SocketId, runs: &[Run<'_>], out: &mut Egress) {
        let door = |shard: &mut Self, out: &mut Egress| match on {
            SocketId::Turn(_) => shard.from_turn_clients(now, on, runs, out),
            SocketId::Relay(relay) => shard.from_peers(now, relay, runs, out),
            SocketId::Sip => shard.from_mediaservers(now, runs, out),
        };
        if !self.contain(now, None, out, door) {
            let peers: Vec<SocketAddr> = runs.iter().map(|run| run.peer).collect();
            tracing::error!(?on, ?peers, "datagrams of these were the cause, and are dropped");
        }
        self.settle(now, out);
    }

    /// Everything else that happens.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Egress) {
        self.set_clock(now);
        let cause = match input {
            Input::Eof(conn) | Input::Failed(conn, _) | Input::Written(conn) | Input::Dialed(conn, _) => Some(conn),
            _ => None,
        };
        self.contain(now, cause, out, |shard, out| shard.happened(now, input, out));
        self.settle(now, out);
    }

    /// The time that [`Shard::poll_timeout`] named has come.
    pub fn timeout(&mut self, now: Now, out: &mut Egress) {
        self.set_clock(now);
        while let Some((at, conn)) = self.timers.pop_due(now.mono) {
            self.contain(now, Some(conn), out, |shard, out| {
                shard.deadline_popped(now, at, conn, out);
            });
        }
        for machine in [
            Self::web_timeout,
            Self::sip_timeout,
            Self::turn_timeout,
            Self::drain_timeout,
        ] {
            if !self.contain(now, None, out, |shard, out| machine(shard, now, out)) {
                // Its timer may still be due, and at once would be for ever.
                self.recovers_at = now.mono + RECOVERY;
            }
        }
        self.settle(now, out);
    }

    /// When to call [`Shard::timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sip = self.sip.as_ref().and_then(Bridge::poll_timeout);
        let turn = self.turn.as_ref().and_then(turn::Server::poll_timeout);
        let drain = self.draining.as_ref().and_then(drain::Drain::poll_timeout);
        let machines = [self.web.poll_timeout(), sip, turn, drain].into_iter().flatten().min();
        let machines = machines.map(|at| at.max(self.recovers_at));
        [self.timers.next(), machines].into_iter().flatten().min()
    }

    /// What the runtime is asked to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Everything that a stream has to send; [`Input::Written`] when that is done.
    pub fn take_output(&mut self, conn: ConnId) -> Option<BytesMut> {
        let mut output = None;
        let survives = self.survives(|shard| output = shard.conns.get_mut(conn.0).and_then(Conn::take_output));
        if !survives {
            tracing::error!(?conn, "a fault of ours; the connection that caused it is closed");
            if let Some(conn) = self.conns.get_mut(conn.0) {
                conn.is_broken = true;
            }
            self.list(conn);
        }
        output
    }

    /// Counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// From now on writes down what TLS tells, for [`Shard::poll_heard`] after each call: whoever records a shard needs no
    /// secrets of TLS then.
    pub fn write_transcript(&mut self) {
        self.transcript = Transcript::Written(VecDeque::new());
    }

    /// From now on does so no more.
    pub fn end_transcript(&mut self) {
        self.transcript = Transcript::None;
    }

    /// What TLS has told in the last call.
    pub fn poll_heard(&mut self) -> Option<Heard> {
        match &mut self.transcript {
            Transcript::Written(heard) => heard.pop_front(),
            Transcript::None | Transcript::Read(_) => None,
        }
    }

    /// From now on TLS tells what it is made to, and what comes by a connection with TLS is not looked at: `heard` is for
    /// the next call.
    pub fn read_transcript(&mut self, heard: impl IntoIterator<Item = Heard>) {
        self.transcript = Transcript::Read(heard.into_iter().collect());
    }

    /// Lets something happen; returns whether it went well. A panic is a fault of ours and ends what caused it, never the
    /// calls of others.
    fn contain(
        &mut self,
        now: Now,
        cause: Option<ConnId>,
        out: &mut Egress,
        event: impl FnOnce(&mut Self, &mut Egress),
    ) -> bool {
        if self.survives(|shard| event(shard, out)) {
            return true;
        }
        tracing::error!(
            ?cause,
            "a fault of ours; the connection that caused it is closed, where there is one"
        );
        let is_closed = self.survives(|shard| {
            if let Some(conn) = cause {
                shard.close(now, conn, out);
            }
        });
        if let Some(conn) = cause.filter(|_| !is_closed) {
            // It could not even say goodbye.
            self.conns.remove(conn.0);
            self.actions.push_back(Action::Reset(conn));
        }
        self.survives(|shard| {
            // What the bridge was about to say names bytes that are there in this call only.
            shard.sip_out(now, out);
        });
        false
    }

    fn survives(&mut self, event: impl FnOnce(&mut Self)) -> bool {
        let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| event(self)));
        self.stats.edge.panics += u64::from(result.is_err());
        result.is_ok()
    }

    /// Looks a name up.
    fn resolve(&mut self, host: String, question: Question) {
        let query = QueryId(self.questions.insert(question));
        self.actions.push_back(Action::Resolve { query, host });
    }

    /// Certificates are judged by the time of the last input.
    fn set_clock(&self, now: Now) {
        self.config.set_time(now.unix);
    }

    fn happened(&mut self, now: Now, input: Input, out: &mut Egress) {
        match input {
            Input::Eof(conn) => self.eof(now, conn, out),
            Input::Failed(conn, kind) => self.failed(now, conn, kind, out),
            Input::Written(conn) => self.written(now, conn, out),
            Input::Dialed(conn, result) => self.dialed(now, conn, result, out),
            Input::Resolved(query, result) => match self.questions.remove(query.0) {
                Some(Question::Upstream(host)) => self.upstream_resolved(now, &host, result, out),
                Some(Question::Mediaserver(question)) => self.mediaserver_resolved(now, &question, result, out),
                None => {}
            },
            Input::RelayBound(relay, result) => self.relay_bound(now, relay, result, out),
            Input::SocketError(socket, peer, kind, icmp) => match socket {
                SocketId::Relay(relay) => self.relay_error(now, relay, peer, icmp, out),
                SocketId::Sip => self.trunk_error(now, peer, kind, out),
                // A TURN client that is gone; its allocation ends by its lifetime.
                SocketId::Turn(_) => {}
            },
            Input::Parcel(Parcel::Datagram(foreign)) => self.foreign_datagram(now, &foreign, out),
            Input::Parcel(Parcel::RateAsked { from, conn, question }) => self.rate_asked(now, from, conn, question),
            Input::Parcel(Parcel::RateJudged { conn, verdict }) => self.rate_judged(now, conn, verdict, out),
            // A connection comes by `adopt`, with its stream.
            Input::Parcel(Parcel::Conn(..)) => {}
            Input::Configure(config) => self.configure(now, config, out),
            Input::Drain(deadline) => self.drain(now, deadline, out),
        }
    }

    /// Decrypts where there is TLS, then lets the stage understand what came.
    fn take_in(&mut self, now: Now, id: ConnId, bytes: &mut [u8], out: &mut Egress) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        if conn.tls().is_none() {
            self.understand(now, id, bytes, out);
            return;
        }
        let mut plain = core::mem::take(&mut self.plain);
        let was_ready = conn.is_ready();
        let opened = conn.open(bytes, &mut plain, &mut self.transcript);
        let is_ready = conn.is_ready();
        self.list(id);
        if is_ready && !was_ready {
            self.handshake_done(now, id);
        }
        if !plain.is_empty() {
            self.understand(now, id, &mut plain, out);
        }
        plain.clear();
        self.plain = plain;
        match opened {
            Ok(()) if is_ready && !was_ready && self.is_served(id) => self.close(now, id, out),
            Ok(()) if self.conns.get(id.0).is_some_and(|conn| conn.ended) => self.eof(now, id, out),
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%error, "a TLS connection failed");
                if !is_ready {
                    self.turn_away(id, "tls", "no TLS connection came about");
                    self.upstream_untrusted(id, &error);
                }
                self.failed(now, id, IoKind::Reset, out);
            }
        }
    }

    /// Joins `bytes` to what was left over and lets the stage take items off the front.
    fn understand(&mut self, now: Now, id: ConnId, bytes: &mut [u8], out: &mut Egress) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let mut rest = conn.take_rest();
        if rest.is_empty() {
            let used = self.consume(now, id, bytes, out);
            rest.extend_from_slice(&bytes[used..]);
        } else {
            rest.extend_from_slice(bytes);
            let used = self.consume(now, id, &mut rest, out);
            rest.advance(used);
        }
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.put_rest(rest);
        }
        self.list(id);
    }

    /// Takes items off the front until more bytes are needed; returns how many bytes are done with.
    fn consume(&mut self, now: Now, id: ConnId, bytes: &mut [u8], out: &mut Egress) -> usize {
        let mut used = 0;
        loop {
            let Some(conn) = self.conns.get(id.0) else {
                return bytes.len();
            };
            let fresh = &mut bytes[used..];
            let step = match &conn.stage {
                Stage::Proxied(_) => self.proxied(now, id, fresh, out),
                Stage::Sniff(_) => self.sniff(now, id, fresh, out),
                Stage::Http(_) => self.from_browser(now, id, fresh, out),
                Stage::Upstream(_) => self.from_upstream(now, id, fresh, out),
                Stage::Tunnel(_) => self.through_tunnel(now, id, fresh, out),
                Stage::Opening(_) => self.send_home(now, id, fresh, out),
                Stage::Peer => Step::Wait,
                Stage::Sip(_) => self.from_websocket(now, id, fresh, out),
                Stage::Trunk(_) => self.from_trunk(now, id, fresh, out),
                Stage::Turn(_) => self.from_turn_stream(now, id, fresh, out),
            };
            match step {
                Step::Used(len) => used += len,
                Step::Wait => return used,
                Step::Gone => return bytes.len(),
            }
        }
    }

    /// Lets a connection go on with what it has already received, its end included. Where no byte is left, that may still
    /// be the end of a body.
    fn go_on(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        self.understand(now, id, &mut [], out);
        if self.conns.get(id.0).is_some_and(|conn| conn.ended) {
            self.eof(now, id, out);
        }
    }

    fn eof(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.ended = true;
        // What the other half is too slow to take still comes before the end; be it only that a body is complete.
        if self.is_held_up(id) {
            return;
        }
        let Some(conn) = self.conns.get(id.0) else { return };
        match &conn.stage {
            Stage::Http(_) => self.browser_ended(now, id, out),
            Stage::Upstream(_) => self.upstream_ended(now, id, out),
            Stage::Tunnel(_) => self.tunnel_ended(now, id),
            // Moves as it is; its new shard finds the end. So does the client that comes for a peer.
            Stage::Opening(_) | Stage::Peer => {}
            Stage::Proxied(_) | Stage::Sniff(_) | Stage::Sip(_) | Stage::Trunk(_) | Stage::Turn(_) => {
                self.close(now, id, out)
            }
        }
    }

    fn failed(&mut self, now: Now, id: ConnId, kind: IoKind, out: &mut Egress) {
        let Some(conn) = self.conns.get(id.0) else { return };
        if matches!(conn.stage, Stage::Upstream(_)) {
            self.upstream_failed(now, id, kind, out);
        } else {
            self.close(now, id, out);
        }
    }

    fn written(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.written();
        let (pair, has_more) = (conn.stage.pair(), conn.has_more_to_say());
        self.count_waiting(id);
        self.browser_reads(now, id);
        self.turn_stream_reads(id);
        if has_more {
            self.list(id);
        }
        // The other end may have been left unread because of us. Whoever is read has nothing left to go on with.
        for id in [Some(id), pair].into_iter().flatten() {
            if !self.conns.get(id.0).is_some_and(Conn::is_read) {
                self.go_on(now, id, out);
            }
        }
    }

    fn dialed(&mut self, now: Now, id: ConnId, result: Result<Endpoints, IoKind>, out: &mut Egress) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        match conn.stage {
            Stage::Peer => return self.peer_dialed(now, id, result, out),
            Stage::Trunk(_) => return self.trunk_dialed(now, id, result, out),
            _ => {}
        }
        match result {
            Ok(endpoints) => match conn.connected(endpoints.local, &mut self.transcript) {
                Ok(()) => self.upstream_connected(now, id),
                Err(error) => {
                    tracing::warn!(%error, "TLS towards an upstream cannot start");
                    self.upstream_failed(now, id, IoKind::Other, out);
                }
            },
            Err(kind) => self.upstream_failed(now, id, kind, out),
        }
        self.list(id);
    }

    fn handshake_done(&mut self, now: Now, id: ConnId) {
        let Some(conn) = self.conns.get(id.0) else { return };
        if matches!(conn.stage, Stage::Upstream(_)) {
            self.upstream_ready(now, id);
            return;
        }
        self.stats.edge.handshakes += 1;
        // A browser may make a connection before it has anything to ask.
        if conn.tls().is_some_and(|tls| tls.alpn() == Some(ALPN_HTTP)) {
            self.start_http(id);
            self.set_deadline(id, self.keep_alive(now));
        }
    }

    /// Whether a handshake was all that its client wanted.
    fn is_served(&self, id: ConnId) -> bool {
        let tls = self.conns.get(id.0).and_then(Conn::tls);
        // RFC 8737 section 3: the authority looks at the certificate, nothing is said.
        tls.is_some_and(|tls| tls.is_ready() && tls.alpn() == Some(ALPN_ACME))
    }

    fn deadline_popped(&mut self, now: Now, at: Instant, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        if conn.armed != Some(at) {
            return;
        }
        conn.armed = None;
        match conn.deadline {
            Some(deadline) if deadline <= now.mono => {
                conn.deadline = None;
                self.deadline(now, id, out);
            }
            later => self.set_deadline(id, later),
        }
    }

    /// What should have happened by now has not.
    fn deadline(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.get(id.0) else { return };
        match &conn.stage {
            Stage::Proxied(_) | Stage::Sniff(_) => {
                self.turn_away(id, "slow", "nothing came in time that shows what is wanted");
                self.close(now, id, out);
            }
            Stage::Tunnel(tunnel) if tunnel.waits => self.relay_goes_on(now, id, out),
            Stage::Opening(_) | Stage::Tunnel(_) | Stage::Trunk(_) => self.close(now, id, out),
            Stage::Http(_) => self.browser_is_late(now, id, out),
            Stage::Upstream(_) => self.upstream_is_late(now, id, out),
            Stage::Peer => self.peer_failed(now, id, out),
            Stage::Sip(_) => self.websocket_is_silent(now, id, out),
            Stage::Turn(_) => self.turn_stream_is_silent(now, id, out),
        }
    }

    /// Wakes the connection then, or never. Moving a deadline away costs nothing.
    fn set_deadline(&mut self, id: ConnId, at: Option<Instant>) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.deadline = at;
        if let Some(at) = at
            && conn.armed.is_none_or(|armed| at < armed)
        {
            conn.armed = Some(at);
            self.timers.arm(at, id);
        }
    }

    /// Ends a connection now: what it still has to say is said, its other half is told, its id is dead.
    fn close(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.remove(id.0) else { return };
        self.forget(now, id, conn, out);
    }

    fn forget(&mut self, now: Now, id: ConnId, mut conn: Conn, out: &mut Egress) {
        self.release_client(&mut conn);
        let is_cut = matches!(&conn.stage, Stage::Http(browser) if browser.server.is_cut());
        self.actions.push_back(match is_cut {
            true => Action::Reset(id),
            false => Action::Close(id, conn.last_words()),
        });
        match conn.stage {
            Stage::Http(mut browser) => {
                self.log(now, browser.exchange.take(), End::ClientGone);
                self.browser_gone(now, id, &browser, out);
            }
            Stage::Upstream(mut upstream) => self.upstream_gone(now, id, &mut upstream, out),
            Stage::Tunnel(mut tunnel) => {
                self.log(now, tunnel.exchange.take(), End::Complete);
                self.tunnel_gone(now, id, &tunnel, out);
            }
            Stage::Peer => self.turn_stream_gone(now, id, out),
            Stage::Sip(mut socket) => {
                self.log(now, socket.exchange.take(), End::Complete);
                self.websocket_gone(now, &socket, out);
            }
            Stage::Trunk(link) => self.trunk_gone(now, id, link, out),
            Stage::Turn(_) => self.turn_stream_gone(now, id, out),
            Stage::Opening(opening) => self.log(now, opening.exchange, End::ClientGone),
            Stage::Proxied(_) | Stage::Sniff(_) => {}
        }
    }

    /// Closes a connection that broke its protocol.
    fn fault(&mut self, now: Now, id: ConnId, why: &'static str, out: &mut Egress) -> Step {
        self.turn_away(id, "protocol", why);
        self.stats.edge.faults += 1;
        self.close(now, id, out);
        Step::Gone
    }

    /// Tells why a client is turned away.
    fn turn_away(&self, id: ConnId, reason: &'static str, detail: &'static str) {
        let Some(conn) = self.conns.get(id.0).filter(|conn| conn.is_accepted()) else {
            return;
        };
        let role = match &conn.stage {
            Stage::Http(_) | Stage::Upstream(_) | Stage::Tunnel(_) => Role::Web,
            Stage::Opening(_) | Stage::Sip(_) => Role::Sip,
            Stage::Turn(_) | Stage::Peer => Role::Turn,
            Stage::Sniff(_) => Role::Edge,
            // The proxy is no client, nor is a mediaserver.
            Stage::Proxied(_) | Stage::Trunk(_) => return,
        };
        refused(role, conn.peer.ip(), reason, detail);
    }

    /// Looks after this connection before the call ends.
    fn list(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0)
            && !conn.listed
        {
            conn.listed = true;
            self.listed.push(id);
        }
    }

    /// Asks the runtime for whatever the connections of this call now need.
    fn settle(&mut self, now: Now, out: &mut Egress) {
        self.settle_listed(now, out);
        while let Some(client) = self.clients.next_changed() {
            self.contain(now, None, out, |shard, out| shard.feed(now, client, out));
            self.settle_listed(now, out);
        }
        while let Some(waiting) = self.next_with_room() {
            self.contain(now, Some(waiting), out, |shard, out| shard.release(now, waiting, out));
            self.settle_listed(now, out);
        }
        self.check_drained();
    }

    fn settle_listed(&mut self, now: Now, out: &mut Egress) {
        while let Some(id) = self.listed.pop() {
            self.contain(now, Some(id), out, |shard, out| shard.look_after(now, id, out));
        }
    }

    fn look_after(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        if self.conns.get(id.0).is_some_and(|conn| conn.is_broken) {
            return self.close(now, id, out);
        }
        self.count_waiting(id);
        let want_read = self.wants_bytes(id);
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.listed = false;
        let needs = conn.needs(want_read);
        if needs.flush {
            self.actions.push_back(Action::Flush(id));
        }
        if needs.shut {
            self.actions.push_back(Action::Shut(id));
        }
        if let Some(reading) = needs.read {
            self.actions.push_back(Action::Read(id, reading));
        }
        if self.is_finished(id) {
            self.close(now, id, out);
        }
    }

    /// Whether both directions of a tunnel have ended, each with all that was on its way.
    fn is_finished(&self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id.0) else { return false };
        let pair = conn.stage.pair().and_then(|pair| self.conns.get(pair.0));
        conn.is_shut() && pair.is_some_and(Conn::is_shut)
    }

    /// Whether a connection may send us more: not while whoever gets it, or what is made of it, leaves too much unread.
    fn wants_bytes(&self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id.0) else { return false };
        // What a peer says waits in the kernel for who comes for it.
        let is_wanted = !conn.ended && !matches!(conn.stage, Stage::Peer);
        // What comes for another half makes nothing to write here. RFC 9112 section 9.5: an upstream may answer before
        // it has read all.
        let has_room = conn.stage.pair().is_some() || self.has_room(conn);
        is_wanted && conn.rest_len() < REST_BYTES_MAX && has_room && !self.is_held_up(id) && !self.is_held(id)
    }

    /// Whether the other half of an exchange or tunnel has too much to write already, or all halves together that are
    /// there for the same client, or may not be given more now.
    fn is_held_up(&self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id.0) else { return false };
        let pair = conn.stage.pair().and_then(|pair| self.conns.get(pair.0));
        let waits = matches!(&conn.stage, Stage::Tunnel(tunnel) if tunnel.waits);
        waits || pair.is_some_and(|pair| !self.has_room(pair) || self.is_starved(conn))
    }

    /// Whether more may be written to a connection, as far as what makes it can wait.
    fn has_room(&self, conn: &Conn) -> bool {
        let limit = match &conn.stage {
            Stage::Sip(_) => self.config.sip.as_ref().map(|sip| sip.limits.buffer_bytes_max),
            Stage::Turn(_) => self.turn_answers_max(),
            Stage::Proxied(_)
            | Stage::Sniff(_)
            | Stage::Http(_)
            | Stage::Upstream(_)
            | Stage::Tunnel(_)
            | Stage::Peer
            | Stage::Opening(_)
            | Stage::Trunk(_) => self.config.https.as_ref().map(|https| https.limits.buffer_bytes_max),
        };
        conn.backlog() < limit.unwrap_or(FALLBACK_BUFFER_BYTES)
    }

    /// Moves a connection to the shard that it belongs to, with what has come and is not understood yet.
    fn send_to_shard(&mut self, id: ConnId, to: ShardId, bytes: &[u8]) -> Step {
        let Some(mut conn) = self.conns.remove(id.0) else {
            return Step::Gone;
        };
        self.release_client(&mut conn);
        conn.put_rest(BytesMut::from(bytes));
        self.actions.push_back(Action::Forward {
            to,
            parcel: Parcel::Conn(id, Box::new(conn)),
        });
        Step::Gone
    }

    /// What a machine needs at hand.
    fn cx<'a>(now: Now, rng: &'a mut Rng, stats: &'a mut Stats, out: &'a mut Egress) -> Cx<'a> {
        Cx {
            now,
            rng,
            made: &mut out.made,
            stats,
        }
    }
}

/// After a fault of ours, timers of machines run no more often than this.
const RECOVERY: Duration = Duration::from_millis(100);

/// What may wait for a slow reader where nothing is configured.
const FALLBACK_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes that a connection may hold and that are not understood yet, before it is read again: one more than the longest item
/// of any protocol here, which is a SIP message of 64 KiB in a WebSocket frame. Behind an open exchange a client may send more
/// requests than that.
const REST_BYTES_MAX: usize = 64 * 1024 + 256;

#[cfg(test)]
mod tests;
