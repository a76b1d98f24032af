//! Is a client that comes too often slowed down or sent away, on whichever shard it comes, and nobody else?

use super::*;

const RATES: &str = r#"
[rates]
exempt = ["203.0.113.0/24"]

[[rates.zone]]
name = "slow"
rate = "1/s"
burst = 2
mode = "delay"

[[rates.zone]]
name = "strict"
rate = "20/min"
burst = 1

[https]
listen = ["192.0.2.1:443"]
certificates = [{ cert = "cert.pem", key = "key.pem" }]
hosts = ["edge.example.org"]
trusted_proxies = ["192.0.2.99"]

[[web.upstream]]
name = "cc"
url = "http://10.0.0.10:8080"

[[web.route]]
path = "/page"
zone = "slow"

[[web.route]]
path = "/login"
zone = "strict"

[[web.route]]
path = "/free"

[sip]
listen = "10.0.0.1:5060"
zone = "strict"

[[sip.mediaserver]]
address = "10.0.0.2"
"#;

fn world() -> World {
    World::with(RATES, 1).remove(0)
}

/// Upstreams answer whatever they were asked.
fn serve(world: &mut World) {
    while !world.dialed.is_empty() {
        world.answer_dial();
    }
    let asked: Vec<ConnId> = world.written.keys().copied().collect();
    for conn in asked {
        if world
            .shard
            .upstream(conn)
            .is_some_and(|(upstream, _)| upstream.pair.is_some())
        {
            world.asked(conn);
            world.receive(conn, ANSWER.as_bytes());
        }
    }
}

fn statuses(world: &mut World, browser: &mut Browser) -> Vec<u16> {
    serve(world);
    let read = world.read(browser);
    let status = |(at, _): (usize, &str)| read[at + 9..at + 12].parse().expect("a status");
    read.match_indices("HTTP/1.1 ").map(status).collect()
}

#[test]
fn who_comes_too_often_is_told_when_to_come_again() {
    let mut world = world();
    let mut browser = world.browser();
    for _ in 0..2 {
        world.send(&mut browser, &get("/login"));
        assert_eq!(statuses(&mut world, &mut browser), [200]);
    }
    world.send(&mut browser, &get("/login"));
    let answer = world.read(&mut browser);
    assert!(
        answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nRetry-After: 3\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("Connection: close"), "{answer}");
    // What is not counted is not concerned, nor is another client.
    world.send(&mut browser, &get("/free"));
    assert_eq!(statuses(&mut world, &mut browser), [200]);
    let mut other = world.browser_of("198.51.100.2:50000");
    world.send(&mut other, &get("/login"));
    assert_eq!(statuses(&mut world, &mut other), [200]);
    world.pass(Duration::from_secs(3));
    world.send(&mut browser, &get("/login"));
    assert_eq!(statuses(&mut world, &mut browser), [200]);
}

