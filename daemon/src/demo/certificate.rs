//! With which certificate does the demonstration serve? One made at the start, which nobody else has signed.

use std::{
    io,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData as _};
use sha2::{Digest as _, Sha256};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A self-signed certificate with its key.
pub(super) struct Certificate {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
    /// The hash of the public key by which Chromium can be told to trust it.
    pub(super) spki_sha256: String,
}

impl Certificate {
    /// A certificate for these names and addresses, good for a month.
    pub(super) fn new(names: &[String]) -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "Edgeward demonstration");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        // Clocks differ, and browsers believe in no certificate that lasts for ever.
        (params.not_before, params.not_after) = ((now - DAY).into(), (now + 30 * DAY).into());
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            spki_sha256: BASE64_STANDARD.encode(Sha256::digest(key.subject_public_key_info())),
        })
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("spki_sha256", &self.spki_sha256)
            .finish_non_exhaustive()
    }
}
