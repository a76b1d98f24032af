//! Where else may a client go? ALTERNATE-SERVER. (RFC 8489 section 10)

use core::net::SocketAddr;

use super::Server;
use crate::{
    action::Prefix,
    config::{Alternate, AlternateWhen},
    cx::Cx,
    turn::{
        reply::Form,
        table::Client,
        verdict::{Payload, Verdict},
    },
    wire::stun::{Code, Family, Kind},
};

impl Server {
    /// Whether a client that asks for an allocation is to go elsewhere.
    pub(super) fn redirects(&self, from: &Client, is_full: bool) -> bool {
        let Some(alternate) = &self.alternate else {
            return false;
        };
        let now = match alternate.when {
            AlternateWhen::Always => true,
            AlternateWhen::Full => is_full || self.draining,
            AlternateWhen::Draining => self.draining,
        };
        now && server_for(alternate, Family::of(from.source().ip())).is_some()
    }

    /// Sends a client elsewhere.
    // RFC 8489 section 10: the response "MUST include at least one ALTERNATE-SERVER attribute [...] of the same family as
    // the source IP address of the request message" and "SHOULD include an additional ALTERNATE-SERVER attribute [...] of
    // the other family". ALTERNATE-DOMAIN is the name in the other server's certificate.
    pub(super) fn redirect(&self, cx: &mut Cx<'_>, from: &Client, form: &Form) -> Verdict {
        cx.stats.turn.redirected += 1;
        tracing::debug!(client = %from.source(), "sent to another server");
        let family = Family::of(from.source().ip());
        let range = form.error(cx.made, Code::TRY_ALTERNATE, |writer| {
            let Some(alternate) = &self.alternate else { return };
            let others = Family::ALL.into_iter().filter(|other| *other != family);
            for server in [family]
                .into_iter()
                .chain(others)
                .filter_map(|family| server_for(alternate, family))
            {
                writer.plain_address(Kind::ALTERNATE_SERVER, server);
            }
            if let Some(domain) = &alternate.domain {
                writer.attribute(Kind::ALTERNATE_DOMAIN, domain.as_bytes());
            }
        });
        from.send(Prefix::NONE, Payload::Made(range))
    }
}

fn server_for(alternate: &Alternate, family: Family) -> Option<SocketAddr> {
    let mut servers = alternate.servers.iter().copied();
    servers.find(|server| Family::of(server.ip()) == family)
}
