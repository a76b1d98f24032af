//! The web role through the doors of a shard: a browser over TLS on one side, an upstream in plain text on the other.

use alloc::sync::Arc;
use core::{net::IpAddr, time::Duration};
use std::collections::HashMap;

use super::*;
use crate::{
    action::{Access, IoKind, QueryId},
    config::{Config, Keys, Sources},
    time::UnixTime,
    tls::{ClientTls, Provider, Tls},
};

mod access;
mod drain;
mod proxied;
mod rates;
mod reload;
mod session;
mod tcp_relay;
mod tokens;
mod tunnels;
mod turn_streams;
mod turn_user;
mod upstreams;
mod whole;

const CONFIG: &str = r#"
[https]
listen = ["192.0.2.1:443"]
certificates = [{ cert = "cert.pem", key = "key.pem" }]
hosts = ["edge.example.org"]

[[web.upstream]]
name = "cc"
url = "http://10.0.0.10:8080"

[[web.route]]
path = "/ucassistant"
upstream = "cc"

[[web.upstream]]
name = "named"
url = "http://cc.example.org:8080"

[[web.upstream]]
name = "secure"
url = "https://secure.example.org"
ca = "cert.pem"

[[web.route]]
path = "/cti"
upstream = "cc"
websocket = true

[[web.route]]
path = "/named"
upstream = "named"

[[web.route]]
path = "/secure"
upstream = "secure"

[sip]
listen = "10.0.0.1:5060"

[[sip.mediaserver]]
address = "10.0.0.2"
"#;

#[derive(Clone)]
struct Files {
    provider: Provider,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn parse(&mut self, text: &str) -> Config {
        let keys = Keys {
            nonce: [1; 32],
            flow: vec![[2; 32]],
        };
        Config::parse(text, self, keys).expect("a configuration")
    }
}

impl Sources for Files {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        match path {
            "cert.pem" => Ok(self.cert.clone()),
            "key.pem" => Ok(self.key.clone()),
            _ => Err("there is no such file".into()),
        }
    }

    fn env(&mut self, _: &str) -> Option<String> {
        None
    }

    fn provider(&self) -> &Provider {
        &self.provider
    }
}

/// A shard and the smallest runtime there can be.
struct World {
    shard: Shard,
    files: Files,
    now: Now,
    out: Egress,
    trust: ClientTls,
    dialed: Vec<(ConnId, SocketAddr)>,
    closed: Vec<ConnId>,
    reset: Vec<ConnId>,
    shut: Vec<ConnId>,
    unread: Vec<ConnId>,
    resolved: Vec<QueryId>,
    moved: Vec<(ShardId, ConnId, Box<Conn>)>,
    parcels: Vec<(ShardId, Parcel)>,
    /// What was written to each connection and not looked at yet.
    written: HashMap<ConnId, BytesMut>,
    drained: bool,
    logged: Vec<Access>,
}

/// A browser's end of a connection.
struct Browser {
    conn: ConnId,
    tls: Tls,
    plain: Vec<u8>,
}

impl World {
    fn new() -> Self {
        Self::of_shards(1).remove(0)
    }

    /// The worlds of all shards of one process.
    fn of_shards(shards: u16) -> Vec<Self> {
        Self::with(CONFIG, shards)
    }

