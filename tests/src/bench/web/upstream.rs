//! What stands behind the proxies? A web server that answers every GET alike and echoes WebSockets, the same for all.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use tungstenite::handshake::derive_accept_key;

use crate::bench::frame::{self, Side};

/// A server that works when it is looked at.
pub(super) struct Upstream {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    response: Vec<u8>,
    buffer: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    is_websocket: bool,
}

const LISTENER: Token = Token(usize::MAX);
/// The body of the response to GET.
const BODY_BYTES: usize = 1024;

impl Upstream {
    pub(super) fn bind(at: SocketAddr) -> Self {
        let poll = Poll::new().expect("a poll set");
        let mut listener = TcpListener::bind(at).expect("an address");
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)
            .expect("registered");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        Self {
            poll,
            events: Events::with_capacity(1024),
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            response: [head.into_bytes(), vec![b'x'; BODY_BYTES]].concat(),
            buffer: vec![0; 65_536],
        }
    }

    /// Answers what there is to answer.
    pub(super) fn turn(&mut self) {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.poll.poll(&mut events, Some(Duration::ZERO)).expect("a poll set");
        for event in &events {
            match event.token() {
                LISTENER => self.accept(),
                Token(number) => self.serve(number),
            }
        }
        self.events = events;
    }

    fn accept(&mut self) {
        while let Ok((mut socket, _)) = self.listener.accept() {
            let number = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            // A connection without this option is slow, not wrong.
            let _ = socket.set_nodelay(true);
            self.poll
                .registry()
                .register(&mut socket, Token(number), Interest::READABLE | Interest::WRITABLE)
                .expect("registered");
            self.connections[number] = Some(Connection {
                socket,
                inbox: Vec::new(),
                outbox: Vec::new(),
                is_websocket: false,
            });
        }
    }

    fn serve(&mut self, number: usize) {
        let Some(connection) = &mut self.connections[number] else {
            return;
        };
        if !connection.serve(&self.response, &mut self.buffer) {
            self.connections[number] = None;
            self.free.push(number);
        }
    }
}

impl Connection {
    /// Reads, answers, writes; returns whether it goes on.
    fn serve(&mut self, response: &[u8], buffer: &mut [u8]) -> bool {
        let mut is_open = true;
        loop {
            match self.socket.read(buffer) {
                Ok(0) => is_open = false,
                Ok(length) => {
                    self.inbox.extend_from_slice(&buffer[..length]);
                    // A read that does not fill the buffer has emptied the socket.
                    if length == buffer.len() {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
            break;
        }
        self.answer(response);
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(length) => _ = self.outbox.drain(..length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        is_open
    }

    fn answer(&mut self, response: &[u8]) {
        while !self.is_websocket
            && let Some(end) = self.inbox.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&self.inbox[..end]);
            let key = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Key"));
            match key {
                Some((_, key)) => {
                    self.outbox
                        .extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
                    let accept = derive_accept_key(key.trim().as_bytes());
                    self.outbox.extend_from_slice(
                        format!("Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes(),
                    );
                    self.is_websocket = true;
                }
                None => self.outbox.extend_from_slice(response),
            }
            self.inbox.drain(..end + 4);
        }
        while self.is_websocket
            && let Some(frame) = frame::read(&mut self.inbox)
        {
            let end = frame.payload.end;
            frame::write(&mut self.outbox, Side::Server, frame.opcode, &self.inbox[frame.payload]);
            self.inbox.drain(..end);
        }
    }
}
