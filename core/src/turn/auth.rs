//! Who asks? Long-term credentials of static and of ephemeral users. (RFC 8489 section 9.2)

use alloc::{borrow::Cow, sync::Arc};
use core::net::SocketAddr;
use std::collections::HashMap;

use ahash::RandomState;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::{
    nonce::{self, Features, NONCE_BYTES},
    request::Request,
    token::{self, Held, TOKEN_BYTES},
};
use crate::{
    config::{Config, Secret, SecretHash, Turn},
    rng::Rng,
    time::UnixTime,
    wire::stun::{Integrity, Key, userhash},
};

/// What PASSWORD-ALGORITHMS offers, best first: SHA-256 and MD5, both without parameters (RFC 8489 section 14.11).
pub(super) const PASSWORD_ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

/// Longest USERNAME in bytes.
// RFC 8489 section 14.3: "MUST be able to parse a UTF-8-encoded sequence of 763 or fewer octets".
const USERNAME_BYTES_MAX: usize = 763;

/// Everybody who may ask, and the nonces.
#[derive(Debug)]
pub(super) struct Auth {
    config: Arc<Config>,
    /// Static users by name and by the hash of their name, as places in the configuration.
    by_name: HashMap<Box<[u8]>, usize, RandomState>,
    by_hash: HashMap<[u8; 32], usize, RandomState>,
    features: Features,
    /// Counts configurations.
    epoch: u32,
    /// The password of those who do not exist, so that they cost as much time as those who do.
    decoy: [u8; 32],
}

/// A user who has proved to be one.
#[derive(Debug)]
pub(super) struct Identity<'a> {
    /// USERNAME, also where the request had a USERHASH.
    pub(super) user: Cow<'a, [u8]>,
    pub(super) session: SessionKey,
    /// How the response is to be signed.
    pub(super) integrity: Integrity,
}

/// The key that an allocation keeps, so that it need not be computed anew.
// RFC 8656 section 6: "the server MUST NOT store the password explicitly and MUST store the key value".
#[derive(Debug, Clone)]
pub(super) struct SessionKey {
    pub(super) key: Key,
    algorithm: Algorithm,
    /// Under which configuration it was found.
    epoch: u32,
}

/// Whom an allocation belongs to.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    name: Box<[u8]>,
    /// Where in the name the person begins.
    person: usize,
}

impl Owner {
    /// USERNAME.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whom allocations count for: an ephemeral user remains the same when the credentials are renewed.
    pub(super) fn person(&self) -> &[u8] {
        &self.name[self.person..]
    }
}

/// How a key is made of a password (RFC 8489 section 18.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is not signed: 401.
    Unsigned,
    /// No such user, not the right password, not from there: 401, with nothing that tells which.
    Wrong,
    /// It lacks what a signed request needs: 400.
    Malformed,
    /// It is right, but its nonce is old or another's: 438.
    Stale,
}

impl Auth {
    /// The users of a configuration. With each new one comes another `epoch`, so that nobody remains known by a key alone.
    pub(super) fn new(config: Arc<Config>, epoch: u32, rng: &mut Rng) -> Self {
        let mut by_name = HashMap::with_hasher(rng.hasher());
        let mut by_hash = HashMap::with_hasher(rng.hasher());
        let turn = turn(&config);
        for (place, user) in turn.users.iter().enumerate() {
            by_name.insert(user.name.as_bytes().into(), place);
            by_hash.insert(userhash(user.name.as_bytes(), turn.realm.as_bytes()), place);
        }
        let features = Features {
            password_algorithms: true,
            // RFC 8489 section 9.2.5: with this bit a client uses USERHASH, always. The hash of an ephemeral name leads
            // nowhere, so the bit is for those who have static users only.
            username_anonymity: turn.secrets.is_empty() && !turn.users.is_empty(),
        };
        Self {
            by_name,
            by_hash,
            features,
            epoch,
            decoy: rng.bytes(),
            config,
        }
    }

    /// Which configuration this is.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// REALM.
    pub(super) fn realm(&self) -> &[u8] {
        self.turn().realm.as_bytes()
    }

    /// NONCE for a challenge.
    pub(super) fn nonce(&self, now: UnixTime, source: SocketAddr) -> [u8; NONCE_BYTES] {
        nonce::make(&self.config.keys.nonce, self.features, now, source)
    }

