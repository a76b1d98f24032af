//! How is it? Numbers for Prometheus, and health for whoever watches the process, by HTTP on a private address.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError, mpsc::sync_channel},
    thread,
    time::{Duration, Instant},
};

use edgeward_core::{
    config::{Config, SharedConfig},
    stats::{Liveness, Snapshot},
    wire::http1::{self, Limits},
};

use crate::{mesh::Mesh, tcp::accept_failed};

mod text;

/// How long the shards may take to tell how they are.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a question and its answer may take.
const EXCHANGE: Duration = Duration::from_secs(10);

/// Questions at once.
const EXCHANGES_MAX: usize = 16;

/// Bytes of a question.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Fields of a question.
const FIELDS_MAX: usize = 100;

/// What the process is about to do.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) config: SharedConfig,
    pub(crate) is_draining: bool,
}

/// Answers questions on a thread of its own as long as the process lives.
///
/// # Errors
/// When there is no thread to be had.
pub(crate) fn serve(listener: TcpListener, mesh: Mesh, state: Arc<Mutex<State>>) -> io::Result<()> {
    thread::Builder::new()
        .name("metrics".into())
        .spawn(move || accept(&listener, &mesh, &state))?;
    Ok(())
}

fn accept(listener: &TcpListener, mesh: &Mesh, state: &Arc<Mutex<State>>) {
    // Whoever takes a place brings it back.
    let (place, places) = sync_channel(EXCHANGES_MAX);
    for _ in 0..EXCHANGES_MAX {
        let _ = place.send(());
    }
    while places.recv().is_ok() {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) => {
                thread::sleep(accept_failed(&error));
                let _ = place.send(());
                continue;
            }
        };
        let (mesh, state, taken) = (mesh.clone(), state.clone(), place.clone());
        let answer = move || {
            // Whoever asked and is gone, or says nothing, needs no answer.
            let _ = exchange(&Timed::new(socket), &mesh, &state);
            let _ = taken.send(());
        };
        if thread::Builder::new().name("metrics".into()).spawn(answer).is_err() {
            let _ = place.send(());
        }
    }
}

fn exchange(mut socket: &Timed, mesh: &Mesh, state: &Mutex<State>) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    let answer = loop {
        match question(&bytes) {
            Some(Ok(path)) => break answer(&path, mesh, state),
            Some(Err(answer)) => break answer,
            None => match socket.read(&mut part)? {
                0 => return Ok(()),
                len => bytes.extend_from_slice(&part[..len]),
            },
        }
    };
    socket.write_all(answer.encode().as_bytes())?;
    socket.socket.shutdown(Shutdown::Write)
}

/// A socket that is waited for until [`EXCHANGE`] is over.
struct Timed {
    socket: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            deadline: Instant::now() + EXCHANGE,
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

impl Read for &Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        (&self.socket).read(buffer)
    }
}

impl Write for &Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        (&self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The path that is asked for, or what is wrong with the question; `None` when there is more to come.
fn question(bytes: &[u8]) -> Option<Result<String, Answer>> {
    let limits = Limits::new(HEAD_BYTES_MAX, HEAD_BYTES_MAX, FIELDS_MAX);
    let head = match http1::request_head(bytes, &limits) {
        Ok(head) => head?.0,
        Err(error) => return Some(Err(Answer::new(400, format!("{}\n", error.as_str())))),
    };
    if head.method != b"GET" {
        return Some(Err(Answer::new(405, "only GET is answered\n")));
    }
    let path = head.target.split(|byte| *byte == b'?').next().unwrap_or_default();
    Some(Ok(String::from_utf8_lossy(path).into_owned()))
}

/// What is said to one question.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    fn encode(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Service Unavailable",
        };
        let Self {
            status,
            content_type,
            body,
        } = self;
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
        )
    }
}

fn answer(path: &str, mesh: &Mesh, state: &Mutex<State>) -> Answer {
    let roles = match path {
        "/metrics" | "/healthz" | "/readyz" => Role::ALL.to_vec(),
        _ => match path.strip_prefix("/readyz/").and_then(Role::named) {
            Some(role) => vec![role],
            None => return Answer::new(404, "there are /metrics, /healthz, /readyz and /readyz/ROLE\n"),
        },
    };
    let Some(snapshot) = mesh.snapshot(PATIENCE) else {
        return Answer::new(503, "a shard does not answer\n");
    };
    let State { config, is_draining } = state.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match path {
        "/metrics" => Answer {
            content_type: text::CONTENT_TYPE,
            ..Answer::new(200, text::render(&snapshot, &config, is_draining))
        },
        "/healthz" => Answer::new(200, "ok\n"),
        _ => readiness(&roles, &snapshot, &config, is_draining),
    }
}

/// Whether new clients are to be sent here: all of these roles that are on must be able to serve them.
fn readiness(roles: &[Role], snapshot: &Snapshot, config: &Config, is_draining: bool) -> Answer {
    let found: Vec<(&str, Result<(), &str>)> = roles
        .iter()
        .filter(|role| role.is_on(config))
        .map(|role| (role.name(), role.readiness(snapshot, is_draining)))
        .collect();
    let is_ready = !found.is_empty() && found.iter().all(|(_, result)| result.is_ok());
    let lines = found.iter().map(|(role, result)| match result {
        Ok(()) => format!("{role}: ready\n"),
        Err(why) => format!("{role}: {why}\n"),
    });
    Answer::new(if is_ready { 200 } else { 503 }, lines.collect::<String>())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Web,
    Sip,
    Turn,
}

impl Role {
    const ALL: [Self; 3] = [Self::Web, Self::Sip, Self::Turn];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Sip => "sip",
            Self::Turn => "turn",
        }
    }

    const fn is_on(self, config: &Config) -> bool {
        match self {
            Self::Web => config.web.is_some(),
            Self::Sip => config.sip.is_some(),
            Self::Turn => config.turn.is_some(),
        }
    }

    fn readiness(self, snapshot: &Snapshot, is_draining: bool) -> Result<(), &'static str> {
        match self {
            _ if is_draining => Err("the process ends"),
            Self::Sip if snapshot.mediaservers.contains(&Liveness::Up) => Ok(()),
            Self::Sip if snapshot.mediaservers.contains(&Liveness::Unknown) => Err("no mediaserver has answered yet"),
            Self::Sip => Err("no mediaserver answers"),
            Self::Web | Self::Turn => Ok(()),
        }
    }
}
