//! What does a TLS client ask for before anything is agreed on? Server name and protocols of its ClientHello.
//! (RFC 8446, RFC 6066, RFC 7301)

use alloc::borrow::Cow;
use core::{net::Ipv4Addr, ops::Range, str};

/// The content type of a handshake record, the first byte of every TLS connection (RFC 8446 section 5.1).
pub const HANDSHAKE: u8 = 22;

/// A ClientHello with all its records. Post-quantum key shares and a resumption take some 3 KiB.
pub const HELLO_BYTES_MAX: usize = 18 * 1024;

/// Records that a ClientHello may come in.
const RECORDS_MAX: usize = 64;

/// Content type, legacy version, length.
const RECORD_HEADER_BYTES: usize = 5;

/// Plaintext of one record at the most (RFC 8446 section 5.1).
const FRAGMENT_BYTES_MAX: usize = 1 << 14;

/// Message type, length.
const MESSAGE_HEADER_BYTES: usize = 4;

const CLIENT_HELLO: u8 = 1;
const RANDOM_BYTES: usize = 32;
const SESSION_ID_BYTES_MAX: usize = 32;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// A DNS name as text (RFC 1035 section 2.3.4, less its root).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// The first message of a TLS client, as far as it tells where the client wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello<'b> {
    message: Cow<'b, [u8]>,
    server_name: Option<Range<usize>>,
    alpn: Range<usize>,
}

/// What came is no ClientHello, nor the beginning of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloError;

/// Why a connection ends before TLS begins (RFC 8446 section 6.2, RFC 6066 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// The message cannot be read.
    DecodeError = 50,
    /// No certificate to show.
    HandshakeFailure = 40,
    /// Nobody of that name is here.
    UnrecognizedName = 112,
}

impl Alert {
    /// The record that says so, before any key is there.
    pub const fn record(self) -> [u8; 7] {
        const FATAL: u8 = 2;
        [21, 3, 3, 0, 2, FATAL, self as u8]
    }
}

impl<'b> ClientHello<'b> {
    /// Reads the records at the front of `bytes`; `None` when more must come.
    ///
    /// # Errors
    /// When more would not help.
    pub fn parse(bytes: &'b [u8]) -> Result<Option<Self>, HelloError> {
        let Some(message) = message(bytes)? else {
            return if bytes.len() < HELLO_BYTES_MAX {
                Ok(None)
            } else {
                Err(HelloError)
            };
        };
        let (server_name, alpn) = fields(&message).ok_or(HelloError)?;
        Ok(Some(Self {
            message,
            server_name,
            alpn,
        }))
    }

    /// The name of the server that the client wants, if it named one; a DNS name without a final dot.
    pub fn server_name(&self) -> Option<&str> {
        str::from_utf8(&self.message[self.server_name.clone()?]).ok()
    }

    /// The application protocols that it offers, its favourite first.
    pub fn protocols(&self) -> impl Iterator<Item = &[u8]> {
        let mut list = Reader::new(&self.message[..self.alpn.end], self.alpn.start);
        core::iter::from_fn(move || list.vec8().map(|name| &self.message[name]))
    }
}

/// The handshake message in the records, with its header, once it is there as a whole.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, HelloError> {
    let mut whole: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    for _ in 0..RECORDS_MAX {
        let Some(([kind, major, _minor, high, low], behind)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() else {
            return plausible(rest);
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        // RFC 8446 section 5.1: a handshake record is never empty. The minor version says nothing.
        if *kind != HANDSHAKE || *major != 3 || len == 0 || len > FRAGMENT_BYTES_MAX {
            return Err(HelloError);
        }
        let (fragment, is_whole) = match behind.split_at_checked(len) {
            Some((fragment, behind)) => {
                rest = behind;
                (fragment, true)
            }
            None => (behind, false),
        };
        if whole.is_empty() {
            whole = Cow::Borrowed(fragment);
        } else {
            whole.to_mut().extend_from_slice(fragment);
        }
        if whole.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(HelloError);
        }
        if let Some([_, a, b, c]) = whole.first_chunk::<MESSAGE_HEADER_BYTES>() {
            let end = MESSAGE_HEADER_BYTES + u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if end > HELLO_BYTES_MAX {
                return Err(HelloError);
            }
            if whole.len() >= end {
                match &mut whole {
                    Cow::Borrowed(message) => *message = &message[..end],
                    Cow::Owned(message) => message.truncate(end),
                }
                return Ok(Some(whole));
            }
        }
        if !is_whole {
            return Ok(None);
        }
    }
    Err(HelloError)
}

