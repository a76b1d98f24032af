//! Who meets whom, for how long, and what goes wrong? All of it follows from a seed, and can be made smaller.

use std::fmt;

use crate::{
    chance::Dice,
    world::{
        agenda::{MS, SEC, Time},
        net::Faults,
    },
};

/// What happens to the world as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The administrator changes the configuration to this edition.
    Configure(u8),
    /// The edge is told to end.
    Drain,
    /// The wall clock is set by so many seconds.
    Jump(i64),
    /// One connection in so many breaks.
    Cut(u64),
    /// The checkers look at what the shards hold.
    Look,
    /// Nobody begins anything any more.
    Rest,
    /// Everybody leaves.
    Leave,
    /// All lifetimes have passed.
    AllLeft,
    /// The time of the last drain is over.
    End,
}

/// What somebody who comes to the edge does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads pages.
    Browser,
    /// Calls and is called.
    Phone,
    /// Has its media relayed, by UDP.
    TurnUdp,
    /// By TCP.
    TurnTcp,
    /// By TLS.
    TurnTls,
    /// Keeps a WebSocket with an upstream.
    Tunnel,
    /// Has TCP relayed, from the LAN.
    TcpRelay,
    /// Means harm.
    Attacker,
}

/// What a client may be.
pub const ROLES: &[Role] = &[
    Role::Browser,
    Role::Phone,
    Role::Phone,
    Role::TurnUdp,
    Role::TurnTcp,
    Role::TurnTls,
    Role::Tunnel,
    Role::TcpRelay,
    Role::Attacker,
];

/// A whole story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Whence everything follows.
    pub seed: u64,
    /// How many shards the edge has.
    pub shards: u16,
    /// When everybody leaves.
    pub length: Time,
    /// Who comes: a role, and a number that stays when others are left out.
    pub cast: Vec<(usize, Role)>,
    /// What goes wrong.
    pub faults: Faults,
    /// What happens to the world as a whole.
    pub plan: Vec<(Time, Step)>,
}

impl Scenario {
    /// The story of a seed.
    pub fn of(seed: u64) -> Self {
        let dice = &mut Dice::new(seed, 0);
        // A few for long, or for once many at a time.
        let (length, clients) = match dice.from_to(0, 19) {
            0..=11 => (dice.from_to(15, 60), dice.from_to(1, 10)),
            12..=14 => (dice.from_to(60, 200), dice.from_to(1, 10)),
            15..=18 => (dice.from_to(200, 900), dice.from_to(1, 8)),
            _ => (dice.from_to(10, 60), dice.from_to(20, 80)),
        };
        let length = length * SEC;
        let cast = (0..clients as usize).map(|number| (number, *dice.pick(ROLES)));
        let cast = cast.collect();
        let faults = match dice.happens(1_000) {
            true => Faults::NONE,
            false => Faults::of(dice),
        };
        let mut plan = Vec::new();
        let mut when = |dice: &mut Dice, one_in: u64, step: Step| {
            if dice.place(one_in as usize) == 0 {
                plan.push((dice.from_to(SEC, length), step));
            }
        };
        for edition in [1, 0] {
            when(dice, 2, Step::Configure(edition));
        }
        for _ in 0..4 {
            let one_in = dice.from_to(1, 4);
            when(dice, 3, Step::Cut(one_in));
        }
        let jump = dice.from_to(0, 20_000) as i64 - 8_000;
        when(dice, 3, Step::Jump(jump));
        when(dice, 8, Step::Drain);
        plan.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            shards: dice.from_to(1, 4) as u16,
            length,
            cast,
            faults,
            plan,
        }
    }

    /// A story in which nothing goes wrong, and in which everybody comes to the end of what was begun. What each client gets
    /// out of it depends on that client alone, but not in the hands of those who mean harm.
    pub fn calm(seed: u64, shards: u16) -> Self {
        let mut story = Self::of(seed);
        story.cast.retain(|(_, role)| *role != Role::Attacker);
        // Before anything ends by itself: when the edge sweeps that away is its own affair.
        let rest = story.length.min(200 * SEC);
        Self {
            shards,
            faults: Faults::NONE,
            plan: vec![(rest, Step::Rest)],
            length: rest + 60 * SEC,
            ..story
        }
    }

    /// How often everybody is looked at.
    pub const LOOK: Time = 2 * SEC;

    /// How long the longest thing lives that nobody needs any more: an allocation, and a bit for what sweeps it
    /// away.
    pub const LIFETIMES: Time = 760 * SEC;

    /// How long the last drain may take.
    pub const LAST_DRAIN: Time = 20 * SEC;
}

/// For people: who comes, what goes wrong, and when something happens to all.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = |time: Time| time as f64 / SEC as f64;
        writeln!(
            f,
            "seed {}: {} shards, {:.1} s until all leave",
            self.seed,
            self.shards,
            secs(self.length)
        )?;
        for (number, role) in &self.cast {
            writeln!(f, "  client{number}: {role:?}")?;
        }
        let faults = &self.faults;
        let (low, high) = (faults.delay.0 as f64 / MS as f64, faults.delay.1 as f64 / MS as f64);
        write!(f, "  a way of {low} to {high} ms")?;
        let rates = [
            ("lost", faults.lost),
            ("repeated", faults.repeated),
            ("late", faults.late),
            ("stalled", faults.stalled),
            ("split", faults.split),
            ("narrow", faults.narrow),
            ("dial", faults.dial),
            ("name", faults.name),
            ("bind", faults.bind),
            ("parcel", faults.parcel),
        ];
        for (fault, rate) in rates.into_iter().filter(|(_, rate)| *rate > 0) {
            write!(f, ", {fault} {:.1} %", rate as f64 / 100.0)?;
        }
        writeln!(f)?;
        for (at, step) in self.plan.iter().filter(|(at, _)| *at < self.length) {
            writeln!(f, "  after {:.1} s: {step:?}", secs(*at))?;
        }
        Ok(())
    }
}