    fn with(config: &str, shards: u16) -> Vec<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["edge.example.org".to_owned()]).expect("a certificate");
        let mut files = Files {
            provider: Provider::for_tests(),
            cert: made.cert.pem().into(),
            key: made.signing_key.serialize_pem().into(),
        };
        let config = files.parse(config);
        let trust = ClientTls::new(&files.provider, &files.cert, "edge.example.org").expect("a client");
        let now = Now {
            mono: Instant::ZERO,
            unix: UnixTime(1_790_000_000),
        };
        let config = Arc::new(config);
        let world = |number| Self {
            shard: Shard::new(config.clone(), ShardId(number), shards, [7; 32], now),
            files: files.clone(),
            now,
            out: Egress::default(),
            trust: trust.clone(),
            dialed: Vec::new(),
            closed: Vec::new(),
            reset: Vec::new(),
            shut: Vec::new(),
            unread: Vec::new(),
            resolved: Vec::new(),
            moved: Vec::new(),
            parcels: Vec::new(),
            written: HashMap::default(),
            drained: false,
            logged: Vec::new(),
        };
        (0..shards).map(world).collect()
    }

    fn configure(&mut self, text: &str) {
        let config = self.files.parse(text);
        self.handle(Input::Configure(Arc::new(config)));
    }

    /// From here on a request that this route lets through fails by a fault of ours.
    fn break_route(&mut self, path: &str) {
        let mut config = self.files.parse(CONFIG);
        let web = config.web.as_mut().expect("a web role");
        let broken = web.routes.iter_mut().filter(|route| route.path == path);
        broken.for_each(|route| route.upstream = Some(usize::MAX));
        self.handle(Input::Configure(Arc::new(config)));
    }

    /// Carries out what the shard asks; everything is written at once unless `stuck` names the connection.
    fn act(&mut self, stuck: Option<ConnId>) {
        while let Some(action) = self.shard.poll_action() {
            match action {
                Action::Flush(conn) if Some(conn) == stuck => {}
                Action::Flush(conn) => {
                    if let Some(bytes) = self.shard.take_output(conn) {
                        self.written.entry(conn).or_default().extend_from_slice(&bytes);
                        self.shard.handle(self.now, Input::Written(conn), &mut self.out);
                    }
                }
                Action::Read(conn, false) => self.unread.push(conn),
                Action::Read(conn, true) => self.unread.retain(|held| *held != conn),
                Action::Shut(conn) => self.shut.push(conn),
                Action::Close(conn, bytes) => {
                    self.written.entry(conn).or_default().extend_from_slice(&bytes);
                    self.closed.push(conn);
                }
                Action::Reset(conn) => self.reset.push(conn),
                Action::Dial { conn, to, .. } => self.dialed.push((conn, to)),
                Action::Drained => self.drained = true,
                Action::Log(access) => self.logged.push(*access),
                Action::Resolve { query, .. } => self.resolved.push(query),
                Action::Forward {
                    to,
                    parcel: Parcel::Conn(conn, value),
                } => self.moved.push((to, conn, value)),
                Action::Forward { to, parcel } => self.parcels.push((to, parcel)),
                Action::BindRelay { .. } | Action::CloseSocket(_) => {
                    panic!("not asked for here: {action:?}")
                }
            }
        }
    }

    fn browser(&mut self) -> Browser {
        self.browser_of("198.51.100.1:50000")
    }

    fn browser_of(&mut self, peer: &str) -> Browser {
        let (local, peer) = ("192.0.2.1:443".parse().unwrap(), peer.parse().unwrap());
        let conn = self
            .shard
            .accept(self.now, ListenerId(0), local, peer)
            .expect("accepted");
        let mut browser = Browser {
            conn,
            tls: Tls::client(&self.trust).expect("a client"),
            plain: Vec::new(),
        };
        let mut hello = BytesMut::new();
        browser
            .tls
            .receive(&mut [], &mut Vec::new(), &mut hello)
            .expect("a first flight");
        self.receive(conn, &hello);
        self.read(&mut browser);
        self.read(&mut browser);
        assert!(browser.tls.is_ready());
        browser
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.receive_stuck(conn, bytes, None);
    }

    fn receive_stuck(&mut self, conn: ConnId, bytes: &[u8], stuck: Option<ConnId>) {
        let mut bytes = bytes.to_vec();
        self.shard.receive(self.now, conn, &mut bytes, &mut self.out);
        self.act(stuck);
    }

    fn handle(&mut self, input: Input) {
        self.shard.handle(self.now, input, &mut self.out);
        self.act(None);
    }

    fn send(&mut self, browser: &mut Browser, text: &str) {
        let mut sealed = BytesMut::new();
        browser.tls.seal(text.as_bytes(), &mut sealed).expect("sealed");
        self.receive(browser.conn, &sealed);
    }

    /// What the browser has got, decrypted.
    fn read(&mut self, browser: &mut Browser) -> String {
        String::from_utf8(self.read_bytes(browser)).expect("text")
    }

    fn read_bytes(&mut self, browser: &mut Browser) -> Vec<u8> {
        let mut bytes = self.written.remove(&browser.conn).unwrap_or_default();
        let mut answer = BytesMut::new();
        browser
            .tls
            .receive(&mut bytes, &mut browser.plain, &mut answer)
            .expect("TLS");
        if !answer.is_empty() {
            self.receive(browser.conn, &answer);
        }
        core::mem::take(&mut browser.plain)
    }

    /// What an upstream has got.
    fn asked(&mut self, conn: ConnId) -> String {
        let bytes = self.written.remove(&conn).unwrap_or_default();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    /// The upstream takes the call that was made last.
    fn answer_dial(&mut self) -> ConnId {
        let (conn, to) = self.dialed.pop().expect("a dial");
        let endpoints = Endpoints {
            local: "192.0.2.1:40000".parse().unwrap(),
            peer: to,
        };
        self.handle(Input::Dialed(conn, Ok(endpoints)));
        conn
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        while self.shard.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            self.shard.timeout(self.now, &mut self.out);
            self.act(None);
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: edge.example.org\r\n\r\n")
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_page_is_fetched_and_the_upstream_used_again() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    assert_eq!(world.dialed[0].1, "10.0.0.10:8080".parse().unwrap());
    let upstream = world.answer_dial();
    let asked = world.asked(upstream);
    assert!(asked.starts_with("GET /ucassistant HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("X-Forwarded-For: 198.51.100.1\r\n"), "{asked}");
    world.receive(upstream, ANSWER.as_bytes());
    let page = world.read(&mut browser);
    assert!(
        page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\nhello"),
        "{page}"
    );

    world.send(&mut browser, &get("/ucassistant/x"));
    assert_eq!(world.dialed.len(), 0);
    assert!(world.asked(upstream).starts_with("GET /ucassistant/x HTTP/1.1\r\n"));
    world.receive(upstream, ANSWER.as_bytes());
    assert!(world.read(&mut browser).ends_with("hello"));
    assert_eq!(world.closed, []);
}

#[test]
fn pipelined_requests_are_answered_one_after_the_other() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(
        &mut browser,
        &[get("/ucassistant/1"), get("/nowhere"), get("/ucassistant/2")].concat(),
    );
    let upstream = world.answer_dial();
    assert!(world.asked(upstream).starts_with("GET /ucassistant/1 "));
    world.receive(upstream, ANSWER.as_bytes());
    assert!(world.asked(upstream).starts_with("GET /ucassistant/2 "));
    world.receive(upstream, ANSWER.as_bytes());
    let pages = world.read(&mut browser);
    let statuses: Vec<_> = pages
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &pages[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

#[test]
fn what_no_route_names_is_answered_here() {
    let check = |request: &str, status: &str| {
        let mut world = World::new();
        let mut browser = world.browser();
        world.send(&mut browser, request);
        let answer = world.read(&mut browser);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?} gives {answer:?}"
        );
        assert_eq!(world.dialed, []);
    };
    check(&get("/"), "404");
    check(&get("/ucassistantx"), "404");
    check("GET /ucassistant HTTP/1.1\r\nHost: other.example.org\r\n\r\n", "421");
    check("GET /ucassistant HTTP/1.1\r\n\r\n", "400");
    check("TRACE /ucassistant HTTP/1.1\r\nHost: edge.example.org\r\n\r\n", "405");
}

#[test]
fn an_upstream_that_fails_is_a_502_and_a_slow_one_a_504() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let (conn, _) = world.dialed.pop().expect("a dial");
    world.handle(Input::Dialed(conn, Err(IoKind::Refused)));
    assert!(world.read(&mut browser).starts_with("HTTP/1.1 502 "));

    world.send(&mut browser, &get("/ucassistant"));
    world.pass(Duration::from_secs(4));
    assert!(world.read(&mut browser).starts_with("HTTP/1.1 504 "));

    world.send(&mut browser, &get("/ucassistant"));
    let upstream = world.answer_dial();
    world.receive(upstream, b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n");
    assert!(world.read(&mut browser).starts_with("HTTP/1.1 502 "));
    assert!(world.closed.contains(&upstream));
}

#[test]
fn a_request_that_a_tired_connection_did_not_see_is_sent_again() {
    for goodbye in [Input::Eof, |conn| Input::Failed(conn, IoKind::Reset)] {
        let mut world = World::new();
        let mut browser = world.browser();
        world.send(&mut browser, &get("/ucassistant"));
        let tired = world.answer_dial();
        world.receive(tired, ANSWER.as_bytes());
        world.asked(tired);
        world.send(&mut browser, &get("/ucassistant/again"));
        assert!(world.asked(tired).starts_with("GET /ucassistant/again "));
        world.handle(goodbye(tired));
        let fresh = world.answer_dial();
        assert!(world.asked(fresh).starts_with("GET /ucassistant/again "));
        world.receive(fresh, ANSWER.as_bytes());
        let pages = world.read(&mut browser);
        assert_eq!(pages.matches("HTTP/1.1 200 OK").count(), 2, "{pages}");
    }
}

#[test]
fn a_post_is_never_sent_twice() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let tired = world.answer_dial();
    world.receive(tired, ANSWER.as_bytes());
    world.read(&mut browser);
    let post = "POST /ucassistant HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 2\r\n\r\nhi";
    world.send(&mut browser, post);
    world.handle(Input::Failed(tired, IoKind::Reset));
    assert_eq!(world.dialed, []);
    assert!(world.read(&mut browser).starts_with("HTTP/1.1 502 "));
}

#[test]
fn a_slow_browser_holds_its_upstream_up_and_nothing_more() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let upstream = world.answer_dial();
    let total = 10 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n");
    world.receive_stuck(upstream, head.as_bytes(), Some(browser.conn));
    let piece = vec![b'x'; 16 * 1024];
    let mut sent = 0;
    while !world.unread.contains(&upstream) {
        world.receive_stuck(upstream, &piece, Some(browser.conn));
        sent += piece.len();
        assert!(sent < 256 * 1024, "the upstream is read without end");
    }
    let mut got = 0;
    while got < total {
        world.handle(Input::Written(browser.conn));
        if let Some(bytes) = world.shard.take_output(browser.conn) {
            world.written.entry(browser.conn).or_default().extend_from_slice(&bytes);
            world.handle(Input::Written(browser.conn));
        }
        while sent < total && !world.unread.contains(&upstream) {
            let len = piece.len().min(total - sent);
            world.receive_stuck(upstream, &piece[..len], Some(browser.conn));
            sent += len;
        }
        got += world.read(&mut browser).bytes().filter(|byte| *byte == b'x').count();
    }
    assert_eq!((got, sent), (total, total));
}

