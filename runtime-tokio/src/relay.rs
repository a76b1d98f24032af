//! How does a relayed transport address take and make TCP connections? One listener, and sockets dialled from its port.
//! (RFC 6062)

use std::{cell::RefCell, io, net::SocketAddr, rc::Weak, time::Duration};

use edgeward_core::action::{BindError, RelayId};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::AbortHandle,
};

use crate::shard::Driver;

/// Peers that may wait to be accepted. Each is taken or refused at once, so few ever wait.
const BACKLOG: u32 = 64;

/// How long to wait when the system gives no descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on a port that nobody else has, and brings everybody who connects to the core.
pub(crate) fn listen(
    driver: Weak<RefCell<Driver>>,
    relay: RelayId,
    at: SocketAddr,
) -> Result<(AbortHandle, SocketAddr), BindError> {
    let listener = bind(at).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse,
        _ => {
            tracing::warn!(%at, %error, "cannot bind a relay for TCP");
            BindError::Failed
        }
    })?;
    let local = listener.local_addr().map_err(|_| BindError::Failed)?;
    let task = tokio::task::spawn_local(accept(driver, relay, listener));
    Ok((task.abort_handle(), local))
}

/// Connects from an address of ours: the port of a listener, or any port.
pub(crate) async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(from)?;
    if from.port() != 0 {
        // The listener allows it, and so do the other connections of this relay.
        socket.set_reuseport(true)?;
    }
    socket.bind(from)?;
    socket.connect(to).await
}

fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(at)?;
    socket.bind(at)?;
    let listener = socket.listen(BACKLOG)?;
    // Only now may others bind the port, namely sockets that are dialled from it: so it was nobody's before.
    SockRef::from(&listener).set_reuse_port(true)?;
    Ok(listener)
}

fn socket(at: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match at {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if at.is_ipv6() {
        SockRef::from(&socket).set_only_v6(true)?;
    }
    // Connections of an allocation before may still linger on the port.
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

async fn accept(driver: Weak<RefCell<Driver>>, relay: RelayId, listener: TcpListener) {
    loop {
        let accepted = listener.accept().await;
        let Some(driver) = driver.upgrade() else { return };
        match accepted {
            Ok((socket, _)) => driver.borrow_mut().peer_accepted(relay, socket),
            Err(error) => {
                tracing::warn!(%error, "a peer could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_listens_alone_and_dials_from_its_port() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            for local in ["127.0.0.1:0", "[::1]:0"] {
                let at: SocketAddr = local.parse().expect("an address");
                let relay = bind(at).expect("a listener");
                let at = relay.local_addr().expect("its address");
                let error = bind(at).expect_err("somebody has the port");
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);

                // One connection out, another one, and one in, all at once.
                let others = [(); 2].map(|()| std::net::TcpListener::bind(local).expect("a peer"));
                let mut dialled = Vec::new();
                for other in &others {
                    let stream = connect(at, other.local_addr().expect("its address"))
                        .await
                        .expect("a connection");
                    assert_eq!(stream.local_addr().expect("its address"), at);
                    let (_, from) = other.accept().expect("a connection");
                    assert_eq!(from, at);
                    dialled.push(stream);
                }
                let peer = TcpStream::connect(at).await.expect("a connection");
                let (_, from) = relay.accept().await.expect("a connection");
                assert_eq!(from, peer.local_addr().expect("its address"));
            }
        });
    }
}
