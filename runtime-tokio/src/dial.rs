//! How are other servers found and reached? One task a question, answered once.

use std::{cell::RefCell, net::SocketAddr, rc::Weak};

use edgeward_core::action::{Addresses, ConnId, Endpoints, Input, IoKind, QueryId, ResolveError};
use tokio::{net::TcpStream, task::AbortHandle};

use crate::{
    relay,
    shard::Driver,
    stream::{End, io_kind},
};

/// Connects, from a relayed transport address where one is given; the core gives up by closing the connection, which
/// aborts the task.
pub(crate) fn connect(
    driver: Weak<RefCell<Driver>>,
    conn: ConnId,
    from: Option<SocketAddr>,
    to: SocketAddr,
) -> AbortHandle {
    let task = tokio::task::spawn_local(async move {
        let (connected, end) = match from {
            Some(from) => (relay::connect(from, to).await, End::Peer),
            None => (TcpStream::connect(to).await, End::Any),
        };
        let result = connected.map_err(|error| io_kind(&error));
        if let Some(driver) = driver.upgrade() {
            driver.borrow_mut().dialed(conn, result, end);
        }
    });
    task.abort_handle()
}

/// Looks a name up with the resolver of the system.
pub(crate) fn resolve(driver: Weak<RefCell<Driver>>, query: QueryId, host: String) {
    tokio::task::spawn_local(async move {
        let addresses = match tokio::net::lookup_host((host.as_str(), 0)).await {
            Ok(found) => found.map(|address| address.ip()).collect(),
            Err(error) => {
                tracing::warn!(host, %error, "a name could not be looked up");
                Vec::new()
            }
        };
        let answer = if addresses.is_empty() {
            Err(ResolveError)
        } else {
            Ok(Addresses { addresses })
        };
        if let Some(driver) = driver.upgrade() {
            driver.borrow_mut().handle(Input::Resolved(query, answer));
        }
    });
}

/// Both ends of a stream.
pub(crate) fn endpoints(socket: &TcpStream) -> Result<Endpoints, IoKind> {
    let ends = socket.local_addr().and_then(|local| {
        Ok(Endpoints {
            local,
            peer: socket.peer_addr()?,
        })
    });
    ends.map_err(|error| io_kind(&error))
}
