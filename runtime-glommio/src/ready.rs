//! How does a task wait for a descriptor? All those of a shard are in one epoll set, which tells whose turn it is.
//!
//! glommio has readiness for its own streams alone, and has the ring watch each of them anew after each read. One set of
//! them all costs the ring nothing while they are busy, and one request when they are not ([`Set::stirred`]).

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    ops::Deref,
    os::fd::{AsFd, AsRawFd as _, RawFd},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll as Polled, Wake, Waker},
    time::Duration,
};

use futures_lite::io::AsyncRead as _;
use glommio::timer::sleep;
use mio::{
    Events, Interest, Poll, Token,
    event::Event,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};
use slab::Slab;

/// What the kernel tells in one look at most.
const EVENTS_MAX: usize = 1024;

/// Not a descriptor of anybody.
const BELL: Token = Token(usize::MAX);

/// How long to wait when the process has no descriptor left, which a wait on the ring takes.
const BLIND_PAUSE: Duration = Duration::from_millis(10);

/// The descriptors that the tasks of one thread wait for.
#[derive(Debug)]
pub(crate) struct Set {
    poll: RefCell<Poll>,
    events: RefCell<Events>,
    watched: RefCell<Slab<Rc<State>>>,
    /// Makes the set ready from any thread.
    bell: Waker,
    /// Who waits for that.
    hearers: RefCell<Vec<Waker>>,
}

/// A descriptor in a [`Set`], for one task at a time.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    // Dropped before what it watches is closed.
    watch: Watch,
    source: S,
}

/// The place of a descriptor in its set, which it leaves when this is dropped.
#[derive(Debug)]
struct Watch {
    set: Rc<Set>,
    descriptor: RawFd,
    token: Token,
    /// Whether the kernel tells when there is room to write.
    is_for_writing: Cell<bool>,
    state: Rc<State>,
}

/// What is known of a descriptor. The kernel tells of each change once (epoll's edge trigger).
#[derive(Debug, Default)]
struct State {
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// The peer says no more: from now on a read always tells something.
    is_over: Cell<bool>,
    has_failed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Set {
    pub(crate) fn new() -> io::Result<Rc<Self>> {
        let poll = Poll::new()?;
        let bell = Bell(mio::Waker::new(poll.registry(), BELL)?);
        Ok(Rc::new(Self {
            poll: poll.into(),
            events: Events::with_capacity(EVENTS_MAX).into(),
            watched: RefCell::default(),
            bell: Arc::new(bell).into(),
            hearers: RefCell::default(),
        }))
    }

    /// Takes a descriptor in that does not block. It is said to be ready at first, which whoever uses it finds out.
    ///
    /// # Errors
    /// When the kernel refuses to watch it.
    pub(crate) fn watch<S: AsFd>(self: &Rc<Self>, source: S) -> io::Result<Watched<S>> {
        let state = Rc::new(State::default());
        state.readable.set(true);
        state.writable.set(true);
        let watch = Watch {
            set: self.clone(),
            descriptor: source.as_fd().as_raw_fd(),
            token: Token(self.watched.borrow_mut().insert(state.clone())),
            is_for_writing: Cell::new(false),
            state,
        };
        let registered =
            self.poll
                .borrow()
                .registry()
                .register(&mut SourceFd(&watch.descriptor), watch.token, Interest::READABLE);
        registered.map(|()| Watched { watch, source })
    }

    /// Waits until a stream that is being connected has been.
    ///
    /// # Errors
    /// Those of connect(2).
    pub(crate) async fn connected(self: &Rc<Self>, stream: TcpStream) -> io::Result<Watched<TcpStream>> {
        let stream = self.watch(stream)?;
        stream.watch.no_room()?;
        poll_fn(|cx| match stream.watch.state.writable.get() {
            true => Polled::Ready(()),
            false => stream.wait(cx),
        })
        .await;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// Waits for what other threads bring about. glommio itself would let them wake a task too, but not while its thread
    /// blocks elsewhere than on the ring.
    pub(crate) async fn hear<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Polled<T>) -> T {
        poll_fn(|cx| {
            let polled = poll(&mut Context::from_waker(&self.bell));
            let mut hearers = self.hearers.borrow_mut();
            if polled.is_pending() && !hearers.iter().any(|hearer| hearer.will_wake(cx.waker())) {
                hearers.push(cx.waker().clone());
            }
            polled
        })
        .await
    }

    /// Wakes the tasks whose descriptors are ready, and blocks for as long as `patience` when none is; returns how many
    /// were.
    ///
    /// # Errors
    /// When the set itself fails.
    pub(crate) fn look(&self, patience: Duration) -> io::Result<usize> {
        let mut events = self.events.borrow_mut();
        match self.poll.borrow_mut().poll(&mut events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            result => result?,
        }
        let watched = self.watched.borrow();
        let mut count = 0;
        for event in &*events {
            count += 1;
            if event.token() == BELL {
                self.hearers.borrow_mut().drain(..).for_each(Waker::wake);
            } else if let Some(state) = watched.get(event.token().0) {
                state.tell(event);
            }
        }
        Ok(count)
    }

    /// Waits on the ring until a look would find something. It may return too early.
    ///
    /// One of glommio's streams begins by having the ring watch its descriptor, whatever that is; when it then reads, the
    /// kernel refuses to read from what is no stream. That refusal is the news.
    pub(crate) async fn stirred(&self) {
        let descriptor = self.poll.borrow().registry().as_fd().try_clone_to_owned();
        let Ok(descriptor) = descriptor else {
            return sleep(BLIND_PAUSE).await;
        };
        let socket = socket2_glommio::Socket::from(std::net::TcpStream::from(descriptor));
        let mut stream = glommio::net::TcpStream::from(socket);
        poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut [0]).map(drop)).await;
    }
}

