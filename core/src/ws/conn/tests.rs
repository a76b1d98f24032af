//! The case families of the Autobahn test suite that apply to a server without extensions, as tables.

use proptest::{collection, prelude::*, sample::Index};

use super::*;

/// What the caller of a `Conn` sees, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Failed(u16),
}

/// Runs frames that arrive together, and again byte by byte.
#[track_caller]
fn check(frames: &[Vec<u8>], expected: &[Seen]) {
    let stream = frames.concat();
    assert_eq!(run([stream.as_slice()]), expected, "{stream:02x?}");
    assert_eq!(run(stream.chunks(1)), expected, "by byte, {stream:02x?}");
}

#[track_caller]
fn check_text(payload: &[u8], expected: Seen) {
    check(&[frame(0x81, payload)], std::slice::from_ref(&expected));
    // Cut at every place into two fragments; the verdict is the same.
    for cut in 0..=payload.len() {
        let (start, end) = payload.split_at(cut);
        check(&[frame(0x01, start), frame(0x80, end)], std::slice::from_ref(&expected));
    }
}

#[test]
fn examples_of_the_rfc() {
    // RFC 6455 section 5.7; the client's side.
    let hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check(&[hello], &[text("Hello")]);
    let pong = vec![0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check(&[pong], &[Seen::Pong(b"Hello".into())]);
    // The server's side.
    let mut out = BytesMut::new();
    Conn::write(Kind::Text, b"Hello", &mut out);
    Conn::ping(b"Hello", &mut out);
    Conn::write(Kind::Binary, &[0; 256], &mut out);
    let mut expected = b"\x81\x05Hello\x89\x05Hello\x82\x7e\x01\x00".to_vec();
    expected.resize(expected.len() + 256, 0);
    assert_eq!(out, expected);
    out.clear();
    Conn::write(Kind::Binary, &[0; 65_536], &mut out);
    assert_eq!(out[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn family_1_framing() {
    for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
        let payload = vec![b'*'; len];
        assert_eq!(
            run([frame(0x81, &payload).as_slice()]),
            [text(str::from_utf8(&payload).unwrap())]
        );
        assert_eq!(
            run(frame(0x82, &payload).chunks(997)),
            [Seen::Binary(payload)],
            "{len} bytes"
        );
    }
}

#[test]
fn family_2_pings_and_pongs() {
    check(&[frame(0x89, b"")], &[Seen::Ping(vec![])]);
    check(&[frame(0x89, b"hello")], &[Seen::Ping(b"hello".into())]);
    check(
        &[frame(0x89, &[0, 0xff, 0xfe, 0xfd])],
        &[Seen::Ping(vec![0, 0xff, 0xfe, 0xfd])],
    );
    check(&[frame(0x89, &[0xfe; 125])], &[Seen::Ping(vec![0xfe; 125])]);
    check(&[frame(0x89, &[0xfe; 126])], &[PROTOCOL]);
    check(&[frame(0x8a, b"")], &[Seen::Pong(vec![])]);
    check(
        &[frame(0x8a, b"unasked"), frame(0x89, b"payload")],
        &[Seen::Pong(b"unasked".into()), Seen::Ping(b"payload".into())],
    );
    let pings: Vec<_> = (0..10).map(|n| frame(0x89, &[n])).collect();
    let expected: Vec<_> = (0..10).map(|n| Seen::Ping(vec![n])).collect();
    check(&pings, &expected);
}

#[test]
fn family_3_reserved_bits() {
    for rsv in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        for first in [0x81, 0x82, 0x88, 0x89, 0x8a] {
            check(&[frame(first | rsv, b"")], &[PROTOCOL]);
        }
    }
    check(
        &[frame(0x81, b"Hello"), frame(0xc1, b"Hello"), frame(0x89, b"never read")],
        &[text("Hello"), PROTOCOL],
    );
}

#[test]
fn family_4_opcodes() {
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        check(&[frame(0x80 | opcode, b"")], &[PROTOCOL]);
        check(
            &[
                frame(0x81, b"Hello"),
                frame(0x80 | opcode, b"x"),
                frame(0x89, b"never read"),
            ],
            &[text("Hello"), PROTOCOL],
        );
    }
}

#[test]
fn family_5_fragmentation() {
    // A control frame is never fragmented.
    check(&[frame(0x09, b"frag"), frame(0x80, b"ment")], &[PROTOCOL]);
    check(&[frame(0x0a, b"frag"), frame(0x80, b"ment")], &[PROTOCOL]);
    check(&[frame(0x08, b""), frame(0x80, b"")], &[PROTOCOL]);
    // A message may be, with control frames in between.
    check(&[frame(0x01, b"frag"), frame(0x80, b"ment")], &[text("fragment")]);
    check(
        &[
            frame(0x02, b"frag"),
            frame(0x00, b""),
            frame(0x80, b""),
            frame(0x82, b"next"),
        ],
        &[Seen::Binary(b"frag".into()), Seen::Binary(b"next".into())],
    );
    check(
        &[
            frame(0x01, b"fragment1"),
            frame(0x89, b"ping 1"),
            frame(0x00, b"fragment2"),
            frame(0x8a, b"pong"),
            frame(0x89, b"ping 2"),
            frame(0x80, b"fragment3"),
            frame(0x89, b"ping 3"),
        ],
        &[
            Seen::Ping(b"ping 1".into()),
            Seen::Pong(b"pong".into()),
            Seen::Ping(b"ping 2".into()),
            text("fragment1fragment2fragment3"),
            Seen::Ping(b"ping 3".into()),
        ],
    );
    // Nothing to continue.
    check(&[frame(0x80, b"non"), frame(0x81, b"Hello")], &[PROTOCOL]);
    check(&[frame(0x00, b"non"), frame(0x81, b"Hello")], &[PROTOCOL]);
    check(
        &[frame(0x01, b"frag"), frame(0x80, b"ment"), frame(0x80, b"of nothing")],
        &[text("fragment"), PROTOCOL],
    );
    // A second message in the middle of the first.
    check(&[frame(0x01, b"frag"), frame(0x81, b"Hello")], &[PROTOCOL]);
    check(&[frame(0x01, b"frag"), frame(0x02, b"Hello")], &[PROTOCOL]);
}

#[test]
fn family_6_utf8() {
    for valid in [
        "",
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\0",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "\u{fffe}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
    ] {
        check_text(valid.as_bytes(), text(valid));
    }
    for invalid in [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64".as_slice(),
        // Cut characters.
        b"\xce",
        b"\xce\xba\xe1",
        b"\xce\xba\xe1\xbd",
        // Continuations alone.
        b"\x80",
        b"\x80\xbf\x80",
        // Nothing after the first byte.
        b"\xc0 \xc1 ",
        b"\xe0 \xef ",
        b"\xf0 \xf7 ",
        // Longer than need be.
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
        // Surrogates.
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        // Above what there is.
        b"\xf4\x90\x80\x80",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfe",
        b"\xff",
    ] {
        check_text(invalid, INVALID);
        check(&[frame(0x82, invalid)], &[Seen::Binary(invalid.into())]);
    }
}

#[test]
fn family_6_wrong_text_is_refused_before_its_message_ends() {
    check(
        &[
            frame(0x01, b"\xce\xba\xe1\xbd\xb9"),
            frame(0x00, b"\xf4\x90"),
            frame(0x89, b"never read"),
        ],
        &[INVALID],
    );
    // A character may be cut by the end of a fragment, not by the end of the message.
    check(
        &[frame(0x01, b"\xce"), frame(0x00, b"\xba"), frame(0x80, b"")],
        &[text("κ")],
    );
    check(&[frame(0x01, b"\xce"), frame(0x80, b"")], &[INVALID]);
}

#[test]
fn family_7_close() {
    check(&[frame(0x88, b"")], &[Seen::Close(None)]);
    check(&[frame(0x88, b"\x03")], &[PROTOCOL]);
    check(&[frame(0x88, b"\x03\xe8")], &[Seen::Close(Some(1000))]);
    check(&[frame(0x88, b"\x03\xe8Hello")], &[Seen::Close(Some(1000))]);
    check(&[close(1000, &[b'*'; 123])], &[Seen::Close(Some(1000))]);
    check(&[close(1000, &[b'*'; 124])], &[PROTOCOL]);
    check(&[close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80")], &[INVALID]);
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
    ] {
        check(&[close(code, b"")], &[Seen::Close(Some(code))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check(&[close(code, b"")], &[PROTOCOL]);
    }
}

#[test]
fn family_7_nothing_follows_a_close() {
    for after in [
        frame(0x81, b"Hello"),
        frame(0x89, b""),
        close(1000, b""),
        frame(0xff, b"nonsense"),
    ] {
        check(&[close(1000, b""), after], &[Seen::Close(Some(1000))]);
    }
    check(
        &[frame(0x01, b"frag"), close(1001, b""), frame(0x80, b"ment")],
        &[Seen::Close(Some(1001))],
    );
}

#[test]
fn families_9_and_10_limits() {
    let whole = vec![b'*'; LIMIT];
    assert_eq!(
        run([frame(0x81, &whole).as_slice()]),
        [text(str::from_utf8(&whole).unwrap())]
    );
    check(&[frame(0x82, &[0; LIMIT + 1])[..20].to_vec()], &[TOO_BIG]);
    // The sum of fragments counts, and the header alone decides.
    let half = vec![0; LIMIT / 2];
    assert_eq!(
        run([frame(0x02, &half), frame(0x80, &half)].iter().map(Vec::as_slice)),
        [Seen::Binary(vec![0; LIMIT])]
    );
    assert_eq!(
        run([
            frame(0x02, &half).as_slice(),
            frame(0x00, &half).as_slice(),
            &frame(0x80, &[0; 1])[..6]
        ]),
        [TOO_BIG]
    );
    // A control frame in between has nothing to do with it.
    assert_eq!(
        run([
            frame(0x02, &half),
            frame(0x00, &half),
            frame(0x89, &[1; 125]),
            frame(0x80, b"")
        ]
        .iter()
        .map(Vec::as_slice)),
        [Seen::Ping(vec![1; 125]), Seen::Binary(vec![0; LIMIT])]
    );
    // Longer than any memory.
    check(
        &[vec![
            0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        ]],
        &[TOO_BIG],
    );
}

#[test]
fn fragments_are_counted() {
    let message = |count: usize| {
        let mut frames = vec![frame(0x02, b"")];
        frames.resize(count - 1, frame(0x00, b""));
        frames.push(frame(0x80, b"end"));
        frames
    };
    check(&message(FRAGMENTS_MAX), &[Seen::Binary(b"end".into())]);
    check(&message(FRAGMENTS_MAX + 1), &[TOO_BIG]);
}

#[test]
fn a_client_masks() {
    check(&[b"\x81\x05Hello".into()], &[PROTOCOL]);
    check(&[b"\x89\x00".into()], &[PROTOCOL]);
}

#[test]
fn a_message_in_one_frame_stays_where_it_is() {
    let mut bytes = frame(0x82, b"in place");
    let item = Conn::new(LIMIT).next(&mut bytes);
    let expected = Item::Message {
        kind: Kind::Binary,
        payload: Payload::InPlace(&mut b"in place".to_owned()),
    };
    assert_eq!(item, Ok(Some((expected, 14))));
    assert_eq!(bytes[6..], *b"in place");
}

#[test]
fn close_is_written_once() {
    let mut out = BytesMut::new();
    let mut conn = Conn::new(LIMIT);
    conn.close(close_code::GOING_AWAY, "bye", &mut out);
    assert!(!conn.is_closed());
    assert_eq!(conn.next(&mut close(1001, b"")), Ok(Some((Item::Close(Some(1001)), 8))));
    conn.close(1001, "", &mut out);
    assert!(conn.is_closed());
    assert_eq!(out, b"\x88\x05\x03\xe9bye".as_slice());
}

#[test]
fn close_frames() {
    #[track_caller]
    fn check(code: u16, reason: &str, expected: &[u8]) {
        let mut out = BytesMut::new();
        Conn::new(LIMIT).close(code, reason, &mut out);
        assert_eq!(out, expected);
    }
    check(close_code::NO_STATUS, "", b"\x88\x00");
    check(close_code::NORMAL, "", b"\x88\x02\x03\xe8");
    check(
        close_code::POLICY_VIOLATION,
        &"a".repeat(200),
        &[b"\x88\x7d\x03\xf0".as_slice(), &[b'a'; 123]].concat(),
    );
    // A reason is cut between characters.
    check(
        close_code::POLICY_VIOLATION,
        &"é".repeat(100),
        &[b"\x88\x7c\x03\xf0".as_slice(), "é".repeat(61).as_bytes()].concat(),
    );
}

#[test]
fn what_a_frame_needs() {
    let conn = Conn::new(LIMIT);
    let bytes = frame(0x82, &[0; 1000]);
    assert_eq!(conn.needs(&[]), 2);
    assert_eq!(conn.needs(&bytes[..1]), 1);
    assert_eq!(conn.needs(&bytes[..8]), 1000);
    assert_eq!(conn.needs(&bytes[..500]), bytes.len() - 500);
    assert_eq!(conn.needs(&bytes), 0);
    assert_eq!(conn.needs(&frame(0x82, &[0; LIMIT + 1])[..20]), 0);
    assert_eq!(conn.needs(&[0xff]), 0);
}

proptest! {
    #[test]
    fn any_split_gives_the_same_items(
        frames in collection::vec((any::<u8>(), collection::vec(any::<u8>(), 0..200)), 0..20),
        cuts in collection::vec(any::<Index>(), 0..10),
    ) {
        // Mostly frames that a client may send, some that it may not.
        let frames = frames.iter().map(|(dice, payload)| match dice {
            0..=239 => frame([0x01, 0x00, 0x80, 0x81, 0x82, 0x89, 0x8a, 0x00][usize::from(dice % 8)], payload),
            _ => frame(*dice, payload),
        });
        let stream = frames.collect::<Vec<_>>().concat();
        let whole = run([stream.as_slice()]);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
        prop_assert_eq!(&run(pieces), &whole);
        prop_assert_eq!(&run(stream.chunks(1)), &whole);
    }

    #[test]
    fn messages_survive_any_fragmentation(
        message in ".{0,300}",
        cuts in collection::vec(any::<Index>(), 0..20),
    ) {
        let payload = message.as_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.extend([0, payload.len()]);
        cuts.sort_unstable();
        let last = cuts.len() - 2;
        let frames = cuts.windows(2).enumerate().map(|(n, cut)| {
            let first = if n == last { 0x80 } else { 0 } | if n == 0 { 1 } else { 0 };
            frame(first, &payload[cut[0]..cut[1]])
        });
        prop_assert_eq!(run([frames.collect::<Vec<_>>().concat().as_slice()]), [text(&message)]);
    }

    #[test]
    fn what_is_written_is_read(message in collection::vec(any::<u8>(), 0..70_000)) {
        let mut out = BytesMut::new();
        Conn::write(Kind::Binary, &message, &mut out);
        let (header, len) = Header::read(&out).unwrap().unwrap();
        prop_assert_eq!(header.payload_len, message.len() as u64);
        prop_assert_eq!(&out[len..], message);
    }

    #[test]
    fn nothing_panics(bytes in collection::vec(any::<u8>(), 0..300)) {
        run([bytes.as_slice()]);
    }
}

const LIMIT: usize = 65_536;
const PROTOCOL: Seen = Seen::Failed(1002);
const INVALID: Seen = Seen::Failed(1007);
const TOO_BIG: Seen = Seen::Failed(1009);

fn text(text: &str) -> Seen {
    Seen::Text(text.into())
}

/// A frame as a client masks it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// Feeds the pieces of a stream to a new `Conn`, as its caller would, until it fails.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut conn = Conn::new(LIMIT);
    let mut rest = Vec::new();
    let mut seen = Vec::new();
    for piece in pieces {
        rest.extend_from_slice(piece);
        loop {
            let used = match conn.next(&mut rest) {
                Ok(None) => break,
                Ok(Some((item, used))) => {
                    seen.extend(owned(&item));
                    used
                }
                Err(violation) => {
                    seen.push(Seen::Failed(violation.code));
                    return seen;
                }
            };
            rest.drain(..used);
        }
        assert!(conn.needs(&rest) <= LIMIT + Header::BYTES_MAX);
    }
    seen
}

fn owned(item: &Item<'_>) -> Option<Seen> {
    Some(match item {
        Item::Message {
            kind: Kind::Text,
            payload,
        } => Seen::Text(str::from_utf8(payload).unwrap().into()),
        Item::Message { payload, .. } => Seen::Binary(payload.to_vec()),
        Item::Fragment => return None,
        Item::Ping(payload) => Seen::Ping(payload.to_vec()),
        Item::Pong(payload) => Seen::Pong(payload.to_vec()),
        Item::Close(code) => Seen::Close(*code),
    })
}
