//! What has a run met with? Counts, so that a test can show that each fault and each actor was there.

use std::collections::BTreeMap;

/// How often each thing has happened, by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Met(pub BTreeMap<&'static str, u64>);

impl Met {
    /// It has happened.
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Joins what another run has met with.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Which of these have never happened.
    pub fn missing<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        let wanted = wanted.iter().copied();
        wanted
            .filter(|what| self.0.get(what).copied().unwrap_or(0) == 0)
            .collect()
    }
}
