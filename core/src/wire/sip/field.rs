//! What do the values of header fields mean? Addresses, parameters, CSeq and numbers (RFC 3261 section 25.1).

use core::ops::Range;

use nom::{
    IResult, Parser as _,
    branch::alt,
    bytes::complete::{tag, take_while, take_while1},
    character::complete::char,
    combinator::{opt, recognize, verify},
    multi::many0_count,
    sequence::{delimited, pair, preceded, terminated},
};

use super::scan;

/// A rest of a value, or what was found in it.
pub(super) type Bytes<'a> = &'a [u8];

/// `name-addr` or `addr-spec` with the parameters behind it, as in From, To, Contact, Route and Path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    /// The display name as it is written, quotes included; empty for none.
    pub display: &'a [u8],
    /// The URI, not looked into.
    pub uri: &'a [u8],
    /// Where the URI begins, counted from the start of the value.
    pub uri_at: usize,
    /// Parameters of the field, not of the URI.
    pub params: Params<'a>,
    /// Where those begin, counted from the start of the value.
    pub params_at: usize,
}

impl<'a> Address<'a> {
    /// Reads a value that is one address and nothing else.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        match Self::first(value)? {
            (address, len) if len == value.len() => Some(address),
            _ => None,
        }
    }

    /// Reads the first of a list of addresses; also tells where the comma behind it is, or the end.
    pub fn first(value: &'a [u8]) -> Option<(Self, usize)> {
        let (rest, (display, uri_and_rest_len, uri)) = alt((name_addr, addr_spec)).parse(value).ok()?;
        let params_at = value.len() - rest.len();
        let (rest, params) = params(rest).ok()?;
        let address = Self {
            display,
            uri,
            uri_at: value.len() - uri_and_rest_len,
            params,
            params_at,
        };
        Some((address, value.len() - rest.len()))
    }

    /// The `tag` parameter (RFC 3261 section 19.3).
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.value(b"tag")
    }
}

/// Addresses of one value, separated by commas; each with its offset. Ends with an error at what is none.
pub fn addresses(value: &[u8]) -> impl Iterator<Item = Result<(usize, usize, Address<'_>), NotAnAddress>> {
    let mut at = Some(0);
    core::iter::from_fn(move || {
        let start = at?;
        let Some((address, len)) = Address::first(&value[start..]) else {
            at = None;
            return Some(Err(NotAnAddress));
        };
        let end = start + len;
        match value.get(end) {
            Some(b',') => at = Some(end + 1 + space(&value[end + 1..]).map_or(0, |(_, skipped)| skipped.len())),
            Some(_) => {
                at = None;
                return Some(Err(NotAnAddress));
            }
            None => at = None,
        }
        Some(Ok((start, end, address)))
    })
}

/// Something stands where an address should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnAddress;

/// Parameters as they are written, each with its semicolon; their syntax is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params<'a>(pub(super) &'a [u8]);

impl<'a> Params<'a> {
    /// Names and values in order; a parameter without `=` has no value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (after, found) = param(rest).ok()?;
            rest = after;
            Some(found)
        })
    }

    /// The value of a parameter; `None` when it is absent or has none.
    pub fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.get(name).flatten()
    }

    /// A parameter, with its value if it has one.
    pub fn get(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        self.iter()
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Where the value of a parameter stands in [`Self::text`].
    pub fn place(&self, name: &[u8]) -> Option<Range<usize>> {
        let mut rest = self.0;
        while let Ok((after, (candidate, value))) = param(rest) {
            rest = after;
            if candidate.eq_ignore_ascii_case(name) {
                let end = self.0.len() - rest.len();
                return value.map(|value| end - value.len()..end);
            }
        }
        None
    }

    /// All of them, as written.
    pub fn text(&self) -> &'a [u8] {
        self.0
    }
}

