//! Does everything that comes in go out with the meaning it had? Properties of both sides together, on streams made up
//! and spoilt at random.

use core::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{time::UnixTime, wire::http1::Name};

/// What one request means.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meaning {
    method: &'static str,
    path: String,
    query: Option<String>,
    /// Those that nobody on the way has business with.
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
}

/// What a stream of requests comes to, each answered when complete; and what an upstream gets of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Passed {
    meanings: Vec<Meaning>,
    refused: Option<Reject>,
    /// One stream for each request, as if each went to another connection.
    forwarded: Vec<Vec<u8>>,
}

fn pass(stream: &[u8], cuts: &[usize]) -> Passed {
    let limits = HttpLimits::default();
    let mut server = Server::new(&limits);
    let mut client = Client::new(&limits);
    let (mut passed, mut out) = (Passed::default(), BytesMut::new());
    let mut meaning = None;
    let mut read = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        loop {
            match server.next(&stream[read..end]) {
                Ok(None) => break,
                Ok(Some((item, len))) => {
                    read += len;
                    match item {
                        Item::Request(request) => {
                            client = Client::new(&limits);
                            // Routing lets no request without a host through.
                            let host = request.host.is_none().then_some("lan.example");
                            client.request(&request, &Forward { host, ..forward() }, &mut out);
                            meaning = Some(mean(&request));
                        }
                        Item::Body(data) => {
                            client.body(data, &mut out);
                            meaning
                                .as_mut()
                                .expect("a head came before")
                                .body
                                .extend_from_slice(data);
                        }
                        Item::End => {
                            client.end(&mut out);
                            passed.meanings.extend(meaning.take());
                            passed.forwarded.push(out.split().to_vec());
                            server.respond_local(&Answer::new(204), UnixTime(0), &mut BytesMut::new());
                        }
                    }
                }
                Err(reject) => {
                    passed.refused = Some(reject);
                    return passed;
                }
            }
        }
    }
    passed
}

fn mean(request: &Request<'_>) -> Meaning {
    let of_nobody = request.fields.iter().filter(|field| field.id == Name::Other);
    // Fields that the Connection field names are for us.
    let passing = of_nobody.filter(|field| !request.connection.names(field.name, &request.fields));
    Meaning {
        method: request.method.as_str(),
        path: request.target.path().to_string(),
        query: request.target.query().map(str::to_string),
        fields: passing
            .map(|field| (field.name.to_vec(), field.value.to_vec()))
            .collect(),
        body: Vec::new(),
    }
}

fn forward() -> Forward<'static> {
    Forward {
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        trusted_proxies: &[],
        host: None,
        request_id: 1,
        upgrade: None,
    }
}

/// A request that is valid, in one of many spellings.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = ("(GET|POST|PUT|OPTIONS|DELETE)", target(), "HTTP/1\\.[01]");
    let fields = prop::collection::vec(field(), 0..6);
    (line, fields, body(), any::<Index>()).prop_map(|((method, target, version), mut fields, body, place)| {
        let (framing, body) = match body {
            Some((_, true, chunks)) if version.ends_with('1') => ("Transfer-Encoding: Chunked".to_string(), chunks),
            Some((body, ..)) => (format!("content-length:{}", body.len()), body),
            None => ("X-None: 1".into(), Vec::new()),
        };
        if method != "GET" {
            fields.insert(place.index(fields.len() + 1), framing.into_bytes());
        }
        fields.insert(place.index(fields.len() + 1), b"Host: edge.example".to_vec());
        let mut stream = format!("{method} {target} {version}\r\n").into_bytes();
        for field in fields {
            stream.extend_from_slice(&field);
            stream.extend_from_slice(b"\r\n");
        }
        stream.extend_from_slice(b"\r\n");
        if method != "GET" {
            stream.extend_from_slice(&body);
        }
        stream
    })
}

