//! What do we say in our own name? Responses, ACK and CANCEL, made of the message that calls for them.

use core::net::SocketAddr;

use arrayvec::ArrayString;

use super::{check::Detail, names::text};
use crate::wire::sip::{Message, Name, Start, field::Address, via::Via};

/// A response of our own to a request.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) reason: &'a str,
    pub(super) detail: Detail,
    /// Tag for a To that has none (RFC 3261 section 8.2.6.2); every status but 100 needs one.
    pub(super) tag: u64,
}

/// How the topmost Via of a request goes back.
#[derive(Debug, Clone, Copy)]
pub(super) enum TopVia<'a> {
    /// As it came.
    Kept,
    /// With these parameters in place of its own.
    Stamped(&'a Via<'a>, &'a [u8]),
    /// Not at all: it is ours, the request is the one that we forwarded.
    Ours,
}

impl Answer<'_> {
    /// Appends the response to `message`. RFC 3261 section 8.2.6.
    pub(super) fn write(&self, message: &Message<'_>, top: TopVia<'_>, out: &mut Vec<u8>) {
        put(
            out,
            &[
                b"SIP/2.0 ",
                text(self.status).as_bytes(),
                b" ",
                self.reason.as_bytes(),
                b"\r\n",
            ],
        );
        for (place, field) in message.all(Name::Via).enumerate() {
            let value = message.text(field);
            match top {
                TopVia::Ours if place == 0 => {}
                TopVia::Stamped(via, params) if place == 0 => {
                    put(
                        out,
                        &[b"Via: ", &value[..via.params_at], params, &value[via.end..], b"\r\n"],
                    );
                }
                _ => put(out, &[b"Via: ", value, b"\r\n"]),
            }
        }
        if let Some(from) = message.value(Name::From) {
            put(out, &[b"From: ", from, b"\r\n"]);
        }
        if let Some(to) = message.value(Name::To) {
            put(out, &[b"To: ", to]);
            let has_tag = Address::parse(to).is_none_or(|to| to.tag().is_some());
            if self.status != 100 && !has_tag {
                put(out, &[b";tag=", tag_text(self.tag).as_bytes()]);
            }
            put(out, &[b"\r\n"]);
        }
        for (name, label) in [(Name::CallId, &b"Call-ID: "[..]), (Name::CSeq, b"CSeq: ")] {
            if let Some(value) = message.value(name) {
                put(out, &[label, value, b"\r\n"]);
            }
        }
        if let (100, Some(timestamp)) = (self.status, message.value(Name::Timestamp)) {
            // RFC 3261 section 8.2.6.1: the 100 carries the Timestamp of the request.
            put(out, &[b"Timestamp: ", timestamp, b"\r\n"]);
        }
        match self.detail {
            Detail::None => {}
            Detail::RetryAfter(seconds) => put(out, &[b"Retry-After: ", text(seconds).as_bytes(), b"\r\n"]),
            Detail::Unsupported => {
                for field in message.all(Name::ProxyRequire) {
                    put(out, &[b"Unsupported: ", message.text(field), b"\r\n"]);
                }
            }
        }
        put(out, &[b"Content-Length: 0\r\n\r\n"]);
    }
}

