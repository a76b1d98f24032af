//! How do thousands of TLS clients fit into one thread? Connections in one poll set, which is looked at without sleeping.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind,
    crypto::{CryptoProvider, aws_lc_rs},
};
use socket2::{Domain, Socket, Type};

use crate::{
    PATIENCE,
    site::{NAME, Site},
    tls::server_name,
};

/// Clients of one server, named by their numbers.
pub struct Fleet {
    poll: Poll,
    events: Events,
    links: Vec<Option<Link>>,
    free: Vec<usize>,
    tls: Arc<ClientConfig>,
    to: SocketAddr,
}

/// One client's connection.
pub struct Link {
    socket: TcpStream,
    tls: ClientConnection,
    /// What the server said and nobody has taken yet.
    pub inbox: Vec<u8>,
    /// Whether the server has ended it.
    pub ended: bool,
}

/// How long clients may stay unanswered after the last request.
const GRACE: Duration = Duration::from_secs(2);

impl Fleet {
    /// Nobody yet.
    ///
    /// # Panics
    /// When there is no descriptor left.
    pub fn new(to: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        Self {
            poll: Poll::new().expect("a poll set"),
            events: Events::with_capacity(1024),
            links: Vec::new(),
            free: Vec::new(),
            tls,
            to,
        }
    }

    /// Begins to connect and returns the number of the client.
    ///
    /// # Panics
    /// When there is no port or descriptor left.
    pub fn open(&mut self, from: IpAddr) -> usize {
        let number = self.free.pop().unwrap_or(self.links.len());
        let link = Link::open(from, self.to, self.tls.clone()).expect("a connection");
        if number == self.links.len() {
            self.links.push(None);
        }
        let link = self.links[number].insert(link);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut link.socket, Token(number), interest)
            .expect("registered");
        number
    }

    /// Closes a connection.
    pub fn close(&mut self, number: usize) {
        if let Some(mut link) = self.links[number].take() {
            link.tls.send_close_notify();
            // Nobody waits for what a closed connection could not say.
            let _ = link.flush();
            self.free.push(number);
        }
    }

    /// A client.
    ///
    /// # Panics
    /// When it is closed.
    pub fn link(&mut self, number: usize) -> &mut Link {
        self.links[number].as_mut().expect("an open connection")
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.links.len() - self.free.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks once, and tells of each client that something has happened to.
    ///
    /// # Panics
    /// When the poll set fails.
    pub fn turn(&mut self, mut happened: impl FnMut(&mut Self, usize)) {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.poll.poll(&mut events, Some(Duration::ZERO)).expect("a poll set");
        for event in &events {
            let Token(number) = event.token();
            // An earlier one may have closed it.
            let Some(link) = &mut self.links[number] else { continue };
            if link.progress().is_err() {
                link.ended = true;
            }
            happened(self, number);
        }
        self.events = events;
    }
}

impl Link {
    fn open(from: IpAddr, to: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error),
            _ => {}
        }
        Ok(Self {
            socket: TcpStream::from_std(socket.into()),
            tls: ClientConnection::new(tls, server_name(NAME)).map_err(io::Error::other)?,
            inbox: Vec::new(),
            ended: false,
        })
    }

    /// Whether the handshake is over.
    pub fn is_ready(&self) -> bool {
        !self.tls.is_handshaking()
    }

    /// Whether the handshake used a ticket.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Sends; what the kernel does not take at once goes later.
    pub fn send(&mut self, bytes: &[u8]) {
        let sent = self.tls.writer().write_all(bytes).and_then(|()| self.flush());
        self.ended |= sent.is_err();
    }

    fn progress(&mut self) -> io::Result<()> {
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(_) => {
                    let state = self.tls.process_new_packets().map_err(io::Error::other)?;
                    let (start, length) = (self.inbox.len(), state.plaintext_bytes_to_read());
                    self.inbox.resize(start + length, 0);
                    self.tls.reader().read_exact(&mut self.inbox[start..])?;
                    self.ended |= state.peer_has_closed();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                // Also before it is connected.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// `EINPROGRESS` of Linux.
const IN_PROGRESS: i32 = 115;

/// A TLS client that speaks TLS 1.3 with X25519 and AES-128-GCM alone, which every server here knows: otherwise each
/// would choose by its own taste, and their costs could not be compared.
pub fn tls(site: &Site) -> Arc<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    site.authority().client_with(Arc::new(provider))
}

/// What a fixed rate asks for, and what came of it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Count {
    /// Begun.
    pub offered: usize,
    /// Done.
    pub done: usize,
}

impl Count {
    /// What was begun and never done. What a warm-up has left over may be done here as well, which loses nothing.
    pub fn lost_percent(&self) -> f64 {
        self.offered.saturating_sub(self.done) as f64 * 100.0 / self.offered as f64
    }
}

/// Calls `begin` evenly spaced for so long, and `look` all the time, which returns how many have ended; until all have,
/// or nothing has ended for a while.
pub fn offer<W>(
    world: &mut W,
    per_second: u32,
    span: Duration,
    mut begin: impl FnMut(&mut W, Instant),
    mut look: impl FnMut(&mut W) -> usize,
) -> Count {
    let total = (f64::from(per_second) * span.as_secs_f64()) as usize;
    let gap = Duration::from_secs(1) / per_second;
    let mut count = Count::default();
    let mut due = Instant::now();
    let mut last = due;
    while count.offered < total || (count.done < total && last.elapsed() < GRACE) {
        // One at a time, so that what is late does not come as one bunch.
        if count.offered < total && Instant::now() >= due {
            begin(world, due);
            count.offered += 1;
            due += gap;
            last = Instant::now();
        }
        let done = look(world);
        if done > 0 {
            count.done += done;
            last = Instant::now();
        }
    }
    count
}

/// Looks until `done` says so.
///
/// # Panics
/// When it never does.
pub fn until<W>(world: &mut W, mut done: impl FnMut(&mut W) -> bool) {
    let start = Instant::now();
    while !done(world) {
        assert!(start.elapsed() < PATIENCE, "the server does not answer");
    }
}
