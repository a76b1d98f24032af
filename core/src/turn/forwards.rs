//! Whose datagrams are for another shard? Clients that moved their allocation there from this shard's part of the
//! network. (RFC 8016)

use std::collections::HashMap;

use ahash::RandomState;

use super::table::Client;
use crate::{action::ShardId, rng::Rng, time::Instant};

/// Clients whose allocations are elsewhere. Each one counts for its user like an allocation.
#[derive(Debug)]
pub(super) struct Forwards {
    by_client: HashMap<Client, Forward, RandomState>,
}

#[derive(Debug)]
struct Forward {
    to: ShardId,
    person: Box<[u8]>,
    /// When a client that has been silent since cannot have an allocation any more.
    expires: Instant,
}

impl Forwards {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            by_client: HashMap::with_hasher(rng.hasher()),
        }
    }

    /// Adds a client, and says for whom the one counted that is replaced.
    pub(super) fn insert(&mut self, client: Client, to: ShardId, person: &[u8], expires: Instant) -> Option<Box<[u8]>> {
        let person = person.into();
        let replaced = self.by_client.insert(client, Forward { to, person, expires });
        replaced.map(|forward| forward.person)
    }

    /// Where the datagrams of a client go, which is good until `expires` from now on.
    pub(super) fn home(&mut self, client: &Client, now: Instant, expires: Instant) -> Option<ShardId> {
        let forward = self.by_client.get_mut(client).filter(|forward| now < forward.expires)?;
        forward.expires = expires;
        Some(forward.to)
    }

    /// Forgets what has expired, and says for whom it counted.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Box<[u8]>> {
        let mut gone = Vec::new();
        self.by_client.retain(|_, forward| {
            let is_live = now < forward.expires;
            if !is_live {
                gone.push(core::mem::take(&mut forward.person));
            }
            is_live
        });
        gone
    }

    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }
}
