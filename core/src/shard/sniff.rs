//! What does a client that has just connected speak? Told by who it is, then by the server name that it calls, the
//! protocol that it agrees to, and its first bytes.

use core::time::Duration;

use bytes::BytesMut;

use crate::{
    action::{Action, ConnId, Egress},
    config::Offer,
    conn::{Downstream, Stage, TurnStream},
    http::{Answer, Server},
    refusal::{Role, refused_about},
    shard::{Shard, Step},
    time::Now,
    tls::{ALPN_ACME, ALPN_HTTP, ALPN_STUN, ALPN_TURN, Protocols, Tls},
    wire::{
        proxy,
        tls::{Alert, ClientHello, HANDSHAKE},
    },
};

/// What the first byte tells (RFC 7983 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Turn,
    Tls,
    Other,
}

impl Speech {
    const fn of(first: u8) -> Self {
        match first {
            // A STUN message. ChannelData cannot come first, and its first byte may be that of an HTTP method.
            0..=3 => Self::Turn,
            HANDSHAKE => Self::Tls,
            _ => Self::Other,
        }
    }
}

impl Shard {
    /// How long a client may take to show what it speaks.
    pub(super) fn sniff_limit(&self, offer: Offer) -> Duration {
        let https = self.config.https.as_ref().map(|https| https.limits.handshake);
        let turn = self.config.turn.as_ref().map(|turn| turn.limits.stream_idle);
        match offer {
            Offer::Https => https.or(turn),
            Offer::Turn => turn.or(https),
        }
        .unwrap_or_default()
    }

    pub(super) fn sniff(&mut self, now: Now, id: ConnId, bytes: &mut [u8], out: &mut Egress) -> Step {
        let (Some(first), Some(conn)) = (bytes.first(), self.conns.get(id.0)) else {
            return Step::Wait;
        };
        let Stage::Sniff(offer) = conn.stage else {
            return Step::Wait;
        };
        let speech = Speech::of(*first);
        let Some(tls) = conn.tls() else {
            let is_turn = offer == Offer::Turn || self.config.https.as_ref().is_some_and(|https| https.plain_turn);
            return match (speech, offer) {
                (Speech::Tls, _) => self.start_tls(now, id, offer, bytes, out),
                (Speech::Turn, _) if is_turn => self.start_turn(now, id),
                _ if proxy::is_likely(bytes) => self.fault(
                    now,
                    id,
                    "a PROXY header, but proxy_protocol_from does not list the sender",
                    out,
                ),
                (_, Offer::Https) => self.misdirected(now, id, "this port speaks HTTPS", out),
                (_, Offer::Turn) => self.misdirected(now, id, "this port speaks TURN", out),
            };
        };
        let is_turn = match tls.alpn() {
            Some(ALPN_TURN | ALPN_STUN) => true,
            Some(ALPN_HTTP) => false,
            _ => offer == Offer::Turn || self.is_turn_host(tls.server_name()) || speech == Speech::Turn,
        };
        match is_turn {
            true if self.turn.is_some() && speech == Speech::Turn => self.start_turn(now, id),
            true => self.misdirected(now, id, "this port speaks TURN", out),
            false => {
                self.set_deadline(id, self.http_deadline(now, |limits| limits.head));
                self.start_http(id)
            }
        }
    }

