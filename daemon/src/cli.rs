//! What can be asked of the binary on the command line?

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

mod firewall;
pub(crate) mod keys;
pub(crate) mod load;
mod summary;
mod writable;

/// The edge of a telephony system: one process between browsers outside and the LAN.
///
/// It forwards the web pages of a UC server, carries SIP from WebSockets to mediaservers by UDP, and relays media as a
/// TURN server. Each of the three is a role that the configuration turns on; one host can have all, or one each.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, disable_help_subcommand = true, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: Log,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the edge until it is told to stop.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),

    /// Tell the shards again what `run --record` wrote down, and print what they do.
    ///
    /// Nothing is sent and nothing is listened to: what was recorded goes through the same core, which does the same
    /// again. Exits with 1 when it does not, or when the recording cannot be read to its end.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Replay),

    /// Tell everything that is wrong with a configuration, or what would run.
    ///
    /// Exits with 1 and every error at once, each with its line and its remedy; or with 0, the addresses, routes and
    /// peers in effect, and the flows that the firewalls have to let through. Nothing is started and no file is made.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(ConfigFile),

    /// Run an edge with a LAN in a box behind it: a web page to call from and a mediaserver that answers.
    ///
    /// Nothing has to be configured. It prints the address of the page and who may log in; a call echoes what it hears.
    #[cfg(feature = "demo")]
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration, a TOML file; names of files in it are relative to it.
    #[arg(long = "config", short = 'c', value_name = "FILE", default_value = "edgeward.toml")]
    pub(crate) path: PathBuf,
}

/// How to run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) config: ConfigFile,

    #[command(flatten)]
    pub(crate) record: Record,
}

/// What is written down.
#[derive(Debug, Args)]
#[command(next_help_heading = "Recording")]
pub(crate) struct Record {
    /// Write all that comes in to a new file, for `replay`: what people say, and secrets of the configuration.
    #[arg(long = "record", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// How large that file may become; nothing more is recorded then.
    #[arg(long = "record-bytes-max", value_name = "SIZE", default_value = "64MiB", value_parser = size, requires = "file")]
    pub(crate) bytes_max: u64,
}

/// What to replay, and what to print of it.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// What `run --record` wrote.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Print what is different and the numbers at the end only.
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Print from this second on.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, hide_default_value = true)]
    pub(crate) from: f64,

    /// Print to this second.
    #[arg(long, value_name = "SECONDS", default_value_t = f64::INFINITY, hide_default_value = true)]
    pub(crate) to: f64,
}

/// What the demonstration may be told.
#[cfg(feature = "demo")]
#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// The address for browsers: HTTPS, TURN and relays. One that other machines reach lets them call too.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", value_parser = address)]
    pub(crate) address: std::net::IpAddr,

    /// TCP port for HTTPS, SIP over WebSocket and TURN over TLS.
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = port())]
    pub(crate) https_port: u16,

    /// UDP and TCP port for TURN.
    #[arg(long, value_name = "PORT", default_value_t = 3478, value_parser = port())]
    pub(crate) turn_port: u16,

    /// UDP port for SIP with the mediaserver.
    #[arg(long, value_name = "PORT", default_value_t = 5060, value_parser = port())]
    pub(crate) sip_port: u16,

    /// UDP ports for relayed media.
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-39999", value_parser = ports)]
    pub(crate) relay_ports: std::ops::RangeInclusive<u16>,

    /// UDP ports for the media of the mediaserver.
    #[arg(long, value_name = "FIRST-LAST", default_value = "10000-20000", value_parser = ports)]
    pub(crate) media_ports: std::ops::RangeInclusive<u16>,

    /// Threads; one for each CPU when it is not said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
}

/// What is logged, to standard error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct Log {
    /// What to log: error, warn, info, debug or trace, for all or by module like `info,edgeward_core::sip=debug`.
    #[arg(long = "log", value_name = "FILTER", default_value = "info", global = true)]
    pub(crate) filter: String,

    /// How a line of the log looks.
    #[arg(long = "log-format", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub(crate) format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Reads the command line; on `--help`, `--version` and mistakes it prints and ends the process.
