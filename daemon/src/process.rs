//! What does a binary do? Arguments in, exit code out; how a shard is run is all that a runtime adds.

use std::{io, net::TcpListener, process::ExitCode};

#[cfg(feature = "demo")]
use crate::demo;
use crate::{
    certificates,
    cli::{self, LogFormat},
    log,
    mesh::Letters,
    reload, replay,
    serve::{Start, Wanted, serve},
};

/// How a binary runs shards.
#[derive(Debug, Clone, Copy)]
pub struct Runtime {
    /// Its name on the command line.
    pub name: &'static str,
    /// Whether this system lets it run so many shards; asked before anything is bound. What is in the way is told in
    /// words for the administrator.
    pub check: fn(shards: u16) -> Result<(), String>,
    /// Runs one shard on the thread that calls, until it is told to end and has ended. The listeners are in the order of
    /// their ids and do not block.
    pub run: fn(Start, Vec<TcpListener>, Letters) -> io::Result<()>,
}

/// The whole life of a process.
pub fn main(runtime: &Runtime) -> ExitCode {
    let cli = cli::parse(runtime.name);
    if let Err(error) = log::start(&cli.log) {
        return fail(LogFormat::Text, &error);
    }
    let result = match &cli.command {
        cli::Command::Check(args) => return cli::check(runtime.name, args),
        cli::Command::Replay(args) => return replay::replay(args),
        cli::Command::Run(args) => run(runtime, args),
        #[cfg(feature = "demo")]
        cli::Command::Demo(args) => show(runtime, args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(cli.log.format, &error),
    }
}

/// `edgeward run`. Errors are in words for the administrator, as all below.
fn run(runtime: &Runtime, args: &cli::Run) -> Result<(), String> {
    let path = &args.config.path;
    let mut source = reload::Source::open(path.clone()).map_err(|error| error.to_string())?;
    let config = source.config().clone();
    let watch = certificates::Watch::start(path, &config);
    let watch = watch.map_err(|error| format!("cannot start a thread: {error}"))?;
    let record = args.record.file.as_deref().map(|file| Wanted {
        file,
        bytes_max: args.record.bytes_max,
        configuration: source.configuration().clone(),
    });
    let reload = || {
        let config = source.reload()?;
        watch.follow(&config);
        Some((config, source.configuration().clone()))
    };
    serve(runtime, &config, record, reload, || ())
}

/// `edgeward demo`: the same edge, before a LAN of our own.
#[cfg(feature = "demo")]
fn show(runtime: &Runtime, args: &cli::Demo) -> Result<(), String> {
    let lan = demo::Lan::start(args).map_err(|error| format!("the LAN in the box cannot start: {error}"))?;
    let keys = cli::keys::fresh().map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let mut sources = lan.sources(cli::load::provider());
    let parsed = edgeward_core::config::Config::parse(&lan.config_text(), &mut sources, keys);
    let mut config = parsed.map_err(|errors| {
        // Nobody has the file that these are about.
        let whats: String = errors.0.iter().map(|error| format!("{}\n", error.what)).collect();
        format!(
            "{whats}    fix: choose other addresses or ports, see `{} demo --help`",
            runtime.name
        )
    })?;
    config.server.workers = args.workers;
    config.server.shutdown = demo::SHUTDOWN;
    let no_file = || {
        tracing::info!("a demonstration has no file to read again");
        None
    };
    serve(runtime, &config.into(), None, no_file, || cli::print(&lan.banner()))
}

/// Tells why there is no edge: to people as it is, to machines as a line like all others.
fn fail(format: LogFormat, error: &str) -> ExitCode {
    use io::Write as _;
    let error = error.trim_end();
    match format {
        LogFormat::Json => tracing::error!("{error}"),
        // Where nobody reads standard error, the exit code still tells.
        LogFormat::Text => drop(writeln!(io::stderr(), "{error}")),
    }
    ExitCode::FAILURE
}
