//! May this browser ask again already? Token buckets by kind of request.

use super::transaction::Method;
use crate::time::Instant;

/// Buckets of one flow. Far above what a phone does, far below what hurts a mediaserver.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Buckets {
    register: Bucket,
    invite: Bucket,
    other: Bucket,
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
}

/// One bucket as a single point in time: when it would be full again (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let cost = core::time::Duration::from_secs(1) / rate.per_second;
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

#[cfg(test)]
mod tests {
    use core::time::Duration;

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
}
