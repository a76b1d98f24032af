//! Are secrets left out, and nothing else, however the bytes come?

use edgeward_core::{config::Sources, tls::Provider};
use rustls::crypto::aws_lc_rs;

use super::*;

const SHARDS: u16 = 4;

struct Nothing(Provider);

impl Sources for Nothing {
    fn file(&mut self, _: &str) -> Result<Vec<u8>, String> {
        Err("there is none".into())
    }

    fn env(&mut self, _: &str) -> Option<String> {
        None
    }

    fn provider(&self) -> &Provider {
        &self.0
    }
}

fn rules() -> Rules {
    let keys = Keys {
        nonce: [7; 32],
        flow: vec![[8; 32]],
    };
    let text = "[turn]\nlisten = \"127.0.0.1:3478\"\nrelay = \"127.0.0.1\"\nrelay_ports = \"30000-30099\"\n\
                realm = \"example.org\"\nsecrets = [\"a secret of the example\"]\n";
    let mut sources = Nothing(Provider::new(aws_lc_rs::default_provider(), || None));
    let config = Config::parse(text, &mut sources, keys).expect("a configuration");
    Rules::new(&config, SHARDS, RandomState::new())
}

fn masked(rules: &Rules, stream: &mut Stream, text: &[u8], piece: usize) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for piece in bytes.chunks_mut(piece) {
        stream.mask(rules, piece);
    }
    bytes
}

#[test]
fn secrets_are_left_out_and_nothing_else() {
    let rules = rules();
    let check = |text: &str, expected: &str| {
        for piece in [1, 2, 7, 1000] {
            let bytes = masked(&rules, &mut Stream::default(), text.as_bytes(), piece);
            assert_eq!(String::from_utf8_lossy(&bytes), expected, "in pieces of {piece}");
        }
    };
    let plain = "GET /app/?a=1 HTTP/1.1\r\nHost: edge.test\r\nAccept: text/html\r\n\r\n";
    check(plain, plain);
    check(
        "GET / HTTP/1.1\r\nCOOKIE: a=b; c=d\r\nAuthorization: Basic YTpi\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nCOOKIE: xxxx xxx\r\nAuthorization: xxxxx xxxx\r\nHost: x\r\n\r\n",
    );
    check(
        "\r\nSet-Cookie: id=1; Path=/\r\n\r\n",
        "\r\nSet-Cookie: xxxxx xxxxxx\r\n\r\n",
    );
    check(
        "{\"login\": \"bob\", \"password\" : \"it's me\", \"token\":\"abc\", \"n\": 1}",
        "{\"login\": \"bob\", \"password\" : \"xxxx xx\", \"token\":\"xxx\", \"n\": 1}",
    );
    check("login=bob&password=a%20b&x=1", "login=bob&password=xxxxx&x=1");
    check(
        "GET /rooms/validate/eyJhbGci.eyJz.c2ln?x HTTP/1.1\r\n",
        "GET /rooms/validate/eyJxxxxxxxxxxxxxxx?x HTTP/1.1\r\n",
    );
    check("GET /?q=cookie:a HTTP/1.1\r\n", "GET /?q=cookie:a HTTP/1.1\r\n");
    check("GET /monkeyJungle/x HTTP/1.1\r\n", "GET /monkeyJungle/x HTTP/1.1\r\n");
}

#[test]
fn a_token_keeps_its_form_and_its_home() {
    let rules = rules();
    let home = |token: &[u8]| rules.keys.home(&*String::from_utf8_lossy(token), SHARDS);
    let mut seen = Vec::new();
    for token in ["token-of-100", "token-of-101", "aaaa.bbbb.cccc", "one%2Etwo"] {
        let text = format!("GET /wssip?token={token}&x=1 HTTP/1.1\r\n");
        let mask = || masked(&rules, &mut Stream::default(), text.as_bytes(), 1000);
        let bytes = mask();
        let found = &bytes[17..17 + token.len()];
        assert_ne!(found, token.as_bytes());
        assert_eq!(home(found), home(&unescape(token.as_bytes())), "{token}");
        let dots = |text: &[u8]| text.iter().map(|byte| *byte == b'.').collect::<Vec<_>>();
        assert_eq!(dots(found), dots(token.as_bytes()));
        assert_eq!(
            (&bytes[..17], &bytes[17 + token.len()..]),
            (&b"GET /wssip?token="[..], &b"&x=1 HTTP/1.1\r\n"[..])
        );
        assert_eq!(bytes, mask(), "the same once more");
        seen.push(found.to_vec());
    }
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

#[test]
fn tokens_that_the_edge_checks_stay() {
    let mut rules = rules();
    rules.keeps_tokens = true;
    let text = b"GET /wssip?token=aaaa.bbbb.cccc HTTP/1.1\r\nCookie: a\r\n";
    let bytes = masked(&rules, &mut Stream::default(), text, 1000);
    assert_eq!(bytes, b"GET /wssip?token=aaaa.bbbb.cccc HTTP/1.1\r\nCookie: x\r\n");
}

fn frame(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

#[test]
fn what_a_browser_says_in_frames_is_looked_at() {
    let rules = rules();
    let head = b"GET /wssip HTTP/1.1\r\nUpgrade: websocket\r\nHost: x\r\n\r\n";
    let said = b"REGISTER sip:x SIP/2.0\r\nAuthorization: Digest response=\"ab\"\r\n\r\n";
    let left = b"REGISTER sip:x SIP/2.0\r\nAuthorization: xxxxxx xxxxxxxxxxxxx\r\n\r\n";
    let ping = b"\x89\x80\x01\x02\x03\x04";
    for key in [[1, 2, 3, 4], [0; 4]] {
        let text = [&head[..], ping, &frame(said, key), &frame(b"\ncookie: a", key)].concat();
        let expected = [&head[..], ping, &frame(left, key), &frame(b"\ncookie: x", key)].concat();
        for piece in [1, 5, 64, 1000] {
            assert_eq!(
                masked(&rules, &mut Stream::default(), &text, piece),
                expected,
                "in pieces of {piece}"
            );
        }
        let (frames, expected) = (&text[head.len()..], &expected[head.len()..]);
        assert_eq!(masked(&rules, &mut Stream::adopted(), frames, 7), expected);
    }
}

#[test]
fn a_request_behind_a_websocket_that_was_refused_is_text_again() {
    let rules = rules();
    let head = "GET /wssip HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let text = format!("{head}GET / HTTP/1.1\r\nCookie: a\r\n\r\n");
    let bytes = masked(&rules, &mut Stream::default(), text.as_bytes(), 1000);
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        format!("{head}GET / HTTP/1.1\r\nCookie: x\r\n\r\n")
    );
}

#[test]
fn turn_is_left_as_it_is() {
    let text = b"\x00\x01\x00\x00 token=abc\ncookie: x\r\n";
    assert_eq!(masked(&rules(), &mut Stream::default(), text, 1000), text);
}
