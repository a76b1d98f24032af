//! What does a request ask for? The request target in the one form that routing and upstreams see: an absolute path
//! without dot segments, doubled slashes or needless escapes, and a query.

use alloc::borrow::Cow;
use core::net::Ipv6Addr;

use super::request::Method;

/// Bytes of a host name (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// Where a request target points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'b> {
    path: Cow<'b, str>,
    query: Option<&'b str>,
}

/// Host and port of a URI or of a Host field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'b> {
    /// A name or an address as it came, an IPv6 address in brackets; never empty.
    pub host: &'b str,
    /// The port, when one is given.
    pub port: Option<u16>,
}

/// Why an argument of the query cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentError {
    /// There are several of that name.
    Repeated,
    /// Its escapes are malformed, or hide what is not UTF-8.
    Malformed,
}

impl<'b> Target<'b> {
    /// Reads a request target (RFC 9112 section 3.2) that is visible ASCII. In absolute-form it brings an authority,
    /// which must then be that of the Host field. `None` when it is malformed or tries to get where it should not.
    pub(super) fn parse(method: Method, raw: &'b str) -> Option<(Self, Option<Authority<'b>>)> {
        match raw.as_bytes() {
            [b'/', ..] => Some((Self::origin_form(raw)?, None)),
            b"*" if method == Method::Options => Some((Self::asterisk(), None)),
            _ => Self::absolute_form(method, raw),
        }
    }

    /// The path, normalised: begins with `/`, or is `*` for the server as a whole.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query as it came, without its `?`.
    pub const fn query(&self) -> Option<&'b str> {
        self.query
    }

    /// Whether this is the server as a whole (RFC 9112 section 3.2.4).
    pub fn is_asterisk(&self) -> bool {
        self.path == "*"
    }

    /// The value of the argument `name` in a query of the form `a=1&b=2`, unescaped.
    ///
    /// # Errors
    /// When there are several, or it cannot be unescaped.
    pub fn argument(&self, name: &str) -> Result<Option<Cow<'b, str>>, ArgumentError> {
        let mut found = None;
        for argument in self.query.unwrap_or_default().split('&') {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            let is_named = key == name || key.contains('%') && unescape(key).is_some_and(|key| key == name);
            if is_named && found.replace(value).is_some() {
                return Err(ArgumentError::Repeated);
            }
        }
        match found {
            None => Ok(None),
            Some(value) => unescape(value).map(Some).ok_or(ArgumentError::Malformed),
        }
    }

    const fn asterisk() -> Self {
        Self {
            path: Cow::Borrowed("*"),
            query: None,
        }
    }

    // RFC 9112 section 3.2.1: origin-form = absolute-path [ "?" query ].
    fn origin_form(raw: &'b str) -> Option<Self> {
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        // Browsers send some bytes that RFC 3986 section 3.4 would have escaped; a fragment is never sent.
        if query.is_some_and(|query| query.contains('#')) {
            return None;
        }
        let path = normalise(path)?;
        Some(Self { path, query })
    }

    // RFC 9112 section 3.2.2: a server must accept the absolute-form.
    fn absolute_form(method: Method, raw: &'b str) -> Option<(Self, Option<Authority<'b>>)> {
        let (scheme, rest) = raw.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let authority = Authority::parse(&rest[..end])?;
        let target = match &rest[end..] {
            "" if method == Method::Options => Self::asterisk(),
            "" => Self::origin_form("/")?,
            // RFC 9112 section 3.2.1: an empty path is sent as "/".
            query if query.starts_with('?') => Self {
                path: Cow::Borrowed("/"),
                ..Self::origin_form_of_query(query)?
            },
            path => Self::origin_form(path)?,
        };
        Some((target, Some(authority)))
    }

    fn origin_form_of_query(raw: &'b str) -> Option<Self> {
        let query = raw.strip_prefix('?')?;
        (!query.contains('#')).then_some(Self {
            path: Cow::Borrowed("/"),
            query: Some(query),
        })
    }
}

