//! What do the logs learn of a request, and when?

use core::net::IpAddr;

use crate::{
    access::{End, Exchange, without_tokens},
    action::{Action, ConnId},
    conn::Stage,
    http::Request,
    refusal::{Role, refused, refused_about},
    shard::Shard,
    time::Now,
};

impl Shard {
    /// Begins to note what becomes of a request, where there is an access log.
    pub(super) fn begin_exchange(&mut self, now: Now, id: ConnId, client: IpAddr, request: &Request<'_>) {
        if self.config.access_log.is_some()
            && let Some((browser, _)) = self.browser(id)
        {
            browser.exchange = Some(Exchange::new(now, client, request));
        }
    }

    /// Notes that a browser broke the protocol, in a request or instead of one.
    pub(super) fn refuse_exchange(&mut self, now: Now, id: ConnId, status: u16) {
        let (Some(_), Some(conn)) = (&self.config.access_log, self.conns.get_mut(id.0)) else {
            return;
        };
        let client = conn.peer.ip().to_canonical();
        if let Stage::Http(browser) = &mut conn.stage {
            let exchange = browser.exchange.get_or_insert_with(|| Exchange::unread(now, client));
            exchange.end = Some(End::Refused);
            if !browser.server.has_responded() {
                exchange.access.status = status;
            }
        }
    }

    /// What is noted of the request of a browser.
    pub(super) fn exchange(&mut self, id: ConnId) -> Option<&mut Exchange> {
        self.browser(id)?.0.exchange.as_deref_mut()
    }

    /// Notes beforehand how the exchange of a browser is going to end.
    pub(super) fn doom_exchange(&mut self, id: ConnId, end: End) {
        if let Some(exchange) = self.exchange(id) {
            exchange.end = Some(end);
        }
    }

    /// Tells what has become of a request.
    pub(in crate::shard) fn log(&mut self, now: Now, exchange: Option<Box<Exchange>>, end: End) {
        let Some(mut exchange) = exchange else { return };
        if self.is_cut(now) {
            // Whatever the order in which the two connections were closed.
            exchange.end = Some(End::Stopped);
        }
        self.actions.push_back(Action::Log(exchange.finish(now, end)));
    }
}

/// Tells why a request is turned away, where it is: not every answer of ours is a refusal.
pub(super) fn turn_away_request(client: IpAddr, status: u16, request: &Request<'_>) {
    let (reason, detail) = match status {
        401 => ("token", "no token, or not a good one"),
        403 => (
            "forbidden",
            "a page of another site, or a token that names nobody or cannot be read",
        ),
        404 => ("route", "no route lets this path through"),
        413 => ("size", "more than the route lets through"),
        421 => ("host", "not a name of ours"),
        429 => ("rate", "too many requests"),
        400.. => ("request", "not what can be done here"),
        _ => return,
    };
    match status {
        404 => refused_about(
            Role::Web,
            client,
            reason,
            detail,
            &without_tokens(request.target.path()),
        ),
        421 => {
            let host = request.host.map_or("", |authority| authority.host);
            refused_about(Role::Web, client, reason, detail, host);
        }
        _ => refused(Role::Web, client, reason, detail),
    }
}
