//! How does a WebSocket frame look on the wire (RFC 6455 section 5.2), and what proves a handshake (section 4.2.2)?

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, BytesMut};
use sha1::{Digest as _, Sha1};

/// What precedes the payload of a frame.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-------+-+-------------+-------------------------------+
/// |F|R|R|R|opcode |M| length      | 126: length in these 16 bits  |
/// |I|S|S|S|  (4)  |A|   (7)       | 127: length in these and 48   |
/// |N|V|V|V|       |S|             |      more bits                |
/// | |1|2|3|       |K|             |                               |
/// +-+-+-+-+-------+-+-------------+-------------------------------+
/// | masking key, 32 bits, if MASK is set                          |
/// +---------------------------------------------------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// FIN: this frame ends its message.
    pub fin: bool,
    /// What the frame is for.
    pub opcode: Opcode,
    /// The masking key, which every frame of a client has and none of a server.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload, less than 2^63.
    pub payload_len: u64,
}

/// What a frame is for (RFC 6455 section 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// The close handshake.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or tells that one is alive.
    Pong,
}

/// A header that no endpoint may send. All of these are protocol errors (close code 1002).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// RSV1, RSV2 or RSV3 is set though no extension gives it a meaning.
    ReservedBit,
    /// An opcode without a meaning.
    ReservedOpcode,
    /// A control frame without FIN.
    FragmentedControl,
    /// A control frame with more than 125 bytes.
    LongControl,
    /// A length in more bytes than it needs.
    LengthNotMinimal,
    /// A 64-bit length with its first bit set.
    LengthOutOfRange,
}

impl Header {
    /// Bytes of the longest header.
    pub const BYTES_MAX: usize = 14;
    /// Bytes of the shortest header.
    pub const BYTES_MIN: usize = 2;
    /// Payload of a control frame at most (RFC 6455 section 5.5).
    pub const CONTROL_PAYLOAD_MAX: u8 = 125;

    /// Reads a header and tells how many bytes it has; `None` when there are not enough yet.
    ///
    /// # Errors
    /// As soon as the bytes that are there cannot begin a frame.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeaderError> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        // RFC 6455 section 5.2: a nonzero RSV without a negotiated extension fails the connection.
        if first & RSV != 0 {
            return Err(HeaderError::ReservedBit);
        }
        let fin = first & FIN != 0;
        let opcode = Opcode::from_bits(first & OPCODE).ok_or(HeaderError::ReservedOpcode)?;
        // RFC 6455 section 5.5: control frames carry 125 bytes at most and are never fragmented.
        if opcode.is_control() && !fin {
            return Err(HeaderError::FragmentedControl);
        }
        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        let short = second & LENGTH;
        if opcode.is_control() && short > Self::CONTROL_PAYLOAD_MAX {
            return Err(HeaderError::LongControl);
        }
        let (payload_len, rest) = match short {
            LENGTH_16 => {
                let Some((extended, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes(*extended)), rest)
            }
            LENGTH_64 => {
                let Some((extended, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                (u64::from_be_bytes(*extended), rest)
            }
            _ => (u64::from(short), rest),
        };
        if payload_len >> 63 != 0 {
            return Err(HeaderError::LengthOutOfRange);
        }
        // RFC 6455 section 5.2: "the minimal number of bytes MUST be used to encode the length".
        if short != Self::short_length(payload_len) {
            return Err(HeaderError::LengthNotMinimal);
        }
        let (mask, rest) = if second & MASK == 0 {
            (None, rest)
        } else {
            let Some((key, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            (Some(*key), rest)
        };
        let header = Self {
            fin,
            opcode,
            mask,
            payload_len,
        };
        Ok(Some((header, bytes.len() - rest.len())))
    }

    /// Appends the header. The payload that follows it must be masked already when there is a key.
    pub fn write(&self, out: &mut BytesMut) {
        debug_assert!(self.payload_len >> 63 == 0, "a length has 63 bits");
        let short = Self::short_length(self.payload_len);
        out.put_u8(if self.fin { FIN } else { 0 } | self.opcode.bits());
        out.put_u8(if self.mask.is_some() { MASK } else { 0 } | short);
        match short {
            LENGTH_16 => out.put_u16(self.payload_len as u16),
            LENGTH_64 => out.put_u64(self.payload_len),
            _ => {}
        }
        if let Some(key) = self.mask {
            out.put_slice(&key);
        }
    }

    /// The seven bits that open the encoding of a length.
    const fn short_length(payload_len: u64) -> u8 {
        match payload_len {
            0..=125 => payload_len as u8,
            126..=0xffff => LENGTH_16,
            _ => LENGTH_64,
        }
    }
}

impl Opcode {
    /// Whether frames of this kind may come between the fragments of a message (RFC 6455 section 5.5).
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

/// Masks or unmasks a whole payload in place (RFC 6455 section 5.3).
pub fn mask(key: [u8; 4], payload: &mut [u8]) {
    // Eight bytes at a time, which the compiler widens to what the processor has; the key repeats every four, so each
    // chunk begins with its first byte.
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// The `Sec-WebSocket-Accept` that proves that a `Sec-WebSocket-Key` was read as one.
pub fn accept_key(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    // RFC 6455 section 4.2.2, item 5.4: base64 of the SHA-1 of the key, as it stands in the field, and a fixed text.
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let len = STANDARD.encode_slice(digest, &mut accept);
    assert_eq!(len, Ok(ACCEPT_BYTES), "20 bytes are 28 of base64");
    accept
}

/// Whether this is a `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455 section 4.2.1, item 5).
pub fn is_key(key: &[u8]) -> bool {
    // 16 bytes end in two of padding; room for one byte more than may be.
    let mut nonce = [0; 18];
    key.len() == 24 && STANDARD.decode_slice(key, &mut nonce) == Ok(16)
}

/// Bytes of a `Sec-WebSocket-Accept`.
pub const ACCEPT_BYTES: usize = 28;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests;
