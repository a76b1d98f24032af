//! Which calls of mediaservers were refused a moment ago? A repeat that was late gets the same answer, although the browser
//! may be back by then: the caller has been told that nobody is there.

use alloc::collections::VecDeque;
use core::time::Duration;
use std::collections::HashMap;

use ahash::RandomState;

use super::{check::Rejection, transaction::ServerId};
use crate::{rng::Rng, time::Instant};

/// For how long a request may come again: 64*T1 (RFC 3261 section 17.1.1.2).
const REPEATS: Duration = Duration::from_secs(32);

/// Refusals that are remembered; the oldest is forgotten first.
const REFUSALS_MAX: usize = 1_000;

/// INVITEs that were refused without a transaction.
#[derive(Debug)]
pub(super) struct Refusals {
    known: HashMap<ServerId, Rejection, RandomState>,
    order: VecDeque<(Instant, ServerId)>,
}

impl Refusals {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            known: HashMap::with_hasher(rng.hasher()),
            order: VecDeque::new(),
        }
    }

    /// Remembers what a request was answered with.
    pub(super) fn add(&mut self, now: Instant, server: ServerId, rejection: Rejection) {
        self.forget(now, REFUSALS_MAX - 1);
        self.known.insert(server, rejection);
        self.order.push_back((now, server));
    }

    /// What a request was answered with before.
    pub(super) fn find(&mut self, now: Instant, server: ServerId) -> Option<Rejection> {
        self.forget(now, REFUSALS_MAX);
        self.known.get(&server).copied()
    }

    /// Forgets what cannot come again, and what is more than `most`.
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((at, server)) = self.order.front()
            && (now >= *at + REPEATS || self.order.len() > most)
        {
            self.known.remove(server);
            self.order.pop_front();
        }
    }
}
