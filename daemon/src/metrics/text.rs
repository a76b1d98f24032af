//! How do the numbers look? The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use edgeward_core::{
    config::Config,
    stats::{Liveness, Snapshot},
};

use crate::log::left_out;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything, each number with what it means. The labels are names of the configuration, so there are few.
pub(super) fn render(snapshot: &Snapshot, config: &Config, is_draining: bool) -> String {
    let mut text = String::new();
    for sample in &snapshot.counters {
        let name = format!("{}_total", sample.name);
        family(&mut text, &name, "counter", sample.help, [("", sample.value)]);
    }
    let help = "Refusals that were not logged because there were too many";
    family(
        &mut text,
        "refusals_unlogged_total",
        "counter",
        help,
        [("", left_out())],
    );
    for sample in &snapshot.gauges {
        family(&mut text, sample.name, "gauge", sample.help, [("", sample.value)]);
    }
    if let Some(sip) = &config.sip {
        let names = sip.mediaservers.iter().map(|server| label("mediaserver", &server.name));
        let is_up = |liveness: &Liveness| u8::from(*liveness == Liveness::Up);
        let up = names.zip(snapshot.mediaservers.iter().map(is_up));
        family(
            &mut text,
            "sip_mediaserver_up",
            "gauge",
            "Whether a mediaserver answers; 0 also before its first answer",
            up,
        );
    }
    if let Some(https) = &config.https {
        let certificates = https.tls.certificates();
        let ends = certificates.iter().filter_map(|certificate| {
            let (_, end) = certificate.validity()?;
            // Messages quote the names of files.
            let name = certificate.label().trim_matches('`');
            Some((label("certificate", name), end.0))
        });
        let help = "When a certificate ends, in seconds since 1970";
        family(&mut text, "certificate_not_after_seconds", "gauge", help, ends);
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

/// A name of the configuration, which may hold anything.
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("{{{name}=\"{value}\"}}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_within_its_quotes() {
        assert_eq!(label("certificate", "a\"b\\c\nd"), r#"{certificate="a\"b\\c\nd"}"#);
    }
}
