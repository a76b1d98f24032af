//! The crank: what happens is told to the core, what the core asks is carried out, on one thread.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
};

use edgeward_core::{
    action::{
        Access, Action, BindError, Conn, ConnId, Egress, Input, IoKind, ListenerId, Parcel, RelayId, ShardId, SocketId,
        Transport,
    },
    config::SharedConfig,
    stats::Snapshot,
    time::Instant,
};
use edgeward_daemon::{Clock, Letter, Mesh, Shard, Start, access, tcp::SCRATCH_BYTES};
use edgeward_udp::{Event, Options, Poller, Turn};
use glommio::{task::JoinHandle, timer::sleep};
use mio::net::TcpStream;
use tokio::sync::Notify;

use crate::{
    dial, executor, mesh,
    nap::Nap,
    ready::{Set, Watched},
    relay,
    stream::{End, Stream, Wrote},
};

/// The driver of a shard, shared by the tasks of its thread. It is never borrowed across an `.await`.
pub(crate) type SharedDriver = Rc<RefCell<Driver>>;

/// One shard of the core with its streams and sockets.
#[derive(Debug)]
pub(crate) struct Driver {
    id: ShardId,
    shard: Shard,
    egress: Egress,
    poller: Poller,
    set: Rc<Set>,
    streams: Vec<Option<(ConnId, Link)>>,
    /// The listeners of relayed transport addresses for TCP.
    relays: HashMap<RelayId, JoinHandle<()>>,
    scratch: Vec<u8>,
    clock: Clock,
    mesh: Mesh,
    access: access::Log,
    alarm: Rc<Alarm>,
    /// For the tasks that it starts.
    this: std::rc::Weak<RefCell<Self>>,
}

/// The runtime's part of a connection.
#[derive(Debug)]
enum Link {
    Dialing(JoinHandle<()>),
    Up(Rc<Stream>),
}

/// When the core wants to be woken, and a bell for those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    at: Cell<Option<Instant>>,
    changed: Notify,
    /// Tasks of streams, those that only say goodbye included.
    streams: Cell<usize>,
    quiet: Notify,
}

/// Counts a task of a stream as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Alarm>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.update(|streams| streams - 1);
        self.0.quiet.notify_one();
    }
}

impl Driver {
    /// A shard with its UDP sockets.
    pub(crate) fn start(start: Start) -> std::io::Result<SharedDriver> {
        let clock = start.clock;
        let mut poller = Poller::new(Options {
            coalesce: start.config.server.coalesce,
            ..Options::default()
        })?;
        for (id, socket) in start.sockets {
            poller.add(id, socket)?;
        }
        let set = Set::new()?;
        let shard = Shard::new(
            start.config,
            start.id,
            start.shards,
            start.seed,
            start.recorder,
            clock.now(),
        );
        let driver = Rc::new_cyclic(|this| {
            RefCell::new(Self {
                id: start.id,
                shard,
                egress: Egress::default(),
                poller,
                set,
                streams: Vec::new(),
                relays: HashMap::new(),
                scratch: vec![0; SCRATCH_BYTES],
                clock,
                mesh: start.mesh,
                access: start.access,
                alarm: Rc::default(),
                this: this.clone(),
            })
        });
        // Some things are due from the start.
        driver.borrow_mut().settle();
        Ok(driver)
    }

    /// A client has connected.
    pub(crate) fn accepted(&mut self, on: ListenerId, socket: Watched<TcpStream>, peer: SocketAddr) {
        let Ok(local) = socket.local_addr() else { return };
        // A full shard closes the socket, which the client sees at once.
        let Ok(conn) = self.shard.accept(self.clock.now(), on, local, peer) else {
            return;
        };
        self.attach(conn, socket, End::Any);
        self.settle();
    }

    /// A peer has connected to a relayed transport address.
    pub(crate) fn peer_accepted(&mut self, on: RelayId, socket: Watched<TcpStream>) {
        let (Ok(local), Ok(peer)) = (socket.local_addr(), socket.peer_addr()) else {
            return;
        };
        let now = self.clock.now();
        // Whom the core does not take sees the socket closed at once.
        if let Ok(conn) = self.shard.accept_peer(now, on, local, peer, &mut self.egress) {
            self.attach(conn, socket, End::Peer);
        }
        self.settle();
    }

