//! Which server of an upstream is called, and is there room? The first that works, and the next when it does not answer.

use alloc::{collections::VecDeque, sync::Arc};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::BytesMut;

use super::gate::Passage;
use crate::{
    action::{Action, Addresses, ConnId, Egress, IoKind, ResolveError},
    config::{self, Config, Host, HttpLimits, SharedConfig},
    conn::{Conn, Errand, Stage, Upstream, Wait},
    http::{Answer, Client, Health, Pool, Standing},
    shard::{Question, Shard},
    time::{Instant, Now},
    tls::{Tls, TlsError},
};

/// A looked-up name is asked for again after this.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(30);

/// When a client that found an upstream full may try again.
const RETRY_AFTER_SECS: u64 = 1;

/// What this shard knows of the upstreams of its configuration.
#[derive(Debug)]
pub(super) struct Backends {
    upstreams: Vec<State>,
    pool: Pool,
    /// Length of all queues.
    queued: usize,
}

/// What is known of one upstream.
#[derive(Debug)]
struct State {
    /// By backend.
    health: Vec<Health>,
    /// Place of its first backend in the pool.
    first: usize,
    /// Exchanges and tunnels.
    in_use: usize,
    /// Connections whose request waits for room, and no others.
    queue: VecDeque<ConnId>,
    /// When its backends are to be checked.
    check_at: Option<Instant>,
}

impl Backends {
    pub(super) fn new(config: &Config) -> Self {
        let mut backends = 0;
        let upstreams = config.upstreams().iter().map(|upstream| {
            let first = backends;
            backends += upstream.backends.len();
            State {
                health: vec![Health::default(); upstream.backends.len()],
                first,
                in_use: 0,
                queue: VecDeque::new(),
                check_at: upstream.check.is_some().then_some(Instant::ZERO),
            }
        });
        let upstreams = upstreams.collect();
        let limits = config.https.as_ref().map(|https| &https.limits);
        Self {
            upstreams,
            pool: Pool::new(backends, limits.unwrap_or(&HttpLimits::default())),
            queued: 0,
        }
    }

    /// Takes another configuration; what is known of a server that is checked as before is still known. Returns the
    /// connections whose request waited for room.
    pub(super) fn configure(&mut self, old: &Config, config: &Config) -> Vec<ConnId> {
        let known = core::mem::replace(self, Self::new(config)).upstreams;
        let (before, after) = (old.upstreams(), config.upstreams());
        for (state, upstream) in self.upstreams.iter_mut().zip(after) {
            let is_same = |other: &config::Upstream| other.name == upstream.name && other.check == upstream.check;
            let Some(place) = before.iter().position(is_same) else {
                continue;
            };
            for (health, backend) in state.health.iter_mut().zip(&upstream.backends) {
                let at = before[place].backends.iter().position(|other| other.is_at(backend));
                if let Some(known) = at.and_then(|at| known[place].health.get(at)) {
                    *health = known.clone();
                }
            }
        }
        known.into_iter().flat_map(|state| state.queue).collect()
    }

    fn queue(&mut self, upstream: usize, id: ConnId) {
        if let Some(state) = self.upstreams.get_mut(upstream) {
            state.queue.push_back(id);
            self.queued += 1;
        }
    }

    /// A request waits no longer.
    pub(super) fn unqueue(&mut self, upstream: usize, id: ConnId) {
        let queue = self.upstreams.get_mut(upstream).map(|state| &mut state.queue);
        if let Some(queue) = queue
            && let Some(at) = queue.iter().position(|waiting| *waiting == id)
        {
            queue.remove(at);
            self.queued -= 1;
        }
    }

    /// When the next check is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.upstreams.iter().filter_map(|state| state.check_at).min()
    }

    /// How many have failed lately.
    pub(super) fn failing(&self) -> usize {
        let health = self.upstreams.iter().flat_map(|state| &state.health);
        health.filter(|health| health.is_failing()).count()
    }

    fn place(&self, upstream: usize, backend: usize) -> usize {
        self.upstreams
            .get(upstream)
            .map_or(usize::MAX, |state| state.first + backend)
    }

    fn health(&mut self, upstream: usize, backend: usize) -> Option<&mut Health> {
        self.upstreams.get_mut(upstream)?.health.get_mut(backend)
    }

    /// The backends to be called, the best one last; those that are down are left out.
    fn in_order(&self, upstream: usize, now: Instant) -> Vec<usize> {
        let standings = self.upstreams[upstream]
            .health
            .iter()
            .map(|health| health.standing(now));
        let mut order: Vec<(Standing, usize)> = standings
            .zip(0..)
            .filter(|(standing, _)| *standing != Standing::Down)
            .collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        order.into_iter().map(|(_, backend)| backend).collect()
    }
}

