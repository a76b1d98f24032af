//! What has the administrator asked for? Plain values, checked once; nothing here opens a file.

use alloc::sync::Arc;
use core::{
    fmt,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use ahash::RandomState;
use ipnet::IpNet;

pub use crate::limit::{Mode, Tolerance};
use crate::{
    action::ShardId,
    time::UnixTime,
    tls::{ClientTls, Finding, ServerTls},
    token::Verifier,
};

mod certificates;
mod change;
mod parse;

pub use certificates::{Acme, CertificateFiles, Reloaded};
pub use change::changes;
pub use parse::{ConfigError, ConfigErrors, Sources};

/// The whole configuration of a process. A role is on when its section is there.
#[derive(Debug)]
pub struct Config {
    /// The process.
    pub server: Server,
    /// TCP/443, where web, sip and TURN over TLS meet.
    pub https: Option<Https>,
    /// The web role.
    pub web: Option<Web>,
    /// The sip role.
    pub sip: Option<Sip>,
    /// The turn role.
    pub turn: Option<Turn>,
    /// Who says whether a token holds; without that, tokens are looked at from outside only.
    pub token: Option<TokenCheck>,
    /// How often clients may come to what names a zone.
    pub rates: Rates,
    /// Where numbers and health are asked for.
    pub metrics: Option<Metrics>,
    /// What is told of each request.
    pub access_log: Option<AccessLog>,
    /// Secrets that all shards share.
    pub keys: Keys,
}

/// What is told of each request, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// How a line looks.
    pub format: AccessFormat,
    /// Where the lines go; standard output where there is none.
    pub file: Option<String>,
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// As Apache and nginx name it, with more behind it.
    Combined,
    /// One JSON object.
    Json,
}

/// Where numbers and health are asked for, by HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// A private address: nothing there is asked for a password.
    pub listen: SocketAddr,
}

/// The process.
#[derive(Debug, Clone)]
pub struct Server {
    /// Shards, one thread each; `None` is one for each CPU.
    pub workers: Option<u16>,
    /// How long a stop may take until what is left is cut.
    pub shutdown: Duration,
    /// Over how long WebSockets are closed at a stop, at the most.
    pub drain: Duration,
    /// TCP connections of one shard, accepted and dialled together.
    pub connections_max: usize,
    /// TCP connections that one client may hold on one shard: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_address_max: usize,
    /// How long datagrams may wait so as to be taken together, while they come often; zero is not at all. While bytes
    /// of streams come often, whatever comes may wait twice as long.
    pub coalesce: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            workers: None,
            shutdown: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            connections_max: 40_000,
            connections_per_address_max: 2_000,
            coalesce: Duration::from_micros(200),
        }
    }
}

/// TCP/443: TLS, and behind it whatever the roles in this process offer.
#[derive(Debug)]
pub struct Https {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Certificates and what follows from them; also serves TURN over TLS.
    pub tls: ServerTls,
    /// The files that they come from.
    pub certificates: Vec<CertificateFiles>,
    /// A certificate that we fetch ourselves; its file is among the others.
    pub acme: Option<Acme>,
    /// Host names that are answered, lower case, without port; a request for another gets 421.
    pub hosts: Vec<String>,
    /// Server names under which TURN alone is spoken, lower case.
    pub turn_hosts: Vec<String>,
    /// Whether TLS is refused to who asks for a name that is not ours (RFC 6066 section 3).
    pub refuse_unknown_names: bool,
    /// Whether TURN and STUN are spoken without TLS too.
    pub plain_turn: bool,
    /// Proxies that must say by the PROXY protocol for whom they connect; nobody else may.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Proxies in front of us whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// For how long browsers shall call this host by TLS only (RFC 6797); `None` says nothing about it.
    pub hsts: Option<Duration>,
    /// Timeouts and limits of connections.
    pub limits: HttpLimits,
}

