//! How does the edge get a certificate of its own? From an authority that asks back by TLS whether the names are ours.
//! (ACME, RFC 8555; TLS-ALPN-01, RFC 8737)

use std::{
    error::Error,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeward_core::{
    config::{Acme, Https},
    tls::ServerTls,
};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, HttpClient, Identifier, NewAccount,
    NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs;
use ureq::{
    Agent,
    http::Request,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{cli::load, clock::unix_time};

/// How long one request to the authority may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the authority may answer to one request; a chain has a few KiB.
const RESPONSE_BYTES_MAX: u64 = 1024 * 1024;

/// The pause after a failure, twice as long after each more: authorities lock out who asks too often. The longest one is
/// kept after a success too, should it still not be what was wanted.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(6 * 60 * 60);

type Fetched<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// When to ask the authority.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    not_before: Option<Instant>,
    failures: u32,
}

impl Schedule {
    /// Fetches a certificate if one is wanted and it is time; returns whether there is a new one. Blocks until the authority
    /// has decided. `path` is that of the configuration.
    pub(crate) fn turn(&mut self, path: &Path, https: &Https) -> bool {
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let Some(acme) = https.wants_certificate(unix_time()) else {
            return false;
        };
        tracing::info!(domains = ?acme.domains, directory = acme.directory, "asking for a certificate");
        let fetched = fetch(load::directory(path), acme, &https.tls);
        for domain in &acme.domains {
            https.tls.end_challenge(domain);
        }
        match fetched {
            Ok(()) => {
                self.failures = 0;
                self.not_before = Some(Instant::now() + PAUSE_MAX);
                true
            }
            Err(error) => {
                let pause = pause_after(self.failures);
                self.failures += 1;
                self.not_before = Some(Instant::now() + pause);
                tracing::error!(
                    %error,
                    again_in = ?pause,
                    fix = "each of `domains` must lead to port 443 of this host, from outside too",
                    "no certificate could be fetched"
                );
                false
            }
        }
    }
}

fn pause_after(failures: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX)
}

/// Fetches a certificate and puts it where it is awaited. `directory` is that of the configuration.
fn fetch(directory: &Path, acme: &Acme, tls: &ServerTls) -> Fetched<()> {
    let state = directory.join(&acme.state);
    DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let chain_and_key = runtime.block_on(async {
        let account = account(directory, &state, acme).await?;
        order(&account, acme, tls).await
    })?;
    replace(&directory.join(acme.files().cert), chain_and_key.as_bytes())?;
    Ok(())
}

/// The account that was opened before, or a new one.
async fn account(directory: &Path, state: &Path, acme: &Acme) -> Fetched<Account> {
    let builder = Account::builder_with_http(Box::new(Client::new(directory, acme)?));
    let file = account_file(state, &acme.directory);
    match fs::read(&file) {
        Ok(credentials) => {
            let credentials = serde_json::from_slice(&credentials).map_err(|error| {
                format!(
                    "{} is no account: {error}; remove it, and a new one is opened",
                    file.display()
                )
            })?;
            Ok(builder.from_credentials(credentials).await?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let contact: Vec<&str> = acme.contacts.iter().map(String::as_str).collect();
            let new = NewAccount {
                contact: &contact,
                // The configuration is refused without.
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let (account, credentials) = builder.create(&new, acme.directory.clone(), None).await?;
            replace(&file, &serde_json::to_vec(&credentials)?)?;
            Ok(account)
        }
        Err(error) => Err(error.into()),
    }
}

/// Each authority has accounts of its own.
fn account_file(state: &Path, authority: &str) -> PathBuf {
    let name = authority.trim_start_matches("https://");
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect();
    state.join(format!("account-{name}.json"))
}

/// Orders a certificate, and answers when the authority asks; returns its chain and its key, PEM.
async fn order(account: &Account, acme: &Acme, tls: &ServerTls) -> Fetched<String> {
    let names: Vec<Identifier> = acme.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(format!("an authorization is {status:?}").into()),
        }
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .ok_or("the authority does not ask by TLS-ALPN-01")?;
        let Identifier::Dns(name) = challenge.identifier().identifier else {
            return Err("the authority asks for another kind of name".into());
        };
        let (certificate, key) = answer(name, challenge.key_authorization().digest().as_ref())?;
        tls.answer_challenge(&load::provider(), name, certificate.as_bytes(), key.as_bytes())?;
        challenge.set_ready().await?;
    }
    let retries = RetryPolicy::default();
    match order.poll_ready(&retries).await? {
        OrderStatus::Ready => {}
        status => return Err(refusal(&mut order, status).await.into()),
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&retries).await?;
    Ok(format!("{chain}\n{key}"))
}

/// Why the authority does not believe us.
async fn refusal(order: &mut instant_acme::Order, status: OrderStatus) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        if let Some(problem) = authorization
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref())
        {
            return format!("{}: {problem}", authorization.identifier());
        }
    }
    format!("the order is {status:?}")
}

/// The certificate that proves to the authority that a name is ours, and its key, PEM.
// RFC 8737 section 3: signed by itself, for this name alone, with the digest of the key authorization in a critical
// extension.
fn answer(name: &str, digest: &[u8]) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Puts a file that only its owner may read in the place of another, as a whole.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    // What an earlier attempt left may belong to somebody else.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut writer = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writer.write_all(bytes)?;
    writer.sync_all()?;
    fs::rename(new, file)
}

/// The way to the authority. A request blocks, since nothing else happens on this thread.
struct Client(Agent);

impl Client {
    /// Trusts whom everybody trusts, or who signed for this authority alone.
    fn new(directory: &Path, acme: &Acme) -> Fetched<Self> {
        let roots = match &acme.ca {
            None => RootCerts::WebPki,
            Some(file) => {
                let pem =
                    fs::read(directory.join(file)).map_err(|error| format!("`{file}` cannot be read: {error}"))?;
                let items: Vec<_> = parse_pem(&pem).collect::<Result<_, _>>()?;
                let roots = items.into_iter().filter_map(|item| match item {
                    PemItem::Certificate(root) => Some(root),
                    _ => None,
                });
                RootCerts::from(roots)
            }
        };
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(roots)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .user_agent(concat!("edgeward/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self(config.into()))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let agent = self.0.clone();
        Box::pin(async move {
            let other = |error: ureq::Error| instant_acme::Error::Other(Box::new(error));
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let response = agent.run(Request::from_parts(head, &*body.to_bytes())).map_err(other)?;
            let (head, mut body) = response.into_parts();
            let body = body
                .with_config()
                .limit(RESPONSE_BYTES_MAX)
                .read_to_vec()
                .map_err(other)?;
            Ok(ureq::http::Response::from_parts(head, Full::new(Bytes::from(body))).into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_authority_has_an_account_of_its_own() {
        let check = |authority: &str, expected: &str| {
            assert_eq!(account_file(Path::new("acme"), authority), Path::new(expected));
        };
        check(
            "https://acme-v02.api.letsencrypt.org/directory",
            "acme/account-acme-v02.api.letsencrypt.org_directory.json",
        );
        check(
            "https://localhost:14000/../dir",
            "acme/account-localhost_14000_.._dir.json",
        );
    }

    #[test]
    fn pauses_become_longer() {
        let minutes = [0, 1, 2, 8, 9, 40].map(|failures| pause_after(failures).as_secs() / 60);
        assert_eq!(minutes, [1, 2, 4, 256, 360, 360]);
    }
}
