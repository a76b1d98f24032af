//! A WebSocket breaks, and the browser comes back on another one.

use super::calls::{in_dialog, invite, trunk_in_dialog, trunk_invite};
use super::*;

const CONTACT: &str = "x1@df7jal23ls0d.invalid";

/// A registered flow, and its Path.
fn registered(world: &mut World, conn: u32) -> (FlowId, String) {
    let flow = world.open(conn);
    let path = fields(&world.register(flow, CONTACT), "Path")[0].to_owned();
    (flow, path)
}

fn lose(world: &mut World, flow: FlowId) -> Vec<Sent> {
    world.call(|bridge, cx| bridge.lost(cx, flow)).1
}

/// The connections that messages went to, with their start lines.
fn to(sent: &[Sent]) -> Vec<(u32, String)> {
    sent.iter()
        .map(|sent| match sent {
            Sent::Browser(conn, text) => (conn.0.index(), start_line(text).to_owned()),
            other => (0, other.head()),
        })
        .collect()
}

/// Registers on a new WebSocket; what else that leads to.
fn come_back(world: &mut World, conn: u32, contact: &str) -> (FlowId, Vec<Sent>) {
    let flow = world.open(conn);
    let forwarded = world.browser(flow, &register(contact, "60")).remove(0).trunk();
    let mut sent = world.trunk(&reply(&forwarded, "200 OK", ""));
    assert_eq!(sent.remove(0).head(), "browser: SIP/2.0 200 OK");
    (flow, sent)
}

#[test]
fn a_dialog_goes_on_at_the_new_websocket() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    let call = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    world.browser(flow, &reply(&call, "200 OK", ""));
    assert_eq!(lose(&mut world, flow), []);
    let (new, sent) = come_back(&mut world, 2, CONTACT);
    assert_eq!(sent, []);
    assert_eq!(world.bridge.flows(), 1);
    // Its old Record-Route, and its old Path.
    let bye = world.trunk(&trunk_in_dialog("BYE", 13, "z9hG4bKm4", &call));
    assert_eq!(
        to(&bye),
        [(2, "BYE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".into())]
    );
    assert_eq!(
        heads(&world.browser(new, &reply(&bye[0].clone().browser(), "200 OK", ""))),
        ["trunk: SIP/2.0 200 OK"]
    );
    assert_eq!(to(&world.trunk(&trunk_invite(&path, "z9hG4bKm2")))[1].0, 2);
}

#[test]
fn what_was_under_way_goes_on() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    let own = world.browser(flow, &invite("z9hG4bKi1")).remove(0).trunk();
    let ringing = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    world.browser(flow, &reply(&ringing, "180 Ringing", ""));
    lose(&mut world, flow);
    // Kept for the browser: a response, and a request that comes while it is away.
    assert_eq!(world.trunk(&reply(&own, "200 OK", "")), []);
    let held = world.trunk(&trunk_invite(&path, "z9hG4bKm2").replace("call-2", "call-3"));
    assert_eq!(heads(&held), ["trunk: SIP/2.0 100 Trying"]);
    world.wait(Duration::from_millis(1500));
    let (new, sent) = come_back(&mut world, 2, CONTACT);
    assert_eq!(
        to(&sent),
        [
            (2, "INVITE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".to_owned()),
            (2, "SIP/2.0 200 OK".into()),
            (2, "INVITE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".into())
        ]
    );
    // The call that rang still does: the browser hears of it again, in case that it forgot, and answers it from there.
    assert_eq!(sent[0].clone().browser(), ringing);
    let ok = world.browser(new, &reply(&ringing, "200 OK", ""));
    assert_eq!(heads(&ok), ["trunk: SIP/2.0 200 OK"]);
    let held = sent[2].clone().browser();
    assert_eq!(
        heads(&world.browser(new, &reply(&held, "180 Ringing", ""))),
        ["trunk: SIP/2.0 180 Ringing"]
    );
}

