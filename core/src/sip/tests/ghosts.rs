//! A browser is gone for good: what is said in its name, and what of it.

use super::calls::{invite, trunk_invite};
use super::*;

const CONTACT: &str = "x1@df7jal23ls0d.invalid";
const ANSWER: &str = "Contact: <sip:200@10.0.0.2:5070;x=y>\r\nRecord-Route: <sip:10.0.0.8;lr>\r\n";

/// A call of a registered browser that rings; its INVITE as it went to the mediaserver.
fn ringing(world: &mut World) -> (FlowId, String) {
    let flow = world.open(1);
    world.register(flow, CONTACT);
    let forwarded = world.browser(flow, &invite("z9hG4bKi1")).remove(0).trunk();
    world.trunk(&reply(&forwarded, "180 Ringing", ""));
    (flow, forwarded)
}

/// Checks the ACK and the BYE of a call that is answered too late.
fn check_hung_up(sent: &[Sent]) -> String {
    assert_eq!(
        heads(sent),
        [
            "trunk: ACK sip:200@10.0.0.2:5070;x=y SIP/2.0",
            "trunk: BYE sip:200@10.0.0.2:5070;x=y SIP/2.0"
        ]
    );
    for (sent, cseq) in sent.iter().zip(["7 ACK", "8 BYE"]) {
        let text = sent.clone().trunk();
        assert_eq!(fields(&text, "CSeq"), [cseq]);
        assert_eq!(fields(&text, "From"), ["\"Alice\" <sip:alice@xivo>;tag=a1"]);
        assert_eq!(fields(&text, "To"), ["<sip:200@xivo>;tag=uas"]);
        assert_eq!(fields(&text, "Call-ID"), ["call-1"]);
        // RFC 3261 section 12.1.2: the route set without us.
        assert_eq!(fields(&text, "Route"), ["<sip:10.0.0.8;lr>"]);
        assert_eq!(fields(&text, "Via").len(), 1);
    }
    sent[1].clone().trunk()
}

#[test]
fn a_call_that_is_answered_too_late_is_hung_up() {
    let mut world = World::new(Reach::Path);
    let (flow, forwarded) = ringing(&mut world);
    let sent = world.call(|bridge, cx| bridge.leave(cx, flow)).1;
    assert_eq!(heads(&sent), ["trunk: CANCEL sip:200@xivo SIP/2.0"]);
    // The 200 has crossed the CANCEL.
    let answer = reply(&forwarded, "200 OK", ANSWER);
    let bye = check_hung_up(&world.trunk(&answer));
    // A repeat is acknowledged, and that is all; the BYE is repeated until it is answered.
    assert_eq!(
        heads(&world.trunk(&answer)),
        ["trunk: ACK sip:200@10.0.0.2:5070;x=y SIP/2.0"]
    );
    let again = world.wait(Duration::from_millis(500)).remove(0).1;
    assert_eq!(again.trunk(), bye);
    assert_eq!(world.trunk(&reply(&bye, "200 OK", "")), []);
    assert_eq!(world.wait(Duration::from_secs(60)), []);
    assert_eq!(world.bridge.transactions(), 0);
}

#[test]
fn an_answer_that_nobody_came_back_for_is_hung_up() {
    let mut world = World::new(Reach::Path);
    let (flow, forwarded) = ringing(&mut world);
    world.call(|bridge, cx| bridge.lost(cx, flow));
    assert_eq!(world.trunk(&reply(&forwarded, "200 OK", ANSWER)), []);
    let sent: Vec<Sent> = world
        .wait(Duration::from_secs(30))
        .into_iter()
        .map(|(_, sent)| sent)
        .collect();
    check_hung_up(&sent);
}

#[test]
fn an_answer_that_names_no_contact_is_let_be() {
    let mut world = World::new(Reach::Path);
    let (flow, forwarded) = ringing(&mut world);
    world.call(|bridge, cx| bridge.leave(cx, flow));
    assert_eq!(world.trunk(&reply(&forwarded, "200 OK", "")), []);
}

