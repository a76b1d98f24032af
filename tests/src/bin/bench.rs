//! Compares the edge with other servers: `cargo run --release -p edgeward-tests --bin bench -- --help`.

use std::{env, fs, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use edgeward_tests::bench::{Plan, sip, turn, web};

const HELP: &str = "\
Offers the same load to the edge and to others (coturn, nginx, HAProxy, Kamailio) in turns and compares what it costs them.

Usage: bench [turn] [sip] [web] [options]      all parts when none is named

  --rounds N     rounds that count (5)
  --secs N       how long a load is offered in a round (3)
  --quick        fewer loads and clients, 2 rounds of 1 s: a first look in less than two minutes for each part
  --only TEXT    only loads with this in their name; may be said several times
  --edge FILE    a binary of the edge instead of this source's; may be said several times, to compare them
  --out FOLDER   where the pages go (target/bench)
";

type Part = (&'static str, fn(&Plan) -> String);

const PARTS: [Part; 3] = [("turn", turn::run), ("sip", sip::run), ("web", web::run)];

fn main() -> ExitCode {
    let wanted = match parse(env::args().skip(1)) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => {
            let _ = write!(std::io::stdout(), "{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            let _ = writeln!(std::io::stderr(), "{mistake}\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    for (name, run) in wanted.parts {
        let page = run(&wanted.plan);
        let file = wanted.out.join(format!("{name}.md"));
        let written = fs::create_dir_all(&wanted.out).and_then(|()| fs::write(&file, &page));
        let _ = writeln!(std::io::stdout(), "\n{page}");
        match written {
            Ok(()) => _ = writeln!(std::io::stderr(), "written to {}", file.display()),
            Err(error) => _ = writeln!(std::io::stderr(), "not written to {}: {error}", file.display()),
        }
    }
    ExitCode::SUCCESS
}

struct Wanted {
    parts: Vec<Part>,
    plan: Plan,
    out: PathBuf,
}

/// `None` is a wish for help.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Wanted>, String> {
    let mut wanted = Wanted {
        parts: Vec::new(),
        plan: Plan {
            rounds: 5,
            window: Duration::from_secs(3),
            quick: false,
            only: Vec::new(),
            edges: Vec::new(),
        },
        out: "target/bench".into(),
    };
    let (mut rounds, mut secs) = (None, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        let number = |value: String| match value.parse::<u32>() {
            Ok(number @ 1..) => Ok(number),
            _ => Err(format!("{argument} wants a number from 1 on")),
        };
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--rounds" => rounds = Some(number(value()?)?),
            "--secs" => secs = Some(number(value()?)?),
            "--quick" => wanted.plan.quick = true,
            "--only" => wanted.plan.only.push(value()?),
            "--edge" => {
                let file = fs::canonicalize(value()?).map_err(|error| format!("--edge: {error}"))?;
                wanted.plan.edges.push(file);
            }
            "--out" => wanted.out = value()?.into(),
            name => match PARTS.iter().find(|(part, _)| *part == name) {
                Some(part) => wanted.parts.push(*part),
                None => return Err(format!("there is no {name}")),
            },
        }
    }
    let (default_rounds, default_secs) = wanted.plan.size((5, 3), (2, 1));
    wanted.plan.rounds = rounds.unwrap_or(default_rounds) as usize;
    wanted.plan.window = Duration::from_secs(secs.unwrap_or(default_secs).into());
    if wanted.parts.is_empty() {
        wanted.parts = PARTS.to_vec();
    }
    Ok(Some(wanted))
}
