//! Whose answer is this? Branches of our own Vias: they name shard and transaction, so that finding it is an index.

use super::label::{LABEL_LEN, label, labelled};
use crate::{action::ShardId, slab::Key, wire::sip::via::MAGIC_COOKIE};

/// What one of our branches says. The text is hexadecimal behind its label, for neighbours that forget the case of a
/// token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Branch {
    /// Who made it.
    pub(super) shard: ShardId,
    /// The run of that shard, so that no branch is ever used again (RFC 3261 section 8.1.1.7).
    pub(super) epoch: u32,
    /// What it was made for.
    pub(super) kind: Kind,
    /// The transaction, or the mediaserver by its index.
    pub(super) key: Key,
}

/// What a branch was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A transaction of somebody else's that we forward.
    Transaction,
    /// An ACK that passes without state; nothing answers it.
    Stateless,
    /// Our own question after a mediaserver's health.
    Ping,
}

/// Length of the text.
pub(super) const BRANCH_LEN: usize = MAGIC_COOKIE.len() + LABEL_LEN + 2 * BYTES_LEN;

impl Branch {
    /// The text of it.
    pub(super) fn write(&self) -> [u8; BRANCH_LEN] {
        let mut bytes = [0; BYTES_LEN];
        bytes[0] = self.kind as u8;
        bytes[1..5].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[5..9].copy_from_slice(&self.key.index().to_be_bytes());
        bytes[9..].copy_from_slice(&self.key.generation().to_be_bytes());
        let mut text = [0; BRANCH_LEN];
        let (cookie, rest) = text.split_at_mut(MAGIC_COOKIE.len());
        cookie.copy_from_slice(MAGIC_COOKIE);
        let (home, digits) = rest.split_at_mut(LABEL_LEN);
        home.copy_from_slice(&label(self.shard));
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        text
    }

    /// Reads a branch of our own; `None` for anybody else's.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let (cookie, rest) = text.split_at_checked(MAGIC_COOKIE.len())?;
        let (shard, digits) = labelled(rest)?;
        if digits.len() != 2 * BYTES_LEN || !cookie.eq_ignore_ascii_case(MAGIC_COOKIE) {
            return None;
        }
        let mut bytes = [0; BYTES_LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let kind = match bytes[0] {
            0 => Kind::Transaction,
            1 => Kind::Stateless,
            2 => Kind::Ping,
            _ => return None,
        };
        Some(Self {
            shard,
            epoch: u32_at(1),
            kind,
            key: Key::from_parts(u32_at(5), u32_at(9)),
        })
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Kind, epoch, index and generation.
const BYTES_LEN: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_whatever_the_case() {
        let branch = Branch {
            shard: ShardId(7),
            epoch: 0x0123_4567,
            kind: Kind::Ping,
            key: Key::from_parts(9, u32::MAX),
        };
        let text = branch.write();
        assert_eq!(&text, b"z9hG4bK-ew-00007020123456700000009ffffffff");
        assert_eq!(Branch::read(&text), Some(branch));
        assert_eq!(Branch::read(&text.to_ascii_uppercase()), Some(branch));
    }

    #[test]
    fn others_are_not_ours() {
        for text in [
            &b"z9hG4bK"[..],
            b"z9hG4bK-ew-00007020123456700000009fffffff",
            b"z9hG4bK-ew-00007020123456700000009fffffffx",
            b"z9hG4bK-ex-00007020123456700000009ffffffff",
            b"z9hG4bK-ew-00007030123456700000009ffffffff",
            b"x9hG4bK-ew-00007020123456700000009ffffffff",
        ] {
            assert_eq!(Branch::read(text), None);
        }
    }
}
