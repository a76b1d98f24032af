//! What does a configuration depend on besides its text? It is written down as it is read, and given again at a replay.

use edgeward_core::{
    config::{Config, ConfigErrors, Keys, Sources},
    tls::Provider,
};

use super::entry::Configuration;

/// Sources that write down what they give.
pub(crate) struct Witness<S> {
    sources: S,
    files: Vec<(String, Result<Vec<u8>, String>)>,
    variables: Vec<(String, Option<String>)>,
}

impl<S: Sources> Witness<S> {
    /// Gives what these give.
    pub(crate) const fn new(sources: S) -> Self {
        Self {
            sources,
            files: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// All that was given for this configuration, which came of it.
    pub(crate) fn into_configuration(self, text: &str, config: &Config) -> Configuration {
        Configuration {
            text: text.to_owned(),
            files: self.files,
            variables: self.variables,
            nonce_key: config.keys.nonce,
            flow_keys: config.keys.flow.clone(),
        }
    }
}

impl<S: Sources> Sources for Witness<S> {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let given = self.sources.file(path);
        let kept = given.as_deref().map(without_private_keys);
        self.files.push((path.to_owned(), kept.map_err(Clone::clone)));
        given
    }

    fn env(&mut self, name: &str) -> Option<String> {
        let given = self.sources.env(name);
        self.variables.push((name.to_owned(), given.clone()));
        given
    }

    fn keys(&mut self, path: &str) -> Result<Keys, String> {
        self.sources.keys(path)
    }

    fn file_to_write(&mut self, path: &str) -> Result<(), String> {
        self.sources.file_to_write(path)
    }

    fn folder_to_write(&mut self, path: &str) -> Result<(), String> {
        self.sources.folder_to_write(path)
    }

    fn provider(&self) -> &Provider {
        self.sources.provider()
    }
}

/// What a private key becomes: it needs only look like one, since nothing is encrypted at a replay.
const NO_KEY: &str = "AAAA";

/// A file without what is within `-----BEGIN .. PRIVATE KEY-----` and its end (RFC 7468).
fn without_private_keys(bytes: &[u8]) -> Vec<u8> {
    let Ok(text) = str::from_utf8(bytes) else {
        return bytes.to_vec();
    };
    let mut kept = String::with_capacity(text.len());
    let mut is_key = false;
    for line in text.split_inclusive('\n') {
        let is_label = line.starts_with("-----") && line.contains("PRIVATE KEY-----");
        if is_key && !is_label {
            continue;
        }
        kept.push_str(line);
        if is_label {
            is_key = line.starts_with("-----BEGIN ");
            if is_key {
                kept.push_str(NO_KEY);
                kept.push('\n');
            }
        }
    }
    kept.into_bytes()
}

/// Makes a configuration again of what was written down.
///
/// # Errors
/// With everything that is wrong: another version may want another text.
pub(crate) fn parse(configuration: &Configuration, provider: &Provider) -> Result<Config, ConfigErrors> {
    let keys = Keys {
        nonce: configuration.nonce_key,
        flow: configuration.flow_keys.clone(),
    };
    let mut written = Written {
        configuration,
        keys: keys.clone(),
        provider,
    };
    Config::parse(&configuration.text, &mut written, keys)
}

/// Sources that give what was written down.
struct Written<'a> {
    configuration: &'a Configuration,
    keys: Keys,
    provider: &'a Provider,
}

impl Sources for Written<'_> {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let found = self.configuration.files.iter().find(|(name, _)| name == path);
        found.map_or_else(|| Err("nobody has asked for it".into()), |(_, given)| given.clone())
    }

    fn env(&mut self, name: &str) -> Option<String> {
        let found = self.configuration.variables.iter().find(|(asked, _)| asked == name);
        found.and_then(|(_, given)| given.clone())
    }

    fn keys(&mut self, _path: &str) -> Result<Keys, String> {
        Ok(self.keys.clone())
    }

    fn provider(&self) -> &Provider {
        self.provider
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_keys_are_left_out() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                String::from_utf8_lossy(&without_private_keys(text.as_bytes())),
                expected
            );
        };
        check("a secret in a file\n", "a secret in a file\n");
        check(
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        );
        check(
            "x\r\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabcd\n-----END RSA PRIVATE KEY-----\ny\n",
            "x\r\n-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\ny\n",
        );
        check(
            "-----BEGIN PRIVATE KEY-----\nMIIE without an end",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n",
        );
    }
}
