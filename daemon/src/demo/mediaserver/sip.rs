//! What does a SIP message say? A small reader and writer of the mediaserver's own, so that it stays an independent peer.

use std::{borrow::Cow, fmt::Write as _, net::SocketAddr};

/// Largest message taken or sent: a UDP payload.
pub(super) const MESSAGE_BYTES_MAX: usize = 65_507;
/// Header lines of one message.
const HEADERS_MAX: usize = 128;

/// A request or a response, its header names in their long form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) start: Start,
    headers: Vec<(Cow<'static, str>, String)>,
    pub(super) body: String,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    Request { method: String, uri: String },
    Response { status: u16, reason: String },
}

impl Message {
    pub(super) fn request(method: &str, uri: &str) -> Self {
        Self::new(Start::Request {
            method: method.into(),
            uri: uri.into(),
        })
    }

    /// A response to this request with what RFC 3261 section 8.2.6.2 says to copy. The tag is added to a To without.
    pub(super) fn response(&self, status: u16, to_tag: &str) -> Self {
        let mut response = Self::new(Start::Response {
            status,
            reason: reason(status).into(),
        });
        for (name, value) in &self.headers {
            match name.as_ref() {
                "Via" | "From" | "Call-ID" | "CSeq" => response.push(name.clone(), value.clone()),
                "To" if status > 100 && param(value, "tag").is_none() => {
                    response.push("To", format!("{value};tag={to_tag}"));
                }
                "To" => response.push("To", value.clone()),
                // RFC 3261 section 12.1.1: the route set of a dialog is copied into what makes the dialog.
                "Record-Route" if (101..300).contains(&status) => response.push("Record-Route", value.clone()),
                _ => {}
            }
        }
        response
    }

    /// Reads one datagram. Nothing when it is no SIP message, or one that could not be answered anyway.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let (start, lines) = head.split_once("\r\n")?;
        let mut message = Self::new(Start::parse(start)?);
        for line in lines.split("\r\n") {
            // RFC 3261 section 7.3.1: a line that begins with white space goes on with the one before.
            if line.starts_with([' ', '\t']) {
                let (_, value) = message.headers.last_mut()?;
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) = line.split_once(':')?;
            message.push(long_form(name.trim_end()), value.trim());
            if message.headers.len() > HEADERS_MAX {
                return None;
            }
        }
        // RFC 3261 section 8.1.1: no request or response is without these.
        for name in ["Via", "From", "To", "Call-ID"] {
            message.header(name)?;
        }
        message.cseq()?;
        // RFC 3261 section 18.3: what is behind Content-Length is padding, what is missing makes the message void.
        let length = match message.header("Content-Length") {
            Some(length) => length.parse().ok()?,
            None => body.len(),
        };
        message.body = body.get(..length)?.into();
        message.headers.retain(|(name, _)| name != "Content-Length");
        Some(message)
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut text = String::with_capacity(1024 + self.body.len());
        // Writing to a String cannot fail.
        let _ = match &self.start {
            Start::Request { method, uri } => write!(text, "{method} {uri} SIP/2.0\r\n"),
            Start::Response { status, reason } => write!(text, "SIP/2.0 {status} {reason}\r\n"),
        };
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n{}", self.body.len(), self.body);
        text.into_bytes()
    }

    /// Adds a header below the others.
    pub(super) fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.headers.push((name.into(), value.into()));
    }

    /// Adds a header above the others, as a Via is.
    pub(super) fn push_front(&mut self, name: &'static str, value: String) {
        self.headers.insert(0, (name.into(), value));
    }

    /// Adds a header below the others.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.push(name, value);
        self
    }

    /// Gives it a session description.
    pub(super) fn with_sdp(mut self, sdp: String) -> Self {
        if !sdp.is_empty() {
            self.push("Content-Type", "application/sdp");
        }
        self.body = sdp;
        self
    }

    /// Replaces the first header line of this name.
    pub(super) fn set(&mut self, name: &'static str, value: String) {
        match self.headers.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.push(name, value),
        }
    }

    /// The first header line of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        Some(value)
    }

    /// All values of this name, over all lines and commas, in their order.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        let lines = self.headers.iter().filter(move |(n, _)| n == name);
        lines
            .flat_map(|(_, value)| split_list(value))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The method, of a response that of its request.
    pub(super) fn method(&self) -> &str {
        match &self.start {
            Start::Request { method, .. } => method,
            Start::Response { .. } => self.cseq().map_or("", |(_, method)| method),
        }
    }

    /// The Request-URI; empty in a response.
    pub(super) fn uri(&self) -> &str {
        match &self.start {
            Start::Request { uri, .. } => uri,
            Start::Response { .. } => "",
        }
    }

    /// The status of a response; 0 in a request.
    pub(super) fn status(&self) -> u16 {
        match &self.start {
            Start::Request { .. } => 0,
            Start::Response { status, .. } => *status,
        }
    }

    pub(super) fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.header("CSeq")?.split_once(' ')?;
        Some((number.parse().ok()?, method.trim_start()))
    }

    /// The tag of From or To.
    pub(super) fn tag(&self, name: &str) -> Option<&str> {
        param(self.header(name)?, "tag")
    }

    /// Whether an option tag is in Supported or Require.
    pub(super) fn supports(&self, option: &str) -> bool {
        self.values("Supported")
            .chain(self.values("Require"))
            .any(|o| o.eq_ignore_ascii_case(option))
    }

    fn new(start: Start) -> Self {
        Self {
            start,
            headers: Vec::with_capacity(16),
            body: String::new(),
        }
    }
}

