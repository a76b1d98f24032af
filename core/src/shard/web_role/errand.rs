//! What does the edge ask upstreams for by itself? Whether they work, and whether a token holds.

use core::time::Duration;

use crate::{
    action::{ConnId, Egress},
    config::Host,
    conn::{Errand, Upstream},
    http::ClientItem,
    shard::{Shard, Step},
    time::Now,
};

/// How long the answer to an errand may take.
pub(super) const ERRAND_WAIT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are looked at. A longer one is none: what it names could stand behind them.
pub(super) const BODY_BYTES_MAX: usize = 4096;

impl Shard {
    /// Asks an upstream for something ourselves. When that fails, whoever waits is told before this returns.
    pub(super) fn run_errand(
        &mut self,
        now: Now,
        index: usize,
        path: &str,
        token: Option<&str>,
        errand: Errand,
        out: &mut Egress,
    ) {
        match self.reach(now, index, true, out) {
            Some((id, is_used)) => self.send_errand(now, id, is_used, path, token, errand, out),
            None => self.errand_failed(now, errand, out),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a request is made of all of this")]
    pub(super) fn send_errand(
        &mut self,
        now: Now,
        id: ConnId,
        is_used: bool,
        path: &str,
        token: Option<&str>,
        errand: Errand,
        out: &mut Egress,
    ) {
        let Some((upstream, write)) = self.upstream(id) else {
            return;
        };
        let host = host(upstream);
        let start = write.len();
        upstream.client.get(&host, path, token, write);
        upstream.replay = is_used.then(|| write[start..].into());
        upstream.errand = Some(errand);
        upstream.request_ended = true;
        if is_used {
            self.upstream_ready(now, id);
        } else {
            self.set_deadline(id, self.http_deadline(now, |limits| limits.connect));
            self.locate(now, id, out);
        }
        self.list(id);
    }

    /// Takes an item of the answer to an errand.
    pub(super) fn errand_item(&mut self, now: Now, id: ConnId, item: &ClientItem<'_>, out: &mut Egress) -> Step {
        let Some((upstream, _)) = self.upstream(id) else {
            return Step::Gone;
        };
        upstream.replay = None;
        let Some(errand) = &mut upstream.errand else {
            return Step::Gone;
        };
        match (item, errand) {
            (ClientItem::Response(head, _), Errand::Check { status } | Errand::Token { status, .. }) => {
                *status = head.status;
            }
            (ClientItem::Body(data), Errand::Token { body, .. }) => {
                // One more shows that it is too long.
                let room = BODY_BYTES_MAX + 1 - body.len();
                body.extend_from_slice(&data[..room.min(data.len())]);
            }
            (ClientItem::End, _) => return self.errand_done(now, id, out),
            _ => {}
        }
        Step::Used(0)
    }

    fn errand_done(&mut self, now: Now, id: ConnId, out: &mut Egress) -> Step {
        let Some((upstream, _)) = self.upstream(id) else {
            return Step::Gone;
        };
        match upstream.errand.take() {
            Some(Errand::Check { status }) => {
                // It was made for this.
                upstream.errand = Some(Errand::Check { status });
                self.close(now, id, out);
                Step::Gone
            }
            Some(Errand::Token { digest, status, body }) => {
                let step = self.rest_upstream(now, id, out);
                self.token_answered(now, digest, Some((status, &body)), out);
                step
            }
            None => Step::Gone,
        }
    }

    /// A connection is gone that ran an errand: a check has its result by then, whoever else waits is told.
    pub(super) fn errand_gone(&mut self, now: Now, upstream: &mut Upstream, out: &mut Egress) {
        match upstream.errand.take() {
            Some(Errand::Check { status }) => self.backend_checked(upstream, (status > 0).then_some(status)),
            Some(errand) => self.errand_failed(now, errand, out),
            None => {}
        }
    }

    fn errand_failed(&mut self, now: Now, errand: Errand, out: &mut Egress) {
        match errand {
            Errand::Token { digest, .. } => self.token_answered(now, digest, None, out),
            Errand::Check { .. } => {}
        }
    }
}

/// The Host field of a request of ours.
fn host(upstream: &Upstream) -> String {
    let own = upstream.target().and_then(|target| target.host_header.clone());
    let called = || {
        upstream.called().map(|called| match &called.host {
            Host::Address(address) if address.is_ipv6() => format!("[{address}]:{}", called.port),
            Host::Address(address) => format!("{address}:{}", called.port),
            Host::Name(name) => format!("{name}:{}", called.port),
        })
    };
    own.or_else(called).unwrap_or_default()
}
