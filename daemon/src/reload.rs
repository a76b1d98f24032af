//! How does a running edge get another configuration? The same file is read again, and a wrong one changes nothing.

use std::{path::PathBuf, sync::Arc};

use edgeward_core::config::{Config, SharedConfig, changes};

use crate::{
    cli::load::{self, KeyFile, LoadError},
    record::Configuration,
};

/// Where the configuration comes from, and what was read there last.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    config: SharedConfig,
    configuration: Configuration,
}

impl Source {
    /// Reads a configuration for the first time.
    ///
    /// # Errors
    /// In words for the administrator, with everything that is wrong.
    pub(crate) fn open(path: PathBuf) -> Result<Self, LoadError> {
        let text = load::read(&path)?;
        let (config, configuration) = load::parse(&path, &text, KeyFile::Make, load::fresh_keys()?)?;
        Ok(Self {
            path,
            config: Arc::new(config),
            configuration,
        })
    }

    /// The configuration that was read last.
    pub(crate) fn config(&self) -> &SharedConfig {
        &self.config
    }

    /// That, and all that it named, as it was read.
    pub(crate) const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Reads it again, and everything that it names; returns it where it can be gone on with. The log says what has
    /// changed, or all that is wrong.
    pub(crate) fn reload(&mut self) -> Option<SharedConfig> {
        match self.read_again() {
            Ok((config, configuration)) => {
                let fixed = self.config.fixed_differences(&config);
                if !fixed.is_empty() {
                    tracing::error!(
                        restart = fixed.join(", "),
                        "these need a restart; the old configuration stays"
                    );
                    return None;
                }
                let changed = changes(&self.configuration.text, &configuration.text).join(", ");
                tracing::info!(file = %self.path.display(), changed, "the configuration is read again, and what it names");
                (self.config, self.configuration) = (Arc::new(config), configuration);
                Some(self.config.clone())
            }
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("the new configuration is wrong; the old one stays");
                None
            }
        }
    }

    fn read_again(&self) -> Result<(Config, Configuration), LoadError> {
        let text = load::read(&self.path)?;
        // Tokens and nonces of this process stay good.
        load::parse(&self.path, &text, KeyFile::Make, self.config.keys.clone())
    }
}
