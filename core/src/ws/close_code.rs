//! Why does a WebSocket end (RFC 6455 section 7.4, and the registry that section 11.7 opens)?

/// All that was to be said is said.
pub const NORMAL: u16 = 1000;
/// The server stops, or the page is left.
pub const GOING_AWAY: u16 = 1001;
/// The other side broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A kind of data that is not taken here.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// Stands for a Close frame without a code; never on the wire.
pub const NO_STATUS: u16 = 1005;
/// Text that is not UTF-8.
pub const INVALID_PAYLOAD: u16 = 1007;
/// Against the rules of the house.
pub const POLICY_VIOLATION: u16 = 1008;
/// A message larger than is taken.
pub const MESSAGE_TOO_BIG: u16 = 1009;
/// A fault of the server.
pub const INTERNAL_ERROR: u16 = 1011;
/// The server restarts: come back soon.
pub const SERVICE_RESTART: u16 = 1012;
/// The server has too much to do: come back later.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// Whether a Close frame may carry this code.
pub const fn is_sendable(code: u16) -> bool {
    // RFC 6455 section 7.4.2: below 3000 only what is registered, and of that not the codes that stand for a missing
    // frame (1005, 1006, 1015); 3000 to 4999 is for libraries and applications; there is nothing above.
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
