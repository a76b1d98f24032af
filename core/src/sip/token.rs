//! Which browser does this URI lead to? Flow tokens: what we put into the user part of our own URIs (RFC 5626
//! section 5.2), and only we can have put there.

use core::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::label::{LABEL_LEN, label};
use crate::{action::ShardId, slab::Key};

/// What a token says. Its text is the label of its shard, and these bytes in base64.
///
/// ```text
///  0        1      2       4       8       12           16            18         26     42
/// +--------+------+-------+-------+-------+------------+-------------+----------+------+
/// | version| key  | shard | epoch | index | generation | mediaserver | identity | MAC  |
/// +--------+------+-------+-------+-------+------------+-------------+----------+------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// The shard that has the flow.
    pub(super) shard: ShardId,
    /// The run of that shard, since indices begin anew with each; 0 for a token that names an identity only.
    pub(super) epoch: u32,
    /// The flow.
    pub(super) flow: Key,
    /// The mediaserver of the flow, by a mark of its name, so that the order of a configuration is no matter.
    pub(super) mediaserver: u16,
    /// The registration for which the token was made, or that the flow had by then.
    pub(super) identity: Identity,
}

/// Who is registered, whatever connection it uses by now: mediaserver, address of record and contact in 64 bits.
/// Only tokens that we made name one, and only the mediaserver's 200 to a REGISTER gives one to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Identity(u64);

impl Identity {
    /// Of a flow that has not registered.
    pub(super) const NONE: Self = Self(0);

    /// The identity of a registration. It holds no secret and no key, so that it is the same after a restart.
    pub(super) fn of(mediaserver: &str, address_of_record: &[u8], contact: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in [mediaserver.as_bytes(), address_of_record, contact] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let bytes: [u8; 32] = hash.finalize().into();
        let (first, _) = bytes.split_first_chunk().expect("32 bytes hold 8");
        // 0 means nobody.
        Self(u64::from_be_bytes(*first).max(1))
    }
}

/// A token as it stands in a URI.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenText([u8; TEXT_LEN]);

impl TokenText {
    /// The user part.
    pub(super) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `user` is this token, in a time that does not depend on where they differ.
    pub(super) fn is(&self, user: &[u8]) -> bool {
        self.0.ct_eq(user).into()
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl Token {
    /// Writes and signs it with the first key.
    ///
    /// # Panics
    /// When there is no key, which no configuration with the sip role allows.
    pub(super) fn seal(&self, keys: &[[u8; 32]]) -> TokenText {
        let key = keys.first().expect("a configuration with the sip role has a flow key");
        let mut bytes = [0; SEALED_LEN];
        bytes[0] = VERSION;
        bytes[1] = key_id(key);
        bytes[2..4].copy_from_slice(&self.shard.0.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.flow.index().to_be_bytes());
        bytes[12..16].copy_from_slice(&self.flow.generation().to_be_bytes());
        bytes[16..18].copy_from_slice(&self.mediaserver.to_be_bytes());
        bytes[18..26].copy_from_slice(&self.identity.0.to_be_bytes());
        let mac = mac(key, &bytes[..SIGNED_LEN]);
        bytes[SIGNED_LEN..].copy_from_slice(&mac);
        let mut text = [0; TEXT_LEN];
        let (home, sealed) = text.split_at_mut(LABEL_LEN);
        home.copy_from_slice(&label(self.shard));
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, sealed);
        debug_assert_eq!(written, Ok(TEXT_LEN - LABEL_LEN));
        TokenText(text)
    }

    /// Reads a token that one of `keys` has signed.
    pub(super) fn open(text: &[u8], keys: &[[u8; 32]]) -> Option<Self> {
        let bytes = decode(text)?;
        let (signed, signature) = bytes.split_at(SIGNED_LEN);
        keys.iter()
            .filter(|key| key_id(key) == signed[1])
            .any(|key| bool::from(mac(key, signed).ct_eq(signature)))
            .then(|| Self::read(&bytes))
    }

    /// Reads what a token claims. Good for nothing but to find somebody who can check it.
    pub(super) fn claim(text: &[u8]) -> Option<Self> {
        decode(text).map(|bytes| Self::read(&bytes))
    }

    fn read(bytes: &[u8; SEALED_LEN]) -> Self {
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
        Self {
            shard: ShardId(u16_at(2)),
            epoch: u32_at(4),
            flow: Key::from_parts(u32_at(8), u32_at(12)),
            mediaserver: u16_at(16),
            identity: Identity(u64::from(u32_at(18)) << 32 | u64::from(u32_at(22))),
        }
    }
}

fn decode(text: &[u8]) -> Option<[u8; SEALED_LEN]> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let (home, sealed) = text.split_at(LABEL_LEN);
    let mut bytes = [0; SEALED_LEN];
    let len = URL_SAFE_NO_PAD.decode_slice(sealed, &mut bytes).ok()?;
    let is_ours = len == SEALED_LEN && bytes[0] == VERSION && *home == label(Token::read(&bytes).shard);
    is_ours.then_some(bytes)
}

/// HMAC-SHA-256-128: the first half of HMAC-SHA-256 (RFC 2104 section 5).
fn mac(key: &[u8; 32], signed: &[u8]) -> [u8; MAC_LEN] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(b"edgeward flow token");
    mac.update(signed);
    let whole: [u8; 32] = mac.finalize().into_bytes().into();
    let (half, _) = whole.split_first_chunk().expect("32 bytes hold 16");
    *half
}

/// Tells keys apart without telling them.
fn key_id(key: &[u8; 32]) -> u8 {
    Sha256::digest(key)[0]
}

const VERSION: u8 = 1;
const SIGNED_LEN: usize = 26;
const MAC_LEN: usize = 16;
const SEALED_LEN: usize = SIGNED_LEN + MAC_LEN;
/// 42 bytes are 56 characters in base64.
const TEXT_LEN: usize = LABEL_LEN + SEALED_LEN / 3 * 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

    fn token() -> Token {
        Token {
            shard: ShardId(3),
            epoch: 0xdead_beef,
            flow: Key::from_parts(70_000, 5),
            mediaserver: 2,
            identity: Identity::of("default", b"sip:alice@xivo", b"sip:x1@y.invalid"),
        }
    }

    #[test]
    fn round_trip_under_old_and_new_key() {
        let text = token().seal(&KEYS);
        assert_eq!(Token::open(text.as_bytes(), &KEYS), Some(token()));
        assert_eq!(Token::open(text.as_bytes(), &[KEYS[1], KEYS[0]]), Some(token()));
        assert_eq!(Token::open(text.as_bytes(), &KEYS[1..]), None);
        assert_eq!(Token::claim(text.as_bytes()), Some(token()));
        assert!(
            text.as_bytes()
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let text = token().seal(&KEYS);
        for bit in 0..TEXT_LEN * 8 {
            let mut wrong = text;
            wrong.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Token::open(wrong.as_bytes(), &KEYS), None, "bit {bit}");
        }
    }

    #[test]
    fn parts_of_an_identity_do_not_run_together() {
        assert_ne!(Identity::of("a", b"bc", b""), Identity::of("ab", b"c", b""));
        assert_ne!(Identity::of("a", b"b", b"c"), Identity::of("a", b"", b"bc"));
    }

    proptest! {
        #[test]
        fn garbage_opens_nothing(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Token::open(&text, &KEYS), None);
        }
    }
}
