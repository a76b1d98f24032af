//! What happens one after the other? Bytes become operations until they end.

use arbitrary::{Arbitrary, Unstructured};

/// The operations that these bytes stand for, `most` of them at the most.
pub fn sequence<'a, Op: Arbitrary<'a>>(bytes: &'a [u8], most: usize) -> impl Iterator<Item = Op> {
    let mut input = Unstructured::new(bytes);
    let next = move || (!input.is_empty()).then(|| Op::arbitrary(&mut input).ok()).flatten();
    std::iter::from_fn(next).take(most)
}
