//! How is `[sip]` read: the mediaservers and the way to them?

use core::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    addresses,
    rates::{self, Found},
    reader::{ONE_OF_TWO, Reader, Site, Transport, Value},
    section::{self, Section},
    urls, values,
};
use crate::config::{Health, Host, HostPort, Https, Mediaserver, Reach, Sip, SipLimits, SipPolicy, TrunkTransport};

/// Reads it. `has_token_check` is whether there is a [token].
pub(super) fn parse(
    cx: &mut Reader<'_>,
    value: &Value<'_>,
    https: Option<&Https>,
    has_token_check: bool,
    rates: &Found,
) -> Option<Sip> {
    let mut section = Section::new(cx, "[sip]", value)?;
    let listen = section.required(cx, "listen", "\"192.0.2.10:5060\"", |cx, value| {
        let address = addresses::socket_address_or(SIP_PORT)(cx, value)?;
        cx.listen(Transport::Udp, address, value.span().start);
        Some(address)
    });
    let advertise = section.optional(cx, "advertise", |cx, value| {
        let address = addresses::socket_address_or(listen.map_or(SIP_PORT, |listen| listen.port()))(cx, value)?;
        check_family(cx, value.span().start, "the advertised address", address, listen?)?;
        Some(address)
    });
    if let Some(listen) = listen
        && listen.ip().is_unspecified()
        && !section.has("advertise")
    {
        cx.refuse::<()>(
            section.site("listen").unwrap_or(section.start()),
            format!("{listen} is no address that a mediaserver can answer to"),
            "listen on one address, or add advertise = \"192.0.2.10:5060\", the one that mediaservers see",
        );
    }
    let public_host = section.optional(cx, "public_host", urls::host_and_port);
    let mediaservers = section.required(
        cx,
        "mediaserver",
        "..., or better a block\n[[sip.mediaserver]]\nname = \"default\"\naddress = \"10.0.0.3:5060\"",
        |cx, value| mediaservers(cx, value, listen, advertise),
    );
    let health = section.or(cx, "health", Health::default(), health);
    let resolve = section.or(cx, "resolve_secs", RESOLVE, values::seconds);
    let origins = section.list(cx, "origins", urls::origin);
    let token_required = section.or(cx, "token_required", true, values::flag);
    let policy = section.or(cx, "policy", SipPolicy::default(), |cx, value| {
        policy(cx, value, has_token_check)
    });
    let limit = rates::limit(cx, &mut section, &rates.rates, rates.sip);
    let limits = section.or(cx, "limits", SipLimits::default(), limits);
    section.finish(cx);
    Some(Sip {
        listen: listen?,
        advertise: advertise.or(listen)?,
        public_host: public_host.or_else(|| default_public_host(https?))?,
        mediaservers: mediaservers?,
        health,
        resolve,
        origins: origins?,
        token_required,
        policy,
        limit,
        limits,
    })
}

/// The name of the web page is that of the WebSocket too.
fn default_public_host(https: &Https) -> Option<String> {
    let host = https.hosts.first()?;
    let port = https.listen.first().map_or(HTTPS_PORT, SocketAddr::port);
    Some(match port {
        HTTPS_PORT => host.clone(),
        _ => format!("{host}:{port}"),
    })
}

fn mediaservers(
    cx: &mut Reader<'_>,
    value: &Value<'_>,
    listen: Option<SocketAddr>,
    advertise: Option<SocketAddr>,
) -> Option<Vec<Mediaserver>> {
    let own = [listen, advertise].map(|own| own.map(HostPort::from));
    let mut names: Vec<String> = Vec::new();
    let mut known: Vec<HostPort> = Vec::new();
    let mediaservers = section::list(cx, value, |cx, value| {
        let mut section = Section::new(cx, "[[sip.mediaserver]]", value)?;
        let name = section.given_or(cx, "name", "default".into(), values::name);
        let addresses = section.required(cx, "address", "\"10.0.0.3:5060\"", |cx, value| {
            mediaserver_addresses(cx, value, listen, &mut known)
        });
        let transport = section.or(cx, "transport", TrunkTransport::default(), transport);
        let reach = section.or(cx, "reach", Reach::default(), reach);
        let media_ports = section.or(cx, "media_ports", MEDIA_PORTS, addresses::ports);
        let name_site = section.site("name").unwrap_or(section.start());
        let address_site = section.site("address").unwrap_or(section.start());
        section.finish(cx);
        if let Some(ours) = addresses
            .iter()
            .flatten()
            .find(|at| own.iter().flatten().any(|own| own == *at))
        {
            cx.refuse::<()>(
                address_site,
                format!("{ours} is where [sip] listens itself: requests would go round in a circle"),
                "write the address of the mediaserver",
            );
        }
        let mediaserver = Mediaserver {
            name: name?,
            addresses: addresses?,
            transport,
            reach,
            media_ports,
        };
        if names.contains(&mediaserver.name) {
            cx.refuse::<()>(
                name_site,
                format!("there are two mediaservers with the name `{}`", mediaserver.name),
                "give each a name of its own; browsers reach NAME by /wssip-NAME",
            );
        } else {
            let path = mediaserver.path();
            cx.claim_path(format!("{path}/..."), name_site, ONE_OF_TWO);
            cx.claim_path(path, name_site, ONE_OF_TWO);
        }
        names.push(mediaserver.name.clone());
        Some(mediaserver)
    })?;
    if mediaservers.is_empty() {
        return cx.refuse(
            value.span().start,
            "[sip] has no mediaserver to speak with",
            "add a block [[sip.mediaserver]]",
        );
    }
    Some(mediaservers)
}

