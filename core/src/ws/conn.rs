//! What do the bytes of a WebSocket mean? Frames become messages, as RFC 6455 sections 5 to 8 have it.

use core::{mem, ops::Deref, str};

use bytes::{BufMut as _, BytesMut};

use super::close_code;
use crate::wire::ws::{self, Header, HeaderError, Opcode};

/// The server's end of a WebSocket. It holds no memory but for the fragments of an unfinished message.
#[derive(Debug)]
pub struct Conn {
    message_bytes_max: usize,
    fragments: Option<Fragments>,
    close_received: bool,
    close_sent: bool,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// A whole message; text is UTF-8.
    Message {
        /// Text or binary.
        kind: Kind,
        /// What it says.
        payload: Payload<'b>,
    },
    /// A piece of a message was put aside: nothing to do.
    Fragment,
    /// To be answered by [`Conn::pong`] with the same payload.
    Ping(&'b [u8]),
    /// The other side is alive.
    Pong(&'b [u8]),
    /// The other side sends no more. To be answered by [`Conn::close`], with the same code or with
    /// [`close_code::NO_STATUS`] where there is none; then the connection ends.
    Close(Option<u16>),
}

/// The two kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Anything.
    Binary,
}

/// The bytes of a message, unmasked.
#[derive(Debug)]
pub enum Payload<'b> {
    /// It came in one frame and still lies where it was received.
    InPlace(&'b mut [u8]),
    /// It came in several.
    Assembled(Vec<u8>),
}

/// The other side broke the protocol or a limit: close with this code, then end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The code to close with (RFC 6455 section 7.4.1).
    pub code: u16,
    /// What happened, short enough for the reason of a Close frame.
    pub reason: &'static str,
}

/// A message that is not whole.
#[derive(Debug)]
struct Fragments {
    kind: Kind,
    payload: Vec<u8>,
    count: usize,
    /// Bytes of text found to be UTF-8 so far.
    valid: usize,
}

