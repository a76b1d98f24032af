//! Are STUN messages read and written as RFC 8489 says, byte for byte?

use core::net::SocketAddr;

use proptest::prelude::*;

use super::*;

/// RFC 5769 section 2.1.
const SAMPLE_REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10STUN test client\
    \x00\x24\x00\x04\x6e\x00\x01\xff\
    \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
    \x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
    \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

/// RFC 5769 section 2.2.
const SAMPLE_IPV4_RESPONSE: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector\x20\
    \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
    \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
    \x80\x28\x00\x04\xc0\x7d\x4c\x96";

/// RFC 5769 section 2.3.
const SAMPLE_IPV6_RESPONSE: &[u8] = b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector\x20\
    \x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
    \x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
    \x80\x28\x00\x04\xc8\xfb\x0b\x4c";

/// RFC 5769 section 2.4.
const SAMPLE_LONG_TERM_REQUEST: &[u8] =
    b"\x00\x01\x00\x60\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
    \x00\x06\x00\x12\xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\xe3\x82\xaf\xe3\x82\xb9\x00\x00\
    \x00\x15\x00\x1cf//499k954d6OL34oL9FSTvy64sA\
    \x00\x14\x00\x0bexample.org\x00\
    \x00\x08\x00\x14\xf6\x70\x24\x65\x6d\xd6\x4a\x3e\x02\xb8\xe0\x71\x2e\x85\xc9\xa2\x8c\xa8\x96\x66";

/// RFC 8489 appendix B.1 as erratum 6268 corrects it: the printed message has a wrong length in its header, and lacks the
/// PASSWORD-ALGORITHM that its key is made by.
const SAMPLE_SHA256_REQUEST: &[u8] =
    b"\x00\x01\x00\x90\x21\x12\xa4\x42\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e\
    \x00\x1e\x00\x20\x4a\x3c\xf3\x8f\xef\x69\x92\xbd\xa9\x52\xc6\x78\x04\x17\xda\x0f\
    \x24\x81\x94\x15\x56\x9e\x60\xb2\x05\xc4\x6e\x41\x40\x7f\x17\x04\
    \x00\x15\x00\x29obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA\x00\x00\x00\
    \x00\x14\x00\x0bexample.org\x00\
    \x00\x1d\x00\x04\x00\x02\x00\x00\
    \x00\x1c\x00\x20\xb5\xc7\xbf\x00\x5b\x6c\x52\xa2\x1c\x51\xc5\xe8\x92\xf8\x19\x24\
    \x13\x62\x96\xcb\x92\x7c\x43\x14\x93\x09\x27\x8c\xc6\x51\x8e\x65";

const USERNAME: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";

#[test]
fn rfc5769_short_term_messages_are_read_and_verified() {
    let key = Key::short_term(b"VOkJxbRl1RmTxUk/WvJxBt");
    let check = |bytes: &[u8], class, mapped: Option<&str>| {
        let message = Message::parse(bytes).expect("a sample message");
        let header = message.header();
        assert_eq!((header.class, header.method), (class, Method::BINDING));
        assert!(message.has_fingerprint());
        assert_eq!(message.integrity(), Some(Integrity::Sha1));
        assert!(message.is_signed_by(&key));
        assert!(!message.is_signed_by(&Key::short_term(b"VOkJxbRl1RmTxUk/WvJxBT")));
        let found = message
            .attributes()
            .find(|attribute| attribute.kind == Kind::XOR_MAPPED_ADDRESS)
            .map(|attribute| read_address(attribute.value, header.transaction).expect("an address"));
        assert_eq!(
            found,
            mapped.map(|text| text.parse::<SocketAddr>().expect("an address"))
        );
    };
    check(SAMPLE_REQUEST, Class::Request, None);
    check(SAMPLE_IPV4_RESPONSE, Class::Success, Some("192.0.2.1:32853"));
    check(
        SAMPLE_IPV6_RESPONSE,
        Class::Success,
        Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    );
}

#[test]
fn rfc5769_long_term_request_is_verified() {
    let message = Message::parse(SAMPLE_LONG_TERM_REQUEST).expect("a sample message");
    assert!(message.is_signed_by(&Key::md5(USERNAME.as_bytes(), b"example.org", b"TheMatrIX")));
    assert!(!message.is_signed_by(&Key::md5(USERNAME.as_bytes(), b"example.org", b"TheMatrix")));
    assert!(!message.has_fingerprint());
}

#[test]
fn rfc8489_sha256_request_is_verified() {
    let message = Message::parse(SAMPLE_SHA256_REQUEST).expect("a sample message");
    assert_eq!(message.integrity(), Some(Integrity::Sha256));
    assert!(message.is_signed_by(&Key::sha256(USERNAME.as_bytes(), b"example.org", b"TheMatrIX")));
    assert!(!message.is_signed_by(&Key::md5(USERNAME.as_bytes(), b"example.org", b"TheMatrIX")));
    let hash = message.attributes().find(|attribute| attribute.kind == Kind::USERHASH);
    assert_eq!(
        hash.map(|attribute| attribute.value.to_vec()),
        Some(userhash(USERNAME.as_bytes(), b"example.org").to_vec())
    );
}

