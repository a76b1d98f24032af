//! How is `[rates]` read: how often may clients come?

use core::time::Duration;

use ipnet::IpNet;

use super::{
    addresses,
    nearest::nearest,
    reader::{Reader, Value},
    section::Section,
    values,
};
use crate::config::{Limit, Mode, Rates, Tolerance, Zone};

/// The rates, and what others need to know of how they were written.
#[derive(Default)]
pub(super) struct Found {
    pub(super) rates: Rates,
    /// Whether the text says who is exempt.
    pub(super) says_exempt: bool,
    /// What counts WebSockets for SIP, where nothing else is said.
    pub(super) sip: Option<Limit>,
}

pub(super) fn parse(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Found> {
    let mut section = Section::new(cx, "[rates]", value)?;
    let says_exempt = section.has("exempt");
    let exempt = section.list(cx, "exempt", nets);
    let clients_max = section.or(
        cx,
        "clients_max",
        Rates::default().clients_max,
        values::number(16..=10_000_000),
    );
    let mut zones: Vec<Zone> = Vec::new();
    section.list(cx, "zone", |cx, value| {
        let zone = zone(cx, value)?;
        if zones.iter().any(|other| other.name == zone.name) {
            return cx.refuse(
                value.span().start,
                format!("there are two zones with the name `{}`", zone.name),
                "give each a name of its own",
            );
        }
        zones.push(zone);
        Some(())
    });
    section.finish(cx);
    Some(Found {
        rates: Rates {
            zones,
            exempt: exempt?.into_iter().flatten().collect(),
            clients_max,
        },
        says_exempt,
        sip: None,
    })
}

fn zone(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Zone> {
    let mut section = Section::new(cx, "[[rates.zone]]", value)?;
    let name = section.required(cx, "name", "\"auth\"", values::name);
    let interval = section.required(cx, "rate", "\"20/min\"", rate);
    let own = Tolerance {
        burst: 0,
        mode: Mode::NoDelay,
    };
    let tolerance = interval.map(|interval| tolerance(cx, &mut section, interval, own));
    if tolerance.is_none() {
        section.known("burst");
        section.known("mode");
    }
    section.finish(cx);
    Some(Zone {
        name: name?,
        interval: interval?,
        tolerance: tolerance?,
    })
}

/// What a route says of the zone that counts its requests; `default` is what it says when it says nothing.
pub(super) fn limit(
    cx: &mut Reader<'_>,
    section: &mut Section<'_, '_>,
    rates: &Rates,
    default: Option<Limit>,
) -> Option<Limit> {
    let named = section.optional(cx, "zone", |cx, value| zone_index(cx, value, rates));
    let zone = match named {
        Some(zone) => Some(zone),
        None if section.has("zone") => None,
        None => default.map(|limit| limit.zone),
    };
    let Some((index, zone)) = zone.and_then(|index| Some((index, rates.zones.get(index)?))) else {
        for key in ["burst", "mode"] {
            section.known(key);
            if let (Some(site), false) = (section.site(key), section.has("zone")) {
                cx.refuse::<()>(
                    site,
                    format!("`{key}` has no use without a zone"),
                    "add zone = \"NAME\"",
                );
            }
        }
        return None;
    };
    let default = match default {
        Some(limit) if limit.zone == index => limit.tolerance,
        _ => zone.tolerance,
    };
    Some(Limit {
        zone: index,
        tolerance: tolerance(cx, section, zone.interval, default),
    })
}

fn tolerance(cx: &mut Reader<'_>, section: &mut Section<'_, '_>, interval: Duration, default: Tolerance) -> Tolerance {
    let tolerance = Tolerance {
        burst: section.or(cx, "burst", default.burst, values::number(0..=BURST_MAX)),
        mode: section.or(cx, "mode", default.mode, mode),
    };
    let longest = interval.saturating_mul(tolerance.burst);
    if tolerance.mode == Mode::Delay && longest > DELAY_MAX {
        let site = ["mode", "burst"].iter().find_map(|key| section.site(key));
        cx.refuse::<()>(
            site.unwrap_or(section.start()),
            format!("a request may be held for {} s", longest.as_secs()),
            format!(
                "write mode = \"nodelay\", or a burst that the rate serves in {} s",
                DELAY_MAX.as_secs()
            ),
        );
    }
    tolerance
}

fn zone_index(cx: &mut Reader<'_>, value: &Value<'_>, rates: &Rates) -> Option<usize> {
    let name = values::name(cx, value)?;
    let names = || rates.zones.iter().map(|zone| zone.name.as_str());
    names().position(|other| other == name).or_else(|| {
        let fix = match (nearest(&name, names()), rates.zones.as_slice()) {
            (Some(near), _) => format!("write \"{near}\""),
            (None, []) => format!("add a block\n[[rates.zone]]\nname = \"{name}\"\nrate = \"30/s\""),
            (None, _) => format!("write one of these: {}", names().collect::<Vec<_>>().join(", ")),
        };
        cx.refuse(value.span().start, format!("there is no zone `{name}`"), fix)
    })
}

/// Requests in a time, like `"30/s"` or `"20/min"`; the time from one to the next.
fn rate(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Duration> {
    let wanted = "a rate";
    let example = "it like \"30/s\" or \"20/min\"";
    let text = values::words(cx, value, wanted, example)?;
    let (count, unit) = text.split_once('/').unwrap_or((text, ""));
    let period = match unit.trim() {
        "s" => Duration::from_secs(1),
        "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return cx.refuse_value(value, wanted, example),
    };
    match count.trim().parse::<u32>() {
        Ok(count @ 1..=RATE_MAX) => Some(period / count),
        _ => cx.refuse_value(value, &format!("{wanted} of 1 to {RATE_MAX}"), example),
    }
}

fn mode(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Mode> {
    match values::text(cx, value)? {
        "delay" => Some(Mode::Delay),
        "nodelay" => Some(Mode::NoDelay),
        _ => cx.refuse_value(
            value,
            "a mode",
            "\"delay\" (a burst is served at the rate) or \"nodelay\" (at once)",
        ),
    }
}

/// A network, one address, or `"private"` for all that RFC 1918 and RFC 4193 leave to everybody.
fn nets(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Vec<IpNet>> {
    match value.get_ref().as_str() {
        Some("private") => Some(private()),
        _ => addresses::net(cx, value).map(|net| vec![net]),
    }
}

/// RFC 1918 section 3 and RFC 4193 section 3.1.
pub(super) fn private() -> Vec<IpNet> {
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
        .map(|net| net.parse().expect("a network"))
        .into()
}

/// Longest time that a request may be held.
const DELAY_MAX: Duration = Duration::from_secs(30);
const BURST_MAX: u64 = 1_000_000;
const RATE_MAX: u32 = 1_000_000;