impl Https {
    /// Whether this server name is ours.
    pub(crate) fn knows(&self, server_name: &str) -> bool {
        let own = self.hosts.iter().chain(&self.turn_hosts);
        own.chain(self.acme.iter().flat_map(|acme| &acme.domains))
            .any(|name| name.eq_ignore_ascii_case(server_name))
            || self.tls.has(server_name)
    }

    /// Whether TURN alone is spoken under this server name.
    pub(crate) fn is_for_turn(&self, server_name: &str) -> bool {
        self.turn_hosts
            .iter()
            .any(|name| name.eq_ignore_ascii_case(server_name))
    }

    /// What clients may dislike about the certificates now.
    pub fn findings(&self, now: UnixTime) -> Vec<Finding> {
        let named = |host: &&String| self.acme.is_none() || self.tls.has(host);
        let listened = self.hosts.iter().filter(|_| !self.listen.is_empty());
        let hosts: Vec<String> = listened.chain(&self.turn_hosts).filter(named).cloned().collect();
        self.tls.findings(now, &hosts)
    }
}

/// Timeouts and limits of HTTP connections, both sides.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// From the beginning of a connection to the end of its TLS handshake, and to the first byte within where that does
    /// not tell what is spoken.
    pub handshake: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two requests on one connection, and before the first.
    pub keep_alive: Duration,
    /// Without a byte of a body, in either direction.
    pub body_idle: Duration,
    /// Bytes a second that a request body must bring over each such time.
    pub body_bytes_per_second_min: u64,
    /// For a TCP (and TLS) connection to an upstream.
    pub connect: Duration,
    /// From the end of a request to the head of its response.
    pub response: Duration,
    /// Without a byte in a WebSocket tunnel, in either direction.
    pub tunnel_idle: Duration,
    /// An idle upstream connection is closed after this.
    pub upstream_idle: Duration,
    /// An upstream connection that is as old as this takes no further request, so that a name that has moved is followed.
    pub upstream_age: Duration,
    /// Request or status line.
    pub line_bytes_max: usize,
    /// A whole head.
    pub head_bytes_max: usize,
    /// Fields in a head.
    pub fields_max: usize,
    /// Bytes that wait for a slow reader in one direction before its source is no longer read.
    pub buffer_bytes_max: usize,
    /// Bytes that wait in one shard for one client address, on all its connections and those to upstreams on its behalf,
    /// before all their sources are no longer read.
    pub buffer_bytes_per_address_max: usize,
    /// Idle connections kept to one upstream by one shard.
    pub upstream_idle_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(65),
            body_idle: Duration::from_secs(30),
            body_bytes_per_second_min: 100,
            connect: Duration::from_secs(3),
            response: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(120),
            upstream_idle: Duration::from_secs(30),
            upstream_age: Duration::from_secs(600),
            line_bytes_max: 8 * 1024,
            head_bytes_max: 32 * 1024,
            fields_max: 100,
            buffer_bytes_max: 64 * 1024,
            buffer_bytes_per_address_max: 32 * 1024 * 1024,
            upstream_idle_max: 32,
        }
    }
}

/// Who says whether a token holds.
#[derive(Debug, Clone)]
pub enum TokenCheck {
    /// Whoever signed it.
    Signature(Verifier),
    /// The application.
    Ask(Ask),
}

/// How the application is asked about a token: by a GET with `Authorization: Bearer`, which is answered by 2xx for one
/// that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Index in [`Web::upstreams`].
    pub upstream: usize,
    /// The path to ask for.
    pub path: String,
    /// How long an answer holds.
    pub cache: Duration,
    /// The member of its JSON answer that names the user.
    pub subject: String,
}

/// How often clients may come.
#[derive(Debug, Clone)]
pub struct Rates {
    /// Zones; in each, every client has an account of its own.
    pub zones: Vec<Zone>,
    /// Clients that are never counted.
    pub exempt: Vec<IpNet>,
    /// Clients that each zone remembers on one shard.
    pub clients_max: usize,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            exempt: Vec::new(),
            clients_max: 65_536,
        }
    }
}

