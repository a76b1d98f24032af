//! How does a TCP stream meet its connection in the core? One task a stream, which reads into the shard's one buffer
//! and writes what could not be written at once.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::Shutdown,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use edgeward_core::action::{ConnId, IoKind};
use edgeward_daemon::tcp::{LAST_BYTES, LINGER, io_kind};
use mio::net::TcpStream;
use socket2::SockRef;
use tokio::sync::oneshot;

use crate::{
    executor::{self, timeout},
    nap,
    ready::Watched,
    shard::{Counted, SharedDriver},
};

/// Read by one task before others have their turn, in times of the shard's one buffer.
const READS_MAX: usize = 16;

/// A stream as its driver and its task hold it: written to from the turn that made the bytes.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Watched<TcpStream>,
    /// Bytes that the kernel did not take yet.
    pending: RefCell<BytesMut>,
    reading: Cell<bool>,
    /// Why nothing can be written any more.
    broken: Cell<Option<IoKind>>,
    fate: RefCell<Fate>,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Somebody who is read, if not all the time: a broken stream shows when all that came before is read.
    Any,
    /// A peer of a TCP relay (RFC 6062), who is not read until a client comes: a broken stream shows at once until then.
    Peer,
}

/// What becomes of a stream that the core has let go of.
#[derive(Debug)]
enum Fate {
    Live,
    /// Write the pending bytes, then close.
    Close,
    /// Close at once.
    Reset,
    /// Hand the descriptor to whoever waits for it.
    Move(oneshot::Sender<std::net::TcpStream>),
}

/// How far a write got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    All,
    /// The task goes on when the kernel has room; it tells the driver when all is written, or why it never will be.
    Part,
}

impl Stream {
    /// Takes a connected stream and starts its task.
    pub(crate) fn start(
        driver: &SharedDriver,
        conn: ConnId,
        socket: Watched<TcpStream>,
        end: End,
        counted: Counted,
    ) -> Rc<Self> {
        let stream = Rc::new(Self {
            socket,
            pending: RefCell::default(),
            reading: Cell::new(true),
            broken: Cell::new(None),
            fate: RefCell::new(Fate::Live),
        });
        executor::spawn(run(driver.clone(), conn, stream.clone(), end, counted)).detach();
        stream
    }

    /// Writes as much as the kernel takes and keeps the rest.
    pub(crate) fn write(&self, mut bytes: BytesMut) -> Wrote {
        let mut pending = self.pending.borrow_mut();
        if !pending.is_empty() {
            pending.unsplit(bytes);
            return Wrote::Part;
        }
        while !bytes.is_empty() && self.broken.get().is_none() {
            match self.socket.try_write(&bytes) {
                Poll::Ready(Ok(written)) => bytes.advance(written),
                Poll::Ready(Err(error)) => self.broken.set(Some(io_kind(&error))),
                Poll::Pending => {
                    *pending = bytes;
                    self.socket.wake();
                    return Wrote::Part;
                }
            }
        }
        if self.broken.get().is_some() {
            self.socket.wake();
            return Wrote::Part;
        }
        Wrote::All
    }

    /// Reads on, or leaves the peer's bytes in the kernel.
    pub(crate) fn set_reading(&self, reading: bool) {
        self.reading.set(reading);
        self.socket.wake();
    }

    /// Ends our direction; nothing is pending.
    pub(crate) fn shut(&self) {
        // A stream that is gone already is found out by its next read.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Writes `bytes`, then closes; the core has forgotten the connection.
    pub(crate) fn close(&self, bytes: BytesMut) {
        if !bytes.is_empty() {
            // A failure shows again in the task, which then closes at once.
            let _ = self.write(bytes);
        }
        *self.fate.borrow_mut() = Fate::Close;
        self.socket.wake();
    }

    /// Breaks the connection; the core has forgotten it.
    pub(crate) fn reset(&self) {
        // Where this cannot be set, the end is at least without the goodbye of TLS.
        let _ = SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO));
        *self.fate.borrow_mut() = Fate::Reset;
        self.socket.wake();
    }

    /// Gives the descriptor away; the core has forgotten the connection.
    pub(crate) fn give_away(&self) -> oneshot::Receiver<std::net::TcpStream> {
        let (sender, receiver) = oneshot::channel();
        *self.fate.borrow_mut() = Fate::Move(sender);
        self.socket.wake();
        receiver
    }

    fn is_live(&self) -> bool {
        matches!(*self.fate.borrow(), Fate::Live)
    }

    /// Why a stream is broken that nobody reads.
    fn found_broken(&self, end: End) -> Option<IoKind> {
        if end == End::Any || !self.socket.has_failed() {
            return None;
        }
        Some(match self.socket.take_error() {
            Ok(Some(error)) | Err(error) => io_kind(&error),
            Ok(None) => IoKind::Other,
        })
    }

    /// Writes what is pending; returns whether this emptied it.
    fn write_pending(&self) -> io::Result<bool> {
        let mut pending = self.pending.borrow_mut();
        if pending.is_empty() {
            return Ok(false);
        }
        while !pending.is_empty() {
            match self.socket.try_write(&pending) {
                Poll::Ready(Ok(written)) => pending.advance(written),
                Poll::Ready(Err(error)) => {
                    pending.clear();
                    return Err(error);
                }
                Poll::Pending => return Ok(false),
            }
        }
        *pending = BytesMut::new();
        Ok(true)
    }
}

