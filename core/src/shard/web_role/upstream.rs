//! How does a request reach an upstream, and its answer the browser? Connections from the pool or dialled, names looked
//! up, and what is done when one fails.

use alloc::sync::Arc;

use bytes::BytesMut;

use super::errand::ERRAND_WAIT;
use crate::{
    access::End,
    action::{ConnId, Egress, IoKind},
    config::Backend,
    conn::{Conn, Stage, Tunnel, Upstream},
    http::{Answer, BodyLength, ClientItem, Forward, Request, UpstreamError},
    shard::{Shard, Step},
    time::Now,
    tls::TlsError,
};

impl Shard {
    /// Finds or makes a connection for the request of a browser and writes the request to it. When that fails, the
    /// browser has its answer before this returns.
    pub(super) fn connect_upstream(
        &mut self,
        now: Now,
        browser: ConnId,
        index: usize,
        request: &Request<'_>,
        forward: &Forward<'_>,
        out: &mut Egress,
    ) {
        // An upgrade never uses a connection that others use, nor leaves one to them.
        let Some((id, is_used)) = self.reach(now, index, forward.upgrade.is_none(), out) else {
            return self.fail(now, browser, 503, out);
        };
        self.enter(id);
        if let Some((browser, _)) = self.browser(browser) {
            browser.pair = Some(id);
        }
        let Some((upstream, write)) = self.upstream(id) else {
            return;
        };
        let start = write.len();
        upstream.client.request(request, forward, write);
        upstream.pair = Some(browser);
        upstream.request_ended = false;
        let may_replay = is_used && request.method.is_idempotent() && request.body == BodyLength::Empty;
        upstream.replay = may_replay.then(|| BytesMut::from(&write[start..]));
        if is_used {
            self.upstream_ready(now, id);
        } else {
            self.set_deadline(id, self.http_deadline(now, |limits| limits.connect));
            self.locate(now, id, out);
        }
        self.list(id);
    }

    /// The stream is up; without TLS the request leaves now.
    pub(in crate::shard) fn upstream_connected(&mut self, now: Now, id: ConnId) {
        if self.conns.get(id.0).is_some_and(Conn::is_ready) {
            self.upstream_ready(now, id);
        }
    }

    /// The request is on its way.
    pub(in crate::shard) fn upstream_ready(&mut self, now: Now, id: ConnId) {
        self.call_taken(id);
        let ended = self.upstream(id).is_some_and(|(upstream, _)| upstream.request_ended);
        if ended {
            self.await_response(now, id);
        } else {
            // The browser's own deadline watches over its body.
            self.set_deadline(id, None);
        }
    }

    /// The request is complete: from here on it is the upstream that is waited for.
    pub(super) fn await_response(&mut self, now: Now, id: ConnId) {
        if self.conns.get(id.0).is_some_and(Conn::is_ready) {
            let is_errand = self.upstream(id).is_some_and(|(upstream, _)| upstream.errand.is_some());
            self.set_deadline(
                id,
                match is_errand {
                    true => Some(now.mono + ERRAND_WAIT),
                    false => self.http_deadline(now, |limits| limits.response),
                },
            );
        }
    }

    /// Takes one item of what an upstream sent.
    pub(in crate::shard) fn from_upstream(&mut self, now: Now, id: ConnId, bytes: &[u8], out: &mut Egress) -> Step {
        if self.is_held_up(id) {
            return Step::Wait;
        }
        let Some((upstream, _)) = self.upstream(id) else {
            return Step::Gone;
        };
        match upstream.client.next(bytes) {
            Ok(Some((item, used))) => match self.pass_back(now, id, item, out) {
                Step::Used(_) => Step::Used(used),
                step => step,
            },
            Ok(None) => {
                if !bytes.is_empty() {
                    // It has seen the request.
                    upstream.replay = None;
                }
                Step::Wait
            }
            Err(error) => self.upstream_broke(now, id, error, out),
        }
    }

