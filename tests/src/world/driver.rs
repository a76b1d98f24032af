//! How does a simulated runtime drive the shards? The contract of the core, once more, with every freedom that it leaves.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::BytesMut;
use edgeward_core::{
    Shard,
    action::{
        Addresses, BindError, Conn, ConnId, Egress, Endpoints, Input, IoKind, ListenerId, Parcel, QueryId, RelayId,
        ResolveError, ShardId, SocketId, Transport,
    },
    config::SharedConfig,
    time::{Instant, Now, UnixTime},
};

use crate::world::{
    agenda::Time,
    check::Checkers,
    history::Seen,
    net::{End, Net, Notice, Owner, Refusal},
    site,
    trace::Trace,
};

mod actions;
mod datagrams;
mod sabotage;

pub use sabotage::Sabotage;

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
    /// What the shards take for the time.
    pub mono: Time,
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
    /// The Via of the last response, for [`Sabotage::CrossVia`].
    last_via: String,
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
            last_via: String::new(),
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
                if self.cores[shard].alarm == Some(at) && self.sabotage != Some(Sabotage::Sleep) {
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
            Task::Resolved(..) if self.sabotage == Some(Sabotage::Mute) => {}
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

    fn accepted(&mut self, cx: &mut Cx<'_>, end: End, local: SocketAddr, mut peer: SocketAddr) {
        let now = now(cx);
        if self.sabotage == Some(Sabotage::Misname) {
            peer.set_ip(site::STRANGER);
        }
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
        mono: Instant::from_nanos(cx.mono),
        unix: UnixTime(cx.unix),
    }
}
