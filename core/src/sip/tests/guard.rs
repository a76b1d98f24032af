//! What browsers may not say, and what is not said to them.

use super::calls::{invite, trunk_invite};
use super::*;

const CONTACT: &str = "x1@df7jal23ls0d.invalid";

/// What becomes of a request: the head of what is said last.
fn verdict(world: &mut World, flow: FlowId, request: &str) -> String {
    heads(&world.browser(flow, request)).pop().unwrap_or_default()
}

#[test]
fn a_token_that_names_a_user_speaks_for_nobody_else() {
    const PASSED: &str = "trunk: REGISTER sip:xivo SIP/2.0";
    const REFUSED: &str = "browser: SIP/2.0 403 Not The User Of The Token";
    let check = |subject: &str, aor: &str, expected: &str| {
        let mut world = World::with_policy(Reach::Path, |policy| policy.token_names_user = true);
        let flow = world.open_as(1, 0, Some(subject));
        let request = register(CONTACT, "60").replace("sip:alice@xivo", aor);
        assert_eq!(verdict(&mut world, flow, &request), expected, "{subject} as {aor}");
    };
    check("alice", "sip:alice@xivo", PASSED);
    check("alice", "sip:alice:5060@xivo", REFUSED);
    check("alice", "sip:mallory@xivo", REFUSED);
    check("alice", "sip:Alice@xivo", REFUSED);
    check("alice", "sip:xivo", REFUSED);
    check("alice", "sip:anonymous@anonymous.invalid", REFUSED);
    check("alice@xivo", "sip:alice@XIVO", PASSED);
    check("alice@xivo", "sip:alice@elsewhere", REFUSED);
    check("", "sip:alice@xivo", REFUSED);

    // Before it has registered, and in whatever it sends outside of a dialog; but whoever wants may stay unknown.
    let mut world = World::with_policy(Reach::Path, |policy| policy.token_names_user = true);
    let flow = world.open_as(1, 0, Some("alice"));
    let call = "trunk: INVITE sip:200@xivo SIP/2.0";
    assert_eq!(verdict(&mut world, flow, &invite("z9hG4bKi1")), call);
    let other = invite("z9hG4bKi2").replace("sip:alice@xivo", "sip:boss@xivo");
    assert_eq!(verdict(&mut world, flow, &other), REFUSED);
    let anonymous = invite("z9hG4bKi3").replace("sip:alice@xivo", "sip:anonymous@anonymous.invalid");
    assert_eq!(verdict(&mut world, flow, &anonymous), call);

    // A WebSocket whose token names nobody speaks for nobody, not even for one who wants to stay unknown.
    let flow = world.open(2);
    assert_eq!(verdict(&mut world, flow, &register(CONTACT, "60")), REFUSED);
    let anonymous = anonymous.replace("z9hG4bKi3", "z9hG4bKi4");
    assert_eq!(verdict(&mut world, flow, &anonymous), REFUSED);

    // Where tokens may name somebody else than users of SIP, the mediaserver decides.
    let mut world = World::new(Reach::Path);
    let flow = world.open_as(1, 0, Some("login"));
    assert_eq!(verdict(&mut world, flow, &register(CONTACT, "60")), PASSED);
}

#[test]
fn a_flow_that_has_registered_speaks_for_nobody_else() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    world.register(flow, CONTACT);
    let other = register(CONTACT, "60").replace("sip:alice@xivo", "sip:mallory@xivo");
    let refused = "browser: SIP/2.0 403 Other Address Of Record";
    assert_eq!(verdict(&mut world, flow, &other), refused);
    let other = invite("z9hG4bKi1").replace("sip:alice@xivo", "sip:mallory@xivo");
    assert_eq!(verdict(&mut world, flow, &other), refused);
}

#[test]
fn a_password_is_not_guessed_for_long() {
    let attempt = || register(CONTACT, "60").replace("CSeq", "Authorization: Digest x=1\r\nCSeq");
    let mut world = World::new(Reach::Path);
    // On as many WebSockets as it likes.
    for number in 0..8 {
        let flow = world.open(number);
        let forwarded = world.browser(flow, &attempt()).remove(0).trunk();
        world.trunk(&reply(&forwarded, "401 Unauthorized", ""));
    }
    let flow = world.open(20);
    let locked = "browser: SIP/2.0 403 Too Many Failures";
    assert_eq!(verdict(&mut world, flow, &attempt()), locked);
    // Not to be asked for one either; but somebody else of the same office is not concerned.
    assert_eq!(verdict(&mut world, flow, &register(CONTACT, "60")), locked);
    let other = attempt().replace("alice", "bob");
    let passed = "trunk: REGISTER sip:xivo SIP/2.0";
    assert_eq!(verdict(&mut world, flow, &other), passed);
    world.wait(Duration::from_secs(11));
    assert_eq!(verdict(&mut world, flow, &attempt()), passed);
}

