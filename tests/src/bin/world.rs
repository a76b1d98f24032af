//! Looks for faults in simulated worlds: `cargo run --release -p edgeward-tests --bin world -- --help`.

use std::{env, io::Write as _, process::ExitCode, time::Instant};

use edgeward_tests::world::{Telling, run, scenario::Scenario};

fn main() -> ExitCode {
    let from: u64 = env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let to: u64 = env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(from);
    let begin = Instant::now();
    for seed in from..=to {
        let scenario = Scenario::of(seed);
        let telling = Telling {
            is_traced: from == to,
            sabotage: None,
        };
        let outcome = run(&scenario, telling);
        if from == to {
            let _ = writeln!(std::io::stdout(), "{}", outcome.trace);
            let _ = writeln!(std::io::stdout(), "{:#?}", outcome.met);
        }
        if let Some(f) = outcome.failure {
            let _ = writeln!(std::io::stdout(), "seed {seed}: {f}");
        }
    }
    let _ = writeln!(std::io::stdout(), "{:?}", begin.elapsed());
    ExitCode::SUCCESS
}