#[test]
fn an_exempt_client_is_not_counted() {
    let mut world = world();
    let mut browser = world.browser_of("203.0.113.7:50000");
    for _ in 0..20 {
        world.send(&mut browser, &get("/login"));
        assert_eq!(statuses(&mut world, &mut browser), [200]);
    }
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_account() {
    let mut world = world();
    let mut proxy = world.browser_of("192.0.2.99:50000");
    for client in 1..20 {
        let from = format!("\r\nX-Forwarded-For: 198.51.100.{client}\r\n\r\n");
        world.send(&mut proxy, &get("/login").replace("\r\n\r\n", &from));
        assert_eq!(statuses(&mut world, &mut proxy), [200]);
    }
}

#[test]
fn a_delayed_request_is_held_unread() {
    let mut world = world();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/page").repeat(5));
    assert_eq!(statuses(&mut world, &mut browser), [200]);
    assert!(world.unread.contains(&browser.conn));
    assert_eq!(world.shard.stats.web.requests, 2);
    for _ in 0..4 {
        world.pass(Duration::from_millis(900));
        assert_eq!(statuses(&mut world, &mut browser), [0_u16; 0]);
        world.pass(Duration::from_millis(100));
        assert_eq!(statuses(&mut world, &mut browser), [200]);
    }
    assert!(!world.unread.contains(&browser.conn));
    assert_eq!(world.shard.stats.web.requests, 5);
}

#[test]
fn requests_of_many_connections_wait_in_turn() {
    let mut world = world();
    let mut browsers: Vec<Browser> = (0..4).map(|_| world.browser()).collect();
    for browser in &mut browsers {
        world.send(browser, &get("/page"));
    }
    serve(&mut world);
    let mut served = |world: &mut World| -> Vec<u16> {
        let read = |browser: &mut Browser| statuses(world, browser).first().copied().unwrap_or_default();
        browsers.iter_mut().map(read).collect()
    };
    assert_eq!(served(&mut world), [200, 0, 0, 429]);
    world.pass(Duration::from_secs(1));
    assert_eq!(served(&mut world), [0, 200, 0, 0]);
    world.pass(Duration::from_secs(1));
    assert_eq!(served(&mut world), [0, 0, 200, 0]);
}

#[test]
fn a_client_that_has_ended_still_gets_what_it_waits_for() {
    let mut world = world();
    let mut browser = world.browser();
    let mut sealed = BytesMut::new();
    browser
        .tls
        .seal(get("/page").repeat(2).as_bytes(), &mut sealed)
        .expect("sealed");
    browser.tls.close(&mut sealed);
    world.receive(browser.conn, &sealed);
    assert_eq!(statuses(&mut world, &mut browser), [200]);
    world.pass(Duration::from_secs(1));
    assert_eq!(statuses(&mut world, &mut browser), [200]);
    assert!(world.closed.contains(&browser.conn));
}

#[test]
fn attempts_to_open_a_telephone_are_counted() {
    let mut world = world();
    let mut browser = world.browser();
    // What asks for no WebSocket costs nothing, since nothing is made for it.
    for _ in 0..3 {
        world.send(&mut browser, &get("/wssip"));
        assert_eq!(statuses(&mut world, &mut browser), [426]);
    }
    let handshake = UPGRADE
        .replace("/cti?token=a.b.c", "/wssip?token=a")
        .replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: sip\r\n\r\n");
    for expected in ["101", "101", "429"] {
        let mut browser = world.browser();
        world.send(&mut browser, &handshake);
        let answer = world.read(&mut browser);
        assert_eq!(answer.get(9..12), Some(expected), "{answer}");
    }
}

// CVE-2025-4366: what is left of a body after an answer of our own must never be read as a request.
#[test]
fn the_body_of_a_refused_request_is_not_a_request() {
    let smuggled = get("/free/smuggled");
    let refusals = [
        ("/nowhere", "", "404"),
        ("/login", "", "429"),
        (
            "/free",
            "Expect: 100-continue\r\nVia: 1.1 edgeward, 1.1 edgeward, 1.1 edgeward\r\n",
            "508",
        ),
    ];
    for (path, fields, status) in refusals {
        let mut world = world();
        for _ in 0..2 {
            let mut browser = world.browser();
            world.send(&mut browser, &get("/login"));
            statuses(&mut world, &mut browser);
        }
        let mut browser = world.browser();
        let head = format!("POST {path} HTTP/1.1\r\nHost: edge.example.org\r\n{fields}Content-Length: 1000\r\n\r\n");
        world.send(&mut browser, &[head.as_str(), &smuggled].concat());
        let answer = world.read(&mut browser);
        assert_eq!(answer.get(9..12), Some(status), "{path}");
        assert!(world.closed.contains(&browser.conn), "{path}");
        assert_eq!(world.shard.stats.web.requests, 3, "{path}");
    }
}

/// Brings parcels to where they go, until there are none.
fn exchange(worlds: &mut [World]) {
    loop {
        let parcels: Vec<_> = worlds
            .iter_mut()
            .flat_map(|world| core::mem::take(&mut world.parcels))
            .collect();
        if parcels.is_empty() {
            return;
        }
        for (to, parcel) in parcels {
            worlds[usize::from(to.0)].handle(Input::Parcel(parcel));
        }
    }
}

#[test]
fn a_client_has_one_account_for_all_shards() {
    let mut worlds = World::with(RATES, 3);
    let mut got = Vec::new();
    for number in [0, 1, 2, 0, 1, 2] {
        let world = &mut worlds[number];
        let mut browser = world.browser();
        world.send(&mut browser, &get("/login"));
        exchange(&mut worlds);
        got.extend(statuses(&mut worlds[number], &mut browser));
    }
    assert_eq!(got, [200, 200, 429, 429, 429, 429]);
}

#[test]
fn a_zone_is_the_same_one_while_a_reload_spreads() {
    let at = [
        "[[rates.zone]]\nname = \"slow\"",
        "[[rates.zone]]\nname = \"strict\"",
        "[https]",
    ];
    let [slow, strict, rest] = at.map(|part| RATES.find(part).expect("a part"));
    let turned = [
        &RATES[..slow],
        &RATES[strict..rest],
        &RATES[slow..strict],
        &RATES[rest..],
    ]
    .concat();
    let other_rate = RATES.replace("20/min", "21/min");
    for (config, last) in [(turned, 429), (other_rate, 200)] {
        let mut worlds = World::with(RATES, 2);
        worlds[0].configure(&config);
        let mut others = Vec::new();
        for client in 1..20 {
            let mut browser = worlds[0].browser_of(&format!("198.51.100.{client}:50000"));
            let mut got = Vec::new();
            for after in [0, 0, 2] {
                worlds[0].now.mono += Duration::from_secs(after);
                worlds[0].send(&mut browser, &get("/login"));
                let is_local = worlds[0].parcels.is_empty();
                exchange(&mut worlds);
                let status = statuses(&mut worlds[0], &mut browser);
                if !is_local {
                    got.extend(status);
                }
            }
            worlds[1].now.mono += Duration::from_secs(2);
            others.extend(got);
        }
        assert!(!others.is_empty());
        for got in others.chunks(3) {
            assert_eq!(got, [200, 200, last]);
        }
    }
}

#[test]
fn a_shard_that_does_not_answer_is_not_waited_for_for_long() {
    let mut worlds = World::with(RATES, 2);
    let mut answers = Vec::new();
    for world in &mut worlds {
        let mut browser = world.browser();
        world.send(&mut browser, &get("/login"));
        answers.extend(statuses(world, &mut browser));
        world.pass(Duration::from_secs(3));
        answers.extend(statuses(world, &mut browser));
    }
    answers.sort_unstable();
    assert_eq!(answers, [200, 503]);
}
