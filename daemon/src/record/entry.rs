//! What does a recording consist of? Entries, each behind its length and a checksum, after a line that a person can read.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

use edgeward_core::{
    action::{
        Addresses, BindError, ConnId, Endpoints, Icmp, Input, IoKind, IpFields, Key, QueryId, RelayId, ResolveError,
        Run, SocketId,
    },
    time::Instant,
    tls::{Session, TlsError},
};
use serde::{Deserialize, Serialize};

/// What a recording begins with, before the number of its format and the end of the line.
const TITLE: &str = "Edgeward recording, which holds traffic and secrets; format ";

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// One entry at the most: a batch of datagrams, a read of a stream, or a configuration with its certificates.
const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What TLS has to answer at once at the most: a few certificates.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// One thing that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// Of what process this is; the first one.
    Process(Process),
    /// What the process is configured with from here on; the second one, and after each reload.
    Configuration(Configuration),
    /// Something has happened to a shard.
    Happened(Box<Happened>),
    /// Nothing more is told; the last one.
    End(End),
}

/// Of what process this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its version.
    pub(crate) version: String,
}

/// A configuration, and everything that it names.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Configuration {
    pub(crate) text: String,
    /// What its files hold, or why they cannot be read. Private keys are left out.
    pub(crate) files: Vec<(String, Result<Vec<u8>, String>)>,
    /// What it asked of the environment.
    pub(crate) variables: Vec<(String, Option<String>)>,
    /// [`Keys::nonce`](edgeward_core::config::Keys::nonce).
    pub(crate) nonce_key: [u8; 32],
    /// [`Keys::flow`](edgeward_core::config::Keys::flow).
    pub(crate) flow_keys: Vec<[u8; 32]>,
}

impl std::fmt::Debug for Configuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Configuration(..)")
    }
}

/// Why nothing more is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// The process has ended.
    Stopped,
    /// The recording is as large as it may be.
    Full,
    /// The disk was too slow.
    Slow,
}

/// Something has happened to a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Happened {
    /// To which.
    pub(crate) shard: u16,
    /// [`Now::mono`](edgeward_core::time::Now::mono), in nanoseconds.
    pub(crate) mono: u64,
    /// [`Now::unix`](edgeward_core::time::Now::unix), in seconds.
    pub(crate) unix: u64,
    /// How many actions the shard was asked for since the last one.
    pub(crate) polled: u32,
    /// What tells everything that the shard has done before from everything else.
    pub(crate) digest: u32,
    /// What it was.
    pub(crate) event: Event,
    /// What TLS told the shard of it.
    pub(crate) heard: Vec<Heard>,
}

/// What a shard can be told, or asked for: its doors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// It begins, as one of so many.
    Start {
        shards: u16,
        seed: [u8; 32],
    },
    Accept {
        on: u16,
        local: SocketAddr,
        peer: SocketAddr,
    },
    AcceptPeer {
        on: Id,
        local: SocketAddr,
        peer: SocketAddr,
    },
    /// A connection, which is known by its ends.
    Adopt {
        local: SocketAddr,
        peer: SocketAddr,
    },
    Resume(Id),
    /// Bytes of a stream; none where TLS has told what they say.
    Receive {
        conn: Id,
        bytes: Vec<u8>,
    },
    Datagrams {
        on: Socket,
        runs: Vec<Train>,
    },
    Timeout,
    TakeOutput(Id),
    Eof(Id),
    Failed(Id, Io),
    Written(Id),
    Dialed(Id, Result<(SocketAddr, SocketAddr), Io>),
    /// No addresses: there are none.
    Resolved(Id, Vec<IpAddr>),
    RelayBound(Id, Result<SocketAddr, Bind>),
    SocketError {
        on: Socket,
        peer: SocketAddr,
        kind: Io,
        icmp: Option<(u8, u8, u32)>,
    },
    /// From another shard; known by what tells it from others.
    Parcel(u32),
    /// From now on the last configuration holds.
    Configure,
    /// Until this time, in nanoseconds.
    Drain(u64),
    /// Its thread ends.
    End,
}

