//! How does one client of a TURN server ask for things? One request after the other, over UDP or TCP, and no more.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::USER;
use crate::{
    PATIENCE,
    peers::stun::{Class, Message, UDP, attribute, long_term_key, method},
};

/// A client with at most one allocation.
#[derive(Debug)]
pub(super) struct User {
    /// Its end of the way to the server.
    pub(super) socket: Transport,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    key: [u8; 16],
}

/// The way to the server.
#[derive(Debug)]
pub(super) enum Transport {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// The channel that every client binds.
pub(super) const CHANNEL: u16 = 0x4000;

/// A request over UDP is sent again after this long, and so often.
const REPEAT: Duration = Duration::from_millis(500);
const REPEATS: usize = 10;

impl User {
    /// A client over UDP that has been challenged.
    pub(super) fn udp(from: IpAddr, to: SocketAddr) -> Self {
        Self::challenged(|| {
            let socket = UdpSocket::bind((from, 0)).expect("a socket");
            socket.connect(to).expect("an address");
            socket.set_read_timeout(Some(REPEAT)).expect("a timeout above zero");
            Transport::Udp(socket)
        })
    }

    /// A client over TCP that has been challenged.
    pub(super) fn tcp(from: IpAddr, to: SocketAddr) -> Self {
        Self::challenged(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::new(from, 0).into()).expect("an address");
            socket.connect(&to.into()).expect("a connection");
            socket.set_tcp_nodelay(true).expect("an option");
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
            Transport::Tcp(stream)
        })
    }

    /// Asks without credentials, and keeps the challenge.
    fn challenged(connect: impl Fn() -> Transport) -> Self {
        let request = allocate();
        loop {
            let mut socket = connect();
            let answer = socket.ask(&request.encode());
            match answer.error_code() {
                Some(401) => {
                    let take = |kind| answer.attribute(kind).expect("REALM and NONCE in a challenge").to_vec();
                    let (realm, nonce) = (take(attribute::REALM), take(attribute::NONCE));
                    let key = long_term_key(USER.0, &realm, USER.1);
                    return Self {
                        socket,
                        realm,
                        nonce,
                        key,
                    };
                }
                // coturn remembers for a while who had this port before.
                Some(437) => {}
                other => panic!("{other:?} to a request without credentials"),
            }
        }
    }

    /// Makes clients until one is given an allocation; returns it with the relayed address.
    pub(super) fn allocated(
        connect: fn(IpAddr, SocketAddr) -> Self,
        from: IpAddr,
        to: SocketAddr,
    ) -> (Self, SocketAddr) {
        loop {
            let mut user = connect(from, to);
            let answer = user.try_allocate();
            // coturn remembers for a while who had this port before.
            if answer.error_code() == Some(437) {
                continue;
            }
            assert_eq!(answer.class, Class::Success, "an allocation: {:?}", answer.error_code());
            let relayed = answer.address(attribute::XOR_RELAYED_ADDRESS);
            return (user, relayed.expect("a relayed address"));
        }
    }

    /// Asks for an allocation.
    pub(super) fn try_allocate(&mut self) -> Message {
        self.ask_signed(allocate())
    }

    pub(super) fn permit(&mut self, peer: SocketAddr) {
        self.must(Message::request(method::CREATE_PERMISSION).with_peer(peer));
    }

    pub(super) fn bind(&mut self, peer: SocketAddr) {
        let channel = (u32::from(CHANNEL) << 16).to_be_bytes();
        let request = Message::request(method::CHANNEL_BIND).with(attribute::CHANNEL_NUMBER, channel);
        self.must(request.with_peer(peer));
    }

    pub(super) fn refresh(&mut self, lifetime_secs: u32) {
        let lifetime = lifetime_secs.to_be_bytes();
        self.must(Message::request(method::REFRESH).with(attribute::LIFETIME, lifetime));
    }

    /// Whether to wait in reads and writes.
    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        let set = match &self.socket {
            Transport::Udp(socket) => socket.set_nonblocking(nonblocking),
            Transport::Tcp(socket) => socket.set_nonblocking(nonblocking),
        };
        set.expect("an option");
    }

    fn must(&mut self, request: Message) {
        let answer = self.ask_signed(request);
        assert_eq!(answer.class, Class::Success, "{:?}", answer.error_code());
    }

    fn ask_signed(&mut self, request: Message) -> Message {
        let signed = request
            .with(attribute::USERNAME, USER.0)
            .with(attribute::REALM, self.realm.as_slice())
            .with(attribute::NONCE, self.nonce.as_slice());
        self.socket.ask(&signed.encode_signed(&self.key))
    }
}

fn allocate() -> Message {
    Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, UDP)
}

impl Transport {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(bytes).map(drop),
            Self::Tcp(socket) => socket.write_all(bytes),
        }
    }

    /// Sends a request, again when no answer comes, and returns the answer.
    fn ask(&mut self, request: &[u8]) -> Message {
        let mut failures = Vec::new();
        while failures.len() < REPEATS {
            self.write(request).expect("sent");
            let failure = loop {
                match self.read_message() {
                    // Late packets of a load may come before it.
                    Ok(answer) => match Message::decode(&answer) {
                        Some(answer) if answer.transaction == request[8..20] => return answer,
                        _ => {}
                    },
                    Err(error) => break error,
                }
            };
            failures.push(failure);
        }
        panic!("no answer: {failures:?}")
    }

    /// One STUN message or ChannelData, with the padding that it has on a stream.
    fn read_message(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 2048];
        let length = match self {
            Self::Udp(socket) => socket.recv(&mut bytes)?,
            Self::Tcp(socket) => {
                socket.read_exact(&mut bytes[..4])?;
                let length = message_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                socket.read_exact(&mut bytes[4..length])?;
                length
            }
        };
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Length on a stream of the message that begins so (RFC 8489 section 5, RFC 8656 section 12.5).
pub(super) fn message_bytes([kind, _, high, low]: [u8; 4]) -> usize {
    let header = if kind < 0x40 { 20 } else { 4 };
    header + usize::from(u16::from_be_bytes([high, low])).next_multiple_of(4)
}
