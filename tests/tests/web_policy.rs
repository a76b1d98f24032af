//! Who may do what, and how often? Rates, tokens, and upstreams that come and go, through the built binary.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use edgeward_tests::{
    peers::{
        sip_browser::{Account, SipBrowser},
        websocket::Handshake,
    },
    scene::{CONFIG, Scene},
    site::NAME,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A request without a body, as bytes.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}:8443\r\n\r\n")
}

/// The usual site with a few routes more.
fn scene(more: &str) -> Scene {
    Scene::with(&[CONFIG, more].concat())
}

const RATES: &str = r#"
[rates]
exempt = ["$net.110/32"]

[[rates.zone]]
name = "strict"
rate = "20/min"
burst = 4

[[rates.zone]]
name = "slow"
rate = "4/s"
burst = 8
mode = "delay"

[[web.route]]
path = "/strict"
upstream = "plain"
zone = "strict"

[[web.route]]
path = "/slow"
upstream = "plain"
zone = "slow"
"#;

#[test]
fn a_rate_holds_for_all_workers_together() {
    let scene = scene(RATES);
    // Each connection is on whichever of the workers the kernel chose.
    let statuses = |client: u8| -> Vec<u16> {
        let mut status = |_| scene.connect(client).ask(&get("/strict")).status().expect("a status");
        (0..12).map(&mut status).collect()
    };
    assert_eq!(statuses(100), [[200; 5].as_slice(), &[429; 7]].concat());
    // Another client is not concerned, and one that is exempt is not counted.
    assert_eq!(statuses(101)[..5], [200; 5]);
    assert_eq!(statuses(110), [200; 12]);
    let refused = scene.connect(100).ask(&get("/strict"));
    let wait: u64 = refused
        .field("retry-after")
        .and_then(|secs| secs.parse().ok())
        .expect("seconds");
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!(scene.connect(100).ask(&get("/app/")).status(), Some(200));
    let strict = scene
        .upstream
        .requests()
        .iter()
        .filter(|seen| seen.request.target() == "/strict")
        .count();
    assert_eq!(strict, 5 + 5 + 12, "what is refused reaches nobody");
}

#[test]
fn requests_of_a_burst_are_served_in_turn() {
    let scene = scene(RATES);
    let mut client = scene.connect(100);
    client.send(get("/slow").repeat(4));
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        assert_eq!(client.response("GET").status(), Some(200));
    }
    // Three intervals of a quarter of a second: the edge must not be faster than that.
    assert!(begun.elapsed().as_millis() >= 700, "{:?}", begun.elapsed());
}

const TOKENS: &str = r#"
[token]
ask = "/status/200"
upstream = "plain"

[[web.route]]
path = "/guarded"
upstream = "plain"
token = "segments"

[[web.route]]
path = "/present"
upstream = "plain"
token = "present"
"#;

#[test]
fn the_application_says_whether_a_token_holds() {
    let scene = scene(TOKENS);
    let mut client = scene.connect(100);
    let mut ask = |path: &str| client.ask(&get(path)).status();
    assert_eq!(ask("/guarded?token=secret.of.alice"), Some(200));
    assert_eq!(ask("/guarded?token=secret"), Some(403));
    assert_eq!(ask("/guarded"), Some(401));
    assert_eq!(ask("/present?token=secret"), Some(200));
    let question = scene.upstream.wait_for("/status/200").request;
    assert_eq!(question.field("authorization"), Some("Bearer secret.of.alice"));
    let log = scene.edge.process().lines().join("\n");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_token_that_the_application_does_not_like_opens_nothing() {
    for (said, expected) in [
        ("/status/401", 401),
        ("/status/403", 403),
        ("/status/500", 503),
        ("/silent", 503),
    ] {
        let scene = scene(&TOKENS.replace("/status/200", said));
        let mut client = scene.connect(100);
        assert_eq!(
            client.ask(&get("/guarded?token=a.b.c")).status(),
            Some(expected),
            "{said}"
        );
        let guarded = |seen: &edgeward_tests::peers::upstream::Recorded| seen.request.target().starts_with("/guarded");
        assert!(!scene.upstream.requests().iter().any(guarded), "{said}");
    }
}

/// A JWT that names a user (RFC 7519), good until the year 2100.
fn jwt_of(user: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{user}","exp":4102444800}}"#));
    let signed = format!("{header}.{claims}");
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length");
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

#[test]
fn a_token_says_whom_a_telephone_speaks_for() {
    const KEY: &str = "thirty-two bytes that nobody knows";
    let check = |names_user: bool, others: u16| {
        let scene = scene(&format!(
            "[token]\nalgorithm = \"HS256\"\nkey = \"{KEY}\"\n[sip.policy]\ntoken_names_user = {names_user}\n"
        ));
        let telephone = |token: &str| Handshake {
            target: format!("/wssip?token={token}"),
            ..scene.telephone(100, "/wssip")
        };
        let open = |user: &str| {
            let handshake = telephone(&jwt_of("alice", KEY));
            SipBrowser::open(&handshake, Account::of(user)).expect("a WebSocket")
        };
        open("alice").register();
        assert!(scene.mediaserver.binding("alice").is_some());
        // 401 is what the mediaserver says, which then has the word.
        assert_eq!(open("mallory").try_register(None).status(), Some(others));
        let forged = telephone(&jwt_of("mallory", "another key that is as long as it"));
        let declined = SipBrowser::open(&forged, Account::of("mallory")).expect_err("no WebSocket");
        assert_eq!(declined.status, 401);
    };
    check(true, 403);
    check(false, 401);
}

#[test]
fn the_next_server_is_called_when_one_does_not_answer() {
    // Nobody listens at the first, and the second is there.
    let several = CONFIG.replace(
        "url = \"http://$net.2:8080\"",
        "url = [\"http://$net.2:8998\", \"http://$net.2:8080\"]\nconnections_max = 4",
    );
    let scene = Scene::with(&several);
    for _ in 0..5 {
        assert_eq!(scene.connect(100).ask(&get("/app/")).text(), "hello");
    }
    assert_eq!(scene.connect(100).ask(&get("/absent/")).status(), Some(502));
}
