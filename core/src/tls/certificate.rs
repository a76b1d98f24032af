//! Can this certificate be shown, for whom, and what may clients dislike about it?

use alloc::sync::Arc;
use core::net::IpAddr;

use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{
    Provider, TlsConfigError, chain,
    examine::{self, Facts},
    ocsp,
};
use crate::time::UnixTime;

/// A certificate chain with the private key that belongs to it.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// What the administrator calls it.
    label: String,
    /// DNS names, lower case.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
    /// The same with an OCSP response, and until when that is good.
    stapled: Option<(Arc<CertifiedKey>, UnixTime)>,
    facts: Facts,
    /// What is wrong with the OCSP response.
    unstapled: Option<Finding>,
}

/// Something that an administrator should mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, and what comes of it.
    pub what: String,
    /// What would be right.
    pub fix: String,
}

impl Certificate {
    /// Reads a chain and a key, both PEM. `label` is what the administrator calls it, like the name of its file.
    ///
    /// # Errors
    /// When a PEM text holds no certificate or key, or the two do not belong together.
    pub fn new(provider: &Provider, label: &str, chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsConfigError> {
        let chain = chain(chain_pem)?;
        let key = private_key(key_pem)?;
        let names = webpki::EndEntityCert::try_from(&chain[0])
            .map_err(|error| TlsConfigError(format!("the certificate cannot be read: {error:?}")))?
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect();
        let facts = examine::examine(&chain);
        let key = CertifiedKey::from_der(chain, key, &provider.crypto).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsConfigError("the private key is not that of the certificate".into())
            }
            error => TlsConfigError(format!("the private key cannot be used: {error}")),
        })?;
        Ok(Self {
            label: label.into(),
            names,
            key: Arc::new(key),
            stapled: None,
            facts,
            unstapled: None,
        })
    }

    /// Shows an OCSP response (DER, RFC 6960) along with the certificate as long as it is good; one that is of no use is
    /// left out with a warning. `Err` says why there is none to be read.
    #[must_use]
    pub fn with_ocsp(mut self, file: &str, response: Result<&[u8], &str>) -> Self {
        let read = response
            .map_err(|error| format!("cannot be read: {error}"))
            .and_then(|der| Ok((der, ocsp::good_until(der, self.facts.serial()).map_err(str::to_owned)?)));
        match read {
            Ok((der, until)) => {
                let mut key = CertifiedKey::clone(&self.key);
                key.ocsp = Some(der.to_vec());
                self.stapled = Some((Arc::new(key), until));
            }
            Err(why) => {
                self.unstapled = Some(Finding {
                    what: format!("the OCSP response `{file}` {why}: {} is shown without it", self.label),
                    fix: "fetch it anew from the responder of the authority, or remove `ocsp`".into(),
                });
            }
        }
        self
    }

    /// The DNS names in it, lower case.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What the administrator calls it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it has not begun or has ended, in words.
    pub fn out_of_date(&self, now: UnixTime) -> Option<String> {
        self.facts.out_of_date(now)
    }

    /// From when to when it is good, where that can be told.
    pub fn validity(&self) -> Option<(UnixTime, UnixTime)> {
        self.facts.validity()
    }

    pub(super) fn findings(&self, now: UnixTime, hosts: &[String]) -> Vec<Finding> {
        let mut warnings = self.facts.findings(&self.label, now);
        warnings.extend(self.unstapled.clone());
        if let Some((_, until)) = self.stapled
            && until <= now
        {
            warnings.push(Finding {
                what: format!("the OCSP response of {} has ended: it is shown without it", self.label),
                fix: "fetch it anew from the responder of the authority, or remove `ocsp`".into(),
            });
        }
        if !hosts.is_empty() && !hosts.iter().any(|host| self.is_for(host)) {
            warnings.push(Finding {
                what: format!("{} is for none of the hosts that are answered", self.label),
                fix: format!(
                    "it is for {}: add that to `hosts`, or remove the certificate",
                    self.names.join(", ")
                ),
            });
        }
        warnings
    }

    /// Whether it is for this host as clients see it, a name or an address.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.facts.has_address(address);
        }
        self.names.iter().any(|pattern| match pattern.strip_prefix('*') {
            // RFC 9525 section 6.3: a wildcard stands for exactly one label.
            Some(suffix) => host
                .find('.')
                .is_some_and(|dot| host[dot..].eq_ignore_ascii_case(suffix)),
            None => pattern.eq_ignore_ascii_case(host),
        })
    }

    /// Whether it names exactly this, not by a wildcard.
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Whether it is for everything that the other one is for.
    pub(super) fn has_names_of(&self, other: &Self) -> bool {
        other.names.iter().all(|name| self.has_name(name))
    }

    pub(super) fn signs(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }

    pub(super) fn algorithm(&self) -> SignatureAlgorithm {
        self.key.key.algorithm()
    }

    /// What to show of it now.
    pub(super) fn shown(&self, now: UnixTime) -> Arc<CertifiedKey> {
        match &self.stapled {
            Some((key, until)) if now < *until => key.clone(),
            _ => self.key(),
        }
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }
}

/// What a certificate authority gets to see (RFC 8737 section 3). Its critical extension is for nobody else, so that it is
/// not looked at as other certificates are.
pub(super) fn challenge_key(
    provider: &Provider,
    chain_pem: &[u8],
    key_pem: &[u8],
) -> Result<CertifiedKey, TlsConfigError> {
    let key = provider.crypto.key_provider.load_private_key(private_key(key_pem)?);
    let key = key.map_err(|error| TlsConfigError(format!("the private key cannot be used: {error}")))?;
    Ok(CertifiedKey::new(chain(chain_pem)?, key))
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| TlsConfigError("the key file holds no private key in PEM form".into()))
}