    /// Hands an item of a response to the browser.
    fn pass_back(&mut self, now: Now, id: ConnId, item: ClientItem<'_>, out: &mut Egress) -> Step {
        let Some((upstream, _)) = self.upstream(id) else {
            return Step::Gone;
        };
        upstream.replay = None;
        if upstream.errand.is_some() {
            return self.errand_item(now, id, &item, out);
        }
        let Some(pair) = upstream.pair else { return Step::Gone };
        let Some((browser, write)) = self.browser(pair) else {
            return Step::Gone;
        };
        let before = write.len();
        match &item {
            ClientItem::Informational(head) => browser.server.inform(head, write),
            ClientItem::Response(head, body) => browser.server.respond(head, *body, now.unix, write),
            ClientItem::Body(data) => browser.server.body(data, write),
            ClientItem::End => browser.server.end(write),
            ClientItem::Switched(head) => browser.server.switch(head, write),
        }
        if let Some(exchange) = &mut browser.exchange {
            exchange.access.sent_bytes += (write.len() - before) as u64;
            if let ClientItem::Response(head, _) | ClientItem::Switched(head) = &item {
                exchange.answered(now, head.status);
            }
        }
        match item {
            ClientItem::End => return self.exchange_done(now, id, pair, out),
            ClientItem::Switched(_) => return self.start_tunnel(now, id, pair, out),
            ClientItem::Informational(_) | ClientItem::Response(..) | ClientItem::Body(_) => {}
        }
        let idle = self.http_deadline(now, |limits| limits.body_idle);
        self.set_deadline(id, idle);
        self.set_deadline(pair, idle);
        self.list(pair);
        Step::Used(0)
    }

    /// The response is complete: the upstream rests, the browser goes on.
    fn exchange_done(&mut self, now: Now, id: ConnId, pair: ConnId, out: &mut Egress) -> Step {
        if let Some((browser, _)) = self.browser(pair) {
            browser.pair = None;
        }
        let step = self.rest_upstream(now, id, out);
        self.list(pair);
        if self.response_done(now, pair, out) != Step::Gone {
            // The next request may have come already.
            self.go_on(now, pair, out);
        }
        step
    }

    pub(super) fn rest_upstream(&mut self, now: Now, id: ConnId, out: &mut Egress) -> Step {
        let (draining, config) = (self.draining.is_some(), self.config.clone());
        let Some((upstream, _)) = self.upstream(id) else {
            return Step::Gone;
        };
        upstream.pair = None;
        let (index, was_counted) = (upstream.index, core::mem::take(&mut upstream.is_counted));
        let (is_current, is_reusable) = (Arc::ptr_eq(&upstream.config, &config), upstream.client.reusable());
        let age = now.mono.saturating_since(upstream.since);
        let is_old = config
            .https
            .as_ref()
            .is_some_and(|https| age >= https.limits.upstream_age);
        if was_counted && is_current {
            self.leave(&config, index);
        }
        if draining || !is_current || !is_reusable || is_old {
            self.close(now, id, out);
            return Step::Gone;
        }
        self.set_deadline(id, self.http_deadline(now, |limits| limits.upstream_idle));
        self.pool_upstream(now, id, out);
        if self.conns.get(id.0).is_some() {
            Step::Used(0)
        } else {
            Step::Gone
        }
    }

    pub(in crate::shard) fn upstream_ended(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(conn) = self.conns.get(id.0) else { return };
        // RFC 9112 section 9.8: without the goodbye of TLS nobody knows whether this was the end.
        if conn.tls().is_some_and(|tls| !tls.peer_closed()) {
            return self.upstream_failed(now, id, IoKind::Reset, out);
        }
        let Some((upstream, _)) = self.upstream(id) else { return };
        match upstream.client.eof() {
            Ok(Some(item)) => {
                self.pass_back(now, id, item, out);
            }
            Ok(None) => self.close(now, id, out),
            Err(UpstreamError::Incomplete) => self.upstream_failed(now, id, IoKind::Reset, out),
            Err(error) => {
                self.upstream_broke(now, id, error, out);
            }
        }
    }

