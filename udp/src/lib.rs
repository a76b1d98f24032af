//! How do datagrams get from the kernel to a shard and back?
//!
//! One [`Poller`] per shard holds all its UDP sockets: those for TURN clients, the one for SIP, and the relayed
//! transport address of each allocation. It belongs to no runtime: its descriptor nests in another's poll set, and
//! [`Poller::turn`] does the rest. A turn receives runs of datagrams (`UDP_GRO`), shows them to the shard, and sends
//! what the shard answers (`UDP_SEGMENT`). No datagram crosses a task, a channel or a queue on its way.
//!
//! While datagrams come often, the poller looks for them by the clock instead of being woken for each, which halves
//! what one costs; see [`Options::coalesce`].

mod arena;
mod bind;
mod counters;
mod outbox;
mod pace;
mod poller;
mod socket;
mod sys;
mod table;

pub use bind::bind_shared;
pub use counters::Counters;
pub use poller::{Event, Options, Poller, Turn};
pub use socket::Buffers;
