//! What does a process around the shards do on any runtime?
//!
//! [`main`] reads the arguments and the configuration, binds every socket, starts a thread for each shard, answers
//! signals and questions about its numbers, and ends in an orderly way. A binary adds its name and how one shard is run:
//!
//! ```no_run
//! use std::{io, net::TcpListener};
//!
//! use edgeward_daemon::{Letters, Runtime, Shard, Start, main};
//!
//! /// Drives a shard with its sockets until it is told to end.
//! fn run(start: Start, listeners: Vec<TcpListener>, letters: Letters) -> io::Result<()> {
//!     let Start { config, id, shards, seed, recorder, clock, sockets, mesh, access } = start;
//!     let shard = Shard::new(config, id, shards, seed, recorder, clock.now());
//!     # let _ = (listeners, letters, sockets, mesh, access, shard);
//!     // Accept, read, write, turn the poller, keep time and hand letters over, until `Letter::Close`.
//!     Ok(())
//! }
//!
//! let code = main(&Runtime { name: "edgeward", check: |_shards| Ok(()), run });
//! ```

pub mod access;
#[cfg(feature = "acme")]
mod acme;
mod bind;
mod certificates;
mod cli;
mod clock;
#[cfg(feature = "demo")]
mod demo;
mod log;
mod mesh;
mod metrics;
mod names;
mod notify;
mod process;
mod record;
mod reload;
mod replay;
mod serve;
mod shard;
mod signal;
mod snapshot;
pub mod tcp;

pub use clock::Clock;
pub use mesh::{Letter, Letters, Mesh};
pub use names::resolve;
pub use process::{Runtime, main};
pub use record::Recorder;
pub use serve::{CUT_GRACE, Start};
pub use shard::Shard;
pub use snapshot::snapshot;
