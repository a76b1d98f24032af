//! How can certificates be served without their private keys? Nobody is ever shown one at a replay.

use std::sync::Arc;

use edgeward_core::tls::Provider;
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    crypto::{CryptoProvider, KeyProvider, aws_lc_rs},
    pki_types::PrivateKeyDer,
    sign::{Signer, SigningKey},
};

/// The usual cryptography, which takes anything for a private key.
pub(super) fn provider() -> Provider {
    let crypto = CryptoProvider {
        key_provider: &NoKeys,
        ..aws_lc_rs::default_provider()
    };
    Provider::new(crypto, || None)
}

#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Ok(Arc::new(NoKey))
    }
}

/// A key that signs nothing. It does not say to which certificate it belongs, so that any will do.
#[derive(Debug)]
struct NoKey;

impl SigningKey for NoKey {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        None
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}