#[test]
fn what_a_half_open_websocket_has_swallowed_is_said_again() {
    let mut world = World::new(Reach::Path);
    let (flow, _) = registered(&mut world, 1);
    let call = |world: &mut World, flow, number: u32, status: &str| {
        let invite = invite(&format!("z9hG4bKi{number}")).replace("call-1", &format!("call-{number}"));
        let forwarded = world.browser(flow, &invite).remove(0).trunk();
        world.trunk(&reply(&forwarded, status, ""));
        forwarded
    };
    call(&mut world, flow, 1, "180 Ringing");
    call(&mut world, flow, 2, "486 Busy Here");
    let acknowledged = call(&mut world, flow, 3, "404 Not Found");
    world.browser(
        flow,
        &in_dialog("ACK", 7, "z9hG4bKi3", &acknowledged).replace("call-1", "call-3"),
    );
    call(&mut world, flow, 4, "200 OK");
    let answered = |sent: &[Sent]| {
        let text = |sent: &Sent| sent.clone().browser();
        let of = |text: String| format!("{} {}", fields(&text, "Call-ID")[0], start_line(&text));
        sent.iter().map(|sent| of(text(sent))).collect::<Vec<_>>()
    };
    come_back(&mut world, 2, CONTACT);
    let sent = lose(&mut world, flow);
    // Of these, only the mediaserver repeats what it has said, until the ACK comes.
    assert_eq!(
        answered(&sent),
        ["call-1 SIP/2.0 100 Trying", "call-2 SIP/2.0 486 Busy Here"]
    );
    // What comes while it is known to be away is said once.
    let mut world = World::new(Reach::Path);
    let (flow, _) = registered(&mut world, 1);
    let forwarded = call(&mut world, flow, 5, "180 Ringing");
    lose(&mut world, flow);
    let sent = world.trunk(&reply(&forwarded, "486 Busy Here", ""));
    assert_eq!(heads(&sent), ["trunk: ACK sip:200@xivo SIP/2.0"]);
    assert_eq!(
        answered(&come_back(&mut world, 2, CONTACT).1),
        ["call-5 SIP/2.0 486 Busy Here"]
    );
}

#[test]
fn a_request_for_a_lost_flow_waits_as_long_as_configured() {
    for secs in [2, 5] {
        let mut config = config(Reach::Path);
        assert_eq!(SipLimits::default().hold, Duration::from_secs(2));
        config.sip.as_mut().expect("a sip role").limits.hold = Duration::from_secs(secs);
        let mut world = World::with(config, 1);
        let (flow, path) = registered(&mut world, 1);
        lose(&mut world, flow);
        world.trunk(&trunk_invite(&path, "z9hG4bKm1"));
        let sent = world.wait(Duration::from_secs(secs) + Duration::from_millis(100));
        let sent: Vec<_> = sent.into_iter().map(|(at, sent)| (at, sent.head())).collect();
        assert_eq!(
            sent,
            [(Duration::from_secs(secs), "trunk: SIP/2.0 430 Flow Failed".into())]
        );
    }
}

#[test]
fn a_request_that_waits_for_a_lost_flow_may_be_taken_back() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    lose(&mut world, flow);
    // It is over at once, and never delivered.
    let invite = trunk_invite(&path, "z9hG4bKm2");
    world.trunk(&invite);
    let sent = world.trunk(&invite.replace("INVITE", "CANCEL"));
    assert_eq!(
        heads(&sent),
        ["trunk: SIP/2.0 200 OK", "trunk: SIP/2.0 487 Request Terminated"]
    );
    // Questions after its health get no answer.
    assert_eq!(
        world.trunk(&trunk_invite(&path, "z9hG4bKm3").replace("INVITE", "OPTIONS")),
        []
    );
    assert_eq!(come_back(&mut world, 2, CONTACT).1, []);
}

#[test]
fn a_lost_flow_is_given_up_in_the_end() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    let ringing = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    world.browser(flow, &reply(&ringing, "180 Ringing", ""));
    lose(&mut world, flow);
    assert_eq!(world.wait(Duration::from_millis(29_900)), []);
    let sent: Vec<_> = world
        .wait(Duration::from_millis(200))
        .into_iter()
        .map(|(_, sent)| sent.head())
        .collect();
    assert_eq!(sent, ["trunk: SIP/2.0 430 Flow Failed"]);
    assert_eq!(world.bridge.flows(), 0);
    assert_eq!(
        heads(&world.trunk(&trunk_invite(&path, "z9hG4bKm2"))),
        ["trunk: SIP/2.0 430 Flow Failed"]
    );
}

#[test]
fn a_call_that_was_refused_does_not_ring_when_a_repeat_was_late() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    lose(&mut world, flow);
    world.wait(Duration::from_secs(31));
    let call = trunk_invite(&path, "z9hG4bKm1");
    assert_eq!(heads(&world.trunk(&call)), ["trunk: SIP/2.0 430 Flow Failed"]);
    registered(&mut world, 2);
    assert_eq!(heads(&world.trunk(&call)), ["trunk: SIP/2.0 430 Flow Failed"]);
    let next = world.trunk(&trunk_invite(&path, "z9hG4bKm2"));
    assert_eq!(start_line(&next[1].clone().browser()).split(' ').next(), Some("INVITE"));
    // No mediaserver repeats a request for longer.
    world.wait(Duration::from_secs(33));
    assert_eq!(world.trunk(&call).len(), 2);
}

