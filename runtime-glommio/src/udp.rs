//! How do datagrams get to the shard? One task that waits for the poller of all its UDP sockets.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use edgeward_udp::Turn;
use futures_lite::future::yield_now;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{ready, shard::SharedDriver};

/// Datagrams that come this close behind each other are waited for without the ring: to sleep on it and be woken takes
/// glommio some ten system calls. Streams wait meanwhile, so it is no longer than they hardly notice.
const SOON: Duration = Duration::from_micros(500);

/// Turns the poller whenever one of its sockets has something.
///
/// # Errors
/// When the poller itself fails, which ends the shard.
pub(crate) async fn run(driver: SharedDriver) -> io::Result<()> {
    let descriptor = driver.borrow().poller().as_fd().try_clone_to_owned()?;
    let mut looked = Instant::now();
    loop {
        ready::readable(&descriptor).await;
        let mut is_soon = looked.elapsed() < SOON;
        loop {
            let turn = driver.borrow_mut().datagrams()?;
            looked = Instant::now();
            // Others have their chance before we wait for more.
            yield_now().await;
            if turn == Turn::Idle {
                is_soon = is_soon && wait(&descriptor, looked + SOON)?;
                if !is_soon {
                    break;
                }
            }
        }
    }
}

/// Blocks until there is something to do, but no longer than until then; returns whether there is.
fn wait(descriptor: &OwnedFd, until: Instant) -> io::Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(false);
    }
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&left)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
