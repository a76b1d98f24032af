//! What does a binary do? Arguments in, exit code out; how a shard is run is all that a runtime adds.

use std::{io, net::TcpListener, process::ExitCode};

#[cfg(feature = "demo")]
use crate::demo;
use crate::{
    certificates, cli, log,
    mesh::Letters,
    reload,
    serve::{Start, serve},
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
        return fail(&error);
    }
    match &cli.command {
        cli::Command::Check(args) => cli::check(runtime.name, args),
        cli::Command::Run(args) => run(runtime, args),
        #[cfg(feature = "demo")]
        cli::Command::Demo(args) => show(runtime, args),
    }
}

/// `edgeward run`.
fn run(runtime: &Runtime, args: &cli::Config) -> ExitCode {
    let mut source = match reload::Source::open(args.config.clone()) {
        Ok(source) => source,
        Err(error) => return fail(&error.to_string()),
    };
    let config = source.config().clone();
    if cfg!(not(feature = "acme")) && config.https.as_ref().is_some_and(|https| https.acme.is_some()) {
        return fail("[https.acme] is not in this build: build it with the feature `acme`");
    }
    let watch = match certificates::Watch::start(&args.config, &config) {
        Ok(watch) => watch,
        Err(error) => return fail(&format!("cannot start a thread: {error}")),
    };
    let reload = || {
        let config = source.reload()?;
        watch.follow(&config);
        Some(config)
    };
    end(serve(runtime, &config, reload, || ()))
}

/// `edgeward demo`: the same edge, before a LAN of our own.
#[cfg(feature = "demo")]
fn show(runtime: &Runtime, args: &cli::Demo) -> ExitCode {
    let lan = match demo::Lan::start(args.into()) {
        Ok(lan) => lan,
        Err(error) => return fail(&format!("the LAN in the box cannot start: {error}")),
    };
    let keys = match cli::keys::fresh() {
        Ok(keys) => keys,
        Err(error) => return fail(&format!("the system gives no random numbers: {error}")),
    };
    match edgeward_core::config::Config::parse(&lan.config_text(), &mut lan.sources(cli::load::provider()), keys) {
        Ok(mut config) => {
            config.server.workers = args.workers;
            config.server.shutdown = demo::SHUTDOWN;
            let no_file = || {
                tracing::info!("a demonstration has no file to read again");
                None
            };
            end(serve(runtime, &config.into(), no_file, || cli::print(&lan.banner())))
        }
        Err(errors) => fail(&errors.display("the configuration of the demonstration")),
    }
}

fn end(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    use io::Write as _;
    // Where nobody reads standard error, the exit code still tells.
    let _ = writeln!(io::stderr(), "{}", error.trim_end());
    ExitCode::FAILURE
}
