//! How do the figures become a page? Markdown: a table for loads of one kind, and what they were measured on.

use std::{fmt::Write as _, fs, process::Command};

use super::{
    Plan,
    rounds::{Line, Load, rounded},
};

/// The page of one part.
pub fn page(part: &str, plan: &Plan, packages: &[&str], loads: &[Load<'_>], results: &[Vec<Line>]) -> String {
    let mut page = format!("# bench {part}\n\n{}\n", circumstances(plan, packages));
    let mut columns: Vec<&str> = Vec::new();
    for (load, lines) in loads.iter().zip(results) {
        let names: Vec<&str> = lines
            .iter()
            .find(|line| !line.figures.is_empty())
            .map(|line| line.figures.iter().map(|figure| figure.name).collect())
            .unwrap_or_default();
        if names != columns && !names.is_empty() {
            let _ = write!(page, "\n| load | server | {} | ratio | goal |\n", names.join(" | "));
            let _ = writeln!(page, "|{}", "---|".repeat(names.len() + 4));
            columns = names;
        }
        for line in lines {
            let figures = match line.figures.is_empty() {
                true => vec!["failed".to_owned(); columns.len()],
                false => line.figures.iter().map(|figure| rounded(figure.value)).collect(),
            };
            let ratio = line.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let failures = match line.failures {
                0 => String::new(),
                failures => format!(" ({failures} of {} rounds failed)", failures + line.rounds),
            };
            let _ = writeln!(
                page,
                "| {} | {}{failures} | {} | {ratio} | {} |",
                load.name,
                line.server,
                figures.join(" | "),
                load.goal
            );
        }
    }
    page
}

/// Where and how: without it no figure means anything.
fn circumstances(plan: &Plan, packages: &[&str]) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models: Vec<&str> = cpus
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| Some(line.split_once(':')?.1.trim()))
        .collect();
    let versions: Vec<String> = packages.iter().filter_map(|package| version(package)).collect();
    format!(
        "{} x {}, Linux {}, loopback; {}. Medians of {} rounds of {:.1} s, after one that does not count; the ratio is \
         that of the first column to the first server that is not ours, in the same round. Load of the machine at the \
         end (1, 5, 15 minutes): {}.",
        models.len(),
        models.first().unwrap_or(&"a processor"),
        read("/proc/sys/kernel/osrelease").trim(),
        versions.join(", "),
        plan.rounds,
        plan.window.as_secs_f64(),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}

/// The version of an installed Debian package.
fn version(package: &str) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    let output = query.args(["-W", "-f", "${Version}", package]).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !version.is_empty()).then(|| format!("{package} {version}"))
}
