//! How does a recording get to the disk? By a thread of its own, so that no shard ever waits for it.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    thread,
};

use super::entry::{End, Entry, title};

/// Bytes that may wait for the disk.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    entries: Sender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

/// Nothing is recorded any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended;

impl Writer {
    /// Makes a file that only its owner may read, and starts the thread.
    ///
    /// # Errors
    /// When the file is there already or cannot be made, or no thread is to be had.
    pub(super) fn start(path: &Path, bytes_max: u64) -> io::Result<(Self, thread::JoinHandle<()>)> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let (entries, received) = mpsc::channel();
        let waiting = Arc::<AtomicUsize>::default();
        let (shown, counted) = (path.display().to_string(), waiting.clone());
        let write = move || match write(file, &received, &counted, bytes_max) {
            Ok(End::Stopped) => {}
            Ok(End::Full) => tracing::warn!(
                file = shown,
                bytes_max,
                "the recording is full; nothing more is recorded"
            ),
            Ok(End::Slow) => tracing::warn!(file = shown, "the disk is too slow; nothing more is recorded"),
            Err(error) => tracing::error!(file = shown, %error, "the recording cannot be written; nothing more is"),
        };
        let thread = thread::Builder::new().name("record".into()).spawn(write)?;
        Ok((Self { entries, waiting }, thread))
    }

    /// Has an entry written.
    ///
    /// # Errors
    /// When nothing is recorded any more.
    pub(super) fn send(&self, entry: &Entry) -> Result<(), Ended> {
        let is_slow = self.waiting.load(Ordering::Relaxed) > WAITING_BYTES_MAX;
        let bytes = if is_slow {
            Entry::End(End::Slow).encode()
        } else {
            entry.encode()
        };
        self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        let sent = self.entries.send(bytes).map_err(|_| Ended);
        if is_slow { Err(Ended) } else { sent }
    }
}

/// Writes entries until the last one, or as long as there is room; whoever sends more finds nobody then.
fn write(file: File, entries: &Receiver<Vec<u8>>, waiting: &AtomicUsize, bytes_max: u64) -> io::Result<End> {
    let mut file = BufWriter::new(file);
    let mut written = title().len() as u64;
    file.write_all(title().as_bytes())?;
    let [stopped, full, slow] = [End::Stopped, End::Full, End::Slow].map(|end| Entry::End(end).encode());
    loop {
        let bytes = match entries.try_recv() {
            Ok(bytes) => bytes,
            Err(TryRecvError::Empty) => {
                // Whoever looks at the file meanwhile sees all that has happened.
                file.flush()?;
                match entries.recv() {
                    Ok(bytes) => bytes,
                    Err(mpsc::RecvError) => return Ok(End::Stopped),
                }
            }
            Err(TryRecvError::Disconnected) => return Ok(End::Stopped),
        };
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        let end = match bytes {
            _ if bytes == stopped => Some(End::Stopped),
            _ if bytes == slow => Some(End::Slow),
            _ if written + (bytes.len() + full.len()) as u64 > bytes_max => Some(End::Full),
            _ => None,
        };
        match end {
            None => {
                file.write_all(&bytes)?;
                written += bytes.len() as u64;
            }
            Some(end) => {
                file.write_all(if end == End::Full { &full } else { &bytes })?;
                file.flush()?;
                return Ok(end);
            }
        }
    }
}
