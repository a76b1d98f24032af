//! What does the system want of the process? SIGTERM and SIGINT end it in an orderly way, SIGHUP has it read its
//! configuration again, SIGUSR1 open its log anew.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the process answers to.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Stop,
    Reload,
    Reopen,
}

impl Signals {
    /// Takes the signals over; from here on they no longer kill.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.user.recv() => Wish::Reopen,
        }
    }

    /// Until the process is told to stop.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}
