//! INVITE with all that belongs to it, both ways.

use super::*;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 203.0.113.9\r\ns=-\r\n";

pub(super) fn invite(branch: &str) -> String {
    let head = lines(&[
        "INVITE sip:200@xivo SIP/2.0",
        &format!("Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch={branch}"),
        "Max-Forwards: 69",
        "To: <sip:200@xivo>",
        "From: \"Alice\" <sip:alice@xivo>;tag=a1",
        "Call-ID: call-1",
        "CSeq: 7 INVITE",
        "Contact: <sip:x1@df7jal23ls0d.invalid;transport=ws>",
        "Alert-Info: xivo-autoanswer",
        "Route: <sip:10.9.9.9:22;lr>",
        "P-Asserted-Identity: <sip:boss@xivo>",
        "Content-Type: application/sdp",
    ]);
    format!("{head}{SDP}")
}

/// What was sent while time passed.
fn waited(sent: Vec<(Duration, Sent)>) -> Vec<Sent> {
    sent.into_iter().map(|(_, sent)| sent).collect()
}

/// A request within the dialog of `invite`, towards the mediaserver.
pub(super) fn in_dialog(method: &str, cseq: u32, branch: &str, forwarded: &str) -> String {
    // The browser's route set is the reversed list that the response gave it.
    let routes: Vec<_> = fields(forwarded, "Record-Route").into_iter().rev().collect();
    lines(&[
        &format!("{method} sip:200@10.0.0.2:5060 SIP/2.0"),
        &format!("Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch={branch}"),
        "Max-Forwards: 70",
        &format!("Route: {}", routes.join(", ")),
        "To: <sip:200@xivo>;tag=uas",
        "From: \"Alice\" <sip:alice@xivo>;tag=a1",
        "Call-ID: call-1",
        &format!("CSeq: {cseq} {method}"),
        "Content-Length: 0",
    ])
}

#[test]
fn a_call_from_the_browser() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);

    let sent = world.browser(flow, &invite("z9hG4bKi1"));
    assert_eq!(heads(&sent), ["trunk: INVITE sip:200@xivo SIP/2.0"]);
    let forwarded = sent[0].clone().trunk();
    let vias = fields(&forwarded, "Via");
    assert!(vias[0].starts_with("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK") && vias[0].ends_with(";rport"));
    assert_eq!(vias[1], "SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bKi1");
    let recorded = fields(&forwarded, "Record-Route");
    let token = token(recorded[0]);
    assert_eq!(
        recorded,
        [
            format!("<sip:{token}@10.0.0.1:5060;lr>"),
            format!("<sip:{token}@edge.example.com:443;transport=ws;lr>")
        ]
    );
    assert_eq!(fields(&forwarded, "Max-Forwards"), ["68"]);
    assert_eq!(fields(&forwarded, "Content-Length"), [SDP.len().to_string()]);
    assert_eq!(fields(&forwarded, "Alert-Info"), ["xivo-autoanswer"]);
    assert!(fields(&forwarded, "Route").is_empty() && fields(&forwarded, "P-Asserted-Identity").is_empty());
    assert!(forwarded.ends_with(&format!("\r\n\r\n{SDP}")));

    assert_eq!(world.trunk(&reply(&forwarded, "100 Trying", "")), []);
    let ringing = world.trunk(&reply(&forwarded, "180 Ringing", "")).remove(0).browser();
    assert_eq!(
        fields(&ringing, "Via"),
        ["SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bKi1"]
    );
    assert_eq!(fields(&ringing, "Record-Route"), recorded);
    let ok = reply(&forwarded, "200 OK", "Contact: <sip:200@10.0.0.2:5060>\r\n");
    assert_eq!(heads(&world.trunk(&ok)), ["browser: SIP/2.0 200 OK"]);
    // Its ACK was lost: the repeat passes as well.
    assert_eq!(heads(&world.trunk(&ok)), ["browser: SIP/2.0 200 OK"]);

    let ack = world
        .browser(flow, &in_dialog("ACK", 7, "z9hG4bKa1", &forwarded))
        .remove(0)
        .trunk();
    assert_eq!(start_line(&ack), "ACK sip:200@10.0.0.2:5060 SIP/2.0");
    assert!(fields(&ack, "Route").is_empty());
    assert_eq!(fields(&ack, "Via").len(), 2);

    let bye = world
        .browser(flow, &in_dialog("BYE", 8, "z9hG4bKb1", &forwarded))
        .remove(0)
        .trunk();
    assert!(fields(&bye, "Record-Route").is_empty());
    assert_eq!(
        heads(&world.trunk(&reply(&bye, "200 OK", ""))),
        ["browser: SIP/2.0 200 OK"]
    );
    assert_eq!(world.wait(Duration::from_secs(60)), []);
    assert_eq!(world.bridge.transactions(), 0);
}

