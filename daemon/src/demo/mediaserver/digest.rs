//! Who sends this request? Digest authentication (RFC 2617 in the form of RFC 3261 section 22) with stateless nonces.

use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha1::Sha1;

use super::sip::{Message, split_list};
use crate::demo::directory::{Directory, hex, random};

/// How long a nonce is good; later ones are answered `stale=true`, and the client tries again by itself.
const NONCE_LIFE: Duration = Duration::from_secs(300);

/// Makes challenges and checks what comes back.
#[derive(Debug)]
pub(super) struct Authenticator {
    realm: String,
    key: [u8; 32],
    epoch: Instant,
}

/// Why a request is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// No credentials for us, or of a nonce that is too old: 401 with a new one.
    Challenge { stale: bool },
    /// Wrong credentials: 403.
    Forbidden,
}

impl Authenticator {
    pub(super) fn new(realm: &str) -> Self {
        Self {
            realm: realm.into(),
            key: random(),
            epoch: Instant::now(),
        }
    }

    /// The value of WWW-Authenticate.
    pub(super) fn challenge(&self, now: Instant, stale: bool) -> String {
        let (realm, nonce) = (&self.realm, self.nonce(now.duration_since(self.epoch)));
        let stale = if stale { ", stale=true" } else { "" };
        format!(r#"Digest realm="{realm}", nonce="{nonce}", algorithm=MD5, qop="auth"{stale}"#)
    }

    /// The user who sent the request.
    pub(super) fn check<'a>(
        &self,
        now: Instant,
        request: &Message,
        directory: &'a Directory,
    ) -> Result<&'a str, Refused> {
        let header = request
            .header("Authorization")
            .ok_or(Refused::Challenge { stale: false })?;
        let credentials = Credentials::parse(header).ok_or(Refused::Forbidden)?;
        if credentials.realm != self.realm {
            return Err(Refused::Challenge { stale: false });
        }
        let (name, password) = directory.user(credentials.username).ok_or(Refused::Forbidden)?;
        if credentials.uri != request.uri() {
            return Err(Refused::Forbidden);
        }
        if credentials.response != credentials.expected(password, request.method()) {
            return Err(Refused::Forbidden);
        }
        if !self.is_fresh(now, credentials.nonce) {
            return Err(Refused::Challenge { stale: true });
        }
        Ok(name)
    }

    fn is_fresh(&self, now: Instant, nonce: &str) -> bool {
        let made = nonce
            .split_once('-')
            .and_then(|(made, _)| u64::from_str_radix(made, 16).ok());
        let Some(made) = made.map(Duration::from_secs) else {
            return false;
        };
        nonce == self.nonce(made) && now.duration_since(self.epoch) <= made.saturating_add(NONCE_LIFE)
    }

    /// The nonce of a moment: the moment itself and a code that only we can make.
    fn nonce(&self, made: Duration) -> String {
        let secs = made.as_secs();
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(&secs.to_be_bytes());
        format!("{secs:x}-{}", hex(&mac.finalize().into_bytes()))
    }
}

/// The parameters of an Authorization header.
#[derive(Debug, Default)]
struct Credentials<'a> {
    username: &'a str,
    realm: &'a str,
    nonce: &'a str,
    uri: &'a str,
    response: &'a str,
    qop: Option<&'a str>,
    nc: &'a str,
    cnonce: &'a str,
}

impl<'a> Credentials<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let (scheme, params) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let mut credentials = Self::default();
        for param in split_list(params) {
            let (key, value) = param.split_once('=')?;
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "username" => credentials.username = value,
                "realm" => credentials.realm = value,
                "nonce" => credentials.nonce = value,
                "uri" => credentials.uri = value,
                "response" => credentials.response = value,
                "qop" => credentials.qop = Some(value),
                "nc" => credentials.nc = value,
                "cnonce" => credentials.cnonce = value,
                _ => {}
            }
        }
        // RFC 2617 section 3.2.2: any other quality of protection would need another formula.
        (credentials.qop.is_none() || credentials.qop == Some("auth")).then_some(credentials)
    }

    /// RFC 2617 section 3.2.2.1, with quality of protection and without.
    fn expected(&self, password: &str, method: &str) -> String {
        let Self {
            username,
            realm,
            nonce,
            uri,
            nc,
            cnonce,
            ..
        } = self;
        let ha1 = md5_hex(&format!("{username}:{realm}:{password}"));
        let ha2 = md5_hex(&format!("{method}:{uri}"));
        match self.qop {
            Some(qop) => md5_hex(&format!("{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}")),
            None => md5_hex(&format!("{ha1}:{nonce}:{ha2}")),
        }
    }
}

fn md5_hex(text: &str) -> String {
    hex(&Md5::digest(text))
}

/// The Authorization header that answers a challenge, for the tests' own clients.
#[cfg(test)]
pub(super) fn answer(challenge: &str, user: &str, password: &str, method: &str, uri: &str, qop: bool) -> String {
    let param = |name: &str| {
        let params = challenge.split_once(' ').expect("a scheme").1;
        split_list(params)
            .find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
            .expect("the parameter")
            .trim_matches('"')
    };
    let mut credentials = Credentials {
        username: user,
        realm: param("realm"),
        nonce: param("nonce"),
        uri,
        ..Credentials::default()
    };
    let mut suffix = String::new();
    if qop {
        credentials = Credentials {
            qop: Some("auth"),
            nc: "00000001",
            cnonce: "c",
            ..credentials
        };
        suffix = r#", qop=auth, nc=00000001, cnonce="c""#.into();
    }
    let response = credentials.expected(password, method);
    let Credentials { realm, nonce, .. } = credentials;
    format!(r#"Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", response="{response}"{suffix}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_rfc_2617() {
        // RFC 2617 section 3.5.
        let credentials = Credentials::parse(
            r#"Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",
               uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b",
               response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41""#,
        )
        .expect("good credentials");
        assert_eq!(credentials.expected("Circle Of Life", "GET"), credentials.response);
    }

    #[test]
    fn right_wrong_and_stale() {
        let directory = Directory::new(&[("alice".into(), "secret".into())]);
        let authenticator = Authenticator::new("lan.example");
        let start = authenticator.epoch;
        let challenge = authenticator.challenge(start, false);
        let check = |after: u64, user: &str, password: &str, uri: &str, qop: bool| {
            let header = answer(&challenge, user, password, "REGISTER", uri, qop);
            let request = Message::request("REGISTER", "sip:lan.example").with("Authorization", header);
            let now = start + Duration::from_secs(after);
            authenticator.check(now, &request, &directory).map(str::to_owned)
        };
        for qop in [false, true] {
            assert_eq!(check(0, "alice", "secret", "sip:lan.example", qop), Ok("alice".into()));
            assert_eq!(
                check(300, "alice", "secret", "sip:lan.example", qop),
                Ok("alice".into())
            );
            let stale = Err(Refused::Challenge { stale: true });
            assert_eq!(check(301, "alice", "secret", "sip:lan.example", qop), stale);
            assert_eq!(
                check(0, "alice", "wrong", "sip:lan.example", qop),
                Err(Refused::Forbidden)
            );
            assert_eq!(
                check(0, "eve", "secret", "sip:lan.example", qop),
                Err(Refused::Forbidden)
            );
            assert_eq!(
                check(0, "alice", "secret", "sip:other.example", qop),
                Err(Refused::Forbidden)
            );
        }
        let bare = Message::request("REGISTER", "sip:lan.example");
        let none = authenticator.check(start, &bare, &directory);
        assert_eq!(none, Err(Refused::Challenge { stale: false }));
    }
}
