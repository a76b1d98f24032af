//! Codecs: bytes to borrowed values and back, without state.

pub mod channel;
pub mod chunked;
pub mod http1;
pub mod sip;
pub mod stun;
pub mod ws;
