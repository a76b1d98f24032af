//! How does the process run? Sockets bound for every shard, a thread for each, and an orderly end.

use std::{
    collections::BTreeSet,
    io,
    net::UdpSocket,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use edgeward_core::{
    action::{ShardId, SocketId},
    config::SharedConfig,
};

use crate::{
    access::{self, writer::Writer},
    bind::{Bound, bind, bind_metrics},
    clock::Clock,
    mesh::Mesh,
    metrics,
    notify::{self, notify},
    process::Runtime,
    record::{Configuration, Recorder, Recording},
    signal::{self, Wish},
};

/// How long a stop may outlast its deadline: the core cuts what is left then, and this is for what it still says.
pub const CUT_GRACE: Duration = Duration::from_millis(100);

/// What may wait for the main thread, before whoever tells it waits.
const HAPPENINGS_MAX: usize = 64;

/// What a shard is started with.
#[derive(Debug)]
pub struct Start {
    /// What the administrator asked for.
    pub config: SharedConfig,
    /// Which shard it is.
    pub id: ShardId,
    /// How many there are.
    pub shards: u16,
    /// Where its random numbers come from.
    pub seed: [u8; 32],
    /// What writes down what it is told, where that is wanted.
    pub recorder: Option<Recorder>,
    /// What time it is.
    pub clock: Clock,
    /// For UDP.
    pub sockets: Vec<(SocketId, UdpSocket)>,
    /// The way to all shards.
    pub mesh: Mesh,
    /// Its part of the access log.
    pub access: access::Log,
}

/// A recording that is asked for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The file, which must not be there.
    pub(crate) file: &'a Path,
    /// How large it may become.
    pub(crate) bytes_max: u64,
    /// What the process begins with.
    pub(crate) configuration: Configuration,
}

impl Wanted<'_> {
    /// Begins it. Whoever calls is served with it or without.
    fn start(self) -> Option<Recording> {
        let (file, bytes_max) = (self.file.display(), self.bytes_max);
        match Recording::start(self.file, bytes_max, self.configuration) {
            Ok(recording) => {
                tracing::warn!(%file, bytes_max, "recording everything that comes in, with what people say and with secrets");
                Some(recording)
            }
            Err(error) => {
                let fix = "name a file that is not there yet, in a folder that this user may write to";
                tracing::error!(%file, %error, fix, "nothing is recorded");
                None
            }
        }
    }
}

/// What the main thread waits for.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A signal came.
    Wish(Wish),
    /// A shard has let go of everything that a drain waits for.
    Drained(ShardId),
    /// The thread of a shard has ended, however it did.
    Ended(ShardId),
}

/// Runs the edge until it is told to stop and has stopped. `reload` gives another configuration when a signal asks for
/// that, `ready` is called once it answers.
///
/// # Errors
/// What the administrator has to mend: each address that cannot be bound, or what the system refused.
pub(crate) fn serve(
    runtime: &Runtime,
    config: &SharedConfig,
    record: Option<Wanted<'_>>,
    mut reload: impl FnMut() -> Option<(SharedConfig, Configuration)>,
    ready: impl FnOnce(),
) -> Result<(), String> {
    let shards = config.server.workers.unwrap_or_else(cpus).max(1);
    (runtime.check)(shards)?;
    let descriptors = raise_descriptor_limit();
    let metrics = config.metrics.map(|metrics| bind_metrics(metrics.listen)).transpose();
    let (bound, metrics, (access, access_thread)) = match (bind(config, shards), metrics, Writer::start(config)) {
        (Ok(bound), Ok(metrics), Ok(writer)) => (bound, metrics, writer),
        (bound, metrics, writer) => {
            let refused = [bound.err(), metrics.err(), writer.err()];
            return Err(refused.into_iter().flatten().collect::<Vec<_>>().join("\n"));
        }
    };
    announce(config, shards, descriptors);
    let recording = record.and_then(Wanted::start);

    let (happened, happenings) = mpsc::sync_channel(HAPPENINGS_MAX);
    signal::watch(happened.clone()).map_err(|error| format!("no signals: {error}"))?;
    let clock = Clock::start();
    let (mesh, letters) = Mesh::new(shards, happened.clone());
    let threads = bound
        .into_iter()
        .zip(letters)
        .zip((0..).map(ShardId))
        .map(|((Bound { listeners, sockets }, letters), id)| {
            let start = Start {
                config: config.clone(),
                id,
                shards,
                seed: seed()?,
                recorder: recording
                    .as_ref()
                    .map(|recording| recording.recorder(id, shards, config)),
                clock,
                sockets,
                mesh: mesh.clone(),
                access: access::Log::new(config, access.clone()),
            };
            let ending = Ending(id, happened.clone());
            let run = runtime.run;
            let spawned = thread::Builder::new().name(format!("shard-{}", id.0)).spawn(move || {
                let _ending = ending;
                run(start, listeners, letters)
            });
            spawned.map_err(thread_error)
        })
        .collect::<Result<Vec<_>, String>>()?;
    let state = Arc::new(Mutex::new(metrics::State {
        config: config.clone(),
        is_draining: false,
    }));
    if let Some(listener) = metrics {
        metrics::serve(listener, mesh.clone(), state.clone()).map_err(thread_error)?;
    }
    tracing::info!("ready");
    notify(notify::READY);
    ready();

    let mut running: BTreeSet<ShardId> = (0..shards).map(ShardId).collect();
    for happening in &happenings {
        match happening {
            Happening::Wish(Wish::Stop) => break,
            Happening::Wish(Wish::Reload) => {
                notify(notify::RELOADING);
                if let Some((config, configuration)) = reload() {
                    access.configure(&config);
                    if let Some(recording) = &recording {
                        recording.configure(configuration);
                    }
                    mesh.configure(&config);
                    state.lock().unwrap_or_else(PoisonError::into_inner).config = config;
                    tracing::info!("the new configuration is in effect");
                }
                notify(notify::READY);
            }
            Happening::Wish(Wish::Reopen) => access.reopen(),
            // Its clients would find nobody: better that all are let go and whoever watches the process starts it again.
            Happening::Drained(shard) | Happening::Ended(shard) => {
                tracing::error!("a shard has ended, and the others with it");
                running.remove(&shard);
                break;
            }
        }
    }
    notify(notify::STOPPING);
    let shutdown = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_draining = true;
        state.config.server.shutdown
    };
    tracing::info!(within = ?shutdown, "stopping");
    mesh.drain(shutdown);
    wait_for_end(running, &happenings, &mesh);
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("a shard failed: {error}")),
            Err(_) => return Err("a shard failed by a fault of ours; its last words are above".into()),
        }
    }
    if let Some(recording) = recording {
        recording.end();
    }
    access.end(access_thread);
    tracing::info!("stopped");
    Ok(())
}

