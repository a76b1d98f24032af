//! What are clients told? Responses passed on, answers of our own, and when the connection ends with them.

use super::*;

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

/// A connection whose client has sent `stream`, with all that could be read of it read.
fn after(stream: &[u8]) -> Server {
    let mut server = Server::new(&HttpLimits::default());
    read(&mut server, stream);
    server
}

/// Reads what can be read; returns what is left.
fn read<'b>(server: &mut Server, mut stream: &'b [u8]) -> &'b [u8] {
    while let Some((_, len)) = server.next(stream).expect("a request") {
        stream = &stream[len..];
    }
    stream
}

fn head(text: &str) -> ResponseHead<'_> {
    let limits = head_limits(&HttpLimits::default());
    let (head, len) = http1::response_head(text.as_bytes(), &limits)
        .expect("well-formed")
        .expect("whole");
    assert_eq!(len, text.len());
    head
}

/// Passes a response on and compares what the client gets, and whether the connection then closes.
fn check(request: &[u8], response: &str, length: BodyLength, data: &[&str], expected: &str, closes: bool) {
    let mut server = after(request);
    let mut out = BytesMut::new();
    server.respond(&head(response), length, NOW, &mut out);
    for data in data {
        server.body(data.as_bytes(), &mut out);
    }
    assert!(!server.closes());
    server.end(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected);
    assert_eq!((server.closes(), server.is_idle()), (closes, !closes), "{response}");
}

#[test]
fn bodies_are_framed_anew() {
    use BodyLength::{Chunked, Empty, Known, UntilClose};
    const HTTP10: &[u8] = b"GET /a HTTP/1.0\r\n\r\n";
    const HEAD: &[u8] = b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let ok = format!("HTTP/1.1 200 OK\r\n{DATE}\r\n");
    let start = format!("HTTP/1.1 200 OK\r\n{DATE}");
    for (request, length, data, expected, closes) in [
        (
            GET,
            Known(5),
            &["he", "", "llo"][..],
            "Content-Length: 5\r\n\r\nhello",
            false,
        ),
        (GET, Known(0), &[], "Content-Length: 0\r\n\r\n", false),
        (GET, Empty, &[], "Content-Length: 0\r\n\r\n", false),
        (
            GET,
            Chunked,
            &["0123456789", "", "b"],
            "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n1\r\nb\r\n0\r\n\r\n",
            false,
        ),
        (
            GET,
            UntilClose,
            &["ab"],
            "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            false,
        ),
        // What goes beyond the length would be the next response; what is missing shows by the end of the connection.
        (GET, Known(2), &["hello"], "Content-Length: 2\r\n\r\nhe", false),
        (GET, Known(9), &["hello"], "Content-Length: 9\r\n\r\nhello", true),
        (
            HTTP10,
            Known(5),
            &["hello"],
            "Content-Length: 5\r\nConnection: close\r\n\r\nhello",
            true,
        ),
        (HTTP10, Chunked, &["a", "b"], "Connection: close\r\n\r\nab", true),
        (HTTP10, UntilClose, &["a", "b"], "Connection: close\r\n\r\nab", true),
        (HEAD, Known(5), &[], "Content-Length: 5\r\n\r\n", false),
        (HEAD, Known(5), &["hello"], "Content-Length: 5\r\n\r\n", false),
        (HEAD, Chunked, &[], "\r\n", false),
        (HEAD, Empty, &[], "\r\n", false),
    ] {
        check(request, &ok, length, data, &format!("{start}{expected}"), closes);
    }
    let modified = format!("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n{DATE}");
    check(
        GET,
        &format!("{modified}\r\n"),
        Known(5),
        &["hello"],
        &format!("{modified}Content-Length: 5\r\n\r\n"),
        false,
    );
    let nothing = format!("HTTP/1.1 204 No Content\r\n{DATE}");
    check(
        GET,
        &format!("{nothing}\r\n"),
        Known(5),
        &["hello"],
        &format!("{nothing}\r\n"),
        false,
    );
}

#[test]
fn only_end_to_end_fields_pass() {
    check(
        GET,
        "HTTP/1.0 404 \r\nServer: x\r\nConnection: close, X-Hop, keep-alive\r\nKeep-Alive: timeout=5\r\nx-hop: 1\r\n\
         Content-Length: 99\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nUpgrade: h2c\r\nProxy-Connection: x\r\n\
         Proxy-Authenticate: Basic\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX_Under: \u{ff}\r\nEmpty:\r\n\r\n",
        BodyLength::Known(0),
        &[],
        &format!(
            "HTTP/1.1 404 \r\nServer: x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX_Under: \u{ff}\r\nEmpty: \r\n\
             {DATE}Content-Length: 0\r\n\r\n"
        ),
        false,
    );
}

