//! Which shard wrote this? The beginning of our branches and flow tokens, plain enough for whoever hands datagrams out
//! and knows nothing else of SIP.

use crate::action::{HOME_MARK, ShardId};

/// Length of the text: the mark and five digits.
pub(super) const LABEL_LEN: usize = HOME_MARK.len() + DIGITS;
/// As many as the largest number has.
const DIGITS: usize = 5;

/// The text for a shard.
pub(super) fn label(shard: ShardId) -> [u8; LABEL_LEN] {
    let mut text = [0; LABEL_LEN];
    let (mark, digits) = text.split_at_mut(HOME_MARK.len());
    mark.copy_from_slice(&HOME_MARK);
    let mut rest = shard.0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    text
}

/// The shard that `text` begins with, whatever the case, and what follows.
pub(super) fn labelled(text: &[u8]) -> Option<(ShardId, &[u8])> {
    let (label, rest) = text.split_at_checked(LABEL_LEN)?;
    let (mark, digits) = label.split_at(HOME_MARK.len());
    let number = digits.iter().try_fold(0_u32, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        Some(number * 10 + digit)
    })?;
    let shard = u16::try_from(number).ok()?;
    mark.eq_ignore_ascii_case(&HOME_MARK).then_some((ShardId(shard), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for (shard, text) in [(0, b"-ew-00000"), (12, b"-ew-00012"), (u16::MAX, b"-ew-65535")] {
            assert_eq!(&label(ShardId(shard)), text);
            assert_eq!(labelled(text), Some((ShardId(shard), &[][..])));
        }
        assert_eq!(labelled(b"-EW-00012rest"), Some((ShardId(12), &b"rest"[..])));
    }

    #[test]
    fn others_are_none() {
        for text in [&b""[..], b"-ew-0001", b"-ew-0001x", b"-ex-00001", b"-ew-65536"] {
            assert_eq!(labelled(text), None);
        }
    }
}
