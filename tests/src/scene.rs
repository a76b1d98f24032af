//! What does a usual site look like? One edge with every role, and in its LAN a web server and two mediaservers.

use std::net::{IpAddr, SocketAddr};

use crate::{
    edge::Edge,
    peers::{
        http_client::Connection,
        mediaserver::Mediaserver,
        sip_browser::SipBrowser,
        stun::RawClient,
        turn_client::{Credentials, TurnClient},
        upstream::Upstream,
        websocket::Handshake,
    },
    site::{NAME, Site},
};

/// The port of the edge for HTTPS.
pub const HTTPS: u16 = 8443;
/// The port of the edge for TURN.
pub const TURN: u16 = 3478;
/// The port of the edge for SIP.
pub const SIP: u16 = 5060;

/// The secrets of ephemeral credentials: the one that is given out, and the one before.
pub const SECRETS: [&str; 2] = ["the new secret of edge.test", "the old secret of edge.test"];
/// A TURN user that may come from anywhere, and its password.
pub const ALICE: (&str, &str) = ("alice", "the password of alice");
/// A TURN user that may come from the mediaserver only, and its password.
pub const ASTERISK: (&str, &str) = ("asterisk", "the password of asterisk");

/// The configuration of the edge: every role, several shards.
pub const CONFIG: &str = r#"
[server]
workers = 3
shutdown_secs = 2

[https]
listen = "$net.1:8443"
certificates = [{ cert = "edge.pem", key = "edge.key" }]
hosts = ["edge.test", "$net.1"]

[https.limits]
response_secs = 2

[[web.upstream]]
name = "plain"
url = "http://$net.2:8080"

[[web.upstream]]
name = "secure"
url = "https://$net.2:8444"
ca = "ca.pem"

[[web.upstream]]
name = "absent"
url = "http://$net.2:8999"

[[web.route]]
upstream = "plain"
path = "/app"
body_bytes_max = "8 MiB"

[[web.route]]
upstream = "secure"
path = "/secure"
websocket = true

[[web.route]]
upstream = "absent"
path = "/absent"

[[web.route]]
upstream = "plain"
path = "/socket"
websocket = true

[[web.route]]
upstream = "plain"
path = "/exact"
exact = true

[sip]
listen = "$net.1:5060"
public_host = "edge.test:8443"
origins = ["https://edge.test:8443"]

[[sip.mediaserver]]
name = "default"
address = "$net.3:5060"
media_ports = "10000-10099"

[[sip.mediaserver]]
name = "mds2"
address = "$net.4:5060"
media_ports = "10000-10099"

[turn]
listen = "$net.1:3478"
relay = "$net.1"
relay_ports = "30000-30099"
realm = "edge.test"
secrets = ["the new secret of edge.test", "the old secret of edge.test"]
public_peers = false

[[turn.user]]
name = "alice"
password = "the password of alice"

[[turn.user]]
name = "asterisk"
password = "the password of asterisk"
sources = ["$net.3/32"]

[[turn.peer]]
net = "$net.120/32"
ports = "20000-20099"
"#;

/// An edge and what is behind it. Fields go in this order, so the edge ends first.
#[derive(Debug)]
pub struct Scene {
    /// The edge, on host 1.
    pub edge: Edge,
    /// The web server, on host 2.
    pub upstream: Upstream,
    /// The web server with TLS, on host 2.
    pub secure: Upstream,
    /// The mediaserver of `/wssip`, on host 3.
    pub mediaserver: Mediaserver,
    /// The mediaserver of `/wssip-mds2`, on host 4.
    pub second: Mediaserver,
    /// The network, with clients from host 100 on and TURN peers on host 120.
    pub site: Site,
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    /// Starts everything with [`CONFIG`].
    ///
    /// # Panics
    /// When something does not start.
    pub fn new() -> Self {
        Self::with(CONFIG)
    }