fn target() -> impl Strategy<Value = String> {
    "(/(a|b|\\.|%2e|c%20d|))*/x(\\?[a-z=&%/]{0,8})?"
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    let name = "(X-[A-Za-z0-9]{1,8}|accept|Cookie|Connection|Via|X-Forwarded-For|Keep-Alive)";
    let value = prop_oneof!["[ -~]{0,20}", "(close|keep-alive|x-a|X-1)(, (te|x-b))?"];
    let white = "[ \t]{0,2}";
    (name, white, value, white)
        .prop_map(|(name, before, value, after)| format!("{name}:{before}{value}{after}").into_bytes())
}

/// A body, whether it is to be chunked, and how.
fn body() -> impl Strategy<Value = Option<(Vec<u8>, bool, Vec<u8>)>> {
    let pieces = prop::collection::vec((prop::collection::vec(any::<u8>(), 1..20), "(;a|;b=\"c d\")?"), 0..4);
    let bodies = (pieces, any::<bool>(), "(X-T: 1\r\n)?").prop_map(|(pieces, is_chunked, trailer)| {
        let mut chunks = Vec::new();
        for (data, extension) in &pieces {
            chunks.extend_from_slice(format!("{:X}{extension}\r\n", data.len()).as_bytes());
            chunks.extend_from_slice(data);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        let data = pieces.into_iter().flat_map(|(data, _)| data).collect();
        (data, is_chunked, chunks)
    });
    prop::option::of(bodies)
}

/// A stream of requests, in which some bytes may be changed, put in or taken out.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let requests = prop::collection::vec(request(), 1..4);
    let spoilt = prop::sample::select(&b"\r\n\t :;,_0aZ\0\x80\"%/"[..]);
    let changes = prop::collection::vec((any::<Index>(), spoilt, 0..3), 0..3);
    (requests, changes).prop_map(|(requests, changes)| {
        let mut stream = requests.concat();
        for (place, byte, kind) in changes {
            let at = place.index(stream.len());
            match kind {
                0 => stream[at] = byte,
                1 => stream.insert(at, byte),
                _ => drop(stream.remove(at)),
            }
        }
        stream
    })
}