impl<S> Watched<S> {
    /// Has the task woken when something changes, and says that it waits.
    pub(crate) fn wait<T>(&self, cx: &Context<'_>) -> Polled<T> {
        self.watch.state.wait(cx)
    }

    /// Wakes whoever waits.
    pub(crate) fn wake(&self) {
        self.watch.state.wake();
    }

    /// Whether the kernel has told of an error.
    pub(crate) fn has_failed(&self) -> bool {
        self.watch.state.has_failed.get()
    }

    /// Waits until something may have come since it returned last.
    pub(crate) async fn readable(&self) {
        poll_fn(|cx| match self.watch.state.readable.replace(false) {
            true => Polled::Ready(()),
            false => self.wait(cx),
        })
        .await;
    }

    /// What was watched.
    pub(crate) fn into_inner(self) -> S {
        self.source
    }
}

impl Watched<TcpStream> {
    /// Reads what is there; whoever finds nothing has to [`wait`](Self::wait).
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> Polled<io::Result<usize>> {
        let state = &self.watch.state;
        if !state.readable.get() {
            return Polled::Pending;
        }
        match (&self.source).read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                state.readable.set(false);
                Polled::Pending
            }
            Ok(len) if len < buffer.len() => {
                // That was all, and the kernel will tell of more, but for the end, if it has told of that already.
                state.readable.set(state.is_over.get());
                Polled::Ready(Ok(len))
            }
            result => Polled::Ready(result),
        }
    }

    /// Writes what there is room for; whoever finds none has to [`wait`](Self::wait).
    pub(crate) fn try_write(&self, bytes: &[u8]) -> Polled<io::Result<usize>> {
        if !self.watch.state.writable.get() {
            return Polled::Pending;
        }
        match (&self.source).write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.watch.no_room() {
                Ok(()) => Polled::Pending,
                Err(error) => Polled::Ready(Err(error)),
            },
            result => Polled::Ready(result),
        }
    }

    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| match self.try_read(buffer) {
            Polled::Pending => self.wait(cx),
            ready => ready,
        })
        .await
    }

    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |cx: &mut Context<'_>| match self.try_write(bytes) {
                Polled::Pending => self.wait(cx),
                ready => ready,
            };
            bytes = &bytes[poll_fn(write).await?..];
        }
        Ok(())
    }
}

impl Watched<TcpListener> {
    /// Takes a connection, into the same set.
    ///
    /// # Errors
    /// Those of accept(2), or when the kernel refuses to watch it.
    pub(crate) async fn accept(&self) -> io::Result<(Watched<TcpStream>, SocketAddr)> {
        let (stream, from) = poll_fn(|cx| {
            if !self.watch.state.readable.get() {
                return self.wait(cx);
            }
            match self.source.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.watch.state.readable.set(false);
                    self.wait(cx)
                }
                result => Polled::Ready(result),
            }
        })
        .await?;
        Ok((self.watch.set.watch(stream)?, from))
    }
}

impl<S> Deref for Watched<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.source
    }
}

impl Watch {
    /// There is no room to write; from now on the kernel tells when there is.
    fn no_room(&self) -> io::Result<()> {
        self.state.writable.set(false);
        if self.is_for_writing.replace(true) {
            return Ok(());
        }
        self.set.poll.borrow().registry().reregister(
            &mut SourceFd(&self.descriptor),
            self.token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Where the kernel refused to watch it, it refuses this as well.
        let _ = self
            .set
            .poll
            .borrow()
            .registry()
            .deregister(&mut SourceFd(&self.descriptor));
        self.set.watched.borrow_mut().remove(self.token.0);
    }
}

impl State {
    fn tell(&self, event: &Event) {
        let has_failed = event.is_error();
        let is_over = event.is_read_closed() || has_failed;
        self.is_over.set(self.is_over.get() || is_over);
        self.has_failed.set(self.has_failed.get() || has_failed);
        self.readable.set(self.readable.get() || event.is_readable() || is_over);
        self.writable
            .set(self.writable.get() || event.is_writable() || event.is_write_closed() || has_failed);
        self.wake();
    }

