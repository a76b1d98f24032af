//! Does the access log tell each request once, with how it ended, and never a token?

use super::{whole::open_sip, *};

fn world() -> World {
    let mut world = World::new();
    world.configure(&format!("[access_log]\n{CONFIG}"));
    world
}

/// What is told of each request that is over: status, upstream, and how it ended.
fn told(world: &mut World) -> Vec<(u16, String, &'static str)> {
    let logged = core::mem::take(&mut world.logged);
    let told = logged.into_iter().map(|access| {
        let text = format!("{access:?}");
        assert!(!text.contains("a.b.c"), "{text}");
        let upstream = access.upstream.as_deref().unwrap_or("-");
        (
            access.status,
            format!("{} {upstream}", access.path),
            access.end.as_str(),
        )
    });
    told.collect()
}

#[test]
fn a_request_is_told_when_it_is_over() {
    let mut world = world();
    let mut browser = world.browser();
    let request = "POST /ucassistant/x?token=a.b.c HTTP/1.1\r\nHost: edge.example.org\r\nUser-Agent: Test\r\n\
                   Referer: https://edge.example.org/page?token=a.b.c\r\nContent-Length: 4\r\n\r\nbody";
    world.send(&mut browser, request);
    let upstream = world.answer_dial();
    world.now.mono += Duration::from_millis(20);
    world.receive(upstream, &ANSWER.as_bytes()[..40]);
    assert_eq!(world.logged, []);
    world.now.mono += Duration::from_millis(10);
    world.receive(upstream, &ANSWER.as_bytes()[40..]);
    let answered = world.read(&mut browser).len() as u64;
    let access = world.logged.pop().expect("a line");
    assert_eq!(
        (access.method, &*access.path, access.status),
        ("POST", "/ucassistant/x", 200)
    );
    assert_eq!(
        (&*access.referrer, &*access.agent),
        ("https://edge.example.org/page", "Test")
    );
    assert_eq!(
        (access.route.as_deref(), access.upstream.as_deref()),
        (Some("/ucassistant"), Some("cc"))
    );
    assert_eq!((access.received_bytes, access.sent_bytes), (4, answered));
    assert_eq!(access.wait, Some(Duration::from_millis(20)));
    assert_eq!(access.total, Duration::from_millis(30));
    assert_eq!(
        (access.end.as_str(), access.client.to_string()),
        ("complete", "198.51.100.1".into())
    );
    assert!(access.request_id != 0 && world.logged.is_empty());
}

#[test]
fn every_end_is_told_once() {
    type Script = fn(&mut World, &mut Browser);
    let check = |script: Script, expected: &[(u16, &str, &str)]| {
        let mut world = world();
        let mut browser = world.browser();
        script(&mut world, &mut browser);
        world.handle(Input::Failed(browser.conn, IoKind::Reset));
        let told = told(&mut world);
        let told: Vec<_> = told
            .iter()
            .map(|(status, what, end)| (*status, what.as_str(), *end))
            .collect();
        assert_eq!(told, expected);
    };
    check(
        |world, browser| world.send(browser, &get("/nowhere")),
        &[(404, "/nowhere -", "refused")],
    );
    check(
        |world, browser| world.send(browser, "GET / HTTP/1.1\nHost: x\r\n\r\n"),
        &[(400, " -", "refused")],
    );
    check(
        |world, browser| world.send(browser, &get("/ucassistant")),
        &[(0, "/ucassistant cc", "client-gone")],
    );
    check(
        |world, browser| {
            world.send(browser, &get("/ucassistant"));
            let upstream = world.answer_dial();
            world.handle(Input::Eof(upstream));
        },
        &[(502, "/ucassistant cc", "upstream-failed")],
    );
    check(
        |world, browser| {
            world.send(browser, &get("/ucassistant"));
            let upstream = world.answer_dial();
            world.receive(upstream, &ANSWER.as_bytes()[..40]);
            world.handle(Input::Failed(upstream, IoKind::Reset));
        },
        &[(200, "/ucassistant cc", "upstream-failed")],
    );
    check(
        |world, browser| {
            world.send(browser, &get("/ucassistant"));
            world.answer_dial();
            world.pass(Duration::from_secs(61));
        },
        &[(504, "/ucassistant cc", "timed-out")],
    );
    check(
        |world, browser| {
            world.send(
                browser,
                "POST /ucassistant HTTP/1.1\r\nHost: edge.example.org\r\nContent-Length: 9\r\n\r\n",
            );
            world.answer_dial();
            world.pass(Duration::from_secs(31));
        },
        &[(408, "/ucassistant cc", "timed-out")],
    );
    check(
        |world, browser| {
            world.send(browser, UPGRADE);
            let upstream = world.answer_dial();
            world.receive(upstream, SWITCH.as_bytes());
            world.receive(upstream, b"\x81\x02hi");
            assert_eq!(world.logged, []);
        },
        &[(101, "/cti cc", "complete")],
    );
    check(
        |world, browser| world.send(browser, &open_sip(0)),
        &[(101, "/wssip -", "complete")],
    );
    check(
        |world, browser| {
            world.send(browser, &get("/ucassistant"));
            world.handle(Input::Drain(world.now.mono + Duration::from_secs(1)));
            world.pass(Duration::from_secs(1));
            let _ = browser;
        },
        &[(0, "/ucassistant cc", "stopped")],
    );
}
