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
