//! How does the thread of a shard wait for streams? While their bytes come often it does not block for each: it naps,
//! and finds several at once.

use std::{
    cell::{Cell, RefCell},
    io,
    time::{Duration, Instant},
};

use edgeward_udp::Napper;

thread_local! {
    /// What tokio calls before a thread blocks can hold nothing of that thread.
    static NAPPER: RefCell<Option<Napper>> = const { RefCell::new(None) };
    /// Reads that found something since the thread blocked last.
    static FOUND: Cell<usize> = const { Cell::new(0) };
}

/// This thread naps from now on, for twice as long as datagrams wait: a request costs more wake-ups than a datagram, and
/// its client, who waits for a page, hears nothing of it.
pub(crate) fn begin(coalesce: Duration) -> io::Result<()> {
    NAPPER.set(Some(Napper::new(coalesce * 2)?));
    Ok(())
}

/// A stream had bytes.
pub(crate) fn found() {
    FOUND.set(FOUND.get() + 1);
}

/// Nothing is left to do. What happens during the nap is found right after it.
pub(crate) fn nap() {
    let now = Instant::now();
    let found = FOUND.take();
    NAPPER.with_borrow_mut(|napper| {
        if let Some(napper) = napper {
            // Who cannot nap blocks, and who cannot measure does without.
            let _ = match napper.looked(now, found) {
                true => napper.nap(now).map(drop),
                false => napper.blocks(),
            };
        }
    });
}

/// Something has happened.
pub(crate) fn wake() {
    NAPPER.with_borrow_mut(|napper| {
        if let Some(napper) = napper {
            let _ = napper.goes_on();
        }
    });
}
