//! Can what happened in the field be seen again? `run --record` writes it down, `replay` does it again.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use edgeward_tests::{
    edge, eventually,
    peers::udp_peer::UdpPeer,
    scene::{CONFIG, SECRETS, Scene},
    site::{NAME, Site},
};
use rustix::process::Signal;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

/// What a browser brings that is nobody else's business.
const COOKIE: &str = "the-cookie-of-alice";
const BASIC: &str = "dGhlIHBhc3N3b3JkIG9mIGEgYnJvd3Nlcg==";
const TOKEN: &str = "aaaaaaaaaaaa.bbbbbbbbbbbbbbbb.cccccccccccccccc";

/// What `replay` says of a file: whether it went well, its output, and what it complains of.
fn replay(site: &Site, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(edge::binary());
    command.arg("replay").args(arguments).current_dir(site.folder());
    let output = command.output().expect("a binary that starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Starts an edge that records into `edge.rec`.
fn recorded(config: &str, bytes_max: &str) -> (Scene, PathBuf) {
    let arguments = ["--record", "edge.rec", "--record-bytes-max", bytes_max];
    let scene = Scene::with_arguments(config, &arguments);
    let file = scene.site.folder().join("edge.rec");
    (scene, file)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}:8443\r\n\r\n")
}

fn secret_get(path: &str) -> String {
    get(path).replace(
        "\r\n\r\n",
        &format!("\r\nCookie: id={COOKIE}\r\nAuthorization: Basic {BASIC}\r\n\r\n"),
    )
}

/// Uses all roles in all ways.
fn use_everything(scene: &Scene) {
    let mut page = scene.connect(102);
    assert_eq!(
        page.ask(&secret_get(&format!("/app/?token={TOKEN}"))).status(),
        Some(200)
    );
    assert_eq!(page.ask(&get("/secure/")).status(), Some(200));
    assert_eq!(page.ask(&get("/nowhere")).status(), Some(404));
    let mut tunnel = scene.handshake(101, "/socket/ws").open().expect("a WebSocket");
    tunnel.send_text("{\"password\": \"what nobody should read\"}");
    tunnel.message();
    // Of these, some have their home on other shards than they come to.
    for client in 105..110 {
        let mut telephone = scene.registered(client, &format!("user{client}"));
        let invite = telephone.invite("600", SDP);
        let (_, mut dialog) = telephone.answered(&invite);
        assert_eq!(telephone.request(&mut dialog, "BYE").status(), Some(200));
    }
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    for (way, mut client) in scene.turn_clients() {
        client.allocate().expect(way);
        client.permit(scene.site.host(120)).expect(way);
        client.send(peer.address(), way.as_bytes());
        let (media, relay) = peer.receive();
        assert_eq!(media, way.as_bytes());
        peer.send(relay, b"and back");
        assert_eq!(client.receive_from(peer.address()), b"and back");
    }
    scene
        .edge
        .reload(&scene.site, &CONFIG.replace("path = \"/app\"", "path = \"/new\""));
    assert_eq!(scene.connect(111).ask(&get("/new/")).status(), Some(200));
}

#[test]
fn what_was_recorded_happens_again() {
    let (mut scene, file) = recorded(CONFIG, "64MiB");
    scene.edge.process().wait_for("recording everything that comes in");
    use_everything(&scene);
    assert_eq!(scene.edge.stop().code(), Some(0));

    let (is_same, trace, complaints) = replay(&scene.site, &["edge.rec"]);
    assert!(is_same, "{complaints}");
    for expected in [
        "begins",
        "connects to",
        "ClientHello",
        "GET /app/?token=",
        "say to conn",
        "HTTP/1.1 200",
        "HTTP/1.1 404",
        "HTTP/1.1 101",
        "WebSocket text",
        "REGISTER sip:",
        "INVITE sip:600",
        "SIP/2.0 200",
        "Allocate request",
        "Allocate error",
        "bind relay",
        "Allocate success",
        "CreatePermission success",
        "from another shard",
        "goes on with another configuration",
        "Each shard did the same again.",
    ] {
        assert!(trace.contains(expected), "no `{expected}` in\n{trace}");
    }
    let (is_same, summary, _) = replay(&scene.site, &["edge.rec", "--quiet"]);
    assert!(
        is_same && !summary.contains("INVITE") && summary.contains("3 shards"),
        "{summary}"
    );

    assert_eq!(
        fs::metadata(&file).expect("a recording").permissions().mode() & 0o777,
        0o600
    );
    let bytes = fs::read(&file).expect("a recording");
    let key = fs::read_to_string(scene.site.folder().join("edge.key")).expect("a key");
    let private = key.lines().nth(1).expect("a key in PEM form");
    let telephone = "token-of-105";
    let tunnel = "what nobody should read";
    for secret in [COOKIE, BASIC, TOKEN, private, telephone, tunnel] {
        let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!is_there, "{secret} is in the recording");
    }
    // TURN could not be replayed without.
    assert!(
        bytes
            .windows(SECRETS[0].len())
            .any(|window| window == SECRETS[0].as_bytes())
    );

    let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut changed = bytes.clone();
        change(&mut changed);
        fs::write(scene.site.folder().join("changed.rec"), changed).expect("a file");
        let (is_same, _, complaints) = replay(&scene.site, &["changed.rec", "--quiet"]);
        assert!(!is_same && complaints.contains(expected), "{complaints}");
    };
    let line = bytes.iter().position(|byte| *byte == b'\n').expect("a title");
    check(&|bytes| bytes.truncate(bytes.len() / 2), "the recording is cut off");
    check(&|bytes| bytes[line + 100] ^= 1, "the recording is spoilt here");
    check(&|bytes| bytes[line - 1] = b'9', "this is a recording of format 9");
    check(&|bytes| bytes[0] = b'X', "this is no recording of Edgeward");
    let (is_same, _, complaints) = replay(&scene.site, &["missing.rec"]);
    assert!(!is_same && complaints.contains("missing.rec"), "{complaints}");
}

