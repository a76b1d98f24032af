//! Is this a STUN message, and which of its attributes count? (RFC 8489 sections 5, 9 and 14)

use core::ops::{Range, RangeInclusive};

mod attribute;
mod integrity;
#[cfg(test)]
mod tests;
mod write;

pub use attribute::{Family, Kind, read_address, read_family, read_u16, read_u32};
pub use integrity::{Integrity, Key, fingerprint, userhash};
pub use write::{Code, Writer};

/// Length of the header in bytes.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |0 0|     STUN Message Type     |         Message Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                         Magic Cookie                          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                     Transaction ID (96 bits)                  |
/// ```
pub const HEADER_BYTES: usize = 20;

/// The fixed bytes behind type and length.
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// First bytes of STUN messages.
// RFC 8656 section 12, table 3 (from RFC 7983): [0..3] is STUN.
pub const FIRST_BYTES: RangeInclusive<u8> = 0..=3;

/// Names a transaction; chosen by the client, echoed by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// The class of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// A success response.
    Success,
    /// An error response.
    Error,
}

/// The method of a message, 12 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method(pub u16);

impl Method {
    /// RFC 8489 section 18.2.
    pub const BINDING: Self = Self(0x001);
    /// RFC 8656 section 17, as all that follow.
    pub const ALLOCATE: Self = Self(0x003);
    /// Sets or ends the lifetime of an allocation.
    pub const REFRESH: Self = Self(0x004);
    /// Client to server: data for a peer.
    pub const SEND: Self = Self(0x006);
    /// Server to client: data of a peer.
    pub const DATA: Self = Self(0x007);
    /// Lets peers in.
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// Gives a peer a channel number.
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// RFC 6062 section 6.1, as all that follow: opens a TCP connection to a peer.
    pub const CONNECT: Self = Self(0x00a);
    /// Joins the connection that it comes by to that of a peer.
    pub const CONNECTION_BIND: Self = Self(0x00b);
    /// Server to client: a peer has connected.
    pub const CONNECTION_ATTEMPT: Self = Self(0x00c);
}

/// What every message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Request, indication or response.
    pub class: Class,
    /// What about.
    pub method: Method,
    /// Which transaction.
    pub transaction: TransactionId,
}

impl Header {
    /// Reads the header, and the length in bytes of the whole message; `None` when this is not STUN, or too short.
    // RFC 8489 section 6.3: "It checks that the first two bits are 0, that the Magic Cookie field has the correct value,
    // that the message length is sensible".
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let [a, b, c, d] = *header.first_chunk()?;
        let (kind, len) = (u16::from_be_bytes([a, b]), usize::from(u16::from_be_bytes([c, d])));
        if kind & 0xc000 != 0 || !len.is_multiple_of(4) || header[4..8] != MAGIC_COOKIE {
            return None;
        }
        let class = match (kind & 0x0100 != 0, kind & 0x0010 != 0) {
            (false, false) => Class::Request,
            (false, true) => Class::Indication,
            (true, false) => Class::Success,
            (true, true) => Class::Error,
        };
        // RFC 8489 section 5, figure 3: the class bits lie between those of the method.
        let method = Method(kind & 0x000f | (kind & 0x00e0) >> 1 | (kind & 0x3e00) >> 2);
        let transaction = TransactionId(*header.last_chunk()?);
        Some((
            Self {
                class,
                method,
                transaction,
            },
            HEADER_BYTES + len,
        ))
    }

    /// The message type, the first 16 bits.
    fn kind(self) -> u16 {
        let class = match self.class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        let method = self.method.0;
        class | method & 0x000f | (method & 0x0070) << 1 | (method & 0x0f80) << 2
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// Not STUN, cut short, or damaged: its fingerprint is wrong. To be dropped.
    NotStun,
    /// A header that is right, with attributes that are not: a request deserves a 400.
    Attributes(Header),
}

/// A message whose attributes have been checked to lie within it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    header: Header,
    /// End of the attributes that count.
    end: usize,
    /// Where the integrity attributes are.
    sha1: Option<usize>,
    sha256: Option<usize>,
    has_fingerprint: bool,
}

