//! May this request pass? Request validation (RFC 3261 section 16.3) and what it finds on the way.

use super::branch::Branch;
use crate::wire::sip::{
    Fault, Message, Name, Start,
    field::{self, Address},
    uri::{Uri, UriError, is_tel},
    via::Via,
};

use super::transaction::Method;

/// Via values of one message at most.
const VIAS_MAX: usize = 70;

/// What a sound request says, as far as a proxy asks.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) message: &'a Message<'a>,
    pub(super) method: Method,
    pub(super) method_text: &'a [u8],
    /// The Request-URI.
    pub(super) uri: &'a [u8],
    pub(super) via: Via<'a>,
    pub(super) from: Address<'a>,
    pub(super) to: Address<'a>,
    pub(super) call_id: &'a [u8],
    pub(super) cseq: u32,
    pub(super) max_forwards: Option<u64>,
}

impl Request<'_> {
    /// Whether it belongs to a dialog (RFC 3261 section 12.2).
    pub(super) fn is_in_dialog(&self) -> bool {
        self.to.tag().is_some()
    }
}

/// An answer of our own to a request that does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    pub(super) detail: Detail,
}

/// A field that an answer must have besides the usual ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    None,
    /// Unsupported: what the request's Proxy-Require asks for.
    Unsupported,
    /// Retry-After, in seconds.
    RetryAfter(u32),
}

impl Rejection {
    pub(super) const fn new(status: u16, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            detail: Detail::None,
        }
    }

    pub(super) const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }

    /// RFC 3261 section 21.5.4: 503 with the time after which to try again.
    pub(super) const fn unavailable(seconds: u32) -> Self {
        Self {
            status: 503,
            reason: "Service Unavailable",
            detail: Detail::RetryAfter(seconds),
        }
    }
}

/// Reads and checks the parts of a request that forwarding looks at. Others may be wrong: section 16.3, item 1, wants
/// them forwarded unchanged.
pub(super) fn request<'a>(message: &'a Message<'_>) -> Result<Request<'a>, Rejection> {
    let Start::Request { method, uri } = message.start() else {
        return Err(Rejection::bad("Bad Request"));
    };
    match message.fault() {
        None => {}
        Some(Fault::Version) => return Err(Rejection::new(505, "Version Not Supported")),
        Some(Fault::HeadTooLong) => return Err(Rejection::new(513, "Message Too Large")),
        Some(Fault::StartLine) => return Err(Rejection::bad("Bad Request Line")),
        Some(Fault::Field) => return Err(Rejection::bad("Bad Header Field")),
        Some(Fault::ContentLength) => return Err(Rejection::bad("Bad Content-Length")),
    }
    let call_id = single(message, Name::CallId).filter(|id| !id.is_empty());
    let call_id = call_id.ok_or(Rejection::bad("Bad Call-ID"))?;
    let from = single(message, Name::From).and_then(Address::parse);
    let from = from.ok_or(Rejection::bad("Bad From"))?;
    let to = single(message, Name::To).and_then(Address::parse);
    let to = to.ok_or(Rejection::bad("Bad To"))?;
    let (cseq, cseq_method) = single(message, Name::CSeq)
        .and_then(field::cseq)
        .ok_or(Rejection::bad("Bad CSeq"))?;
    if cseq_method != *method {
        // RFC 3261 section 8.1.1.5: the method MUST match that of the request.
        return Err(Rejection::bad("CSeq Does Not Match Method"));
    }
    let via = message
        .value(Name::Via)
        .and_then(Via::first)
        .ok_or(Rejection::bad("Bad Via"))?;
    if message.count(Name::Via) > VIAS_MAX {
        return Err(Rejection::new(482, "Loop Detected"));
    }
    let max_forwards = match message.field(Name::MaxForwards) {
        None => None,
        Some(_) => {
            let hops = single(message, Name::MaxForwards)
                .and_then(field::number)
                .filter(|hops| *hops <= 255);
            Some(hops.ok_or(Rejection::bad("Bad Max-Forwards"))?)
        }
    };
    let uri = &message.bytes()[uri.clone()];
    check_uri(uri)?;
    Ok(Request {
        message,
        method: Method::of(method),
        method_text: method,
        uri,
        via,
        from,
        to,
        call_id,
        cseq,
        max_forwards,
    })
}

/// The checks of section 16.3 that are none of syntax. RFC 3261 section 16.11: ACK and CANCEL carry no Proxy-Require
/// that could be answered.
pub(super) fn policy(request: &Request<'_>) -> Result<(), Rejection> {
    if request.max_forwards == Some(0) {
        return Err(match request.method {
            Method::Options => Rejection::new(200, "OK"),
            _ => Rejection::new(483, "Too Many Hops"),
        });
    }
    // We support no extension that needs a proxy's help.
    let message = request.message;
    let mut required = message.all(Name::ProxyRequire);
    if required.any(|field| field::tokens(message.text(field)).next().is_some()) {
        return Err(Rejection {
            status: 420,
            reason: "Bad Extension",
            detail: Detail::Unsupported,
        });
    }
    Ok(())
}

fn check_uri(text: &[u8]) -> Result<(), Rejection> {
    match Uri::parse(text) {
        // RFC 3261 section 19.1.1: headers MUST NOT stand in a Request-URI.
        Ok(uri) if uri.headers.is_some() => Err(Rejection::bad("Bad Request-URI")),
        Ok(_) => Ok(()),
        Err(UriError::Scheme) if is_tel(text) => Ok(()),
        Err(UriError::Scheme) => Err(Rejection::new(416, "Unsupported URI Scheme")),
        Err(UriError::Syntax) => Err(Rejection::bad("Bad Request-URI")),
    }
}

/// What a response says, as far as a proxy asks.
#[derive(Debug)]
pub(super) struct Response<'a> {
    pub(super) message: &'a Message<'a>,
    pub(super) status: u16,
    pub(super) via: Via<'a>,
    pub(super) branch: Branch,
    pub(super) method: Method,
    method_text: &'a [u8],
    /// Whether there is a Via below ours.
    pub(super) goes_on: bool,
}

impl<'a> Response<'a> {
    /// Reads a response to a request that we forwarded; `None` when it is broken, or is for somebody else.
    pub(super) fn read(message: &'a Message<'_>) -> Option<Self> {
        let Start::Response { status } = *message.start() else {
            return None;
        };
        if message.fault().is_some() {
            return None;
        }
        let via = message.value(Name::Via).and_then(Via::first)?;
        let branch = via.branch().and_then(Branch::read)?;
        let (_, method_text) = single(message, Name::CSeq).and_then(field::cseq)?;
        for name in [Name::From, Name::To] {
            single(message, name).and_then(Address::parse)?;
        }
        single(message, Name::CallId)?;
        let goes_on = message.value(Name::Via).is_some_and(|value| via.end < value.len());
        Some(Self {
            message,
            status,
            goes_on: goes_on || message.count(Name::Via) > 1,
            via,
            branch,
            method: Method::of(method_text),
            method_text,
        })
    }

    /// Whether it answers the CANCEL of an INVITE, which has the same branch.
    pub(super) fn is_to_cancel(&self, method: Method) -> bool {
        self.method_text == b"CANCEL" && method == Method::Invite
    }
}

/// The value of a field that must be there exactly once.
pub(super) fn single<'a>(message: &Message<'a>, name: Name) -> Option<&'a [u8]> {
    if message.count(name) != 1 {
        return None;
    }
    message.value(name)
}
