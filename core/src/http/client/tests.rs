//! What are upstreams asked, and which of their answers are used? Tables of requests as forwarded, of responses whole
//! and cut into pieces, and of what may follow on the connection.

use super::*;
use crate::http::{Item, Server};

const KEY: &[u8] = b"dGhlIHNhbXBsZSBub25jZQ==";
const PEER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

fn forward(upgrade: bool) -> Forward<'static> {
    Forward {
        peer: PEER,
        trusted_proxies: &[],
        host: None,
        request_id: 0xabc,
        upgrade: upgrade.then(|| Accept::of_key(KEY).expect("a key")),
    }
}

/// The stream of one request as an upstream gets it.
fn forwarded(stream: &[u8], forward: &Forward<'_>) -> String {
    let limits = HttpLimits::default();
    let (mut server, mut client) = (Server::new(&limits), Client::new(&limits));
    let (mut out, mut at) = (BytesMut::new(), 0);
    while let Some((item, len)) = server.next(&stream[at..]).expect("a request") {
        at += len;
        match item {
            Item::Request(request) => client.request(&request, forward, &mut out),
            Item::Body(data) => client.body(data, &mut out),
            Item::End => client.end(&mut out),
        }
    }
    assert_eq!(at, stream.len());
    String::from_utf8_lossy(&out).into_owned()
}

/// What the edge adds for a client at 192.0.2.1 that asked `host` for port 443.
fn added(host: &str) -> String {
    format!(
        "X-Real-IP: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: {host}\r\nX-Forwarded-Port: 443\r\n\
         X-Forwarded-Proto: https\r\nX-Request-ID: 00000000000000000000000000000abc\r\nVia: 1.1 edgeward\r\n"
    )
}

#[test]
#[rustfmt::skip]
fn requests_are_written_anew() {
    for (stream, line, fields, framing) in [
        ("GET /a//b/../c?d=/../ HTTP/1.1\r\nhost:a\r\n\r\n", "GET /a/c?d=/../", "", "\r\n"),
        ("GET https://a/%7euser HTTP/1.1\r\nHost: a\r\n\r\n", "GET /~user", "", "\r\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *", "", "\r\n"),
        (
            "GET / HTTP/1.1\r\nX-One:  1 \r\nHost: a\r\nx-two:\r\nAccept: */*\r\nX-One: 2\r\nVia: 1.0 b\r\n\r\n",
            "GET /",
            "X-One: 1\r\nx-two: \r\nAccept: */*\r\nX-One: 2\r\nVia: 1.0 b\r\n",
            "\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:5\r\n\r\nhello",
            "POST /",
            "",
            "Content-Length: 5\r\n\r\nhello",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", "POST /", "", "Content-Length: 0\r\n\r\n"),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", "DELETE /", "", "\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "GET /", "", "Content-Length: 0\r\n\r\n"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0A;x\r\n0123456789\r\n1\r\na\r\n\
             000\r\nX: y\r\n\r\n",
            "POST /",
            "",
            "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n1\r\na\r\n0\r\n\r\n",
        ),
    ] {
        let expected = format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}{}{framing}", added("a"));
        assert_eq!(forwarded(stream.as_bytes(), &forward(false)), expected, "{stream}");
    }
}

#[test]
fn only_end_to_end_fields_pass() {
    let stream = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop, TE, Upgrade, HTTP2-Settings\r\nX-Hop: 1\r\n\
        Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\n\
        Trailer: X\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\nExpect: 100-continue\r\n\
        Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nX-Kept: 1\r\n\r\n";
    let expected = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n{}\r\n", added("a"));
    assert_eq!(forwarded(stream, &forward(false)), expected);
}

#[test]
fn what_a_client_says_about_itself_is_replaced() {
    let stream = b"GET / HTTP/1.1\r\nHost: a:443\r\nX-Forwarded-For: 127.0.0.1\r\nx-forwarded-proto: http\r\n\
        X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Server: evil\r\nX-Forwarded-Prefix: /evil\r\n\
        X-Forwarded: for=1\r\nForwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Request-ID: evil\r\n\
        X-Client-IP: 127.0.0.1\r\nTrue-Client-IP: 127.0.0.1\r\nX-Cluster-Client-IP: 127.0.0.1\r\n\
        CF-Connecting-IP: 127.0.0.1\r\nProxy: http://evil\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n\r\n";
    let expected = format!("GET / HTTP/1.1\r\nHost: a:443\r\n{}\r\n", added("a:443"));
    assert_eq!(forwarded(stream, &forward(false)), expected);
}

