//! How does a simulated runtime drive the shards? The contract of the core, once more, with every freedom that it leaves.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::{Buf as _, BytesMut};
use edgeward_core::{
    Shard,
    action::{
        Action, Addresses, BindError, Conn, ConnId, Egress, Endpoints, Icmp, Input, IoKind, ListenerId, Parcel,
        QueryId, RelayId, ResolveError, Run, ShardId, SocketId, Transport,
    },
    config::SharedConfig,
    time::{Instant, Now, UnixTime},
};

use crate::world::{
    agenda::{Event, MS, SEC, Time, US},
    check::Checkers,
    history::Seen,
    net::{End, Net, Notice, Owner, Refusal},
    site,
    trace::Trace,
};

/// Something that the runtime does later.
#[derive(Debug)]
pub enum Task {
    /// Look at a UDP socket.
    Poll(usize, SocketId),
    /// Ring the alarm of a shard, if it is still set to this time.
    Wake(usize, Time),
    /// Tell that output was written.
    Written(usize, ConnId),
    /// Tell that a write has found the connection broken.
    Broken(usize, ConnId),
    /// Bring a parcel.
    Parcel(usize, Parcel),
    /// Bring a connection.
    Adopt(usize, Box<Conn>, End),
    /// Answer a look-up.
    Resolved(usize, QueryId, Option<Addresses>),
    /// Answer a bind.
    Bound(usize, RelayId, Transport, SocketAddr),
    /// Give a shard another configuration.
    Configure(usize, SharedConfig),
    /// Tell a shard to end.
    Drain(usize, Time),
}

/// What the driver needs of the world.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The network.
    pub net: &'a mut Net,
    /// Who looks at what happens.
    pub checkers: &'a mut Checkers,
    /// What is kept of it.
    pub trace: &'a mut Trace,
    /// Seconds since 1970.
    pub unix: u64,
}

/// The edge: shards and their runtime.
#[derive(Debug)]
pub struct Edge {
    cores: Vec<Core>,
    config: SharedConfig,
    /// Whose connection ends here.
    ends: BTreeMap<End, (usize, ConnId)>,
    relays: BTreeMap<SocketAddr, (usize, RelayId)>,
    /// When the last parcel from one shard to another arrives.
    mesh: BTreeMap<(usize, usize), Time>,
    /// A mutation that the checkers must find.
    pub sabotage: Option<Sabotage>,
}

/// A fault that is put in on purpose, so that it is seen that a checker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Relayed datagrams go on to somebody else.
    Misdirect,
    /// A byte of what an upstream gets is another one.
    Corrupt,
    /// Relay sockets are never closed.
    KeepRelays,
}

#[derive(Debug)]
struct Core {
    shard: Shard,
    egress: Egress,
    links: BTreeMap<ConnId, Link>,
    relays: BTreeMap<RelayId, (SocketAddr, Transport)>,
    inboxes: BTreeMap<SocketId, Vec<(SocketAddr, Vec<u8>)>>,
    alarm: Option<Time>,
    /// Times in a row that the alarm rang without the clock going on.
    spins: u32,
    drained: bool,
}

#[derive(Debug)]
enum Link {
    Dialing(End),
    Up(Up),
    /// The core was told that it has failed, and has not closed it yet.
    Dead,
}

#[derive(Debug)]
struct Up {
    end: End,
    reading: bool,
    pending: BytesMut,
    /// Output was taken, and nobody was told yet that it is written.
    is_writing: bool,
}

/// Datagrams that wait in one socket.
const INBOX_MAX: usize = 64;
/// Rings of an alarm at one moment, after which it spins.
const SPINS_MAX: u32 = 200;

