//! What is the smallest story that still goes wrong? Fewer clients, less time, fewer faults, as long as it fails alike.

use crate::world::{Telling, agenda::SEC, net::Faults, run, scenario::Scenario};

/// Makes a story that fails smaller, and tells of each step.
///
/// A smaller story is another one: it may fail for another reason, which is a find as well, but is not what was looked for.
/// So it counts only when the words of the failure are the same up to their numbers.
pub fn shrink(scenario: &Scenario, telling: Telling, mut tell: impl FnMut(&Scenario)) -> Scenario {
    let kind = |scenario: &Scenario| run(scenario, telling).failure.map(|failure| words(&failure));
    let wanted = kind(scenario);
    let mut best = scenario.clone();
    loop {
        let smaller = candidates(&best)
            .into_iter()
            .find(|candidate| kind(candidate) == wanted);
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
        tell(&best);
    }
}

/// Stories that are a little smaller, those first that save most.
fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    let mut add = |candidate: Scenario| {
        if candidate != *scenario {
            found.push(candidate);
        }
    };
    let count = scenario.cast.len();
    for half in [0..count / 2, count / 2..count] {
        let cast = scenario.cast[half].to_vec();
        add(Scenario {
            cast,
            ..scenario.clone()
        });
    }
    for left_out in 0..count {
        let mut cast = scenario.cast.clone();
        cast.remove(left_out);
        add(Scenario {
            cast,
            ..scenario.clone()
        });
    }
    for part in [2, 4] {
        let length = (scenario.length - scenario.length / part).max(SEC);
        if length < scenario.length {
            add(Scenario {
                length,
                ..scenario.clone()
            });
        }
    }
    for left_out in 0..scenario.plan.len() {
        let mut plan = scenario.plan.clone();
        plan.remove(left_out);
        add(Scenario {
            plan,
            ..scenario.clone()
        });
    }
    if scenario.shards > 1 {
        let shards = scenario.shards - 1;
        add(Scenario {
            shards,
            ..scenario.clone()
        });
    }
    let faults = &scenario.faults;
    let none = Faults::NONE;
    let milder = [
        Faults {
            lost: 0,
            repeated: 0,
            late: 0,
            ..faults.clone()
        },
        Faults {
            stalled: 0,
            split: 0,
            narrow: 0,
            ..faults.clone()
        },
        Faults {
            dial: 0,
            name: 0,
            bind: 0,
            parcel: 0,
            ..faults.clone()
        },
        Faults {
            delay: none.delay,
            ..faults.clone()
        },
    ];
    for faults in milder {
        add(Scenario {
            faults,
            ..scenario.clone()
        });
    }
    found
}

/// A failure without its numbers.
fn words(failure: &str) -> String {
    failure
        .split(|character: char| !character.is_alphabetic())
        .filter(|word| word.len() > 2)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::driver::Sabotage;

    #[test]
    fn a_story_that_fails_is_made_smaller() {
        let telling = Telling {
            sabotage: Some(Sabotage::Misdirect),
            ..Telling::default()
        };
        let fails = |scenario: &Scenario| run(scenario, telling).failure.is_some() && scenario.cast.len() > 2;
        let scenario = (0..)
            .map(Scenario::of)
            .find(fails)
            .expect("a story with somebody who relays");
        let mut steps = 0;
        let smaller = shrink(&scenario, telling, |_| steps += 1);
        assert_eq!(smaller.cast.len(), 1, "{smaller:?}");
        assert!(steps > 0 && run(&smaller, telling).failure.is_some());
    }
}
