//! What happens between a browser and the servers behind us? Requests are judged, forwarded, answered.

use core::{net::IpAddr, time::Duration};

use bytes::BytesMut;

use crate::{
    access::End,
    action::{ConnId, Egress},
    config::{Config, Host, HttpLimits, Offer, Route, TokenRule},
    conn::{BodyProgress, Conn, Downstream, Gate, Identity, Opening, Stage, Wait},
    http::{Accept, Answer, Decision, Forward, Item, Request, client_address, route},
    rng::Rng,
    shard::{Shard, Step},
    time::{Instant, Now},
    tls::Tls,
};

use gate::Passage;

mod backends;
mod errand;
mod gate;
mod identity;
mod log;
mod tunnel;
mod upstream;

/// What the web role holds beside its connections.
#[derive(Debug)]
pub(super) struct Web {
    resolver: backends::Resolver,
    backends: backends::Backends,
    /// Accounts of the clients whose home is here.
    zones: gate::Zones,
    /// What is known of tokens.
    tokens: identity::Tokens,
}

impl Web {
    pub(super) fn new(config: &Config, rng: &mut Rng) -> Self {
        Self {
            resolver: backends::Resolver::new(),
            backends: backends::Backends::new(config),
            zones: gate::Zones::new(config, rng),
            tokens: identity::Tokens::new(rng),
        }
    }

    /// The configuration is another one. No connection rests in the pool. Those whose request waited for room are to be
    /// released.
    pub(super) fn configure(&mut self, old: &Config, config: &Config, rng: &mut Rng) -> Vec<ConnId> {
        let waiting = self.backends.configure(old, config);
        self.zones.configure(config, rng);
        self.tokens.forget();
        let upstreams = config.upstreams();
        let named = |host: &str| {
            let mut backends = upstreams.iter().flat_map(|upstream| &upstream.backends);
            backends.any(|backend| matches!(&backend.host, Host::Name(name) if name == host))
        };
        self.resolver.retain(named);
        waiting
    }

    /// Servers of upstreams whose last calls or checks have failed.
    pub(super) fn backends_failing(&self) -> usize {
        self.backends.failing()
    }

    /// When something is to be done by itself.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.backends.poll_timeout()
    }
}

/// When a client that wants a WebSocket while the edge restarts may try again.
const DRAIN_RETRY_AFTER_SECS: u64 = 10;

/// The part of its time that an idle connection gets at the least.
const PATIENCE_MIN: f64 = 0.02;

impl Shard {
    /// Takes one item of what a browser sent.
    pub(super) fn from_browser(&mut self, now: Now, id: ConnId, bytes: &[u8], out: &mut Egress) -> Step {
        if self.is_held_up(id) || self.is_held(id) {
            return Step::Wait;
        }
        let Some((browser, _)) = self.browser(id) else {
            return Step::Gone;
        };
        match browser.server.next(bytes) {
            Ok(Some((item, used))) => {
                let step = match item {
                    Item::Request(request) => self.request(now, id, &request, out),
                    Item::Body(data) => self.request_body(now, id, data),
                    Item::End => self.request_end(now, id, out),
                };
                match step {
                    Step::Used(_) => Step::Used(used),
                    Step::Wait | Step::Gone => step,
                }
            }
            Ok(None) => {
                if !bytes.is_empty() && browser.server.is_idle() && !browser.head_begun {
                    browser.head_begun = true;
                    self.set_deadline(id, self.http_deadline(now, |limits| limits.head));
                }
                Step::Wait
            }
            Err(reject) => {
                self.refuse_exchange(now, id, reject.status);
                if let Some((browser, write)) = self.browser(id) {
                    browser.server.reject(reject, now.unix, write);
                }
                self.stats.web.refused += 1;
                self.fault(now, id, reject.why, out)
            }
        }
    }

