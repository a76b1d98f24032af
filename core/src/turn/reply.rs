//! How is a request answered? Responses with what the request's protection asks for. (RFC 8489 section 6.3.1.1)

use core::ops::Range;

use super::request::Request;
use crate::wire::stun::{Class, Code, Header, Integrity, Key, Writer};

/// What a response takes from its request.
#[derive(Debug, Clone)]
pub(super) struct Form {
    header: Header,
    /// Whether it ends with a fingerprint, as the request did.
    fingerprint: bool,
    /// How it is signed, once the request has been authenticated.
    signature: Option<(Integrity, Key)>,
}

impl Form {
    /// For a request that is not authenticated, or not yet.
    pub(super) fn unsigned(request: &Request<'_>) -> Self {
        Self {
            header: request.header(),
            fingerprint: request.message.has_fingerprint(),
            signature: None,
        }
    }

    /// For a request of which nothing is known but its header.
    pub(super) fn bare(header: Header) -> Self {
        Self {
            header,
            fingerprint: false,
            signature: None,
        }
    }

    /// The same with a signature.
    pub(super) fn signed(self, integrity: Integrity, key: Key) -> Self {
        Self {
            signature: Some((integrity, key)),
            ..self
        }
    }

    /// Writes a success response with the attributes that `fill` adds.
    pub(super) fn success(&self, made: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) -> Range<usize> {
        self.write(made, Class::Success, fill)
    }

    /// Writes an error response with the attributes that `fill` adds.
    pub(super) fn error(&self, made: &mut Vec<u8>, code: Code, fill: impl FnOnce(&mut Writer<'_>)) -> Range<usize> {
        self.write(made, Class::Error, |writer| {
            writer.error(code);
            fill(writer);
        })
    }

    fn write(&self, made: &mut Vec<u8>, class: Class, fill: impl FnOnce(&mut Writer<'_>)) -> Range<usize> {
        let mut writer = Writer::new(made, Header { class, ..self.header });
        fill(&mut writer);
        if let Some((integrity, key)) = &self.signature {
            writer.sign(*integrity, key);
        }
        if self.fingerprint {
            writer.fingerprint();
        }
        writer.finish()
    }
}
