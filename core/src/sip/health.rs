//! Does this address of a mediaserver live? What questions, answers and errors say about it.

use core::time::Duration;

use crate::{config, stats::Liveness, time::Instant};

/// What is known of the health of an address. One that nothing is known of gets requests, but is not called alive.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Whether it has ever answered a question: one that never does may be silent by its own policy.
    answers: bool,
    is_down: bool,
    /// The last question, while it has no answer.
    question: Option<u32>,
    /// Whether nothing has come since the last question.
    is_silent: bool,
    /// Questions in a row that nothing followed.
    failures: u32,
    /// While it is down, questions in a row that something followed.
    successes: u32,
    /// Whether the network says that nobody is there, and nothing has come since.
    is_refused: bool,
    /// Until when another address is better.
    avoided_until: Option<Instant>,
    /// Until when it wants to be left alone.
    busy_until: Option<Instant>,
    heard_at: Option<Instant>,
}

impl Health {
    /// Whether new requests should go there.
    pub(super) fn is_up(&self, now: Instant) -> bool {
        self.has_dialogs(now) && self.busy_until.is_none_or(|until| until <= now)
    }

    /// Whether requests within the dialogs that it has should go there.
    pub(super) fn has_dialogs(&self, now: Instant) -> bool {
        !self.is_down && self.avoided_until.is_none_or(|until| until <= now)
    }

    /// Whether it has been found dead. One that is only avoided is better than none.
    pub(super) const fn is_down(&self) -> bool {
        self.is_down
    }

    /// What can be said of it to people.
    pub(super) const fn liveness(&self) -> Liveness {
        match (self.is_down, self.heard_at) {
            (true, _) => Liveness::Down,
            (false, Some(_)) => Liveness::Up,
            (false, None) => Liveness::Unknown,
        }
    }

    /// Whether so many questions as count for a failure have just been in vain, and nothing has come from there ever.
    pub(super) fn is_missed(&self, limits: &config::Health) -> bool {
        self.liveness() == Liveness::Unknown && self.failures == limits.failures
    }

    /// Whether it has ever answered a question.
    pub(super) const fn answers(&self) -> bool {
        self.answers
    }

    /// Whether something has come from there after `then`, and not so long ago that it means nothing.
    pub(super) fn has_spoken_since(&self, then: Instant, now: Instant, limits: &config::Health) -> bool {
        let recent = limits.interval + limits.failover;
        self.heard_at.is_some_and(|at| at > then && at + recent > now)
    }

    /// A question goes out. Without anything since the last one, that has failed; this counts where answers are to be
    /// expected: from one that has answered before, whose neighbours answer, or where nobody is.
    pub(super) fn ask(&mut self, question: u32, neighbours_answer: bool, limits: &config::Health) {
        if self.is_silent {
            self.failures = self.failures.saturating_add(1);
            self.successes = 0;
            let is_expected = self.answers || neighbours_answer || self.is_refused;
            self.is_down |= is_expected && self.failures >= limits.failures;
        }
        self.question = Some(question);
        self.is_silent = true;
    }

    /// The answer to a question. 408 and 503 are what others say in its place, or what it says when it can do nothing.
    pub(super) fn answered(&mut self, now: Instant, question: u32, status: u16, limits: &config::Health) {
        if self.question == Some(question) && !matches!(status, 408 | 503) {
            self.question = None;
            self.answers = true;
            self.heard(now, limits);
        }
    }

    /// Something came from there.
    pub(super) fn heard(&mut self, now: Instant, limits: &config::Health) {
        let is_first = core::mem::replace(&mut self.is_silent, false);
        if self.is_down && is_first {
            self.successes += 1;
            self.is_down = self.successes < limits.successes;
        }
        self.failures = 0;
        self.is_refused = false;
        self.avoided_until = None;
        self.heard_at = Some(now);
    }

    /// The network says that nobody is there.
    pub(super) fn refused(&mut self, now: Instant, limits: &config::Health) {
        self.is_refused = true;
        self.avoid(now, limits.interval * AVOIDED_INTERVALS);
    }

    /// It has said 503 and when to try again. Until then only dialogs go on there, and what no other address would take:
    /// one user's 503 must not shut out the others.
    pub(super) fn busy(&mut self, now: Instant, retry_after: Duration) {
        self.busy_until = Some(now + retry_after.min(RETRY_AFTER_MAX));
    }

    /// A request was not answered: others go elsewhere for a while, if they can.
    pub(super) fn avoid(&mut self, now: Instant, duration: Duration) {
        self.avoided_until = self.avoided_until.max(Some(now + duration));
    }
}

/// For so many questions, one address is avoided: the next one shows whether it lives.
pub(super) const AVOIDED_INTERVALS: u32 = 2;
/// Nobody is left alone for longer, whatever he says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens in each interval: `.` nothing, `a` an answer, `s` something else, `5` a 503, `x` an error of the
    /// network. Returns for each of them, at its end, `+` for up, `o` for avoided and `-` for down.
    fn course(limits: &config::Health, neighbours_answer: bool, events: &str) -> String {
        let mut health = Health::default();
        let mut now = Instant::from_nanos(1);
        (1..)
            .zip(events.chars())
            .map(|(question, event)| {
                health.ask(question, neighbours_answer, limits);
                now += limits.interval / 2;
                match event {
                    'a' => health.answered(now, question, 200, limits),
                    '5' => health.answered(now, question, 503, limits),
                    's' => health.heard(now, limits),
                    'x' => health.refused(now, limits),
                    _ => {}
                }
                now += limits.interval / 2;
                match (health.is_down(), health.is_up(now)) {
                    (true, _) => '-',
                    (false, true) => '+',
                    (false, false) => 'o',
                }
            })
            .collect()
    }

    #[test]
    fn thresholds() {
        let check = |(failures, successes), neighbours_answer, events: &str, expected: &str| {
            let limits = config::Health {
                failures,
                successes,
                ..config::Health::default()
            };
            assert_eq!(course(&limits, neighbours_answer, events), expected, "{events}");
        };
        check((3, 1), false, "a....a", "++++-+");
        check((3, 1), false, "a..s..a", "+++++++");
        check((3, 1), false, "a5555s", "++++-+");
        check((2, 3), false, "a...aa.aaa", "+++------+");
        // One that never answers is not down for that, unless its neighbours do, or the network says so.
        check((3, 1), false, "s......", "+++++++");
        check((3, 1), true, "....a", "+++-+");
        check((3, 1), false, "xxxxs", "ooo-+");
        check((3, 1), false, "x...", "oo+-");
    }
}
