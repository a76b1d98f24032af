//! How is a WebSocket served (RFC 6455)? Frames in, messages out, and the answer to the handshake.

pub mod boundary;
pub mod close_code;
pub mod conn;
pub mod handshake;

pub use boundary::Boundary;
pub use conn::{Conn, Item, Kind, Payload, Violation};
