//! What does `preset = "xivo"` stand for? The routes of a XiVO, their zones, and what their requests must bring.
//!
//! Numbers and modes are those of the edge that XiVO documents (2022.10, "Edge features").

use core::time::Duration;

use super::{
    rates::{self, Found},
    reader::{ONE_OF_TWO, Reader, Site, Value},
    urls, values,
};
use crate::config::{Limit, Mode, Rates, Route, TokenRule, Tolerance, Zone};

/// Routes that are treated alike.
struct Block {
    upstream: Backend,
    zone: &'static str,
    /// Where it is not that of the zone.
    tolerance: Option<Tolerance>,
    token: TokenRule,
    websocket: bool,
    /// Of these, nothing below.
    exact: bool,
    body_bytes_max: u64,
    paths: &'static [&'static str],
}

/// Who serves a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    /// The CC/UC server, which there always is.
    Cc,
    /// The XiVO, for the interface of the Meetingroom.
    Xivo,
    /// The Meetingroom; behind the CC server where it is not named.
    Meetingroom,
    /// A SIP proxy on a host of its own.
    Sip,
}

impl Backend {
    const fn name(self) -> &'static str {
        match self {
            Self::Cc => "cc",
            Self::Xivo => "xivo",
            Self::Meetingroom => "meetingroom",
            Self::Sip => "sip",
        }
    }

    /// What to do where something else wants its path too.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Sip => "the preset forwards it to the upstream `sip`: remove that upstream, or [sip]",
            Self::Cc | Self::Xivo | Self::Meetingroom => ONE_OF_TWO,
        }
    }

    /// The upstream that serves it, if any does.
    fn find<'n>(self, mut names: impl Iterator<Item = &'n str> + Clone) -> Option<usize> {
        let own = names.clone().position(|name| name == self.name());
        match self {
            Self::Meetingroom => own.or_else(|| names.position(|name| name == Self::Cc.name())),
            Self::Cc | Self::Xivo | Self::Sip => own,
        }
    }
}

/// The only preset there is.
pub(super) fn preset(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Site> {
    match values::text(cx, value)? {
        "xivo" => Some(value.span().start),
        _ => cx.refuse_value(value, "a preset", "\"xivo\""),
    }
}

/// Adds the zones that the administrator has not named.
pub(super) fn add_zones(found: &mut Found) {
    let Rates { zones, exempt, .. } = &mut found.rates;
    for zone in preset_zones() {
        if !zones.iter().any(|own| own.name == zone.name) {
            zones.push(zone);
        }
    }
    if !found.says_exempt {
        *exempt = rates::private();
    }
    found.sip = limit(&found.rates, AUTH, None);
}

/// The routes of the preset that the administrator has not written. `upstreams` are in their order.
pub(super) fn routes(
    cx: &mut Reader<'_>,
    site: Site,
    assets_burst: u32,
    upstreams: &[&str],
    rates: &Rates,
) -> Option<Vec<Route>> {
    if !upstreams.contains(&Backend::Cc.name()) {
        return cx.refuse(
            site,
            "this preset needs an upstream `cc`",
            "add a block\n[[web.upstream]]\nname = \"cc\"\nurl = \"https://10.0.0.10\"\n\
             and, for a Meetingroom, `xivo` and `meetingroom`",
        );
    }
    let mut routes = Vec::new();
    for block in blocks(assets_burst) {
        let Some(upstream) = block.upstream.find(upstreams.iter().copied()) else {
            continue;
        };
        for path in block.paths {
            let below = !block.exact;
            let claim = urls::claim(path, below);
            if !cx.is_path_taken(&claim) {
                cx.claim_path(claim, site, block.upstream.remedy());
                routes.push(Route {
                    path: (*path).into(),
                    below,
                    upstream: Some(upstream),
                    websocket: block.websocket,
                    body_bytes_max: block.body_bytes_max,
                    limit: limit(rates, block.zone, block.tolerance),
                    token: block.token,
                });
            }
        }
    }
    Some(routes)
}

fn limit(rates: &Rates, zone: &str, tolerance: Option<Tolerance>) -> Option<Limit> {
    let index = rates.zones.iter().position(|own| own.name == zone)?;
    Some(Limit {
        zone: index,
        tolerance: tolerance.unwrap_or(rates.zones[index].tolerance),
    })
}

fn preset_zones() -> [Zone; 5] {
    let zone = |name: &str, count: u32, period: Duration, burst, mode| Zone {
        name: name.into(),
        interval: period / count,
        tolerance: Tolerance { burst, mode },
    };
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    [
        zone(WEBAPP, 30, second, 20, Mode::Delay),
        zone(APIS, 30, second, 10, Mode::Delay),
        zone(AUTH, 20, minute, 12, Mode::NoDelay),
        zone(DAPP, 20, minute, 15, Mode::NoDelay),
        zone(VIDEO, 20, second, 12, Mode::NoDelay),
    ]
}

fn blocks(assets_burst: u32) -> Vec<Block> {
    let block = |upstream, zone, paths| Block {
        upstream,
        zone,
        tolerance: None,
        token: TokenRule::None,
        websocket: false,
        exact: false,
        body_bytes_max: super::web::BODY_BYTES_DEFAULT,
        paths,
    };
    let at_once = |burst| {
        Some(Tolerance {
            burst,
            mode: Mode::NoDelay,
        })
    };
    let assets = |upstream, exact, paths| Block {
        tolerance: at_once(assets_burst),
        exact,
        ..block(upstream, WEBAPP, paths)
    };
    vec![
        block(Backend::Cc, WEBAPP, &["/ccagent", "/ucassistant", "/switchboard"]),
        assets(Backend::Cc, false, &["/assets", "/config"]),
        assets(Backend::Cc, true, &["/pwa-worker.js", "/static/offline.html"]),
        assets(
            Backend::Meetingroom,
            false,
            &[
                "/video/css",
                "/video/images",
                "/video/lang",
                "/video/libs",
                "/video/sounds",
            ],
        ),
        block(Backend::Cc, APIS, &["/xuc", "/version"]),
        Block {
            tolerance: at_once(10),
            exact: true,
            ..block(Backend::Meetingroom, APIS, &["/video/external_api.js"])
        },
        block(Backend::Cc, AUTH, &["/xuc/api/2.0/auth/login", "/invitation/video"]),
        block(Backend::Xivo, AUTH, &["/meetingrooms/token/validate"]),
        Block {
            token: TokenRule::Segments,
            websocket: true,
            ..block(Backend::Cc, AUTH, &["/xuc/api/2.0/cti"])
        },
        Block {
            token: TokenRule::Present,
            websocket: true,
            exact: true,
            ..block(Backend::Sip, AUTH, &["/wssip"])
        },
        block(
            Backend::Cc,
            DAPP,
            &["/install/win64", "/updates/win64", "/updates/debian"],
        ),
        Block {
            body_bytes_max: 10 * super::web::BODY_BYTES_DEFAULT,
            ..block(Backend::Meetingroom, VIDEO, &["/video"])
        },
        Block {
            websocket: true,
            ..block(
                Backend::Meetingroom,
                VIDEO,
                &["/video/xmpp-websocket", "/video/colibri-ws"],
            )
        },
    ]
}

const WEBAPP: &str = "webapp";
const APIS: &str = "apis";
const AUTH: &str = "auth";
const DAPP: &str = "dapp";
const VIDEO: &str = "video";

/// Assets that a page may ask for at once, where neither the configuration nor the environment says it.
pub(super) const ASSETS_BURST: u32 = 50;
