//! Who made this message, and did it arrive unharmed? (RFC 8489 sections 9.2.2, 14.4 to 14.7 and 18.5.1)

use core::fmt;

use arrayvec::ArrayVec;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Kind;

/// Which integrity attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

impl Integrity {
    /// Whether `value` is what `key` makes of the bytes before the attribute. Takes the same time for any wrong value.
    // RFC 8489 section 14.6: "The value must be the full 32 bytes unless the STUN Usage explicitly specifies that
    // truncation is allowed", which TURN does not.
    pub(super) fn verify(self, key: &Key, before: &[u8], value: &[u8]) -> bool {
        let (_, len) = self.attribute();
        self.compute(key, before)[..len].ct_eq(value).into()
    }

    /// The HMAC of the bytes before the attribute, with zeros behind it when it is shorter than the array. Only the
    /// length in the header is not taken from there, but as it is when the attribute has been added.
    pub(super) fn compute(self, key: &Key, before: &[u8]) -> [u8; 32] {
        let (_, len) = self.attribute();
        let message_len = ((before.len() - super::HEADER_BYTES + 4 + len) as u16).to_be_bytes();
        let parts = [&before[..2], &message_len, &before[4..]];
        let mut value = [0; 32];
        match self {
            Self::Sha1 => value[..len].copy_from_slice(&hmac::<Hmac<Sha1>>(&key.0, parts)),
            Self::Sha256 => value.copy_from_slice(&hmac::<Hmac<Sha256>>(&key.0, parts)),
        }
        value
    }

    /// The attribute, and the length of its value in bytes.
    pub(super) fn attribute(self) -> (Kind, usize) {
        match self {
            Self::Sha1 => (Kind::MESSAGE_INTEGRITY, 20),
            Self::Sha256 => (Kind::MESSAGE_INTEGRITY_SHA256, 32),
        }
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: [&[u8]; 3]) -> hmac::digest::Output<M> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

/// The key of a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(ArrayVec<u8, 32>);

impl Key {
    /// The key of a long-term credential with the algorithm MD5, which is also that of RFC 5389.
    pub fn md5(username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        Self(digest::<Md5>(&[username, b":", realm, b":", password]))
    }

    /// The key of a long-term credential with the algorithm SHA-256.
    pub fn sha256(username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        Self(digest::<Sha256>(&[username, b":", realm, b":", password]))
    }

    /// The key of a short-term credential (RFC 8489 section 9.1.1), which most test vectors use.
    #[cfg(test)]
    pub(super) fn short_term(password: &[u8]) -> Self {
        Self(password.iter().copied().collect())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The value of USERHASH for a user (RFC 8489 section 14.4).
pub fn userhash(username: &[u8], realm: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [username, b":", realm] {
        hash.update(part);
    }
    hash.finalize().into()
}

fn digest<D: Digest>(parts: &[&[u8]]) -> ArrayVec<u8, 32> {
    let mut hash = D::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().copied().collect()
}

/// The value of FINGERPRINT behind these bytes, whose length field counts it already.
// RFC 8489 section 14.7: "the CRC-32 of the STUN message up to (but excluding) the FINGERPRINT attribute itself, XOR'ed
// with the 32-bit value 0x5354554e".
pub fn fingerprint(before: &[u8]) -> u32 {
    let crc = before
        .iter()
        .fold(!0, |crc: u32, byte| crc >> 8 ^ CRC_TABLE[usize::from(crc as u8 ^ byte)]);
    !crc ^ 0x5354_554e
}

/// What the CRC-32 of ITU V.42 makes of each byte.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};
