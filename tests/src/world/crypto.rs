//! How is TLS repeated byte for byte? The usual cipher suites, with every random number drawn from the seed of the thread.
//!
//! Records, key schedule and certificates are those of aws-lc-rs. Three things there draw from a source of their own, and
//! are others here: the random numbers of the handshake, the key exchange, and the signature. The key exchange keeps no
//! secret at all, and Ed25519 signs without chance.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber, date_time_ymd};
use rustls::{
    ClientConfig, Error, NamedGroup, PeerMisbehaved, RootCertStore, ServerConfig,
    crypto::{
        ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup, aws_lc_rs,
    },
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    time_provider::TimeProvider,
};
use sha2::{Digest as _, Sha256};

use crate::{chance, world::site};

/// A certificate and its private key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// Cryptography that repeats itself.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![&OpenExchange],
        secure_random: &Seeded,
        ..aws_lc_rs::default_provider()
    }
}

/// The identity of the edge, always the same.
pub fn identity() -> Identity {
    IDENTITY.clone()
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    // RFC 8410 section 7: a private key that nobody has to keep.
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    der.extend_from_slice(&[7; 32]);
    let key = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64_STANDARD.encode(&der)
    );
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a private key");
    let pair = KeyPair::from_der_and_sign_algo(&private, &rcgen::PKCS_ED25519).expect("a key");
    let mut params = CertificateParams::new([site::NAME.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, site::NAME);
    params.serial_number = Some(SerialNumber::from(1));
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    let certificate = params.self_signed(&pair).expect("a certificate").pem();
    Identity { certificate, key }
});

/// A client that trusts the edge, and whose clock stands still.
pub fn client() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).expect("a certificate");
    roots.add(certificate).expect("an authority");
    let config = ClientConfig::builder_with_details(Arc::new(provider()), Arc::new(Clock::default()))
        .with_safe_default_protocol_versions()
        .expect("usual cipher suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A web server in the LAN, which shows the same certificate.
pub fn server() -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(IDENTITY.certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(IDENTITY.key.as_bytes()).expect("a private key");
    let mut config = ServerConfig::builder_with_details(Arc::new(provider()), Arc::new(Clock::default()))
        .with_safe_default_protocol_versions()
        .expect("usual cipher suites")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    // Sessions that are resumed would be one more thing that other runs have not.
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// The clock of a client, which needs only be within the life of the certificate.
#[derive(Debug)]
struct Clock(AtomicU64);

impl Default for Clock {
    fn default() -> Self {
        Self(AtomicU64::new(site::BEGINNING))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let secs = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs)))
    }
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        // Outside of a world, where a configuration is only read, any bytes will do.
        if !chance::fill(bytes) {
            bytes.fill(0);
        }
        Ok(())
    }
}

/// A key exchange that everybody who listens can follow: the secret is a hash of both public keys.
#[derive(Debug)]
struct OpenExchange;

impl SupportedKxGroup for OpenExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut public = [0; 32];
        Seeded.fill(&mut public)?;
        Ok(Box::new(OpenKey(public)))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct OpenKey([u8; 32]);

impl ActiveKeyExchange for OpenKey {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        if theirs.len() != self.0.len() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        let mut both = [&self.0[..], theirs];
        both.sort_unstable();
        Ok(SharedSecret::from(&Sha256::digest(both.concat())[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
