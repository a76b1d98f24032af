//! What does a client that has just connected speak? TLS or not, then HTTP or TURN, told by the first bytes.

use core::time::Duration;

use crate::{
    action::{ConnId, Egress},
    config::Offer,
    conn::{Downstream, Stage, TurnStream},
    http::{Answer, Server},
    shard::{Shard, Step},
    time::Now,
    tls::{ALPN_TURN, Tls},
};

/// The content type of a TLS handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

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
            TLS_HANDSHAKE => Self::Tls,
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
        let agreed_turn = conn.tls().is_some_and(|tls| tls.alpn() == Some(ALPN_TURN));
        match (conn.tls().is_some(), offer, Speech::of(*first)) {
            (false, _, Speech::Tls) => self.start_tls(now, id, bytes, out),
            (false, Offer::Turn, Speech::Turn) => self.start_turn(now, id),
            (true, _, Speech::Turn) if self.turn.is_some() => self.start_turn(now, id),
            (true, Offer::Https, _) if !agreed_turn => self.start_http(now, id),
            (false, Offer::Https, _) => self.misdirected(now, id, "this port speaks HTTPS", out),
            _ => self.misdirected(now, id, "this port speaks TURN", out),
        }
    }

    fn start_tls(&mut self, now: Now, id: ConnId, bytes: &mut [u8], out: &mut Egress) -> Step {
        let server = self.config.https.as_ref().map(|https| Tls::server(&https.tls));
        let (Some(Ok(tls)), Some(conn)) = (server, self.conns.get_mut(id.0)) else {
            return self.fault(now, id, "TLS is not configured", out);
        };
        conn.start_tls(tls);
        self.take_in(now, id, bytes, out);
        Step::Used(bytes.len())
    }

    fn start_turn(&mut self, now: Now, id: ConnId) -> Step {
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.stage = Stage::Turn(TurnStream::default());
        }
        self.set_deadline(id, self.turn_stream_deadline(now));
        Step::Used(0)
    }

    fn start_http(&mut self, now: Now, id: ConnId) -> Step {
        let (Some(https), Some(conn)) = (&self.config.https, self.conns.get_mut(id.0)) else {
            return Step::Gone;
        };
        conn.stage = Stage::Http(Box::new(Downstream::new(Server::new(&https.limits))));
        let head_by = now.mono + https.limits.head;
        self.set_deadline(id, Some(head_by));
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