#[test]
fn the_upstream_may_have_another_host() {
    let stream = b"GET / HTTP/1.1\r\nHost: a:8443\r\n\r\n";
    let forward = Forward {
        host: Some("cc.lan:9443"),
        ..forward(false)
    };
    let expected = format!("GET / HTTP/1.1\r\nHost: cc.lan:9443\r\n{}\r\n", added("a:8443"));
    assert_eq!(forwarded(stream, &forward), expected.replace("Port: 443", "Port: 8443"));
}

#[test]
fn a_trusted_proxy_is_believed() {
    let stream = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1, 198.51.100.7\r\n\r\n";
    let trusted = ["192.0.2.0/24".parse().expect("a network")];
    let forward = Forward {
        trusted_proxies: &trusted,
        ..forward(false)
    };
    let request = forwarded(stream, &forward);
    assert!(
        request.contains("\r\nX-Real-IP: 198.51.100.7\r\nX-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n"),
        "{request}"
    );
}

#[test]
fn max_forwards_counts_down() {
    for (method, value, expected) in [
        ("OPTIONS", "5", Some("4")),
        ("OPTIONS", "+5", None),
        ("OPTIONS", "99999999999", None),
        ("GET", "5", None),
    ] {
        let stream = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
        let request = forwarded(stream.as_bytes(), &forward(false));
        let found = request.lines().find_map(|line| line.strip_prefix("Max-Forwards: "));
        assert_eq!(found, expected, "{method} {value}");
    }
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: x\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: https://a\r\n\r\n";

#[test]
fn an_upgrade_is_asked_for_only_when_told_to() {
    let request = forwarded(HANDSHAKE.as_bytes(), &forward(true));
    let expected = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Extensions: permessage-deflate\r\nOrigin: https://a\r\n{}\
         Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        added("a")
    );
    assert_eq!(request, expected);
    let request = forwarded(HANDSHAKE.as_bytes(), &forward(false));
    assert_eq!(
        request,
        format!("GET /ws HTTP/1.1\r\nHost: a\r\nOrigin: https://a\r\n{}\r\n", added("a"))
    );
}

/// A connection on which a request was sent.
fn asked(request: &str, upgrade: bool) -> Client {
    let limits = HttpLimits::default();
    let mut server = Server::new(&limits);
    let mut client = Client::new(&limits);
    let Ok(Some((Item::Request(request), _))) = server.next(request.as_bytes()) else {
        panic!("a request");
    };
    client.request(&request, &forward(upgrade), &mut BytesMut::new());
    client.end(&mut BytesMut::new());
    client
}

/// What a stream of an upstream comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Interim responses, the response with its length, its body and `END`, `SWITCHED`.
    text: String,
    failed: Option<UpstreamError>,
    left: usize,
    reusable: bool,
}

fn feed(mut client: Client, stream: &[u8], cuts: &[usize], eof: bool) -> Seen {
    let mut seen = Seen::default();
    let mut at = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        loop {
            match client.next(&stream[at..end]) {
                Ok(None) => break,
                Ok(Some((item, len))) => {
                    at += len;
                    note(&mut seen, &item);
                }
                Err(error) => {
                    assert!(!client.reusable() && client.next(&stream[at..]).is_ok_and(|item| item.is_none()));
                    seen.failed = Some(error);
                    seen.left = stream.len() - at;
                    return seen;
                }
            }
        }
    }
    if eof {
        match client.eof() {
            Ok(item) => item.iter().for_each(|item| note(&mut seen, item)),
            Err(error) => seen.failed = Some(error),
        }
    }
    seen.left = stream.len() - at;
    seen.reusable = client.reusable();
    seen
}

fn note(seen: &mut Seen, item: &ClientItem<'_>) {
    seen.text += &match item {
        ClientItem::Informational(head) => format!("{} ", head.status),
        ClientItem::Response(head, length) => format!("{} {} {length:?} ", head.status, head.reason.escape_ascii()),
        ClientItem::Body(data) => data.escape_ascii().to_string(),
        ClientItem::End => " END".into(),
        ClientItem::Switched(head) => format!("{} SWITCHED", head.status),
    };
}

