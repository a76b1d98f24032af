//! How does a mediaserver use TURN by TCP? It relays TCP (RFC 6062): it calls peers, and is called by them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use crate::{
    peers::stun::{self, Class, Message, attribute, long_term_key, method},
    world::{
        actor::{Actor, Cx},
        actors::browser::pattern,
        agenda::{MS, SEC},
        net::{End, Notice, Owner},
        site,
    },
};

/// A TURN client in the LAN, and the peer that it talks to.
#[derive(Debug)]
pub struct TcpRelay {
    number: usize,
    control: Option<End>,
    incoming: Vec<u8>,
    challenge: Option<(Vec<u8>, Vec<u8>)>,
    relayed: Option<SocketAddr>,
    /// The request that waits for its answer, and what it is for.
    wish: Option<(u16, [u8; 12])>,
    /// Data connections of ours, and how far they are.
    data: BTreeMap<End, Data>,
    /// Ends at the peer, which says everything again.
    peers: BTreeSet<End>,
    count: u64,
    outcome: Vec<String>,
    is_resting: bool,
}

#[derive(Debug)]
enum Data {
    /// Connects, for this CONNECTION-ID.
    Dialing([u8; 4]),
    /// Has asked to be bound.
    Binding([u8; 4], Vec<u8>),
    /// Carries these bytes, which come back.
    Bound(VecDeque<u8>),
}

/// Do something.
const GO_ON: u64 = 0;
/// Come again.
const BEGIN: u64 = 1;

impl TcpRelay {
    /// A client with a port of its own at the first mediaserver; its peer is at the second.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            control: None,
            incoming: Vec::new(),
            challenge: None,
            relayed: None,
            wish: None,
            data: BTreeMap::new(),
            peers: BTreeSet::new(),
            count: 0,
            outcome: Vec::new(),
            is_resting: false,
        }
    }

    fn peer(&self) -> SocketAddr {
        SocketAddr::new(site::MEDIASERVERS[1].ip(), 10_050 + (self.number % 40) as u16)
    }

    fn ask(&mut self, cx: &mut Cx<'_>, end: End, method: u16, connection: Option<[u8; 4]>) {
        let mut request = Message::request(method);
        let transaction = request.transaction;
        match method {
            method::ALLOCATE => request = request.with(attribute::REQUESTED_TRANSPORT, stun::TCP),
            method::CREATE_PERMISSION | method::CONNECT => request = request.with_peer(self.peer()),
            _ => {}
        }
        if let Some(connection) = connection {
            request = request.with(attribute::CONNECTION_ID, connection);
        }
        let bytes = match &self.challenge {
            None => request.encode(),
            Some((realm, nonce)) => {
                let (name, password) = site::TURN_USERS[1];
                let signed = request
                    .with(attribute::USERNAME, name)
                    .with(attribute::REALM, realm.clone());
                let key = long_term_key(name, realm, password);
                signed.with(attribute::NONCE, nonce.clone()).encode_signed(&key)
            }
        };
        if Some(end) == self.control {
            self.wish = Some((method, transaction));
        }
        cx.note(|| format!("says {}", site::what(&bytes)));
        cx.net.send(end, &bytes);
    }

    fn read_control(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        while let Some(message) = take_message(&mut self.incoming) {
            cx.note(|| {
                format!(
                    "hears a message of class {:?}, method {}",
                    message.class, message.method
                )
            });
            self.hear_control(cx, &message);
        }
    }

    fn hear_control(&mut self, cx: &mut Cx<'_>, message: &Message) {
        let Some(control) = self.control else { return };
        let connection = message
            .attribute(attribute::CONNECTION_ID)
            .and_then(|id| id.try_into().ok());
        if message.method == method::CONNECTION_ATTEMPT {
            if let Some(connection) = connection {
                cx.met("a peer came to a TCP relay");
                self.dial_data(cx, connection);
            }
            return;
        }
        let Some((method, _)) = self.wish.filter(|(_, asked)| *asked == message.transaction) else {
            return;
        };
        self.wish = None;
        self.outcome
            .push(format!("method {method}: {:?}", message.error_code()));
        match (message.class, method, message.error_code()) {
            (Class::Success, method::ALLOCATE, _) => {
                cx.met("an allocation for TCP");
                self.relayed = message.address(attribute::XOR_RELAYED_ADDRESS);
                self.ask(cx, control, method::CREATE_PERMISSION, None);
            }
            (Class::Success, method::CONNECT, _) => {
                if let Some(connection) = connection {
                    cx.met("a TCP relay reached its peer");
                    self.dial_data(cx, connection);
                }
                cx.between(10 * MS, SEC, GO_ON);
            }
            (Class::Success, ..) => cx.between(10 * MS, SEC, GO_ON),
            (_, _, Some(401 | 438)) => {
                self.take_challenge(message);
                self.ask(cx, control, method, None);
            }
            (_, method::ALLOCATE, _) => self.lost(cx),
            _ => cx.between(10 * MS, 5 * SEC, GO_ON),
        }
    }

    fn take_challenge(&mut self, refusal: &Message) {
        let take = |kind| refusal.attribute(kind).unwrap_or_default().to_vec();
        self.challenge = Some((take(attribute::REALM), take(attribute::NONCE)));
    }

    fn dial_data(&mut self, cx: &mut Cx<'_>, connection: [u8; 4]) {
        let from = SocketAddr::new(site::MEDIASERVERS[0].ip(), 0);
        let end = cx.dial(from, site::TURN);
        self.data.insert(end, Data::Dialing(connection));
    }

    fn read_data(&mut self, cx: &mut Cx<'_>, end: End, bytes: &[u8]) {
        match self.data.get_mut(&end) {
            Some(Data::Binding(connection, incoming)) => {
                incoming.extend_from_slice(bytes);
                let Some(message) = take_message(incoming) else { return };
                let connection = *connection;
                if matches!(message.error_code(), Some(401 | 438)) {
                    self.take_challenge(&message);
                    return self.ask(cx, end, method::CONNECTION_BIND, Some(connection));
                }
                if message.class != Class::Success {
                    self.data.remove(&end);
                    return cx.net.reset(end);
                }
                if !incoming.is_empty() {
                    cx.checkers
                        .fail("a TCP relay said something before it was asked".into());
                }
                cx.met("a TCP relay was bound");
                self.data.insert(end, Data::Bound(VecDeque::new()));
                self.carry(cx, end);
            }
            Some(Data::Bound(said)) => {
                if said.len() < bytes.len() || said.drain(..bytes.len()).ne(bytes.iter().copied()) {
                    cx.checkers.fail("a TCP relay carried what nobody had said".into());
                }
                if said.is_empty() {
                    cx.met("a TCP relay carried everything");
                }
            }
            _ => {}
        }
    }

    fn carry(&mut self, cx: &mut Cx<'_>, end: End) {
        let Some(Data::Bound(said)) = self.data.get_mut(&end) else {
            return;
        };
        self.count += 1;
        let length = cx.dice.from_to(1, 40_000) as usize;
        let bytes = pattern((self.number as u64) << 40 | self.count, length);
        said.extend(&bytes);
        cx.net.send(end, &bytes);
    }

    fn go_on(&mut self, cx: &mut Cx<'_>) {
        let (false, Some(control), Some(relayed)) = (self.is_resting, self.control, self.relayed) else {
            return;
        };
        let ends: Vec<End> = self.data.keys().copied().collect();
        match cx.dice.from_to(0, 7) {
            0 if self.wish.is_none() => return self.ask(cx, control, method::CONNECT, None),
            1 if self.wish.is_none() => return self.ask(cx, control, method::CREATE_PERMISSION, None),
            2 => {
                // From an allowed port, or from one that is not.
                self.count += 1;
                let port = *cx.dice.pick(&[10_000 + (self.count % 100) as u16, 0]);
                let from = SocketAddr::new(self.peer().ip(), port);
                let end = cx.dial(from, relayed);
                self.peers.insert(end);
            }
            3 if !ends.is_empty() => {
                let end = *cx.dice.pick(&ends);
                self.data.remove(&end);
                cx.net.close(end, &[]);
            }
            _ if !ends.is_empty() => {
                let end = *cx.dice.pick(&ends);
                self.carry(cx, end);
            }
            _ => {}
        }
        cx.between(20 * MS, 6 * SEC, GO_ON);
    }

    fn lost(&mut self, cx: &mut Cx<'_>) {
        for end in self
            .control
            .take()
            .into_iter()
            .chain(std::mem::take(&mut self.data).into_keys())
        {
            cx.net.reset(end);
        }
        self.incoming.clear();
        (self.challenge, self.relayed, self.wish) = (None, None, None);
        cx.between(SEC, 20 * SEC, BEGIN);
    }

    fn gone(&mut self, cx: &mut Cx<'_>, end: End) {
        self.data.remove(&end);
        self.peers.remove(&end);
        if self.control == Some(end) {
            self.control = None;
            self.lost(cx);
        }
    }
}