/// Index and generation of a key.
pub(crate) type Id = (u32, u32);

/// [`SocketId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Socket {
    Turn(u16),
    Sip,
    Relay(Id),
}

/// [`Run`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Train {
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    pub(crate) traffic_class: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) stride: u32,
    pub(crate) bytes: Vec<u8>,
}

/// [`IoKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Io {
    Refused,
    Unreachable,
    TimedOut,
    Reset,
    MessageSize,
    Other,
}

/// [`BindError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bind {
    InUse,
    Failed,
}

/// [`edgeward_core::tls::Heard`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) plain: Vec<u8>,
    pub(crate) answer_len: u32,
    pub(crate) is_ready: bool,
    pub(crate) is_peer_closed: bool,
    pub(crate) is_failed: bool,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) record_overhead: u8,
    pub(crate) has_given_tickets: bool,
    /// Whether it is an alert of the other side, and what it says.
    pub(crate) error: Option<(bool, String)>,
}

/// What a recording begins with.
pub(crate) fn title() -> String {
    format!("{TITLE}{FORMAT}\n")
}

impl Entry {
    /// As it stands in a recording.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; PREFIX_BYTES];
        // Nothing here can fail to be written to memory.
        if let Ok(encoded) = postcard::to_extend(self, bytes) {
            bytes = encoded;
        } else {
            return Vec::new();
        }
        let (len, sum) = (bytes.len() - PREFIX_BYTES, checksum(&bytes[PREFIX_BYTES..]));
        bytes[..4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        bytes[4..PREFIX_BYTES].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// Length and checksum.
const PREFIX_BYTES: usize = 8;

/// What one FNV-1a hash says of bytes that a disk may have spoilt; nobody forges a recording of his own.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum: u32, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// Why a recording cannot be read on.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The system refuses.
    Io(io::Error),
    /// It is none.
    NoRecording,
    /// It is one of another format.
    Format(String),
    /// It ends within an entry, or without one that says why.
    Cut,
    /// An entry is not as it was written.
    Spoilt,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::NoRecording => f.write_str("this is no recording of Edgeward"),
            Self::Format(format) => write!(
                f,
                "this is a recording of format {format}, and {FORMAT} is all that is understood here: \
                 replay it by the version that has written it"
            ),
            Self::Cut => f.write_str("the recording is cut off: the process was killed, or this is a part of the file"),
            Self::Spoilt => f.write_str("the recording is spoilt here: the rest of it means nothing"),
        }
    }
}

impl std::error::Error for ReadError {}

/// The entries of a recording, one after the other.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    source: R,
    has_ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the title.
    ///
    /// # Errors
    /// When this is no recording that can be read.
    pub(crate) fn new(mut source: R) -> Result<Self, ReadError> {
        let mut title = Vec::new();
        while title.last() != Some(&b'\n') && title.len() < TITLE.len() + 16 {
            let mut byte = [0];
            match source.read(&mut byte).map_err(ReadError::Io)? {
                0 => break,
                _ => title.extend_from_slice(&byte),
            }
        }
        let title = String::from_utf8(title).unwrap_or_default();
        let format = title.strip_prefix(TITLE).and_then(|rest| rest.strip_suffix('\n'));
        match format.ok_or(ReadError::NoRecording)? {
            format if format == FORMAT.to_string() => Ok(Self {
                source,
                has_ended: false,
            }),
            format => Err(ReadError::Format(format.to_owned())),
        }
    }

    /// The next one; `None` behind the last.
    ///
    /// # Errors
    /// When it cannot be read on.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        if self.has_ended {
            return Ok(None);
        }
        let mut prefix = [0; PREFIX_BYTES];
        self.fill(&mut prefix)?;
        let [a, b, c, d, sum @ ..] = prefix;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > ENTRY_BYTES_MAX {
            return Err(ReadError::Spoilt);
        }
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        if checksum(&bytes) != u32::from_be_bytes(sum) {
            return Err(ReadError::Spoilt);
        }
        match postcard::take_from_bytes(&bytes) {
            Ok((entry, [])) => {
                self.has_ended = matches!(entry, Entry::End(_));
                Ok(Some(entry))
            }
            _ => Err(ReadError::Spoilt),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Cut,
            _ => ReadError::Io(error),
        })
    }
}

