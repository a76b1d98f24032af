//! Does a token open what it should, and what becomes of a wrong one?

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::*;

const ASKED: &str = r#"
[rates]
[[rates.zone]]
name = "auth"
rate = "20/min"
burst = 1

[https]
listen = ["192.0.2.1:443"]
certificates = [{ cert = "cert.pem", key = "key.pem" }]
hosts = ["edge.example.org"]

[[web.upstream]]
name = "cc"
url = "http://10.0.0.10:8080"

[[web.route]]
path = "/cti"
websocket = true
token = "segments"
zone = "auth"

[token]
ask = "/check"
upstream = "cc"
cache_secs = 10

[sip]
listen = "10.0.0.1:5060"
zone = "auth"

[[sip.mediaserver]]
address = "10.0.0.2"
"#;

fn signed_config() -> String {
    let start = ASKED.find("[token]").expect("a section");
    let end = ASKED.find("[sip]").expect("a section");
    let token = "[token]\nalgorithm = \"HS256\"\nkey = \"a secret of thirty-two characters\"\n\n";
    [&ASKED[..start], token, &ASKED[end..]].concat()
}

fn signed(claims: &str) -> String {
    let parts = [r#"{"alg":"HS256"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = parts.join(".");
    let mac = Hmac::<Sha256>::new_from_slice(b"a secret of thirty-two characters").expect("a key");
    let signature = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn cti(token: &str) -> String {
    get(&format!("/cti?token={token}"))
}

fn open_sip(token: &str) -> String {
    let request = UPGRADE.replace("/cti?token=a.b.c", &format!("/wssip?token={token}"));
    request.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: sip\r\n\r\n")
}

/// The upstream answers the question that was asked last.
fn judge(world: &mut World, status: u16, body: &str) -> String {
    let upstream = world.answer_dial();
    let asked = world.asked(upstream);
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    world.receive(upstream, answer.as_bytes());
    asked
}

fn status(world: &mut World, browser: &mut Browser) -> String {
    world.read(browser).get(9..12).unwrap_or_default().into()
}

#[test]
fn a_signed_token_opens_and_counts_for_its_user() {
    let mut world = World::with(&signed_config(), 1).remove(0);
    let good = |user: &str| cti(&signed(&format!(r#"{{"sub":"{user}","exp":1790000100}}"#)));
    // An office of one address comes back: each user has an account.
    for user in ["alice", "bob", "carol", "dave"] {
        let mut browser = world.browser();
        world.send(&mut browser, &good(user));
        let upstream = world.answer_dial();
        assert!(world.asked(upstream).starts_with("GET /cti?token="), "{user}");
    }
    for expected in ["", "429"] {
        let mut browser = world.browser();
        world.send(&mut browser, &good("alice"));
        assert_eq!(status(&mut world, &mut browser), expected);
    }
    // Wrong ones count for the address.
    for (claims, expected) in [
        (r#"{"sub":"eve","exp":1780000000}"#, "401"),
        (r#"{"sub":"eve"}"#, "401"),
        (r#"{"sub":"eve","exp":1780000000}"#, "429"),
    ] {
        let mut browser = world.browser();
        world.send(&mut browser, &cti(&signed(claims)));
        assert_eq!(status(&mut world, &mut browser), expected, "{claims}");
    }
    let mut browser = world.browser();
    world.send(&mut browser, &good("frank"));
    assert_eq!(status(&mut world, &mut browser), "");
}

#[test]
fn a_token_is_for_us_and_of_whom_we_believe() {
    let named = signed_config().replace("algorithm", "audience = \"edge\"\nissuer = \"id\"\nalgorithm");
    for (config, names, expected) in [
        (&named, r#""aud":"edge","iss":"id""#, ""),
        (&named, r#""aud":"mail","iss":"id""#, "401"),
        (&named, r#""aud":"edge","iss":"evil""#, "401"),
        (&signed_config(), r#""aud":"edge""#, "401"),
    ] {
        let mut world = World::with(config, 1).remove(0);
        let mut browser = world.browser();
        world.send(&mut browser, &cti(&signed(&format!(r#"{{"exp":1790000100,{names}}}"#))));
        assert_eq!(status(&mut world, &mut browser), expected, "{names}");
    }
}

#[test]
fn a_telephone_is_opened_for_the_user_in_its_token() {
    let mut world = World::with(&signed_config(), 1).remove(0);
    let mut browser = world.browser();
    world.send(&mut browser, &open_sip(&signed(r#"{"sub":"alice","exp":1790000100}"#)));
    assert_eq!(status(&mut world, &mut browser), "101");
    let mut browser = world.browser();
    world.send(&mut browser, &open_sip("a.b.c"));
    let answer = world.read(&mut browser);
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("invalid_token"),
        "{answer}"
    );
}

#[test]
fn a_token_that_names_nobody_speaks_for_nobody() {
    let config = |text: &str, rule: bool| format!("{text}\n[sip.policy]\ntoken_names_user = {rule}\n");
    let nameless = || signed(r#"{"exp":1790000100}"#);
    for (rule, expected) in [(true, "403"), (false, "101")] {
        let mut world = World::with(&config(&signed_config(), rule), 1).remove(0);
        let mut browser = world.browser();
        world.send(&mut browser, &open_sip(&nameless()));
        assert_eq!(status(&mut world, &mut browser), expected, "{rule}");
    }
    for (answer, expected) in [
        (r#"{"login":"alice"}"#, "101"),
        ("{}", "403"),
        ("alice", "403"),
        ("", "403"),
    ] {
        let mut world = World::with(&config(ASKED, true), 1).remove(0);
        let mut browser = world.browser();
        world.send(&mut browser, &open_sip("a.b.c"));
        judge(&mut world, 200, answer);
        assert_eq!(status(&mut world, &mut browser), expected, "{answer}");
    }
}

#[test]
fn an_answer_that_would_be_cut_is_none() {
    let answer = |bytes: usize| format!("{{\"login\":\"alice\",\"x\":\"{}\"}}", "x".repeat(bytes - 24));
    for (status_sent, bytes, expected) in [(200, 4096, "101"), (200, 4097, "503"), (401, 9000, "401")] {
        let mut world = World::with(ASKED, 1).remove(0);
        let mut browser = world.browser();
        world.send(&mut browser, &open_sip("a.b.c"));
        judge(&mut world, status_sent, &answer(bytes));
        assert_eq!(status(&mut world, &mut browser), expected, "{bytes}");
    }
}

#[test]
fn the_application_is_asked_once_for_a_token() {
    let mut world = World::with(ASKED, 1).remove(0);
    let mut browsers: Vec<Browser> = (0..2).map(|_| world.browser()).collect();
    for browser in &mut browsers {
        world.send(browser, &cti("a.b.c"));
    }
    assert_eq!(world.dialed.len(), 1);
    let asked = judge(&mut world, 200, r#"{"login":"alice"}"#);
    assert!(
        asked.starts_with("GET /check HTTP/1.1\r\nHost: 10.0.0.10:8080\r\n"),
        "{asked}"
    );
    assert!(asked.contains("\r\nAuthorization: Bearer a.b.c\r\n"), "{asked}");
    // Both go on, by connections of their own.
    assert_eq!(world.dialed.len(), 2);
    for _ in 0..2 {
        let upstream = world.answer_dial();
        assert!(world.asked(upstream).starts_with("GET /cti?token=a.b.c "));
    }
    // The answer holds for a while: the third is counted, but nobody is asked.
    let mut third = world.browser();
    world.send(&mut third, &cti("a.b.c"));
    assert_eq!(
        (status(&mut world, &mut third).as_str(), world.dialed.len()),
        ("429", 0)
    );
    world.pass(Duration::from_secs(11));
    world.send(&mut third, &cti("a.b.c"));
    let upstream = world.answer_dial();
    assert!(world.asked(upstream).starts_with("GET /check "));
}

#[test]
fn what_the_application_says_is_said() {
    for (answer, expected) in [(401, "401"), (403, "403"), (404, "401"), (500, "503"), (302, "503")] {
        let mut world = World::with(ASKED, 1).remove(0);
        let mut browser = world.browser();
        world.send(&mut browser, &cti("a.b.c"));
        assert!(world.unread.contains(&browser.conn));
        judge(&mut world, answer, "");
        assert_eq!(status(&mut world, &mut browser), expected, "{answer}");
    }
    // It cannot be reached, or says nothing.
    let mut world = World::with(ASKED, 1).remove(0);
    let mut browser = world.browser();
    world.send(&mut browser, &cti("a.b.c"));
    let (conn, _) = world.dialed.pop().expect("a call");
    world.handle(Input::Dialed(conn, Err(IoKind::Refused)));
    assert_eq!(status(&mut world, &mut browser), "503");
    let mut browser = world.browser();
    world.send(&mut browser, &cti("a.b.c"));
    let silent = world.answer_dial();
    world.pass(Duration::from_secs(6));
    assert_eq!(status(&mut world, &mut browser), "503");
    assert!(world.closed.contains(&silent));
}

#[test]
fn whoever_guesses_asks_no_more() {
    let mut world = World::with(ASKED, 1).remove(0);
    let mut statuses = Vec::new();
    for guess in 0..5 {
        let mut browser = world.browser();
        world.send(&mut browser, &cti(&format!("a.b.{guess}")));
        if !world.dialed.is_empty() {
            judge(&mut world, 401, "");
        }
        statuses.push(status(&mut world, &mut browser));
    }
    assert_eq!(statuses, ["401", "401", "429", "429", "429"]);
    // What cannot stand in a field is never asked.
    let mut other = world.browser_of("198.51.100.9:50000");
    world.send(&mut other, &get("/wssip?token=a%0d%0aX:%20y"));
    assert!(world.dialed.is_empty());
}

#[test]
fn who_makes_tokens_up_keeps_nobody_else_from_being_asked_for() {
    let config = ASKED.replace("zone = \"auth\"\n", "");
    let mut world = World::with(&config, 1).remove(0);
    let mut last = String::new();
    for guess in 0..300 {
        let mut browser = world.browser();
        world.send(&mut browser, &cti(&format!("a.b.{guess}")));
        last = status(&mut world, &mut browser);
    }
    assert_eq!((world.dialed.len(), last.as_str()), (256, "503"));
    let mut other = world.browser_of("198.51.100.9:50000");
    world.send(&mut other, &cti("a.b.c"));
    judge(&mut world, 403, "");
    assert_eq!(status(&mut world, &mut other), "403");
    // There is room again when some are answered.
    judge(&mut world, 401, "");
    let mut next = world.browser();
    world.send(&mut next, &cti("a.b.next"));
    assert_eq!(world.dialed.len(), 256);
}

#[test]
fn a_question_that_met_a_tired_connection_is_asked_again() {
    let mut world = World::with(ASKED, 1).remove(0);
    let mut browser = world.browser();
    world.send(&mut browser, &cti("a.b.1"));
    let upstream = world.answer_dial();
    world.receive(upstream, b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status(&mut world, &mut browser), "401");
    world.asked(upstream);
    world.send(&mut browser, &cti("a.b.2"));
    assert!(world.asked(upstream).contains("Bearer a.b.2"));
    world.handle(Input::Eof(upstream));
    assert!(judge(&mut world, 403, "").contains("Bearer a.b.2"));
    assert_eq!(status(&mut world, &mut browser), "403");
}
