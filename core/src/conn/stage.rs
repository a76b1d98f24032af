//! What can a connection carry? The state of each kind, as it stands between two calls.

use core::net::SocketAddr;

use bytes::BytesMut;

use crate::{
    access::Exchange,
    action::{ConnId, ShardId},
    config::{self, Keys, Offer, SharedConfig},
    http::{Accept, Client, Server},
    limit::{Account, Verdict},
    sip::{FlowId, LinkId},
    time::Instant,
    turn,
    ws::{self, Boundary, Kind},
};

/// What a connection carries.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Accepted from a proxy that has not said yet for whom.
    Proxied(Offer),
    /// Accepted, and too little has come to tell.
    Sniff(Offer),
    /// HTTP from a client.
    Http(Box<Downstream>),
    /// HTTP to an upstream.
    Upstream(Box<Upstream>),
    /// One end of a WebSocket or a TCP relay that passes through; the other end is named.
    Tunnel(Box<Tunnel>),
    /// A TURN peer's connection that no client has come for yet (RFC 6062). What the peer sends stays in the kernel.
    Peer,
    /// A WebSocket for SIP that is not answered yet.
    Opening(Box<Opening>),
    /// SIP over WebSocket that ends here.
    Sip(Box<SipSocket>),
    /// SIP with a mediaserver.
    Trunk(LinkId),
    /// TURN.
    Turn(TurnStream),
}

impl Stage {
    /// The other connection of an exchange or tunnel.
    pub(crate) fn pair(&self) -> Option<ConnId> {
        match self {
            Self::Http(browser) => browser.pair,
            Self::Upstream(upstream) => upstream.pair,
            Self::Tunnel(tunnel) => Some(tunnel.pair),
            Self::Proxied(_)
            | Self::Sniff(_)
            | Self::Peer
            | Self::Opening(_)
            | Self::Sip(_)
            | Self::Trunk(_)
            | Self::Turn(_) => None,
        }
    }
}

/// The side of an exchange that a browser sees.
#[derive(Debug)]
pub(crate) struct Downstream {
    pub(crate) server: Server,
    /// The connection that serves the request, while there is one.
    pub(crate) pair: Option<ConnId>,
    /// Whether bytes of the next request have come.
    pub(crate) head_begun: bool,
    pub(crate) gate: Gate,
    pub(crate) body: BodyProgress,
    /// What the access log will say of the request, where there is one.
    pub(crate) exchange: Option<Box<Exchange>>,
}

/// How a request body comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyProgress {
    /// So many bytes since then.
    pub(crate) bytes: u64,
    pub(crate) since: Instant,
    /// When some came last.
    pub(crate) last: Instant,
}

impl BodyProgress {
    /// Of a body that begins now.
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            bytes: 0,
            since: now,
            last: now,
        }
    }
}

/// What is known of a request that is not served yet. While it waits it stays unread at the front of the connection.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Whether it has been read before.
    pub(crate) is_known: bool,
    pub(crate) waits: Option<Wait>,
    /// Whose it is, where tokens are checked.
    pub(crate) identity: Option<Identity>,
    /// What its zone says.
    pub(crate) verdict: Option<Verdict>,
    /// What the zone of its address would say, asked before the application was.
    pub(crate) foreseen: Option<Verdict>,
}

/// Whose a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A user's, by a token that holds.
    User {
        /// What counts the user's requests.
        account: Account,
        /// The name in the token.
        subject: Option<Box<str>>,
    },
    /// Nobody's: the token does not hold, and this is the status that says so.
    Refused(u16),
}

impl Identity {
    /// The name of the user.
    pub(crate) fn into_subject(self) -> Option<Box<str>> {
        match self {
            Self::User { subject, .. } => subject,
            Self::Refused(_) => None,
        }
    }
}

/// A token by its hash; the token itself is kept nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenDigest(pub(crate) [u8; 32]);

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Another shard, which keeps the account of its client.
    Verdict,
    /// The same, but nothing is counted yet.
    Foresight,
    /// The time that the rate of its zone allows for it.
    Turn,
    /// What the application says of its token.
    Token,
    /// Another exchange to end, since the upstream at this place has as many as it takes.
    Room(usize),
}

impl Gate {
    /// Of no request yet.
    pub(crate) const OPEN: Self = Self {
        is_known: false,
        waits: None,
        identity: None,
        verdict: None,
        foreseen: None,
    };
}

impl Downstream {
    pub(crate) const fn new(server: Server) -> Self {
        Self {
            server,
            pair: None,
            head_begun: false,
            gate: Gate::OPEN,
            body: BodyProgress::new(Instant::ZERO),
            exchange: None,
        }
    }
}

/// The side of an exchange that an upstream sees.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) client: Client,
    /// When it was made.
    pub(crate) since: Instant,
    /// The configuration that it was dialled under, and its place there.
    pub(crate) config: SharedConfig,
    pub(crate) index: usize,
    /// The backend that is called, and those to call after it, the next one last.
    pub(crate) backend: usize,
    pub(crate) backends: Vec<usize>,
    /// What it is asked for ourselves, while it is.
    pub(crate) errand: Option<Errand>,
    /// Whether it is one of the exchanges that its upstream may have at once.
    pub(crate) is_counted: bool,
    /// The browser whose request it serves, while it serves one.
    pub(crate) pair: Option<ConnId>,
    /// Whether the name of the upstream is being looked up for it.
    pub(crate) awaits_address: bool,
    /// Addresses still to be tried.
    pub(crate) untried: Vec<SocketAddr>,
    /// The whole request, as long as it may be sent once more: on a connection that rested in the pool, the upstream may
    /// have said goodbye before it saw the request.
    pub(crate) replay: Option<BytesMut>,
    pub(crate) request_ended: bool,
}

