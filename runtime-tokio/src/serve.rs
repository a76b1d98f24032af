//! How does the process run? Sockets bound for every shard, a thread for each, and an orderly end.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use edgeward_core::{
    action::{ListenerId, ShardId, SocketId},
    config::SharedConfig,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    sync::{Barrier, Notify, mpsc, watch},
    task::LocalSet,
};

use crate::{
    access::writer::Writer,
    mesh::{self, Letter, Mesh},
    metrics,
    notify::{self, notify},
    shard::{self, Clock, Driver, SharedDriver, Start},
    signal::{self, Wish},
    udp,
};

/// TCP connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long a stop may outlast its deadline.
const CUT_GRACE: Duration = Duration::from_millis(100);

/// After an accept that failed for want of descriptors, others may have been closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All sockets of one shard that exist from the start.
struct Bound {
    listeners: Vec<TcpListener>,
    sockets: Vec<(SocketId, UdpSocket)>,
}

/// Runs the edge until it is told to stop and has stopped. `reload` gives another configuration when a signal asks for
/// that, `ready` is called once it answers.
///
/// # Errors
/// What the administrator has to mend: each address that cannot be bound, or what the system refused.
pub(crate) fn serve(
    config: &SharedConfig,
    mut reload: impl FnMut() -> Option<SharedConfig>,
    ready: impl FnOnce(),
) -> Result<(), String> {
    let shards = config.server.workers.unwrap_or_else(cpus).max(1);
    let descriptors = raise_descriptor_limit();
    let bound = bind(config, shards)?;
    let metrics = config.metrics.map(|metrics| bind_metrics(metrics.listen)).transpose()?;
    let (access, access_thread) = Writer::start(config)?;
    announce(config, shards, descriptors);

    let runtime = runtime().map_err(|error| format!("cannot start: {error}"))?;
    let mut signals = runtime
        .block_on(async { signal::Signals::new() })
        .map_err(|error| format!("no signals: {error}"))?;
    let clock = Clock::start();
    let (mesh, letters) = Mesh::new(shards);
    let bell = Arc::new(Notify::new());
    let last = Arc::new(Barrier::new(usize::from(shards)));
    let threads = bound
        .into_iter()
        .zip(letters)
        .zip(0..)
        .map(|((bound, letters), number)| {
            let start = Start {
                config: config.clone(),
                id: ShardId(number),
                shards,
                seed: seed()?,
                clock,
                sockets: bound.sockets,
                mesh: mesh.clone(),
                access: access.clone(),
            };
            let ending = Ending(bell.clone());
            let last = last.clone();
            let spawned = thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
                let _ending = ending;
                run_shard(start, bound.listeners, letters, &last)
            });
            spawned.map_err(|error| format!("cannot start a thread: {error}"))
        })
        .collect::<Result<Vec<_>, String>>()?;
    let (state, state_seen) = watch::channel(metrics::State {
        config: config.clone(),
        is_draining: false,
    });
    if let Some(listener) = metrics {
        runtime.spawn(metrics::serve(listener, mesh.clone(), state_seen));
    }
    tracing::info!("ready");
    notify(notify::READY);
    ready();

    runtime.block_on(async {
        loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Stop => break,
                    Wish::Reload => {
                        notify(notify::RELOADING);
                        if let Some(config) = reload() {
                            access.configure(&config);
                            mesh.configure(&config).await;
                            state.send_modify(|state| state.config = config);
                            tracing::info!("the new configuration is in effect");
                        }
                        notify(notify::READY);
                    }
                    Wish::Reopen => access.reopen(),
                },
                // Its clients would find nobody: better that all are let go and whoever watches the process starts it again.
                () = bell.notified() => {
                    tracing::error!("a shard has ended, and the others with it");
                    break;
                }
            }
        }
        notify(notify::STOPPING);
        state.send_modify(|state| state.is_draining = true);
        let shutdown = state.borrow().config.server.shutdown;
        tracing::info!(within = ?shutdown, "stopping");
        mesh.drain(shutdown).await;
    });
    end_at_next_signal(runtime, signals);
    drop(access);
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("a shard failed: {error}")),
            Err(_) => return Err("a shard failed by a fault of ours; its last words are above".into()),
        }
    }
    // The lines of all shards are written.
    let _ = access_thread.join();
    tracing::info!("stopped");
    Ok(())
}

/// Whoever tells us twice to stop will not wait for those who are still connected.
fn end_at_next_signal(runtime: tokio::runtime::Runtime, mut signals: signal::Signals) {
    thread::spawn(move || {
        runtime.block_on(signals.stop());
        tracing::warn!("stopped without waiting any longer");
        std::process::exit(1);
    });
}

