//! Does any text make a configuration, or errors that an administrator can find?

use std::sync::LazyLock;

use edgeward_core::{
    config::{Config, Keys, Sources},
    tls::{ClientTls, Provider},
};

/// Files and environment of a machine that has one certificate and one secret, whatever they are called.
#[derive(Debug)]
pub struct Machine {
    provider: Provider,
}

struct Certificate {
    chain: String,
    key: String,
}

static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["edge.example.org".to_owned()]).expect("a certificate");
    Certificate {
        chain: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    }
});

impl Machine {
    /// With the cryptography of the products.
    pub fn new() -> Self {
        Self {
            provider: Provider::new(rustls::crypto::aws_lc_rs::default_provider(), || None),
        }
    }

    /// A client that trusts the certificate.
    pub fn trust(&self, name: &str) -> ClientTls {
        ClientTls::new(&self.provider, CERTIFICATE.chain.as_bytes(), name).expect("a client")
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Sources for Machine {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let text = match path {
            "missing" => return Err("there is no such file".into()),
            name if name.contains("secret") => "a secret that is long enough",
            name if name.contains("key") => &CERTIFICATE.key,
            _ => &CERTIFICATE.chain,
        };
        Ok(text.as_bytes().to_vec())
    }

    fn env(&mut self, name: &str) -> Option<String> {
        name.contains("SECRET").then(|| "a secret that is long enough".into())
    }

    fn keys(&mut self, _: &str) -> Result<Keys, String> {
        Ok(keys())
    }

    fn provider(&self) -> &Provider {
        &self.provider
    }
}

/// Keys that are always the same.
pub fn keys() -> Keys {
    Keys {
        nonce: [1; 32],
        flow: vec![[2; 32]],
    }
}

/// The text of a configuration file.
pub fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Err(errors) = Config::parse(text, &mut Machine::new(), keys()) else {
        return;
    };
    assert!(!errors.0.is_empty(), "a refusal without a reason");
    let lines = text.lines().count().max(1);
    for error in &errors.0 {
        assert!((1..=lines).contains(&error.line), "line {} of {lines}", error.line);
    }
    assert!(!errors.display("edgeward.toml").is_empty());
}