/// A key as it is written.
pub(crate) const fn id(key: Key) -> Id {
    (key.index(), key.generation())
}

/// A key as the core has it.
pub(crate) const fn key((index, generation): Id) -> Key {
    Key::from_parts(index, generation)
}

impl Event {
    /// What an input is written as. Of a parcel, `parcel` tells it from others.
    pub(crate) fn of(input: &Input, parcel: impl FnOnce(&edgeward_core::action::Parcel) -> u32) -> Self {
        match input {
            Input::Eof(conn) => Self::Eof(id(conn.0)),
            Input::Failed(conn, kind) => Self::Failed(id(conn.0), (*kind).into()),
            Input::Written(conn) => Self::Written(id(conn.0)),
            Input::Dialed(conn, result) => {
                Self::Dialed(id(conn.0), result.map(|ends| (ends.local, ends.peer)).map_err(Io::from))
            }
            Input::Resolved(query, result) => {
                let addresses = result.as_ref().map(|found| found.addresses.clone());
                Self::Resolved(id(query.0), addresses.unwrap_or_default())
            }
            Input::RelayBound(relay, result) => Self::RelayBound(id(relay.0), result.map_err(Bind::from)),
            Input::SocketError(socket, peer, kind, icmp) => Self::SocketError {
                on: (*socket).into(),
                peer: *peer,
                kind: (*kind).into(),
                icmp: icmp.map(|icmp| (icmp.kind, icmp.code, icmp.mtu)),
            },
            Input::Parcel(what) => Self::Parcel(parcel(what)),
            Input::Configure(_) => Self::Configure,
            Input::Drain(at) => Self::Drain(at.as_nanos()),
        }
    }

    /// The input that it was, where it was one that can be made again from this alone.
    pub(crate) fn input(&self) -> Option<Input> {
        Some(match *self {
            Self::Eof(conn) => Input::Eof(ConnId(key(conn))),
            Self::Failed(conn, kind) => Input::Failed(ConnId(key(conn)), kind.into()),
            Self::Written(conn) => Input::Written(ConnId(key(conn))),
            Self::Dialed(conn, result) => {
                let ends = result.map(|(local, peer)| Endpoints { local, peer });
                Input::Dialed(ConnId(key(conn)), ends.map_err(IoKind::from))
            }
            Self::Resolved(query, ref found) => {
                let addresses = found.clone();
                let found = match addresses.is_empty() {
                    true => Err(ResolveError),
                    false => Ok(Addresses { addresses }),
                };
                Input::Resolved(QueryId(key(query)), found)
            }
            Self::RelayBound(relay, result) => Input::RelayBound(RelayId(key(relay)), result.map_err(BindError::from)),
            Self::SocketError { on, peer, kind, icmp } => {
                let icmp = icmp.map(|(kind, code, mtu)| Icmp { kind, code, mtu });
                Input::SocketError(on.into(), peer, kind.into(), icmp)
            }
            Self::Drain(at) => Input::Drain(Instant::from_nanos(at)),
            Self::Start { .. }
            | Self::Accept { .. }
            | Self::AcceptPeer { .. }
            | Self::Adopt { .. }
            | Self::Resume(_)
            | Self::Receive { .. }
            | Self::Datagrams { .. }
            | Self::Timeout
            | Self::TakeOutput(_)
            | Self::Parcel(_)
            | Self::Configure
            | Self::End => return None,
        })
    }
}

