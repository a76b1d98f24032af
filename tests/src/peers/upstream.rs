//! How does a web server in the LAN behave? One that records what it is asked, and answers well or badly by its path.

use std::{
    io::{self, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use rustls::ServerConfig;
use socket2::SockRef;
use tungstenite::{Message as WebSocketMessage, handshake::derive_accept_key};

use crate::{
    PATIENCE, deadline,
    peers::{
        http::{Message, Reader, pattern},
        stream::Stream,
        websocket::server_side,
    },
    remaining,
};

/// How long a connection may wait for its next request; longer than any test.
const IDLE: Duration = Duration::from_secs(120);

/// A web server. The last parts of the path say how it answers:
///
/// | path | answer |
/// | --- | --- |
/// | `/fixed/N` | N bytes of a pattern with Content-Length |
/// | `/chunked/N` | N bytes of a pattern in chunks of many sizes |
/// | `/to-end/N` | N bytes of a pattern, then the end of the connection |
/// | `/cut/N` | promises N bytes, sends half, breaks the connection |
/// | `/echo` | the body of the request |
/// | `/status/N` | status N and a few bytes |
/// | `/early` | 413 before it reads the body, then closes |
/// | `/hop` | fields that are meant for one hop only |
/// | `/twice` | an answer that nobody asked for behind the right one |
/// | `/garbage` | no HTTP |
/// | `/silent` | nothing |
/// | `/vanish` | `hello`, then closes without a word of it |
/// | `/events` | an event stream of what [`Upstream::event`] says |
/// | `/ws` | a WebSocket that echoes, where the request asks for one |
/// | `/ws-wrong` | 101 with a wrong Sec-WebSocket-Accept |
/// | else | `hello` |
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    listener: TcpListener,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The connection, counted from 0.
    pub connection: usize,
    /// Who connected.
    pub from: SocketAddr,
    /// The request.
    pub request: Message,
}

#[derive(Debug)]
struct Shared {
    tls: Option<Arc<ServerConfig>>,
    requests: Mutex<Vec<Recorded>>,
    changed: Condvar,
    connections: AtomicUsize,
    /// Event streams that are open.
    streams: Mutex<Vec<Sender<String>>>,
}

impl Upstream {
    /// Starts without TLS.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn start(address: SocketAddr) -> Self {
        Self::with(address, None)
    }

    /// Starts with TLS.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn start_tls(address: SocketAddr, tls: Arc<ServerConfig>) -> Self {
        Self::with(address, Some(tls))
    }

    fn with(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).expect("the address of the upstream");
        let shared = Arc::new(Shared {
            tls,
            requests: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let accepting = listener.try_clone().expect("a second descriptor");
        thread::spawn({
            let shared = shared.clone();
            move || {
                while let Ok((socket, from)) = accepting.accept() {
                    let shared = shared.clone();
                    // How a connection ends is no concern of the server.
                    thread::spawn(move || shared.serve(socket, from));
                }
            }
        });
        Self { shared, listener }
    }

    /// Its address.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }

    /// Everything that was asked until now.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests().clone()
    }

    /// How many connections came until now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits for a request, also among those that came before.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for(&self, target: &str) -> Recorded {
        let deadline = deadline();
        let mut requests = self.shared.requests();
        loop {
            if let Some(found) = requests.iter().find(|recorded| recorded.request.target() == target) {
                return found.clone();
            }
            let Some(left) = remaining(deadline) else {
                drop(requests);
                panic!("nobody asks for {target}");
            };
            requests = self
                .shared
                .changed
                .wait_timeout(requests, left)
                .expect("nobody panics with the lock")
                .0;
        }
    }

    /// Sends an event on every open event stream; returns on how many.
    pub fn event(&self, text: &str) -> usize {
        let mut streams = self.shared.streams.lock().expect("nobody panics with the lock");
        streams.retain(|stream| stream.send(text.to_owned()).is_ok());
        streams.len()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // This ends the wait in `accept`.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.requests.lock().expect("nobody panics with the lock")
    }

    fn serve(&self, socket: TcpStream, from: SocketAddr) -> io::Result<()> {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let mut stream = Stream::accepted(socket, self.tls.clone())?;
        let mut reader = Reader::default();
        while let Some(mut request) = reader.head(&mut stream, std::time::Instant::now() + IDLE)? {
            let early = request.target().ends_with("/early");
            if !early {
                if request.field("expect") == Some("100-continue") {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                reader.body(&mut request, &mut stream, deadline())?;
            }
            self.requests().push(Recorded {
                connection,
                from,
                request: request.clone(),
            });
            self.changed.notify_all();
            match self.answer(&request, &mut stream)? {
                After::NextRequest => {}
                After::Close => return Ok(()),
                After::WebSocket => return echo(stream),
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Message, stream: &mut Stream) -> io::Result<After> {
        let path = request.target().split('?').next().unwrap_or_default();
        let mut parts = path.rsplit('/');
        let last = parts.next().unwrap_or_default();
        let (what, size) = match last.parse::<usize>() {
            Ok(size) => (parts.next().unwrap_or_default(), size),
            Err(_) => (last, 0),
        };
        match what {
            "fixed" => write_response(stream, request, "200 OK", &[], &pattern(size))?,
            "chunked" => write_chunked(stream, &pattern(size))?,
            "to-end" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")?;
                stream.write_all(&pattern(size))?;
                return close(stream);
            }
            "cut" => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
                stream.write_all(&pattern(size / 2))?;
                return close(stream);
            }
            "echo" => write_response(stream, request, "200 OK", &[], &request.body)?,
            "status" => write_response(stream, request, &format!("{size} Status"), &[], b"status")?,
            "early" => {
                write_response(
                    stream,
                    request,
                    "413 Content Too Large",
                    &["Connection: close"],
                    b"early",
                )?;
                close(stream)?;
                // RFC 9112 section 9.6: closed at once, the connection would be reset, and the answer lost with it.
                stream.read_to_close(deadline());
                return Ok(After::Close);
            }
            "hop" => {
                let fields = [
                    "Connection: x-one, keep-alive",
                    "X-One: hop",
                    "Keep-Alive: timeout=5",
                    "X-Two: end",
                ];
                write_response(stream, request, "200 OK", &fields, b"hop")?;
            }
            "twice" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length:";
                let both = format!("{head} 5\r\n\r\nasked{head} 9\r\n\r\nnot asked");
                stream.write_all(both.as_bytes())?;
                stream.flush()?;
            }
            "garbage" => {
                stream.write_all(b"\x00\x01\x02 this is no HTTP\r\n\r\n")?;
                return close(stream);
            }
            "vanish" => {
                write_response(stream, request, "200 OK", &[], b"hello")?;
                return close(stream);
            }
            "silent" => {
                stream.read_to_close(std::time::Instant::now() + IDLE);
                return Ok(After::Close);
            }
            "events" => {
                let (sender, events) = mpsc::channel();
                self.streams.lock().expect("nobody panics with the lock").push(sender);
                write_events(stream, &events)?;
                return Ok(After::Close);
            }
            "ws" | "ws-wrong" if request.field("upgrade") == Some("websocket") => {
                let key = request.field("sec-websocket-key").unwrap_or_default();
                let key = if what == "ws" { key } else { "wrong" };
                let accept = derive_accept_key(key.as_bytes());
                write!(
                    stream,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                )?;
                stream.flush()?;
                return Ok(After::WebSocket);
            }
            _ => write_response(stream, request, "200 OK", &["Content-Type: text/plain"], b"hello")?,
        }
        Ok(After::NextRequest)
    }
}

