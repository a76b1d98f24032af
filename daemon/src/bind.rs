//! Which sockets does a process have from the start? Everything that the configuration names, for every shard.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use edgeward_core::{
    action::{HOME_MARK, SocketId},
    config::Config,
};
use socket2::{Domain, Protocol, Socket, Type};

/// TCP connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// All sockets of one shard that exist from the start.
#[derive(Debug)]
pub(crate) struct Bound {
    /// For TCP, in the order of their ids. They do not block.
    pub(crate) listeners: Vec<TcpListener>,
    /// For UDP.
    pub(crate) sockets: Vec<(SocketId, UdpSocket)>,
}

/// Binds everything for every shard, so that a port that is taken is known before anything runs. Of relays, it is tried
/// whether they could be bound.
pub(crate) fn bind(config: &Config, shards: u16) -> Result<Vec<Bound>, String> {
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
    let relays = config.turn.iter().flat_map(|turn| &turn.relays);
    let relays_refused = relays.filter_map(|relay| {
        let error = UdpSocket::bind(SocketAddr::new(relay.bind, 0)).err()?;
        Some(format!(
            "cannot relay by {}: no interface of this host has this address: choose one of its own, or behind a NAT write \
             relay = {{ bind = \"10.1.0.2\", advertise = \"{}\" }} ({error})",
            relay.bind, relay.advertise
        ))
    });
    let refused: Vec<String> = tcp_refused.chain(udp_refused).chain(relays_refused).collect();
    if !refused.is_empty() {
        return Err(refused.join("\n"));
    }
    let one = || {
        let listeners = tcp.iter().map(|at| listen(*at)).collect::<io::Result<_>>()?;
        let bind = |(id, at): &(SocketId, SocketAddr)| Ok((*id, edgeward_udp::bind_shared(*at)?));
        let sockets = udp.iter().map(bind).collect::<io::Result<_>>()?;
        Ok(Bound { listeners, sockets })
    };
    let bound = (0..shards).map(|_| one()).collect::<io::Result<Vec<_>>>();
    let bound = bound.map_err(|error| format!("cannot bind: {error}"))?;
    let shared = bound.first().map(|first| &first.sockets[..]).unwrap_or_default();
    for (_, socket) in shared.iter().filter(|(id, _)| *id == SocketId::Sip) {
        // Each shard hands on what is not its own, so this only saves them the trouble.
        if let Err(error) = edgeward_udp::steer(socket, HOME_MARK) {
            tracing::info!(%error, "the system does not hand out datagrams of SIP by what they say");
        }
    }
    Ok(bound)
}

/// The listener for numbers and health, which no other process shares.
pub(crate) fn bind_metrics(at: SocketAddr) -> Result<TcpListener, String> {
    let bound = tcp_socket(at).and_then(|socket| {
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
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
