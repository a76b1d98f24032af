//! Are frame headers and masks what RFC 6455 says they are?

use proptest::{array, collection, option, prelude::*};

use super::*;

/// FIN, opcode, masked or not, length of payload and header.
type Row = (bool, Opcode, bool, u64, usize);

#[track_caller]
fn check(bytes: &[u8], expected: Result<Option<Row>, HeaderError>) {
    let found = Header::read(bytes).map(|found| {
        found.map(|(header, len)| {
            (
                header.fin,
                header.opcode,
                header.mask.is_some(),
                header.payload_len,
                len,
            )
        })
    });
    assert_eq!(found, expected, "{bytes:02x?}");
}

#[test]
fn headers_of_the_examples() {
    // RFC 6455 section 5.7.
    check(&[0x81, 0x05, 0x48], Ok(Some((true, Opcode::Text, false, 5, 2))));
    check(
        &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f],
        Ok(Some((true, Opcode::Text, true, 5, 6))),
    );
    check(&[0x01, 0x03, 0x48], Ok(Some((false, Opcode::Text, false, 3, 2))));
    check(&[0x80, 0x02, 0x6c], Ok(Some((true, Opcode::Continuation, false, 2, 2))));
    check(&[0x89, 0x05, 0x48], Ok(Some((true, Opcode::Ping, false, 5, 2))));
    check(
        &[0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d],
        Ok(Some((true, Opcode::Pong, true, 5, 6))),
    );
    check(
        &[0x82, 0x7e, 0x01, 0x00],
        Ok(Some((true, Opcode::Binary, false, 256, 4))),
    );
    check(
        &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0],
        Ok(Some((true, Opcode::Binary, false, 65_536, 10))),
    );
}

#[test]
fn headers_that_nobody_may_send() {
    for rsv in [0x40, 0x20, 0x10, 0x70] {
        check(&[0x81 | rsv], Err(HeaderError::ReservedBit));
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        check(&[0x80 | opcode], Err(HeaderError::ReservedOpcode));
    }
    for control in [8, 9, 0xa] {
        check(&[control], Err(HeaderError::FragmentedControl));
        check(&[0x80 | control, 0xfe], Err(HeaderError::LongControl));
        check(&[0x80 | control, 0x7f], Err(HeaderError::LongControl));
    }
    check(&[0x82, 0x7e, 0, 125], Err(HeaderError::LengthNotMinimal));
    check(
        &[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        Err(HeaderError::LengthNotMinimal),
    );
    check(
        &[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0],
        Err(HeaderError::LengthOutOfRange),
    );
}

#[test]
fn the_key_of_the_example() {
    // RFC 6455 section 1.3.
    assert_eq!(
        &accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
        b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

#[test]
fn a_key_is_sixteen_bytes() {
    for (key, expected) in [
        ("dGhlIHNhbXBsZSBub25jZQ==", true),
        ("AAAAAAAAAAAAAAAAAAAAAA==", true),
        ("dGhlIHNhbXBsZSBub25jZQ", false),
        ("dGhlIHNhbXBsZSBub25jZTE=", false),
        ("dGhlIHNhbXBsZSBub25jZTEy", false),
        ("dGhlIHNhbXBsZSBub25jZ!==", false),
        ("dGhlIHNhbXBsZSBub25jZR==", false),
        ("", false),
    ] {
        assert_eq!(is_key(key.as_bytes()), expected, "{key}");
    }
}

proptest! {
    #[test]
    fn a_header_survives(fin: bool, kind in 0..6_usize, key in option::of(array::uniform4(any::<u8>())), len in 0_u64..1 << 63, bits in 0..63_u32) {
        let opcode = [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong][kind];
        let payload_len = if opcode.is_control() { len % 126 } else { len >> bits };
        let header = Header { fin: fin || opcode.is_control(), opcode, mask: key, payload_len };
        let mut bytes = BytesMut::new();
        header.write(&mut bytes);
        prop_assert!((Header::BYTES_MIN..=Header::BYTES_MAX).contains(&bytes.len()));
        prop_assert_eq!(Header::read(&bytes), Ok(Some((header, bytes.len()))));
        for cut in 0..bytes.len() {
            prop_assert_eq!(Header::read(&bytes[..cut]), Ok(None));
        }
    }

    #[test]
    fn masking_is_byte_by_byte(key in array::uniform4(any::<u8>()), payload in collection::vec(any::<u8>(), 0..100)) {
        let mut masked = payload.clone();
        mask(key, &mut masked);
        let slow: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        prop_assert_eq!(masked, slow);
    }
}
