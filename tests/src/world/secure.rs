//! How does an actor speak by a stream, plain or by TLS? Bytes in, bytes out, as the network lets them through.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::{
    tls,
    world::{actor::Cx, net::End, site},
};

/// A connection of an actor, with the edge.
#[derive(Debug)]
pub struct Stream {
    /// Its end.
    pub end: End,
    session: Option<Box<Connection>>,
    /// What a proxy says before everything else.
    preface: Vec<u8>,
}

/// TLS that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

impl Stream {
    /// Calls the edge without TLS.
    pub fn plain(cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr) -> Self {
        Self::dial(cx, from, to, None)
    }

    /// Calls the edge by TLS.
    ///
    /// # Panics
    /// Never: the configuration is ours.
    pub fn secure(cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let session = ClientConnection::new(config.clone(), tls::server_name(site::NAME));
        let session = session.expect("a configuration that can call");
        Self::dial(cx, from, to, Some(session.into()))
    }

    /// The edge has called, by TLS where there is a configuration for it.
    ///
    /// # Panics
    /// Never: the configuration is ours.
    pub fn accepted(end: End, config: Option<&Arc<ServerConfig>>) -> Self {
        let session = config.map(|config| ServerConnection::new(config.clone()));
        let session = session.map(|session| session.expect("a configuration that can serve").into());
        Self::new(end, session, Vec::new())
    }

    /// Some come through a proxy, which says for whom it connects.
    fn dial(cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr, session: Option<Connection>) -> Self {
        let (IpAddr::V4(client), IpAddr::V4(edge), true) = (from.ip(), to.ip(), cx.dice.happens(1_500)) else {
            return Self::new(cx.dial(from, to), session, Vec::new());
        };
        cx.met("a proxy connected for a client");
        let ports = [cx.dice.from_to(1_024, 65_535) as u16, to.port()];
        let preface = match cx.dice.happens(5_000) {
            true => format!("PROXY TCP4 {client} {edge} {} {}\r\n", ports[0], ports[1]).into_bytes(),
            // The PROXY protocol, section 2.2: version 2, PROXY, TCP over IPv4, 12 bytes.
            false => {
                let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
                header.extend(client.octets());
                header.extend(edge.octets());
                header.extend(ports.map(u16::to_be_bytes).concat());
                header
            }
        };
        Self::new(cx.dial(SocketAddr::new(site::PROXY, 0), to), session, preface)
    }

    fn new(end: End, mut session: Option<Connection>, preface: Vec<u8>) -> Self {
        if let Some(session) = &mut session {
            session.set_buffer_limit(None);
        }
        Self {
            end,
            session: session.map(Box::new),
            preface,
        }
    }

    /// The call was answered: TLS begins.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        if !self.preface.is_empty() {
            cx.net.send(self.end, &std::mem::take(&mut self.preface));
        }
        self.flush(cx);
    }

    /// Whether the other side has said that nothing more comes, as far as TLS tells.
    pub fn is_closed(&mut self) -> bool {
        match &mut self.session {
            None => true,
            Some(session) => session.process_new_packets().is_ok_and(|state| state.peer_has_closed()),
        }
    }

    /// Takes what came from the network; gives what it says.
    ///
    /// # Errors
    /// When TLS has failed.
    pub fn read(&mut self, cx: &mut Cx<'_>, bytes: Vec<u8>) -> Result<Vec<u8>, Failed> {
        let Some(session) = &mut self.session else {
            return Ok(bytes);
        };
        let (mut rest, mut plain) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            session.read_tls(&mut rest).map_err(|_| Failed)?;
            if session.process_new_packets().is_err() {
                return Err(Failed);
            }
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = session.reader().read(&mut chunk) {
                plain.extend_from_slice(&chunk[..read]);
            }
        }
        self.flush(cx);
        Ok(plain)
    }

    /// Says something.
    pub fn write(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) {
        match &mut self.session {
            None => cx.net.send(self.end, bytes),
            Some(session) => {
                // Without a limit everything is taken.
                let _ = session.writer().write_all(bytes);
                self.flush(cx);
            }
        }
    }

    /// Says goodbye.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        if let Some(session) = &mut self.session {
            session.send_close_notify();
        }
        self.flush(cx);
        cx.net.close(self.end, &[]);
    }

    fn flush(&mut self, cx: &mut Cx<'_>) {
        let Some(session) = &mut self.session else { return };
        let mut out = Vec::new();
        while session.wants_write() && session.write_tls(&mut out).is_ok() {}
        if !out.is_empty() {
            cx.trace.digest(cx.net.now(), &out);
            cx.net.send(self.end, &out);
        }
    }
}
