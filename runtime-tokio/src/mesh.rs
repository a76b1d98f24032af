//! How do parcels get from shard to shard? Bounded channels, one into each shard.

use edgeward_core::{
    action::{Conn, Input, Parcel, ShardId},
    time::Instant,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use crate::shard::SharedDriver;

/// Letters that may wait for a shard. Beyond, datagrams are lost as a full socket buffer would lose them.
const LETTERS_MAX: usize = 4096;

/// What one thread sends to another.
#[derive(Debug)]
pub(crate) enum Letter {
    /// From core to core.
    Parcel(Parcel),
    /// A connection that moves, with its descriptor.
    Stream(std::net::TcpStream, Box<Conn>),
    /// The process is to end by then, in its own time.
    Drain(std::time::Duration),
}

/// The way to every shard.
#[derive(Debug, Clone)]
pub(crate) struct Mesh(Vec<mpsc::Sender<Letter>>);

impl Mesh {
    /// A mesh of `shards`, and where each of them gets its letters.
    pub(crate) fn new(shards: u16) -> (Self, Vec<mpsc::Receiver<Letter>>) {
        let (senders, receivers) = (0..shards).map(|_| mpsc::channel(LETTERS_MAX)).unzip();
        (Self(senders), receivers)
    }

    /// Sends a letter, or loses it when the shard has too many.
    pub(crate) fn send(&self, to: ShardId, letter: Letter) {
        let Some(sender) = self.0.get(usize::from(to.0)) else {
            return;
        };
        if sender.try_send(letter).is_err() {
            tracing::warn!(shard = to.0, "a shard is too busy to take a message from another");
        }
    }

    /// Sends a connection as soon as its stream has let go of the descriptor.
    pub(crate) fn send_stream(&self, to: ShardId, socket: oneshot::Receiver<TcpStream>, conn: Box<Conn>) {
        let Some(sender) = self.0.get(usize::from(to.0)).cloned() else {
            return;
        };
        tokio::task::spawn_local(async move {
            // Whatever fails here closes the connection, and the client dials again.
            if let Ok(socket) = socket.await
                && let Ok(socket) = socket.into_std()
            {
                let _ = sender.send(Letter::Stream(socket, conn)).await;
            }
        });
    }

    /// Tells every shard; waits for room, since this must not be lost.
    pub(crate) async fn drain(&self, within: std::time::Duration) {
        for sender in &self.0 {
            // A shard that has ended needs no telling.
            let _ = sender.send(Letter::Drain(within)).await;
        }
    }
}

/// Hands the letters of a shard to its driver until it is told to drain; returns when that must be over.
pub(crate) async fn deliver(driver: &SharedDriver, letters: &mut mpsc::Receiver<Letter>) -> Option<Instant> {
    while let Some(letter) = letters.recv().await {
        match letter {
            Letter::Parcel(parcel) => driver.borrow_mut().handle(Input::Parcel(parcel)),
            Letter::Stream(socket, conn) => match TcpStream::from_std(socket) {
                Ok(socket) => driver.borrow_mut().adopt(socket, conn),
                Err(error) => tracing::warn!(%error, "a connection was lost on its way to another shard"),
            },
            Letter::Drain(within) => {
                let deadline = driver.borrow().clock().now().mono + within;
                driver.borrow_mut().handle(Input::Drain(deadline));
                return Some(deadline);
            }
        }
    }
    None
}
