//! How does a stream end that the core has let go of? Its last words go out, then it lingers or moves to another shard.

use std::{
    io::{self, Read as _},
    net::Shutdown,
    time::Instant,
};

use bytes::BytesMut;
use edgeward_core::action::{Conn, ShardId};
use edgeward_daemon::tcp::{LAST_BYTES, LINGER};
use mio::net::TcpStream;

use super::stream;

/// A stream on its way out.
pub(super) struct Leaving {
    socket: TcpStream,
    pending: BytesMut,
    eof: bool,
    next: Next,
    /// When our patience ends.
    until: Instant,
}

/// What comes after the last words.
pub(super) enum Next {
    /// We say that this was all, and wait for the peer to have read it: a socket closed over unread input would be
    /// reset, and the peer would never see the answer (RFC 9112 section 9.6).
    Linger,
    /// That is said; whatever still comes is of no interest.
    Lingering,
    /// Another shard takes it over.
    Move(ShardId, Box<Conn>),
}

/// How far a turn got.
pub(super) enum Left {
    /// It waits for the kernel.
    Not,
    /// It goes on, until the time given at the latest.
    Soon(Instant),
    /// It is over.
    Gone,
}

impl Leaving {
    pub(super) fn new(socket: TcpStream, pending: BytesMut, eof: bool, next: Next) -> Self {
        let until = Instant::now() + LAST_BYTES;
        Self {
            socket,
            pending,
            eof,
            next,
            until,
        }
    }

    /// When it needs a turn at the latest.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Goes a step further. Whatever goes wrong here concerns nobody any more.
    pub(super) fn turn(&mut self, scratch: &mut [u8]) -> Left {
        if Instant::now() >= self.until {
            return Left::Gone;
        }
        match stream::write(&mut self.socket, &mut self.pending) {
            Ok(true) => {}
            Ok(false) => return Left::Not,
            Err(_) => {
                self.next = Next::Lingering;
                return Left::Gone;
            }
        }
        match self.next {
            Next::Move(..) => Left::Gone,
            Next::Linger => {
                if self.socket.shutdown(Shutdown::Write).is_err() || self.eof {
                    return Left::Gone;
                }
                self.next = Next::Lingering;
                self.until = Instant::now() + LINGER;
                Left::Soon(self.until)
            }
            Next::Lingering => match self.socket.read(scratch) {
                Ok(len) if len > 0 => Left::Soon(self.until),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Left::Not,
                _ => Left::Gone,
            },
        }
    }

    /// What another shard takes over, if it has come so far. Otherwise the stream is closed.
    pub(super) fn moved(self) -> Option<(ShardId, TcpStream, Box<Conn>)> {
        match self.next {
            Next::Move(to, conn) if self.pending.is_empty() => Some((to, self.socket, conn)),
            _ => None,
        }
    }
}
