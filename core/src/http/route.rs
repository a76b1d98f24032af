//! What may this request do? A function of the configuration and the head.

use core::str;

use super::{
    answer::Answer,
    body::BodyLength,
    client::times_forwarded,
    request::Request,
    target::Authority,
    upgrade::{Accept, Handshake, HandshakeError, offers, websocket},
};
use crate::config::{Config, Mediaserver, Route, Sip, TokenRule};

/// The path of the WebSocket of the mediaserver `default`; of others, with `-NAME` behind it.
const SIP_PATH: &str = "/wssip";

/// The subprotocol of SIP over WebSocket (RFC 7118 section 4.1).
pub(super) const SIP_SUBPROTOCOL: &str = "sip";

/// How often a request may have come through an edge like this one. Two are usual: web and sip on hosts of their own.
const TIMES_FORWARDED_MAX: usize = 3;

/// What is to be done with a request.
#[derive(Debug)]
pub enum Decision<'c> {
    /// It is answered here.
    Refuse(Answer),
    /// It opens a WebSocket for SIP.
    Sip {
        /// Index in [`Sip::mediaservers`].
        mediaserver: usize,
        /// What to answer, with the subprotocol `sip`.
        accept: Accept,
    },
    /// It is passed to an upstream.
    Forward {
        /// The route that lets it through.
        route: &'c Route,
        /// Index in [`Web::upstreams`](crate::config::Web::upstreams).
        upstream: usize,
        /// The WebSocket that it may open there.
        upgrade: Option<Accept>,
    },
}

/// Decides about a request. Rate limits and connections are somebody else's business.
pub fn route<'c>(config: &'c Config, request: &Request<'_>) -> Decision<'c> {
    let hosts = config.https.as_ref().map_or(&[][..], |https| &https.hosts);
    let routes = config.web.as_ref().map_or(&[][..], |web| &web.routes);
    decide(hosts, config.sip.as_ref(), routes, request).unwrap_or_else(Decision::Refuse)
}

fn decide<'c>(
    hosts: &[String],
    sip: Option<&Sip>,
    routes: &'c [Route],
    request: &Request<'_>,
) -> Result<Decision<'c>, Answer> {
    // RFC 9110 section 7.4: a request for somebody else.
    if !request.host.is_some_and(|host| is_listed(&host, hosts)) {
        return Err(Answer::new(421));
    }
    if request.target.is_asterisk() || request.max_forwards() == Some(0) {
        // RFC 9110 section 9.3.7: what the server as a whole can do.
        return Err(Answer::new(204).with("Allow", super::Method::ALLOWED));
    }
    if times_forwarded(request) >= TIMES_FORWARDED_MAX {
        return Err(Answer::new(508));
    }
    let path = request.target.path();
    if let Some(sip) = sip
        && let Some(mediaserver) = mediaserver(sip, path)
    {
        let accept = sip_websocket(sip, hosts, request)?;
        return Ok(Decision::Sip { mediaserver, accept });
    }
    let found = longest_match(routes, path).and_then(|route| Some((route, route.upstream?)));
    let (route, upstream) = found.ok_or_else(Answer::not_found)?;
    if matches!(request.body, BodyLength::Known(bytes) if bytes > route.body_bytes_max) {
        return Err(Answer::new(413));
    }
    check_token(request, route.token)?;
    let upgrade = if route.websocket { tunnel(request)? } else { None };
    Ok(Decision::Forward {
        route,
        upstream,
        upgrade,
    })
}

fn is_listed(host: &Authority<'_>, hosts: &[String]) -> bool {
    hosts.iter().any(|listed| listed.eq_ignore_ascii_case(host.host))
}

