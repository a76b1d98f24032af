//! Who lives where, and what is the edge told about it? Addresses, names, configurations.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use edgeward_core::{
    config::{Config, Keys, SharedConfig, Sources},
    time::UnixTime,
    tls::Provider,
};

use crate::{
    peers::{
        sip,
        stun::{self, Class, method},
    },
    world::crypto,
};

/// The edge, as clients see it.
pub const EDGE_OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The same by IPv6.
pub const EDGE_OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// The edge, as the LAN sees it.
pub const EDGE_INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The port for browsers.
pub const HTTPS: SocketAddr = SocketAddr::new(EDGE_OUTSIDE, 443);
/// The port for TURN, by UDP, TCP and TLS.
pub const TURN: SocketAddr = SocketAddr::new(EDGE_OUTSIDE, 3478);
/// The same by IPv6.
pub const TURN_V6: SocketAddr = SocketAddr::new(EDGE_OUTSIDE_V6, 3478);
/// Where the edge speaks SIP.
pub const SIP: SocketAddr = SocketAddr::new(EDGE_INSIDE, 5060);
/// Mediaservers.
pub const MEDIASERVERS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5060),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)), 5060),
];
/// The media of the mediaservers by IPv6.
pub const MEDIA_V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 3)),
];
/// Web servers: one is called by its address, the other by its name.
pub const UPSTREAMS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10)), 8080),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11)), 8080),
];
/// One that speaks TLS.
pub const UPSTREAM_TLS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 13)), 8443);
/// A proxy that brings the connections of clients, and says whose they are.
pub const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 50));
/// Somebody whom nobody may relay to.
pub const BYSTANDER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 77)), 12_000);
/// Somebody on the Internet whom nobody may relay to either.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
/// Another one, with IPv6.
pub const STRANGER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 9));
/// The name of the edge.
pub const NAME: &str = "edge.test";
/// The realm of TURN.
pub const REALM: &str = "edge.test";
/// Users of TURN, each with its password.
pub const TURN_USERS: [(&str, &str); 2] = [
    ("alice", "the password of alice"),
    ("asterisk", "the password of asterisk"),
];
/// What tokens are signed with.
pub const TOKEN_SECRET: &str = "the secret of whoever makes tokens";
/// The first and the last port of media at a mediaserver.
pub const MEDIA_PORTS: (u16, u16) = (10_000, 10_099);
/// The first and the last port of a relayed address.
pub const RELAY_PORTS: (u16, u16) = (30_000, 30_199);
/// When the world begins, in seconds since 1970: 2026-09-21.
pub const BEGINNING: u64 = 1_790_000_000;

/// The address of a client, by its number.
pub fn client(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1 + (number % 250) as u8))
}

/// The address of a client by IPv6.
pub fn client_v6(number: usize) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1 + number as u16))
}

/// The address of the media of a mediaserver.
pub fn media(place: usize, is_v6: bool) -> IpAddr {
    if is_v6 {
        MEDIA_V6[place]
    } else {
        MEDIASERVERS[place].ip()
    }
}

/// Whether this is the edge as clients and their peers see it.
pub fn is_outside(ip: IpAddr) -> bool {
    [EDGE_OUTSIDE, EDGE_OUTSIDE_V6].contains(&ip)
}

/// Whether media may be relayed there, by the configuration below: to mediaservers, and to who is relayed himself.
pub fn is_allowed_peer(peer: SocketAddr) -> bool {
    let is_media = (MEDIA_PORTS.0..=MEDIA_PORTS.1).contains(&peer.port());
    let is_relayed = is_outside(peer.ip()) && (RELAY_PORTS.0..=RELAY_PORTS.1).contains(&peer.port());
    let is_mediaserver = MEDIASERVERS.iter().any(|at| at.ip() == peer.ip()) || MEDIA_V6.contains(&peer.ip());
    is_relayed || is_media && is_mediaserver
}

/// What the names of the LAN stand for.
pub fn look_up(host: &str) -> Vec<IpAddr> {
    match host {
        "cc.lan.test" => vec![UPSTREAMS[1].ip()],
        _ => Vec::new(),
    }
}

