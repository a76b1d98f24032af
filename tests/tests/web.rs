//! Is a request forwarded whole, and only where it may be? With HTTP clients of others, and with bytes that none sends.

use std::{
    io::Read as _,
    net::IpAddr,
    time::{Duration, Instant},
};

use edgeward_tests::{
    PATIENCE, deadline,
    edge::Edge,
    eventually,
    peers::{
        http::pattern,
        http_client::{Connection, agent},
        upstream::Upstream,
        websocket::{Event, Handshake},
    },
    scene::{CONFIG, Scene},
    site::{NAME, Site},
};
use ureq::{Agent, SendBody};

fn client(scene: &Scene) -> Agent {
    agent(scene.site.authority(), scene.https())
}

fn url(path: &str) -> String {
    format!("https://{NAME}:8443{path}")
}

/// A request without a body, as bytes.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}:8443\r\n\r\n")
}

#[test]
fn large_bodies_pass_unharmed() {
    let scene = Scene::new();
    let client = client(&scene);
    for path in [
        "/app/fixed",
        "/app/chunked",
        "/app/to-end",
        "/secure/fixed",
        "/secure/chunked",
    ] {
        for length in [0, 1, 65_535, 3_000_000, 20_000_000] {
            let mut response = client.get(url(&format!("{path}/{length}"))).call().expect(path);
            let body = response.body_mut().with_config().limit(30_000_000).read_to_vec();
            assert!(body.expect(path) == pattern(length), "{path}/{length}");
        }
    }
    let upload = pattern(5_000_000);
    let mut chunked = client
        .post(url("/app/echo"))
        .send(SendBody::from_reader(&mut upload.as_slice()))
        .expect("a response");
    assert!(chunked.body_mut().read_to_vec().expect("a body") == upload);
    let mut fixed = client.post(url("/app/echo")).send(&upload[..]).expect("a response");
    assert!(fixed.body_mut().read_to_vec().expect("a body") == upload);
}

#[test]
fn responses_without_a_body_have_none() {
    let scene = Scene::new();
    let mut client = scene.connect(100);
    let head = client.ask(&get("/app/fixed/1000").replace("GET", "HEAD"));
    assert_eq!((head.status(), head.field("content-length")), (Some(200), Some("1000")));
    for status in [204, 304] {
        assert_eq!(
            client.ask(&get(&format!("/app/status/{status}"))).status(),
            Some(status)
        );
    }
    // The connection goes on in step.
    assert_eq!(client.ask(&get("/app/")).text(), "hello");
}

#[test]
fn only_what_is_routed_is_forwarded() {
    let scene = Scene::new();
    let mut client = scene.connect(100);
    let mut check = |request: String, expected: u16| {
        let status = client.ask(&request).status();
        assert_eq!(status, Some(expected), "{request}");
    };
    check(get("/app"), 200);
    check(get("/app/"), 200);
    check(get("/app/a/b?c=d"), 200);
    check(get("/exact"), 200);
    check(get("/exact/more"), 404);
    check(get("/"), 404);
    check(get("/apple"), 404);
    check(get("/other"), 404);
    check(get("/app/../other"), 404);
    check(get("/other/../app/"), 200);
    check(get("/app/%2e%2e/other"), 404);
    check(get("/%61pp/"), 200);
    check(get("/absent/"), 502);
    check(get("/app/").replace(NAME, "other.test"), 421);
    let asked: Vec<String> = scene
        .upstream
        .requests()
        .iter()
        .map(|recorded| recorded.request.target().to_owned())
        .collect();
    assert_eq!(asked, ["/app", "/app/", "/app/a/b?c=d", "/exact", "/app/", "/app/"]);
}

