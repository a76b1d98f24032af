//! Mediaservers: their health, their addresses, and which shard their datagrams belong to.

use super::{
    calls::{in_dialog, invite, trunk_in_dialog, trunk_invite},
    *,
};
use crate::{action::IoKind, stats::Liveness};

/// Lets time pass; the health checks that went out meanwhile.
fn pings(world: &mut World, duration: Duration) -> Vec<String> {
    let end = world.now + duration;
    let mut pings = Vec::new();
    while let Some(at) = world.bridge.poll_timeout().filter(|at| *at <= end) {
        world.now = world.now.max(at);
        let sent = world.call(|bridge, cx| bridge.timeout(cx)).1;
        pings.extend(
            sent.into_iter()
                .filter(|sent| sent.head().starts_with("trunk: OPTIONS sip:10."))
                .map(Sent::trunk),
        );
    }
    world.now = end;
    pings
}

#[test]
fn a_mediaserver_that_falls_silent_is_down_until_it_speaks() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let first = pings(&mut world, Duration::from_secs(10)).remove(0);
    assert_eq!(start_line(&first), "OPTIONS sip:10.0.0.2:5060 SIP/2.0");
    // Any answer is a sign of life.
    assert_eq!(world.trunk(&reply(&first, "404 Not Found", "")), []);
    assert_eq!(pings(&mut world, Duration::from_secs(30)).len(), 6);
    assert!(world.bridge.is_available(0));
    pings(&mut world, Duration::from_secs(10));
    assert!(!world.bridge.is_available(0) && world.bridge.is_available(1) && !world.bridge.is_available(2));
    assert_eq!(world.bridge.liveness(0), Liveness::Down);
    let refused = world.browser(flow, &invite("z9hG4bKi1"));
    assert_eq!(heads(&refused), ["browser: SIP/2.0 503 Service Unavailable"]);
    assert_eq!(fields(&refused[0].clone().browser(), "Retry-After"), ["5"]);
    let ping = pings(&mut world, Duration::from_secs(10)).remove(0);
    world.trunk(&reply(&ping, "503 Service Unavailable", ""));
    assert!(!world.bridge.is_available(0));
    let ping = pings(&mut world, Duration::from_secs(10)).remove(0);
    world.trunk(&reply(&ping, "200 OK", ""));
    assert!(world.bridge.is_available(0));
}

#[test]
fn one_that_never_answers_a_question_is_called_but_not_up() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    pings(&mut world, Duration::from_secs(100));
    assert!(world.bridge.is_available(0));
    assert_eq!(world.bridge.liveness(0), Liveness::Unknown);
    let sent = world.browser(flow, &invite("z9hG4bKi1"));
    assert_eq!(heads(&sent), ["trunk: INVITE sip:200@xivo SIP/2.0"]);
    // Whoever answers calls lives, though it may ignore questions for ever.
    world.trunk(&reply(&sent[0].clone().trunk(), "180 Ringing", ""));
    assert_eq!(world.bridge.liveness(0), Liveness::Up);
    pings(&mut world, Duration::from_secs(100));
    assert_eq!(world.bridge.liveness(0), Liveness::Up);
    assert_eq!(world.bridge.liveness(9), Liveness::Down);
}

#[test]
fn errors_of_the_network_count_for_one_address() {
    let mut world = World::new(Reach::Path);
    let (first, second) = (world.open(1), world.open_as(2, 1, None));
    world.browser(first, &invite("z9hG4bKi1"));
    world.browser(second, &invite("z9hG4bKi2"));
    let mut error = |port, kind| {
        let to = SocketAddr::from(([10, 0, 0, 2], port));
        heads(&world.call(|bridge, cx| bridge.trunk_error(cx, to, kind)).1)
    };
    assert!(error(5061, IoKind::Refused).is_empty());
    assert!(error(5060, IoKind::MessageSize).is_empty());
    assert_eq!(
        error(5060, IoKind::Unreachable),
        ["browser: SIP/2.0 503 Service Unavailable"]
    );
}

#[test]
fn two_names_may_have_one_address() {
    let mut config = config(Reach::Path);
    let sip = config.sip.as_mut().expect("the sip role");
    sip.mediaservers[1].addresses = vec![mediaserver(0).into()];
    let mut world = World::with(config, 1);
    let flow = world.open_as(1, 1, None);
    let path = fields(&world.register(flow, "x1@df7jal23ls0d.invalid"), "Path")[0].to_owned();
    assert_eq!(world.trunk(&trunk_invite(&path, "z9hG4bKm1")).len(), 2);
}

