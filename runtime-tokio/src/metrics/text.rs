//! How do the numbers look? The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use edgeward_core::{config::Config, stats::Snapshot};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything, each number with what it means. The labels are names of the configuration, so there are few.
pub(super) fn render(snapshot: &Snapshot, config: &Config, is_draining: bool) -> String {
    let mut text = String::new();
    for sample in &snapshot.counters {
        let name = format!("{}_total", sample.name);
        family(&mut text, &name, "counter", sample.help, [("", sample.value)]);
    }
    for sample in &snapshot.gauges {
        family(&mut text, sample.name, "gauge", sample.help, [("", sample.value)]);
    }
    if let Some(sip) = &config.sip {
        let names = sip
            .mediaservers
            .iter()
            .map(|server| format!("{{mediaserver=\"{}\"}}", server.name));
        let up = names.zip(snapshot.mediaservers.iter().map(|up| u8::from(*up)));
        family(
            &mut text,
            "sip_mediaserver_up",
            "gauge",
            "Whether a mediaserver answers",
            up,
        );
    }
    family(
        &mut text,
        "draining",
        "gauge",
        "Whether the process ends",
        [("", u8::from(is_draining))],
    );
    let build = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    family(&mut text, "build_info", "gauge", "Which build this is", [(build, 1)]);
    text
}

fn family<L: Display>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, impl Display)>,
) {
    // Writing to a string cannot fail.
    let _ = write!(text, "# HELP edgeward_{name} {help}.\n# TYPE edgeward_{name} {kind}\n");
    for (labels, value) in samples {
        let _ = writeln!(text, "edgeward_{name}{labels} {value}");
    }
}