/// What a stream comes to, which must be the same however it is cut into pieces.
fn check_splits(request: &str, upgrade: bool, stream: &[u8], eof: bool) -> Seen {
    let whole = feed(asked(request, upgrade), stream, &[], eof);
    for cut in 0..stream.len() {
        let cut_once = feed(asked(request, upgrade), stream, &[cut], eof);
        assert_eq!(cut_once, whole, "{} cut at {cut}", stream.escape_ascii());
    }
    let bytes: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(feed(asked(request, upgrade), stream, &bytes, eof), whole);
    whole
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
#[rustfmt::skip]
fn responses() {
    for (request, stream, text, reusable) in [
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 OK Known(5) hello END", true),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK Known(0)  END", true),
        (
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX: y\r\n\r\n",
            "200 OK Chunked hello END",
            true,
        ),
        (GET, "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", "404  Known(0)  END", true),
        (GET, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200  Known(0)  END", true),
        (GET, "HTTP/1.1 599 A b\tc\u{e9}\r\nContent-Length: 0\r\n\r\n", "599 A b\\tc\\xc3\\xa9 Known(0)  END", true),
        (GET, "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", "200 OK Known(0)  END", false),
        (
            GET,
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            "200 OK Known(0)  END",
            false,
        ),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n", "204 No Content Empty  END", true),
        (GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 No Content Known(0)  END", true),
        // It might send that body all the same.
        (GET, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "204 No Content Known(5)  END", false),
        (GET, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "204 No Content Chunked  END", false),
        (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 Not Modified Known(5)  END", true),
        (GET, "HTTP/1.1 304 Not Modified\r\n\r\n", "304 Not Modified Empty  END", true),
        (HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200 OK Known(5)  END", true),
        (HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200 OK Chunked  END", true),
        (HEAD, "HTTP/1.1 200 OK\r\n\r\n", "200 OK Empty  END", true),
        (
            GET,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\
             Content-Length: 1\r\n\r\nx",
            "100 103 200 OK Known(1) x END",
            true,
        ),
    ] {
        let seen = check_splits(request, false, stream.as_bytes(), false);
        let expected = Seen {
            text: text.into(),
            reusable,
            ..Seen::default()
        };
        assert_eq!(seen, expected, "{stream}");
    }
}

#[test]
#[rustfmt::skip]
fn bodies_that_last_as_long_as_the_connection() {
    for (stream, text, failed) in [
        ("HTTP/1.1 200 OK\r\n\r\nhello", "200 OK UntilClose hello END", None),
        ("HTTP/1.0 200 OK\r\n\r\n", "200 OK UntilClose  END", None),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            "200 OK Known(6) hello",
            Some(UpstreamError::Incomplete),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "200 OK Chunked hello",
            Some(UpstreamError::Incomplete),
        ),
        ("HTTP/1.1 200 OK\r\n", "", Some(UpstreamError::Incomplete)),
        ("", "", Some(UpstreamError::Incomplete)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK Known(0)  END", None),
    ] {
        let seen = check_splits(GET, false, stream.as_bytes(), true);
        assert_eq!(
            (&*seen.text, seen.failed, seen.reusable),
            (text, failed, false),
            "{stream}"
        );
    }
}

#[test]
#[rustfmt::skip]
fn malformed_responses_are_refused() {
    for (stream, why) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "both Content-Length and Transfer-Encoding",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "malformed Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", "malformed Content-Length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", "malformed Content-Length"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n", "malformed Content-Length"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed Transfer-Encoding"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", "malformed Transfer-Encoding"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "unsupported transfer coding"),
        ("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\n", "malformed Connection"),
        ("HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n", "line end is not CRLF"),
        ("HTTP/1.1 200 OK\r\nX: y\n\r\n", "line end is not CRLF"),
        ("HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", "white space before a field"),
        ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "malformed field name"),
        ("HTTP/1.1 200 OK\r\nX: y\0\r\n\r\n", "malformed field value"),
        ("HTTP/1.1 200 OK\r\nX: y\rSet-Cookie: z\r\n\r\n", "malformed field value"),
        ("HTTP/1.1 200 O\0K\r\n\r\n", "malformed status line"),
        ("HTTP/1.1 200OK\r\n\r\n", "malformed status line"),
        ("HTTP/1.1 0200 OK\r\n\r\n", "malformed status line"),
        ("HTTP/1.1 600 Odd\r\n\r\n", "malformed status line"),
        ("HTTP/1.1 099 Odd\r\n\r\n", "malformed status line"),
        ("HTTP/1.1  200 OK\r\n\r\n", "malformed status line"),
        ("HTTP/2.0 200 OK\r\n\r\n", "unsupported HTTP version"),
        ("http/1.1 200 OK\r\n\r\n", "malformed status line"),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "malformed status line"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX", "chunk data longer than its size"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n", "malformed chunk size"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n", "malformed trailer section"),
        ("HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n", "length of an interim response"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "wrong protocol switch",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "unsolicited bytes"),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "unsolicited bytes"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n", "unsolicited bytes"),
    ] {
        let seen = check_splits(GET, false, stream.as_bytes(), false);
        assert_eq!(seen.failed.map(UpstreamError::as_str), Some(why), "{stream}");
    }
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
    let seen = feed(asked(GET, false), interim.as_bytes(), &[], false);
    assert_eq!(seen.failed, Some(UpstreamError::InterimResponses));
}

#[test]
fn a_switch_is_checked() {
    let right = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: x, upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    // Bytes that came along are the tunnel's.
    let seen = check_splits(HANDSHAKE, true, format!("{right}frame").as_bytes(), false);
    assert_eq!((&*seen.text, seen.left, seen.reusable), ("101 SWITCHED", 5, false));
    for (from, to) in [
        ("s3pP", "S3pP"),
        ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", ""),
        ("Upgrade: WebSocket\r\n", ""),
        ("Upgrade: WebSocket", "Upgrade: h2c"),
        ("Upgrade: WebSocket", "Upgrade: websocket\r\nUpgrade: websocket"),
        ("Connection: x, upgrade\r\n", ""),
        ("Connection: x, upgrade", "Connection: close"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n"),
        ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (
            "\r\n\r\n",
            "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        ),
    ] {
        let wrong = right.replacen(from, to, 1);
        let seen = check_splits(HANDSHAKE, true, wrong.as_bytes(), false);
        assert!(seen.failed.is_some() && seen.text.is_empty(), "{wrong}");
    }
}

#[test]
fn a_refused_switch_ends_the_connection() {
    // CVE-2026-2833, CVE-2026-58055: nothing is a tunnel before its 101, and nothing follows on such a connection.
    let seen = check_splits(
        HANDSHAKE,
        true,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        false,
    );
    assert_eq!(
        (&*seen.text, seen.failed, seen.reusable),
        ("200 OK Known(2) ok END", None, false)
    );
}

#[test]
fn an_early_response_leaves_the_connection_unusable() {
    let limits = HttpLimits::default();
    for (stream, ends) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", false),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", true),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            false,
        ),
    ] {
        let (mut server, mut client) = (Server::new(&limits), Client::new(&limits));
        let (mut out, mut at) = (BytesMut::new(), 0);
        while let Some((item, len)) = server.next(&stream.as_bytes()[at..]).expect("a request") {
            at += len;
            match item {
                Item::Request(request) => client.request(&request, &forward(false), &mut out),
                Item::Body(data) => client.body(data, &mut out),
                Item::End => panic!("the body is not whole"),
            }
        }
        let response = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        let (_, len) = client.next(response).expect("a response").expect("a head");
        let (end, _) = client.next(&response[len..]).expect("a response").expect("an end");
        assert!(matches!(end, ClientItem::End));
        if ends {
            client.end(&mut out);
        }
        assert!(!client.reusable());
    }
}

#[test]
fn an_idle_connection_says_nothing() {
    let limits = HttpLimits::default();
    let mut client = Client::new(&limits);
    assert!(client.reusable() && client.next(b"").is_ok_and(|item| item.is_none()));
    assert_eq!(client.next(b"H").err(), Some(UpstreamError::Unsolicited));
    assert!(!client.reusable());
    let mut closed = Client::new(&limits);
    assert!(closed.eof().is_ok_and(|item| item.is_none()));
    assert!(!closed.reusable());
}

#[test]
fn exchanges_follow_one_another() {
    let mut client = asked(HEAD, false);
    let first = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let (_, len) = client.next(first).expect("a response").expect("a head");
    assert_eq!(len, first.len());
    client.next(b"").expect("a response").expect("an end");
    assert!(client.reusable());
    let limits = HttpLimits::default();
    let Ok(Some((Item::Request(request), _))) = Server::new(&limits).next(GET.as_bytes()) else {
        panic!("a request");
    };
    client.request(&request, &forward(false), &mut BytesMut::new());
    client.end(&mut BytesMut::new());
    assert!(!client.reusable());
    let seen = feed(client, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", &[], false);
    assert_eq!((&*seen.text, seen.reusable), ("200 OK Known(5) hello END", true));
}