    /// The upstream does not speak HTTP as it must.
    fn upstream_broke(&mut self, now: Now, id: ConnId, error: UpstreamError, out: &mut Egress) -> Step {
        if let Some((upstream, server)) = self.called_server(id) {
            let why = error.as_str();
            tracing::warn!(upstream, %server, why, "the answer of a server of an upstream cannot be used");
        }
        self.give_up(now, id, 502, out);
        Step::Gone
    }

    /// No TLS came about with the server that a connection calls, if it is one to an upstream.
    pub(in crate::shard) fn upstream_untrusted(&self, id: ConnId, error: &TlsError) {
        if let Some((upstream, server)) = self.called_server(id) {
            let fix =
                "`ca` must be who signed its certificate, or `pin` its key; `host`, else `url`, has the name in it";
            tracing::warn!(upstream, %server, %error, fix, "no TLS with a server of an upstream");
        }
    }

    /// The stream of an upstream is dead, or never was.
    pub(in crate::shard) fn upstream_failed(&mut self, now: Now, id: ConnId, kind: IoKind, out: &mut Egress) {
        let is_taken = self.conns.get(id.0).is_some_and(Conn::is_ready);
        if let (false, Some((upstream, server))) = (is_taken, self.called_server(id)) {
            tracing::warn!(upstream, %server, why = kind.as_str(), "a server of an upstream took no call");
        }
        if self.call_next(now, id, out) {
            return;
        }
        let Some((upstream, _)) = self.upstream(id) else { return };
        if upstream.is_resting() {
            return self.close(now, id, out);
        }
        if let Some(request) = upstream.replay.take() {
            return self.replay(now, id, &request, out);
        }
        if let (true, Some((upstream, server))) = (is_taken, self.called_server(id)) {
            tracing::warn!(upstream, %server, why = kind.as_str(), "a server of an upstream left a request unanswered");
        }
        self.give_up(now, id, if kind == IoKind::TimedOut { 504 } else { 502 }, out);
    }

    /// Sends the request of a dead connection on a new one.
    fn replay(&mut self, now: Now, dead: ConnId, request: &[u8], out: &mut Egress) {
        let Some((old, _)) = self.upstream(dead) else { return };
        let (config, index, backend) = (old.config.clone(), old.index, old.backend);
        let others = match Arc::ptr_eq(&config, &self.config) {
            true => self.other_backends(now, index, backend),
            false => Vec::new(),
        };
        let Some(id) = self.new_upstream(now, config, index, backend, others) else {
            return self.give_up(now, dead, 503, out);
        };
        let Some((old, _)) = self.upstream(dead) else { return };
        let (client, pair, errand) = (old.client.again(), old.pair.take(), old.errand.take());
        let is_counted = core::mem::take(&mut old.is_counted);
        if let Some((upstream, write)) = self.upstream(id) {
            write.extend_from_slice(request);
            upstream.client = client;
            upstream.pair = pair;
            upstream.errand = errand;
            upstream.is_counted = is_counted;
            upstream.request_ended = true;
        }
        if let Some((browser, _)) = pair.and_then(|pair| self.browser(pair)) {
            browser.pair = Some(id);
        }
        self.close(now, dead, out);
        self.set_deadline(id, self.http_deadline(now, |limits| limits.connect));
        self.locate(now, id, out);
        self.list(id);
    }

    /// Nothing has come for too long.
    pub(in crate::shard) fn upstream_is_late(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some((upstream, _)) = self.upstream(id) else { return };
        if upstream.is_resting() {
            // It has rested long enough.
            return self.close(now, id, out);
        }
        if self.is_held_up(id) {
            // It would send more, if the browser would read; the browser's own deadline watches over that.
            return self.set_deadline(id, self.http_deadline(now, |limits| limits.body_idle));
        }
        if let Some((upstream, server)) = self.called_server(id) {
            tracing::warn!(upstream, %server, "a server of an upstream did not answer in time");
        }
        // A black hole takes no call; the next address may.
        if self.call_next(now, id, out) {
            return;
        }
        let Some((upstream, _)) = self.upstream(id) else { return };
        upstream.replay = None;
        self.give_up(now, id, 504, out);
    }