#[test]
fn a_client_has_no_more_than_its_share_wait() {
    let limits = "[https.limits]\nbuffer_bytes_per_address_max = \"1 MiB\"\n\n[[web.upstream]]";
    let mut world = World::with(&CONFIG.replacen("[[web.upstream]]", limits, 1), 1).remove(0);
    let download = |world: &mut World, peer: &str| {
        let mut browser = world.browser_of(peer);
        world.send(&mut browser, &get("/ucassistant"));
        (browser, world.answer_dial())
    };
    let slow: Vec<_> = (0..100)
        .map(|port| download(&mut world, &format!("198.51.100.1:{}", 50_000 + port)))
        .collect();
    let (mut other, others) = download(&mut world, "198.51.100.2:50000");
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n";
    let piece = vec![b'x'; 50_000];
    // None of them has more waiting than it may; together they do, and from then on none is read for.
    let mut waiting = 0_usize;
    for (browser, upstream) in &slow {
        world.receive_stuck(*upstream, head, Some(browser.conn));
        if !world.unread.contains(upstream) {
            world.receive_stuck(*upstream, &piece, Some(browser.conn));
            waiting += 1;
        }
    }
    assert!((20..25).contains(&waiting), "{waiting} pieces of 50 kB make 1 MiB");
    assert!(slow.iter().all(|(_, upstream)| world.unread.contains(upstream)));
    world.receive(others, head);
    world.receive(others, &vec![b'x'; 200_000]);
    assert!(world.read(&mut other).ends_with('x'), "another client does not feel it");
    // They read: when half of it is gone, all go on.
    let flush = |world: &mut World, browser: &Browser| {
        if let Some(bytes) = world.shard.take_output(browser.conn) {
            world.written.entry(browser.conn).or_default().extend_from_slice(&bytes);
            world.handle(Input::Written(browser.conn));
        }
    };
    for (read, (browser, _)) in slow.iter().enumerate() {
        let is_starved = slow.iter().all(|(_, upstream)| world.unread.contains(upstream));
        assert_eq!(is_starved, waiting > read + 10, "{read} of {waiting} have read");
        flush(&mut world, browser);
    }
    assert!(world.unread.is_empty());
    for (mut browser, upstream) in slow {
        let already = world.read(&mut browser).bytes().filter(|byte| *byte == b'x').count();
        world.receive(upstream, &vec![b'x'; 200_000 - already]);
        let rest = world.read(&mut browser).bytes().filter(|byte| *byte == b'x').count();
        assert_eq!(already + rest, 200_000);
        assert!(!world.closed.contains(&browser.conn));
    }
}

