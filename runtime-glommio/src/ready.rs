//! How does a task wait for a descriptor that glommio knows nothing of? By a stream that is never read.

use std::{future::poll_fn, io, net::TcpListener, os::fd::AsFd, pin::Pin};

use futures_lite::io::AsyncRead as _;
use glommio::net::TcpStream;

/// Waits until a descriptor that is no connected stream is readable, as poll(2) has it.
///
/// glommio has readiness for its own streams only. One of them begins by having the ring watch its descriptor, whatever
/// that is; when it then reads, the kernel refuses to read from what is no stream. That refusal is the news.
///
/// # Errors
/// When the process has no descriptor left.
pub(crate) async fn readable(descriptor: impl AsFd) -> io::Result<()> {
    let descriptor = descriptor.as_fd().try_clone_to_owned()?;
    let mut watched = stream(descriptor.into());
    poll_fn(|cx| Pin::new(&mut watched).poll_read(cx, &mut [0]).map(|_| ())).await;
    Ok(())
}

/// Takes a connection from a listener that does not block.
///
/// # Errors
/// Those of accept(2).
pub(crate) async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    loop {
        match listener.accept() {
            Ok((socket, _)) => return Ok(stream(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable(listener).await?,
            Err(error) => return Err(error),
        }
    }
}

/// Puts a socket into the hands of glommio.
pub(crate) fn stream(socket: std::net::TcpStream) -> TcpStream {
    socket2_glommio::Socket::from(socket).into()
}