/// Rings when the thread of a shard ends, however it does.
struct Ending(Arc<Notify>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// The thread of one shard: everything that happens on it is a task of one runtime.
fn run_shard(
    start: Start,
    listeners: Vec<TcpListener>,
    letters: mpsc::Receiver<Letter>,
    last: &Barrier,
) -> io::Result<()> {
    LocalSet::new().block_on(&runtime()?, live(start, listeners, letters, last))
}

async fn live(
    start: Start,
    listeners: Vec<TcpListener>,
    mut letters: mpsc::Receiver<Letter>,
    last: &Barrier,
) -> io::Result<()> {
    let driver = Driver::start(start)?;
    let mut accepting = Vec::new();
    for (number, listener) in (0..).zip(listeners) {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.push(tokio::task::spawn_local(accept(driver.clone(), ListenerId(number), listener)).abort_handle());
    }
    tokio::task::spawn_local(shard::keep_time(driver.clone()));
    let datagrams = tokio::task::spawn_local(udp::run(driver.clone()));
    let until_drain = async {
        let deadline = mesh::deliver(&driver, &mut letters).await;
        for task in accepting {
            task.abort();
        }
        if let Some(deadline) = deadline {
            let alarm = driver.borrow().alarm();
            // Letters go on arriving while exchanges end. The sockets of all shards close together: the kernel would share
            // the clients of those that are left out anew, and calls would end up on a shard that does not know them.
            let all_drained = async {
                alarm.drained().await;
                last.wait().await;
            };
            let ended = async {
                tokio::select! {
                    () = all_drained => {}
                    _ = mesh::deliver(&driver, &mut letters) => {}
                }
                alarm.quiet().await;
            };
            // The core cuts what is left at the deadline; a moment more for what it then says.
            let cut = driver.borrow().clock().system(deadline) + CUT_GRACE;
            if tokio::time::timeout_at(cut.into(), ended).await.is_err() {
                tracing::info!("some connections did not end in time");
            }
        }
    };
    let ended = tokio::select! {
        () = until_drain => Ok(()),
        ended = datagrams => ended.unwrap_or_else(|error| Err(io::Error::other(error))),
    };
    driver.borrow_mut().flush_log();
    ended
}

async fn accept(driver: SharedDriver, on: ListenerId, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => driver.borrow_mut().accepted(on, socket),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn cpus() -> u16 {
    thread::available_parallelism().map_or(1, |cpus| u16::try_from(cpus.get()).unwrap_or(u16::MAX))
}

fn seed() -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    Ok(seed)
}

/// Binds everything for every shard, so that a port that is taken is known before anything runs.
fn bind(config: &SharedConfig, shards: u16) -> Result<Vec<Bound>, String> {
    let tcp: Vec<SocketAddr> = config.tcp_listeners().into_iter().map(|(at, _)| at).collect();
    let turn = (0..)
        .zip(config.turn_sockets())
        .map(|(number, at)| (SocketId::Turn(number), *at));
    let sip = config.sip.iter().map(|sip| (SocketId::Sip, sip.listen));
    let udp: Vec<(SocketId, SocketAddr)> = turn.chain(sip).collect();

    let tcp_refused = tcp
        .iter()
        .filter_map(|at| Some(refusal("TCP", *at, &probe_tcp(*at).err()?)));
    let udp_refused = udp
        .iter()
        .filter_map(|(_, at)| Some(refusal("UDP", *at, &UdpSocket::bind(at).err()?)));
    let refused: Vec<String> = tcp_refused.chain(udp_refused).collect();
    if !refused.is_empty() {
        return Err(refused.join("\n"));
    }
    let one = || {
        let listeners = tcp.iter().map(|at| listen(*at)).collect::<io::Result<_>>()?;
        let bind = |(id, at): &(SocketId, SocketAddr)| Ok((*id, edgeward_udp::bind_shared(*at)?));
        let sockets = udp.iter().map(bind).collect::<io::Result<_>>()?;
        Ok(Bound { listeners, sockets })
    };
    (0..shards)
        .map(|_| one())
        .collect::<io::Result<_>>()
        .map_err(|error| format!("cannot bind: {error}"))
}

/// The listener for numbers and health, which no other process shares.
fn bind_metrics(at: SocketAddr) -> Result<TcpListener, String> {
    let bound = tcp_socket(at).and_then(|socket| {
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    });
    bound.map_err(|error| refusal("TCP", at, &error))
}

/// Whether another process has the port: shards share theirs, so only a socket that does not share can tell.
fn probe_tcp(at: SocketAddr) -> io::Result<()> {
    let socket = tcp_socket(at)?;
    socket.bind(&at.into())?;
    socket.listen(1)
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(at)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn tcp_socket(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the process before may still linger on the port.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// What to tell the administrator of an address that cannot be bound.
fn refusal(protocol: &str, at: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "another process has this port: stop it, or choose another port",
        io::ErrorKind::AddrNotAvailable => "no interface of this host has this address: choose one of its own",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the right CAP_NET_BIND_SERVICE: grant it, or choose a higher port"
        }
        _ => "the system refused it",
    };
    format!("cannot listen on {protocol} {at}: {remedy} ({error})")
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
    if let Some(turn) = &config.turn {
        let (first, last) = (turn.relay_ports.start(), turn.relay_ports.end());
        for relay in &turn.relays {
            tracing::info!(bind = %relay.bind, advertise = %relay.advertise, first, last, "relay ports");
        }
    }
}
