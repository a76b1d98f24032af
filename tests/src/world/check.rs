//! Was everything as it must be? Each checker looks at what happens, in its own words, and knows nothing of the core.

use crate::world::{agenda::Time, history::Seen};

pub mod asks;
pub mod held;
pub mod http;
pub mod relay;
pub mod sip;

/// All checkers, and what the first of them has found.
#[derive(Debug, Default)]
pub struct Checkers {
    asks: asks::Asks,
    held: held::Held,
    http: http::Http,
    relay: relay::Relay,
    sip: sip::Sip,
    failure: Option<String>,
}

impl Checkers {
    /// Something has happened.
    pub fn see(&mut self, now: Time, seen: &Seen<'_>) {
        let found = [
            ("asks", self.asks.see(seen)),
            ("held", self.held.see(seen)),
            ("http", self.http.see(seen)),
            ("relay", self.relay.see(now, seen)),
            ("sip", self.sip.see(now, seen)),
        ];
        for (checker, found) in found {
            if let Err(what) = found {
                self.fail(format!("{checker}: {what}"));
            }
        }
    }

    /// Somebody has found something that must not be.
    pub fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// The first thing that must not be.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}
