//! Which peers may be relayed to, and from? Address and port, always in one canonical form.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::{Config, Mediaserver, PeerRule, Relay, Turn};

/// The rules that follow from a configuration. Everything that none of them allows is refused.
#[derive(Debug)]
pub(super) struct Policy {
    rules: Vec<Rule>,
    /// Of the mediaservers of the sip role, wherever they are by now.
    mediaservers: Vec<Rule>,
    relays: Vec<Relay>,
    relay_ports: RangeInclusive<u16>,
    public_peers: bool,
    /// Our own listening addresses.
    services: Vec<SocketAddr>,
    /// Addresses that are known to be ours.
    own: Vec<IpAddr>,
}

/// Where peers on the internet have their media: the ports below are of services, which TURN is not for.
pub(super) const PUBLIC_PORTS: RangeInclusive<u16> = 1024..=u16::MAX;

/// Peers that the administrator named.
#[derive(Debug)]
struct Rule {
    net: IpNet,
    ports: RangeInclusive<u16>,
}

/// What an address is, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Somebody's on the internet.
    Public,
    /// In a range with a meaning of its own; a rule opens it only when the rule lies within the range, so that
    /// `0.0.0.0/0` opens neither loopback nor the LAN.
    Special(IpNet),
    /// Never a peer.
    Never,
}

impl Policy {
    /// The rules of a configuration whose turn role is `turn`.
    pub(super) fn new(config: &Config, turn: &Turn) -> Self {
        let mediaservers = config.sip.iter().flat_map(|sip| &sip.mediaservers);
        let services: Vec<SocketAddr> = config
            .tcp_listeners()
            .into_iter()
            .map(|(at, _)| at)
            .chain(config.turn_sockets().iter().copied())
            .chain(config.metrics.map(|metrics| metrics.listen))
            .chain(config.sip.iter().flat_map(|sip| [sip.listen, sip.advertise]))
            .map(canonical)
            .collect();
        let own = turn.relays.iter().flat_map(|relay| [relay.bind, relay.advertise]);
        let own = own.chain(services.iter().map(SocketAddr::ip));
        Self {
            rules: turn.peers.iter().map(Rule::from).collect(),
            mediaservers: mediaservers
                .flat_map(Mediaserver::media)
                .map(|rule| Rule::from(&rule))
                .collect(),
            relays: turn.relays.clone(),
            relay_ports: turn.relay_ports.clone(),
            public_peers: turn.public_peers,
            own: own.filter(|ip| !ip.is_unspecified()).collect(),
            services,
        }
    }

    /// Takes the place of `before`. What names stood for goes on until [`Policy::follow`] says otherwise.
    pub(super) fn after(mut self, before: &mut Self) -> Self {
        self.mediaservers.append(&mut before.mediaservers);
        self
    }

    /// The mediaservers have these addresses from now on.
    pub(super) fn follow(&mut self, mediaservers: &[PeerRule]) {
        self.mediaservers = mediaservers.iter().map(Rule::from).collect();
    }

    /// Whether datagrams may go to this peer and come from it. The address is one that [`Policy::seen`] gave.
    pub(super) fn allows(&self, peer: SocketAddr) -> bool {
        let (ip, port) = (peer.ip(), peer.port());
        if port == 0 || self.is_service(peer) {
            return false;
        }
        if self.is_relayed(peer) {
            return true;
        }
        let scope = scope(ip);
        let named = self
            .rules()
            .any(|rule| rule.ports.contains(&port) && rule.opens(ip, scope));
        named || PUBLIC_PORTS.contains(&port) && self.is_public(ip, scope)
    }

    /// Whether there is any port of this address that [`Policy::allows`]. Permissions have no port, so that each packet
    /// is asked about once more.
    pub(super) fn allows_address(&self, ip: IpAddr) -> bool {
        let scope = scope(ip);
        self.is_relay(ip) || self.rules().any(|rule| rule.opens(ip, scope)) || self.is_public(ip, scope)
    }

    /// The name of a peer in all tables and towards clients: IPv4 in IPv6 clothes is IPv4, and a relayed address of ours
    /// is the one that we advertise, whichever socket address it has on this machine.
    pub(super) fn seen(&self, peer: SocketAddr) -> SocketAddr {
        let mut peer = canonical(peer);
        if self.relay_ports.contains(&peer.port()) {
            peer.set_ip(self.seen_address(peer.ip()));
        }
        peer
    }

    /// The name of a peer's address in the table of permissions: ours is always the advertised one.
    pub(super) fn seen_address(&self, ip: IpAddr) -> IpAddr {
        let ip = ip.to_canonical();
        let ours = self.relays.iter().find(|relay| relay.bind == ip);
        ours.map_or(ip, |relay| relay.advertise)
    }

