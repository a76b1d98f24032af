//! Where do requests go? Tables of requests and decisions.

use core::{net::SocketAddr, time::Duration};

use super::*;
use crate::{
    config::{Health, HttpLimits, Reach, SipLimits, SipPolicy, TrunkTransport},
    http::{Item, Server},
};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn sip(origins: &[&str], token_required: bool) -> Sip {
    let address = SocketAddr::from(([192, 0, 2, 1], 5060));
    let mediaserver = |name: &str| Mediaserver {
        name: name.into(),
        addresses: vec![address.into()],
        transport: TrunkTransport::Udp,
        reach: Reach::Path,
        media_ports: 10_000..=20_000,
    };
    Sip {
        listen: address,
        advertise: address,
        public_host: "edge.example".into(),
        mediaservers: ["default", "mds_1", "mds-2"].map(mediaserver).to_vec(),
        health: Health::default(),
        resolve: Duration::from_secs(30),
        origins: origins.iter().map(|origin| (*origin).to_string()).collect(),
        token_required,
        policy: SipPolicy::default(),
        limit: None,
        limits: SipLimits::default(),
    }
}

/// Routes as `path`, a `*` behind it for what is below, a `!` for WebSockets, a `-` for what nobody serves.
fn routes(specs: &[&str]) -> Vec<Route> {
    let route = |spec: &&str| Route {
        path: spec.trim_end_matches(['*', '!', '-']).into(),
        below: spec.contains('*'),
        upstream: (!spec.ends_with('-')).then_some(0),
        websocket: spec.contains('!'),
        body_bytes_max: 10,
        limit: None,
        token: TokenRule::None,
    };
    specs.iter().map(route).collect()
}

/// The decision in words: a status, `sip N`, or the path of a route with `ws` when a WebSocket may be opened.
fn decided(sip: Option<&Sip>, specs: &[&str], stream: &str) -> String {
    let mut server = Server::new(&HttpLimits::default());
    let Ok(Some((Item::Request(request), _))) = server.next(stream.as_bytes()) else {
        panic!("a request: {stream}");
    };
    let hosts = [
        "edge.example".to_string(),
        "192.0.2.80".to_string(),
        "[2001:db8::80]".to_string(),
    ];
    match decide(&hosts, sip, &routes(specs), &request) {
        Err(answer) => answer.status.to_string(),
        Ok(Decision::Refuse(answer)) => format!("refused {}", answer.status),
        Ok(Decision::Sip { mediaserver, .. }) => format!("sip {mediaserver}"),
        Ok(Decision::Forward {
            route, upgrade: None, ..
        }) => route.path.clone(),
        Ok(Decision::Forward {
            route,
            upgrade: Some(_),
            ..
        }) => format!("{} ws", route.path),
    }
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: edge.example\r\n{fields}\r\n")
}

#[test]
fn the_longest_path_wins() {
    let specs = [
        "/xuc*",
        "/xuc/api/2.0/cti!",
        "/video/*",
        "/version",
        "/xuc/api*",
        "/a/",
        "/a*",
        "/xuc/private*-",
    ];
    for (target, expected) in [
        ("/xuc", "/xuc"),
        ("/xuc/", "/xuc"),
        ("/xuc?a=b", "/xuc"),
        ("/xuc/b", "/xuc"),
        ("/xucs", "404"),
        ("/XUC", "404"),
        ("/xuc/private", "404"),
        ("/xuc/private/b", "404"),
        ("/xuc/privateer", "/xuc"),
        ("/xuc/api/2.0/ct", "/xuc/api"),
        ("/xuc/api/2.0/cti", "/xuc/api/2.0/cti"),
        ("/xuc/api/2.0/cti/x", "/xuc/api"),
        ("/video/", "/video/"),
        ("/video/a", "/video/"),
        ("/video", "404"),
        ("/version", "/version"),
        ("/version/", "404"),
        ("/a/", "/a/"),
        ("/a/b", "/a"),
        ("/", "404"),
        ("/x/../version", "/version"),
        ("/xuc/../admin", "404"),
        ("//version", "/version"),
        ("/%76ersion", "/version"),
    ] {
        assert_eq!(decided(None, &specs, &get(target, "")), expected, "{target}");
    }
    assert_eq!(decided(None, &["/*"], &get("/anything/at/all", "")), "/");
    assert_eq!(decided(None, &[], &get("/", "")), "404");
}

