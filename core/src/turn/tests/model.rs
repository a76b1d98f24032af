//! A model of TURN that is too simple to be wrong, stepped beside the server.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use proptest::prelude::*;

use super::*;

const CLIENTS: usize = 3;

/// With the rules of `config`: two addresses of the internet, one of them with two ports, the mediaserver with a port
/// that is allowed and one that is not, and loopback.
const PEERS: [&str; 6] = [
    "203.0.113.1:5000",
    "203.0.113.1:5001",
    "203.0.113.2:5000",
    "10.0.0.5:10000",
    "10.0.0.5:5060",
    "127.0.0.1:5000",
];

const PERMISSIONS_MAX: usize = 2;
const CHANNELS_MAX: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Sweep,
    Allocate {
        client: usize,
        bob: bool,
        again: bool,
    },
    Answer {
        ask: usize,
        result: Result<(), BindError>,
    },
    Refresh {
        client: usize,
        bob: bool,
        lifetime: Option<u32>,
    },
    Permit {
        client: usize,
        bob: bool,
        peers: Vec<usize>,
    },
    Bind {
        client: usize,
        bob: bool,
        number: u16,
        peer: usize,
    },
    Send {
        client: usize,
        peer: usize,
    },
    Channel {
        client: usize,
        number: u16,
    },
    Peer {
        relay: usize,
        peer: usize,
    },
    Close {
        client: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let peer = 0..PEERS.len();
    let number = 0x3fff..0x4003_u16;
    // A user who is not the client's comes now and then.
    let bob = prop::bool::weighted(0.1);
    let result = prop_oneof![
        6 => Just(Ok(())),
        1 => Just(Err(BindError::InUse)),
        1 => Just(Err(BindError::Failed)),
    ];
    let lifetime = prop_oneof![
        Just(None),
        prop::sample::select(vec![0, 1, 600, 900, 3600, u32::MAX]).prop_map(Some)
    ];
    prop_oneof![
        3 => prop::sample::select(vec![0_u64, 1, 100, 299, 300, 301, 599, 600, 1200]).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        4 => (client.clone(), bob, prop::bool::weighted(0.2))
            .prop_map(|(client, bob, again)| Step::Allocate { client, bob, again }),
        6 => (any::<usize>(), result).prop_map(|(ask, result)| Step::Answer { ask, result }),
        2 => (client.clone(), bob, lifetime)
            .prop_map(|(client, bob, lifetime)| Step::Refresh { client, bob, lifetime }),
        4 => (client.clone(), bob, prop::collection::vec(peer.clone(), 0..3))
            .prop_map(|(client, bob, peers)| Step::Permit { client, bob, peers }),
        4 => (client.clone(), bob, number.clone(), peer.clone())
            .prop_map(|(client, bob, number, peer)| Step::Bind { client, bob, number, peer }),
        6 => (client.clone(), peer.clone()).prop_map(|(client, peer)| Step::Send { client, peer }),
        6 => (client.clone(), number).prop_map(|(client, number)| Step::Channel { client, number }),
        8 => (any::<usize>(), peer).prop_map(|(relay, peer)| Step::Peer { relay, peer }),
        1 => client.prop_map(|client| Step::Close { client }),
    ]
}

/// What a client has, by the book.
#[derive(Debug)]
struct Expected {
    bob: bool,
    /// `None` until the socket is bound.
    relay: Option<RelayId>,
    expires: Instant,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
    request: Vec<u8>,
}

struct Model {
    lab: Lab,
    clients: [Client; CLIENTS],
    expected: [Option<Expected>; CLIENTS],
    /// Sockets to be bound, and for whom as far as that client still waits.
    asked: Vec<(RelayId, SocketAddr, Option<usize>)>,
    /// Sockets that are open.
    open: BTreeSet<RelayId>,
    /// Sockets that ever were.
    seen: Vec<RelayId>,
}

fn allowed(peer: SocketAddr) -> bool {
    let text = peer.to_string();
    text.starts_with("203.0.113.") || text == "10.0.0.5:10000"
}

fn allowed_address(address: IpAddr) -> bool {
    !address.is_loopback()
}

impl Model {
    fn new() -> Self {
        let lab = Lab::with(|turn| {
            turn.limits.unauthenticated_per_second = 0;
            turn.limits.permissions_max = PERMISSIONS_MAX;
            turn.limits.channels_max = CHANNELS_MAX;
        });
        Self {
            lab,
            clients: [
                datagrams("198.51.100.7:1"),
                datagrams("198.51.100.7:2"),
                stream(3, "198.51.100.7:3"),
            ],
            expected: [const { None }; CLIENTS],
            asked: vec![],
            open: BTreeSet::new(),
            seen: vec![],
        }
    }

