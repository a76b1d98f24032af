//! Does a server behind us work? What its answers and its silence tell.

use core::time::Duration;

use crate::time::Instant;

/// What is known of one server.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Calls that failed, one after the other.
    failed_calls: u32,
    /// After so many of them it is left alone until then.
    rests_until: Option<Instant>,
    /// Checks that went the other way than the state says, one after the other.
    dissenting_checks: u32,
    is_down: bool,
}

/// How much a server is trusted; in the order in which servers are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It works, as far as is known.
    Up,
    /// Calls to it have failed: it is called where nobody else is left.
    Doubtful,
    /// Its checks fail: it is not called.
    Down,
}

impl Health {
    /// How much the server is trusted.
    pub fn standing(&self, now: Instant) -> Standing {
        match self.rests_until {
            _ if self.is_down => Standing::Down,
            Some(until) if until > now => Standing::Doubtful,
            _ => Standing::Up,
        }
    }

    /// Whether its last calls or checks have failed.
    pub fn is_failing(&self) -> bool {
        self.is_down || self.rests_until.is_some()
    }

    /// A call was taken.
    pub fn call_taken(&mut self) {
        self.failed_calls = 0;
        self.rests_until = None;
    }

    /// A call was not taken; after `max` in a row the server is left alone for `rest`. Returns whether this is news.
    pub fn call_failed(&mut self, now: Instant, max: u32, rest: Duration) -> bool {
        self.failed_calls = self.failed_calls.saturating_add(1);
        if self.failed_calls < max {
            return false;
        }
        let is_news = self.rests_until.is_none();
        self.rests_until = Some(now + rest);
        is_news
    }

    /// A check has ended well or not: it takes `rise` good ones in a row to come up, and `fall` bad ones to go down.
    /// Returns whether this is news.
    pub fn checked(&mut self, is_good: bool, rise: u32, fall: u32) -> bool {
        if is_good {
            self.call_taken();
        }
        if is_good != self.is_down {
            self.dissenting_checks = 0;
            return false;
        }
        self.dissenting_checks += 1;
        let needed = if self.is_down { rise } else { fall };
        if self.dissenting_checks < needed {
            return false;
        }
        self.dissenting_checks = 0;
        self.is_down = !self.is_down;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_that_fail_make_it_rest() {
        let (mut health, now) = (Health::default(), Instant::ZERO);
        assert!(!health.call_failed(now, 2, SECOND));
        health.call_taken();
        assert!(!health.call_failed(now, 2, SECOND));
        assert_eq!(health.standing(now), Standing::Up);
        assert!(health.call_failed(now, 2, SECOND));
        assert!(!health.call_failed(now, 2, SECOND));
        assert_eq!(health.standing(now), Standing::Doubtful);
        assert_eq!(health.standing(now + SECOND), Standing::Up);
        assert!(health.is_failing(), "nobody has called it since");
        // One more failure after the rest is enough.
        assert!(!health.call_failed(now + SECOND, 2, SECOND));
        assert_eq!(health.standing(now + SECOND), Standing::Doubtful);
        health.call_taken();
        assert_eq!(health.standing(now + SECOND), Standing::Up);
        assert!(!health.is_failing());
    }

    #[test]
    fn checks_take_it_down_and_up_again() {
        let mut health = Health::default();
        let mut check = |good: &str| -> String {
            let state = |health: &Health| {
                if health.standing(Instant::ZERO) == Standing::Down {
                    '-'
                } else {
                    '+'
                }
            };
            let step = |good| {
                health.checked(good == '+', 2, 3);
                state(&health)
            };
            good.chars().map(step).collect()
        };
        assert_eq!(check("--+---"), "+++++-");
        assert_eq!(check("+-+-++-"), "-----++");
    }
}
