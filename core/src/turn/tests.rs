//! A TURN server without a network, and the means to talk to it. The rules are tested in the files below.

use alloc::sync::Arc;
use core::{net::SocketAddr, time::Duration};

use super::*;
use crate::{
    action::{BindError, ConnId, RelayId, ShardId, SocketId, Transport},
    config::{self, Config, PeerRule, Secret, TurnLimits, User},
    cx::Cx,
    rng::Rng,
    slab::Key as SlabKey,
    stats::Stats,
    time::{Instant, Now, UnixTime},
    wire::stun::{Class, Family, Header, Integrity, Key, Kind, Message, Method, TransactionId, Writer, read_address},
};

mod allocate;
mod auth;
mod discovery;
mod manage;
mod mobility;
mod model;
mod relay;
mod tcp;
mod tcp_model;

const REALM: &str = "example.org";
const ALICE: (&str, &str) = ("alice", "wonderland");
const BOB: (&str, &str) = ("bob", "builder");
const SECRET: &str = "rest secret";
const START: UnixTime = UnixTime(1_700_000_000);

/// A server, its surroundings, and a clock that stands still unless it is moved.
struct Lab {
    server: Server,
    rng: Rng,
    stats: Stats,
    now: Now,
    transactions: u64,
    /// What the IP header of the last verdict was to say.
    header: IpHeader,
    /// Sockets that were to be closed.
    closed: Vec<RelayId>,
    /// What was asked about TCP connections.
    asked: Vec<Ask>,
}

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    to: To,
    bytes: Vec<u8>,
}

/// A STUN message of the server, read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    bytes: Vec<u8>,
}

/// A user with a nonce.
#[derive(Debug, Clone)]
struct Login {
    user: Vec<u8>,
    password: Vec<u8>,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    strength: Strength,
}

/// Which way to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strength {
    /// As RFC 5389 has it.
    Old,
    /// PASSWORD-ALGORITHM is MD5, the integrity is SHA-256.
    Md5,
    /// All SHA-256.
    Sha256,
}

/// A message of the client in the making.
#[derive(Debug, Clone)]
struct Draft {
    header: Header,
    items: Vec<(Kind, Item)>,
    fingerprint: bool,
}

#[derive(Debug, Clone)]
enum Item {
    Raw(Vec<u8>),
    Address(SocketAddr),
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A client that sends datagrams.
fn datagrams(text: &str) -> Client {
    Client::Datagram {
        socket: SocketId::Turn(0),
        peer: address(text),
        local: None,
    }
}

/// A client with a connection.
fn stream(number: u32, text: &str) -> Client {
    Client::Stream {
        conn: ConnId(SlabKey::from_parts(number, 0)),
        peer: address(text),
        local: address("192.0.2.10:3478"),
    }
}

/// A configuration that knows two users, REST credentials, a mediaserver and the internet.
fn config(edit: impl FnOnce(&mut config::Turn)) -> Arc<Config> {
    let relay = |text: &str| config::Relay {
        bind: text.parse().expect("an address"),
        advertise: text.parse().expect("an address"),
    };
    let user = |(name, password): (&str, &str)| User {
        name: name.into(),
        password: Secret::new(password),
        sources: vec![],
    };
    let mut turn = config::Turn {
        listen_udp: vec![address("192.0.2.10:3478")],
        listen_tcp: vec![address("192.0.2.10:3478")],
        proxy_protocol_from: vec![],
        relays: vec![relay("192.0.2.10"), relay("2001:db8::10")],
        relay_ports: 30_000..=30_099,
        realm: REALM.into(),
        secrets: vec![Secret::new("an old secret"), Secret::new(SECRET)],
        secret_hashes: vec![config::SecretHash::Sha1, config::SecretHash::Sha256],
        strict_expiry: false,
        users: vec![user(ALICE), user(BOB)],
        peers: vec![PeerRule {
            net: "10.0.0.5/32".parse().expect("a net"),
            ports: 10_000..=20_000,
        }],
        tcp_relay: false,
        public_peers: true,
        mobility: false,
        discovery: vec![],
        alternate: None,
        limits: TurnLimits::default(),
    };
    edit(&mut turn);
    Arc::new(Config {
        server: config::Server {
            drain: Duration::ZERO,
            connections_max: 1000,
            connections_per_address_max: 100,
            ..config::Server::default()
        },
        https: None,
        web: None,
        sip: None,
        turn: Some(turn),
        token: None,
        rates: config::Rates::default(),
        metrics: None,
        access_log: None,
        keys: config::Keys {
            nonce: [9; 32],
            flow: vec![],
        },
    })
}

impl Lab {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(edit: impl FnOnce(&mut config::Turn)) -> Self {
        Self::shard(config(edit), 0, 1)
    }

