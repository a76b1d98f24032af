//! How does a relayed transport address take and make TCP connections? One task a listener, and sockets dialled from its
//! port. (RFC 6062)

use std::{cell::RefCell, io, net::SocketAddr, rc::Weak};

use edgeward_core::action::{BindError, RelayId};
use edgeward_daemon::tcp::{self, accept_failed};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::AbortHandle,
};

use crate::shard::Driver;

/// Listens on a port that nobody else has, and brings everybody who connects to the core.
pub(crate) fn listen(
    driver: Weak<RefCell<Driver>>,
    relay: RelayId,
    at: SocketAddr,
) -> Result<(AbortHandle, SocketAddr), BindError> {
    let listener = TcpListener::from_std(tcp::listen_relay(at)?).map_err(|_| BindError::Failed)?;
    let local = listener.local_addr().map_err(|_| BindError::Failed)?;
    let task = tokio::task::spawn_local(accept(driver, relay, listener));
    Ok((task.abort_handle(), local))
}

/// Connects from an address of ours: the port of a listener, or any port.
pub(crate) async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp::bind_dial(from)?;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

async fn accept(driver: Weak<RefCell<Driver>>, relay: RelayId, listener: TcpListener) {
    loop {
        let accepted = listener.accept().await;
        let Some(driver) = driver.upgrade() else { return };
        match accepted {
            Ok((socket, _)) => driver.borrow_mut().peer_accepted(relay, socket),
            Err(error) => tokio::time::sleep(accept_failed(&error)).await,
        }
    }
}
