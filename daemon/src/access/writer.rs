//! Who writes the lines of the access log? A thread that may wait for its disk, or for whoever reads standard output.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use edgeward_core::config::{AccessLog, Config};

/// Batches of lines that may wait. Beyond, they are lost, and counted.
const BATCHES_MAX: usize = 256;

/// The way to the thread.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Order {
    Lines(Vec<u8>),
    /// Write there from now on.
    Open(Option<AccessLog>),
    /// Somebody has moved the file away.
    Reopen,
    /// Nobody writes any more.
    End,
}

impl Writer {
    /// Opens what the configuration names, and starts the thread, which ends with [`Writer::end`].
    ///
    /// # Errors
    /// In words for the administrator.
    pub(crate) fn start(config: &Config) -> Result<(Self, JoinHandle<()>), String> {
        let log = config.access_log.clone();
        let sink = Sink::open(log.as_ref()).map_err(|error| refusal(log.as_ref(), &error))?;
        let (orders, ordered) = sync_channel(BATCHES_MAX);
        let thread = thread::Builder::new()
            .name("access log".into())
            .spawn(|| run(log, sink, ordered));
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        let lost = Arc::default();
        Ok((Self { orders, lost }, thread))
    }

    /// Writes these lines, unless too many wait already.
    pub(crate) fn write(&self, lines: Vec<u8>) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        if self.orders.try_send(Order::Lines(lines)).is_err() {
            self.lost.fetch_add(count, Ordering::Relaxed);
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(
                lost,
                "lines of the access log were lost: it cannot be written fast enough"
            );
        }
    }

    /// The configuration is another one.
    pub(crate) fn configure(&self, config: &Config) {
        self.order(Order::Open(config.access_log.clone()));
    }

    /// Opens the file anew.
    pub(crate) fn reopen(&self) {
        self.order(Order::Reopen);
    }

    /// Ends the thread once all is written that was to be written before.
    pub(crate) fn end(&self, thread: JoinHandle<()>) {
        // Where the thread has ended already there is nothing to wait for.
        let _ = self.orders.send(Order::End);
        let _ = thread.join();
    }

    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::error!("the access log is too slow to be opened anew");
        }
    }
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Nowhere,
    Output,
    File(File),
}

impl Sink {
    fn open(log: Option<&AccessLog>) -> io::Result<Self> {
        match log {
            None => Ok(Self::Nowhere),
            Some(AccessLog { file: None, .. }) => Ok(Self::Output),
            Some(AccessLog { file: Some(file), .. }) => {
                let file = OpenOptions::new().append(true).create(true).open(file)?;
                Ok(Self::File(file))
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Output => {
                let mut output = io::stdout().lock();
                output.write_all(lines)?;
                output.flush()
            }
            Self::File(file) => file.write_all(lines),
        }
    }
}

fn run(mut log: Option<AccessLog>, mut sink: Sink, orders: Receiver<Order>) {
    let mut is_failing = false;
    for order in orders {
        match order {
            Order::Lines(lines) => {
                let result = sink.write(&lines);
                // Told once, not with each line.
                if let Err(error) = &result
                    && !is_failing
                {
                    tracing::error!(%error, "the access log cannot be written");
                }
                is_failing = result.is_err();
                continue;
            }
            Order::Open(next) => log = next,
            Order::Reopen => {}
            Order::End => return,
        }
        match Sink::open(log.as_ref()) {
            Ok(opened) => sink = opened,
            Err(error) => tracing::error!("{}; lines go where they went", refusal(log.as_ref(), &error)),
        }
    }
}

fn refusal(log: Option<&AccessLog>, error: &io::Error) -> String {
    let file = log.and_then(|log| log.file.as_deref()).unwrap_or_default();
    format!("the access log {file} cannot be opened: {error}")
}
