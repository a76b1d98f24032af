//! How long is the next chunk? The size lines of the chunked transfer coding (RFC 9112 section 7.1).

use super::http1::{find_lf, is_token};

/// Hexadecimal digits of a chunk size: more cannot be a length.
pub const SIZE_DIGITS_MAX: usize = 16;

/// Bytes of chunk extensions in one line. They are dropped, so nobody needs more.
pub const EXTENSION_BYTES_MAX: usize = 4096;

/// What is wrong with a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkError {
    /// Not a hexadecimal number of at most [`SIZE_DIGITS_MAX`] digits.
    Size,
    /// Extensions that do not follow the grammar, or too many of them.
    Extension,
    /// A line that does not end in CRLF.
    LineEnd,
    /// Data that CRLF does not follow.
    DataEnd,
    /// A trailer section that is malformed or too large.
    Trailer,
}

impl ChunkError {
    /// A stable phrase for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Size => "malformed chunk size",
            Self::Extension => "malformed chunk extension",
            Self::LineEnd => "chunk line end is not CRLF",
            Self::DataEnd => "chunk data longer than its size",
            Self::Trailer => "malformed trailer section",
        }
    }
}

/// The line before a chunk's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLine {
    /// Bytes of data that follow; 0 in the last chunk.
    pub size: u64,
    /// Bytes of extensions in the line, which have no meaning to us.
    pub extension_bytes: usize,
    /// Length of the line, its CRLF included.
    pub len: usize,
}

/// Reads a size line; `None` when its end has not come yet.
///
/// # Errors
/// When the line is whole and malformed, or cannot become well-formed any more.
// RFC 9112 section 7.1: chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF.
pub fn size_line(bytes: &[u8]) -> Result<Option<SizeLine>, ChunkError> {
    const LINE_BYTES_MAX: usize = SIZE_DIGITS_MAX + EXTENSION_BYTES_MAX + 2;
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = find_lf(window) else {
        return if window.len() == LINE_BYTES_MAX {
            Err(ChunkError::Extension)
        } else {
            Ok(None)
        };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(ChunkError::LineEnd)?;
    let digits = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    if digits == 0 || digits > SIZE_DIGITS_MAX {
        return Err(ChunkError::Size);
    }
    let extensions = &line[digits..];
    if !extensions.is_empty() && extensions[0] != b';' {
        return Err(ChunkError::Size);
    }
    if !are_extensions(extensions) {
        return Err(ChunkError::Extension);
    }
    let size = line[..digits]
        .iter()
        .fold(0, |size: u64, digit| size << 4 | u64::from(hex_value(*digit)));
    Ok(Some(SizeLine {
        size,
        extension_bytes: extensions.len(),
        len: end + 1,
    }))
}

/// Whether these are extensions, or nothing.
// RFC 9112 section 7.1.1: chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ). The BWS is "bad"
// white space that a sender must not make and on which recipients disagree; we refuse it.
fn are_extensions(mut rest: &[u8]) -> bool {
    while let Some(extension) = rest.strip_prefix(b";") {
        let Some(after_name) = skip_token(extension) else {
            return false;
        };
        rest = match after_name.strip_prefix(b"=") {
            None => after_name,
            Some(value) => match skip_quoted_string(value).or_else(|| skip_token(value)) {
                Some(after_value) => after_value,
                None => return false,
            },
        };
    }
    rest.is_empty()
}

fn skip_token(bytes: &[u8]) -> Option<&[u8]> {
    let len = bytes.iter().position(|byte| !is_token(&[*byte])).unwrap_or(bytes.len());
    (len > 0).then(|| &bytes[len..])
}

// RFC 9110 section 5.6.4: quoted-string, with quoted-pair.
fn skip_quoted_string(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        let (byte, after) = rest.split_first()?;
        rest = match byte {
            b'"' => return Some(after),
            b'\\' => after.split_first().filter(|(byte, _)| is_text(**byte))?.1,
            byte if is_text(*byte) => after,
            _ => return None,
        };
    }
}

const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

const fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<Option<(u64, usize)>, ChunkError>) {
        let found = size_line(bytes).map(|line| line.map(|line| (line.size, line.len)));
        assert_eq!(found, expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn sizes() {
        check(b"0\r\n", Ok(Some((0, 3))));
        check(b"1aF\r\nrest", Ok(Some((0x1af, 5))));
        check(b"0000000000000005\r\n", Ok(Some((5, 18))));
        check(b"ffffffffffffffff\r\n", Ok(Some((u64::MAX, 18))));
        for none in [&b""[..], b"5", b"5\r", b"5;a", b"xyz"] {
            check(none, Ok(None));
        }
        for bad in [
            &b"\r\n"[..],
            b"00000000000000005\r\n",
            b"0x5\r\n",
            b"+5\r\n",
            b"-5\r\n",
            b"5 \r\n",
            b" 5\r\n",
            b"5\t;a\r\n",
            b"1_0\r\n",
            b"5g\r\n",
            b"5,5\r\n",
            b"\"5\"\r\n",
            b"5\r\r\n",
            b"5\0\r\n",
        ] {
            check(bad, Err(ChunkError::Size));
        }
        check(b"5\n", Err(ChunkError::LineEnd));
        check(b"\n", Err(ChunkError::LineEnd));
    }

    #[test]
    fn extensions() {
        for good in [
            &b"5;a\r\n"[..],
            b"5;a=b\r\n",
            b"5;a=\"b;c\\\"d\"\r\n",
            b"5;a;b=c;d=\"\"\r\n",
            b"5;a=\"\xe9\t\"\r\n",
        ] {
            check(good, Ok(Some((5, good.len()))));
        }
        for bad in [
            &b"5;\r\n"[..],
            b"5;;a\r\n",
            b"5;=b\r\n",
            b"5;a=\r\n",
            b"5; a\r\n",
            b"5;a \r\n",
            b"5;a=\"b\r\n",
            b"5;a=\"b\"c\r\n",
            b"5;a=b c\r\n",
            b"5;a\rb\r\n",
            b"5;a\0\r\n",
            b"5;a=\"\x01\"\r\n",
            b"5;a=\"\\\x7f\"\r\n",
        ] {
            check(bad, Err(ChunkError::Extension));
        }
        check(b"5;a\n", Err(ChunkError::LineEnd));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut line = b"5;".to_vec();
        line.resize(SIZE_DIGITS_MAX + EXTENSION_BYTES_MAX + 1, b'a');
        check(&line, Ok(None));
        line.push(b'a');
        check(&line, Err(ChunkError::Extension));
    }
}
