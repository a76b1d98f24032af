//! What does a TLS server offer, and by which certificates? One for all shards; the certificates change under way.

use alloc::sync::Arc;

use rustls::{
    ServerConfig,
    server::{ResolvesServerCert, WebPkiClientVerifier},
};

use super::{
    ALPN_ACME, ALPN_HTTP, ALPN_STUN, ALPN_TURN, Certificate, Clock, Finding, Provider, TlsConfigError,
    certificate::challenge_key,
    certificates::{Certificates, Challenges},
};
use crate::time::UnixTime;

/// Tickets that a connection gives (RFC 8446 section 4.6.1): the connection that comes with one gets the next.
const TICKETS: usize = 1;

/// Certificates and keys of a server. Clones share them.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// By [`Protocols`].
    configs: [Arc<ServerConfig>; 4],
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    clock: Arc<Clock>,
}

/// What a client may agree with us to speak (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP alone.
    Http,
    /// TURN and STUN alone.
    Turn,
    /// Both.
    HttpAndTurn,
    /// The answer to a certificate authority (RFC 8737), and nothing behind it.
    Challenge,
}

impl Protocols {
    const ALL: [Self; 4] = [Self::Http, Self::Turn, Self::HttpAndTurn, Self::Challenge];

    const fn names(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http => &[ALPN_HTTP],
            Self::Turn => &[ALPN_TURN, ALPN_STUN],
            Self::HttpAndTurn => &[ALPN_HTTP, ALPN_TURN, ALPN_STUN],
            Self::Challenge => &[ALPN_ACME],
        }
    }
}

impl ServerTls {
    /// Serves each of `certificates`; the first is for clients that name no server.
    ///
    /// # Errors
    /// When the cryptography at hand cannot serve anybody.
    pub fn new(provider: &Provider, certificates: Vec<Certificate>) -> Result<Self, TlsConfigError> {
        let certificates = Arc::new(Certificates::new(certificates, provider.clock.clone()));
        let challenges = Arc::<Challenges>::default();
        let config = |protocols| -> Result<_, TlsConfigError> {
            let resolver: Arc<dyn ResolvesServerCert> = match protocols {
                Protocols::Challenge => challenges.clone(),
                _ => certificates.clone(),
            };
            let mut config = ServerConfig::builder_with_details(provider.crypto.clone(), provider.clock.clone())
                .with_safe_default_protocol_versions()
                .map_err(|error| TlsConfigError(error.to_string()))?
                .with_client_cert_verifier(WebPkiClientVerifier::no_client_auth())
                .with_cert_resolver(resolver);
            config.alpn_protocols = protocols.names().iter().map(|name| name.to_vec()).collect();
            config.session_storage = provider.sessions.clone();
            if let Some(tickets) = (provider.tickets)() {
                config.ticketer = tickets;
            }
            config.send_tls13_tickets = TICKETS;
            Ok(Arc::new(config))
        };
        let [http, turn, both, challenge] = Protocols::ALL.map(config);
        Ok(Self {
            configs: [http?, turn?, both?, challenge?],
            certificates,
            challenges,
            clock: provider.clock.clone(),
        })
    }

    /// Puts others in the place of all certificates. Connections go on; the next handshake shows the new ones.
    pub fn replace(&self, certificates: Vec<Certificate>) {
        self.certificates.replace(certificates);
    }

    /// What is shown now.
    pub fn certificates(&self) -> Arc<[Certificate]> {
        self.certificates.all()
    }

    /// Answers the question of a certificate authority about `name`: by a certificate that nobody else will see, and its
    /// key, both PEM. (RFC 8737 section 3)
    ///
    /// # Errors
    /// When a PEM text holds no certificate or key.
    pub fn answer_challenge(
        &self,
        provider: &Provider,
        name: &str,
        chain_pem: &[u8],
        key_pem: &[u8],
    ) -> Result<(), TlsConfigError> {
        let key = challenge_key(provider, chain_pem, key_pem)?;
        self.challenges.answer(name, key);
        Ok(())
    }

    /// Answers no longer.
    pub fn end_challenge(&self, name: &str) {
        self.challenges.end(name);
    }

    /// Tells everything made with the same provider what time it is.
    pub fn set_time(&self, now: UnixTime) {
        self.clock.set(now);
    }

    /// The DNS names in all certificates, for the start-up summary and checks.
    pub fn names(&self) -> Vec<String> {
        let all = self.certificates.all();
        all.iter()
            .flat_map(|certificate| certificate.names().iter().cloned())
            .collect()
    }

    /// Whether a certificate is for this host, a name or an address.
    pub fn has(&self, host: &str) -> bool {
        self.certificates
            .all()
            .iter()
            .any(|certificate| certificate.is_for(host))
    }

    /// Whether who called us by `server_name` may ask for `host` on the same connection: both mean one server, or the
    /// certificate that was shown is for both.
    pub fn is_same_server(&self, server_name: &str, host: &str) -> bool {
        server_name.eq_ignore_ascii_case(host) || self.certificates.is_shown_for(server_name, host)
    }

    /// What clients may dislike about the certificates now, as long as they are for `hosts`.
    pub fn findings(&self, now: UnixTime, hosts: &[String]) -> Vec<Finding> {
        let all = self.certificates.all();
        let unnamed = hosts
            .iter()
            .filter(|host| !all.iter().any(|certificate| certificate.is_for(host)));
        let unnamed = unnamed.map(|host| Finding {
            what: format!("no certificate is for {host}: browsers will refuse it"),
            fix: format!("add a certificate for {host}, or take it out of `hosts`"),
        });
        let own = all.iter().flat_map(|certificate| certificate.findings(now, hosts));
        own.chain(unnamed).collect()
    }

    pub(super) fn config(&self, protocols: Protocols) -> Arc<ServerConfig> {
        self.configs[protocols as usize].clone()
    }

    #[cfg(test)]
    pub(super) fn resolver(&self) -> &Certificates {
        &self.certificates
    }
}