/// Addresses of upstreams that are named.
#[derive(Debug)]
pub(super) struct Resolver {
    /// A handful: those of the configuration, and those that somebody waits for.
    names: Vec<Name>,
}

/// What is known of a name.
#[derive(Debug)]
struct Name {
    host: String,
    /// The addresses, and until when they hold.
    known: Option<(Vec<IpAddr>, Instant)>,
    /// Whether a question is out: one at a time, however many wait for the answer.
    asked: bool,
}

impl Resolver {
    pub(super) const fn new() -> Self {
        Self { names: Vec::new() }
    }

    /// Forgets the names for which `named` does not hold, but for those that are being looked up.
    pub(super) fn retain(&mut self, named: impl Fn(&str) -> bool) {
        self.names.retain(|name| name.asked || named(&name.host));
    }

    fn name(&mut self, host: &str) -> &mut Name {
        let index = self.names.iter().position(|name| name.host == host).unwrap_or_else(|| {
            self.names.push(Name {
                host: host.into(),
                known: None,
                asked: false,
            });
            self.names.len() - 1
        });
        &mut self.names[index]
    }
}

impl Shard {
    /// Whether an upstream takes one exchange more. `None` when it does; else the request waits, or is refused.
    pub(super) fn find_room(&mut self, now: Now, id: ConnId, index: usize) -> Option<Passage> {
        let config = self.config.clone();
        let upstream = config.web.as_ref()?.upstreams.get(index)?;
        let state = self.web.backends.upstreams.get_mut(index)?;
        if state.in_use < upstream.connections_max {
            return None;
        }
        if state.queue.len() >= upstream.queue_max {
            return Some(Passage::Refused(Answer::unavailable(RETRY_AFTER_SECS)));
        }
        let until = self.http_deadline(now, |limits| limits.connect)?;
        self.web.backends.queue(index, id);
        self.hold(id, Wait::Room(index), until);
        Some(Passage::Held)
    }

    /// The request that has waited longest where there is room now.
    pub(in crate::shard) fn next_with_room(&mut self) -> Option<ConnId> {
        let backends = &mut self.web.backends;
        // Every packet comes by here.
        if backends.queued == 0 {
            return None;
        }
        let upstreams = self.config.upstreams();
        for (state, upstream) in backends.upstreams.iter_mut().zip(upstreams) {
            if state.in_use < upstream.connections_max
                && let Some(id) = state.queue.pop_front()
            {
                backends.queued -= 1;
                return Some(id);
            }
        }
        None
    }

    /// An exchange with an upstream begins.
    pub(super) fn enter(&mut self, id: ConnId) {
        let Some((upstream, _)) = self.upstream(id) else { return };
        upstream.is_counted = true;
        let index = upstream.index;
        if let Some(state) = self.web.backends.upstreams.get_mut(index) {
            state.in_use += 1;
        }
    }

    /// An exchange or tunnel has ended that began under this configuration.
    pub(in crate::shard) fn leave(&mut self, config: &SharedConfig, index: usize) {
        if Arc::ptr_eq(config, &self.config)
            && let Some(state) = self.web.backends.upstreams.get_mut(index)
        {
            state.in_use = state.in_use.saturating_sub(1);
        }
    }

    /// An idle connection to the backend that is called first, or a new one that is being made. `None` when no backend
    /// works, or there may be no more connections.
    pub(super) fn reach(
        &mut self,
        now: Now,
        index: usize,
        may_be_used: bool,
        out: &mut Egress,
    ) -> Option<(ConnId, bool)> {
        let mut backends = self.web.backends.in_order(index, now.mono);
        let first = backends.pop()?;
        if may_be_used && let Some(id) = self.idle_upstream(now, index, first, out) {
            return Some((id, true));
        }
        let id = self.new_upstream(now, self.config.clone(), index, first, backends)?;
        Some((id, false))
    }

    /// Whom to call when this backend does not answer.
    pub(super) fn other_backends(&self, now: Now, index: usize, backend: usize) -> Vec<usize> {
        let mut others = self.web.backends.in_order(index, now.mono);
        others.retain(|other| *other != backend);
        others
    }

    /// An idle connection on which nothing has come that nobody asked for; others are closed.
    fn idle_upstream(&mut self, now: Now, index: usize, backend: usize, out: &mut Egress) -> Option<ConnId> {
        let place = self.web.backends.place(index, backend);
        while let Some(id) = self.web.backends.pool.pop(place, now.mono) {
            let Some(conn) = self.conns.get(id.0) else { continue };
            let is_quiet = !conn.ended && conn.rest_len() == 0;
            if is_quiet && matches!(&conn.stage, Stage::Upstream(upstream) if upstream.client.reusable()) {
                return Some(id);
            }
            self.close(now, id, out);
        }
        None
    }

