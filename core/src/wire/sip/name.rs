//! Which header fields does a proxy need to know? Their names, long and compact (RFC 3261 section 7.3.3).

/// A field name that means something to us; all others are [`Name::Other`] and pass untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Name {
    /// RFC 3261 section 20.42.
    Via,
    /// RFC 3261 section 20.20.
    From,
    /// RFC 3261 section 20.39.
    To,
    /// RFC 3261 section 20.8.
    CallId,
    /// RFC 3261 section 20.16.
    CSeq,
    /// RFC 3261 section 20.22.
    MaxForwards,
    /// RFC 5393 section 5.3.1.
    MaxBreadth,
    /// RFC 3261 section 20.10.
    Contact,
    /// RFC 3261 section 20.14.
    ContentLength,
    /// RFC 3261 section 20.34.
    Route,
    /// RFC 3261 section 20.30.
    RecordRoute,
    /// RFC 3327 section 4.
    Path,
    /// RFC 3608 section 5.
    ServiceRoute,
    /// RFC 3261 section 20.37.
    Supported,
    /// RFC 3261 section 20.29.
    ProxyRequire,
    /// RFC 3261 section 20.19.
    Expires,
    /// RFC 3261 section 20.33.
    RetryAfter,
    /// RFC 3326 section 2.
    Reason,
    /// RFC 3261 section 20.38.
    Timestamp,
    /// RFC 5626 section 10.
    FlowTimer,
    /// Authorization or Proxy-Authorization, RFC 3261 sections 20.7 and 20.28.
    Credentials,
    /// P-Asserted-Identity, RFC 3325 section 9.1.
    AssertedIdentity,
    /// P-Preferred-Identity, RFC 3325 section 9.2.
    PreferredIdentity,
    /// Remote-Party-ID, the forerunner of P-Asserted-Identity.
    RemotePartyId,
    /// `X-Asterisk-...`: what a mediaserver believes only from its own kind.
    Asterisk,
    /// RFC 3261 section 20.41.
    UserAgent,
    /// RFC 3261 section 20.35.
    Server,
    /// Any other.
    Other,
}

impl Name {
    /// How many there are.
    pub const COUNT: usize = Self::Other as usize + 1;

    /// The field that `name` means, whatever its case.
    pub fn of(name: &[u8]) -> Self {
        let is = |long: &[u8]| name.eq_ignore_ascii_case(long);
        match (name.len(), name[0].to_ascii_lowercase()) {
            (1, b'v') => Self::Via,
            (1, b'f') => Self::From,
            (1, b't') => Self::To,
            (1, b'i') => Self::CallId,
            (1, b'm') => Self::Contact,
            (1, b'l') => Self::ContentLength,
            (1, b'k') => Self::Supported,
            (2, b't') if is(b"To") => Self::To,
            (3, b'v') if is(b"Via") => Self::Via,
            (4, b'f') if is(b"From") => Self::From,
            (4, b'c') if is(b"CSeq") => Self::CSeq,
            (4, b'p') if is(b"Path") => Self::Path,
            (5, b'r') if is(b"Route") => Self::Route,
            (6, b's') if is(b"Server") => Self::Server,
            (6, b'r') if is(b"Reason") => Self::Reason,
            (7, b'c') if is(b"Call-ID") => Self::CallId,
            (7, b'c') if is(b"Contact") => Self::Contact,
            (7, b'e') if is(b"Expires") => Self::Expires,
            (9, b's') if is(b"Supported") => Self::Supported,
            (9, b't') if is(b"Timestamp") => Self::Timestamp,
            (10, b'u') if is(b"User-Agent") => Self::UserAgent,
            (10, b'f') if is(b"Flow-Timer") => Self::FlowTimer,
            (11, b'm') if is(b"Max-Breadth") => Self::MaxBreadth,
            (11, b'r') if is(b"Retry-After") => Self::RetryAfter,
            (12, b'm') if is(b"Max-Forwards") => Self::MaxForwards,
            (12, b'r') if is(b"Record-Route") => Self::RecordRoute,
            (13, b'p') if is(b"Proxy-Require") => Self::ProxyRequire,
            (13, b'a') if is(b"Authorization") => Self::Credentials,
            (13, b's') if is(b"Service-Route") => Self::ServiceRoute,
            (14, b'c') if is(b"Content-Length") => Self::ContentLength,
            (15, b'r') if is(b"Remote-Party-ID") => Self::RemotePartyId,
            (19, b'p') if is(b"P-Asserted-Identity") => Self::AssertedIdentity,
            (19, b'p') if is(b"Proxy-Authorization") => Self::Credentials,
            (20, b'p') if is(b"P-Preferred-Identity") => Self::PreferredIdentity,
            (11.., b'x') if name[..11].eq_ignore_ascii_case(b"X-Asterisk-") => Self::Asterisk,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_compact_form_are_no_matter() {
        for (text, name) in [
            ("Via", Name::Via),
            ("V", Name::Via),
            ("v", Name::Via),
            ("tO", Name::To),
            ("t", Name::To),
            ("CALL-ID", Name::CallId),
            ("I", Name::CallId),
            ("l", Name::ContentLength),
            ("content-length", Name::ContentLength),
            ("record-Route", Name::RecordRoute),
            ("P-Asserted-identity", Name::AssertedIdentity),
            ("x-asterisk-HangupCause", Name::Asterisk),
            ("X-Asterisk", Name::Other),
            ("Vi", Name::Other),
            ("Subject", Name::Other),
            ("s", Name::Other),
        ] {
            assert_eq!(Name::of(text.as_bytes()), name, "{text}");
        }
    }
}
