//! Which certificate does a client get to see? By the name that it asks for (RFC 6066 section 3) and by what it can
//! verify.

use alloc::sync::Arc;
use std::sync::{PoisonError, RwLock};

use rustls::{
    SignatureAlgorithm, SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Certificate, Clock};

/// All certificates, which shards share. They are replaced as a whole, and looked at in a handshake and for a request that
/// names another host than its connection did.
#[derive(Debug)]
pub(super) struct Certificates {
    all: RwLock<Arc<[Certificate]>>,
    clock: Arc<Clock>,
}

impl Certificates {
    pub(super) fn new(certificates: Vec<Certificate>, clock: Arc<Clock>) -> Self {
        Self {
            all: RwLock::new(certificates.into()),
            clock,
        }
    }

    pub(super) fn all(&self) -> Arc<[Certificate]> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn replace(&self, certificates: Vec<Certificate>) {
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = certificates.into();
    }

    /// Whether a certificate that is shown for `server_name` is for `host` too.
    pub(super) fn is_shown_for(&self, server_name: &str, host: &str) -> bool {
        let all = self.all();
        let shown = candidates(&all, Some(server_name));
        shown.iter().any(|certificate| certificate.is_for(host))
    }

    pub(super) fn choose(&self, server_name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let all = self.all();
        let usable = candidates(&all, server_name)
            .into_iter()
            .filter(|certificate| certificate.signs(schemes));
        // Both can be verified, but ECDSA costs us less to sign.
        let chosen = usable.min_by_key(|certificate| certificate.algorithm() == SignatureAlgorithm::RSA);
        chosen.map(|certificate| certificate.shown(self.clock.now()))
    }
}

/// The certificates for a name: those that name it, else those of a wildcard, else those of the first server.
fn candidates<'c>(all: &'c [Certificate], server_name: Option<&str>) -> Vec<&'c Certificate> {
    let matching = |is_match: &dyn Fn(&Certificate) -> bool| -> Vec<&'c Certificate> {
        all.iter().filter(|certificate| is_match(certificate)).collect()
    };
    if let Some(name) = server_name {
        let named = matching(&|certificate| certificate.has_name(name));
        if !named.is_empty() {
            return named;
        }
        let covered = matching(&|certificate| certificate.is_for(name));
        if !covered.is_empty() {
            return covered;
        }
    }
    all.first().map_or_else(Vec::new, |first| {
        matching(&|certificate| certificate.has_names_of(first))
    })
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

/// What a certificate authority is answered that asks whether a name is ours, by that name (RFC 8737 section 3).
#[derive(Debug, Default)]
pub(super) struct Challenges(RwLock<Vec<(String, Arc<CertifiedKey>)>>);

impl Challenges {
    pub(super) fn answer(&self, name: &str, key: CertifiedKey) {
        self.end(name);
        let mut answers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        answers.push((name.to_owned(), Arc::new(key)));
    }

    pub(super) fn end(&self, name: &str) {
        let mut answers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        let answers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.iter().find(|(asked, _)| asked.eq_ignore_ascii_case(name));
        answer.map(|(_, key)| key.clone())
    }
}