    /// RESERVATION-TOKEN for a port that is held for a user.
    pub(super) fn token(&self, held: Held, user: &[u8], now: UnixTime) -> [u8; TOKEN_BYTES] {
        token::make(&self.config.keys.nonce, held, user, now)
    }

    /// The port that a user's RESERVATION-TOKEN stands for, whichever shard made it.
    pub(super) fn held(&self, token: [u8; TOKEN_BYTES], user: &[u8], now: UnixTime) -> Option<Held> {
        token::read(&self.config.keys.nonce, token, user, now)
    }

    /// Who signed this request? `session` is the user and the key of the allocation that it is about, if there is one on
    /// this shard; `is_elsewhere` is whether it is on another one, which knows whether it lives.
    ///
    /// # Errors
    /// When nobody did who may.
    // RFC 8489 section 9.2.4, "in the order specified".
    pub(super) fn authenticate<'a>(
        &self,
        now: UnixTime,
        source: SocketAddr,
        request: &Request<'a>,
        session: Option<(&[u8], &SessionKey)>,
        is_elsewhere: bool,
    ) -> Result<Identity<'a>, Denied> {
        if request.message.integrity().is_none() {
            return Err(Denied::Unsigned);
        }
        let (Some(realm), Some(nonce)) = (request.realm, request.nonce) else {
            return Err(Denied::Malformed);
        };
        let user = self.user(request)?;
        let (algorithm, integrity) = algorithms(request)?;
        let session = session.filter(|(owner, _)| **owner == *user);
        // Credentials that end do not end what was allocated with them, unless the administrator wants that.
        let is_current = self.is_current(&user, now, session.is_some() || is_elsewhere);
        let session = session.map(|(_, key)| key).filter(|_| is_current);
        let key = self
            .key(source, request, &user, algorithm, session, is_current)
            .ok_or(Denied::Wrong)?;
        if realm != self.realm() {
            return Err(Denied::Wrong);
        }
        if !nonce::is_good(&self.config.keys.nonce, self.features, now, source, nonce) {
            return Err(Denied::Stale);
        }
        Ok(Identity {
            user,
            session: SessionKey {
                key,
                algorithm,
                epoch: self.epoch,
            },
            integrity,
        })
    }

    /// Whether a request has a nonce that was given to its source.
    pub(super) fn has_nonce(&self, now: UnixTime, source: SocketAddr, request: &Request<'_>) -> bool {
        let is_good = |nonce| nonce::is_good(&self.config.keys.nonce, self.features, now, source, nonce);
        request.nonce.is_some_and(is_good)
    }

    /// This user as an owner.
    pub(super) fn owner(&self, user: &[u8]) -> Owner {
        let ephemeral = !self.turn().secrets.is_empty() && !self.by_name.contains_key(user) && expiry(user).is_some();
        let colon = user.iter().position(|byte| *byte == b':').filter(|_| ephemeral);
        // Where the name ends with the colon, the credentials are the person.
        let person = colon.map_or(0, |colon| colon + 1).min(user.len());
        Owner {
            name: user.into(),
            person: if person == user.len() { 0 } else { person },
        }
    }

    /// The name that the request gives, or the one whose hash it gives. The name of nobody is empty.
    fn user<'a>(&self, request: &Request<'a>) -> Result<Cow<'a, [u8]>, Denied> {
        match (request.username, request.userhash) {
            (Some(name), _) if name.len() <= USERNAME_BYTES_MAX => Ok(Cow::Borrowed(name)),
            (None, Some(hash)) => {
                let place = <&[u8; 32]>::try_from(hash).ok().and_then(|hash| self.by_hash.get(hash));
                let name = place.map_or("", |place| &self.turn().users[*place].name);
                Ok(Cow::Owned(name.into()))
            }
            _ => Err(Denied::Malformed),
        }
    }

    /// The key that the request was signed with. Every wrong request takes as long as a right one.
    fn key(
        &self,
        source: SocketAddr,
        request: &Request<'_>,
        user: &[u8],
        algorithm: Algorithm,
        session: Option<&SessionKey>,
        is_current: bool,
    ) -> Option<Key> {
        if let Some(known) = session
            && (known.algorithm, known.epoch) == (algorithm, self.epoch)
            && request.message.is_signed_by(&known.key)
        {
            return Some(known.key.clone());
        }
        let signed_with = |password: &[u8]| {
            let key = algorithm.key(user, self.realm(), password);
            request.message.is_signed_by(&key).then_some(key)
        };
        let known = self.by_name.get(user).map(|place| &self.turn().users[*place]);
        let from = source.ip().to_canonical();
        let admitted =
            known.is_some_and(|user| user.sources.is_empty() || user.sources.iter().any(|net| net.contains(&from)));
        let password = known.map_or(self.decoy.as_slice(), |user| user.password.expose());
        let mut found = signed_with(password).filter(|_| admitted);
        if expiry(user).is_some() {
            let hashes = &self.turn().secret_hashes;
            for (secret, hash) in self
                .turn()
                .secrets
                .iter()
                .flat_map(|secret| hashes.iter().map(move |hash| (secret, hash)))
            {
                let key = signed_with(ephemeral_password(secret, *hash, user).as_bytes());
                found = found.or(key.filter(|_| is_current));
            }
        }
        found
    }

    /// Whether the credentials of a user have not ended, or need not be good any longer.
    fn is_current(&self, user: &[u8], now: UnixTime, has_allocation: bool) -> bool {
        let is_lenient = has_allocation && !self.turn().strict_expiry;
        is_lenient || self.by_name.contains_key(user) || expiry(user).is_none_or(|expiry| expiry >= now.0)
    }

    fn turn(&self) -> &Turn {
        turn(&self.config)
    }
}

