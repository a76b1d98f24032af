//! How do datagrams get from the kernel to a shard and back?
//!
//! One [`Poller`] per shard holds all its UDP sockets: those for TURN clients, the one for SIP, and the relayed
//! transport address of each allocation. It belongs to no runtime: its descriptor nests in another's poll set, and
//! [`Poller::turn`] does the rest. A turn receives runs of datagrams (`UDP_GRO`), shows them to the shard, and sends
//! what the shard answers (`UDP_SEGMENT`). No datagram crosses a task, a channel or a queue on its way.
//!
//! Each shard binds a socket to the same port. [`steer`] has datagrams for SIP arrive where they belong.
//!
//! While datagrams come often, the poller looks for them by the clock instead of being woken for each, which halves
//! what one costs; see [`Options::coalesce`].
//!
//! ```no_run
//! use std::os::fd::AsRawFd;
//!
//! use edgeward_core::action::{Egress, Prefix, SocketId, Source};
//! use edgeward_udp::{Event, Options, Poller, Turn, bind_shared};
//! use mio::{Events, Interest, Poll, Token, unix::SourceFd};
//!
//! /// Sends everything back to where it came from.
//! fn echo(event: Event<'_>, egress: &mut Egress) {
//!     let Event::Datagrams { socket, runs } = event else { return };
//!     for (index, run) in runs.iter().enumerate() {
//!         for range in run.segments() {
//!             egress.push(socket, run.peer, run.local, Prefix::NONE, Source::Run(index as u32, range));
//!         }
//!     }
//! }
//!
//! let mut poller = Poller::new(Options::default())?;
//! poller.add(SocketId::Turn(0), bind_shared("127.0.0.1:7".parse()?)?)?;
//!
//! // The poll set of the runtime, which watches streams as well.
//! let mut runtime = Poll::new()?;
//! let fd = poller.as_raw_fd();
//! runtime.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE)?;
//! let mut events = Events::with_capacity(64);
//! loop {
//!     runtime.poll(&mut events, None)?;
//!     while poller.turn(|_now, event, egress| echo(event, egress))? == Turn::More {
//!         // Here the streams have their turn.
//!     }
//! }
//! # #[expect(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It speaks to Linux directly, and runs nowhere else.

#![deny(unsafe_code)]

mod arena;
mod bind;
mod counters;
mod napper;
mod outbox;
mod pace;
mod poller;
mod socket;
mod steer;
#[expect(unsafe_code, reason = "system calls that no safe wrapper offers")]
mod sys;
mod table;

pub use bind::bind_shared;
pub use counters::Counters;
pub use napper::Napper;
pub use poller::{Event, Options, Poller, Turn};
pub use socket::Buffers;
pub use steer::steer;