    /// A connection comes from another shard.
    pub(crate) fn adopt(&mut self, socket: Watched<TcpStream>, conn: Box<Conn>) {
        let now = self.clock.now();
        let Ok(conn) = self.shard.adopt(now, conn) else { return };
        self.attach(conn, socket, End::Any);
        self.shard.resume(now, conn, &mut self.egress);
        self.settle();
    }

    /// Bytes of a stream have arrived.
    pub(crate) fn receive(&mut self, conn: ConnId, bytes: &mut [u8]) {
        self.shard.receive(self.clock.now(), conn, bytes, &mut self.egress);
        self.settle();
    }

    pub(crate) fn eof(&mut self, conn: ConnId) {
        self.handle(Input::Eof(conn));
    }

    pub(crate) fn written(&mut self, conn: ConnId) {
        self.handle(Input::Written(conn));
    }

    pub(crate) fn failed(&mut self, conn: ConnId, kind: IoKind) {
        self.detach(conn);
        self.handle(Input::Failed(conn, kind));
    }

    /// Tells the core and does what follows.
    pub(crate) fn handle(&mut self, input: Input) {
        self.shard.handle(self.clock.now(), input, &mut self.egress);
        self.settle();
    }

    /// Goes on with another configuration.
    pub(crate) fn configure(&mut self, config: SharedConfig) {
        self.access.configure(&config);
        self.handle(Input::Configure(config));
    }

    /// Has the last lines of the access log written.
    pub(crate) fn flush_log(&mut self) {
        self.access.flush();
    }

    /// A dial has ended, well or not.
    pub(crate) fn dialed(&mut self, conn: ConnId, result: Result<Watched<TcpStream>, IoKind>, end: End) {
        if self.detach(conn).is_none() {
            return;
        }
        let result = result.and_then(|socket| {
            let endpoints = dial::endpoints(&socket)?;
            self.attach(conn, socket, end);
            Ok(endpoints)
        });
        self.handle(Input::Dialed(conn, result));
    }

    /// Lets the poller look once; tells whether to come back without waiting.
    pub(crate) fn datagrams(&mut self) -> std::io::Result<Turn> {
        let Self {
            poller, shard, clock, ..
        } = self;
        let turn = poller.turn(|at, event, egress| match event {
            Event::Datagrams { socket, runs } => shard.datagrams(clock.at(at), socket, runs, egress),
            Event::Error {
                socket,
                peer,
                kind,
                icmp,
            } => shard.handle(clock.at(at), Input::SocketError(socket, peer, kind, icmp), egress),
        });
        self.settle();
        turn
    }

    /// The alarm has rung.
    fn timeout(&mut self) {
        self.shard.timeout(self.clock.now(), &mut self.egress);
        self.settle();
    }

