//! Where does a message end in a TCP or TLS stream? (RFC 8489 section 6.2.2, RFC 8656 section 12.5)

use core::ops::Range;

use bytes::BytesMut;

use crate::{
    action::Prefix,
    wire::{channel, stun},
};

/// Cuts a client's stream into messages. It holds no bytes: the caller keeps what is left over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stream {
    /// Whether a STUN message has been seen.
    begun: bool,
}

/// One whole message at the front of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The message, for [`Server::client`](super::Server::client).
    pub message: Range<usize>,
    /// How many bytes to drop with it: the message and its padding.
    pub consumed: usize,
}

/// The stream carries something else than TURN, and where a message begins is lost: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramingError;

impl Stream {
    /// A stream of which nothing has been seen.
    pub const fn new() -> Self {
        Self { begun: false }
    }

    /// The first message of `bytes`; `None` when more bytes are needed, of which a message has 65,552 at the most.
    ///
    /// # Errors
    /// As soon as the bytes can no longer become a message.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Unit>, FramingError> {
        let Some(first) = bytes.first() else {
            return Ok(None);
        };
        // Who has no allocation has no channel; and what begins with the first bytes of ChannelData is `GET ` and the
        // like.
        let may_be_channel = self.begun && channel::FIRST_BYTES.contains(first);
        let (len, consumed) = if stun::FIRST_BYTES.contains(first) {
            // The cookie stands behind type and length: four bytes more, and an impostor is known.
            let cookie = bytes.get(4..).unwrap_or_default();
            let seen = cookie.len().min(stun::MAGIC_COOKIE.len());
            if cookie[..seen] != stun::MAGIC_COOKIE[..seen] {
                return Err(FramingError);
            }
            if bytes.len() < stun::HEADER_BYTES {
                return Ok(None);
            }
            let (_, len) = stun::Header::read(bytes).ok_or(FramingError)?;
            (len, len)
        } else if may_be_channel {
            let Some((_, len)) = channel::fields(bytes) else {
                return Ok(None);
            };
            // RFC 8656 section 12.5: "the actual size of a ChannelData message (including padding) is (4 + Length)
            // rounded up to the nearest multiple of 4".
            let len = channel::HEADER_BYTES + len;
            (len, len.next_multiple_of(4))
        } else {
            return Err(FramingError);
        };
        if bytes.len() < consumed {
            return Ok(None);
        }
        self.begun = true;
        Ok(Some(Unit {
            message: 0..len,
            consumed,
        }))
    }
}

/// Appends a message to what goes out by a stream, with zeros up to a multiple of four bytes. STUN messages have such a
/// length anyway.
pub fn write_to_stream(prefix: &Prefix, payload: &[u8], out: &mut BytesMut) {
    let len = prefix.len() + payload.len();
    out.extend_from_slice(prefix.as_slice());
    out.extend_from_slice(payload);
    out.extend_from_slice(&[0; 3][..len.next_multiple_of(4) - len]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_unit_is_cut() {
        let check = |bytes: &[u8], expected: Result<Option<(usize, usize)>, FramingError>| {
            let expected = expected.map(|unit| {
                unit.map(|(len, consumed)| Unit {
                    message: 0..len,
                    consumed,
                })
            });
            assert_eq!(Stream { begun: true }.next(bytes), expected, "{bytes:02x?}");
        };
        check(b"", Ok(None));
        check(b"\x40", Ok(None));
        check(b"\x40\0\0\x03ab", Ok(None));
        // The padding belongs to the unit: it has to be there too.
        check(b"\x40\0\0\x03abc", Ok(None));
        check(b"\x40\0\0\x03abc\0", Ok(Some((7, 8))));
        check(b"\x40\0\0\x00\x40\0\0\0", Ok(Some((4, 4))));
        check(b"\x4f\xff\0\x01abcdefgh", Ok(Some((5, 8))));
        let binding = b"\0\x01\0\0\x21\x12\xa4\x42transaction!";
        for len in 0..20 {
            check(&binding[..len], Ok(None));
        }
        check(binding, Ok(Some((20, 20))));
        check(&[binding.as_slice(), b"more"].concat(), Ok(Some((20, 20))));
        // TLS, RTP, a reserved channel number, a wrong cookie, an odd length.
        check(b"\x16\x03\x01", Err(FramingError));
        check(b"\x80", Err(FramingError));
        check(b"\x50\0\0\0", Err(FramingError));
        check(b"\0\x01\0\0\x21\x13", Err(FramingError));
        check(b"\0\x01\0\x03\x21\x12\xa4\x42transaction!abc\0", Err(FramingError));
    }

    #[test]
    fn a_stream_begins_with_stun() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"HEAD",
            b"DELETE",
            b"OPTIONS",
            b"CONNECT",
            b"\x40\0\0\0",
        ] {
            assert_eq!(Stream::new().next(bytes), Err(FramingError), "{bytes:02x?}");
        }
        let mut stream = Stream::new();
        assert!(
            stream
                .next(b"\0\x01\0\0\x21\x12\xa4\x42transaction!")
                .is_ok_and(|unit| unit.is_some())
        );
        assert!(stream.next(b"\x40\0\0\0").is_ok_and(|unit| unit.is_some()));
    }

    /// All units of a stream that arrives in pieces of these sizes.
    fn cut(bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
        let (mut stream, mut units, mut held, mut rest) = (Stream { begun: true }, Vec::new(), Vec::new(), bytes);
        for size in sizes.iter().copied().chain([usize::MAX]) {
            let (arrived, later) = rest.split_at(size.min(rest.len()));
            held.extend_from_slice(arrived);
            rest = later;
            while let Some(unit) = stream.next(&held).expect("a good stream") {
                units.push(held[unit.message].to_vec());
                held.drain(..unit.consumed);
            }
        }
        units
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_units(
            messages in prop::collection::vec((0x4000..=0x4fff_u16, prop::collection::vec(any::<u8>(), 0..50)), 0..12),
            sizes in prop::collection::vec(0_usize..40, 0..40),
        ) {
            let (mut stream, mut expected) = (BytesMut::new(), Vec::new());
            for (number, payload) in &messages {
                let prefix = Prefix::four(channel::header(*number, payload.len() as u16));
                let before = stream.len();
                write_to_stream(&prefix, payload, &mut stream);
                let end = before + 4 + payload.len();
                expected.push(stream[before..end].to_vec());
                // CVE-2020-4067: every byte of padding is zero.
                prop_assert!(stream.len() % 4 == 0 && stream[end..].iter().all(|byte| *byte == 0));
                // A STUN message between them, whose length is a multiple of four.
                let header = stun::Header {
                    class: stun::Class::Indication,
                    method: stun::Method::SEND,
                    transaction: stun::TransactionId([7; 12]),
                };
                let mut made = Vec::new();
                let mut writer = stun::Writer::new(&mut made, header);
                writer.attribute(stun::Kind::DATA, payload);
                let _ = writer.finish();
                write_to_stream(&Prefix::NONE, &made, &mut stream);
                expected.push(made);
            }
            prop_assert_eq!(cut(&stream, &sizes), expected);
        }

        #[test]
        fn any_bytes_are_cut_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(Some(unit)) = (Stream { begun: true }).next(&bytes) {
                prop_assert!(unit.message.end <= unit.consumed && unit.consumed <= bytes.len());
            }
        }
    }
}