#[test]
fn rfc8489_the_key_example() {
    // RFC 8489 section 9.2.2: "the resulting hash being 0x8493fbc53ba582fb4c044c456bdc40eb".
    let key = Key::md5(b"user", b"realm", b"pass");
    let expected = 0x8493_fbc5_3ba5_82fb_4c04_4c45_6bdc_40eb_u128.to_be_bytes();
    assert!(key == Key::short_term(&expected));
}

#[test]
fn the_writer_reproduces_the_samples() {
    let (user, realm, password) = (USERNAME.as_bytes(), b"example.org", b"TheMatrIX");
    for (sample, integrity, key) in [
        (
            SAMPLE_LONG_TERM_REQUEST,
            Integrity::Sha1,
            Key::md5(user, realm, password),
        ),
        (
            SAMPLE_SHA256_REQUEST,
            Integrity::Sha256,
            Key::sha256(user, realm, password),
        ),
    ] {
        let message = Message::parse(sample).expect("a sample message");
        // What stands in the buffer before is no part of the message.
        let mut out = b"before".to_vec();
        let mut writer = Writer::new(&mut out, message.header());
        for attribute in message.attributes() {
            writer.attribute(attribute.kind, attribute.value);
        }
        writer.sign(integrity, &key);
        let range = writer.finish();
        assert_eq!(out[range], *sample);
    }
}

#[test]
fn damage_is_noticed() {
    let mut bytes = SAMPLE_REQUEST.to_vec();
    bytes[30] ^= 1;
    assert_eq!(Message::parse(&bytes).err(), Some(ParseError::NotStun));
    // Without the fingerprint the integrity notices.
    let mut bytes = SAMPLE_REQUEST[..SAMPLE_REQUEST.len() - 8].to_vec();
    bytes[3] -= 8;
    let key = Key::short_term(b"VOkJxbRl1RmTxUk/WvJxBt");
    assert!(Message::parse(&bytes).expect("a message").is_signed_by(&key));
    bytes[30] ^= 1;
    assert!(!Message::parse(&bytes).expect("a message").is_signed_by(&key));
}

#[test]
fn header_rules() {
    let check = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = SAMPLE_LONG_TERM_REQUEST.to_vec();
        change(&mut bytes);
        assert_eq!(Message::parse(&bytes).err(), Some(ParseError::NotStun), "{bytes:02x?}");
    };
    check(&|bytes| bytes[0] |= 0x80);
    check(&|bytes| bytes[0] |= 0x40);
    check(&|bytes| bytes[4] ^= 1);
    check(&|bytes| bytes[3] += 4);
    check(&|bytes| bytes[3] -= 1);
    // Two messages in one datagram.
    check(&|bytes| bytes.extend_from_within(..));
    check(&|bytes| bytes.truncate(19));
    check(&Vec::clear);
}

/// A request with these attributes, as they are.
fn raw(attributes: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x00\x03\x00\x00\x21\x12\xa4\x42transaction!".to_vec();
    bytes[3] = attributes.len() as u8;
    bytes.extend_from_slice(attributes);
    bytes
}

#[test]
fn attributes_that_do_not_fit_are_an_error() {
    let check = |attributes: &[u8], good: bool| {
        let bytes = raw(attributes);
        let expected = Header {
            class: Class::Request,
            method: Method::ALLOCATE,
            transaction: TransactionId(*b"transaction!"),
        };
        match Message::parse(&bytes) {
            Ok(message) => assert!(good && message.header() == expected, "{bytes:02x?}"),
            Err(error) => assert!(!good && error == ParseError::Attributes(expected), "{bytes:02x?}"),
        }
    };
    check(b"", true);
    check(b"\x00\x13\x00\x00", true);
    check(b"\x00\x13\x00\x01a\0\0\0", true);
    check(b"\x00\x13\x00\x04abc\0", true);
    check(b"\x00\x13\x00\x05abc\0", false);
    check(b"\x00\x13\xff\xffabc\0", false);
    // Integrity and fingerprint of a wrong length.
    check(b"\x00\x08\x00\x04abcd", false);
    check(b"\x00\x1c\x00\x0cabcdefghijkl", false);
    check(b"\x80\x28\x00\x00", false);
}