#[test]
fn the_upstream_learns_who_asks_and_nobody_can_lie_about_it() {
    let scene = Scene::new();
    let mut client = scene.connect(100);
    let lies = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil.test\r\n\
                Forwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n";
    let hop = "Connection: x-mine, keep-alive\r\nX-Mine: hop\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
               Proxy-Connection: keep-alive\r\n";
    let request =
        format!("GET /app/who HTTP/1.1\r\nHost: {NAME}:8443\r\nCookie: a=b; c=d\r\nX-End: to end\r\n{lies}{hop}\r\n");
    assert_eq!(client.ask(&request).status(), Some(200));
    let seen = scene.upstream.wait_for("/app/who").request;
    let own = scene.client(100).to_string();
    assert_eq!(seen.all("x-forwarded-for").collect::<Vec<_>>(), [own.as_str()]);
    assert_eq!(seen.all("x-forwarded-proto").collect::<Vec<_>>(), ["https"]);
    assert_eq!(seen.field("host"), Some("edge.test:8443"));
    assert_eq!(seen.field("cookie"), Some("a=b; c=d"));
    assert_eq!(seen.field("x-end"), Some("to end"));
    for name in ["x-mine", "keep-alive", "te", "proxy-connection"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    let everything = format!("{seen:?}");
    assert!(
        !everything.contains("1.2.3.4") && !everything.contains("evil.test"),
        "{everything}"
    );

    let answer = client.ask(&get("/app/hop"));
    assert_eq!((answer.field("x-one"), answer.field("x-two")), (None, Some("end")));
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let scene = Scene::new();
    let mut client = scene.connect(100);
    client.send(
        [
            get("/app/fixed/10"),
            get("/other"),
            get("/app/chunked/70000"),
            get("/app/"),
        ]
        .concat(),
    );
    assert_eq!(client.response("GET").body, pattern(10));
    assert_eq!(client.response("GET").status(), Some(404));
    assert_eq!(client.response("GET").body, pattern(70_000));
    assert_eq!(client.response("GET").text(), "hello");
    // One byte at a time is the same request.
    for byte in get("/app/slowly").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response("GET").text(), "hello");
    assert_eq!(scene.upstream.connections(), 1, "idle connections are used again");
}