    /// Keeps an idle connection for the next exchange; one that is too many is closed.
    pub(super) fn pool_upstream(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some((upstream, _)) = self.upstream(id) else { return };
        let (index, backend) = (upstream.index, upstream.backend);
        let place = self.web.backends.place(index, backend);
        if let Some(surplus) = self.web.backends.pool.push(place, id, now.mono) {
            self.close(now, surplus, out);
        }
    }

    /// A connection of the pool is gone.
    pub(super) fn unpool_upstream(&mut self, id: ConnId, upstream: &Upstream) {
        let place = self.web.backends.place(upstream.index, upstream.backend);
        self.web.backends.pool.remove(place, id);
    }

    pub(super) fn new_upstream(
        &mut self,
        now: Now,
        config: SharedConfig,
        index: usize,
        backend: usize,
        backends: Vec<usize>,
    ) -> Option<ConnId> {
        if self.conns.len() >= self.config.server.connections_max {
            return None;
        }
        let upstream = Upstream {
            client: Client::new(&config.https.as_ref()?.limits),
            since: now.mono,
            config,
            index,
            backend,
            backends,
            errand: None,
            is_counted: false,
            pair: None,
            awaits_address: false,
            untried: Vec::new(),
            replay: None,
            request_ended: false,
        };
        let tls = client_tls(&upstream).ok()?;
        Some(ConnId(
            self.conns
                .insert(Conn::dialing(Stage::Upstream(Box::new(upstream)), tls)),
        ))
    }

    /// Calls the backend of a connection: finds its addresses, then dials the first.
    pub(super) fn locate(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(called) = self.upstream(id).and_then(|(upstream, _)| upstream.called()) else {
            return;
        };
        let host = match &called.host {
            Host::Address(address) => {
                let address = *address;
                return self.dial_first(now, id, &[address], out);
            }
            Host::Name(host) => host.clone(),
        };
        let name = self.web.resolver.name(&host);
        if let Some((addresses, until)) = &name.known
            && *until > now.mono
        {
            let addresses = addresses.clone();
            return self.dial_first(now, id, &addresses, out);
        }
        if !core::mem::replace(&mut name.asked, true) {
            self.resolve(host.clone(), Question::Upstream(host));
        }
        if let Some((waiting, _)) = self.upstream(id) {
            waiting.awaits_address = true;
        }
    }