/// A rate that the routes which name it share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its name in the configuration and the logs.
    pub name: String,
    /// Time from one request of a client to the next in the long run.
    pub interval: Duration,
    /// How far a client may be ahead of that, where a route says nothing else.
    pub tolerance: Tolerance,
}

/// The zone that counts the requests of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Index in [`Rates::zones`].
    pub zone: usize,
    /// How far a client may be ahead of its rate here.
    pub tolerance: Tolerance,
}

/// The web role: what is forwarded, and to whom.
#[derive(Debug)]
pub struct Web {
    /// Servers in the LAN.
    pub upstreams: Vec<Upstream>,
    /// What is allowed; a request that no route names is answered 404.
    pub routes: Vec<Route>,
}

/// A server in the LAN that requests are forwarded to.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration and the logs.
    pub name: String,
    /// Where it is, at least one; the first that works is called.
    pub backends: Vec<Backend>,
    /// The value of the `Host` field towards it; the client's own when absent.
    pub host_header: Option<String>,
    /// Exchanges and tunnels with it at once, of one shard.
    pub connections_max: usize,
    /// Requests of one shard that wait for one of those to end.
    pub queue_max: usize,
    /// Calls to a backend that fail in a row before it is left alone.
    pub failures_max: u32,
    /// How long it is left alone then.
    pub rest: Duration,
    /// How it is asked whether it works.
    pub check: Option<HealthCheck>,
}

/// One of the servers of an upstream.
#[derive(Debug, Clone)]
pub struct Backend {
    /// An address, or a name to look up.
    pub host: Host,
    /// TCP port.
    pub port: u16,
    /// TLS towards it, and what its certificate must be.
    pub tls: Option<ClientTls>,
}

impl Backend {
    /// Whether it is the same server as this one.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port) && self.tls.is_some() == other.tls.is_some()
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let at = HostPort {
            host: self.host.clone(),
            port: self.port,
        };
        write!(f, "{scheme}://{at}")
    }
}

/// How an upstream is asked whether it works: by a GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path to ask for.
    pub path: String,
    /// The status of a server that works; `None` is any from 200 to 399.
    pub status: Option<u16>,
    /// From one check to the next.
    pub interval: Duration,
    /// Good checks in a row that bring it up.
    pub rise: u32,
    /// Bad checks in a row that take it down.
    pub fall: u32,
}

/// An address, or a name that the runtime looks up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Reached directly.
    Address(IpAddr),
    /// Looked up; lower case.
    Name(String),
}

/// A path that is let through.
#[derive(Debug, Clone)]
pub struct Route {
    /// The path, normalised, beginning with `/`.
    pub path: String,
    /// Whether paths below it (`/path/...`) are meant too. `/` with this set is everything.
    pub below: bool,
    /// Index in [`Web::upstreams`]; `None` is answered 404.
    pub upstream: Option<usize>,
    /// Whether a WebSocket may be opened there; other requests are let through as well.
    pub websocket: bool,
    /// Largest request body.
    pub body_bytes_max: u64,
    /// What counts its requests.
    pub limit: Option<Limit>,
    /// What a request must bring as `token` in its query.
    pub token: TokenRule,
}

/// What a request must bring as `token` in its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenRule {
    /// Nothing.
    #[default]
    None,
    /// Something.
    Present,
    /// Three segments with dots between them, as a JWT has.
    Segments,
}

