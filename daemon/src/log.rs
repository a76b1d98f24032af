//! Where do log lines go? To standard error, one a line, as the command line says; refusals always, but not too many.

use tracing::{Event, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use self::refusals::Refusals;
use crate::cli::{Log, LogFormat};

mod refusals;

pub(crate) use refusals::left_out;

/// Starts the log.
///
/// # Errors
/// When the filter is none, in words for the administrator.
pub(crate) fn start(args: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.filter).map_err(|error| {
        format!("--log {}: {error}\n    fix: a level like `debug`, or levels by module like `info,edgeward_core::sip=debug`", args.filter)
    })?;
    let lines = Lines {
        filter,
        refusals: Refusals::default(),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(lines);
    match args.format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(layer.with_ansi(is_terminal)).init();
        }
        LogFormat::Json => registry.with(layer.json()).init(),
    }
    Ok(())
}

/// What becomes a line: what the command line wants, and refusals.
struct Lines {
    filter: EnvFilter,
    refusals: Refusals,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match refusals::is_one(metadata) {
            true => Interest::always(),
            false => Layer::<S>::register_callsite(&self.filter, metadata),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, cx: Context<'_, S>) -> bool {
        refusals::is_one(metadata) || self.filter.enabled(metadata, cx)
    }

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        !refusals::is_one(event.metadata()) || self.refusals.admit(event)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Layer::<S>::max_level_hint(&self.filter).map(|level| level.max(LevelFilter::INFO))
    }
}
