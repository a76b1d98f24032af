//! What do runtimes do alike with TCP? How long they wait, what an error is to the core, and how a relayed transport
//! address takes and makes connections (RFC 6062): one listener, and sockets dialled from its port.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use edgeward_core::action::{BindError, IoKind};
use socket2::{Domain, Protocol, Socket, Type};

/// How long the last bytes of a closed stream may take to leave: a slow peer still wants the end of its page.
pub const LAST_BYTES: Duration = Duration::from_secs(30);

/// How long the peer may take to close its side after them.
pub const LINGER: Duration = Duration::from_secs(3);

/// After an accept that failed for want of descriptors, others may have been closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is told that connections cannot be accepted.
const ACCEPT_REMINDER: Duration = Duration::from_secs(60);

/// Peers that may wait to be accepted. Each is taken or refused at once, so few ever wait.
const RELAY_BACKLOG: i32 = 64;

/// Read at once from a stream at the most: four records of TLS.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// What the core wants to know of an error.
pub fn io_kind(error: &io::Error) -> IoKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => IoKind::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => IoKind::Unreachable,
        io::ErrorKind::TimedOut => IoKind::TimedOut,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => IoKind::Reset,
        _ => IoKind::Other,
    }
}

/// Tells that a connection could not be accepted, though not each time, and returns how long to wait before the next one.
pub fn accept_failed(error: &io::Error) -> Duration {
    /// When it was told last, and how often it has happened since; of the whole process.
    static TOLD: Mutex<(Option<Instant>, u64)> = Mutex::new((None, 0));
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let (last, times) = &mut *told;
    *times += 1;
    if last.is_none_or(|last| last.elapsed() >= ACCEPT_REMINDER) {
        let fix = "where descriptors are out, raise LimitNOFILE, or lower [server] connections_max";
        tracing::warn!(%error, times, fix, "connections cannot be accepted");
        (*last, *times) = (Some(Instant::now()), 0);
    }
    ACCEPT_PAUSE
}

/// Listens on a port that nobody else has. The listener does not block.
///
/// # Errors
/// [`BindError::InUse`] when somebody has the address, else [`BindError::Failed`].
pub fn listen_relay(at: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = relay_socket(at)?;
        socket.bind(&at.into())?;
        socket.listen(RELAY_BACKLOG)?;
        // Only now may others bind the port, namely sockets that are dialled from it: so it was nobody's before.
        socket.set_reuse_port(true)?;
        Ok(socket.into())
    };
    listen().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse,
        _ => {
            tracing::warn!(%at, %error, "cannot bind a relay for TCP");
            BindError::Failed
        }
    })
}

/// A socket to connect from an address of ours: the port of a listener, or any port. It does not block.
///
/// # Errors
/// Those of the kernel.
pub fn bind_dial(from: SocketAddr) -> io::Result<Socket> {
    let socket = relay_socket(from)?;
    if from.port() != 0 {
        // The listener allows it, and so do the other connections of this relay.
        socket.set_reuse_port(true)?;
    }
    socket.bind(&from.into())?;
    Ok(socket)
}

fn relay_socket(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an allocation before may still linger on the port.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_relay_listens_alone_and_dials_from_its_port() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let relay = listen_relay(local.parse().expect("an address")).expect("a listener");
            relay.set_nonblocking(false).expect("a listener that blocks");
            let at = relay.local_addr().expect("its address");
            assert_eq!(listen_relay(at).expect_err("somebody has the port"), BindError::InUse);

            // One connection out, another one, and one in, all at once.
            let others = [(); 2].map(|()| TcpListener::bind(local).expect("a peer"));
            let mut dialled = Vec::new();
            for other in &others {
                let socket = bind_dial(at).expect("a socket");
                socket.set_nonblocking(false).expect("a socket that blocks");
                let to = other.local_addr().expect("its address");
                socket.connect(&to.into()).expect("a connection");
                let (_, from) = other.accept().expect("a connection");
                assert_eq!(from, at);
                dialled.push(socket);
            }
            let peer = TcpStream::connect(at).expect("a connection");
            let (_, from) = relay.accept().expect("a connection");
            assert_eq!(from, peer.local_addr().expect("its address"));
        }
    }
}
