//! How is a WebSocket served (RFC 6455)? Frames in, messages out; and where a frame of somebody else's ends.

pub mod boundary;
pub mod close_code;
pub mod conn;

pub use boundary::Boundary;
pub use conn::{Conn, Item, Kind, Payload, Violation};
