//! How is `[web]` read: what is forwarded, and to whom?

use super::{
    nearest::nearest,
    preset,
    rates::{self, Found},
    reader::{Reader, Value},
    section::{self, Section},
    urls::{self, Url},
    values,
};
use crate::{
    config::{Host, Rates, Route, TokenRule, Upstream, Web},
    tls::ClientTls,
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
    let given = || cx.sources.env("ASSETS_BURST")?.trim().parse().ok();
    written.or_else(given).unwrap_or(preset::ASSETS_BURST)
}

/// Upstreams by name; a wrong one keeps its name, so that routes to it are not wrong as well.
fn upstreams(cx: &mut Reader<'_>, value: &Value<'_>) -> Vec<(String, Option<Upstream>)> {
    let mut upstreams: Vec<(String, Option<Upstream>)> = Vec::new();
    let _ = section::list(cx, value, |cx, value| {
        let (name, upstream) = upstream(cx, value)?;
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
    let url = section.required(cx, "url", "\"https://10.0.0.10\"", urls::url);
    let host_header = section.optional(cx, "host", urls::host_and_port);
    let authorities = section.optional(cx, "ca", |cx, value| {
        Some((values::file(cx, value)?, value.span().start))
    });
    let has_authorities = section.has("ca");
    let start = section.start();
    let url_site = section.site("url").unwrap_or(start);
    section.finish(cx);
    let name = name?;
    let Some(Url { tls, host, port }) = url else {
        return Some((name, None));
    };
    let tls = match (tls, authorities) {
        (true, Some((authorities, site))) => {
            let expected = host_header.as_deref().map(without_port).map_or_else(
                || match &host {
                    Host::Address(address) => address.to_string(),
                    Host::Name(name) => name.clone(),
                },
                str::to_owned,
            );
            match ClientTls::new(cx.sources.provider(), &authorities, &expected) {
                Ok(tls) => Some(Some(tls)),
                Err(error) => cx.refuse(
                    site,
                    format!("this `ca` cannot be used: {error}"),
                    "name the PEM file of the authority that signed the certificate of the upstream",
                ),
            }
        }
        (true, None) if has_authorities => None,
        (true, None) => cx.refuse(
            url_site,
            format!("nothing says which certificate of `{name}` is to be believed"),
            "add ca = \"upstream-ca.pem\", the authority that signed it, or use an http:// URL",
        ),
        (false, _) if has_authorities => cx.refuse(
            url_site,
            "a `ca` has no use without TLS",
            "write https:// or remove `ca`",
        ),
        (false, _) => Some(None),
    };
    let upstream = tls.map(|tls| Upstream {
        name: name.clone(),
        host,
        port,
        host_header,
        tls,
    });
    Some((name, upstream))
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
            Some(0)
        }
        _ => section.required(cx, "upstream", "\"NAME\", one of [[web.upstream]]", |cx, value| {
            upstream_index(cx, value, upstreams)
        }),
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
        cx.claim_path(urls::claim(&path, below), site);
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

fn upstream_index(cx: &mut Reader<'_>, value: &Value<'_>, upstreams: &[(String, Option<Upstream>)]) -> Option<usize> {
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
