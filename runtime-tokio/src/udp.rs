//! How do datagrams get to the shard? One task that waits for the poller of all its UDP sockets.

use std::os::fd::AsFd as _;

use edgeward_udp::Turn;
use tokio::io::{Interest, unix::AsyncFd};

use crate::shard::SharedDriver;

/// Turns the poller whenever one of its sockets has something.
///
/// # Errors
/// When the poller itself fails, which ends the shard.
pub(crate) async fn run(driver: SharedDriver) -> std::io::Result<()> {
    let descriptor = driver.borrow().poller().as_fd().try_clone_to_owned()?;
    #[expect(
        deprecated,
        reason = "its successor is `unsafe` for descriptors that may change; this one is owned"
    )]
    let readable = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
    loop {
        // Before the look, so that what arrives during it wakes us again.
        readable.readable().await?.clear_ready();
        loop {
            let turn = driver.borrow_mut().datagrams()?;
            if turn == Turn::Idle {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}
