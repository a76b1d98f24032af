//! Tokens of the RFC and tokens that OpenSSL signed, and what becomes of them when anything is changed.

use super::*;
use crate::tls::{Provider, SignatureAlgorithm};

const RSA_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsc5vv+cU88Ld0b6i0HB0
bLchUT6eEUhcBotm6IORm/udqteKYi+XDFed4EpeNkFViXUDpWwsgUI0jxXFqAcI
PYidOV33ZSb17ErftAwJdxEW+hIFlP3O7UOcqaVCAF70b9FGQ3sYUNG8o4Fw5PnZ
OrXGlnyT4yBAUc3s9jLZQTCujQMoajFKkZQqGAruQtQLmgGhuochpNTmK6Q1+wpG
4GEIjDNU+1O6nNbwAIWxzzZyIk0sBupbJ+MEDvQVWqJC4Wnmmn8LNzMAnkliqKRT
LTdqNgVOCw6pcaKq9u0OgrLrX/qnHRC5zkZuiof6MTGh9lVE2YbZjV531Ua59MJC
NwIDAQAB
-----END PUBLIC KEY-----";

const EC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPhr/F80mBSqr3bj29InWM/8YBtS6
Alf4aEvqSCQbzxNTfTeUu0hAQdIRH8DNjFIgVkktzdswteAiXweid7aZ7g==
-----END PUBLIC KEY-----";

/// `{"sub": "alice", "exp": 1790000000}`.
const RS256: &str = "eyJhbGciOiAiUlMyNTYiLCAidHlwIjogIkpXVCJ9.eyJzdWIiOiAiYWxpY2UiLCAiZXhwIjogMTc5MDAwMDAwMH0.EcB1aJ-790uKTOTeLJDHSXvnlLx1vDpnNCtLt53GmvgBcyDPK2NGD61sFb97AiKCrD-xn8HEFout5Ci58IZ7QXXbZLHigoZiyWMvEj5FksVJdNMkoJlklJNN9Jrz0nfmces44U2NXLCS5RMpzexqrN0sALjF5uBNkm53xIaGMkd6aBpHpK6gg3vOBL6IwUTzkgzsE3JBMjK-rKYLtDYMPgoFM1naES_vIquhxVFG7lpXR4vQ6lY80YKkEaWcFwrokOWzvEBAfk5WI_xKBGdtY14173YcurR_hiekanJ9IDsk87vpLinUe6E86jkZ4-v_2sabPkk2MsA-9MJaeah8IQ";
const ES256: &str = "eyJhbGciOiAiRVMyNTYiLCAidHlwIjogIkpXVCJ9.eyJzdWIiOiAiYWxpY2UiLCAiZXhwIjogMTc5MDAwMDAwMH0.cIuXjk1GoZkYpVE_lUhDRzygkPQg-HwGuooSwyfbGNnqaqywolKe7TOol5LGzerB51D6FpQNvZWX-GjiYxMN2Q";
const EXPIRES: u64 = 1_790_000_000;

/// RFC 7515 appendix A.1.
const RFC: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const RFC_KEY: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const RFC_EXPIRES: u64 = 1_300_819_380;

fn public(algorithm: SignatureAlgorithm, pem: &str) -> Verifier {
    let key = SignatureKey::new(&Provider::for_tests(), algorithm, pem.as_bytes()).expect("a key");
    verifier(Key::Public(key))
}

fn verifier(key: Key) -> Verifier {
    Verifier {
        key,
        subject: "sub".into(),
        leeway: Duration::from_secs(10),
        audience: None,
        issuer: None,
    }
}

fn secret(key: &[u8]) -> Verifier {
    verifier(Key::Secret(Secret::new(key)))
}