    pub(in crate::shard) fn upstream_resolved(
        &mut self,
        now: Now,
        host: &str,
        result: Result<Addresses, ResolveError>,
        out: &mut Egress,
    ) {
        let name = self.web.resolver.name(host);
        name.asked = false;
        // What was known is better than nothing, while the resolver is away.
        match result {
            Ok(found) => name.known = Some((found.addresses, now.mono + ADDRESS_LIFETIME)),
            Err(ResolveError) => tracing::warn!(host, "the name of an upstream could not be looked up"),
        }
        let addresses = name.known.clone().map(|(addresses, _)| addresses).unwrap_or_default();
        let waits = |conn: &Conn| matches!(&conn.stage, Stage::Upstream(waiting) if waiting.awaits(host));
        let waiting: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| waits(conn))
            .map(|(key, _)| ConnId(key))
            .collect();
        for id in waiting {
            self.dial_first(now, id, &addresses, out);
        }
    }

    fn dial_first(&mut self, now: Now, id: ConnId, addresses: &[IpAddr], out: &mut Egress) {
        let Some((upstream, _)) = self.upstream(id) else { return };
        let port = upstream.called().map_or(0, |called| called.port);
        upstream.awaits_address = false;
        upstream.untried = addresses
            .iter()
            .rev()
            .map(|address| SocketAddr::new(*address, port))
            .collect();
        if !self.dial_next(id) {
            self.upstream_failed(now, id, IoKind::Unreachable, out);
        }
    }

    fn dial_next(&mut self, id: ConnId) -> bool {
        let Some(to) = self.upstream(id).and_then(|(upstream, _)| upstream.untried.pop()) else {
            return false;
        };
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.peer = to;
        }
        self.actions.push_back(Action::Dial {
            conn: id,
            from: None,
            to,
        });
        true
    }

    /// A call has come to nothing, so that the upstream has seen nothing of the request: another connection takes the
    /// place of this one and calls the next address. Returns whether there is one.
    pub(super) fn call_next(&mut self, now: Now, id: ConnId, out: &mut Egress) -> bool {
        let Some(conn) = self.conns.get(id.0) else { return false };
        if conn.is_ready() {
            return false;
        }
        let Some((upstream, _)) = self.upstream(id) else {
            return false;
        };
        let is_same_backend = !upstream.untried.is_empty();
        if !is_same_backend {
            upstream.awaits_address = false;
            let (config, index, backend) = (upstream.config.clone(), upstream.index, upstream.backend);
            self.call_failed(now, &config, index, backend);
            let Some((upstream, _)) = self.upstream(id) else {
                return false;
            };
            let Some(next) = upstream.backends.pop() else {
                return false;
            };
            upstream.backend = next;
        }
        let Some(Ok(tls)) = self.upstream(id).map(|(upstream, _)| client_tls(upstream)) else {
            return false;
        };
        let Some(mut conn) = self.conns.remove(id.0) else {
            return false;
        };
        // The answer to a call that is still out must not be taken for one to the next.
        self.actions.push_back(Action::Close(id, BytesMut::new()));
        conn.redial(tls);
        let pair = conn.stage.pair();
        let id = ConnId(self.conns.insert(conn));
        if let Some((browser, _)) = pair.and_then(|pair| self.browser(pair)) {
            browser.pair = Some(id);
        }
        self.set_deadline(id, self.http_deadline(now, |limits| limits.connect));
        match is_same_backend {
            true => drop(self.dial_next(id)),
            false => self.locate(now, id, out),
        }
        self.list(id);
        true
    }

    /// The backend of a connection has taken the call.
    pub(super) fn call_taken(&mut self, id: ConnId) {
        let config = self.config.clone();
        let Some((upstream, _)) = self.upstream(id) else { return };
        let (index, backend) = (upstream.index, upstream.backend);
        if Arc::ptr_eq(&upstream.config, &config)
            && let Some(health) = self.web.backends.health(index, backend)
        {
            health.call_taken();
        }
    }

    fn call_failed(&mut self, now: Now, config: &SharedConfig, index: usize, backend: usize) {
        let Some(upstream) = config.web.as_ref().and_then(|web| web.upstreams.get(index)) else {
            return;
        };
        if Arc::ptr_eq(config, &self.config)
            && let Some(health) = self.web.backends.health(index, backend)
            && health.call_failed(now.mono, upstream.failures_max, upstream.rest)
        {
            let (server, rest_secs) = (&upstream.backends[backend], upstream.rest.as_secs_f64());
            tracing::info!(upstream = upstream.name, %server, rest_secs, "a server of an upstream is left alone");
        }
    }

    /// Asks backends whether they work, when it is time.
    pub(in crate::shard) fn web_timeout(&mut self, now: Now, out: &mut Egress) {
        let config = self.config.clone();
        let upstreams = config.upstreams();
        for (index, upstream) in upstreams.iter().enumerate() {
            let state = &mut self.web.backends.upstreams[index];
            let (Some(check), Some(at)) = (&upstream.check, state.check_at) else {
                continue;
            };
            if at > now.mono {
                continue;
            }
            state.check_at = self.draining.is_none().then_some(now.mono + check.interval);
            for backend in 0..upstream.backends.len() {
                if self.draining.is_none() {
                    self.check_backend(now, index, backend, &check.path, out);
                }
            }
        }
    }

    fn check_backend(&mut self, now: Now, index: usize, backend: usize, path: &str, out: &mut Egress) {
        // A connection of its own: whether others can be made is what matters.
        if let Some(id) = self.new_upstream(now, self.config.clone(), index, backend, Vec::new()) {
            self.send_errand(now, id, false, path, None, Errand::Check { status: 0 }, out);
        }
    }

    /// A check has ended, with this status if any.
    pub(super) fn backend_checked(&mut self, upstream: &Upstream, status: Option<u16>) {
        let Some(target) = upstream.target() else { return };
        let Some(check) = target
            .check
            .as_ref()
            .filter(|_| Arc::ptr_eq(&upstream.config, &self.config))
        else {
            return;
        };
        let is_good = status.is_some_and(|status| match check.status {
            Some(expected) => status == expected,
            None => (200..400).contains(&status),
        });
        let backend = upstream.backend;
        if let Some(health) = self.web.backends.health(upstream.index, backend)
            && health.checked(is_good, check.rise, check.fall)
        {
            let (name, server) = (&target.name, &target.backends[backend]);
            match is_good {
                true => tracing::info!(upstream = name, %server, "a server of an upstream works again"),
                false => tracing::warn!(upstream = name, %server, status, "a server of an upstream does not work"),
            }
        }
    }
}

/// What TLS the called backend wants.
fn client_tls(upstream: &Upstream) -> Result<Option<Tls>, TlsError> {
    let tls = upstream.called().and_then(|called| called.tls.as_ref());
    let tls = tls.map(Tls::client).transpose();
    tls.inspect_err(|error| {
        let upstream = upstream.target().map_or("", |target| &target.name);
        tracing::error!(upstream, %error, "TLS towards an upstream cannot be set up");
    })
}