impl Edge {
    /// Shards with all their sockets.
    pub fn start(cx: &mut Cx<'_>, config: SharedConfig, shards: u16, seed: u64) -> Self {
        for (at, _) in config.tcp_listeners() {
            cx.net.listen(at, Owner::Edge);
        }
        let sip = config.sip.as_ref().map(|sip| sip.listen);
        for at in config.turn_sockets().iter().copied().chain(sip) {
            cx.net.bind(at, Owner::Edge);
        }
        let now = now(cx);
        let cores = (0..shards).map(|id| {
            let mut bytes = [id as u8; 32];
            bytes[..8].copy_from_slice(&seed.to_be_bytes());
            Core {
                shard: Shard::new(config.clone(), ShardId(id), shards, bytes, now),
                egress: Egress::default(),
                links: BTreeMap::new(),
                relays: BTreeMap::new(),
                inboxes: BTreeMap::new(),
                alarm: None,
                spins: 0,
                drained: false,
            }
        });
        let mut edge = Self {
            cores: cores.collect(),
            config: config.clone(),
            ends: BTreeMap::new(),
            relays: BTreeMap::new(),
            mesh: BTreeMap::new(),
            sabotage: None,
        };
        for shard in 0..edge.cores.len() {
            edge.settle(cx, shard, &[]);
        }
        edge
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.cores.len()
    }

    /// Whether all shards have said that a drain is over.
    pub fn is_drained(&self) -> bool {
        self.cores.iter().all(|core| core.drained)
    }

    /// Faults of ours that the shards have contained.
    pub fn panics(&self) -> u64 {
        self.cores.iter().map(|core| core.shard.stats().edge.panics).sum()
    }

    /// Relayed addresses that are bound.
    pub fn relays(&self) -> usize {
        self.relays.len()
    }

    /// Tells the checkers what each shard holds.
    pub fn look(&self, cx: &mut Cx<'_>) {
        for (shard, core) in self.cores.iter().enumerate() {
            let snapshot = core.shard.snapshot();
            let gauges: Vec<_> = snapshot.gauges.iter().map(|gauge| (gauge.name, gauge.value)).collect();
            let gauges = &gauges;
            let now = cx.net.now();
            cx.checkers.see(now, &Seen::Held { shard, gauges });
        }
    }

