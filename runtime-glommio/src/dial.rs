//! How are other servers found and reached? One task a question, answered once.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
};

use edgeward_core::action::{ConnId, Endpoints, Input, IoKind, QueryId, ResolveError};
use edgeward_daemon::tcp::io_kind;
use futures_lite::future::or;
use glommio::task::JoinHandle;
use mio::net::TcpStream;
use tokio::sync::oneshot;

use crate::{
    executor,
    ready::{Set, Watched},
    relay,
    shard::Driver,
    stream::End,
};

/// Connects, from a relayed transport address where one is given; the core gives up by closing the connection, which
/// cancels the task.
pub(crate) fn connect(
    set: Rc<Set>,
    driver: Weak<RefCell<Driver>>,
    conn: ConnId,
    from: Option<SocketAddr>,
    to: SocketAddr,
) -> JoinHandle<()> {
    let task = executor::spawn(async move {
        let (connected, end) = match from {
            Some(from) => (relay::connect(&set, from, to).await, End::Peer),
            None => (connect_from_any(&set, to).await, End::Any),
        };
        let result = connected.map_err(|error| io_kind(&error));
        if let Some(driver) = driver.upgrade() {
            driver.borrow_mut().dialed(conn, result, end);
        }
    });
    task.detach()
}

async fn connect_from_any(set: &Rc<Set>, to: SocketAddr) -> io::Result<Watched<TcpStream>> {
    set.connected(TcpStream::connect(to)?).await
}

/// Looks a name up with the resolver of the system, which may take its time.
pub(crate) fn resolve(set: Rc<Set>, driver: Weak<RefCell<Driver>>, query: QueryId, host: String) {
    let task = executor::spawn(async move {
        let (answer, mut answered) = oneshot::channel();
        // The task waits for its answer until it has one.
        let ask = move || drop(answer.send(edgeward_daemon::resolve(&host)));
        let asking = async {
            glommio::executor().spawn_blocking(ask).await;
            std::future::pending().await
        };
        // The executor itself would look for answers when the ring has its turn.
        let found = or(asking, set.hear(|cx| Pin::new(&mut answered).poll(cx))).await;
        if let Some(driver) = driver.upgrade() {
            let answer = found.unwrap_or(Err(ResolveError));
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
    ends.map_err(|error| io_kind(&error))
}