#[test]
fn only_our_hosts_are_served() {
    for (host, expected) in [
        ("edge.example", "/"),
        ("EDGE.Example:8443", "/"),
        ("192.0.2.80", "/"),
        ("[2001:db8::80]:443", "/"),
        ("other.example", "421"),
        ("edge.example.", "421"),
        ("sub.edge.example", "421"),
        ("127.0.0.1", "421"),
    ] {
        let stream = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(decided(None, &["/*"], &stream), expected, "{host}");
    }
    assert_eq!(decided(None, &["/*"], "GET / HTTP/1.0\r\n\r\n"), "421");
}

#[test]
fn bodies_above_the_limit_are_refused() {
    for (length, expected) in [(10, "/"), (11, "413")] {
        let stream = format!("POST / HTTP/1.1\r\nHost: edge.example\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(decided(None, &["/*"], &stream), expected);
    }
}

#[test]
fn the_server_as_a_whole_answers_itself() {
    for (line, fields, expected) in [
        ("OPTIONS *", "", "204"),
        ("OPTIONS /", "", "/"),
        ("OPTIONS /", "Max-Forwards: 0\r\n", "204"),
        ("OPTIONS /", "Max-Forwards: 1\r\n", "/"),
        ("GET /", "Max-Forwards: 0\r\n", "/"),
        ("GET /", "Via: 1.1 edgeward, 1.1 edgeward\r\n", "/"),
        (
            "GET /",
            "Via: 1.1 edgeward, 1.0 x\r\nVia: 1.1 edgeward, 1.1 edgeward\r\n",
            "508",
        ),
    ] {
        let stream = format!("{line} HTTP/1.1\r\nHost: edge.example\r\n{fields}\r\n");
        assert_eq!(decided(None, &["/*"], &stream), expected, "{line} {fields}");
    }
}

#[test]
fn web_sockets_open_where_a_route_says_so() {
    let specs = ["/ws!", "/plain"];
    for (target, fields, expected) in [
        ("/ws", UPGRADE.to_string(), "/ws ws"),
        ("/ws", String::new(), "/ws"),
        ("/plain", UPGRADE.to_string(), "/plain"),
        ("/plain", UPGRADE.replace("websocket", "h2c"), "/plain"),
        ("/ws", UPGRADE.replace("websocket", "WebSocket"), "/ws ws"),
        (
            "/ws",
            UPGRADE.replace("Connection: ", "Connection: keep-alive, "),
            "/ws ws",
        ),
        ("/ws", UPGRADE.replace("websocket", "h2c"), "400"),
        ("/ws", UPGRADE.replace("websocket", "websocket, h2c"), "400"),
        (
            "/ws",
            UPGRADE.replace("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
            "400",
        ),
        ("/ws", UPGRADE.replace("Connection: Upgrade\r\n", ""), "400"),
        ("/ws", UPGRADE.replace("13", "12"), "426"),
        ("/ws", UPGRADE.replace("13", "13\r\nSec-WebSocket-Version: 13"), "400"),
        ("/ws", UPGRADE.replace("Sec-WebSocket-Version: 13\r\n", ""), "400"),
        ("/ws", UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "400"),
        (
            "/ws",
            format!("{UPGRADE}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
            "400",
        ),
        ("/ws", format!("{UPGRADE}Content-Length: 0\r\n"), "400"),
        (
            "/ws",
            format!("{UPGRADE}Origin: https://a\r\nOrigin: https://b\r\n"),
            "400",
        ),
    ] {
        assert_eq!(
            decided(None, &specs, &get(target, &fields)),
            expected,
            "{target} {fields}"
        );
    }
    let http10 = format!("GET /ws HTTP/1.0\r\nHost: edge.example\r\n{UPGRADE}\r\n");
    assert_eq!(decided(None, &specs, &http10), "/ws");
    let post = format!("POST /ws HTTP/1.1\r\nHost: edge.example\r\n{UPGRADE}\r\n");
    assert_eq!(decided(None, &specs, &post), "400");
}

#[test]
fn sip_web_sockets() {
    let upgrade = format!("{UPGRADE}Sec-WebSocket-Protocol: x, sip\r\n");
    let sip = sip(&[], true);
    for (target, fields, expected) in [
        ("/wssip?token=a.b.c", upgrade.clone(), "sip 0"),
        ("/wssip-default?token=a", upgrade.clone(), "sip 0"),
        ("/wssip-mds_1?a=b&token=a", upgrade.clone(), "sip 1"),
        ("/wssip-mds-1?token=a", upgrade.clone(), "sip 1"),
        ("/wssip-mds_2?token=a", upgrade.clone(), "sip 2"),
        ("/wssip-mds-2?token=a", upgrade.clone(), "sip 2"),
        ("/wssip-mds-3?token=a", upgrade.clone(), "/"),
        ("/wssip/?token=a", upgrade.clone(), "/"),
        ("/wssipx?token=a", upgrade.clone(), "/"),
        ("/wssip", upgrade.clone(), "401"),
        ("/wssip?token=", upgrade.clone(), "401"),
        ("/wssip?Token=a", upgrade.clone(), "401"),
        ("/wssip?token=a&token=b", upgrade.clone(), "403"),
        ("/wssip?token=%zz", upgrade.clone(), "403"),
        ("/wssip?token=a", UPGRADE.to_string(), "400"),
        ("/wssip?token=a", upgrade.replace("sip", "SIP"), "400"),
        ("/wssip?token=a", upgrade.replace("13", "8"), "426"),
        ("/wssip?token=a", String::new(), "426"),
        (
            "/wssip?token=a",
            format!("{upgrade}Origin: https://edge.example\r\n"),
            "sip 0",
        ),
        (
            "/wssip?token=a",
            format!("{upgrade}Origin: https://EDGE.example:8443\r\n"),
            "sip 0",
        ),
        (
            "/wssip?token=a",
            format!("{upgrade}Origin: http://edge.example\r\n"),
            "403",
        ),
        (
            "/wssip?token=a",
            format!("{upgrade}Origin: https://edge.example.evil\r\n"),
            "403",
        ),
        ("/wssip?token=a", format!("{upgrade}Origin: null\r\n"), "403"),
        ("/wssip?token=a", format!("{upgrade}Origin:\r\n"), "403"),
    ] {
        assert_eq!(
            decided(Some(&sip), &["/*"], &get(target, &fields)),
            expected,
            "{target} {fields}"
        );
    }
}

#[test]
fn origins_may_be_listed_and_tokens_left_out() {
    let upgrade = format!("{UPGRADE}Sec-WebSocket-Protocol: sip\r\n");
    let sip = sip(&["https://app.example:444", "app://uc"], false);
    for (origin, expected) in [
        ("https://APP.example:444", "sip 0"),
        ("app://uc", "sip 0"),
        ("https://app.example", "403"),
        ("https://edge.example", "403"),
    ] {
        let stream = get("/wssip", &format!("{upgrade}Origin: {origin}\r\n"));
        assert_eq!(decided(Some(&sip), &[], &stream), expected, "{origin}");
    }
    assert_eq!(decided(Some(&sip), &[], &get("/wssip", &upgrade)), "sip 0");
}

#[test]
fn without_the_sip_role_the_path_is_a_route_like_any_other() {
    assert_eq!(
        decided(None, &["/wssip!"], &get("/wssip?token=a", UPGRADE)),
        "/wssip ws"
    );
}
