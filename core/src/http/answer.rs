//! What does the edge say itself? Responses that no upstream made.

use alloc::borrow::Cow;

use super::request::Method;

/// A response of our own: small, and written in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Fields beside those that every answer has (Date, Content-Type, Content-Length, Connection). Names and values
    /// are ours, never a client's.
    pub fields: Vec<(&'static str, String)>,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body; when empty, the status and its reason in words.
    pub body: Cow<'static, [u8]>,
}

impl Answer {
    /// An answer that says no more than its status.
    pub const fn new(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            content_type: "text/plain",
            body: Cow::Borrowed(b""),
        }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The content; `None` where there can be none.
    pub(super) fn content(&self) -> Option<Cow<'_, [u8]>> {
        match self.status {
            // RFC 9110 section 15.3.5: a 204 has neither content nor a length.
            204 => None,
            status if self.body.is_empty() => Some(format!("{status} {}\n", reason(status)).into_bytes().into()),
            _ => Some(Cow::Borrowed(&self.body)),
        }
    }

    /// 404, for a path that nothing is let through to.
    pub const fn not_found() -> Self {
        Self::new(404)
    }

    /// 405 with the methods that are served (RFC 9110 section 15.5.6).
    pub fn method_not_allowed() -> Self {
        Self::new(405).with("Allow", Method::ALLOWED)
    }

    /// 301 to another URI, which must be visible ASCII.
    pub fn moved(location: impl Into<String>) -> Self {
        Self::new(301).with("Location", location)
    }

    /// 401, for a request without a token (RFC 9110 section 15.5.2 demands the challenge).
    pub fn unauthorized() -> Self {
        Self::new(401).with("WWW-Authenticate", "Bearer")
    }

    /// 426, for a request that must open a WebSocket (RFC 9110 section 15.5.22, RFC 6455 section 4.4).
    pub fn upgrade_required() -> Self {
        Self::new(426)
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
    }

    /// 429, with the seconds until it is worth trying again (RFC 6585 section 4).
    pub fn too_many_requests(retry_after_secs: u64) -> Self {
        Self::new(429).with("Retry-After", retry_after_secs.to_string())
    }

    /// 503, with the seconds until it is worth trying again.
    pub fn unavailable(retry_after_secs: u64) -> Self {
        Self::new(503).with("Retry-After", retry_after_secs.to_string())
    }
}

/// The reason phrase of a status code that we send.
pub(super) const fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Unknown",
    }
}