#[test]
fn nobody_takes_over_without_the_mediaservers_consent() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    lose(&mut world, flow);
    // The same contact, but refused; the same contact of somebody else.
    let thief = world.open(2);
    let forwarded = world.browser(thief, &register(CONTACT, "60")).remove(0).trunk();
    assert_eq!(
        heads(&world.trunk(&reply(&forwarded, "403 Forbidden", ""))),
        ["browser: SIP/2.0 403 Forbidden"]
    );
    let other = register(CONTACT, "60").replace("alice", "mallory");
    let forwarded = world.browser(thief, &other).remove(0).trunk();
    assert_eq!(
        heads(&world.trunk(&reply(&forwarded, "200 OK", ""))),
        ["browser: SIP/2.0 200 OK"]
    );
    world.trunk(&trunk_invite(&path, "z9hG4bKm1"));
    assert_eq!(to(&come_back(&mut world, 3, CONTACT).1)[0].0, 3);
}

#[test]
fn the_token_of_the_websocket_may_do_instead() {
    let mut world = World::new(Reach::Path);
    let flow = world.open_as(1, 0, Some("login-of-alice"));
    let path = fields(&world.register(flow, CONTACT), "Path")[0].to_owned();
    lose(&mut world, flow);
    world.trunk(&trunk_invite(&path, "z9hG4bKm1"));
    let other = world.open_as(2, 0, Some("login-of-mallory"));
    assert_eq!(
        heads(&world.browser(other, &register(CONTACT, "60"))),
        ["trunk: REGISTER sip:xivo SIP/2.0"]
    );
    let same = world.open_as(3, 0, Some("login-of-alice"));
    let sent = world.browser(same, &register(CONTACT, "60"));
    assert_eq!(
        to(&sent),
        [
            (3, "INVITE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".into()),
            (0, "trunk: REGISTER sip:xivo SIP/2.0".into())
        ]
    );
}

#[test]
fn two_windows_keep_their_calls_apart() {
    let mut world = World::new(Reach::Path);
    let (first, path) = registered(&mut world, 1);
    let call = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    world.browser(first, &reply(&call, "200 OK", ""));
    // Whether the first still lives is asked, and as long as it does it has its dialogs.
    let (_, sent) = come_back(&mut world, 2, CONTACT);
    assert_eq!(sent, [Sent::Probe(connection(1))]);
    assert_eq!(
        to(&world.trunk(&trunk_in_dialog("INFO", 12, "z9hG4bKm2", &call)))[0].0,
        1
    );
    // It has not heard that: it was only half open.
    let sent = lose(&mut world, first);
    assert_eq!(
        to(&sent),
        [(2, "INFO sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".into())]
    );
    assert_eq!(
        to(&world.trunk(&trunk_in_dialog("BYE", 13, "z9hG4bKm3", &call)))[0].0,
        2
    );
    assert_eq!(world.bridge.flows(), 1);
}

#[test]
fn order_is_kept_over_a_half_open_websocket() {
    let mut world = World::new(Reach::Path);
    let (first, path) = registered(&mut world, 1);
    let call = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    world.browser(first, &reply(&call, "200 OK", ""));
    for cseq in 12..20 {
        let notify = world
            .trunk(&trunk_in_dialog("NOTIFY", cseq, &format!("z9hG4bKn{cseq}"), &call))
            .remove(0)
            .browser();
        if cseq % 3 == 0 {
            world.browser(first, &reply(&notify, "200 OK", ""));
        }
    }
    come_back(&mut world, 2, CONTACT);
    let sent = lose(&mut world, first);
    let order: Vec<_> = sent
        .into_iter()
        .map(|sent| fields(&sent.browser(), "CSeq")[0].to_owned())
        .collect();
    assert_eq!(order, [13, 14, 16, 17, 19].map(|cseq| format!("{cseq} NOTIFY")));
}

#[test]
fn a_restart_heals_with_the_next_register() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    let call = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    world.browser(flow, &reply(&call, "200 OK", ""));
    // The same keys, and otherwise nothing.
    let mut world = World::with(config(Reach::Path), 2);
    // Whoever calls hears at once that nobody is there; what belongs to a call waits for the browser.
    let invite = trunk_invite(&path, "z9hG4bKm2");
    assert_eq!(heads(&world.trunk(&invite)), ["trunk: SIP/2.0 430 Flow Failed"]);
    assert_eq!(world.trunk(&trunk_in_dialog("INFO", 13, "z9hG4bKm3", &call)), []);
    assert_eq!(world.trunk(&trunk_in_dialog("OPTIONS", 14, "z9hG4bKm4", &call)), []);
    world.wait(Duration::from_secs(9));
    let (_, sent) = come_back(&mut world, 8, CONTACT);
    assert_eq!(
        to(&sent),
        [(8, "INFO sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".into())]
    );
    assert_eq!(
        to(&world.trunk(&trunk_in_dialog("BYE", 15, "z9hG4bKm5", &call)))[0].0,
        8
    );
    assert_eq!(to(&world.trunk(&trunk_invite(&path, "z9hG4bKm6")))[1].0, 8);
    assert_eq!(world.bridge.flows(), 1);
}