impl<'b> Authority<'b> {
    /// Reads `host [ ":" port ]` (RFC 9110 section 7.2); user information, an empty host or port, and escapes are
    /// refused.
    pub fn parse(text: &'b str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let len = rest.find(']')?;
                rest[..len].parse::<Ipv6Addr>().ok()?;
                (&text[..len + 2], &text[len + 2..])
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !(host.starts_with('[') || host.bytes().all(is_name)) {
            return None;
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// Whether both name the same server, where no port is `port_default`.
    pub fn is_same(&self, other: &Self, port_default: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(port_default) == other.port.unwrap_or(port_default)
    }
}

/// The path with escapes of unreserved characters undone, the others in capitals, no dot segments and no doubled
/// slashes (RFC 3986 sections 6.2.2 and 5.2.4). `None` when it is malformed, climbs above the root, or has an escape
/// that some server would take for a separator or an end.
fn normalise(path: &str) -> Option<Cow<'_, str>> {
    let mut before = 0;
    let mut is_normal = true;
    for byte in path.bytes() {
        if !PATH[usize::from(byte)] {
            return None;
        }
        is_normal &= byte != b'%' && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
    }
    if is_normal {
        return Some(Cow::Borrowed(path));
    }
    let unescaped = unescape_unreserved(path)?;
    let mut normal = String::with_capacity(unescaped.len());
    let mut ends_open = false;
    for segment in unescaped.split('/') {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => normal.truncate(normal.rfind('/')?),
            // Some servers cut a path parameter off before they look for dot segments.
            _ if segment.starts_with(".;") || segment.starts_with("..;") => return None,
            _ => {
                normal.push('/');
                normal.push_str(segment);
            }
        }
    }
    if ends_open {
        normal.push('/');
    }
    Some(Cow::Owned(normal))
}

fn unescape_unreserved(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escaped)) = rest.split_once('%') {
        out.push_str(plain);
        let byte = escaped_byte(escaped)?;
        match byte {
            // RFC 3986 section 6.2.2.2: an escaped unreserved character means the same as the character.
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            // Control characters, both slashes, and bytes that no UTF-8 has: they only ever serve to get past a filter.
            0..=0x1f | 0x7f | b'/' | b'\\' | 0xc0 | 0xc1 | 0xf5..=0xff => return None,
            _ => {
                out.push('%');
                out.push_str(&escaped[..2].to_ascii_uppercase());
            }
        }
        rest = &escaped[2..];
    }
    out.push_str(rest);
    Some(out)
}

