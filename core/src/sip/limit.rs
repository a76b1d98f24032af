//! May this browser ask again already? Token buckets by kind of request, and locks after wrong passwords.

use core::time::Duration;
use std::collections::HashMap;

use ahash::RandomState;

use super::transaction::Method;
use crate::time::Instant;

/// Buckets of one flow. Far above what a phone does, far below what hurts a mediaserver.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Buckets {
    register: Bucket,
    invite: Bucket,
    other: Bucket,
    stateless: Bucket,
}

impl Buckets {
    /// Takes one request's worth out; `false` when there is none.
    pub(super) fn admit(&mut self, now: Instant, method: Method) -> bool {
        match method {
            Method::Register => self.register.take(now, REGISTER),
            Method::Invite => self.invite.take(now, INVITE),
            Method::Ack | Method::Cancel | Method::Options | Method::Dialog | Method::Other => {
                self.other.take(now, OTHER)
            }
        }
    }

    /// The same for what begins no transaction: ACKs, responses, and requests that are answered with an error.
    pub(super) fn admit_stateless(&mut self, now: Instant) -> bool {
        self.stateless.take(now, STATELESS)
    }
}

/// One bucket as a single point in time: when it would be full again (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let cost = Duration::from_secs(1) / rate.per_second;
        let full_at = self.full_at.max(now) + cost;
        let admitted = full_at.saturating_since(now) <= cost * rate.burst;
        if admitted {
            self.full_at = full_at;
        }
        admitted
    }
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: u32,
    burst: u32,
}

/// Who tries passwords: a browser's address together with the user it wants to be, so that one wrong password behind a
/// NAT is nobody else's trouble.
#[derive(Debug)]
pub(super) struct Locks {
    entries: HashMap<u64, Lock, RandomState>,
}

#[derive(Debug, Clone, Copy)]
struct Lock {
    denials: u32,
    until: Instant,
}

impl Locks {
    /// Nobody is locked out. Who is, is named by a number that only we can work out.
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            entries: HashMap::with_hasher(hasher),
        }
    }

    /// Whether somebody must wait.
    pub(super) fn is_locked(&self, now: Instant, who: u64) -> bool {
        !self.entries.is_empty()
            && self
                .entries
                .get(&who)
                .is_some_and(|lock| lock.denials >= DENIALS_MAX && now < lock.until)
    }

    /// Credentials were refused: each time beyond the first few locks for twice as long.
    pub(super) fn denied(&mut self, now: Instant, who: u64) {
        if self.entries.len() >= LOCKS_MAX {
            self.entries.retain(|_, lock| now < lock.until);
        }
        if self.entries.len() >= LOCKS_MAX && !self.entries.contains_key(&who) {
            return;
        }
        let lock = self.entries.entry(who).or_insert(Lock { denials: 0, until: now });
        if now.saturating_since(lock.until) > LOCK_LONGEST {
            lock.denials = 0;
        }
        lock.denials = lock.denials.saturating_add(1);
        let doubled = lock.denials.saturating_sub(DENIALS_MAX).min(16);
        lock.until = now + (LOCK_SHORTEST * (1 << doubled)).min(LOCK_LONGEST);
    }

    /// Credentials were accepted.
    pub(super) fn accepted(&mut self, who: u64) {
        if !self.entries.is_empty() {
            self.entries.remove(&who);
        }
    }
}

/// Wrong passwords in a row that are forgiven.
const DENIALS_MAX: u32 = 8;
/// Users that are remembered for them.
const LOCKS_MAX: usize = 16_384;
const LOCK_SHORTEST: Duration = Duration::from_secs(10);
const LOCK_LONGEST: Duration = Duration::from_secs(600);

const REGISTER: Rate = Rate {
    per_second: 5,
    burst: 20,
};
const INVITE: Rate = Rate {
    per_second: 20,
    burst: 60,
};
const OTHER: Rate = Rate {
    per_second: 50,
    burst: 200,
};
const STATELESS: Rate = Rate {
    per_second: 100,
    burst: 400,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut buckets = Buckets::default();
        let mut now = Instant::from_nanos(1);
        let admitted = |buckets: &mut Buckets, now| (0..100).filter(|_| buckets.admit(now, Method::Register)).count();
        assert_eq!(admitted(&mut buckets, now), 20);
        now += Duration::from_secs(2);
        assert_eq!(admitted(&mut buckets, now), 10);
        assert!(buckets.admit(now, Method::Invite));
    }

    #[test]
    fn wrong_passwords_lock_longer_and_longer() {
        let mut locks = Locks::new(RandomState::with_seeds(1, 2, 3, 4));
        let mut now = Instant::from_nanos(1);
        for _ in 1..DENIALS_MAX {
            locks.denied(now, 7);
        }
        assert!(!locks.is_locked(now, 7));
        for wait in [10, 20, 40, 80, 160, 320, 600, 600] {
            locks.denied(now, 7);
            assert!(locks.is_locked(now + Duration::from_secs(wait - 1), 7) && !locks.is_locked(now, 8));
            now += Duration::from_secs(wait);
            assert!(!locks.is_locked(now, 7));
        }
        locks.denied(now, 7);
        locks.accepted(7);
        assert!(!locks.is_locked(now, 7));
    }

    #[test]
    fn locks_do_not_pile_up() {
        let mut locks = Locks::new(RandomState::with_seeds(1, 2, 3, 4));
        for who in 0..2 * LOCKS_MAX as u64 {
            locks.denied(Instant::ZERO, who);
        }
        assert_eq!(locks.entries.len(), LOCKS_MAX);
        locks.denied(Instant::ZERO + LOCK_LONGEST, u64::MAX);
        assert_eq!(locks.entries.len(), 1);
    }
}
