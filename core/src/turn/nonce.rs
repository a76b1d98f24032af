//! Is this nonce one of ours, for this client, and fresh? Nothing is stored. (RFC 8489 section 9.2)

use core::net::{IpAddr, SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::time::UnixTime;

/// What precedes the feature bits in the nonce of a server that knows RFC 8489.
const COOKIE: &[u8] = b"obMatJos2";

/// Length of a nonce in bytes: cookie, features, and 12 bytes in base64, which are the time and its authentication.
pub(super) const NONCE_BYTES: usize = 9 + 4 + 16;

/// How long a nonce is good, in seconds.
// RFC 8656 section 5: the server "SHOULD expire the nonce at least once every hour".
const LIFETIME_SECS: u32 = 3600;

/// By how much the clock may have been set back since a nonce was made, in seconds.
const SKEW_SECS: u32 = 60;

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
    made_at(key, features, now.0 as u32, source)
}

/// Whether this nonce is ours, made for this source, and not too old.
pub(super) fn is_good(key: &[u8; 32], features: Features, now: UnixTime, source: SocketAddr, nonce: &[u8]) -> bool {
    let proof = nonce.get(13..).and_then(|proof| STANDARD.decode(proof).ok());
    let Some(time) = proof.as_deref().and_then(<[u8]>::first_chunk) else {
        return false;
    };
    // Seconds are counted modulo 2^32, so that the year 2106 is a day like any other.
    let (time, now) = (u32::from_be_bytes(*time), now.0 as u32);
    let fresh = now.wrapping_sub(time) <= LIFETIME_SECS || time.wrapping_sub(now) <= SKEW_SECS;
    fresh && made_at(key, features, time, source).ct_eq(nonce).into()
}

fn made_at(key: &[u8; 32], features: Features, time: u32, source: SocketAddr) -> [u8; NONCE_BYTES] {
    let (time, bits) = (time.to_be_bytes(), features.bits());
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(&time);
    mac.update(&bits);
    match source.ip().to_canonical() {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&source.port().to_be_bytes());
    let mac = mac.finalize().into_bytes();
    let mut proof = [0; 12];
    proof[..4].copy_from_slice(&time);
    proof[4..].copy_from_slice(&mac[..8]);

    let mut nonce = [0; NONCE_BYTES];
    nonce[..9].copy_from_slice(COOKIE);
    for (bytes, text) in [(&bits[..], 9..13), (&proof[..], 13..NONCE_BYTES)] {
        STANDARD
            .encode_slice(bytes, &mut nonce[text])
            .expect("three bytes fill four characters");
    }
    nonce
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
            check(made + 3600, true);
            check(made + 3601, false);
            check(made + 100_000, false);
            check(made.saturating_sub(60), true);
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
