//! Can it be operated while people call? Another configuration, an orderly end, logs and numbers.

use edgeward_tests::{
    peers::{
        http_client::Connection,
        sip_browser::{Account, SipBrowser},
        stun::{self, Message, RawClient, attribute, method},
        turn_client::{Credentials, TurnClient},
        udp_peer::UdpPeer,
        websocket::Event,
    },
    scene::{ALICE, CONFIG, SECRETS, Scene},
    site::NAME,
};
use rustix::process::Signal;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}:8443\r\n\r\n")
}

#[test]
fn another_configuration_comes_and_nobody_is_cut_off() {
    let scene = Scene::new();
    let mut telephone = scene.registered(100, "alice");
    let invite = telephone.invite("600", SDP);
    let (_, mut dialog) = telephone.answered(&invite);
    let mut tunnel = scene.handshake(101, "/socket/ws").open().expect("a WebSocket");
    let mut page = scene.connect(102);
    assert_eq!(page.ask(&get("/app/")).status(), Some(200));
    let mut download = scene.connect(103);
    download.send(get("/app/fixed/3000000"));
    assert_eq!(download.head().status(), Some(200));
    let mut relay = scene.allocated(104);
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    relay.permit(scene.site.host(120)).expect("a permission");

    // Other routes, another user in place of alice, another secret, another mediaserver.
    let config = CONFIG
        .replace("path = \"/app\"", "path = \"/new\"")
        .replace("\"the password of alice\"", "\"another password of alice\"")
        .replace("name = \"mds2\"", "name = \"mds3\"");
    scene.edge.reload(&scene.site, &config);
    let said = scene.edge.process().wait_for("is read again");
    for changed in ["[[web.route]]", "[[turn.user]]", "[[sip.mediaserver]]"] {
        assert!(said.contains(changed), "{said}");
    }
    assert!(!said.contains("password"), "{said}");

    // Whoever was there goes on.
    tunnel.send_text("still there");
    assert!(matches!(tunnel.message(), Event::Text(text) if text.contains("still there")));
    let mut length = download.rest().len();
    while length < 3_000_000 {
        length += download.read_some(edgeward_tests::deadline()).len();
    }
    relay.send(peer.address(), b"media");
    assert_eq!(peer.receive().0, b"media");
    assert_eq!(telephone.request(&mut dialog, "BYE").status(), Some(200));
    // On the same connection the new routes hold.
    assert_eq!(page.ask(&get("/app/")).status(), Some(404));
    assert_eq!(page.ask(&get("/new/")).status(), Some(200));

    // Whoever comes meets the new configuration.
    assert!(scene.telephone(105, "/wssip-mds2").open().is_err());
    SipBrowser::open(&scene.telephone(105, "/wssip-mds3"), Account::of("bob")).expect("a WebSocket");
    let allocate = |client, password| {
        let mut raw = RawClient::new(scene.client(client), scene.turn(), ALICE.0, password);
        let allocate = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::UDP);
        raw.ask_signed(allocate).error_code()
    };
    assert_eq!(allocate(106, ALICE.1), Some(401));
    assert_eq!(allocate(107, "another password of alice"), None);
    let before = Credentials::rest(SECRETS[1], "bob", 60);
    let mut bob = TurnClient::udp(scene.client(108), scene.turn(), &before);
    bob.allocate().expect("an allocation");
}

#[test]
fn a_wrong_configuration_changes_nothing_and_all_of_it_is_told() {
    let scene = Scene::new();
    let check = |config: String, expected: &[&str]| {
        scene.site.write("edge.toml", &scene.site.fill(&config));
        scene.edge.process().signal(Signal::HUP);
        for text in expected {
            scene.edge.process().wait_for(text);
        }
        let mut client = scene.connect(100);
        assert_eq!(client.ask(&get("/app/")).status(), Some(200));
        assert_eq!(client.ask(&get("/new/")).status(), Some(404));
    };
    let new = CONFIG.replace("path = \"/app\"", "path = \"/new\"");
    check(
        new.replace("workers = 3", "workers = \"three\"")
            .replace("edge.key", "missing.key"),
        &[
            "\"three\"",
            "missing.key",
            "the new configuration is wrong; the old one stays",
        ],
    );
    check(
        new.replace("workers = 3", "workers = 2")
            .replace("30000-30099", "31000-31099"),
        &["restart=\"[server] workers, [turn] relay_ports\""],
    );
    check(
        new.replace("$net.1:8443\"", "$net.1:8444\"")
            .replace("$net.1:5060", "$net.1:5061"),
        &["restart=\"[https] listen, [sip] listen\""],
    );
    scene.edge.reload(&scene.site, &new);
    assert_eq!(scene.connect(100).ask(&get("/new/")).status(), Some(200));
}

