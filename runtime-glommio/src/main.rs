//! The binary `edgeward-glommio`: shards on glommio, an executor on io_uring for each.

use std::{io, net::TcpListener, process::ExitCode};

use edgeward_core::action::ListenerId;
use edgeward_daemon::{CUT_GRACE, Letters, Runtime, Start, tcp::accept_failed};
use futures_lite::future::{or, yield_now};
use glommio::timer::sleep;

use crate::{
    nap::Nap,
    ready::Watched,
    shard::{Driver, SharedDriver},
};

mod dial;
mod executor;
mod mesh;
mod nap;
mod ready;
mod relay;
mod shard;
mod stream;
mod udp;

fn main() -> ExitCode {
    edgeward_daemon::main(&Runtime {
        name: "edgeward-glommio",
        check: executor::check,
        run,
    })
}

/// The thread of one shard: everything that happens on it is a task of one executor.
fn run(start: Start, listeners: Vec<TcpListener>, letters: Letters) -> io::Result<()> {
    executor::run(live(start, listeners, letters))?
}

async fn live(start: Start, listeners: Vec<TcpListener>, mut letters: Letters) -> io::Result<()> {
    let coalesce = start.config.server.coalesce;
    let driver = Driver::start(start)?;
    let set = driver.borrow().set();
    let mut accepting = Vec::new();
    for (number, listener) in (0..).zip(listeners) {
        let listener = set.watch(mio::net::TcpListener::from_std(listener))?;
        accepting.push(executor::spawn(accept(driver.clone(), ListenerId(number), listener)));
    }
    let waiting = executor::spawn(shard::keep_time(driver.clone(), Nap::new(set.clone(), coalesce)?));
    let datagrams = executor::spawn(udp::run(driver.clone()));
    let until_end = async {
        let deadline = mesh::deliver(&set, &driver, &mut letters).await;
        for task in accepting {
            task.cancel().await;
        }
        let Some(deadline) = deadline else { return };
        let alarm = driver.borrow().alarm();
        let ended = async {
            // Letters go on arriving while exchanges end.
            mesh::deliver(&set, &driver, &mut letters).await;
            alarm.quiet().await;
        };
        // The core cuts what is left at the deadline; a moment more for what it then says.
        let cut = driver.borrow().clock().system(deadline) + CUT_GRACE;
        if executor::timeout_at(cut, ended).await.is_none() {
            tracing::info!("some connections did not end in time");
        }
    };
    let ended = or(
        async {
            until_end.await;
            Ok(())
        },
        or(datagrams, waiting),
    )
    .await;
    driver.borrow_mut().flush_log();
    ended
}

async fn accept(driver: SharedDriver, on: ListenerId, listener: Watched<mio::net::TcpListener>) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => driver.borrow_mut().accepted(on, socket, peer),
            Err(error) => sleep(accept_failed(&error)).await,
        }
        yield_now().await;
    }
}
