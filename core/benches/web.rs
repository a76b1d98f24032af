//! How long does a request take on its way through? The core alone, no socket and no TLS.
//!
//! `cargo bench -p edgeward-core --bench web` prints a table.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
};

use bytes::BytesMut;
use edgeward_core::{
    config::Config,
    http::{Client, ClientItem, Decision, Forward, Item, Server, route},
    time::UnixTime,
};

mod common;

const REQUESTS: usize = 100_000;

fn main() {
    common::head();
    let config = common::config(CONFIG);
    common::time(
        &format!("parse, route and write a request of {} bytes", REQUEST.len()),
        REQUESTS,
        || (),
        |()| {
            let mut out = BytesMut::with_capacity(4096);
            for _ in 0..REQUESTS {
                black_box(ask(&config, &mut out));
                out.clear();
            }
        },
    );
    common::time(
        &format!("parse and write a response of {} bytes", RESPONSE.len()),
        REQUESTS,
        || {
            (0..REQUESTS)
                .map(|_| ask(&config, &mut BytesMut::new()))
                .collect::<Vec<_>>()
        },
        |exchanges| {
            let mut out = BytesMut::with_capacity(4096);
            for (mut server, mut client) in exchanges {
                answer(&mut server, &mut client, &mut out);
                assert!(server.is_idle(), "the exchange is over");
                out.clear();
            }
        },
    );
}

/// Takes a request in and writes it to its upstream.
fn ask(config: &Config, out: &mut BytesMut) -> (Server, Client) {
    let limits = &config.https.as_ref().expect("the web role is configured").limits;
    let (mut server, mut client) = (Server::new(limits), Client::new(limits));
    let mut used = 0;
    while let Some((item, length)) = server.next(black_box(&REQUEST.as_bytes()[used..])).expect("a request") {
        used += length;
        match item {
            Item::Request(request) => {
                assert!(matches!(route(config, &request), Decision::Forward { .. }));
                client.request(&request, &FORWARD, out);
            }
            Item::Body(_) => unreachable!("it has none"),
            Item::End => {
                client.end(out);
                break;
            }
        }
    }
    (server, client)
}

/// Takes the response in and writes it to the browser.
fn answer(server: &mut Server, client: &mut Client, out: &mut BytesMut) {
    let mut used = 0;
    while let Some((item, length)) = client
        .next(black_box(&RESPONSE.as_bytes()[used..]))
        .expect("a response")
    {
        used += length;
        match item {
            ClientItem::Response(head, body) => server.respond(&head, body, UnixTime(1_700_000_000), out),
            ClientItem::Body(data) => server.body(data, out),
            ClientItem::End => return server.end(out),
            ClientItem::Informational(_) | ClientItem::Switched(_) => unreachable!("it is neither"),
        }
    }
}

const FORWARD: Forward<'_> = Forward {
    peer: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
    trusted_proxies: &[],
    host: None,
    request_id: 0x1234_5678_9abc_def0_1234_5678_9abc_def0,
    upgrade: None,
};

const REQUEST: &str = "GET /ucassistant/assets/app.js?v=20260101 HTTP/1.1\r\n\
    Host: edge.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: */*\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://edge.example.org/ucassistant\r\n\
    Cookie: session=0123456789abcdef\r\n\
    Connection: keep-alive\r\n\r\n";

const RESPONSE: &str = "HTTP/1.1 200 OK\r\n\
    Date: Mon, 05 Jan 2026 10:00:00 GMT\r\n\
    Content-Type: application/javascript\r\n\
    Cache-Control: max-age=3600\r\n\
    ETag: \"5d8c72a5edda8\"\r\n\
    Content-Length: 20\r\n\r\n\
    twenty bytes of body";

const CONFIG: &str = r#"
[https]
listen = "192.0.2.10:443"
certificates = [{ cert = "edge.pem", key = "edge.key" }]

[[web.upstream]]
name = "cc"
url = "http://10.0.0.10"

[[web.route]]
path = ["/ccagent", "/ucassistant", "/switchboard", "/assets", "/config", "/xuc", "/version", "/video"]
"#;
