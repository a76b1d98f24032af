//! What do the bytes of a TLS connection mean, and who are we to a client? Only this module names rustls.

use alloc::sync::Arc;
use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject as _},
    server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions},
    time_provider::TimeProvider,
};

mod certificate;
mod certificates;
mod client;
mod connection;
mod examine;
mod ocsp;
mod server;
mod signature;
mod transcript;

pub use certificate::{Certificate, Finding};
pub use client::{ClientTls, Trust};
pub use connection::{Session, Tls, TlsError};
pub use server::{Protocols, ServerTls};
pub use signature::{SignatureAlgorithm, SignatureKey};
pub use transcript::Heard;
pub(crate) use transcript::Transcript;

use crate::time::UnixTime;

/// TLS sessions that can be resumed where there are no tickets, all shards together.
const SESSIONS_MAX: usize = 16 * 1024;

/// Protocols that a client may name (RFC 7301): what web browsers say.
pub const ALPN_HTTP: &[u8] = b"http/1.1";
/// TURN (RFC 7443 section 3).
pub const ALPN_TURN: &[u8] = b"stun.turn";
/// STUN to find out about NATs (RFC 7443 section 3).
pub const ALPN_STUN: &[u8] = b"stun.nat-discovery";
/// A certificate authority that asks whether we hold a name (RFC 8737 section 4).
pub const ALPN_ACME: &[u8] = b"acme-tls/1";

/// The cryptography that the runtime chose, the clock by which certificates are judged, and what makes sessions go on:
/// one value for the life of a process, so that a session outlives the configuration that it began under.
#[derive(Debug, Clone)]
pub struct Provider {
    crypto: Arc<CryptoProvider>,
    clock: Arc<Clock>,
    tickets: Tickets,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Provider {
    /// Wraps a provider of rustls. `tickets` is asked when there is a server, and answers always the same; where it has
    /// none, sessions are remembered here instead of by the clients.
    pub fn new(crypto: CryptoProvider, tickets: Tickets) -> Self {
        Self {
            crypto: Arc::new(crypto),
            clock: Arc::default(),
            tickets,
            sessions: ServerSessionMemoryCache::new(SESSIONS_MAX),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(rustls::crypto::aws_lc_rs::default_provider(), || None)
    }

    /// Tells everything made with this provider what time it is.
    pub fn set_time(&self, now: UnixTime) {
        self.clock.set(now);
    }
}

/// What makes the tickets of a process, if anything does.
pub type Tickets = fn() -> Option<Arc<dyn ProducesTickets>>;

/// The wall clock of rustls: what was last set.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn set(&self, now: UnixTime) {
        // Written once a second, so that shards do not fight for the cache line.
        if self.0.load(Ordering::Relaxed) != now.0 {
            self.0.store(now.0, Ordering::Relaxed);
        }
    }

    fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::Relaxed))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let secs = Duration::from_secs(self.now().0);
        Some(rustls::pki_types::UnixTime::since_unix_epoch(secs))
    }
}

/// A certificate, key or authority that cannot be used, in words for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfigError(pub String);

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for TlsConfigError {}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsConfigError(format!("the certificate file is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(TlsConfigError(
            "the certificate file holds no certificate in PEM form".into(),
        ));
    }
    Ok(chain)
}

#[cfg(test)]
mod tests;