    fn request(&mut self, now: Now, id: ConnId, request: &Request<'_>, out: &mut Egress) -> Step {
        let config = self.config.clone();
        let trusted = config.https.as_ref().map_or(&[][..], |https| &https.trusted_proxies);
        let Some(conn) = self.conns.get_mut(id.0) else {
            return Step::Gone;
        };
        let client = client_address(conn.peer.ip(), trusted, &request.fields);
        let (Stage::Http(browser), _) = conn.stage_and_out() else {
            return Step::Gone;
        };
        browser.head_begun = false;
        browser.body = BodyProgress::new(now.mono);
        if self.draining.is_some() {
            browser.server.close_after_response();
        }
        // One that was held comes here again.
        if !core::mem::replace(&mut browser.gate.is_known, true) {
            self.stats.web.requests += 1;
            self.begin_exchange(now, id, client, request);
        }
        let decision = match self.is_own_server(id, request) {
            true => route(&config, request),
            false => Decision::Refuse(Answer::new(421)),
        };
        let limit = match &decision {
            Decision::Refuse(_) => None,
            Decision::Sip { .. } => config.sip.as_ref().and_then(|sip| sip.limit),
            Decision::Forward { route, .. } => route.limit,
        };
        let brings_token = match &decision {
            Decision::Refuse(_) => false,
            Decision::Sip { .. } => config.sip.as_ref().is_some_and(|sip| sip.token_required),
            Decision::Forward { route, .. } => route.token != TokenRule::None,
        };
        let stopped = match brings_token {
            true => self.identify(now, id, request, client, limit, out),
            false => None,
        };
        let decision = match stopped.unwrap_or_else(|| self.pass_gate(now, id, client, limit)) {
            Passage::Open => decision,
            Passage::Held => return Step::Wait,
            Passage::Refused(answer) => Decision::Refuse(answer),
        };
        if let Decision::Forward { upstream, .. } = &decision
            && let Some(passage) = self.find_room(now, id, *upstream)
        {
            let Passage::Refused(answer) = passage else {
                return Step::Wait;
            };
            self.stats.web.failed += 1;
            return self.answer(now, id, &answer, out);
        }
        let gate = self
            .browser(id)
            .map(|(browser, _)| core::mem::replace(&mut browser.gate, Gate::OPEN));
        let subject = gate.and_then(|gate| gate.identity).and_then(Identity::into_subject);
        self.set_deadline(id, self.http_deadline(now, |limits| limits.body_idle));
        let names_user = config.sip.as_ref().is_some_and(|sip| sip.policy.token_names_user);
        let decision = match decision {
            // Held since before the drain began, and nobody would say goodbye to it.
            Decision::Sip { .. } | Decision::Forward { upgrade: Some(_), .. } if self.draining.is_some() => {
                Decision::Refuse(Answer::unavailable(DRAIN_RETRY_AFTER_SECS))
            }
            // A token that names nobody speaks for nobody.
            Decision::Sip { .. } if names_user && subject.is_none() => Decision::Refuse(Answer::new(403)),
            decision => decision,
        };
        match decision {
            Decision::Refuse(answer) => {
                self.stats.web.refused += 1;
                log::turn_away_request(client, answer.status, request);
                if answer.status >= 400 {
                    self.doom_exchange(id, End::Refused);
                }
                self.answer(now, id, &answer, out)
            }
            Decision::Sip { mediaserver, accept } => {
                self.open_for_sip(id, request, client, subject, mediaserver, accept)
            }
            Decision::Forward {
                route,
                upstream,
                upgrade,
            } => self.forward(now, id, request, (route, upstream), upgrade, out),
        }
    }

    /// Whether the request is for the server that the client called when it connected.
    // RFC 9110 section 7.4: a request may not reach what its connection was not made, and its certificate not shown, for.
    fn is_own_server(&self, id: ConnId, request: &Request<'_>) -> bool {
        let conn = self.conns.get(id.0);
        let name = conn.and_then(Conn::tls).and_then(Tls::server_name);
        let (Some(https), Some(conn), Some(name), Some(host)) = (&self.config.https, conn, name, request.host) else {
            return true;
        };
        // A proxy in front calls us by a name of its own and passes on what a browser wants.
        let client = conn.peer.ip().to_canonical();
        let is_proxy = https.trusted_proxies.iter().any(|net| net.contains(&client));
        is_proxy || https.tls.is_same_server(name, host.host)
    }

    /// The connection becomes a WebSocket that ends here; before it is opened, it goes to its home shard.
    fn open_for_sip(
        &mut self,
        id: ConnId,
        request: &Request<'_>,
        address: IpAddr,
        subject: Option<Box<str>>,
        mediaserver: usize,
        accept: Accept,
    ) -> Step {
        let mediaservers = self.config.sip.as_ref().map_or(&[][..], |sip| &sip.mediaservers);
        let (Some(conn), Some(mediaserver)) = (self.conns.get_mut(id.0), mediaservers.get(mediaserver)) else {
            return Step::Gone;
        };
        let mut client = conn.peer;
        client.set_ip(address);
        let token = request.target.argument("token").ok().flatten();
        let Stage::Http(mut browser) = core::mem::replace(&mut conn.stage, Stage::Sniff(Offer::Https)) else {
            return Step::Gone;
        };
        tracing::debug!(%client, path = request.target.path(), "WebSocket for SIP");
        conn.stage = Stage::Opening(Box::new(Opening {
            server: browser.server,
            accept,
            mediaserver: mediaserver.name.as_str().into(),
            client,
            token: token.map(|token| token.as_ref().into()),
            subject,
            exchange: browser.exchange.take(),
        }));
        Step::Used(0)
    }

