//! What do the frames of a WebSocket say (RFC 6455 section 5)? For both sides, without extensions.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha1::{Digest as _, Sha1};

/// Part of a message that goes on.
pub const CONTINUATION: u8 = 0;
/// Text.
pub const TEXT: u8 = 1;
/// The goodbye.
pub const CLOSE: u8 = 8;
/// A question whether somebody is there.
pub const PING: u8 = 9;
/// The answer.
pub const PONG: u8 = 10;

/// Frames to messages.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    message: Vec<u8>,
}

impl Reader {
    /// More has come.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message or control frame: its opcode and its payload.
    pub fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let (first, payload) = self.frame()?;
            let opcode = first & 0xf;
            if opcode >= CLOSE {
                return Some((opcode, payload));
            }
            self.message.extend_from_slice(&payload);
            if first & 0x80 != 0 {
                return Some((TEXT, std::mem::take(&mut self.message)));
            }
        }
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second] = *self.bytes.first_chunk()?;
        let (length, mut start) = match second & 0x7f {
            126 => (
                usize::from(u16::from_be_bytes([*self.bytes.get(2)?, *self.bytes.get(3)?])),
                4,
            ),
            127 => {
                let bytes: [u8; 8] = self.bytes.get(2..10)?.try_into().ok()?;
                (usize::try_from(u64::from_be_bytes(bytes)).ok()?, 10)
            }
            short => (usize::from(short), 2),
        };
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            mask = self.bytes.get(start..start + 4)?.try_into().ok()?;
            start += 4;
        }
        let payload = self.bytes.get(start..start + length)?;
        let payload = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        self.bytes.drain(..start + length);
        Some((first, payload))
    }
}

/// One frame; a client masks.
pub fn frame(opcode: u8, is_last: bool, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = vec![opcode | if is_last { 0x80 } else { 0 }];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..126 => out.push(masked | length as u8),
        length @ 126..0x1_0000 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// What a server answers to a key (RFC 6455 section 4.2.2).
pub fn accept(key: &str) -> String {
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    BASE64_STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        // RFC 6455 section 1.3.
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let (mut reader, half) = (Reader::default(), length / 2);
            reader.add(&frame(TEXT, false, &payload[..half], Some([1, 2, 3, 4])));
            reader.add(&frame(PING, true, b"?", None));
            reader.add(&frame(CONTINUATION, true, &payload[half..], Some([9, 8, 7, 6])));
            assert_eq!(reader.message(), Some((PING, b"?".to_vec())));
            assert_eq!(reader.message(), Some((TEXT, payload)));
            assert_eq!(reader.message(), None);
        }
    }
}