#[test]
fn names_are_not_guessed_for_long() {
    let mut world = World::new(Reach::Path);
    let name = |number: u32| register(CONTACT, "60").replace("alice", &format!("user{number}"));
    let passed = "trunk: REGISTER sip:xivo SIP/2.0";
    // Each name once, from one address; on as many WebSockets as it likes.
    for number in 0..100 {
        let flow = world.open(number);
        let forwarded = world.browser(flow, &name(number)).remove(0).trunk();
        world.trunk(&reply(&forwarded, "404 Not Found", ""));
    }
    let flow = world.open(100);
    let locked = "browser: SIP/2.0 403 Too Many Failures";
    for number in 101..104 {
        assert_eq!(heads(&world.browser(flow, &name(number))), [locked]);
    }
    // Whoever does not give up is shut out.
    let last = world.browser(flow, &name(104));
    assert!(
        matches!(&last[..], [Sent::Browser(..), Sent::Close(conn, 1008)] if *conn == connection(100)),
        "{last:?}"
    );
    assert!(world.browser(flow, &name(105)).is_empty());
    world.wait(Duration::from_secs(11));
    let flow = world.open(101);
    assert_eq!(verdict(&mut world, flow, &name(106)), passed);
}

#[test]
fn a_wrong_number_is_no_attack() {
    let mut world = World::new(Reach::Path);
    let call = |world: &mut World, flow, number: u32| {
        let mut sent = world.browser(flow, &invite(&format!("z9hG4bKi{number}")));
        let last = sent.pop().expect("an answer or a call");
        if matches!(last, Sent::Browser(..)) {
            return last.head();
        }
        let forwarded = last.trunk();
        world.trunk(&reply(&forwarded, "404 Not Found", ""));
        "passed".into()
    };
    let registered = world.open(1);
    world.register(registered, CONTACT);
    for number in 0..20 {
        assert_eq!(call(&mut world, registered, number), "passed");
    }
    // But it is of whoever has never said who he is; which does not concern who has.
    let stranger = world.open(2);
    for number in 20..28 {
        assert_eq!(call(&mut world, stranger, number), "passed");
    }
    assert_eq!(call(&mut world, stranger, 28), "browser: SIP/2.0 403 Too Many Failures");
    assert_eq!(call(&mut world, registered, 29), "passed");
}

#[test]
fn registrations_do_not_last_as_long_as_a_browser_likes() {
    let check = |before: &str, after: &str| {
        let mut world = World::with_policy(Reach::Contact, |policy| policy.register_max = Duration::from_secs(600));
        let flow = world.open(1);
        let request =
            register(CONTACT, "60").replace(&format!("Contact: <sip:{CONTACT};transport=ws>;expires=60"), before);
        let forwarded = world.browser(flow, &request).remove(0).trunk();
        let mut said = fields(&forwarded, "Expires").join(", ");
        for contact in fields(&forwarded, "Contact") {
            said.push_str(&contact.replace(token(contact), "T"));
        }
        assert_eq!(said, after);
    };
    check(
        "Contact: <sip:a@b.invalid>;expires=599",
        "<sip:T@10.0.0.1:5060>;expires=599",
    );
    check(
        "Contact: <sip:a@b.invalid>;q=1 ; Expires = 86400 ;r",
        "<sip:T@10.0.0.1:5060>;q=1 ; Expires = 600 ;r",
    );
    check(
        "Contact: <sip:a@b.invalid>\r\nExpires: 18446744073709551615",
        "600<sip:T@10.0.0.1:5060>",
    );
    // Not a number: RFC 3261 section 20.19 leaves it to the registrar.
    check(
        "Contact: <sip:a@b.invalid>\r\nExpires: soon",
        "soon<sip:T@10.0.0.1:5060>",
    );
    check("Contact: <sip:a@b.invalid>\r\nExpires: 0", "0<sip:T@10.0.0.1:5060>");
}