    fn now(&self) -> Instant {
        self.lab.now.mono
    }

    fn login(&mut self, client: usize, bob: bool) -> Login {
        self.lab.login(self.clients[client], if bob { BOB } else { ALICE })
    }

    /// What a client has at this moment, if it is more than a promise.
    fn live(&mut self, client: usize) -> Option<&mut Expected> {
        let now = self.now();
        self.expected[client]
            .as_mut()
            .filter(|expected| expected.relay.is_some() && now < expected.expires)
    }

    /// Takes note of what the server asks.
    fn asks(&mut self, client: Option<usize>) {
        for (relay, at) in self.lab.binds() {
            assert!(!self.seen.contains(&relay), "a name is used once");
            assert!(!self.open.contains(&relay) && (30_000..=30_099).contains(&at.port()));
            self.seen.push(relay);
            self.asked.push((relay, at, client));
        }
        for relay in core::mem::take(&mut self.lab.closed) {
            assert!(self.open.remove(&relay), "a socket is closed once, after it was bound");
        }
    }

    /// The code of a request that needs an allocation, as far as that can be told without its contents.
    fn precondition(&mut self, client: usize, bob: bool) -> Result<&mut Expected, u16> {
        let expected = self.live(client).ok_or(437_u16)?;
        if expected.bob == bob { Ok(expected) } else { Err(441) }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Pass(secs) => self.lab.pass(*secs),
            Step::Sweep => {
                self.lab.sweep();
                let now = self.now();
                for expected in &mut self.expected {
                    if expected
                        .as_ref()
                        .is_some_and(|expected| expected.relay.is_some() && expected.expires <= now)
                    {
                        *expected = None;
                    }
                }
                self.asks(None);
                // No allocation outlives its lifetime by more than a sweep.
                assert_eq!(self.lab.server.allocations(), self.expected.iter().flatten().count());
            }
            Step::Allocate { client, bob, again } => self.allocate(*client, *bob, *again),
            Step::Answer { ask, result } => self.answer(*ask, *result),
            Step::Refresh { client, bob, lifetime } => self.refresh(*client, *bob, *lifetime),
            Step::Permit { client, bob, peers } => self.permit(*client, *bob, peers),
            Step::Bind {
                client,
                bob,
                number,
                peer,
            } => self.bind(*client, *bob, *number, PEERS[*peer]),
            Step::Send { client, peer } => {
                let peer = address(PEERS[*peer]);
                let sent = self.lab.send(self.clients[*client], &peer.to_string(), b"data");
                let expected = self.permitted(*client, peer).then_some(peer);
                self.check_to_peer(*client, sent, expected);
            }
            Step::Channel { client, number } => {
                let sent = self.lab.channel(self.clients[*client], *number, b"data");
                let now = self.now();
                let bound = self
                    .live(*client)
                    .and_then(|expected| expected.channels.get(number).copied());
                let peer = bound.filter(|(_, expires)| now < *expires).map(|(peer, _)| peer);
                let expected = peer.filter(|peer| self.permitted(*client, *peer));
                self.check_to_peer(*client, sent, expected);
            }
            Step::Peer { relay, peer } => self.peer(*relay, address(PEERS[*peer])),
            Step::Close { client } => {
                if let Client::Stream { conn, .. } = self.clients[*client] {
                    self.lab.close(conn);
                    self.drop_expected(*client);
                    self.asks(None);
                }
            }
        }
    }

    fn drop_expected(&mut self, client: usize) {
        self.expected[client] = None;
        for (_, _, waiting) in &mut self.asked {
            if *waiting == Some(client) {
                *waiting = None;
            }
        }
    }

    fn allocate(&mut self, client: usize, bob: bool, again: bool) {
        let from = self.clients[client];
        let now = self.now();
        let known = self.expected[client].as_ref();
        let known = known.filter(|expected| expected.relay.is_none() || now < expected.expires);
        if let (true, Some(known)) = (again, known) {
            let (request, made) = (known.request.clone(), known.relay.is_some());
            let sent = self.lab.client(from, &request);
            let code = sent.map(|sent| Reply::read(sent.bytes).code());
            // An old nonce is challenged before anything else is looked at.
            assert!(code == made.then_some(0) || code == Some(438), "{code:?}");
            return;
        }
        let occupied = known.is_some();
        let login = self.login(client, bob);
        let request = self.lab.allocate().signed(&login);
        let sent = self.lab.client(from, &request);
        if occupied {
            assert_eq!(sent.map(|sent| Reply::read(sent.bytes).code()), Some(437));
            return;
        }
        assert_eq!(sent, None);
        self.asks(Some(client));
        self.expected[client] = Some(Expected {
            bob,
            relay: None,
            expires: now,
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
            request,
        });
    }

    fn answer(&mut self, ask: usize, result: Result<(), BindError>) {
        if self.asked.is_empty() {
            return;
        }
        let (relay, at, client) = self.asked.swap_remove(ask % self.asked.len());
        if result.is_ok() {
            self.open.insert(relay);
        }
        let sent = self.lab.bound(relay, result.map(|()| at));
        let code = sent.map(|sent| Reply::read(sent.bytes).code());
        self.asks(client);
        let Some(client) = client else {
            assert_eq!(code, None);
            assert!(!self.open.contains(&relay), "nobody wants it any more");
            return;
        };
        match result {
            Ok(()) => {
                let expires = self.now() + Duration::from_secs(600);
                let expected = self.expected[client].as_mut().expect("it waits");
                (expected.relay, expected.expires) = (Some(relay), expires);
                assert_eq!(code, Some(0));
            }
            Err(BindError::InUse) if self.asked.iter().any(|(_, _, waiting)| *waiting == Some(client)) => {
                assert_eq!(code, None);
            }
            Err(_) => {
                assert_eq!(code, Some(508));
                self.drop_expected(client);
            }
        }
    }

    fn refresh(&mut self, client: usize, bob: bool, lifetime: Option<u32>) {
        let login = self.login(client, bob);
        let draft = self.lab.draft(Method::REFRESH);
        let draft = lifetime.map_or(draft.clone(), |secs| draft.lifetime(secs));
        let code = self
            .lab
            .ask(self.clients[client], &draft.signed(&login))
            .expect("an answer")
            .code();
        let now = self.now();
        let expected = self.precondition(client, bob).map(|expected| {
            let secs = lifetime.unwrap_or(600).clamp(600, 3600);
            expected.expires = now + Duration::from_secs(secs.into());
        });
        assert_eq!(code, expected.err().unwrap_or(0));
        if code == 0 && lifetime == Some(0) {
            self.drop_expected(client);
        }
        self.asks(None);
    }

    fn permit(&mut self, client: usize, bob: bool, peers: &[usize]) {
        let login = self.login(client, bob);
        let texts: Vec<&str> = peers.iter().map(|peer| PEERS[*peer]).collect();
        let code = self.lab.permit(self.clients[client], &login, &texts);
        let now = self.now();
        let addresses: BTreeSet<IpAddr> = texts.iter().map(|text| address(text).ip()).collect();
        let expected = self.precondition(client, bob).and_then(|expected| {
            if addresses.is_empty() {
                return Err(400);
            }
            if !addresses.iter().copied().all(allowed_address) {
                return Err(403);
            }
            install(expected, &addresses, now)
        });
        assert_eq!(code, expected.err().unwrap_or(0));
        self.asks(None);
    }

    fn bind(&mut self, client: usize, bob: bool, number: u16, peer: &str) {
        let login = self.login(client, bob);
        let code = self.lab.bind(self.clients[client], &login, number, peer);
        let (now, peer) = (self.now(), address(peer));
        let expected = self.precondition(client, bob).and_then(|expected| {
            if !(0x4000..0x5000).contains(&number) {
                return Err(400);
            }
            if !allowed(peer) {
                return Err(403);
            }
            expected.channels.retain(|_, (_, expires)| now < *expires);
            if expected
                .channels
                .iter()
                .any(|(n, (p, _))| (*n == number) != (*p == peer))
            {
                return Err(400);
            }
            if !expected.channels.contains_key(&number) && expected.channels.len() == CHANNELS_MAX {
                return Err(508);
            }
            install(expected, &BTreeSet::from([peer.ip()]), now)?;
            expected.channels.insert(number, (peer, now + Duration::from_secs(600)));
            Ok(())
        });
        assert_eq!(code, expected.err().unwrap_or(0));
        self.asks(None);
    }

    /// Whether data may pass between a client and a peer.
    fn permitted(&mut self, client: usize, peer: SocketAddr) -> bool {
        let now = self.now();
        let Some(expected) = self.live(client) else {
            return false;
        };
        allowed(peer)
            && expected
                .permissions
                .get(&peer.ip())
                .is_some_and(|expires| now < *expires)
    }

    fn check_to_peer(&mut self, client: usize, sent: Option<Sent>, expected: Option<SocketAddr>) {
        let relay = self.live(client).and_then(|expected| expected.relay);
        let expected = expected.map(|peer| Sent {
            to: To::Datagram {
                socket: SocketId::Relay(relay.expect("it is live")),
                peer,
                local: None,
            },
            bytes: b"data".into(),
        });
        assert_eq!(sent, expected);
    }

    fn peer(&mut self, relay: usize, peer: SocketAddr) {
        // Any name that ever was: of an open socket, of one that is to be bound, of one that is gone.
        if self.seen.is_empty() {
            return;
        }
        let relay = self.seen[relay % self.seen.len()];
        let sent = self.lab.peer(relay, &peer.to_string(), b"data");
        let owner =
            (0..CLIENTS).find(|client| self.live(*client).is_some_and(|expected| expected.relay == Some(relay)));
        let Some(client) = owner.filter(|client| self.permitted(*client, peer)) else {
            assert_eq!(sent, None);
            return;
        };
        let now = self.now();
        let expected = self.live(client).expect("it is live");
        let channel = expected
            .channels
            .iter()
            .find(|(_, (bound, expires))| *bound == peer && now < *expires);
        let channel = channel.map(|(number, _)| *number);
        let sent = sent.expect("the peer has a permission");
        assert_eq!(
            sent.to,
            self.clients[client]
                .send(crate::action::Prefix::NONE, Payload::Made(0..0))
                .to
        );
        if let Some(number) = channel {
            assert_eq!(sent.bytes, [&number.to_be_bytes()[..], &[0, 4], b"data"].concat());
        } else {
            let reply = Reply::read(sent.bytes);
            assert_eq!(reply.value(Kind::DATA).as_deref(), Some(b"data".as_slice()));
            assert_eq!(reply.addresses(Kind::XOR_PEER_ADDRESS), [peer]);
        }
    }

    /// Everything comes to its end.
    fn finish(mut self) {
        while !self.asked.is_empty() {
            self.answer(0, Ok(()));
        }
        self.lab.pass(3600);
        self.lab.sweep();
        self.asks(None);
        assert!(self.open.is_empty(), "every socket is closed");
        assert_eq!(
            (self.lab.server.allocations(), self.lab.server.table_sizes()),
            (0, [0; 8])
        );
        assert_eq!(self.lab.server.free_ports(), [100, 100]);
        assert_eq!(self.lab.stats.turn.allocated, self.lab.stats.turn.released);
        assert_eq!(self.lab.server.poll_timeout(), None);
    }
}

