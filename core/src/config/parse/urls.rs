//! How are hosts, origins, URLs and paths written?

use core::net::IpAddr;

use super::{
    reader::{Reader, Value},
    values::words,
};
use crate::config::Host;

/// A host as browsers name it: no scheme, no port; lower case.
pub(super) fn host(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let wanted = "a host name";
    let example = "it like \"edge.example.com\", without scheme and port";
    let text = words(cx, value, wanted, example)?;
    match parse_host(text) {
        Some(Host::Name(name)) => Some(name),
        Some(Host::Address(IpAddr::V4(address))) => Some(address.to_string()),
        // RFC 3986 section 3.2.2: so it stands in a Host field too.
        Some(Host::Address(IpAddr::V6(address))) => Some(format!("[{address}]")),
        None => cx.refuse_value(value, wanted, example),
    }
}

/// A host, with a port where it is not 443.
pub(super) fn host_and_port(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let wanted = "a host name";
    let example = "it like \"edge.example.com\", with \":port\" when that is not 443";
    let text = words(cx, value, wanted, example)?;
    if split_host_and_port(text).is_none() {
        return cx.refuse_value(value, wanted, example);
    }
    Some(text.to_ascii_lowercase())
}

/// What a browser sends as `Origin` (RFC 6454 section 6.2): scheme, host, and port where it is not that of the scheme.
pub(super) fn origin(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let wanted = "an origin";
    let example = "it like \"https://edge.example.com\", without a path";
    let text = words(cx, value, wanted, example)?;
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    if host.and_then(split_host_and_port).is_none() {
        return cx.refuse_value(value, wanted, example);
    }
    Some(text.to_ascii_lowercase())
}

/// A server to call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// `http://` or `https://`, a host, perhaps a port.
pub(super) fn url(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Url> {
    let wanted = "the URL of a server";
    let example = "it like \"https://10.0.0.10\" or \"http://name:8080\"";
    let text = words(cx, value, wanted, example)?;
    let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return cx.refuse_value(value, wanted, example),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some((server, _)) = rest.split_once(['/', '?', '#']) {
        let scheme = if tls { "https" } else { "http" };
        return cx.refuse_value(
            value,
            "the URL of a whole server: it has a path",
            &format!("\"{scheme}://{server}\"; paths are passed on as they come"),
        );
    }
    match split_host_and_port(rest) {
        Some((host, port)) => Some(Url {
            tls,
            host,
            port: port.unwrap_or(if tls { 443 } else { 80 }),
        }),
        None => cx.refuse_value(value, wanted, example),
    }
}

/// A host, and the port behind its colon.
pub(super) fn split_host_and_port(text: &str) -> Option<(Host, Option<u16>)> {
    // RFC 3986 section 3.2.2: an IPv6 address is in brackets, so that its colons are not those of a port.
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address = IpAddr::V6(address.parse().ok()?);
        let port = match port {
            "" => None,
            _ => Some(port.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?),
        };
        return Some((Host::Address(address), port));
    }
    let Some((host, port)) = text.split_once(':') else {
        return Some((parse_host(text)?, None));
    };
    Some((parse_host(host)?, Some(port.parse().ok().filter(|port| *port != 0)?)))
}

fn parse_host(text: &str) -> Option<Host> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse() {
        return Some(Host::Address(address));
    }
    // RFC 1123 section 2.1: letters, digits and hyphens. Container names have underscores too.
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // What looks like a broken address is not a name.
    let numeric_end = text
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    let is_name = text.len() <= 253 && !numeric_end && text.split('.').all(is_label);
    is_name.then(|| Host::Name(text.to_ascii_lowercase()))
}

/// What a route takes: the same path may be meant alone and, by another route, with all below it.
pub(super) fn claim(path: &str, below: bool) -> String {
    if below { format!("{path}/...") } else { path.into() }
}

/// A path that can be compared byte by byte.
pub(super) fn path(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let wanted = "a path";
    let example = "it like \"/ucassistant\"";
    let text = words(cx, value, wanted, example)?;
    if let Some(start) = text.find(['?', '#']) {
        return cx.refuse_value(value, "a path alone", &format!("\"{}\"", &text[..start]));
    }
    if !text.starts_with('/') {
        return cx.refuse_value(value, "a path: it does not begin with /", &format!("\"/{text}\""));
    }
    // Only the last segment may be empty, which is the slash at the end.
    let is_odd = |segment: &str| matches!(segment, "" | "." | "..");
    if text != "/" && text.strip_suffix('/').unwrap_or(text)[1..].split('/').any(is_odd) {
        return cx.refuse_value(
            value,
            "a path in its normal form",
            "it without empty, `.` and `..` segments",
        );
    }
    // RFC 3986 section 3.3: what may stand in a path; anything else comes percent-encoded.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
    if !text.bytes().all(allowed) {
        return cx.refuse_value(value, "a path as it is sent", "other characters as %XX");
    }
    if !text.split('%').skip(1).all(is_normal_escape) {
        return cx.refuse_value(
            value,
            "a path in its normal form",
            "%XX in capitals, and only where it must be",
        );
    }
    Some(text.into())
}

/// Whether an escape, of which the `%` is gone, says what cannot be said without (RFC 3986 section 6.2.2).
fn is_normal_escape(rest: &str) -> bool {
    let digits = rest
        .get(..2)
        .filter(|digits| !digits.contains(|c: char| c.is_ascii_lowercase() || c == '+'));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_some_and(|byte| !byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte))
}
