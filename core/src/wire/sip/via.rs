//! Who sent this message, and whose transaction is it of? The topmost Via (RFC 3261 section 20.42, RFC 3581).

use nom::{Parser as _, bytes::complete::tag_no_case, character::complete::char, combinator::opt, sequence::preceded};

use super::{
    field::{self, Params, space, token},
    uri,
};

/// What every branch begins with that is unique across space and time (RFC 3261 section 8.1.1.7).
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// The first value of a Via field in its parts, each as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// `UDP`, `WSS` or another.
    pub transport: &'a [u8],
    /// The host it wants responses at; an IPv6 address in its brackets.
    pub host: &'a [u8],
    /// The port, where it is written.
    pub port: Option<u16>,
    /// Its parameters.
    pub params: Params<'a>,
    /// Where the parameters begin, counted from the start of the field's value.
    pub params_at: usize,
    /// Where it ends: at the comma before the next Via of the field, or at the end of the value.
    pub end: usize,
}

impl<'a> Via<'a> {
    /// Reads the first Via of a field's value; what follows a comma is not looked at.
    pub fn first(value: &'a [u8]) -> Option<Self> {
        let slash = || (space, char('/'), space);
        let protocol = (tag_no_case(&b"SIP"[..]), slash(), tag_no_case(&b"2.0"[..]), slash());
        let port = preceded((space, char(':'), space), uri::port);
        let (rest, (transport, _, host, port)) = preceded(protocol, (token, space, uri::host, opt(port)))
            .parse(value)
            .ok()?;
        let (rest, _) = space(rest).ok()?;
        let params_at = value.len() - rest.len();
        let (rest, params) = field::params(rest).ok()?;
        matches!(rest.first(), None | Some(b',')).then_some(Self {
            transport,
            host,
            port,
            params,
            params_at,
            end: value.len() - rest.len(),
        })
    }

    /// The transaction it belongs to.
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.params.value(b"branch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several() {
        let value = b"SIP / 2.0\r\n /UDP  192.0.2.2 : 5070 ;branch= a;rport , SIP/2.0/TCP b";
        let via = Via::first(value).expect("a Via");
        assert_eq!(
            (via.transport, via.host, via.port),
            (&b"UDP"[..], &b"192.0.2.2"[..], Some(5070))
        );
        assert_eq!((via.branch(), via.params.get(b"rport")), (Some(&b"a"[..]), Some(None)));
        assert_eq!(&value[via.params_at..], b";branch= a;rport , SIP/2.0/TCP b");
        assert_eq!(&value[via.end..], b", SIP/2.0/TCP b");
    }

    #[test]
    fn addresses_of_all_kinds() {
        for (value, host, port) in [
            (
                "SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK1",
                "df7jal23ls0d.invalid",
                None,
            ),
            (
                "SIP/2.0/UDP [2001:db8::9:1]:6050;received=2001:db8::9:255",
                "[2001:db8::9:1]",
                Some(6050),
            ),
            (
                "SIP/2.0/UDP [::ffff:192.0.2.10];received=[2001:db8::9:255]",
                "[::ffff:192.0.2.10]",
                None,
            ),
            ("sip/2.0/x 1.2.3.4", "1.2.3.4", None),
        ] {
            let via = Via::first(value.as_bytes()).expect(value);
            assert_eq!(
                (via.host, via.port, via.end),
                (host.as_bytes(), port, value.len()),
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_none() {
        for value in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/3.0/UDP a",
            "HTTP/2.0/UDP a",
            "SIP/2.0/UDP a;;,;,,",
            "SIP/2.0/UDP a b",
            "SIP/2.0/UDP a:x",
            "SIP/2.0/UDP a:70000",
            "SIP/2.0/UDP [1::2::3]",
            "SIP/2.0/UDP a;branch=",
        ] {
            assert_eq!(Via::first(value.as_bytes()), None, "{value}");
        }
    }
}