pub(crate) fn parse(name: &'static str) -> Cli {
    let with_name = |command: clap::Command| {
        let help = command
            .get_after_help()
            .map(|help| help.to_string().replace("{name}", name));
        command.after_help(help.unwrap_or_default())
    };
    let command = with_name(Cli::command().name(name)).mut_subcommands(with_name);
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// `edgeward check`: prints every error, or what would run.
pub(crate) fn check(name: &str, args: &ConfigFile) -> ExitCode {
    match load::load(&args.path, load::KeyFile::LeaveAlone) {
        Ok(config) => {
            let whose = match rustix::process::geteuid().is_root() {
                true => "Checked as root: the user of the service must be able to read and write the same files.\n",
                false => "",
            };
            print(&format!(
                "{file} is good. {whose}What `{name} run --config {file}` serves:\n\n{}\n{}",
                summary::summary(&config),
                firewall::flows(&config),
                file = args.path.display(),
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn print(text: &str) {
    // Whoever reads the output may stop to; that is no error of ours.
    let _ = io::stdout().write_all(text.as_bytes());
}

fn size(text: &str) -> Result<u64, &'static str> {
    const HINT: &str = "write it like 64MiB or 1GiB";
    let digits = text.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(HINT),
    };
    let count = text[..digits].parse::<u64>().map_err(|_| HINT)?;
    count.checked_mul(unit).ok_or(HINT)
}

#[cfg(feature = "demo")]
fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

#[cfg(feature = "demo")]
fn address(text: &str) -> Result<std::net::IpAddr, &'static str> {
    let address = text.parse::<std::net::IpAddr>().ok();
    address
        .filter(|address| !address.is_unspecified() && !address.is_multicast())
        .ok_or("write one address of this machine that browsers reach, like 192.168.1.20")
}

#[cfg(feature = "demo")]
fn ports(text: &str) -> Result<std::ops::RangeInclusive<u16>, &'static str> {
    let (first, last) = text.split_once('-').ok_or("write it like 30000-39999")?;
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if (1..=last).contains(&first) => Ok(first..=last),
        _ => Err("write it like 30000-39999"),
    }
}

#[cfg(feature = "demo")]
const EXAMPLES: &str = "\
Examples:
  {name} demo                                         try it: open the page it prints, and call
  {name} check --config /etc/edgeward/edgeward.toml   before each restart
  {name} run --config /etc/edgeward/edgeward.toml

A first configuration is examples/edgeward.toml, which a package puts into
/usr/share/doc/edgeward/examples. `{name} COMMAND --help` tells more.";

#[cfg(not(feature = "demo"))]
const EXAMPLES: &str = "\
Examples:
  {name} check --config /etc/edgeward/edgeward.toml
  {name} run --config /etc/edgeward/edgeward.toml

A first configuration is examples/edgeward.toml, which a package puts into
/usr/share/doc/edgeward/examples. `{name} COMMAND --help` tells more.";

const RUN_EXAMPLES: &str = "\
Signals:
  HUP         read the configuration again, and the files that it names;
              connections, calls and relays stay; a wrong configuration
              changes nothing; what needs a restart is named in the log
  USR1        open the file of the access log anew, for logrotate
  TERM, INT   stop: nothing new is taken; what goes on has [server]
              shutdown_secs to end; a second one ends it at once

Environment:
  NOTIFY_SOCKET   systemd is told here when it is ready, reloads and stops
  ASSETS_BURST    assets_burst of [web], where that is not written;
                  and what { env = \"NAME\" } in the configuration names

Recording:
  The file of --record is for its owner alone, and must not be there before.
  It holds what everybody says, decrypted, and the configuration with its
  secrets. Private keys are left out; passwords, cookies and tokens in HTTP
  and SIP are too, but tokens that [token] has the edge check itself, what
  is compressed, and what no name stands before. Nobody waits for the disk.

Rights:
  Ports below 1024 need CAP_NET_BIND_SERVICE; nothing needs root.

Examples:
  {name} run --config /etc/edgeward/edgeward.toml
  {name} run --log debug --log-format json
  {name} run --record /var/tmp/edge.rec --record-bytes-max 1GiB";

const REPLAY_EXAMPLES: &str = "\
The trace:
  Each line that begins with a time is something that a shard was told, in
  seconds since the recording began and with the number of the shard. What
  it did is below, after `->`. The log, on standard error, is the core's own.

Examples:
  {name} replay edge.rec
  {name} replay edge.rec --from 12 --to 13.5
  {name} replay edge.rec --quiet && echo the same again
  {name} replay edge.rec --log edgeward_core=debug";

const CHECK_EXAMPLES: &str = "\
Examples:
  {name} check --config /etc/edgeward/edgeward.toml
  {name} check -c /etc/edgeward/edgeward.toml && systemctl restart edgeward";

#[cfg(feature = "demo")]
const DEMO_EXAMPLES: &str = "\
Examples:
  {name} demo                          for a browser on this machine
  {name} demo --address 192.168.1.20   for every browser in the network";
