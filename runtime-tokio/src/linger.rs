//! How does a stream end so that its last answer is not lost? Its peer is let finish, unread: a socket closed over unread
//! input would be reset, and the peer would never see the answer (RFC 9112 section 9.6).

use std::{
    cell::RefCell,
    io::Read as _,
    net::{Shutdown, TcpStream},
    rc::Weak,
    time::{Duration, Instant},
};

use edgeward_daemon::tcp::LINGER;

use crate::shard::{Counted, Driver};

/// Nobody waits for those who linger, so they are looked at together: to be woken for each costs a tenth of a handshake.
const LOOK: Duration = Duration::from_millis(50);

/// Streams that may linger at once. One more is closed as it is.
const LINGERING_MAX: usize = 16 * 1024;

/// Closed streams whose peers have not closed yet.
#[derive(Debug, Default)]
pub(crate) struct Lingering {
    streams: Vec<Closed>,
}

#[derive(Debug)]
struct Closed {
    socket: TcpStream,
    until: Instant,
    _counted: Counted,
}

impl Lingering {
    /// Ends our direction of a stream to which everything is written. Returns whether it is the first one, for which
    /// [`look`] has to be started.
    pub(crate) fn add(&mut self, socket: TcpStream, counted: Counted) -> bool {
        if self.streams.len() >= LINGERING_MAX || socket.shutdown(Shutdown::Write).is_err() {
            return false;
        }
        self.streams.push(Closed {
            socket,
            until: Instant::now() + LINGER,
            _counted: counted,
        });
        self.streams.len() == 1
    }

    /// Closes those whose peers have closed, or have had their time; `sink` is for what they said. Returns whether others
    /// are left.
    pub(crate) fn look(&mut self, sink: &mut [u8]) -> bool {
        let now = Instant::now();
        self.streams
            .retain_mut(|stream| stream.until > now && !stream.has_ended(sink));
        !self.streams.is_empty()
    }
}

impl Closed {
    fn has_ended(&mut self, sink: &mut [u8]) -> bool {
        // The goodbye of TLS, then the end. Who says more than that is read on next time.
        let read = self.socket.read(sink).and_then(|len| match len {
            0 => Ok(0),
            _ => self.socket.read(sink),
        });
        match read {
            Ok(len) => len == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Looks after the lingering streams of a shard as long as there are any.
pub(crate) async fn look(driver: Weak<RefCell<Driver>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(driver) = driver.upgrade() else { return };
        if !driver.borrow_mut().look_after_lingering() {
            return;
        }
    }
}