/// A token under a secret.
fn signed(header: &str, claims: &str) -> String {
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let mac = Hmac::<Sha256>::new_from_slice(b"key").expect("a key");
    let signature = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn tokens_of_others_are_understood() {
    let rfc = secret(&URL_SAFE_NO_PAD.decode(RFC_KEY).expect("base64"));
    let all = [
        (
            public(SignatureAlgorithm::Rs256, RSA_KEY),
            RS256,
            EXPIRES,
            Some("alice"),
        ),
        (public(SignatureAlgorithm::Es256, EC_KEY), ES256, EXPIRES, Some("alice")),
        (rfc, RFC, RFC_EXPIRES, None),
    ];
    for (verifier, token, expires, subject) in &all {
        let verify = |token: &str, at| verifier.verify(token, UnixTime(at));
        assert_eq!(verify(token, expires - 1), Ok(subject.map(String::from)), "{token}");
        assert_eq!(
            verify(token, expires + 9),
            Ok(subject.map(String::from)),
            "within the leeway"
        );
        assert_eq!(verify(token, expires + 10), Err(TokenError::Expired), "{token}");
        // No byte can be another one. The last of a segment has bits to spare, which must be zero.
        for at in 0..token.len() {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(bytes).expect("ASCII");
            assert!(verify(&forged, expires - 1).is_err(), "{at} of {token}");
        }
        for (other, ..) in all
            .iter()
            .filter(|(other, ..)| other.algorithm() != verifier.algorithm())
        {
            assert_eq!(other.verify(token, UnixTime(expires - 1)), Err(TokenError::Algorithm));
        }
    }
}

#[test]
fn what_does_not_hold_is_told_apart() {
    let check = |header: &str, claims: &str, expected| {
        let verdict = secret(b"key").verify(&signed(header, claims), UnixTime(1000));
        assert_eq!(verdict, expected, "{header} {claims}");
    };
    let header = r#"{"alg":"HS256"}"#;
    check(header, r#"{"exp":2000}"#, Ok(None));
    check(
        header,
        r#"{"exp":2000.5,"nbf":1009.5,"sub":"bob"}"#,
        Ok(Some("bob".into())),
    );
    check(header, r#"{"exp":2000,"nbf":1011}"#, Err(TokenError::NotYet));
    check(header, r#"{"exp":990}"#, Err(TokenError::Expired));
    check(header, r#"{"sub":"bob"}"#, Err(TokenError::Expired));
    check(header, r#"{"exp":"2000"}"#, Err(TokenError::Malformed));
    check(header, r#"{"exp":2000,"nbf":null}"#, Err(TokenError::Malformed));
    check(header, r#"{"exp":2000,"sub":7}"#, Err(TokenError::Malformed));
    check(header, "[2000]", Err(TokenError::Malformed));
    check(header, "", Err(TokenError::Malformed));
    check(r#"{"alg":"none"}"#, r#"{"exp":2000}"#, Err(TokenError::Algorithm));
    check(r#"{"alg":"hs256"}"#, r#"{"exp":2000}"#, Err(TokenError::Algorithm));
    check(r#"{"typ":"JWT"}"#, r#"{"exp":2000}"#, Err(TokenError::Algorithm));
    check(
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"exp":2000}"#,
        Err(TokenError::Algorithm),
    );
    let good = signed(header, r#"{"exp":2000}"#);
    let check = |token: &str, expected| {
        assert_eq!(secret(b"key").verify(token, UnixTime(1000)), Err(expected), "{token}");
    };
    check("", TokenError::Malformed);
    check("a.b", TokenError::Malformed);
    check(&format!("{good}="), TokenError::Malformed);
    check(&format!("{good}.x"), TokenError::Malformed);
    check(&good[..good.rfind('.').unwrap_or_default() + 1], TokenError::Signature);
    check(&"a".repeat(10_000), TokenError::Malformed);
    assert_eq!(
        secret(b"other").verify(&good, UnixTime(1000)),
        Err(TokenError::Signature)
    );
}

#[test]
fn a_token_for_somebody_else_does_not_hold() {
    let check = |audience: Option<&str>, claims: &str, expected| {
        let verifier = Verifier {
            audience: audience.map(Into::into),
            ..secret(b"key")
        };
        let token = signed(r#"{"alg":"HS256"}"#, &format!(r#"{{"exp":2000{claims}}}"#));
        assert_eq!(
            verifier.verify(&token, UnixTime(1000)),
            expected,
            "{audience:?} {claims}"
        );
    };
    let (good, bad) = (Ok(None), Err(TokenError::Audience));
    check(None, "", good.clone());
    check(Some("edge"), r#","aud":"edge""#, good.clone());
    check(Some("edge"), r#","aud":["mail","edge"]"#, good);
    for claim in [r#","aud":"edge""#, r#","aud":[]"#, r#","aud":null"#] {
        check(None, claim, bad.clone());
    }
    for claim in [
        "",
        r#","aud":"mail""#,
        r#","aud":["mail"]"#,
        r#","aud":7"#,
        r#","aud":"Edge""#,
    ] {
        check(Some("edge"), claim, bad.clone());
    }
    let verifier = Verifier {
        issuer: Some("https://id.example.org".into()),
        ..secret(b"key")
    };
    for (claims, expected) in [
        (r#"{"exp":2000,"iss":"https://id.example.org"}"#, Ok(None)),
        (
            r#"{"exp":2000,"iss":"https://evil.example.org"}"#,
            Err(TokenError::Issuer),
        ),
        (r#"{"exp":2000}"#, Err(TokenError::Issuer)),
    ] {
        let token = signed(r#"{"alg":"HS256"}"#, claims);
        assert_eq!(verifier.verify(&token, UnixTime(1000)), expected, "{claims}");
    }
}

#[test]
fn a_key_is_for_one_algorithm() {
    let provider = Provider::for_tests();
    let check = |algorithm, pem: &str, expected: &str| {
        let error = SignatureKey::new(&provider, algorithm, pem.as_bytes()).expect_err("no key");
        assert!(error.0.contains(expected), "{error}");
    };
    check(SignatureAlgorithm::Rs256, EC_KEY, "another algorithm");
    check(SignatureAlgorithm::Es256, RSA_KEY, "another algorithm");
    check(SignatureAlgorithm::Es256, "nothing", "no public key");
}
