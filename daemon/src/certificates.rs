//! How do certificates follow their files? These are looked at every few seconds, and read again once they are at rest.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use edgeward_core::{
    config::{Https, SharedConfig},
    tls::Finding,
};

use crate::{
    cli::load::{self, KeyFile},
    clock::unix_time,
};

/// How often the files are looked at. A change is acted upon when the next look finds them as the last one did: whoever
/// replaces certificate and key needs a moment for both. While a certificate is being fetched, which may take minutes, there
/// is no look.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often an administrator is told of what is still wrong.
const REMINDER: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates of the running configuration, kept as new as their files.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    config: Arc<Mutex<SharedConfig>>,
}

/// What tells whether a file has changed; `None` where there is none.
type Stamp = Option<(u64, i64, i64, u64)>;

impl Watch {
    /// Reports on the certificates and watches their files from now on. `path` is that of the configuration.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(path: &Path, config: &SharedConfig) -> io::Result<Self> {
        let watch = Self {
            config: Arc::new(Mutex::new(config.clone())),
        };
        report(config);
        let (watched, path) = (watch.clone(), path.to_owned());
        thread::Builder::new()
            .name("certificates".into())
            .spawn(move || watched.run(&path))?;
        Ok(watch)
    }

    /// Another configuration runs now, with certificates that have just been read.
    pub(crate) fn follow(&self, config: &SharedConfig) {
        report(config);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
    }

    fn config(&self) -> SharedConfig {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn run(&self, path: &Path) {
        let mut config = self.config();
        let mut loaded = stamps(path, &config);
        let mut last = loaded.clone();
        let mut reported = Instant::now();
        #[cfg(feature = "acme")]
        let mut schedule = crate::acme::Schedule::default();
        loop {
            thread::sleep(INTERVAL);
            let current = self.config();
            if !Arc::ptr_eq(&config, &current) {
                config = current;
                loaded = stamps(path, &config);
                last.clone_from(&loaded);
                reported = Instant::now();
                #[cfg(feature = "acme")]
                {
                    schedule = crate::acme::Schedule::default();
                }
                continue;
            }
            #[cfg(feature = "acme")]
            if config.https.as_ref().is_some_and(|https| schedule.turn(path, https)) {
                loaded = stamps(path, &config);
                last.clone_from(&loaded);
                reload(path, &config);
            }
            let now = stamps(path, &config);
            let is_at_rest = now == last;
            last = now;
            if is_at_rest && last != loaded {
                loaded.clone_from(&last);
                reload(path, &config);
                reported = Instant::now();
            } else if reported.elapsed() >= REMINDER {
                report(&config);
                reported = Instant::now();
            }
        }
    }
}

fn reload(path: &Path, config: &SharedConfig) {
    let Some(https) = &config.https else { return };
    let reloaded = https.reload_certificates(&mut load::files(path, KeyFile::LeaveAlone), unix_time());
    for Finding { what, fix } in &reloaded.refused {
        tracing::error!(fix, "{what}; the one before it stays");
    }
    if reloaded.refused.is_empty() {
        tracing::info!(names = ?https.tls.names(), "the certificates have been read again");
    }
    warn(&reloaded.warnings);
}

fn report(config: &SharedConfig) {
    if let Some(https) = &config.https {
        warn(&https.findings(unix_time()));
    }
}

fn warn(findings: &[Finding]) {
    for Finding { what, fix } in findings {
        tracing::warn!(fix, "{what}");
    }
}

fn stamps(path: &Path, config: &SharedConfig) -> Vec<Stamp> {
    let directory = load::directory(path);
    let stamp = |file: PathBuf| {
        // A link is followed: certbot changes where it points to.
        let found = fs::metadata(file).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
    };
    let files = config.https.iter().flat_map(|https: &Https| &https.certificates);
    files
        .flat_map(|files| [Some(&files.cert), Some(&files.key), files.ocsp.as_ref()])
        .flatten()
        .map(|file| stamp(directory.join(file)))
        .collect()
}
