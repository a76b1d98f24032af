//! What must the firewalls let through? The tables that a network team asks for, made from the configuration.

use std::{collections::BTreeSet, net::SocketAddr};

use edgeward_core::config::{Config, Host, HostPort, Mediaserver, Sip, TrunkTransport, Turn};

use super::summary::{list, net, range};

/// The flows by direction, as seen from a DMZ: "WAN" is the outside, "LAN" the inside.
pub(crate) fn flows(config: &Config) -> String {
    let directions = [
        ("From the outside (WAN to DMZ)", from_outside(config)),
        ("To the outside (DMZ to WAN)", to_outside(config)),
        ("From the proxies in front of this host", from_proxies(config)),
        ("Inside the DMZ", inside_dmz(config)),
        ("To the inside (DMZ to LAN)", to_inside(config)),
        ("From the inside (LAN to DMZ)", from_inside(config)),
    ];
    let mut text = "Flows that the firewalls have to let through, and their answers:\n".to_owned();
    for (title, flows) in directions.into_iter().filter(|(_, flows)| !flows.is_empty()) {
        text.push_str(&format!("\n{title}\n"));
        text.push_str(&table(&flows));
    }
    text
}

/// From, to, ports, usage: a row of a table.
type Flow = [String; 4];

fn from_outside(config: &Config) -> Vec<Flow> {
    let mut flows = from_clients(config, "any");
    if let Some(turn) = &config.turn {
        let usage = "Media from clients to relays";
        flows.push(flow("any", &advertised_relays(turn), &relay_ports(turn), usage));
    }
    flows
}

