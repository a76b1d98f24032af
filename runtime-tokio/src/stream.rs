//! How does a TCP stream meet its connection in the core? One task a stream, which reads into the shard's one buffer
//! and writes what could not be written at once.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use edgeward_core::action::{ConnId, IoKind};
use edgeward_daemon::tcp::{LAST_BYTES, io_kind};
use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, Interest, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
    time::timeout,
};

use crate::{
    nap,
    shard::{Counted, SharedDriver},
};

/// The half of a stream that its driver holds: written to from the turn that made the bytes.
#[derive(Debug)]
pub(crate) struct Stream {
    write: OwnedWriteHalf,
    /// Bytes that the kernel did not take yet.
    pending: RefCell<BytesMut>,
    reading: Cell<bool>,
    /// Why nothing can be written any more.
    broken: Cell<Option<IoKind>>,
    fate: RefCell<Fate>,
    waker: RefCell<Option<Waker>>,
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
    Move(oneshot::Sender<TcpStream>),
}

/// How far a write got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    All,
    /// The task goes on when the kernel has room; it tells the driver when all is written, or why it never will be.
    Part,
}

impl Stream {
    /// Splits a connected stream and starts its task.
    pub(crate) fn start(
        driver: &SharedDriver,
        conn: ConnId,
        socket: TcpStream,
        end: End,
        counted: Counted,
    ) -> Rc<Self> {
        let (read, write) = socket.into_split();
        let stream = Rc::new(Self {
            write,
            pending: RefCell::default(),
            reading: Cell::new(true),
            broken: Cell::new(None),
            fate: RefCell::new(Fate::Live),
            waker: RefCell::default(),
        });
        let broken: Option<Broken> = match end {
            End::Any => None,
            End::Peer => Some(Box::pin(broken(stream.clone()))),
        };
        tokio::task::spawn_local(run(driver.clone(), conn, stream.clone(), read, broken, counted));
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
            match self.write.try_write(&bytes) {
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *pending = bytes;
                    self.wake();
                    return Wrote::Part;
                }
                Err(error) => self.broken.set(Some(io_kind(&error))),
            }
        }
        if self.broken.get().is_some() {
            self.wake();
            return Wrote::Part;
        }
        Wrote::All
    }

    /// Reads on, or leaves the peer's bytes in the kernel.
    pub(crate) fn set_reading(&self, reading: bool) {
        self.reading.set(reading);
        self.wake();
    }

    /// Ends our direction; nothing is pending.
    pub(crate) fn shut(&self) {
        // A stream that is gone already is found out by its next read.
        let _ = socket2::SockRef::from(self.write.as_ref()).shutdown(std::net::Shutdown::Write);
    }

    /// Writes `bytes`, then closes; the core has forgotten the connection.
    pub(crate) fn close(&self, bytes: BytesMut) {
        if !bytes.is_empty() {
            // A failure shows again in the task, which then closes at once.
            let _ = self.write(bytes);
        }
        *self.fate.borrow_mut() = Fate::Close;
        self.wake();
    }

    /// Breaks the connection; the core has forgotten it.
    pub(crate) fn reset(&self) {
        // Where this cannot be set, the end is at least without the goodbye of TLS.
        let _ = socket2::SockRef::from(self.write.as_ref()).set_linger(Some(Duration::ZERO));
        *self.fate.borrow_mut() = Fate::Reset;
        self.wake();
    }

    /// Gives the descriptor away; the core has forgotten the connection.
    pub(crate) fn give_away(&self) -> oneshot::Receiver<TcpStream> {
        let (sender, receiver) = oneshot::channel();
        *self.fate.borrow_mut() = Fate::Move(sender);
        self.wake();
        receiver
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn is_live(&self) -> bool {
        matches!(*self.fate.borrow(), Fate::Live)
    }

    /// Writes what is pending; returns whether this emptied it.
    fn poll_write(&self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut pending = self.pending.borrow_mut();
        if pending.is_empty() {
            return Ok(false);
        }
        while !pending.is_empty() {
            match self.write.try_write(&pending) {
                Ok(written) => pending.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.write.as_ref().poll_write_ready(cx) {
                        Poll::Ready(result) => result?,
                        Poll::Pending => return Ok(false),
                    }
                }
                Err(error) => {
                    pending.clear();
                    return Err(error);
                }
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

/// Ends when a stream is broken, with the reason.
type Broken = Pin<Box<dyn Future<Output = IoKind>>>;

/// Tells that a stream is broken, read or not.
async fn broken(stream: Rc<Stream>) -> IoKind {
    let socket: &TcpStream = stream.write.as_ref();
    match socket.ready(Interest::ERROR).await.and_then(|_| socket.take_error()) {
        Ok(Some(error)) | Err(error) => io_kind(&error),
        Ok(None) => IoKind::Other,
    }
}

/// The task of a stream; `counted` lives as long as it does, and as its peer is waited for.
async fn run(
    driver: SharedDriver,
    conn: ConnId,
    stream: Rc<Stream>,
    mut read: OwnedReadHalf,
    mut broken: Option<Broken>,
    counted: Counted,
) {
    let mut eof = false;
    loop {
        let turn = std::future::poll_fn(|cx| {
            let turn = poll_turn(cx, &driver, conn, &stream, &mut read, eof);
            // Whoever is read is found broken by reading.
            if turn.is_ready() || stream.reading.get() {
                broken = None;
            }
            match &mut broken {
                Some(broken) => broken.as_mut().poll(cx).map(Turn::Failed),
                None => turn,
            }
        })
        .await;
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
    drop(broken);
    let fate = stream.fate.replace(Fate::Live);
    let pending = stream.pending.take();
    // The driver has dropped its reference with the connection, so that both halves meet again here.
    let Some(stream) = Rc::into_inner(stream) else { return };
    let Ok(mut socket) = read.reunite(stream.write) else {
        return;
    };
    // Boxed, since a task is as large as its largest part, and most of the time a stream is only waiting.
    if matches!(fate, Fate::Reset) || !pending.is_empty() && !Box::pin(write_last(&mut socket, pending)).await {
        return;
    }
    match fate {
        // Where nobody waits any more the stream is closed, and the client comes again.
        Fate::Move(sender) => drop(sender.send(socket)),
        Fate::Live | Fate::Close | Fate::Reset => {
            if !eof && let Ok(socket) = socket.into_std() {
                driver.borrow_mut().linger(socket, counted);
            }
        }
    }
}

/// Reads until the kernel has no more and writes what is pending; ends when the driver or the core must act.
fn poll_turn(
    cx: &mut Context<'_>,
    driver: &SharedDriver,
    conn: ConnId,
    stream: &Stream,
    read: &mut OwnedReadHalf,
    eof: bool,
) -> Poll<Turn> {
    loop {
        if !stream.is_live() {
            return Poll::Ready(Turn::Let);
        }
        match stream.poll_write(cx) {
            Ok(true) => return Poll::Ready(Turn::Written),
            Ok(false) => {}
            Err(error) => stream.broken.set(Some(io_kind(&error))),
        }
        if eof || !stream.reading.get() {
            match stream.broken.get() {
                Some(kind) => return Poll::Ready(Turn::Failed(kind)),
                None => break,
            }
        }
        let mut driver = driver.borrow_mut();
        let mut scratch = driver.take_scratch();
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = Pin::new(&mut *read).poll_read(cx, &mut buffer);
        let len = buffer.filled().len();
        let turn = match (polled, stream.broken.get()) {
            (Poll::Ready(Ok(())), _) if len > 0 => {
                nap::found();
                driver.receive(conn, &mut scratch[..len]);
                None
            }
            // All that the peer said before it broke the stream is read: a refusal, perhaps, of what it did not take.
            (Poll::Ready(_), Some(kind)) => Some(Turn::Failed(kind)),
            (Poll::Ready(Ok(())), None) => Some(Turn::Eof),
            (Poll::Ready(Err(error)), None) => Some(Turn::Failed(io_kind(&error))),
            (Poll::Pending, _) => {
                driver.put_scratch(scratch);
                break;
            }
        };
        driver.put_scratch(scratch);
        if let Some(turn) = turn {
            return Poll::Ready(turn);
        }
    }
    match &mut *stream.waker.borrow_mut() {
        // Nothing to do for the one that it has, as a rule.
        Some(waker) => waker.clone_from(cx.waker()),
        waker => *waker = Some(cx.waker().clone()),
    }
    Poll::Pending
}

/// Writes the last bytes, which may take their time; returns whether all have left.
async fn write_last(socket: &mut TcpStream, mut pending: BytesMut) -> bool {
    let written = timeout(LAST_BYTES, socket.write_all_buf(&mut pending)).await;
    matches!(written, Ok(Ok(())))
}
