//! The TURN server (RFC 8489, RFC 8656, RFC 6062): who is it, may they, and where does the packet go?
//!
//! [`Server`] takes whole messages of clients and datagrams of peers, and answers each with one [`Verdict`]. What it wants
//! done with sockets it says by [`Ask`]. [`Stream`] cuts what clients send by TCP and TLS into such messages.
//!
//! Invariants: nothing is stored about a source before a nonce of ours has come back from it, signed by a user. No packet
//! passes without a live permission, and without the policy having been asked about address and port. What has expired is
//! not used, however late it is swept. What is relayed is never copied, but into a Data indication.

mod auth;
mod connections;
mod discovery;
mod few;
mod five_tuple;
mod forwards;
mod limiter;
mod nonce;
mod peers;
mod policy;
mod ports;
mod rate;
mod reply;
mod request;
mod server;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod ticket;
mod token;
mod verdict;

pub use connections::ConnectionId;
pub use server::{Ask, BIND_TIMEOUT, CONNECT_TIMEOUT, Server};
pub use stream::{FramingError, Stream, Unit, write_to_stream};
pub use table::Client;
pub use verdict::{IpHeader, Payload, To, Verdict};