/// Whether these few bytes may become the header of a record.
const fn plausible(rest: &[u8]) -> Result<Option<Cow<'_, [u8]>>, HelloError> {
    match rest {
        [] | [HANDSHAKE] | [HANDSHAKE, 3, ..] => Ok(None),
        _ => Err(HelloError),
    }
}

/// Where server name and protocols stand in a ClientHello (RFC 8446 section 4.1.2).
fn fields(message: &[u8]) -> Option<(Option<Range<usize>>, Range<usize>)> {
    let mut hello = Reader::new(message, MESSAGE_HEADER_BYTES);
    let _legacy_version = hello.u16()?;
    hello.skip(RANDOM_BYTES)?;
    if hello.vec8()?.len() > SESSION_ID_BYTES_MAX {
        return None;
    }
    let cipher_suites = hello.vec16()?;
    let compression_methods = hello.vec8()?;
    if cipher_suites.is_empty() || !cipher_suites.len().is_multiple_of(2) || compression_methods.is_empty() {
        return None;
    }
    let (mut server_name, mut alpn) = (None, None);
    if !hello.is_empty() {
        let list = hello.vec16()?;
        let mut extensions = Reader::new(&message[..list.end], list.start);
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let data = extensions.vec16()?;
            let data = Reader::new(&message[..data.end], data.start);
            // RFC 8446 section 4.2: no extension comes twice.
            match kind {
                SERVER_NAME if server_name.is_none() => server_name = Some(host_name(data)?),
                ALPN if alpn.is_none() => alpn = Some(protocol_names(data)?),
                SERVER_NAME | ALPN => return None,
                _ => {}
            }
        }
    }
    hello
        .is_empty()
        .then(|| (server_name.flatten(), alpn.unwrap_or_default()))
}

/// The name in a `server_name` extension (RFC 6066 section 3): outside `None` is malformed, inside there is none.
fn host_name(mut data: Reader<'_>) -> Option<Option<Range<usize>>> {
    let list = data.vec16()?;
    if list.is_empty() || !data.is_empty() {
        return None;
    }
    let bytes = data.bytes;
    let mut names = Reader::new(&bytes[..list.end], list.start);
    if names.u8()? != HOST_NAME {
        // Nobody has said how long a name of another type is.
        return Some(None);
    }
    let mut name = names.vec16()?;
    // RFC 6066 section 3: one name of a type at the most.
    if !names.is_empty() {
        return None;
    }
    if name.len() > 1 && bytes[name.end - 1] == b'.' {
        name.end -= 1;
    }
    // "Literal IPv4 and IPv6 addresses are not permitted", but who sends one means no name.
    let text = str::from_utf8(&bytes[name.clone()]).ok()?;
    if text.parse::<Ipv4Addr>().is_ok() || text.contains(':') {
        return Some(None);
    }
    is_dns_name(text).then_some(Some(name))
}

fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label)
}

/// The list in an ALPN extension (RFC 7301 section 3.1).
fn protocol_names(mut data: Reader<'_>) -> Option<Range<usize>> {
    let list = data.vec16()?;
    let mut names = Reader::new(&data.bytes[..list.end], list.start);
    if list.is_empty() || !data.is_empty() {
        return None;
    }
    while !names.is_empty() {
        // "Empty strings MUST NOT be included".
        if names.vec8()?.is_empty() {
            return None;
        }
    }
    Some(list)
}

/// Takes what a structure of TLS is made of off the front of some bytes. Vectors are given by their place.
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    const fn new(bytes: &'b [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    fn skip(&mut self, len: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        Some(core::mem::replace(&mut self.at, end)..end)
    }

    fn u8(&mut self) -> Option<u8> {
        let at = self.skip(1)?;
        Some(self.bytes[at.start])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn vec8(&mut self) -> Option<Range<usize>> {
        let len = self.u8()?;
        self.skip(usize::from(len))
    }

    fn vec16(&mut self) -> Option<Range<usize>> {
        let len = self.u16()?;
        self.skip(usize::from(len))
    }

    const fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }
}

#[cfg(test)]
mod tests;
