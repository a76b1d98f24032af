//! What do the values of header fields mean? Addresses, parameters, CSeq and numbers (RFC 3261 section 25.1).

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
        let (rest, params) = params(rest).ok()?;
        let address = Self {
            display,
            uri,
            uri_at: value.len() - uri_and_rest_len,
            params,
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
