//! How does a TCP stream meet its connection in the core? One task a stream, which reads into the shard's one buffer
//! and writes what could not be written at once.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::Shutdown,
    os::fd::AsRawFd as _,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use edgeward_core::action::{ConnId, IoKind};
use edgeward_daemon::tcp::{LAST_BYTES, LINGER, io_kind};
use futures_lite::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use glommio::net::TcpStream;
use mio::{Events, Interest, Token, unix::SourceFd};
use socket2::SockRef;
use tokio::sync::oneshot;

use crate::{
    executor::{self, timeout},
    ready,
    shard::{Counted, SharedDriver},
};

/// Read by one task before others have their turn, in times of the shard's one buffer.
const READS_MAX: usize = 16;

/// A stream as its driver and its task hold it: written to from the turn that made the bytes.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: RefCell<TcpStream>,
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
        socket: TcpStream,
        end: End,
        counted: Counted,
    ) -> Rc<Self> {
        let stream = Rc::new(Self {
            socket: RefCell::new(socket),
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
        executor::spawn(run(driver.clone(), conn, stream.clone(), broken, counted)).detach();
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
            // Where the kernel has no room, the task asks again and is woken.
            match self.poll_socket_write(&mut Context::from_waker(Waker::noop()), &bytes) {
                Poll::Ready(Ok(written)) => bytes.advance(written),
                Poll::Ready(Err(error)) => self.broken.set(Some(io_kind(&error))),
                Poll::Pending => {
                    *pending = bytes;
                    self.wake();
                    return Wrote::Part;
                }
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
        let closed = Pin::new(&mut *self.socket.borrow_mut()).poll_close(&mut Context::from_waker(Waker::noop()));
        debug_assert!(closed.is_ready(), "shutdown(2) does not wait");
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
        if let Ok(socket) = edgeward_udp::duplicate(&*self.socket.borrow()) {
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        *self.fate.borrow_mut() = Fate::Reset;
        self.wake();
    }

    /// Gives the descriptor away; the core has forgotten the connection.
    pub(crate) fn give_away(&self) -> oneshot::Receiver<std::net::TcpStream> {
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
            match self.poll_socket_write(cx, &pending) {
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

    fn poll_socket_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_socket_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_read(cx, buffer)
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
    match error_of(&stream).await {
        Ok(Some(error)) | Err(error) => io_kind(&error),
        Ok(None) => IoKind::Other,
    }
}

/// Waits for an error of a stream. A ring tells of errors only together with bytes that can be read; epoll tells of them to
/// whoever asks for urgent bytes alone.
async fn error_of(stream: &Stream) -> io::Result<Option<io::Error>> {
    let mut errors = mio::Poll::new()?;
    let socket = stream.socket.borrow().as_raw_fd();
    errors
        .registry()
        .register(&mut SourceFd(&socket), Token(0), Interest::PRIORITY)?;
    let mut events = Events::with_capacity(1);
    loop {
        ready::readable(errors.registry()).await;
        errors.poll(&mut events, Some(Duration::ZERO))?;
        if events.iter().any(mio::event::Event::is_error) {
            let socket = edgeward_udp::duplicate(&*stream.socket.borrow())?;
            return SockRef::from(&socket).take_error();
        }
    }
}

/// The task of a stream; `_counted` lives as long as it does.
async fn run(driver: SharedDriver, conn: ConnId, stream: Rc<Stream>, mut broken: Option<Broken>, _counted: Counted) {
    let mut eof = false;
    loop {
        let turn = poll_fn(|cx| {
            let turn = poll_turn(cx, &driver, conn, &stream, eof);
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
    // The driver has dropped its reference with the connection.
    let Some(stream) = Rc::into_inner(stream) else { return };
    let socket = stream.socket.into_inner();
    // Boxed, since a task is as large as its largest part, and most of the time a stream is only waiting.
    match fate {
        Fate::Move(sender) => Box::pin(move_away(socket, pending, sender)).await,
        Fate::Reset => drop(socket),
        Fate::Close | Fate::Live => Box::pin(linger(socket, pending, eof)).await,
    }
}

/// Reads until the kernel has no more and writes what is pending; ends when the driver or the core must act.
fn poll_turn(cx: &mut Context<'_>, driver: &SharedDriver, conn: ConnId, stream: &Stream, eof: bool) -> Poll<Turn> {
    let mut reads = 0;
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
        let polled = stream.poll_socket_read(cx, &mut scratch);
        let turn = match (polled, stream.broken.get()) {
            (Poll::Ready(Ok(len)), _) if len > 0 => {
                driver.receive(conn, &mut scratch[..len]);
                None
            }
            // All that the peer said before it broke the stream is read: a refusal, perhaps, of what it did not take.
            (Poll::Ready(_), Some(kind)) => Some(Turn::Failed(kind)),
            (Poll::Ready(Ok(_)), None) => Some(Turn::Eof),
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
        reads += 1;
        if reads == READS_MAX {
            cx.waker().wake_by_ref();
            break;
        }
    }
    *stream.waker.borrow_mut() = Some(cx.waker().clone());
    Poll::Pending
}

/// Hands the descriptor on once everything of this shard is written.
async fn move_away(mut socket: TcpStream, pending: BytesMut, to: oneshot::Sender<std::net::TcpStream>) {
    if let Some(Ok(())) = timeout(LAST_BYTES, socket.write_all(&pending)).await
        && let Ok(socket) = edgeward_udp::duplicate(&socket)
    {
        // Where nobody waits any more the stream is closed, and the client comes again.
        let _ = to.send(socket.into());
    }
}

/// Writes the last bytes and waits for the peer to have read them: a socket closed over unread input would be reset,
/// and the peer would never see the answer (RFC 9112 section 9.6).
async fn linger(mut socket: TcpStream, pending: BytesMut, eof: bool) {
    let last_bytes = async {
        socket.write_all(&pending).await?;
        Ok(socket.shutdown(Shutdown::Write).await?)
    };
    let Some(io::Result::Ok(())) = timeout(LAST_BYTES, last_bytes).await else {
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
