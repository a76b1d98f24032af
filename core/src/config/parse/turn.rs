//! How is `[turn]` read: who may relay, by which address, and to whom?

use core::{net::SocketAddr, ops::RangeInclusive};

use toml::de::DeValue;

use super::{
    addresses,
    opaque::opaque_string,
    reader::{Listener, Reader, Site, Transport, Value},
    secret::secret,
    section::{self, Section},
    sip, values,
};
use crate::config::{
    Alternate, AlternateWhen, Mediaserver, PeerRule, Relay, Secret, SecretHash, Sip, Square, Turn, TurnLimits, User,
};

pub(super) fn parse(cx: &mut Reader<'_>, value: &Value<'_>, sip: Option<&Sip>) -> Option<Turn> {
    let mut section = Section::new(cx, "[turn]", value)?;
    let listen = listeners(cx, &mut section);
    let relays = relays(cx, &mut section, listen.as_ref());
    let relay_ports = section.or(cx, "relay_ports", RELAY_PORTS, addresses::ports);
    let tcp_relay = section.or(cx, "tcp_relay", false, values::flag);
    if let Some(relays) = &relays {
        check_relay_ports(cx, &section, relays, &relay_ports, tcp_relay);
    }
    let realm = section.required(cx, "realm", "\"edge.example.com\"", realm);
    let proxy_protocol_from = section.list(cx, "proxy_protocol_from", addresses::net);
    let secrets = section.list(cx, "secrets", secret);
    let secret_hashes = section.given_or(cx, "secret_hashes", SECRET_HASHES.into(), secret_hashes);
    let strict_expiry = section.given_or(cx, "strict_expiry", false, values::flag);
    let users = section.given_or(cx, "user", Vec::new(), users);
    if let (Some([]), Some([])) = (secrets.as_deref(), users.as_deref()) {
        cx.refuse::<()>(
            section.start(),
            "[turn] lets nobody in: it has neither `secrets` nor a [[turn.user]]",
            "add secrets = [{ file = \"/etc/edgeward/turn-secret\" }], the same secret as in the UC server",
        );
    }
    let peers = peers(cx, &mut section, sip);
    let public_peers = section.given_or(cx, "public_peers", true, values::flag);
    let mobility = section.given_or(cx, "mobility", false, values::flag);
    let discovery = discovery(cx, &mut section, listen.as_ref());
    let alternate = section.given_or(cx, "alternate", None, |cx, value| alternate(cx, value).map(Some));
    let limits = section.or(cx, "limits", TurnLimits::default(), limits);
    section.finish(cx);
    let (listen_udp, listen_tcp) = listen?;
    Some(Turn {
        listen_udp,
        listen_tcp,
        proxy_protocol_from: proxy_protocol_from?,
        relays: relays?,
        relay_ports,
        realm: realm?,
        secrets: secrets?,
        secret_hashes: secret_hashes?,
        strict_expiry: strict_expiry?,
        users: users?,
        peers: peers?,
        tcp_relay,
        public_peers: public_peers?,
        mobility: mobility?,
        discovery: discovery?,
        alternate: alternate?,
        limits,
    })
}

/// What is listened on by UDP and by TCP.
fn listeners(cx: &mut Reader<'_>, section: &mut Section<'_, '_>) -> Option<(Vec<SocketAddr>, Vec<SocketAddr>)> {
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    let mut is_right = true;
    for (key, transports) in [
        ("listen", [Transport::Udp, Transport::Tcp].as_slice()),
        ("listen_udp", &[Transport::Udp]),
        ("listen_tcp", &[Transport::Tcp]),
    ] {
        let found = section.list(cx, key, section::sited(addresses::socket_address_or(TURN_PORT)));
        is_right &= found.is_some();
        for (address, site) in found.unwrap_or_default() {
            for transport in transports {
                cx.listen(*transport, address, site);
                match transport {
                    Transport::Udp => udp.push(address),
                    Transport::Tcp => tcp.push(address),
                }
            }
        }
    }
    if is_right && udp.is_empty() && tcp.is_empty() {
        return cx.refuse(
            section.start(),
            "[turn] has no `listen`",
            "add listen = \"0.0.0.0:3478\", which is for UDP and TCP",
        );
    }
    is_right.then_some((udp, tcp))
}