#[test]
fn only_what_stands_before_the_integrity_counts() {
    let sha1 = b"\x00\x08\x00\x14aaaaaaaaaaaaaaaaaaaa".as_slice();
    let sha256 = b"\x00\x1c\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".as_slice();
    let (one, two) = (b"\x00\x0d\x00\x04aaaa".as_slice(), b"\x00\x13\x00\x04bbbb".as_slice());
    let check = |parts: &[&[u8]], expected: &[Kind], integrity| {
        let bytes = raw(&parts.concat());
        let message = Message::parse(&bytes).expect("a message");
        let kinds: Vec<_> = message.attributes().map(|attribute| attribute.kind).collect();
        assert_eq!((kinds.as_slice(), message.integrity()), (expected, integrity));
    };
    check(&[one, two], &[Kind::LIFETIME, Kind::DATA], None);
    check(&[one, sha1, two], &[Kind::LIFETIME], Some(Integrity::Sha1));
    check(&[one, sha256, two], &[Kind::LIFETIME], Some(Integrity::Sha256));
    check(&[one, sha1, sha256, two], &[Kind::LIFETIME], Some(Integrity::Sha256));
    check(&[one, sha1, two, sha256], &[Kind::LIFETIME], Some(Integrity::Sha256));
    check(&[one, sha1, sha1, two], &[Kind::LIFETIME], Some(Integrity::Sha1));
    // MESSAGE-INTEGRITY behind MESSAGE-INTEGRITY-SHA256 is one of those to ignore.
    check(&[one, sha256, sha1], &[Kind::LIFETIME], Some(Integrity::Sha256));
}

#[test]
fn nothing_may_follow_the_fingerprint() {
    let mut with = Vec::new();
    let header = Message::parse(SAMPLE_REQUEST).expect("a sample message").header();
    let mut writer = Writer::new(&mut with, header);
    writer.fingerprint();
    writer.u32(Kind::LIFETIME, 1);
    let _ = writer.finish();
    assert_eq!(Message::parse(&with).err(), Some(ParseError::Attributes(header)));
}

#[test]
fn values_are_read() {
    assert_eq!(read_u32(b"\0\0\x0e\x10"), Some(3600));
    assert_eq!(read_u32(b"\0\0\x0e"), None);
    assert_eq!(read_u16(b"\x40\x01\xff\xff"), Some(0x4001));
    assert_eq!(read_u16(b"\x40\x01"), None);
    assert_eq!(read_family(b"\x01\xff\xff\xff"), Some(Ok(Family::V4)));
    assert_eq!(read_family(b"\x02\0\0\0"), Some(Ok(Family::V6)));
    assert_eq!(read_family(b"\x03\0\0\0"), Some(Err(3)));
    assert_eq!(read_family(b"\x01"), None);
    let transaction = TransactionId([0; 12]);
    assert_eq!(read_address(b"\0\x01\0\0\0\0\0", transaction), None);
    assert_eq!(read_address(b"\0\x02\0\0\0\0\0\0", transaction), None);
    assert_eq!(read_address(b"\0\x03\0\0\0\0\0\0", transaction), None);
    assert_eq!(read_address(b"", transaction), None);
}

fn header() -> impl Strategy<Value = Header> {
    let class = prop_oneof![
        Just(Class::Request),
        Just(Class::Indication),
        Just(Class::Success),
        Just(Class::Error)
    ];
    (class, 0..0x1000_u16, any::<[u8; 12]>()).prop_map(|(class, method, transaction)| Header {
        class,
        method: Method(method),
        transaction: TransactionId(transaction),
    })
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn any_attribute_bytes_are_parsed_without_panic(body in prop::collection::vec(any::<[u8; 4]>(), 0..60)) {
        if let Ok(message) = Message::parse(&raw(&body.concat())) {
            let _ = message.is_signed_by(&Key::md5(b"user", b"realm", b"pass"));
            prop_assert!(message.attributes().count() <= body.len());
        }
    }

    #[test]
    fn a_written_message_reads_back(
        header in header(),
        values in prop::collection::vec((0x8100..0x9000_u16, prop::collection::vec(any::<u8>(), 0..40)), 0..10),
        address in any::<SocketAddr>(),
        sha256 in any::<bool>(),
    ) {
        let key = Key::sha256(b"user", b"realm", b"pass");
        let integrity = if sha256 { Integrity::Sha256 } else { Integrity::Sha1 };
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, header);
        for (kind, value) in &values {
            writer.attribute(Kind(*kind), value);
        }
        writer.address(Kind::XOR_PEER_ADDRESS, address);
        writer.sign(integrity, &key);
        writer.fingerprint();
        let range = writer.finish();
        prop_assert_eq!(&range, &(0..out.len()));

        let message = Message::parse(&out).expect("what was written");
        prop_assert_eq!(message.header(), header);
        prop_assert!(message.has_fingerprint() && message.is_signed_by(&key));
        let read: Vec<_> = message.attributes().collect();
        for ((kind, value), attribute) in values.iter().zip(&read) {
            prop_assert_eq!((Kind(*kind), value.as_slice()), (attribute.kind, attribute.value));
            prop_assert_eq!(attribute.value, &out[attribute.range.clone()]);
            // CVE-2020-4067: padding must not carry old memory to the outside.
            let padding = &out[attribute.range.end..attribute.range.end.next_multiple_of(4)];
            prop_assert!(padding.iter().all(|byte| *byte == 0));
        }
        let last = read.last().expect("the address");
        let found = read_address(last.value, header.transaction).expect("an address");
        prop_assert_eq!((found.ip(), found.port()), (address.ip(), address.port()));
    }
}
