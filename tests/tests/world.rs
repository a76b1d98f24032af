//! Does the edge hold whatever its network and its clients do? A fixed set of simulated worlds, always the same.

use edgeward_tests::world::{Outcome, Telling, driver::Sabotage, met::Met, net::Faults, run, scenario::Scenario};

/// The seeds that each run of the tests goes through.
const SEEDS: std::ops::Range<u64> = 1..101;

/// Everything that must have happened in them, so that they are worth something.
const MET: &[&str] = &[
    // Faults of the network.
    "a datagram was lost",
    "a datagram came twice",
    "a datagram was overtaken",
    "a datagram came to nothing",
    "datagrams came as a train",
    "a stream stalled",
    "a read was split",
    "a write was short",
    "a buffer was full",
    "a stream was left unread",
    "a connection was cut",
    "a connection was half open",
    "a half open connection timed out",
    "a dial was refused",
    "a dial found no way",
    "a dial was not answered",
    "a name was not found",
    "a bind failed",
    // What happens to the edge.
    "the clock jumped",
    "the configuration changed",
    "the edge drained",
    "a connection moved",
    "a datagram was handed on",
    "a shard asked another for a rate",
    "a parcel was lost",
    "a client was refused",
    // Browsers and upstreams.
    "a page was asked for",
    "a body was posted",
    "somebody logged in",
    "a body came whole",
    "an exchange failed visibly",
    "a browser read slowly",
    "an upstream answered until its end",
    "an upstream answered too little",
    "an upstream broke off",
    "an upstream answered nothing",
    "an upstream ended without the goodbye of TLS",
    "a proxy connected for a client",
    "a tunnel opened",
    "a message went through a tunnel and back",
    "a page did not read its tunnel",
    // Telephones and mediaservers.
    "a WebSocket for SIP opened",
    "a telephone registered",
    "an upstream was asked about a token",
    "an upstream knew nothing about a token",
    "a token that does not hold was refused",
    "a telephone could not register as another",
    "a telephone came back",
    "a telephone called",
    "a call of a telephone was answered",
    "a call was taken back",
    "a telephone was called",
    "a telephone picked up",
    "a telephone hung up",
    "a mediaserver called",
    "a call of a mediaserver was answered",
    "a mediaserver said something in a call",
    "a message came in fragments",
    "a mediaserver heard something by TCP",
    "a mediaserver spoke by TCP",
    "a mediaserver was deaf",
    // Media.
    "an allocation by UDP",
    "an allocation by TCP",
    "an allocation by TLS",
    "an allocation of IPv6",
    "an allocation of both families",
    "half of an allocation ended",
    "a TURN client moved",
    "an allocation followed its client",
    "a ticket was not good twice",
    "an allocation for TCP",
    "a peer was reached by a relay",
    "a peer talked by itself",
    "media came by a channel",
    "media came by an indication",
    "a TURN request was refused",
    "a TURN client was silent for long",
    "a TCP relay reached its peer",
    "a TCP relay was bound",
    "a peer connected to a relayed address",
    "a peer came to a TCP relay",
    "a TCP relay carried everything",
    // Those who mean harm.
    "garbage came by UDP",
    "garbage came by TCP",
    "forged STUN came",
    "half a ClientHello came",
    "a head that means two things came",
    "SIP came from a stranger",
];

/// How to see what happened.
fn replay(seed: u64) -> String {
    format!("cargo run --release -p edgeward-tests --bin world -- --seed {seed}")
}

#[track_caller]
fn well(scenario: &Scenario) -> Outcome {
    let outcome = run(scenario, Telling::default());
    if let Some(failure) = &outcome.failure {
        panic!("seed {}: {failure}\n{}", scenario.seed, replay(scenario.seed));
    }
    outcome
}