#[test]
fn a_star_forgets_all_contacts() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let path = fields(&world.register(flow, CONTACT), "Path")[0].to_owned();
    let star = register(CONTACT, "0").replace(
        &format!("Contact: <sip:{CONTACT};transport=ws>;expires=0"),
        "Contact: *\r\nExpires: 0",
    );
    let forwarded = world.browser(flow, &star).remove(0).trunk();
    assert_eq!(fields(&forwarded, "Contact"), ["*"]);
    world.trunk(&reply(&forwarded, "200 OK", ""));
    // Nobody waits for it when it is lost, since there is nothing to come back to.
    world.call(|bridge, cx| bridge.lost(cx, flow));
    assert_eq!(
        heads(&world.trunk(&trunk_invite(&path, "z9hG4bKm1"))),
        ["trunk: SIP/2.0 430 Flow Failed"]
    );
}

#[test]
fn scanners_hear_nothing() {
    let check = |agent: &str, heard: bool| {
        let mut world = World::new(Reach::Path);
        let flow = world.open(1);
        let request = register(CONTACT, "60").replace("CSeq", &format!("user-agent: {agent}\r\nCSeq"));
        assert_eq!(!world.browser(flow, &request).is_empty(), heard, "{agent}");
    };
    check("friendly-scanner", false);
    check("Mozilla SIPVicious/0.3", false);
    check("sipcli/v1.8", false);
    check("XiVO XC WebRTC 1.0", true);
    check("JsSIP 3.13.8", true);
    let mut world = World::with_policy(Reach::Path, |policy| policy.scanners.clear());
    let flow = world.open(1);
    let request = register(CONTACT, "60").replace("CSeq", "User-Agent: friendly-scanner\r\nCSeq");
    assert_eq!(verdict(&mut world, flow, &request), "trunk: REGISTER sip:xivo SIP/2.0");
}

#[test]
fn fields_are_taken_out_on_both_ways() {
    const FIELDS: &str = "P-Asserted-Identity: <sip:boss@xivo>\r\nP-Preferred-Identity: <sip:boss@xivo>\r\n\
        Remote-Party-ID: <sip:boss@xivo>\r\nX-Asterisk-Variable: a=b\r\nPath: <sip:evil@x>\r\n\
        Service-Route: <sip:evil@x>\r\nX-Kept: yes\r\nUser-Agent: a\r\nServer: b\r\n";
    let names = |text: &str| {
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        let all = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        let wanted = all.filter(|(name, _)| FIELDS.contains(&format!("{name}: ")));
        wanted.map(|(name, _)| name.to_owned()).collect::<Vec<_>>().join(" ")
    };
    let check = |change: fn(&mut SipPolicy), up: &str, down: &str| {
        let mut world = World::with_policy(Reach::Path, change);
        let flow = world.open(1);
        let path = fields(&world.register(flow, CONTACT), "Path")[0].to_owned();
        let request = invite("z9hG4bKi1").replace("P-Asserted-Identity: <sip:boss@xivo>\r\n", FIELDS);
        let forwarded = world.browser(flow, &request).remove(0).trunk();
        assert_eq!(names(&forwarded), up);
        let answer = world
            .trunk(&reply(&forwarded, "180 Ringing", FIELDS))
            .remove(0)
            .browser();
        assert_eq!(names(&answer), down);
        let request = trunk_invite(&path, "z9hG4bKm1").replace("Call-ID", &format!("{FIELDS}Call-ID"));
        let incoming = world.trunk(&request).remove(1).browser();
        assert_eq!(names(&incoming), down);
        let answer = world
            .browser(flow, &reply(&incoming, "180 Ringing", FIELDS))
            .remove(0)
            .trunk();
        assert_eq!(names(&answer), up);
    };
    let all = "P-Asserted-Identity P-Preferred-Identity Remote-Party-ID X-Asterisk-Variable Path Service-Route X-Kept \
               User-Agent Server";
    check(|_| {}, "X-Kept User-Agent Server", all);
    check(
        |policy| {
            policy.strip = vec!["User-Agent".into(), "X-K*".into()];
            policy.hide = vec!["Server".into(), "user-agent".into(), "x-kept".into()];
        },
        "P-Asserted-Identity P-Preferred-Identity Remote-Party-ID X-Asterisk-Variable Server",
        &all.replace(" X-Kept User-Agent Server", ""),
    );
}
