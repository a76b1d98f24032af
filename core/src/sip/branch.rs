//! Whose answer is this? Branches of our own Vias: they name shard and transaction, so that finding it is an index.

use crate::{action::ShardId, slab::Key, wire::sip::via::MAGIC_COOKIE};

/// What one of our branches says. The text is hexadecimal, for neighbours that forget the case of a token.
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
pub(super) const BRANCH_LEN: usize = MAGIC_COOKIE.len() + 2 * BYTES_LEN;

impl Branch {
    /// The text of it.
    pub(super) fn write(&self) -> [u8; BRANCH_LEN] {
        let mut bytes = [0; BYTES_LEN];
        bytes[..2].copy_from_slice(&[MARK, self.kind as u8]);
        bytes[2..4].copy_from_slice(&self.shard.0.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.key.index().to_be_bytes());
        bytes[12..].copy_from_slice(&self.key.generation().to_be_bytes());
        let mut text = [0; BRANCH_LEN];
        let (cookie, digits) = text.split_at_mut(MAGIC_COOKIE.len());
        cookie.copy_from_slice(MAGIC_COOKIE);
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        text
    }

    /// Reads a branch of our own; `None` for anybody else's.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let (cookie, digits) = text.split_at_checked(MAGIC_COOKIE.len())?;
        if digits.len() != 2 * BYTES_LEN || !cookie.eq_ignore_ascii_case(MAGIC_COOKIE) {
            return None;
        }
        let mut bytes = [0; BYTES_LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let kind = match bytes[1] {
            0 => Kind::Transaction,
            1 => Kind::Stateless,
            2 => Kind::Ping,
            _ => return None,
        };
        (bytes[0] == MARK).then(|| Self {
            shard: ShardId(u16::from_be_bytes([bytes[2], bytes[3]])),
            epoch: u32_at(4),
            kind,
            key: Key::from_parts(u32_at(8), u32_at(12)),
        })
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

const HEX: &[u8; 16] = b"0123456789abcdef";
const MARK: u8 = 0xed;
const BYTES_LEN: usize = 16;

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
        assert_eq!(&text, b"z9hG4bKed0200070123456700000009ffffffff");
        assert_eq!(Branch::read(&text), Some(branch));
        assert_eq!(Branch::read(&text.to_ascii_uppercase()), Some(branch));
    }

    #[test]
    fn others_are_not_ours() {
        for text in [
            &b"z9hG4bK"[..],
            b"z9hG4bKed0200070123456700000009fffffff",
            b"z9hG4bKed0200070123456700000009fffffffx",
            b"z9hG4bKee0200070123456700000009ffffffff",
            b"z9hG4bKed0300070123456700000009ffffffff",
            b"x9hG4bKed0200070123456700000009ffffffff",
        ] {
            assert_eq!(Branch::read(text), None);
        }
    }
}
