//! REGISTER, and how a mediaserver reaches a browser that has registered.

use super::*;

#[test]
fn a_path_leads_to_the_browser() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let forwarded = world.register(flow, "x1@df7jal23ls0d.invalid");
    let path = fields(&forwarded, "Path");
    assert_eq!(path, [format!("<sip:{}@10.0.0.1:5060;lr>", token(path[0]))]);
    assert_eq!(fields(&forwarded, "Supported"), ["path"]);
    assert_eq!(
        fields(&forwarded, "Contact"),
        ["<sip:x1@df7jal23ls0d.invalid;transport=ws>;expires=60"]
    );
    assert!(fields(&forwarded, "Record-Route").is_empty());
    assert!(fields(&forwarded, "Via")[1].ends_with(";rport=40000;received=203.0.113.9"));
}

#[test]
fn a_registrar_that_keeps_flows_sees_that_we_do() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let of_flow =
        register("x1@a.invalid", "60").replace(";expires", ";reg-id=1;+sip.instance=\"<urn:uuid:1>\";expires");
    let path = fields(&world.browser(flow, &of_flow).remove(0).trunk(), "Path")[0].to_owned();
    assert_eq!(path, format!("<sip:{}@10.0.0.1:5060;lr;ob>", token(&path)));
    assert_eq!(
        heads(&world.trunk(&message_by(&path)))[0],
        "browser: MESSAGE sip:x1@a.invalid SIP/2.0"
    );
}

/// A MESSAGE of the mediaserver by a Path.
fn message_by(path: &str) -> String {
    message("x1", 1)
        .replace("x1@10.0.0.1:5060", "x1@a.invalid")
        .replace("CSeq", &format!("Route: {path}\r\nCSeq"))
}

#[test]
fn a_contact_of_ours_leads_to_the_browser() {
    let mut world = World::new(Reach::Contact);
    let flow = world.open(1);
    let forwarded = world
        .browser(flow, &register("x1@df7jal23ls0d.invalid", "60"))
        .remove(0)
        .trunk();
    let contact = fields(&forwarded, "Contact")[0];
    assert_eq!(contact, format!("<sip:{}@10.0.0.1:5060>;expires=60", token(contact)));
    assert!(fields(&forwarded, "Path").is_empty());
    let answer = world
        .trunk(&reply(&forwarded, "200 OK", &format!("Contact: {contact}\r\n")))
        .remove(0)
        .browser();
    assert_eq!(
        fields(&answer, "Contact"),
        ["<sip:x1@df7jal23ls0d.invalid;transport=ws>;expires=60"]
    );
    let message = lines(&[
        &format!("MESSAGE sip:{}@10.0.0.1:5060 SIP/2.0", token(contact)),
        "Via: SIP/2.0/UDP 10.0.0.2:5060;rport;branch=z9hG4bKm1",
        "From: <sip:200@xivo>;tag=b1",
        "To: <sip:alice@xivo>",
        "Call-ID: m-1",
        "CSeq: 1 MESSAGE",
    ]);
    let sent = world.trunk(&message);
    assert_eq!(
        heads(&sent),
        ["browser: MESSAGE sip:x1@df7jal23ls0d.invalid;transport=ws SIP/2.0"]
    );
    assert_eq!(fields(&sent[0].clone().browser(), "Max-Forwards"), ["70"]);
    // The same contact again is known by the same name.
    let again = world
        .browser(flow, &register("x1@df7jal23ls0d.invalid", "60"))
        .remove(0)
        .trunk();
    assert_eq!(fields(&again, "Contact")[0], contact);
}

#[test]
fn several_contacts_and_none() {
    let mut world = World::new(Reach::Contact);
    let flow = world.open(1);
    let two = register("x1@a.invalid", "60").replace("Contact: ", "Contact: \"B, C\" <sip:x2@a.invalid>;q=0.5, ");
    let forwarded = world.browser(flow, &two).remove(0).trunk();
    let contact = fields(&forwarded, "Contact")[0];
    let (first, second) = contact.split_once(", <").expect("two contacts");
    assert!(first.starts_with("\"B, C\" <sip:") && first.ends_with("@10.0.0.1:5060>;q=0.5"));
    assert_ne!(token(first), token(second));
    let answer = world
        .trunk(&reply(&forwarded, "200 OK", &format!("Contact: {contact}\r\n")))
        .remove(0)
        .browser();
    let restored = "\"B, C\" <sip:x2@a.invalid>;q=0.5, <sip:x1@a.invalid;transport=ws>;expires=60";
    assert_eq!(fields(&answer, "Contact"), [restored]);
    // Both lead back, each as itself.
    for (contact, user) in [(first, "x2@a.invalid"), (second, "x1@a.invalid;transport=ws")] {
        let token = token(contact.trim_start_matches("\"B, C\" <"));
        assert_eq!(
            heads(&world.trunk(&message(token, 1))),
            [format!("browser: MESSAGE sip:{user} SIP/2.0")]
        );
    }
    // One is given up: nobody is there any more.
    let gone = world.browser(flow, &register("x1@a.invalid", "0")).remove(0).trunk();
    world.trunk(&reply(&gone, "200 OK", ""));
    assert_eq!(
        heads(&world.trunk(&message(token(&format!("<{second}")), 2))),
        ["trunk: SIP/2.0 430 Flow Failed"]
    );
    let all = register("*", "0").replace("<sip:*;transport=ws>;expires=0", "*");
    assert_eq!(fields(&world.browser(flow, &all).remove(0).trunk(), "Contact"), ["*"]);
    let many = register("x1@a.invalid", "60").replace("Contact: ", "Contact: <sip:a>,<sip:b>,<sip:c>,<sip:d>,");
    assert_eq!(
        heads(&world.browser(flow, &many)),
        ["browser: SIP/2.0 400 Too Many Contacts"]
    );
}

