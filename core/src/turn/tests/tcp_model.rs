//! A model of RFC 6062 that is too simple to be wrong, stepped beside the server: control connections, peers that are
//! called and that call, and clients that come for them.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use proptest::prelude::*;

use super::*;

const CLIENTS: usize = 2;

/// With the rules of `config`: three of the internet, the mediaserver with a port that is allowed and one that is not,
/// and loopback.
const PEERS: [&str; 6] = [
    "203.0.113.1:5000",
    "203.0.113.1:5001",
    "203.0.113.2:5000",
    "10.0.0.5:10000",
    "10.0.0.5:5060",
    "127.0.0.1:5000",
];

const CONNECTIONS_MAX: usize = 4;
const PENDING_MAX: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Sweep,
    Allocate {
        client: usize,
    },
    Refresh {
        client: usize,
        lifetime: u32,
    },
    Permit {
        client: usize,
        peer: usize,
    },
    Connect {
        client: usize,
        bob: bool,
        peer: usize,
    },
    Dialed {
        pick: usize,
        works: bool,
    },
    Attempt {
        client: usize,
        peer: usize,
    },
    Bind {
        pick: usize,
        bob: bool,
    },
    /// Nobody has come in time, or the peer has gone.
    Leave {
        pick: usize,
        late: bool,
    },
    Close {
        client: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (client, peer, pick) = (0..CLIENTS, 0..PEERS.len(), any::<usize>());
    let bob = prop::bool::weighted(0.1);
    prop_oneof![
        3 => prop::sample::select(vec![0_u64, 1, 29, 30, 299, 300, 600]).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        4 => client.clone().prop_map(|client| Step::Allocate { client }),
        1 => (client.clone(), prop::sample::select(vec![0, 600, 900]))
            .prop_map(|(client, lifetime)| Step::Refresh { client, lifetime }),
        4 => (client.clone(), peer.clone()).prop_map(|(client, peer)| Step::Permit { client, peer }),
        6 => (client.clone(), bob, peer.clone())
            .prop_map(|(client, bob, peer)| Step::Connect { client, bob, peer }),
        6 => (pick, any::<bool>()).prop_map(|(pick, works)| Step::Dialed { pick, works }),
        6 => (client.clone(), peer).prop_map(|(client, peer)| Step::Attempt { client, peer }),
        6 => (pick, bob).prop_map(|(pick, bob)| Step::Bind { pick, bob }),
        2 => (pick, any::<bool>()).prop_map(|(pick, late)| Step::Leave { pick, late }),
        1 => client.prop_map(|client| Step::Close { client }),
    ]
}

/// What a client has, by the book.
#[derive(Debug)]
struct Expected {
    relay: RelayId,
    expires: Instant,
    permissions: BTreeMap<IpAddr, Instant>,
}

/// A connection with a peer, by the book.
#[derive(Debug)]
struct Connection {
    client: usize,
    peer: SocketAddr,
    conn: ConnId,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A Connect request waits for its answer.
    Dialing,
    /// CONNECTION-ID, and until when it may be bound.
    Waiting(u32, Instant),
    Bound,
}

struct Model {
    lab: Lab,
    expected: [Option<Expected>; CLIENTS],
    connections: Vec<Connection>,
    ids: BTreeSet<u32>,
    /// Names of connections, each used once: 0 and 1 are the control connections.
    names: u32,
}

fn allowed(peer: SocketAddr) -> bool {
    let text = peer.to_string();
    text.starts_with("203.0.113.") || text.starts_with("10.0.0.5:1")
}

fn conn(number: u32) -> ConnId {
    ConnId(SlabKey::from_parts(number, 0))
}

fn control(client: usize) -> Client {
    stream(client as u32, "198.51.100.7:40000")
}

impl Model {
    fn new() -> Self {
        let lab = Lab::with(|turn| {
            turn.tcp_relay = true;
            turn.limits.unauthenticated_per_second = 0;
            turn.limits.peer_connections_max = CONNECTIONS_MAX;
            turn.limits.pending_peer_connections_max = PENDING_MAX;
        });
        Self {
            lab,
            expected: [const { None }; CLIENTS],
            connections: vec![],
            ids: BTreeSet::new(),
            names: CLIENTS as u32,
        }
    }

    fn now(&self) -> Instant {
        self.lab.now.mono
    }

    fn name(&mut self) -> ConnId {
        self.names += 1;
        conn(self.names)
    }

    fn live(&mut self, client: usize) -> Option<&mut Expected> {
        let now = self.now();
        self.expected[client].as_mut().filter(|expected| now < expected.expires)
    }

    fn is_live(&mut self, client: usize) -> bool {
        self.live(client).is_some()
    }

    /// Takes note of what the server cuts: connections of an allocation that is over, and no others.
    fn cuts(&mut self) {
        assert_eq!(self.lab.binds(), []);
        for ask in core::mem::take(&mut self.lab.asked) {
            let Ask::Cut(cut) = ask else { panic!("{ask:?}") };
            let place = self.connections.iter().position(|held| held.conn == cut);
            let gone = self.connections.remove(place.expect("cut once"));
            assert!(!self.is_live(gone.client), "{gone:?}");
        }
    }

