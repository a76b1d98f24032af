//! TCP with mediaservers: what goes by it, and what becomes of that when the connection ends.

use super::{
    calls::{in_dialog, invite, trunk_invite},
    *,
};

/// A world whose mediaserver takes large requests by TCP; with the connection that it wants.
fn world() -> (World, LinkId) {
    let mut config = config(Reach::Path);
    let sip = config.sip.as_mut().expect("the sip role");
    sip.mediaservers[0].transport = TrunkTransport::TcpWhenLarge;
    let mut world = World::new(Reach::Path);
    world.bridge = Bridge::new(Arc::new(config), ShardId(0), 1, &mut Rng::new([1; 32]));
    let sent = world.call(|bridge, cx| bridge.timeout(cx)).1;
    let link = sent.iter().find_map(|sent| match sent {
        Sent::Dial(link) => Some(*link),
        _ => None,
    });
    let link = link.expect("a connection");
    assert_eq!(link.address, mediaserver(0));
    (world, link)
}

fn conn() -> ConnId {
    connection(77)
}

fn up() -> (World, LinkId) {
    let (mut world, link) = world();
    assert_eq!(world.call(|bridge, cx| bridge.linked(cx, link, conn())).1, []);
    (world, link)
}

fn down(world: &mut World, link: LinkId) -> Vec<Sent> {
    world.call(|bridge, cx| bridge.unlinked(cx, link, conn())).1
}

fn large(branch: &str) -> String {
    format!("{}{}", invite(branch), "a=candidate\r\n".repeat(100))
}

