//! Which held port does this token stand for, on whichever shard it comes back? (RFC 8656 sections 7.2 and 18.10)
//!
//! ```text
//!  0        2          3                        8
//! +--------+----------+------------------------+
//! |  port  | F expires|  MAC                   |
//! +--------+----------+------------------------+
//! ```
//!
//! F is the family; `expires` counts steps of [`STEP_SECS`] and says their lowest seven bits.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::{time::UnixTime, wire::stun::Family};

/// Length of a RESERVATION-TOKEN in bytes.
pub(super) const TOKEN_BYTES: usize = 8;

/// For how long a token is good at least, in seconds; a step longer at most.
// RFC 8656 section 7.2: "The server MUST hold this reservation for at least 30 seconds". The answer may be lost, and
// a client repeats its request for nearly 40 seconds.
pub(super) const TOKEN_LIFETIME_SECS: u64 = 60;

/// Grain of the time in a token, in seconds.
pub(super) const STEP_SECS: u64 = 4;

/// Sets these authenticated bytes apart from all others under the same key, which begin otherwise.
const PURPOSE: &[u8] = b"RESERVATION-TOKEN";

/// A port of ours that somebody may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) family: Family,
    pub(super) port: u16,
}

/// A token for a port that is held for `user` from now on. All shards share the key.
pub(super) fn make(key: &[u8; 32], held: Held, user: &[u8], now: UnixTime) -> [u8; TOKEN_BYTES] {
    // The step that has begun counts as a whole one.
    made_for(key, held, user, step(now) + 1 + TOKEN_LIFETIME_SECS / STEP_SECS)
}

/// The port that a token stands for; `None` when it is not one of ours, not this user's, or too old.
pub(super) fn read(key: &[u8; 32], token: [u8; TOKEN_BYTES], user: &[u8], now: UnixTime) -> Option<Held> {
    let [port_high, port_low, time, ..] = token;
    let held = Held {
        family: Family::ALL[usize::from(time >> 7)],
        port: u16::from_be_bytes([port_high, port_low]),
    };
    let left = u64::from(time).wrapping_sub(step(now)) & 0x7f;
    let fresh = (1..=1 + TOKEN_LIFETIME_SECS / STEP_SECS).contains(&left);
    let good: bool = made_for(key, held, user, step(now) + left).ct_eq(&token).into();
    (fresh && good).then_some(held)
}

/// A token that is good before this step.
fn made_for(key: &[u8; 32], held: Held, user: &[u8], expires: u64) -> [u8; TOKEN_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(PURPOSE);
    mac.update(&held.port.to_be_bytes());
    mac.update(&[held.family.code()]);
    mac.update(&expires.to_be_bytes());
    mac.update(user);
    let mut token = [0; TOKEN_BYTES];
    token[..2].copy_from_slice(&held.port.to_be_bytes());
    token[2] = (held.family as u8) << 7 | (expires & 0x7f) as u8;
    token[3..].copy_from_slice(&mac.finalize().into_bytes()[..TOKEN_BYTES - 3]);
    token
}

fn step(now: UnixTime) -> u64 {
    now.0 / STEP_SECS
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [3; 32];
    const HELD: Held = Held {
        family: Family::V6,
        port: 30_001,
    };

    fn at(secs: u64) -> UnixTime {
        UnixTime(1_700_000_001 + secs)
    }

    #[test]
    fn a_token_stands_for_its_port_for_a_minute() {
        let token = make(&KEY, HELD, b"alice", at(0));
        for (secs, good) in [
            (0, true),
            (30, true),
            (60, true),
            (64, false),
            (1 << 9, false),
            (1 << 20, false),
        ] {
            assert_eq!(read(&KEY, token, b"alice", at(secs)), good.then_some(HELD), "{secs}");
        }
    }

    #[test]
    fn nothing_about_a_token_can_be_changed() {
        let token = make(&KEY, HELD, b"alice", at(0));
        assert_eq!(read(&KEY, token, b"bob", at(0)), None);
        assert_eq!(read(&[4; 32], token, b"alice", at(0)), None);
        for bit in 0..64 {
            let mut changed = token;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&KEY, changed, b"alice", at(0)), None, "{bit}");
        }
    }
}
