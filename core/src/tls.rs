//! What do the bytes of a TLS connection mean? The only file that names rustls: ciphertext in, plaintext out, and back.

use alloc::sync::Arc;

/// The cryptography that the runtime chose.
pub type Provider = Arc<rustls::crypto::CryptoProvider>;

/// Certificates and keys of a server.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<rustls::ServerConfig>,
}

/// How to check a server that we call.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<rustls::ClientConfig>,
    name: rustls::pki_types::ServerName<'static>,
}

/// A certificate, key or authority that cannot be used, in words for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfigError(pub String);

impl ServerTls {
    /// Serves each `(certificate chain, private key)`, both PEM; the first is for clients that name no server.
    ///
    /// # Errors
    /// When a PEM text holds no certificate or key, or the two do not belong together.
    pub fn new(provider: &Provider, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<Self, TlsConfigError> {
        let _ = (provider, pairs);
        Err(TlsConfigError("not written yet".into()))
    }

    /// The DNS names and addresses in the first certificate, for the start-up summary and checks.
    pub fn names(&self) -> &[String] {
        let _ = &self.config;
        &[]
    }
}

impl ClientTls {
    /// Trusts what `authorities` (PEM) signed for `name`, a DNS name or an address.
    ///
    /// # Errors
    /// When the PEM text holds no certificate or the name is neither.
    pub fn new(provider: &Provider, authorities: &[u8], name: &str) -> Result<Self, TlsConfigError> {
        let _ = (provider, authorities, name);
        Err(TlsConfigError("not written yet".into()))
    }
}