    /// Closes an upstream connection and tells the browser that waits for it.
    fn give_up(&mut self, now: Now, id: ConnId, status: u16, out: &mut Egress) {
        let pair = self.upstream(id).and_then(|(upstream, _)| upstream.pair.take());
        self.close(now, id, out);
        let Some(pair) = pair else { return };
        if let Some((browser, _)) = self.browser(pair) {
            browser.pair = None;
            self.fail(now, pair, status, out);
        }
    }

    /// Answers a request that its upstream did not, and goes on with the next.
    pub(super) fn fail(&mut self, now: Now, browser: ConnId, status: u16, out: &mut Egress) {
        self.stats.web.failed += 1;
        self.doom_exchange(
            browser,
            if status == 504 {
                End::TimedOut
            } else {
                End::UpstreamFailed
            },
        );
        if self.answer(now, browser, &Answer::new(status), out) != Step::Gone {
            self.go_on(now, browser, out);
        }
    }

    pub(in crate::shard) fn upstream_gone(&mut self, now: Now, id: ConnId, upstream: &mut Upstream, out: &mut Egress) {
        self.unpool_upstream(id, upstream);
        if upstream.is_counted {
            self.leave(&upstream.config, upstream.index);
        }
        self.errand_gone(now, upstream, out);
        if let Some(pair) = upstream.pair
            && let Some((browser, _)) = self.browser(pair)
        {
            browser.pair = None;
            self.fail(now, pair, 502, out);
        }
    }

    pub(in crate::shard) fn drain_upstream(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        if self.upstream(id).is_some_and(|(upstream, _)| upstream.pair.is_none()) {
            self.close(now, id, out);
        }
    }

    /// Both connections become one tunnel.
    fn start_tunnel(&mut self, now: Now, id: ConnId, pair: ConnId, out: &mut Egress) -> Step {
        let mut exchange = self.browser(pair).and_then(|(browser, _)| browser.exchange.take());
        let idle = self.http_deadline(now, |limits| limits.tunnel_idle);
        let counted = self.upstream(id).filter(|(upstream, _)| upstream.is_counted);
        let mut counted = counted.map(|(upstream, _)| (upstream.config.clone(), upstream.index));
        for (end, other, to_browser) in [(id, pair, true), (pair, id, false)] {
            if let Some(conn) = self.conns.get_mut(end.0) {
                let mut tunnel = Tunnel::new(other, to_browser);
                tunnel.counted = counted.take();
                tunnel.exchange = exchange.take_if(|_| end == pair);
                conn.stage = Stage::Tunnel(Box::new(tunnel));
            }
            self.set_deadline(end, idle);
            self.list(end);
        }
        self.stats.web.tunnels += 1;
        if self.draining.is_some() {
            self.drain_tunnel(now, id, out);
            return Step::Gone;
        }
        // What the browser sent too early was kept, and passes now.
        self.go_on(now, pair, out);
        Step::Used(0)
    }

    pub(in crate::shard) fn upstream(&mut self, id: ConnId) -> Option<(&mut Upstream, &mut BytesMut)> {
        match self.conns.get_mut(id.0)?.stage_and_out() {
            (Stage::Upstream(upstream), write) => Some((upstream, write)),
            _ => None,
        }
    }

    /// The upstream of a connection, by its name, and the server of it that is called.
    fn called_server(&self, id: ConnId) -> Option<(&str, &Backend)> {
        match self.conns.get(id.0).map(|conn| &conn.stage) {
            Some(Stage::Upstream(upstream)) => Some((upstream.target()?.name.as_str(), upstream.called()?)),
            _ => None,
        }
    }
}