impl Start {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let (first, second, third) = (words.next()?, words.next()?, words.next()?);
        if first == "SIP/2.0" {
            let status = second.parse().ok().filter(|status| (100..700).contains(status))?;
            return Some(Self::Response {
                status,
                reason: third.into(),
            });
        }
        (third == "SIP/2.0" && !first.is_empty() && !second.is_empty()).then(|| Self::Request {
            method: first.into(),
            uri: second.into(),
        })
    }
}

/// The parts of a `sip:` URI that the mediaserver looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uri<'a> {
    pub(super) user: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Uri<'a> {
    pub(super) fn parse(uri: &'a str) -> Option<Self> {
        let (scheme, rest) = uri.split_once(':')?;
        if !scheme.eq_ignore_ascii_case("sip") {
            return None;
        }
        let rest = rest.split_once('?').map_or(rest, |(uri, _headers)| uri);
        // The user part may hold `;` (RFC 3261 section 25.1), so it is taken off before the parameters.
        let (user, rest) = rest.split_once('@').unwrap_or(("", rest));
        let user = user.split_once(':').map_or(user, |(user, _password)| user);
        let host = rest.split_once(';').map_or(rest, |(host, _)| host);
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (host, None),
        };
        (!host.is_empty()).then_some(Self { user, host, port })
    }

    /// Where it leads, when the host is an address: the mediaserver looks up no names.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let ip = self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        Some(SocketAddr::new(ip, self.port.unwrap_or(5060)))
    }
}

/// The URI of a `name-addr` or `addr-spec` (RFC 3261 section 20.10).
pub(super) fn uri_of(value: &str) -> &str {
    match angle(value) {
        Some((start, end)) => &value[start + 1..end],
        None => value.split(';').next().unwrap_or(value).trim(),
    }
}

/// A parameter of a header value, those within the URI not meant.
pub(super) fn param<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let params = match angle(value) {
        Some((_, end)) => &value[end + 1..],
        None => value.split_once(';')?.1,
    };
    params.split(';').find_map(|param| {
        let (key, value) = param.split_once('=').unwrap_or((param, ""));
        key.trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().trim_matches('"'))
    })
}

/// Splits at the commas that are neither in quotes nor in angle brackets.
pub(super) fn split_list(value: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
    value
        .split(move |c| {
            if escaped {
                escaped = false;
                return false;
            }
            match c {
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '<' if !quoted => bracketed = true,
                '>' if !quoted => bracketed = false,
                ',' => return !quoted && !bracketed,
                _ => {}
            }
            false
        })
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// Where the angle brackets are that hold the URI, behind a display name in quotes or none.
fn angle(value: &str) -> Option<(usize, usize)> {
    let (mut quoted, mut escaped) = (false, false);
    let start = value.find(|c| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            _ if was_escaped => {}
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == '<' && !quoted
    })?;
    let end = start + value[start..].find('>')?;
    Some((start, end))
}