fn relays(
    cx: &mut Reader<'_>,
    section: &mut Section<'_, '_>,
    listen: Option<&(Vec<SocketAddr>, Vec<SocketAddr>)>,
) -> Option<Vec<Relay>> {
    if section.has("relay") {
        return section.optional(cx, "relay", |cx, value| {
            let relays = section::list(cx, value, section::sited(relay))?;
            check_one_of_a_family(cx, &relays)?;
            if relays.is_empty() {
                return cx.refuse_value(value, "an address to relay by", "one, like \"192.0.2.10\"");
            }
            Some(relays.into_iter().map(|(relay, _)| relay).collect())
        });
    }
    section.known("relay");
    // Where we listen on one address, that is the one to relay by.
    let (udp, tcp) = listen?;
    let mut relays: Vec<Relay> = Vec::new();
    for ip in udp.iter().chain(tcp).map(SocketAddr::ip) {
        let has_family = relays.iter().any(|relay| relay.bind.is_ipv4() == ip.is_ipv4());
        if !ip.is_unspecified() && !has_family {
            relays.push(Relay {
                bind: ip,
                advertise: ip,
            });
        }
    }
    if relays.is_empty() {
        return cx.refuse(
            section.start(),
            "[turn] has no `relay`: the address that peers and clients see",
            "add relay = \"192.0.2.10\", or behind a NAT\n\
             relay = { bind = \"10.1.0.2\", advertise = \"192.0.2.10\" }",
        );
    }
    Some(relays)
}

