//! How is `[server]` read: the process?

use core::time::Duration;

use super::{
    reader::{Reader, Value},
    section::Section,
    values,
};
use crate::config::{Keys, Server};

/// Datagrams wait no longer than this; voice is heard late by more.
const COALESCE_MICROS_MAX: u64 = 1_000;

/// The process, and its keys when it names a file for them.
pub(super) fn parse(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<(Server, Option<Keys>)> {
    let mut section = Section::new(cx, "[server]", value)?;
    let default = Server::default();
    let server = Server {
        workers: section.optional(cx, "workers", values::number(1..=1024)),
        shutdown: section.or(cx, "shutdown_secs", default.shutdown, values::seconds),
        drain: section.or(cx, "drain_secs", default.drain, values::seconds),
        connections_max: section.or(
            cx,
            "connections_max",
            default.connections_max,
            values::number(1..=10_000_000),
        ),
        connections_per_address_max: section.or(
            cx,
            "connections_per_address_max",
            default.connections_per_address_max,
            values::number(1..=10_000_000),
        ),
        coalesce: section
            .optional(cx, "coalesce_micros", values::number(0..=COALESCE_MICROS_MAX))
            .map_or(default.coalesce, Duration::from_micros),
    };
    if let Some(site) = section.site("drain_secs").filter(|_| server.drain > server.shutdown) {
        cx.refuse::<()>(
            site,
            format!(
                "WebSockets cannot be closed over {} s: what is left is cut {} s after a stop was asked for",
                server.drain.as_secs_f64(),
                server.shutdown.as_secs_f64()
            ),
            "make drain_secs no longer than shutdown_secs",
        );
    }
    let keys = section.optional(cx, "key_file", |cx, value| {
        let path = values::text(cx, value)?;
        match cx.sources.keys(path) {
            Ok(keys) => Some(keys),
            Err(error) => cx.refuse(
                value.span().start,
                error,
                "name a file that this user may read, or make in its directory",
            ),
        }
    });
    section.finish(cx);
    Some((server, keys))
}
