//! Which allocation does this ticket stand for, on whichever shard? MOBILITY-TICKET. (RFC 8016 sections 3.1.2 and 5)
//!
//! ```text
//! +---------------------+-------+------+------------+------+--------+------+
//! | authentication code | shard | slot | generation | name | serial | salt |
//! +---------------------+-------+------+------------+------+--------+------+
//!  0                     16      18     22           26     29       31     32
//! ```
//!
//! The code is that of the content, and what the content is encrypted with follows from the code: a synthetic
//! initialization vector (RFC 5297 section 2), so that no two tickets are ever encrypted alike. There are clients that
//! keep no more than 32 bytes, as a text that ends at the first zero: the salt is such that a ticket has none.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::{action::ShardId, slab::Key};

/// Length of a ticket in bytes: code and content.
pub(super) const TICKET_BYTES: usize = 2 * HALF;

/// Length of either half.
const HALF: usize = 16;

/// Sets the keys of tickets apart from each other and from what else is made of the same one.
const PURPOSES: [&[u8]; 2] = [b"MOBILITY-TICKET code", b"MOBILITY-TICKET content"];

/// What a ticket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Whose allocation it is.
    pub(super) shard: ShardId,
    /// Where it is.
    pub(super) allocation: Key,
    /// Which one it is, among all that any server of the fleet ever had there; 24 bits.
    pub(super) name: u32,
    /// How many tickets it had before.
    pub(super) serial: u16,
}

/// Writes and reads tickets.
// RFC 8016 section 5: "The TURN server MUST always ensure that the ticket is authenticated and encrypted using strong
// cryptographic algorithms".
pub(super) struct Tickets {
    code: [u8; 32],
    content: [u8; 32],
}

impl core::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Tickets(..)")
    }
}

impl Tickets {
    /// All shards share the key.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let [code, content] = PURPOSES.map(|purpose| hmac(key, purpose));
        Self { code, content }
    }

    /// The ticket that says this.
    pub(super) fn seal(&self, ticket: Ticket) -> [u8; TICKET_BYTES] {
        let mut salted = (0..=u8::MAX).map(|salt| self.seal_with(ticket, salt));
        let sealed = salted.find(|sealed| !sealed.contains(&0));
        sealed.unwrap_or_else(|| self.seal_with(ticket, 0))
    }

    fn seal_with(&self, ticket: Ticket, salt: u8) -> [u8; TICKET_BYTES] {
        let mut content = [0; HALF];
        content[..2].copy_from_slice(&ticket.shard.0.to_be_bytes());
        content[2..6].copy_from_slice(&ticket.allocation.index().to_be_bytes());
        content[6..10].copy_from_slice(&ticket.allocation.generation().to_be_bytes());
        content[10..13].copy_from_slice(&ticket.name.to_be_bytes()[1..]);
        content[13..15].copy_from_slice(&ticket.serial.to_be_bytes());
        content[15] = salt;
        let code = self.code_of(&content);
        let mut sealed = [0; TICKET_BYTES];
        sealed[..HALF].copy_from_slice(&code);
        sealed[HALF..].copy_from_slice(&self.encrypt(&code, content));
        sealed
    }

    /// What a ticket says, if it is one of ours.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Ticket> {
        let (code, content) = sealed.split_first_chunk::<HALF>()?;
        let content = self.encrypt(code, content.try_into().ok()?);
        let is_ours: bool = self.code_of(&content).ct_eq(code).into();
        let [
            shard_high,
            shard_low,
            i0,
            i1,
            i2,
            i3,
            g0,
            g1,
            g2,
            g3,
            n1,
            n2,
            n3,
            serial_high,
            serial_low,
            _,
        ] = content;
        is_ours.then(|| Ticket {
            shard: ShardId(u16::from_be_bytes([shard_high, shard_low])),
            allocation: Key::from_parts(
                u32::from_be_bytes([i0, i1, i2, i3]),
                u32::from_be_bytes([g0, g1, g2, g3]),
            ),
            name: u32::from_be_bytes([0, n1, n2, n3]),
            serial: u16::from_be_bytes([serial_high, serial_low]),
        })
    }

    fn code_of(&self, content: &[u8; HALF]) -> [u8; HALF] {
        *hmac(&self.code, content).first_chunk().expect("half of a hash")
    }

    /// Encrypts and decrypts.
    fn encrypt(&self, code: &[u8; HALF], mut content: [u8; HALF]) -> [u8; HALF] {
        for (byte, mask) in content.iter_mut().zip(hmac(&self.content, code)) {
            *byte ^= mask;
        }
        content
    }
}

fn hmac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket = Ticket {
        shard: ShardId(3),
        allocation: Key::from_parts(70_000, 2),
        name: 0x00ab_cdef,
        serial: 9,
    };

    #[test]
    fn a_ticket_says_what_was_put_into_it_and_nothing_to_others() {
        let tickets = Tickets::new(&[7; 32]);
        let sealed = tickets.seal(TICKET);
        assert_eq!(tickets.open(&sealed), Some(TICKET));
        assert_eq!(Tickets::new(&[8; 32]).open(&sealed), None);
        let serials = (0..1000).map(|serial| tickets.seal(Ticket { serial, ..TICKET }));
        assert!(serials.flatten().all(|byte| byte != 0));
        let next = tickets.seal(Ticket { serial: 10, ..TICKET });
        let alike = sealed.iter().zip(next).filter(|(byte, other)| **byte == *other);
        assert!(alike.count() < 4, "{sealed:02x?} {next:02x?}");
    }

    #[test]
    fn nothing_about_a_ticket_can_be_changed() {
        let tickets = Tickets::new(&[7; 32]);
        let sealed = tickets.seal(TICKET);
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