#[test]
fn the_end_of_a_body_that_fills_the_buffer_is_found() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let upstream = world.answer_dial();
    world.asked(upstream);
    let body = vec![b'x'; 100_000];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    world.receive_stuck(upstream, head.as_bytes(), Some(browser.conn));
    world.receive_stuck(upstream, &body, Some(browser.conn));
    // Not a byte of the upstream is left, but the end of its answer has not come through.
    let bytes = world.shard.take_output(browser.conn).expect("a page");
    world.written.entry(browser.conn).or_default().extend_from_slice(&bytes);
    world.handle(Input::Written(browser.conn));
    world.send(&mut browser, &get("/ucassistant/next"));
    assert!(world.asked(upstream).starts_with("GET /ucassistant/next "));
}

const UPGRADE: &str = "GET /cti?token=a.b.c HTTP/1.1\r\nHost: edge.example.org\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn a_websocket_passes_through_and_half_closes() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, UPGRADE);
    let upstream = world.answer_dial();
    assert!(
        world
            .asked(upstream)
            .contains("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
    );
    world.receive(upstream, [SWITCH, "early"].concat().as_bytes());
    let opened = world.read(&mut browser);
    assert!(
        opened.starts_with("HTTP/1.1 101 ") && opened.ends_with("\r\n\r\nearly"),
        "{opened}"
    );
    world.send(&mut browser, "up");
    assert_eq!(world.asked(upstream), "up");

    let mut goodbye = BytesMut::new();
    browser.tls.close(&mut goodbye);
    world.receive(browser.conn, &goodbye);
    assert_eq!(
        (world.shut.as_slice(), world.closed.as_slice()),
        (&[upstream][..], &[][..])
    );
    world.receive(upstream, b"last");
    assert_eq!(world.read(&mut browser), "last");
    world.handle(Input::Eof(upstream));
    assert!(world.closed.contains(&upstream) && world.closed.contains(&browser.conn));
}

