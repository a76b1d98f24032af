//! Is a message indexed as RFC 3261 says, whatever it looks like?

use proptest::prelude::*;

use super::*;

const INVITE: &[u8] = b"\r\n\r\nINVITE sip:200@xivo SIP/2.0\r\n\
    v: SIP/2.0/WSS a.invalid;branch=z9hG4bK1\r\n\
    Subject : folded\r\n \t over lines  \r\n\
    Via:SIP/2.0/UDP b\r\n\
    l: 3\r\n\
    Empty:\r\n\
    \r\n\
    abc";

fn read(bytes: &[u8], framing: Framing) -> Message<'_> {
    Message::read(bytes, framing).expect("it begins like SIP")
}

#[test]
fn parts_are_found_where_they_stand() {
    let message = read(INVITE, Framing::Message);
    assert_eq!(message.fault(), None);
    let Start::Request { method, uri } = message.start() else {
        panic!("a request")
    };
    assert_eq!(
        (*method, &message.bytes()[uri.clone()]),
        (&b"INVITE"[..], &b"sip:200@xivo"[..])
    );
    let values: Vec<_> = message
        .fields()
        .iter()
        .map(|field| (field.name, message.text(field)))
        .collect();
    assert_eq!(
        values,
        [
            (Name::Via, &b"SIP/2.0/WSS a.invalid;branch=z9hG4bK1"[..]),
            (Name::Other, b"folded\r\n \t over lines"),
            (Name::Via, b"SIP/2.0/UDP b"),
            (Name::ContentLength, b"3"),
            (Name::Other, b""),
        ]
    );
    assert_eq!(message.all(Name::Via).count(), 2);
    assert_eq!(message.value(Name::Via), Some(values[0].1));
    assert_eq!(message.value(Name::To), None);
    assert_eq!(
        &message.bytes()[message.fields()[1].line()],
        b"Subject : folded\r\n \t over lines  \r\n"
    );
    assert_eq!(&message.bytes()[message.body()], b"abc");
    assert_eq!(&message.bytes()[message.head_end()..message.body().start], b"\r\n");
}

#[test]
fn start_lines() {
    let check = |line: &str, expected: Option<Option<Fault>>| {
        let text = format!("{line}\r\n\r\n");
        let message = Message::read(text.as_bytes(), Framing::Datagram);
        assert_eq!(message.map(|message| message.fault()), expected, "{line}");
    };
    for good in [
        "A b SIP/2.0",
        "A b sip/2.0",
        "SIP/2.0 200 OK",
        "SIP/2.0 100 ",
        "SIP/2.0 699",
    ] {
        check(good, Some(None));
    }
    for bad in [
        "A  SIP/2.0",
        "A  b SIP/2.0",
        "A b  SIP/2.0",
        "A b SIP/2.0 ",
        "A b c SIP/2.0",
        "A SIP/2.0",
        "A b SIP/x",
        "SIP/2.0 099 x",
        "SIP/2.0 700 x",
        "SIP/2.0 2000 x",
        "SIP/2.0 2x0 x",
        "A b SIP/2.0.1",
        "A b SIP/2.",
    ] {
        check(bad, Some(Some(Fault::StartLine)));
    }
    check("A b SIP/7.0", Some(Some(Fault::Version)));
    for other in [
        "GET / HTTP/1.1",
        "",
        "x",
        "SIP/2.0 ",
        "SIP/2.0 20",
        "SIP/3.0 200 OK",
        "A\tb SIP/2.0",
        "\u{16}\u{3}\u{1}",
    ] {
        check(other, None);
    }
}

#[test]
fn faults() {
    let check = |rest: &str, fault: Option<Fault>| {
        let text = format!("A b SIP/2.0\r\n{rest}");
        assert_eq!(read(text.as_bytes(), Framing::Datagram).fault(), fault, "{rest:?}");
    };
    check("A: \"\\\u{0}\\\u{7}\"\r\n\r\n", None);
    check("A: b\tc\r\n\r\n", None);
    for bad in [
        "A: \u{0}\r\n\r\n",
        "A\r\n\r\n",
        ": b\r\n\r\n",
        "A b: c\r\n\r\n",
        " A: b\r\n\r\n",
        "A: b\nC: d\r\n\r\n",
        "A: b\rC: d\r\n\r\n",
        "A: b\r\n",
        "A: b",
        "",
        "\r",
    ] {
        check(bad, Some(Fault::Field));
    }
    check(&format!("{}\r\n", "A: b\r\n".repeat(FIELDS_MAX)), None);
    check(
        &format!("{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1)),
        Some(Fault::HeadTooLong),
    );
    check(
        &format!("A: {}\r\n\r\n", "b".repeat(HEAD_BYTES_MAX)),
        Some(Fault::HeadTooLong),
    );
}

#[test]
fn framing() {
    let check = |lengths: &str, body: &str, framing, expected: Result<&str, Fault>| {
        let text = format!("A b SIP/2.0\r\n{lengths}\r\n{body}");
        let message = read(text.as_bytes(), framing);
        let found = message.fault().map_or(Ok(&message.bytes()[message.body()]), Err);
        assert_eq!(found, expected.map(str::as_bytes), "{text:?}");
    };
    use Framing::{Datagram, Message};
    check("", "abc", Datagram, Ok("abc"));
    check("", "abc", Message, Ok("abc"));
    check("l: 2\r\n", "abc", Datagram, Ok("ab"));
    check("l: 2\r\n", "abc", Message, Err(Fault::ContentLength));
    check("l: 0003\r\n", "abc", Message, Ok("abc"));
    for bad in [
        "l: 4\r\n",
        "l: -1\r\n",
        "l:\r\n",
        "l: 99999999999999999999\r\n",
        "l: 3\r\nContent-Length: 3\r\n",
    ] {
        check(bad, "abc", Datagram, Err(Fault::ContentLength));
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), datagram: bool) {
        sound(&bytes, datagram);
        sound(&[b"A b SIP/2.0\r\n", &bytes[..]].concat(), datagram);
    }

    #[test]
    fn nor_do_pieces_of_messages(pieces in proptest::collection::vec(0usize..12, 0..40), datagram: bool) {
        const PIECES: [&[u8]; 12] = [
            b"\r\n", b"\r", b"\n", b" ", b":", b"Via: SIP/2.0/UDP a", b"l: 3", b"\t", b"\"\\\0\"", b"From", b"<sip:a@b>;tag=1", b",",
        ];
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| PIECES[*piece]).copied().collect();
        sound(&[b"A b SIP/2.0\r\n", &bytes[..]].concat(), datagram);
    }
}

