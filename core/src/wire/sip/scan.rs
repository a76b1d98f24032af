//! Where does this line end, and where its name? The innermost loops of the index, eight bytes at a time.

use core::ops::Range;

/// The end of a line: the offset of its CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineEnd {
    pub(super) at: usize,
    /// Whether no control character stands before it that no backslash announces.
    pub(super) is_clean: bool,
}

/// The first CRLF at or after `at`. `None` when there is none, or a bare CR or LF before it: some take either for the
/// end of a line, and would see fields that we do not.
pub(super) fn line_end(bytes: &[u8], mut at: usize) -> Option<LineEnd> {
    let mut is_clean = true;
    loop {
        at += position_below_space(bytes.get(at..)?)?;
        match bytes[at] {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => return Some(LineEnd { at, is_clean }),
            b'\r' | b'\n' => return None,
            b'\t' => {}
            _ => is_clean &= at > 0 && bytes[at - 1] == b'\\',
        }
        at += 1;
    }
}

/// The end of the field that begins at `at`: the last CRLF of its folds.
pub(super) fn field_end(bytes: &[u8], at: usize) -> Option<LineEnd> {
    let mut end = line_end(bytes, at)?;
    // RFC 3261 section 7.3.1: header fields can be extended over multiple lines by at least one SP or HT.
    while matches!(bytes.get(end.at + 2), Some(b' ' | b'\t')) {
        let next = line_end(bytes, end.at + 2)?;
        end = LineEnd {
            at: next.at,
            is_clean: end.is_clean && next.is_clean,
        };
    }
    Some(end)
}

/// Name of a field and offset of its colon.
pub(super) fn field_name(line: &[u8]) -> Option<(&[u8], usize)> {
    let name_end = token_end(line);
    let mut colon = name_end;
    // RFC 3261 section 25.1: HCOLON = *( SP / HTAB ) ":" SWS
    while matches!(line.get(colon), Some(b' ' | b'\t')) {
        colon += 1;
    }
    (name_end > 0 && line.get(colon) == Some(&b':')).then(|| (&line[..name_end], colon))
}

/// `range` without white space (and folds) at its ends.
pub(super) fn trim(bytes: &[u8], range: Range<usize>) -> Range<usize> {
    let Range { mut start, mut end } = range;
    // The end first, so that nothing but space leaves an empty range before it.
    while start < end && is_space(bytes[end - 1]) {
        end -= 1;
    }
    while start < end && is_space(bytes[start]) {
        start += 1;
    }
    start..end
}

/// Whether there is a CR or LF that is not part of a CRLF. One CR at the end may be half of one.
pub(super) fn has_stray_line_end(bytes: &[u8]) -> bool {
    let mut before = b' ';
    for &byte in bytes {
        if (byte == b'\n') != (before == b'\r') {
            return true;
        }
        before = byte;
    }
    false
}

/// What follows the empty lines at the start.
pub(super) fn skip_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

/// How many bytes of a token `bytes` begin with.
pub(super) fn token_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_token(*byte)).unwrap_or(bytes.len())
}

/// Whether a byte may stand in a token (RFC 3261 section 25.1).
pub(super) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Linear white space, folds included.
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The offset of the first byte below 0x20.
fn position_below_space(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of each byte that is below 0x20; a borrow may spoil bytes behind the first one, never before it.
        let below = word.wrapping_sub(EACH_BYTE * 0x20) & !word & (EACH_BYTE * 0x80);
        if below != 0 {
            return Some(index * 8 + below.trailing_zeros() as usize / 8);
        }
    }
    let tail = rest.iter().position(|byte| *byte < 0x20)?;
    Some(words.len() * 8 + tail)
}

/// One in each byte of a word.
const EACH_BYTE: u64 = 0x0101_0101_0101_0101;

/// RFC 3261 section 25.1: token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~" )
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(
                byte as u8,
                b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_find_what_bytes_find(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(position_below_space(&bytes), bytes.iter().position(|byte| *byte < 0x20));
        }
    }

    #[test]
    fn only_crlf_ends_a_line() {
        for (bytes, end) in [
            (&b"abc\r\n"[..], Some((3, true))),
            (b"a\tb\\\x01c\r\n", Some((6, true))),
            (b"ab\x01c\r\n", Some((4, false))),
            (b"abc\n", None),
            (b"ab\rc\r\n", None),
            (b"abc", None),
            (b"abc\r", None),
        ] {
            assert_eq!(line_end(bytes, 0).map(|end| (end.at, end.is_clean)), end, "{bytes:?}");
        }
    }
}
