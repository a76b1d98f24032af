//! How are packets offered to a TURN server and counted behind it? Clients, their allocations, and one peer.

use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::SockRef;

use super::{
    PEER, client,
    user::{CHANNEL, Transport, User, message_bytes},
};
use crate::{bench::rounds::Delays, random, site::Site};

/// Allocations of one server, and who sends to whom by them.
pub(super) struct Field {
    users: Vec<User>,
    relayed: Vec<SocketAddr>,
    /// What came of a stream and is no whole message yet.
    rests: Vec<Vec<u8>>,
    peer: UdpSocket,
    /// Sends trains, by any socket.
    trains: UdpSocketState,
    poll: Poll,
    way: Way,
    /// Stamps are counted from here.
    epoch: Instant,
    random: u64,
    buffer: Vec<u8>,
}

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From clients to the peer.
    Up,
    /// From the peer to clients.
    Down,
    /// From each even client to the odd one behind it, by both allocations.
    Across,
}

/// What is offered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    /// Payload of a packet.
    pub(super) bytes: usize,
    /// Packets of one allocation that leave in one call.
    pub(super) train: usize,
    /// How many in all.
    pub(super) packets_per_second: u32,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    pub(super) sent: usize,
    /// Of each packet that arrived.
    pub(super) delays: Delays,
}

/// The token of the peer's socket.
const PEER_TOKEN: Token = Token(usize::MAX);
/// The receive buffer of the peer, which all packets up go to.
const PEER_BUFFER_BYTES: usize = 4 << 20;
/// How long packets may be on their way after the last one was sent.
const GRACE: Duration = Duration::from_millis(200);
/// ChannelData's header.
const HEADER: usize = 4;

impl Field {
    pub(super) fn up(site: &Site, server: SocketAddr, flows: usize) -> Self {
        Self::open(site, server, flows, Way::Up, User::udp)
    }

    pub(super) fn down(site: &Site, server: SocketAddr, flows: usize) -> Self {
        Self::open(site, server, flows, Way::Down, User::udp)
    }

    pub(super) fn stream_up(site: &Site, server: SocketAddr, flows: usize) -> Self {
        Self::open(site, server, flows, Way::Up, User::tcp)
    }

    pub(super) fn stream_down(site: &Site, server: SocketAddr, flows: usize) -> Self {
        Self::open(site, server, flows, Way::Down, User::tcp)
    }

    pub(super) fn pairs(site: &Site, server: SocketAddr, flows: usize) -> Self {
        Self::open(site, server, flows, Way::Across, User::udp)
    }

    fn open(site: &Site, server: SocketAddr, flows: usize, way: Way, connect: fn(IpAddr, SocketAddr) -> User) -> Self {
        let peer = UdpSocket::bind(site.at(PEER, 0)).expect("a socket");
        SockRef::from(&peer)
            .set_recv_buffer_size(PEER_BUFFER_BYTES)
            .expect("an option");
        peer.set_nonblocking(true).expect("an option");
        let (mut users, mut relayed) = (Vec::new(), Vec::new());
        for number in 0..flows {
            let (user, address) = User::allocated(connect, client(site, number), server);
            relayed.push(address);
            users.push(user);
        }
        let at = peer.local_addr().expect("a bound socket");
        for (number, user) in users.iter_mut().enumerate() {
            user.bind(if way == Way::Across { relayed[number ^ 1] } else { at });
        }
        let poll = Poll::new().expect("a poll set");
        for (number, user) in users.iter().enumerate() {
            user.set_nonblocking(true);
            let fd = match &user.socket {
                Transport::Udp(socket) => socket.as_raw_fd(),
                Transport::Tcp(socket) => socket.as_raw_fd(),
            };
            poll.registry()
                .register(&mut SourceFd(&fd), Token(number), Interest::READABLE)
                .expect("registered");
        }
        poll.registry()
            .register(&mut SourceFd(&peer.as_raw_fd()), PEER_TOKEN, Interest::READABLE)
            .expect("registered");
        Self {
            rests: vec![Vec::new(); flows],
            users,
            relayed,
            peer,
            // Made on a socket that nobody uses, since it would make its own receive trains, too.
            trains: UdpSocketState::new(UdpSockRef::from(&UdpSocket::bind(site.at(PEER, 0)).expect("a socket")))
                .expect("options of a socket"),
            poll,
            way,
            epoch: Instant::now(),
            random: u64::from_ne_bytes(random()) | 1,
            buffer: vec![0; 65_536],
        }
    }

