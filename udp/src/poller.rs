//! What happens to the datagrams of a shard? The loop: wait, receive, ask the shard, send.

use std::{
    collections::VecDeque,
    io, mem,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::{Duration, Instant},
};

use edgeward_core::{
    action::{BindError, Egress, Icmp, IoKind, Run, SocketId},
    config::Server,
};
use mio::{Events, Interest, Poll, unix::SourceFd};

use crate::{
    arena::{Arena, BATCH_MAX},
    bind::bind_exclusive,
    counters::Counters,
    napper::Napper,
    outbox::Outbox,
    socket::{Buffers, Socket},
    table::{Table, token},
};

/// All UDP sockets of a shard. It is readable, for a poll set that it nests in, when [`Poller::turn`] has work.
#[derive(Debug)]
pub struct Poller {
    poll: Poll,
    events: Events,
    options: Options,
    sockets: Table<Socket>,
    /// Sockets that may hold datagrams. The kernel tells of a socket once; it stays here until it is drained.
    ready: VecDeque<SocketId>,
    arena: Arena,
    /// What waits to be sent, and behind it room to use again.
    batches: Vec<Batch>,
    /// How many of those are in use.
    pending: usize,
    napper: Napper,
    counters: Counters,
}

/// How a [`Poller`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Buffers of the sockets that all clients or all mediaservers share.
    pub shared: Buffers,
    /// Buffers of one relay.
    pub relay: Buffers,
    /// How long datagrams may wait so as to be taken together, while they come often; zero is not at all. It is the
    /// most that the poller adds to the delay of one, and the longest time that [`Poller::turn`] sleeps. It waits no
    /// longer than it takes to make sleeping cheap.
    pub coalesce: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shared: Buffers {
                receive_bytes: 4 << 20,
                send_bytes: 4 << 20,
            },
            relay: Buffers {
                receive_bytes: 512 << 10,
                send_bytes: 512 << 10,
            },
            coalesce: Server::default().coalesce,
        }
    }
}

/// What a turn found.
#[derive(Debug)]
pub enum Event<'a> {
    /// Datagrams arrived, in this order.
    Datagrams {
        /// Where.
        socket: SocketId,
        /// What, and from whom.
        runs: &'a [Run<'a>],
    },
    /// The kernel reports that a datagram sent before came to nothing (ICMP).
    Error {
        /// Where it was sent from.
        socket: SocketId,
        /// Where it was sent to.
        peer: SocketAddr,
        /// Why.
        kind: IoKind,
        /// The ICMP message that told it, or that a router would have sent.
        icmp: Option<Icmp>,
    },
}

/// What to do after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// Nothing is left: call again when the poller is readable.
    Idle,
    /// Call again soon, without waiting for the poller, once others had their chance to run.
    More,
}

/// What the shard answered to one batch.
#[derive(Debug, Default)]
struct Batch {
    /// The first of its buffers in the arena: where the runs that the egress names are counted from.
    first: usize,
    egress: Egress,
}