/// The configuration, in two editions: an administrator goes from one to the other and back.
pub fn config(edition: u8) -> SharedConfig {
    let text = CONFIG
        .replace("$response", if edition == 0 { "8" } else { "12" })
        .replace("$rate", if edition == 0 { "120/min" } else { "240/min" })
        .replace("$permissions", if edition == 0 { "32" } else { "24" })
        .replace("$token", if edition == 0 { ASKED } else { SIGNED });
    let provider = crypto::provider();
    let mut sources = Machine(Provider::new(provider, || None));
    sources.0.set_time(UnixTime(BEGINNING));
    let keys = Keys {
        nonce: [1; 32],
        flow: vec![[2; 32]],
    };
    Arc::new(Config::parse(&text, &mut sources, keys).unwrap_or_else(|errors| panic!("{errors}")))
}

/// The application is asked about each token.
const ASKED: &str = r#"
ask = "/auth"
upstream = "cc"
cache_secs = 10
"#;

/// Or its signature is looked at.
const SIGNED: &str = r#"
algorithm = "HS256"
key = { file = "secret" }
"#;

const CONFIG: &str = r#"
[server]
connections_max = 400
connections_per_address_max = 60
shutdown_secs = 20

[https]
listen = "192.0.2.1:443"
certificates = [{ cert = "cert", key = "key" }]
hosts = ["edge.test"]
proxy_protocol_from = ["192.0.2.50"]

[https.limits]
response_secs = $response
buffer_bytes_max = "16 KiB"

[[web.upstream]]
name = "cc"
url = "http://10.0.0.10:8080"
connections_max = 20
queue_max = 10
rest_secs = 2

[[web.upstream]]
name = "named"
url = "http://cc.lan.test:8080"

[[web.upstream]]
name = "secure"
url = "https://10.0.0.13:8443"
ca = "cert"
host = "edge.test"

[[web.upstream]]
name = "absent"
url = "http://10.0.0.12:8080"

[[web.route]]
path = "/page"
upstream = "cc"
body_bytes_max = "256 KiB"

[[web.route]]
path = "/named"
upstream = "named"
body_bytes_max = "256 KiB"

[[web.route]]
path = "/secure"
upstream = "secure"
body_bytes_max = "256 KiB"

[[web.route]]
path = "/login"
upstream = "cc"
zone = "logins"

[[web.route]]
path = "/absent"
upstream = "absent"

[[web.route]]
path = "/cti"
upstream = "cc"
websocket = true

[token]
subject = "login"
$token

[rates]
[[rates.zone]]
name = "logins"
rate = "$rate"
burst = 4

[sip]
listen = "10.0.0.1:5060"
public_host = "edge.test"
origins = ["https://edge.test"]

[sip.policy]
token_names_user = true

[sip.limits]
flows_max = 200

[[sip.mediaserver]]
name = "default"
address = "10.0.0.2:5060"
media_ports = "10000-10099"

[[sip.mediaserver]]
name = "contacts"
address = "10.0.0.3:5060"
media_ports = "10000-10099"
reach = "contact"
transport = "tcp-when-large"

[turn]
listen = ["192.0.2.1:3478", "[2001:db8::1]:3478"]
relay = ["192.0.2.1", "2001:db8::1"]
relay_ports = "30000-30199"
realm = "edge.test"
proxy_protocol_from = ["192.0.2.50"]
tcp_relay = true
mobility = true
public_peers = false
mediaservers = [
    { address = "fd00:10::2", media_ports = "10000-10099" },
    { address = "fd00:10::3", media_ports = "10000-10099" },
]

[turn.limits]
allocations_max = 60
lifetime_max_secs = 700
permissions_max = $permissions
channels_max = 32
buffer_bytes_max = "64 KiB"

[[turn.user]]
name = "alice"
password = "the password of alice"

[[turn.user]]
name = "asterisk"
password = "the password of asterisk"
sources = ["10.0.0.0/24"]
"#;

/// What a shard may hold of each kind, by the configuration above. Idle connections to upstreams and what is dialled for
/// TCP relays are connections like all others.
pub const CONNECTIONS_MAX: u64 = 400;
/// WebSockets for SIP, those included that are lost and may come back.
pub const FLOWS_MAX: u64 = 200;
/// Allocations.
pub const ALLOCATIONS_MAX: u64 = 60;
/// Bytes that wait for one reader: the largest of the buffers above, what one read of a stream adds to it, and what TLS
/// adds to that.
pub const WAITING_BYTES_MAX: usize = (256 + 64 + 16) * 1024;

