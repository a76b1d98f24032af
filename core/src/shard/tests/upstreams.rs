//! What does a browser see when an upstream is tired, slow, deaf, talkative or hard to find?

use super::*;

#[test]
fn an_old_connection_serves_its_last_request() {
    let mut world = World::new();
    let mut browser = world.browser();
    let mut ask = |world: &mut World| {
        world.send(&mut browser, &get("/ucassistant"));
        match world.dialed.is_empty() {
            true => None,
            false => Some(world.answer_dial()),
        }
    };
    let old = ask(&mut world).expect("a first call");
    for _ in 0..24 {
        world.receive(old, ANSWER.as_bytes());
        world.pass(Duration::from_secs(25));
        assert_eq!(ask(&mut world), None);
    }
    // Ten minutes old by now.
    world.receive(old, ANSWER.as_bytes());
    assert!(world.closed.contains(&old));
    assert!(ask(&mut world).is_some());
}
use crate::action::{Addresses, ResolveError};

#[test]
fn a_request_that_met_the_end_of_a_tired_connection_is_sent_again() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let tired = world.answer_dial();
    world.receive(tired, ANSWER.as_bytes());
    world.asked(tired);
    world.send(&mut browser, &get("/ucassistant/again"));
    world.handle(Input::Eof(tired));
    let fresh = world.answer_dial();
    assert!(world.asked(fresh).starts_with("GET /ucassistant/again "));
    world.receive(fresh, ANSWER.as_bytes());
    let pages = world.read(&mut browser);
    assert_eq!(pages.matches("HTTP/1.1 200 OK").count(), 2, "{pages}");
    // The fresh connection is as good as any other.
    world.send(&mut browser, &get("/ucassistant/more"));
    assert!(world.asked(fresh).starts_with("GET /ucassistant/more "));
}

#[test]
fn a_request_that_cannot_be_sent_again_is_answered() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let tired = world.answer_dial();
    world.receive(tired, ANSWER.as_bytes());
    world.read(&mut browser);
    world.send(&mut browser, &get("/ucassistant/again"));
    // Others have taken the last connections meanwhile.
    let (local, peer) = ("192.0.2.1:443".parse().unwrap(), "198.51.100.2:50000".parse().unwrap());
    let mut others: u32 = 0;
    while world.shard.conns.len() < world.shard.config.server.connections_max {
        let peer = SocketAddr::from(((0x0a01_0000 + others).to_be_bytes(), 50_000));
        let _ = world.shard.accept(world.now, ListenerId(0), local, peer);
        others += 1;
    }
    assert!(world.shard.accept(world.now, ListenerId(0), local, peer).is_err());
    world.handle(Input::Failed(tired, IoKind::Reset));
    assert!(world.read(&mut browser).starts_with("HTTP/1.1 503 "));
}

#[test]
fn bytes_that_nobody_asked_for_are_never_an_answer() {
    let check = |more: &str| {
        let mut world = World::new();
        let mut browser = world.browser();
        world.send(&mut browser, &[get("/ucassistant/1"), get("/ucassistant/2")].concat());
        let upstream = world.answer_dial();
        world.receive(upstream, [ANSWER, more].concat().as_bytes());
        assert!(world.closed.contains(&upstream), "{more:?}");
        assert_eq!(world.read(&mut browser).matches("HTTP/1.1 ").count(), 1, "{more:?}");
        let other = world.answer_dial();
        assert!(world.asked(other).starts_with("GET /ucassistant/2 "), "{more:?}");
    };
    check(&ANSWER.replace("hello", "wrong"));
    check("H");
    check("\r\n");
}

fn addresses(found: &[&str]) -> Result<Addresses, ResolveError> {
    Ok(Addresses {
        addresses: found.iter().map(|address| address.parse().unwrap()).collect(),
    })
}

#[test]
fn every_address_of_a_name_is_tried() {
    for path in ["/named", "/secure"] {
        let mut world = World::new();
        let mut browser = world.browser();
        world.send(&mut browser, &get(path));
        let query = world.resolved.pop().expect("a question");
        world.handle(Input::Resolved(query, addresses(&["2001:db8::1", "10.0.0.11"])));
        let (conn, first) = world.dialed.pop().expect("a dial");
        world.handle(Input::Dialed(conn, Err(IoKind::Unreachable)));
        let second = world.dialed.last().map(|(_, to)| to.ip());
        assert_eq!(
            (first.ip(), second),
            ("2001:db8::1".parse().unwrap(), Some("10.0.0.11".parse().unwrap())),
            "{path}"
        );
        world.answer_dial();
        assert!(world.written.contains_key(&conn), "{path}");
    }
}

