//! Streams that try to be two things at once: each must be refused, or mean one thing only.

use super::{Seen, check_splits};

/// What follows every attack on its connection. It must never be taken for a request of its own.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A name, the rest of a stream, and the status with which it is refused.
type Attack = (&'static str, &'static [u8], u16);

fn check(start: &[u8], attacks: &[Attack]) {
    for (name, rest, status) in attacks {
        let stream = [start, rest, SMUGGLED].concat();
        let seen = check_splits(name, &stream);
        assert_eq!(seen.requests, [""; 0], "{name}");
        let refused = seen.refused.map(|reject| reject.status);
        assert_eq!(refused, Some(*status), "{name}: {:?}", seen.refused);
    }
}

#[test]
#[rustfmt::skip]
fn lengths() {
    check(
        b"POST / HTTP/1.1\r\nHost: a\r\n",
        &[
            ("CL-TE-BOTH", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-CL-BOTH", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
            ("CL-DUPLICATE", b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello", 400),
            ("CL-DUPLICATE-LAST", b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400),
            ("CL-DUPLICATE-SAME", b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
            ("CL-COMMA-SAME", b"Content-Length: 5, 5\r\n\r\nhello", 400),
            ("CL-COMMA-DIFFERENT", b"Content-Length: 5,0\r\n\r\nhello", 400),
            ("CL-COMMA-TRIPLE", b"Content-Length: 5,5,5\r\n\r\nhello", 400),
            ("CL-COMMA-TRAILING", b"Content-Length: 5,\r\n\r\nhello", 400),
            ("CL-SEMICOLON", b"Content-Length: 5;a=b\r\n\r\nhello", 400),
            ("CL-COMMA-EMPTY", b"Content-Length: ,5\r\n\r\nhello", 400),
            ("CL-PLUS", b"Content-Length: +5\r\n\r\nhello", 400),
            ("CL-NEGATIVE", b"Content-Length: -5\r\n\r\nhello", 400),
            ("CL-NEGATIVE-ZERO", b"Content-Length: -0\r\n\r\n", 400),
            ("CL-HEX", b"Content-Length: 0x5\r\n\r\nhello", 400),
            ("CL-OCTAL", b"Content-Length: 0o5\r\n\r\nhello", 400),
            ("CL-LEADING-ZEROS", b"Content-Length: 005\r\n\r\nhello", 400),
            ("CL-DOUBLE-ZERO", b"Content-Length: 00\r\n\r\n", 400),
            ("CL-UNDERSCORE", b"Content-Length: 1_0\r\n\r\n0123456789", 400),
            ("CL-INNER-SPACE", b"Content-Length: 1 0\r\n\r\n0123456789", 400),
            ("CL-TRAILING-LETTER", b"Content-Length: 5Z\r\n\r\nhello", 400),
            ("CL-QUOTED", b"Content-Length: \"5\"\r\n\r\nhello", 400),
            ("CL-EMPTY", b"Content-Length: \r\n\r\n", 400),
            ("CL-EMPTY-FIRST", b"Content-Length:\r\nContent-Length: 5\r\n\r\nhello", 400),
            ("CL-FRACTION", b"Content-Length: 5.0\r\n\r\nhello", 400),
            ("CL-EXPONENT", b"Content-Length: 5e0\r\n\r\nhello", 400),
            ("CL-OVERFLOW", b"Content-Length: 18446744073709551621\r\n\r\nhello", 400),
            ("CL-FULLWIDTH", "Content-Length: \u{ff15}\r\n\r\nhello".as_bytes(), 400),
            ("CL-NBSP", b"Content-Length: \xa05\r\n\r\nhello", 400),
            ("CL-UNDERSCORE-NAME", b"Content_Length: 5\r\n\r\n", 400),
            ("CL-SPACE-BEFORE-COLON", b"Content-Length : 5\r\n\r\nhello", 400),
            ("CL-TAB-BEFORE-COLON", b"Content-Length\t: 5\r\n\r\nhello", 400),
            ("CL-NEL-BEFORE-COLON", b"Content-Length\x85: 5\r\n\r\nhello", 400),
            ("CL-NO-COLON", b"Content-Length 5\r\n\r\nhello", 400),
            ("EXPECT-OBFUSCATED", b"Content-Length: 5\r\nExpect: y 100-continue\r\n\r\n", 417),
            ("EXPECT-TWICE", b"Content-Length: 5\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 417),
            ("EXPECT-LIST", b"Content-Length: 5\r\nExpect: 100-continue, 100-continue\r\n\r\n", 417),
            ("EXPECT-UNKNOWN", b"Content-Length: 5\r\nExpect: 200-ok\r\n\r\n", 417),
        ],
    );
    check(
        b"",
        &[
            ("GET-CL", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 400),
            ("GET-TE", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("HEAD-CL", b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 400),
            ("GET-EXPECT-CL", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 400),
        ],
    );
}

#[test]
#[rustfmt::skip]
fn transfer_codings() {
    check(
        b"POST / HTTP/1.1\r\nHost: a\r\n",
        &[
            ("TE-XCHUNKED", b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
            ("TE-IDENTITY", b"Transfer-Encoding: identity\r\n\r\n", 501),
            ("TE-GZIP", b"Transfer-Encoding: gzip\r\n\r\n", 501),
            ("TE-GZIP-CHUNKED", b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-NOT-FINAL", b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
            ("TE-DOUBLE", b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-DUPLICATE", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (
                "TE-DUPLICATE-IDENTITY",
                b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
                400,
            ),
            ("TE-LEADING-COMMA", b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-TRAILING-COMMA", b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400),
            ("TE-PARAMETER", b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", 400),
            ("TE-QUOTED", b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
            ("TE-EMPTY", b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
            ("TE-VTAB", b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-FORMFEED", b"Transfer-Encoding: \x0cchunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-NUL", b"Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", 400),
            ("TE-NEL", b"Transfer-Encoding: \x85chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-NBSP", b"Transfer-Encoding: \xa0chunked\xa0\r\n\r\n0\r\n\r\n", 400),
            ("TE-HIGH-BYTES", b"Transfer-Encoding: \xffchunked\xff\r\n\r\n0\r\n\r\n", 400),
            ("TE-SPACE-BEFORE-COLON", b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-FOLDED-VALUE", b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-FOLDED-FIELD", b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-SPLIT-NAME", b"Transfer-\r\nEncoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-UNDERSCORE-NAME", b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("TE-CASE-CL", b"TRANSFER-ENCODING: CHUNKED\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
            ("CONNECTION-TE", b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("CONNECTION-CL", b"Connection: close, content-length\r\nContent-Length: 5\r\n\r\nhello", 400),
        ],
    );
    check(
        b"",
        &[
            (
                "TE-FOLDED-OPTIONS",
                b"OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n\
                 0\r\n\r\n",
                400,
            ),
            ("TE-HTTP10", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (
                "TE-HTTP10-CL",
                b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
                400,
            ),
            ("CONNECTION-HOST", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", 400),
            (
                "CONNECTION-CONTENT-TYPE",
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: Content-Type\r\n\r\n",
                400,
            ),
            ("CONNECTION-AUTHORIZATION", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Authorization\r\n\r\n", 400),
            ("CONNECTION-COOKIE", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: cookie\r\n\r\n", 400),
            ("CONNECTION-FORWARDED", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\n\r\n", 400),
            ("CONNECTION-NO-TOKEN", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep alive\r\n\r\n", 400),
        ],
    );
}

#[test]
#[rustfmt::skip]
fn chunks() {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let attacks: [(&str, &[u8]); 49] = [
        ("CHUNK-HEX-PREFIX", b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-HEX-PREFIX-ZERO", b"0x0\r\n\r\n"),
        ("CHUNK-PLUS", b"+5\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-NEGATIVE", b"-5\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-NEGATIVE-ZERO", b"-0x0\r\n\r\n"),
        ("CHUNK-UNDERSCORE", b"0_2e\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        ("CHUNK-LEADING-SPACE", b" 5\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-LEADING-SPACE-ZERO", b"           0\r\n\r\n"),
        ("CHUNK-TRAILING-SPACE", b"5 \r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-TRAILING-TAB", b"5\t\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-PREFIX-VALID", b"1these-bytes\r\nZ\r\n0\r\n\r\n"),
        ("CHUNK-COMMA", b"5,5\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EMPTY-SIZE", b"\r\n\r\n"),
        ("CHUNK-OVERFLOW", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-OVERFLOW-LEADING-ZEROS", b"00000000000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-NOT-HEX", b"Z\r\nZZ\r\nZZZ\r\n\r\n"),
        ("CHUNK-INVALID-THEN-REQUEST", b"INVALID!!!\r\n"),
        ("CHUNK-NUL", b"5\0\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-LF-SIZE", b"5\nhello\r\n0\r\n\r\n"),
        ("CHUNK-CR-SIZE", b"5\rhello\r\n0\r\n\r\n"),
        ("CHUNK-CR-ANY-SIZE", b"5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n"),
        ("CHUNK-LF-DATA-END", b"5\r\nhello\n0\r\n\r\n"),
        ("CHUNK-CR-DATA-END", b"5\r\nhello\r0\r\n\r\n"),
        ("CHUNK-NO-DATA-END", b"5\r\nhello0\r\n\r\n"),
        ("CHUNK-SPILL", b"5\r\nhelloXX\r\n0\r\n\r\n"),
        ("CHUNK-SPILL-TWO", b"5\r\nhelloXX0\r\n\r\n"),
        ("CHUNK-DATA-SHORT", b"6\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXTRA-CRLF", b"5\r\nhello\r\n\r\n0\r\n\r\n"),
        ("CHUNK-LF-LAST", b"0\n\r\n"),
        ("CHUNK-LF-END", b"0\r\n\n"),
        ("CHUNK-CR-END", b"0\r\n\r\r\n"),
        ("CHUNK-ANY-END", b"0\r\nXX"),
        ("CHUNK-LF-TRAILER", b"0\r\nA: b\n\r\n"),
        ("CHUNK-TRAILER-NO-COLON", b"0\r\nX\r\n\r\n"),
        ("CHUNK-TRAILER-SPACE", b"0\r\n A: b\r\n\r\n"),
        ("CHUNK-TRAILER-NUL", b"0\r\nA: \0\r\n\r\n"),
        ("CHUNK-EXT-BARE-SEMICOLON", b"5;\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-NO-NAME", b"5;=b\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-NO-SIZE", b";a=b\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-QUOTE-OPEN", b"5;a=\"b\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-TWO-EQUALS", b"5;a=b=c\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-INVALID-TOKEN", b"5;[=b\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-LF", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-CR", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-CTL", b"5;a\x01\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-NUL", b"5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-SPACE-CR", b"2 \r\r;a\r\n02\r\n41\r\n0\r\n\r\n"),
        ("CHUNK-EXT-QUOTED-LF", b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        ("CHUNK-EXT-QUOTED-CRLF", b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
    ];
    check(HEAD, &attacks.map(|(name, body)| (name, body, 400)));
}

#[test]
#[rustfmt::skip]
fn lines() {
    check(
        b"",
        &[
            ("LF-REQUEST-LINE", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
            ("LF-FIELD", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
            ("LF-END", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
            ("LF-ALL", b"GET / HTTP/1.1\nHost: a\n\n", 400),
            ("LF-IN-VALUE", b"GET / HTTP/1.1\r\nHost: a\r\nUseless:\n\nGET / HTTP/1.1\r\n\r\n", 400),
            ("LF-IN-NAME", b"GET / HTTP/1.1\r\nHost: a\r\nTe\nst: test\r\n\r\n", 400),
            ("LF-AS-SPACE", b"GET /\nHTTP/1.1\r\n\r\n", 400),
            ("CR-ONLY", b"GET / HTTP/1.1\rHost: a\r\r", 400),
            ("CR-END-ANY", b"GET / HTTP/1.1\r\nHost: a\r\n\rZ", 400),
            ("CR-IN-VALUE", b"GET / HTTP/1.1\r\nHost: a\r\nX: :/\rSmuggled: y\r\n\r\n", 400),
            ("CR-BEFORE-CRLF", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n", 400),
            ("CR-IN-REQUEST-LINE", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TWO-EMPTY-LINES", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("EMPTY-LF-LINE", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("SPACE-LINE", b"   \r\n\r\n", 400),
            ("SPACE-BEFORE-METHOD", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("SPACE-BEFORE-FIRST-FIELD", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            ("TAB-BEFORE-FIRST-FIELD", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", 400),
            ("SPACE-BEFORE-COLON", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("FOLDED", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", 400),
            ("FOLDED-EMPTY", b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", 400),
            ("NAME-EMPTY", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
            ("NAME-AND-VALUE-EMPTY", b"GET / HTTP/1.1\r\nHost: a\r\n:\r\n\r\n", 400),
            ("NAME-NO-COLON", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
            ("NAME-BRACKETS", b"GET / HTTP/1.1\r\nHost: a\r\n[X]: y\r\n\r\n", 400),
            ("NAME-TAB", b"GET / HTTP/1.1\r\nHost: a\r\nContent\tLength: 1\r\n\r\n", 400),
            ("NAME-NON-ASCII", b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xab: y\r\n\r\n", 400),
            ("NAME-NUL", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", 400),
            ("NAME-CONTROLS", b"GET / HTTP/1.1\r\nHost: a\r\n\x01\x02\x1f\"(),/;<=>?@[/]{}: y\r\n\r\n", 400),
            ("VALUE-NUL", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", 400),
            ("VALUE-NUL-LAST", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n", 400),
            ("VALUE-CONTROL", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x08\r\n\r\n", 400),
            ("VALUE-DEL", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
            ("VALUE-ESCAPE", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[0m\r\n\r\n", 400),
            ("BINARY", b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03\x8a\n", 400),
            ("BINARY-LINE", b"\0\xff\xfe\r\n\r\n", 400),
        ],
    );
}

#[test]
#[rustfmt::skip]
fn request_lines() {
    check(
        b"",
        &[
            ("TWO-SPACES", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TWO-SPACES-BEFORE-VERSION", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TABS", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TRAILING-SPACE", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
            ("TARGET-MISSING", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-EMPTY", b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-SPACE", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-TWO-VERSIONS", b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-NUL", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-NON-ASCII", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-DEL", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-FRAGMENT", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-BACKSLASH", b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-OVERLONG", b"GET /%c0%af HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-ESCAPED-NUL", b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-ESCAPED-CRLF", b"GET /%0d%0aX:%20y HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-ESCAPED-SLASH", b"GET /a%2f..%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-CLIMBS", b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-CLIMBS-ESCAPED", b"GET /%2e%2e/a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-NO-SLASH", b"GET ! HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-ASTERISK-GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-AUTHORITY", b"GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-USERINFO", b"GET https://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-OTHER-HOST", b"GET https://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-OTHER-PORT", b"GET https://a:444/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TARGET-OTHER-SCHEME", b"GET file://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("METHOD-EMPTY", b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("METHOD-NUL", b"\0 / HTTP/............0596.7407.\r\n\r\n", 400),
            ("METHOD-NO-TOKEN", b"G=\":<>(e),[T];?\" /get HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("METHOD-CASE", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("METHOD-UNKNOWN", b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("METHOD-LONG", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("METHOD-CONNECT", b"CONNECT b:443 HTTP/1.1\r\nHost: b\r\n\r\n", 405),
            ("METHOD-TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("METHOD-TRACE-BODY", b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405),
            ("METHOD-PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("VERSION-09", b"GET /\r\n", 400),
            ("VERSION-12", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
            ("VERSION-99", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
            ("VERSION-LONG", b"GET / HTTP/1.32\r\nHost: a\r\n\r\n", 400),
            ("VERSION-OVERFLOW", b"GET / HTTP/4294967295.255\r\nHost: a\r\n\r\n", 400),
            ("VERSION-NO-MINOR", b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
            ("VERSION-LEADING-ZEROS", b"GET / HTTP/01.01\r\nHost: a\r\n\r\n", 400),
            ("VERSION-SPACE", b"GET / HTTP/ 1.1\r\nHost: a\r\n\r\n", 400),
            ("VERSION-CASE", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
            ("VERSION-CR", b"GET / HTTP/\r\r1.1\r\nHost: a\r\n\r\n", 400),
            ("HOST-MISSING", b"GET / HTTP/1.1\r\n\r\n", 400),
            ("HOST-EMPTY", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("HOST-TWICE", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("HOST-TWICE-SAME", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("HOST-TWICE-HTTP10", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("HOST-COMMA", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
            ("HOST-PATH", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("HOST-USERINFO", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
            ("HOST-PORT", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
            ("HOST-NUL", b"GET / HTTP/1.1\r\nHost: a\0.b\r\n\r\n", 400),
            ("HOST-ABSOLUTE-MISSING", b"GET https://a/ HTTP/1.1\r\n\r\n", 400),
        ],
    );
}

#[test]
fn limits() {
    let long = |len| vec![b'a'; len];
    let fields = |count| b"X: y\r\n".repeat(count);
    let streams: [(&str, Vec<u8>, u16); 8] = [
        (
            "LONG-URL",
            [b"GET /", &*long(100_000), b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat(),
            414,
        ),
        ("LONG-URL-ENDLESS", [b"GET /", &*long(100_000)].concat(), 414),
        (
            "LONG-METHOD",
            [&*long(100_000), b" / HTTP/1.1\r\nHost: a\r\n\r\n"].concat(),
            414,
        ),
        (
            "LONG-NAME",
            [b"GET / HTTP/1.1\r\n", &*long(100_000), b": b\r\n\r\n"].concat(),
            431,
        ),
        (
            "LONG-NAME-WITHIN",
            [b"GET / HTTP/1.1\r\n", &*long(1000), b": b\r\n\r\n"].concat(),
            400,
        ),
        (
            "LONG-VALUE",
            [b"GET / HTTP/1.1\r\nX: ", &*long(100_000), b"\r\n\r\n"].concat(),
            431,
        ),
        (
            "MANY-FIELDS",
            [b"GET / HTTP/1.1\r\nHost: a\r\n", &*fields(10_000), b"\r\n"].concat(),
            431,
        ),
        (
            "CHUNK-EXT-64K",
            [
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;",
                &*long(65_536),
                b"\r\nhello\r\n0\r\n\r\n",
            ]
            .concat(),
            400,
        ),
    ];
    for (name, stream, status) in streams {
        let whole = super::feed(&stream, &[]);
        assert_eq!(whole.refused.map(|reject| reject.status), Some(status), "{name}");
        let pieces: Vec<usize> = (0..stream.len()).step_by(1000).collect();
        let cut = super::feed(&stream, &pieces);
        assert_eq!((&whole.requests, whole.refused), (&cut.requests, cut.refused), "{name}");
    }
    let within = [
        b"GET /",
        &*long(8000),
        b" HTTP/1.1\r\nHost: a\r\n",
        &*fields(99),
        b"\r\n",
    ]
    .concat();
    assert_eq!(super::feed(&within, &[]).refused, None);
}

#[test]
fn floods_of_small_extensions_are_bounded() {
    let mut stream = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..2000 {
        stream.extend_from_slice(b"1;a=b\r\nx\r\n");
    }
    assert_eq!(
        super::feed(&stream, &[]).refused.map(|reject| reject.why),
        Some("malformed chunk extension")
    );
}

#[test]
#[rustfmt::skip]
fn what_looks_odd_and_means_one_thing_is_taken() {
    let tables: [(&str, &[u8], &[&str]); 22] = [
        ("LEADING-CRLF", b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /a "]),
        ("NO-SPACE-AFTER-COLON", b"GET /a HTTP/1.1\r\nHost:a\r\n\r\n", &["GET /a "]),
        (
            "SPACES-AROUND-VALUE",
            b"POST /a HTTP/1.1\r\nHost:\t a \t\r\nContent-Length: \t5 \r\n\r\nhello",
            &["POST /a hello"],
        ),
        ("EMPTY-VALUE", b"GET /a HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t \r\n\r\n", &["GET /a "]),
        ("OBS-TEXT", b"GET /a HTTP/1.1\r\nHost: a\r\nX: \x85admin\xa0\xff\r\n\r\n", &["GET /a "]),
        (
            "TE-CASE",
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ChunKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            &["POST /a hello"],
        ),
        ("TE-OWS", b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked \t\r\n\r\n0\r\n\r\n", &["POST /a "]),
        (
            "CHUNK-CAPITALS",
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
            &["POST /a 0123456789"],
        ),
        (
            "CHUNK-LEADING-ZEROS",
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n005\r\nhello\r\n000\r\n\r\n",
            &["POST /a hello"],
        ),
        (
            "CHUNK-EXT",
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n",
            &["POST /a hello"],
        ),
        (
            "CHUNK-TRAILERS",
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
             Content-Length: 50\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            &["POST /a hello", "GET /b "],
        ),
        (
            "CL-ZERO",
            b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            &["GET /a ", "GET /b "],
        ),
        (
            "POST-NO-LENGTH",
            b"POST /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            &["POST /a ", "GET /b "],
        ),
        (
            "OPTIONS-BODY",
            b"OPTIONS /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            &["OPTIONS /a hello", "GET /b "],
        ),
        (
            "BODY-IS-A-REQUEST",
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            &["POST /a GET / HTTP/1.1\\r\\n\\r\\n"],
        ),
        ("ABSOLUTE-FORM", b"GET https://A:443/a HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /a "]),
        ("ASTERISK-FORM", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &["OPTIONS * "]),
        ("DOT-SEGMENTS", b"GET /x/../a//b/./c HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /a/b/c "]),
        (
            "CONNECTION-LIST",
            b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, ,X-Hop\r\nX-Hop: 1\r\n\r\nGET /b HTTP/1.1\r\n\
             Host: a\r\n\r\n",
            &["GET /a ", "GET /b "],
        ),
        (
            "CONNECTION-CLOSE",
            b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            &["GET /a "],
        ),
        ("HTTP10-CLOSES", b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n", &["GET /a "]),
        (
            "UPGRADE-CLOSES",
            b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\nGET /b HTTP/1.1\r\n\
             Host: a\r\n\r\n",
            &["GET /a "],
        ),
    ];
    for (name, stream, requests) in tables {
        let Seen {
            requests: seen,
            refused,
            ..
        } = check_splits(name, stream);
        assert_eq!(
            (seen, refused),
            (requests.iter().map(|request| (*request).to_string()).collect(), None),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_complete_is_waited_for() {
    let streams: [&[u8]; 9] = [
        b"",
        b"\r",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for stream in streams {
        let seen = check_splits("incomplete", stream);
        assert_eq!(
            (seen.requests.len(), seen.refused),
            (0, None),
            "{}",
            stream.escape_ascii()
        );
    }
}
