//! How are other servers found and reached? One task a question, answered once.

use std::{cell::RefCell, net::SocketAddr, rc::Weak};

use edgeward_core::action::{ConnId, Endpoints, Input, IoKind, QueryId};
use edgeward_daemon::tcp::io_kind;
use glommio::{GlommioError, net::TcpStream, task::JoinHandle};

use crate::{executor, relay, shard::Driver, stream::End};

/// Connects, from a relayed transport address where one is given; the core gives up by closing the connection, which
/// cancels the task.
pub(crate) fn connect(
    driver: Weak<RefCell<Driver>>,
    conn: ConnId,
    from: Option<SocketAddr>,
    to: SocketAddr,
) -> JoinHandle<()> {
    let task = executor::spawn(async move {
        let (connected, end) = match from {
            Some(from) => (relay::connect(from, to).await, End::Peer),
            None => (TcpStream::connect(to).await.map_err(Into::into), End::Any),
        };
        let result = connected.map_err(|error| io_kind(&error));
        if let Some(driver) = driver.upgrade() {
            driver.borrow_mut().dialed(conn, result, end);
        }
    });
    task.detach()
}

/// Looks a name up with the resolver of the system, which may take its time.
pub(crate) fn resolve(driver: Weak<RefCell<Driver>>, query: QueryId, host: String) {
    let task = executor::spawn(async move {
        let answer = glommio::executor()
            .spawn_blocking(move || edgeward_daemon::resolve(&host))
            .await;
        if let Some(driver) = driver.upgrade() {
            driver.borrow_mut().handle(Input::Resolved(query, answer));
        }
    });
    task.detach();
}

/// Both ends of a stream.
pub(crate) fn endpoints(socket: &TcpStream) -> Result<Endpoints, IoKind> {
    let ends = socket.local_addr().and_then(|local| {
        Ok(Endpoints {
            local,
            peer: socket.peer_addr()?,
        })
    });
    ends.map_err(|error: GlommioError<()>| io_kind(&error.into()))
}
