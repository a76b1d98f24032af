//! How does the thread of a shard wait? While bytes of streams come often it naps, and finds several at once; while
//! anything comes at times it blocks in the set of its descriptors; when nothing comes, it sleeps on the ring.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use edgeward_udp::Napper;
use futures_lite::future::or;
use glommio::timer::sleep;

use crate::{
    executor::{self, others},
    ready::Set,
};

/// What comes this close behind each other is waited for without the ring: to sleep on it and to be woken takes glommio
/// some ten system calls. It has its turn as often, so that glommio's timers may ring this much late.
const SOON: Duration = Duration::from_millis(100);

thread_local! {
    /// Reads that found something since the thread blocked last.
    static FOUND: Cell<usize> = const { Cell::new(0) };
}

/// A stream had bytes.
pub(crate) fn found() {
    FOUND.set(FOUND.get() + 1);
}

/// How a thread waits, and what for.
#[derive(Debug)]
pub(crate) struct Nap {
    set: Rc<Set>,
    napper: Napper,
    /// Whether something has come since the last wait.
    has_come: bool,
    came: Instant,
    /// When the ring had its turn.
    round: Instant,
}

impl Nap {
    /// A thread that naps for twice as long as datagrams wait: a request costs more wake-ups than a datagram, and its
    /// client, who waits for a page, hears nothing of it.
    pub(crate) fn new(set: Rc<Set>, coalesce: Duration) -> io::Result<Self> {
        Ok(Self {
            set,
            napper: Napper::new(coalesce * 2)?,
            has_come: false,
            came: Instant::now(),
            round: Instant::now(),
        })
    }

    /// Lets others run, and waits when nothing is left to do: `until` then, which is asked when they have run, or until a
    /// descriptor is ready. When it is `called` back from the ring that has changed. It may return too early.
    ///
    /// # Errors
    /// When the set fails.
    pub(crate) async fn wait(
        &mut self,
        until: impl Fn() -> Option<Instant>,
        called: impl Future<Output = ()>,
    ) -> io::Result<()> {
        // Those whom the last look has woken, then those whom they have woken.
        others().await;
        let is_busy = others().await;
        let (now, until) = (Instant::now(), until());
        let is_late = until.is_some_and(|until| until <= now);
        if is_busy || is_late || self.has_come {
            self.came = now;
        }
        let mut patience = Duration::ZERO;
        if now >= self.came + SOON {
            or(or(self.set.stirred(), called), alarm(until)).await;
            self.round = Instant::now();
        } else if now >= self.round + SOON {
            executor::round().await;
            self.round = now;
        } else if !is_busy && !is_late {
            match self.napper.looked(now, FOUND.take()) {
                true => self.napper.nap(now).map(drop)?,
                false => self.napper.blocks()?,
            }
            let until = until.map_or(self.came + SOON, |until| until.min(self.came + SOON));
            patience = until.saturating_duration_since(Instant::now());
        }
        self.has_come = self.set.look(patience)? > 0;
        self.napper.goes_on()
    }
}

/// Rings at that time, if there is one.
async fn alarm(at: Option<Instant>) {
    match at {
        Some(at) => sleep(at.saturating_duration_since(Instant::now())).await,
        None => std::future::pending().await,
    }
}
