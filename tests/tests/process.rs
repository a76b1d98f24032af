//! Does the process start, stop and complain as an administrator expects?

use std::{
    io::ErrorKind,
    process::Command,
    time::{Duration, Instant},
};

use edgeward_tests::{
    deadline,
    edge::{Edge, run},
    peers::{
        http::pattern,
        http_client::Connection,
        stream::Stream,
        stun::{self, Class, Message, RawClient, attribute, method},
        turn_client::Credentials,
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
fn signals_end_it_in_an_orderly_way() {
    for signal in [Signal::TERM, Signal::INT] {
        let scene = Scene::new();
        let mut telephone = scene.registered(100, "alice");
        let mut tunnel = scene.handshake(101, "/socket/ws").open().expect("a WebSocket");
        let mut idle = scene.connect(102);
        assert_eq!(idle.ask(&get("/app/")).status(), Some(200));
        let mut busy = scene.connect(103);
        busy.send(get("/app/fixed/3000000"));
        assert_eq!(busy.head().status(), Some(200));

        let https = scene.https();
        let client = scene.client(104);
        let mut process = scene.edge.signal(signal);
        process.wait_for("stopping");
        // RFC 6455 section 7.4.1 and its registry: 1012 is "service restart", 1001 "going away".
        assert_eq!(telephone.socket.closed(), Some(1012));
        assert_eq!(tunnel.closed(), Some(1001));
        idle.closed();
        // What is under way may end.
        let mut length = busy.rest().len();
        while length < 3_000_000 {
            length += busy.read_some(deadline()).len();
        }
        assert_eq!(process.wait().code(), Some(0), "{signal:?}");
        let refused = Stream::connect(client, https).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn what_does_not_end_is_cut_in_time() {
    let scene = Scene::with(&CONFIG.replace("shutdown_secs = 2", "shutdown_secs = 1"));
    let mut events = scene.connect(100);
    events.send(get("/app/events"));
    assert_eq!(events.head().status(), Some(200));
    let mut slow = scene.connect(101);
    slow.send(get("/app/fixed/20000000"));
    assert_eq!(slow.head().status(), Some(200));
    let mut deaf = scene.registered(102, "alice");
    let half = Stream::connect(scene.client(103), scene.https()).expect("a connection");
    let began = Instant::now();
    let mut process = scene.edge.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    deaf.socket.closed();
    drop(half);
}

#[test]
fn a_stop_is_quick_when_nothing_is_going_on() {
    let scene = Scene::with(&CONFIG.replace("shutdown_secs = 2", "shutdown_secs = 60"));
    let mut telephone = scene.registered(100, "alice");
    // It has nobody to talk to.
    let _allocation = scene.allocated(101);
    let began = Instant::now();
    let mut process = scene.edge.signal(Signal::TERM);
    assert_eq!(telephone.socket.closed(), Some(1012));
    drop(telephone);
    assert_eq!(process.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn who_asks_twice_does_not_want_to_wait() {
    let scene = Scene::with(&CONFIG.replace("shutdown_secs = 2", "shutdown_secs = 60"));
    let mut events = scene.connect(100);
    events.send(get("/app/events"));
    assert_eq!(events.head().status(), Some(200));
    let began = Instant::now();
    let mut process = scene.edge.signal(Signal::TERM);
    process.wait_for("stopping");
    process.signal(Signal::INT);
    process.wait();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let scene = Scene::new();
    let mut second = Edge::launch(&scene.site, "second", CONFIG);
    assert_eq!(second.wait().code(), Some(1));
    let said = second.lines().join("\n");
    for (protocol, at) in [
        ("TCP", scene.https()),
        ("TCP", scene.turn()),
        ("UDP", scene.turn()),
        ("UDP", scene.sip()),
    ] {
        assert!(said.contains(&format!("{protocol} {at}")), "{said}");
    }
    assert!(said.contains("another process has this port"), "{said}");
    // The first goes on.
    assert_eq!(scene.connect(100).ask(&get("/app/")).status(), Some(200));
}

#[test]
fn an_address_that_is_not_ours_is_named() {
    let site = Site::new();
    site.write_certificate();
    let config = CONFIG
        .replace("$net.1:5060", "198.51.100.1:5060")
        .replace("relay = \"$net.1\"", "relay = \"198.51.100.2\"");
    let mut edge = Edge::launch(
        &site,
        "edge",
        &format!("[metrics]\nlisten = \"198.51.100.3:9464\"\n{config}"),
    );
    assert_eq!(edge.wait().code(), Some(1));
    let said = edge.lines().join("\n");
    for text in [
        "UDP 198.51.100.1:5060: no interface of this host has this address",
        "cannot relay by 198.51.100.2: no interface of this host has this address",
        "relay = { bind = \"10.1.0.2\", advertise = \"198.51.100.2\" }",
        "TCP 198.51.100.3:9464",
    ] {
        assert!(said.contains(text), "no {text} in {said}");
    }
    // Whoever collects lines of JSON gets these too.
    let arguments = ["run", "--config", "edge.toml", "--log-format", "json"];
    let mut edge = run(&site, "edge", &arguments);
    assert_eq!(edge.wait().code(), Some(1));
    for line in edge.lines() {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(value["level"].is_string(), "{line}");
    }
}

#[test]
fn every_error_of_a_configuration_is_told_at_once() {
    let site = Site::new();
    site.write_certificate();
    let wrong = CONFIG
        .replace("workers = 3", "workers = \"three\"")
        .replace("path = \"/app\"", "path = \"app\"")
        .replace("url = \"https://$net.2:8444\"", "url = \"ftp://$net.2\"")
        .replace("relay_ports = \"30000-30099\"", "relay_ports = \"30099-30000\"")
        .replace("edge.key", "missing.key");
    site.write("edge.toml", &site.fill(&wrong));
    for command in ["run", "check"] {
        let mut edge = run(&site, "edge", &[command, "--config", "edge.toml"]);
        assert_eq!(edge.wait().code(), Some(1));
        let said = edge.lines().join("\n");
        for (number, line) in site.fill(&wrong).lines().enumerate() {
            let is_wrong = ["\"three\"", "\"app\"", "ftp://", "30099-30000", "missing.key"];
            if is_wrong.iter().any(|wrong| line.contains(wrong)) {
                assert!(
                    said.contains(&format!("edge.toml:{}:", number + 1)),
                    "{line} is not told in\n{said}"
                );
            }
        }
        assert!(said.matches("fix:").count() >= 5, "{said}");
    }
    let mut missing = run(&site, "edge", &["run", "--config", "nowhere.toml"]);
    assert_eq!(missing.wait().code(), Some(1));
    assert!(missing.lines().join("\n").contains("nowhere.toml"));
}

#[test]
fn check_tells_what_would_run_and_starts_nothing() {
    let site = Site::new();
    site.write_certificate();
    let config = CONFIG.replace("[server]", "[server]\nkey_file = \"edge.keys\"");
    site.write("edge.toml", &site.fill(&config));
    let mut check = run(&site, "edge", &["check", "--config", "edge.toml"]);
    assert_eq!(check.wait().code(), Some(0));
    let said = check.lines().join("\n");
    for text in [
        "$net.1:8443",
        "/wssip-mds2",
        "$net.4:5060",
        "/secure",
        "30000-30099",
        "3478",
    ] {
        let text = site.fill(text);
        assert!(said.contains(&text), "{text} is not told in\n{said}");
    }
    for secret in [SECRETS[0], SECRETS[1], ALICE.1] {
        assert!(!said.contains(secret), "a secret is told");
    }
    assert!(!site.folder().join("edge.keys").exists());
}

#[test]
fn the_start_tells_how_many_clients_there_is_room_for_and_no_secret() {
    let scene = Scene::new();
    let line = scene.edge.process().wait_for("clients=");
    let clients: u64 = line
        .split("clients=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .expect("a number");
    assert!(clients > 0, "{line}");
    let said = scene.edge.process().lines().join("\n");
    for secret in [SECRETS[0], SECRETS[1], ALICE.1] {
        assert!(!said.contains(secret), "a secret is told");
    }
}

#[test]
fn the_command_line_explains_itself() {
    let site = Site::new();
    for (arguments, code) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&["run", "--help"], 0),
        (&["check", "--help"], 0),
        (&["fly"], 2),
        (&["run", "--fly"], 2),
        (&["run", "--log", "noise=nonsense", "--config", "x"], 1),
    ] {
        let mut edge = run(&site, "edge", arguments);
        assert_eq!(edge.wait().code(), Some(code), "{arguments:?}");
        assert!(!edge.lines().is_empty(), "{arguments:?}");
    }
}

#[test]
fn calls_survive_a_restart() {
    let config = CONFIG.replace("[server]", "[server]\nkey_file = \"edge.keys\"");
    let mut scene = Scene::with(&config);
    let handshake = scene.telephone(100, "/wssip");
    let mut browser = scene.registered(100, "alice");
    let invite = browser.invite("600", SDP);
    let (_, mut dialog) = browser.answered(&invite);
    let mut other_side = scene.mediaserver.dialog(invite.call_id().expect("a Call-ID"));
    assert_eq!(scene.edge.stop().code(), Some(0));

    let _edge = Edge::start(&scene.site, &config);
    browser.reopen(&handshake).expect("a WebSocket");
    browser.register();
    let update = scene.mediaserver.send_request(other_side.request("UPDATE"));
    browser.requested("UPDATE");
    assert_eq!(scene.mediaserver.final_answer(&update).status(), Some(200));
    assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));
}

#[test]
fn one_role_alone_serves() {
    // TURN needs neither a certificate nor HTTPS.
    let turn = "[turn]\nlisten = \"$net.1:3478\"\nrelay = \"$net.1\"\nrelay_ports = \"30000-30099\"\nrealm = \"edge.test\"\n\
                secrets = [{ file = \"secret\" }, { env = \"EDGEWARD_TEST_SECRET\" }]\n\
                [[turn.peer]]\nnet = \"$net.120/32\"\nports = \"20000-20099\"\n";
    let site = Site::new();
    site.write("secret", &format!("{}\n", SECRETS[0]));
    site.write("edge.toml", &site.fill(turn));
    let mut command = Command::new("env");
    command
        .arg(format!("EDGEWARD_TEST_SECRET={}", SECRETS[1]))
        .arg(edgeward_tests::edge::binary())
        .args(["run", "--config", "edge.toml"])
        .current_dir(site.folder());
    let process = edgeward_tests::process::Process::spawn("edge", &mut command);
    process.wait_until("that it is ready", |line| line.ends_with(" ready"));
    for (client, secret) in (100..).zip(SECRETS) {
        let credentials = Credentials::rest(secret, "bob", 60);
        let mut raw = RawClient::new(
            site.host(client),
            site.at(1, 3478),
            &credentials.user,
            &credentials.password,
        );
        let allocate = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::UDP);
        assert_eq!(raw.ask_signed(allocate).class, Class::Success);
    }
    drop(process);

    let web = CONFIG.split("[sip]").next().expect("a web role");
    let upstream = edgeward_tests::peers::upstream::Upstream::start(site.at(2, 8080));
    let _edge = Edge::start(&site, web);
    let mut client = Connection::tls(site.host(100), site.at(1, 8443), site.client(), NAME);
    assert_eq!(client.ask(&get("/app/fixed/1000")).body, pattern(1000));
    assert_eq!(client.ask(&get("/wssip?token=t")).status(), Some(404));
    drop((client, upstream));
}

#[test]
fn the_number_of_shards_is_that_of_the_processors_when_nobody_says() {
    let scene = Scene::with(&CONFIG.replace("workers = 3\n", ""));
    let line = scene.edge.process().wait_for("shards=");
    let processors = std::thread::available_parallelism().expect("processors");
    assert!(line.contains(&format!("shards={processors} ")), "{line}");
    let mut browser = scene.registered(100, "alice");
    let invite = browser.invite("600", SDP);
    browser.answered(&invite);
}
