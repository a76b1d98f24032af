//! Whom does this URI name? SIP and SIPS URIs (RFC 3261 section 19.1), and the scheme of any other.

use core::net::Ipv6Addr;

use nom::{
    IResult, Parser as _,
    bytes::complete::{take_while, take_while1},
    character::complete::char,
    combinator::opt,
    sequence::{delimited, preceded, terminated},
};

use super::field::{self, Bytes, Params};

/// A SIP or SIPS URI in its parts, each as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// Whether the scheme is `sips`.
    pub secure: bool,
    /// What stands before the `@`, a password included.
    pub user: Option<&'a [u8]>,
    /// Name or address; that of IPv6 in its brackets.
    pub host: &'a [u8],
    /// The port, where it is written.
    pub port: Option<u16>,
    /// Its parameters.
    pub params: Params<'a>,
    /// What follows the question mark.
    pub headers: Option<&'a [u8]>,
}

/// Why a text is not a URI that we understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UriError {
    /// Not a URI.
    Syntax,
    /// A URI of another kind: neither sip nor sips, nor tel.
    Scheme,
}

impl<'a> Uri<'a> {
    /// Reads a whole URI.
    ///
    /// # Errors
    /// When it is none, or none of SIP.
    pub fn parse(text: &'a [u8]) -> Result<Self, UriError> {
        let (rest, scheme) = scheme(text).map_err(|_| UriError::Syntax)?;
        let secure = scheme.eq_ignore_ascii_case(b"sips");
        if !secure && !scheme.eq_ignore_ascii_case(b"sip") {
            return Err(UriError::Scheme);
        }
        if !rest.iter().all(|byte| field::is_uri(*byte)) {
            return Err(UriError::Syntax);
        }
        sip(rest, secure)
            .ok()
            .and_then(|(rest, uri)| rest.is_empty().then_some(uri))
            .ok_or(UriError::Syntax)
    }

    /// Whether it has the parameter `lr`: a loose router (RFC 3261 section 19.1.1).
    pub fn is_loose(&self) -> bool {
        self.params.get(b"lr").is_some()
    }

    /// Whether host and port are these. A port that is not written is the default of UDP.
    pub fn is_at(&self, host: &[u8], port: u16) -> bool {
        self.port.unwrap_or(DEFAULT_PORT) == port && self.host.eq_ignore_ascii_case(host)
    }
}

/// Whether this is a `tel` URI (RFC 3966), which a mediaserver may understand.
pub fn is_tel(text: &[u8]) -> bool {
    text.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"tel:")) && text.len() > 4
}

/// RFC 3261 section 18.1.1: 5060 where a port is absent.
pub const DEFAULT_PORT: u16 = 5060;

