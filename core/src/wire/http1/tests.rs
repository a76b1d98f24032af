//! Which bytes are a head? What the tables of the two sides leave open: lengths, look-ups and searches.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    line_bytes_max: 40,
    head_bytes_max: 100,
    fields_max: 3,
};

#[test]
fn a_request_head() {
    let bytes = b"\r\nPOST /a?b HTTP/1.0\r\nHost:a\r\nX-One: \t b \tc\t \r\nx-one:\r\n\r\nbody";
    let (head, len) = request_head(bytes, &LIMITS).unwrap().unwrap();
    assert_eq!(
        (head.method, head.target, head.version),
        (&b"POST"[..], &b"/a?b"[..], Version::Http10)
    );
    assert_eq!(&bytes[len..], b"body");
    let fields: Vec<_> = head
        .fields
        .iter()
        .map(|field| (field.id, field.name, field.value))
        .collect();
    let expected: [(Name, &[u8], &[u8]); 3] = [
        (Name::Host, b"Host", b"a"),
        (Name::Other, b"X-One", b"b \tc"),
        (Name::Other, b"x-one", b""),
    ];
    assert_eq!(fields, expected);
    assert_eq!((head.fields.len(), head.fields.is_empty()), (3, false));
    assert_eq!(head.fields.get("X-ONE"), Some(&b"b \tc"[..]));
    assert_eq!((head.fields.get("x-two"), head.fields.first(Name::Via)), (None, None));
    assert_eq!(head.fields.only(Name::Host), Some(&b"a"[..]));
    assert_eq!(head.fields.only(Name::Other), None);
    assert_eq!(
        format!("{:?}", head.fields),
        r#"{"Host": "a", "X-One": "b \\tc", "x-one": ""}"#
    );
}

#[test]
fn a_response_head() {
    let bytes = b"HTTP/1.1 404 Not  Found\r\nVia: a\r\nVIA: b\r\n\r\n";
    let (head, len) = response_head(bytes, &LIMITS).unwrap().unwrap();
    assert_eq!(
        (head.version, head.status, head.reason, len),
        (Version::Http11, 404, &b"Not  Found"[..], bytes.len())
    );
    assert!(head.fields.all(Name::Via).eq([b"a", b"b"]));
    assert!(head.fields.all(Name::Via).rev().eq([b"b", b"a"]));
}

#[test]
fn a_trailer_section() {
    assert!(
        trailer_section(b"\r\nrest", &LIMITS)
            .unwrap()
            .is_some_and(|(fields, len)| fields.is_empty() && len == 2)
    );
    assert!(trailer_section(b"A: b\r\n", &LIMITS).unwrap().is_none());
    assert_eq!(trailer_section(b"A\r\n", &LIMITS).err(), Some(HeadError::FieldName));
}

#[test]
fn limits_are_exact() {
    let check = |bytes: &[u8], expected: Result<bool, HeadError>| {
        let found = request_head(bytes, &LIMITS).map(|head| head.is_some());
        assert_eq!(found, expected, "{}", bytes.escape_ascii());
    };
    let line = |len: usize| format!("GET /{} HTTP/1.1", "a".repeat(len - 14));
    check(format!("{}\r\n\r\n", line(40)).as_bytes(), Ok(true));
    check(line(40).as_bytes(), Ok(false));
    check(format!("{}\r\n\r\n", line(41)).as_bytes(), Err(HeadError::LineTooLong));
    check(line(42).as_bytes(), Err(HeadError::LineTooLong));
    let head = |len: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(len - 23));
    check(head(100).as_bytes(), Ok(true));
    check(&head(100).as_bytes()[..99], Ok(false));
    check(head(101).as_bytes(), Err(HeadError::HeadTooLarge));
    check(&head(101).as_bytes()[..100], Err(HeadError::HeadTooLarge));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A:\r\n".repeat(count));
    check(fields(3).as_bytes(), Ok(true));
    check(fields(4).as_bytes(), Err(HeadError::TooManyFields));
    let method = |len: usize| format!("{} / HTTP/1.1\r\n\r\n", "A".repeat(len));
    let wide = Limits::new(1000, 1000, 10);
    assert!(request_head(method(METHOD_BYTES_MAX).as_bytes(), &wide).is_ok());
    assert!(request_head(method(METHOD_BYTES_MAX + 1).as_bytes(), &wide).is_err());
    let name = |len: usize| format!("GET / HTTP/1.1\r\n{}: a\r\n\r\n", "a".repeat(len));
    assert!(request_head(name(NAME_BYTES_MAX).as_bytes(), &wide).is_ok());
    assert!(request_head(name(NAME_BYTES_MAX + 1).as_bytes(), &wide).is_err());
}