/// A MESSAGE of the mediaserver to a user part of ours.
fn message(token: &str, number: u32) -> String {
    lines(&[
        &format!("MESSAGE sip:{token}@10.0.0.1:5060 SIP/2.0"),
        &format!("Via: SIP/2.0/UDP 10.0.0.2:5060;rport;branch=z9hG4bK{number}{token}"),
        "From: <sip:200@xivo>;tag=b1",
        "To: <sip:alice@xivo>",
        &format!("Call-ID: m-{token}"),
        "CSeq: 1 MESSAGE",
    ])
}

#[test]
fn the_response_says_what_the_browser_understands() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let answer = |world: &mut World, request: &str| {
        let forwarded = world.browser(flow, request).remove(0).trunk();
        let path = format!("Path: {}\r\nFlow-Timer: 20\r\n", fields(&forwarded, "Path")[0]);
        (
            fields(&forwarded, "Supported").join(";"),
            world.trunk(&reply(&forwarded, "200 OK", &path)).remove(0).browser(),
        )
    };
    let (supported, answer_without) = answer(&mut world, &register("x1@a.invalid", "60"));
    assert_eq!((supported.as_str(), fields(&answer_without, "Path").len()), ("path", 0));
    assert!(fields(&answer_without, "Flow-Timer").is_empty());
    let with = register("x1@a.invalid", "60").replace("Max-Forwards", "Supported: outbound, path\r\nMax-Forwards");
    let (supported, answer_with) = answer(&mut world, &with);
    assert_eq!(
        (supported.as_str(), fields(&answer_with, "Path").len()),
        ("outbound, path", 1)
    );
}

#[test]
fn a_registered_browser_speaks_for_itself_only() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    world.register(flow, "x1@a.invalid");
    let other = register("x1@a.invalid", "60").replace("alice@xivo", "bob@xivo");
    assert_eq!(
        heads(&world.browser(flow, &other)),
        ["browser: SIP/2.0 403 Other Address Of Record"]
    );
    let invite = |from: &str| calls::invite(&format!("z9hG4bK{}", from.len())).replace("alice@xivo", from);
    assert_eq!(
        heads(&world.browser(flow, &invite("bob@xivo"))),
        ["browser: SIP/2.0 403 Other Address Of Record"]
    );
    assert_eq!(world.browser(flow, &invite("alice@XIVO;user=phone")).len(), 1);
    assert_eq!(world.browser(flow, &invite("anonymous@anonymous.invalid")).len(), 1);
}

#[test]
fn wrong_passwords_are_not_tried_for_ever() {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let attempt = |world: &mut World, answer: &str| {
        let request = register("x1@a.invalid", "60").replace("Max-Forwards", "Authorization: Digest x\r\nMax-Forwards");
        let sent = world.browser(flow, &request).remove(0);
        match sent {
            Sent::Trunk(_, forwarded) => world.trunk(&reply(&forwarded, answer, "")).remove(0).head(),
            other => other.head(),
        }
    };
    for _ in 0..8 {
        assert_eq!(
            attempt(&mut world, "401 Unauthorized"),
            "browser: SIP/2.0 401 Unauthorized"
        );
    }
    assert_eq!(attempt(&mut world, "200 OK"), "browser: SIP/2.0 403 Too Many Failures");
    world.wait(Duration::from_secs(11));
    assert_eq!(attempt(&mut world, "200 OK"), "browser: SIP/2.0 200 OK");
    assert_eq!(
        attempt(&mut world, "401 Unauthorized"),
        "browser: SIP/2.0 401 Unauthorized"
    );
}
