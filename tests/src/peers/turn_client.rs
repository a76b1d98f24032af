//! How does a browser use a TURN server? The client of turn-client-proto over UDP, TCP or TLS.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{ErrorKind, Write},
    iter,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustls::ClientConfig;
use turn_client_proto::{
    api::{Transmit, TurnConfig, TurnPollRet, TurnRecvRet},
    client::{TurnClient as Protocol, TurnEvent},
    prelude::{DelayedTransmitBuild as _, TurnClientApi as _},
    stun::types::message::IntegrityAlgorithm,
    tcp::TurnClientTcp,
    types::{AddressFamily, Instant as ProtocolInstant, TransportType, TurnCredentials},
    udp::TurnClientUdp,
};

use crate::{
    deadline,
    peers::{
        stream::Stream,
        stun::{Class, Message, hmac_sha1},
    },
    remaining,
};

/// The client refreshes a minute before a lifetime ends, so time is moved on in smaller steps.
const STEP: Duration = Duration::from_secs(50);

/// A TURN client with one allocation for UDP.
#[derive(Debug)]
pub struct TurnClient {
    link: Link,
    protocol: Protocol,
    began: Instant,
    /// How far the client's clock is ahead of the real one.
    ahead: Duration,
    inbox: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<TurnEvent>,
    /// Peers with a channel.
    channels: Vec<SocketAddr>,
    /// Transactions of requests that are not answered yet.
    asked: BTreeSet<[u8; 12]>,
}

/// Name and password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// USERNAME.
    pub user: String,
    /// The password.
    pub password: String,
}

/// Why there is no allocation, permission or channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

#[derive(Debug)]
enum Link {
    Udp(UdpSocket),
    /// A stream, and what came of a message that is not whole yet.
    Stream(Stream, Vec<u8>),
}

impl Credentials {
    /// A static user.
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    /// Ephemeral credentials made of a secret, good for so long from now; negative is over since.
    ///
    /// # Panics
    /// When the clock of this machine is before 1970.
    pub fn rest(secret: &str, name: &str, seconds: i64) -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs();
        let user = format!("{}:{name}", now.saturating_add_signed(seconds));
        let password = BASE64_STANDARD.encode(hmac_sha1(secret.as_bytes(), user.as_bytes()));
        Self { user, password }
    }
}

impl TurnClient {
    /// A client over UDP that has not allocated yet.
    ///
    /// # Panics
    /// When there is no such local address.
    pub fn udp(from: IpAddr, to: SocketAddr, credentials: &Credentials) -> Self {
        Self::with(from, to, config(credentials))
    }

    /// A client over UDP that asks for a relayed address of each family (RFC 8656 section 7.1).
    ///
    /// # Panics
    /// When there is no such local address.
    pub fn dual(from: IpAddr, to: SocketAddr, credentials: &Credentials) -> Self {
        let mut config = config(credentials);
        config.add_address_family(AddressFamily::IPV6);
        Self::with(from, to, config)
    }

    fn with(from: IpAddr, to: SocketAddr, config: TurnConfig) -> Self {
        let socket = UdpSocket::bind((from, 0)).expect("a socket");
        socket.connect(to).expect("an address");
        let local = socket.local_addr().expect("a bound socket");
        let protocol = TurnClientUdp::allocate(local, to, config);
        Self::new(Link::Udp(socket), protocol.into())
    }

    /// A client over TCP.
    ///
    /// # Panics
    /// When nobody listens there.
    pub fn tcp(from: IpAddr, to: SocketAddr, credentials: &Credentials) -> Self {
        let stream = Stream::connect(from, to).expect("a connection");
        Self::over(stream, to, credentials)
    }

    /// A client over TLS.
    ///
    /// # Panics
    /// When nobody listens there, or the certificate is not good for the name.
    pub fn tls(from: IpAddr, to: SocketAddr, config: Arc<ClientConfig>, name: &str, credentials: &Credentials) -> Self {
        let stream = Stream::connect_tls(from, to, config, name).expect("a connection with TLS");
        Self::over(stream, to, credentials)
    }

    fn over(stream: Stream, to: SocketAddr, credentials: &Credentials) -> Self {
        let protocol = TurnClientTcp::allocate(stream.local_addr(), to, config(credentials));
        Self::new(Link::Stream(stream, Vec::new()), protocol.into())
    }

    fn new(link: Link, protocol: Protocol) -> Self {
        Self {
            link,
            protocol,
            began: Instant::now(),
            ahead: Duration::ZERO,
            inbox: VecDeque::new(),
            events: VecDeque::new(),
            channels: Vec::new(),
            asked: BTreeSet::new(),
        }
    }