    fn wait<T>(&self, cx: &Context<'_>) -> Polled<T> {
        match &mut *self.waker.borrow_mut() {
            // Nothing to do for the one that it has, as a rule.
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
        Polled::Pending
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

#[derive(Debug)]
struct Bell(mio::Waker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Err(error) = self.0.wake() {
            tracing::warn!(%error, "a shard could not be woken");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, io::Write as _, net::Shutdown, thread};

    use futures_lite::future::poll_once;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{executor, nap::Nap};

    /// Runs a test on an executor of which a task waits for the set.
    fn check<F: Future<Output = ()>>(test: impl FnOnce(Rc<Set>) -> F) {
        if let Err(error) = executor::check(1) {
            eprintln!("SKIPPED: {error}");
            return;
        }
        let ran = executor::run(async {
            let set = Set::new().expect("a set");
            let mut nap = Nap::new(set.clone(), Duration::ZERO).expect("a nap");
            let waiting = executor::spawn(async move {
                loop {
                    nap.wait(|| None, pending()).await.expect("a wait");
                }
            });
            test(set).await;
            waiting.cancel().await;
        });
        ran.expect("an executor");
    }

    /// A stream and its client, which does not block.
    async fn connect(set: &Rc<Set>) -> (Watched<TcpStream>, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0".parse().expect("an address")).expect("a listener");
        let listener = set.watch(listener).expect("a listener");
        let mut accepting = Box::pin(listener.accept());
        assert!(poll_once(&mut accepting).await.is_none(), "nobody has come");
        let at = listener.local_addr().expect("its address");
        let client = std::net::TcpStream::connect(at).expect("a connection");
        client.set_nonblocking(true).expect("one that does not block");
        let (stream, from) = accepting.await.expect("a connection");
        assert_eq!(from, client.local_addr().expect("its address"));
        (stream, client)
    }

    #[test]
    fn a_stream_tells_of_bytes_and_of_the_end() {
        check(async |set: Rc<Set>| {
            let (stream, mut client) = connect(&set).await;
            let buffer = &mut [0; 8];
            for bytes in [b"one", b"two"] {
                assert!(poll_once(stream.read(buffer)).await.is_none(), "nothing is there");
                client.write_all(bytes).expect("a write");
                assert_eq!(stream.read(buffer).await.expect("bytes"), 3);
                assert_eq!(&buffer[..3], bytes);
            }
            // Both are told at once.
            client.write_all(b"bye").expect("a write");
            client.shutdown(Shutdown::Write).expect("a goodbye");
            assert_eq!(stream.read(buffer).await.expect("bytes"), 3);
            assert_eq!(stream.read(buffer).await.expect("the end"), 0);
        });
    }

    #[test]
    fn a_stream_tells_of_room() {
        check(async |set: Rc<Set>| {
            let (stream, mut client) = connect(&set).await;
            let (block, mut written, mut read) = (vec![1; 1 << 16], 0, 0);
            while let Polled::Ready(len) = stream.try_write(&block) {
                written += len.expect("a write");
            }
            let writing = stream.write_all(&block);
            futures_lite::pin!(writing);
            written += block.len();
            while read < written {
                match client.read(&mut vec![0; 1 << 20]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => (&mut writing).await.expect("a write"),
                    result => read += result.expect("bytes"),
                }
            }
            assert_eq!(read, written);
        });
    }

    #[test]
    fn a_dial_tells_how_it_ended() {
        check(async |set: Rc<Set>| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
            let at = listener.local_addr().expect("its address");
            let dial = || set.connected(TcpStream::connect(at).expect("a dial"));
            let stream = dial().await.expect("a connection");
            let (accepted, from) = listener.accept().expect("a connection");
            assert_eq!(from, stream.local_addr().expect("its address"));
            drop((listener, accepted));
            let refused = dial().await.expect_err("nobody listens");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(set.watched.borrow().len(), 1, "the stream alone is watched");
        });
    }

    #[test]
    fn a_bell_is_heard_from_another_thread() {
        check(async |set: Rc<Set>| {
            let (ask, mut asked) = mpsc::channel(1);
            let (answer, mut answers) = mpsc::channel(1);
            let other = thread::spawn(move || {
                while let Some(number) = asked.blocking_recv() {
                    answer.blocking_send(number).expect("somebody hears");
                }
            });
            for number in 0..100 {
                ask.try_send(number).expect("room");
                assert_eq!(set.hear(|cx| answers.poll_recv(cx)).await, Some(number));
            }
            drop(ask);
            assert_eq!(set.hear(|cx| answers.poll_recv(cx)).await, None);
            other.join().expect("no fault");
        });
    }
}
