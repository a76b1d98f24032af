//! What holds for a shard as a whole: moves to others, faults of ours, and that nothing stays behind.

use super::*;

pub(super) fn open_sip(token: u16) -> String {
    UPGRADE.replace(
        "GET /cti?token=a.b.c HTTP/1.1\r\n",
        &format!("GET /wssip?token={token} HTTP/1.1\r\nSec-WebSocket-Protocol: sip\r\n"),
    )
}

fn ping() -> Vec<u8> {
    vec![0x89, 0x82, 0, 0, 0, 0, b'h', b'i']
}

impl World {
    /// Takes in what another shard gave away.
    pub(super) fn adopt(&mut self, conn: Box<Conn>) -> ConnId {
        let id = self.shard.adopt(self.now, conn).expect("adopted");
        self.shard.resume(self.now, id, &mut self.out);
        self.act(None);
        id
    }

    fn is_empty(&self) -> bool {
        self.shard.conns.is_empty() && self.shard.clients.is_empty()
    }
}

#[test]
fn a_websocket_for_sip_moves_with_all_that_came() {
    // Some of these users have their home elsewhere.
    let mut moves = 0;
    for token in 0..8 {
        let mut worlds = World::of_shards(2);
        let mut browser = worlds[0].browser();
        let mut sealed = BytesMut::new();
        let early = [open_sip(token).as_bytes(), &ping()].concat();
        browser.tls.seal(&early, &mut sealed).expect("sealed");
        // A record that is not whole moves along as well.
        let mut more = BytesMut::new();
        browser.tls.seal(&ping(), &mut more).expect("sealed");
        let later = more.split_off(7);
        sealed.extend_from_slice(&more);
        worlds[0].receive(browser.conn, &sealed);
        let mut home = 0;
        if let Some((to, _, conn)) = worlds[0].moved.pop() {
            assert_eq!(to, ShardId(1));
            assert!(worlds[0].is_empty());
            home = 1;
            moves += 1;
            browser.conn = worlds[1].adopt(conn);
        }
        let world = &mut worlds[home];
        world.receive(browser.conn, &later);
        let opened = world.read_bytes(&mut browser);
        let text = String::from_utf8_lossy(&opened);
        assert!(text.starts_with("HTTP/1.1 101 "), "{token}: {text}");
        assert!(opened.ends_with(b"\x8a\x02hi\x8a\x02hi"), "{token}: {opened:02x?}");
        assert_eq!(world.shard.sip.as_ref().map(Bridge::flows), Some(1));
        world.handle(Input::Eof(browser.conn));
        assert!(world.is_empty());
        assert_eq!(world.shard.sip.as_ref().map(Bridge::flows), Some(0));
    }
    assert!(moves > 0 && moves < 8);
}

#[test]
fn a_websocket_that_comes_to_a_shard_without_room_is_answered_and_told_of() {
    type Fill = fn(&mut World);
    let fills: [Fill; 2] = [
        |world| world.handle(Input::Drain(world.now.mono + Duration::from_secs(10))),
        |world| drop(world.browser_of("198.51.100.2:1")),
    ];
    for fill in fills {
        let config = format!("[server]\nconnections_max = 1\n[access_log]\n{CONFIG}");
        let mut worlds = World::with(&config, 2);
        let mut moved = (0..16).find_map(|token| {
            let mut browser = worlds[0].browser();
            worlds[0].send(&mut browser, &open_sip(token));
            let moved = worlds[0].moved.pop();
            worlds[0].handle(Input::Eof(browser.conn));
            moved.map(|(_, _, conn)| (browser, conn))
        });
        let (mut browser, conn) = moved.take().expect("a token whose home is the other shard");
        worlds[0].logged.clear();
        fill(&mut worlds[1]);
        browser.conn = worlds[1].adopt(conn);
        let answer = worlds[1].read(&mut browser);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(worlds[1].closed.contains(&browser.conn));
        let logged: Vec<_> = worlds[1].logged.iter().map(|access| access.status).collect();
        assert_eq!(logged, [503]);
    }
}