    /// The buffer that streams read into; whoever takes it puts it back before it awaits.
    pub(crate) fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    pub(crate) fn put_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }

    /// What is known of the shard and its UDP sockets.
    pub(crate) fn snapshot(&self) -> Snapshot {
        edgeward_daemon::snapshot(&self.shard, &self.poller)
    }

    pub(crate) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// What the tasks of this shard wait for.
    pub(crate) fn set(&self) -> Rc<Set> {
        self.set.clone()
    }

    pub(crate) fn alarm(&self) -> Rc<Alarm> {
        self.alarm.clone()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Carries out what the core asks until it asks no more, then sends and sets the alarm.
    fn settle(&mut self) {
        while let Some(action) = self.shard.poll_action() {
            self.carry_out(action);
        }
        self.poller.send(&mut self.egress);
        let at = self.shard.poll_timeout();
        if self.alarm.at.replace(at) != at {
            self.alarm.changed.notify_one();
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Flush(conn) => self.flush(conn),
            Action::Read(conn, reading) => self.with_stream(conn, |stream| stream.set_reading(reading)),
            Action::Shut(conn) => self.with_stream(conn, Stream::shut),
            Action::Close(conn, bytes) => match self.detach(conn) {
                Some(Link::Up(stream)) => stream.close(bytes),
                Some(Link::Dialing(task)) => task.cancel(),
                None => {}
            },
            Action::Reset(conn) => match self.detach(conn) {
                Some(Link::Up(stream)) => stream.reset(),
                Some(Link::Dialing(task)) => task.cancel(),
                None => {}
            },
            Action::CloseSocket(relay) => match self.relays.remove(&relay) {
                Some(listener) => listener.cancel(),
                None => self.poller.remove(SocketId::Relay(relay)),
            },
            Action::Dial { conn, from, to } => {
                let task = dial::connect(self.set.clone(), self.this.clone(), conn, from, to);
                self.put(conn, Link::Dialing(task));
            }
            Action::Resolve { query, host } => dial::resolve(self.set.clone(), self.this.clone(), query, host),
            Action::BindRelay { relay, transport, at } => {
                let bound = match transport {
                    Transport::Udp => self.poller.bind(SocketId::Relay(relay), at),
                    Transport::Tcp => self.listen(relay, at),
                };
                self.shard
                    .handle(self.clock.now(), Input::RelayBound(relay, bound), &mut self.egress);
            }
            Action::Forward {
                to,
                parcel: Parcel::Conn(conn, value),
            } => {
                if let Some(Link::Up(stream)) = self.detach(conn) {
                    mesh::send_stream(self.mesh.clone(), to, stream.give_away(), value);
                }
            }
            Action::Forward { to, parcel } => self.mesh.send(to, Letter::Parcel(parcel)),
            Action::Log(access) => self.log(&access),
            Action::Drained => self.mesh.drained(self.id),
        }
    }

    fn log(&mut self, access: &Access) {
        if self.access.add(access) {
            let this = self.this.clone();
            let task = executor::spawn(async move {
                sleep(access::DELAY).await;
                if let Some(driver) = this.upgrade() {
                    driver.borrow_mut().flush_log();
                }
            });
            task.detach();
        }
    }

    fn listen(&mut self, relay: RelayId, at: SocketAddr) -> Result<SocketAddr, BindError> {
        let (listener, local) = relay::listen(&self.set, self.this.clone(), relay, at)?;
        self.relays.insert(relay, listener);
        Ok(local)
    }

    fn flush(&mut self, conn: ConnId) {
        let Some(Some((_, Link::Up(stream)))) = self.streams.get(index(conn)).filter(|slot| is(slot, conn)) else {
            return;
        };
        let stream = stream.clone();
        while let Some(bytes) = self.shard.take_output(conn) {
            match stream.write(bytes) {
                Wrote::All => self
                    .shard
                    .handle(self.clock.now(), Input::Written(conn), &mut self.egress),
                Wrote::Part => return,
            }
        }
    }

    fn attach(&mut self, conn: ConnId, socket: Watched<TcpStream>, end: End) {
        let Some(driver) = self.this.upgrade() else { return };
        // Small messages must not wait for the acknowledgement of others.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let stream = Stream::start(&driver, conn, socket, end, self.alarm.count_stream());
        self.put(conn, Link::Up(stream));
    }

    fn put(&mut self, conn: ConnId, link: Link) {
        let index = index(conn);
        if self.streams.len() <= index {
            self.streams.resize_with(index + 1, || None);
        }
        self.streams[index] = Some((conn, link));
    }

    fn detach(&mut self, conn: ConnId) -> Option<Link> {
        let slot = self.streams.get_mut(index(conn)).filter(|slot| is(slot, conn))?;
        slot.take().map(|(_, link)| link)
    }

    fn with_stream(&self, conn: ConnId, act: impl FnOnce(&Stream)) {
        if let Some(Some((_, Link::Up(stream)))) = self.streams.get(index(conn)).filter(|slot| is(slot, conn)) {
            act(stream);
        }
    }
}

fn index(conn: ConnId) -> usize {
    conn.0.index() as usize
}

fn is(slot: &Option<(ConnId, Link)>, conn: ConnId) -> bool {
    slot.as_ref().is_some_and(|(held, _)| *held == conn)
}

/// Wakes the core when it asked to be, and everybody else when there is something for them.
///
/// # Errors
/// When nobody can be waited for, which ends the shard.
pub(crate) async fn keep_time(driver: SharedDriver, mut nap: Nap) -> std::io::Result<()> {
    let (alarm, clock) = (driver.borrow().alarm(), driver.borrow().clock());
    let at = || alarm.at.get().map(|at| clock.system(at));
    loop {
        nap.wait(at, alarm.changed.notified()).await?;
        if at().is_some_and(|at| at <= std::time::Instant::now()) {
            driver.borrow_mut().timeout();
        }
    }
}

impl Alarm {
    /// Until the last bytes of the last stream are read.
    pub(crate) async fn quiet(&self) {
        while self.streams.get() > 0 {
            self.quiet.notified().await;
        }
    }

    pub(crate) fn count_stream(self: &Rc<Self>) -> Counted {
        self.streams.update(|streams| streams + 1);
        Counted(self.clone())
    }
}