#[test]
fn a_stop_lets_calls_end_and_takes_no_new_ones() {
    let scene = Scene::with(&CONFIG.replace("shutdown_secs = 2", "shutdown_secs = 60"));
    let mut telephones = [scene.registered(100, "alice"), scene.registered(101, "bob")];
    let mut tunnel = scene.handshake(102, "/socket/ws").open().expect("a WebSocket");
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    let mut calls = vec![scene.allocated(103)];
    let mut tcp = TurnClient::tcp(scene.client(104), scene.turn(), &Credentials::new(ALICE.0, ALICE.1));
    tcp.allocate().expect("an allocation");
    calls.push(tcp);
    for call in &mut calls {
        call.permit(scene.site.host(120)).expect("a permission");
    }
    let mut newcomer = scene.raw_turn(105);

    scene.edge.process().signal(Signal::TERM);
    for telephone in &mut telephones {
        assert_eq!(telephone.socket.closed(), Some(1012));
    }
    assert_eq!(tunnel.closed(), Some(1001));
    // RFC 8656 section 19: 508 is "insufficient capacity".
    let allocate = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::UDP);
    assert_eq!(newcomer.ask_signed(allocate).error_code(), Some(508));
    for call in &mut calls {
        call.send(peer.address(), b"media");
        assert_eq!(peer.receive().0, b"media");
        call.bind(peer.address()).expect("a call goes on");
    }
    for call in &mut calls {
        call.delete();
    }
    assert_eq!(scene.edge.wait().code(), Some(0));
}

/// What is said on the private address.
fn asked(scene: &Scene, path: &str) -> (u16, String) {
    let mut connection = Connection::plain(scene.client(99), scene.site.at(1, 9464));
    let answer = connection.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    (
        answer.status().expect("a status"),
        String::from_utf8(answer.body).expect("text"),
    )
}

/// A number among those for Prometheus.
fn number(scene: &Scene, name: &str) -> u64 {
    let (_, text) = asked(scene, "/metrics");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map(str::parse);
    line.unwrap_or_else(|| panic!("{name} is not there")).expect("a number")
}

#[test]
fn numbers_and_health_are_told() {
    let config = CONFIG.replace("shutdown_secs = 2", "shutdown_secs = 60");
    let scene = Scene::with(&format!("[metrics]\nlisten = \"$net.1:9464\"\n{config}"));
    let mut clients: Vec<_> = (100..106).map(|client| scene.connect(client)).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&get("/app/")).status(), Some(200));
        assert_eq!(client.ask(&get("/nowhere")).status(), Some(404));
    }
    let _telephone = scene.registered(106, "alice");
    let mut relay = scene.allocated(107);
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    relay.permit(scene.site.host(120)).expect("a permission");
    relay.send(peer.address(), b"media");
    peer.receive();
    // Whichever shard each of them met.
    for (name, value) in [
        ("edgeward_web_requests_total", 13),
        ("edgeward_web_forwarded_total", 6),
        ("edgeward_web_refused_total", 6),
        ("edgeward_http_connections", 6),
        ("edgeward_sip_connections", 1),
        ("edgeward_sip_flows", 1),
        ("edgeward_turn_allocations", 1),
        ("edgeward_turn_to_peer_packets_total", 1),
        ("edgeward_turn_to_peer_bytes_total", 5),
        ("edgeward_sip_mediaserver_up{mediaserver=\"default\"}", 1),
        ("edgeward_draining", 0),
    ] {
        assert_eq!(number(&scene, name), value, "{name}");
    }
    assert!(number(&scene, "edgeward_udp_received_total") > 0);
    let (_, text) = asked(&scene, "/metrics");
    for line in text.lines() {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(
            line.starts_with("# ") || name.starts_with("edgeward_") && value.parse::<f64>().is_ok(),
            "{line}"
        );
    }

    assert_eq!(asked(&scene, "/healthz"), (200, "ok\n".into()));
    assert_eq!(
        asked(&scene, "/readyz"),
        (200, "web: ready\nsip: ready\nturn: ready\n".into())
    );
    assert_eq!(asked(&scene, "/readyz/turn"), (200, "turn: ready\n".into()));
    assert_eq!(asked(&scene, "/readyz/post").0, 404);
    scene.edge.process().signal(Signal::TERM);
    scene.edge.process().wait_for("stopping");
    assert_eq!(asked(&scene, "/readyz/web"), (503, "web: the process ends\n".into()));
    assert_eq!(asked(&scene, "/healthz").0, 200);
    assert_eq!(number(&scene, "edgeward_draining"), 1);
    relay.delete();
    assert_eq!(scene.edge.wait().code(), Some(0));
}