/// One address, or several in order of priority. `known` are those of all mediaservers so far.
fn mediaserver_addresses(
    cx: &mut Reader<'_>,
    value: &Value<'_>,
    listen: Option<SocketAddr>,
    known: &mut Vec<HostPort>,
) -> Option<Vec<HostPort>> {
    let addresses = section::list(cx, value, |cx, value| {
        let address = mediaserver_address(cx, value, listen)?;
        if known.contains(&address) {
            cx.refuse::<()>(
                value.span().start,
                format!("there are two mediaservers at {address}"),
                "name each mediaserver once",
            );
        }
        known.push(address.clone());
        Some(address)
    })?;
    if !(1..=ADDRESSES_MAX).contains(&addresses.len()) {
        return cx.refuse_value(
            value,
            &format!("one address, or a list of up to {ADDRESSES_MAX}"),
            "it like [\"10.0.0.3:5060\", \"10.0.0.4:5060\"], the first choice first",
        );
    }
    Some(addresses)
}

fn mediaserver_address(cx: &mut Reader<'_>, value: &Value<'_>, listen: Option<SocketAddr>) -> Option<HostPort> {
    let wanted = "an address or a name, with or without a port";
    let example = "it like \"10.0.0.3:5060\" or \"pbx.example.com\"";
    let text = values::words(cx, value, wanted, example)?;
    if let Some((host @ Host::Name(_), port)) = urls::split_host_and_port(text) {
        return Some(HostPort {
            host,
            port: port.unwrap_or(SIP_PORT),
        });
    }
    if text.parse::<IpAddr>().is_err() && text.parse::<SocketAddr>().is_err() {
        return cx.refuse_value(value, wanted, example);
    }
    let address = addresses::socket_address_or(SIP_PORT)(cx, value)?;
    if address.ip().is_unspecified() {
        return cx.refuse_value(value, "the address of a mediaserver", "the one it can be reached by");
    }
    if let Some(listen) = listen {
        check_family(cx, value.span().start, "the mediaserver", address, listen)?;
    }
    Some(address.into())
}

fn check_family(cx: &mut Reader<'_>, site: Site, who: &str, address: SocketAddr, listen: SocketAddr) -> Option<()> {
    if address.is_ipv4() == listen.is_ipv4() {
        return Some(());
    }
    let family = |address: SocketAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    cx.refuse(
        site,
        format!("{who} is {}, but [sip] listens on {}", family(address), family(listen)),
        format!("write an {} address, or change listen", family(listen)),
    )
}

