//! How does a stream come in pieces? Whatever the pieces, what is understood must be the same.

/// Cuts `bytes` into pieces whose lengths follow from `pattern`, which is used over and over; none is empty.
/// An empty pattern leaves the bytes whole.
pub fn pieces<'a>(mut bytes: &'a [u8], pattern: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = pattern.iter().cycle();
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let len = lengths.next().map_or(bytes.len(), |byte| usize::from(*byte % 64) + 1);
        let (piece, rest) = bytes.split_at(len.min(bytes.len()));
        bytes = rest;
        Some(piece)
    })
}

/// Divides the input of a target: up to seven bytes that say how the stream is cut, and the stream.
pub fn pattern(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.split_first() {
        Some((count, rest)) => rest.split_at(usize::from(*count % 8).min(rest.len())),
        None => (&[], &[]),
    }
}