#[test]
fn a_client_that_wants_to_close_is_let_go() {
    let request = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Close\r\n\r\n";
    let expected = format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: 0\r\nConnection: close\r\n\r\n");
    check(
        request,
        "HTTP/1.1 200 OK\r\n\r\n",
        BodyLength::Known(0),
        &[],
        &expected,
        true,
    );
}

/// Answers ourselves and compares what the client gets, and whether the connection then closes.
fn check_local(stream: &[u8], answer: &Answer, expected: &str, closes: bool) {
    let mut server = after(stream);
    let mut out = BytesMut::new();
    server.respond_local(answer, NOW, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected);
    // The end of a bodiless request may not have been pulled yet.
    read(&mut server, b"");
    assert_eq!((server.closes(), server.is_idle()), (closes, !closes), "{answer:?}");
}

#[test]
fn answers_of_our_own() {
    let close = "Connection: close\r\n";
    let not_found = |close: &str, body: &str| {
        format!("HTTP/1.1 404 Not Found\r\n{DATE}Content-Type: text/plain\r\nContent-Length: 14\r\n{close}\r\n{body}")
    };
    check_local(GET, &Answer::not_found(), &not_found("", "404 Not Found\n"), false);
    check_local(
        b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
        &Answer::not_found(),
        &not_found("", ""),
        false,
    );
    check_local(
        b"GET /a HTTP/1.0\r\n\r\n",
        &Answer::not_found(),
        &not_found(close, "404 Not Found\n"),
        true,
    );
    let options = Answer::new(204).with("Allow", "GET");
    check_local(
        GET,
        &options,
        &format!("HTTP/1.1 204 No Content\r\n{DATE}Allow: GET\r\n\r\n"),
        false,
    );
    // Nothing was asked, or not all of it: the answer is the last.
    let timeout = format!(
        "HTTP/1.1 408 Request Timeout\r\n{DATE}Content-Type: text/plain\r\nContent-Length: 20\r\n{close}\r\n\
         408 Request Timeout\n"
    );
    check_local(b"", &Answer::new(408), &timeout, true);
    check_local(b"GET / HTTP/1.1\r\nHo", &Answer::new(408), &timeout, true);
}