impl Conn {
    /// A WebSocket just opened. A message, and so a frame, of more than `message_bytes_max` bytes is refused.
    pub const fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            fragments: None,
            close_received: false,
            close_sent: false,
        }
    }

    /// Takes the next frame from the front of `bytes` and tells how many bytes it had; `None` until the whole frame is
    /// there, and for ever once the other side has closed.
    ///
    /// # Errors
    /// As soon as it is sure that what follows cannot be accepted, which may be before the frame is whole.
    pub fn next<'b>(&mut self, bytes: &'b mut [u8]) -> Result<Option<(Item<'b>, usize)>, Violation> {
        // RFC 6455 section 5.5.1: nothing follows a Close frame; what comes nevertheless means nothing.
        if self.close_received {
            return Ok(None);
        }
        let Some((header, header_len)) = Header::read(bytes)? else {
            return Ok(None);
        };
        // RFC 6455 section 5.1: a server closes the connection upon a frame that is not masked.
        let key = header.mask.ok_or(NOT_MASKED)?;
        self.check_order(header.opcode)?;
        let end = header_len + self.check_length(&header)?;
        if bytes.len() < end {
            return Ok(None);
        }
        let payload = &mut bytes[header_len..end];
        ws::mask(key, payload);
        let item = match header.opcode {
            Opcode::Text => self.begin(Kind::Text, header.fin, payload)?,
            Opcode::Binary => self.begin(Kind::Binary, header.fin, payload)?,
            Opcode::Continuation => self.go_on(header.fin, payload)?,
            Opcode::Ping => Item::Ping(payload),
            Opcode::Pong => Item::Pong(payload),
            Opcode::Close => {
                self.close_received = true;
                Item::Close(read_close(payload)?)
            }
        };
        Ok(Some((item, end)))
    }

    /// Writes a Close frame, unless one was written before. [`close_code::NO_STATUS`] makes it an empty one; a reason
    /// longer than 123 bytes is cut.
    pub fn close(&mut self, code: u16, reason: &str, out: &mut BytesMut) {
        if mem::replace(&mut self.close_sent, true) {
            return;
        }
        if code == close_code::NO_STATUS {
            return write_frame(Opcode::Close, &[], out);
        }
        debug_assert!(close_code::is_sendable(code), "{code} is not for the wire");
        let cut = (0..=reason.len().min(REASON_BYTES_MAX))
            .rev()
            .find(|at| reason.is_char_boundary(*at));
        let reason = &reason[..cut.unwrap_or(0)];
        write_header(Opcode::Close, CODE_BYTES + reason.len(), out);
        out.put_u16(code);
        out.put_slice(reason.as_bytes());
    }

    /// Writes a message, in one frame.
    pub fn write(kind: Kind, payload: &[u8], out: &mut BytesMut) {
        let opcode = match kind {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        };
        write_frame(opcode, payload, out);
    }

    /// Writes a Ping frame with up to 125 bytes, which come back in a [`Item::Pong`].
    pub fn ping(payload: &[u8], out: &mut BytesMut) {
        write_control(Opcode::Ping, payload, out);
    }

    /// Writes a Pong frame with up to 125 bytes.
    pub fn pong(payload: &[u8], out: &mut BytesMut) {
        write_control(Opcode::Pong, payload, out);
    }

    /// How many bytes the frame at the front of `bytes` still lacks, as far as its header tells; 0 when it is whole or
    /// will never be accepted. Never more than a header and the largest message.
    pub fn needs(&self, bytes: &[u8]) -> usize {
        let whole = match Header::read(bytes) {
            Ok(None) => bytes.len().max(Header::BYTES_MIN - 1) + 1,
            Ok(Some((header, header_len))) => match self.check_length(&header) {
                Ok(payload_len) => header_len + payload_len,
                Err(_) => 0,
            },
            Err(_) => 0,
        };
        whole.saturating_sub(bytes.len())
    }

    /// Whether both sides have closed, so that the server ends the connection (RFC 6455 section 7.1.1).
    pub const fn is_closed(&self) -> bool {
        self.close_received && self.close_sent
    }

    fn check_order(&self, opcode: Opcode) -> Result<(), Violation> {
        // RFC 6455 section 5.4: fragments of two messages are never mixed; control frames may come between them.
        match (opcode, &self.fragments) {
            (Opcode::Continuation, None) => Err(NOTHING_TO_CONTINUE),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(NOT_FINISHED),
            _ => Ok(()),
        }
    }

    fn check_length(&self, header: &Header) -> Result<usize, Violation> {
        let before = match &self.fragments {
            Some(fragments) if header.opcode == Opcode::Continuation => fragments.payload.len(),
            _ => 0,
        };
        let room = if header.opcode.is_control() {
            usize::from(Header::CONTROL_PAYLOAD_MAX)
        } else {
            self.message_bytes_max - before
        };
        usize::try_from(header.payload_len)
            .ok()
            .filter(|len| *len <= room)
            .ok_or(TOO_LARGE)
    }

    fn begin<'b>(&mut self, kind: Kind, fin: bool, payload: &'b mut [u8]) -> Result<Item<'b>, Violation> {
        if fin {
            if kind == Kind::Text && str::from_utf8(payload).is_err() {
                return Err(NOT_UTF8);
            }
            let payload = Payload::InPlace(payload);
            return Ok(Item::Message { kind, payload });
        }
        let mut fragments = Fragments {
            kind,
            payload: Vec::new(),
            count: 0,
            valid: 0,
        };
        fragments.push(payload)?;
        self.fragments = Some(fragments);
        Ok(Item::Fragment)
    }

    fn go_on<'b>(&mut self, fin: bool, payload: &[u8]) -> Result<Item<'b>, Violation> {
        let mut fragments = self.fragments.take().ok_or(NOTHING_TO_CONTINUE)?;
        fragments.push(payload)?;
        if !fin {
            self.fragments = Some(fragments);
            return Ok(Item::Fragment);
        }
        if fragments.kind == Kind::Text && fragments.valid < fragments.payload.len() {
            return Err(NOT_UTF8);
        }
        Ok(Item::Message {
            kind: fragments.kind,
            payload: Payload::Assembled(fragments.payload),
        })
    }
}

