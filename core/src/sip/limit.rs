//! May this browser ask again already? Token buckets by kind of request, and locks after wrong passwords and guessed
//! names.

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

/// What strangers may have passed on to other shards.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Strangers(Bucket);

impl Strangers {
    /// Takes one datagram's worth out; `false` when there is none.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        self.0.take(now, STRANGERS)
    }
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: u32,
    burst: u32,
}

/// Who has tried too many wrong passwords, or names of nobody.
#[derive(Debug)]
pub(super) struct Locks {
    entries: HashMap<u64, Lock, RandomState>,
}

/// Who tries a password or a name, by numbers that only we can work out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspects {
    /// A user at an address, so that one wrong password behind a NAT is nobody else's trouble.
    pub(super) user: u64,
    /// Whom the token of the WebSocket names.
    pub(super) subject: Option<u64>,
    /// The address, which a whole office may share.
    pub(super) address: u64,
}

/// A request whose refusal counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// Who is to blame.
    pub(super) who: Suspects,
    /// Whether it brings a password; whoever brings none is asked for it first.
    pub(super) has_credentials: bool,
}

#[derive(Debug, Clone, Copy)]
struct Lock {
    denials: u32,
    denials_max: u32,
    until: Instant,
}

impl Locks {
    /// Nobody is locked out.
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            entries: HashMap::with_hasher(hasher),
        }
    }

    /// Whether somebody must wait.
    pub(super) fn is_locked(&self, now: Instant, who: &Suspects) -> bool {
        let is_locked = |(who, _): (u64, u32)| self.entries.get(&who).is_some_and(|lock| lock.is_closed(now));
        !self.entries.is_empty() && who.all().any(is_locked)
    }

    /// An attempt was refused: each time beyond the first few locks for twice as long.
    pub(super) fn denied(&mut self, now: Instant, who: &Suspects) {
        for (who, denials_max) in who.all() {
            self.deny(now, who, denials_max);
        }
    }

    fn deny(&mut self, now: Instant, who: u64, denials_max: u32) {
        if self.entries.len() >= LOCKS_MAX {
            self.entries.retain(|_, lock| now < lock.until);
        }
        if self.entries.len() >= LOCKS_MAX && !self.entries.contains_key(&who) {
            return;
        }
        let lock = self.entries.entry(who).or_insert(Lock {
            denials: 0,
            denials_max,
            until: now,
        });
        if now.saturating_since(lock.until) > LOCK_LONGEST {
            lock.denials = 0;
        }
        lock.denials = lock.denials.saturating_add(1);
        let doubled = lock.denials.saturating_sub(denials_max).min(16);
        lock.until = now + (LOCK_SHORTEST * (1 << doubled)).min(LOCK_LONGEST);
    }

    /// Credentials were accepted: what was refused before was a mistake, or an old nonce.
    pub(super) fn accepted(&mut self, who: &Suspects) {
        if self.entries.is_empty() {
            return;
        }
        if let Some(subject) = who.subject {
            self.entries.remove(&subject);
        }
        let forgiven = self.entries.remove(&who.user).map_or(0, |lock| lock.denials);
        if let Some(address) = self.entries.get_mut(&who.address) {
            address.denials = address.denials.saturating_sub(forgiven);
        }
    }
}

impl Suspects {
    /// All that are to blame, each with how many wrong passwords it is forgiven.
    fn all(&self) -> impl Iterator<Item = (u64, u32)> {
        let users = [Some(self.user), self.subject].into_iter().flatten();
        let users = users.map(|who| (who, DENIALS_MAX));
        users.chain([(self.address, ADDRESS_DENIALS_MAX)])
    }
}

impl Lock {
    fn is_closed(&self, now: Instant) -> bool {
        self.denials >= self.denials_max && now < self.until
    }
}

/// Wrong attempts in a row that a user is forgiven.
const DENIALS_MAX: u32 = 8;
/// The same for all users of an address that did not get in, before nobody there is heard for a while.
const ADDRESS_DENIALS_MAX: u32 = 100;
/// Users and addresses that are remembered for them.
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
/// Far above what a mediaserver that has moved says within the seconds in which some shards know that already, far below
/// what the way between shards holds.
const STRANGERS: Rate = Rate {
    per_second: 50,
    burst: 100,
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

    fn locks() -> Locks {
        Locks::new(RandomState::with_seeds(1, 2, 3, 4))
    }

    /// A user without a token at the address 0.
    fn user(user: u64) -> Suspects {
        Suspects {
            user,
            subject: None,
            address: 0,
        }
    }

    #[test]
    fn wrong_passwords_lock_longer_and_longer() {
        let (mut locks, guilty) = (locks(), user(7));
        let mut now = Instant::from_nanos(1);
        for _ in 1..DENIALS_MAX {
            locks.denied(now, &guilty);
        }
        assert!(!locks.is_locked(now, &guilty));
        for wait in [10, 20, 40, 80, 160, 320, 600, 600] {
            locks.denied(now, &guilty);
            assert!(locks.is_locked(now + Duration::from_secs(wait - 1), &guilty) && !locks.is_locked(now, &user(8)));
            now += Duration::from_secs(wait);
            assert!(!locks.is_locked(now, &guilty));
        }
        locks.denied(now, &guilty);
        locks.accepted(&guilty);
        assert!(!locks.is_locked(now, &guilty));
    }

    #[test]
    fn a_token_is_locked_wherever_it_comes_from() {
        let (mut locks, now) = (locks(), Instant::from_nanos(1));
        let from = |address| Suspects {
            user: 1000 + address,
            subject: Some(5),
            address: 2000 + address,
        };
        for address in 1..=u64::from(DENIALS_MAX) {
            assert!(!locks.is_locked(now, &from(address)));
            locks.denied(now, &from(address));
        }
        assert!(locks.is_locked(now, &from(99)) && !locks.is_locked(now, &user(1001)));
    }

    #[test]
    fn an_office_is_locked_last() {
        let (mut locks, now) = (locks(), Instant::from_nanos(1));
        // Two hundred telephones that each begin with an old nonce are no attack.
        for honest in 1..=200 {
            locks.denied(now, &user(honest));
            locks.accepted(&user(honest));
        }
        for guess in 1001..1001 + u64::from(ADDRESS_DENIALS_MAX) {
            assert!(!locks.is_locked(now, &user(1)));
            locks.denied(now, &user(guess));
        }
        assert!(locks.is_locked(now, &user(1)));
        let elsewhere = Suspects { address: 1, ..user(1) };
        assert!(!locks.is_locked(now, &elsewhere));
    }

    #[test]
    fn locks_do_not_pile_up() {
        let mut locks = locks();
        for who in 0..2 * LOCKS_MAX as u64 {
            locks.denied(Instant::ZERO, &user(who));
        }
        assert_eq!(locks.entries.len(), LOCKS_MAX);
        locks.denied(Instant::ZERO + LOCK_LONGEST, &user(u64::MAX));
        assert!(locks.entries.len() <= 2);
    }
}
