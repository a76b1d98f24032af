//! Does a WebSocket that passes through keep every byte, whoever is slow and whoever ends first?

use super::*;

fn open(world: &mut World) -> (Browser, ConnId) {
    let mut browser = world.browser();
    world.send(&mut browser, UPGRADE);
    let upstream = world.answer_dial();
    world.receive(upstream, SWITCH.as_bytes());
    world.asked(upstream);
    world.read(&mut browser);
    (browser, upstream)
}

#[test]
fn what_waits_for_a_slow_end_survives_the_end_of_both() {
    let mut world = World::new();
    let (mut browser, upstream) = open(&mut world);
    let mut sent = 0;
    while !world.unread.contains(&browser.conn) {
        let mut sealed = BytesMut::new();
        browser.tls.seal(&[b'x'; 50_000], &mut sealed).expect("sealed");
        world.receive_stuck(browser.conn, &sealed, Some(upstream));
        sent += 50_000;
    }
    // What was on the wire already comes all the same.
    let mut sealed = BytesMut::new();
    browser.tls.seal(&[b'x'; 50_000], &mut sealed).expect("sealed");
    browser.tls.close(&mut sealed);
    world.receive_stuck(browser.conn, &sealed, Some(upstream));
    sent += 50_000;
    world.shard.handle(world.now, Input::Eof(upstream), &mut world.out);
    world.act(Some(upstream));
    assert_eq!(world.closed, []);
    let mut got = 0;
    while let Some(bytes) = world.shard.take_output(upstream) {
        got += bytes.len();
        world.handle(Input::Written(upstream));
        got += world.asked(upstream).len();
    }
    assert_eq!(got, sent);
    assert!(world.closed.contains(&upstream) && world.closed.contains(&browser.conn));
}

#[test]
fn one_direction_goes_on_while_the_other_is_stuck() {
    let mut world = World::new();
    let (mut browser, upstream) = open(&mut world);
    while !world.unread.contains(&upstream) {
        world.receive_stuck(upstream, &[b'x'; 16 * 1024], Some(browser.conn));
    }
    assert!(!world.unread.contains(&browser.conn));
    let mut sealed = BytesMut::new();
    browser.tls.seal(b"up", &mut sealed).expect("sealed");
    world.receive_stuck(browser.conn, &sealed, Some(browser.conn));
    assert_eq!(world.asked(upstream), "up");
}

#[test]
fn a_tunnel_that_opens_in_a_drain_ends_at_once() {
    let mut world = World::new();
    let mut browser = world.browser();
    world.send(&mut browser, UPGRADE);
    let upstream = world.answer_dial();
    world.handle(Input::Drain(world.now.mono + Duration::from_secs(10)));
    assert!(!world.drained);
    world.receive(upstream, SWITCH.as_bytes());
    let last = world.read_bytes(&mut browser);
    let goodbye = last
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .map(|at| &last[at + 4..]);
    assert_eq!(goodbye.map(|frame| &frame[..2]), Some(&b"\x88\x18"[..]));
    assert!(world.drained);
}
