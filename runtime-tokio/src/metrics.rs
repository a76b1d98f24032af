//! How is it? Numbers for Prometheus, and health for whoever watches the process, by HTTP on a private address.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use edgeward_core::{
    config::{Config, SharedConfig},
    stats::{Liveness, Snapshot},
    wire::http1::{self, Limits},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::mesh::Mesh;

mod text;

/// How long the shards may take to tell how they are.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a question and its answer may take.
const EXCHANGE: Duration = Duration::from_secs(10);

/// Questions at once.
const EXCHANGES_MAX: usize = 16;

/// How long to wait when the system gives no descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Answers questions as long as the process lives.
///
/// # Errors
/// When the runtime does not take the listener.
pub(crate) async fn serve(listener: TcpListener, mesh: Mesh, state: watch::Receiver<State>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(EXCHANGES_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return Ok(());
        };
        let Ok((socket, _)) = listener.accept().await else {
            // No descriptors: others may have been closed by then.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (mesh, state) = (mesh.clone(), state.clone());
        tokio::spawn(async move {
            let _permit = permit;
            // Whoever asked and is gone, or says nothing, needs no answer.
            let _ = timeout(EXCHANGE, exchange(socket, &mesh, &state)).await;
        });
    }
}

async fn exchange(mut socket: TcpStream, mesh: &Mesh, state: &watch::Receiver<State>) -> io::Result<()> {
    let mut bytes = Vec::new();
    let answer = loop {
        match question(&bytes) {
            Some(Ok(path)) => break answer(&path, mesh, state).await,
            Some(Err(answer)) => break answer,
            None if socket.read_buf(&mut bytes).await? == 0 => return Ok(()),
            None => {}
        }
    };
    socket.write_all(answer.encode().as_bytes()).await?;
    socket.shutdown().await
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

async fn answer(path: &str, mesh: &Mesh, state: &watch::Receiver<State>) -> Answer {
    let roles = match path {
        "/metrics" | "/healthz" | "/readyz" => Role::ALL.to_vec(),
        _ => match path.strip_prefix("/readyz/").and_then(Role::named) {
            Some(role) => vec![role],
            None => return Answer::new(404, "there are /metrics, /healthz, /readyz and /readyz/ROLE\n"),
        },
    };
    let Some(snapshot) = mesh.snapshot(PATIENCE).await else {
        return Answer::new(503, "a shard does not answer\n");
    };
    let State { config, is_draining } = state.borrow().clone();
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
