//! The TURN server (RFC 8489, RFC 8656): who is it, may they, and where does the packet go?

mod auth;
mod limiter;
mod nonce;
mod peers;
mod policy;
mod ports;
mod reply;
mod request;
mod server;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod verdict;

pub use server::{Ask, Server};
pub use stream::{FramingError, Stream, Unit, write_to_stream};
pub use table::Client;
pub use verdict::{Payload, To, Verdict};