/// Appends a request of one hop that belongs to `forwarded`, a request of ours: `ACK` with the To of the response
/// (RFC 3261 section 17.1.1.3) or `CANCEL` with its own (section 9.1). `more` are whole fields to add.
pub(super) fn hop_request(method: &[u8], forwarded: &Message<'_>, to: Option<&[u8]>, more: &[u8], out: &mut Vec<u8>) {
    let Start::Request { uri, .. } = forwarded.start() else {
        return;
    };
    put(out, &[method, b" ", &forwarded.bytes()[uri.clone()], b" SIP/2.0\r\n"]);
    // The topmost Via is a field of its own, since we wrote it.
    if let Some(via) = forwarded.value(Name::Via) {
        put(out, &[b"Via: ", via, b"\r\n"]);
    }
    for field in forwarded.all(Name::Route) {
        put(out, &[b"Route: ", forwarded.text(field), b"\r\n"]);
    }
    let to = to.or_else(|| forwarded.value(Name::To));
    for (label, value) in [
        (&b"From: "[..], forwarded.value(Name::From)),
        (b"To: ", to),
        (b"Call-ID: ", forwarded.value(Name::CallId)),
    ] {
        if let Some(value) = value {
            put(out, &[label, value, b"\r\n"]);
        }
    }
    let cseq = forwarded.value(Name::CSeq).and_then(crate::wire::sip::field::cseq);
    if let Some((number, _)) = cseq {
        put(out, &[b"CSeq: ", text(number).as_bytes(), b" ", method, b"\r\n"]);
    }
    put(out, &[more, b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"]);
}

/// The Reason fields of a CANCEL go along (RFC 3326 section 2).
pub(super) fn reasons(message: &Message<'_>) -> Vec<u8> {
    let mut reasons = Vec::new();
    for field in message.all(Name::Reason) {
        put(&mut reasons, &[b"Reason: ", message.text(field), b"\r\n"]);
    }
    reasons
}

/// Writes the parameters of the topmost Via as a server must leave them, and tells whether that changed anything.
///
/// RFC 3261 section 18.2.1: `received` where the sender's address is not what it says. RFC 3581 section 4: `rport` and
/// `received` where it asks for `rport`. RFC 7118 section 5.3: over WebSocket only the latter.
pub(super) fn stamp(via: &Via<'_>, source: SocketAddr, websocket: bool, params: &mut Vec<u8>) -> bool {
    params.clear();
    let asks = via.params.get(b"rport").is_some();
    let host = core::str::from_utf8(via.host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    let tells = address.is_ok_and(|address: core::net::IpAddr| address == source.ip());
    if !asks && (websocket || tells) {
        return false;
    }
    for (name, value) in via.params.iter() {
        if name.eq_ignore_ascii_case(b"received") {
            continue;
        }
        put(params, &[b";", name]);
        if name.eq_ignore_ascii_case(b"rport") {
            put(params, &[b"=", text(source.port()).as_bytes()]);
        } else if let Some(value) = value {
            put(params, &[b"=", value]);
        }
    }
    // RFC 5118 section 4.5: an IPv6 address stands here without brackets.
    put(params, &[b";received=", text(source.ip()).as_bytes()]);
    true
}

/// A tag as it is written.
pub(super) fn tag_text(tag: u64) -> ArrayString<48> {
    text(format_args!("{tag:016x}"))
}

/// Where a response over UDP goes (RFC 3261 section 18.2.2, RFC 3581 section 4).
pub(super) fn reply_address(via: &Via<'_>, source: SocketAddr) -> SocketAddr {
    match via.params.get(b"rport") {
        Some(_) => source,
        None => SocketAddr::new(source.ip(), via.port.unwrap_or(crate::wire::sip::uri::DEFAULT_PORT)),
    }
}

/// Appends all parts.
pub(super) fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_via_as_the_server_leaves_it() {
        let check = |via: &str, source: &str, websocket: bool, expected: Option<&str>, to: &str| {
            let via = Via::first(via.as_bytes()).expect(via);
            let source = source.parse().expect("an address");
            let mut params = Vec::new();
            let changed = stamp(&via, source, websocket, &mut params);
            let text = String::from_utf8_lossy(&params).into_owned();
            assert_eq!(changed.then_some(text.as_str()), expected);
            assert_eq!(reply_address(&via, source).to_string(), to);
        };
        let from = "10.0.0.2:5062";
        check("SIP/2.0/UDP 10.0.0.2:5062;branch=a", from, false, None, "10.0.0.2:5062");
        check("SIP/2.0/UDP 10.0.0.2;branch=a", from, false, None, "10.0.0.2:5060");
        check(
            "SIP/2.0/UDP pbx:5070;branch=a",
            from,
            false,
            Some(";branch=a;received=10.0.0.2"),
            "10.0.0.2:5070",
        );
        let stamped = ";rport=5062;branch=a;received=10.0.0.2";
        check(
            "SIP/2.0/UDP 10.0.0.2:5060;rport;branch=a",
            from,
            false,
            Some(stamped),
            from,
        );
        // What somebody has written there for us is not believed.
        check(
            "SIP/2.0/UDP x;received=1.2.3.4;rport=9;branch=a",
            from,
            false,
            Some(stamped),
            from,
        );
        check("SIP/2.0/WSS x.invalid;branch=a", from, true, None, "10.0.0.2:5060");
        check(
            "SIP/2.0/WSS x.invalid;branch=a;rport",
            from,
            true,
            Some(";branch=a;rport=5062;received=10.0.0.2"),
            from,
        );
        let from = "[2001:db8::9]:5060";
        check("SIP/2.0/UDP [2001:DB8::9];branch=a", from, false, None, from);
        check(
            "SIP/2.0/UDP [2001:db8::1]",
            from,
            false,
            Some(";received=2001:db8::9"),
            from,
        );
    }
}