#[test]
fn a_request_goes_to_the_mediaserver_of_the_flow() {
    let mut world = World::new(Reach::Path);
    let flow = world.open_as(1, 1, None);
    let sent = world.browser(
        flow,
        &invite("z9hG4bKi1").replace("sip:200@xivo SIP", "sip:200@10.0.0.2:5060 SIP"),
    );
    assert!(matches!(&sent[0], Sent::Trunk(to, _) if *to == mediaserver(1)));
    let forwarded = sent[0].clone().trunk();
    // Its answer counts only from there.
    assert_eq!(world.trunk_from(mediaserver(0), &reply(&forwarded, "200 OK", "")), []);
    assert_eq!(
        world.trunk_from(mediaserver(1), &reply(&forwarded, "200 OK", "")).len(),
        1
    );
    let ack = in_dialog("ACK", 7, "z9hG4bKa1", &forwarded).replace("Route: ", "Route: <sip:10.0.0.9:22;lr>, ");
    let sent = world.browser(flow, &ack);
    assert!(matches!(&sent[0], Sent::Trunk(to, text) if *to == mediaserver(1) && !text.contains("10.0.0.9")));
}

#[test]
fn a_new_configuration() {
    let mut world = World::new(Reach::Path);
    let (stays, goes) = (world.open_as(1, 1, None), world.open(2));
    let mut new = config(Reach::Path);
    let sip = new.sip.as_mut().expect("the sip role");
    sip.mediaservers.remove(0);
    sip.mediaservers[0].addresses = vec![mediaserver(7).into()];
    let sent = world.call(|bridge, cx| bridge.configure(cx, Arc::new(new))).1;
    assert_eq!(sent, [Sent::Moved, Sent::Close(connection(2), 1001)]);
    assert_eq!(world.browser(goes, &invite("z9hG4bKi1")), []);
    let sent = world.browser(stays, &invite("z9hG4bKi2"));
    assert!(matches!(&sent[0], Sent::Trunk(to, _) if *to == mediaserver(7)));
    assert_eq!(
        world.trunk_from(mediaserver(0), &trunk_invite("<sip:10.0.0.1;lr>", "z9hG4bKm1")),
        []
    );
    // The place in the new configuration is what a new WebSocket is opened for.
    let new = world.open_as(3, 0, None);
    let sent = world.browser(new, &invite("z9hG4bKi3"));
    assert!(matches!(&sent[0], Sent::Trunk(to, _) if *to == mediaserver(7)));
}

#[test]
fn a_datagram_finds_its_shard() {
    let shard = |number: u16, seed| {
        let mut rng = Rng::new([seed; 32]);
        let mut world = World::new(Reach::Path);
        world.bridge = Bridge::new(Arc::new(config(Reach::Path)), ShardId(number), 4, &mut rng);
        world
    };
    let (mut home, mut other) = (shard(2, 1), shard(3, 2));
    let flow = home.open(1);
    let path = fields(&home.register(flow, "x1@df7jal23ls0d.invalid"), "Path")[0].to_owned();
    let request = trunk_invite(&path, "z9hG4bKm1");
    let response = reply(
        &home.browser(flow, &invite("z9hG4bKi1")).remove(0).trunk(),
        "180 Ringing",
        "",
    );
    let call = home.trunk(&request).remove(1).browser();
    let within = trunk_in_dialog("BYE", 12, "z9hG4bKm2", &call);
    let alias = request.replace("Route: ", "X: ").replace(
        "x1@df7jal23ls0d.invalid;transport=ws SIP",
        &format!("{}@10.0.0.1 SIP", token(&path)),
    );
    for datagram in [
        &request,
        &response,
        &within,
        &alias,
        &request.replace("INVITE", "CANCEL"),
        // Where everything goes by us.
        &request.replace("Route: ", "Route: <sip:10.0.0.1;lr>, "),
        &request.replace("Route: ", "Route: <sip:10.0.0.1;lr>\r\nRoute: "),
    ] {
        assert_eq!(other.home(datagram), Some(ShardId(2)), "{datagram}");
        assert_eq!(home.home(datagram), None);
    }
    // On the wrong one it comes to nothing, or to an answer that says so.
    assert_eq!(other.trunk(&response), []);
    assert_eq!(heads(&other.trunk(&request)), ["trunk: SIP/2.0 430 Flow Failed"]);
    for datagram in [
        "",
        "\r\n",
        "x",
        &request.replace("Route: ", "X: "),
        &response.replace("z9hG4bK", "z9hG4bX"),
    ] {
        assert_eq!(other.home(datagram), None);
    }
    // A mediaserver that has moved is known to others first; but nobody fills the way between shards.
    let stranger = SocketAddr::from(([10, 0, 0, 99], 5060));
    let home_of = |world: &mut World| world.bridge.home(world.now, stranger, request.as_bytes());
    let passed = (0..10_000).filter(|_| home_of(&mut other) == Some(ShardId(2))).count();
    assert_eq!(passed, 100);
    assert_eq!(other.home(&request), Some(ShardId(2)));
    // There is no such shard any more.
    let mut rng = Rng::new([3; 32]);
    let mut fewer = Bridge::new(Arc::new(config(Reach::Path)), ShardId(0), 2, &mut rng);
    assert_eq!(fewer.home(Instant::ZERO, mediaserver(0), request.as_bytes()), None);
}

