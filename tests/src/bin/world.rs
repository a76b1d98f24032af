//! Looks for faults in simulated worlds: `cargo run --release -p edgeward-tests --bin world -- --help`.

use std::{
    env,
    io::{Write as _, stderr, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use edgeward_tests::world::{Telling, met::Met, run, scenario::Scenario, shrink::shrink};

const HELP: &str = "\
Lets shards of the core live in a simulated world, one for each seed, and looks whether everything is as it must be.

Usage: world [options]

  --seeds N      as many seeds as this (1000)
  --from S       beginning with this one (1)
  --seed S       this one alone, with a diagram of what happened
  --calm         stories in which nothing goes wrong
  --shards N     with so many shards, whatever the seed says
  --no-shrink    show a failure as it came, without looking for a smaller one
  --quiet        no diagram
";

/// What was asked for.
struct Wanted {
    from: u64,
    seeds: u64,
    is_one: bool,
    is_calm: bool,
    shards: Option<u16>,
    shrinks: bool,
    draws: bool,
}

impl Wanted {
    fn story(&self, seed: u64) -> Scenario {
        let usual = Scenario::of(seed);
        let shards = self.shards.unwrap_or(usual.shards);
        match self.is_calm {
            true => Scenario::calm(seed, shards),
            false => Scenario { shards, ..usual },
        }
    }
}

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let wanted = match parse(env::args().skip(1)) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => {
            let _ = write!(stdout(), "{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            let _ = writeln!(stderr(), "{mistake}\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    let (began, mut told, mut met, mut events) = (Instant::now(), Instant::now(), Met::default(), 0);
    for seed in wanted.from..wanted.from + wanted.seeds {
        let scenario = wanted.story(seed);
        let outcome = run(&scenario, Telling::default());
        events += outcome.events;
        met.add(&outcome.met);
        if outcome.failure.is_some() {
            fail(&wanted, &scenario);
            return ExitCode::FAILURE;
        }
        if wanted.is_one {
            show(&scenario, wanted.draws);
        } else if told.elapsed() > PROGRESS {
            told = Instant::now();
            let done = seed - wanted.from + 1;
            let rate = done as f64 / began.elapsed().as_secs_f64();
            let _ = writeln!(
                stderr(),
                "seed {seed}: {done} of {} are well, {rate:.0} a second, {events} events",
                wanted.seeds
            );
        }
    }
    let _ = writeln!(stdout(), "{} seeds are well. They met with:", wanted.seeds);
    for (what, count) in &met.0 {
        let _ = writeln!(stdout(), "{count:>10}  {what}");
    }
    ExitCode::SUCCESS
}

/// The seed first; then the smallest story that can be found, with its diagram.
fn fail(wanted: &Wanted, scenario: &Scenario) {
    let _ = writeln!(stdout(), "FAILED: seed {}", scenario.seed);
    let _ = stdout().flush();
    let outcome = run(scenario, Telling::default());
    let _ = writeln!(stdout(), "{}", outcome.failure.unwrap_or_default());
    let mut smallest = scenario.clone();
    if wanted.shrinks {
        smallest = shrink(scenario, Telling::default(), |smaller| {
            let (clients, secs) = (smaller.cast.len(), smaller.length / 1_000_000_000);
            let _ = writeln!(
                stderr(),
                "still with {clients} clients in {secs} s, {} steps",
                smaller.plan.len()
            );
        });
    }
    show(&smallest, wanted.draws);
}

fn show(scenario: &Scenario, draws: bool) {
    let telling = Telling {
        is_traced: draws,
        ..Telling::default()
    };
    let outcome = run(scenario, telling);
    let _ = writeln!(stdout(), "{scenario}{}", outcome.trace);
    let (secs, end) = (
        outcome.time / 1_000_000_000,
        outcome.failure.unwrap_or_else(|| "well".into()),
    );
    let _ = writeln!(stdout(), "after {secs} s: {end}; hash {:016x}", outcome.hash);
}

/// `None` is a wish for help.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Wanted>, String> {
    let mut wanted = Wanted {
        from: 1,
        seeds: 1_000,
        is_one: false,
        is_calm: false,
        shards: None,
        shrinks: true,
        draws: true,
    };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or_else(|| format!("{argument} wants a value"))?;
            value.parse::<u64>().map_err(|_| format!("{argument} wants a number"))
        };
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--seeds" => wanted.seeds = number()?,
            "--from" => wanted.from = number()?,
            "--seed" => (wanted.from, wanted.seeds, wanted.is_one) = (number()?, 1, true),
            "--calm" => wanted.is_calm = true,
            "--shards" => {
                let shards = u16::try_from(number()?).ok().filter(|shards| (1..=64).contains(shards));
                wanted.shards = Some(shards.ok_or("--shards wants a number from 1 to 64")?);
            }
            "--no-shrink" => wanted.shrinks = false,
            "--quiet" => wanted.draws = false,
            other => return Err(format!("there is no {other}")),
        }
    }
    Ok(Some(wanted))
}