/// The text of what went by TCP, among what was sent.
#[track_caller]
fn by_link(sent: &[Sent]) -> String {
    let found = sent.iter().find_map(|sent| match sent {
        Sent::Link(conn, text) if *conn == self::conn() => Some(text.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing by TCP: {:?}", heads(sent)))
}

#[test]
fn large_requests_go_by_tcp_and_are_not_repeated() {
    let (mut world, link) = up();
    let flow = world.open(1);
    let sent = world.browser(flow, &large("z9hG4bKi1"));
    let request = by_link(&sent);
    assert!(
        fields(&request, "Via")[0].starts_with("SIP/2.0/TCP 10.0.0.1:5060;branch="),
        "{request}"
    );
    // Whoever answers by a new dialog comes by UDP, as before.
    assert!(fields(&request, "Record-Route")[0].ends_with("@10.0.0.1:5060;lr>"));
    let later = world.wait(Duration::from_secs(3));
    assert_eq!(
        later.iter().map(|(_, sent)| sent.head()).collect::<Vec<_>>(),
        ["browser: SIP/2.0 100 Trying"]
    );
    let ringing = reply(&request, "180 Ringing", "");
    let sent = world
        .call(|bridge, cx| bridge.from_link(cx, link.address, ringing.as_bytes()))
        .1;
    assert_eq!(heads(&sent), ["browser: SIP/2.0 180 Ringing"]);
    // CANCEL and ACK go the same way (RFC 3261 sections 9.1 and 17.1.1.3).
    let sent = world.browser(flow, &large("z9hG4bKi1").replace("INVITE", "CANCEL"));
    let cancel = by_link(&sent);
    assert_eq!(fields(&cancel, "Via"), fields(&request, "Via")[..1]);
    let sent = world.trunk(&reply(&request, "487 Request Terminated", ""));
    assert!(by_link(&sent).starts_with("ACK "));
    // Small ones go by UDP, unless their URI asks for TCP.
    assert!(heads(&world.browser(flow, &invite("z9hG4bKi2")))[0].starts_with("trunk: INVITE"));
    let bye = in_dialog("BYE", 8, "z9hG4bKb1", &request);
    assert!(heads(&world.browser(flow, &bye))[0].starts_with("trunk: BYE"));
    let asks = |method: &str| {
        let request = in_dialog(method, 9, &format!("z9hG4bK{method}"), &request);
        request.replace("sip:200@10.0.0.2:5060 SIP", "sip:200@10.0.0.2:5060;transport=TCP SIP")
    };
    by_link(&world.browser(flow, &asks("BYE")));
    by_link(&world.browser(flow, &asks("ACK")));
    assert_eq!((world.stats.sip.by_stream, world.stats.sip.stream_missing), (5, 0));
}

#[test]
fn without_a_connection_they_go_by_udp() {
    let (mut world, link) = world();
    let flow = world.open(1);
    let sent = world.browser(flow, &large("z9hG4bKi1"));
    let request = sent[0].clone().trunk();
    assert!(fields(&request, "Via")[0].starts_with("SIP/2.0/UDP "));
    assert_eq!((world.stats.sip.stream_missing, world.stats.sip.fragmented), (1, 1));
    world.trunk(&reply(&request, "486 Busy Here", ""));
    down(&mut world, link);
    // It is tried again later and later.
    let tries: Vec<u64> = world
        .wait(Duration::from_secs(1))
        .iter()
        .map(|(at, sent)| (at.as_secs(), sent.head()).0)
        .collect();
    assert_eq!(tries, [1]);
    down(&mut world, link);
    assert!(world.wait(Duration::from_millis(1900)).is_empty());
    assert_eq!(
        heads(
            &world
                .wait(Duration::from_millis(100))
                .into_iter()
                .map(|(_, sent)| sent)
                .collect::<Vec<_>>()
        ),
        ["dial 10.0.0.2:5060"]
    );
    world.call(|bridge, cx| bridge.linked(cx, link, conn()));
    by_link(&world.browser(flow, &large("z9hG4bKi2")));
}

#[test]
fn what_waits_on_a_connection_that_ends_goes_by_udp() {
    let (mut world, link) = up();
    let flow = world.open(1);
    let request = by_link(&world.browser(flow, &large("z9hG4bKi1")));
    let sent = down(&mut world, link);
    let again = sent[0].clone().trunk();
    assert_eq!(again, request.replacen("SIP/2.0/TCP", "SIP/2.0/UDP", 1));
    // From there on it is repeated.
    let later = world.wait(Duration::from_millis(500));
    assert!(later.iter().any(|(_, sent)| sent.head().starts_with("trunk: INVITE")));
    let sent = world.trunk(&reply(&again, "486 Busy Here", ""));
    assert!(heads(&sent).contains(&"browser: SIP/2.0 486 Busy Here".into()));
    assert!(heads(&sent).iter().any(|head| head.starts_with("trunk: ACK ")));
}

#[test]
fn requests_by_tcp_are_answered_by_tcp() {
    let (mut world, link) = up();
    let flow = world.open(1);
    let path = fields(&world.register(flow, "x1@df7jal23ls0d.invalid"), "Path")[0].to_owned();
    let invite = trunk_invite(&path, "z9hG4bKm1").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let sent = world
        .call(|bridge, cx| bridge.from_link(cx, link.address, invite.as_bytes()))
        .1;
    assert_eq!(
        heads(&sent),
        [
            "link: SIP/2.0 100 Trying",
            "browser: INVITE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0"
        ]
    );
    let forwarded = sent[1].clone().browser();
    let sent = world.browser(flow, &reply(&forwarded, "486 Busy Here", ""));
    assert!(
        heads(&sent).contains(&"link: SIP/2.0 486 Busy Here".into()),
        "{:?}",
        heads(&sent)
    );
    // RFC 3261 section 17.2.1: Timer G is for unreliable transports.
    assert_eq!(world.wait(Duration::from_secs(20)), []);
    // With the connection gone, what is still to be said is said by UDP (section 18.2.2).
    let sent = world
        .call(|bridge, cx| bridge.from_link(cx, link.address, invite.replace("z9hG4bKm1", "z9hG4bKm2").as_bytes()))
        .1;
    down(&mut world, link);
    let sent = world.browser(flow, &reply(&sent[1].clone().browser(), "180 Ringing", ""));
    assert_eq!(heads(&sent), ["trunk: SIP/2.0 180 Ringing"]);
    assert!(fields(&sent[0].clone().trunk(), "Via")[0].starts_with("SIP/2.0/TCP "));
}

#[test]
fn a_connection_is_kept_alive_and_ends_with_its_use() {
    let (mut world, _) = up();
    let sent = world.wait(Duration::from_secs(95));
    assert_eq!(sent, [(Duration::from_secs(95), Sent::Link(conn(), "\r\n\r\n".into()))]);
    let sent = world
        .call(|bridge, cx| bridge.configure(cx, Arc::new(config(Reach::Path))))
        .1;
    assert_eq!(sent, [Sent::Unlink(conn()), Sent::Moved]);
    // One that comes when nobody waits for it any more is closed.
    let (mut world, link) = self::world();
    world.call(|bridge, cx| bridge.configure(cx, Arc::new(config(Reach::Path))));
    assert_eq!(
        world.call(|bridge, cx| bridge.linked(cx, link, conn())).1,
        [Sent::Unlink(conn())]
    );
}
