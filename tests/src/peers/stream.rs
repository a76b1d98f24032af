//! How does a client reach a TCP port, plain or by TLS, from an address of its choice?

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Instant,
};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::{PATIENCE, remaining, tls};

/// A TCP connection, perhaps with TLS on it.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// TLS, as the one who called.
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// TLS, as the one who was called.
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::Plain(socket))
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When nobody listens there, or the certificate is not good for the name.
    pub fn connect_tls(from: IpAddr, to: SocketAddr, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let Self::Plain(socket) = Self::connect(from, to)? else {
            unreachable!("connect makes plain streams");
        };
        let session = ClientConnection::new(config, tls::server_name(name)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::Client(Box::new(stream)))
    }

    /// Takes a connection that was accepted; with a configuration, the handshake comes with the first read.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub fn accepted(socket: TcpStream, config: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(match config {
            None => Self::Plain(socket),
            Some(config) => {
                let session = ServerConnection::new(config).map_err(io::Error::other)?;
                Self::Server(Box::new(StreamOwned::new(session, socket)))
            }
        })
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Client(stream) => &stream.sock,
            Self::Server(stream) => &stream.sock,
        }
    }

    /// Our end.
    ///
    /// # Panics
    /// When the socket is not connected.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket().local_addr().expect("a connected socket")
    }

    /// Reads what comes until the deadline; nothing is the end.
    ///
    /// # Errors
    /// `TimedOut` when nothing comes in time.
    pub fn read_until(&mut self, deadline: Instant, buffer: &mut [u8]) -> io::Result<usize> {
        let left = remaining(deadline).ok_or(ErrorKind::TimedOut)?;
        self.socket().set_read_timeout(Some(left))?;
        match self.read(buffer) {
            // A peer that closes without saying so in TLS has closed all the same.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            other => other,
        }
    }

    /// Waits until the other side closes or breaks the connection, whatever it says before; returns that.
    ///
    /// # Panics
    /// When it does not.
    pub fn read_to_close(&mut self, deadline: Instant) -> Vec<u8> {
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.read_until(deadline, &mut buffer) {
                Ok(0) => return said,
                Ok(read) => said.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::TimedOut => panic!("the connection is still open"),
                Err(_) => return said,
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Client(stream) => stream.read(buffer),
            Self::Server(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Client(stream) => stream.write(bytes),
            Self::Server(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Client(stream) => stream.flush(),
            Self::Server(stream) => stream.flush(),
        }
    }
}
