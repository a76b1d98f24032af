//! For whom does a proxy bring this connection? The header of the PROXY protocol, versions 1 and 2.
//! (The PROXY protocol, 2020/03/05, <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>)

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{self, FromStr},
};

/// A header of version 2 with everything that a proxy adds to the addresses.
pub const HEADER_BYTES_MAX: usize = 4096;

/// What a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What a header of version 1 begins with.
const KEYWORD: &[u8] = b"PROXY ";

/// Signature, version and command, family, length.
const FIXED_BYTES: usize = SIGNATURE.len() + 4;

// Section 2.1: "If the CRLF sequence is not found in the first 107 characters, the receiver should declare the line
// invalid."
const LINE_BYTES_MAX: usize = 107;

/// Who is at the ends of a connection that a proxy brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The proxy itself, or somebody that it cannot name: the connection has the addresses that it has.
    Own,
    /// A client, and the address that it connected to.
    Relayed {
        /// The client.
        source: SocketAddr,
        /// Where it wanted to go.
        destination: SocketAddr,
    },
}

/// What came is no header, nor the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyError;

/// Reads the header at the front of `bytes` and tells its length; `None` when more must come.
///
/// # Errors
/// When more would not help. What a proxy tells beside addresses is skipped, its checksum too.
pub fn parse(bytes: &[u8]) -> Result<Option<(Ends, usize)>, ProxyError> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => line(bytes),
        Some(_) => binary(bytes),
    }
}

/// Whether these bytes look like a header, to tell an administrator who sends one from an unexpected place.
pub fn is_likely(bytes: &[u8]) -> bool {
    bytes.starts_with(KEYWORD) || bytes.starts_with(&SIGNATURE)
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.10 56324 443\r\n`.
fn line(bytes: &[u8]) -> Result<Option<(Ends, usize)>, ProxyError> {
    if !begins(bytes, KEYWORD) {
        return Err(ProxyError);
    }
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        // "The receiver must not tolerate a single CR or LF character."
        let is_hopeless = window.len() == LINE_BYTES_MAX
            || window.contains(&b'\n')
            || window.iter().rev().skip(1).any(|byte| *byte == b'\r');
        return if is_hopeless { Err(ProxyError) } else { Ok(None) };
    };
    let text = str::from_utf8(&window[KEYWORD.len()..end]).map_err(|_| ProxyError)?;
    let ends = match text.split_once(' ').unwrap_or((text, "")) {
        ("TCP4", ends) => relayed::<Ipv4Addr>(ends),
        ("TCP6", ends) => relayed::<Ipv6Addr>(ends),
        // "The receiver must ignore anything presented before the CRLF is found."
        ("UNKNOWN", _) => Some(Ends::Own),
        _ => None,
    };
    Ok(Some((ends.ok_or(ProxyError)?, end + 2)))
}

fn relayed<A: FromStr + Into<IpAddr>>(text: &str) -> Option<Ends> {
    let mut words = text.split(' ');
    let mut address = || words.next()?.parse::<A>().ok().map(Into::into);
    let (source, destination) = (address()?, address()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| Ends::Relayed {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// "A decimal integer in the range [0..65535] inclusive. Heading zeroes are not permitted."
fn port(text: &str) -> Option<u16> {
    let is_canonical = text == "0" || text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_canonical)
}

/// Version 2.
///
/// ```text
///  0               12      13       14        16
/// +---------------+-------+--------+---------+-----------------------------------------+
/// | signature     | 2|cmd | family | length  | source, destination, both ports, extras |
/// +---------------+-------+--------+---------+-----------------------------------------+
/// ```
fn binary(bytes: &[u8]) -> Result<Option<(Ends, usize)>, ProxyError> {
    if !begins(bytes, &SIGNATURE) {
        return Err(ProxyError);
    }
    let Some([.., command, family, high, low]) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Ok(None);
    };
    let end = FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if end > HEADER_BYTES_MAX {
        return Err(ProxyError);
    }
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    let is_relayed = match *command {
        LOCAL => false,
        PROXY => true,
        _ => return Err(ProxyError),
    };
    // A wrong one is refused as soon as it shows.
    let family = match (is_relayed, *family) {
        // "Discard the protocol block including the family which is ignored."
        (false, _) => Family::Unspecified,
        (true, 0x11) => Family::V4,
        (true, 0x21) => Family::V6,
        // Datagrams and sockets of a file system do not come by TCP: what is valid but of no use here is as unspecified.
        (true, 0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32) => Family::Unspecified,
        (true, _) => return Err(ProxyError),
    };
    if end - FIXED_BYTES < family.bytes() {
        return Err(ProxyError);
    }
    let Some(block) = bytes.get(FIXED_BYTES..end) else {
        return Ok(None);
    };
    let ends = match family {
        Family::Unspecified => Some(Ends::Own),
        Family::V4 => ends::<4>(block),
        Family::V6 => ends::<16>(block),
    };
    Ok(Some((ends.ok_or(ProxyError)?, end)))
}