    /// Where to send what is for this peer: behind a static NAT, a relayed address of ours is reached directly.
    pub(super) fn reached(&self, peer: SocketAddr) -> SocketAddr {
        if !self.relay_ports.contains(&peer.port()) {
            return peer;
        }
        let ours = self.relays.iter().find(|relay| relay.advertise == peer.ip());
        ours.map_or(peer, |relay| SocketAddr::new(relay.bind, peer.port()))
    }

    /// Whether a client address belongs to the servers that we are here for: those get an answer to everything.
    pub(super) fn is_trusted(&self, client: IpAddr) -> bool {
        /// A net of more addresses than this prefix leaves names nobody in particular.
        const PREFIX_LEN_MIN: u8 = 8;
        self.rules()
            .any(|rule| rule.net.prefix_len() >= PREFIX_LEN_MIN && rule.net.contains(&client))
    }

    /// Whether this may be a relayed transport address of ours, of whichever shard; it is one that [`Policy::seen`] gave.
    pub(super) fn is_relayed(&self, peer: SocketAddr) -> bool {
        self.relay_ports.contains(&peer.port()) && self.is_relay(peer.ip())
    }

    fn is_public(&self, ip: IpAddr, scope: Scope) -> bool {
        self.public_peers && scope == Scope::Public && !self.own.contains(&ip)
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain(&self.mediaservers)
    }

    fn is_relay(&self, ip: IpAddr) -> bool {
        self.relays
            .iter()
            .any(|relay| relay.advertise == ip || relay.bind == ip)
    }

    /// Whether we listen there ourselves: no rule opens that.
    pub(super) fn is_service(&self, peer: SocketAddr) -> bool {
        self.services.iter().any(|service| {
            let everywhere =
                service.ip().is_unspecified() && (self.own.contains(&peer.ip()) || peer.ip().is_loopback());
            service.port() == peer.port() && (service.ip() == peer.ip() || everywhere)
        })
    }
}

impl From<&PeerRule> for Rule {
    fn from(rule: &PeerRule) -> Self {
        Self {
            net: rule.net.trunc(),
            ports: rule.ports.clone(),
        }
    }
}

impl Rule {
    fn opens(&self, ip: IpAddr, scope: Scope) -> bool {
        self.net.contains(&ip)
            && match scope {
                Scope::Public => true,
                Scope::Special(range) => range.contains(&self.net),
                Scope::Never => false,
            }
    }
}

/// Whether an address is one of a tunnel from IPv4 to IPv6.
// RFC 8656 section 21.4: "a TURN server MUST NOT accept Teredo or 6to4 addresses".
pub(super) fn is_tunnel(ip: IpAddr) -> bool {
    TUNNELS.iter().any(|net| net.contains(&ip))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn scope(ip: IpAddr) -> Scope {
    if ip.is_unspecified() || NEVER.iter().chain(&TUNNELS).any(|net| net.contains(&ip)) {
        return Scope::Never;
    }
    match SPECIAL.iter().find(|net| net.contains(&ip)) {
        Some(net) => Scope::Special(*net),
        None if ip.is_ipv4() || GLOBAL_UNICAST.contains(&ip) => Scope::Public,
        None => Scope::Never,
    }
}

const fn v4(a: u8, b: u8, c: u8, prefix_len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix_len))
}

const fn v6(a: u16, b: u16, c: u16, prefix_len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix_len))
}

/// Teredo, 6to4, and the IPv4 side of 6to4.
const TUNNELS: [IpNet; 3] = [v6(0x2001, 0, 0, 32), v6(0x2002, 0, 0, 16), v4(192, 88, 99, 24)];

/// "This network", multicast, reserved and broadcast.
const NEVER: [IpNet; 4] = [v4(0, 0, 0, 8), v4(224, 0, 0, 4), v4(240, 0, 0, 4), v6(0xff00, 0, 0, 8)];

/// RFC 6890 and its successors. Among them the first /8 of IPv6, which holds loopback, and IPv4 addresses in clothes:
/// IPv4-compatible, translated (RFC 6052) and the local-use prefix of RFC 8215.
const SPECIAL: [IpNet; 13] = [
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v6(0, 0, 0, 8),
    v6(0x2001, 0, 0, 23),
    v6(0xfc00, 0, 0, 7),
    v6(0xfe80, 0, 0, 10),
    v6(0xfec0, 0, 0, 10),
];

/// What is assigned to hosts on the internet (RFC 4291 section 2.4).
const GLOBAL_UNICAST: IpNet = v6(0x2000, 0, 0, 3);

#[cfg(test)]
pub(super) mod tests;