    /// Sends evenly spaced for so long, in random order over the allocations, and waits for the last ones to arrive.
    pub(super) fn offer(&mut self, traffic: Traffic, span: Duration) -> Relayed {
        let mut relayed = Relayed::default();
        let total =
            (f64::from(traffic.packets_per_second) * span.as_secs_f64()) as usize / traffic.train * traffic.train;
        let gap = Duration::from_secs(1) / traffic.packets_per_second * traffic.train as u32;
        let mut events = Events::with_capacity(1024);
        let mut due = Instant::now();
        let mut last = due;
        while relayed.sent < total || (relayed.delays.len() < relayed.sent && last.elapsed() < GRACE) {
            if relayed.sent < total && Instant::now() >= due {
                self.send(traffic);
                relayed.sent += traffic.train;
                due += gap;
                last = Instant::now();
            }
            // Looks without sleeping: the generator has a processor for itself, and the server has the others.
            self.poll.poll(&mut events, Some(Duration::ZERO)).expect("a poll set");
            for event in &events {
                self.receive(event.token(), &mut relayed.delays);
            }
        }
        relayed
    }

    fn send(&mut self, traffic: Traffic) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let mut flow = (self.random % self.users.len() as u64) as usize;
        if self.way == Way::Across {
            flow &= !1;
        }
        let stamp = (self.epoch.elapsed().as_nanos() as u64).to_be_bytes();
        let mut bytes = Vec::with_capacity((HEADER + traffic.bytes) * traffic.train);
        for _ in 0..traffic.train {
            if self.way != Way::Down {
                bytes.extend_from_slice(&CHANNEL.to_be_bytes());
                bytes.extend_from_slice(&(traffic.bytes as u16).to_be_bytes());
            }
            let end = bytes.len() + traffic.bytes;
            bytes.extend_from_slice(&stamp);
            bytes.resize(end, 0x55);
        }
        // What the kernel does not take is lost, and counted as such.
        let _ = match (self.way, &mut self.users[flow].socket) {
            (Way::Down, _) => send(&self.trains, &self.peer, self.relayed[flow], &bytes, traffic.train),
            (Way::Up | Way::Across, Transport::Udp(socket)) => socket
                .peer_addr()
                .and_then(|server| send(&self.trains, socket, server, &bytes, traffic.train)),
            (Way::Up | Way::Across, stream @ Transport::Tcp(_)) => stream.write(&bytes),
        };
    }

    /// Takes in all that a socket has.
    fn receive(&mut self, token: Token, delays: &mut Delays) {
        let now = self.epoch.elapsed();
        let buffer = &mut self.buffer;
        let mut arrived = |payload: &[u8]| {
            let sent = payload
                .first_chunk()
                .map(|stamp| Duration::from_nanos(u64::from_be_bytes(*stamp)));
            delays.push(now.saturating_sub(sent.unwrap_or(now)));
        };
        if token == PEER_TOKEN {
            while let Ok(length) = self.peer.recv(buffer) {
                arrived(&buffer[..length]);
            }
            return;
        }
        match &mut self.users[token.0].socket {
            Transport::Udp(socket) => {
                while let Ok(length) = socket.recv(buffer) {
                    arrived(&buffer[HEADER.min(length)..length]);
                }
            }
            Transport::Tcp(socket) => {
                let rest = &mut self.rests[token.0];
                while let Ok(length @ 1..) = socket.read(buffer) {
                    rest.extend_from_slice(&buffer[..length]);
                }
                let mut used = 0;
                while let Some(header) = rest[used..].first_chunk()
                    && let Some(message) = rest[used..].get(..message_bytes(*header))
                {
                    arrived(&message[HEADER..]);
                    used += message.len();
                }
                rest.drain(..used);
            }
        }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // So that the server is as empty as before. A run that failed has nobody to ask.
        if std::thread::panicking() {
            return;
        }
        for user in &mut self.users {
            user.set_nonblocking(false);
            user.refresh(0);
        }
    }
}

/// Sends one datagram, or a train of equal ones in one call.
fn send(trains: &UdpSocketState, socket: &UdpSocket, to: SocketAddr, bytes: &[u8], train: usize) -> io::Result<()> {
    if train == 1 {
        return socket.send_to(bytes, to).map(drop);
    }
    let transmit = Transmit {
        destination: to,
        ecn: None,
        contents: bytes,
        segment_size: Some(bytes.len() / train),
        src_ip: None,
    };
    trains.try_send(UdpSockRef::from(socket), &transmit)
}
