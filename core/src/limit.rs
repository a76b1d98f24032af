//! Who comes too often? Rates of each account address, by the generic cell rate algorithm, in a bounded table.

use core::{net::IpAddr, time::Duration};
use std::collections::HashMap;

use ahash::RandomState;

use crate::time::Instant;

/// Entries that are looked at to make room for a new one.
const EVICTION_STEPS_MAX: usize = 16;

/// How far a client may be ahead of the rate of its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Requests that may come at once beyond the first.
    pub burst: u32,
    /// What happens to those.
    pub mode: Mode,
}

/// What happens to requests within the burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are served at once.
    NoDelay,
    /// They wait until the rate allows for them.
    Delay,
}

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Admit,
    /// Serve it at this time, and count it as served now.
    Wait(Instant),
    /// Do not serve it: another one is worth trying after so long.
    Refuse(Duration),
}

/// One rate, and how much of it each client has used.
#[derive(Debug)]
pub(crate) struct Zone {
    /// Time from one request to the next in the long run; 2 s are 30 a minute.
    interval: Duration,
    entries_max: usize,
    /// Where the entry of a client is.
    index: HashMap<Account, usize, RandomState>,
    entries: Vec<Entry>,
    /// Where to look next for an entry to give up.
    hand: usize,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// An IPv4 address.
    V4(u32),
    /// An IPv6 network of 64 bits, which is what one customer has at least.
    V6(u64),
    /// A user who has proved to be one, by a hash under a secret.
    User(u64),
}

#[derive(Debug)]
struct Entry {
    account: Account,
    /// When all that was admitted would have come at the plain rate (the "theoretical arrival time").
    due: Instant,
    /// Whether the client came since the hand went by.
    is_recent: bool,
}

impl Zone {
    /// A zone that remembers so many clients, at least one. The memory is taken as they come.
    pub(crate) fn new(interval: Duration, entries_max: usize, hasher: RandomState) -> Self {
        Self {
            interval,
            entries_max: entries_max.max(1),
            index: HashMap::with_hasher(hasher),
            entries: Vec::new(),
            hand: 0,
        }
    }

    /// Counts a request of this client, unless it is refused.
    pub(crate) fn check(&mut self, now: Instant, account: Account, tolerance: Tolerance) -> Verdict {
        let verdict = self.peek(now, account, tolerance);
        if !matches!(verdict, Verdict::Refuse(_)) {
            let interval = self.interval;
            let entry = self.entry(now, account);
            entry.due = entry.due.max(now) + interval;
        }
        verdict
    }

    /// What [`Zone::check`] would say, without counting.
    pub(crate) fn peek(&mut self, now: Instant, account: Account, tolerance: Tolerance) -> Verdict {
        let Some(at) = self.index.get(&account) else {
            return Verdict::Admit;
        };
        let entry = &mut self.entries[*at];
        entry.is_recent = true;
        let ahead = entry.due - now;
        match ahead.checked_sub(self.interval * tolerance.burst) {
            Some(retry_after) if !retry_after.is_zero() => Verdict::Refuse(retry_after),
            _ if ahead.is_zero() || tolerance.mode == Mode::NoDelay => Verdict::Admit,
            _ => Verdict::Wait(entry.due),
        }
    }

    fn entry(&mut self, now: Instant, account: Account) -> &mut Entry {
        let at = match self.index.get(&account) {
            Some(at) => *at,
            None => {
                let entry = Entry {
                    account,
                    due: now,
                    is_recent: true,
                };
                self.insert(now, entry)
            }
        };
        &mut self.entries[at]
    }

    fn insert(&mut self, now: Instant, entry: Entry) -> usize {
        let account = entry.account;
        let at = if self.entries.len() < self.entries_max {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let at = self.victim(now);
            self.index.remove(&self.entries[at].account);
            self.entries[at] = entry;
            at
        };
        self.index.insert(account, at);
        at
    }

    /// The entry to give up: one that says nothing any more, else one whose client has not come for a round of the
    /// hand ("second chance"), else the last one looked at.
    fn victim(&mut self, now: Instant) -> usize {
        let mut at = self.hand;
        for _ in 0..EVICTION_STEPS_MAX {
            at = self.hand;
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &mut self.entries[at];
            if entry.due <= now || !entry.is_recent {
                break;
            }
            entry.is_recent = false;
        }
        at
    }
}

impl Account {
    /// Whoever has this address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A zone of one tolerance.
    struct Limited(Zone, Tolerance);

    impl Limited {
        fn check(&mut self, now: Instant, address: IpAddr) -> Verdict {
            let foreseen = self.0.peek(now, Account::of(address), self.1);
            let verdict = self.0.check(now, Account::of(address), self.1);
            assert_eq!(foreseen, verdict);
            verdict
        }
    }

    fn zone(interval: Duration, burst: u32, mode: Mode) -> Limited {
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        Limited(Zone::new(interval, 4, hasher), Tolerance { burst, mode })
    }

