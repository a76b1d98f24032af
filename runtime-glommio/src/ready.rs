//! How does a task wait for a descriptor that glommio knows nothing of? By a stream that is never read.

use std::{future::poll_fn, io, net::TcpListener, os::fd::AsFd, pin::Pin, time::Duration};

use futures_lite::io::AsyncRead as _;
use glommio::{net::TcpStream, timer::sleep};

/// How long to wait when the process has no descriptor left, which one wait takes.
const BLIND_PAUSE: Duration = Duration::from_millis(10);

/// Waits until a descriptor that is no connected stream is readable, as poll(2) has it. It may return too early: whoever
/// waits for it looks, and waits again.
///
/// glommio has readiness for its own streams only. One of them begins by having the ring watch its descriptor, whatever
/// that is; when it then reads, the kernel refuses to read from what is no stream. That refusal is the news.
pub(crate) async fn readable(descriptor: impl AsFd) {
    let Ok(descriptor) = descriptor.as_fd().try_clone_to_owned() else {
        return sleep(BLIND_PAUSE).await;
    };
    let mut watched = stream(descriptor.into());
    poll_fn(|cx| Pin::new(&mut watched).poll_read(cx, &mut [0]).map(|_| ())).await;
}

/// Takes a connection from a listener that does not block.
///
/// # Errors
/// Those of accept(2).
pub(crate) async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    loop {
        match listener.accept() {
            Ok((socket, _)) => return Ok(stream(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable(listener).await,
            Err(error) => return Err(error),
        }
    }
}

/// Puts a socket into the hands of glommio.
pub(crate) fn stream(socket: std::net::TcpStream) -> TcpStream {
    socket2_glommio::Socket::from(socket).into()
}

#[cfg(test)]
mod tests {
    use futures_lite::future::poll_once;

    use super::*;
    use crate::executor;

    #[test]
    fn a_task_waits_for_what_is_no_stream() {
        if let Err(error) = executor::check(1) {
            eprintln!("SKIPPED: {error}");
            return;
        }
        executor::make().expect("an executor").run(async {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
            listener.set_nonblocking(true).expect("one that does not block");
            let mut waiting = Box::pin(readable(&listener));
            for _ in 0..2 {
                assert!(poll_once(&mut waiting).await.is_none(), "nobody has come");
                sleep(executor::ROUND).await;
            }
            let at = listener.local_addr().expect("its address");
            let client = std::net::TcpStream::connect(at).expect("a connection");
            waiting.await;
            let accepted = accept(&listener).await.expect("a connection");
            let from = client.local_addr().expect("its address");
            assert_eq!(accepted.peer_addr().expect("its address"), from);
        });
    }
}
