//! Does the edge hold whatever its network and its clients do? Shards of the core in a world that follows from a seed.
//!
//! Everything is in one thread and one clock, which goes on from event to event. [`Scenario::of`] makes a story of a
//! seed, [`run`] lets it happen, [`check`] says what must be true of it. Whoever drives the core ([`driver`]) and
//! configures it ([`site`]) names it; actors and checkers share no code with it.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    chance::{self, Dice},
    world::{
        actor::Actor,
        actors::{
            attacker::Attacker,
            browser::Browser,
            mediaserver::Mediaserver,
            peer::Peer,
            phone::Phone,
            tcp_relay::TcpRelay,
            tunnel::Tunnel,
            turn_client::{Transport, TurnClient},
            upstream::Upstream,
        },
        agenda::{Event, SEC, Time},
        check::Checkers,
        driver::{Edge, Sabotage, Task},
        history::Seen,
        met::Met,
        net::{Net, Notice, Owner},
        scenario::{Role, Scenario, Step},
        trace::Trace,
    },
};

pub mod actor;
pub mod actors;
pub mod agenda;
pub mod check;
pub mod crypto;
pub mod driver;
pub mod history;
pub mod http;
pub mod met;
pub mod net;
pub mod scenario;
pub mod secure;
pub mod shrink;
pub mod site;
pub mod token;
pub mod trace;
pub mod ws;

/// What has come of a story.
#[derive(Debug)]
pub struct Outcome {
    /// The first thing that must not be, where there was one.
    pub failure: Option<String>,
    /// When that was, or when the story ended.
    pub time: Time,
    /// Events.
    pub events: u64,
    /// A number that is the same for the same story only.
    pub hash: u64,
    /// The trace, where it was wanted.
    pub trace: String,
    /// What was met with.
    pub met: Met,
    /// What each client got, by its number.
    pub outcomes: BTreeMap<usize, Vec<String>>,
}

/// How a story is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Telling {
    /// Whether its trace is kept.
    pub is_traced: bool,
    /// What is done to the edge, so that a checker must find it.
    pub sabotage: Option<Sabotage>,
}

/// Lets a story happen.
pub fn run(scenario: &Scenario, telling: Telling) -> Outcome {
    chance::seed(Some(scenario.seed));
    let mut world = World::new(scenario, telling);
    let events = world.live();
    chance::seed(None);
    let World {
        net,
        checkers,
        trace,
        actors,
        ..
    } = world;
    Outcome {
        failure: checkers.failure().map(str::to_owned),
        time: net.now(),
        events,
        hash: trace.hash(),
        trace: trace.draw(),
        outcomes: actors
            .iter()
            .filter_map(|person| Some((person.number?, person.actor.outcome())))
            .collect(),
        met: net.met,
    }
}

/// Somebody in the world.
#[derive(Debug)]
struct Person {
    /// The number in the cast; servers have none.
    number: Option<usize>,
    name: String,
    dice: Dice,
    actor: Box<dyn Actor>,
}

#[derive(Debug)]
struct World {
    net: Net,
    edge: Edge,
    checkers: Checkers,
    trace: Trace,
    actors: Vec<Person>,
    /// How far the wall clock was set.
    jumped: i64,
    edition: u8,
    has_drained: bool,
    all_left: bool,
}