#[test]
fn the_widest_limits_fit_the_index() {
    let widest = Limits::new(usize::MAX, usize::MAX, usize::MAX);
    let value = "a".repeat(HEAD_BYTES_MAX - 23);
    let head = format!("GET / HTTP/1.1\r\nA: {value}\r\n\r\n");
    let (parsed, len) = request_head(head.as_bytes(), &widest).unwrap().unwrap();
    assert_eq!((parsed.fields.get("a"), len), (Some(value.as_bytes()), HEAD_BYTES_MAX));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A:\r\n".repeat(FIELDS_MAX + 1));
    assert_eq!(
        request_head(many.as_bytes(), &widest).err(),
        Some(HeadError::TooManyFields)
    );
}

#[test]
fn only_whole_lines_are_judged() {
    for (bytes, expected) in [
        (&b"GET  /"[..], None),
        (b"GET  /\r\n", Some(HeadError::RequestLine)),
        (b"GET / HTTP/1.1\r\nA B", None),
        (b"GET / HTTP/1.1\r\nA B\r\n", Some(HeadError::FieldName)),
        (b"GET / HTTP/1.1\r\nA B\n", Some(HeadError::LineEnd)),
        (b"GET / HTTP/1.1\r\nA: \0", None),
        (b"GET / HTTP/1.1\r\nA: \0\r\n", Some(HeadError::FieldValue)),
        (b"GET / HTTP/1.1\r\n ", None),
        (b"GET / HTTP/1.1\r\n \r\n", Some(HeadError::Folding)),
        (b"GET / HTTP/1.1\r\n\r", None),
        (b"GET / HTTP/1.1\r\nA: b\r", None),
    ] {
        assert_eq!(request_head(bytes, &LIMITS).err(), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn names() {
    for (name, expected) in [
        ("host", Name::Host),
        ("HOST", Name::Host),
        ("hosts", Name::Other),
        ("Content-Length", Name::ContentLength),
        ("Content_Length", Name::Other),
        ("transfer-ENCODING", Name::TransferEncoding),
        ("X-Forwarded-For", Name::XForwardedFor),
        ("X-Forwarded-Ssl", Name::XForwarded),
        ("x-forwarded-", Name::XForwarded),
        ("X-Forwarder", Name::Other),
        ("Sec-WebSocket-Key", Name::SecWebSocketKey),
        ("Proxy", Name::Disguise),
        ("", Name::Other),
    ] {
        assert_eq!(Name::of(name.as_bytes()), expected, "{name}");
    }
}

/// Bytes among which those that matter are frequent.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => 0x20_u8..0x7f, 1 => prop::sample::select(&b"\t\r\n\0\x1f\x7f\x80\x8a\xff"[..])];
    prop::collection::vec(byte, 0..40)
}

proptest! {
    #[test]
    fn searches_find_what_a_plain_loop_finds(bytes in bytes()) {
        prop_assert_eq!(find_lf(&bytes), bytes.iter().position(|byte| *byte == b'\n'));
        let is_control = |byte: &u8| matches!(byte, 0..=8 | 10..=0x1f | 0x7f);
        prop_assert_eq!(find_control(&bytes), bytes.iter().position(is_control));
    }

    #[test]
    fn any_bytes_are_a_head_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let limits = Limits::new(8192, 32_768, 100);
        let _ = (request_head(&bytes, &limits), response_head(&bytes, &limits), trailer_section(&bytes, &limits));
    }
}
