//! Which allocation does this ticket stand for, on whichever shard? MOBILITY-TICKET. (RFC 8016 sections 3.1.2 and 5)
//!
//! ```text
//! +----------------+--------------------------------------------------------+---------+
//! | nonce          | shard, slot, generation, name and serial, encrypted    |   tag   |
//! +----------------+--------------------------------------------------------+---------+
//!  0               24                                                       46        62
//! ```

use chacha20poly1305::{AeadInOut as _, KeyInit as _, XChaCha20Poly1305};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::{action::ShardId, rng::Rng, slab::Key};

/// Length of a ticket in bytes: nonce, content and tag.
pub(super) const TICKET_BYTES: usize = NONCE_BYTES + CONTENT_BYTES + TAG_BYTES;

const NONCE_BYTES: usize = 24;
const CONTENT_BYTES: usize = 2 + 8 + 8 + 4;
const TAG_BYTES: usize = 16;

/// Sets the key of tickets apart from what else is made of the same one.
const PURPOSE: &[u8] = b"MOBILITY-TICKET";

/// What a ticket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Whose allocation it is.
    pub(super) shard: ShardId,
    /// Where it is.
    pub(super) allocation: Key,
    /// Which one it is, among all that any server of the fleet ever had there.
    pub(super) name: u64,
    /// How many tickets it had before.
    pub(super) serial: u32,
}

/// Writes and reads tickets.
// RFC 8016 section 5: "The TURN server MUST always ensure that the ticket is authenticated and encrypted using strong
// cryptographic algorithms".
pub(super) struct Tickets(XChaCha20Poly1305);

impl core::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Tickets(..)")
    }
}

impl Tickets {
    /// All shards share the key.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
        mac.update(PURPOSE);
        Self(XChaCha20Poly1305::new(&mac.finalize().into_bytes()))
    }

    /// A ticket. Two of the same content differ.
    pub(super) fn seal(&self, ticket: Ticket, rng: &mut Rng) -> [u8; TICKET_BYTES] {
        let nonce: [u8; NONCE_BYTES] = rng.bytes();
        let mut content = [0; CONTENT_BYTES];
        content[..2].copy_from_slice(&ticket.shard.0.to_be_bytes());
        content[2..6].copy_from_slice(&ticket.allocation.index().to_be_bytes());
        content[6..10].copy_from_slice(&ticket.allocation.generation().to_be_bytes());
        content[10..18].copy_from_slice(&ticket.name.to_be_bytes());
        content[18..].copy_from_slice(&ticket.serial.to_be_bytes());
        let tag = self
            .0
            .encrypt_inout_detached(&nonce.into(), &[], content.as_mut_slice().into());
        let tag = tag.expect("a short text can be encrypted");
        let mut sealed = [0; TICKET_BYTES];
        sealed[..NONCE_BYTES].copy_from_slice(&nonce);
        sealed[NONCE_BYTES..NONCE_BYTES + CONTENT_BYTES].copy_from_slice(&content);
        sealed[NONCE_BYTES + CONTENT_BYTES..].copy_from_slice(&tag);
        sealed
    }

    /// What a ticket says, if it is one of ours.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Ticket> {
        let sealed: &[u8; TICKET_BYTES] = sealed.try_into().ok()?;
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (content, tag) = rest.split_first_chunk::<CONTENT_BYTES>()?;
        let (mut content, tag) = (*content, <[u8; TAG_BYTES]>::try_from(tag).ok()?);
        let opened = self
            .0
            .decrypt_inout_detached(&(*nonce).into(), &[], content.as_mut_slice().into(), &tag.into());
        opened.ok()?;
        let (shard, rest) = content.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (name, serial) = rest.split_first_chunk()?;
        Some(Ticket {
            shard: ShardId(u16::from_be_bytes(*shard)),
            allocation: Key::from_parts(u32::from_be_bytes(*index), u32::from_be_bytes(*generation)),
            name: u64::from_be_bytes(*name),
            serial: u32::from_be_bytes(serial.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket = Ticket {
        shard: ShardId(3),
        allocation: Key::from_parts(70_000, 2),
        name: 0x0123_4567_89ab_cdef,
        serial: 9,
    };

    #[test]
    fn a_ticket_says_what_was_put_into_it_and_nothing_to_others() {
        let (tickets, mut rng) = (Tickets::new(&[7; 32]), Rng::new([1; 32]));
        let sealed = tickets.seal(TICKET, &mut rng);
        assert_eq!(tickets.open(&sealed), Some(TICKET));
        assert_ne!(sealed, tickets.seal(TICKET, &mut rng));
        assert_eq!(Tickets::new(&[8; 32]).open(&sealed), None);
        let name = TICKET.name.to_be_bytes();
        assert!(!sealed.windows(name.len()).any(|bytes| bytes == name));
    }

    #[test]
    fn nothing_about_a_ticket_can_be_changed() {
        let tickets = Tickets::new(&[7; 32]);
        let sealed = tickets.seal(TICKET, &mut Rng::new([1; 32]));
        for bit in 0..8 * TICKET_BYTES {
            let mut changed = sealed;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tickets.open(&changed), None, "{bit}");
        }
        for len in 0..TICKET_BYTES {
            assert_eq!(tickets.open(&sealed[..len]), None, "{len}");
        }
        assert_eq!(tickets.open(&[sealed.as_slice(), &[0]].concat()), None);
    }
}