#[test]
fn an_answer_before_the_body_has_come_ends_the_connection() {
    // CVE-2025-4366: what is left of the body must not be read as a request.
    let heads: [&[u8]; 3] = [
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nhello",
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
    ];
    for stream in heads {
        let mut server = after(stream);
        let mut out = BytesMut::new();
        server.respond_local(&Answer::unauthorized(), NOW, &mut out);
        assert!(String::from_utf8_lossy(&out).contains("\r\nConnection: close\r\n"));
        assert!(server.closes());
        assert_eq!(read(&mut server, GET), GET);
    }
    // Once it has come, the connection goes on.
    let mut server = after(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    server.respond_local(&Answer::unauthorized(), NOW, &mut BytesMut::new());
    assert!(server.is_idle() && !server.closes());
    assert_eq!(read(&mut server, GET), b"");
}

#[test]
fn a_response_before_the_body_has_come_ends_the_connection_after_both() {
    let mut server = after(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    let mut out = BytesMut::new();
    server.respond(&head("HTTP/1.1 200 OK\r\n\r\n"), BodyLength::Chunked, NOW, &mut out);
    assert!(out.ends_with(b"Connection: close\r\n\r\n"));
    server.body(b"early", &mut out);
    // The body goes on being read as long as the response lasts, and what follows it never.
    let rest = [b"llo", GET].concat();
    assert_eq!(read(&mut server, &rest), GET);
    server.end(&mut out);
    assert!(out.ends_with(b"5\r\nearly\r\n0\r\n\r\n") && server.closes());
    assert_eq!(read(&mut server, GET), GET);
}

#[test]
fn requests_wait_for_the_response_to_the_last_one() {
    let stream = [GET, GET].concat();
    let mut server = Server::new(&HttpLimits::default());
    let mut left = read(&mut server, &stream);
    assert_eq!(left, GET);
    let mut out = BytesMut::new();
    for _ in 0..2 {
        assert!(!server.is_idle());
        server.respond(&head("HTTP/1.1 200 OK\r\n\r\n"), BodyLength::Known(2), NOW, &mut out);
        assert_eq!(read(&mut server, left), left);
        server.body(b"ok", &mut out);
        server.end(&mut out);
        left = read(&mut server, left);
    }
    assert!(left.is_empty() && server.is_idle());
}

#[test]
fn an_aborted_response_has_no_end() {
    let mut server = after(GET);
    let mut out = BytesMut::new();
    server.respond(&head("HTTP/1.1 200 OK\r\n\r\n"), BodyLength::UntilClose, NOW, &mut out);
    server.body(b"some", &mut out);
    let len = out.len();
    assert!(server.has_responded());
    // It is too late for a 502.
    server.respond_local(&Answer::new(502), NOW, &mut out);
    assert_eq!(out.len(), len);
    assert!(server.closes());
    assert_eq!(read(&mut server, GET), GET);
}

#[test]
fn interim_responses() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X\r\nX: 1\r\n\r\n";
    let mut out = BytesMut::new();
    let mut server = after(GET);
    server.inform(&head("HTTP/1.1 100 Continue\r\n\r\n"), &mut out);
    assert!(out.is_empty());
    server.inform(&head(hints), &mut out);
    assert_eq!(&out[..], b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    out.clear();
    after(b"GET /a HTTP/1.0\r\n\r\n").inform(&head(hints), &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let told = |stream: &[u8]| {
        let mut server = after(stream);
        let mut out = BytesMut::new();
        server.continue_(&mut out);
        server.continue_(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    let waiting = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n";
    assert_eq!(told(waiting), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(told(&[&waiting[..], b"h"].concat()), "");
    assert_eq!(
        told(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n"),
        ""
    );
    assert_eq!(
        told(b"POST /a HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
        ""
    );
    assert_eq!(told(GET), "");
    let mut server = after(waiting);
    server.respond_local(&Answer::new(413), NOW, &mut BytesMut::new());
    assert!(server.closes(), "nobody knows whether the body comes");
}

#[test]
fn bodies_are_limited() {
    for (limit, refused) in [(4, true), (5, false)] {
        let mut server = Server::new(&HttpLimits::default());
        let stream =
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        let (_, mut at) = server.next(stream).expect("a request").expect("whole");
        server.limit_body(limit);
        let reject = loop {
            match server.next(&stream[at..]) {
                Ok(Some((_, len))) => at += len,
                Ok(None) => break None,
                Err(reject) => break Some(reject.status),
            }
        };
        assert_eq!(reject, refused.then_some(413));
    }
}

#[test]
fn a_tunnel_is_no_longer_http() {
    let upgrade = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut out = BytesMut::new();
    let mut server = after(upgrade);
    server.switch(
        &head(
            "HTTP/1.1 101 whatever\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\
             Sec-WebSocket-Protocol: y\r\n\r\n",
        ),
        &mut out,
    );
    assert_eq!(
        String::from_utf8_lossy(&out),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\
         Sec-WebSocket-Protocol: y\r\n\r\n"
    );
    assert_eq!(read(&mut server, GET), GET);
    assert!(!server.closes() && !server.is_idle());

    out.clear();
    let mut server = after(upgrade);
    let accept = Accept::of_key(b"dGhlIHNhbXBsZSBub25jZQ==").expect("a key");
    server.accept_websocket(&accept, Some("sip"), &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
    );
    // Without a request there is nothing to switch.
    let mut server = after(b"");
    out.clear();
    server.accept_websocket(&accept, None, &mut out);
    assert!(out.is_empty() && server.closes());
}

#[test]
fn draining() {
    let mut idle = after(b"");
    idle.close_after_response();
    assert!(idle.closes());
    assert_eq!(read(&mut idle, GET), GET);

    let mut busy = after(GET);
    busy.close_after_response();
    assert!(!busy.closes());
    let mut out = BytesMut::new();
    busy.respond_local(&Answer::not_found(), NOW, &mut out);
    assert!(busy.closes() && String::from_utf8_lossy(&out).contains("Connection: close\r\n"));
}

#[test]
fn refusals_say_what_is_allowed() {
    let mut server = Server::new(&HttpLimits::default());
    let reject = server
        .next(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect_err("a refusal");
    let mut out = BytesMut::new();
    server.reject(reject, NOW, &mut out);
    assert!(String::from_utf8_lossy(&out).contains("\r\nAllow: GET, HEAD, "));
    assert!(server.closes());
}