/// The files that the configuration names.
struct Machine(Provider);

impl Sources for Machine {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let identity = crypto::identity();
        match path {
            "cert" => Ok(identity.certificate.into_bytes()),
            "key" => Ok(identity.key.into_bytes()),
            "secret" => Ok(TOKEN_SECRET.into()),
            _ => Err("there is no such file".into()),
        }
    }

    fn env(&mut self, _: &str) -> Option<String> {
        None
    }

    fn provider(&self) -> &Provider {
        &self.0
    }
}

/// How an address is called in a trace.
pub fn name(at: SocketAddr) -> String {
    match at {
        HTTPS => "edge".into(),
        TURN | TURN_V6 => "edge:turn".into(),
        SIP => "edge:sip".into(),
        _ if is_outside(at.ip()) => format!("relay:{}", at.port()),
        _ if at.ip() == EDGE_INSIDE => format!("edge:{}", at.port()),
        _ => match ((0..2).find(|place| is_media(*place, at.ip())), at.port()) {
            (Some(place), 5060) => format!("mds{place}"),
            (Some(place), port) => format!("mds{place}:{port}"),
            (None, port) => match at.ip() {
                IpAddr::V4(ip) if ip.octets()[..3] == [198, 51, 100] => {
                    format!("client{}:{port}", ip.octets()[3] - 1)
                }
                IpAddr::V6(ip) if ip.segments()[..3] == [0x2001, 0xdb8, 0xc] => {
                    format!("client{}:{port}", ip.segments()[7] - 1)
                }
                IpAddr::V4(ip) if ip.octets()[..3] == [10, 0, 0] => format!("lan{}:{port}", ip.octets()[3]),
                _ => at.to_string(),
            },
        },
    }
}

fn is_media(place: usize, ip: IpAddr) -> bool {
    ip == media(place, ip.is_ipv6())
}

/// How the host at an address is called in a trace.
pub fn host(at: SocketAddr) -> String {
    let name = name(at);
    match name.rsplit_once(':') {
        Some(("relay", _)) => "edge".into(),
        Some((host, _)) => host.to_owned(),
        None => name,
    }
}

/// What a message is, in a few words for a trace.
pub fn what(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).ok();
    if let Some(message) = text.and_then(sip::Message::parse) {
        return sip_words(&message);
    }
    match bytes.first() {
        Some(0..=3) => match stun::Message::decode(bytes) {
            Some(message) => stun_words(&message),
            None => format!("{} bytes like STUN", bytes.len()),
        },
        Some(0x40..=0x7f) if bytes.len() >= 4 && bytes[0] < 0x50 => {
            let channel = u16::from_be_bytes([bytes[0], bytes[1]]);
            format!("ChannelData {channel:#x}, {} bytes", bytes.len() - 4)
        }
        _ => format!("{} bytes", bytes.len()),
    }
}

/// A SIP message in a few words.
pub fn sip_words(message: &sip::Message) -> String {
    let cseq = message.field("CSeq").unwrap_or("no CSeq");
    let call = message.call_id().unwrap_or("no Call-ID");
    let call: String = call.chars().take(8).collect();
    match message.status() {
        Some(status) => format!("SIP {status} to {cseq}, call {call}"),
        None => format!("SIP {}, call {call}", message.start.trim_end_matches(" SIP/2.0")),
    }
}

fn stun_words(message: &stun::Message) -> String {
    let name = match message.method {
        method::BINDING => "Binding",
        method::ALLOCATE => "Allocate",
        method::REFRESH => "Refresh",
        method::SEND => "Send",
        method::DATA => "Data",
        method::CREATE_PERMISSION => "CreatePermission",
        method::CHANNEL_BIND => "ChannelBind",
        method::CONNECT => "Connect",
        method::CONNECTION_BIND => "ConnectionBind",
        method::CONNECTION_ATTEMPT => "ConnectionAttempt",
        _ => "STUN",
    };
    match message.class {
        Class::Request => format!("{name} request"),
        Class::Indication => format!("{name} indication"),
        Class::Success => format!("{name} success"),
        Class::Error => format!("{name} error {}", message.error_code().unwrap_or_default()),
    }
}
