//! How is `[web]` read: what is forwarded, and to whom?

use core::{net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    nearest::nearest,
    preset,
    rates::{self, Found},
    reader::{ONE_OF_TWO, Reader, Site, Value},
    section::{self, Section},
    urls::{self, Url},
    values,
};
use crate::{
    config::{Backend, HealthCheck, Host, Rates, Route, TokenRule, Upstream, Web},
    tls::{ClientTls, Trust},
};

pub(super) fn parse(cx: &mut Reader<'_>, value: &Value<'_>, rates: &mut Found) -> Option<Web> {
    let mut section = Section::new(cx, "[web]", value)?;
    let preset = section.optional(cx, "preset", preset::preset);
    if preset.is_some() {
        preset::add_zones(rates);
    }
    let assets_burst = assets_burst(cx, &mut section);
    let upstreams = section.required(
        cx,
        "upstream",
        "..., or better a block\n[[web.upstream]]\nname = \"uc\"\nurl = \"http://10.0.0.10\"",
        |cx, value| Some(upstreams(cx, value)),
    );
    let read_routes = |cx: &mut Reader<'_>, value: &Value<'_>| {
        section::list(cx, value, |cx, value| {
            route(cx, value, upstreams.as_deref()?, &rates.rates)
        })
    };
    let routes = match section.has("preset") {
        true => section.given_or(cx, "route", Vec::new(), read_routes),
        false => section.required(
            cx,
            "route",
            "..., or better a block\n[[web.route]]\npath = \"/ucassistant\"",
            read_routes,
        ),
    };
    section.finish(cx);
    let of_preset = match (preset, &upstreams) {
        (Some(site), Some(upstreams)) => {
            let names: Vec<&str> = upstreams.iter().map(|(name, _)| name.as_str()).collect();
            preset::routes(cx, site, assets_burst, &names, &rates.rates)?
        }
        _ => Vec::new(),
    };
    Some(Web {
        upstreams: upstreams?
            .into_iter()
            .map(|(_, upstream)| upstream)
            .collect::<Option<_>>()?,
        routes: routes?.into_iter().flatten().chain(of_preset).collect(),
    })
}

/// How many assets of the preset a client may ask for at once; the environment of a XiVO edge may say it too.
fn assets_burst(cx: &mut Reader<'_>, section: &mut Section<'_, '_>) -> u32 {
    let written = section.optional(cx, "assets_burst", values::number(0..=1_000_000));
    if let (Some(site), false) = (section.site("assets_burst"), section.has("preset")) {
        cx.refuse::<()>(
            site,
            "`assets_burst` has no use without a preset",
            "add preset = \"xivo\"",
        );
    }
    let (None, Some(site)) = (written, section.site("preset")) else {
        return written.unwrap_or(preset::ASSETS_BURST);
    };
    let Some(given) = cx.sources.env("ASSETS_BURST") else {
        return preset::ASSETS_BURST;
    };
    given.trim().parse().unwrap_or_else(|_| {
        cx.refuse::<()>(
            site,
            format!("ASSETS_BURST in the environment is {given:?}, which is no number"),
            "set it like ASSETS_BURST=50, or write assets_burst = 50",
        );
        preset::ASSETS_BURST
    })
}

/// Upstreams by name; a wrong one keeps its name, so that routes to it are not wrong as well.
fn upstreams(cx: &mut Reader<'_>, value: &Value<'_>) -> Vec<(String, Option<Upstream>)> {
    let mut upstreams: Vec<(String, Option<Upstream>)> = Vec::new();
    let _ = section::list(cx, value, |cx, value| {
        let (name, upstream) = upstream(cx, value)?;
        if name == NOBODY {
            cx.refuse::<()>(
                value.span().start,
                "no upstream can have the name `none`: it is what a route says that is answered 404",
                "give it another name",
            );
        }
        if upstreams.iter().any(|(other, _)| *other == name) {
            cx.refuse::<()>(
                value.span().start,
                format!("there are two upstreams with the name `{name}`"),
                "give each a name of its own",
            );
        }
        upstreams.push((name, upstream));
        Some(())
    });
    upstreams
}

