//! Is this text a configuration? If not: every error at once, each with its line and its remedy.

use crate::tls::Provider;

/// Where a configuration finds what it names: the caller does the reading.
pub trait Sources {
    /// The bytes of a file, or why they cannot be had.
    ///
    /// # Errors
    /// In words for the administrator.
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String>;

    /// A variable of the environment.
    fn env(&mut self, name: &str) -> Option<String>;

    /// The cryptography for certificates.
    fn provider(&self) -> &Provider;
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Line in the text, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub fix: String,
}

/// Everything that is wrong with a configuration, in the order of the lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);