#[test]
fn a_recording_ends_where_it_is_full_and_the_edge_goes_on() {
    let (mut scene, file) = recorded(CONFIG, "64KiB");
    let mut page = scene.connect(100);
    assert_eq!(page.ask(&get("/app/fixed/300000")).status(), Some(200));
    scene.edge.process().wait_for("the recording is full");
    assert!(fs::metadata(&file).expect("a recording").len() <= 64 * 1024);
    assert_eq!(page.ask(&get("/app/")).status(), Some(200));
    scene.registered(101, "alice");
    assert_eq!(scene.edge.stop().code(), Some(0));
    let (is_same, trace, complaints) = replay(&scene.site, &["edge.rec"]);
    assert!(is_same && trace.contains("GET /app/fixed/300000"), "{complaints}");
    assert!(complaints.contains("the recording was full here"), "{complaints}");
}

#[test]
fn a_process_that_was_killed_leaves_what_it_had_seen() {
    let (scene, file) = recorded(CONFIG, "64MiB");
    let mut page = scene.connect(100);
    assert_eq!(page.ask(&get("/app/")).status(), Some(200));
    let length = || fs::metadata(&file).expect("a recording").len();
    let contains = || replay(&scene.site, &["edge.rec"]).1.contains("HTTP/1.1 200");
    eventually("the answer in the recording", || contains().then_some(()));
    scene.edge.process().signal(Signal::KILL);
    assert!(length() > 0);
    let (is_whole, trace, complaints) = replay(&scene.site, &["edge.rec"]);
    assert!(!is_whole && trace.contains("GET /app/"), "{trace}");
    assert!(complaints.contains("the process was killed"), "{complaints}");
}

#[test]
fn a_recording_that_is_there_is_kept_and_the_edge_runs() {
    let site = Site::new();
    site.write("edge.rec", "what happened yesterday");
    site.write_certificate();
    let minimal = "[turn]\nlisten = \"$net.1:3478\"\nrelay = \"$net.1\"\nrelay_ports = \"30000-30099\"\n\
                   realm = \"edge.test\"\nsecrets = [\"a secret of thirty-two characters\"]\n";
    let mut edge = edge::Edge::start_with(&site, minimal, &["--record", "edge.rec"]);
    edge.process().wait_for("nothing is recorded");
    assert_eq!(edge.stop().code(), Some(0));
    let kept = fs::read_to_string(site.folder().join("edge.rec")).expect("a file");
    assert_eq!(kept, "what happened yesterday");
}
