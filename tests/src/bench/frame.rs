//! What does a WebSocket frame look like (RFC 6455 section 5.2)? Only whole messages of less than 64 KiB.

use std::ops::Range;

/// Text, which both ends send.
pub(super) const TEXT: u8 = 1;
/// Ping.
pub(super) const PING: u8 = 9;
/// Pong.
pub(super) const PONG: u8 = 10;

/// The mask of all our clients; a server cannot know that it is always the same.
const MASK: [u8; 4] = [0x5a, 0x3c, 0x69, 0x0f];

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Masks.
    Client,
    /// Does not.
    Server,
}

/// A frame at the front of what came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What it is.
    pub(super) opcode: u8,
    /// Where its payload is, which is unmasked now.
    pub(super) payload: Range<usize>,
}

/// Writes a frame.
pub(super) fn write(out: &mut Vec<u8>, side: Side, opcode: u8, payload: &[u8]) {
    let masked = if side == Side::Client { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => out.push(masked | length as u8),
        length => {
            out.push(masked | 126);
            out.extend_from_slice(&u16::try_from(length).expect("a short message").to_be_bytes());
        }
    }
    if side == Side::Server {
        out.extend_from_slice(payload);
        return;
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Reads the frame at the front where it is whole; the caller removes it then, to the end of its payload.
pub(super) fn read(bytes: &mut [u8]) -> Option<Frame> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, mut start) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        length => (usize::from(length), 2),
    };
    assert!(
        first & 0x80 != 0 && second & 0x7f < 127,
        "a frame that no server here sends"
    );
    let mask: Option<[u8; 4]> = match second & 0x80 {
        0 => None,
        _ => {
            start += 4;
            bytes.get(start - 4..start)?.try_into().ok()
        }
    };
    let payload = bytes.get_mut(start..start + length)?;
    if let Some(mask) = mask {
        payload
            .iter_mut()
            .zip(mask.iter().cycle())
            .for_each(|(byte, mask)| *byte ^= mask);
    }
    Some(Frame {
        opcode: first & 0x0f,
        payload: start..start + length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 125, 126, 2000] {
            for side in [Side::Client, Side::Server] {
                let (payload, mut bytes) = (vec![7; length], Vec::new());
                write(&mut bytes, side, TEXT, &payload);
                let end = bytes.len();
                assert_eq!(read(&mut bytes[..end - 1]), None);
                let frame = read(&mut bytes).expect("a whole frame");
                assert_eq!((frame.opcode, frame.payload.end), (TEXT, end));
                assert_eq!(bytes[frame.payload], payload);
            }
        }
    }
}
