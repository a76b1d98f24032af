//! What does the system want of the process? SIGTERM and SIGINT end it in an orderly way, SIGHUP has it read its
//! configuration again, SIGUSR1 open its log anew.

use std::{io, sync::mpsc::SyncSender, thread};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
    iterator::Signals,
};

use crate::serve::Happening;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Stop,
    Reload,
    Reopen,
}

/// Takes the signals over, which from here on no longer kill, and tells of each.
///
/// # Errors
/// When the system refuses that, or a thread.
pub(crate) fn watch(happened: SyncSender<Happening>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    let run = move || {
        for signal in signals.forever() {
            let wish = match signal {
                SIGHUP => Wish::Reload,
                SIGUSR1 => Wish::Reopen,
                _ => Wish::Stop,
            };
            if happened.send(Happening::Wish(wish)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(run)?;
    Ok(())
}
