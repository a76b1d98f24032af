//! How does a runtime drive a shard? The whole contract of `core/src/action.rs`, carried out by one loop on mio.
//!
//! This is the third driver, after tokio and glommio: not the fastest, but the one to read before writing another. The
//! core decides everything; a driver owns what the core may not touch, and for a shard that is
//!
//! - a *clock*: each door of the shard is told the time, and [`Shard::timeout`] is called when
//!   [`Shard::poll_timeout`] says so;
//! - *sockets*: listeners and streams for TCP, and the poller of `edgeward-udp`, which holds all sockets for UDP;
//! - *letters* from the other shards and from the process, which come through a channel;
//! - *names*, which only a thread that may wait can look up.
//!
//! Something happens: a door of the shard is told. Then [`Drive::settle`] carries out all that the shard asks for, and
//! sends what it has to send. That is all there is to it, and the same in every runtime; what differs is who wakes
//! whom. Here the kernel, a letter or an alarm puts the [`Token`] of a source on the ready list, and the loop gives each
//! ready source a turn. A turn is one thing: one read, one accept, one letter. A source that may have more stays on the
//! list, so that nobody starves the others, and since mio tells of each change once (epoll's edge trigger), it leaves
//! the list only when the kernel had no more for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    sync::{Arc, mpsc},
    task::{Context, Poll as Polled, Wake},
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use edgeward_core::action::{
    Action, BindError, Conn, ConnId, Egress, Endpoints, Input, IoKind, ListenerId, Parcel, RelayId, ResolveError,
    ShardId, SocketId, Transport,
};
use edgeward_daemon::{
    CUT_GRACE, Clock, Letter, Letters, Mesh, Shard, Start, access, resolve, snapshot,
    tcp::{self, SCRATCH_BYTES, accept_failed, io_kind},
};
use edgeward_udp::{Event, Options, Poller, Turn};
use mio::{
    Events, Interest, Poll, Token,
    event::Source,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};

use self::{
    leaving::{Leaving, Left, Next},
    stream::{End, Happened, Stream, connected},
};

mod leaving;
mod stream;

/// Letters, and names that have been looked up.
const MAIL: Token = Token(0);
/// The poller of all UDP sockets.
const UDP: Token = Token(1);
/// The access log.
const LOG: Token = Token(2);
/// From here on each socket gets the next number. None is given twice, so an event that outlives its socket finds nobody.
const FIRST_SOCKET: Token = Token(3);

/// What the kernel tells in one look at most.
const EVENTS_MAX: usize = 256;

/// Runs one shard on this thread until it is told to end and has ended.
///
/// # Errors
/// When the poll set or the UDP poller fails, without which nothing can be done.
pub fn run(start: Start, listeners: Vec<std::net::TcpListener>, letters: Letters) -> io::Result<()> {
    Drive::new(start, listeners, letters)?.run()
}

/// A shard with its sockets.
struct Drive {
    id: ShardId,
    shard: Shard,
    /// What the shard wants sent by UDP, outside of a turn of the poller.
    egress: Egress,
    clock: Clock,
    mesh: Mesh,
    access: access::Log,
    letters: Letters,
    /// Where threads put the answers to [`Action::Resolve`].
    answers: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    /// Wakes the loop from other threads: makes [`MAIL`] ready.
    bell: std::task::Waker,
    poll: Poll,
    udp: Poller,
    sockets: BTreeMap<Token, Socket>,
    next_socket: Token,
    /// What the core calls its connections, as long as it knows them.
    conns: HashMap<ConnId, Token>,
    /// Listeners of relayed transport addresses for TCP.
    relays: HashMap<RelayId, Token>,
    ready: BTreeSet<Token>,
    /// Makes a source ready when its time has come. One that is no longer needed does no harm.
    alarms: BTreeSet<(Instant, Token)>,
    scratch: Vec<u8>,
    phase: Phase,
}

/// What a token stands for.
enum Socket {
    Listener(TcpListener, On),
    Dial(TcpStream, ConnId, End),
    Stream(Stream),
    Leaving(Leaving),
}