/// The sip role: SIP over WebSocket on one side, SIP over UDP on the other.
#[derive(Debug)]
pub struct Sip {
    /// Address for SIP over UDP; an exact one, since Via and Record-Route are answered to it.
    pub listen: SocketAddr,
    /// How mediaservers reach that address.
    pub advertise: SocketAddr,
    /// Host (and port, when not 443) that browsers reach us by; named in their Record-Route.
    pub public_host: String,
    /// Mediaservers, each with a path of its own.
    pub mediaservers: Vec<Mediaserver>,
    /// How it is found out whether they are alive.
    pub health: Health,
    /// For how long the addresses of a mediaserver's name hold, and how long after a failure it is asked for again.
    pub resolve: Duration,
    /// Values of `Origin` from which a WebSocket is accepted; empty is those of [`Https::hosts`].
    pub origins: Vec<String>,
    /// Whether a WebSocket must bring a `token` in its query.
    pub token_required: bool,
    /// What browsers may say, and what is said about them.
    pub policy: SipPolicy,
    /// What counts attempts to open a WebSocket.
    pub limit: Option<Limit>,
    /// Timeouts and limits.
    pub limits: SipLimits,
}

/// What browsers may say, and what is said about them.
#[derive(Debug, Clone)]
pub struct SipPolicy {
    /// What a mediaserver is told of a browser that is not there: 430 (RFC 5626 section 11.1) or 480.
    pub gone_status: u16,
    /// Whether the contacts of a browser that has gone for good are removed at its mediaserver.
    pub unregister_gone: bool,
    /// Whether the user that a token names is the only one that its WebSocket may register and speak for; one whose token
    /// names nobody is not opened.
    pub token_names_user: bool,
    /// Registrations are asked for no longer than this.
    pub register_max: Duration,
    /// Fields that are taken out of what browsers say. A `*` at the end stands for anything.
    pub strip: Vec<String>,
    /// Fields that are taken out of what mediaservers say, in the same way.
    pub hide: Vec<String>,
    /// Requests with one of these in their User-Agent are dropped; in lower case.
    pub scanners: Vec<String>,
}

impl Default for SipPolicy {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        Self {
            gone_status: 430,
            unregister_gone: false,
            // XiVO's tokens name a login, which is not the user of a line.
            token_names_user: false,
            register_max: Duration::from_secs(3600),
            // RFC 3325 section 5: whom we do not trust asserts no identity; and what only a mediaserver says to its kind.
            strip: words(&[
                "P-Asserted-Identity",
                "P-Preferred-Identity",
                "Remote-Party-ID",
                "X-Asterisk-*",
            ]),
            hide: Vec::new(),
            scanners: words(&[
                "friendly-scanner",
                "sipvicious",
                "sipcli",
                "sip-scan",
                "vaxsipuseragent",
                "pplsip",
            ]),
        }
    }
}

/// A mediaserver (Asterisk) in the LAN.
#[derive(Debug, Clone)]
pub struct Mediaserver {
    /// `default` is reached by `/wssip`, any other by `/wssip-NAME`.
    pub name: String,
    /// Where it speaks SIP, in order of priority; never empty. Its messages are taken from nowhere else.
    pub addresses: Vec<HostPort>,
    /// By what messages go there.
    pub transport: TrunkTransport,
    /// How it is told to reach a browser.
    pub reach: Reach,
    /// Its RTP ports, which TURN clients may reach.
    pub media_ports: RangeInclusive<u16>,
}

impl Mediaserver {
    /// The path of the WebSocket that is bound to this mediaserver.
    pub fn path(&self) -> String {
        match self.name.as_str() {
            "default" => "/wssip".into(),
            name => format!("/wssip-{name}"),
        }
    }

    /// Where its media is, as far as that is known without looking a name up.
    pub fn media(&self) -> impl Iterator<Item = PeerRule> + '_ {
        self.addresses.iter().filter_map(|address| match address.host {
            Host::Address(address) => Some(PeerRule::one_host(address, self.media_ports.clone())),
            Host::Name(_) => None,
        })
    }
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// An address, or a name to look up.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Address(address.ip()),
            port: address.port(),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// By what messages go to a mediaserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrunkTransport {
    /// UDP, in fragments where a message is larger than a packet.
    #[default]
    Udp,
    /// The same, but that requests of more than 1300 bytes go by TCP as long as there is a connection (RFC 3261 section
    /// 18.1.1).
    TcpWhenLarge,
}