/// An INVITE of the mediaserver by the Path of a registration.
pub(super) fn trunk_invite(path: &str, branch: &str) -> String {
    lines(&[
        "INVITE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0",
        &format!("Via: SIP/2.0/UDP 10.0.0.2:5060;rport;branch={branch}"),
        "From: <sip:200@xivo>;tag=b1",
        "To: <sip:x1@df7jal23ls0d.invalid>",
        "Contact: <sip:asterisk@10.0.0.2:5060>",
        "Call-ID: call-2",
        "CSeq: 11 INVITE",
        &format!("Route: {path}"),
        "Max-Forwards: 70",
        "Content-Length: 0",
    ])
}

/// A request of the mediaserver in the dialog of `forwarded`, which went to the browser.
pub(super) fn trunk_in_dialog(method: &str, cseq: u32, branch: &str, forwarded: &str) -> String {
    let routes: Vec<_> = fields(forwarded, "Record-Route").into_iter().rev().collect();
    let routes = routes
        .iter()
        .map(|route| format!("Route: {route}\r\n"))
        .collect::<String>();
    lines(&[
        &format!("{method} sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0"),
        &format!("Via: SIP/2.0/UDP 10.0.0.2:5060;rport;branch={branch}"),
        "From: <sip:200@xivo>;tag=b1",
        "To: <sip:x1@df7jal23ls0d.invalid>;tag=uas",
        "Call-ID: call-2",
        &format!("CSeq: {cseq} {method}"),
        &format!("{routes}Max-Forwards: 70"),
        "Content-Length: 0",
    ])
}