impl Upstream {
    /// What is configured of it.
    pub(crate) fn target(&self) -> Option<&config::Upstream> {
        self.config.web.as_ref()?.upstreams.get(self.index)
    }

    /// The server of it that is called.
    pub(crate) fn called(&self) -> Option<&config::Backend> {
        self.target()?.backends.get(self.backend)
    }

    /// Whether it waits for the addresses of this host.
    pub(crate) fn awaits(&self, host: &str) -> bool {
        let is_there = |called: &config::Backend| matches!(&called.host, config::Host::Name(name) if name == host);
        self.awaits_address && self.called().is_some_and(is_there)
    }

    /// Whether it serves nobody and waits for who comes next.
    pub(crate) fn is_resting(&self) -> bool {
        self.pair.is_none() && self.errand.is_none()
    }

    pub(crate) fn body(&mut self, data: &[u8], write: &mut BytesMut) {
        self.replay = None;
        self.client.body(data, write);
    }

    pub(crate) fn end(&mut self, write: &mut BytesMut) {
        self.request_ended = true;
        self.client.end(write);
    }
}

/// A request of our own.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Does the backend work? The last answer said this.
    Check { status: u16 },
    /// Does a token hold? The answer so far.
    Token {
        digest: TokenDigest,
        status: u16,
        body: Vec<u8>,
    },
}

/// One end of a WebSocket or a TCP relay that passes through.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// The other end.
    pub(crate) pair: ConnId,
    /// Frames of the upstream; only there we may say something ourselves.
    pub(crate) frames: Option<Boundary>,
    /// Whether the tunnel ends with the frame that is on its way.
    pub(crate) is_ending: bool,
    /// Whose end it is of a TCP relay, where it is one.
    pub(crate) relayed: Option<Side>,
    /// Whether what comes from this end of a TCP relay has to wait, because its allocation has had its share.
    pub(crate) waits: bool,
    /// The upstream of which it is one of the exchanges.
    pub(crate) counted: Option<(SharedConfig, usize)>,
    /// At the browser's end, what the access log will say of it.
    pub(crate) exchange: Option<Box<Exchange>>,
}

/// The two ends of a TCP relay (RFC 6062 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client data connection.
    Client,
    /// The peer data connection.
    Peer,
}

impl Tunnel {
    pub(crate) fn new(pair: ConnId, from_upstream: bool) -> Self {
        Self {
            pair,
            frames: from_upstream.then(Boundary::default),
            is_ending: false,
            relayed: None,
            waits: false,
            counted: None,
            exchange: None,
        }
    }

    pub(crate) const fn relayed(pair: ConnId, side: Side) -> Self {
        Self {
            pair,
            frames: None,
            is_ending: false,
            relayed: Some(side),
            waits: false,
            counted: None,
            exchange: None,
        }
    }
}

/// TURN by TCP or TLS.
#[derive(Debug, Default)]
pub(crate) struct TurnStream {
    pub(crate) stream: turn::Stream,
    pub(crate) reader: Reader,
}

/// Whether a client takes what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Reader {
    /// As far as we know.
    #[default]
    Reads,
    /// Something was dropped since it last took anything.
    IsFull,
    /// That was so at the last deadline, too.
    WasFull,
}

/// A WebSocket whose messages are SIP.
#[derive(Debug)]
pub(crate) struct SipSocket {
    pub(crate) ws: ws::Conn,
    pub(crate) flow: FlowId,
    /// Messages are answered in the kind that the browser uses, where that can carry them (RFC 7118 section 4.2).
    pub(crate) kind: Kind,
    /// Whether an unanswered ping is out.
    pub(crate) pinged: bool,
    /// Whether either side has closed the WebSocket; without that it is lost, and its user may come back.
    pub(crate) is_closed: bool,
    /// What the access log will say of it.
    pub(crate) exchange: Option<Box<Exchange>>,
}

/// A WebSocket whose request is good, but which may have to move to its home shard before it is opened.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The HTTP side of the connection, which has read the request.
    pub(crate) server: Server,
    /// What the handshake is answered with.
    pub(crate) accept: Accept,
    /// Name of the mediaserver: its place may be another one on the home shard, while a configuration spreads.
    pub(crate) mediaserver: Box<str>,
    /// The client's address; behind a trusted proxy it is not that of the connection.
    pub(crate) client: SocketAddr,
    /// The client's token, if it brought one.
    pub(crate) token: Option<Box<str>>,
    /// The user that its token names, where tokens are checked.
    pub(crate) subject: Option<Box<str>>,
    /// What the access log will say of it.
    pub(crate) exchange: Option<Box<Exchange>>,
}

impl Opening {
    /// The shard on which all WebSockets of this user meet, so that one that comes back finds its flow.
    pub(crate) fn home(&self, keys: &Keys, shards: u16) -> ShardId {
        // A user may come back with another token.
        match self.subject.as_deref().or(self.token.as_deref()) {
            Some(name) => keys.home(name, shards),
            None => keys.home(self.client, shards),
        }
    }
}
