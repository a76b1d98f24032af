//! How does a relayed transport address take and make TCP connections? One task a listener, and sockets dialled from its
//! port. (RFC 6062)

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    rc::Weak,
};

use edgeward_core::action::{BindError, RelayId};
use edgeward_daemon::tcp::{self, accept_failed};
use futures_lite::{future::yield_now, io::AsyncWrite as _};
use glommio::{net::TcpStream, task::JoinHandle, timer::sleep};
use rustix::io::Errno;

use crate::{executor, ready, shard::Driver};

/// Listens on a port that nobody else has, and brings everybody who connects to the core.
pub(crate) fn listen(
    driver: Weak<RefCell<Driver>>,
    relay: RelayId,
    at: SocketAddr,
) -> Result<(JoinHandle<()>, SocketAddr), BindError> {
    let listener = tcp::listen_relay(at)?;
    let local = listener.local_addr().map_err(|_| BindError::Failed)?;
    let task = executor::spawn(accept(driver, relay, listener));
    Ok((task.detach(), local))
}

/// Connects from an address of ours: the port of a listener, or any port.
pub(crate) async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp::bind_dial(from)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        _ => {}
    }
    let mut stream = ready::stream(socket.into());
    // Nothing is sent; it can be once the connection is there, or has failed.
    poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &[])).await?;
    Ok(stream)
}

async fn accept(driver: Weak<RefCell<Driver>>, relay: RelayId, listener: TcpListener) {
    loop {
        let accepted = ready::accept(&listener).await;
        let Some(driver) = driver.upgrade() else { return };
        match accepted {
            Ok(socket) => driver.borrow_mut().peer_accepted(relay, socket),
            Err(error) => sleep(accept_failed(&error)).await,
        }
        yield_now().await;
    }
}
