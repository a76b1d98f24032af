//! Is this a ChannelData message, for which channel, and where is its payload? (RFC 8656 section 12.4)

use core::ops::{Range, RangeInclusive};

/// Length of the header in bytes: channel number and payload length, 16 bits each.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Channel Number        |            Length             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
pub const HEADER_BYTES: usize = 4;

/// The channel numbers that may be bound.
// RFC 8656 section 12: "0x4000 through 0x4FFF: These values are the allowed channel numbers".
pub const NUMBERS: RangeInclusive<u16> = 0x4000..=0x4FFF;

/// First bytes of ChannelData messages.
// RFC 8656 section 12, table 3 (from RFC 7983): [64..79] is "TURN Channel".
pub const FIRST_BYTES: RangeInclusive<u8> = 64..=79;

/// A ChannelData message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelData {
    /// Channel number, within [`NUMBERS`].
    pub number: u16,
    /// Where the application data is; it may be empty.
    pub payload: Range<usize>,
}

impl ChannelData {
    /// Reads a message; `None` when it is none, or shorter than it says. Bytes behind it are padding.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (number, len) = fields(bytes)?;
        // RFC 8656 section 12.6: a message in the reserved range, or too short for its claimed length, "is silently
        // discarded".
        let end = HEADER_BYTES + len;
        (NUMBERS.contains(&number) && bytes.len() >= end).then_some(Self {
            number,
            payload: HEADER_BYTES..end,
        })
    }
}

/// The channel number and the length of the payload that the first four bytes claim.
pub fn fields(bytes: &[u8]) -> Option<(u16, usize)> {
    let [a, b, c, d] = *bytes.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), usize::from(u16::from_be_bytes([c, d]))))
}

/// The four bytes in front of a payload of `len` bytes.
pub fn header(number: u16, len: u16) -> [u8; HEADER_BYTES] {
    let ([a, b], [c, d]) = (number.to_be_bytes(), len.to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_data_is_read() {
        let check = |bytes: &[u8], expected: Option<(u16, Range<usize>)>| {
            let expected = expected.map(|(number, payload)| ChannelData { number, payload });
            assert_eq!(ChannelData::parse(bytes), expected, "{bytes:02x?}");
        };
        check(b"\x40\x00\x00\x03abc", Some((0x4000, 4..7)));
        check(b"\x4f\xff\x00\x03abc", Some((0x4fff, 4..7)));
        check(b"\x40\x00\x00\x00", Some((0x4000, 4..4)));
        // Padding, allowed in UDP.
        check(b"\x40\x00\x00\x03abc\0", Some((0x4000, 4..7)));
        // Longer than the bytes that are there.
        check(b"\x40\x00\x00\x04abc", None);
        check(b"\x40\x00\xff\xffabc", None);
        check(b"\x40\x00\x00", None);
        check(b"", None);
        // Never and reserved numbers.
        check(b"\x3f\xff\x00\x00", None);
        check(b"\x50\x00\x00\x00", None);
        check(b"\xff\xff\x00\x00", None);
    }

    #[test]
    fn a_header_reads_back() {
        for (number, len) in [(0x4000, 0), (0x4abc, 1200), (0x4fff, u16::MAX)] {
            assert_eq!(fields(&header(number, len)), Some((number, usize::from(len))));
        }
    }
}