#[test]
fn a_connection_that_the_upstream_dropped_is_not_the_clients_concern() {
    let scene = Scene::new();
    let mut client = scene.connect(100);
    for _ in 0..20 {
        assert_eq!(client.ask(&get("/app/vanish")).text(), "hello");
    }
    // What nobody asked for is no answer to the next request.
    for _ in 0..5 {
        assert_eq!(client.ask(&get("/app/twice")).text(), "asked");
        assert_eq!(client.ask(&get("/app/")).text(), "hello");
    }
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_refused() {
    let scene = Scene::new();
    let body = "0\r\n\r\nGET /app/smuggled HTTP/1.1\r\nHost: edge.test\r\n\r\n";
    let ambiguous = [
        "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: chunked\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length:\r\n",
        "Host: edge.test\r\n",
        "X\0: y\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        ": nameless\r\n",
        "no colon\r\n",
    ];
    let mut client = 100;
    let mut check = |request: String| {
        client = if client == 240 { 100 } else { client + 1 };
        let mut connection = scene.connect(client);
        connection.send(&request);
        let status = connection.response("POST").status().expect("a status");
        assert!(
            (400..=505).contains(&status) && status != 404,
            "{status} for {request:?}"
        );
        connection.closed();
    };
    for fields in ambiguous {
        check(format!(
            "POST /app/echo HTTP/1.1\r\nHost: edge.test\r\n{fields}\r\n{body}"
        ));
    }
    check(format!(
        "POST /app/echo HTTP/1.0\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    ));
    check(format!("GET /app/ HTTP/1.1\r\n\r\n{body}"));
    check(format!("GET /app/ HTTP/2.0\r\nHost: edge.test\r\n\r\n{body}"));
    check(format!("GET  /app/ HTTP/1.1\r\nHost: edge.test\r\n\r\n{body}"));
    check(format!("GET /app/ HTTP/1.1\nHost: edge.test\n\n{body}"));
    check(format!(
        "CONNECT edge.test:443 HTTP/1.1\r\nHost: edge.test\r\n\r\n{body}"
    ));
    check("GET /app/ HTTP/1.1\r\nHost: edge.test\r\n".to_owned() + &"X: y\r\n".repeat(200) + "\r\n");
    check(format!(
        "GET /app/{} HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "a".repeat(20_000)
    ));
    check(format!(
        "GET /app/ HTTP/1.1\r\nHost: edge.test\r\nX: {}\r\n\r\n",
        "a".repeat(100_000)
    ));
    assert!(scene.upstream.requests().is_empty(), "{:?}", scene.upstream.requests());
}

#[test]
fn a_broken_chunk_ends_the_exchange() {
    let scene = Scene::new();
    let chunks = [
        "5\r\nabcdefg\r\n",
        "5;\nx\r\nabcde\r\n",
        "0x5\r\nabcde\r\n",
        "+5\r\nabcde\r\n",
        "5 \nabcde\r\n",
        "ffffffffffffffffff\r\n",
    ];
    for (client, chunk) in (100..).zip(chunks) {
        let mut connection = scene.connect(client);
        connection.send(format!(
            "POST /app/echo HTTP/1.1\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
        ));
        let status = connection.response("POST").status();
        assert_eq!(status, Some(400), "{chunk:?}");
        connection.closed();
    }
    // The upstream never saw a whole one.
    assert!(scene.upstream.requests().is_empty());
}

#[test]
fn a_body_above_the_limit_is_refused() {
    let scene = Scene::new();
    let mut fixed = scene.connect(100);
    let head = format!("POST /app/echo HTTP/1.1\r\nHost: {NAME}\r\n");
    assert_eq!(
        fixed.ask(&format!("{head}Content-Length: 9000000\r\n\r\n")).status(),
        Some(413)
    );
    let mut chunked = scene.connect(101);
    chunked.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
    for _ in 0..9 {
        if !chunked.try_send([b"100000\r\n".as_slice(), &pattern(0x10_0000), b"\r\n"].concat()) {
            break;
        }
    }
    assert_eq!(chunked.response("POST").status(), Some(413));
    chunked.closed();
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let scene = Scene::new();
    let mut client = scene.connect(100);
    client.send(format!(
        "POST /app/echo HTTP/1.1\r\nHost: {NAME}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ));
    assert_eq!(client.head().status(), Some(100));
    client.send("hello");
    assert_eq!(client.response("POST").text(), "hello");
    // Nobody has to send a body that is refused anyway.
    client.send(format!(
        "POST /other HTTP/1.1\r\nHost: {NAME}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ));
    assert_eq!(client.head().status(), Some(404));
}

#[test]
fn an_upstream_that_fails_is_told_from_one_that_answers() {
    let scene = Scene::new();
    let mut client = scene.connect(100);
    assert_eq!(client.ask(&get("/absent/")).status(), Some(502));
    assert_eq!(client.ask(&get("/app/garbage")).status(), Some(502));
    assert_eq!(client.ask(&get("/app/silent")).status(), Some(504));
    assert_eq!(client.ask(&get("/app/status/503")).text(), "status");
    // A body that ends too early is not made to look whole.
    client.send(get("/app/cut/1000"));
    let said = client.closed();
    let body = said.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(&said[body..], &pattern(500)[..]);

    let mut early = scene.connect(101);
    early.send(format!(
        "POST /app/early HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 8000000\r\n\r\n"
    ));
    early.try_send(pattern(1_000_000));
    assert_eq!(early.response("POST").text(), "early");
}

#[test]
fn an_upstream_with_a_certificate_of_somebody_else_is_not_believed() {
    let config = CONFIG.replace("https://$net.2:8444", "https://$net.2:8445");
    let scene = Scene::with(&config);
    let other = edgeward_tests::tls::Authority::new().identity(&[&scene.site.host(2).to_string()]);
    let stranger = Upstream::start_tls(scene.site.at(2, 8445), other.server());
    assert_eq!(scene.connect(100).ask(&get("/secure/")).status(), Some(502));
    assert!(stranger.requests().is_empty());
}

#[test]
fn an_upstream_may_ask_who_we_are() {
    let site = Site::new();
    let names = [site.host(2).to_string()];
    let identity = site.authority().identity(&[&names[0]]);
    let strict = Upstream::start_tls(site.at(2, 8445), identity.server_for_clients_of(site.authority()));
    let ours = site.authority().identity(&["edge.lan"]);
    site.write("client.pem", &ours.certificate);
    site.write("client.key", &ours.key);
    let _edge = Edge::start(&site, MUTUAL);
    let mut client = Connection::tls(site.host(100), site.at(1, 8443), site.client(), NAME);
    assert_eq!(client.ask(&get("/known/")).text(), "hello");
    assert_eq!(client.ask(&get("/unknown/")).status(), Some(502));
    let asked = strict.requests().len();
    assert_eq!(asked, 1, "nothing is said to who does not know us");
}

/// One upstream, called with a certificate of ours and without.
const MUTUAL: &str = r#"
[https]
listen = "$net.1:8443"
certificates = [{ cert = "edge.pem", key = "edge.key" }]
hosts = ["edge.test"]

[[web.upstream]]
name = "known"
url = "https://$net.2:8445"
ca = "ca.pem"
certificate = { cert = "client.pem", key = "client.key" }

[[web.upstream]]
name = "unknown"
url = "https://$net.2:8445"
ca = "ca.pem"

[[web.route]]
path = "/known"
upstream = "known"

[[web.route]]
path = "/unknown"
upstream = "unknown"
"#;

#[test]
fn a_client_that_breaks_its_connection_ends_its_exchange_and_no_other() {
    let scene = Scene::new();
    let mut listener = scene.connect(100);
    listener.send(get("/app/events"));
    listener.head();
    let mut reader = scene.connect(101);
    reader.send(get("/app/fixed/50000000"));
    reader.head();
    let mut writer = scene.connect(102);
    writer.send("POST /app/echo HTTP/1.1\r\nHost: edge.test:8443\r\nContent-Length: 1000000\r\n\r\nhalf");
    let mut other = scene.connect(103);
    assert_eq!(other.ask(&get("/app/")).text(), "hello");
    assert_eq!(scene.upstream.event("one"), 1);
    for broken in [listener, reader, writer] {
        broken.reset();
    }
    // The upstream is told at once, although it has no more to say.
    eventually("the end of the event stream", || {
        (scene.upstream.event("more") == 0).then_some(())
    });
    assert_eq!(other.ask(&get("/app/")).text(), "hello");
    let half = scene
        .upstream
        .requests()
        .iter()
        .any(|seen| seen.request.target() == "/app/echo");
    assert!(!half, "half a request is none");
}

#[test]
fn an_upstream_is_found_by_its_name() {
    let upstream = Upstream::start("127.0.0.1:0".parse().expect("an address"));
    let url = format!("url = \"http://localhost:{}\"", upstream.address().port());
    let scene = Scene::with(&CONFIG.replace("url = \"http://$net.2:8080\"", &url));
    assert_eq!(scene.connect(100).ask(&get("/app/")).text(), "hello");
    let nowhere = CONFIG.replace("url = \"http://$net.2:8080\"", "url = \"http://nowhere.invalid\"");
    let scene = Scene::with(&nowhere);
    assert_eq!(scene.connect(100).ask(&get("/app/")).status(), Some(502));
}

#[test]
fn one_client_does_not_take_all_connections() {
    let config = CONFIG.replace("workers = 3", "workers = 1\nconnections_per_address_max = 3");
    let scene = Scene::with(&config);
    let mut held: Vec<Connection> = (0..3).map(|_| scene.connect(100)).collect();
    Connection::plain(scene.client(100), scene.https()).closed();
    // Others have room, and he has again when he lets go.
    assert_eq!(scene.connect(101).ask(&get("/app/")).status(), Some(200));
    let mut last = held.pop().expect("a connection");
    let closing = get("/app/").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(last.ask(&closing).status(), Some(200));
    last.closed();
    assert_eq!(scene.connect(100).ask(&get("/app/")).status(), Some(200));
}

#[test]
fn events_come_when_they_happen() {
    let scene = Scene::new();
    let mut client = scene.connect(100);
    client.send(get("/app/events"));
    assert_eq!(client.head().status(), Some(200));
    for number in 0..3 {
        let text = format!("event {number}");
        scene.upstream.wait_for("/app/events");
        assert_eq!(scene.upstream.event(&text), 1);
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(&text) {
            read.extend(client.read_some(deadline()));
        }
    }
}

#[test]
fn a_slow_reader_costs_no_memory_and_nobody_else_waits() {
    let scene = Scene::new();
    let before = scene.edge.process().resident_kib();
    let mut slow: Vec<Connection> = (100..104)
        .map(|client| {
            let mut connection = scene.connect(client);
            connection.send(get("/app/fixed/20000000"));
            connection
        })
        .collect();
    for connection in &mut slow {
        assert_eq!(connection.head().status(), Some(200));
    }
    let mut quick = scene.connect(110);
    for _ in 0..50 {
        assert_eq!(quick.ask(&get("/app/fixed/100000")).body.len(), 100_000);
    }
    let grown = scene.edge.process().resident_kib().saturating_sub(before);
    assert!(grown < 20_000, "{grown} kB more for four readers that do not read");
    // And what was held back comes in the end.
    let mut length = slow[0].rest().len();
    while length < 20_000_000 {
        length += slow[0].read_some(deadline()).len();
    }
}

#[test]
fn websockets_pass_whatever_they_carry() {
    let scene = Scene::new();
    for path in ["/socket/ws", "/secure/ws"] {
        let mut socket = scene.handshake(100, path).open().expect(path);
        let long = "0123456789abcdef".repeat(65_536);
        for text in ["", "hello", &long] {
            socket.send_text(text);
            assert!(socket.message() == Event::Text(text.to_owned()), "{path}");
        }
        socket.send_binary(&pattern(1 << 20));
        assert!(socket.message() == Event::Binary(pattern(1 << 20)), "{path}");
        // Two fragments with a ping between them, masked with zeros.
        let frame = |first: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).expect("a short frame");
            [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
        };
        socket.send_raw(&[frame(0x01, b"frag"), frame(0x89, b"ping"), frame(0x80, b"ments")].concat());
        let mut events = Vec::new();
        while events.len() < 2 {
            events.push(socket.next(deadline()).expect("an event"));
        }
        assert!(
            events.contains(&Event::Pong) && events.contains(&Event::Text("fragments".into())),
            "{events:?}"
        );
        for number in 0..2000 {
            socket.send_text(&number.to_string());
        }
        for number in 0..2000 {
            assert_eq!(socket.message(), Event::Text(number.to_string()));
        }
        socket.close();
        assert_eq!(socket.closed(), Some(1000));
    }
}

#[test]
fn a_websocket_opens_only_where_it_may() {
    let scene = Scene::new();
    let mut client = 100;
    let mut check = |handshake: Handshake, expected: u16| {
        client += 1;
        let from: IpAddr = scene.client(client);
        let declined = Handshake { from, ..handshake }.open().expect_err("no WebSocket");
        assert_eq!(declined.status, expected);
    };
    // Not a route for WebSockets: the upstream is asked for a page.
    check(scene.handshake(100, "/app/ws"), 200);
    check(scene.handshake(100, "/other"), 404);
    check(scene.handshake(100, "/socket/status/418"), 418);
    check(scene.handshake(100, "/socket/ws-wrong"), 502);
    check(
        scene.handshake(100, "/socket/ws").with("Sec-WebSocket-Version", "12"),
        426,
    );
    // After an answer that is no 101, the connection carries requests as before.
    let mut connection = scene.connect(100);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    connection.send(get("/socket/status/418").replace("\r\n\r\n", &format!("\r\n{upgrade}\r\n")));
    assert_eq!(connection.response("GET").status(), Some(418));
    assert_eq!(
        scene
            .upstream
            .requests()
            .last()
            .map(|last| last.request.method().to_owned()),
        Some("GET".into())
    );
}

#[test]
fn a_request_hidden_behind_an_upgrade_is_not_forwarded() {
    let scene = Scene::new();
    let mut connection = scene.connect(100);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let hidden = get("/other/hidden");
    connection.send(get("/socket/status/200").replace("\r\n\r\n", &format!("\r\n{upgrade}\r\n")) + &hidden);
    assert_eq!(connection.response("GET").status(), Some(200));
    let seen: Vec<String> = scene
        .upstream
        .requests()
        .iter()
        .map(|recorded| recorded.request.target().to_owned())
        .collect();
    assert_eq!(seen, ["/socket/status/200"]);
}

#[test]
fn who_speaks_no_tls_or_says_nothing_is_let_go() {
    let config = CONFIG.replace(
        "response_secs = 2",
        "handshake_secs = 1\nhead_secs = 1\nkeep_alive_secs = 1",
    );
    let scene = Scene::with(&config);
    let began = Instant::now();
    let mut plain = Connection::plain(scene.client(100), scene.https());
    plain.send(get("/app/"));
    plain.closed();
    let mut garbage = Connection::plain(scene.client(101), scene.https());
    garbage.send(pattern(5000));
    garbage.closed();
    // Nothing at all, a handshake that stays half done, a head that stays half done, and no second request.
    let mut silent = Connection::plain(scene.client(102), scene.https());
    let mut half = Connection::plain(scene.client(103), scene.https());
    half.send([0x16, 3, 1, 2, 0, 1]);
    let mut head = scene.connect(104);
    head.send("GET /app/ HTTP/1.1\r\nHost:");
    let mut idle = scene.connect(105);
    assert_eq!(idle.ask(&get("/app/")).status(), Some(200));
    for connection in [&mut silent, &mut half, &mut head, &mut idle] {
        connection.closed();
    }
    assert!(began.elapsed() < PATIENCE.min(Duration::from_secs(10)));
    let mut page = String::new();
    let mut response = client(&scene).get(url("/app/")).call().expect("a response");
    response
        .body_mut()
        .as_reader()
        .read_to_string(&mut page)
        .expect("a body");
    assert_eq!(page, "hello");
}