    fn v4(last: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0xc000_0200 + last))
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        // 20 a minute with a burst of 12 admit 13 at once, then one every three seconds.
        let mut zone = zone(3 * SECOND, 12, Mode::NoDelay);
        for _ in 0..13 {
            assert_eq!(zone.check(at(0), v4(1)), Verdict::Admit);
        }
        assert_eq!(zone.check(at(0), v4(1)), Verdict::Refuse(3 * SECOND));
        assert_eq!(zone.check(at(2999), v4(1)), Verdict::Refuse(Duration::from_millis(1)));
        // What was refused has cost nothing.
        assert_eq!(zone.check(at(3000), v4(1)), Verdict::Admit);
        assert_eq!(zone.check(at(3000), v4(1)), Verdict::Refuse(3 * SECOND));
        // Others are not concerned.
        assert_eq!(zone.check(at(3000), v4(2)), Verdict::Admit);
        // After a rest all is forgotten.
        for _ in 0..13 {
            assert_eq!(zone.check(at(100_000), v4(1)), Verdict::Admit);
        }
    }

    #[test]
    fn delayed_requests_leave_at_the_rate() {
        let mut zone = zone(SECOND, 2, Mode::Delay);
        assert_eq!(zone.check(at(0), v4(1)), Verdict::Admit);
        assert_eq!(zone.check(at(500), v4(1)), Verdict::Wait(at(1000)));
        assert_eq!(zone.check(at(500), v4(1)), Verdict::Wait(at(2000)));
        assert_eq!(zone.check(at(500), v4(1)), Verdict::Refuse(Duration::from_millis(500)));
        assert_eq!(zone.check(at(3000), v4(1)), Verdict::Admit);
    }

    #[test]
    fn no_burst_is_one_at_a_time() {
        let mut zone = zone(SECOND, 0, Mode::NoDelay);
        assert_eq!(zone.check(at(0), v4(1)), Verdict::Admit);
        assert_eq!(zone.check(at(999), v4(1)), Verdict::Refuse(Duration::from_millis(1)));
        assert_eq!(zone.check(at(1000), v4(1)), Verdict::Admit);
    }

    #[test]
    fn an_ipv6_customer_is_one_client() {
        let mut zone = zone(SECOND, 0, Mode::NoDelay);
        let v6 = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
        assert_eq!(zone.check(at(0), v6("2001:db8::1")), Verdict::Admit);
        assert_eq!(zone.check(at(0), v6("2001:db8::ffff:0:0:2")), Verdict::Refuse(SECOND));
        assert_eq!(zone.check(at(0), v6("2001:db8:0:1::1")), Verdict::Admit);
        assert_eq!(zone.check(at(0), v6("::ffff:192.0.2.1")), Verdict::Admit);
        assert_eq!(zone.check(at(0), v4(1)), Verdict::Refuse(SECOND));
    }

    #[test]
    fn routes_of_one_zone_share_what_is_left() {
        let mut zone = zone(SECOND, 1, Mode::Delay);
        let assets = Tolerance {
            burst: 3,
            mode: Mode::NoDelay,
        };
        let account = Account::of(v4(1));
        for _ in 0..3 {
            assert_eq!(zone.0.check(at(0), account, assets), Verdict::Admit);
        }
        assert_eq!(zone.check(at(0), v4(1)), Verdict::Refuse(2 * SECOND));
        assert_eq!(zone.0.check(at(0), account, assets), Verdict::Admit);
        assert_eq!(zone.check(at(3000), v4(1)), Verdict::Wait(at(4000)));
        // A user who is known is not the address that others share.
        assert_eq!(zone.0.check(at(3000), Account::User(1), assets), Verdict::Admit);
    }

    #[test]
    fn the_table_keeps_those_who_come_often() {
        let mut zone = zone(SECOND, 5, Mode::NoDelay);
        for round in 0..200 {
            // One account spends its burst and stays; a crowd passes through.
            zone.check(at(0), v4(0));
            zone.check(at(0), v4(1 + round));
            assert!(zone.0.entries.len() <= 4 && zone.0.index.len() == zone.0.entries.len());
        }
        assert_eq!(zone.check(at(0), v4(0)), Verdict::Refuse(SECOND));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            burst in 0_u32..5,
            delays in prop::collection::vec(0_u64..3000, 1..100),
            delay in any::<bool>(),
        ) {
            let mode = if delay { Mode::Delay } else { Mode::NoDelay };
            let mut zone = zone(SECOND, burst, mode);
            let (mut now, mut served) = (0, Vec::new());
            for delay in delays {
                now += delay;
                match zone.check(at(now), v4(1)) {
                    Verdict::Admit => served.push(at(now)),
                    Verdict::Wait(until) => {
                        prop_assert!(until > at(now) && until - at(now) <= SECOND * burst);
                        served.push(until);
                    }
                    Verdict::Refuse(retry_after) => {
                        prop_assert!(!retry_after.is_zero() && retry_after <= SECOND);
                    }
                }
            }
            let at_once = if delay { 1 } else { burst as usize + 1 };
            for (first, start) in served.iter().enumerate() {
                let within = |end: &Instant| *end - *start < SECOND;
                prop_assert!(served[first..].iter().filter(|end| within(end)).count() <= at_once);
            }
        }
    }
}