impl Actor for TcpRelay {
    fn start(&mut self, cx: &mut Cx<'_>) {
        cx.net.listen(self.peer(), Owner::Actor(cx.me));
        cx.between(0, 5 * SEC, BEGIN);
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Accepted { end, .. } => {
                self.peers.insert(end);
            }
            Notice::Connected { end, .. } if self.control == Some(end) => {
                self.ask(cx, end, method::ALLOCATE, None);
            }
            Notice::Connected { end, .. } => {
                if let Some(Data::Dialing(connection)) = self.data.get(&end) {
                    let connection = *connection;
                    self.ask(cx, end, method::CONNECTION_BIND, Some(connection));
                    self.data.insert(end, Data::Binding(connection, Vec::new()));
                }
            }
            Notice::Bytes { end, bytes } if self.control == Some(end) => self.read_control(cx, &bytes),
            Notice::Bytes { end, bytes } if self.peers.contains(&end) => cx.net.send(end, &bytes),
            Notice::Bytes { end, bytes } => self.read_data(cx, end, &bytes),
            Notice::Eof(end) => {
                cx.net.close(end, &[]);
                self.gone(cx, end);
            }
            Notice::Refused { end, .. } | Notice::Reset(end) | Notice::TimedOut(end) => self.gone(cx, end),
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        match token {
            GO_ON => self.go_on(cx),
            _ if self.control.is_none() && !self.is_resting => {
                let from = SocketAddr::new(site::MEDIASERVERS[0].ip(), 0);
                self.control = Some(cx.dial(from, site::TURN));
            }
            _ => {}
        }
    }

    fn rest(&mut self) {
        self.is_resting = true;
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        self.rest();
        let data = std::mem::take(&mut self.data).into_keys();
        let peers = std::mem::take(&mut self.peers);
        for end in self.control.take().into_iter().chain(data).chain(peers) {
            cx.net.close(end, &[]);
        }
    }

    fn outcome(&self) -> Vec<String> {
        self.outcome.clone()
    }
}

/// Takes a STUN message off the front of a stream.
fn take_message(incoming: &mut Vec<u8>) -> Option<Message> {
    let length = 20 + usize::from(u16::from_be_bytes([*incoming.get(2)?, *incoming.get(3)?]));
    if incoming.len() < length {
        return None;
    }
    let bytes: Vec<u8> = incoming.drain(..length).collect();
    Message::decode(&bytes)
}