/// How it is found out whether an address of a mediaserver is alive: by OPTIONS (RFC 3261 section 11).
#[derive(Debug, Clone)]
pub struct Health {
    /// Between two questions.
    pub interval: Duration,
    /// Questions in a row without an answer, after which an address is down.
    pub failures: u32,
    /// Questions in a row with an answer, after which it is up again.
    pub successes: u32,
    /// A request without any response for so long goes to another address, unless this one has spoken meanwhile.
    pub failover: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            failures: 3,
            successes: 1,
            failover: Duration::from_secs(4),
        }
    }
}

/// How a mediaserver is told to reach a browser that registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// By a Path (RFC 3327); Asterisk needs `support_path=yes`.
    #[default]
    Path,
    /// By a Contact of ours in place of the browser's, for mediaservers that may not be reconfigured.
    Contact,
}

/// Timeouts and limits of the sip role.
#[derive(Debug, Clone)]
pub struct SipLimits {
    /// One message, either side.
    pub message_bytes_max: usize,
    /// How long a browser whose WebSocket broke may come back; less than the 32 s for which whoever asks for it waits.
    pub grace: Duration,
    /// How long a request outside of any dialog waits for such a browser: somebody waits for an answer.
    pub hold: Duration,
    /// A WebSocket is pinged after this long without a byte from it; without an answer for as long again, it is dead.
    pub ping: Duration,
    /// Bytes that wait for a slow browser before its WebSocket is closed.
    pub buffer_bytes_max: usize,
    /// Transactions of one WebSocket at once.
    pub transactions_per_flow_max: usize,
    /// WebSockets of one shard.
    pub flows_max: usize,
}

impl Default for SipLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1024,
            grace: Duration::from_secs(30),
            hold: Duration::from_secs(2),
            ping: Duration::from_secs(25),
            buffer_bytes_max: 256 * 1024,
            transactions_per_flow_max: 64,
            flows_max: 20_000,
        }
    }
}

/// The turn role.
#[derive(Debug)]
pub struct Turn {
    /// UDP addresses for clients.
    pub listen_udp: Vec<SocketAddr>,
    /// TCP addresses for clients; TLS is recognised by its first byte when there is a certificate.
    pub listen_tcp: Vec<SocketAddr>,
    /// As [`Https::proxy_protocol_from`], for [`Turn::listen_tcp`].
    pub proxy_protocol_from: Vec<IpNet>,
    /// Addresses of relayed transport addresses, at most one of each family.
    pub relays: Vec<Relay>,
    /// Ports of relayed transport addresses, shared out among the shards.
    pub relay_ports: RangeInclusive<u16>,
    /// Realm of the credentials.
    pub realm: String,
    /// Secrets of ephemeral (REST) credentials; any of them is good, so that they can be rotated.
    pub secrets: Vec<Secret>,
    /// By which hashes a password may follow from a secret; never empty.
    pub secret_hashes: Vec<SecretHash>,
    /// Whether ephemeral credentials end at their time for what is allocated too, so that no Refresh is granted then.
    pub strict_expiry: bool,
    /// Users with a password that does not end.
    pub users: Vec<User>,
    /// Who may be relayed to; everybody else is refused.
    pub peers: Vec<PeerRule>,
    /// Whether TCP is relayed as well as UDP (RFC 6062).
    pub tcp_relay: bool,
    /// Whether public addresses may be relayed to. Never covers private or special ones, nor our own.
    pub public_peers: bool,
    /// Whether an allocation may follow its client to another address (RFC 8016).
    pub mobility: bool,
    /// By which of `listen_udp` clients find out how the NAT before them behaves (RFC 5780); at most one of each family.
    pub discovery: Vec<Square>,
    /// Another server that clients may be sent to (RFC 8489 section 10).
    pub alternate: Option<Alternate>,
    /// Limits.
    pub limits: TurnLimits,
}

