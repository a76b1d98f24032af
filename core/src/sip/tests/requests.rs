//! Requests without a dialog, and those that do not pass.

use super::*;

fn request(method: &str, more: &[&str]) -> String {
    let first = format!("{method} sip:200@xivo SIP/2.0");
    let cseq = format!("CSeq: 1 {method}");
    let via = format!("Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK{method}");
    let mut all = vec![
        &first[..],
        &via,
        "From: <sip:alice@xivo>;tag=1",
        "To: <sip:200@xivo>",
        "Call-ID: r-1",
        &cseq,
    ];
    all.extend(more);
    lines(&all)
}

#[test]
fn other_requests_pass_both_ways() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let path = fields(&world.register(flow, "x1@a.invalid"), "Path")[0].to_owned();
    for (method, recorded) in [
        ("OPTIONS", 0),
        ("MESSAGE", 0),
        ("REFER", 2),
        ("NOTIFY", 2),
        ("SUBSCRIBE", 2),
        ("INFO", 0),
        ("X-FOO", 0),
    ] {
        let up = world.browser(flow, &request(method, &[])).remove(0).trunk();
        assert_eq!(fields(&up, "Record-Route").len(), recorded, "{method}");
        assert_eq!(
            heads(&world.trunk(&reply(&up, "202 Accepted", ""))),
            ["browser: SIP/2.0 202 Accepted"]
        );
        let down = request(method, &[&format!("Route: {path}")]).replace("WSS a.invalid", "UDP 10.0.0.2");
        let down = world.trunk(&down).remove(0).browser();
        assert_eq!(fields(&down, "Record-Route").len(), recorded, "{method}");
        assert_eq!(
            heads(&world.browser(flow, &reply(&down, "200 OK", ""))),
            ["trunk: SIP/2.0 200 OK"]
        );
    }
}

#[test]
fn other_requests_are_repeated_and_get_100_late() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    world.browser(flow, &request("MESSAGE", &[]));
    let sent = world.wait(Duration::from_secs(60));
    let at: Vec<_> = sent
        .iter()
        .map(|(at, sent)| (at.as_millis(), sent.head().starts_with("trunk")))
        .collect();
    let repeats = [500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500];
    assert_eq!(
        at.iter()
            .filter(|(_, trunk)| *trunk)
            .map(|(at, _)| *at)
            .collect::<Vec<_>>(),
        repeats
    );
    // RFC 4320: 100 when Timer E reaches T2, never 408.
    assert_eq!(
        at.iter().filter(|(_, trunk)| !trunk).collect::<Vec<_>>(),
        [&(3500, false)]
    );
    assert_eq!(world.bridge.transactions(), 0);
}

#[test]
fn requests_do_not_spread() {
    let check = |said: &[&str], expected: &str| {
        let mut world = World::new(Reach::Path);
        let flow = world.open(1);
        let forwarded = world.browser(flow, &request("INVITE", said)).remove(0).trunk();
        assert_eq!(fields(&forwarded, "Max-Breadth"), [expected], "{said:?}");
    };
    check(&[], "60");
    check(&["Max-Breadth: 4"], "4");
    check(&["Max-Breadth: 61"], "60");
    check(&["Max-Breadth: 99999999999999999999"], "60");
}

#[test]
fn what_does_not_pass_is_answered() {
    let check = |message: &str, expected: &str| {
        let mut world = World::new(Reach::Path);
        let flow = world.open(1);
        assert_eq!(
            heads(&world.browser(flow, message)),
            [format!("browser: SIP/2.0 {expected}")],
            "{message}"
        );
    };
    check(&request("INVITE", &["Max-Forwards: 0"]), "483 Too Many Hops");
    check(&request("OPTIONS", &["Max-Forwards: 0"]), "200 OK");
    check(&request("INVITE", &["Max-Forwards: 256"]), "400 Bad Max-Forwards");
    check(&request("INVITE", &["Proxy-Require: foo, bar"]), "420 Bad Extension");
    check(&request("INVITE", &["Content-Length: 5"]), "400 Bad Content-Length");
    check(&request("INVITE", &["CSeq: 1 INVITE"]), "400 Bad CSeq");
    check(&request("INVITE", &["no colon"]), "400 Bad Header Field");
    check(
        &request("INVITE", &[]).replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"),
        "505 Version Not Supported",
    );
    check(
        &request("INVITE", &[]).replace("sip:200@xivo SIP", "http://xivo SIP"),
        "416 Unsupported URI Scheme",
    );
    check(
        &request("INVITE", &[]).replace("sip:200@xivo SIP", "sip:200@xivo?a=b SIP"),
        "400 Bad Request-URI",
    );
    let forged = "Route: <sip:-ew-00772AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkq@10.0.0.1:5060;lr>";
    let dialog = |route: &str| request("BYE", &[route]).replace("To: <sip:200@xivo>", "To: <sip:200@xivo>;tag=2");
    check(&dialog(forged), "403 Bad Flow Token");
    check(&dialog("Route: <sip:x@10.0.0.1;lr>"), "403 Bad Flow Token");
    check(&request("CANCEL", &[]), "481 Call/Transaction Does Not Exist");
    let long = "x".repeat(32 * 1024);
    check(
        &request("INVITE", &[&format!("Subject: {long}")]),
        "513 Message Too Large",
    );
    check(&request("INVITE", &["A: b"; 128]), "513 Message Too Large");
}