impl World {
    fn new(scenario: &Scenario, telling: Telling) -> Self {
        let mut net = Net::new(scenario.faults.clone(), Dice::new(scenario.seed, 1));
        let (mut checkers, mut trace) = (Checkers::default(), Trace::new(telling.is_traced));
        let mut cx = driver::Cx {
            net: &mut net,
            checkers: &mut checkers,
            trace: &mut trace,
            mono: 0,
            unix: site::BEGINNING,
        };
        let mut edge = Edge::start(&mut cx, site::config(0), scenario.shards, scenario.seed);
        edge.sabotage = telling.sabotage;
        let config = crypto::client();
        let mut actors: Vec<Person> = Vec::new();
        let mut add = |number: Option<usize>, name: String, actor: Box<dyn Actor>| {
            // A client keeps its dice when others are left out.
            let dice = Dice::new(
                scenario.seed,
                1_000 + number.map_or(900 + actors.len(), |number| number) as u64,
            );
            actors.push(Person {
                number,
                name,
                dice,
                actor,
            });
        };
        for (place, at) in site::UPSTREAMS.into_iter().enumerate() {
            add(None, format!("upstream{place}"), Box::new(Upstream::new(at, None)));
        }
        let secure = Upstream::new(site::UPSTREAM_TLS, Some(crypto::server()));
        add(None, format!("upstream{}", site::UPSTREAMS.len()), Box::new(secure));
        for place in 0..site::MEDIASERVERS.len() {
            let ports = [site::MEDIA_PORTS.0, site::MEDIA_PORTS.0 + 1];
            let ips = [false, true].map(|is_v6| site::media(place, is_v6));
            let sockets = ips
                .into_iter()
                .flat_map(|ip| ports.map(|port| SocketAddr::new(ip, port)));
            add(None, format!("media{place}"), Box::new(Peer::new(sockets.collect())));
        }
        let strangers = [site::STRANGER, site::STRANGER_V6].map(|ip| SocketAddr::new(ip, 5_000));
        let strangers = [site::BYSTANDER].into_iter().chain(strangers).collect();
        add(None, "strangers".into(), Box::new(Peer::new(strangers)));
        for (place, at) in site::MEDIASERVERS.into_iter().enumerate() {
            add(None, format!("pbx{place}"), Box::new(Mediaserver::new(at)));
        }
        for (number, role) in &scenario.cast {
            let (number, config) = (*number, config.clone());
            let turn = |transport| Box::new(TurnClient::new(number, transport, config.clone()));
            let actor: Box<dyn Actor> = match role {
                Role::Browser => Box::new(Browser::new(number, config)),
                Role::Tunnel => Box::new(Tunnel::new(number, config)),
                Role::Phone => Box::new(Phone::new(number, config)),
                Role::TurnUdp => turn(Transport::Udp),
                Role::TurnTcp => turn(Transport::Tcp),
                Role::TurnTls => turn(Transport::Tls),
                Role::TcpRelay => Box::new(TcpRelay::new(number)),
                Role::Attacker => Box::new(Attacker::new(number, config)),
            };
            add(Some(number), format!("client{number}"), actor);
        }
        let mut world = Self {
            net,
            edge,
            checkers,
            trace,
            actors,
            jumped: 0,
            edition: 0,
            has_drained: false,
            all_left: false,
        };
        for (at, step) in scenario.plan.iter().copied().filter(|(at, _)| *at < scenario.length) {
            world.net.agenda.at(at, Event::Step(step));
        }
        world.net.agenda.at(scenario.length, Event::Step(Step::Leave));
        world.net.agenda.after(Scenario::LOOK, Event::Step(Step::Look));
        world
    }