    /// Allocates and returns the relayed transport address; one of two comes with each call.
    ///
    /// # Errors
    /// When the server refuses.
    ///
    /// # Panics
    /// When it does not answer, or refuses without a signature, as a 401 is: [`RawClient`](super::stun::RawClient)
    /// sees those.
    pub fn allocate(&mut self) -> Result<SocketAddr, Refused> {
        self.outcome(|event| match event {
            TurnEvent::AllocationCreated(_, relayed) => Some(Ok(*relayed)),
            TurnEvent::AllocationCreateFailed(_) => Some(Err(Refused)),
            _ => None,
        })
    }

    /// Installs a permission for all ports of a peer.
    ///
    /// # Errors
    /// When the server refuses.
    ///
    /// # Panics
    /// When it does not answer, or there is one already.
    pub fn permit(&mut self, peer: IpAddr) -> Result<(), Refused> {
        let now = self.now();
        self.protocol
            .create_permission(TransportType::Udp, peer, now)
            .expect("a new permission");
        self.outcome(|event| match event {
            TurnEvent::PermissionCreated(_, ip) if *ip == peer => Some(Ok(())),
            TurnEvent::PermissionCreateFailed(_, ip) if *ip == peer => Some(Err(Refused)),
            _ => None,
        })
    }

    /// Binds a channel to a peer.
    ///
    /// # Errors
    /// When the server refuses.
    ///
    /// # Panics
    /// When it does not answer, or there is one already.
    pub fn bind(&mut self, peer: SocketAddr) -> Result<(), Refused> {
        let now = self.now();
        self.protocol
            .bind_channel(TransportType::Udp, peer, now)
            .expect("a new channel");
        self.outcome(|event| match event {
            TurnEvent::ChannelCreated(_, address) if *address == peer => Some(Ok(())),
            TurnEvent::ChannelCreateFailed(_, address) if *address == peer => Some(Err(Refused)),
            _ => None,
        })?;
        self.channels.push(peer);
        Ok(())
    }

    /// Sends to a peer: by its channel when there is one, else by a Send indication.
    ///
    /// # Panics
    /// When there is no permission.
    pub fn send(&mut self, peer: SocketAddr, payload: &[u8]) {
        let now = self.now();
        let built = self
            .protocol
            .send_to(TransportType::Udp, peer, payload, now)
            .expect("a permission")
            .expect("a message to send");
        let mut bytes = vec![0; built.data.len()];
        built.data.write_into(&mut bytes);
        self.link.send(&bytes);
    }

    /// Sends to a peer by a channel, which is bound first where there is none; a peer that is refused gets nothing.
    pub fn send_with_channel(&mut self, peer: SocketAddr, payload: &[u8]) {
        if self.channels.contains(&peer) || self.bind(peer).is_ok() {
            self.send(peer, payload);
        }
    }

