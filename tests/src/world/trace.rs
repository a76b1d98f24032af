//! How does a run look? As a sequence diagram in text: a column for everybody who appears, and an arrow for each message.

use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr};

use crate::world::{
    agenda::{MS, SEC, Time},
    site,
};

/// What is kept of a run: lines for people, or only what tells two runs apart.
#[derive(Debug)]
pub struct Trace {
    is_kept: bool,
    lines: Vec<Line>,
    hash: u64,
}

#[derive(Debug)]
struct Line {
    time: Time,
    from: String,
    to: Option<String>,
    what: String,
}

/// Width of a column.
const WIDTH: usize = 11;
/// Lines between two heads.
const HEAD_EVERY: usize = 50;

impl Trace {
    /// An empty trace, which keeps its lines or not.
    pub const fn new(is_kept: bool) -> Self {
        Self {
            is_kept,
            lines: Vec::new(),
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds bytes that crossed the network to what tells runs apart.
    pub fn digest(&mut self, time: Time, bytes: &[u8]) {
        // FNV-1a.
        for byte in time.to_be_bytes().iter().chain(bytes) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// A datagram goes on its way, and arrives or not.
    pub fn datagram(&mut self, time: Time, from: SocketAddr, to: SocketAddr, bytes: &[u8], arrives: bool) {
        self.digest(time, bytes);
        if self.is_kept {
            let port = |at: SocketAddr| match site::name(at).rsplit_once(':') {
                Some((_, port)) => format!(":{port} "),
                None => String::new(),
            };
            self.lines.push(Line {
                time,
                from: site::host(from),
                to: Some(site::host(to)),
                what: format!(
                    "{}> {}{}{}",
                    port(from),
                    port(to),
                    site::what(bytes),
                    if arrives { "" } else { " (lost)" }
                ),
            });
        }
    }

    /// Somebody does something.
    pub fn note(&mut self, time: Time, who: &str, what: impl FnOnce() -> String) {
        if self.is_kept {
            self.lines.push(Line {
                time,
                from: who.to_owned(),
                to: None,
                what: what(),
            });
        }
    }

    /// A number that is the same for the same run only.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The diagram.
    pub fn draw(&self) -> String {
        let names = self.lines.iter().flat_map(|line| [Some(&line.from), line.to.as_ref()]);
        let names: BTreeSet<&String> = names.flatten().collect();
        // Clients to the left of the edge, the LAN to its right.
        let mut columns: Vec<&String> = names.into_iter().collect();
        columns.sort_by_key(|name| (rank(name), *name));
        let place = |name: &String| columns.iter().position(|column| *column == name).unwrap_or(0);
        let mut text = String::new();
        for (number, line) in self.lines.iter().enumerate() {
            if number % HEAD_EVERY == 0 {
                let head: String = columns.iter().map(|name| format!("{name:^WIDTH$}")).collect();
                let _ = writeln!(text, "\n{:>10} {head}", "");
            }
            let (secs, millis) = (line.time / SEC, line.time % SEC / MS);
            let arrow = arrow(columns.len(), place(&line.from), line.to.as_ref().map(place));
            let _ = writeln!(text, "{secs:>6}.{millis:03} {arrow}  {}", line.what);
        }
        text
    }
}

/// Whose column stands where.
fn rank(name: &str) -> u8 {
    match name {
        "world" => 0,
        "edge" => 2,
        _ if ["mds", "pbx", "media", "upstream", "lan"]
            .iter()
            .any(|lan| name.starts_with(lan)) =>
        {
            3
        }
        _ => 1,
    }
}

/// Lifelines, with an arrow from one to another, or a mark on one.
fn arrow(columns: usize, from: usize, to: Option<usize>) -> String {
    let mut line: Vec<char> = " ".repeat(columns * WIDTH).chars().collect();
    let middle = |column: usize| column * WIDTH + WIDTH / 2;
    for column in 0..columns {
        line[middle(column)] = '|';
    }
    match to {
        Some(to) if to != from => {
            let (low, high) = (middle(from.min(to)), middle(from.max(to)));
            line[low + 1..high].fill('-');
            match from < to {
                true => line[high - 1] = '>',
                false => line[low + 1] = '<',
            }
        }
        _ => line[middle(from)] = 'o',
    }
    line.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_arrows_between_lifelines() {
        assert_eq!(arrow(2, 0, Some(1)), "     |--------->|     ");
        assert_eq!(arrow(2, 1, Some(0)), "     |<---------|     ");
        assert_eq!(arrow(2, 1, None), "     |          o     ");
        let mut trace = Trace::new(true);
        trace.datagram(1_500 * MS, SocketAddr::new(site::client(3), 99), site::TURN, b"x", true);
        let diagram = trace.draw();
        assert!(diagram.contains("  client3     edge"), "{diagram}");
        assert!(
            diagram.contains("1.500      |--------->|       :99 > :turn 1 bytes"),
            "{diagram}"
        );
    }
}
