//! Do the telephones of others work? JsSIP and SIP.js call and are called through the built edge, also while their
//! network fails.

use std::time::Duration;

use edgeward_tests::{
    edge::Edge,
    peers::{
        cutter::{Cut, Cutter},
        mediaserver::Mediaserver,
        phone::{Library, Line, Phone},
        sip::{Dialog, Message},
        sip_browser::Account,
    },
    scene::{CONFIG, HTTPS, Scene},
};

/// Where telephones connect: the edge, behind a network that can fail.
const NETWORK: u16 = 9443;

/// An edge, its mediaservers, and the network of the telephones.
struct Stage {
    network: Cutter,
    scene: Scene,
    config: String,
}

impl Stage {
    fn new() -> Self {
        let config = CONFIG
            .replace("[server]\n", "[server]\nkey_file = \"edge.keys\"\n")
            .replace("https://edge.test:8443", &format!("https://$net.1:{NETWORK}"))
            .replace("name = \"mds2\"", "name = \"mds2\"\nreach = \"contact\"");
        let scene = Scene::with(&config);
        for mediaserver in [&scene.mediaserver, &scene.second] {
            mediaserver.answer_with(|offer| description("active", offer));
        }
        Self {
            network: Cutter::start(scene.site.at(1, NETWORK), scene.site.at(1, HTTPS)),
            scene,
            config,
        }
    }

    fn line(&self, path: &str, user: &str) -> Line {
        Line {
            origin: format!("https://{}", self.network.address()),
            target: format!("{path}?token=token-of-{user}"),
            account: Account::of(user),
        }
    }

    /// A telephone in Node, registered as `user` with the mediaserver of `/wssip`.
    fn phone(&self, library: Library, user: &str) -> Option<Phone> {
        Phone::in_node(&self.scene.site, library, &self.line("/wssip", user))
    }
}

#[test]
fn telephones_in_node_call_and_are_called() {
    let stage = Stage::new();
    for (library, user) in Library::ALL.into_iter().zip(["alice", "bob"]) {
        for (path, mediaserver) in [
            ("/wssip", &stage.scene.mediaserver),
            ("/wssip-mds2", &stage.scene.second),
        ] {
            let line = stage.line(path, user);
            let Some(mut phone) = Phone::in_node(&stage.scene.site, library, &line) else {
                return;
            };
            phones_do_all(&mut phone, mediaserver, user);
        }
    }
}

#[test]
fn telephones_in_chromium_call_and_are_called() {
    let stage = Stage::new();
    for (library, user) in Library::ALL.into_iter().zip(["alice", "bob"]) {
        let Some(mut phone) = Phone::in_chromium(&stage.scene.site, library, &stage.line("/wssip", user)) else {
            return;
        };
        phones_do_all(&mut phone, &stage.scene.mediaserver, user);
    }
}

/// Calls both ways, each held and resumed, hung up by either side; and a REGISTER on the way.
fn phones_do_all(phone: &mut Phone, mediaserver: &Mediaserver, user: &str) {
    // The telephone calls, holds, resumes and hangs up.
    let call_id = dial(phone, mediaserver, "600");
    phone.until("phone.call.state === 'up'");
    assert_eq!(phone.evaluate("phone.hold()"), true);
    assert_eq!(phone.evaluate("phone.resume()"), true);
    phone.evaluate("void phone.hangUp()");
    phone.until("phone.call.state === 'ended'");
    mediaserver.wait_for("the BYE", |message| is(message, "BYE", &call_id));

    // It is called, gets an offer, and the caller hangs up.
    let mut dialog = ring_and_answer(phone, mediaserver, user);
    let offer = dialog.request("INVITE").with("Contact", contact(mediaserver));
    let offer = mediaserver.send_request(offer.with_body("application/sdp", &description("actpass", OFFER)));
    assert_eq!(mediaserver.final_answer(&offer).status(), Some(200));
    mediaserver.send_request(dialog.request("ACK"));
    phone.until("phone.call.offers === 1");
    let before = mediaserver.seen().len();
    phone.evaluate("void phone.registerAgain()");
    mediaserver.wait_for_after(before, "a REGISTER with credentials", |message| {
        message.method() == Some("REGISTER") && message.field("Authorization").is_some()
    });
    assert_eq!(mediaserver.request(&mut dialog, "BYE").status(), Some(200));
    phone.until("phone.call.state === 'ended'");

    // It refuses, and it gives up.
    let invite = ring(phone, mediaserver, user);
    phone.evaluate("void phone.hangUp()");
    let status = mediaserver.final_answer(&invite).status();
    assert!(matches!(status, Some(480 | 486 | 487)), "{status:?}");
    let call_id = dial(phone, mediaserver, "ringing");
    phone.until("phone.call.state === 'ringing'");
    phone.evaluate("void phone.hangUp()");
    mediaserver.wait_for("the CANCEL", |message| is(message, "CANCEL", &call_id));
    phone.until("phone.call.state === 'ended'");
}

fn is(message: &Message, method: &str, call_id: &str) -> bool {
    message.method() == Some(method) && message.call_id() == Some(call_id)
}

/// Lets the telephone call; returns the Call-ID.
fn dial(phone: &mut Phone, mediaserver: &Mediaserver, number: &str) -> String {
    let before = mediaserver.seen().len();
    phone.evaluate(&format!("void phone.dial('{number}')"));
    let invite = mediaserver.wait_for_after(before, "the INVITE", |message| message.method() == Some("INVITE"));
    invite.call_id().expect("a Call-ID").to_owned()
}

/// Calls the telephone until it rings.
fn ring(phone: &mut Phone, mediaserver: &Mediaserver, user: &str) -> Message {
    let invite = mediaserver.call(user, &description("actpass", OFFER));
    mediaserver.wait_for("180", |message| {
        message.status() == Some(180) && message.branch() == invite.branch()
    });
    phone.until("phone.call?.state === 'ringing'");
    invite
}

fn ring_and_answer(phone: &mut Phone, mediaserver: &Mediaserver, user: &str) -> Dialog {
    let invite = ring(phone, mediaserver, user);
    phone.evaluate("void phone.answer()");
    let (_, dialog) = mediaserver.answered(&invite);
    phone.until("phone.call.state === 'up'");
    dialog
}

fn contact(mediaserver: &Mediaserver) -> String {
    format!("<sip:pbx@{}>", mediaserver.address())
}

/// What an Asterisk with WebRTC says, whose media never come: an offer, or an answer to one.
fn description(setup: &str, offer: &str) -> String {
    let line = |start: &str| offer.lines().find(|line| line.starts_with(start));
    let direction = match line("a=sendonly").or(line("a=inactive")) {
        Some("a=sendonly") => "recvonly",
        Some(_) => "inactive",
        None => "sendrecv",
    };
    let mid = line("a=mid:").unwrap_or("a=mid:0");
    let group = mid.trim_start_matches("a=mid:");
    let fingerprint = ["1F"; 32].join(":");
    format!(
        "v=0\r\no=- 7 1 IN IP4 0.0.0.0\r\ns=Asterisk\r\nt=0 0\r\na=group:BUNDLE {group}\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=ice-ufrag:edge\r\n\
         a=ice-pwd:0123456789abcdef01234567\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\n\
         {mid}\r\na={direction}\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

/// Nothing to answer to.
const OFFER: &str = "";