impl From<SocketId> for Socket {
    fn from(socket: SocketId) -> Self {
        match socket {
            SocketId::Turn(place) => Self::Turn(place),
            SocketId::Sip => Self::Sip,
            SocketId::Relay(relay) => Self::Relay(id(relay.0)),
        }
    }
}

impl From<Socket> for SocketId {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Turn(place) => Self::Turn(place),
            Socket::Sip => Self::Sip,
            Socket::Relay(relay) => Self::Relay(RelayId(key(relay))),
        }
    }
}

impl From<&Run<'_>> for Train {
    fn from(run: &Run<'_>) -> Self {
        Self {
            peer: run.peer,
            local: run.local,
            traffic_class: run.fields.traffic_class,
            dont_fragment: run.fields.dont_fragment,
            stride: u32::try_from(run.stride).unwrap_or(u32::MAX),
            bytes: run.bytes.to_vec(),
        }
    }
}

impl<'a> From<&'a Train> for Run<'a> {
    fn from(train: &'a Train) -> Self {
        Self {
            peer: train.peer,
            local: train.local,
            fields: IpFields {
                traffic_class: train.traffic_class,
                dont_fragment: train.dont_fragment,
            },
            stride: train.stride as usize,
            bytes: &train.bytes,
        }
    }
}

impl From<IoKind> for Io {
    fn from(kind: IoKind) -> Self {
        match kind {
            IoKind::Refused => Self::Refused,
            IoKind::Unreachable => Self::Unreachable,
            IoKind::TimedOut => Self::TimedOut,
            IoKind::Reset => Self::Reset,
            IoKind::MessageSize => Self::MessageSize,
            _ => Self::Other,
        }
    }
}

impl From<Io> for IoKind {
    fn from(kind: Io) -> Self {
        match kind {
            Io::Refused => Self::Refused,
            Io::Unreachable => Self::Unreachable,
            Io::TimedOut => Self::TimedOut,
            Io::Reset => Self::Reset,
            Io::MessageSize => Self::MessageSize,
            Io::Other => Self::Other,
        }
    }
}

impl From<BindError> for Bind {
    fn from(error: BindError) -> Self {
        match error {
            BindError::InUse => Self::InUse,
            _ => Self::Failed,
        }
    }
}

impl From<Bind> for BindError {
    fn from(error: Bind) -> Self {
        match error {
            Bind::InUse => Self::InUse,
            Bind::Failed => Self::Failed,
        }
    }
}

impl From<edgeward_core::tls::Heard> for Heard {
    fn from(heard: edgeward_core::tls::Heard) -> Self {
        Self {
            plain: heard.plain,
            answer_len: u32::try_from(heard.answer_len).unwrap_or(u32::MAX),
            is_ready: heard.is_ready,
            is_peer_closed: heard.is_peer_closed,
            is_failed: heard.is_failed,
            alpn: heard.session.alpn,
            record_overhead: u8::try_from(heard.session.record_overhead).unwrap_or(u8::MAX),
            has_given_tickets: heard.session.has_given_tickets,
            error: heard
                .error
                .map(|error| (matches!(error, TlsError::Alert(_)), error.to_string())),
        }
    }
}

impl From<Heard> for edgeward_core::tls::Heard {
    fn from(heard: Heard) -> Self {
        Self {
            plain: heard.plain,
            answer_len: ANSWER_BYTES_MAX.min(heard.answer_len as usize),
            is_ready: heard.is_ready,
            is_peer_closed: heard.is_peer_closed,
            is_failed: heard.is_failed,
            session: Session {
                alpn: heard.alpn,
                record_overhead: heard.record_overhead.into(),
                has_given_tickets: heard.has_given_tickets,
            },
            error: heard.error.map(|(is_alert, what)| match is_alert {
                true => TlsError::Alert(what),
                false => TlsError::Refused(what),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
