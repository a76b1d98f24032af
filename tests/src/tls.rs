//! Who signs the certificates of a test, and how do its clients check them?

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, PublicKeyData as _};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};

/// A certificate authority of one test.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
    /// The hash of the public key by which Chromium can be told to trust it.
    pub trusted: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// An authority that nobody knew before.
    ///
    /// # Panics
    /// When the library cannot make one.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Edgeward tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs a certificate for DNS names and addresses.
    ///
    /// # Panics
    /// When a name is neither.
    pub fn identity(&self, names: &[&str]) -> Identity {
        self.sign(names, KeyPair::generate().expect("a key"))
    }

    /// The same with an RSA key, for old clients.
    ///
    /// # Panics
    /// When a name is neither.
    pub fn rsa_identity(&self, names: &[&str]) -> Identity {
        self.sign(names, KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key"))
    }

    fn sign(&self, names: &[&str], key: KeyPair) -> Identity {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).expect("names or addresses");
        Identity {
            certificate: params.signed_by(&key, &self.issuer).expect("a certificate").pem(),
            key: key.serialize_pem(),
            trusted: BASE64_STANDARD.encode(Sha256::digest(key.subject_public_key_info())),
        }
    }

    /// The authority's own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A client that trusts this authority and nobody else.
    ///
    /// # Panics
    /// Never: the certificate is the library's own.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client_with(provider())
    }

    /// The same with other cryptography than usual.
    ///
    /// # Panics
    /// When it makes no TLS.
    pub fn client_with(&self, provider: Arc<CryptoProvider>) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("a provider with usual cipher suites")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        Arc::new(config)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.pem)).expect("a certificate authority");
        roots
    }
}

impl Identity {
    /// A server that shows this certificate.
    ///
    /// # Panics
    /// When certificate and key do not belong together.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server_for(WebPkiClientVerifier::no_client_auth())
    }

    /// The same for clients only that this authority has signed a certificate for.
    ///
    /// # Panics
    /// When certificate and key do not belong together.
    pub fn server_for_clients_of(&self, authority: &Authority) -> Arc<ServerConfig> {
        let roots = Arc::new(authority.roots());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        self.server_for(verifier.build().expect("an authority"))
    }

    fn server_for(&self, clients: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a private key");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("a provider with usual cipher suites")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate(&self.certificate)], key)
            .expect("a certificate and its key");
        Arc::new(config)
    }
}

/// The cryptography of all peers.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The name to ask a server for.
pub(crate) fn server_name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).expect("a DNS name or an address")
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}