fn scheme(input: Bytes<'_>) -> IResult<Bytes<'_>, Bytes<'_>> {
    let text = take_while1(|byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    terminated(text, char(':')).parse(input)
}

fn sip(input: Bytes<'_>, secure: bool) -> IResult<Bytes<'_>, Uri<'_>> {
    // RFC 3261 section 25.1: an "@" that does not end the user part is escaped, so the first one does.
    let (input, user) = opt(terminated(take_while1(is_user), char('@'))).parse(input)?;
    let (input, host) = host(input)?;
    let (input, port) = opt(preceded(char(':'), port)).parse(input)?;
    let (input, params) = params(input)?;
    let (input, headers) = opt(preceded(char('?'), take_while(is_header))).parse(input)?;
    let uri = Uri {
        secure,
        user,
        host,
        port,
        params,
        headers,
    };
    Ok((input, uri))
}

/// `hostname / IPv4address / IPv6reference`
pub(super) fn host(input: Bytes<'_>) -> IResult<Bytes<'_>, Bytes<'_>> {
    if input.first() != Some(&b'[') {
        // Underscores are no part of the grammar and of many names in use.
        return take_while1(|byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))(input);
    }
    let inside = take_while1(|byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    let (rest, address) = delimited(char('['), inside, char(']')).parse(input)?;
    if !is_ipv6(address) {
        return Err(nom::Err::Error(nom::error::Error::new(
            input,
            nom::error::ErrorKind::Verify,
        )));
    }
    Ok((rest, &input[..input.len() - rest.len()]))
}

/// Whether this is the text of an IPv6 address.
pub(super) fn is_ipv6(text: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(text) else {
        return false;
    };
    // RFC 5118 section 4.10: the grammar of RFC 3261 lets three colons stand before an embedded IPv4 address.
    text.parse::<Ipv6Addr>().is_ok() || text.replacen(":::", "::", 1).parse::<Ipv6Addr>().is_ok()
}

pub(super) fn port(input: Bytes<'_>) -> IResult<Bytes<'_>, u16> {
    take_while1(|byte: u8| byte.is_ascii_digit())
        .map_opt(|digits| field::number(digits).and_then(|port| u16::try_from(port).ok()))
        .parse(input)
}

/// Parameters of a URI: no space, other characters than in those of a field.
fn params(input: Bytes<'_>) -> IResult<Bytes<'_>, Params<'_>> {
    let len = input.iter().position(|byte| *byte == b'?').unwrap_or(input.len());
    let (text, rest) = input.split_at(len);
    match field::params(text)? {
        ([], params) => Ok((rest, params)),
        (left, _) => Err(nom::Err::Error(nom::error::Error::new(
            left,
            nom::error::ErrorKind::Eof,
        ))),
    }
}

/// Of user and password. The grammar is stricter; phones are not (a dialled `#`, UTF-8).
const fn is_user(byte: u8) -> bool {
    field::is_uri(byte) && !matches!(byte, b'@' | b'[' | b']')
}

const fn is_header(byte: u8) -> bool {
    field::is_uri(byte) && byte != b'@'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_uris() {
        let check =
            |text: &str, user: Option<&str>, host: &str, port: Option<u16>, params: &str, headers: Option<&str>| {
                let expected = Uri {
                    secure: text.starts_with("sips"),
                    user: user.map(str::as_bytes),
                    host: host.as_bytes(),
                    port,
                    params: Params(params.as_bytes()),
                    headers: headers.map(str::as_bytes),
                };
                assert_eq!(Uri::parse(text.as_bytes()), Ok(expected), "{text}");
            };
        check("sip:xivo", None, "xivo", None, "", None);
        check(
            "sips:a:b@c.d:1;e;f=g?h=i",
            Some("a:b"),
            "c.d",
            Some(1),
            ";e;f=g",
            Some("h=i"),
        );
        check(
            "SIP:200@[2001:db8::1]:5070;lr",
            Some("200"),
            "[2001:db8::1]",
            Some(5070),
            ";lr",
            None,
        );
        check(
            "sip:a@[2001:db8:::192.0.2.1]",
            Some("a"),
            "[2001:db8:::192.0.2.1]",
            None,
            "",
            None,
        );
        check("sip:user;par=u%40x@b", Some("user;par=u%40x"), "b", None, "", None);
        check("sip:*21#@b", Some("*21#"), "b", None, "", None);
        check("sip:a?b/c;d@e", Some("a?b/c;d"), "e", None, "", None);
        check("sip:a@b_c?x=%3C", Some("a"), "b_c", None, "", Some("x=%3C"));
    }

    #[test]
    fn others() {
        for (text, error) in [
            ("tel:+33", UriError::Scheme),
            ("soap.beep://a", UriError::Scheme),
            ("", UriError::Syntax),
            ("sip:", UriError::Syntax),
            ("sip:@b", UriError::Syntax),
            ("sip:a@", UriError::Syntax),
            ("sip:a@b@c", UriError::Syntax),
            ("sip:a@b:", UriError::Syntax),
            ("sip:a@b:65536", UriError::Syntax),
            ("sip:a@b;", UriError::Syntax),
            ("sip:a@b c", UriError::Syntax),
            ("sip:a@b;c d", UriError::Syntax),
            ("<sip:a@b>", UriError::Syntax),
            ("sip:2001:db8::10", UriError::Syntax),
            ("sip:[2001:db8::10", UriError::Syntax),
            ("sip:[1.2.3.4]", UriError::Syntax),
            ("a", UriError::Syntax),
        ] {
            assert_eq!(Uri::parse(text.as_bytes()), Err(error), "{text}");
        }
        assert!(is_tel(b"TEL:1") && !is_tel(b"tel:") && !is_tel(b"sip:1"));
    }

    #[test]
    fn whose_it_is() {
        let at = |text: &str| Uri::parse(text.as_bytes()).is_ok_and(|uri| uri.is_at(b"10.0.0.1", 5060));
        assert!(at("sip:a@10.0.0.1") && at("sip:10.0.0.1:5060;lr"));
        assert!(!at("sip:10.0.0.1:5061") && !at("sip:10.0.0.2"));
    }
}
