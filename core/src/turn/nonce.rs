//! Is this nonce one of ours, for this client, and fresh? Nothing is stored. (RFC 8489 section 9.2)
//!
//! ```text
//! +-----------+------+---+--------+
//! | obMatJos2 | FFFF | T | MMMMMM |
//! +-----------+------+---+--------+
//! ```
//!
//! F are the features, T says the lowest six bits of when it was made in steps of [`STEP_SECS`], M is the authentication
//! code; all in base64. A challenge goes to whoever asks, so each byte of it counts: 36 bits of M are more than a TCP
//! sequence number has to prove an address with, and whoever guesses them needs a password still.

use core::net::{IpAddr, SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::time::UnixTime;

/// What precedes the feature bits in the nonce of a server that knows RFC 8489.
const COOKIE: &[u8] = b"obMatJos2";

/// Length of a nonce in bytes: cookie, features, time and authentication code.
pub(super) const NONCE_BYTES: usize = 9 + 4 + 1 + 6;

/// Grain of the time in a nonce, in seconds.
const STEP_SECS: u64 = 64;

/// For how many steps behind the one that it was made in a nonce is good.
// RFC 8656 section 5: the server "SHOULD expire the nonce at least once every hour".
const LIFETIME_STEPS: u64 = 3600 / STEP_SECS - 1;

/// How many steps T tells apart. What is older by that many looks fresh, and then the code is wrong, which is made of
/// the whole time.
const STEPS: u64 = 64;

/// Sets these authenticated bytes apart from all others under the same key.
const PURPOSE: &[u8] = b"NONCE";

/// Which security features the server has (RFC 8489 section 18.1). They travel in the nonce, so that nobody on the way
/// can talk the client out of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Features {
    /// Bit 0: PASSWORD-ALGORITHMS is offered.
    pub(super) password_algorithms: bool,
    /// Bit 1: USERHASH is understood for every user.
    pub(super) username_anonymity: bool,
}

impl Features {
    fn bits(self) -> [u8; 3] {
        [
            u8::from(self.password_algorithms) << 7 | u8::from(self.username_anonymity) << 6,
            0,
            0,
        ]
    }
}

/// A nonce for a client that asks from `source`.
// RFC 8489 section 9.2.4: "The server MUST NOT choose the same NONCE for two requests unless they have the same source
// IP address and port."
pub(super) fn make(key: &[u8; 32], features: Features, now: UnixTime, source: SocketAddr) -> [u8; NONCE_BYTES] {
    made_in(key, features, step(now), source)
}

/// Whether this nonce is ours, made for this source, and not too old.
pub(super) fn is_good(key: &[u8; 32], features: Features, now: UnixTime, source: SocketAddr, nonce: &[u8]) -> bool {
    let proof = nonce.get(13..17).and_then(|proof| STANDARD.decode(proof).ok());
    let Some(&[first, ..]) = proof.as_deref() else {
        return false;
    };
    let age = step(now).wrapping_sub(u64::from(first >> 2)) % STEPS;
    let made = match age {
        0..=LIFETIME_STEPS => step(now).checked_sub(age),
        // The clock may have been set back a little.
        _ if age == STEPS - 1 => Some(step(now) + 1),
        _ => None,
    };
    made.is_some_and(|made| made_in(key, features, made, source).ct_eq(nonce).into())
}

fn made_in(key: &[u8; 32], features: Features, step: u64, source: SocketAddr) -> [u8; NONCE_BYTES] {
    let bits = features.bits();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(PURPOSE);
    mac.update(&step.to_be_bytes());
    mac.update(&bits);
    match source.ip().to_canonical() {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&source.port().to_be_bytes());
    let mac = mac.finalize().into_bytes();
    // Six bits of time, 36 of the code, and six that make up whole bytes and are not sent.
    let mut proof = [0; 6];
    proof.copy_from_slice(&mac[..6]);
    proof[0] = (step << 2) as u8 | mac[0] & 3;

    let mut text = [0; 9 + 4 + 8];
    text[..9].copy_from_slice(COOKIE);
    for (bytes, place) in [(bits.as_slice(), 9..13), (&proof, 13..21)] {
        STANDARD
            .encode_slice(bytes, &mut text[place])
            .expect("three bytes fill four characters");
    }
    *text.first_chunk().expect("all but the last character")
}

fn step(now: UnixTime) -> u64 {
    now.0 / STEP_SECS
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const ALL: Features = Features {
        password_algorithms: true,
        username_anonymity: true,
    };

    fn source(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_nonce_is_good_for_its_source_only() {
        let now = UnixTime(1_700_000_000);
        let nonce = make(&KEY, ALL, now, source("192.0.2.1:5000"));
        let check = |key, features, text, expected| {
            assert_eq!(is_good(key, features, now, source(text), &nonce), expected, "{text}");
        };
        check(&KEY, ALL, "192.0.2.1:5000", true);
        check(&KEY, ALL, "[::ffff:192.0.2.1]:5000", true);
        check(&KEY, ALL, "192.0.2.1:5001", false);
        check(&KEY, ALL, "192.0.2.2:5000", false);
        check(&KEY, Features::default(), "192.0.2.1:5000", false);
        check(&[8; 32], ALL, "192.0.2.1:5000", false);
    }

    #[test]
    fn a_nonce_ages() {
        let at = source("[2001:db8::1]:5000");
        for made in [0, 1_700_000_000, u64::from(u32::MAX) - 100, u64::from(u32::MAX) + 100] {
            let nonce = make(&KEY, ALL, UnixTime(made), at);
            let check =
                |now: u64, expected| assert_eq!(is_good(&KEY, ALL, UnixTime(now), at, &nonce), expected, "{now}");
            check(made, true);
            check(made + 3500, true);
            check(made + 3600, false);
            // T is the same again.
            check(made + STEPS * STEP_SECS, false);
            check(made + 100_000, false);
            check(made.saturating_sub(60), true);
            check(made.saturating_sub(200), made < 100);
        }
    }

    #[test]
    fn a_changed_nonce_is_bad() {
        let (now, at) = (UnixTime(1_700_000_000), source("192.0.2.1:5000"));
        let nonce = make(&KEY, ALL, now, at);
        for place in 0..NONCE_BYTES {
            let mut changed = nonce;
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert!(!is_good(&KEY, ALL, now, at, &changed), "{place}");
        }
        for len in 0..NONCE_BYTES {
            assert!(!is_good(&KEY, ALL, now, at, &nonce[..len]), "{len}");
        }
        assert!(!is_good(&KEY, ALL, now, at, &[nonce.as_slice(), b"A"].concat()));
    }

    #[test]
    fn features_travel_in_the_nonce() {
        let only = |password_algorithms, username_anonymity| Features {
            password_algorithms,
            username_anonymity,
        };
        // RFC 8489 section 9.2: bit 0 is the most significant one of the first of three bytes, in base64.
        for (features, cookie) in [
            (only(false, false), "obMatJos2AAAA"),
            (only(true, false), "obMatJos2gAAA"),
            (only(false, true), "obMatJos2QAAA"),
            (only(true, true), "obMatJos2wAAA"),
        ] {
            let nonce = make(&KEY, features, UnixTime(1), source("192.0.2.1:5000"));
            assert!(nonce.starts_with(cookie.as_bytes()), "{features:?}");
        }
    }
}
