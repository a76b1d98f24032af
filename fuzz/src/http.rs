//! Is an HTTP message that we accept the same to everybody else, and forwarded as exactly one?

use bytes::BytesMut;
use edgeward_core::{
    config::HttpLimits,
    http::{Client, Forward, Item, Server},
    wire::http1::{self, Field, Fields, Limits, Version},
};

use crate::split;

/// Heads of requests and responses: what we take, httparse takes too and reads the same out of it.
///
/// Known differences, all of them ours being stricter, show only where we refuse: bare LF, white space before the colon,
/// line folding, one empty line at the most before a request and none before a response, CTL in values.
pub fn head(bytes: &[u8]) {
    let limits = Limits::new(8 * 1024, 32 * 1024, 100);
    if let Ok(Some((head, len))) = http1::request_head(bytes, &limits) {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut theirs = httparse::Request::new(&mut fields);
        assert_eq!(theirs.parse(&bytes[..len]), Ok(httparse::Status::Complete(len)));
        assert_eq!(theirs.method.map(str::as_bytes), Some(head.method));
        assert_eq!(theirs.path.map(str::as_bytes), Some(head.target));
        assert_eq!(theirs.version, Some(minor(head.version)));
        same_fields(&head.fields, theirs.headers);
        for cut in cuts(len) {
            let early = http1::request_head(&bytes[..cut], &limits);
            assert!(
                matches!(early, Ok(None)),
                "a head was taken for whole, or refused, at byte {cut} of {len}"
            );
        }
    }
    if let Ok(Some((head, len))) = http1::response_head(bytes, &limits) {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut theirs = httparse::Response::new(&mut fields);
        assert_eq!(theirs.parse(&bytes[..len]), Ok(httparse::Status::Complete(len)));
        assert_eq!(theirs.code, Some(head.status));
        assert_eq!(theirs.version, Some(minor(head.version)));
        same_fields(&head.fields, theirs.headers);
    }
}

fn minor(version: Version) -> u8 {
    match version {
        Version::Http10 => 0,
        Version::Http11 => 1,
    }
}

fn same_fields(ours: &Fields<'_>, theirs: &[httparse::Header<'_>]) {
    let ours: Vec<_> = ours.iter().map(|Field { name, value, .. }| (name, value)).collect();
    let theirs: Vec<_> = theirs
        .iter()
        .map(|field| (field.name.as_bytes(), http1::trim(field.value)))
        .collect();
    assert_eq!(ours, theirs);
}

/// Some places within a head.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (1..=8)
        .map(move |eighth| len * eighth / 8)
        .map(move |at| at.min(len - 1))
}

/// A connection of a client: in whatever pieces it comes, the same requests are understood; and each is forwarded as
/// exactly one request with exactly that body.
pub fn body(bytes: &[u8]) {
    let (pattern, stream) = split::pattern(bytes);
    let whole = exchange(std::iter::once(stream));
    let cut = exchange(split::pieces(stream, pattern));
    assert_eq!(whole, cut, "the pieces changed the meaning");
}

/// What a server made of a connection.
#[derive(Debug, PartialEq, Eq, Default)]
struct Understood {
    /// Of each request its head as it was forwarded, and its body.
    requests: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the last one was read to its end.
    ended: bool,
    refused: Option<u16>,
}

fn exchange<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Understood {
    let limits = HttpLimits::default();
    let mut server = Server::new(&limits);
    let mut client = Client::new(&limits);
    let (mut input, mut upstream, mut answer) = (Vec::new(), BytesMut::new(), BytesMut::new());
    let mut understood = Understood::default();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let item = match server.next(&input) {
                Ok(item) => item,
                Err(reject) => {
                    assert!((400..=599).contains(&reject.status));
                    understood.refused = Some(reject.status);
                    return understood;
                }
            };
            let Some((item, len)) = item else { break };
            match item {
                Item::Request(request) => {
                    client = Client::new(&limits);
                    client.request(&request, &forward(), &mut upstream);
                    understood.requests.push((upstream.to_vec(), Vec::new()));
                    understood.ended = false;
                }
                Item::Body(data) => {
                    client.body(data, &mut upstream);
                    understood
                        .requests
                        .last_mut()
                        .expect("a head came first")
                        .1
                        .extend_from_slice(data);
                }
                Item::End => {
                    client.end(&mut upstream);
                    understood.ended = true;
                    let (_, body) = understood.requests.last().expect("a head came first");
                    one_request(&upstream, body);
                    upstream.clear();
                    server.respond_local(&OK, edgeward_core::time::UnixTime(0), &mut answer);
                }
            }
            input.drain(..len);
        }
    }
    understood
}

const OK: edgeward_core::http::Answer = edgeward_core::http::Answer::new(204);

fn forward() -> Forward<'static> {
    Forward {
        peer: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        trusted_proxies: &[],
        host: None,
        request_id: 7,
        upgrade: None,
    }
}

/// An upstream of few words: the bytes are one request with this body and nothing behind it.
fn one_request(bytes: &[u8], body: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(head_len)) = request.parse(bytes) else {
        panic!("what was forwarded is no request: {}", bytes.escape_ascii());
    };
    let all = |name: &str| -> Vec<&[u8]> {
        let named = request
            .headers
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    assert!(all("host").len() <= 1);
    assert!(all("upgrade").is_empty() && all("te").is_empty());
    let rest = &bytes[head_len..];
    match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) => assert!(body.is_empty() && rest.is_empty()),
        ([length], []) => {
            assert_eq!(*length, body.len().to_string().as_bytes());
            assert_eq!(rest, body);
        }
        ([], [b"chunked"]) => assert_eq!(dechunked(rest), body),
        other => panic!("ambiguous framing was forwarded: {other:?}"),
    }
}

/// Reads chunks in the plainest form there is; nothing else is forwarded.
fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line");
        let size = std::str::from_utf8(&bytes[..line])
            .ok()
            .and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let size = size.expect("a bare size");
        let (data, rest) = bytes[line + 2..].split_at(size);
        body.extend_from_slice(data);
        bytes = rest.strip_prefix(b"\r\n").expect("the end of a chunk");
        if size == 0 {
            assert!(bytes.is_empty(), "something stands behind the last chunk");
            return body;
        }
    }
}