    fn forward(
        &mut self,
        now: Now,
        id: ConnId,
        request: &Request<'_>,
        (route, upstream): (&Route, usize),
        upgrade: Option<Accept>,
        out: &mut Egress,
    ) -> Step {
        let config = self.config.clone();
        let (Some(web), Some(https)) = (&config.web, &config.https) else {
            return Step::Gone;
        };
        let request_id = u128::from(self.rng.u64()) << 64 | u128::from(self.rng.u64());
        let Some(conn) = self.conns.get_mut(id.0) else {
            return Step::Gone;
        };
        let peer = conn.peer.ip();
        let (Stage::Http(browser), write) = conn.stage_and_out() else {
            return Step::Gone;
        };
        browser.server.limit_body(route.body_bytes_max);
        browser.server.continue_(write);
        if let Some(exchange) = &mut browser.exchange {
            exchange.access.route = Some(route.path.as_str().into());
            exchange.access.upstream = Some(web.upstreams[upstream].name.as_str().into());
            exchange.access.request_id = request_id;
        }
        let forward = Forward {
            peer,
            trusted_proxies: &https.trusted_proxies,
            host: web.upstreams[upstream].host_header.as_deref(),
            request_id,
            upgrade,
        };
        self.stats.web.forwarded += 1;
        self.connect_upstream(now, id, upstream, request, &forward, out);
        self.list(id);
        if self.conns.get(id.0).is_some() {
            Step::Used(0)
        } else {
            Step::Gone
        }
    }

    /// How long a request body may go on, where it has not stopped and enough of it came since this was asked last; an
    /// upstream that takes it slowly is no fault of the client.
    fn body_goes_on_until(&mut self, now: Now, id: ConnId) -> Option<Instant> {
        let is_held_up = self.is_held_up(id);
        let config = self.config.clone();
        let limits = &config.https.as_ref()?.limits;
        let (browser, _) = self.browser(id)?;
        let BodyProgress { bytes, since, last } = browser.body;
        let until = last + limits.body_idle;
        let enough = limits.body_bytes_per_second_min as f64 * now.mono.saturating_since(since).as_secs_f64();
        let goes_on = !browser.server.is_request_read() && until > now.mono && (is_held_up || bytes as f64 >= enough);
        browser.body.bytes = 0;
        browser.body.since = now.mono;
        goes_on.then_some(until)
    }

    fn request_body(&mut self, now: Now, id: ConnId, data: &[u8]) -> Step {
        if let Some((browser, _)) = self.browser(id) {
            browser.body.bytes += data.len() as u64;
            browser.body.last = now.mono;
        }
        if let Some(exchange) = self.exchange(id) {
            exchange.access.received_bytes += data.len() as u64;
        }
        if let Some(pair) = self.conns.get(id.0).and_then(|conn| conn.stage.pair())
            && let Some((upstream, write)) = self.upstream(pair)
        {
            upstream.body(data, write);
            self.list(pair);
        }
        Step::Used(0)
    }

    fn request_end(&mut self, now: Now, id: ConnId, out: &mut Egress) -> Step {
        if let Some(pair) = self.conns.get(id.0).and_then(|conn| conn.stage.pair()) {
            if let Some((upstream, write)) = self.upstream(pair) {
                upstream.end(write);
            }
            self.await_response(now, pair);
            self.list(pair);
            return Step::Used(0);
        }
        self.response_done(now, id, out)
    }

    /// Answers in place of an upstream.
    pub(super) fn answer(&mut self, now: Now, id: ConnId, answer: &Answer, out: &mut Egress) -> Step {
        let Some((browser, write)) = self.browser(id) else {
            return Step::Gone;
        };
        let (has_responded, before) = (browser.server.has_responded(), write.len());
        browser.server.respond_local(answer, now.unix, write);
        if let Some(exchange) = browser.exchange.as_mut().filter(|_| !has_responded) {
            exchange.access.status = answer.status;
            exchange.access.sent_bytes += (write.len() - before) as u64;
        }
        self.list(id);
        self.response_done(now, id, out)
    }