#[test]
fn a_tunnel_opens_only_on_a_good_101() {
    for bad in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        SWITCH.replace("s3pP", "AAAA"),
    ] {
        let mut world = World::new();
        let mut browser = world.browser();
        world.send(&mut browser, UPGRADE);
        let upstream = world.answer_dial();
        world.receive(upstream, bad.as_bytes());
        assert!(world.read(&mut browser).starts_with("HTTP/1.1 502 "), "{bad}");
    }
}

#[test]
fn whoever_says_nothing_is_let_go() {
    let mut world = World::new();
    let (local, peer) = ("192.0.2.1:443".parse().unwrap(), "198.51.100.1:50000".parse().unwrap());
    let silent = world
        .shard
        .accept(world.now, ListenerId(0), local, peer)
        .expect("accepted");
    world.pass(Duration::from_secs(11));
    assert_eq!(world.closed, [silent]);

    let mut half = world.browser();
    world.send(&mut half, "GET / HT");
    world.pass(Duration::from_secs(11));
    assert!(world.read(&mut half).starts_with("HTTP/1.1 408 "));

    let mut idle = world.browser();
    world.send(&mut idle, &get("/"));
    world.pass(Duration::from_secs(66));
    assert!(world.closed.contains(&idle.conn));
    assert!(world.shard.clients.is_empty());
}