    /// The network tells something.
    pub fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Datagram { from, to, bytes } => self.datagram(cx, from, to, bytes),
            Notice::Unreachable { from, to } => self.unreachable(cx, from, to),
            Notice::Accepted { end, local, peer } => self.accepted(cx, end, local, peer),
            Notice::Connected { end, local } => {
                let Some((shard, conn)) = self.ends.get(&end).copied() else {
                    return cx.net.reset(end);
                };
                let [_, peer] = cx.net.addresses(end).expect("a connection that is there");
                self.attach(shard, conn, end);
                self.answer(cx, shard, &dial_name(conn));
                self.handle(cx, shard, Input::Dialed(conn, Ok(Endpoints { local, peer })));
            }
            Notice::Refused { end, why } => {
                if let Some((shard, conn)) = self.detach(end) {
                    let kind = match why {
                        Refusal::Refused => IoKind::Refused,
                        Refusal::Unreachable => IoKind::Unreachable,
                        Refusal::TimedOut => IoKind::TimedOut,
                    };
                    self.answer(cx, shard, &dial_name(conn));
                    self.handle(cx, shard, Input::Dialed(conn, Err(kind)));
                }
            }
            Notice::Bytes { end, mut bytes } => {
                if let Some((shard, conn)) = self.ends.get(&end).copied() {
                    let core = &mut self.cores[shard];
                    core.shard.receive(now(cx), conn, &mut bytes, &mut core.egress);
                    self.settle(cx, shard, &[]);
                }
            }
            Notice::Eof(end) => {
                if let Some((shard, conn)) = self.ends.get(&end).copied() {
                    self.handle(cx, shard, Input::Eof(conn));
                }
            }
            Notice::Reset(end) | Notice::TimedOut(end) => {
                let kind = match notice {
                    Notice::Reset(_) => IoKind::Reset,
                    _ => IoKind::TimedOut,
                };
                if let Some((shard, conn)) = self.detach(end) {
                    self.handle(cx, shard, Input::Failed(conn, kind));
                }
            }
            Notice::Room(end) => {
                if let Some((shard, conn)) = self.ends.get(&end).copied() {
                    self.write_on(cx, shard, conn);
                    self.settle(cx, shard, &[]);
                }
            }
        }
    }

    /// The time for a task has come.
    pub fn perform(&mut self, cx: &mut Cx<'_>, task: Task) {
        match task {
            Task::Poll(shard, socket) => self.poll(cx, shard, socket),
            Task::Wake(shard, at) => {
                if self.cores[shard].alarm == Some(at) {
                    self.cores[shard].alarm = None;
                    let core = &mut self.cores[shard];
                    core.shard.timeout(now(cx), &mut core.egress);
                    self.settle(cx, shard, &[]);
                }
            }
            Task::Written(shard, conn) => {
                if let Some(Link::Up(up)) = self.cores[shard].links.get_mut(&conn)
                    && up.is_writing
                    && up.pending.is_empty()
                {
                    up.is_writing = false;
                    self.handle(cx, shard, Input::Written(conn));
                }
            }
            Task::Broken(shard, conn) => {
                if let Some(Link::Up(up)) = self.cores[shard].links.get(&conn)
                    && !up.reading
                {
                    let end = up.end;
                    self.detach(end);
                    cx.net.reset(end);
                    self.handle(cx, shard, Input::Failed(conn, IoKind::Reset));
                }
            }
            Task::Parcel(shard, parcel) => self.handle(cx, shard, Input::Parcel(parcel)),
            Task::Adopt(shard, conn, end) => self.adopt(cx, shard, conn, end),
            Task::Resolved(shard, query, found) => {
                self.answer(cx, shard, &format!("Resolve {query:?}"));
                self.handle(cx, shard, Input::Resolved(query, found.ok_or(ResolveError)));
            }
            Task::Bound(shard, relay, transport, at) => self.bound(cx, shard, relay, transport, at),
            Task::Configure(shard, config) => {
                self.config = config.clone();
                self.handle(cx, shard, Input::Configure(config));
            }
            Task::Drain(shard, deadline) => {
                cx.checkers.see(cx.net.now(), &Seen::Draining);
                self.handle(cx, shard, Input::Drain(Instant::from_nanos(deadline)));
            }
        }
    }

    fn datagram(&mut self, cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let (shard, socket) = match self.relays.get(&to) {
            Some((shard, relay)) => (*shard, SocketId::Relay(*relay)),
            None => {
                let turn = self.config.turn_sockets().iter().position(|at| *at == to);
                let socket = turn.map_or(SocketId::Sip, |place| SocketId::Turn(place as u16));
                (self.shard_of(from), socket)
            }
        };
        let inbox = self.cores[shard].inboxes.entry(socket).or_default();
        if inbox.len() >= INBOX_MAX {
            cx.net.met.count("a socket was full");
            return;
        }
        inbox.push((from, bytes));
        if inbox.len() == 1 {
            let delay = cx.net.from_to(0, 300) * US;
            cx.net.agenda.after(delay, Event::Edge(Task::Poll(shard, socket)));
        }
    }

    /// A 4-tuple stays with one shard, as the kernel hashes it.
    fn shard_of(&self, from: SocketAddr) -> usize {
        let ip = match from.ip() {
            std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()),
            std::net::IpAddr::V6(ip) => ip.to_bits() as u64,
        };
        let mixed = (ip ^ u64::from(from.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        mixed as usize % self.cores.len()
    }

    fn poll(&mut self, cx: &mut Cx<'_>, shard: usize, socket: SocketId) {
        let Some(inbox) = self.cores[shard].inboxes.remove(&socket) else {
            return;
        };
        let Some(at) = self.address(shard, socket) else { return };
        let now_sim = cx.net.now();
        for (from, bytes) in &inbox {
            let (from, to) = (*from, at);
            cx.checkers.see(now_sim, &Seen::ToEdge { from, to, bytes });
        }
        // Datagrams of one sender that are of one length come as one run, as UDP_GRO joins them.
        let mut runs: Vec<(SocketAddr, usize, Vec<u8>)> = Vec::new();
        let mut is_open = false;
        for (from, bytes) in inbox {
            match runs.last_mut() {
                Some((peer, stride, run))
                    if is_open && *peer == from && bytes.len() <= *stride && !bytes.is_empty() =>
                {
                    cx.net.met.count("datagrams came as a train");
                    is_open = bytes.len() == *stride;
                    run.extend_from_slice(&bytes);
                }
                _ => {
                    is_open = !bytes.is_empty();
                    runs.push((from, bytes.len(), bytes));
                }
            }
        }
        let views: Vec<Run<'_>> = runs
            .iter()
            .map(|(peer, stride, bytes)| Run {
                stride: *stride,
                ..Run::one(*peer, bytes)
            })
            .collect();
        let core = &mut self.cores[shard];
        core.shard.datagrams(now(cx), socket, &views, &mut core.egress);
        self.settle(cx, shard, &views);
    }

    fn address(&self, shard: usize, socket: SocketId) -> Option<SocketAddr> {
        match socket {
            SocketId::Turn(place) => self.config.turn_sockets().get(usize::from(place)).copied(),
            SocketId::Sip => self.config.sip.as_ref().map(|sip| sip.listen),
            SocketId::Relay(relay) => self.cores[shard].relays.get(&relay).map(|(at, _)| *at),
        }
    }

    fn unreachable(&mut self, cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr) {
        let (shard, socket) = match self.relays.get(&from) {
            Some((shard, relay)) => (*shard, SocketId::Relay(*relay)),
            None if Some(from) == self.config.sip.as_ref().map(|sip| sip.listen) => (self.shard_of(to), SocketId::Sip),
            None => (self.shard_of(to), SocketId::Turn(0)),
        };
        cx.net.met.count("a datagram came to nothing");
        // RFC 792: destination unreachable, port unreachable.
        let icmp = Icmp {
            kind: 3,
            code: 3,
            mtu: 0,
        };
        self.handle(cx, shard, Input::SocketError(socket, to, IoKind::Refused, Some(icmp)));
    }

    fn accepted(&mut self, cx: &mut Cx<'_>, end: End, local: SocketAddr, peer: SocketAddr) {
        let now = now(cx);
        if let Some((shard, relay)) = self.relays.get(&local).copied() {
            let core = &mut self.cores[shard];
            match core.shard.accept_peer(now, relay, local, peer, &mut core.egress) {
                Ok(conn) => {
                    cx.net.met.count("a peer connected to a relayed address");
                    self.attach(shard, conn, end);
                }
                Err(_) => cx.net.close(end, &[]),
            }
            return self.settle(cx, shard, &[]);
        }
        let listeners = self.config.tcp_listeners();
        let Some(place) = listeners.iter().position(|(at, _)| *at == local) else {
            return cx.net.reset(end);
        };
        let shard = cx.net.from_to(0, self.cores.len() as u64 - 1) as usize;
        match self.cores[shard]
            .shard
            .accept(now, ListenerId(place as u16), local, peer)
        {
            Ok(conn) => self.attach(shard, conn, end),
            Err(_) => {
                cx.net.met.count("a client was refused");
                cx.net.close(end, &[]);
            }
        }
        self.settle(cx, shard, &[]);
    }

    fn adopt(&mut self, cx: &mut Cx<'_>, shard: usize, conn: Box<Conn>, end: End) {
        let now = now(cx);
        let core = &mut self.cores[shard];
        let Ok(conn) = core.shard.adopt(now, conn) else {
            return cx.net.close(end, &[]);
        };
        cx.net.met.count("a connection moved");
        self.attach(shard, conn, end);
        // Unread while it was on its way.
        cx.net.set_reading(end, true);
        let core = &mut self.cores[shard];
        core.shard.resume(now, conn, &mut core.egress);
        self.settle(cx, shard, &[]);
    }

    fn bound(&mut self, cx: &mut Cx<'_>, shard: usize, relay: RelayId, transport: Transport, at: SocketAddr) {
        let fails = cx.net.fails(cx.net.faults.bind);
        let result = match (fails, cx.net.from_to(0, 3)) {
            (true, 0) => Err(BindError::Failed),
            (true, _) => Err(BindError::InUse),
            (false, _) => match transport {
                Transport::Udp => cx.net.bind(at, Owner::Edge).then_some(at).ok_or(BindError::InUse),
                Transport::Tcp => cx.net.listen(at, Owner::Edge).then_some(at).ok_or(BindError::InUse),
            },
        };
        self.answer(cx, shard, &format!("BindRelay {relay:?}"));
        match result {
            Ok(at) => {
                self.relays.insert(at, (shard, relay));
                self.cores[shard].relays.insert(relay, (at, transport));
                cx.checkers.see(cx.net.now(), &Seen::Relay { at, is_there: true });
            }
            Err(_) => cx.net.met.count("a bind failed"),
        }
        self.handle(cx, shard, Input::RelayBound(relay, result));
    }

    fn handle(&mut self, cx: &mut Cx<'_>, shard: usize, input: Input) {
        let core = &mut self.cores[shard];
        core.shard.handle(now(cx), input, &mut core.egress);
        self.settle(cx, shard, &[]);
    }

    /// Carries out what a shard asks until it asks no more, then sends and sets the alarm.
    fn settle(&mut self, cx: &mut Cx<'_>, shard: usize, runs: &[Run<'_>]) {
        while let Some(action) = self.cores[shard].shard.poll_action() {
            self.carry_out(cx, shard, action);
        }
        self.send(cx, shard, runs);
        self.set_alarm(cx, shard);
    }

    fn send(&mut self, cx: &mut Cx<'_>, shard: usize, runs: &[Run<'_>]) {
        let egress = std::mem::take(&mut self.cores[shard].egress);
        let mut gathered = Vec::new();
        for transmit in &egress.transmits {
            egress.gather(transmit, |run| runs[run as usize].bytes, &mut gathered);
            // A socket that is closed already sends nothing.
            let Some(from) = self.address(shard, transmit.socket) else {
                continue;
            };
            let to = match self.sabotage {
                Some(Sabotage::Misdirect) if matches!(transmit.socket, SocketId::Relay(_)) => site::BYSTANDER,
                _ => transmit.peer,
            };
            let segments = match gathered.is_empty() {
                true => vec![&[][..]],
                false => gathered.chunks(transmit.segment.max(1)).collect(),
            };
            for bytes in segments {
                cx.trace.datagram(cx.net.now(), from, to, bytes);
                cx.checkers.see(cx.net.now(), &Seen::FromEdge { from, to, bytes });
                cx.net.send_datagram(from, to, bytes);
            }
        }
        self.cores[shard].egress = egress;
        self.cores[shard].egress.clear();
    }

    fn set_alarm(&mut self, cx: &mut Cx<'_>, shard: usize) {
        let now = cx.net.now();
        let core = &mut self.cores[shard];
        let Some(due) = core.shard.poll_timeout().map(Instant::as_nanos) else {
            core.alarm = None;
            return;
        };
        if due <= now {
            core.spins += 1;
            if core.spins > SPINS_MAX {
                cx.checkers.fail(format!(
                    "shard {shard} wants to be woken at {due}, again and again, and it is {now}"
                ));
                core.alarm = None;
                return;
            }
        } else {
            core.spins = 0;
        }
        let at = due.max(now);
        // A runtime's timer is never early, and often late.
        let late = match cx.net.faults.delay.0 == cx.net.faults.delay.1 {
            true => 0,
            false => cx.net.from_to(0, 2_000) * US,
        };
        if core.alarm.is_none_or(|alarm| alarm > at + late || alarm < due) {
            core.alarm = Some(at + late);
            cx.net.agenda.at(at + late, Event::Edge(Task::Wake(shard, at + late)));
        }
    }

    fn carry_out(&mut self, cx: &mut Cx<'_>, shard: usize, action: Action) {
        match action {
            Action::Flush(conn) => self.flush(cx, shard, conn),
            Action::Read(conn, reading) => {
                if let Some(Link::Up(up)) = self.cores[shard].links.get_mut(&conn) {
                    if !reading {
                        cx.net.met.count("a stream was left unread");
                    }
                    up.reading = reading;
                    cx.net.set_reading(up.end, reading);
                }
            }
            Action::Shut(conn) => {
                if let Some(Link::Up(up)) = self.cores[shard].links.get(&conn) {
                    cx.net.shut(up.end);
                }
            }
            Action::Close(conn, last_words) => match self.cores[shard].links.remove(&conn) {
                Some(Link::Up(mut up)) => {
                    self.ends.remove(&up.end);
                    up.pending.extend_from_slice(&last_words);
                    cx.net.close(up.end, &up.pending);
                }
                Some(Link::Dialing(end)) => self.stop_dialing(cx, shard, conn, end),
                // One that failed, or one that was never dialled.
                Some(Link::Dead) | None => {}
            },
            Action::Reset(conn) => match self.cores[shard].links.remove(&conn) {
                Some(Link::Up(Up { end, .. })) => {
                    self.ends.remove(&end);
                    cx.net.reset(end);
                }
                Some(Link::Dialing(end)) => self.stop_dialing(cx, shard, conn, end),
                Some(Link::Dead) => {}
                None => cx
                    .checkers
                    .fail(format!("shard {shard} resets {conn:?}, which is not there")),
            },
            Action::CloseSocket(relay) => self.close_relay(cx, shard, relay),
            Action::Dial { conn, from, to } => {
                self.ask(cx, shard, &dial_name(conn));
                let from = from.unwrap_or_else(|| SocketAddr::new(site::EDGE_INSIDE, 0));
                let end = cx.net.dial(Owner::Edge, from, to);
                self.ends.insert(end, (shard, conn));
                self.cores[shard].links.insert(conn, Link::Dialing(end));
            }
            Action::Resolve { query, host } => {
                self.ask(cx, shard, &format!("Resolve {query:?}"));
                let fails = cx.net.fails(cx.net.faults.name);
                if fails {
                    cx.net.met.count("a name was not found");
                }
                let addresses = site::look_up(&host);
                let found = (!fails && !addresses.is_empty()).then_some(Addresses { addresses });
                let delay = match fails {
                    true => cx.net.from_to(0, 20) * SEC,
                    false => cx.net.delay(),
                };
                let task = Task::Resolved(shard, query, found);
                cx.net.agenda.after(delay, Event::Edge(task));
            }
            Action::BindRelay { relay, transport, at } => {
                self.ask(cx, shard, &format!("BindRelay {relay:?}"));
                let delay = cx.net.from_to(0, 200) * US;
                let task = Task::Bound(shard, relay, transport, at);
                cx.net.agenda.after(delay, Event::Edge(task));
            }
            Action::Forward { to, parcel } => self.forward(cx, shard, usize::from(to.0), parcel),
            Action::Log(_) => {}
            Action::Drained => self.cores[shard].drained = true,
        }
    }

    /// Nobody wants to know any more whether a call is answered.
    fn stop_dialing(&mut self, cx: &mut Cx<'_>, shard: usize, conn: ConnId, end: End) {
        self.ends.remove(&end);
        self.answer(cx, shard, &dial_name(conn));
        cx.net.reset(end);
    }

    fn flush(&mut self, cx: &mut Cx<'_>, shard: usize, conn: ConnId) {
        let core = &mut self.cores[shard];
        let up = match core.links.get_mut(&conn) {
            Some(Link::Up(up)) => up,
            Some(Link::Dead) => return,
            Some(Link::Dialing(_)) | None => {
                return cx
                    .checkers
                    .fail(format!("shard {shard} has output for {conn:?}, which is not there"));
            }
        };
        // No more is taken before the last output is written.
        if up.is_writing {
            return;
        }
        let Some(mut bytes) = core.shard.take_output(conn) else {
            return;
        };
        if self.sabotage == Some(Sabotage::Corrupt)
            && up.end.side == 0
            && bytes.len() > 2_000
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
        up.is_writing = true;
        up.pending.unsplit(bytes);
        let waiting = up.pending.len();
        cx.checkers.see(cx.net.now(), &Seen::Output { waiting });
        self.write_on(cx, shard, conn);
    }

    /// Writes what is pending; tells the core when all is written, at once or later.
    fn write_on(&mut self, cx: &mut Cx<'_>, shard: usize, conn: ConnId) {
        let Some(Link::Up(up)) = self.cores[shard].links.get_mut(&conn) else {
            return;
        };
        if !up.is_writing {
            return;
        }
        if !up.pending.is_empty() {
            match cx.net.write(up.end, &up.pending) {
                Ok(written) => {
                    cx.trace.digest(cx.net.now(), &up.pending[..written]);
                    up.pending.advance(written);
                }
                Err(_) => {
                    // Whatever the peer said before it broke the stream is read first.
                    let task = Task::Broken(shard, conn);
                    return cx.net.agenda.after(US, Event::Edge(task));
                }
            }
        }
        if up.pending.is_empty() {
            up.pending = BytesMut::new();
            let delay = cx.net.from_to(0, 100) * US;
            cx.net.agenda.after(delay, Event::Edge(Task::Written(shard, conn)));
        }
    }

    fn forward(&mut self, cx: &mut Cx<'_>, from: usize, to: usize, parcel: Parcel) {
        let delay = cx.net.from_to(1, 2_000) * US;
        let now = cx.net.now();
        let last = self.mesh.entry((from, to)).or_default();
        *last = (*last).max(now + delay);
        let at = *last;
        match parcel {
            Parcel::Conn(conn, value) => {
                let Some(Link::Up(up)) = self.cores[from].links.remove(&conn) else {
                    return cx
                        .checkers
                        .fail(format!("shard {from} gives {conn:?} away, which is not there"));
                };
                self.ends.remove(&up.end);
                // Its new shard writes behind what this one has to say.
                cx.net.set_reading(up.end, false);
                cx.net.send(up.end, &up.pending);
                // The descriptor comes by another way than other parcels, and may take longer.
                let late = cx.net.from_to(0, 5) * MS;
                cx.net.agenda.at(at + late, Event::Edge(Task::Adopt(to, value, up.end)));
            }
            parcel => {
                // What a shard is too busy to take is lost, but for connections.
                if cx.net.fails(cx.net.faults.parcel) {
                    return cx.net.met.count("a parcel was lost");
                }
                cx.net.met.count(match &parcel {
                    Parcel::Datagram(_) => "a datagram was handed on",
                    _ => "a shard asked another for a rate",
                });
                cx.net.agenda.at(at, Event::Edge(Task::Parcel(to, parcel)));
            }
        }
    }

    fn close_relay(&mut self, cx: &mut Cx<'_>, shard: usize, relay: RelayId) {
        if self.sabotage == Some(Sabotage::KeepRelays) {
            return;
        }
        let Some((at, transport)) = self.cores[shard].relays.remove(&relay) else {
            return cx
                .checkers
                .fail(format!("shard {shard} closes the socket {relay:?}, which is not open"));
        };
        match transport {
            Transport::Udp => cx.net.unbind(at),
            Transport::Tcp => cx.net.unlisten(at),
        }
        self.relays.remove(&at);
        self.cores[shard].inboxes.remove(&SocketId::Relay(relay));
        cx.checkers.see(cx.net.now(), &Seen::Relay { at, is_there: false });
    }

    fn attach(&mut self, shard: usize, conn: ConnId, end: End) {
        self.ends.insert(end, (shard, conn));
        let up = Up {
            end,
            reading: true,
            pending: BytesMut::new(),
            is_writing: false,
        };
        self.cores[shard].links.insert(conn, Link::Up(up));
    }

    fn detach(&mut self, end: End) -> Option<(usize, ConnId)> {
        let (shard, conn) = self.ends.remove(&end)?;
        self.cores[shard].links.insert(conn, Link::Dead);
        Some((shard, conn))
    }

    fn ask(&self, cx: &mut Cx<'_>, shard: usize, ask: &str) {
        cx.checkers.see(cx.net.now(), &Seen::Asked { shard, ask });
    }

    fn answer(&self, cx: &mut Cx<'_>, shard: usize, ask: &str) {
        cx.checkers.see(cx.net.now(), &Seen::Answered { shard, ask });
    }
}

fn dial_name(conn: ConnId) -> String {
    format!("Dial {conn:?}")
}

fn now(cx: &Cx<'_>) -> Now {
    Now {
        mono: Instant::from_nanos(cx.net.now()),
        unix: UnixTime(cx.unix),
    }
}
