//! Under which names are we known on either side? Texts that stand in every Via and Record-Route, made once.

use arrayvec::ArrayString;
use core::{fmt::Write as _, net::SocketAddr};

use crate::{
    config::Sip,
    wire::sip::{uri::Uri, via::Via},
};

/// RFC 7118 section 5.5: the port that browsers reach us at over TLS, where the configuration names none.
const WSS_PORT: u16 = 443;

/// Who we are on the UDP side and on the WebSocket side.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) udp: Name,
    pub(super) ws: Name,
}

/// One name.
#[derive(Debug)]
pub(super) struct Name {
    host: Box<str>,
    port: u16,
    /// Host and port.
    text: Box<str>,
}

impl Names {
    pub(super) fn new(config: &Sip) -> Self {
        let udp = config.advertise;
        let host = match udp {
            SocketAddr::V4(at) => at.ip().to_string(),
            SocketAddr::V6(at) => format!("[{}]", at.ip()),
        };
        let public = config.public_host.as_str();
        // The colon of a port is the only one outside the brackets of an IPv6 address.
        let (ws_host, ws_port) = match public.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().unwrap_or(WSS_PORT))
            }
            _ => (public, WSS_PORT),
        };
        Self {
            udp: Name::new(&host, udp.port()),
            ws: Name::new(ws_host, ws_port),
        }
    }

    /// Whether a URI is one of ours, on either side.
    pub(super) fn are_at(&self, uri: &Uri<'_>) -> bool {
        self.udp.is_at(uri)
            || self.ws.host.as_bytes().eq_ignore_ascii_case(uri.host)
                && uri.port.is_none_or(|port| port == self.ws.port)
    }
}

impl Name {
    fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            text: format!("{host}:{port}").into(),
        }
    }

    /// Host and port.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether a URI leads here.
    pub(super) fn is_at(&self, uri: &Uri<'_>) -> bool {
        uri.is_at(self.host.as_bytes(), self.port)
    }

    /// Whether a Via was written by us.
    pub(super) fn is_sent_by(&self, via: &Via<'_>) -> bool {
        via.port == Some(self.port) && via.host.eq_ignore_ascii_case(self.host.as_bytes())
    }
}

/// A number or an address as text, without allocation.
pub(super) fn text(value: impl core::fmt::Display) -> ArrayString<48> {
    let mut text = ArrayString::new();
    // An IPv6 address has 45 characters at most, so that nothing is lost.
    let _ = write!(text, "{value}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Health, SipLimits, SipPolicy};

    fn names(advertise: &str, public_host: &str) -> Names {
        Names::new(&Sip {
            listen: SocketAddr::from(([0, 0, 0, 0], 5060)),
            advertise: advertise.parse().expect("an address"),
            public_host: public_host.into(),
            mediaservers: Vec::new(),
            health: Health::default(),
            resolve: core::time::Duration::from_secs(30),
            origins: Vec::new(),
            token_required: false,
            policy: SipPolicy::default(),
            limit: None,
            limits: SipLimits::default(),
        })
    }

    #[test]
    fn as_they_are_written() {
        for (advertise, public_host, udp, ws) in [
            (
                "10.0.0.1:5060",
                "edge.example.com",
                "10.0.0.1:5060",
                "edge.example.com:443",
            ),
            (
                "[2001:db8::1]:5070",
                "edge.example.com:8443",
                "[2001:db8::1]:5070",
                "edge.example.com:8443",
            ),
            ("10.0.0.1:5060", "[2001:db8::2]", "10.0.0.1:5060", "[2001:db8::2]:443"),
            (
                "10.0.0.1:5060",
                "[2001:db8::2]:8443",
                "10.0.0.1:5060",
                "[2001:db8::2]:8443",
            ),
        ] {
            let names = names(advertise, public_host);
            assert_eq!(
                (names.udp.as_bytes(), names.ws.as_bytes()),
                (udp.as_bytes(), ws.as_bytes())
            );
            for own in [udp, ws] {
                assert!(
                    names.are_at(&Uri::parse(format!("sip:x@{own};lr").as_bytes()).expect("a URI")),
                    "{own}"
                );
            }
        }
    }

    #[test]
    fn ports_that_are_not_written() {
        let names = names("10.0.0.1:5060", "edge.example.com");
        let ours = |uri: &str| names.are_at(&Uri::parse(uri.as_bytes()).expect("a URI"));
        assert!(ours("sip:10.0.0.1") && ours("sip:EDGE.example.com;transport=ws"));
        assert!(!ours("sip:10.0.0.1:443") && !ours("sip:edge.example.com:5060") && !ours("sip:10.0.0.2"));
    }
}