fn install(expected: &mut Expected, addresses: &BTreeSet<IpAddr>, now: Instant) -> Result<(), u16> {
    expected.permissions.retain(|_, expires| now < *expires);
    let known: BTreeSet<IpAddr> = expected.permissions.keys().copied().collect();
    if known.union(addresses).count() > PERMISSIONS_MAX {
        return Err(508);
    }
    for address in addresses {
        expected.permissions.insert(*address, now + Duration::from_secs(300));
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_server_does_what_the_model_does(steps in prop::collection::vec(step(), 0..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
        model.finish();
    }

    #[test]
    fn any_bytes_of_anybody_are_taken_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        kinds in prop::collection::vec((prop::sample::select(KINDS.to_vec()), prop::collection::vec(any::<u8>(), 0..24)), 0..8),
        method in prop::sample::select(METHODS.to_vec()),
        indication in any::<bool>(),
    ) {
        let mut lab = Lab::with(|turn| turn.limits.unauthenticated_per_second = 0);
        let client = datagrams("198.51.100.7:1");
        let (login, relay, _) = lab.allocation(client);
        lab.client(client, &bytes);
        lab.peer(relay, "203.0.113.1:5000", &bytes);
        let mut draft = lab.draft(method);
        for (kind, value) in &kinds {
            draft = draft.raw(*kind, value);
        }
        if indication {
            draft = draft.indication();
        }
        for from in [client, datagrams("198.51.100.7:2")] {
            lab.client(from, &draft.plain());
            lab.client(from, &draft.signed(&login));
        }
    }
}

const METHODS: [Method; 7] = [
    Method::BINDING,
    Method::ALLOCATE,
    Method::REFRESH,
    Method::SEND,
    Method::DATA,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
];

const KINDS: [Kind; 14] = [
    Kind::USERNAME,
    Kind::NONCE,
    Kind::PASSWORD_ALGORITHM,
    Kind::CHANNEL_NUMBER,
    Kind::LIFETIME,
    Kind::XOR_PEER_ADDRESS,
    Kind::DATA,
    Kind::REQUESTED_ADDRESS_FAMILY,
    Kind::EVEN_PORT,
    Kind::REQUESTED_TRANSPORT,
    Kind::DONT_FRAGMENT,
    Kind::RESERVATION_TOKEN,
    Kind::ADDITIONAL_ADDRESS_FAMILY,
    Kind(0x7abc),
];