    /// A response may have ended: the connection goes on to the next request, or ends.
    fn response_done(&mut self, now: Now, id: ConnId, out: &mut Egress) -> Step {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return Step::Gone;
        };
        let Stage::Http(browser) = &mut conn.stage else {
            return Step::Gone;
        };
        let (closes, is_idle) = (browser.server.closes(), browser.server.is_idle());
        if closes || is_idle {
            let exchange = browser.exchange.take();
            self.log(now, exchange, End::Complete);
        }
        if closes {
            self.close(now, id, out);
            return Step::Gone;
        }
        if is_idle {
            self.set_deadline(id, self.keep_alive(now));
        }
        Step::Used(0)
    }

    /// The client sends no more; it may still wait for an answer.
    pub(super) fn browser_ended(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let has_more = self.conns.get(id.0).is_some_and(|conn| conn.rest_len() > 0);
        let Some((browser, _)) = self.browser(id) else { return };
        if browser.gate.waits.is_some() {
            // Its request is still to come.
        } else if browser.pair.is_none() || !browser.server.is_request_read() {
            self.close(now, id, out);
        } else if !has_more {
            browser.server.close_after_response();
        }
        // Else it has asked for more, which comes first.
    }

    pub(super) fn browser_gone(&mut self, now: Now, id: ConnId, browser: &Downstream, out: &mut Egress) {
        if let Some(Wait::Room(index)) = browser.gate.waits {
            self.web.backends.unqueue(index, id);
        }
        if let Some(pair) = browser.pair {
            self.close(now, pair, out);
        }
    }

    /// Nothing has moved for a while.
    pub(super) fn browser_is_late(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        if let Some(until) = self.body_goes_on_until(now, id) {
            return self.set_deadline(id, Some(until));
        }
        let Some(conn) = self.conns.get(id.0) else { return };
        if let Stage::Http(browser) = &conn.stage
            && let Some(wait) = browser.gate.waits
        {
            return self.held_long_enough(now, id, wait, out);
        }
        if self.is_held_up(id)
            && let Some(pair) = conn.stage.pair()
            && !self.is_held_up(pair)
        {
            // It would send more, if the upstream would read.
            return self.upstream_is_late(now, pair, out);
        }
        let backlog = conn.backlog();
        let Some((browser, _)) = self.browser(id) else { return };
        let waits_for_upstream = browser.pair.is_some() && browser.server.is_request_read() && backlog == 0;
        if waits_for_upstream {
            // The upstream has a deadline of its own.
            self.set_deadline(id, self.http_deadline(now, |limits| limits.body_idle));
        } else if browser.head_begun || !(browser.server.is_idle() || browser.server.has_responded()) {
            self.stats.web.refused += 1;
            self.doom_exchange(id, End::TimedOut);
            self.turn_away(id, "slow", "a request did not come in time");
            // RFC 9110 section 15.5.9.
            if self.answer(now, id, &Answer::new(408), out) != Step::Gone {
                self.close(now, id, out);
            }
        } else {
            self.doom_exchange(id, End::TimedOut);
            self.close(now, id, out);
        }
    }

    /// The browser takes what it gets, however slowly.
    pub(super) fn browser_reads(&mut self, now: Now, id: ConnId) {
        if self.browser(id).is_some_and(|(browser, _)| browser.pair.is_some()) {
            self.set_deadline(id, self.http_deadline(now, |limits| limits.body_idle));
        }
    }

    pub(super) fn drain_browser(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some((browser, _)) = self.browser(id) else { return };
        if browser.gate.waits.is_some() {
            // Its request is still to come, and is the last one.
            return;
        }
        browser.server.close_after_response();
        if browser.server.closes() {
            self.close(now, id, out);
        }
    }

    /// The HTTP side of a browser's connection, and where to write to it.
    fn browser(&mut self, id: ConnId) -> Option<(&mut Downstream, &mut BytesMut)> {
        match self.conns.get_mut(id.0)?.stage_and_out() {
            (Stage::Http(browser), write) => Some((browser, write)),
            _ => None,
        }
    }

    /// How much of its time an idle connection gets: less and less when more than half of all connections are there.
    fn patience(&self) -> f64 {
        let max = self.config.server.connections_max as f64;
        let free = 1.0 - self.conns.len() as f64 / max;
        (2.0 * free).clamp(PATIENCE_MIN, 1.0)
    }

    /// Until when a connection may be idle.
    pub(super) fn keep_alive(&self, now: Now) -> Option<Instant> {
        // Not for nothing, since every request comes by here.
        if self.conns.len() <= self.config.server.connections_max / 2 {
            return self.http_deadline(now, |limits| limits.keep_alive);
        }
        let patience = self.patience();
        self.http_deadline(now, |limits| limits.keep_alive.mul_f64(patience))
    }

    pub(super) fn http_deadline(&self, now: Now, limit: impl Fn(&HttpLimits) -> Duration) -> Option<Instant> {
        self.config.https.as_ref().map(|https| now.mono + limit(&https.limits))
    }
}