#[test]
fn a_body_that_trickles_is_not_waited_for() {
    let post = "POST /ucassistant HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 100000\r\n\r\n";
    let mut world = World::new();
    let (mut slow, mut steady) = (world.browser(), world.browser());
    for browser in [&mut slow, &mut steady] {
        world.send(browser, post);
    }
    while !world.dialed.is_empty() {
        world.answer_dial();
    }
    for _ in 0..29 {
        world.pass(Duration::from_secs(1));
        world.send(&mut slow, "x");
        world.send(&mut steady, &"x".repeat(130));
    }
    world.pass(Duration::from_secs(3));
    assert!(world.read(&mut slow).starts_with("HTTP/1.1 408 "));
    assert!(!world.closed.contains(&steady.conn));
    // Then nothing at all.
    world.pass(Duration::from_secs(31));
    assert!(world.closed.contains(&steady.conn));
}

#[test]
fn a_connection_may_be_made_before_there_is_anything_to_ask() {
    let mut world = World::with(&format!("[access_log]\n{CONFIG}"), 1).remove(0);
    world.trust = world.trust.speaking(ALPN_HTTP);
    let (mut early, idle) = (world.browser(), world.browser());
    world.pass(Duration::from_secs(64));
    assert_eq!(world.closed, []);
    world.send(&mut early, &get("/nowhere"));
    assert!(world.read(&mut early).starts_with("HTTP/1.1 404 "));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.closed, [idle.conn]);
    // But a head that has begun ends in time.
    world.send(&mut early, "GET /no");
    world.pass(Duration::from_secs(10));
    assert!(world.read(&mut early).starts_with("HTTP/1.1 408 "));
    assert_eq!(world.logged.len(), 1);
}

#[test]
fn what_comes_behind_an_open_exchange_is_bounded() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let mut sent = 0;
    while !world.unread.contains(&browser.conn) {
        world.send(&mut browser, &get("/ucassistant").repeat(20));
        sent += 20;
        assert!(sent < 10_000, "it may go on for ever");
    }
    let held = world.shard.conns.get(browser.conn.0).map_or(0, Conn::rest_len);
    assert!((REST_BYTES_MAX..REST_BYTES_MAX + 2000).contains(&held), "{held}");
    // All of it is served.
    let upstream = world.answer_dial();
    for _ in 0..=sent {
        assert!(!world.asked(upstream).is_empty());
        world.receive(upstream, ANSWER.as_bytes());
    }
    assert_eq!(world.read(&mut browser).matches("hello").count(), sent + 1);
}

#[test]
fn one_customer_does_not_hold_all_connections() {
    let text = format!("[server]\nconnections_per_address_max = 2\n{CONFIG}");
    let mut world = World::with(&text, 1).remove(0);
    let mut accept = |peer: &str| {
        let (local, peer) = ("[2001:db8:1::1]:443".parse().unwrap(), peer.parse().unwrap());
        world.shard.accept(world.now, ListenerId(0), local, peer)
    };
    let first = accept("[2001:db8::1]:50000").expect("room");
    accept("[2001:db8::2]:50000").expect("room");
    // Whatever address of its network it takes.
    assert_eq!(accept("[2001:db8::3]:50000"), Err(Refused));
    accept("[2001:db8:0:1::1]:50000").expect("somebody else");
    accept("[::ffff:198.51.100.1]:50000").expect("somebody else");
    world.handle(Input::Eof(first));
    world
        .shard
        .accept(
            world.now,
            ListenerId(0),
            "[2001:db8:1::1]:443".parse().unwrap(),
            "[2001:db8::3]:1".parse().unwrap(),
        )
        .expect("room again");
}

#[test]
fn idle_connections_get_less_time_when_there_are_many() {
    let idle_until = |others: usize| {
        let text = format!("[server]\nconnections_max = 100\nconnections_per_address_max = 200\n{CONFIG}");
        let mut world = World::with(&text, 1).remove(0);
        for _ in 0..others {
            world
                .shard
                .accept(
                    world.now,
                    ListenerId(0),
                    "192.0.2.1:443".parse().unwrap(),
                    "198.51.100.2:1".parse().unwrap(),
                )
                .expect("accepted");
        }
        let mut browser = world.browser();
        world.send(&mut browser, &get("/nowhere"));
        let deadline = world.shard.conns.get(browser.conn.0).and_then(|conn| conn.deadline);
        deadline.expect("a deadline").saturating_since(world.now.mono).as_secs()
    };
    assert_eq!(idle_until(0), 65);
    assert_eq!(idle_until(49), 65);
    assert_eq!(idle_until(74), 32);
    assert_eq!(idle_until(99), 1);
}