/// Whatever is indexed lies within the message, in order and apart.
fn sound(bytes: &[u8], datagram: bool) {
    let framing = if datagram { Framing::Datagram } else { Framing::Message };
    let Some(message) = Message::read(bytes, framing) else {
        return;
    };
    let mut at = 0;
    for field in message.fields() {
        assert!(field.line().start >= at && field.line().end <= message.head_end());
        assert!(field.value().start > field.line().start && field.value().end + 2 <= field.line().end);
        at = field.line().end;
        field::addresses(message.text(field)).for_each(drop);
        via::Via::first(message.text(field));
    }
    assert!(message.head_end() <= message.body().start && message.body().end <= message.bytes().len());
}

/// The messages of RFC 3261 section 24, without the bodies that the RFC does not show either.
const EXAMPLES: &str = include_str!("torture/rfc3261-section-24.txt");

#[test]
fn the_examples_of_the_rfc() {
    // First line, Via fields, branch of the first of them, number and method of CSeq, bytes of body.
    let expected = [
        (
            "REGISTER sip:registrar.biloxi.com SIP/2.0",
            1,
            "z9hG4bKnashds7",
            (1826, "REGISTER"),
            0,
        ),
        ("SIP/2.0 200 OK", 1, "z9hG4bKnashds7", (1826, "REGISTER"), 0),
        (
            "INVITE sip:bob@biloxi.com SIP/2.0",
            1,
            "z9hG4bKnashds8",
            (314_159, "INVITE"),
            142,
        ),
        ("SIP/2.0 100 Trying", 1, "z9hG4bKnashds8", (314_159, "INVITE"), 0),
        (
            "INVITE sip:bob@biloxi.com SIP/2.0",
            2,
            "z9hG4bK77ef4c2312983.1",
            (314_159, "INVITE"),
            142,
        ),
        (
            "SIP/2.0 100 Trying",
            2,
            "z9hG4bK77ef4c2312983.1",
            (314_159, "INVITE"),
            0,
        ),
        (
            "INVITE sip:bob@192.0.2.4 SIP/2.0",
            3,
            "z9hG4bK4b43c2ff8.1",
            (314_159, "INVITE"),
            142,
        ),
        ("SIP/2.0 180 Ringing", 3, "z9hG4bK4b43c2ff8.1", (314_159, "INVITE"), 0),
        (
            "SIP/2.0 180 Ringing",
            2,
            "z9hG4bK77ef4c2312983.1",
            (314_159, "INVITE"),
            0,
        ),
        ("SIP/2.0 180 Ringing", 1, "z9hG4bKnashds8", (314_159, "INVITE"), 0),
        ("SIP/2.0 200 OK", 3, "z9hG4bK4b43c2ff8.1", (314_159, "INVITE"), 131),
        ("SIP/2.0 200 OK", 2, "z9hG4bK77ef4c2312983.1", (314_159, "INVITE"), 131),
        ("SIP/2.0 200 OK", 1, "z9hG4bKnashds8", (314_159, "INVITE"), 131),
        (
            "ACK sip:bob@192.0.2.4 SIP/2.0",
            1,
            "z9hG4bKnashds9",
            (314_159, "ACK"),
            0,
        ),
        (
            "BYE sip:alice@pc33.atlanta.com SIP/2.0",
            1,
            "z9hG4bKnashds10",
            (231, "BYE"),
            0,
        ),
        ("SIP/2.0 200 OK", 1, "z9hG4bKnashds10", (231, "BYE"), 0),
    ];
    let examples: Vec<&str> = EXAMPLES.split("\n\n").collect();
    assert_eq!(examples.len(), expected.len());
    for (example, (first, vias, branch, (number, method), body)) in examples.into_iter().zip(expected) {
        let head = format!("{}\r\n\r\n", example.trim_end().replace('\n', "\r\n"));
        let bytes = [head.as_bytes(), &vec![b'-'; body]].concat();
        let message = read(&bytes, Framing::Datagram);
        assert_eq!(message.fault(), None, "{example}");
        assert!(head.starts_with(&format!("{first}\r\n")), "{example}");
        assert_eq!(
            (message.count(Name::Via), message.body().len()),
            (vias, body),
            "{example}"
        );
        let top = message.value(Name::Via).and_then(via::Via::first);
        assert_eq!(top.and_then(|top| top.branch()), Some(branch.as_bytes()), "{example}");
        let cseq = message.value(Name::CSeq).and_then(field::cseq);
        assert_eq!(cseq, Some((number, method.as_bytes())), "{example}");
        for address in [Name::From, Name::To] {
            let value = message.value(address).expect("each has both");
            assert!(field::Address::parse(value).is_some(), "{example}");
        }
    }
}