#[test]
fn after_a_restart_nobody_is_waited_for_without_end() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    let call = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    world.browser(flow, &reply(&call, "200 OK", ""));
    let mut world = World::with(config(Reach::Path), 2);
    assert_eq!(world.trunk(&trunk_in_dialog("BYE", 13, "z9hG4bKm2", &call)), []);
    assert_eq!(world.wait(Duration::from_millis(29_900)).len(), 1);
    let sent = world.wait(Duration::from_millis(200)).remove(0).1;
    assert_eq!(sent.head(), "trunk: SIP/2.0 430 Flow Failed");
    assert_eq!(world.bridge.flows(), 0);
    let late = world.trunk(&trunk_in_dialog("BYE", 14, "z9hG4bKm3", &call));
    assert_eq!(heads(&late), ["trunk: SIP/2.0 430 Flow Failed"]);
    // A token of this run has no earlier one to speak of.
    let (flow, path) = registered(&mut world, 3);
    let call = world.trunk(&trunk_invite(&path, "z9hG4bKm4")).remove(1).browser();
    world.call(|bridge, cx| bridge.close(cx, flow));
    let bye = world.trunk(&trunk_in_dialog("BYE", 13, "z9hG4bKm5", &call));
    assert_eq!(heads(&bye), ["trunk: SIP/2.0 430 Flow Failed"]);
}

#[test]
fn what_belongs_to_a_call_waits_longer_than_a_caller() {
    let mut world = World::new(Reach::Path);
    let (flow, path) = registered(&mut world, 1);
    let call = world.trunk(&trunk_invite(&path, "z9hG4bKm1")).remove(1).browser();
    world.browser(flow, &reply(&call, "200 OK", ""));
    lose(&mut world, flow);
    assert_eq!(world.trunk(&trunk_in_dialog("BYE", 13, "z9hG4bKm2", &call)), []);
    // RFC 4320 section 4.1: it gets late.
    let sent = world.wait(Duration::from_secs(29)).into_iter();
    let sent: Vec<_> = sent.map(|(at, sent)| (at.as_millis(), sent.head())).collect();
    assert_eq!(sent, [(3500, "trunk: SIP/2.0 100 Trying".into())]);
    let (new, sent) = come_back(&mut world, 2, CONTACT);
    assert_eq!(
        to(&sent),
        [(2, "BYE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".into())]
    );
    let ok = world.browser(new, &reply(&sent[0].clone().browser(), "200 OK", ""));
    assert_eq!(heads(&ok), ["trunk: SIP/2.0 200 OK"]);
}

#[test]
fn a_contact_of_ours_outlives_its_websocket() {
    let mut world = World::new(Reach::Contact);
    let flow = world.open(1);
    let first = world.register(flow, CONTACT);
    lose(&mut world, flow);
    let again = world.open(2);
    let second = world.browser(again, &register(CONTACT, "60")).remove(0).trunk();
    // The mediaserver sees one contact, not a second one.
    assert_eq!(fields(&first, "Contact"), fields(&second, "Contact"));
    world.trunk(&reply(&second, "200 OK", ""));
    let alias = token(fields(&second, "Contact")[0]).to_owned();
    let invite = trunk_invite("<sip:10.0.0.1;lr>", "z9hG4bKm1").replace(
        "x1@df7jal23ls0d.invalid;transport=ws",
        &format!("{alias}@10.0.0.1:5060"),
    );
    let sent = world.trunk(&invite);
    assert_eq!(
        to(&sent)[1],
        (2, "INVITE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".into())
    );
}

#[test]
fn a_cancel_that_was_not_heard_is_sent_again() {
    let mut world = World::new(Reach::Path);
    let (first, path) = registered(&mut world, 1);
    let invite = trunk_invite(&path, "z9hG4bKm1");
    let ringing = world.trunk(&invite).remove(1).browser();
    world.browser(first, &reply(&ringing, "180 Ringing", ""));
    world.trunk(&invite.replace("INVITE", "CANCEL"));
    let (new, _) = come_back(&mut world, 2, CONTACT);
    let sent = lose(&mut world, first);
    assert_eq!(
        to(&sent),
        [(2, "CANCEL sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0".into())]
    );
    let sent = world.browser(new, &reply(&ringing, "487 Request Terminated", ""));
    assert_eq!(heads(&sent)[1], "trunk: SIP/2.0 487 Request Terminated");
}