#[test]
fn a_response_that_is_cut_is_never_taken_for_a_whole_one() {
    let asked = "GET /ucassistant HTTP/1.0\r\nHost: edge.example.org\r\n\r\n";
    let mut world = World::new();
    let mut old = world.browser();
    world.send(&mut old, asked);
    let upstream = world.answer_dial();
    world.receive(
        upstream,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    world.handle(Input::Failed(upstream, IoKind::Reset));
    assert_eq!(world.reset, [old.conn]);
    // One that is whole ends in order, and so does one whose client can tell.
    let mut old = world.browser();
    world.send(&mut old, asked);
    let upstream = world.answer_dial();
    world.receive(
        upstream,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    let mut new = world.browser();
    world.send(&mut new, &get("/ucassistant"));
    world.receive(
        upstream,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    world.handle(Input::Failed(upstream, IoKind::Reset));
    assert!(world.closed.contains(&old.conn) && world.closed.contains(&new.conn));
    assert_eq!(world.reset.len(), 1);
}

#[test]
fn every_response_says_that_this_host_is_called_by_tls() {
    let text = CONFIG.replace("[https]", "[https]\nhsts_secs = 31536000");
    let mut world = World::with(&text, 1).remove(0);
    let mut browser = world.browser();
    world.send(&mut browser, &[get("/nowhere"), get("/ucassistant")].concat());
    let upstream = world.answer_dial();
    world.receive(
        upstream,
        b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=0\r\nContent-Length: 0\r\n\r\n",
    );
    let answers = world.read(&mut browser);
    assert_eq!(
        answers
            .matches("\r\nStrict-Transport-Security: max-age=31536000\r\n")
            .count(),
        2,
        "{answers}"
    );
    assert!(!answers.contains("max-age=0"), "{answers}");
}

#[test]
fn plain_http_is_told_where_it_is() {
    let mut world = World::new();
    let (local, peer) = ("192.0.2.1:443".parse().unwrap(), "198.51.100.1:50000".parse().unwrap());
    let conn = world
        .shard
        .accept(world.now, ListenerId(0), local, peer)
        .expect("accepted");
    world.receive(conn, b"GET / HTTP/1.1\r\n\r\n");
    let answer = world.asked(conn);
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("HTTPS"),
        "{answer}"
    );
    assert_eq!(world.closed, [conn]);
}

#[test]
fn a_browser_that_reads_slowly_is_waited_for() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let upstream = world.answer_dial();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 20);
    world.receive_stuck(upstream, head.as_bytes(), Some(browser.conn));
    while !world.unread.contains(&upstream) {
        world.receive_stuck(upstream, &[b'x'; 16 * 1024], Some(browser.conn));
    }
    // What the kernel takes meanwhile shows that somebody reads.
    for _ in 0..10 {
        let bytes = world.shard.take_output(browser.conn).unwrap_or_default();
        world.written.entry(browser.conn).or_default().extend_from_slice(&bytes);
        world.pass(Duration::from_secs(20));
        world.handle(Input::Written(browser.conn));
        world.receive_stuck(upstream, &[b'x'; 16 * 1024], Some(browser.conn));
    }
    assert_eq!(world.closed, []);
    world.pass(Duration::from_secs(61));
    assert!(world.closed.contains(&browser.conn) && world.closed.contains(&upstream));
}

#[test]
fn an_upstream_that_does_not_read_is_given_up() {
    let mut world = World::new();
    let mut browser = world.browser();
    let post = "POST /ucassistant HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 1000000\r\n\r\n";
    world.send(&mut browser, post);
    let upstream = world.answer_dial();
    while !world.unread.contains(&browser.conn) {
        let mut sealed = BytesMut::new();
        browser.tls.seal(&[b'x'; 16 * 1024], &mut sealed).expect("sealed");
        world.receive_stuck(browser.conn, &sealed, Some(upstream));
    }
    world.pass(Duration::from_secs(31));
    let answer = world.read(&mut browser);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(world.closed.contains(&upstream));
}