/// The text with all its escapes undone.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('%') {
        out.extend_from_slice(plain.as_bytes());
        out.push(escaped_byte(escaped)?);
        rest = &escaped[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// The byte that the two digits after a `%` stand for.
fn escaped_byte(text: &str) -> Option<u8> {
    let [high, low, ..] = text.as_bytes() else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
}

/// What may stand in a path: `pchar` and `/` (RFC 3986 section 3.3), and the brackets and the bar, which browsers leave
/// as they are.
const PATH: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'@'
                    | b'/'
                    | b'%'
                    | b'['
                    | b']'
                    | b'|'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(raw: &str, expected: Option<(&str, Option<&str>)>) {
        let target = Target::parse(Method::Get, raw).map(|(target, _)| target);
        let found = target.as_ref().map(|target| (target.path(), target.query()));
        assert_eq!(found, expected, "{raw}");
    }

    #[test]
    fn paths_are_normalised() {
        for (raw, path) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a.b/c..d/...", "/a.b/c..d/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("//a///b//", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("/%61%2D%2e%5f%7E", "/a-._~"),
            ("/a/%2e%2E/b", "/b"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%20b%3f%23", "/a%20b%3F%23"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/[a]|b", "/[a]|b"),
        ] {
            check(raw, Some((path, None)));
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        for raw in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e/a",
            "/a%00",
            "/a%0d%0a",
            "/a%7f",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%+1",
            "/a#b",
            "/%c0%ae%c0%ae/a",
            "/%ff",
            "/a/..;/b",
            "/a/.;x/b",
            "/\"",
            "/<a>",
            "/{a}",
            "/^",
            "/`",
            "a",
            "a/b",
            "*",
            "",
            "?a",
            "http:/a",
        ] {
            check(raw, None);
        }
    }

    #[test]
    fn queries_pass_as_they_are() {
        check("/a?", Some(("/a", Some(""))));
        check("/a?b=../%2f/?{}", Some(("/a", Some("b=../%2f/?{}"))));
        check("/a/../b?c/../d", Some(("/b", Some("c/../d"))));
        check("/a?b#c", None);
    }

    #[test]
    fn absolute_form() {
        for (raw, path, query, host, port) in [
            ("https://example.com/a/../b?c", "/b", Some("c"), "example.com", None),
            ("HTTP://Example.com:8080", "/", None, "Example.com", Some(8080)),
            ("https://example.com?x=1", "/", Some("x=1"), "example.com", None),
            ("https://[2001:db8::1]:443/", "/", None, "[2001:db8::1]", Some(443)),
        ] {
            let (target, authority) = Target::parse(Method::Get, raw).expect(raw);
            assert_eq!((target.path(), target.query()), (path, query), "{raw}");
            assert_eq!(authority, Some(Authority { host, port }), "{raw}");
        }
        for raw in [
            "ftp://example.com/",
            "https://",
            "https:///a",
            "https://u@example.com/",
            "https://a#b",
            "https://a?#",
        ] {
            check(raw, None);
        }
        let (target, _) = Target::parse(Method::Options, "http://example.com").expect("absolute-form");
        assert!(target.is_asterisk());
        let (target, _) = Target::parse(Method::Options, "*").expect("asterisk-form");
        assert!(target.is_asterisk());
    }

    #[test]
    fn authorities() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("EXAMPLE.com:0443", "EXAMPLE.com", Some(443)),
            ("192.0.2.1:1", "192.0.2.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("a_b", "a_b", None),
        ] {
            assert_eq!(Authority::parse(text), Some(Authority { host, port }), "{text}");
        }
        for text in [
            "", ":80", "a:", "a:b", "a:+1", "a:65536", "a:1:2", "a b", "a,b", "a/b", "u@a", "a?b", "[::1", "[::1]a",
            "[g]", "[]", "::1", "a%41", "\u{e9}",
        ] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn arguments() {
        for (query, expected) in [
            ("token=abc", Ok(Some("abc"))),
            ("a=1&token=abc&b", Ok(Some("abc"))),
            ("token", Ok(Some(""))),
            ("token=", Ok(Some(""))),
            ("token=a=b", Ok(Some("a=b"))),
            ("%74oken=%61%2e", Ok(Some("a."))),
            ("a=1", Ok(None)),
            ("atoken=1&Token=2", Ok(None)),
            ("token=1&token=2", Err(ArgumentError::Repeated)),
            ("token=1&%74oken=2", Err(ArgumentError::Repeated)),
            ("token=%f", Err(ArgumentError::Malformed)),
            ("token=%ff", Err(ArgumentError::Malformed)),
        ] {
            let raw = format!("/wssip?{query}");
            let (target, _) = Target::parse(Method::Get, &raw).expect("a target");
            assert_eq!(
                target.argument("token"),
                expected.map(|value| value.map(Cow::Borrowed)),
                "{query}"
            );
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(raw in "/[a-c./%2eEfF5;]{0,24}") {
            if let Some(once) = normalise(&raw) {
                prop_assert_eq!(normalise(&once), Some(once.clone()));
                prop_assert!(once.starts_with('/'));
                prop_assert!(!once.split('/').any(|segment| matches!(segment, "." | "..")));
                prop_assert!(!once.contains("//"));
            }
        }
    }
}
