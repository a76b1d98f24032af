//! How does an actor speak by a stream, plain or by TLS? Bytes in, bytes out, as the network lets them through.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection};

use crate::{
    tls,
    world::{actor::Cx, net::End, site},
};

/// A connection of an actor that has called the edge.
#[derive(Debug)]
pub struct Stream {
    /// Its end.
    pub end: End,
    session: Option<Box<ClientConnection>>,
}

/// TLS that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

impl Stream {
    /// Calls somebody without TLS.
    pub fn plain(cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            end: cx.dial(from, to),
            session: None,
        }
    }

    /// Calls the edge by TLS.
    ///
    /// # Panics
    /// Never: the configuration is ours.
    pub fn secure(cx: &mut Cx<'_>, from: SocketAddr, to: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let session = ClientConnection::new(config.clone(), tls::server_name(site::NAME));
        let mut session = session.expect("a configuration that can call");
        session.set_buffer_limit(None);
        Self {
            end: cx.dial(from, to),
            session: Some(Box::new(session)),
        }
    }

    /// The call was answered: TLS begins.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
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