/// How the password of an ephemeral user follows from its name: an HMAC under the secret, in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretHash {
    /// HMAC-SHA-1, which everybody knows (draft-uberti-behave-turn-rest).
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
}

/// Two addresses with the same two ports each, as places in [`Turn::listen_udp`]. In the number of a corner, the second
/// bit is the address and the first bit the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Square(pub [u16; 4]);

impl Square {
    /// The square that the listening addresses of one family make, if that is what they make.
    pub fn of(listen_udp: &[SocketAddr], is_ipv4: bool) -> Option<Self> {
        let family = (0..).zip(listen_udp).filter(|(_, at)| at.is_ipv4() == is_ipv4);
        let mut corners: Vec<(IpAddr, u16, u16)> = family.map(|(place, at)| (at.ip(), at.port(), place)).collect();
        corners.sort_unstable();
        let [(a, p, first), (b, q, second), (c, r, third), (d, s, fourth)] = *corners else {
            return None;
        };
        let is_square = a == b && c == d && a != c && p == r && q == s && p != q && !a.is_unspecified();
        is_square.then_some(Self([first, second, third, fourth]))
    }
}

/// Where clients are sent that ask for an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternate {
    /// Addresses of the other server, at most one of each family; a client of a family that has none is not sent away.
    pub servers: Vec<SocketAddr>,
    /// The name in its certificate.
    pub domain: Option<String>,
    /// When clients are sent there.
    pub when: AlternateWhen,
}

/// When clients are sent to another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlternateWhen {
    /// While this one drains.
    Draining,
    /// The same, and while it has as many allocations as it may.
    Full,
    /// Always.
    Always,
}

/// An address of ours that relayed transport addresses are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relay {
    /// The address to bind: one of this host, never all of them.
    pub bind: IpAddr,
    /// The address that clients and peers see, the same but behind a static NAT.
    pub advertise: IpAddr,
}

/// A static TURN user.
#[derive(Debug, Clone)]
pub struct User {
    /// USERNAME.
    pub name: String,
    /// The password.
    pub password: Secret,
    /// Where it may come from; empty is anywhere.
    pub sources: Vec<IpNet>,
}

/// Peers that may be relayed to: an address alone is never enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRule {
    /// Addresses.
    pub net: IpNet,
    /// Ports.
    pub ports: RangeInclusive<u16>,
}

impl PeerRule {
    /// Ports of one address.
    pub fn one_host(address: IpAddr, ports: RangeInclusive<u16>) -> Self {
        Self {
            net: IpNet::from(address.to_canonical()),
            ports,
        }
    }
}

/// Limits of the turn role.
#[derive(Debug, Clone)]
pub struct TurnLimits {
    /// Allocations of one shard.
    pub allocations_max: usize,
    /// Allocations of one user on one shard.
    pub allocations_per_user_max: usize,
    /// Permissions of one allocation.
    pub permissions_max: usize,
    /// Channels of one allocation.
    pub channels_max: usize,
    /// Bytes a second of one allocation, both directions together; `None` is no limit.
    pub allocation_bytes_per_second: Option<u64>,
    /// Bytes a second of one user on one shard, all allocations and both directions together; `None` is no limit.
    pub user_bytes_per_second: Option<u64>,
    /// Packets a second to one allocation from relayed addresses of other shards: what allocations that form a loop
    /// could pass on.
    pub returned_packets_per_second: u64,
    /// Connections with peers of one allocation for TCP (RFC 6062), in whatever state.
    pub peer_connections_max: usize,
    /// Of those, the ones that are being made, or that the client has not come for yet.
    pub pending_peer_connections_max: usize,
    /// Longest lifetime of an allocation, in seconds.
    pub lifetime_max_secs: u32,
    /// Answers a second to one source address that has proved nothing.
    pub unauthenticated_per_second: u32,
    /// From the first byte of a TCP connection to its first allocation, and between messages without one.
    pub stream_idle: Duration,
    /// Bytes that wait for a slow TCP client before datagrams to it are dropped. Answers find room beyond.
    pub buffer_bytes_max: usize,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self {
            allocations_max: 10_000,
            allocations_per_user_max: 100,
            permissions_max: 128,
            channels_max: 128,
            allocation_bytes_per_second: None,
            user_bytes_per_second: None,
            returned_packets_per_second: 50_000,
            peer_connections_max: 64,
            pending_peer_connections_max: 16,
            lifetime_max_secs: 3600,
            unauthenticated_per_second: 10,
            stream_idle: Duration::from_secs(30),
            buffer_bytes_max: 256 * 1024,
        }
    }
}

