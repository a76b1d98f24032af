//! Which name was probably meant?

use core::mem;

/// The name that was probably meant.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let close_enough = 1 + name.len() / 3;
    names
        .map(|other| (distance(name, other), other))
        .filter(|(distance, _)| *distance <= close_enough)
        .min()
        .map(|(_, other)| other)
}

/// How many characters must be put in, left out or changed to make `b` of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_probably_meant() {
        for (name, expected) in [
            ("listne", Some("listen")),
            ("Listen", Some("listen")),
            ("hots", Some("hosts")),
            ("certificate", Some("certificates")),
            ("certs", None),
            ("", None),
        ] {
            let known = ["listen", "hosts", "certificates"];
            assert_eq!(nearest(name, known.into_iter()), expected, "{name}");
        }
    }
}
