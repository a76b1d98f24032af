//! What is told to the shards of a process? It is written to a file, from which [`replay`](crate::replay) tells it again.
//!
//! A shard does what follows from its configuration, its seed and its inputs, so these are all that is written. Of TLS it
//! is what it told the shard, instead of what came over the wire: so there are no keys, and what was said can be read.

use std::{
    collections::{HashMap, hash_map::RandomState},
    io,
    path::Path,
    thread,
};

use edgeward_core::{
    action::{Action, Conn, ConnId, Parcel, ShardId},
    config::Config,
    time::Now,
};

mod digest;
mod entry;
mod mask;
mod sources;
mod writer;

pub(crate) use self::{
    digest::Digest,
    entry::{Configuration, End, Entry, Event, Happened, Heard, ReadError, Reader, id, key},
    sources::{Witness, parse},
};
use self::{
    entry::Process,
    mask::{Rules, Stream},
    writer::{Ended, Writer},
};

/// What a TLS record of a handshake begins with (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// The recording of a process.
#[derive(Debug)]
pub(crate) struct Recording {
    writer: Writer,
    thread: thread::JoinHandle<()>,
    /// Chooses what stands in the place of tokens.
    salt: RandomState,
}

impl Recording {
    /// Begins a recording in a new file, of so many bytes at the most.
    ///
    /// # Errors
    /// When the file is there already or cannot be made.
    pub(crate) fn start(path: &Path, bytes_max: u64, configuration: Configuration) -> io::Result<Self> {
        let (writer, thread) = Writer::start(path, bytes_max)?;
        let salt = RandomState::new();
        let recording = Self { writer, thread, salt };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        recording.write(Entry::Process(Process { version }));
        recording.configure(configuration);
        Ok(recording)
    }

    /// What writes down what is told to one of the shards.
    pub(crate) fn recorder(&self, shard: ShardId, shards: u16, config: &Config) -> Recorder {
        Recorder {
            shard,
            writer: self.writer.clone(),
            digest: Digest::default(),
            polled: 0,
            rules: Rules::new(config, shards, self.salt.clone()),
            links: HashMap::new(),
        }
    }

    /// The shards are about to be told of this.
    pub(crate) fn configure(&self, configuration: Configuration) {
        self.write(Entry::Configuration(configuration));
    }

    /// The shards have ended.
    pub(crate) fn end(self) {
        self.write(Entry::End(End::Stopped));
        // A panic there has been told of.
        let _ = self.thread.join();
    }

    fn write(&self, entry: Entry) {
        // Where it has ended before its time, that has been told of.
        let _ = self.writer.send(&entry);
    }
}

/// What writes down what is told to one shard.
#[derive(Debug)]
pub struct Recorder {
    shard: ShardId,
    writer: Writer,
    digest: Digest,
    polled: u32,
    rules: Rules,
    links: HashMap<ConnId, Link>,
}

/// A connection, as far as its bytes are concerned.
#[derive(Debug, Default)]
struct Link {
    is: Layer,
    stream: Stream,
}

/// What the bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Layer {
    /// What is said.
    #[default]
    Plain,
    /// The beginning of TLS.
    Hello,
    /// TLS, so that there is no telling from them what is said.
    Tls,
}

impl Recorder {
    /// Bytes have come by a stream.
    pub(crate) fn received(&mut self, conn: ConnId, bytes: &[u8]) -> Event {
        let link = self.links.entry(conn).or_default();
        if link.is == Layer::Plain && link.stream.is_fresh() && bytes.first() == Some(&HANDSHAKE) {
            link.is = Layer::Hello;
        }
        let mut bytes = match link.is {
            Layer::Plain | Layer::Hello => bytes.to_vec(),
            Layer::Tls => Vec::new(),
        };
        if link.is == Layer::Plain {
            link.stream.mask(&self.rules, &mut bytes);
        }
        let conn = id(conn.0);
        Event::Receive { conn, bytes }
    }

    /// A connection comes from another shard.
    pub(crate) fn adopting(conn: &Conn) -> Event {
        let (local, peer) = conn.ends();
        Event::Adopt { local, peer }
    }

    /// It was taken in.
    pub(crate) fn adopted(&mut self, conn: ConnId, is_encrypted: bool) {
        let is = if is_encrypted { Layer::Tls } else { Layer::Plain };
        let stream = Stream::adopted();
        self.links.insert(conn, Link { is, stream });
    }

    /// The configuration is another one.
    pub(crate) fn configured(&mut self, config: &Config) {
        self.rules.follow(config);
    }

    /// The shard asks for something.
    pub(crate) fn asked(&mut self, action: &Action) {
        self.polled += 1;
        self.digest.action(&Digest::text(action));
        if let Action::Close(conn, _)
        | Action::Reset(conn)
        | Action::Forward {
            parcel: Parcel::Conn(conn, _),
            ..
        } = action
        {
            self.links.remove(conn);
        }
    }

    /// Has it written what happened, and what TLS told of that; what comes of it goes into the digest.
    pub(crate) fn happened(
        &mut self,
        now: Now,
        event: Event,
        heard: impl Iterator<Item = edgeward_core::tls::Heard>,
    ) -> Result<&mut Digest, Ended> {
        let heard: Vec<Heard> = heard
            .map(Heard::from)
            .map(|heard| self.without_secrets(&event, heard))
            .collect();
        let happened = Happened {
            shard: self.shard.0,
            mono: now.mono.as_nanos(),
            unix: now.unix.0,
            polled: std::mem::take(&mut self.polled),
            digest: self.digest.value(),
            event,
            heard,
        };
        self.writer.send(&Entry::Happened(Box::new(happened)))?;
        Ok(&mut self.digest)
    }

    fn without_secrets(&mut self, event: &Event, mut heard: Heard) -> Heard {
        if let Event::Receive { conn, .. } | Event::Resume(conn) | Event::Dialed(conn, _) = event {
            let link = self.links.entry(ConnId(key(*conn))).or_default();
            link.is = Layer::Tls;
            link.stream.mask(&self.rules, &mut heard.plain);
        }
        heard
    }
}