#[test]
fn a_call_from_the_mediaserver() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let registered = world.register(flow, "x1@df7jal23ls0d.invalid");
    let path = fields(&registered, "Path")[0];

    let sent = world.trunk(&trunk_invite(path, "z9hG4bKm1"));
    assert_eq!(
        heads(&sent),
        [
            "trunk: SIP/2.0 100 Trying",
            "browser: INVITE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0"
        ]
    );
    let trying = sent[0].clone().trunk();
    assert_eq!(
        fields(&trying, "Via"),
        ["SIP/2.0/UDP 10.0.0.2:5060;rport=5060;branch=z9hG4bKm1;received=10.0.0.2"]
    );
    let forwarded = sent[1].clone().browser();
    assert!(fields(&forwarded, "Via")[0].starts_with("SIP/2.0/WSS edge.example.com:443;branch="));
    let recorded = fields(&forwarded, "Record-Route");
    assert!(
        recorded[0].contains("@edge.example.com:443;transport=ws;lr>") && recorded[1].contains("@10.0.0.1:5060;lr>")
    );
    assert!(fields(&forwarded, "Route").is_empty());
    assert_eq!(fields(&forwarded, "Max-Forwards"), ["69"]);

    // A repeat is answered by what was said last.
    assert_eq!(
        heads(&world.trunk(&trunk_invite(path, "z9hG4bKm1"))),
        ["trunk: SIP/2.0 100 Trying"]
    );
    assert_eq!(
        heads(&world.browser(flow, &reply(&forwarded, "180 Ringing", ""))),
        ["trunk: SIP/2.0 180 Ringing"]
    );
    assert_eq!(
        heads(&world.trunk(&trunk_invite(path, "z9hG4bKm1"))),
        ["trunk: SIP/2.0 180 Ringing"]
    );
    let ok = reply(&forwarded, "200 OK", "Contact: <sip:x1@df7jal23ls0d.invalid>\r\n");
    let sent = world.browser(flow, &ok);
    assert_eq!(sent.len(), 1);
    assert!(matches!(&sent[0], Sent::Trunk(to, _) if *to == mediaserver(0)));
    let ok = sent[0].clone().trunk();
    assert_eq!(
        fields(&ok, "Via"),
        ["SIP/2.0/UDP 10.0.0.2:5060;rport=5060;branch=z9hG4bKm1;received=10.0.0.2"]
    );
    assert_eq!(fields(&ok, "Record-Route"), recorded);
    assert_eq!(world.trunk(&trunk_invite(path, "z9hG4bKm1")), []);

    let ack = world
        .trunk(&trunk_in_dialog("ACK", 11, "z9hG4bKm2", &forwarded))
        .remove(0)
        .browser();
    assert!(fields(&ack, "Route").is_empty());
    let again = world.trunk(&trunk_in_dialog("INVITE", 12, "z9hG4bKm3", &forwarded));
    assert_eq!(again.len(), 2);
    let again = reply(&again[1].clone().browser(), "200 OK", "");
    assert_eq!(heads(&world.browser(flow, &again)), ["trunk: SIP/2.0 200 OK"]);
    let bye = world
        .trunk(&trunk_in_dialog("BYE", 13, "z9hG4bKm4", &forwarded))
        .remove(0)
        .browser();
    assert_eq!(
        heads(&world.browser(flow, &reply(&bye, "200 OK", ""))),
        ["trunk: SIP/2.0 200 OK"]
    );
    // The mediaserver did not hear it.
    let repeat = world.trunk(&trunk_in_dialog("BYE", 13, "z9hG4bKm4", &forwarded));
    assert_eq!(heads(&repeat), ["trunk: SIP/2.0 200 OK"]);
    assert_eq!(world.wait(Duration::from_secs(60)), []);
    assert_eq!(world.bridge.transactions(), 0);
}

#[test]
fn an_invite_is_repeated_until_something_comes() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    world.browser(flow, &invite("z9hG4bKi1"));
    let sent = world.wait(Duration::from_secs(40));
    let at: Vec<_> = sent.iter().map(|(at, sent)| (at.as_millis(), sent.head())).collect();
    let invite = "trunk: INVITE sip:200@xivo SIP/2.0".to_owned();
    assert_eq!(
        at,
        [
            (150, "browser: SIP/2.0 100 Trying".into()),
            (500, invite.clone()),
            (1500, invite.clone()),
            (3500, invite.clone()),
            (7500, invite.clone()),
            (15_500, invite.clone()),
            (31_500, invite),
            (32_000, "browser: SIP/2.0 408 Request Timeout".into())
        ]
    );
}

#[test]
fn a_refused_call_from_the_browser() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let forwarded = world.browser(flow, &invite("z9hG4bKi1")).remove(0).trunk();
    let busy = reply(&forwarded, "486 Busy Here", "");
    let sent = world.trunk(&busy);
    assert_eq!(
        heads(&sent),
        ["trunk: ACK sip:200@xivo SIP/2.0", "browser: SIP/2.0 486 Busy Here"]
    );
    let ack = sent[0].clone().trunk();
    assert_eq!(fields(&ack, "Via"), [fields(&forwarded, "Via")[0]]);
    assert_eq!(fields(&ack, "To"), ["<sip:200@xivo>;tag=uas"]);
    assert_eq!(fields(&ack, "CSeq"), ["7 ACK"]);
    // The browser's own ACK goes no further; a repeat of the response is acknowledged again.
    assert_eq!(world.browser(flow, &in_dialog("ACK", 7, "z9hG4bKi1", &forwarded)), []);
    assert_eq!(world.trunk(&busy), [Sent::Trunk(mediaserver(0), ack)]);
    world.wait(Duration::from_secs(33));
    assert_eq!(world.bridge.transactions(), 0);
}