/// The mediaserver whose WebSocket has this path. The page that asks knows a name with `_`, SIP the same with `-`.
fn mediaserver(sip: &Sip, path: &str) -> Option<usize> {
    let name = match path.strip_prefix(SIP_PATH)? {
        "" => "default",
        rest => rest.strip_prefix('-')?,
    };
    let is_dash = |byte: u8| matches!(byte, b'-' | b'_');
    let is_alike = |mediaserver: &Mediaserver| {
        let pairs = || mediaserver.name.bytes().zip(name.bytes());
        mediaserver.name.len() == name.len() && pairs().all(|(a, b)| a == b || is_dash(a) && is_dash(b))
    };
    let is_same = |mediaserver: &Mediaserver| mediaserver.name == name;
    let servers = &sip.mediaservers;
    servers
        .iter()
        .position(is_same)
        .or_else(|| servers.iter().position(is_alike))
}

/// Whether the request may open a WebSocket for SIP.
fn sip_websocket(sip: &Sip, hosts: &[String], request: &Request<'_>) -> Result<Accept, Answer> {
    let handshake = handshake(request)?.ok_or_else(Answer::upgrade_required)?;
    if handshake
        .origin
        .is_some_and(|origin| !is_origin_allowed(origin, sip, hosts))
    {
        return Err(Answer::new(403));
    }
    if sip.token_required {
        check_token(request, TokenRule::Present)?;
    }
    // RFC 7118 section 4.1: the client must offer it.
    if !offers(request, SIP_SUBPROTOCOL) {
        return Err(Answer::new(400));
    }
    Ok(handshake.accept)
}

fn check_token(request: &Request<'_>, rule: TokenRule) -> Result<(), Answer> {
    if rule == TokenRule::None {
        return Ok(());
    }
    let token = match request.target.argument("token") {
        Ok(Some(token)) if !token.is_empty() => token,
        Ok(_) => return Err(Answer::unauthorized()),
        Err(_) => return Err(Answer::new(403)),
    };
    // RFC 7515 section 7.1: three segments of base64url.
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
    let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(is_base64url);
    let has_form = || token.split('.').count() == 3 && token.split('.').all(is_segment);
    if rule == TokenRule::Segments && !has_form() {
        return Err(Answer::new(403));
    }
    Ok(())
}

// RFC 6455 section 10.2: a browser names who opened the page. Whoever is no browser could name anybody, so that a
// request without Origin is not worse than one with a made-up one.
fn is_origin_allowed(origin: &[u8], sip: &Sip, hosts: &[String]) -> bool {
    let Ok(origin) = str::from_utf8(origin) else {
        return false;
    };
    if !sip.origins.is_empty() {
        return sip.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    }
    let authority = origin.strip_prefix("https://").and_then(Authority::parse);
    authority.is_some_and(|authority| is_listed(&authority, hosts))
}

/// The tunnel that a request on a WebSocket route asks for.
fn tunnel(request: &Request<'_>) -> Result<Option<Accept>, Answer> {
    if !request.asks_upgrade() {
        return Ok(None);
    }
    // RFC 9110 section 7.8: another protocol may be ignored, but an upstream behind this route might not ignore it.
    let handshake = handshake(request)?.ok_or(Answer::new(400))?;
    Ok(Some(handshake.accept))
}

fn handshake<'b>(request: &Request<'b>) -> Result<Option<Handshake<'b>>, Answer> {
    websocket(request).map_err(|error| match error {
        HandshakeError::Malformed => Answer::new(400),
        HandshakeError::Version => Answer::upgrade_required(),
    })
}

/// The route with the longest path that this path is at or below.
fn longest_match<'c>(routes: &'c [Route], path: &str) -> Option<&'c Route> {
    let matching = routes.iter().filter(|route| is_match(route, path));
    matching.max_by_key(|route| (route.path.len(), !route.below))
}

fn is_match(route: &Route, path: &str) -> bool {
    let (at, path) = (route.path.as_bytes(), path.as_bytes());
    // The byte behind it rules most routes out before anything is compared.
    let ends_there = match path.get(at.len()) {
        None => true,
        Some(next) => route.below && (*next == b'/' || at.ends_with(b"/")),
    };
    ends_there && path.starts_with(at)
}

#[cfg(test)]
mod tests;