/// What the task has to do next, beside reading and writing.
enum Turn {
    Written,
    Eof,
    Failed(IoKind),
    Let,
}

/// The task of a stream; `_counted` lives as long as it does.
async fn run(driver: SharedDriver, conn: ConnId, stream: Rc<Stream>, mut end: End, _counted: Counted) {
    let mut eof = false;
    loop {
        let turn = poll_fn(|cx| poll_turn(cx, &driver, conn, &stream, &mut end, eof)).await;
        match turn {
            Turn::Written => driver.borrow_mut().written(conn),
            Turn::Eof => {
                eof = true;
                driver.borrow_mut().eof(conn);
            }
            Turn::Failed(kind) => {
                driver.borrow_mut().failed(conn, kind);
                return;
            }
            Turn::Let => break,
        }
    }
    let fate = stream.fate.replace(Fate::Live);
    let pending = stream.pending.take();
    // The driver has dropped its reference with the connection.
    let Some(stream) = Rc::into_inner(stream) else { return };
    let socket = stream.socket;
    // Boxed, since a task is as large as its largest part, and most of the time a stream is only waiting.
    match fate {
        Fate::Move(sender) => Box::pin(move_away(socket, pending, sender)).await,
        Fate::Reset => drop(socket),
        Fate::Close | Fate::Live => Box::pin(linger(socket, pending, eof)).await,
    }
}

/// Reads until the kernel has no more and writes what is pending; ends when the driver or the core must act.
fn poll_turn(
    cx: &Context<'_>,
    driver: &SharedDriver,
    conn: ConnId,
    stream: &Stream,
    end: &mut End,
    eof: bool,
) -> Poll<Turn> {
    for _ in 0..READS_MAX {
        if !stream.is_live() {
            return Poll::Ready(Turn::Let);
        }
        match stream.write_pending() {
            Ok(true) => return Poll::Ready(Turn::Written),
            Ok(false) => {}
            Err(error) => stream.broken.set(Some(io_kind(&error))),
        }
        if eof || !stream.reading.get() {
            return match stream.broken.get().or_else(|| stream.found_broken(*end)) {
                Some(kind) => Poll::Ready(Turn::Failed(kind)),
                None => stream.socket.wait(cx),
            };
        }
        // Whoever is read is found broken by reading.
        *end = End::Any;
        let mut driver = driver.borrow_mut();
        let mut scratch = driver.take_scratch();
        let polled = stream.socket.try_read(&mut scratch);
        let turn = match (polled, stream.broken.get()) {
            (Poll::Ready(Ok(len)), _) if len > 0 => {
                nap::found();
                driver.receive(conn, &mut scratch[..len]);
                None
            }
            // All that the peer said before it broke the stream is read: a refusal, perhaps, of what it did not take.
            (Poll::Ready(_), Some(kind)) => Some(Turn::Failed(kind)),
            (Poll::Ready(Ok(_)), None) => Some(Turn::Eof),
            (Poll::Ready(Err(error)), None) => Some(Turn::Failed(io_kind(&error))),
            (Poll::Pending, _) => {
                driver.put_scratch(scratch);
                return stream.socket.wait(cx);
            }
        };
        driver.put_scratch(scratch);
        if let Some(turn) = turn {
            return Poll::Ready(turn);
        }
    }
    cx.waker().wake_by_ref();
    stream.socket.wait(cx)
}

/// Hands the descriptor on once everything of this shard is written.
async fn move_away(socket: Watched<TcpStream>, pending: BytesMut, to: oneshot::Sender<std::net::TcpStream>) {
    if let Some(Ok(())) = timeout(LAST_BYTES, socket.write_all(&pending)).await {
        // Where nobody waits any more the stream is closed, and the client comes again.
        let _ = to.send(socket.into_inner().into());
    }
}

/// Writes the last bytes and waits for the peer to have read them: a socket closed over unread input would be reset,
/// and the peer would never see the answer (RFC 9112 section 9.6).
async fn linger(socket: Watched<TcpStream>, pending: BytesMut, eof: bool) {
    let last_bytes = async {
        socket.write_all(&pending).await?;
        socket.shutdown(Shutdown::Write)
    };
    let Some(Ok(())) = timeout(LAST_BYTES, last_bytes).await else {
        return;
    };
    let goodbye = async {
        let mut sink = [0; 1024];
        while !eof && socket.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever goes wrong here concerns nobody any more.
    let _ = timeout(LINGER, goodbye).await;
}