    /// Starts everything with a configuration of the same addresses.
    ///
    /// # Panics
    /// When something does not start.
    pub fn with(config: &str) -> Self {
        Self::at(Site::new(), config)
    }

    /// The same, where a test has put something already.
    ///
    /// # Panics
    /// When something does not start.
    pub fn at(site: Site, config: &str) -> Self {
        Self::around(site, |site| Edge::start(site, config))
    }

    /// Starts everything with a configuration of the same addresses, and with more on the command line of the edge.
    ///
    /// # Panics
    /// When something does not start.
    pub fn with_arguments(config: &str, arguments: &[&str]) -> Self {
        Self::around(Site::new(), |site| Edge::start_with(site, config, arguments))
    }

    fn around(site: Site, edge: impl FnOnce(&Site) -> Edge) -> Self {
        let identity = site.authority().identity(&[&site.host(2).to_string()]);
        Self {
            upstream: Upstream::start(site.at(2, 8080)),
            secure: Upstream::start_tls(site.at(2, 8444), identity.server()),
            mediaserver: Mediaserver::start(site.at(3, SIP)),
            second: Mediaserver::start(site.at(4, SIP)),
            edge: edge(&site),
            site,
        }
    }

    /// Where the edge serves HTTPS.
    pub fn https(&self) -> SocketAddr {
        self.site.at(1, HTTPS)
    }

    /// Where the edge serves TURN.
    pub fn turn(&self) -> SocketAddr {
        self.site.at(1, TURN)
    }

    /// Where the edge speaks SIP.
    pub fn sip(&self) -> SocketAddr {
        self.site.at(1, SIP)
    }

    /// A client's address.
    pub fn client(&self, number: u8) -> IpAddr {
        self.site.host(number)
    }

    /// A connection by TLS from this client.
    pub fn connect(&self, client: u8) -> Connection {
        Connection::tls(self.client(client), self.https(), self.site.client(), NAME)
    }

    /// How to open a WebSocket from this client.
    pub fn handshake(&self, client: u8, target: &str) -> Handshake {
        Handshake::tls(self.client(client), self.https(), self.site.client(), NAME, target)
    }

    /// How a browser on this client opens the WebSocket for SIP of a path.
    pub fn telephone(&self, client: u8, path: &str) -> Handshake {
        self.handshake(client, &format!("{path}?token=token-of-{client}"))
            .with("Origin", &format!("https://{NAME}:{HTTPS}"))
    }

    /// A browser on this client that is registered with the mediaserver of `/wssip`.
    pub fn registered(&self, client: u8, user: &str) -> SipBrowser {
        SipBrowser::registered(&self.telephone(client, "/wssip"), user)
    }

    /// Clients that reach the TURN server in every way there is, without an allocation.
    pub fn turn_clients(&self) -> Vec<(&'static str, TurnClient)> {
        let credentials = Credentials::new(ALICE.0, ALICE.1);
        let tls = |client: u8, to| TurnClient::tls(self.client(client), to, self.site.client(), NAME, &credentials);
        vec![
            ("UDP", TurnClient::udp(self.client(100), self.turn(), &credentials)),
            ("TCP", TurnClient::tcp(self.client(101), self.turn(), &credentials)),
            ("TLS", tls(102, self.turn())),
            ("TLS on the port for HTTPS", tls(103, self.https())),
        ]
    }

    /// A TURN client over UDP from this client with an allocation.
    ///
    /// # Panics
    /// When it is refused.
    pub fn allocated(&self, client: u8) -> TurnClient {
        let credentials = Credentials::new(ALICE.0, ALICE.1);
        let mut client = TurnClient::udp(self.client(client), self.turn(), &credentials);
        client.allocate().expect("an allocation");
        client
    }

    /// A TURN client over UDP that sends by hand.
    pub fn raw_turn(&self, client: u8) -> RawClient {
        RawClient::new(self.client(client), self.turn(), ALICE.0, ALICE.1)
    }
}