    /// Whether a client may have one more connection.
    fn has_room(&self, client: usize) -> bool {
        let held: Vec<_> = self.connections.iter().filter(|held| held.client == client).collect();
        let pending = held.iter().filter(|held| held.state != State::Bound).count();
        held.len() < CONNECTIONS_MAX && pending < PENDING_MAX
    }

    fn is_permitted(&mut self, client: usize, peer: SocketAddr) -> bool {
        let now = self.now();
        let permission = self
            .live(client)
            .and_then(|expected| expected.permissions.get(&peer.ip()).copied());
        allowed(peer) && permission.is_some_and(|expires| now < expires)
    }

    /// What the server sends to a control connection.
    fn told(&self, client: usize, sent: Option<Sent>) -> Option<Reply> {
        let sent = sent?;
        assert_eq!(sent.to, To::Stream(conn(client as u32)));
        Some(Reply::read(sent.bytes))
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Pass(secs) => self.lab.pass(secs),
            Step::Sweep => {
                self.lab.sweep();
                self.cuts();
                for client in 0..CLIENTS {
                    if !self.is_live(client) {
                        self.expected[client] = None;
                        assert!(self.connections.iter().all(|held| held.client != client));
                    }
                }
            }
            Step::Allocate { client } => self.allocate(client),
            Step::Refresh { client, lifetime } => {
                let login = self.lab.login(control(client), ALICE);
                let code = self.lab.refresh(control(client), &login, lifetime);
                let expires = self.now() + Duration::from_secs(lifetime.into());
                let expected = self.live(client).map(|expected| expected.expires = expires);
                assert_eq!(code, if expected.is_some() { 0 } else { 437 });
                self.cuts();
            }
            Step::Permit { client, peer } => {
                let login = self.lab.login(control(client), ALICE);
                let code = self.lab.permit(control(client), &login, &[PEERS[peer]]);
                let (now, peer) = (self.now(), address(PEERS[peer]));
                let expected = match self.live(client) {
                    None => 437,
                    Some(_) if peer.ip().is_loopback() => 403,
                    Some(expected) => {
                        expected.permissions.insert(peer.ip(), now + Duration::from_secs(300));
                        0
                    }
                };
                assert_eq!(code, expected);
                self.cuts();
            }
            Step::Connect { client, bob, peer } => self.connect(client, bob, address(PEERS[peer])),
            Step::Dialed { pick, works } => self.dialed(pick, works),
            Step::Attempt { client, peer } => self.attempt(client, address(PEERS[peer])),
            Step::Bind { pick, bob } => self.bind(pick, bob),
            Step::Leave { pick, late } => self.leave(pick, late),
            Step::Close { client } => {
                self.expected[client] = None;
                self.lab.close(conn(client as u32));
                self.cuts();
                assert!(self.connections.iter().all(|held| held.client != client));
            }
        }
    }

    fn allocate(&mut self, client: usize) {
        let login = self.lab.login(control(client), ALICE);
        let draft = self
            .lab
            .draft(Method::ALLOCATE)
            .raw(Kind::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
        let sent = self.lab.client(control(client), &draft.signed(&login));
        let binds = self.lab.binds();
        let is_occupied = self.is_live(client);
        let sent = match binds[..] {
            [(relay, at)] if !is_occupied => {
                assert_eq!(sent, None);
                let expires = self.now() + Duration::from_secs(600);
                self.expected[client] = Some(Expected {
                    relay,
                    expires,
                    permissions: BTreeMap::new(),
                });
                self.lab.bound(relay, Ok(at))
            }
            _ => sent,
        };
        let code = self.told(client, sent).map(|reply| reply.code());
        assert_eq!(code, Some(if is_occupied { 437 } else { 0 }));
        // Those of an allocation that had expired, whose place is taken, are cut.
        let asked = core::mem::take(&mut self.lab.asked);
        self.connections.retain(|held| !asked.contains(&Ask::Cut(held.conn)));
    }

    fn connect(&mut self, client: usize, bob: bool, peer: SocketAddr) {
        let login = self.lab.login(control(client), if bob { BOB } else { ALICE });
        let request = self.lab.draft(Method::CONNECT).peer(&peer.to_string()).signed(&login);
        let sent = self.lab.client(control(client), &request);
        let code = self.told(client, sent).map(|reply| reply.code());
        assert_eq!(self.lab.binds(), []);
        let dial = self.lab.asked.iter().position(|ask| matches!(ask, Ask::Dial { .. }));
        let dial = dial.map(|place| self.lab.asked.remove(place));
        self.cuts();
        let exists = self
            .connections
            .iter()
            .any(|held| held.client == client && held.peer == peer);
        let expected = match () {
            () if !self.is_live(client) => Some(437),
            () if bob => Some(441),
            () if exists => Some(446),
            () if !allowed(peer) => Some(403),
            () if !self.has_room(client) => Some(508),
            () => None,
        };
        assert_eq!(code, expected);
        assert_eq!(dial.is_some(), expected.is_none());
        if let Some(Ask::Dial { connection, to, .. }) = dial {
            assert_eq!(to, peer);
            let conn = self.name();
            assert!(self.lab.server.dialing(connection, conn));
            self.connections.push(Connection {
                client,
                peer,
                conn,
                state: State::Dialing,
            });
        }
    }

    /// A connection in this state.
    fn pick(&self, pick: usize, is_meant: impl Fn(State) -> bool) -> Option<usize> {
        let meant: Vec<usize> = (0..self.connections.len())
            .filter(|place| is_meant(self.connections[*place].state))
            .collect();
        (!meant.is_empty()).then(|| meant[pick % meant.len()])
    }

    fn dialed(&mut self, pick: usize, works: bool) {
        let Some(place) = self.pick(pick, |state| state == State::Dialing) else {
            return;
        };
        let (client, conn) = (self.connections[place].client, self.connections[place].conn);
        let sent = self.lab.call(&[], |server, cx| match works {
            true => server.connected(cx, conn),
            false => server.connect_failed(cx, conn),
        });
        // An allocation that has expired and is not swept is still answered for.
        let reply = self.told(client, sent).expect("every Connect request is answered once");
        if works {
            assert_eq!(reply.code(), 0);
            self.waits(place, reply.u32(Kind::CONNECTION_ID));
        } else {
            assert_eq!(reply.code(), 447);
            self.connections.remove(place);
        }
    }

    /// A connection has a name from now on, that no other one ever had.
    fn waits(&mut self, place: usize, id: Option<u32>) {
        let id = id.expect("a name");
        assert!(self.ids.insert(id));
        self.connections[place].state = State::Waiting(id, self.now() + Duration::from_secs(30));
    }

    fn attempt(&mut self, client: usize, peer: SocketAddr) {
        let Some(relay) = self.expected[client].as_ref().map(|expected| expected.relay) else {
            return;
        };
        let conn = self.name();
        let mut taken = false;
        let sent = self.lab.call(&[], |server, cx| {
            let verdict = server.attempt(cx, relay, conn, peer);
            taken = verdict.is_some();
            verdict.unwrap_or(Verdict::NOTHING)
        });
        assert_eq!(taken, self.is_permitted(client, peer) && self.has_room(client));
        let Some(told) = self.told(client, sent) else { return };
        assert_eq!(told.addresses(Kind::XOR_PEER_ADDRESS), [peer]);
        self.connections.push(Connection {
            client,
            peer,
            conn,
            state: State::Dialing,
        });
        self.waits(self.connections.len() - 1, told.u32(Kind::CONNECTION_ID));
    }

    fn bind(&mut self, pick: usize, bob: bool) {
        let Some(place) = self.pick(pick, |state| matches!(state, State::Waiting(..))) else {
            return;
        };
        let Connection {
            client,
            conn,
            state: State::Waiting(id, until),
            ..
        } = self.connections[place]
        else {
            unreachable!("picked so")
        };
        let data = self.name();
        let from = Client::Stream {
            conn: data,
            peer: address("198.51.100.7:40001"),
            local: address("192.0.2.10:3478"),
        };
        let login = self.lab.login(from, if bob { BOB } else { ALICE });
        let draft = self.lab.draft(Method::CONNECTION_BIND);
        let code = self
            .lab
            .code(from, &login, draft.raw(Kind::CONNECTION_ID, &id.to_be_bytes()));
        let works = self.is_live(client) && !bob && self.now() < until;
        assert_eq!(code, if works { 0 } else { 400 });
        let join = Ask::Join {
            client: data,
            peer: conn,
        };
        let joined = self.lab.asked.iter().position(|ask| *ask == join);
        assert_eq!(joined.is_some(), works);
        if let Some(joined) = joined {
            self.lab.asked.remove(joined);
            self.connections[place].state = State::Bound;
        }
        self.cuts();
    }

    fn leave(&mut self, pick: usize, late: bool) {
        // Only who waits can be late.
        let meant = |state| {
            if late {
                matches!(state, State::Waiting(..))
            } else {
                state != State::Dialing
            }
        };
        let Some(place) = self.pick(pick, meant) else { return };
        let gone = self.connections.remove(place);
        if late {
            let sent = self.lab.call(&[], |server, cx| server.connect_failed(cx, gone.conn));
            assert_eq!(sent, None);
        } else {
            self.lab.close(gone.conn);
        }
        self.cuts();
    }

    /// Everything comes to its end.
    fn finish(mut self) {
        self.lab.pass(901);
        self.run(&Step::Sweep);
        assert!(self.connections.is_empty());
        assert_eq!(self.lab.server.table_sizes(), [0; 8]);
        assert_eq!(self.lab.server.free_ports(), [100, 100]);
    }
}

proptest! {
    #[test]
    fn the_server_relays_tcp_as_the_model_does(steps in prop::collection::vec(step(), 0..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
        model.finish();
    }
}
