//! What becomes of the letters for a shard? One task hands them to its driver.

use std::{net::TcpStream, rc::Rc};

use edgeward_core::{
    action::{Conn, Input, ShardId},
    time::Instant,
};
use edgeward_daemon::{Letter, Letters, Mesh};
use tokio::sync::oneshot;

use crate::{executor, ready::Set, shard::SharedDriver};

/// Hands letters to the driver until it is told to drain, then until it is told to close; returns when the drain must be
/// over.
pub(crate) async fn deliver(set: &Rc<Set>, driver: &SharedDriver, letters: &mut Letters) -> Option<Instant> {
    while let Some(letter) = set.hear(|cx| letters.poll_recv(cx)).await {
        match letter {
            Letter::Parcel(parcel) => driver.borrow_mut().handle(Input::Parcel(parcel)),
            Letter::Stream(socket, conn) => match set.watch(mio::net::TcpStream::from_std(socket)) {
                Ok(socket) => driver.borrow_mut().adopt(socket, conn),
                Err(error) => tracing::warn!(%error, "a connection was lost on its way to another shard"),
            },
            Letter::Configure(config, _done) => driver.borrow_mut().configure(config),
            Letter::Snapshot(to) => {
                // Whoever asked may have given up.
                let _ = to.try_send(driver.borrow().snapshot());
            }
            Letter::Drain(within) => {
                let deadline = driver.borrow().clock().now().mono + within;
                driver.borrow_mut().handle(Input::Drain(deadline));
                return Some(deadline);
            }
            Letter::Close => return None,
        }
    }
    None
}

/// Sends a connection as soon as its stream has let go of the descriptor.
pub(crate) fn send_stream(mesh: Mesh, to: ShardId, socket: oneshot::Receiver<TcpStream>, conn: Box<Conn>) {
    let task = executor::spawn(async move {
        // Whatever fails here closes the connection, and the client dials again.
        if let Ok(socket) = socket.await {
            mesh.send_when_room(to, Letter::Stream(socket, conn)).await;
        }
    });
    task.detach();
}