    fn shard(config: Arc<Config>, shard: u16, shards: u16) -> Self {
        let mut rng = Rng::new([5; 32]);
        Self {
            server: Server::new(config, ShardId(shard), shards, &mut rng),
            rng,
            stats: Stats::default(),
            now: Now {
                mono: Instant::from_nanos(1_000_000_000_000),
                unix: START,
            },
            transactions: 0,
            header: IpHeader::Own,
            closed: vec![],
            asked: vec![],
        }
    }

    fn pass(&mut self, secs: u64) {
        self.now.mono += Duration::from_secs(secs);
        self.now.unix.0 += secs;
    }

    /// Calls the server and gathers what it sends.
    fn call(&mut self, input: &[u8], call: impl FnOnce(&mut Server, &mut Cx<'_>) -> Verdict) -> Option<Sent> {
        let mut made = b"earlier".to_vec();
        let mut cx = Cx {
            now: self.now,
            rng: &mut self.rng,
            made: &mut made,
            stats: &mut self.stats,
        };
        let verdict = call(&mut self.server, &mut cx);
        self.header = verdict.header;
        if verdict.to == To::Nobody {
            assert_eq!(verdict, Verdict::NOTHING);
            assert_eq!(made, b"earlier");
            return None;
        }
        let payload = match verdict.payload {
            Payload::Input(range) => &input[range],
            Payload::Made(range) => &made[range],
        };
        Some(Sent {
            to: verdict.to,
            bytes: [verdict.prefix.as_slice(), payload].concat(),
        })
    }

    fn client(&mut self, from: Client, bytes: &[u8]) -> Option<Sent> {
        self.call(bytes, |server, cx| server.client(cx, from, bytes))
    }

    fn peer(&mut self, relay: RelayId, from: &str, bytes: &[u8]) -> Option<Sent> {
        self.call(bytes, |server, cx| server.peer(cx, relay, address(from), bytes))
    }

    fn bound(&mut self, relay: RelayId, result: Result<SocketAddr, BindError>) -> Option<Sent> {
        self.call(&[], |server, cx| server.bound(cx, relay, result))
    }

    /// The sockets to be bound. Those to be closed are noted.
    fn binds(&mut self) -> Vec<(RelayId, SocketAddr)> {
        let mut binds = Vec::new();
        while let Some(ask) = self.server.poll_ask() {
            match ask {
                Ask::Bind { relay, at, .. } => binds.push((relay, at)),
                Ask::Close(relay) => self.closed.push(relay),
                Ask::Dial { .. } | Ask::Join { .. } | Ask::Cut(_) => self.asked.push(ask),
            }
        }
        binds
    }

    fn close(&mut self, conn: ConnId) {
        self.call(&[], |server, cx| {
            server.closed(cx, conn);
            Verdict::NOTHING
        });
    }

    /// Sweeps for so long that every slot has been looked at.
    fn sweep(&mut self) {
        for _ in 0..8 {
            self.pass(1);
            self.call(&[], |server, cx| {
                server.timeout(cx);
                Verdict::NOTHING
            });
        }
        assert_eq!(self.binds(), []);
    }

    /// Sends a request and returns the response, which goes to the client. All sockets can be bound.
    fn ask(&mut self, from: Client, bytes: &[u8]) -> Option<Reply> {
        let mut sent = self.client(from, bytes);
        for (relay, at) in self.binds() {
            assert_eq!(sent, None, "the answer waits for all sockets");
            sent = self.bound(relay, Ok(at));
        }
        sent.map(|sent| {
            assert_eq!(sent.to, from.send(crate::action::Prefix::NONE, Payload::Made(0..0)).to);
            Reply::read(sent.bytes)
        })
    }

    fn draft(&mut self, method: Method) -> Draft {
        self.transactions += 1;
        Draft {
            header: Header {
                class: Class::Request,
                method,
                transaction: self.last(),
            },
            items: vec![],
            fingerprint: false,
        }
    }

    /// The transaction of the last draft.
    fn last(&self) -> TransactionId {
        let mut transaction = *b"transaction?";
        transaction[4..].copy_from_slice(&self.transactions.to_be_bytes());
        TransactionId(transaction)
    }

    /// A fresh nonce for a user at this address.
    fn login(&mut self, from: Client, (user, password): (&str, &str)) -> Login {
        let request = self.draft(Method::ALLOCATE).plain();
        let reply = self.ask(from, &request).expect("a challenge");
        assert_eq!(reply.code(), 401);
        Login {
            user: user.into(),
            password: password.into(),
            realm: reply.value(Kind::REALM).expect("a realm"),
            nonce: reply.value(Kind::NONCE).expect("a nonce"),
            strength: Strength::Old,
        }
    }

    /// An Allocate request for UDP.
    fn allocate(&mut self) -> Draft {
        self.draft(Method::ALLOCATE)
            .raw(Kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    }

    /// Alice's allocation at this address: her login and the socket and address of the relay.
    fn allocation(&mut self, from: Client) -> (Login, RelayId, SocketAddr) {
        let login = self.login(from, ALICE);
        let (relay, address) = self.allocated(from, &login, |draft| draft);
        (login, relay, address)
    }

    /// Makes an allocation of one relayed address.
    fn allocated(&mut self, from: Client, login: &Login, edit: impl FnOnce(Draft) -> Draft) -> (RelayId, SocketAddr) {
        let draft = self.allocate();
        let request = edit(draft).signed(login);
        assert_eq!(self.client(from, &request), None);
        let binds = self.binds();
        let [(relay, at)] = binds[..] else {
            panic!("one socket: {binds:?}")
        };
        let sent = self.bound(relay, Ok(at)).expect("an answer");
        let reply = Reply::read(sent.bytes);
        assert_eq!(reply.class(), Class::Success, "{}", reply.code());
        assert!(reply.is_signed_by(login));
        (relay, reply.addresses(Kind::XOR_RELAYED_ADDRESS)[0])
    }

    /// A request for which only the error code matters; 0 is success.
    fn code(&mut self, from: Client, login: &Login, draft: Draft) -> u16 {
        let reply = self.ask(from, &draft.signed(login)).expect("an answer");
        if ![401, 438].contains(&reply.code()) {
            assert!(reply.is_signed_by(login));
        }
        reply.code()
    }

    fn permit(&mut self, from: Client, login: &Login, peers: &[&str]) -> u16 {
        let mut draft = self.draft(Method::CREATE_PERMISSION);
        for peer in peers {
            draft = draft.peer(peer);
        }
        self.code(from, login, draft)
    }

    fn bind(&mut self, from: Client, login: &Login, number: u16, peer: &str) -> u16 {
        let draft = self.draft(Method::CHANNEL_BIND).channel(number).peer(peer);
        self.code(from, login, draft)
    }

    fn refresh(&mut self, from: Client, login: &Login, lifetime: u32) -> u16 {
        let draft = self.draft(Method::REFRESH).lifetime(lifetime);
        self.code(from, login, draft)
    }

    /// Sends data by a Send indication.
    fn send(&mut self, from: Client, peer: &str, data: &[u8]) -> Option<Sent> {
        let draft = self.draft(Method::SEND).indication().peer(peer).raw(Kind::DATA, data);
        self.client(from, &draft.plain())
    }

    /// Sends data by a channel.
    fn channel(&mut self, from: Client, number: u16, data: &[u8]) -> Option<Sent> {
        let header = crate::wire::channel::header(number, data.len() as u16);
        self.client(from, &[header.as_slice(), data].concat())
    }
}

impl Draft {
    fn raw(mut self, kind: Kind, value: &[u8]) -> Self {
        self.items.push((kind, Item::Raw(value.into())));
        self
    }

    fn peer(mut self, text: &str) -> Self {
        self.items.push((Kind::XOR_PEER_ADDRESS, Item::Address(address(text))));
        self
    }

    fn lifetime(self, secs: u32) -> Self {
        self.raw(Kind::LIFETIME, &secs.to_be_bytes())
    }

    fn channel(self, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        self.raw(Kind::CHANNEL_NUMBER, &[high, low, 0, 0])
    }

    fn family(self, family: Family) -> Self {
        self.raw(Kind::REQUESTED_ADDRESS_FAMILY, &[family.code(), 0, 0, 0])
    }

    fn additional(self, family: Family) -> Self {
        self.raw(Kind::ADDITIONAL_ADDRESS_FAMILY, &[family.code(), 0, 0, 0])
    }

    fn even_port(self, reserve: bool) -> Self {
        self.raw(Kind::EVEN_PORT, &[u8::from(reserve) << 7])
    }

    fn indication(mut self) -> Self {
        self.header.class = Class::Indication;
        self
    }

    fn fingerprint(mut self) -> Self {
        self.fingerprint = true;
        self
    }

    fn plain(&self) -> Vec<u8> {
        self.finish(|_| ())
    }

    fn signed(&self, login: &Login) -> Vec<u8> {
        self.with_credentials(login, Kind::USERNAME, &login.user)
    }

    /// Signed, with the user named in this way.
    fn with_credentials(&self, login: &Login, name: Kind, user: &[u8]) -> Vec<u8> {
        let key = login.key();
        self.finish(|writer| {
            writer.attribute(name, user);
            writer.attribute(Kind::REALM, &login.realm);
            writer.attribute(Kind::NONCE, &login.nonce);
            match login.strength {
                Strength::Old => return writer.sign(Integrity::Sha1, &key),
                Strength::Md5 => writer.attribute(Kind::PASSWORD_ALGORITHM, &[0, 1, 0, 0]),
                Strength::Sha256 => writer.attribute(Kind::PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
            }
            writer.attribute(Kind::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
            writer.sign(Integrity::Sha256, &key);
        })
    }

    fn finish(&self, more: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, self.header);
        for (kind, item) in &self.items {
            match item {
                Item::Raw(value) => writer.attribute(*kind, value),
                Item::Address(address) => writer.address(*kind, *address),
            }
        }
        more(&mut writer);
        if self.fingerprint {
            writer.fingerprint();
        }
        let _ = writer.finish();
        out
    }
}

impl Login {
    fn key(&self) -> Key {
        match self.strength {
            Strength::Old | Strength::Md5 => Key::md5(&self.user, &self.realm, &self.password),
            Strength::Sha256 => Key::sha256(&self.user, &self.realm, &self.password),
        }
    }

    fn with(&self, edit: impl FnOnce(&mut Self)) -> Self {
        let mut login = self.clone();
        edit(&mut login);
        login
    }
}

impl Reply {
    fn read(bytes: Vec<u8>) -> Self {
        let message = Message::parse(&bytes).expect("the server sends good messages");
        // CVE-2020-4067: every byte of padding is zero.
        for attribute in message.attributes() {
            let end = attribute.range.end;
            assert!(bytes[end..end.next_multiple_of(4)].iter().all(|byte| *byte == 0));
        }
        Self { bytes }
    }

    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("read before")
    }

    fn class(&self) -> Class {
        self.message().header().class
    }

    /// The error code; 0 is success.
    fn code(&self) -> u16 {
        let value = self.value(Kind::ERROR_CODE);
        assert_eq!(value.is_some(), self.class() == Class::Error);
        value.map_or(0, |value| u16::from(value[2]) * 100 + u16::from(value[3]))
    }

    fn value(&self, kind: Kind) -> Option<Vec<u8>> {
        let mut attributes = self.message().attributes();
        attributes
            .find(|attribute| attribute.kind == kind)
            .map(|attribute| attribute.value.into())
    }

    fn u32(&self, kind: Kind) -> Option<u32> {
        self.value(kind).and_then(|value| crate::wire::stun::read_u32(&value))
    }

    fn addresses(&self, kind: Kind) -> Vec<SocketAddr> {
        let transaction = self.message().header().transaction;
        let attributes = self.message().attributes().filter(|attribute| attribute.kind == kind);
        attributes
            .map(|attribute| read_address(attribute.value, transaction).expect("an address"))
            .collect()
    }

    fn is_signed_by(&self, login: &Login) -> bool {
        let expected = if login.strength == Strength::Old {
            Integrity::Sha1
        } else {
            Integrity::Sha256
        };
        self.message().integrity() == Some(expected) && self.message().is_signed_by(&login.key())
    }
}