/// Where to cut a stream.
fn places(indices: &[Index], stream: &[u8]) -> Vec<usize> {
    let mut cuts: Vec<usize> = indices.iter().map(|index| index.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn a_valid_request_is_served(stream in request()) {
        let passed = pass(&stream, &[]);
        // Some lists of options that the generator makes are no lists of tokens.
        let is_known = passed.refused.is_none_or(|reject| reject.why == "malformed Connection");
        prop_assert!(is_known, "{:?}", passed.refused);
        prop_assert!(passed.refused.is_some() || passed.meanings.len() == 1);
    }

    #[test]
    fn any_cut_means_the_same(stream in stream(), cuts in prop::collection::vec(any::<Index>(), 0..8)) {
        let mut whole = pass(&stream, &[]);
        let mut cut = pass(&stream, &places(&cuts, &stream));
        // Chunks are cut where the bytes were; what they mean is compared below.
        whole.forwarded.clear();
        cut.forwarded.clear();
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn what_is_forwarded_means_the_same_and_no_more(stream in stream()) {
        let passed = pass(&stream, &[]);
        for (meaning, forwarded) in passed.meanings.iter().zip(&passed.forwarded) {
            // Another request behind it shows whether the upstream would see the end where we saw it.
            let followed = [forwarded, &b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"[..]].concat();
            let again = pass(&followed, &[]);
            prop_assert_eq!(again.refused, None, "{}", forwarded.escape_ascii());
            prop_assert_eq!(again.meanings.len(), 2);
            prop_assert_eq!(&again.meanings[0], meaning);
            prop_assert_eq!(&*again.meanings[1].path, "/next");
        }
    }

    #[test]
    fn a_response_means_the_same_to_the_client(
        status in prop::sample::select(&[200_u16, 201, 204, 304, 404, 500][..]),
        is_head in any::<bool>(),
        http10 in any::<bool>(),
        framing in 0..3,
        body in body(),
        cuts in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let (data, _, chunks) = body.unwrap_or_else(|| (Vec::new(), false, b"0\r\n\r\n".to_vec()));
        let is_bodiless = is_head || matches!(status, 204 | 304);
        let (field, content) = match framing {
            0 => (format!("Content-Length: {}\r\n", data.len()), &data),
            1 => ("Transfer-Encoding: chunked\r\n".to_string(), &chunks),
            _ => (String::new(), &data),
        };
        let mut stream = format!("HTTP/1.1 {status} As It Is\r\nX-A: b\r\n{field}\r\n").into_bytes();
        if !is_bodiless {
            stream.extend_from_slice(content);
        }
        let version = if http10 { "1.0" } else { "1.1" };
        let method = if is_head { "HEAD" } else { "GET" };
        let asked = format!("{method} / HTTP/{version}\r\nHost: a\r\n\r\n");
        let seen = relay(asked.as_bytes(), &stream, &places(&cuts, &stream));
        let again = relay(asked.as_bytes(), &seen, &[]);
        // Once through the edge changes the framing, twice no more than once but for the cuts.
        let (_, first) = read_response(asked.as_bytes(), &seen);
        let (head, second) = read_response(asked.as_bytes(), &again);
        prop_assert_eq!(head, format!("{status} As It Is b"));
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(first, if is_bodiless { Vec::new() } else { data });
    }
}

/// A client connection and an upstream connection that carries its one request.
fn pair(asked: &[u8]) -> (Server, Client) {
    let limits = HttpLimits::default();
    let (mut server, mut client) = (Server::new(&limits), Client::new(&limits));
    let Ok(Some((Item::Request(request), _))) = server.next(asked) else {
        panic!("a request");
    };
    client.request(&request, &forward(), &mut BytesMut::new());
    client.end(&mut BytesMut::new());
    assert!(matches!(server.next(b""), Ok(Some((Item::End, 0)))));
    (server, client)
}

/// What a client gets of an upstream's stream that then ends.
fn relay(asked: &[u8], stream: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut server, mut client) = pair(asked);
    let (mut out, mut read) = (BytesMut::new(), 0);
    let mut carry = |item: ClientItem<'_>, out: &mut BytesMut| match item {
        ClientItem::Response(head, length) => server.respond(&head, length, UnixTime(0), out),
        ClientItem::Body(data) => server.body(data, out),
        ClientItem::End => server.end(out),
        ClientItem::Informational(_) | ClientItem::Switched(_) => panic!("neither was sent"),
    };
    for end in cuts.iter().copied().chain([stream.len()]) {
        while let Some((item, len)) = client.next(&stream[read..end]).expect("a response") {
            read += len;
            carry(item, &mut out);
        }
    }
    if let Some(item) = client.eof().expect("a whole response") {
        carry(item, &mut out);
    }
    out.to_vec()
}

/// Status, reason and the one field of a response; and its body.
fn read_response(asked: &[u8], stream: &[u8]) -> (String, Vec<u8>) {
    let (_, mut client) = pair(asked);
    let (mut text, mut body, mut read) = (String::new(), Vec::new(), 0);
    while let Some((item, len)) = client.next(&stream[read..]).expect("a response") {
        read += len;
        match item {
            ClientItem::Response(head, _) => {
                let field = head.fields.get("x-a").expect("the field");
                text = format!(
                    "{} {} {}",
                    head.status,
                    head.reason.escape_ascii(),
                    field.escape_ascii()
                );
            }
            ClientItem::Body(data) => body.extend_from_slice(data),
            ClientItem::End => {}
            ClientItem::Informational(_) | ClientItem::Switched(_) => panic!("neither was sent"),
        }
    }
    client.eof().expect("a whole response");
    (text, body)
}
