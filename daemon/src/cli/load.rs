//! How does a file become a configuration? The reading that the core leaves to us.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use edgeward_core::{
    config::{Config, ConfigErrors, Keys, Sources},
    tls::Provider,
};
use rustls::{crypto::aws_lc_rs, server::ProducesTickets};

use super::{keys, writable};
use crate::record::{Configuration, Witness};

/// What to do about a key file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFile {
    /// Make it, for the keys of this process and those after it.
    Make,
    /// Only look.
    LeaveAlone,
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    File(PathBuf, io::Error),
    /// The configuration wants what this binary was built without.
    NotBuilt(&'static str),
    /// The system gives no random numbers for keys.
    Random(getrandom::Error),
    /// The file says what it should not.
    Config(PathBuf, ConfigErrors),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => {
                let fix = match error.kind() {
                    io::ErrorKind::NotFound => "name the configuration with --config FILE",
                    io::ErrorKind::IsADirectory => "name the file in that folder",
                    io::ErrorKind::PermissionDenied => "let this user read it, or be another one",
                    io::ErrorKind::InvalidData => "write it as text in UTF-8",
                    _ => "look at the disk",
                };
                writeln!(f, "{}: cannot be read: {error}\n    fix: {fix}", path.display())
            }
            Self::NotBuilt(what) => writeln!(
                f,
                "{what} is not in this build\n    fix: build it with that feature, or remove it"
            ),
            Self::Random(error) => writeln!(f, "the system gives no random numbers: {error}"),
            Self::Config(path, errors) => f.write_str(&errors.display(&path.display().to_string())),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads a configuration and everything that it names.
///
/// # Errors
/// In words for the administrator, with everything that is wrong.
pub(crate) fn load(path: &Path, key_file: KeyFile) -> Result<Config, LoadError> {
    Ok(parse(path, &read(path)?, key_file, fresh_keys()?)?.0)
}

/// Keys for a process that names no file for them.
///
/// # Errors
/// When the system gives no random numbers.
pub(crate) fn fresh_keys() -> Result<Keys, LoadError> {
    keys::fresh().map_err(LoadError::Random)
}

/// The text of a configuration.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn read(path: &Path) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|error| LoadError::File(path.into(), error))
}

/// Makes a configuration of its text and everything that it names, and returns all of that as well. `keys` are those where
/// it names no file for them.
///
/// # Errors
/// In words for the administrator, with everything that is wrong.
pub(crate) fn parse(
    path: &Path,
    text: &str,
    key_file: KeyFile,
    keys: Keys,
) -> Result<(Config, Configuration), LoadError> {
    let mut sources = Witness::new(files(path, key_file));
    let parsed = Config::parse(text, &mut sources, keys);
    let mut config = parsed.map_err(|errors| LoadError::Config(path.into(), errors))?;
    if let Some(file) = config.access_log.as_mut().and_then(|log| log.file.as_mut()) {
        *file = directory(path).join(&*file).to_string_lossy().into_owned();
    }
    if cfg!(not(feature = "acme")) && config.https.as_ref().is_some_and(|https| https.acme.is_some()) {
        return Err(LoadError::NotBuilt("[https.acme]"));
    }
    let configuration = sources.into_configuration(text, &config);
    Ok((config, configuration))
}

/// What names of files in a configuration are relative to.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The files that a configuration names, and the environment.
pub(crate) fn files(path: &Path, key_file: KeyFile) -> impl Sources {
    Files {
        directory: directory(path).into(),
        key_file,
        provider: provider(),
    }
}

/// The cryptography of this binary: one for the whole process, so that TLS sessions outlive a configuration.
pub(crate) fn provider() -> Provider {
    static PROVIDER: OnceLock<Provider> = OnceLock::new();
    let made = PROVIDER.get_or_init(|| Provider::new(aws_lc_rs::default_provider(), tickets));
    made.clone()
}

/// What makes the tickets of this process. The first random number of the cryptography takes a tenth of a second, which a
/// start without TLS does not wait for.
fn tickets() -> Option<Arc<dyn ProducesTickets>> {
    static TICKETS: OnceLock<Option<Arc<dyn ProducesTickets>>> = OnceLock::new();
    // Without random numbers for tickets, nothing else will go well either.
    TICKETS.get_or_init(|| aws_lc_rs::Ticketer::new().ok()).clone()
}

/// The files and the environment of this process.
struct Files {
    /// What names of files are relative to.
    directory: PathBuf,
    key_file: KeyFile,
    provider: Provider,
}

impl Sources for Files {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        fs::read(self.directory.join(path)).map_err(|error| error.to_string())
    }

    fn env(&mut self, name: &str) -> Option<String> {
        env::var(name).ok()
    }

    fn keys(&mut self, path: &str) -> Result<Keys, String> {
        keys::load(&self.directory.join(path), self.key_file).map_err(|error| format!("`{path}`: {error}"))
    }

    fn file_to_write(&mut self, path: &str) -> Result<(), String> {
        writable::file(&self.directory.join(path)).map_err(|error| format!("`{path}`: {error}"))
    }

    fn folder_to_write(&mut self, path: &str) -> Result<(), String> {
        writable::folder(&self.directory.join(path)).map_err(|error| format!("`{path}`: {error}"))
    }

    fn provider(&self) -> &Provider {
        &self.provider
    }
}