#[test]
fn what_does_not_pass_from_a_mediaserver() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let path = fields(&world.register(flow, "x1@a.invalid"), "Path")[0].to_owned();
    let down = |route: &str| request("MESSAGE", &[route]).replace("WSS a.invalid", "UDP 10.0.0.2");
    assert_eq!(heads(&world.trunk(&down("X: y"))), ["trunk: SIP/2.0 404 Not Found"]);
    let forged = format!("Route: {}", path.replacen("<sip:-ew-00000A", "<sip:-ew-00000B", 1));
    assert_eq!(
        heads(&world.trunk(&down(&forged))),
        ["trunk: SIP/2.0 403 Bad Flow Token"]
    );
    let (all_but_last, _) = token(&path).split_at(token(&path).len() - 1);
    let forged = format!("Route: {}", path.replace(token(&path), &format!("{all_but_last}A")));
    assert_eq!(
        heads(&world.trunk(&down(&forged))),
        ["trunk: SIP/2.0 403 Bad Flow Token"]
    );
    // Another mediaserver may not use it, and strangers get no answer at all.
    let good = down(&format!("Route: {path}"));
    assert_eq!(
        heads(&world.trunk_from(mediaserver(1), &good)),
        ["trunk: SIP/2.0 430 Flow Failed"]
    );
    assert_eq!(world.trunk_from(SocketAddr::from(([10, 0, 0, 2], 5061)), &good), []);
    // To ourselves.
    let options = request("OPTIONS", &[])
        .replace("WSS a.invalid", "UDP 10.0.0.2")
        .replace("sip:200@xivo SIP", "sip:10.0.0.1 SIP");
    assert_eq!(heads(&world.trunk(&options)), ["trunk: SIP/2.0 200 OK"]);
}

#[test]
fn keep_alive_and_junk() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    assert_eq!(
        world.browser(flow, "\r\n\r\n"),
        [Sent::Browser(connection(1), "\r\n".into())]
    );
    assert_eq!(world.browser(flow, "\r\n"), []);
    assert_eq!(world.browser(flow, ""), []);
    for _ in 1..16 {
        assert_eq!(world.browser(flow, "GET / HTTP/1.1\r\n\r\n"), []);
    }
    assert_eq!(
        world.browser(flow, "GET / HTTP/1.1\r\n\r\n"),
        [Sent::Close(connection(1), 1008)]
    );
    assert_eq!(world.bridge.flows(), 0);
}

#[test]
fn an_icmp_error_is_an_answer() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    world.browser(flow, &request("INVITE", &[]));
    world.browser(flow, &request("MESSAGE", &[]));
    let sent = world
        .call(|bridge, cx| bridge.trunk_error(cx, mediaserver(0), crate::action::IoKind::Refused))
        .1;
    assert_eq!(heads(&sent), ["browser: SIP/2.0 503 Service Unavailable"; 2]);
    assert_eq!(world.wait(Duration::from_secs(40)), []);
}

#[test]
fn too_many_requests() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let count = |world: &mut World, method: &str| {
        (0..100)
            .map(|n| request(method, &[]).replace("branch=z9hG4bK", &format!("branch=z9hG4bK{n}")))
            .filter(|message| {
                heads(&world.browser(flow, message)).contains(&"browser: SIP/2.0 503 Service Unavailable".into())
            })
            .count()
    };
    assert_eq!(count(&mut world, "REGISTER"), 80);
    assert_eq!(count(&mut world, "MESSAGE"), 100 - (64 - 20));
}

#[test]
fn an_ack_to_our_own_answer_goes_no_further() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let invite = request("INVITE", &["Max-Forwards: 0"]);
    let answer = world.browser(flow, &invite).remove(0).browser();
    let ack = lines(&[
        "ACK sip:200@xivo SIP/2.0",
        "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bKINVITE",
        "From: <sip:alice@xivo>;tag=1",
        &format!("To: {}", fields(&answer, "To")[0]),
        "Call-ID: r-1",
        "CSeq: 1 ACK",
    ]);
    assert_eq!(world.browser(flow, &ack), []);
    assert_eq!(world.browser(flow, &ack.replace(";tag=1", ";tag=2")).len(), 1);
}
