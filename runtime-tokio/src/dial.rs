//! How are other servers found and reached? One task a question, answered once.

use std::{cell::RefCell, net::SocketAddr, rc::Weak};

use edgeward_core::action::{ConnId, Endpoints, Input, IoKind, QueryId, ResolveError};
use edgeward_daemon::tcp::io_kind;
use tokio::{net::TcpStream, task::AbortHandle};

use crate::{relay, shard::Driver, stream::End};

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

/// Looks a name up with the resolver of the system, which may take its time.
pub(crate) fn resolve(driver: Weak<RefCell<Driver>>, query: QueryId, host: String) {
    tokio::task::spawn_local(async move {
        let found = tokio::task::spawn_blocking(move || edgeward_daemon::resolve(&host)).await;
        if let Some(driver) = driver.upgrade() {
            let answer = found.unwrap_or(Err(ResolveError));
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
