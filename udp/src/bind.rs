//! Which socket has this address? Binding, shared by the shards or by nobody.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use edgeward_core::action::BindError;
use socket2::{Domain, Protocol, Socket, Type};

/// Binds a socket that every shard binds again: the kernel gives each sender to one of them (`SO_REUSEPORT`).
///
/// # Errors
/// Those of the kernel, with the address in the message.
pub fn bind_shared(at: SocketAddr) -> io::Result<UdpSocket> {
    let bind = || {
        let socket = open(at)?;
        socket.set_reuse_port(true)?;
        socket.bind(&at.into())?;
        Ok(socket.into())
    };
    bind().map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on udp {at}: {error}")))
}

/// Binds a relayed transport address, which nobody else may have.
pub(crate) fn bind_exclusive(at: SocketAddr) -> Result<UdpSocket, BindError> {
    let bind = || {
        let socket = open(at)?;
        socket.bind(&at.into())?;
        Ok(socket.into())
    };
    bind().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse,
        _ => {
            tracing::warn!(%at, %error, "cannot bind a relay");
            BindError::Failed
        }
    })
}

fn open(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    if at.is_ipv6() {
        // `0.0.0.0` and `[::]` stand side by side, and no peer appears under a mapped address.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