#[test]
fn a_flow_ends_with_its_websocket_however_that_ends() {
    let close: &[u8] = &[0x88, 0x80, 0, 0, 0, 0];
    type End = fn(&mut World, &mut Browser);
    let ends: [(&str, End); 6] = [
        ("end", |world, browser| world.handle(Input::Eof(browser.conn))),
        ("reset", |world, browser| {
            world.handle(Input::Failed(browser.conn, IoKind::Reset));
        }),
        ("silence", |world, _| {
            for _ in 0..4 {
                world.pass(Duration::from_secs(20));
            }
        }),
        ("not masked", |world, browser| world.send(browser, "\x01\x02hi")),
        ("not TLS", |world, browser| {
            world.receive(browser.conn, b"\x17\x03\x03\x00\x20this is not what was agreed on!!!")
        }),
        ("drain", |world, _| {
            world.handle(Input::Drain(world.now.mono + Duration::from_secs(1)))
        }),
    ];
    let run = |name: &str, end: &dyn Fn(&mut World, &mut Browser)| {
        let mut world = World::new();
        let mut browser = world.browser();
        world.send(&mut browser, &open_sip(0));
        assert_eq!(world.shard.sip.as_ref().map(Bridge::flows), Some(1), "{name}");
        end(&mut world, &mut browser);
        assert_eq!(world.closed, [browser.conn], "{name}");
        assert!(world.is_empty(), "{name}");
        assert_eq!(world.shard.sip.as_ref().map(Bridge::flows), Some(0), "{name}");
    };
    for (name, end) in ends {
        run(name, &end);
    }
    run("close frame", &|world, browser| {
        let mut sealed = BytesMut::new();
        browser.tls.seal(close, &mut sealed).expect("sealed");
        world.receive(browser.conn, &sealed);
    });
}

#[test]
fn a_fault_of_ours_ends_what_caused_it_and_nothing_else() {
    let mut world = World::new();
    world.break_route("/named");
    // By the door for bytes.
    let mut browser = world.browser();
    world.send(&mut browser, &get("/named"));
    assert_eq!(world.closed.first(), Some(&browser.conn));

    // When something was written, and what had waited behind it is understood.
    let mut browser = world.browser();
    world.send(&mut browser, &get("/ucassistant"));
    let upstream = world.answer_dial();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    let page = [head.as_bytes(), &[b'x'; 100_000]].concat();
    world.receive_stuck(upstream, &page, Some(browser.conn));
    let mut sealed = BytesMut::new();
    browser.tls.seal(get("/named").as_bytes(), &mut sealed).expect("sealed");
    world.receive_stuck(browser.conn, &sealed, Some(browser.conn));
    world.shard.take_output(browser.conn).expect("a page");
    world.handle(Input::Written(browser.conn));
    assert!(world.closed.contains(&browser.conn));

    // When a deadline has come.
    let mut browser = world.browser();
    world.send(&mut browser, &[get("/ucassistant"), get("/named")].concat());
    world.asked(upstream);
    world.pass(Duration::from_secs(61));
    assert!(world.read(&mut browser).starts_with("HTTP/1.1 504 "));
    assert_eq!(world.shard.stats.edge.panics, 3);

    let mut other = world.browser();
    world.send(&mut other, &get("/ucassistant"));
    world.answer_dial();
    for _ in 0..3 {
        world.pass(Duration::from_secs(100));
    }
    assert!(world.read(&mut other).starts_with("HTTP/1.1 504 "));
    assert!(world.is_empty());
}

#[test]
fn a_fault_of_ours_at_the_end_of_a_call_ends_its_connection_alone() {
    type Fault = fn(&mut World, ConnId);
    let faults: [Fault; 2] = [
        |world, conn| world.shard.list(conn),
        |world, conn| assert_eq!(world.shard.take_output(conn), None),
    ];
    for meet in faults {
        let mut world = World::new();
        let (broken, mut other) = (world.browser(), world.browser());
        let conn = world.shard.conns.get_mut(broken.conn.0).expect("a connection");
        conn.break_backlog();
        meet(&mut world, broken.conn);
        // Whatever happens next.
        world.shard.timeout(world.now, &mut world.out);
        world.act(None);
        assert_eq!((&*world.closed, world.shard.stats.edge.panics), (&[broken.conn][..], 1));
        world.send(&mut other, &get("/nowhere"));
        assert!(world.read(&mut other).starts_with("HTTP/1.1 404 "));
    }
}

#[test]
fn a_timer_that_meets_a_fault_of_ours_does_not_keep_us_busy() {
    let check = "check = { path = \"/up\" }";
    let checked = CONFIG.replace("name = \"cc\"", &format!("name = \"cc\"\n{check}"));
    let mut world = World::with(&checked, 1).remove(0);
    let mut config = world.files.parse(&checked);
    let upstreams = &mut config.web.as_mut().expect("a web role").upstreams;
    upstreams.extend(world.files.parse(&checked).web.expect("a web role").upstreams);
    world.shard.config = Arc::new(config);
    let due = world.shard.poll_timeout();
    assert!(due.is_some_and(|at| at <= world.now.mono));
    world.shard.timeout(world.now, &mut world.out);
    assert_eq!(world.shard.stats.edge.panics, 1);
    assert!(world.shard.poll_timeout().is_some_and(|at| at > world.now.mono));
}
