//! How do HTTP clients reach the edge? One that sends any bytes, and one of a library that does as browsers do.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use socket2::SockRef;
use ureq::{
    Agent,
    config::Config,
    http::Uri,
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

use crate::{
    PATIENCE, deadline,
    peers::{
        http::{Message, Reader},
        stream::Stream,
    },
    tls::{Authority, provider},
};

/// A connection on which any bytes can be sent.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    reader: Reader,
}

impl Connection {
    /// Connects without TLS.
    ///
    /// # Panics
    /// When nobody listens there.
    pub fn plain(from: IpAddr, to: SocketAddr) -> Self {
        Self::on(Stream::connect(from, to).expect("a connection"))
    }

    /// Connects with TLS.
    ///
    /// # Panics
    /// When nobody listens there, or the certificate is not good for the name.
    pub fn tls(from: IpAddr, to: SocketAddr, config: Arc<ClientConfig>, name: &str) -> Self {
        Self::on(Stream::connect_tls(from, to, config, name).expect("a connection with TLS"))
    }

    fn on(stream: Stream) -> Self {
        Self {
            stream,
            reader: Reader::default(),
        }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes);
    }

    /// Sends bytes to a server that may have closed; returns whether they went.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream
            .write_all(bytes.as_ref())
            .and_then(|()| self.stream.flush())
            .is_ok()
    }

    /// Sends a request and reads its response.
    ///
    /// # Panics
    /// When none comes.
    pub fn ask(&mut self, request: &str) -> Message {
        self.send(request);
        self.response(request.split(' ').next().unwrap_or_default())
    }

    /// Reads the final response to a request with this method.
    ///
    /// # Panics
    /// When none comes.
    pub fn response(&mut self, method: &str) -> Message {
        self.reader
            .response(method, &mut self.stream, deadline())
            .expect("a response")
    }

    /// Reads a head only.
    ///
    /// # Panics
    /// When none comes.
    pub fn head(&mut self) -> Message {
        let head = self.reader.head(&mut self.stream, deadline()).expect("a head");
        head.expect("a head before the end")
    }

    /// Reads bytes as they come, of a body that is being made.
    ///
    /// # Panics
    /// When none come.
    pub fn read_some(&mut self, deadline: Instant) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let read = self.stream.read_until(deadline, &mut buffer).expect("bytes in time");
        buffer.truncate(read);
        buffer
    }

    /// What came behind the last head or message.
    pub fn rest(&self) -> &[u8] {
        self.reader.rest()
    }

    /// Waits until the server closes; returns what it said before.
    ///
    /// # Panics
    /// When it does not close.
    pub fn closed(&mut self) -> Vec<u8> {
        let mut said = self.reader.rest().to_vec();
        said.extend(self.stream.read_to_close(deadline()));
        said
    }

    /// Breaks the connection (RST).
    ///
    /// # Panics
    /// Never: any socket can be told so.
    pub fn reset(self) {
        let socket = SockRef::from(self.stream.socket());
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// The stream below.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// A client of the library ureq that trusts an authority, and finds every host name at one address.
pub fn agent(authority: &Authority, at: SocketAddr) -> Agent {
    let root = Certificate::from_pem(authority.pem().as_bytes()).expect("a certificate");
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider())
        .root_certs(RootCerts::new_with_certs(&[root]))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Found(at))
}

/// A resolver that knows one address.
#[derive(Debug)]
struct Found(SocketAddr);

impl Resolver for Found {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}
