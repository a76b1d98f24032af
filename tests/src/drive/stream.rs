//! How does a TCP stream meet its connection in the core? It reads into the buffer of its shard, and keeps what the
//! kernel does not take.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use edgeward_core::action::{ConnId, Endpoints, IoKind};
use edgeward_daemon::tcp::{bind_dial, io_kind};
use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::SockRef;

use super::leaving::{Leaving, Next};

/// A stream that the core knows.
pub(super) struct Stream {
    conn: ConnId,
    socket: TcpStream,
    end: End,
    /// Whether the core takes bytes; else they stay in the kernel, which slows the sender down.
    reading: bool,
    eof: bool,
    /// Bytes that the kernel did not take yet.
    pending: BytesMut,
    /// Why nothing can be written any more.
    broken: Option<IoKind>,
}

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody who is read, if not all the time: a broken stream shows when all that came before is read.
    Any,
    /// A peer of a TCP relay (RFC 6062), who is not read until a client comes: a broken stream shows at once until then.
    Peer,
}

/// What the core is to be told of.
pub(super) enum Happened {
    /// So many bytes came.
    Received(usize),
    /// All that was pending is written.
    Written,
    /// The peer sends no more.
    Eof,
    /// It is dead in both directions.
    Failed(IoKind),
}

impl Stream {
    /// A stream that is connected. It is read until the core says otherwise.
    pub(super) fn new(conn: ConnId, socket: TcpStream, end: End) -> Self {
        // Small messages must not wait for the acknowledgement of others.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        Self {
            conn,
            socket,
            end,
            reading: true,
            eof: false,
            pending: BytesMut::new(),
            broken: None,
        }
    }

    /// Writes what is pending, then reads once. `None`: nothing more until the kernel or the core has something.
    pub(super) fn turn(&mut self, scratch: &mut [u8]) -> Option<Happened> {
        if !self.pending.is_empty() && self.write_pending() {
            return Some(Happened::Written);
        }
        if self.eof || !self.reading {
            if self.end == End::Peer
                && let Ok(Some(error)) = self.socket.take_error()
            {
                self.broken = Some(io_kind(&error));
            }
            return self.broken.map(Happened::Failed);
        }
        match (self.socket.read(scratch), self.broken) {
            (Ok(len), _) if len > 0 => Some(Happened::Received(len)),
            (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => None,
            // All that the peer said before it broke the stream is read: a refusal, perhaps, of what it did not take.
            (_, Some(kind)) => Some(Happened::Failed(kind)),
            (Ok(_), None) => {
                self.eof = true;
                Some(Happened::Eof)
            }
            (Err(error), None) => Some(Happened::Failed(io_kind(&error))),
        }
    }

    /// Writes what the kernel takes and keeps the rest; returns whether there is none.
    pub(super) fn write(&mut self, bytes: BytesMut) -> bool {
        self.pending = bytes;
        self.write_pending()
    }

    fn write_pending(&mut self) -> bool {
        let written = write(&mut self.socket, &mut self.pending);
        if let Err(error) = &written {
            self.broken = Some(io_kind(error));
            self.pending.clear();
        }
        written.unwrap_or(false)
    }

    pub(super) fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
    }

    /// Ends our direction; the core asks for that when all is written.
    pub(super) fn shut(&self) {
        // A stream that is gone already is found out by its next read.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Breaks the connection.
    pub(super) fn reset(self) {
        // Where this cannot be set, the end is at least without the goodbye of TLS.
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// The core has let go of it: what is pending and the last words go out, and then it comes to its end.
    pub(super) fn leave(mut self, last_words: BytesMut, next: Next) -> Leaving {
        self.pending.unsplit(last_words);
        Leaving::new(self.socket, self.pending, self.eof, next)
    }

    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }
}

/// Writes as much as the kernel takes; returns whether that was all.
pub(super) fn write(socket: &mut TcpStream, pending: &mut BytesMut) -> io::Result<bool> {
    while !pending.is_empty() {
        match socket.write(pending) {
            Ok(written) => pending.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    // Many streams wait and few write: none keeps memory for nothing.
    *pending = BytesMut::new();
    Ok(true)
}

/// Connects from an address of ours: the port of a listener, or any port.
pub(super) fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = bind_dial(from)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// What became of a dial, when the kernel tells of its socket; `None` as long as it goes on.
pub(super) fn connected(socket: &TcpStream) -> Option<Result<Endpoints, IoKind>> {
    let ends = || {
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        Ok(Endpoints {
            peer: socket.peer_addr()?,
            local: socket.local_addr()?,
        })
    };
    match ends() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
        ends => Some(ends.map_err(|error| io_kind(&error))),
    }
}