#[test]
fn a_fixed_set_of_worlds_is_well_and_has_met_with_everything() {
    let mut met = Met::default();
    for seed in SEEDS {
        met.add(&well(&Scenario::of(seed)).met);
    }
    let missing = met.missing(MET);
    assert!(missing.is_empty(), "never happened: {missing:#?}");
}

#[test]
fn a_seed_gives_the_same_run_byte_for_byte() {
    let traced = Telling {
        is_traced: true,
        ..Telling::default()
    };
    for seed in 1..9 {
        let scenario = Scenario::of(seed);
        let [first, second] = [(); 2].map(|()| run(&scenario, traced));
        assert!(first.trace == second.trace, "seed {seed}: the traces differ");
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
        // Whether the trace is kept changes nothing.
        assert_eq!(run(&scenario, Telling::default()).hash, first.hash, "seed {seed}");
        assert_ne!(run(&Scenario::of(seed + 100), Telling::default()).hash, first.hash);
    }
}

#[test]
fn one_shard_and_several_look_the_same() {
    for seed in 1..21 {
        let [one, several] = [1, 4].map(|shards| well(&Scenario::calm(seed, shards)));
        if let Some(client) = who_differs(&one, &several) {
            let [one, several] = [one, several].map(|outcome| outcome.outcomes[&client].clone());
            panic!("seed {seed}, client {client}: {one:#?}, {several:#?}");
        }
    }
}

#[test]
fn shards_that_do_not_find_each_other_look_different() {
    let is_seen = |seed| {
        let calm = |shards, parcel| {
            let faults = Faults { parcel, ..Faults::NONE };
            let story = Scenario::calm(seed, shards);
            run(&Scenario { faults, ..story }, Telling::default())
        };
        let several = calm(4, 10_000);
        several.failure.is_some() || who_differs(&calm(1, 0), &several).is_some()
    };
    assert!((1..21).any(is_seen));
}

/// A client that has got something else in one story than in the other.
fn who_differs(one: &Outcome, other: &Outcome) -> Option<usize> {
    assert!(one.outcomes.keys().eq(other.outcomes.keys()));
    let mut clients = one.outcomes.iter();
    let found = clients.find(|(client, one)| {
        let other = &other.outcomes[*client];
        let (less, more) = if one.len() < other.len() {
            (*one, other)
        } else {
            (other, *one)
        };
        difference(less, more) > DIFFER_MAX || more.len() > less.len() + less.len() / 8 + DIFFER_MAX
    })?;
    Some(*found.0)
}

/// A step takes a moment longer where it goes from shard to shard: two that are under way at once may end in another order,
/// a client may think for longer, and the last ones may come too late to be begun.
const DIFFER_MAX: usize = 3;

/// How many things one client got that the other did not.
fn difference(one: &[String], other: &[String]) -> usize {
    let mut left = other.to_vec();
    let is_missing = |got: &&String| match left.iter().position(|other| other == *got) {
        Some(place) => {
            left.swap_remove(place);
            false
        }
        None => true,
    };
    one.iter().filter(is_missing).count()
}

#[test]
fn a_broken_edge_is_found() {
    for (sabotage, words) in [
        (Sabotage::Misdirect, "relay: 192.0.2.1"),
        (Sabotage::SlowClock, "permission does not live"),
        (Sabotage::Corrupt, "an upstream got"),
        (Sabotage::Misname, "was named"),
        (Sabotage::CrossVia, "sip: user"),
        (Sabotage::Sleep, "was never answered"),
        (Sabotage::Mute, "asks: shard"),
        (Sabotage::Sleep, "everybody has left, but"),
        (Sabotage::KeepRelays, "relay socket was left"),
    ] {
        let telling = Telling {
            sabotage: Some(sabotage),
            ..Telling::default()
        };
        let mut failures = SEEDS.filter_map(|seed| run(&Scenario::of(seed), telling).failure);
        let is_found = failures.any(|failure| failure.contains(words));
        assert!(is_found, "{sabotage:?}: nobody has said {words:?}");
    }
}
