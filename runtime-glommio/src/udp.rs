//! How do datagrams get to the shard? One task that waits for the poller of all its UDP sockets.

use std::{io, os::fd::AsFd as _};

use edgeward_udp::Turn;
use futures_lite::future::yield_now;

use crate::shard::SharedDriver;

/// Turns the poller whenever one of its sockets has something.
///
/// # Errors
/// When the poller itself fails, which ends the shard.
pub(crate) async fn run(driver: SharedDriver) -> io::Result<()> {
    let set = driver.borrow().set();
    let poller = set.watch(driver.borrow().poller().as_fd().try_clone_to_owned()?)?;
    loop {
        // Before the look, so that what arrives during it wakes us again.
        poller.readable().await;
        loop {
            let turn = driver.borrow_mut().datagrams()?;
            if turn == Turn::Idle {
                break;
            }
            yield_now().await;
        }
    }
}
