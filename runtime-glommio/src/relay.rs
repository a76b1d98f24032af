//! How does a relayed transport address take and make TCP connections? One task a listener, and sockets dialled from its
//! port. (RFC 6062)

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
};

use edgeward_core::action::{BindError, RelayId};
use edgeward_daemon::tcp::{self, accept_failed};
use futures_lite::future::yield_now;
use glommio::{task::JoinHandle, timer::sleep};
use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;

use crate::{
    executor,
    ready::{Set, Watched},
    shard::Driver,
};

/// Listens on a port that nobody else has, and brings everybody who connects to the core.
pub(crate) fn listen(
    set: &Rc<Set>,
    driver: Weak<RefCell<Driver>>,
    relay: RelayId,
    at: SocketAddr,
) -> Result<(JoinHandle<()>, SocketAddr), BindError> {
    let listener = TcpListener::from_std(tcp::listen_relay(at)?);
    let local = listener.local_addr().map_err(|_| BindError::Failed)?;
    let listener = set.watch(listener).map_err(|_| BindError::Failed)?;
    let task = executor::spawn(accept(driver, relay, listener));
    Ok((task.detach(), local))
}

/// Connects from an address of ours: the port of a listener, or any port.
pub(crate) async fn connect(set: &Rc<Set>, from: SocketAddr, to: SocketAddr) -> io::Result<Watched<TcpStream>> {
    let socket = tcp::bind_dial(from)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        _ => {}
    }
    set.connected(TcpStream::from_std(socket.into())).await
}

async fn accept(driver: Weak<RefCell<Driver>>, relay: RelayId, listener: Watched<TcpListener>) {
    loop {
        let accepted = listener.accept().await;
        let Some(driver) = driver.upgrade() else { return };
        match accepted {
            Ok((socket, _)) => driver.borrow_mut().peer_accepted(relay, socket),
            Err(error) => sleep(accept_failed(&error)).await,
        }
        yield_now().await;
    }
}
