//! What can a connection carry? The state of each kind, as it stands between two calls.

use core::net::SocketAddr;

use bytes::BytesMut;

use crate::{
    access::Exchange,
    action::{ConnId, ShardId},
    config::{self, Keys, Offer, SharedConfig},
    http::{Accept, Client, Server},
    limit::Verdict,
    sip::{FlowId, LinkId},
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
    /// What the access log will say of the request, where there is one.
    pub(crate) exchange: Option<Box<Exchange>>,
}

/// What is known of a request that is not served yet. While it waits it stays unread at the front of the connection.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) waits: Option<Wait>,
    /// What its zone says.
    pub(crate) verdict: Option<Verdict>,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Another shard, which keeps the account of its client.
    Verdict,
    /// The time that the rate of its zone allows for it.
    Turn,
}

impl Gate {
    /// Of no request yet.
    pub(crate) const OPEN: Self = Self {
        waits: None,
        verdict: None,
    };
}

impl Downstream {
    pub(crate) const fn new(server: Server) -> Self {
        Self {
            server,
            pair: None,
            head_begun: false,
            gate: Gate::OPEN,
            exchange: None,
        }
    }
}

/// The side of an exchange that an upstream sees.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) client: Client,
    /// The configuration that it was dialled under, and its place there.
    pub(crate) config: SharedConfig,
    pub(crate) index: usize,
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

    /// Whether it waits for the addresses of this host.
    pub(crate) fn awaits(&self, host: &str) -> bool {
        let is_there = |target: &config::Upstream| matches!(&target.host, config::Host::Name(name) if name == host);
        self.awaits_address && self.target().is_some_and(is_there)
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
            exchange: None,
        }
    }

    pub(crate) const fn relayed(pair: ConnId, side: Side) -> Self {
        Self {
            pair,
            frames: None,
            is_ending: false,
            relayed: Some(side),
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
    /// Messages are answered in the kind that the browser uses (RFC 7118 section 5).
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
    /// What the access log will say of it.
    pub(crate) exchange: Option<Box<Exchange>>,
}

impl Opening {
    /// The shard on which all WebSockets of this user meet, so that one that comes back finds its flow.
    pub(crate) fn home(&self, keys: &Keys, shards: u16) -> ShardId {
        let hasher = keys.hasher();
        let hash = match &self.token {
            Some(token) => hasher.hash_one(token),
            None => hasher.hash_one(self.client),
        };
        ShardId((hash % u64::from(shards)) as u16)
    }
}