fn upstream(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<(String, Option<Upstream>)> {
    let mut section = Section::new(cx, "[[web.upstream]]", value)?;
    let name = section.required(cx, "name", "\"uc\"", values::name);
    let urls = section.required(cx, "url", "\"https://10.0.0.10\"", |cx, value| {
        let urls = section::list(cx, value, section::sited(urls::url))?;
        if urls.is_empty() {
            return cx.refuse_value(value, "the URL of a server", "\"https://10.0.0.10\"");
        }
        Some(urls)
    });
    let host_header = section.optional(cx, "host", urls::host_and_port);
    let security = security(cx, &mut section);
    let default = UpstreamDefaults::default();
    let connections_max = section.or(
        cx,
        "connections_max",
        default.connections_max,
        values::number(1..=1_000_000),
    );
    let queue_max = section.or(cx, "queue_max", default.queue_max, values::number(0..=1_000_000));
    let failures_max = section.or(cx, "failures_max", default.failures_max, values::number(1..=1000));
    let rest = section.or(cx, "rest_secs", default.rest, values::seconds);
    let check = section.optional(cx, "check", health_check);
    section.finish(cx);
    let name = name?;
    let Some(urls) = urls else {
        return Some((name, None));
    };
    let backends = urls
        .into_iter()
        .map(|(url, site)| backend(cx, &name, url, site, host_header.as_deref(), &security));
    // All are read, so that each tells what is wrong with it.
    let backends: Vec<_> = backends.collect();
    let upstream = backends.into_iter().collect::<Option<_>>().map(|backends| Upstream {
        name: name.clone(),
        backends,
        host_header,
        connections_max,
        queue_max,
        failures_max,
        rest,
        check,
    });
    Some((name, upstream))
}

/// What TLS towards an upstream wants, as it is written.
struct Security {
    /// Where something is written, and what of it can be read.
    trust: Option<(Site, Option<Trust>)>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

fn security(cx: &mut Reader<'_>, section: &mut Section<'_, '_>) -> Security {
    let authorities = section.optional(cx, "ca", values::file);
    let pins = section.list(cx, "pin", pin);
    let identity = section.optional(cx, "certificate", |cx, value| {
        let mut section = Section::new(cx, "a certificate", value)?;
        let cert = section.required(cx, "cert", "\"client.pem\"", values::file);
        let key = section.required(cx, "key", "\"client.key\"", values::file);
        section.finish(cx);
        Some((cert?, key?))
    });
    let site = ["ca", "pin", "certificate"].iter().find_map(|key| section.site(key));
    let is_whole = section.has("ca") == authorities.is_some() && section.has("certificate") == identity.is_some();
    let trust = pins.filter(|_| is_whole).map(|pins| Trust { authorities, pins });
    Security {
        trust: site.map(|site| (site, trust)),
        identity,
    }
}

/// SHA-256 of a public key in base64, like `openssl dgst -sha256 -binary | base64` prints it.
fn pin(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<[u8; 32]> {
    let wanted = "the SHA-256 of a public key";
    let example = "its 44 characters of base64";
    let text = values::words(cx, value, wanted, example)?;
    let bytes = STANDARD.decode(text.strip_prefix("sha256/").unwrap_or(text)).ok();
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(pin) => Some(pin),
        None => cx.refuse_value(value, wanted, example),
    }
}

fn backend(
    cx: &mut Reader<'_>,
    name: &str,
    Url { tls, host, port }: Url,
    site: Site,
    host_header: Option<&str>,
    security: &Security,
) -> Option<Backend> {
    if let Host::Address(address) = host
        && let Some(own) = cx.listener_at(SocketAddr::new(address, port))
    {
        let line = cx.line(own.site);
        return cx.refuse(
            site,
            format!("`{name}` is this edge itself, listening in line {line}: requests would go round in a circle"),
            "write the URL of the server behind it",
        );
    }
    let tls = match (tls, &security.trust) {
        (false, None) => None,
        (false, Some(_)) => {
            return cx.refuse(
                site,
                "a `ca`, a `pin` or a `certificate` has no use without TLS",
                "write https:// or remove it",
            );
        }
        (true, None) => {
            return cx.refuse(
                site,
                format!("nothing says which certificate of `{name}` is to be believed"),
                "add ca = \"upstream-ca.pem\", the authority that signed it, or use an http:// URL",
            );
        }
        (true, Some((site, trust))) => {
            let trust = trust.as_ref()?;
            let expected = host_header.map(without_port).map_or_else(
                || match &host {
                    Host::Address(address) => address.to_string(),
                    Host::Name(name) => name.clone(),
                },
                str::to_owned,
            );
            match ClientTls::with(cx.sources.provider(), trust, security.identity.as_ref(), &expected) {
                Ok(tls) => Some(tls),
                Err(error) => {
                    return cx.refuse(
                        *site,
                        format!("this `ca`, `pin` or `certificate` cannot be used: {error}"),
                        "name the PEM file of the authority that signed the certificate of the upstream",
                    );
                }
            }
        }
    };
    Some(Backend { host, port, tls })
}

fn health_check(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<HealthCheck> {
    let mut section = Section::new(cx, "a check", value)?;
    let path = section.required(cx, "path", "\"/version\"", urls::path);
    let check = HealthCheck {
        path: String::new(),
        status: section.optional(cx, "status", values::number(200..=599)),
        interval: section.or(cx, "interval_secs", CHECK_INTERVAL, values::seconds),
        rise: section.or(cx, "rise", 2, values::number(1..=100)),
        fall: section.or(cx, "fall", 3, values::number(1..=100)),
    };
    section.finish(cx);
    Some(HealthCheck { path: path?, ..check })
}

/// What an upstream has where nothing is written.
struct UpstreamDefaults {
    connections_max: usize,
    queue_max: usize,
    failures_max: u32,
    rest: Duration,
}

impl Default for UpstreamDefaults {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            queue_max: 1000,
            failures_max: 1,
            rest: Duration::from_secs(10),
        }
    }
}

/// The routes of one block: a path, or several that are treated alike.
fn route(
    cx: &mut Reader<'_>,
    value: &Value<'_>,
    upstreams: &[(String, Option<Upstream>)],
    rates: &Rates,
) -> Option<Vec<Route>> {
    let mut section = Section::new(cx, "[[web.route]]", value)?;
    let paths = section.required(cx, "path", "\"/ucassistant\"", |cx, value| {
        section::list(cx, value, section::sited(urls::path))
    });
    let upstream = match upstreams {
        // Where there is no choice, none has to be made.
        [_] if !section.has("upstream") => {
            section.known("upstream");
            Some(Some(0))
        }
        _ => section.required(
            cx,
            "upstream",
            "\"NAME\", one of [[web.upstream]], or \"none\"",
            |cx, value| match values::name(cx, value)?.as_str() {
                NOBODY => Some(None),
                _ => upstream_index(cx, value, upstreams).map(Some),
            },
        ),
    };
    let below = !section.or(cx, "exact", false, values::flag);
    let websocket = section.or(cx, "websocket", false, values::flag);
    let body_bytes_max = section.or(
        cx,
        "body_bytes_max",
        BODY_BYTES_DEFAULT,
        values::bytes(0..=BODY_BYTES_MAX),
    );
    let limit = rates::limit(cx, &mut section, rates, None);
    let token = section.or(cx, "token", TokenRule::None, token_rule);
    section.finish(cx);
    let routes = paths?.into_iter().map(|(mut path, site)| {
        // What is below a path does not depend on a slash at its end.
        if below && path.len() > 1 && path.ends_with('/') {
            path.pop();
        }
        cx.claim_path(urls::claim(&path, below), site, ONE_OF_TWO);
        Some(Route {
            path,
            below,
            upstream: upstream?,
            websocket,
            body_bytes_max,
            limit,
            token,
        })
    });
    // All paths are claimed, also where the upstream is wrong.
    let routes: Vec<_> = routes.collect();
    routes.into_iter().collect()
}

fn token_rule(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<TokenRule> {
    match values::text(cx, value)? {
        "none" => Some(TokenRule::None),
        "present" => Some(TokenRule::Present),
        "segments" => Some(TokenRule::Segments),
        _ => cx.refuse_value(
            value,
            "what a request must bring",
            "\"none\", \"present\" or \"segments\" (three, as a JWT has)",
        ),
    }
}

pub(super) fn upstream_index<T>(cx: &mut Reader<'_>, value: &Value<'_>, upstreams: &[(String, T)]) -> Option<usize> {
    let name = values::name(cx, value)?;
    let names = || upstreams.iter().map(|(name, _)| name.as_str());
    names().position(|other| other == name).or_else(|| {
        let fix = nearest(&name, names()).map_or_else(
            || format!("write one of these: {}", names().collect::<Vec<_>>().join(", ")),
            |near| format!("write \"{near}\""),
        );
        cx.refuse(value.span().start, format!("there is no upstream `{name}`"), fix)
    })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, _)) if !name.starts_with('[') || name.ends_with(']') => name,
        _ => host,
    }
    .trim_start_matches('[')
    .trim_end_matches(']')
}

pub(super) const BODY_BYTES_DEFAULT: u64 = 1024 * 1024;
const BODY_BYTES_MAX: u64 = 1 << 40;
/// Named in place of an upstream: what is answered 404, though a wider route or the preset would serve it.
const NOBODY: &str = "none";
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
