//! The binary `edgeward`: arguments in, exit code out.

use std::process::ExitCode;

use edgeward_core::config::SharedConfig;

mod access;
#[cfg(feature = "acme")]
mod acme;
mod certificates;
mod cli;
#[cfg(feature = "demo")]
mod demo;
mod dial;
mod log;
mod mesh;
mod metrics;
mod notify;
mod relay;
mod reload;
mod serve;
mod shard;
mod signal;
mod stream;
mod udp;

fn main() -> ExitCode {
    let cli = cli::parse();
    if let Err(error) = log::start(&cli.log) {
        return fail(&error);
    }
    match &cli.command {
        cli::Command::Check(args) => cli::check(args),
        cli::Command::Run(args) => run(args),
        #[cfg(feature = "demo")]
        cli::Command::Demo(args) => show(args),
    }
}

/// `edgeward run`.
fn run(args: &cli::Config) -> ExitCode {
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
    serve(&config, reload, || ())
}

/// `edgeward demo`: the same edge, before a LAN of our own.
#[cfg(feature = "demo")]
fn show(args: &cli::Demo) -> ExitCode {
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
            serve(&config.into(), no_file, || cli::print(&lan.banner()))
        }
        Err(errors) => fail(&errors.display("the configuration of the demonstration")),
    }
}

fn serve(config: &SharedConfig, reload: impl FnMut() -> Option<SharedConfig>, ready: impl FnOnce()) -> ExitCode {
    match serve::serve(config, reload, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    use std::io::Write as _;
    // Where nobody reads standard error, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{}", error.trim_end());
    ExitCode::FAILURE
}