#[test]
fn strict_routers_on_either_side() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let path = fields(&world.register(flow, "x1@df7jal23ls0d.invalid"), "Path")[0].to_owned();
    let call = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    let recorded = fields(&call, "Record-Route")[1];
    // RFC 3261 section 16.4: one before us puts our URI first, and what belongs there last.
    let bye = trunk_in_dialog("BYE", 12, "z9hG4bKm2", &call);
    let ours = recorded.trim_matches(['<', '>']);
    let strict = bye
        .replace(
            "x1@df7jal23ls0d.invalid;transport=ws SIP",
            &format!("{} SIP", &ours[4..]),
        )
        .replace(&format!("Route: {recorded}\r\n"), "");
    let strict = strict.replace(
        "Max-Forwards",
        "Route: <sip:x1@df7jal23ls0d.invalid;transport=ws>\r\nMax-Forwards",
    );
    let sent = world.trunk(&strict).remove(0).browser();
    assert_eq!(
        start_line(&sent),
        "BYE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0"
    );
    assert!(fields(&sent, "Route").is_empty());
    // Section 16.6, item 6: one behind us wants to be addressed itself.
    let own = world.browser(flow, &invite("z9hG4bKi1")).remove(0).trunk();
    let bye = in_dialog("BYE", 8, "z9hG4bKb1", &own).replace(
        "\r\nTo:",
        ", <sip:strict.example.com>, <sip:loose.example.com;lr>\r\nTo:",
    );
    let sent = world.browser(flow, &bye).remove(0).trunk();
    assert_eq!(start_line(&sent), "BYE sip:strict.example.com SIP/2.0");
    assert_eq!(
        fields(&sent, "Route"),
        ["<sip:loose.example.com;lr>", "<sip:200@10.0.0.2:5060>"]
    );
}

#[test]
fn what_does_not_fit_a_packet_is_counted() {
    let check = |edge: &str, pbx: &str, fits: usize| {
        let mut config = config(Reach::Path);
        let sip = config.sip.as_mut().expect("the sip role");
        (sip.listen, sip.advertise) = (edge.parse().expect("an address"), edge.parse().expect("an address"));
        sip.mediaservers[0].addresses = vec![pbx.parse::<SocketAddr>().expect("an address").into()];
        let mut world = World::with(config, 1);
        let flow = world.open(1);
        let mut number = 0;
        let mut send = |length: usize| {
            number += 1;
            let invite = format!("{}{}", invite(&format!("z9hG4bKi{number}")), "x".repeat(length));
            let forwarded = world.browser(flow, &invite).remove(0).trunk();
            (forwarded.len(), world.stats.sip.fragmented)
        };
        let (least, _) = send(700);
        let spare = fits - least + 700;
        assert_eq!(send(spare), (fits, 0));
        assert_eq!(send(spare + 1), (fits + 1, 1));
    };
    // Headers of UDP and IP take 28 bytes of 1500, or 48.
    check("10.0.0.1:5060", "10.0.0.2:5060", 1472);
    check("[2001:db8::1]:5060", "[2001:db8::2]:5060", 1452);
}
