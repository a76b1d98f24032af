//! What does a network do to a connection? A relay of bytes between clients and the edge that can break it.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;

/// A network between clients and a server.
#[derive(Debug)]
pub struct Cutter {
    shared: Arc<Shared>,
    listener: TcpListener,
}

/// Who notices that a network is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends at once: their connections are reset.
    Both,
    /// The client only, as one that changes its network: the server hears nothing any more.
    Client,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    links: Mutex<Links>,
    /// Connections that went through since the start.
    passed: AtomicUsize,
}

#[derive(Debug, Default)]
struct Links {
    /// Both ends of each connection.
    open: Vec<[TcpStream; 2]>,
    /// Ends whose other end is gone without a word.
    orphans: Vec<TcpStream>,
    /// When connections are let through again.
    away_until: Option<Instant>,
}

impl Cutter {
    /// Lets everything through from one address to the other.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn start(listen: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(listen).expect("the address of the network");
        let shared = Arc::new(Shared {
            to,
            links: Mutex::default(),
            passed: AtomicUsize::new(0),
        });
        let accepting = listener.try_clone().expect("a second descriptor");
        thread::spawn({
            let shared = shared.clone();
            move || {
                while let Ok((client, _)) = accepting.accept() {
                    // One that comes while the network is away, or whose server is, is refused.
                    let _ = shared.link(client);
                }
            }
        });
        Self { shared, listener }
    }

    /// Where clients connect.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }

    /// Breaks all connections, and lets none through for so long.
    pub fn cut(&self, who: Cut, away: Duration) {
        let mut links = self.shared.links();
        links.away_until = Some(Instant::now() + away);
        for [client, server] in std::mem::take(&mut links.open) {
            reset(&client);
            match who {
                Cut::Both => reset(&server),
                Cut::Client => links.orphans.push(server),
            }
        }
    }

    /// How many connections have gone through.
    pub fn passed(&self) -> usize {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.cut(Cut::Both, Duration::MAX / 4);
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("nobody panics with the lock")
    }

    fn link(&self, client: TcpStream) -> io::Result<()> {
        let mut links = self.links();
        if links.away_until.is_some_and(|until| Instant::now() < until) {
            reset(&client);
            return Ok(());
        }
        let server = TcpStream::connect(self.to)?;
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            thread::spawn(move || carry(from, to));
        }
        links.open.push([client, server]);
        self.passed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Passes bytes on until either side is gone. One that was cut from its other end leaves the latter alone.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if to.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Ends a connection at once in both directions.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}