    /// From the beginning to the end, or to the first thing that must not be; returns how many events there were.
    fn live(&mut self) -> u64 {
        for place in 0..self.actors.len() {
            self.with_actor(place, |actor, cx| actor.start(cx));
        }
        let mut events = 0;
        while self.checkers.failure().is_none()
            && let Some(event) = self.net.agenda.next(Time::MAX)
        {
            events += 1;
            let is_end = matches!(event, Event::Step(Step::End));
            self.happen(event);
            if is_end {
                break;
            }
            if self.edge.panics() > 0 {
                self.checkers.fail("a fault of ours was contained".into());
            }
        }
        if let Some(failure) = self.checkers.failure() {
            let failure = failure.to_owned();
            self.trace
                .note(self.net.now(), "world", || format!("FAILED: {failure}"));
        }
        events
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Edge(task) => self.with_edge(|edge, cx| edge.perform(cx, task)),
            Event::Timer { actor, token } => self.with_actor(actor, |actor, cx| actor.wake(cx, token)),
            Event::Step(step) => self.step(step),
            event => {
                for (owner, notice) in self.net.happen(event) {
                    self.tell(owner, notice);
                }
            }
        }
    }

    fn tell(&mut self, owner: Owner, notice: Notice) {
        self.trace_notice(owner, &notice);
        match owner {
            Owner::Edge => self.with_edge(|edge, cx| edge.hear(cx, notice)),
            Owner::Actor(place) => self.with_actor(place, |actor, cx| actor.hear(cx, notice)),
        }
    }

    /// What happens to streams is told here; datagrams are told where they are sent.
    fn trace_notice(&mut self, owner: Owner, notice: &Notice) {
        let who = match owner {
            Owner::Edge => "edge",
            Owner::Actor(place) => &self.actors[place].name,
        };
        let (end, what) = match notice {
            Notice::Accepted { end, .. } => (end, "accepts"),
            Notice::Connected { end, .. } => (end, "is connected"),
            Notice::Refused { end, .. } => (end, "is not connected"),
            Notice::Eof(end) => (end, "reads the end"),
            Notice::Reset(end) => (end, "finds it broken"),
            Notice::TimedOut(end) => (end, "finds it dead"),
            Notice::Datagram { .. } | Notice::Unreachable { .. } | Notice::Bytes { .. } | Notice::Room(_) => return,
        };
        self.trace
            .note(self.net.now(), who, || format!("{what}: connection {}", end.tcp));
    }

    fn step(&mut self, step: Step) {
        if step != Step::Look {
            self.trace.note(self.net.now(), "world", || format!("{step:?}"));
        }
        match step {
            Step::Configure(edition) => {
                self.edition = edition;
                self.net.met.count("the configuration changed");
                let config = site::config(edition);
                for shard in 0..self.edge.shards() {
                    let delay = self.net.from_to(0, SEC / 100);
                    let task = Task::Configure(shard, config.clone());
                    self.net.agenda.after(delay, Event::Edge(task));
                }
            }
            Step::Drain => self.drain(),
            Step::Jump(by) => {
                self.net.met.count("the clock jumped");
                self.jumped += by;
            }
            Step::Cut(one_in) => {
                for tcp in self.net.cut(one_in) {
                    self.checkers.see(self.net.now(), &Seen::Cut { tcp });
                }
            }
            Step::Look => {
                self.with_edge(|edge, cx| edge.look(cx));
                if !self.all_left {
                    self.net.agenda.after(Scenario::LOOK, Event::Step(Step::Look));
                }
            }
            Step::Rest => self.actors.iter_mut().for_each(|person| person.actor.rest()),
            Step::Leave => self.leave(),
            Step::AllLeft => {
                self.all_left = true;
                self.checkers.see(self.net.now(), &Seen::AllLeft);
                self.with_edge(|edge, cx| edge.look(cx));
                self.drain();
                self.net
                    .agenda
                    .after(Scenario::LAST_DRAIN + SEC, Event::Step(Step::End));
            }
            Step::End => {
                if !self.edge.is_drained() {
                    self.checkers.fail("a drain did not end".into());
                }
                if self.edge.relays() > 0 {
                    self.checkers.fail("a relay socket was left".into());
                }
            }
        }
    }

    /// Everybody goes, and then everything may come to its end.
    fn leave(&mut self) {
        for place in 0..self.actors.len() {
            self.with_actor(place, |actor, cx| actor.leave(cx));
        }
        self.net.agenda.after(Scenario::LIFETIMES, Event::Step(Step::AllLeft));
    }

    fn drain(&mut self) {
        if std::mem::replace(&mut self.has_drained, true) {
            return;
        }
        self.net.met.count("the edge drained");
        let deadline = self.net.now() + Scenario::LAST_DRAIN;
        for shard in 0..self.edge.shards() {
            let delay = self.net.from_to(0, SEC / 100);
            self.net.agenda.after(delay, Event::Edge(Task::Drain(shard, deadline)));
        }
    }

    fn unix(&self) -> u64 {
        (site::BEGINNING + self.net.now() / SEC).saturating_add_signed(self.jumped)
    }

    fn with_edge(&mut self, act: impl FnOnce(&mut Edge, &mut driver::Cx<'_>)) {
        let (mono, unix) = (self.edge.mono(self.net.now()), self.unix());
        let cx = &mut driver::Cx {
            net: &mut self.net,
            checkers: &mut self.checkers,
            trace: &mut self.trace,
            mono,
            unix,
        };
        act(&mut self.edge, cx);
    }

    fn with_actor(&mut self, place: usize, act: impl FnOnce(&mut dyn Actor, &mut actor::Cx<'_>)) {
        let unix = self.unix();
        let person = &mut self.actors[place];
        let cx = &mut actor::Cx {
            me: place,
            name: &person.name,
            dice: &mut person.dice,
            net: &mut self.net,
            checkers: &mut self.checkers,
            trace: &mut self.trace,
            unix,
        };
        act(person.actor.as_mut(), cx);
    }
}
