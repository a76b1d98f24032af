//! What does a WebSocket client see? tungstenite on a stream, with a deadline for each wait.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use rustls::ClientConfig;
use tungstenite::{
    Error, Message, WebSocket,
    client::IntoClientRequest,
    handshake::HandshakeError,
    http::{HeaderName, HeaderValue},
    protocol::{CloseFrame, Role, frame::coding::CloseCode},
};

use crate::{deadline, peers::stream::Stream, remaining};

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocketClient {
    socket: WebSocket<Stream>,
    /// The protocol that the server chose.
    pub protocol: Option<String>,
}

/// How to open a WebSocket.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Our address.
    pub from: IpAddr,
    /// The server.
    pub to: SocketAddr,
    /// How to check its certificate, and its name; plain where absent.
    pub tls: Option<(Arc<ClientConfig>, String)>,
    /// Path and query.
    pub target: String,
    /// Further fields; `Host` replaces the usual one.
    pub fields: Vec<(String, String)>,
}

/// A server that answered, but did not open a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declined {
    /// The status of its answer.
    pub status: u16,
}

/// What came by a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping, answered already.
    Ping,
    /// A pong.
    Pong,
    /// A close frame with its code.
    Close(Option<u16>),
    /// The connection ended.
    Gone,
}

/// A frame as it came from the server (RFC 6455 section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its first byte: flags and opcode.
    pub first: u8,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Handshake {
    /// A handshake without TLS.
    pub fn plain(from: IpAddr, to: SocketAddr, target: &str) -> Self {
        Self {
            from,
            to,
            tls: None,
            target: target.to_owned(),
            fields: Vec::new(),
        }
    }

    /// A handshake with TLS.
    pub fn tls(from: IpAddr, to: SocketAddr, config: Arc<ClientConfig>, name: &str, target: &str) -> Self {
        Self {
            tls: Some((config, name.to_owned())),
            ..Self::plain(from, to, target)
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Opens the WebSocket.
    ///
    /// # Errors
    /// When the server does not open it.
    ///
    /// # Panics
    /// When there is no server or no answer.
    pub fn open(&self) -> Result<WebSocketClient, Declined> {
        let stream = match &self.tls {
            None => Stream::connect(self.from, self.to),
            Some((config, name)) => Stream::connect_tls(self.from, self.to, config.clone(), name),
        }
        .expect("a connection");
        let host = match &self.tls {
            Some((_, name)) => format!("{name}:{}", self.to.port()),
            None => self.to.to_string(),
        };
        let mut request = format!("ws://{host}{}", self.target)
            .into_client_request()
            .expect("a URL");
        for (name, value) in &self.fields {
            request.headers_mut().insert(
                name.parse::<HeaderName>().expect("a field name"),
                HeaderValue::from_str(value).expect("a field value"),
            );
        }
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => {
                let protocol = response.headers().get("Sec-WebSocket-Protocol");
                let protocol = protocol.map(|value| value.to_str().expect("a name").to_owned());
                Ok(WebSocketClient { socket, protocol })
            }
            Err(HandshakeError::Failure(Error::Http(response))) => Err(Declined {
                status: response.status().as_u16(),
            }),
            Err(error) => panic!("no answer to a WebSocket handshake: {error}"),
        }
    }
}

impl WebSocketClient {
    /// Sends a text message.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("an open WebSocket");
    }

    /// Sends a binary message.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.socket
            .send(Message::binary(bytes.to_vec()))
            .expect("an open WebSocket");
    }

    /// Sends a ping.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn ping(&mut self) {
        self.socket
            .send(Message::Ping(Vec::new().into()))
            .expect("an open WebSocket");
    }

    /// Sends bytes as they are, frames or not.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).expect("an open connection");
    }

    /// The same to a server that may have closed the connection.
    ///
    /// # Errors
    /// When it has.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.socket.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// The next frame as it is, or nothing when the connection has ended. Not to be mixed with what gives messages.
    ///
    /// # Panics
    /// When neither happens in time, or the frame is masked.
    pub fn frame(&mut self) -> Option<Frame> {
        let patience = remaining(deadline()).expect("time");
        let stream = self.socket.get_mut();
        stream
            .socket()
            .set_read_timeout(Some(patience))
            .expect("a timeout above zero");
        let mut head = [0; 2];
        match stream.read_exact(&mut head) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("neither a frame nor the end in time")
            }
            Err(_) => return None,
            Ok(()) => {}
        }
        let mut read = |length: usize| {
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes).expect("a whole frame");
            bytes
        };
        let number = |bytes: Vec<u8>| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        let length = match head[1] {
            126 => number(read(2)),
            127 => number(read(8)),
            length @ 0..126 => length.into(),
            _ => panic!("a masked frame from a server"),
        };
        Some(Frame {
            first: head[0],
            payload: read(length),
        })
    }

    /// Sends a close frame with code 1000.
    pub fn close(&mut self) {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let _ = self.socket.close(Some(frame));
        let _ = self.socket.flush();
    }

    /// What comes next, or nothing until the deadline.
    pub fn next(&mut self, deadline: Instant) -> Option<Event> {
        let left = remaining(deadline)?;
        let stream = self.socket.get_ref().socket();
        stream.set_read_timeout(Some(left)).expect("a timeout above zero");
        Some(match self.socket.read() {
            Ok(Message::Text(text)) => Event::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Event::Binary(bytes.to_vec()),
            Ok(Message::Ping(_)) => {
                let _ = self.socket.flush();
                Event::Ping
            }
            Ok(Message::Pong(_)) => Event::Pong,
            Ok(Message::Close(frame)) => {
                let _ = self.socket.flush();
                Event::Close(frame.map(|frame| frame.code.into()))
            }
            Ok(Message::Frame(_)) => unreachable!("reading gives whole messages"),
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return None;
            }
            Err(_) => Event::Gone,
        })
    }

    /// The next message, passing over pings and pongs.
    ///
    /// # Panics
    /// When none comes.
    pub fn message(&mut self) -> Event {
        let deadline = deadline();
        loop {
            match self.next(deadline).expect("a message in time") {
                Event::Ping | Event::Pong => {}
                event => return event,
            }
        }
    }

    /// Reads without answering anything, not even pings, until the connection ends.
    ///
    /// # Panics
    /// When it does not.
    pub fn neglect(&mut self) {
        self.socket.get_mut().read_to_close(deadline());
    }

    /// Waits for the end, whatever else comes before; returns the code of the close frame where there was one.
    ///
    /// # Panics
    /// When the WebSocket stays open.
    pub fn closed(&mut self) -> Option<u16> {
        let (deadline, mut code) = (deadline(), None);
        loop {
            match self.next(deadline).expect("an end in time") {
                Event::Close(with) => code = with,
                Event::Gone => return code,
                _ => {}
            }
        }
    }
}

/// Takes the server's side of a stream whose handshake is over.
pub(crate) fn server_side(stream: Stream) -> WebSocket<Stream> {
    WebSocket::from_raw_socket(stream, Role::Server, None)
}
