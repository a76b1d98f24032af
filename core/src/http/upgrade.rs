//! Does this request open a WebSocket? The client's half of the opening handshake, and the proof that the server's half
//! belongs to it (RFC 6455 section 4.2).

use core::str;

use super::{
    body::BodyLength,
    fields::list,
    request::{Method, Request},
};
use crate::wire::{
    http1::{Name, Version},
    ws::{ACCEPT_BYTES, accept_key, is_key},
};

/// The value of Sec-WebSocket-Accept that belongs to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept([u8; ACCEPT_BYTES]);

/// A valid opening handshake of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handshake<'b> {
    /// What the server must answer.
    pub(super) accept: Accept,
    /// Who opened the page that asks, when a browser asks.
    pub(super) origin: Option<&'b [u8]>,
}

/// Why a request that wants a WebSocket does not get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeError {
    /// It does not follow RFC 6455 section 4.2.1: 400.
    Malformed,
    /// It is for another version of the protocol: 426.
    Version,
}

/// Reads the handshake. `None` when the request does not ask for a WebSocket.
///
/// # Errors
/// When it asks for one, but not in the way it must.
// RFC 6455 section 4.2.1, and stricter: a handshake has no body, and every field is there once.
pub(super) fn websocket<'b>(request: &Request<'b>) -> Result<Option<Handshake<'b>>, HandshakeError> {
    // RFC 9110 section 7.8: Upgrade in HTTP/1.0 must be ignored.
    if request.version == Version::Http10 || !asks_websocket(request) {
        return Ok(None);
    }
    let fields = &request.fields;
    if request.method != Method::Get
        || request.body != BodyLength::Empty
        || !request.connection.upgrade
        || fields.all(Name::Upgrade).count() != 1
        || fields.all(Name::Origin).count() > 1
    {
        return Err(HandshakeError::Malformed);
    }
    let version = fields
        .only(Name::SecWebSocketVersion)
        .ok_or(HandshakeError::Malformed)?;
    if version != b"13" {
        return Err(HandshakeError::Version);
    }
    let key = fields.only(Name::SecWebSocketKey).ok_or(HandshakeError::Malformed)?;
    let accept = Accept::of_key(key).ok_or(HandshakeError::Malformed)?;
    let origin = fields.first(Name::Origin);
    Ok(Some(Handshake { accept, origin }))
}

/// Whether a subprotocol is among those that the client offers (RFC 6455 section 1.9).
pub(super) fn offers(request: &Request<'_>, protocol: &str) -> bool {
    let mut offered = request.fields.all(Name::SecWebSocketProtocol).flat_map(list);
    offered.any(|offer| offer == protocol.as_bytes())
}

fn asks_websocket(request: &Request<'_>) -> bool {
    // With another protocol beside it, the request is not the handshake of RFC 6455.
    let mut upgrades = request.fields.all(Name::Upgrade);
    upgrades.any(|value| value.eq_ignore_ascii_case(b"websocket"))
}

impl Accept {
    /// The answer to a key; `None` when the key is none.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        is_key(key).then(|| Self(accept_key(key)))
    }

    /// The value of the field.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_of_the_rfc() {
        // RFC 6455 section 1.3.
        let accept = Accept::of_key(b"dGhlIHNhbXBsZSBub25jZQ==").expect("a key");
        assert_eq!(accept.as_bytes(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for bad in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZTE=",
            b"c2hvcnQ=",
            b"dGhlIHNhbXBsZSBub25jZQ==x",
            b"dGhl IHNhbXBsZSBub25jZQ=",
        ] {
            assert_eq!(Accept::of_key(bad), None);
        }
    }
}
