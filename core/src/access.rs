//! What has become of a request? One value for each, from which the runtime makes a line of the access log.

use core::{net::IpAddr, time::Duration};

use crate::{
    http::Request,
    time::{Instant, Now, UnixTime},
};

/// Bytes of a path, a referrer or an agent that are kept.
const TEXT_BYTES_MAX: usize = 512;

/// What a JSON Web Token in base64 begins with: `{"`.
const JWT_START: &str = "eyJ";

/// A request and its answer. Tokens are kept out: queries are left out, and so are JSON Web Tokens wherever one begins in a
/// path. A token of another form in a path is not known from the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// When its head was read.
    pub at: UnixTime,
    /// The client, also where it came through a trusted proxy.
    pub client: IpAddr,
    /// The method; empty where the request could not be read.
    pub method: &'static str,
    /// The path, without the query.
    pub path: Box<str>,
    /// Referer, without the query.
    pub referrer: Box<str>,
    /// User-Agent.
    pub agent: Box<str>,
    /// The path of the route that let it through.
    pub route: Option<Box<str>>,
    /// The upstream that it was passed to.
    pub upstream: Option<Box<str>>,
    /// The status that was answered; 0 where there was none.
    pub status: u16,
    /// Bytes of the request's body, or of what came through the WebSocket.
    pub received_bytes: u64,
    /// Bytes of the whole answer, and of what went through the WebSocket.
    pub sent_bytes: u64,
    /// From the head of the request to that of the response of an upstream.
    pub wait: Option<Duration>,
    /// From the head of the request to the end.
    pub total: Duration,
    /// How it ended.
    pub end: End,
    /// As the upstream was told it; 0 where there was none.
    pub request_id: u128,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the whole answer, or with the WebSocket that it opened.
    Complete,
    /// The client went before it had the answer.
    ClientGone,
    /// The edge turned the request away, or the client broke the protocol.
    Refused,
    /// The upstream did not answer as it should; the client may have part of an answer.
    UpstreamFailed,
    /// Somebody was too slow.
    TimedOut,
    /// The edge stopped.
    Stopped,
}

impl End {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client-gone",
            Self::Refused => "refused",
            Self::UpstreamFailed => "upstream-failed",
            Self::TimedOut => "timed-out",
            Self::Stopped => "stopped",
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Exchange {
    begun: Instant,
    pub(crate) access: Access,
    /// How it is going to end, where that is known before.
    pub(crate) end: Option<End>,
}

impl Exchange {
    pub(crate) fn new(now: Now, client: IpAddr, request: &Request<'_>) -> Box<Self> {
        let field = |name| request.fields.get(name).unwrap_or_default();
        let mut exchange = Self::unread(now, client);
        exchange.access.method = request.method.as_str();
        exchange.access.path = without_tokens(request.target.path());
        exchange.access.referrer = without_tokens(&text(field("Referer")));
        exchange.access.agent = text(field("User-Agent")).into();
        exchange
    }

    /// One whose request cannot be read.
    pub(crate) fn unread(now: Now, client: IpAddr) -> Box<Self> {
        Box::new(Self {
            begun: now.mono,
            access: Access {
                at: now.unix,
                client,
                method: "",
                path: Box::default(),
                referrer: Box::default(),
                agent: Box::default(),
                route: None,
                upstream: None,
                status: 0,
                received_bytes: 0,
                sent_bytes: 0,
                wait: None,
                total: Duration::ZERO,
                end: End::Complete,
                request_id: 0,
            },
            end: None,
        })
    }

    /// The upstream has answered.
    pub(crate) fn answered(&mut self, now: Now, status: u16) {
        self.access.status = status;
        self.access.wait = Some(now.mono.saturating_since(self.begun));
    }

    /// What is to be told of it.
    pub(crate) fn finish(mut self: Box<Self>, now: Now, end: End) -> Box<Access> {
        self.access.total = now.mono.saturating_since(self.begun);
        self.access.end = self.end.unwrap_or(end);
        Box::new(self.access)
    }
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    cut(&text).into()
}

/// As much of a text as is kept.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A path or URI without its query and without tokens.
pub(crate) fn without_tokens(uri: &str) -> Box<str> {
    let uri = &uri[..uri.find(['?', '#']).unwrap_or(uri.len())];
    let uri = cut(uri);
    if !uri.contains(JWT_START) {
        return uri.into();
    }
    // RFC 3986 section 2.2: a JSON Web Token has none of these.
    let is_delimiter = |byte: char| matches!(byte, '/' | ';' | '=' | ',' | ':' | '&' | '@' | '!' | '+' | '(' | '\'');
    let parts = uri
        .split_inclusive(is_delimiter)
        .map(|part| match part.strip_prefix(JWT_START) {
            Some(token) => ["***", token.rfind(is_delimiter).map_or("", |at| &token[at..])].concat(),
            None => part.into(),
        });
    parts.collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_left_out() {
        let check = |uri: &str, expected: &str| assert_eq!(&*without_tokens(uri), expected, "{uri}");
        check("/xuc/api/2.0/cti?token=a.b.c", "/xuc/api/2.0/cti");
        check("https://edge.example.org/a#token=x", "https://edge.example.org/a");
        check(
            "/meetingrooms/token/validate/eyJhbGciOi.eyJzdWIi.c2ln",
            "/meetingrooms/token/validate/***",
        );
        check("/room;token=eyJhbGci.eyJz.c2ln;x=1/a", "/room;token=***;x=1/a");
        check("/a,eyJhbGci.eyJz.c2ln", "/a,***");
        check("/monkeyJungle/x", "/monkeyJungle/x");
        check(&"/é".repeat(400), &("/é".repeat(170) + "/"));
    }
}