#[test]
fn a_refused_call_from_the_mediaserver() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let registered = world.register(flow, "x1@df7jal23ls0d.invalid");
    let path = fields(&registered, "Path")[0];
    let forwarded = world.trunk(&trunk_invite(path, "z9hG4bKm1")).remove(1).browser();
    let sent = world.browser(flow, &reply(&forwarded, "486 Busy Here", ""));
    assert_eq!(
        heads(&sent),
        [
            "browser: ACK sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0",
            "trunk: SIP/2.0 486 Busy Here"
        ]
    );
    let sent: Vec<_> = world
        .wait(Duration::from_secs(4))
        .into_iter()
        .map(|(at, sent)| (at.as_millis(), sent.head()))
        .collect();
    let busy = "trunk: SIP/2.0 486 Busy Here".to_owned();
    assert_eq!(sent, [(500, busy.clone()), (1500, busy.clone()), (3500, busy)]);
    let ack = trunk_invite(path, "z9hG4bKm1")
        .replace("INVITE", "ACK")
        .replace("invalid>", "invalid>;tag=uas");
    assert_eq!(world.trunk(&ack), []);
    assert_eq!(world.wait(Duration::from_secs(40)), []);
    assert_eq!(world.bridge.transactions(), 0);
}

#[test]
fn a_call_is_cancelled_by_the_browser() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let forwarded = world.browser(flow, &invite("z9hG4bKi1")).remove(0).trunk();
    let cancel = lines(&[
        "CANCEL sip:200@xivo SIP/2.0",
        "Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bKi1",
        "Max-Forwards: 69",
        "To: <sip:200@xivo>",
        "From: \"Alice\" <sip:alice@xivo>;tag=a1",
        "Call-ID: call-1",
        "CSeq: 7 CANCEL",
        "Reason: SIP;cause=200;text=\"Call completed elsewhere\"",
    ]);
    // Answered at once, passed on only after a provisional response.
    assert_eq!(heads(&world.browser(flow, &cancel)), ["browser: SIP/2.0 200 OK"]);
    let sent = world.trunk(&reply(&forwarded, "100 Trying", ""));
    assert_eq!(heads(&sent), ["trunk: CANCEL sip:200@xivo SIP/2.0"]);
    let cancel = sent[0].clone().trunk();
    assert_eq!(fields(&cancel, "Via"), [fields(&forwarded, "Via")[0]]);
    assert_eq!(fields(&cancel, "CSeq"), ["7 CANCEL"]);
    assert_eq!(
        fields(&cancel, "Reason"),
        ["SIP;cause=200;text=\"Call completed elsewhere\""]
    );
    // Lost, and sent again.
    assert_eq!(
        heads(&waited(world.wait(Duration::from_millis(600)))),
        ["browser: SIP/2.0 100 Trying", "trunk: CANCEL sip:200@xivo SIP/2.0"]
    );
    assert_eq!(world.trunk(&reply(&cancel, "200 OK", "")), []);
    assert_eq!(world.wait(Duration::from_secs(10)), []);
    let sent = world.trunk(&reply(&forwarded, "487 Request Terminated", ""));
    assert_eq!(
        heads(&sent),
        [
            "trunk: ACK sip:200@xivo SIP/2.0",
            "browser: SIP/2.0 487 Request Terminated"
        ]
    );
}

#[test]
fn a_browser_is_told_that_its_call_is_tried_unless_it_hears_better() {
    let check = |answer: Option<&str>, expected: &[&str]| {
        let mut world = World::new(Reach::Path);
        let flow = world.open(1);
        let forwarded = world.browser(flow, &invite("z9hG4bKi1")).remove(0).trunk();
        if let Some(status) = answer {
            world.trunk(&reply(&forwarded, status, ""));
        }
        assert_eq!(heads(&waited(world.wait(Duration::from_millis(200)))), expected);
    };
    check(None, &["browser: SIP/2.0 100 Trying"]);
    check(Some("100 Trying"), &["browser: SIP/2.0 100 Trying"]);
    for status in ["180 Ringing", "200 OK", "486 Busy Here"] {
        check(Some(status), &[]);
    }
}

