//! Where does a frame of somebody else's WebSocket end? A tunnel is opaque but for this, so that a goodbye of ours never
//! lands in the middle of a frame.

/// Follows the frames of one direction of a WebSocket without keeping any of it (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Boundary {
    /// Bytes of the frame header read so far.
    header: [u8; 10],
    header_len: u8,
    /// Bytes of masking key and payload that still belong to the frame.
    left: u64,
}

impl Boundary {
    /// Takes the next bytes of the stream into account.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= len as u64;
                bytes = &bytes[len..];
                continue;
            }
            self.header[usize::from(self.header_len)] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if let Some(left) = self.frame_rest() {
                self.left = left;
                self.header_len = 0;
            }
        }
    }

    /// Whether a frame of ours may stand here.
    pub const fn is_between_frames(&self) -> bool {
        self.left == 0 && self.header_len == 0
    }

    /// What follows the header, once enough of it is there: masking key and payload.
    fn frame_rest(&self) -> Option<u64> {
        let header = &self.header[..usize::from(self.header_len)];
        let second = *header.get(1)?;
        let key = if second & 0x80 == 0 { 0 } else { 4 };
        let payload = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?)),
            127 => u64::from_be_bytes(header.get(2..10)?.try_into().ok()?),
            len => u64::from(len),
        };
        Some(payload.saturating_add(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of each form of length, masked and not, with where each ends.
    fn frames() -> (Vec<u8>, Vec<usize>) {
        let (mut stream, mut ends) = (Vec::new(), vec![0]);
        for (header, rest) in [
            (vec![0x81, 5], 5),
            (vec![0x82, 0x80], 4),
            (vec![0x89, 0], 0),
            (vec![0x82, 126, 1, 0], 256),
            (vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 65_536 + 4),
        ] {
            stream.extend_from_slice(&header);
            stream.resize(stream.len() + rest, 0x81);
            ends.push(stream.len());
        }
        (stream, ends)
    }

    #[test]
    fn boundaries_are_found_whatever_the_pieces() {
        let (stream, ends) = frames();
        for piece in [1, 3, 1000, stream.len()] {
            let mut boundary = Boundary::default();
            let mut at = 0;
            for bytes in stream.chunks(piece) {
                boundary.pass(bytes);
                at += bytes.len();
                assert_eq!(
                    boundary.is_between_frames(),
                    ends.contains(&at),
                    "at {at} in pieces of {piece}"
                );
            }
        }
    }
}
