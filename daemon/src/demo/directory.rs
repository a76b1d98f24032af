//! Who may log in, and who is there? What the web server and the mediaserver of the LAN both know.

use std::{collections::BTreeMap, fmt::Write as _, rc::Rc, time::SystemTime};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;
use tokio::sync::watch;

/// Lifetime of a token and of TURN credentials, in seconds.
pub(super) const TOKEN_LIFETIME_SECS: u64 = 3600;

/// The users, their tokens and their presence.
#[derive(Debug)]
pub(super) struct Directory {
    passwords: BTreeMap<String, String>,
    token_key: [u8; 32],
    presence: watch::Sender<BTreeMap<String, Presence>>,
}

/// What is known about a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Presence {
    /// Whether the user has registered.
    pub(super) registered: bool,
    /// Calls that ring or are up.
    pub(super) calls: u32,
}

impl Directory {
    pub(super) fn new(users: &[(String, String)]) -> Self {
        let presence = users.iter().map(|(name, _)| (name.clone(), Presence::default()));
        Self {
            passwords: users.iter().cloned().collect(),
            token_key: random(),
            presence: watch::Sender::new(presence.collect()),
        }
    }

    /// Name and password of a user.
    pub(super) fn user(&self, name: &str) -> Option<(&str, &str)> {
        let (name, password) = self.passwords.get_key_value(name)?;
        Some((name, password))
    }

    /// A token as the clients of the UC server get one: three segments, the second of which names the user (RFC 7519).
    pub(super) fn token(&self, user: &str) -> String {
        let expires = unix_now() + TOKEN_LIFETIME_SECS;
        let [header, claims] = [
            json!({"alg": "HS256", "typ": "JWT"}),
            json!({"sub": user, "exp": expires}),
        ]
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let code = BASE64_URL_SAFE_NO_PAD.encode(self.token_mac(&signed).finalize().into_bytes());
        format!("{signed}.{code}")
    }

    /// The user that a token was made for, as long as it is good.
    pub(super) fn user_of_token(&self, token: &str) -> Option<String> {
        let (signed, code) = token.rsplit_once('.')?;
        let code = BASE64_URL_SAFE_NO_PAD.decode(code).ok()?;
        self.token_mac(signed).verify_slice(&code).ok()?;
        let claims = BASE64_URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let live = claims["exp"].as_u64()? > unix_now();
        live.then(|| claims["sub"].as_str().map(str::to_owned))?
    }

    /// Tells who is registered now.
    pub(super) fn set_registered<'a>(&self, users: impl Iterator<Item = &'a str>) {
        let users: Vec<&str> = users.collect();
        self.presence.send_if_modified(|presence| {
            let mut changed = false;
            for (name, state) in presence {
                let registered = users.contains(&name.as_str());
                changed |= state.registered != registered;
                state.registered = registered;
            }
            changed
        });
    }

    /// Counts a call of a user until the guard is dropped.
    pub(super) fn busy(self: &Rc<Self>, user: &str) -> Busy {
        let busy = Busy {
            directory: Rc::clone(self),
            user: user.into(),
        };
        busy.count(|calls| calls.saturating_add(1));
        busy
    }

    /// Follows the presence of everybody.
    pub(super) fn watch(&self) -> watch::Receiver<BTreeMap<String, Presence>> {
        self.presence.subscribe()
    }

    fn token_mac(&self, signed: &str) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.token_key).expect("HMAC takes a key of any length");
        mac.chain_update(signed)
    }
}

/// A call that a user is in.
#[derive(Debug)]
pub(super) struct Busy {
    directory: Rc<Directory>,
    user: String,
}

impl Busy {
    fn count(&self, change: impl FnOnce(u32) -> u32) {
        self.directory.presence.send_if_modified(|presence| {
            let state = presence.get_mut(&self.user);
            state.map(|state| state.calls = change(state.calls)).is_some()
        });
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.count(|calls| calls.saturating_sub(1));
    }
}

/// Ephemeral TURN credentials (draft-uberti-behave-turn-rest-00 section 2.2): the user name carries the time of its
/// end, the password is a code over the user name under the secret that the TURN server shares.
pub(super) fn turn_credentials(secret: &str, user: &str) -> (String, String) {
    let username = format!("{}:{user}", unix_now() + TOKEN_LIFETIME_SECS);
    let mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    let code = mac.chain_update(&username).finalize().into_bytes();
    (username, BASE64_STANDARD.encode(code))
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Rc<Directory> {
        Rc::new(Directory::new(&[
            ("alice".into(), "secret".into()),
            ("bob".into(), "word".into()),
        ]))
    }

    #[test]
    fn a_token_names_its_user_and_cannot_be_forged() {
        let directory = directory();
        let token = directory.token("alice");
        assert_eq!(token.split('.').count(), 3);
        assert_eq!(directory.user_of_token(&token).as_deref(), Some("alice"));
        let foreign = Directory::new(&[]).token("alice");
        for bad in ["", "a.b.c", "..", &token[..token.len() - 2], &foreign] {
            assert_eq!(directory.user_of_token(bad), None, "{bad}");
        }
    }

    #[test]
    fn turn_credentials_are_a_code_over_time_and_user() {
        let (username, password) = turn_credentials("secret", "alice");
        let (expires, user) = username.split_once(':').expect("time and user");
        assert_eq!(user, "alice");
        assert!(expires.parse::<u64>().expect("a number") > unix_now());
        assert_eq!(BASE64_STANDARD.decode(password).expect("base64").len(), 20);
    }

    #[test]
    fn presence_follows_registrations_and_calls() {
        let directory = directory();
        let watch = directory.watch();
        let check = |user: &str, registered, calls| {
            assert_eq!(watch.borrow()[user], Presence { registered, calls });
        };
        check("alice", false, 0);
        directory.set_registered(["alice"].into_iter());
        let busy = directory.busy("alice");
        check("alice", true, 1);
        check("bob", false, 0);
        drop(busy);
        directory.set_registered(["bob"].into_iter());
        check("alice", false, 0);
        check("bob", true, 0);
    }
}
