//! Does a shard go on with another configuration, and does what was under way end as it began?

use super::{whole::open_sip, *};
use crate::action::Addresses;

/// The configuration with the upstream `cc` on another host.
fn moved() -> String {
    CONFIG.replace("http://10.0.0.10:8080", "http://10.0.0.20:8080")
}

#[test]
fn exchanges_end_as_they_began_and_the_next_one_goes_the_new_way() {
    let mut world = World::new();
    let (mut busy, mut idle) = (world.browser(), world.browser());
    world.send(&mut idle, &get("/ucassistant"));
    let resting = world.answer_dial();
    world.receive(resting, ANSWER.as_bytes());
    world.read(&mut idle);
    world.send(&mut busy, UPGRADE);
    let tunnel = world.answer_dial();
    world.receive(tunnel, SWITCH.as_bytes());
    let mut waiting = world.browser();
    world.send(&mut waiting, &get("/ucassistant/1"));
    // It takes the one that rests.
    let answering = resting;
    let mut other = world.browser();
    world.send(&mut other, &get("/ucassistant/2"));
    let spare = world.answer_dial();
    world.receive(spare, ANSWER.as_bytes());

    world.configure(&moved());
    assert_eq!(world.closed, [spare], "what rests was dialled for the old one");
    world.receive(answering, ANSWER.as_bytes());
    assert!(world.read(&mut waiting).ends_with("hello"));
    assert_eq!(world.closed, [spare, answering]);
    world.asked(tunnel);
    world.send(&mut busy, "frames");
    assert_eq!(world.asked(tunnel), "frames");

    for browser in [&mut idle, &mut waiting] {
        world.send(browser, &get("/ucassistant/3"));
        assert_eq!(world.dialed.last().map(|(_, to)| to.ip()), Some([10, 0, 0, 20].into()));
        let upstream = world.answer_dial();
        world.receive(upstream, ANSWER.as_bytes());
        assert!(world.read(browser).ends_with("hello"));
        world.handle(Input::Eof(upstream));
    }
}

#[test]
fn a_request_under_way_is_repeated_where_it_began() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let tired = world.answer_dial();
    world.receive(tired, ANSWER.as_bytes());
    world.read(&mut browser);
    world.send(&mut browser, &get("/ucassistant/again"));
    world.configure(&moved());
    world.handle(Input::Eof(tired));
    assert_eq!(world.dialed.last().map(|(_, to)| to.ip()), Some([10, 0, 0, 10].into()));
    let fresh = world.answer_dial();
    world.receive(fresh, ANSWER.as_bytes());
    assert!(world.read(&mut browser).ends_with("hello"));
    assert!(world.closed.contains(&fresh));
}

#[test]
fn who_waits_for_room_finds_it_in_the_new_configuration() {
    let full = CONFIG.replace("name = \"cc\"", "name = \"cc\"\nconnections_max = 1\nqueue_max = 5");
    let mut world = World::with(&full, 1).remove(0);
    let mut browsers: Vec<Browser> = (0..2).map(|_| world.browser()).collect();
    for browser in &mut browsers {
        world.send(browser, &get("/ucassistant"));
    }
    world.answer_dial();
    assert_eq!(world.dialed, []);
    world.configure(&full.replace("10.0.0.10", "10.0.0.20"));
    let upstream = world.answer_dial();
    world.receive(upstream, ANSWER.as_bytes());
    assert!(world.read(&mut browsers[1]).ends_with("hello"));
    assert_eq!(world.shard.stats.web.failed, 0);
}

#[test]
fn what_is_known_of_a_server_outlives_a_reload() {
    let check = "check = { path = \"/up\", fall = 1 }";
    let checked = CONFIG.replace("name = \"cc\"", &format!("name = \"cc\"\n{check}"));
    let works = |world: &mut World| {
        let mut browser = world.browser();
        world.send(&mut browser, &get("/ucassistant"));
        !world.read(&mut browser).starts_with("HTTP/1.1 503 ")
    };
    for (reloaded, expected) in [
        (checked.clone(), false),
        // Whoever answers there, and however it is asked, nothing is known of it yet.
        (checked.replace("10.0.0.10", "10.0.0.20"), true),
        (checked.replace("/up", "/health"), true),
    ] {
        let mut world = World::with(&checked, 1).remove(0);
        world.pass(Duration::ZERO);
        let (conn, _) = world.dialed.pop().expect("a check");
        world.handle(Input::Dialed(conn, Err(IoKind::Refused)));
        assert!(!works(&mut world));
        world.configure(&reloaded);
        assert_eq!(works(&mut world), expected);
    }
}

#[test]
fn a_name_that_is_looked_up_is_for_those_who_asked_and_for_nobody_else() {
    let mut world = World::new();
    let mut before = world.browser();
    world.send(&mut before, &get("/named"));
    let old = world.resolved.pop().expect("a question");
    world.configure(&CONFIG.replace("http://cc.example.org:8080", "http://new.example.org:8081"));
    let mut after = world.browser();
    world.send(&mut after, &get("/named"));
    let new = world.resolved.pop().expect("a question");
    for (query, address) in [(new, "10.0.0.21"), (old, "10.0.0.11")] {
        let addresses = Addresses {
            addresses: vec![address.parse().unwrap()],
        };
        world.handle(Input::Resolved(query, Ok(addresses)));
    }
    let dialed: Vec<_> = world.dialed.iter().map(|(_, to)| to.to_string()).collect();
    assert_eq!(dialed, ["10.0.0.21:8081", "10.0.0.11:8080"]);
}

#[test]
fn a_websocket_on_its_way_home_finds_its_mediaserver_by_name() {
    let mut worlds = World::of_shards(2);
    let two = |first: &str, second: &str| {
        let one = |name: &str, host| format!("[[sip.mediaserver]]\nname = \"{name}\"\naddress = \"10.0.0.{host}\"\n");
        let (before, _) = CONFIG.split_once("[[sip.mediaserver]]").expect("a mediaserver");
        format!("{before}{}{}", one(first, 2), one(second, 3))
    };
    worlds[0].configure(&two("default", "mds2"));
    worlds[1].configure(&two("mds1", "default"));
    for token in 0..16 {
        let mut browser = worlds[0].browser();
        worlds[0].send(&mut browser, &open_sip(token));
        let Some((to, _, conn)) = worlds[0].moved.pop() else {
            continue;
        };
        assert_eq!(to, ShardId(1));
        let Stage::Opening(opening) = &conn.stage else {
            panic!("a WebSocket that opens")
        };
        assert_eq!(&*opening.mediaserver, "default");
        let conn = worlds[1].adopt(conn);
        let stage = worlds[1].shard.conns.get(conn.0).map(|conn| &conn.stage);
        assert!(matches!(stage, Some(Stage::Sip(_))), "{stage:?}");
        return;
    }
    panic!("no token has its home on the other shard");
}

#[test]
fn what_needs_a_restart_changes_nothing() {
    let mut world = World::new();
    world.configure(&moved().replace("192.0.2.1:443", "192.0.2.1:444"));
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    assert_eq!(world.dialed[0].1.ip(), IpAddr::from([10, 0, 0, 10]));
}
