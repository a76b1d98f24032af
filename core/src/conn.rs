//! One TCP connection as a value.

/// One TCP connection.
#[derive(Debug)]
pub struct Conn {}