/// What a listener is for.
#[derive(Clone, Copy)]
enum On {
    /// Clients.
    Clients(ListenerId),
    /// Peers of a TURN client (RFC 6062).
    Peers(RelayId),
}

/// How far the end has come.
enum Phase {
    Serving,
    /// The core lets go of what there is. Whatever happens, it is over at the time given.
    Draining(Instant),
    /// All shards have let go: only the last words of streams are waited for.
    Closing(Instant),
}

impl Drive {
    fn new(start: Start, listeners: Vec<std::net::TcpListener>, letters: Letters) -> io::Result<Self> {
        let poll = Poll::new()?;
        let bell = Arc::new(Bell(mio::Waker::new(poll.registry(), MAIL)?));

        // The poller is a poll set of its own; its descriptor is readable when a socket in it is.
        let mut udp = Poller::new(Options {
            coalesce: start.config.server.coalesce,
            ..Options::default()
        })?;
        for (id, socket) in start.sockets {
            udp.add(id, socket)?;
        }
        poll.registry()
            .register(&mut SourceFd(&udp.as_raw_fd()), UDP, Interest::READABLE)?;

        let mut drive = Self {
            id: start.id,
            shard: Shard::new(
                start.config,
                start.id,
                start.shards,
                start.seed,
                start.recorder,
                start.clock.now(),
            ),
            egress: Egress::default(),
            clock: start.clock,
            mesh: start.mesh,
            access: start.access,
            letters,
            answers: mpsc::channel(),
            bell: bell.into(),
            poll,
            udp,
            sockets: BTreeMap::new(),
            next_socket: FIRST_SOCKET,
            conns: HashMap::new(),
            relays: HashMap::new(),
            // The channel wakes us only after it has been looked at.
            ready: [MAIL].into(),
            alarms: BTreeSet::new(),
            scratch: vec![0; SCRATCH_BYTES],
            phase: Phase::Serving,
        };
        for (number, listener) in (0..).zip(listeners) {
            drive.listen(listener, On::Clients(ListenerId(number)))?;
        }
        // Some things are due from the start.
        drive.settle();
        Ok(drive)
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.is_over() {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.ready.extend(events.iter().map(|event| event.token())),
            }
            self.ring();
            // Who becomes ready meanwhile has the next turn, after another look at the kernel.
            for token in std::mem::take(&mut self.ready) {
                self.turn(token)?;
            }
        }
        self.access.flush();
        Ok(())
    }

    fn is_over(&self) -> bool {
        let is_stream = |socket: &Socket| !matches!(socket, Socket::Listener(..));
        let cut = match self.phase {
            Phase::Serving => return false,
            Phase::Closing(_) if !self.sockets.values().any(is_stream) => return true,
            Phase::Draining(cut) | Phase::Closing(cut) => cut,
        };
        let is_late = Instant::now() >= cut;
        if is_late {
            tracing::info!("some connections did not end in time");
        }
        is_late
    }

    /// How long the kernel may keep us waiting.
    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let core = self.shard.poll_timeout().map(|at| self.clock.system(at));
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let cut = match self.phase {
            Phase::Serving => None,
            Phase::Draining(cut) | Phase::Closing(cut) => Some(cut),
        };
        let next = [core, alarm, cut].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// What the clock has to say.
    fn ring(&mut self) {
        let now = Instant::now();
        while let Some(&(at, token)) = self.alarms.first()
            && at <= now
        {
            self.alarms.pop_first();
            self.ready.insert(token);
        }
        let now = self.clock.at(now);
        if self.shard.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.shard.timeout(now, &mut self.egress);
            self.settle();
        }
    }

    /// Does one thing for a source; whoever may have more to do is ready again.
    fn turn(&mut self, token: Token) -> io::Result<()> {
        match token {
            MAIL => self.open_mail(),
            UDP => self.datagrams()?,
            LOG => self.access.flush(),
            _ => self.socket(token),
        }
        self.settle();
        Ok(())
    }

    /// Tells the core.
    fn handle(&mut self, input: Input) {
        self.shard.handle(self.clock.now(), input, &mut self.egress);
    }

    /// Carries out what the core asks until it asks no more, then sends.
    fn settle(&mut self) {
        while let Some(action) = self.shard.poll_action() {
            self.carry_out(action);
        }
        self.udp.send(&mut self.egress);
    }

    // What happens.

    /// Datagrams, and reports of some that came to nothing. What the shard answers, the poller sends by itself.
    fn datagrams(&mut self) -> io::Result<()> {
        let Self { udp, shard, clock, .. } = self;
        let turn = udp.turn(|at, event, egress| match event {
            Event::Datagrams { socket, runs } => shard.datagrams(clock.at(at), socket, runs, egress),
            Event::Error {
                socket,
                peer,
                kind,
                icmp,
            } => shard.handle(clock.at(at), Input::SocketError(socket, peer, kind, icmp), egress),
        })?;
        if turn == Turn::More {
            self.ready.insert(UDP);
        }
        Ok(())
    }

    fn open_mail(&mut self) {
        if let Ok(answer) = self.answers.1.try_recv() {
            self.ready.insert(MAIL);
            self.handle(answer);
        }
        // When there is none, the channel remembers whom to wake.
        match self.letters.poll_recv(&mut Context::from_waker(&self.bell)) {
            Polled::Ready(Some(letter)) => {
                self.ready.insert(MAIL);
                self.letter(letter);
            }
            // The process is gone.
            Polled::Ready(None) => self.phase = Phase::Closing(Instant::now()),
            Polled::Pending => {}
        }
    }

    fn letter(&mut self, letter: Letter) {
        match letter {
            Letter::Parcel(parcel) => self.handle(Input::Parcel(parcel)),
            Letter::Stream(socket, conn) => self.adopt(TcpStream::from_std(socket), conn),
            Letter::Snapshot(to) => {
                // Whoever asked may have given up.
                let _ = to.try_send(snapshot(&self.shard, &self.udp));
            }
            Letter::Configure(config, _done) => {
                self.access.configure(&config);
                self.handle(Input::Configure(config));
            }
            Letter::Drain(within) => {
                self.sockets
                    .retain(|_, socket| !matches!(socket, Socket::Listener(_, On::Clients(_))));
                let deadline = self.clock.now().mono + within;
                // The core cuts what is left at the deadline; a moment more for what it then says.
                self.phase = Phase::Draining(self.clock.system(deadline) + CUT_GRACE);
                self.handle(Input::Drain(deadline));
            }
            Letter::Close => {
                if let Phase::Draining(cut) = self.phase {
                    self.phase = Phase::Closing(cut);
                }
            }
        }
    }

    /// The kernel, the core or an alarm has something for a socket.
    fn socket(&mut self, token: Token) {
        match self.sockets.get_mut(&token) {
            Some(Socket::Listener(listener, on)) => {
                let (accepted, on) = (listener.accept(), *on);
                self.accepted(token, on, accepted);
            }
            Some(Socket::Dial(socket, conn, end)) => {
                if let Some(result) = connected(socket) {
                    let (conn, end) = (*conn, *end);
                    self.dialled(token, conn, end, result);
                }
            }
            Some(Socket::Stream(stream)) => {
                let conn = stream.conn();
                if let Some(happened) = stream.turn(&mut self.scratch) {
                    self.ready.insert(token);
                    self.happened(conn, happened);
                }
            }
            Some(Socket::Leaving(leaving)) => match leaving.turn(&mut self.scratch) {
                Left::Not => {}
                Left::Soon(at) => {
                    self.alarms.insert((at, token));
                    self.ready.insert(token);
                }
                Left::Gone => self.hand_over(token),
            },
            None => {}
        }
    }

    /// Somebody has connected. Whom the core does not take sees the socket closed at once.
    fn accepted(&mut self, token: Token, on: On, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                self.alarms.insert((Instant::now() + accept_failed(&error), token));
                return;
            }
        };
        self.ready.insert(token);
        let Ok(local) = socket.local_addr() else { return };
        let now = self.clock.now();
        let (accepted, end) = match on {
            On::Clients(on) => (self.shard.accept(now, on, local, peer), End::Any),
            On::Peers(on) => {
                let accepted = self.shard.accept_peer(now, on, local, peer, &mut self.egress);
                (accepted, End::Peer)
            }
        };
        if let Ok(conn) = accepted {
            self.attach(conn, socket, end);
        }
    }

    fn dialled(&mut self, token: Token, conn: ConnId, end: End, result: Result<Endpoints, IoKind>) {
        let socket = self.sockets.remove(&token);
        match socket {
            Some(Socket::Dial(socket, ..)) if result.is_ok() => {
                self.sockets
                    .insert(token, Socket::Stream(Stream::new(conn, socket, end)));
                self.ready.insert(token);
            }
            _ => drop(self.conns.remove(&conn)),
        }
        self.handle(Input::Dialed(conn, result));
    }

    fn happened(&mut self, conn: ConnId, happened: Happened) {
        match happened {
            Happened::Received(len) => {
                let bytes = &mut self.scratch[..len];
                self.shard.receive(self.clock.now(), conn, bytes, &mut self.egress);
            }
            Happened::Written => self.handle(Input::Written(conn)),
            Happened::Eof => self.handle(Input::Eof(conn)),
            Happened::Failed(kind) => {
                self.detach(conn);
                self.handle(Input::Failed(conn, kind));
            }
        }
    }

    /// A connection comes from another shard.
    fn adopt(&mut self, socket: TcpStream, conn: Box<Conn>) {
        let now = self.clock.now();
        if let Ok(conn) = self.shard.adopt(now, conn) {
            self.attach(conn, socket, End::Any);
            self.shard.resume(now, conn, &mut self.egress);
        }
    }

    // What the core asks for.

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Flush(conn) => self.flush(conn),
            Action::Read(conn, reading) => {
                if let Some((token, stream)) = self.stream(conn) {
                    stream.set_reading(reading);
                    self.ready.insert(token);
                }
            }
            Action::Shut(conn) => {
                if let Some((_, stream)) = self.stream(conn) {
                    stream.shut();
                }
            }
            Action::Close(conn, last_words) => self.leave(conn, last_words, Next::Linger),
            Action::Reset(conn) => {
                if let Some((_, Socket::Stream(stream))) = self.detach(conn) {
                    stream.reset();
                }
            }
            Action::Dial { conn, from, to } => self.dial(conn, from, to),
            Action::Resolve { query, host } => {
                let (answers, bell) = (self.answers.0.clone(), self.bell.clone());
                let look_up = move || {
                    // Where nobody listens, the shard has ended.
                    let _ = answers.send(Input::Resolved(query, resolve(&host)));
                    bell.wake();
                };
                if let Err(error) = thread::Builder::new().name("name".into()).spawn(look_up) {
                    tracing::warn!(%error, "a name could not be looked up");
                    self.handle(Input::Resolved(query, Err(ResolveError)));
                }
            }
            Action::BindRelay { relay, transport, at } => {
                let bound = match transport {
                    Transport::Udp => self.udp.bind(SocketId::Relay(relay), at),
                    Transport::Tcp => self.listen_for_peers(relay, at),
                };
                self.handle(Input::RelayBound(relay, bound));
            }
            Action::CloseSocket(relay) => match self.relays.remove(&relay) {
                Some(token) => drop(self.sockets.remove(&token)),
                None => self.udp.remove(SocketId::Relay(relay)),
            },
            Action::Forward {
                to,
                parcel: Parcel::Conn(conn, value),
            } => self.leave(conn, BytesMut::new(), Next::Move(to, value)),
            Action::Forward { to, parcel } => self.mesh.send(to, Letter::Parcel(parcel)),
            Action::Log(access) => {
                if self.access.add(&access) {
                    self.alarms.insert((Instant::now() + access::DELAY, LOG));
                }
            }
            Action::Drained => self.mesh.drained(self.id),
        }
    }

    /// Takes what there is to write, and writes what the kernel takes of it. The core has no more until all is written.
    fn flush(&mut self, conn: ConnId) {
        let Some(bytes) = self.shard.take_output(conn) else {
            return;
        };
        let Some((token, stream)) = self.stream(conn) else {
            return;
        };
        match stream.write(bytes) {
            true => self.handle(Input::Written(conn)),
            // Full or broken: one of its next turns tells.
            false => drop(self.ready.insert(token)),
        }
    }

    /// The answer is one [`Input::Dialed`], unless the core closes the connection before.
    fn dial(&mut self, conn: ConnId, from: Option<SocketAddr>, to: SocketAddr) {
        let (dialled, end) = match from {
            Some(from) => (stream::connect_from(from, to), End::Peer),
            None => (TcpStream::connect(to), End::Any),
        };
        let dialling = dialled.and_then(|socket| self.keep(socket, |socket| Socket::Dial(socket, conn, end)));
        match dialling {
            Ok(token) => drop(self.conns.insert(conn, token)),
            Err(error) => self.handle(Input::Dialed(conn, Err(io_kind(&error)))),
        }
    }

    fn listen_for_peers(&mut self, relay: RelayId, at: SocketAddr) -> Result<SocketAddr, BindError> {
        let listener = tcp::listen_relay(at)?;
        let local = listener.local_addr().map_err(|_| BindError::Failed)?;
        let token = self.listen(listener, On::Peers(relay)).map_err(|_| BindError::Failed)?;
        self.relays.insert(relay, token);
        Ok(local)
    }

    fn listen(&mut self, listener: std::net::TcpListener, on: On) -> io::Result<Token> {
        self.keep(TcpListener::from_std(listener), |listener| {
            Socket::Listener(listener, on)
        })
    }

    /// The core has let go of a connection, whose id is dead from now on. Its stream has still to say its last words.
    fn leave(&mut self, conn: ConnId, last_words: BytesMut, next: Next) {
        // What was still being dialled has nothing to say, and is closed by being dropped.
        if let Some((token, Socket::Stream(stream))) = self.detach(conn) {
            let leaving = stream.leave(last_words, next);
            self.alarms.insert((leaving.until(), token));
            self.sockets.insert(token, Socket::Leaving(leaving));
            self.ready.insert(token);
        }
    }

    /// A stream has said all: it is closed, or goes on to the shard where its connection belongs.
    fn hand_over(&mut self, token: Token) {
        let Some(Socket::Leaving(leaving)) = self.sockets.remove(&token) else {
            return;
        };
        if let Some((to, mut socket, conn)) = leaving.moved() {
            // The descriptor stays open, so the kernel would go on telling us of it.
            match self.poll.registry().deregister(&mut socket) {
                Ok(()) => self.mesh.send(to, Letter::Stream(socket.into(), conn)),
                Err(error) => tracing::warn!(%error, "a connection was lost on its way to another shard"),
            }
        }
    }

    // Which socket is whose.

    /// Takes a connected stream in under the name that the core gave it.
    fn attach(&mut self, conn: ConnId, socket: TcpStream, end: End) {
        match self.keep(socket, |socket| Socket::Stream(Stream::new(conn, socket, end))) {
            Ok(token) => drop(self.conns.insert(conn, token)),
            Err(error) => self.handle(Input::Failed(conn, io_kind(&error))),
        }
    }

    /// Has the kernel tell of a socket from now on.
    fn keep<S: Source>(&mut self, mut socket: S, kind: impl FnOnce(S) -> Socket) -> io::Result<Token> {
        let token = self.next_socket;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, token, interest)?;
        self.next_socket = Token(token.0 + 1);
        self.sockets.insert(token, kind(socket));
        Ok(token)
    }

    fn stream(&mut self, conn: ConnId) -> Option<(Token, &mut Stream)> {
        let token = *self.conns.get(&conn)?;
        match self.sockets.get_mut(&token) {
            Some(Socket::Stream(stream)) => Some((token, stream)),
            _ => None,
        }
    }

    fn detach(&mut self, conn: ConnId) -> Option<(Token, Socket)> {
        let token = self.conns.remove(&conn)?;
        Some((token, self.sockets.remove(&token)?))
    }
}

/// Wakes the loop from another thread.
struct Bell(mio::Waker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // It fails only together with the poll set, which the loop then finds out.
        let _ = self.0.wake();
    }
}