#[test]
fn a_call_is_cancelled_before_anything_came() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let invite = invite("z9hG4bKi1");
    let forwarded = world.browser(flow, &invite).remove(0).trunk();
    world.browser(flow, &invite.replace("INVITE", "CANCEL"));
    let sent = world.wait(Duration::from_secs(33)).pop().expect("an end").1;
    assert_eq!(sent.head(), "browser: SIP/2.0 487 Request Terminated");
    // Too late for anything.
    assert_eq!(world.trunk(&reply(&forwarded, "180 Ringing", "")), []);
    assert_eq!(world.trunk(&reply(&forwarded, "200 OK", "")), []);
}

#[test]
fn a_call_is_cancelled_by_the_mediaserver() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let registered = world.register(flow, "x1@df7jal23ls0d.invalid");
    let path = fields(&registered, "Path")[0];
    let invite = trunk_invite(path, "z9hG4bKm1");
    let forwarded = world.trunk(&invite).remove(1).browser();
    let cancel = invite.replace("INVITE", "CANCEL");
    assert_eq!(heads(&world.trunk(&cancel)), ["trunk: SIP/2.0 200 OK"]);
    let sent = world.browser(flow, &reply(&forwarded, "180 Ringing", ""));
    assert_eq!(
        heads(&sent),
        [
            "trunk: SIP/2.0 180 Ringing",
            "browser: CANCEL sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0"
        ]
    );
    assert_eq!(
        world.browser(flow, &reply(&sent[1].clone().browser(), "200 OK", "")),
        []
    );
    let sent = world.browser(flow, &reply(&forwarded, "487 Request Terminated", ""));
    assert_eq!(heads(&sent)[1], "trunk: SIP/2.0 487 Request Terminated");
    // One that belongs to nothing.
    let stray = cancel.replace("z9hG4bKm1", "z9hG4bKm9");
    assert_eq!(
        heads(&world.trunk(&stray)),
        ["trunk: SIP/2.0 481 Call/Transaction Does Not Exist"]
    );
}

#[test]
fn a_browser_cannot_change_the_route_set() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let registered = world.register(flow, "x1@df7jal23ls0d.invalid");
    let path = fields(&registered, "Path")[0];
    let forwarded = world.trunk(&trunk_invite(path, "z9hG4bKm1")).remove(1).browser();
    let mut ok = reply(&forwarded, "200 OK", "P-Asserted-Identity: <sip:boss@xivo>\r\n");
    ok = ok.replace("Record-Route: <sip:", "Record-Route: <sip:10.0.0.99:22;lr>,<sip:");
    let ok = world.browser(flow, &ok).remove(0).trunk();
    assert_eq!(fields(&ok, "Record-Route"), fields(&forwarded, "Record-Route"));
    assert!(!ok.contains("boss"));
}

#[test]
fn a_closed_websocket_ends_what_waits_for_it() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let registered = world.register(flow, "x1@df7jal23ls0d.invalid");
    let path = fields(&registered, "Path")[0];
    world.trunk(&trunk_invite(path, "z9hG4bKm1"));
    let own = world.browser(flow, &invite("z9hG4bKi1")).remove(0).trunk();
    world.trunk(&reply(&own, "180 Ringing", ""));
    let sent = world.call(|bridge, cx| bridge.close(cx, flow)).1;
    let mut heads = heads(&sent);
    heads.sort();
    assert_eq!(
        heads,
        ["trunk: CANCEL sip:200@xivo SIP/2.0", "trunk: SIP/2.0 430 Flow Failed"]
    );
    // And what comes later.
    assert_eq!(
        super::heads(&world.trunk(&trunk_invite(path, "z9hG4bKm2"))),
        ["trunk: SIP/2.0 430 Flow Failed"]
    );
    let options = trunk_invite(path, "z9hG4bKm3").replace("INVITE", "OPTIONS");
    assert_eq!(world.trunk(&options), []);
    assert_eq!(world.bridge.flows(), 0);
    assert_eq!(world.browser(flow, &invite("z9hG4bKi2")), []);
}
