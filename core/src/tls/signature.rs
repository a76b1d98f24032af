//! Did the owner of this public key sign that? For what is signed outside of TLS, with the cryptography of TLS.

use rustls::{
    SignatureScheme,
    pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, pem::PemObject as _},
};
use webpki::RawPublicKeyEntity;

use super::{Provider, TlsConfigError};

/// Bytes of each of the two numbers of an ES256 signature (RFC 7518 section 3.4).
const ES256_NUMBER_BYTES: usize = 32;

/// How something is signed (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSA with PKCS #1 1.5 padding and SHA-256; the key has 2048 bits or more.
    Rs256,
    /// ECDSA with the curve P-256 and SHA-256.
    Es256,
}

impl SignatureAlgorithm {
    /// As tokens call it (RFC 7518 section 3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// A public key, and what signatures that it verifies look like.
#[derive(Debug, Clone)]
pub struct SignatureKey {
    key: SubjectPublicKeyInfoDer<'static>,
    algorithm: SignatureAlgorithm,
    verification: &'static dyn SignatureVerificationAlgorithm,
}

impl SignatureKey {
    /// Reads a PEM text `PUBLIC KEY` (RFC 7468 section 13).
    ///
    /// # Errors
    /// When there is none, or it is for another algorithm.
    pub fn new(provider: &Provider, algorithm: SignatureAlgorithm, pem: &[u8]) -> Result<Self, TlsConfigError> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|_| TlsConfigError("the file holds no public key in PEM form".into()))?;
        let scheme = match algorithm {
            SignatureAlgorithm::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
            SignatureAlgorithm::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
        };
        let entity = RawPublicKeyEntity::try_from(&key)
            .map_err(|error| TlsConfigError(format!("the public key cannot be read: {error:?}")))?;
        let mapping = provider.crypto.signature_verification_algorithms.mapping;
        let candidates = mapping
            .iter()
            .filter(|(known, _)| *known == scheme)
            .flat_map(|(_, all)| *all);
        // A signature of nothing is wrong, but a key of another kind is refused before that.
        let suits = |candidate: &&&'static dyn SignatureVerificationAlgorithm| {
            let refusal = entity.verify_signature(**candidate, b"", b"");
            matches!(refusal, Err(webpki::Error::InvalidSignatureForPublicKey))
        };
        let verification = candidates.into_iter().find(suits).copied();
        Ok(Self {
            algorithm,
            verification: verification
                .ok_or_else(|| TlsConfigError("the public key is for another algorithm".into()))?,
            key,
        })
    }

    /// How signatures are made that it verifies.
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Whether this is a signature of `message`, in the form that RFC 7518 gives it.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let asn1;
        let signature = match self.algorithm {
            SignatureAlgorithm::Rs256 => signature,
            SignatureAlgorithm::Es256 => {
                let Some((r, s)) = signature.split_at_checked(ES256_NUMBER_BYTES) else {
                    return false;
                };
                if s.len() != ES256_NUMBER_BYTES {
                    return false;
                }
                asn1 = ecdsa_signature(r, s);
                &asn1
            }
        };
        RawPublicKeyEntity::try_from(&self.key)
            .is_ok_and(|entity| entity.verify_signature(self.verification, message, signature).is_ok())
    }
}

/// Two numbers as X.509 has them: `SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 section 2.2.3), each of 33 bytes or
/// less, so that every length fits into one byte.
fn ecdsa_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    const INTEGER: u8 = 2;
    const SEQUENCE: u8 = 0x30;
    let mut numbers = Vec::new();
    for number in [r, s] {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let digits = &number[zeros.min(number.len() - 1)..];
        let sign = digits[0] >> 7;
        numbers.extend([INTEGER, digits.len() as u8 + sign]);
        numbers.extend(core::iter::repeat_n(0, usize::from(sign)));
        numbers.extend(digits);
    }
    let mut signature = vec![SEQUENCE, numbers.len() as u8];
    signature.extend(numbers);
    signature
}