/// Secrets that all shards share and that must never be told.
#[derive(Clone)]
pub struct Keys {
    /// Signs TURN nonces and what TURN gives out to be shown again, and seeds the hashes that all shards compute alike.
    pub nonce: [u8; 32],
    /// Signs SIP flow tokens: the first is used, all are accepted.
    pub flow: Vec<[u8; 32]>,
}

impl Keys {
    /// The shard on which meet all WebSockets of whoever has this name, token or address.
    pub fn home(&self, whose: impl Hash, shards: u16) -> ShardId {
        let hash = self.hasher().hash_one(whose);
        ShardId((hash % u64::from(shards)) as u16)
    }

    /// Hashes alike on every shard, and in no way that the outside could foresee.
    pub(crate) fn hasher(&self) -> RandomState {
        let mut seeds = self
            .nonce
            .chunks_exact(8)
            .map(|chunk| chunk.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        let mut seed = || seeds.next().unwrap_or_default();
        RandomState::with_seeds(seed(), seed(), seed(), seed())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// A secret that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Config {
    /// TCP addresses to listen on and what is offered there; the place in the list is the
    /// [`ListenerId`](crate::action::ListenerId).
    pub fn tcp_listeners(&self) -> Vec<(SocketAddr, Offer)> {
        let https = self
            .https
            .iter()
            .flat_map(|https| &https.listen)
            .map(|at| (*at, Offer::Https));
        let turn = self
            .turn
            .iter()
            .flat_map(|turn| &turn.listen_tcp)
            .map(|at| (*at, Offer::Turn));
        https.chain(turn).collect()
    }

    /// Servers in the LAN, where the web role is on.
    pub(crate) fn upstreams(&self) -> &[Upstream] {
        self.web.as_ref().map_or(&[], |web| &web.upstreams)
    }

    /// Who must say by the PROXY protocol for whom it connects, on a listener of this kind.
    pub(crate) fn proxies(&self, offer: Offer) -> &[IpNet] {
        match offer {
            Offer::Https => self.https.as_ref().map(|https| &https.proxy_protocol_from),
            Offer::Turn => self.turn.as_ref().map(|turn| &turn.proxy_protocol_from),
        }
        .map_or(&[], Vec::as_slice)
    }

    /// Tells TLS what time it is.
    pub fn set_time(&self, now: UnixTime) {
        if let Some(https) = &self.https {
            https.tls.set_time(now);
        }
    }

    /// UDP addresses for TURN clients; the place in the list is the number in
    /// [`SocketId::Turn`](crate::action::SocketId::Turn).
    pub fn turn_sockets(&self) -> &[SocketAddr] {
        self.turn.as_ref().map_or(&[], |turn| &turn.listen_udp)
    }
}

/// What a TCP listener offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// TLS, and behind it HTTP, SIP over WebSocket and TURN.
    Https,
    /// TURN, plain or over TLS.
    Turn,
}

/// A configuration that every shard holds.
pub type SharedConfig = Arc<Config>;
