//! What did the shards of a recording do? They are told everything again, in the order in which it happened, and do it
//! again.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, BufReader, BufWriter, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use edgeward_core::{
    Shard,
    action::{Action, Conn, ConnId, Egress, Input, ListenerId, Parcel, RelayId, Run, ShardId},
    config::SharedConfig,
    stats::Snapshot,
    time::{Instant, Now, UnixTime},
    tls::Provider,
};

use crate::{
    cli,
    record::{Digest, End, Entry, Event, Happened, Heard, ReadError, Reader, key, parse},
};

mod describe;
mod no_keys;

/// Parcels that are on their way between shards; a runtime loses some.
const PARCELS_MAX: usize = 65_536;

/// `edgeward replay`.
pub(crate) fn replay(args: &cli::Replay) -> ExitCode {
    let file = args.file.display();
    let opened = File::open(&args.file).map_err(ReadError::Io);
    let mut reader = match opened.and_then(|file| Reader::new(BufReader::new(file))) {
        Ok(reader) => reader,
        Err(error) => {
            tell(&format!("{file}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut replay = Replay::new(args);
    let result = replay.run(&mut reader);
    // Whoever reads the output may stop to; that is no error of ours.
    let _ = replay.print.to.write_all(replay.summary().as_bytes());
    let _ = replay.print.to.flush();
    match result {
        Ok(()) => {
            cli::print("Each shard did the same again.\n");
            ExitCode::SUCCESS
        }
        Err(why) => {
            tell(&format!("{file}: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Says why the replay is not what was recorded.
fn tell(why: &str) {
    // Where nobody reads standard error, the exit code still tells.
    let _ = writeln!(io::stderr(), "{why}");
}

/// A process as it goes through its recording.
struct Replay {
    provider: Provider,
    /// The last configuration of the recording.
    config: Option<SharedConfig>,
    shards: BTreeMap<u16, Replayed>,
    /// What shards have given away, and nobody has taken in yet.
    parcels: VecDeque<(ShardId, Parcel)>,
    inputs: u64,
    print: Print,
}

/// A shard of it.
struct Replayed {
    shard: Shard,
    digest: Digest,
    /// What it has asked for and its runtime had not looked at yet: what the digest takes of it.
    asked: VecDeque<String>,
}

/// What is printed, and where.
struct Print {
    to: BufWriter<io::Stdout>,
    is_quiet: bool,
    /// Seconds of the recording.
    from: f64,
    until: f64,
    /// When the recording begins and how far it has come.
    first: Option<u64>,
    last: u64,
}

impl Print {
    /// Seconds since the beginning.
    fn seconds(&self) -> f64 {
        Duration::from_nanos(self.last.saturating_sub(self.first.unwrap_or(self.last))).as_secs_f64()
    }

    /// One input and what came of it; without an input, more that came of the one before.
    fn lines(&mut self, shard: u16, input: Option<&str>, outcome: &[String]) {
        let at = self.seconds();
        if self.is_quiet || at < self.from || at > self.until {
            return;
        }
        if let Some(input) = input {
            let _ = writeln!(self.to, "{at:>12.6} {shard:>2}  {input}");
        }
        for line in outcome {
            let _ = writeln!(self.to, "{:>15}    -> {line}", "");
        }
    }
}

impl Replay {
    fn new(args: &cli::Replay) -> Self {
        Self {
            provider: no_keys::provider(),
            config: None,
            shards: BTreeMap::new(),
            parcels: VecDeque::new(),
            inputs: 0,
            print: Print {
                to: BufWriter::new(io::stdout()),
                is_quiet: args.quiet,
                from: args.from,
                until: args.to,
                first: None,
                last: 0,
            },
        }
    }

    /// Goes through all of it.
    ///
    /// # Errors
    /// In words: where it cannot be read on, or a shard does something else.
    fn run(&mut self, reader: &mut Reader<BufReader<File>>) -> Result<(), String> {
        while let Some(entry) = reader.next().map_err(|error| error.to_string())? {
            match entry {
                Entry::Process(process) if process.version != env!("CARGO_PKG_VERSION") => tell(&format!(
                    "recorded by version {}, and this is {}: it may do otherwise",
                    process.version,
                    env!("CARGO_PKG_VERSION")
                )),
                Entry::Process(_) => {}
                Entry::Configuration(configuration) => {
                    let config = parse(&configuration, &self.provider).map_err(|errors| {
                        format!("its configuration is none here:\n{}", errors.display("configuration"))
                    })?;
                    self.config = Some(Arc::new(config));
                }
                Entry::Happened(happened) => self.happened(*happened)?,
                Entry::End(End::Stopped) => {}
                Entry::End(End::Full) => tell("the recording was full here; the process went on"),
                Entry::End(End::Slow) => tell("the disk was too slow here to record more; the process went on"),
            }
        }
        Ok(())
    }

    /// Tells a shard something again.
    fn happened(&mut self, happened: Happened) -> Result<(), String> {
        const NO_SENSE: &str = "the recording makes no sense here";
        let Happened {
            shard: number,
            mono,
            unix,
            polled,
            digest,
            event,
            heard,
        } = happened;
        self.inputs += 1;
        self.print.first.get_or_insert(mono);
        self.print.last = mono;
        let now = Now {
            mono: Instant::from_nanos(mono),
            unix: UnixTime(unix),
        };
        let config = self.config.clone().ok_or(NO_SENSE)?;
        if let Event::Start { shards, seed } = event {
            let replayed = Replayed {
                shard: Shard::new(config, ShardId(number), shards, seed, now),
                digest: Digest::default(),
                asked: VecDeque::new(),
            };
            self.shards.insert(number, replayed);
            let outcome = self.look(number);
            self.print.lines(number, Some("begins"), &outcome);
            return Ok(());
        }
        let parcel = match event {
            Event::Parcel(wanted) => Some(self.take(|to, parcel| to.0 == number && Digest::parcel(parcel) == wanted)),
            Event::Adopt { local, peer } => {
                let is = |conn: &Conn| conn.ends() == (local, peer);
                Some(self.take(|to, parcel| matches!(parcel, Parcel::Conn(_, conn) if to.0 == number && is(conn))))
            }
            _ => None,
        };
        let parcel = match parcel {
            Some(None) => {
                return Err(self.diverged(number, "something comes from another shard, which has not sent it"));
            }
            parcel => parcel.flatten(),
        };
        let replayed = self.shards.get_mut(&number).ok_or(NO_SENSE)?;
        for _ in 0..polled {
            match replayed.asked.pop_front() {
                Some(action) => replayed.digest.action(&action),
                None => return Err(self.diverged(number, "it asked for more")),
            }
        }
        if replayed.digest.value() != digest {
            return Err(self.diverged(number, "it did something else"));
        }
        let is_quiet = describe::is_quiet(&event);
        let line = describe::event(&event, &heard);
        let mut outcome = replayed.tell(now, event, heard, parcel, config);
        outcome.extend(self.look(number));
        if !(is_quiet && outcome.is_empty()) {
            self.print.lines(number, line.as_deref(), &outcome);
        }
        Ok(())
    }

    /// What a shard asks for now, in words; what is for other shards is kept for them.
    fn look(&mut self, number: u16) -> Vec<String> {
        let Some(replayed) = self.shards.get_mut(&number) else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        while let Some(action) = replayed.shard.poll_action() {
            lines.extend(describe::action(&action));
            replayed.asked.push_back(Digest::text(&action));
            if let Action::Forward { to, parcel } = action {
                if self.parcels.len() == PARCELS_MAX {
                    self.parcels.pop_front();
                }
                self.parcels.push_back((to, parcel));
            }
        }
        lines
    }

    /// Takes a parcel that is on its way.
    fn take(&mut self, is_it: impl Fn(ShardId, &Parcel) -> bool) -> Option<Parcel> {
        let place = self.parcels.iter().position(|(to, parcel)| is_it(*to, parcel))?;
        self.parcels.remove(place).map(|(_, parcel)| parcel)
    }

    fn diverged(&self, shard: u16, what: &str) -> String {
        format!(
            "after input {} of the recording, at {:.6} s, shard {shard} does otherwise here than it did: {what}",
            self.inputs - 1,
            self.print.seconds()
        )
    }

    /// What there was in all.
    fn summary(&self) -> String {
        let mut all = Snapshot::default();
        for replayed in self.shards.values() {
            all.add(&replayed.shard.snapshot());
        }
        let numbers = all.counters.iter().chain(&all.gauges).filter(|sample| sample.value > 0);
        let numbers: String = numbers
            .map(|sample| format!("{:>12} {}\n", sample.value, sample.help))
            .collect();
        format!(
            "\n{} inputs of {} shards over {:.6} s\n{numbers}",
            self.inputs,
            self.shards.len(),
            self.print.seconds()
        )
    }
}

impl Replayed {
    /// Tells the shard, and returns in words what it sends at once.
    fn tell(
        &mut self,
        now: Now,
        event: Event,
        heard: Vec<Heard>,
        parcel: Option<Parcel>,
        config: SharedConfig,
    ) -> Vec<String> {
        let Self { shard, digest, .. } = self;
        shard.read_transcript(heard.into_iter().map(Into::into));
        let mut out = Egress::default();
        let mut lines = Vec::new();
        let mut trains = Vec::new();
        match event {
            Event::Accept { on, local, peer } => {
                let result = shard.accept(now, ListenerId(on), local, peer);
                digest.accepted(result);
                lines.push(describe::accepted(result));
            }
            Event::AcceptPeer { on, local, peer } => {
                let result = shard.accept_peer(now, RelayId(key(on)), local, peer, &mut out);
                digest.accepted(result);
                lines.push(describe::accepted(result));
            }
            Event::Adopt { .. } => {
                if let Some(Parcel::Conn(_, conn)) = parcel {
                    let result = shard.adopt(now, conn);
                    digest.accepted(result);
                    lines.push(describe::accepted(result));
                }
            }
            Event::Resume(conn) => shard.resume(now, ConnId(key(conn)), &mut out),
            Event::Receive { conn, mut bytes } => shard.receive(now, ConnId(key(conn)), &mut bytes, &mut out),
            Event::Datagrams { on, runs } => {
                trains = runs;
                let runs: Vec<Run<'_>> = trains.iter().map(Run::from).collect();
                shard.datagrams(now, on.into(), &runs, &mut out);
            }
            Event::Timeout => shard.timeout(now, &mut out),
            Event::TakeOutput(conn) => {
                let conn = ConnId(key(conn));
                let output = shard.take_output(conn);
                digest.output(conn, output.as_ref());
                lines.extend(output.map(|bytes| describe::output(conn, &bytes)));
            }
            Event::Parcel(_) => {
                if let Some(parcel) = parcel {
                    shard.handle(now, Input::Parcel(parcel), &mut out);
                }
            }
            Event::Configure => shard.handle(now, Input::Configure(config), &mut out),
            _ => {
                if let Some(input) = event.input() {
                    shard.handle(now, input, &mut out);
                }
            }
        }
        let runs: Vec<Run<'_>> = trains.iter().map(Run::from).collect();
        digest.egress(&out, 0, &runs);
        lines.extend(describe::egress(&out, &runs));
        lines
    }
}
