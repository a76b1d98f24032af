//! Does a shard end in order: exchanges finished, WebSockets closed one after the other, and no longer than it may?

use super::{whole::open_sip, *};

const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn drain(&mut self, within: Duration) {
        self.handle(Input::Drain(self.now.mono + within));
    }
}

fn tunnel(world: &mut World) -> (Browser, ConnId) {
    let mut browser = world.browser();
    world.send(&mut browser, UPGRADE);
    let upstream = world.answer_dial();
    world.receive(upstream, SWITCH.as_bytes());
    world.read_bytes(&mut browser);
    (browser, upstream)
}

fn telephone(world: &mut World) -> Browser {
    let mut browser = world.browser();
    world.send(&mut browser, &open_sip(0));
    world.read_bytes(&mut browser);
    browser
}

#[test]
fn a_tunnel_ends_between_frames() {
    let mut world = World::new();
    let (mut browser, upstream) = tunnel(&mut world);
    world.receive(upstream, b"\x81\x04ha");
    world.drain(10 * SECOND);
    assert_eq!(world.closed, []);
    world.receive(upstream, b"lf");
    let last = world.read_bytes(&mut browser);
    assert_eq!(last[..8], *b"\x81\x04half\x88\x18");
    assert_eq!(last[8..10], 1001_u16.to_be_bytes());
    assert!(world.drained);
}

#[test]
fn an_exchange_may_end_and_is_the_last_of_its_connection() {
    let mut world = World::new();
    let (mut busy, mut idle) = (world.browser(), world.browser());
    world.send(&mut idle, &get("/nowhere"));
    world.send(&mut busy, &get("/ucassistant"));
    let upstream = world.answer_dial();
    world.drain(10 * SECOND);
    assert_eq!(world.closed, [idle.conn]);
    world.receive(upstream, ANSWER.as_bytes());
    let page = world.read(&mut busy);
    assert!(
        page.contains("Connection: close\r\n") && page.ends_with("hello"),
        "{page}"
    );
    assert!(world.drained);
}

#[test]
fn websockets_are_told_one_after_the_other() {
    let mut world = World::new();
    let mut telephones: Vec<Browser> = (0..3).map(|_| telephone(&mut world)).collect();
    let (mut tunnelled, _) = tunnel(&mut world);
    world.drain(10 * SECOND);
    let mut ended = 0;
    for (browser, code) in telephones
        .iter_mut()
        .map(|browser| (browser, 1012_u16))
        .chain([(&mut tunnelled, 1001)])
    {
        ended += 1;
        let last = world.read_bytes(browser);
        assert_eq!((last[0], &last[2..4]), (0x88, &code.to_be_bytes()[..]));
        let closed = world
            .closed
            .iter()
            .filter(|conn| world.dialed.iter().all(|(dialed, _)| dialed != *conn));
        assert_eq!(closed.count(), ended + usize::from(code == 1001));
        world.pass(Duration::from_millis(10));
    }
    assert!(world.drained);
}

#[test]
fn a_transaction_may_end_before_its_websocket_does() {
    let mut world = World::new();
    let mut browser = telephone(&mut world);
    let flow = match world.shard.conns.get(browser.conn.0).map(|conn| &conn.stage) {
        Some(Stage::Sip(socket)) => socket.flow,
        stage => panic!("a WebSocket for SIP, not {stage:?}"),
    };
    let register = "REGISTER sip:edge.example.org SIP/2.0\r\nVia: SIP/2.0/WSS x.invalid;branch=z9hG4bK1\r\n\
                    From: <sip:a@edge.example.org>;tag=1\r\nTo: <sip:a@edge.example.org>\r\nCall-ID: 1\r\n\
                    CSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContact: <sip:a@x.invalid;transport=ws>\r\n\
                    Content-Length: 0\r\n\r\n";
    let frame = [
        b"\x81\xfe",
        &(register.len() as u16).to_be_bytes()[..],
        &[0; 4],
        register.as_bytes(),
    ]
    .concat();
    let mut sealed = BytesMut::new();
    browser.tls.seal(&frame, &mut sealed).expect("sealed");
    world.receive(browser.conn, &sealed);
    assert!(world.shard.sip.as_ref().is_some_and(|sip| sip.is_busy(flow)));
    world.drain(40 * SECOND);
    world.pass(SECOND);
    assert_eq!(world.closed, []);
    // Timer F: nobody answers.
    for _ in 0..33 {
        world.pass(SECOND);
    }
    assert_eq!(world.closed, [browser.conn]);
    assert!(world.drained);
}

#[test]
fn what_is_left_is_cut_when_time_is_up() {
    let mut world = World::new();
    let mut busy = world.browser();
    world.send(&mut busy, &get("/ucassistant"));
    let upstream = world.answer_dial();
    world.drain(2 * SECOND);
    world.pass(SECOND);
    assert!(!world.drained);
    world.pass(SECOND);
    assert!(world.drained && world.closed.contains(&busy.conn) && world.closed.contains(&upstream));
}

#[test]
fn a_request_that_is_held_is_answered_and_the_last_of_its_connection() {
    let zone = "[rates]\n[[rates.zone]]\nname = \"slow\"\nrate = \"1/s\"\nburst = 3\nmode = \"delay\"\n";
    let config = CONFIG.replace("path = \"/ucassistant\"", "path = \"/ucassistant\"\nzone = \"slow\"");
    let config = config.replace("websocket = true", "websocket = true\nzone = \"slow\"");
    let mut world = World::with(&[zone, &config].concat(), 1).remove(0);
    let mut first = world.browser();
    world.send(&mut first, &get("/ucassistant"));
    let upstream = world.answer_dial();
    world.receive(upstream, ANSWER.as_bytes());
    let (mut held, mut opening) = (world.browser(), world.browser());
    world.send(&mut held, &get("/ucassistant"));
    world.send(&mut opening, UPGRADE);
    world.drain(10 * SECOND);
    assert_eq!(world.closed, [first.conn, upstream]);
    world.pass(SECOND);
    let upstream = world.answer_dial();
    world.receive(upstream, ANSWER.as_bytes());
    let page = world.read(&mut held);
    assert!(
        page.contains("Connection: close\r\n") && page.ends_with("hello"),
        "{page}"
    );
    world.pass(SECOND);
    let refusal = world.read(&mut opening);
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    assert!(world.closed.contains(&held.conn) && world.closed.contains(&opening.conn));
    assert!(world.drained);
}