impl Algorithm {
    fn key(self, user: &[u8], realm: &[u8], password: &[u8]) -> Key {
        match self {
            Self::Md5 => Key::md5(user, realm, password),
            Self::Sha256 => Key::sha256(user, realm, password),
        }
    }
}

/// The turn role of a configuration, which is there: without it there is no server.
pub(super) fn turn(config: &Config) -> &Turn {
    config.turn.as_ref().expect("the turn role is on")
}

/// By which algorithm the request's key was made, and how the response is to be signed.
// RFC 8489 section 9.2.4: without PASSWORD-ALGORITHMS and PASSWORD-ALGORITHM, the request "is processed as though
// PASSWORD-ALGORITHM were MD5"; otherwise both have to be there, the list as it was offered, the one from the list. That
// holds for nonces with the feature bit, which all of ours have. And:
// "Any response generated by the server MUST include the MESSAGE-INTEGRITY-SHA256 attribute [...] unless the request was
// processed as though PASSWORD-ALGORITHM was MD5".
fn algorithms(request: &Request<'_>) -> Result<(Algorithm, Integrity), Denied> {
    match (request.password_algorithm, request.password_algorithms) {
        (None, None) => Ok((Algorithm::Md5, Integrity::Sha1)),
        (Some([0, 1, 0, 0]), Some(list)) if *list == PASSWORD_ALGORITHMS => Ok((Algorithm::Md5, Integrity::Sha256)),
        (Some([0, 2, 0, 0]), Some(list)) if *list == PASSWORD_ALGORITHMS => Ok((Algorithm::Sha256, Integrity::Sha256)),
        _ => Err(Denied::Malformed),
    }
}

/// When an ephemeral user ends, in Unix time; `None` when the name has not the form `expiry:name` or `expiry`.
// draft-uberti-behave-turn-rest: the username is "a combination of [a] timestamp and [a] user id", joined by a colon.
fn expiry(user: &[u8]) -> Option<u64> {
    let digits = user.split(|byte| *byte == b':').next()?;
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all_digits.then(|| core::str::from_utf8(digits).ok()?.parse().ok())?
}

/// The password of an ephemeral user: the HMAC of the name in base64.
fn ephemeral_password(secret: &Secret, hash: SecretHash, user: &[u8]) -> String {
    match hash {
        SecretHash::Sha1 => STANDARD.encode(hmac::<Hmac<Sha1>>(secret, user)),
        SecretHash::Sha256 => STANDARD.encode(hmac::<Hmac<Sha256>>(secret, user)),
    }
}

fn hmac<M: Mac + KeyInit>(secret: &Secret, user: &[u8]) -> hmac::digest::Output<M> {
    let mut mac = <M as KeyInit>::new_from_slice(secret.expose()).expect("HMAC takes a key of any length");
    mac.update(user);
    mac.finalize().into_bytes()
}