fn to_outside(config: &Config) -> Vec<Flow> {
    let turn = config.turn.iter().filter(|turn| turn.public_peers);
    let media = turn.map(|turn| {
        let usage = "Media from relays to public peers";
        let ports = transports(turn, "1024-65535");
        flow(&bound_relays(turn), "any public", &ports, usage)
    });
    let acme = config.https.iter().filter_map(|https| https.acme.as_ref());
    let certificates = acme.map(|acme| {
        let authority = acme
            .directory
            .split_once("://")
            .map_or(&*acme.directory, |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
        flow("this host", host, &format!("TCP/{port}"), "Certificates by ACME")
    });
    media.chain(certificates).collect()
}

/// Where there are proxies, all requests come from them.
fn from_proxies(config: &Config) -> Vec<Flow> {
    let mut flows = Vec::new();
    if let Some(https) = &config.https {
        let proxies = https.trusted_proxies.iter().chain(&https.proxy_protocol_from).map(net);
        let proxies = list(proxies.collect::<BTreeSet<_>>());
        for at in https.listen.iter().filter(|_| !proxies.is_empty()) {
            flows.push(flow(&proxies, &address(*at), &tcp(at.port()), &https_usage(config)));
        }
    }
    for turn in config.turn.iter().filter(|turn| !turn.proxy_protocol_from.is_empty()) {
        let proxies = list(turn.proxy_protocol_from.iter().map(net));
        for at in &turn.listen_tcp {
            flows.push(flow(&proxies, &address(*at), &tcp(at.port()), "STUN and TURN"));
        }
    }
    flows
}

/// The SIP proxy stands beside the web proxy, where they are two.
fn inside_dmz(config: &Config) -> Vec<Flow> {
    upstreams(config, true, "WebSockets for SIP")
}

/// To the servers of the upstreams that serve SIP alone, or of all others.
fn upstreams(config: &Config, for_sip: bool, usage: &str) -> Vec<Flow> {
    let mut flows = Vec::new();
    if let Some(web) = &config.web {
        for (index, upstream) in web.upstreams.iter().enumerate() {
            let mut routes = web
                .routes
                .iter()
                .filter(|route| route.upstream == Some(index))
                .peekable();
            let is_for_sip = routes.peek().is_some() && routes.all(|route| route.path.starts_with("/wssip"));
            for backend in upstream.backends.iter().filter(|_| is_for_sip == for_sip) {
                let to = format!("{} ({})", upstream.name, host(&backend.host));
                flows.push(flow("this host", &to, &tcp(backend.port), usage));
            }
        }
    }
    flows
}

fn to_inside(config: &Config) -> Vec<Flow> {
    let mut flows = upstreams(config, false, "Web pages and their WebSockets");
    if let Some(sip) = &config.sip {
        let to = grouped(mediaserver_addresses(sip).map(|(mediaserver, at)| {
            let ports = match mediaserver.transport {
                TrunkTransport::Udp => udp(at.port),
                TrunkTransport::TcpWhenLarge => format!("{}, {}", udp(at.port), tcp(at.port)),
            };
            (ports, named(config, &host(&at.host)))
        }));
        for (ports, mediaservers) in to {
            flows.push(flow(&address(sip.listen), &mediaservers, &ports, "SIP to mediaservers"));
        }
    }
    if let Some(turn) = &config.turn {
        let to = peers(config, turn).into_iter();
        for (ports, peers) in grouped(to.map(|(peer, ports)| (transports(turn, &ports), peer))) {
            flows.push(flow(&bound_relays(turn), &peers, &ports, "Media from relays to peers"));
        }
    }
    if has_names(config) {
        flows.push(flow("this host", "its resolvers", "UDP/53, TCP/53", "Names of servers"));
    }
    flows
}

fn from_inside(config: &Config) -> Vec<Flow> {
    let mut flows = from_clients(config, "UC clients");
    if let Some(sip) = &config.sip {
        let from = list(mediaserver_addresses(sip).map(|(_, at)| named(config, &host(&at.host))));
        let (to, ports) = (address(sip.advertise), udp(sip.advertise.port()));
        flows.push(flow(&from, &to, &ports, "SIP from mediaservers"));
    }
    if let Some(metrics) = config.metrics.filter(|metrics| !metrics.listen.ip().is_loopback()) {
        let (to, ports) = (address(metrics.listen), tcp(metrics.listen.port()));
        flows.push(flow("monitoring", &to, &ports, "Numbers and health"));
    }
    if let Some(turn) = &config.turn
        && let peers = peers(config, turn)
        && !peers.is_empty()
    {
        let peers = list(peers.into_iter().map(|(peer, _)| peer));
        for (to, ports) in turn_services(turn) {
            flows.push(flow(&peers, &to, &ports, "STUN and TURN, for peers that use it"));
        }
        let usage = "Media from peers to relays";
        flows.push(flow(&peers, &advertised_relays(turn), &relay_ports(turn), usage));
    }
    flows
}

/// What clients come to, from outside and inside alike.
fn from_clients(config: &Config, from: &str) -> Vec<Flow> {
    let mut flows = Vec::new();
    if let Some(https) = &config.https {
        let is_direct = https.trusted_proxies.is_empty() && https.proxy_protocol_from.is_empty();
        for at in https.listen.iter().filter(|_| is_direct) {
            flows.push(flow(from, &address(*at), &tcp(at.port()), &https_usage(config)));
        }
    }
    if let Some(turn) = &config.turn {
        let is_direct = |ports: &str| turn.proxy_protocol_from.is_empty() || !ports.starts_with("TCP");
        for (to, ports) in turn_services(turn) {
            let ports: Vec<&str> = ports.split(", ").filter(|ports| is_direct(ports)).collect();
            if !ports.is_empty() {
                flows.push(flow(from, &to, &list(ports), "STUN and TURN"));
            }
        }
    }
    flows
}

fn https_usage(config: &Config) -> String {
    let roles = [
        (config.web.is_some(), "web pages"),
        (config.sip.is_some(), "SIP over WebSocket"),
        (config.turn.is_some(), "TURN over TLS"),
    ];
    let usage = roles.into_iter().filter(|(is_on, _)| *is_on).map(|(_, usage)| usage);
    format!("HTTPS: {}", list(usage))
}

/// The addresses for TURN clients, each with its ports.
fn turn_services(turn: &Turn) -> Vec<(String, String)> {
    let to = |at: &SocketAddr| {
        // Behind a static NAT, clients know the address in front of it.
        let relay = turn.relays.iter().find(|relay| relay.bind == at.ip());
        relay.map_or_else(|| address(*at), |relay| relay.advertise.to_string())
    };
    let udp = turn.listen_udp.iter().map(|at| (to(at), udp(at.port())));
    let tcp = turn.listen_tcp.iter().map(|at| (to(at), tcp(at.port())));
    grouped(udp.chain(tcp))
}

fn advertised_relays(turn: &Turn) -> String {
    list(turn.relays.iter().map(|relay| relay.advertise))
}

fn bound_relays(turn: &Turn) -> String {
    list(turn.relays.iter().map(|relay| relay.bind))
}

fn relay_ports(turn: &Turn) -> String {
    transports(turn, &range(&turn.relay_ports))
}

/// Ports of what is relayed: of UDP, and of TCP where that is relayed too.
fn transports(turn: &Turn, ports: &str) -> String {
    match turn.tcp_relay {
        true => format!("UDP/{ports}, TCP/{ports}"),
        false => format!("UDP/{ports}"),
    }
}

fn udp(port: u16) -> String {
    format!("UDP/{port}")
}

fn tcp(port: u16) -> String {
    format!("TCP/{port}")
}

/// An address of ours, where it is one.
fn address(at: SocketAddr) -> String {
    match at.ip() {
        ip if ip.is_unspecified() => "this host".into(),
        ip => ip.to_string(),
    }
}

/// Whom [turn] relays to, each with its ports: what it names, and the mediaservers whose names are looked up.
pub(super) fn peers(config: &Config, turn: &Turn) -> Vec<(String, String)> {
    let rules = turn
        .peers
        .iter()
        .map(|rule| (named(config, &net(rule.net)), range(&rule.ports)));
    let mediaservers = config.sip.iter().flat_map(mediaserver_addresses);
    let looked_up = mediaservers.filter(|(_, at)| matches!(at.host, Host::Name(_)));
    let looked_up =
        looked_up.map(|(mediaserver, at)| (named(config, &host(&at.host)), range(&mediaserver.media_ports)));
    rules.chain(looked_up).collect()
}

/// Whether anything has to be looked up.
fn has_names(config: &Config) -> bool {
    let upstreams = config.web.iter().flat_map(|web| &web.upstreams);
    let mut hosts = upstreams.flat_map(|upstream| upstream.backends.iter().map(|backend| &backend.host));
    let mut mediaservers = config
        .sip
        .iter()
        .flat_map(mediaserver_addresses)
        .map(|(_, at)| &at.host);
    let is_name = |host: &Host| matches!(host, Host::Name(_));
    let has_acme = config.https.as_ref().is_some_and(|https| https.acme.is_some());
    has_acme || hosts.any(is_name) || mediaservers.any(is_name)
}

/// A peer, with its name where it is a mediaserver that has one.
fn named(config: &Config, peer: &str) -> String {
    let mut mediaservers = config.sip.iter().flat_map(mediaserver_addresses);
    match mediaservers.find(|(_, at)| host(&at.host) == peer) {
        Some((mediaserver, _)) => format!("{} ({peer})", mediaserver.name),
        None => peer.to_owned(),
    }
}

/// Every address of every mediaserver.
fn mediaserver_addresses(sip: &Sip) -> impl Iterator<Item = (&Mediaserver, &HostPort)> {
    sip.mediaservers
        .iter()
        .flat_map(|mediaserver| mediaserver.addresses.iter().map(move |at| (mediaserver, at)))
}

fn host(host: &Host) -> String {
    match host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    }
}

/// Everything with the same key in one place, in the order of the first of each.
fn grouped(pairs: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in pairs {
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups.into_iter().map(|(key, values)| (key, list(values))).collect()
}

fn flow(from: &str, to: &str, ports: &str, usage: &str) -> Flow {
    [from, to, ports, usage].map(str::to_owned)
}

fn table(flows: &[Flow]) -> String {
    let head = ["From", "To", "Ports to open", "Usage"].map(str::to_owned);
    let rows = || std::iter::once(&head).chain(flows);
    let widths: [usize; 4] = std::array::from_fn(|column| rows().map(|row| row[column].len()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(&format!("  {}\n", line.trim_end()));
    }
    text
}
