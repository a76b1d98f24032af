//! Is this head a request that we serve? Every rule on requests that needs no configuration.

use core::str;

use super::{
    body::BodyLength,
    fields::{Connection, FieldsError, declared_length},
    server::Reject,
    target::{Authority, Target},
};
use crate::wire::http1::{Fields, Name, RequestHead, Version};

/// The port of a URI without one (RFC 9110 section 4.2.2): requests come by TLS.
pub(super) const PORT_DEFAULT: u16 = 443;

/// A request method that is served (RFC 9110 section 9, RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
}

impl Method {
    /// The methods that are served, for an Allow field.
    pub const ALLOWED: &'static str = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

    /// The method as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
        }
    }

    /// Whether a request that got no answer may be sent again (RFC 9110 section 9.2.2).
    pub const fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }

    // RFC 9110 section 9.1: the method is case-sensitive.
    fn parse(method: &[u8]) -> Result<Self, Reject> {
        match method {
            b"GET" => Ok(Self::Get),
            b"HEAD" => Ok(Self::Head),
            b"POST" => Ok(Self::Post),
            b"PUT" => Ok(Self::Put),
            b"DELETE" => Ok(Self::Delete),
            b"OPTIONS" => Ok(Self::Options),
            b"PATCH" => Ok(Self::Patch),
            // RFC 9110 sections 9.3.6 and 9.3.8: a tunnel to anywhere, and an echo of what should stay secret.
            b"CONNECT" | b"TRACE" => Err(Reject::new(405, "method not allowed")),
            _ => Err(Reject::new(501, "unknown method")),
        }
    }
}

/// The head of a request, understood.
#[derive(Debug, Clone)]
pub struct Request<'b> {
    /// The method.
    pub method: Method,
    /// The version of the client.
    pub version: Version,
    /// What is asked for.
    pub target: Target<'b>,
    /// Whom it is asked of; only HTTP/1.0 may leave it out.
    pub host: Option<Authority<'b>>,
    /// All fields as they came.
    pub fields: Fields<'b>,
    /// How long the body is; never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// Whether the client waits for a 100 (Continue) before it sends the body.
    pub expects_continue: bool,
    pub(super) connection: Connection,
}

impl<'b> Request<'b> {
    pub(super) fn parse(head: RequestHead<'b>) -> Result<Self, Reject> {
        let RequestHead {
            method,
            target,
            version,
            fields,
        } = head;
        let method = Method::parse(method)?;
        let connection = Connection::of(&fields)?;
        let length = declared_length(&fields, version)?;
        // RFC 9112 section 6.3: without either field there is no body.
        let body = length.unwrap_or(BodyLength::Empty);
        if matches!(method, Method::Get | Method::Head) && !body.is_empty() {
            // RFC 9110 section 9.3.1: content in a GET has no meaning, and servers that leave it unread take it for
            // the next request.
            return Err(Reject::new(400, "body in GET or HEAD"));
        }
        // `_` and `-` are one character to servers that make variables of fields.
        if fields.iter().any(|field| field.name.contains(&b'_')) {
            return Err(Reject::new(400, "field name with underscore"));
        }
        let bad_target = Reject::new(400, "malformed request target");
        let target = str::from_utf8(target).map_err(|_| bad_target)?;
        let (target, authority) = Target::parse(method, target).ok_or(bad_target)?;
        let host = host(&fields, version)?;
        // RFC 9112 section 3.2.2 lets the target's authority win; two different ones are refused instead.
        if let Some(authority) = authority
            && !host.is_some_and(|host| host.is_same(&authority, PORT_DEFAULT))
        {
            return Err(Reject::new(400, "host of target and Host differ"));
        }
        let expects_continue = expectation(&fields, version)? && !body.is_empty();
        Ok(Self {
            method,
            version,
            target,
            host,
            fields,
            body,
            expects_continue,
            connection,
        })
    }

    /// How often an OPTIONS may be forwarded, when it says so (RFC 9110 section 7.6.2; other methods may ignore it).
    pub(super) fn max_forwards(&self) -> Option<u32> {
        let value = self
            .fields
            .only(Name::MaxForwards)
            .filter(|_| self.method == Method::Options)?;
        let digits = str::from_utf8(value).ok()?;
        digits
            .parse()
            .ok()
            .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// Whether the client asks to change the protocol, validly or not. RFC 9110 section 7.8: not in HTTP/1.0.
    pub fn asks_upgrade(&self) -> bool {
        self.version == Version::Http11 && self.fields.first(Name::Upgrade).is_some()
    }
}

// RFC 9112 section 3.2: exactly one Host field with a valid value in HTTP/1.1, at most one in HTTP/1.0.
fn host<'b>(fields: &Fields<'b>, version: Version) -> Result<Option<Authority<'b>>, Reject> {
    if fields.first(Name::Host).is_none() && version == Version::Http10 {
        return Ok(None);
    }
    let only = fields
        .only(Name::Host)
        .ok_or(Reject::new(400, "not exactly one Host"))?;
    let authority = str::from_utf8(only).ok().and_then(Authority::parse);
    authority.map(Some).ok_or(Reject::new(400, "malformed Host"))
}

// RFC 9110 section 10.1.1: 100-continue is the only expectation there is; one in HTTP/1.0 must be ignored.
fn expectation(fields: &Fields<'_>, version: Version) -> Result<bool, Reject> {
    if version == Version::Http10 || fields.first(Name::Expect).is_none() {
        return Ok(false);
    }
    match fields.only(Name::Expect) {
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Reject::new(417, "unknown expectation")),
    }
}

impl From<FieldsError> for Reject {
    fn from(error: FieldsError) -> Self {
        // RFC 9112 section 6.1: 501 for a transfer coding that is not understood.
        let status = if error == FieldsError::TransferCoding { 501 } else { 400 };
        Self::new(status, error.as_str())
    }
}
