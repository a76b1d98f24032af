//! How is a server checked that we call, and who are we to it?

use alloc::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};

use super::{Provider, TlsConfigError, chain};

/// How to check a server that we call.
#[derive(Debug, Clone)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// What the certificate of a server must be. Where both are given, both must hold.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Who must have signed it (PEM).
    pub authorities: Option<Vec<u8>>,
    /// SHA-256 of its public key (SubjectPublicKeyInfo), one of these; empty is any.
    pub pins: Vec<[u8; 32]>,
}

impl ClientTls {
    /// Trusts what `authorities` (PEM) signed for `name`, a DNS name or an address.
    ///
    /// # Errors
    /// When the PEM text holds no certificate or the name is neither.
    pub fn new(provider: &Provider, authorities: &[u8], name: &str) -> Result<Self, TlsConfigError> {
        let trust = Trust {
            authorities: Some(authorities.to_vec()),
            pins: Vec::new(),
        };
        Self::with(provider, &trust, None, name)
    }

    /// Trusts as it is told, and shows a certificate chain with its private key (both PEM) to a server that asks.
    ///
    /// # Errors
    /// When a PEM text is not what it should be, the name is neither, or nothing says whom to trust.
    pub fn with(
        provider: &Provider,
        trust: &Trust,
        identity: Option<&(Vec<u8>, Vec<u8>)>,
        name: &str,
    ) -> Result<Self, TlsConfigError> {
        let config = ClientConfig::builder_with_details(provider.crypto.clone(), provider.clock.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsConfigError(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(provider, trust)?));
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| TlsConfigError("the key file holds no private key in PEM form".into()))?;
                let config = config.with_client_auth_cert(chain(certificate)?, key);
                config.map_err(|error| TlsConfigError(format!("the private key cannot be used: {error}")))?
            }
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsConfigError(format!("\"{name}\" is neither a DNS name nor an address")))?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

#[cfg(test)]
impl ClientTls {
    /// The same, and it speaks this alone.
    pub(crate) fn speaking(mut self, protocol: &[u8]) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![protocol.to_vec()];
        self
    }
}

/// Believes a certificate that an authority has signed, whose key is pinned, or both.
#[derive(Debug)]
struct Verifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(provider: &Provider, trust: &Trust) -> Result<Self, TlsConfigError> {
        if trust.authorities.is_none() && trust.pins.is_empty() {
            return Err(TlsConfigError("nobody is trusted".into()));
        }
        let authorities = match &trust.authorities {
            None => None,
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in chain(pem)? {
                    roots
                        .add(certificate)
                        .map_err(|error| TlsConfigError(format!("cannot be a certificate authority: {error}")))?;
                }
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.crypto.clone());
                Some(verifier.build().map_err(|error| TlsConfigError(error.to_string()))?)
            }
        };
        Ok(Self {
            authorities,
            pins: trust.pins.clone(),
            algorithms: provider.crypto.signature_verification_algorithms,
        })
    }

    // RFC 7469 section 2.4: a pin is of the key, so that a certificate may be renewed.
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        let key = webpki::EndEntityCert::try_from(certificate).map(|entity| entity.subject_public_key_info());
        key.is_ok_and(|key| self.pins.contains(&Sha256::digest(&*key).into()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            authorities.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        }
        if !self.pins.is_empty() && !self.is_pinned(certificate) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