#[test]
fn the_end_of_an_answer_may_come_while_the_browser_is_slow() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let upstream = world.answer_dial();
    let total = 100_000;
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {total}\r\n\r\n");
    let page = [head.as_bytes(), &vec![b'x'; total]].concat();
    world.receive_stuck(upstream, &page, Some(browser.conn));
    world.shard.handle(world.now, Input::Eof(upstream), &mut world.out);
    world.act(Some(browser.conn));
    assert_eq!(world.shard.stats.web.failed, 0);
    let bytes = world.shard.take_output(browser.conn).expect("a page");
    world.written.entry(browser.conn).or_default().extend_from_slice(&bytes);
    world.handle(Input::Written(browser.conn));
    assert_eq!(world.read(&mut browser).matches('x').count(), total);
    assert_eq!(
        (world.shard.stats.web.failed, world.closed.as_slice()),
        (0, &[upstream][..])
    );
    world.send(&mut browser, &get("/ucassistant/again"));
    let upstream = world.answer_dial();
    assert!(world.asked(upstream).starts_with("GET /ucassistant/again "));
}

#[test]
fn an_answer_that_comes_before_the_end_of_an_upload_is_passed_on() {
    let mut world = World::new();
    let mut browser = world.browser();
    let post = "POST /ucassistant HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 1000000\r\n\r\n";
    world.send(&mut browser, post);
    let upstream = world.answer_dial();
    while !world.unread.contains(&browser.conn) {
        let mut sealed = BytesMut::new();
        browser.tls.seal(&[b'x'; 16 * 1024], &mut sealed).expect("sealed");
        world.receive_stuck(browser.conn, &sealed, Some(upstream));
    }
    // RFC 9112 section 9.5: whoever sends a body watches for an answer meanwhile.
    assert!(!world.unread.contains(&upstream));
    world.receive(upstream, b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    assert!(world.read(&mut browser).starts_with("HTTP/1.1 413 "));
    assert!(world.closed.contains(&upstream) && world.closed.contains(&browser.conn));
}

#[test]
fn two_sides_that_both_do_not_read_are_given_up() {
    let mut world = World::new();
    let mut browser = world.browser();
    let post = "POST /ucassistant HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 1000000\r\n\r\n";
    world.send(&mut browser, post);
    let upstream = world.answer_dial();
    let piece = [b'x'; 16 * 1024];
    world.receive(upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    let stuck = |world: &mut World, conn, bytes: &mut [u8]| {
        world.shard.receive(world.now, conn, bytes, &mut world.out);
        while let Some(action) = world.shard.poll_action() {
            if let Action::Read(conn, false) = action {
                world.unread.push(conn);
            }
        }
    };
    while !(world.unread.contains(&upstream) && world.unread.contains(&browser.conn)) {
        let mut sealed = BytesMut::new();
        browser.tls.seal(&piece, &mut sealed).expect("sealed");
        stuck(&mut world, browser.conn, &mut sealed);
        stuck(&mut world, upstream, &mut piece.clone());
    }
    for _ in 0..10 {
        world.pass(Duration::from_secs(31));
    }
    assert!(world.closed.contains(&upstream) && world.closed.contains(&browser.conn));
}

#[test]
fn a_name_is_looked_up_once_for_all_who_wait() {
    let mut world = World::new();
    let mut browsers: Vec<Browser> = (0..3).map(|_| world.browser()).collect();
    for browser in &mut browsers {
        world.send(browser, &get("/named"));
    }
    assert_eq!(world.resolved.len(), 1);
    // One of them is tired of waiting.
    world.handle(Input::Failed(browsers[1].conn, IoKind::Reset));
    let query = world.resolved.pop().expect("a question");
    world.handle(Input::Resolved(query, addresses(&["10.0.0.11"])));
    assert_eq!(world.dialed.len(), 2);
    // The answer holds for a while, then the next one asks again.
    world.send(&mut browsers[1], &get("/named"));
    let mut late = world.browser();
    world.send(&mut late, &get("/named"));
    assert_eq!((world.resolved.len(), world.dialed.len()), (0, 3));
}

#[test]
fn all_who_wait_for_a_name_that_is_not_found_are_told() {
    let mut world = World::new();
    let mut browsers: Vec<Browser> = (0..3).map(|_| world.browser()).collect();
    for browser in &mut browsers {
        world.send(browser, &get("/named"));
    }
    for query in core::mem::take(&mut world.resolved) {
        world.handle(Input::Resolved(query, Err(ResolveError)));
    }
    for browser in &mut browsers {
        assert!(world.read(browser).starts_with("HTTP/1.1 502 "));
        world.send(browser, &get("/named"));
    }
    assert_eq!(world.resolved.len(), 1);
}

const SEVERAL: &str = r#"
[https]
listen = ["192.0.2.1:443"]
certificates = [{ cert = "cert.pem", key = "key.pem" }]
hosts = ["edge.example.org"]

[[web.upstream]]
name = "cc"
url = ["http://10.0.0.10:8080", "http://10.0.0.11:8080"]
connections_max = 2
queue_max = 1

[[web.route]]
path = "/ucassistant"
"#;

fn several(more: &str) -> World {
    World::with(
        &SEVERAL.replace("queue_max = 1\n", &format!("queue_max = 1\n{more}\n")),
        1,
    )
    .remove(0)
}

fn called(world: &World) -> Vec<String> {
    world.dialed.iter().map(|(_, to)| to.ip().to_string()).collect()
}

#[test]
fn a_black_hole_is_left_for_the_next_address() {
    let mut world = several("");
    let mut browser = world.browser();
    let post = "POST /ucassistant HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 5\r\n\r\n";
    world.send(&mut browser, post);
    world.send(&mut browser, "he");
    assert_eq!(called(&world), ["10.0.0.10"]);
    world.pass(Duration::from_secs(3));
    assert_eq!(called(&world), ["10.0.0.10", "10.0.0.11"]);
    world.send(&mut browser, "llo");
    let upstream = world.answer_dial();
    // Nothing of the request is lost, nor twice.
    assert!(world.asked(upstream).ends_with("\r\n\r\nhello"));
    world.receive(upstream, ANSWER.as_bytes());
    assert!(world.read(&mut browser).ends_with("hello"));
    // The answer to the call that was given up is for nobody.
    let (late, to) = world.dialed.remove(0);
    world.handle(Input::Dialed(
        late,
        Ok(Endpoints {
            local: "192.0.2.1:40001".parse().unwrap(),
            peer: to,
        }),
    ));
    // For a while the other one is called first.
    let mut second = world.browser();
    world.send(&mut second, &get("/ucassistant"));
    world.receive(upstream, ANSWER.as_bytes());
    assert!(world.read(&mut second).ends_with("hello"));
    world.handle(Input::Eof(upstream));
    world.pass(Duration::from_secs(10));
    world.send(&mut second, &get("/ucassistant"));
    assert_eq!(called(&world), ["10.0.0.10"]);
}

#[test]
fn who_answers_nowhere_is_told_apart_from_who_does_not_answer_in_time() {
    let check = |ends: &dyn Fn(&mut World), status: &str| {
        let mut world = several("");
        let mut browser = world.browser();
        world.send(&mut browser, &get("/ucassistant"));
        for _ in 0..2 {
            ends(&mut world);
        }
        let answer = world.read(&mut browser);
        assert!(answer.starts_with(status), "{answer}");
    };
    check(&|world| world.pass(Duration::from_secs(3)), "HTTP/1.1 504 ");
    let refuse = |world: &mut World| {
        let (conn, _) = world.dialed.pop().expect("a dial");
        world.handle(Input::Dialed(conn, Err(IoKind::Refused)));
    };
    check(&refuse, "HTTP/1.1 502 ");
}

#[test]
fn an_upstream_gets_no_more_exchanges_than_it_takes() {
    let mut world = several("");
    let mut browsers: Vec<Browser> = (0..4).map(|_| world.browser()).collect();
    for browser in &mut browsers {
        world.send(browser, &get("/ucassistant"));
    }
    assert_eq!(world.dialed.len(), 2);
    // One waits, one is one too many.
    let refused = world.read(&mut browsers[3]);
    assert!(
        refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "),
        "{refused}"
    );
    assert_eq!(world.read(&mut browsers[2]), "");
    let upstream = world.answer_dial();
    world.receive(upstream, ANSWER.as_bytes());
    // The one that waited goes on at once, on the connection that is free now.
    assert!(world.asked(upstream).ends_with("\r\n\r\n"));
    world.receive(upstream, ANSWER.as_bytes());
    assert!(world.read(&mut browsers[2]).ends_with("hello"));
    // One that waits too long is told.
    let mut late: Vec<Browser> = (0..2).map(|_| world.browser()).collect();
    for browser in &mut late {
        world.send(browser, &get("/ucassistant"));
    }
    let other = world.answer_dial();
    assert!(!world.asked(other).is_empty());
    world.pass(Duration::from_secs(3));
    assert!(world.read(&mut late[1]).starts_with("HTTP/1.1 503 "));
    // A connection that dies gives its place up.
    for conn in [upstream, other] {
        world.handle(Input::Failed(conn, IoKind::Reset));
    }
    world.dialed.clear();
    let mut next = world.browser();
    world.send(&mut next, &get("/ucassistant"));
    assert_eq!(world.dialed.len(), 1);
}

#[test]
fn who_waits_no_longer_takes_no_place_among_those_who_wait() {
    let mut world = several("");
    let mut served: Vec<Browser> = (0..2).map(|_| world.browser()).collect();
    for browser in &mut served {
        world.send(browser, &get("/ucassistant"));
    }
    let upstreams = [world.answer_dial(), world.answer_dial()];
    let mut gone = world.browser();
    world.send(&mut gone, &get("/ucassistant"));
    world.handle(Input::Failed(gone.conn, IoKind::Reset));
    let mut late = world.browser();
    world.send(&mut late, &get("/ucassistant"));
    assert_eq!(world.read(&mut late), "");
    world.pass(Duration::from_secs(3));
    assert!(world.read(&mut late).starts_with("HTTP/1.1 503 "));
    let mut next = world.browser();
    world.send(&mut next, &get("/ucassistant"));
    assert_eq!(world.read(&mut next), "");
    world.receive(upstreams[0], ANSWER.as_bytes());
    world.receive(upstreams[0], ANSWER.as_bytes());
    assert!(world.read(&mut next).ends_with("hello"));
}

#[test]
fn a_tunnel_is_one_of_the_exchanges() {
    let config = SEVERAL
        .replace("path = \"/ucassistant\"", "path = \"/cti\"\nwebsocket = true")
        .replace(
            "connections_max = 2\nqueue_max = 1",
            "connections_max = 1\nqueue_max = 0",
        );
    let mut world = World::with(&config, 1).remove(0);
    let mut first = world.browser();
    world.send(&mut first, UPGRADE);
    let tunnel = world.answer_dial();
    world.receive(tunnel, SWITCH.as_bytes());
    assert!(world.read(&mut first).starts_with("HTTP/1.1 101 "));
    let mut second = world.browser();
    world.send(&mut second, &get("/cti"));
    assert!(world.read(&mut second).starts_with("HTTP/1.1 503 "));
    world.handle(Input::Failed(first.conn, IoKind::Reset));
    world.send(&mut second, &get("/cti"));
    assert_eq!(world.dialed.len(), 1);
}

#[test]
fn backends_are_checked_and_called_when_they_work() {
    let mut world = several("check = { path = \"/up\", interval_secs = 10, rise = 1, fall = 2 }");
    // Answers all checks; of those on the first host, with this status.
    let check = |world: &mut World, status: &str| {
        world.pass(Duration::ZERO);
        let calls: Vec<_> = world.dialed.drain(..).collect();
        assert_eq!(calls.len(), 2);
        for (conn, to) in calls {
            let local = "192.0.2.1:40000".parse().unwrap();
            world.handle(Input::Dialed(conn, Ok(Endpoints { local, peer: to })));
            assert!(world.asked(conn).starts_with("GET /up HTTP/1.1\r\nHost: 10.0.0."));
            let status = if to.ip() == IpAddr::from([10, 0, 0, 10]) {
                status
            } else {
                "200"
            };
            world.receive(
                conn,
                format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes(),
            );
            assert!(world.closed.contains(&conn));
        }
    };
    let first_called = |world: &mut World| {
        let mut browser = world.browser();
        world.send(&mut browser, &get("/ucassistant"));
        let (_, to) = *world.dialed.last().expect("a call");
        let upstream = world.answer_dial();
        world.receive(upstream, ANSWER.as_bytes());
        world.handle(Input::Eof(upstream));
        assert!(world.read(&mut browser).ends_with("hello"));
        to.ip().to_string()
    };
    check(&mut world, "200");
    for (status, expected) in [
        ("503", "10.0.0.10"),
        ("503", "10.0.0.11"),
        ("503", "10.0.0.11"),
        ("204", "10.0.0.10"),
    ] {
        world.pass(Duration::from_secs(10) - Duration::from_nanos(1));
        world.now.mono += Duration::from_nanos(1);
        check(&mut world, status);
        assert_eq!(first_called(&mut world), expected, "after {status}");
    }
}

#[test]
fn where_no_backend_works_nobody_waits() {
    let mut world = several("check = { path = \"/up\", fall = 1 }");
    world.pass(Duration::ZERO);
    for (conn, _) in core::mem::take(&mut world.dialed) {
        world.handle(Input::Dialed(conn, Err(IoKind::Refused)));
    }
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    assert!(world.read(&mut browser).starts_with("HTTP/1.1 503 "));
}
