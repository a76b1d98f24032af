//! How do letters get from thread to thread? Bounded channels, one into each shard.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use edgeward_core::{
    action::{Conn, Parcel, ShardId},
    config::SharedConfig,
    stats::Snapshot,
};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use crate::serve::Happening;

/// Letters that may wait for a shard. Beyond, datagrams are lost as a full socket buffer would lose them.
const LETTERS_MAX: usize = 4096;

/// How long to wait for room before another try.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// What one thread sends to another.
#[derive(Debug)]
pub enum Letter {
    /// From core to core.
    Parcel(Parcel),
    /// A connection that moves, with its descriptor.
    Stream(TcpStream, Box<Conn>),
    /// Tell how you are. Whoever asked may have given up: never wait for room.
    Snapshot(SyncSender<Snapshot>),
    /// Go on with this configuration; drop the other when that is done.
    Configure(SharedConfig, SyncSender<()>),
    /// The process is to end within this time; [`Mesh::drained`] says that the core has let go of all.
    Drain(Duration),
    /// All shards have drained: close the sockets and end.
    Close,
}

/// Where a shard gets its letters. It can be awaited on any runtime, and polled with any waker.
pub type Letters = Receiver<Letter>;

/// The way to every shard.
#[derive(Debug, Clone)]
pub struct Mesh {
    shards: Arc<[Sender<Letter>]>,
    process: SyncSender<Happening>,
}

impl Mesh {
    /// A mesh of `shards`, and where each of them gets its letters.
    pub(crate) fn new(shards: u16, process: SyncSender<Happening>) -> (Self, Vec<Letters>) {
        let (shards, letters): (Vec<_>, Vec<_>) = (0..shards).map(|_| channel(LETTERS_MAX)).unzip();
        let shards = shards.into();
        (Self { shards, process }, letters)
    }

    /// Sends a letter, or loses it when the shard has too many.
    pub fn send(&self, to: ShardId, letter: Letter) {
        let Some(sender) = self.shards.get(usize::from(to.0)) else {
            return;
        };
        if sender.try_send(letter).is_err() {
            tracing::warn!(shard = to.0, "a shard is too busy to take a message from another");
        }
    }

    /// Sends a letter as soon as the shard has room for it.
    pub async fn send_when_room(&self, to: ShardId, letter: Letter) {
        if let Some(sender) = self.shards.get(usize::from(to.0)) {
            // A shard that has ended has closed what it had; with the letter goes its connection.
            let _ = sender.send(letter).await;
        }
    }

    /// The core of this shard has let go of everything that a drain waits for. [`Letter::Close`] follows once that is
    /// so on all shards.
    pub fn drained(&self, shard: ShardId) {
        let _ = self.process.send(Happening::Drained(shard));
    }

    /// Gives every shard another configuration, and waits until each has it.
    pub(crate) fn configure(&self, config: &SharedConfig) {
        let (done, all_done) = mpsc::sync_channel(1);
        self.tell(|| Letter::Configure(config.clone(), done.clone()));
        drop(done);
        // Nothing is ever sent: it ends with the last of the senders.
        let _ = all_done.recv();
    }

    /// What is known of all shards together; `None` when one of them does not answer in time.
    pub(crate) fn snapshot(&self, patience: Duration) -> Option<Snapshot> {
        let deadline = Instant::now() + patience;
        let (answer, answers) = mpsc::sync_channel(self.shards.len());
        for shard in &*self.shards {
            let mut letter = Letter::Snapshot(answer.clone());
            while let Err(TrySendError::Full(again)) = shard.try_send(letter) {
                if Instant::now() >= deadline {
                    return None;
                }
                letter = again;
                thread::sleep(ROOM_PAUSE);
            }
        }
        drop(answer);
        let mut all = Snapshot::default();
        loop {
            match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(one) => all.add(&one),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Some(all),
                Err(mpsc::RecvTimeoutError::Timeout) => return None,
            }
        }
    }

    /// Tells every shard to end.
    pub(crate) fn drain(&self, within: Duration) {
        self.tell(|| Letter::Drain(within));
    }

    /// Tells every shard that all have drained.
    pub(crate) fn close(&self) {
        self.tell(|| Letter::Close);
    }

    /// Tells every shard; waits for room, since this must not be lost.
    fn tell(&self, letter: impl Fn() -> Letter) {
        for shard in &*self.shards {
            // A shard that has ended needs no telling.
            let _ = shard.blocking_send(letter());
        }
    }
}
