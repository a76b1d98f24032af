//! Where do certificates come from, and how are they read again while the edge runs?

use super::{Https, Sources};
use crate::{
    time::UnixTime,
    tls::{Certificate, Finding},
};

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, PEM.
    pub cert: String,
    /// The private key, PEM.
    pub key: String,
    /// An OCSP response to show along with it, DER.
    pub ocsp: Option<String>,
    /// Whether it may be missing, because we fetch it ourselves.
    pub is_awaited: bool,
}

/// A certificate authority that gives us a certificate for the asking (ACME, RFC 8555 and RFC 8737).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The names that the certificate shall be for; never empty.
    pub domains: Vec<String>,
    /// The URL of the directory of the authority.
    pub directory: String,
    /// Where the authority may write to about the account, like `mailto:admin@example.com`.
    pub contacts: Vec<String>,
    /// The folder of account and certificate.
    pub state: String,
    /// Who signed the certificate of the authority's own server, a PEM file; `None` is whom everybody trusts.
    pub ca: Option<String>,
}

impl Acme {
    /// The file of the chain, and of the key too, so that both change at once.
    pub fn files(&self) -> CertificateFiles {
        let file = format!("{}/certificate.pem", self.state);
        CertificateFiles {
            cert: file.clone(),
            key: file,
            ocsp: None,
            is_awaited: true,
        }
    }
}

/// What became of the certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What could not be used; what was there before is still shown.
    pub refused: Vec<Finding>,
    /// What clients may dislike about those that are shown now.
    pub warnings: Vec<Finding>,
}

impl CertificateFiles {
    /// What the certificate is called in messages.
    fn label(&self) -> String {
        format!("`{}`", self.cert)
    }

    /// Reads the files; `None` when it is awaited still.
    ///
    /// # Errors
    /// With what is wrong with the chain or the key. An OCSP response is never more than a warning.
    pub(super) fn read(&self, sources: &mut dyn Sources) -> Result<Option<Certificate>, Finding> {
        let mut file = |path: &str| {
            sources.file(path).map_err(|error| Finding {
                what: format!("`{path}` cannot be read: {error}"),
                fix: "name a file that exists and that this user may read".into(),
            })
        };
        let (chain, key) = match (file(&self.cert), file(&self.key)) {
            (Err(_), _) if self.is_awaited => return Ok(None),
            (chain, key) => (chain?, key?),
        };
        let ocsp = self.ocsp.as_deref().map(|path| (path, sources.file(path)));
        let label = self.label();
        let certificate = Certificate::new(sources.provider(), &label, &chain, &key).map_err(|error| Finding {
            what: format!("the certificate {label} cannot be used: {error}"),
            fix: "`cert` is the PEM file with the chain, `key` the PEM file with the private key that belongs to it"
                .into(),
        })?;
        Ok(Some(match ocsp {
            None => certificate,
            Some((path, response)) => certificate.with_ocsp(path, response.as_deref().map_err(String::as_str)),
        }))
    }
}

impl Https {
    /// Whom to ask for a certificate now, if anybody: where there is none, or not for all names, or the last third of its
    /// time has begun, which leaves time for failures.
    pub fn wants_certificate(&self, now: UnixTime) -> Option<&Acme> {
        let acme = self.acme.as_ref()?;
        let label = acme.files().label();
        let certificates = self.tls.certificates();
        let certificate = certificates.iter().find(|certificate| certificate.label() == label);
        let is_good = certificate.is_some_and(|certificate| {
            let (begin, end) = certificate.validity().unwrap_or_default();
            let renew_at = end.0 - end.0.saturating_sub(begin.0) / 3;
            now.0 < renew_at && acme.domains.iter().all(|domain| certificate.names().contains(domain))
        });
        (!is_good).then_some(acme)
    }

    /// Reads all certificates again and shows them to clients from now on. One that cannot be used, or not now, leaves the
    /// place to the one that was there.
    pub fn reload_certificates(&self, sources: &mut dyn Sources, now: UnixTime) -> Reloaded {
        let before = self.tls.certificates();
        let mut refused = Vec::new();
        let mut certificates = Vec::new();
        for files in &self.certificates {
            let label = files.label();
            let old = before.iter().find(|certificate| certificate.label() == label).cloned();
            let new = files.read(sources).and_then(|new| match (&new, &old) {
                (Some(certificate), Some(_)) => match certificate.out_of_date(now) {
                    Some(why) => Err(Finding {
                        what: format!("the certificate {label} {why}"),
                        fix: "install a certificate that is good today, and look at the clock of this host".into(),
                    }),
                    None => Ok(new),
                },
                _ => Ok(new),
            });
            match new {
                Ok(new) => certificates.extend(new.or(old)),
                Err(finding) => {
                    refused.push(finding);
                    certificates.extend(old);
                }
            }
        }
        self.tls.replace(certificates);
        Reloaded {
            refused,
            warnings: self.findings(now),
        }
    }
}

#[cfg(test)]
mod tests;