/// RFC 3261 section 7.3.3: compact forms stand for the long ones, and case means nothing.
fn long_form(name: &str) -> Cow<'static, str> {
    const KNOWN: [(&str, &str); 22] = [
        ("v", "Via"),
        ("f", "From"),
        ("t", "To"),
        ("i", "Call-ID"),
        ("m", "Contact"),
        ("l", "Content-Length"),
        ("c", "Content-Type"),
        ("k", "Supported"),
        ("", "CSeq"),
        ("", "Route"),
        ("", "Record-Route"),
        ("", "Path"),
        ("", "Expires"),
        ("", "Require"),
        ("", "Proxy-Require"),
        ("", "Authorization"),
        ("", "WWW-Authenticate"),
        ("", "Max-Forwards"),
        ("", "Allow"),
        ("", "User-Agent"),
        ("", "Reason"),
        ("s", "Subject"),
    ];
    let known = KNOWN.iter().find(|(short, long)| {
        name.eq_ignore_ascii_case(long) || (!short.is_empty() && name.eq_ignore_ascii_case(short))
    });
    known.map_or_else(|| name.to_owned().into(), |(_, long)| (*long).into())
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        420 => "Bad Extension",
        423 => "Interval Too Brief",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        603 => "Decline",
        _ => "Answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:600@lan.example SIP/2.0\r\n\
        v: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1;rport\r\n\
        Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK2\r\n\
        Record-Route: <sip:tok@127.0.0.1:5060;lr>, <sip:tok@localhost:8443;transport=ws;lr>\r\n\
        From: \"Alice, \\\"A\\\" <x>\" <sip:alice@lan.example>;tag=a1\r\n\
        t: <sip:600@lan.example>\r\n\
        i: call\r\n\
        CSEQ: 7\x20INVITE\r\n\
        Supported: path,\r\n\x20 outbound\r\n\
        l: 4\r\n\r\nv=0\nrest";

    fn invite() -> Message {
        Message::parse(INVITE.as_bytes()).expect("a good message")
    }

    #[test]
    fn a_message_is_read_in_long_and_compact_form() {
        let invite = invite();
        assert_eq!((invite.method(), invite.uri()), ("INVITE", "sip:600@lan.example"));
        assert_eq!(invite.cseq(), Some((7, "INVITE")));
        assert_eq!(invite.values("Via").count(), 2);
        assert_eq!(
            invite.values("Record-Route").last(),
            Some("<sip:tok@localhost:8443;transport=ws;lr>")
        );
        assert_eq!((invite.tag("From"), invite.tag("To")), (Some("a1"), None));
        assert!(invite.supports("outbound") && invite.supports("path") && !invite.supports("lan"));
        assert_eq!(invite.body, "v=0\n");
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let invite = invite();
        assert_eq!(Message::parse(&invite.write()), Some(invite));
    }

    #[test]
    fn a_response_copies_what_it_must() {
        let ringing = invite().response(180, "mine");
        assert_eq!(ringing.header("To"), Some("<sip:600@lan.example>;tag=mine"));
        assert_eq!(ringing.values("Via").count(), 2);
        assert_eq!(ringing.values("Record-Route").count(), 2);
        let trying = invite().response(100, "mine");
        assert_eq!(trying.header("To"), Some("<sip:600@lan.example>"));
        assert_eq!(trying.values("Record-Route").count(), 0);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let good = INVITE.replace("l: 4", "l: 8");
        assert!(Message::parse(good.as_bytes()).is_some());
        for bad in [
            INVITE.replace("l: 4", "l: 9"),
            INVITE.replace("l: 4", "l: four"),
            INVITE.replace("CSEQ: 7", "CSEQ: 70000000000"),
            INVITE.replace("i: call", "x: call"),
            INVITE.replace(" SIP/2.0\r\nv", " SIP/3.0\r\nv"),
            INVITE.replace("i: call", "i call"),
            INVITE.replace("\r\n\r\n", "\r\n"),
            "\r\n\r\n".into(),
            String::new(),
        ] {
            assert_eq!(Message::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn uris_lead_to_addresses() {
        let check = |uri, expected: Option<(&str, Option<&str>)>| {
            let parsed = Uri::parse(uri).map(|uri| (uri.user, uri.address().map(|a| a.to_string())));
            let expected = expected.map(|(user, address)| (user, address.map(str::to_owned)));
            assert_eq!(parsed, expected, "{uri}");
        };
        check("sip:600@127.0.0.2:5070;lr", Some(("600", Some("127.0.0.2:5070"))));
        check("sip:127.0.0.2", Some(("", Some("127.0.0.2:5060"))));
        check("SIP:a;b=c:pw@[::1]:99;x?Subject=y", Some(("a;b=c", Some("[::1]:99"))));
        check("sip:a@[::1]", Some(("a", Some("[::1]:5060"))));
        check("sip:x@df7jal23ls0d.invalid;transport=ws", Some(("x", None)));
        check("sip:a@host:port", None);
        check("tel:600", None);
        check("sip:a@", None);
    }

    #[test]
    fn header_values_give_uri_and_parameters() {
        let value = "\"a <b>;tag=no\" <sip:x@y;tag=no>;Tag=yes;q=\"1\"";
        assert_eq!((uri_of(value), param(value, "tag")), ("sip:x@y;tag=no", Some("yes")));
        assert_eq!(param(value, "q"), Some("1"));
        assert_eq!(
            (uri_of("sip:x@y;tag=t"), param("sip:x@y;tag=t", "tag")),
            ("sip:x@y", Some("t"))
        );
        assert_eq!(uri_of("<sip:open"), "<sip:open");
    }
}
