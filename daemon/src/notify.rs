//! What does systemd want to know? Each change of state, as sd_notify(3) has it.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// It serves, as the configuration says.
pub(crate) const READY: &str = "READY=1";
/// It takes another configuration; [`READY`] follows.
pub(crate) const RELOADING: &str = "RELOADING=1";
/// It is about to end.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Tells systemd, where it started us and wants to be told.
pub(crate) fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, state, "systemd could not be told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