/// An address, or two where a NAT lies between.
fn relay(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Relay> {
    let (bind, advertise) = if let DeValue::Table(_) = value.get_ref() {
        let mut section = Section::new(cx, "a relay", value)?;
        let bind = section.required(cx, "bind", "\"10.1.0.2\"", addresses::address);
        let advertise = section.optional(cx, "advertise", addresses::exact_address);
        let has_advertise = section.has("advertise");
        section.finish(cx);
        let bind = bind?;
        (bind, if has_advertise { advertise? } else { bind })
    } else {
        let address = addresses::address(cx, value)?;
        (address, address)
    };
    // RFC 8656 section 11.2: to a peer, "the source transport address is the relayed transport address", which on all
    // addresses at once would be whichever the system likes; and allocations of two workers would not find each other.
    if bind.is_unspecified() {
        return cx.refuse(
            value.span().start,
            format!("{bind} is no address to relay by: packets would leave from any address of this machine"),
            "write one address of this machine, like \"192.0.2.10\", or behind a NAT\n\
             relay = { bind = \"10.1.0.2\", advertise = \"192.0.2.10\" }",
        );
    }
    if bind.is_ipv4() != advertise.is_ipv4() {
        return cx.refuse(
            value.span().start,
            format!("{bind} and {advertise} are of two families"),
            "make two relays, one for IPv4 and one for IPv6",
        );
    }
    Some(Relay { bind, advertise })
}

fn check_one_of_a_family(cx: &mut Reader<'_>, relays: &[(Relay, Site)]) -> Option<()> {
    let mut families = Vec::new();
    for (relay, site) in relays {
        let family = if relay.bind.is_ipv4() { "IPv4" } else { "IPv6" };
        if families.contains(&family) {
            return cx.refuse(
                *site,
                format!("{} is a second relay for {family}", relay.bind),
                "keep one for each family",
            );
        }
        families.push(family);
    }
    Some(())
}

/// A relayed transport address must never be a socket of ours.
fn check_relay_ports(
    cx: &mut Reader<'_>,
    section: &Section<'_, '_>,
    relays: &[Relay],
    ports: &RangeInclusive<u16>,
    tcp_relay: bool,
) {
    let site = section.site("relay_ports").unwrap_or(section.start());
    let collides = |listener: &Listener| {
        (listener.transport == Transport::Udp || tcp_relay)
            && ports.contains(&listener.at.port())
            && relays.iter().any(|relay| {
                let (ip, bind) = (listener.at.ip(), relay.bind);
                ip.is_ipv4() == bind.is_ipv4() && (ip == bind || ip.is_unspecified())
            })
    };
    let found: Vec<Listener> = cx.listeners().iter().copied().filter(collides).collect();
    for Listener {
        at,
        transport,
        site: other,
    } in found
    {
        let (first, last, line, transport) = (ports.start(), ports.end(), cx.line(other), transport.name());
        cx.refuse::<()>(
            site,
            format!("the relay ports {first}-{last} contain {transport} {at}, listened on in line {line}"),
            "move one of the two",
        );
    }
}

fn realm(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let text = values::text(cx, value)?;
    // RFC 8489 section 14.9: fewer than 128 characters; what needs quoting in a quoted-string is not worth having.
    let is_allowed = |c: char| !c.is_control() && !matches!(c, '"' | '\\');
    if !(1..128).contains(&text.chars().count()) || !text.chars().all(is_allowed) {
        return cx.refuse_value(value, "a realm", "your domain: \"example.com\"");
    }
    Some(opaque_string(text))
}

fn secret_hashes(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Vec<SecretHash>> {
    let (wanted, example) = ("one or both of \"sha1\" and \"sha256\"", "[\"sha1\", \"sha256\"]");
    let hashes = section::list(cx, value, |cx, value| {
        match values::words(cx, value, wanted, example)? {
            "sha1" => Some(SecretHash::Sha1),
            "sha256" => Some(SecretHash::Sha256),
            _ => cx.refuse_value(value, wanted, example),
        }
    })?;
    if hashes.is_empty() {
        return cx.refuse_value(value, wanted, example);
    }
    Some(hashes)
}

/// Whether clients may find out how their NAT behaves, which takes four addresses of ours (RFC 5780 section 6).
fn discovery(
    cx: &mut Reader<'_>,
    section: &mut Section<'_, '_>,
    listen: Option<&(Vec<SocketAddr>, Vec<SocketAddr>)>,
) -> Option<Vec<Square>> {
    let wanted = section.given_or(cx, "nat_discovery", false, values::flag)?;
    if !wanted {
        return Some(Vec::new());
    }
    let (udp, _) = listen?;
    let squares: Vec<Square> = [true, false]
        .into_iter()
        .filter_map(|is_ipv4| Square::of(udp, is_ipv4))
        .collect();
    if squares.is_empty() {
        return cx.refuse(
            section.site("nat_discovery").unwrap_or(section.start()),
            "`nat_discovery` takes two addresses and the same two ports on each, listened on by UDP",
            "write listen_udp = [\"192.0.2.10:3478\", \"192.0.2.10:3479\", \"192.0.2.11:3478\", \"192.0.2.11:3479\"]",
        );
    }
    Some(squares)
}

/// Another server for clients, by its addresses.
fn alternate(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Alternate> {
    let mut section = Section::new(cx, "[turn.alternate]", value)?;
    let servers = section.required(cx, "servers", "[\"192.0.2.20:3478\"]", |cx, value| {
        let servers = section::list(cx, value, addresses::socket_address_or(TURN_PORT))?;
        let count = |is_ipv4| servers.iter().filter(|server| server.is_ipv4() == is_ipv4).count();
        let is_right = !servers.is_empty() && count(true) <= 1 && count(false) <= 1;
        if !is_right || servers.iter().any(|server| server.ip().is_unspecified()) {
            return cx.refuse_value(
                value,
                "an address to go to, or one of each family",
                "\"192.0.2.20:3478\"",
            );
        }
        Some(servers)
    });
    let domain = section.given_or(cx, "domain", None, |cx, value| domain(cx, value).map(Some));
    let when = section.given_or(cx, "when", AlternateWhen::Draining, |cx, value| {
        let (wanted, example) = ("\"draining\", \"full\" or \"always\"", "\"draining\"");
        match values::words(cx, value, wanted, example)? {
            "draining" => Some(AlternateWhen::Draining),
            "full" => Some(AlternateWhen::Full),
            "always" => Some(AlternateWhen::Always),
            _ => cx.refuse_value(value, wanted, example),
        }
    });
    section.finish(cx);
    Some(Alternate {
        servers: servers?,
        domain: domain?,
        when: when?,
    })
}

fn domain(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let text = values::text(cx, value)?;
    // RFC 8489 section 14.16: a domain name of at most 255 bytes.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !(1..=255).contains(&text.len()) || !text.chars().all(is_allowed) {
        return cx.refuse_value(value, "a domain name", "\"turn2.example.com\"");
    }
    Some(text.into())
}

fn users(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Vec<User>> {
    let mut names: Vec<String> = Vec::new();
    section::list(cx, value, |cx, value| {
        let mut section = Section::new(cx, "[[turn.user]]", value)?;
        let name = section.required(cx, "name", "\"asterisk\"", user_name);
        let password = section.required(
            cx,
            "password",
            "{ file = \"/etc/edgeward/asterisk-password\" }",
            password,
        );
        let sources = section.list(cx, "sources", addresses::net);
        let name_site = section.site("name").unwrap_or(section.start());
        section.finish(cx);
        let name = name?;
        if names.contains(&name) {
            cx.refuse::<()>(
                name_site,
                format!("there are two users with the name `{name}`"),
                "give each a name of its own",
            );
        }
        names.push(name.clone());
        Some(User {
            name,
            password: password?,
            sources: sources?,
        })
    })
}

/// A password, as clients make a key of it.
fn password(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Secret> {
    let password = secret(cx, value)?;
    match core::str::from_utf8(password.expose()) {
        Ok(text) => Some(Secret::new(opaque_string(text))),
        Err(_) => Some(password),
    }
}

fn user_name(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let text = opaque_string(values::text(cx, value)?);
    if text.contains(':') {
        return cx.refuse_value(value, "a user name: a colon marks one that ends", "it without a colon");
    }
    // RFC 8489 section 14.3: fewer than 509 bytes.
    if !(1..509).contains(&text.len()) || text.chars().any(char::is_control) {
        return cx.refuse_value(value, "a user name", "it like \"asterisk\"");
    }
    Some(text)
}

/// Everybody that may be relayed to. What [sip] names need not be named again.
fn peers(cx: &mut Reader<'_>, section: &mut Section<'_, '_>, sip: Option<&Sip>) -> Option<Vec<PeerRule>> {
    let peers = section.list(cx, "peer", peer);
    let mediaservers = section.list(cx, "mediaservers", mediaserver);
    let meetingroom = section.list(cx, "meetingroom", meetingroom);
    let from_sip = sip.into_iter().flat_map(|sip| &sip.mediaservers);
    let named = [mediaservers?, meetingroom?, peers?].into_iter().flatten();
    let mut rules = Vec::new();
    for rule in from_sip.flat_map(Mediaserver::media).chain(named) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Some(rules)
}

fn peer(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<PeerRule> {
    let mut section = Section::new(cx, "[[turn.peer]]", value)?;
    let net = section.required(cx, "net", "\"10.0.0.0/24\"", addresses::net);
    let ports = section.required(cx, "ports", "\"10000-20000\"", addresses::ports);
    section.finish(cx);
    Some(PeerRule {
        net: net?,
        ports: ports?,
    })
}

/// A mediaserver by its address, with its ports where they are not the usual ones.
fn mediaserver(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<PeerRule> {
    let DeValue::Table(_) = value.get_ref() else {
        return Some(PeerRule::one_host(
            addresses::exact_address(cx, value)?,
            sip::MEDIA_PORTS,
        ));
    };
    let mut section = Section::new(cx, "a mediaserver", value)?;
    let address = section.required(cx, "address", "\"10.0.0.5\"", addresses::exact_address);
    let ports = section.given_or(cx, "media_ports", sip::MEDIA_PORTS, addresses::ports);
    section.finish(cx);
    Some(PeerRule::one_host(address?, ports?))
}

/// A meeting room by its address: one port takes the media of all.
fn meetingroom(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<PeerRule> {
    let address = addresses::socket_address_or(MEETINGROOM_PORT)(cx, value)?;
    if address.ip().is_unspecified() {
        return cx.refuse_value(value, "an address that can be reached", "the one of the meeting room");
    }
    Some(PeerRule::one_host(address.ip(), address.port()..=address.port()))
}

fn limits(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<TurnLimits> {
    let mut section = Section::new(cx, "[turn.limits]", value)?;
    let default = TurnLimits::default();
    let mut count =
        |cx: &mut Reader<'_>, key, default, most| section.or(cx, key, default, values::number::<usize>(1..=most));
    let allocations_max = count(cx, "allocations_max", default.allocations_max, 10_000_000);
    let allocations_per_user_max = count(
        cx,
        "allocations_per_user_max",
        default.allocations_per_user_max,
        10_000_000,
    );
    let permissions_max = count(cx, "permissions_max", default.permissions_max, 10_000);
    // RFC 8656 section 12: there are channels 0x4000 to 0x4fff.
    let channels_max = count(cx, "channels_max", default.channels_max, 4096);
    let peer_connections_max = count(cx, "peer_connections_max", default.peer_connections_max, 1000);
    let pending_peer_connections_max = count(
        cx,
        "pending_peer_connections_max",
        default.pending_peer_connections_max,
        1000,
    );
    let limits = TurnLimits {
        peer_connections_max,
        pending_peer_connections_max,
        allocations_max,
        allocations_per_user_max,
        permissions_max,
        channels_max,
        allocation_bytes_per_second: bytes_per_second(cx, &mut section, "allocation_bytes_per_second"),
        user_bytes_per_second: bytes_per_second(cx, &mut section, "user_bytes_per_second"),
        returned_packets_per_second: section.or(
            cx,
            "returned_packets_per_second",
            default.returned_packets_per_second,
            values::number(1..=10_000_000),
        ),
        // RFC 8656 section 7.2: a client that asks for nothing gets ten minutes.
        lifetime_max_secs: section.or(
            cx,
            "lifetime_max_secs",
            default.lifetime_max_secs,
            values::number(600..=86_400),
        ),
        unauthenticated_per_second: section.or(
            cx,
            "unauthenticated_per_second",
            default.unauthenticated_per_second,
            values::number(1..=1_000_000),
        ),
        stream_idle: section.or(cx, "stream_idle_secs", default.stream_idle, values::seconds),
        buffer_bytes_max: section.or(
            cx,
            "buffer_bytes_max",
            default.buffer_bytes_max,
            values::bytes(65_536..=BUFFER_BYTES_MAX),
        ),
    };
    section.finish(cx);
    Some(limits)
}

/// A rate, where there is to be a limit at all.
fn bytes_per_second(cx: &mut Reader<'_>, section: &mut Section<'_, '_>, key: &'static str) -> Option<u64> {
    section.optional(cx, key, values::bytes(1024..=BYTES_PER_SECOND_MAX))
}

const SECRET_HASHES: [SecretHash; 2] = [SecretHash::Sha1, SecretHash::Sha256];
const TURN_PORT: u16 = 3478;
const RELAY_PORTS: RangeInclusive<u16> = 30_000..=39_999;
const MEETINGROOM_PORT: u16 = 10_000;
const BYTES_PER_SECOND_MAX: u64 = 1 << 40;
const BUFFER_BYTES_MAX: u64 = 16 * 1024 * 1024;
