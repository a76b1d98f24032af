//! Codecs: bytes to borrowed values and back, without state.

pub mod channel;
pub mod chunked;
pub mod http1;
pub mod proxy;
pub mod sip;
pub mod stun;
pub mod tls;
pub mod ws;