impl Fragments {
    fn push(&mut self, payload: &[u8]) -> Result<(), Violation> {
        self.count += 1;
        // Fragments may be empty, so the limit on bytes alone would let a message go on for ever.
        if self.count > FRAGMENTS_MAX {
            return Err(TOO_MANY_FRAGMENTS);
        }
        self.payload.extend_from_slice(payload);
        if self.kind == Kind::Text {
            // RFC 6455 section 8.1: wrong text fails the connection, and as early as it is found; a character may be
            // cut by the end of a fragment.
            self.valid += match str::from_utf8(&self.payload[self.valid..]) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(NOT_UTF8),
            };
        }
        Ok(())
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Assembled(bytes) => bytes,
        }
    }
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload<'_> {}

impl From<HeaderError> for Violation {
    fn from(error: HeaderError) -> Self {
        protocol_error(match error {
            HeaderError::ReservedBit => "reserved bit set",
            HeaderError::ReservedOpcode => "reserved opcode",
            HeaderError::FragmentedControl => "fragmented control frame",
            HeaderError::LongControl => "control frame too long",
            HeaderError::LengthNotMinimal => "length not minimal",
            HeaderError::LengthOutOfRange => "length out of range",
        })
    }
}

/// The code in a Close frame (RFC 6455 section 5.5.1).
fn read_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload.split_first_chunk().ok_or(BAD_CLOSE)?;
    let code = u16::from_be_bytes(*code);
    if !close_code::is_sendable(code) {
        return Err(BAD_CLOSE);
    }
    str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
    Ok(Some(code))
}

fn write_control(opcode: Opcode, payload: &[u8], out: &mut BytesMut) {
    let len = payload.len().min(usize::from(Header::CONTROL_PAYLOAD_MAX));
    debug_assert_eq!(len, payload.len(), "a control frame carries 125 bytes at most");
    write_frame(opcode, &payload[..len], out);
}

fn write_frame(opcode: Opcode, payload: &[u8], out: &mut BytesMut) {
    write_header(opcode, payload.len(), out);
    out.put_slice(payload);
}

fn write_header(opcode: Opcode, payload_len: usize, out: &mut BytesMut) {
    out.reserve(Header::BYTES_MAX + payload_len);
    let header = Header {
        fin: true,
        opcode,
        mask: None,
        payload_len: payload_len as u64,
    };
    header.write(out);
}

const fn protocol_error(reason: &'static str) -> Violation {
    Violation {
        code: close_code::PROTOCOL_ERROR,
        reason,
    }
}

/// Fragments of one message at most.
const FRAGMENTS_MAX: usize = 1024;
const CODE_BYTES: usize = 2;
const REASON_BYTES_MAX: usize = Header::CONTROL_PAYLOAD_MAX as usize - CODE_BYTES;

const NOT_MASKED: Violation = protocol_error("frame not masked");
const NOTHING_TO_CONTINUE: Violation = protocol_error("nothing to continue");
const NOT_FINISHED: Violation = protocol_error("message not finished");
const BAD_CLOSE: Violation = protocol_error("bad close frame");
const NOT_UTF8: Violation = Violation {
    code: close_code::INVALID_PAYLOAD,
    reason: "text is not UTF-8",
};
const TOO_LARGE: Violation = Violation {
    code: close_code::MESSAGE_TOO_BIG,
    reason: "message too big",
};
const TOO_MANY_FRAGMENTS: Violation = Violation {
    code: close_code::MESSAGE_TOO_BIG,
    reason: "too many fragments",
};

#[cfg(test)]
mod tests;