/// What the addresses of a header of version 2 are.
#[derive(Clone, Copy)]
enum Family {
    Unspecified,
    V4,
    V6,
}

impl Family {
    /// Two addresses and two ports.
    const fn bytes(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 2 * 4 + 2 * 2,
            Self::V6 => 2 * 16 + 2 * 2,
        }
    }
}

fn ends<const N: usize>(block: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let [a, b, c, d] = *block.first_chunk()?;
    Some(Ends::Relayed {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes([c, d])),
    })
}

/// Whether one is the beginning of the other.
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<Option<(&str, &str)>, ProxyError>) {
        let expected = expected.map(|ends| {
            ends.map(|(source, destination)| Ends::Relayed {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            })
        });
        let whole = [bytes, b"\x16\x03\x01"].concat();
        match expected {
            Err(error) => assert_eq!(parse(&whole), Err(error), "{}", bytes.escape_ascii()),
            Ok(ends) => {
                let ends = ends.unwrap_or(Ends::Own);
                assert_eq!(parse(&whole), Ok(Some((ends, bytes.len()))), "{}", bytes.escape_ascii());
                for len in 0..bytes.len() {
                    assert_eq!(parse(&bytes[..len]), Ok(None), "{} of {}", len, bytes.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn lines_are_read() {
        check(
            b"PROXY TCP4 192.0.2.1 192.0.2.10 56324 443\r\n",
            Ok(Some(("192.0.2.1:56324", "192.0.2.10:443"))),
        );
        check(
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Ok(Some(("255.255.255.255:65535", "255.255.255.255:65535"))),
        );
        check(
            b"PROXY TCP6 2001:db8::1 2001:DB8::10 0 443\r\n",
            Ok(Some(("[2001:db8::1]:0", "[2001:db8::10]:443"))),
        );
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(
            b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Ok(None),
        );
    }

    #[test]
    fn lines_that_are_none() {
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.10 56324\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 56324 443 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.10 56324 443\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.10 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 +5632 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.10 65536 443\r\n",
            "PROXY TCP4 192.0.02.1 192.0.2.10 1 443\r\n",
            "PROXY TCP4 192.0.2 192.0.2.10 1 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 443\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.10 1 443\r\n",
            "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 443\r\n",
            "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 443\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.10 1 443\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.10 1 443\r\n",
            "PROXY UNKNOWNED\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWN\n",
            "PROXY UNKNOWN\r \r\n",
            "PROXY \u{e9}\r\n",
            "POST / HTTP/1.1\r\n",
        ] {
            check(line.as_bytes(), Err(ProxyError));
        }
        let mut long = b"PROXY UNKNOWN ".to_vec();
        long.resize(LINE_BYTES_MAX, b'x');
        check(&long, Err(ProxyError));
    }

    #[test]
    fn binary_headers_are_read() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 10, 0xdc, 0x04, 1, 0xbb];
        let ends = Some(("192.0.2.1:56324", "192.0.2.10:443"));
        check(&v2(0x21, 0x11, &v4), Ok(ends));
        let extra = [&v4[..], &[4, 0, 3, 1, 2, 3], &[0xff; 3]].concat();
        check(&v2(0x21, 0x11, &extra), Ok(ends));
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[31] = 2;
        v6[33] = 7;
        v6[35] = 9;
        check(&v2(0x21, 0x21, &v6), Ok(Some(("[::1]:7", "[::2]:9"))));
        // Local, whatever else it says.
        check(&v2(0x20, 0x00, &[]), Ok(None));
        check(&v2(0x20, 0xff, &v4), Ok(None));
        // Unspecified, datagrams, a file system.
        check(&v2(0x21, 0x00, &[1, 2, 3]), Ok(None));
        check(&v2(0x21, 0x12, &v4), Ok(None));
        check(&v2(0x21, 0x31, &[0; 216]), Ok(None));
    }

    #[test]
    fn binary_headers_that_are_none() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 10, 0xdc, 0x04, 1, 0xbb];
        for bytes in [
            v2(0x11, 0x11, &v4),
            v2(0x31, 0x11, &v4),
            v2(0x22, 0x11, &v4),
            v2(0x21, 0x13, &v4),
            v2(0x21, 0x41, &v4),
            v2(0x21, 0x11, &v4[..11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; HEADER_BYTES_MAX]),
            b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
            b"\x16\x03\x01\0".to_vec(),
            b"GET / HTTP/1.1\r\n".to_vec(),
        ] {
            check(&bytes, Err(ProxyError));
        }
    }

    #[test]
    fn what_looks_like_one() {
        assert!(is_likely(b"PROXY TCP4 "));
        assert!(is_likely(&v2(0x21, 0x11, &[])));
        assert!(!is_likely(b"PROPFIND / HTTP/1.1"));
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let len = (block.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, block].concat()
    }
}