#[test]
fn contacts_are_removed_where_that_is_wanted() {
    for reach in [Reach::Path, Reach::Contact] {
        let mut world = World::with_policy(reach, |policy| policy.unregister_gone = true);
        let flow = world.open(1);
        let request = register(CONTACT, "60").replace("CSeq", "Authorization: Digest a=\"b\"\r\nCSeq");
        let forwarded = world.browser(flow, &request).remove(0).trunk();
        world.trunk(&reply(&forwarded, "200 OK", ""));
        let sent = world.call(|bridge, cx| bridge.leave(cx, flow)).1;
        assert_eq!(heads(&sent), ["trunk: REGISTER sip:xivo SIP/2.0"]);
        let removal = sent[0].clone().trunk();
        for name in ["From", "To", "Call-ID", "Path", "Supported", "Authorization"] {
            assert_eq!(fields(&removal, name), fields(&forwarded, name), "{name}");
        }
        assert_eq!(fields(&removal, "CSeq"), ["2 REGISTER"]);
        assert_eq!(fields(&removal, "Expires"), ["0"]);
        let contact = fields(&forwarded, "Contact")[0]
            .split(";expires")
            .next()
            .expect("a URI");
        assert_eq!(
            fields(&removal, "Contact"),
            [format!("<{}>;expires=0", contact.trim_matches(['<', '>']))]
        );
        assert_eq!(fields(&removal, "Via").len(), 1);
        // Refused or not, nothing else comes of it.
        assert_eq!(world.trunk(&reply(&removal, "401 Unauthorized", "")), []);
        assert_eq!(world.wait(Duration::from_secs(60)), []);
    }
}

#[test]
fn contacts_stay_where_somebody_may_need_them() {
    let leaving = |world: &mut World, flow: FlowId| heads(&world.call(|bridge, cx| bridge.leave(cx, flow)).1);
    // By default.
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    world.register(flow, CONTACT);
    assert!(leaving(&mut world, flow).is_empty());
    // When the edge closes the WebSocket itself, as when it is restarted.
    let mut world = World::with_policy(Reach::Path, |policy| policy.unregister_gone = true);
    let flow = world.open(2);
    world.register(flow, CONTACT);
    assert_eq!(world.call(|bridge, cx| bridge.close(cx, flow)).1, []);
    // When the same contact has been registered on another WebSocket since, or is not registered any more.
    let (first, second) = (world.open(3), world.open(4));
    world.register(first, CONTACT);
    let forwarded = world.browser(second, &register(CONTACT, "60")).remove(0).trunk();
    world.trunk(&reply(&forwarded, "200 OK", ""));
    assert!(leaving(&mut world, first).is_empty());
    let forwarded = world.browser(second, &register(CONTACT, "0")).remove(0).trunk();
    world.trunk(&reply(&forwarded, "200 OK", ""));
    assert!(leaving(&mut world, second).is_empty());
    // One that was lost is removed when nobody waits for it any more.
    let flow = world.open(5);
    world.register(flow, CONTACT);
    world.call(|bridge, cx| bridge.lost(cx, flow));
    let sent = world.wait(Duration::from_secs(30)).remove(0);
    assert_eq!(
        (sent.0, sent.1.head()),
        (Duration::from_secs(30), "trunk: REGISTER sip:xivo SIP/2.0".into())
    );
}

#[test]
fn whoever_calls_is_told_in_the_words_of_the_configuration() {
    for (status, expected) in [(430, "430 Flow Failed"), (480, "480 Temporarily Unavailable")] {
        let mut world = World::with_policy(Reach::Path, |policy| policy.gone_status = status);
        let flow = world.open(1);
        let path = fields(&world.register(flow, CONTACT), "Path")[0].to_owned();
        world.trunk(&trunk_invite(&path, "z9hG4bKm1"));
        // What rings ends at once, and so does what comes afterwards.
        let sent = world.call(|bridge, cx| bridge.leave(cx, flow)).1;
        assert_eq!(heads(&sent), [format!("trunk: SIP/2.0 {expected}")]);
        let sent = world.trunk(&trunk_invite(&path, "z9hG4bKm2").replace("call-2", "call-3"));
        assert_eq!(heads(&sent), [format!("trunk: SIP/2.0 {expected}")]);
        // Nobody who asks after its health is told anything.
        let options = trunk_invite(&path, "z9hG4bKm3").replace("INVITE", "OPTIONS");
        assert_eq!(world.trunk(&options), []);
    }
}
