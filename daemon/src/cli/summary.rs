//! What would run? What a configuration comes to, in a few lines for each role; of limits and policies, that they are set.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use edgeward_core::{
    config::{
        AccessFormat, AlternateWhen, Config, Https, Limit, Mode, Rates, Reach, Server, Sip, TokenCheck, TokenRule,
        TrunkTransport, Turn, Upstream, Web,
    },
    tls::Finding,
};

use super::firewall;
use crate::clock::unix_time;

/// A block for each role.
pub(crate) fn summary(config: &Config) -> String {
    let mut lines = process_lines(config);
    if let Some(https) = &config.https {
        lines.extend(https_lines(https));
    }
    if let Some(web) = &config.web {
        lines.extend(web_lines(web, &config.rates));
    }
    if let Some(sip) = &config.sip {
        lines.extend(sip_lines(sip, &config.rates));
    }
    if let Some(turn) = &config.turn {
        lines.extend(turn_lines(config, turn));
    }
    if !config.rates.zones.is_empty() {
        lines.extend(rates_lines(&config.rates));
    }
    let mut text = String::new();
    for (role, line) in lines {
        text.push_str(format!("{role:<7}{line}").trim_end());
        text.push('\n');
    }
    text
}

type Line = (&'static str, String);

/// The process, and what it tells.
fn process_lines(config: &Config) -> Vec<Line> {
    let Server {
        workers,
        shutdown,
        drain,
        ..
    } = &config.server;
    let workers = workers.map_or_else(|| "one worker for each CPU".into(), |count| format!("workers: {count}"));
    let stop = format!("stops within {} s, WebSockets over {} s", secs(*shutdown), secs(*drain));
    let mut lines = vec![format!("{workers}; {stop}")];
    if let Some(log) = &config.access_log {
        let to = log.file.as_deref().unwrap_or("standard output");
        let format = match log.format {
            AccessFormat::Combined => "combined",
            AccessFormat::Json => "JSON",
        };
        lines.push(format!("access log, {format}, to {to}"));
    }
    if let Some(metrics) = &config.metrics {
        lines.push(format!("numbers and health at http://{}/metrics", metrics.listen));
    }
    if let Some(token) = &config.token {
        lines.push(match token {
            TokenCheck::Signature(_) => "tokens are verified by their signature".into(),
            TokenCheck::Ask(ask) => format!("tokens are verified by asking {}", ask.path),
        });
    }
    label("server", lines.into_iter())
}

fn secs(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn https_lines(https: &Https) -> Vec<Line> {
    let mut lines = match https.listen.as_slice() {
        [] => vec![("https", "only certificates, for TURN over TLS".into())],
        listen => vec![("https", format!("TCP {} as {}", list(listen), list(&https.hosts)))],
    };
    let names = https.tls.names();
    if !names.is_empty() {
        lines.push(("", format!("certificates for {}", list(names))));
    }
    for Finding { what, fix } in https.findings(unix_time()) {
        lines.push(("", format!("warning: {what}")));
        lines.push(("", format!("    fix: {fix}")));
    }
    if let Some(acme) = &https.acme {
        let domains = list(&acme.domains);
        lines.push((
            "",
            format!("a certificate for {domains} is fetched from {}", acme.directory),
        ));
    }
    if let Some(hsts) = https.hsts {
        lines.push((
            "",
            format!("browsers are told to come by TLS only, for {} s", secs(hsts)),
        ));
    }
    if !https.turn_hosts.is_empty() {
        lines.push(("", format!("TURN alone as {}", list(&https.turn_hosts))));
    }
    if https.plain_turn {
        lines.push(("", "TURN without TLS too".into()));
    }
    if !https.proxy_protocol_from.is_empty() {
        let proxies = https.proxy_protocol_from.iter().map(net);
        lines.push(("", format!("PROXY protocol from {}", list(proxies))));
    }
    if !https.trusted_proxies.is_empty() {
        let proxies = https.trusted_proxies.iter().map(net);
        lines.push(("", format!("behind the proxies {}", list(proxies))));
    }
    lines
}

fn web_lines(web: &Web, rates: &Rates) -> Vec<Line> {
    let width = web.routes.iter().map(|route| route.path.len()).max().unwrap_or(0) + "/...".len();
    let routes = web.routes.iter().map(|route| {
        let path = match (route.below, route.path.as_str()) {
            (true, "/") => "/...".into(),
            (true, path) => format!("{path}/..."),
            (false, path) => path.to_owned(),
        };
        let websocket = if route.websocket { ", WebSockets too" } else { "" };
        let token = match route.token {
            TokenRule::None => "",
            TokenRule::Present => ", with a token",
            TokenRule::Segments => ", with a token of three segments",
        };
        let counted = route.limit.map_or_else(String::new, |limit| counted(rates, limit));
        let Some(upstream) = route.upstream.map(|upstream| &web.upstreams[upstream]) else {
            return format!("{path:<width$}  -> nobody: 404");
        };
        let body = match route.body_bytes_max {
            BODY_BYTES_DEFAULT => String::new(),
            most => format!(", bodies up to {most} bytes"),
        };
        format!(
            "{path:<width$}  -> {} {}{websocket}{token}{body}{counted}",
            upstream.name,
            url(upstream)
        )
    });
    let checks = web.upstreams.iter().filter_map(|upstream| {
        let check = upstream.check.as_ref()?;
        let (name, path, interval) = (&upstream.name, &check.path, secs(check.interval));
        Some(format!("{name} is asked for {path} every {interval} s"))
    });
    label("web", routes.chain(checks))
}

/// What a route lets through where nothing is said: not worth a word.
const BODY_BYTES_DEFAULT: u64 = 1024 * 1024;

fn rates_lines(rates: &Rates) -> Vec<Line> {
    let zones = rates.zones.iter().map(|zone| {
        let each = zone.interval.as_secs_f64();
        let rate = match each < 1.0 {
            true => format!("{:.0}/s", 1.0 / each),
            false => format!("{:.0}/min", 60.0 / each),
        };
        format!("{} {rate} for each client", zone.name)
    });
    let exempt = match rates.exempt.as_slice() {
        [] => "nobody is exempt".to_owned(),
        exempt => format!("exempt: {}", list(exempt.iter().map(net))),
    };
    label("rates", zones.chain([exempt]))
}

/// What counts a route.
fn counted(rates: &Rates, limit: Limit) -> String {
    let mode = match limit.tolerance.mode {
        Mode::Delay => "delay",
        Mode::NoDelay => "nodelay",
    };
    format!(
        "; zone {} burst {} {mode}",
        rates.zones[limit.zone].name, limit.tolerance.burst
    )
}

fn url(upstream: &Upstream) -> String {
    let urls: Vec<String> = upstream.backends.iter().map(ToString::to_string).collect();
    urls.join(", else ")
}

fn sip_lines(sip: &Sip, rates: &Rates) -> Vec<Line> {
    let advertised = match sip.advertise == sip.listen {
        true => String::new(),
        false => format!(", advertised as {}", sip.advertise),
    };
    let token = if sip.token_required { ", with a token" } else { "" };
    let listen = format!(
        "UDP {}{advertised}; WebSockets at wss://{}{token}{}",
        sip.listen,
        sip.public_host,
        sip.limit.map_or_else(String::new, |limit| counted(rates, limit))
    );
    let width = sip.mediaservers.iter().map(|m| m.path().len()).max().unwrap_or(0);
    let mediaservers = sip.mediaservers.iter().map(|mediaserver| {
        let reach = match mediaserver.reach {
            Reach::Path => "Path",
            Reach::Contact => "Contact",
        };
        let transport = match mediaserver.transport {
            TrunkTransport::Udp => "",
            TrunkTransport::TcpWhenLarge => ", by TCP what is large",
        };
        format!(
            "{:<width$}  -> {} {}{transport}, reached back by {reach}",
            mediaserver.path(),
            mediaserver.name,
            list(&mediaserver.addresses)
        )
    });
    let origins = (!sip.origins.is_empty()).then(|| format!("for pages of {}", list(&sip.origins)));
    let users = sip
        .policy
        .token_names_user
        .then(|| "each WebSocket speaks for the user of its token".to_owned());
    label(
        "sip",
        std::iter::once(listen).chain(mediaservers).chain(origins).chain(users),
    )
}

fn turn_lines(config: &Config, turn: &Turn) -> Vec<Line> {
    let listen = [("UDP", &turn.listen_udp), ("TCP", &turn.listen_tcp)]
        .into_iter()
        .filter(|(_, listen)| !listen.is_empty())
        .map(|(transport, listen)| format!("{transport} {}", list(listen)));
    let listen = listen.collect::<Vec<_>>().join("; ");
    let transports = if turn.tcp_relay { "UDP and TCP" } else { "UDP" };
    let relays = turn.relays.iter().map(|relay| {
        let advertised = match relay.advertise == relay.bind {
            true => String::new(),
            false => format!(", advertised as {}", relay.advertise),
        };
        format!(
            "relays by {} {transports} {}{advertised}",
            relay.bind,
            range(&turn.relay_ports)
        )
    });
    let credentials = format!(
        "realm {}; shared secrets: {}; users: {}",
        turn.realm,
        turn.secrets.len(),
        match turn.users.as_slice() {
            [] => "none".into(),
            users => list(users.iter().map(|user| match user.sources.as_slice() {
                [] => user.name.clone(),
                sources => format!(
                    "{} from {}",
                    user.name,
                    sources.iter().map(net).collect::<Vec<_>>().join(" and ")
                ),
            })),
        }
    );
    let peers = firewall::peers(config, turn).into_iter();
    let peers = peers.map(|(peer, ports)| format!("may relay to {peer} {transports} {ports}"));
    let public = turn
        .public_peers
        .then(|| format!("may relay to public addresses {transports} 1024-65535"));
    let mobility = turn
        .mobility
        .then(|| "allocations follow clients that change their network".to_owned());
    let discovery = (!turn.discovery.is_empty()).then(|| "clients may test their NAT".to_owned());
    let alternate = turn.alternate.as_ref().map(|alternate| {
        let when = match alternate.when {
            AlternateWhen::Draining => "while this one drains",
            AlternateWhen::Full => "while this one drains or is full",
            AlternateWhen::Always => "always",
        };
        format!("sends clients to {} {when}", list(&alternate.servers))
    });
    let lines = [listen].into_iter().chain(relays).chain([credentials]);
    let more = [public, mobility, discovery, alternate].into_iter().flatten();
    label("turn", lines.chain(peers).chain(more))
}

/// Lines of one role, of which the first says so.
fn label(role: &'static str, lines: impl Iterator<Item = String>) -> Vec<Line> {
    lines
        .zip(std::iter::once(role).chain(std::iter::repeat("")))
        .map(|(line, role)| (role, line))
        .collect()
}

/// One behind the other.
pub(crate) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// A range of ports, as the tables of a firewall have it.
pub(crate) fn range(ports: &RangeInclusive<u16>) -> String {
    match (ports.start(), ports.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

/// A network; one address without its prefix.
pub(crate) fn net(net: impl Display) -> String {
    let text = net.to_string();
    let whole = if text.contains(':') { "/128" } else { "/32" };
    text.strip_suffix(whole).map_or_else(|| text.clone(), str::to_owned)
}
