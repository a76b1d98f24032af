//! The binary `edgeward`: shards on tokio, a runtime of one thread for each.

use std::{io, net::TcpListener, process::ExitCode};

use edgeward_core::action::ListenerId;
use edgeward_daemon::{CUT_GRACE, Letters, Runtime, Start, tcp::accept_failed};
use tokio::runtime::{Builder, LocalOptions};

use crate::shard::{Driver, SharedDriver};

mod dial;
mod linger;
mod mesh;
mod nap;
mod relay;
mod shard;
mod stream;
mod udp;

fn main() -> ExitCode {
    edgeward_daemon::main(&Runtime {
        name: "edgeward",
        check: |_| Ok(()),
        run,
    })
}

/// The thread of one shard: everything that happens on it is a task of one runtime.
fn run(start: Start, listeners: Vec<TcpListener>, letters: Letters) -> io::Result<()> {
    nap::begin(start.config.server.coalesce)?;
    // A `LocalSet` in a runtime would be woken by a system call whenever the runtime wakes one of its tasks.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(nap::nap)
        .on_thread_unpark(nap::wake)
        .build_local(LocalOptions::default())?;
    runtime.block_on(live(start, listeners, letters))
}

async fn live(start: Start, listeners: Vec<TcpListener>, mut letters: Letters) -> io::Result<()> {
    let driver = Driver::start(start)?;
    let mut accepting = Vec::new();
    for (number, listener) in (0..).zip(listeners) {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.push(tokio::task::spawn_local(accept(driver.clone(), ListenerId(number), listener)).abort_handle());
    }
    tokio::task::spawn_local(shard::keep_time(driver.clone()));
    let datagrams = tokio::task::spawn_local(udp::run(driver.clone()));
    let until_end = async {
        let deadline = mesh::deliver(&driver, &mut letters).await;
        for task in accepting {
            task.abort();
        }
        let Some(deadline) = deadline else { return };
        let alarm = driver.borrow().alarm();
        let ended = async {
            // Letters go on arriving while exchanges end.
            mesh::deliver(&driver, &mut letters).await;
            alarm.quiet().await;
        };
        // The core cuts what is left at the deadline; a moment more for what it then says.
        let cut = driver.borrow().clock().system(deadline) + CUT_GRACE;
        if tokio::time::timeout_at(cut.into(), ended).await.is_err() {
            tracing::info!("some connections did not end in time");
        }
    };
    let ended = tokio::select! {
        () = until_end => Ok(()),
        ended = datagrams => ended.unwrap_or_else(|error| Err(io::Error::other(error))),
    };
    driver.borrow_mut().flush_log();
    ended
}

async fn accept(driver: SharedDriver, on: ListenerId, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => driver.borrow_mut().accepted(on, socket, peer),
            Err(error) => tokio::time::sleep(accept_failed(&error)).await,
        }
    }
}