    /// Reads for whom a proxy has connected. (The PROXY protocol, section 2)
    pub(super) fn proxied(&mut self, now: Now, id: ConnId, bytes: &[u8], out: &mut Egress) -> Step {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return Step::Gone;
        };
        let Stage::Proxied(offer) = conn.stage else {
            return Step::Wait;
        };
        match proxy::parse(bytes) {
            Ok(Some((ends, used))) => {
                let proxy = conn.peer;
                conn.unwrap_proxied(offer, ends);
                let client = conn.peer;
                tracing::debug!(%client, %proxy, "a connection through a proxy");
                if conn.is_accepted() && !self.admit(client.ip()) {
                    self.stats.edge.refused += 1;
                    self.conns.remove(id.0);
                    self.actions.push_back(Action::Close(id, BytesMut::new()));
                    return Step::Gone;
                }
                Step::Used(used)
            }
            Ok(None) => Step::Wait,
            Err(_) => {
                const WHY: &str = "no PROXY header, but proxy_protocol_from lists the sender";
                // Not among the refusals of clients: whoever bans these must not ban the proxy.
                tracing::warn!(proxy = %conn.peer, "{WHY}");
                self.fault(now, id, WHY, out)
            }
        }
    }

    fn start_tls(&mut self, now: Now, id: ConnId, offer: Offer, bytes: &mut [u8], out: &mut Egress) -> Step {
        let hello = match ClientHello::parse(bytes) {
            Ok(Some(hello)) => hello,
            Ok(None) => return Step::Wait,
            Err(_) => return self.refuse_tls(now, id, Alert::DecodeError, "not a ClientHello", out),
        };
        let Some(https) = &self.config.https else {
            return self.refuse_tls(now, id, Alert::HandshakeFailure, "TLS is not configured", out);
        };
        let name = hello.server_name();
        if https.refuse_unknown_names && name.is_some_and(|name| !https.knows(name)) {
            // RFC 6066 section 3: "abort the handshake by sending a fatal-level unrecognized_name(112) alert".
            // Whoever knows us by an old name is no attacker: a reason of its own, with the name for the administrator.
            if let Some(conn) = self.conns.get(id.0) {
                let detail = "a server name that is not ours";
                refused_about(Role::Edge, conn.peer.ip(), "host", detail, name.unwrap_or_default());
            }
            self.alert(id, Alert::UnrecognizedName);
            self.stats.edge.faults += 1;
            self.close(now, id, out);
            return Step::Gone;
        }
        let protocols = match offer {
            _ if https.acme.is_some() && hello.protocols().any(|name| name == ALPN_ACME) => Protocols::Challenge,
            Offer::Turn => Protocols::Turn,
            Offer::Https if self.turn.is_none() => Protocols::Http,
            Offer::Https if self.is_turn_host(name) => Protocols::Turn,
            Offer::Https => Protocols::HttpAndTurn,
        };
        let tls = Tls::server(&https.tls, protocols, name);
        let (Ok(tls), Some(conn)) = (tls, self.conns.get_mut(id.0)) else {
            return self.refuse_tls(now, id, Alert::HandshakeFailure, "TLS cannot be served", out);
        };
        conn.start_tls(tls);
        self.take_in(now, id, bytes, out);
        Step::Used(bytes.len())
    }

    /// Ends a connection that has not come so far that anything could be encrypted.
    fn refuse_tls(&mut self, now: Now, id: ConnId, alert: Alert, why: &'static str, out: &mut Egress) -> Step {
        self.alert(id, alert);
        self.fault(now, id, why, out)
    }

    fn alert(&mut self, id: ConnId, alert: Alert) {
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.out().extend_from_slice(&alert.record());
        }
    }

    fn is_turn_host(&self, server_name: Option<&str>) -> bool {
        let https = self.config.https.as_ref();
        server_name.is_some_and(|name| https.is_some_and(|https| https.is_for_turn(name)))
    }

    fn start_turn(&mut self, now: Now, id: ConnId) -> Step {
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.stage = Stage::Turn(TurnStream::default());
        }
        self.set_deadline(id, self.turn_stream_deadline(now));
        Step::Used(0)
    }

    pub(super) fn start_http(&mut self, id: ConnId) -> Step {
        let (Some(https), Some(conn)) = (&self.config.https, self.conns.get_mut(id.0)) else {
            return Step::Gone;
        };
        conn.stage = Stage::Http(Box::new(Downstream::new(
            Server::new(&https.limits).with_hsts(https.hsts),
        )));
        Step::Used(0)
    }

    /// Tells a person who tries a port by hand what it is; everybody else sees the connection end.
    fn misdirected(&mut self, now: Now, id: ConnId, why: &'static str, out: &mut Egress) -> Step {
        if let (Some(https), Some(conn)) = (&self.config.https, self.conns.get_mut(id.0)) {
            let mut server = Server::new(&https.limits);
            let answer = Answer {
                body: why.as_bytes().into(),
                ..Answer::new(400)
            };
            server.respond_local(&answer, now.unix, conn.out());
        }
        self.fault(now, id, why, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells() {
        let check = |bytes: &[u8], expected| assert_eq!(Speech::of(bytes[0]), expected, "{bytes:?}");
        check(&[0, 1, 0, 0], Speech::Turn);
        check(&[22, 3, 1], Speech::Tls);
        check(b"GET / HTTP/1.1", Speech::Other);
        check(&[0x80, 0], Speech::Other);
    }
}
