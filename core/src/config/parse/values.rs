//! What do the values of a configuration look like, and what does each become?

use core::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr as _,
    time::Duration,
};

use ipnet::IpNet;
use toml::de::DeValue;

use super::reader::{Reader, Section, Value};
use crate::config::{Host, Secret};

/// Any text.
pub(super) fn text<'v>(cx: &mut Reader<'_>, value: &'v Value<'_>) -> Option<&'v str> {
    words(cx, value, "text", "it in quotes: \"...\"")
}

/// `true` or `false`.
pub(super) fn flag(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<bool> {
    match value.get_ref() {
        DeValue::Boolean(flag) => Some(*flag),
        _ => cx.refuse_value(value, "true or false", "true or false, without quotes"),
    }
}

/// A whole number between two others.
pub(super) fn number<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&mut Reader<'_>, &Value<'_>) -> Option<T> {
    move |cx, value| {
        let number = match value.get_ref() {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        number
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .or_else(|| {
                let (least, most) = (range.start(), range.end());
                cx.refuse_value(
                    value,
                    &format!("a number from {least} to {most}"),
                    "such a number, without quotes",
                )
            })
    }
}

/// A number of seconds, whole or not: from a millisecond to a week.
pub(super) fn seconds(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Duration> {
    let secs = match value.get_ref() {
        DeValue::Integer(digits) => f64::from_str(digits.as_str()).ok().filter(|_| digits.radix() == 10),
        DeValue::Float(digits) => f64::from_str(digits.as_str()).ok(),
        _ => None,
    };
    match secs {
        Some(secs) if (0.001..=SECONDS_MAX).contains(&secs) => Some(Duration::from_secs_f64(secs)),
        _ => cx.refuse_value(
            value,
            "a number of seconds from 0.001 to 604800",
            "such a number, without quotes",
        ),
    }
}

/// A number of bytes, as a number or like `"64 KiB"`.
pub(super) fn bytes<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&mut Reader<'_>, &Value<'_>) -> Option<T> {
    move |cx, value| {
        let bytes = match value.get_ref() {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            DeValue::String(text) => bytes_with_unit(text),
            _ => None,
        };
        bytes
            .filter(|bytes| range.contains(bytes))
            .and_then(|bytes| T::try_from(bytes).ok())
            .or_else(|| {
                let (least, most) = (range.start(), range.end());
                cx.refuse_value(
                    value,
                    &format!("a number of bytes from {least} to {most}"),
                    "65536 or \"64 KiB\"; there are KiB, MiB and GiB",
                )
            })
    }
}

fn bytes_with_unit(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// An address and a port to listen on or to send to.
pub(super) fn socket_address(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<SocketAddr> {
    let wanted = "an address with a port";
    let example = "it like \"192.0.2.10:443\" or \"[2001:db8::10]:443\"";
    let text = words(cx, value, wanted, example)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        let example = match address {
            IpAddr::V4(_) => format!("\"{address}:PORT\""),
            IpAddr::V6(_) => format!("\"[{address}]:PORT\""),
        };
        return cx.refuse_value(value, wanted, &example);
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        return cx.refuse_value(value, wanted, example);
    };
    if address.port() == 0 {
        return cx.refuse_value(value, "an address with a port that others can know", "another port");
    }
    check_usable(cx, value, address.ip())?;
    Some(address)
}

/// An address, with a port or with `port`.
pub(super) fn socket_address_or(port: u16) -> impl Fn(&mut Reader<'_>, &Value<'_>) -> Option<SocketAddr> {
    move |cx, value| match value.get_ref() {
        DeValue::String(text) if text.parse::<IpAddr>().is_ok() => Some(SocketAddr::new(address(cx, value)?, port)),
        _ => socket_address(cx, value),
    }
}

/// An address without a port.
pub(super) fn address(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<IpAddr> {
    let wanted = "an address";
    let example = "it like \"192.0.2.10\" or \"2001:db8::10\", without a port";
    let text = words(cx, value, wanted, example)?;
    let Ok(address) = text.parse() else {
        return cx.refuse_value(value, wanted, example);
    };
    check_usable(cx, value, address)?;
    Some(address)
}

/// The address of somebody else, or of ours as others see it.
pub(super) fn exact_address(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<IpAddr> {
    let address = address(cx, value)?;
    if address.is_unspecified() {
        return cx.refuse_value(value, "an address that can be reached", "the one that others use");
    }
    Some(address)
}

fn check_usable(cx: &mut Reader<'_>, value: &Value<'_>, address: IpAddr) -> Option<()> {
    if address.is_multicast() || address == IpAddr::from([255; 4]) {
        return cx.refuse_value(value, "the address of one host", "a unicast address");
    }
    // RFC 4291 section 2.5.5.2: a mapped address is IPv4 in another dress, and would be compared as IPv6.
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return cx.refuse_value(value, "written in its own family", &format!("{v4} instead"));
    }
    Some(())
}

/// A network, or one address.
pub(super) fn net(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<IpNet> {
    let wanted = "a network";
    let example = "it like \"10.0.0.0/8\", or one address";
    let text = words(cx, value, wanted, example)?;
    if text.parse::<IpAddr>().is_ok() {
        return address(cx, value).map(IpNet::from);
    }
    match text.parse::<IpNet>() {
        Ok(net) if net == net.trunc() => Some(net),
        Ok(net) => cx.refuse_value(
            value,
            "a network: it has bits behind its prefix",
            &format!("\"{}\", or \"{}\" for the one address", net.trunc(), net.addr()),
        ),
        Err(_) => cx.refuse_value(value, wanted, example),
    }
}

/// A range of ports like `"10000-20000"`, or one port.
pub(super) fn ports(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<RangeInclusive<u16>> {
    let wanted = "a range of ports";
    let example = "it like \"10000-20000\", or one port like 10000";
    if let DeValue::Integer(_) = value.get_ref() {
        let port = number(1..=65_535)(cx, value)?;
        return Some(port..=port);
    }
    let text = words(cx, value, wanted, example)?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) else {
        return cx.refuse_value(value, wanted, example);
    };
    if first > last {
        return cx.refuse_value(
            value,
            "a range of ports: it ends before it begins",
            &format!("\"{last}-{first}\""),
        );
    }
    if first == 0 {
        return cx.refuse_value(value, "a range of ports: there is no port 0", &format!("\"1-{last}\""));
    }
    Some(first..=last)
}

/// A name in configuration, logs and paths.
pub(super) fn name(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let wanted = "a name of letters, digits, `-`, `_` and `.`";
    let example = "it like \"main\"";
    let text = words(cx, value, wanted, example)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(allowed) {
        return cx.refuse_value(value, wanted, example);
    }
    Some(text.into())
}

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

fn split_host_and_port(text: &str) -> Option<(Host, Option<u16>)> {
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

/// A secret: in the text, in a file, or in the environment.
pub(super) fn secret(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Secret> {
    let site = value.span().start;
    // What is wrong with a secret is said without showing it.
    let bytes = match value.get_ref() {
        DeValue::String(text) => text.as_bytes().to_vec(),
        DeValue::Table(_) => secret_elsewhere(cx, value)?,
        _ => {
            return cx.refuse(
                site,
                "this is not a secret",
                "write \"...\" or { file = \"/etc/edgeward/secret\" } or { env = \"NAME\" }",
            );
        }
    };
    let count = String::from_utf8_lossy(&bytes).chars().count();
    if count < SECRET_CHARACTERS_MIN {
        let what = match count {
            0 => "this secret is empty".into(),
            _ => format!("this secret can be guessed: it has {count} of {SECRET_CHARACTERS_MIN} characters"),
        };
        return cx.refuse(site, what, "take what this prints: openssl rand -base64 32");
    }
    Some(Secret::new(bytes))
}

fn secret_elsewhere(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Vec<u8>> {
    let site = value.span().start;
    let mut section = Section::new(cx, "a secret", value)?;
    let file = section.optional(cx, "file", |cx, value| {
        let mut bytes = file(cx, value)?;
        // An editor ends the last line, a secret does not.
        let end = bytes.trim_ascii_end().len();
        bytes.truncate(end);
        Some(bytes)
    });
    let env = section.optional(cx, "env", |cx, value| {
        let name = text(cx, value)?;
        match cx.sources.env(name) {
            Some(secret) => Some(secret.into_bytes()),
            None => cx.refuse(
                value.span().start,
                format!("there is no variable {name} in the environment"),
                format!("set {name} before the start"),
            ),
        }
    });
    let count = usize::from(section.has("file")) + usize::from(section.has("env"));
    section.finish(cx);
    if count != 1 {
        return cx.refuse(
            site,
            "a secret comes from one place",
            "write { file = \"/etc/edgeward/secret\" } or { env = \"NAME\" }",
        );
    }
    file.or(env)
}

/// What a file holds.
pub(super) fn file(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Vec<u8>> {
    let path = words(
        cx,
        value,
        "the path of a file",
        "it like \"/etc/edgeward/fullchain.pem\"",
    )?;
    match cx.sources.file(path) {
        Ok(bytes) => Some(bytes),
        Err(error) => cx.refuse(
            value.span().start,
            format!("`{path}` cannot be read: {error}"),
            "name a file that exists and that this user may read",
        ),
    }
}

fn words<'v>(cx: &mut Reader<'_>, value: &'v Value<'_>, wanted: &str, example: &str) -> Option<&'v str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text),
        _ => cx.refuse_value(value, wanted, example),
    }
}

const SECONDS_MAX: f64 = 604_800.0;
const NAME_BYTES_MAX: usize = 64;
const SECRET_CHARACTERS_MIN: usize = 16;