/// What follows an answer.
enum After {
    NextRequest,
    Close,
    WebSocket,
}

fn close(stream: &mut Stream) -> io::Result<After> {
    stream.flush()?;
    stream.socket().shutdown(Shutdown::Write)?;
    Ok(After::Close)
}

fn write_response(
    stream: &mut Stream,
    request: &Message,
    status: &str,
    fields: &[&str],
    body: &[u8],
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nServer: upstream\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    // RFC 9110 section 8.6: neither of the two has a length.
    if !status.starts_with("204") && !status.starts_with("304") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.method() != "HEAD" && !status.starts_with("204") && !status.starts_with("304") {
        stream.write_all(body)?;
    }
    stream.flush()
}

fn write_chunked(stream: &mut Stream, mut body: &[u8]) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for size in [1, 2, 3, 15, 16, 17, 255, 256, 4096, 65_536].into_iter().cycle() {
        let (chunk, rest) = body.split_at(body.len().min(size));
        body = rest;
        write!(stream, "{:x}\r\n", chunk.len())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
        // The last chunk is the empty one.
        if chunk.is_empty() {
            break;
        }
    }
    stream.flush()
}

fn write_events(stream: &mut Stream, events: &Receiver<String>) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    stream.flush()?;
    while let Ok(event) = events.recv_timeout(PATIENCE) {
        let event = format!("data: {event}\n\n");
        write!(stream, "{:x}\r\n{event}\r\n", event.len())?;
        stream.flush()?;
    }
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()
}

fn echo(stream: Stream) -> io::Result<()> {
    stream.socket().set_read_timeout(Some(IDLE))?;
    let mut socket = server_side(stream);
    while let Ok(message) = socket.read() {
        let answered = match message {
            echo @ (WebSocketMessage::Text(_) | WebSocketMessage::Binary(_)) => socket.send(echo),
            // The library answers pings and closes itself, with the next write.
            _ => socket.flush(),
        };
        if answered.is_err() {
            break;
        }
    }
    Ok(())
}
