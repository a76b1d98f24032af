//! Can it be operated while people call? Another configuration, an orderly end, logs and numbers.

use std::{fs, path::Path, process::Command};

use edgeward_tests::{
    edge::Edge,
    eventually,
    peers::{
        http_client::Connection,
        sip_browser::{Account, SipBrowser},
        stun::{self, Message, RawClient, attribute, method},
        turn_client::{Credentials, TurnClient},
        udp_peer::UdpPeer,
        websocket::Event,
    },
    scene::{ALICE, CONFIG, SECRETS, Scene},
    site::{NAME, Site},
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
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock after 1970")
        .as_secs();
    assert!(
        number(
            &scene,
            "edgeward_certificate_not_after_seconds{certificate=\"edge.pem\"}"
        ) > now
    );
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

#[test]
fn a_mediaserver_that_never_answered_is_not_up() {
    let config = CONFIG
        .replace("$net.3:5060", "$net.130:5060")
        .replace("$net.4:5060", "$net.131:5060")
        .replace("[turn]", "[sip.health]\ninterval_secs = 0.2\n[turn]");
    let site = Site::new();
    let silent = [130, 131].map(|host| UdpPeer::bind(site.at(host, 5060)));
    let scene = Scene::at(site, &format!("[metrics]\nlisten = \"$net.1:9464\"\n{config}"));
    let up = "edgeward_sip_mediaserver_up{mediaserver=\"default\"}";
    let nothing = (503, "sip: no mediaserver has answered yet\n".into());
    assert_eq!(asked(&scene, "/readyz/sip"), nothing);
    scene.edge.process().wait_for("has never answered OPTIONS");
    assert_eq!(asked(&scene, "/readyz/sip"), nothing);
    assert_eq!(number(&scene, up), 0);
    // It may be silent on purpose: whoever calls is let through.
    let telephone = scene.telephone(100, "/wssip");
    SipBrowser::open(&telephone, Account::of("alice")).expect("a WebSocket");
    // Answers to old questions come too late.
    eventually("readiness", || {
        let (question, edge) = silent[0].receive();
        let question = String::from_utf8(question).expect("text");
        let (_, fields) = question.split_once("\r\n").expect("a request");
        silent[0].send(edge, format!("SIP/2.0 200 OK\r\n{fields}").as_bytes());
        (asked(&scene, "/readyz/sip").0 == 200).then_some(())
    });
    assert_eq!(number(&scene, up), 1);
}

/// The lines of a file, once there are so many.
fn lines(scene: &Scene, file: &str, count: usize) -> Vec<String> {
    eventually(file, || {
        let text = fs::read_to_string(scene.site.folder().join(file)).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn each_request_is_one_line_of_the_access_log() {
    let config = format!("[access_log]\nformat = \"json\"\nfile = \"access.log\"\n{CONFIG}");
    let scene = Scene::with(&config);
    let mut client = scene.connect(100);
    assert_eq!(
        client.ask(&get("/app/fixed/1000?token=the.secret.token")).status(),
        Some(200)
    );
    assert_eq!(client.ask(&get("/nowhere")).status(), Some(404));
    let mut tunnel = scene
        .handshake(101, "/socket/ws?token=the.secret.token")
        .open()
        .expect("a WebSocket");
    tunnel.send_text("hello");
    tunnel.message();
    tunnel.close();
    tunnel.closed();
    drop(tunnel);
    let mut gone = scene.connect(102);
    gone.send(get("/app/fixed/20000000"));
    gone.head();
    drop(gone);
    let logged = lines(&scene, "access.log", 4);
    assert!(!logged.join("").contains("secret"), "{logged:?}");
    let find = |path: &str| -> serde_json::Value {
        let values = logged
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        values
            .into_iter()
            .find(|value| value["path"] == path)
            .unwrap_or_else(|| panic!("{path} in {logged:?}"))
    };
    let page = find("/app/fixed/1000");
    assert_eq!(
        (&page["status"], &page["method"], &page["end"]),
        (&200.into(), &"GET".into(), &"complete".into())
    );
    assert_eq!((&page["upstream"], &page["route"]), (&"plain".into(), &"/app".into()));
    assert_eq!(page["client"], scene.client(100).to_string());
    assert!(page["sent_bytes"].as_u64() > Some(1000) && page["wait_secs"].as_f64() <= page["total_secs"].as_f64());
    assert_eq!(
        (&find("/nowhere")["status"], &find("/nowhere")["upstream"]),
        (&404.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&find("/nowhere")["end"], &find("/nowhere")["id"]),
        (&"refused".into(), &serde_json::Value::Null)
    );
    assert_eq!(find("/socket/ws")["status"], 101);
    assert_eq!(find("/app/fixed/20000000")["end"], "client-gone");

    // logrotate moves the file and tells us so.
    let file = |name: &str| scene.site.folder().join(name);
    fs::rename(file("access.log"), file("access.log.1")).expect("moved");
    scene.edge.process().signal(Signal::USR1);
    assert_eq!(lines(&scene, "access.log", 0), [""; 0]);
    assert_eq!(client.ask(&get("/app/after")).status(), Some(200));
    assert!(lines(&scene, "access.log", 1)[0].contains("/app/after"));

    // Another form, on standard output, and what is under way when it stops.
    scene.edge.reload(&scene.site, &format!("[access_log]\n{CONFIG}"));
    assert_eq!(client.ask(&get("/app/combined")).status(), Some(200));
    let line = scene.edge.process().wait_for("GET /app/combined HTTP/1.1");
    let address = scene.client(100);
    assert!(
        line.starts_with(&format!("{address} - - [")) && line.contains("\" 200 "),
        "{line}"
    );
    assert!(
        line.contains(" route=/app upstream=plain wait=") && line.contains(" end=complete id="),
        "{line}"
    );
    let mut last = scene.connect(103);
    last.send(get("/app/events"));
    last.head();
    let mut process = scene.edge.signal(Signal::TERM);
    process.wait();
    let line = process.wait_for("GET /app/events HTTP/1.1");
    assert!(line.contains(" end=stopped "), "{line}");
}

/// The regular expressions of a filter for fail2ban, with the address as a group.
fn filter(role: &str) -> Vec<regex::Regex> {
    let file = format!("../packaging/fail2ban/filter.d/edgeward-{role}.conf");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a filter");
    let (_, rest) = text.split_once("failregex = ").expect("expressions");
    let (expressions, _) = rest.split_once("\ndatepattern").expect("a date");
    let expressions = expressions
        .lines()
        .map(|line| line.trim().replace("<ADDR>", "(?<address>[0-9a-fA-F.:]+)"));
    expressions
        .map(|line| regex::Regex::new(&line).expect("an expression"))
        .collect()
}

/// Asks for what every role refuses.
fn provoke(scene: &Scene) {
    let mut lost = scene.connect(100);
    lost.ask(&get("/.env"));
    lost.ask("GET /app/ HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n");
    let mut smuggler = scene.connect(101);
    smuggler.send("POST /app/ HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    smuggler.closed();
    let plain = Connection::plain(scene.client(102), scene.https()).ask("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(plain.status(), Some(400));
    let mut stranger = scene
        .telephone(103, "/wssip")
        .with("Sec-WebSocket-Protocol", "sip")
        .open()
        .expect("a WebSocket");
    stranger.send_raw(b"\x81\x02hi");
    stranger.closed();
    let mut guesser = RawClient::new(scene.client(104), scene.turn(), ALICE.0, "a wrong password of alice");
    let allocate = || Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::UDP);
    assert_eq!(guesser.ask_signed(allocate()).error_code(), Some(401));
    let mut prober = scene.raw_turn(105);
    prober.allocate();
    let forbidden = Message::request(method::CREATE_PERMISSION).with_peer("10.0.0.1:1".parse().expect("an address"));
    assert_eq!(prober.ask_signed(forbidden).error_code(), Some(403));
}

#[test]
fn refusals_are_lines_that_fail2ban_understands() {
    for format in ["text", "json"] {
        let mut scene = Scene::new();
        if format == "json" {
            scene.edge.stop();
            scene.edge = Edge::start_with(&scene.site, CONFIG, &["--log-format", "json"]);
        }
        provoke(&scene);
        // Whom an ordinary browser may be is told of, but not counted.
        for (client, role, reason, is_counted) in [
            (100, "web", "route", false),
            (100, "web", "host", true),
            (101, "web", "protocol", true),
            (102, "edge", "protocol", true),
            (103, "sip", "protocol", true),
            (104, "turn", "credentials", true),
            (105, "turn", "peer", false),
        ] {
            let address = scene.client(client).to_string();
            let line = scene
                .edge
                .process()
                .wait_until(&format!("{role} {reason} of {address}"), |line| {
                    line.contains("edgeward::security")
                        && line.contains(&address)
                        && line.contains(&format!("\"{reason}\""))
                });
            let found = filter(role)
                .iter()
                .find_map(|regex| Some(regex.captures(&line)?["address"].to_owned()));
            assert_eq!(found, is_counted.then_some(address), "{line}");
            for (of, about) in [("route", "/.env"), ("host", "elsewhere.example")] {
                assert!(of != reason || line.contains(&format!("\"{about}\"")), "{line}");
            }
            for other in ["edge", "web", "sip", "turn"].iter().filter(|other| **other != role) {
                assert!(
                    filter(other).iter().all(|regex| !regex.is_match(&line)),
                    "{line} is one of {other} too"
                );
            }
        }
        let said = scene.edge.process().lines().join("\n") + "\n";
        scene.site.write("refusals.log", &said);
        check_with_fail2ban(&scene);
    }
}

/// fail2ban itself finds the clients, with their times.
fn check_with_fail2ban(scene: &Scene) {
    let filters = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/fail2ban/filter.d");
    for (role, hits) in [("edge", 1), ("web", 2), ("sip", 1), ("turn", 1)] {
        let ran = Command::new("fail2ban-regex")
            .arg(scene.site.folder().join("refusals.log"))
            .arg(filters.join(format!("edgeward-{role}.conf")))
            .output();
        let Ok(ran) = ran else {
            return edgeward_tests::skipped("fail2ban-regex is not installed");
        };
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(said.contains(&format!(" {hits} matched")), "{role}: {said}");
    }
}

#[test]
fn what_fails_behind_the_edge_is_named() {
    let config = CONFIG
        .replace("ca = \"ca.pem\"", "ca = \"edge.pem\"")
        .replace("30000-30099", "30000-30011");
    let site = Site::new();
    let _taken: Vec<_> = (30_000..=30_011).map(|port| UdpPeer::bind(site.at(1, port))).collect();
    let scene = Scene::at(site, &config);
    let mut client = scene.connect(100);
    for (path, said, details) in [
        (
            "/secure",
            "no TLS with a server of an upstream",
            ["upstream=\"secure\"", "server=https://$net.2:8444", "certificate"],
        ),
        (
            "/absent",
            "a server of an upstream took no call",
            [
                "upstream=\"absent\"",
                "server=http://$net.2:8999",
                "nothing listens there",
            ],
        ),
    ] {
        assert_eq!(client.ask(&get(path)).status(), Some(502), "{path}");
        let process = scene.edge.process();
        let line = process.wait_until(said, |line| line.contains(said) && line.contains(details[0]));
        for detail in details.map(|detail| scene.site.fill(detail)) {
            assert!(line.contains(&detail), "no {detail} in {line}");
        }
    }
    let allocate = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::UDP);
    assert_eq!(scene.raw_turn(101).ask_signed(allocate).error_code(), Some(508));
    let line = scene.edge.process().wait_for("no relay port can be bound");
    assert!(line.contains("keep other programs off"), "{line}");
    let said = scene.edge.process().lines().join("\n");
    assert!(!said.contains("capacity"), "a client is blamed for it\n{said}");
}

#[test]
fn a_flood_of_refusals_is_not_a_flood_of_lines() {
    let scene = Scene::with(&format!("[metrics]\nlisten = \"$net.1:9464\"\n{CONFIG}"));
    let mut scanner = scene.connect(100);
    for number in 0..200 {
        scanner.ask(&get(&format!("/scan/{number}")));
    }
    let lines = scene.edge.process().lines();
    assert_eq!(
        lines.iter().filter(|line| line.contains("edgeward::security")).count(),
        10
    );
    assert_eq!(number(&scene, "edgeward_refusals_unlogged_total"), 190);
}