/// Until the last shard has ended. Their sockets close together: the kernel would share the clients of those that are
/// closed out anew, and calls would end up on a shard that does not know them.
fn wait_for_end(mut running: BTreeSet<ShardId>, happenings: &Receiver<Happening>, mesh: &Mesh) {
    let mut busy = running.clone();
    while !running.is_empty() {
        let Ok(happening) = happenings.recv() else { return };
        let shard = match happening {
            Happening::Wish(Wish::Stop) => {
                // Whoever tells us twice will not wait for those who are still connected.
                tracing::warn!("stopped without waiting any longer");
                std::process::exit(1);
            }
            Happening::Wish(_) => continue,
            Happening::Drained(shard) => shard,
            Happening::Ended(shard) => {
                running.remove(&shard);
                shard
            }
        };
        if busy.remove(&shard) && busy.is_empty() {
            mesh.close();
        }
    }
}

/// Tells when the thread of a shard ends, however it does.
struct Ending(ShardId, SyncSender<Happening>);

impl Drop for Ending {
    fn drop(&mut self) {
        let Self(shard, happened) = self;
        // Nobody waits for it where another one could not be started.
        let _ = happened.send(Happening::Ended(*shard));
    }
}

fn thread_error(error: io::Error) -> String {
    format!("cannot start a thread: {error}")
}

fn cpus() -> u16 {
    thread::available_parallelism().map_or(1, |cpus| u16::try_from(cpus.get()).unwrap_or(u16::MAX))
}

fn seed() -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    Ok(seed)
}

/// Raises the limit of open files to what the system allows, and returns it.
fn raise_descriptor_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files could not be raised");
        0
    })
}

/// Descriptors of one UC client in a call: two WebSockets, one of them with its tunnel, and a relay socket.
const DESCRIPTORS_PER_CLIENT: u64 = 4;

/// The start-up summary.
fn announce(config: &SharedConfig, shards: u16, descriptors: u64) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        shards,
        descriptors,
        clients = descriptors / DESCRIPTORS_PER_CLIENT,
        "starting; the limit of open files allows about this many clients",
    );
    for (at, offer) in config.tcp_listeners() {
        tracing::info!(%at, ?offer, "listening on TCP");
    }
    for at in config.turn_sockets() {
        tracing::info!(%at, "listening on UDP for TURN");
    }
    if let Some(sip) = &config.sip {
        tracing::info!(at = %sip.listen, advertise = %sip.advertise, "listening on UDP for SIP");
        for mediaserver in &sip.mediaservers {
            let addresses = mediaserver
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>();
            tracing::info!(
                path = mediaserver.path(),
                addresses = addresses.join(", "),
                "mediaserver"
            );
        }
    }
    if let Some(metrics) = &config.metrics {
        tracing::info!(at = %metrics.listen, "listening on TCP for questions about numbers and health");
    }
    if let Some(log) = &config.access_log {
        let to = log.file.as_deref().unwrap_or("standard output");
        tracing::info!(to, format = ?log.format, "access log");
    }
    if let Some(turn) = &config.turn {
        let (first, last) = (turn.relay_ports.start(), turn.relay_ports.end());
        for relay in &turn.relays {
            tracing::info!(bind = %relay.bind, advertise = %relay.advertise, first, last, "relay ports");
        }
    }
}
