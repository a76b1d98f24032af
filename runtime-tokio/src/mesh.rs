//! How do parcels get from shard to shard? Bounded channels, one into each shard.

use std::time::Duration;

use edgeward_core::{
    action::{Conn, Input, Parcel, ShardId},
    config::SharedConfig,
    stats::Snapshot,
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
    /// Tell how you are.
    Snapshot(mpsc::Sender<Snapshot>),
    /// Go on with this configuration; drop the other when that is done.
    Configure(SharedConfig, mpsc::Sender<()>),
    /// The process is to end by then, in its own time.
    Drain(Duration),
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

    /// Gives every shard another configuration, and waits until each has it.
    pub(crate) async fn configure(&self, config: &SharedConfig) {
        let (done, mut all_done) = mpsc::channel(1);
        self.tell(|| Letter::Configure(config.clone(), done.clone())).await;
        drop(done);
        // Nothing is ever sent: it ends with the last of the senders.
        let _ = all_done.recv().await;
    }

    /// What is known of all shards together; `None` when one of them does not answer in time.
    pub(crate) async fn snapshot(&self, patience: Duration) -> Option<Snapshot> {
        let (answer, mut answers) = mpsc::channel(self.0.len());
        let ask = async {
            self.tell(|| Letter::Snapshot(answer.clone())).await;
            drop(answer);
            let mut all = Snapshot::default();
            while let Some(one) = answers.recv().await {
                all.add(&one);
            }
            all
        };
        tokio::time::timeout(patience, ask).await.ok()
    }

    /// Tells every shard to end.
    pub(crate) async fn drain(&self, within: Duration) {
        self.tell(|| Letter::Drain(within)).await;
    }

    /// Tells every shard; waits for room, since this must not be lost.
    async fn tell(&self, letter: impl Fn() -> Letter) {
        for sender in &self.0 {
            // A shard that has ended needs no telling.
            let _ = sender.send(letter()).await;
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
        }
    }
    None
}
