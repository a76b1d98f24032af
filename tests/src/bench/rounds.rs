//! In which order is everything measured, and what becomes of many figures? Loads in rounds, servers in turns, medians.

use std::{
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use super::{Plan, server::Server};

/// One load, offered to every server.
pub struct Load<'a> {
    /// What is offered.
    pub name: String,
    /// What is wanted of the edge.
    pub goal: &'static str,
    /// Whether it is measured in every round, since it varies.
    pub repeats: bool,
    /// Offers it for this long and returns what came of it: the figure that servers are compared by comes first.
    pub offer: Offer<'a>,
}

/// Puts a server under load for so long.
pub type Offer<'a> = Box<dyn Fn(&mut Server<'_>, Duration) -> Vec<Figure> + 'a>;

/// Something measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// What, and in which unit.
    pub name: &'static str,
    /// How much.
    pub value: f64,
}

/// What all rounds say of one load and one server.
#[derive(Debug)]
pub struct Line {
    /// The server.
    pub server: String,
    /// The median of each figure; empty when it never worked.
    pub figures: Vec<Figure>,
    /// The median of the ratios to the first of the others, each within one round.
    pub ratio: Option<f64>,
    /// Rounds that counted.
    pub rounds: usize,
    /// Rounds that failed.
    pub failures: usize,
}

/// The offered load of the first round, which warms everything up.
const WARM_UP: Duration = Duration::from_millis(500);

/// A figure, for the lists that loads return.
pub fn figure(name: &'static str, value: f64) -> Figure {
    Figure { name, value }
}

/// Measures all loads, each in the same round on all servers. Returns the lines of each load.
pub fn measure(plan: &Plan, servers: &mut [Server<'_>], loads: &[Load<'_>]) -> Vec<Vec<Line>> {
    let mut samples = vec![vec![Vec::new(); servers.len()]; loads.len()];
    for round in 0..=plan.rounds {
        for (load, samples) in loads.iter().zip(&mut samples) {
            let is_wanted = match (load.repeats, round) {
                (true, _) | (false, 1) => true,
                (false, _) => false,
            };
            for turn in (0..servers.len()).filter(|_| is_wanted) {
                // Nobody is always the first one.
                let number = (turn + round) % servers.len();
                let window = if round == 0 { WARM_UP } else { plan.window };
                let figures = once(load, &mut servers[number], window, round);
                if round > 0 {
                    samples[number].push(figures);
                }
            }
        }
    }
    let names: Vec<(String, bool)> = servers
        .iter()
        .map(|server| (server.name().to_owned(), server.is_edge()))
        .collect();
    samples.iter().map(|samples| lines(&names, samples)).collect()
}

/// Offers a load once; what breaks is told and does not end the run.
fn once(load: &Load<'_>, server: &mut Server<'_>, window: Duration, round: usize) -> Option<Vec<Figure>> {
    let what = format!("round {round}, {}, {}", load.name, server.name());
    let _ = write!(std::io::stderr(), "{what}: ");
    match catch_unwind(AssertUnwindSafe(|| (load.offer)(server, window))) {
        Ok(figures) => {
            let text: Vec<String> = figures
                .iter()
                .map(|figure| format!("{} {}", figure.name, rounded(figure.value)))
                .collect();
            let _ = writeln!(std::io::stderr(), "{}", text.join(", "));
            Some(figures)
        }
        Err(_) => {
            let _ = writeln!(std::io::stderr(), "failed");
            server.restart();
            None
        }
    }
}

fn lines(servers: &[(String, bool)], samples: &[Vec<Option<Vec<Figure>>>]) -> Vec<Line> {
    let reference = servers.iter().position(|(_, is_edge)| !is_edge);
    servers
        .iter()
        .zip(samples)
        .map(|((server, _), rounds)| {
            let good: Vec<&Vec<Figure>> = rounds.iter().flatten().collect();
            let names = good
                .first()
                .map(|figures| figures.iter().map(|figure| figure.name).collect::<Vec<_>>());
            let figures = names.into_iter().flatten().enumerate().filter_map(|(number, name)| {
                let values = good.iter().filter_map(|figures| Some(figures.get(number)?.value));
                Some(figure(name, median(values.collect())?))
            });
            let ratio = reference.and_then(|reference| {
                let pairs = rounds.iter().zip(&samples[reference]);
                let ratios = pairs
                    .filter_map(|(ours, theirs)| Some(ours.as_ref()?.first()?.value / theirs.as_ref()?.first()?.value));
                median(ratios.collect())
            });
            Line {
                server: server.clone(),
                figures: figures.collect(),
                ratio,
                rounds: good.len(),
                failures: rounds.len() - good.len(),
            }
        })
        .collect()
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

/// Three digits that count.
pub(crate) fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Delays(Vec<Duration>);

impl Delays {
    /// One more.
    pub fn push(&mut self, delay: Duration) {
        self.0.push(delay);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing ever came.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The delay in µs that this share of them does not exceed, not a number when there is none.
    pub fn micros(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        let place = (self.0.len() as f64 * share).ceil() as usize;
        let delay = self.0.get(place.saturating_sub(1));
        delay.map_or(f64::NAN, |delay| delay.as_secs_f64() * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_ratio_is_one_of_a_round() {
        let servers = [("edge".to_owned(), true), ("other".to_owned(), false)];
        let cost = |value| Some(vec![figure("µs", value)]);
        // A slow round is slow for both.
        let samples = [
            vec![cost(1.0), cost(30.0), None],
            vec![cost(2.0), cost(60.0), cost(5.0)],
        ];
        let lines = lines(&servers, &samples);
        assert_eq!((lines[0].ratio, lines[1].ratio), (Some(0.5), Some(1.0)));
        assert_eq!((lines[0].rounds, lines[0].failures), (2, 1));
        assert_eq!(lines[1].figures, [figure("µs", 5.0)]);
    }

    #[test]
    fn a_share_of_the_delays() {
        let mut delays = Delays::default();
        assert!(delays.is_empty() && delays.micros(0.5).is_nan());
        for micros in (1..=100).rev() {
            delays.push(Duration::from_micros(micros));
        }
        assert_eq!(
            (delays.micros(0.5), delays.micros(0.99), delays.len()),
            (50.0, 99.0, 100)
        );
    }
}