impl<'a> Message<'a> {
    /// Reads a message that fills `bytes`, in one pass.
    ///
    /// # Errors
    /// When the bytes are no STUN message, or their attributes do not fit.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, len) = Header::read(bytes).ok_or(ParseError::NotStun)?;
        if len != bytes.len() {
            return Err(ParseError::NotStun);
        }
        let mut message = Self {
            bytes,
            header,
            end: len,
            sha1: None,
            sha256: None,
            has_fingerprint: false,
        };
        let mut at = HEADER_BYTES;
        while at < len {
            at = message.admit(at).ok_or(ParseError::Attributes(header))?;
        }
        // RFC 8489 section 6.3: a wrong fingerprint means that "the message is silently discarded".
        if message.has_fingerprint && !message.fingerprint_is_right() {
            return Err(ParseError::NotStun);
        }
        Ok(message)
    }

    /// Takes note of the attribute at `at` and returns where the next one begins.
    fn admit(&mut self, at: usize) -> Option<usize> {
        let (kind, value) = attribute_at(self.bytes, at)?;
        // RFC 8489 section 14.7: "the FINGERPRINT attribute MUST be the last attribute in the message".
        if self.has_fingerprint {
            return None;
        }
        match kind {
            Kind::MESSAGE_INTEGRITY if self.sha1.is_none() && self.sha256.is_none() => {
                (value.len() == 20).then_some(())?;
                self.sha1 = Some(at);
                self.end = at;
            }
            Kind::MESSAGE_INTEGRITY_SHA256 if self.sha256.is_none() => {
                // RFC 8489 section 14.6: "it MUST be at least 16 bytes and MUST be a multiple of 4 bytes".
                ((16..=32).contains(&value.len()) && value.len().is_multiple_of(4)).then_some(())?;
                self.sha256 = Some(at);
                self.end = self.end.min(at);
            }
            Kind::FINGERPRINT => {
                (value.len() == 4).then_some(())?;
                self.has_fingerprint = true;
                self.end = self.end.min(at);
            }
            _ => {}
        }
        Some(value.end.next_multiple_of(4))
    }

    fn fingerprint_is_right(&self) -> bool {
        self.bytes
            .split_last_chunk()
            .is_some_and(|(before, value)| fingerprint(&before[..before.len() - 4]) == u32::from_be_bytes(*value))
    }

    /// What it begins with.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Whether it carries a fingerprint; it is right then.
    pub fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    /// The attributes that count, in their order.
    // RFC 8489 section 9: "agents MUST ignore all attributes that follow MESSAGE-INTEGRITY, with the exception of the
    // MESSAGE-INTEGRITY-SHA256 and FINGERPRINT attributes".
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            bytes: &self.bytes[..self.end],
            at: HEADER_BYTES,
        }
    }

    /// The integrity attribute that decides.
    // RFC 8489 section 9.2.4: "If the MESSAGE-INTEGRITY-SHA256 attribute is present, compute the value [...] Otherwise
    // [...] compute the value for the MESSAGE-INTEGRITY attribute".
    pub fn integrity(&self) -> Option<Integrity> {
        match (self.sha1, self.sha256) {
            (_, Some(_)) => Some(Integrity::Sha256),
            (Some(_), None) => Some(Integrity::Sha1),
            (None, None) => None,
        }
    }

    /// Whether the integrity attribute that decides was made with `key`. Takes the same time for any wrong value.
    pub fn is_signed_by(&self, key: &Key) -> bool {
        let Some((integrity, at)) = self
            .sha256
            .map(|at| (Integrity::Sha256, at))
            .or_else(|| self.sha1.map(|at| (Integrity::Sha1, at)))
        else {
            return false;
        };
        attribute_at(self.bytes, at)
            .is_some_and(|(_, value)| integrity.verify(key, &self.bytes[..at], &self.bytes[value]))
    }
}

/// Attributes of a message.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// One attribute of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: Kind,
    /// Its value without padding.
    pub value: &'a [u8],
    /// Where the value is in the message.
    pub range: Range<usize>,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, range) = attribute_at(self.bytes, self.at)?;
        self.at = range.end.next_multiple_of(4);
        Some(Attribute {
            kind,
            value: &self.bytes[range.clone()],
            range,
        })
    }
}

/// The type of the attribute at `at`, and where its value is; `None` when it does not fit with its padding.
fn attribute_at(bytes: &[u8], at: usize) -> Option<(Kind, Range<usize>)> {
    let [a, b, c, d] = *bytes.get(at..)?.first_chunk()?;
    let start = at + 4;
    let end = start + usize::from(u16::from_be_bytes([c, d]));
    (end.next_multiple_of(4) <= bytes.len()).then_some((Kind(u16::from_be_bytes([a, b])), start..end))
}
