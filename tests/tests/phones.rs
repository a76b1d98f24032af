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

    /// Breaks the network of a telephone, and waits until it is back.
    fn cut(&self, phone: &mut Phone, cut: Cut, away: Duration) {
        self.network.cut(cut, away);
        phone.until("!phone.registered");
        phone.until("phone.registered");
    }

    /// Stops the edge and starts it again, and waits until a telephone is back.
    fn restart(&mut self, phone: &mut Phone) {
        assert!(self.scene.edge.stop().success());
        phone.until("!phone.registered");
        self.scene.edge = Edge::start(&self.scene.site, &self.config);
        phone.until("phone.registered");
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

/// What a network does to a telephone: who notices, and for how long.
const CUTS: [(Cut, Duration); 2] = [
    (Cut::Both, Duration::from_secs(1)),
    // The edge hears nothing of it, and meets the same user on a second WebSocket.
    (Cut::Client, Duration::ZERO),
];

#[test]
fn a_call_outlives_its_websocket() {
    let stage = Stage::new();
    let mediaserver = &stage.scene.mediaserver;
    for (library, user) in Library::ALL.into_iter().zip(["alice", "bob"]) {
        let Some(mut phone) = stage.phone(library, user) else {
            return;
        };
        for (cut, away) in CUTS {
            // The mediaserver hangs up afterwards, then the telephone does.
            let mut dialog = ring_and_answer(&mut phone, mediaserver, user);
            stage.cut(&mut phone, cut, away);
            let info = mediaserver.request(&mut dialog, "INFO").status();
            assert!(info.is_some_and(|status| status != 430 && status != 481), "{info:?}");
            phone.until("phone.hold()");
            assert_eq!(mediaserver.request(&mut dialog, "BYE").status(), Some(200));
            phone.until("phone.call.state === 'ended'");

            let call_id = dial(&mut phone, mediaserver, "600");
            phone.until("phone.call.state === 'up'");
            stage.cut(&mut phone, cut, away);
            let offer = re_offer(mediaserver, &mut mediaserver.dialog(&call_id));
            assert_eq!(mediaserver.final_answer(&offer).status(), Some(200));
            phone.evaluate("void phone.hangUp()");
            mediaserver.wait_for("the BYE", |message| is(message, "BYE", &call_id));
        }
    }
}

#[test]
fn a_call_that_rings_is_answered_after_a_cut() {
    let stage = Stage::new();
    let mediaserver = &stage.scene.mediaserver;
    for (library, user) in Library::ALL.into_iter().zip(["alice", "bob"]) {
        let Some(mut phone) = stage.phone(library, user) else {
            return;
        };
        for (cut, away) in CUTS {
            let invite = ring(&mut phone, mediaserver, user);
            let calls = phone.evaluate("phone.calls ?? null");
            stage.cut(&mut phone, cut, away);
            if library == Library::JsSip {
                // It has forgotten the call, and has to be told of it again.
                phone.until(&format!("phone.calls === {calls} + 1"));
            }
            phone.evaluate("void phone.answer()");
            let (_, mut dialog) = mediaserver.answered(&invite);
            phone.until("phone.call.state === 'up'");
            assert_eq!(mediaserver.request(&mut dialog, "BYE").status(), Some(200));
            phone.until("phone.call.state === 'ended'");
        }
    }
}

#[test]
fn an_answer_that_comes_during_a_cut_is_kept() {
    let stage = Stage::new();
    let mediaserver = &stage.scene.mediaserver;
    // JsSIP itself gives up a call of its own that is not answered when its WebSocket breaks.
    let Some(mut phone) = stage.phone(Library::SipJs, "bob") else {
        return;
    };
    for (cut, away) in CUTS {
        let call_id = dial(&mut phone, mediaserver, "ringing");
        phone.until("phone.call.state === 'ringing'");
        stage.network.cut(cut, away);
        phone.until("!phone.registered");
        mediaserver.pick_up(&call_id);
        phone.until("phone.call.state === 'up'");
        mediaserver.wait_for("the ACK", |message| is(message, "ACK", &call_id));
        let bye = mediaserver.request(&mut mediaserver.dialog(&call_id), "BYE");
        assert_eq!(bye.status(), Some(200));
        phone.until("phone.call.state === 'ended'");
    }
}

#[test]
fn a_caller_who_hangs_up_during_a_cut_of_ten_seconds_is_heard() {
    let stage = Stage::new();
    let mediaserver = &stage.scene.mediaserver;
    for (library, user) in Library::ALL.into_iter().zip(["alice", "bob"]) {
        let Some(mut phone) = stage.phone(library, user) else {
            return;
        };
        let mut dialog = ring_and_answer(&mut phone, mediaserver, user);
        stage.network.cut(Cut::Both, Duration::from_secs(10));
        phone.until("!phone.registered");
        assert_eq!(mediaserver.request(&mut dialog, "BYE").status(), Some(200));
        phone.until("phone.call.state === 'ended'");
    }
}

#[test]
fn a_call_outlives_the_edge() {
    let mut stage = Stage::new();
    for (library, user) in Library::ALL.into_iter().zip(["alice", "bob"]) {
        let Some(mut phone) = stage.phone(library, user) else {
            return;
        };
        let mut incoming = ring_and_answer(&mut phone, &stage.scene.mediaserver, user);
        stage.restart(&mut phone);
        let mediaserver = &stage.scene.mediaserver;
        let offer = re_offer(mediaserver, &mut incoming);
        assert_eq!(mediaserver.final_answer(&offer).status(), Some(200));
        mediaserver.send_request(incoming.request("ACK"));
        phone.until("phone.hold()");
        assert_eq!(mediaserver.request(&mut incoming, "BYE").status(), Some(200));
        phone.until("phone.call.state === 'ended'");

        let call_id = dial(&mut phone, mediaserver, "600");
        phone.until("phone.call.state === 'up'");
        stage.restart(&mut phone);
        let mediaserver = &stage.scene.mediaserver;
        let offer = re_offer(mediaserver, &mut mediaserver.dialog(&call_id));
        assert_eq!(mediaserver.final_answer(&offer).status(), Some(200));
        phone.evaluate("void phone.hangUp()");
        mediaserver.wait_for("the BYE", |message| is(message, "BYE", &call_id));
    }
}

/// Calls both ways, each held and resumed, hung up by either side; and a REGISTER on the way.
fn phones_do_all(phone: &mut Phone, mediaserver: &Mediaserver, user: &str) {
    // The telephone calls, holds, resumes and hangs up.
    let call_id = dial(phone, mediaserver, "600");
    phone.until("phone.call.state === 'up'");
    phone.until("phone.hold()");
    phone.until("phone.resume()");
    phone.evaluate("void phone.hangUp()");
    phone.until("phone.call.state === 'ended'");
    mediaserver.wait_for("the BYE", |message| is(message, "BYE", &call_id));

    // It is called, gets an offer, and the caller hangs up.
    let mut dialog = ring_and_answer(phone, mediaserver, user);
    let offer = re_offer(mediaserver, &mut dialog);
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

/// A re-INVITE of the mediaserver.
fn re_offer(mediaserver: &Mediaserver, dialog: &mut Dialog) -> Message {
    let offer = dialog
        .request("INVITE")
        .with("Contact", format_args!("<sip:pbx@{}>", mediaserver.address()))
        .with_body("application/sdp", &description("actpass", OFFER));
    mediaserver.send_request(offer)
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
