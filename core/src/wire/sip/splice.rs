//! How does a message change without being written anew? A list of cuts and insertions, carried out in one pass.

use core::ops::Range;

/// Changes to one message, given in any order; kept and used again so that its memory stays.
#[derive(Debug, Default)]
pub struct Splices {
    edits: Vec<Edit>,
    text: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Edit {
    start: u32,
    end: u32,
    text_start: u32,
    text_end: u32,
}

impl Splices {
    /// No changes.
    pub const fn new() -> Self {
        Self {
            edits: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Forgets all changes.
    pub fn clear(&mut self) {
        self.edits.clear();
        self.text.clear();
    }

    /// Puts `parts`, one behind the other, where `range` was. Ranges of different changes may touch but not overlap;
    /// insertions at one place come out in the order they were given.
    pub fn replace(&mut self, range: Range<usize>, parts: &[&[u8]]) {
        let text_start = self.text.len();
        for part in parts {
            self.text.extend_from_slice(part);
        }
        self.edits.push(Edit {
            start: range.start as u32,
            end: range.end as u32,
            text_start: text_start as u32,
            text_end: self.text.len() as u32,
        });
    }

    /// Puts `parts` before the byte at `at`.
    pub fn insert(&mut self, at: usize, parts: &[&[u8]]) {
        self.replace(at..at, parts);
    }

    /// Takes `range` out.
    pub fn remove(&mut self, range: Range<usize>) {
        self.replace(range, &[]);
    }

    /// Appends `source` with all changes made to `out`.
    pub fn apply(&mut self, source: &[u8], out: &mut Vec<u8>) {
        // Stable, so that insertions at one place keep their order; and they come before a cut that begins there.
        self.edits.sort_by_key(|edit| (edit.start, edit.end));
        let mut at = 0;
        for edit in &self.edits {
            let (start, end) = (edit.start as usize, edit.end as usize);
            debug_assert!(at <= start && start <= end, "changes do not overlap");
            out.extend_from_slice(&source[at..start]);
            out.extend_from_slice(&self.text[edit.text_start as usize..edit.text_end as usize]);
            at = end;
        }
        out.extend_from_slice(&source[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_given_in_any_order() {
        let mut splices = Splices::new();
        splices.remove(8..10);
        splices.insert(0, &[b"<"]);
        splices.replace(3..5, &[b"D", b"E"]);
        splices.insert(8, &[b"!"]);
        splices.insert(0, &[b"<"]);
        let mut out = b"> ".to_vec();
        splices.apply(b"abcdefghijkl", &mut out);
        assert_eq!(out, b"> <<abcDEfgh!kl");
    }
}