impl Poller {
    /// A poller without sockets. Made on the thread that will use it: where it may nap, it makes the timers of this
    /// thread more exact.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(options: Options) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            options,
            sockets: Table::new(),
            ready: VecDeque::new(),
            arena: Arena::new(),
            batches: Vec::new(),
            pending: 0,
            napper: Napper::new(options.coalesce)?,
            counters: Counters::default(),
        })
    }

    /// Takes a bound socket in under this id; one that had it before is closed.
    ///
    /// # Errors
    /// When the kernel refuses an option, or to watch the socket.
    pub fn add(&mut self, id: SocketId, udp: UdpSocket) -> io::Result<()> {
        let local = udp.local_addr()?;
        self.add_bound(id, udp, local)
    }

    /// Binds a relay to an address that nobody else has, and takes it in. Returns the address with its port.
    ///
    /// # Errors
    /// [`BindError::InUse`] when somebody has the address, else [`BindError::Failed`].
    pub fn bind(&mut self, id: SocketId, at: SocketAddr) -> Result<SocketAddr, BindError> {
        let udp = bind_exclusive(at)?;
        let add = || {
            let local = udp.local_addr()?;
            self.add_bound(id, udp, local)?;
            Ok(local)
        };
        add().map_err(|error: io::Error| {
            tracing::warn!(%error, "cannot take a relay in");
            BindError::Failed
        })
    }

    /// Closes a socket. What waits in it is lost.
    pub fn remove(&mut self, id: SocketId) {
        self.sockets.remove(id);
    }

    /// Receives what is there, in batches of one socket each, calls `handle` for each batch, and sends what it fills
    /// the [`Egress`] with. May nap before, for at most [`Options::coalesce`]; the time given to `handle` is the one
    /// after. Takes no more than some hundred runs, so that others have their chance as well.
    ///
    /// # Errors
    /// When the poll set itself fails. Failures of sockets are counted, or reported as [`Event::Error`].
    pub fn turn(&mut self, mut handle: impl FnMut(Instant, Event<'_>, &mut Egress)) -> io::Result<Turn> {
        self.counters.turns += 1;
        self.napper.goes_on()?;
        let mut now = Instant::now();
        if self.ready.is_empty()
            && let Some(woken) = self.napper.nap(now)?
        {
            self.counters.naps += 1;
            now = woken;
        }
        let all = self.look()?;
        let (mut runs, mut batches) = (0, 0);
        while runs + batches < TURN_MAX
            && let Some(id) = self.ready.pop_front()
        {
            runs += self.receive(id, now, &mut handle);
            batches += 1;
        }
        self.flush();
        let napping = self.napper.looked(now, runs);
        if !all || !self.ready.is_empty() || napping {
            return Ok(Turn::More);
        }
        self.napper.blocks()?;
        Ok(Turn::Idle)
    }

    /// Sends and clears what the shard wrote outside of a turn; it can name no run.
    pub fn send(&mut self, egress: &mut Egress) {
        Outbox::send(&mut self.sockets, &mut self.counters, |outbox| {
            outbox.push(egress, |_| &[])
        });
        egress.clear();
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn add_bound(&mut self, id: SocketId, udp: UdpSocket, local: SocketAddr) -> io::Result<()> {
        let buffers = match id {
            SocketId::Turn(_) | SocketId::Sip => self.options.shared,
            SocketId::Relay(_) => self.options.relay,
        };
        let socket = Socket::new(id, udp, local, buffers)?;
        let fd = socket.io.as_raw_fd();
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), token(id), Interest::READABLE)?;
        self.sockets.insert(id, socket);
        Ok(())
    }

    /// Puts the sockets that the kernel tells of on the ready list; returns whether it told of all.
    fn look(&mut self) -> io::Result<bool> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            result => result?,
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            if let Some(id) = self.sockets.id(event.token())
                && let Some(socket) = self.sockets.get_mut(id)
            {
                socket.failed |= event.is_error();
                if !mem::replace(&mut socket.ready, true) {
                    self.ready.push_back(id);
                }
            }
        }
        Ok(count < EVENTS_MAX)
    }

    /// Takes one batch from a socket to the shard; returns the number of runs.
    fn receive(
        &mut self,
        id: SocketId,
        now: Instant,
        handle: &mut impl FnMut(Instant, Event<'_>, &mut Egress),
    ) -> usize {
        if self.arena.free() < BATCH_MAX {
            self.flush();
        }
        // Closed since the kernel told of it.
        let Some(socket) = self.sockets.get_mut(id) else {
            return 0;
        };
        let first = self.arena.filled();
        if self.pending == self.batches.len() {
            self.batches.push(Batch::default());
        }
        let batch = &mut self.batches[self.pending];
        batch.first = first;

        if socket.failed {
            let mut reports = 0;
            while reports < REPORTS_MAX
                && let Some(report) = socket.receive_report()
            {
                reports += 1;
                let error = Event::Error {
                    socket: id,
                    peer: report.peer,
                    kind: report.kind(),
                    icmp: report.icmp(),
                };
                handle(now, error, &mut batch.egress);
            }
            self.counters.errors += reports as u64;
            socket.failed = reports == REPORTS_MAX;
        }

        let limit = usize::from(socket.batch);
        let count = self
            .arena
            .fill(limit, |buffers, metas| socket.receive(buffers, metas))
            .unwrap_or(0);
        socket.batch = next_batch(socket.batch, count);
        // Fewer than asked for: it is drained, and the kernel will tell of the next.
        socket.ready = count == limit || socket.failed;
        if socket.ready {
            self.ready.push_back(id);
        }

        if count > 0 {
            let runs = &self.arena.runs(first);
            self.counters.runs += count as u64;
            self.counters.received += runs.iter().map(|run| run.segments().count() as u64).sum::<u64>();
            self.counters.dropped_unread += socket.newly_dropped(self.arena.metas(first));
            handle(now, Event::Datagrams { socket: id, runs }, &mut batch.egress);
        }
        self.pending += 1;
        count
    }

    /// Sends what the shard answered, and gives the buffers back.
    fn flush(&mut self) {
        let answered = &mut self.batches[..self.pending];
        Outbox::send(&mut self.sockets, &mut self.counters, |outbox| {
            for Batch { first, egress } in &*answered {
                outbox.push(egress, |run| self.arena.bytes(first + run as usize));
            }
        });
        for batch in answered {
            batch.egress.clear();
        }
        self.pending = 0;
        self.arena.clear();
    }
}

/// How many runs to ask for next time, when so many were there: room that stays empty costs a little.
fn next_batch(limit: u8, count: usize) -> u8 {
    match count {
        _ if count == usize::from(limit) => (limit * 2).min(BATCH_MAX as u8),
        _ if count < usize::from(limit / 4) => limit / 2,
        _ => limit,
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

/// Runs and batches received in one turn, before the last one.
const TURN_MAX: usize = 256;
/// Reports taken from the error queue of a socket in one turn at most.
const REPORTS_MAX: usize = 8;
/// Sockets that the kernel tells of in one turn at most.
const EVENTS_MAX: usize = 256;