/// Sequence number and method (RFC 3261 section 20.16).
pub fn cseq(value: &[u8]) -> Option<(u32, &[u8])> {
    let (rest, (digits, _, method)) = (
        take_while1(|byte: u8| byte.is_ascii_digit()),
        verify(space, |space: &[u8]| !space.is_empty()),
        token,
    )
        .parse(value)
        .ok()?;
    // RFC 3261 section 8.1.1.5: the sequence number MUST be less than 2**31.
    let number = number(digits).filter(|number| *number < 1 << 31)?;
    rest.is_empty().then_some((number as u32, method))
}

/// A decimal number that fits 64 bits.
pub fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Elements of a value that is a list of tokens, as in Supported or Proxy-Require.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(|element| element.trim_ascii())
        .filter(|element| !element.is_empty())
}

/// `*(SEMI generic-param)`; also tells that they are sound.
pub(super) fn params(input: Bytes<'_>) -> IResult<Bytes<'_>, Params<'_>> {
    terminated(recognize(many0_count(param)), space)
        .map(Params)
        .parse(input)
}

/// `SEMI token [ EQUAL gen-value ]`
fn param(input: Bytes<'_>) -> IResult<Bytes<'_>, (Bytes<'_>, Option<Bytes<'_>>)> {
    let name = preceded((space, char(';'), space), token);
    let value = preceded((space, char('='), space), alt((quoted, take_while1(is_value))));
    pair(name, opt(value)).parse(input)
}

/// `[ display-name ] LAQUOT addr-spec RAQUOT`: display name, what is left at the URI, the URI.
fn name_addr(input: Bytes<'_>) -> IResult<Bytes<'_>, (Bytes<'_>, usize, Bytes<'_>)> {
    let display = alt((quoted, recognize(many0_count(terminated(token, space)))));
    let (uri_and_rest, display) = delimited(space, display, (space, char('<'))).parse(input)?;
    let (rest, uri) = terminated(take_while1(is_uri), char('>')).parse(uri_and_rest)?;
    Ok((rest, (display.trim_ascii_end(), uri_and_rest.len(), uri)))
}

/// A URI without brackets; its parameters, if any, are those of the field.
fn addr_spec(input: Bytes<'_>) -> IResult<Bytes<'_>, (Bytes<'_>, usize, Bytes<'_>)> {
    let (rest, _) = space(input)?;
    // RFC 3261 section 20: if the URI contains a comma, question mark or semicolon, it MUST be enclosed in brackets.
    let part = take_while1(|byte| is_uri(byte) && !matches!(byte, b',' | b'?' | b';'));
    let (after, uri) = recognize((token, tag(&b":"[..]), part)).parse(rest)?;
    Ok((after, (&[], rest.len(), uri)))
}

pub(super) fn token(input: Bytes<'_>) -> IResult<Bytes<'_>, Bytes<'_>> {
    take_while1(scan::is_token)(input)
}

/// Linear white space, or none.
pub(super) fn space(input: Bytes<'_>) -> IResult<Bytes<'_>, Bytes<'_>> {
    take_while(scan::is_space)(input)
}

/// `quoted-string`, with its quotes.
fn quoted(input: Bytes<'_>) -> IResult<Bytes<'_>, Bytes<'_>> {
    let text = take_while1(|byte| !matches!(byte, b'"' | b'\\'));
    let escaped = recognize((char('\\'), nom::bytes::complete::take(1usize)));
    recognize((char('"'), many0_count(alt((text, escaped))), char('"'))).parse(input)
}

/// Of a parameter value that is not quoted: token or host.
const fn is_value(byte: u8) -> bool {
    scan::is_token(byte)
        || matches!(
            byte,
            b'[' | b']' | b':' | b'/' | b'@' | b'$' | b'&' | b'?' | b'#' | b'(' | b')'
        )
        || byte >= 0x80
}

/// Of a URI, where it ends at a bracket or space.
pub(super) const fn is_uri(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && !matches!(byte, b'<' | b'>' | b'"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address() {
        let check = |value: &str, expected: Option<(&str, &str, &str)>| {
            let text = |bytes| core::str::from_utf8(bytes).expect("UTF-8");
            let found = Address::parse(value.as_bytes());
            let found = found.map(|found| (text(found.display), text(found.uri), text(found.params.text())));
            assert_eq!(found, expected, "{value}");
            if let Some((_, uri, _)) = expected {
                let at = Address::parse(value.as_bytes()).map_or(0, |found| found.uri_at);
                assert!(value[at..].starts_with(uri));
            }
        };
        check("<sip:a@b>", Some(("", "sip:a@b", "")));
        check("sip:a@b;tag=1", Some(("", "sip:a@b", ";tag=1")));
        check("sip:a@b", Some(("", "sip:a@b", "")));
        check(
            "  Al  Ice\r\n <sip:a@b;c=d?e=f> ; tag = 1;x",
            Some(("Al  Ice", "sip:a@b;c=d?e=f", " ; tag = 1;x")),
        );
        check(
            "\"A \\\" <sip:x> B\" <tel:1>",
            Some(("\"A \\\" <sip:x> B\"", "tel:1", "")),
        );
        check(
            "<sip:a@[::1]:5060>;q=\"a;b,c\"",
            Some(("", "sip:a@[::1]:5060", ";q=\"a;b,c\"")),
        );
        for bad in [
            "",
            "/",
            "<>",
            "<sip:a@b",
            "< sip:a@b>",
            "<sip:a@b >",
            "\"A <sip:a@b>",
            "A, B <sip:a@b>",
            "sip:a@b?c=d",
            "sip:a@b;;tag=1",
            "sip:a@b;",
            "sip:a@b;=1",
            "<sip:a@b>x",
            "<sip:a@b>,<sip:c@d>",
            "a",
            "<sip:a@b>;tag=",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn lists_of_addresses() {
        let check = |value: &str, expected: &[Option<&str>]| {
            let found: Vec<_> = addresses(value.as_bytes())
                .map(|address| address.ok().map(|(start, end, _)| &value[start..end]))
                .collect();
            assert_eq!(found, expected, "{value}");
        };
        check(
            "<sip:a>;x=\",\" ,\r\n \"b,\" <sip:b>",
            &[Some("<sip:a>;x=\",\" "), Some("\"b,\" <sip:b>")],
        );
        check("sip:a,sip:b;c", &[Some("sip:a"), Some("sip:b;c")]);
        check("<sip:a>,", &[Some("<sip:a>"), None]);
        check("<sip:a> <sip:b>", &[None]);
        check("*", &[None]);
    }

    #[test]
    fn params() {
        let value = b"<sip:a>;Tag=x;flag ; q = \"a\\\"b\";tag=y";
        let address = Address::parse(value).expect("an address");
        assert_eq!(address.tag(), Some(&b"x"[..]));
        assert_eq!(address.params.get(b"FLAG"), Some(None));
        assert_eq!(address.params.value(b"flag"), None);
        assert_eq!(address.params.value(b"q"), Some(&b"\"a\\\"b\""[..]));
        assert_eq!(address.params.get(b"none"), None);
        assert_eq!(address.params.iter().count(), 4);
    }

    #[test]
    fn sequence_numbers() {
        for (value, expected) in [
            ("7 INVITE", Some((7, &b"INVITE"[..]))),
            ("0009\r\n  A%b", Some((9, b"A%b"))),
            ("2147483647 A", Some((0x7fff_ffff, b"A"))),
            ("2147483648 A", None),
            ("36893488147419103232 A", None),
            ("-1 A", None),
            ("1", None),
            ("1A", None),
            ("1 A B", None),
            (" A", None),
        ] {
            assert_eq!(cseq(value.as_bytes()), expected, "{value}");
        }
    }
}