fn reach(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Reach> {
    match values::text(cx, value)? {
        "path" => Some(Reach::Path),
        "contact" => Some(Reach::Contact),
        _ => cx.refuse_value(
            value,
            "a way to be reached",
            "\"path\" (RFC 3327) or \"contact\" (for a mediaserver without support_path)",
        ),
    }
}

fn policy(cx: &mut Reader<'_>, value: &Value<'_>, has_token_check: bool) -> Option<SipPolicy> {
    let mut section = Section::new(cx, "[sip.policy]", value)?;
    let default = SipPolicy::default();
    let scanners = section.given_or(cx, "scanners", default.scanners, |cx, value| {
        section::list(cx, value, |cx, value| {
            let words = values::words(cx, value, "a part of a User-Agent", "it like \"friendly-scanner\"")?;
            Some(words.to_ascii_lowercase())
        })
    });
    let policy = SipPolicy {
        gone_status: section.or(cx, "gone_status", default.gone_status, gone_status),
        unregister_gone: section.or(cx, "unregister_gone", default.unregister_gone, values::flag),
        token_names_user: section.or(cx, "token_names_user", default.token_names_user, values::flag),
        register_max: section.or(cx, "register_secs_max", default.register_max, values::seconds),
        strip: section.given_or(cx, "strip", default.strip, field_names)?,
        hide: section.given_or(cx, "hide", default.hide, field_names)?,
        scanners: scanners?,
    };
    if let (true, false, Some(site)) = (
        policy.token_names_user,
        has_token_check,
        section.site("token_names_user"),
    ) {
        cx.refuse::<()>(
            site,
            "`token_names_user` without [token]: nothing says which user a token names",
            "add [token], which verifies tokens and reads their user",
        );
    }
    section.finish(cx);
    Some(policy)
}

fn gone_status(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<u16> {
    match values::number(0..=999)(cx, value)? {
        status @ (430 | 480) => Some(status),
        _ => cx.refuse_value(value, "a status for a browser that is gone", "430 (Flow Failed) or 480"),
    }
}

fn field_names(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Vec<String>> {
    section::list(cx, value, |cx, value| {
        let name = values::words(cx, value, "the name of a header field", "it like \"User-Agent\"")?;
        let start = name.strip_suffix('*').unwrap_or(name);
        let is_name = !start.is_empty() && start.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_needed = |needed: &str| match name.ends_with('*') {
            true => needed
                .get(..start.len())
                .is_some_and(|cut| cut.eq_ignore_ascii_case(start)),
            false => needed.eq_ignore_ascii_case(name),
        };
        if !is_name || NEEDED.iter().any(|needed| is_needed(needed)) {
            return cx.refuse_value(
                value,
                "a header field that can be left out",
                "one like \"User-Agent\" or \"X-*\"",
            );
        }
        Some(name.into())
    })
}

fn transport(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<TrunkTransport> {
    match values::text(cx, value)? {
        "udp" => Some(TrunkTransport::Udp),
        "tcp-when-large" => Some(TrunkTransport::TcpWhenLarge),
        _ => cx.refuse_value(value, "a transport", "\"udp\" or \"tcp-when-large\""),
    }
}

fn health(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Health> {
    let mut section = Section::new(cx, "[sip.health]", value)?;
    let default = Health::default();
    let health = Health {
        interval: section.or(cx, "interval_secs", default.interval, values::seconds),
        failures: section.or(cx, "failures", default.failures, values::number(1..=100)),
        successes: section.or(cx, "successes", default.successes, values::number(1..=100)),
        failover: section.or(cx, "failover_secs", default.failover, values::seconds),
    };
    section.finish(cx);
    Some(health)
}

fn limits(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<SipLimits> {
    let mut section = Section::new(cx, "[sip.limits]", value)?;
    let default = SipLimits::default();
    let limits = SipLimits {
        // RFC 3261 section 18.1.1: every element must take messages of 65,535 bytes; a datagram has 28 bytes less.
        message_bytes_max: section.or(
            cx,
            "message_bytes_max",
            default.message_bytes_max,
            values::bytes(4096..=65_536),
        ),
        grace: section.or(cx, "grace_secs", default.grace, values::seconds),
        hold: section.or(cx, "hold_secs", default.hold, values::seconds),
        ping: section.or(cx, "ping_secs", default.ping, values::seconds),
        buffer_bytes_max: section.or(
            cx,
            "buffer_bytes_max",
            default.buffer_bytes_max,
            values::bytes(65_536..=BUFFER_BYTES_MAX),
        ),
        transactions_per_flow_max: section.or(
            cx,
            "transactions_per_flow_max",
            default.transactions_per_flow_max,
            values::number(4..=10_000),
        ),
        flows_max: section.or(cx, "flows_max", default.flows_max, values::number(1..=10_000_000)),
    };
    section.finish(cx);
    Some(limits)
}

/// Where Asterisk sends and takes RTP unless its `rtp.conf` says otherwise in its samples.
pub(super) const MEDIA_PORTS: RangeInclusive<u16> = 10_000..=20_000;
/// Without these there is no SIP, or no way back.
const NEEDED: [&str; 18] = [
    "Via",
    "v",
    "From",
    "f",
    "To",
    "t",
    "Call-ID",
    "i",
    "CSeq",
    "Max-Forwards",
    "Contact",
    "m",
    "Content-Length",
    "l",
    "Content-Type",
    "c",
    "Route",
    "Record-Route",
];
/// A name whose addresses change is meant to be followed within half a minute.
const RESOLVE: Duration = Duration::from_secs(30);
/// Addresses of one mediaserver.
const ADDRESSES_MAX: usize = 8;
const SIP_PORT: u16 = 5060;
const HTTPS_PORT: u16 = 443;
const BUFFER_BYTES_MAX: u64 = 16 * 1024 * 1024;
