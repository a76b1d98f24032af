//! Where do log lines go? To standard error, one a line, as the command line says.

use tracing_subscriber::EnvFilter;

use crate::cli::{Log, LogFormat};

/// Starts the log.
///
/// # Errors
/// When the filter is none, in words for the administrator.
pub(crate) fn start(args: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.filter).map_err(|error| {
        format!("--log {}: {error}\n    fix: a level like `debug`, or levels by module like `info,edgeward_core::sip=debug`", args.filter)
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.format {
        LogFormat::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