    /// The next datagram that a peer sent.
    pub fn receive(&mut self, deadline: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            if let Some(datagram) = self.inbox.pop_front() {
                return Some(datagram);
            }
            remaining(deadline)?;
            self.step(deadline);
        }
    }

    /// The next datagram of this peer; others are passed over.
    ///
    /// # Panics
    /// When none comes.
    pub fn receive_from(&mut self, peer: SocketAddr) -> Vec<u8> {
        let deadline = deadline();
        loop {
            let (from, payload) = self.receive(deadline).expect("a datagram of the peer");
            if from == peer {
                return payload;
            }
        }
    }

    /// Moves the client's clock on, so that it refreshes what would have run out, and waits until it has.
    ///
    /// # Panics
    /// When a refresh fails.
    pub fn advance(&mut self, by: Duration) {
        let mut left = by;
        while !left.is_zero() {
            let step = left.min(STEP);
            left -= step;
            self.ahead += step;
            self.settle();
        }
        assert!(self.relayed().is_some(), "the allocation is gone");
    }

    /// Deletes the allocation and waits until the server has confirmed it.
    ///
    /// # Panics
    /// When it does not.
    pub fn delete(&mut self) {
        let now = self.now();
        self.protocol.delete(now).expect("an allocation");
        let deadline = deadline();
        while !matches!(self.protocol.poll(self.now()), TurnPollRet::Closed) {
            assert!(remaining(deadline).is_some(), "no answer to the deletion");
            self.step(deadline);
        }
    }

    /// The relayed transport address.
    pub fn relayed(&self) -> Option<SocketAddr> {
        let (_, address) = self.protocol.relayed_addresses().next()?;
        Some(address)
    }

    /// Our end of the connection to the server.
    pub fn local_addr(&self) -> SocketAddr {
        self.protocol.local_addr()
    }

    /// Steps until an event decides.
    fn outcome<T>(&mut self, decides: impl Fn(&TurnEvent) -> Option<T>) -> T {
        let deadline = deadline();
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(outcome) = decides(&event) {
                    return outcome;
                }
            }
            assert!(remaining(deadline).is_some(), "the TURN server does not answer");
            self.step(deadline);
        }
    }

    /// Steps until every request is answered and nothing is to do for a while.
    fn settle(&mut self) {
        let deadline = deadline();
        loop {
            let wake = self.flush();
            let is_idle = wake.saturating_duration_since(Instant::now()) > Duration::from_secs(2);
            if is_idle && self.asked.is_empty() {
                return;
            }
            assert!(
                remaining(deadline).is_some(),
                "the TURN server does not answer a refresh"
            );
            self.read(wake.min(deadline));
        }
    }

    /// Sends what is due and takes in what comes before the deadline or the next thing to do.
    fn step(&mut self, deadline: Instant) {
        let wake = self.flush();
        self.read(wake.min(deadline));
    }

    /// Sends what is due; returns when there is something to do again.
    fn flush(&mut self) -> Instant {
        loop {
            let now = self.now();
            while let Some(transmit) = self.protocol.poll_transmit(now) {
                if let Some(message) = Message::decode(&transmit.data)
                    && message.class == Class::Request
                {
                    self.asked.insert(message.transaction);
                }
                self.link.send(&transmit.data);
            }
            while let Some(event) = self.protocol.poll_event() {
                self.events.push_back(event);
            }
            match self.protocol.poll(now) {
                TurnPollRet::WaitUntil(until) if until > now => return Instant::now() + until.duration_since(now),
                TurnPollRet::WaitUntil(_) if self.events.is_empty() => {}
                _ => return Instant::now(),
            }
        }
    }

    fn read(&mut self, deadline: Instant) {
        // Even when the time is over, what has arrived already is taken.
        let deadline = deadline.max(Instant::now() + Duration::from_millis(1));
        for message in self.link.receive(deadline) {
            if let Some(answer) = Message::decode(&message) {
                self.asked.remove(&answer.transaction);
            }
            let now = self.now();
            let (local, remote) = (self.protocol.local_addr(), self.protocol.remote_addr());
            let transmit = Transmit::new(&message, self.protocol.transport(), remote, local);
            if let TurnRecvRet::PeerData(data) = self.protocol.recv(transmit, now) {
                self.inbox.push_back((data.peer, data.data().to_vec()));
            }
        }
        while let Some(event) = self.protocol.poll_event() {
            self.events.push_back(event);
        }
    }

    fn now(&self) -> ProtocolInstant {
        let nanos = (self.began.elapsed() + self.ahead).as_nanos();
        ProtocolInstant::from_nanos(i64::try_from(nanos).expect("less than three hundred years"))
    }
}

impl Link {
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => {
                socket.send(bytes).expect("sent");
            }
            Self::Stream(stream, _) => {
                // RFC 8656 section 12.5: ChannelData is padded to four bytes on a stream, which turn-client-proto 0.7
                // neither writes nor reads.
                let mut padded = bytes.to_vec();
                padded.resize(bytes.len().next_multiple_of(4), 0);
                stream.write_all(&padded).expect("sent");
            }
        }
    }

    /// The messages that come until the deadline with one read; none when time is over.
    fn receive(&mut self, deadline: Instant) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let read = match self {
            Self::Udp(socket) => {
                socket
                    .set_read_timeout(remaining(deadline))
                    .expect("a timeout above zero");
                socket.recv(&mut buffer)
            }
            Self::Stream(stream, _) => stream.read_until(deadline, &mut buffer),
        };
        let length = match read {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Vec::new(),
            Err(error) => panic!("the TURN server broke the connection: {error}"),
        };
        buffer.truncate(length);
        match self {
            Self::Udp(_) => vec![buffer],
            Self::Stream(_, rest) => {
                assert!(length > 0, "the TURN server closed the connection");
                rest.extend(buffer);
                iter::from_fn(|| whole_message(rest)).collect()
            }
        }
    }
}

/// Takes the first message of a stream, without its padding, where it is whole (RFC 8656 section 12.5).
fn whole_message(rest: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
    let is_stun = rest[0] & 0xc0 == 0;
    let length = length + if is_stun { 20 } else { 4 };
    let padded = length.next_multiple_of(4);
    if rest.len() < padded {
        return None;
    }
    let mut message: Vec<u8> = rest.drain(..padded).collect();
    message.truncate(length);
    Some(message)
}

/// A client that knows what RFC 8489 added; [`RawClient`](super::stun::RawClient) is one that does not.
fn config(credentials: &Credentials) -> TurnConfig {
    let mut config = TurnConfig::new(TurnCredentials::new(&credentials.user, &credentials.password));
    config.add_supported_integrity(IntegrityAlgorithm::Sha256);
    config
}
