//! How is a server checked that we call?

use alloc::sync::Arc;

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};

use super::{Provider, TlsConfigError, chain};

/// How to check a server that we call.
#[derive(Debug, Clone)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl ClientTls {
    /// Trusts what `authorities` (PEM) signed for `name`, a DNS name or an address.
    ///
    /// # Errors
    /// When the PEM text holds no certificate or the name is neither.
    pub fn new(provider: &Provider, authorities: &[u8], name: &str) -> Result<Self, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(authorities)? {
            roots
                .add(certificate)
                .map_err(|error| TlsConfigError(format!("cannot be a certificate authority: {error}")))?;
        }
        let config = ClientConfig::builder_with_details(provider.crypto.clone(), provider.clock.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsConfigError(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsConfigError(format!("\"{name}\" is neither a DNS name nor an address")))?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}
