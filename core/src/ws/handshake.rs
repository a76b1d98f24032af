//! How is an upgrade to WebSocket answered (RFC 6455 section 4.2.2)?

use bytes::{BufMut as _, BytesMut};

pub use crate::wire::ws::{accept_key, is_key};

/// Writes the `101` that opens the WebSocket. `key` is the client's `Sec-WebSocket-Key`; `subprotocol` must be one that
/// the client offered.
pub fn accept(key: &[u8], subprotocol: Option<&str>, out: &mut BytesMut) {
    out.put_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    out.put_slice(b"Sec-WebSocket-Accept: ");
    out.put_slice(&accept_key(key));
    if let Some(subprotocol) = subprotocol {
        out.put_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.put_slice(subprotocol.as_bytes());
    }
    out.put_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subprotocol: Option<&str>, expected: &str) {
        let mut out = BytesMut::new();
        accept(b"dGhlIHNhbXBsZSBub25jZQ==", subprotocol, &mut out);
        assert_eq!(str::from_utf8(&out), Ok(expected));
    }

    #[test]
    fn the_answer_of_the_example() {
        // RFC 6455 section 1.2, with the fields that a server must send.
        check(
            None,
            "HTTP/1.1 101 Switching Protocols\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             \r\n",
        );
    }

    #[test]
    fn the_subprotocol_is_named() {
        // RFC 7118 section 4.1.
        check(
            Some("sip"),
            "HTTP/1.1 101 Switching Protocols\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: sip\r\n\
             \r\n",
        );
    }
}
