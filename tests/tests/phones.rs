//! Do the telephones of others work? JsSIP, SIP.js and SIPml5 call and are called through the built edge, also while their
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

    /// Telephones in Node of each of these libraries, one registered where the edge is in the Path and one where it is
    /// in the Contact; `None` where there are none.
    fn party(&self, libraries: &[Library]) -> Option<Vec<Guest>> {
        let seats = libraries
            .iter()
            .flat_map(|library| ["/wssip", "/wssip-mds2"].map(|path| (*library, path)));
        seats
            .zip(["alice", "bob", "carol", "dave"])
            .map(|((library, path), user)| {
                let line = self.line(path, user);
                Some(Guest {
                    library,
                    path,
                    user,
                    phone: Phone::in_node(&self.scene.site, library, &line)?,
                })
            })
            .collect()
    }

    /// The mediaserver of a path.
    fn mediaserver(&self, path: &str) -> &Mediaserver {
        match path {
            "/wssip" => &self.scene.mediaserver,
            _ => &self.scene.second,
        }
    }

    /// Breaks the network of all telephones, and waits until they are back.
    fn cut(&self, party: &mut [Guest], cut: Cut, away: Duration) {
        self.network.cut(cut, away);
        each(party, |guest| guest.phone.until("!phone.registered"));
        each(party, |guest| guest.phone.until("phone.registered"));
    }

    /// Stops the edge and starts it again, and waits until all telephones are back.
    fn restart(&mut self, party: &mut [Guest]) {
        assert!(self.scene.edge.stop().success());
        each(party, |guest| guest.phone.until("!phone.registered"));
        self.scene.edge = Edge::start(&self.scene.site, &self.config);
        each(party, |guest| guest.phone.until("phone.registered"));
    }
}

/// A telephone of a party.
struct Guest {
    library: Library,
    path: &'static str,
    user: &'static str,
    phone: Phone,
}

/// Does the same with all telephones, one after the other.
fn each<T>(party: &mut [Guest], act: impl FnMut(&mut Guest) -> T) -> Vec<T> {
    party.iter_mut().map(act).collect()
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

#[test]
fn sipml5_in_chromium_calls_and_is_called() {
    let stage = Stage::new();
    for (path, user) in [("/wssip", "alice"), ("/wssip-mds2", "bob")] {
        let line = stage.line(path, user);
        let Some(mut phone) = Phone::in_chromium(&stage.scene.site, Library::Sipml5, &line) else {
            return;
        };
        let mediaserver = stage.mediaserver(path);
        let call_id = dial(&mut phone, mediaserver, "600");
        phone.until("phone.call.state === 'up'");
        phone.until("phone.hold()");
        hang_up(&mut phone, mediaserver, &call_id);
        phone.until("phone.call.state === 'ended'");
        let mut dialog = ring_and_answer(&mut phone, mediaserver, user);
        re_offered(mediaserver, &mut dialog);
        assert_eq!(mediaserver.request(&mut dialog, "BYE").status(), Some(200));
        phone.until("phone.call.state === 'ended'");
        refuse_and_give_up(&mut phone, mediaserver, user);
    }
}

/// A break of the network that a call must survive, and a short one.
const LONG: (Cut, Duration) = (Cut::Both, Duration::from_secs(10));
const SHORT: (Cut, Duration) = (Cut::Both, Duration::from_secs(1));
/// The edge hears nothing of it, and meets the same user on a second WebSocket.
const UNHEARD: (Cut, Duration) = (Cut::Client, Duration::ZERO);

#[test]
fn a_call_from_the_mediaserver_outlives_its_websocket() {
    let stage = Stage::new();
    let Some(mut party) = stage.party(&Library::ALL) else {
        return;
    };
    for (cut, away) in [LONG, UNHEARD] {
        let mut dialogs = each(&mut party, |guest| {
            ring_and_answer(&mut guest.phone, stage.mediaserver(guest.path), guest.user)
        });
        stage.cut(&mut party, cut, away);
        for (Guest { path, phone, .. }, dialog) in party.iter_mut().zip(&mut dialogs) {
            let mediaserver = stage.mediaserver(path);
            let info = mediaserver.request(dialog, "INFO").status();
            assert!(info.is_some_and(|status| status != 430 && status != 481), "{info:?}");
            phone.until("phone.hold()");
            assert_eq!(mediaserver.request(dialog, "BYE").status(), Some(200));
            phone.until("phone.call.state === 'ended'");
        }
    }
}

#[test]
fn a_call_of_the_telephone_outlives_its_websocket() {
    let stage = Stage::new();
    let Some(mut party) = stage.party(&Library::ALL) else {
        return;
    };
    for (cut, away) in [LONG, UNHEARD] {
        let calls = each(&mut party, |Guest { path, phone, .. }| {
            let call_id = dial(phone, stage.mediaserver(path), "600");
            phone.until("phone.call.state === 'up'");
            call_id
        });
        stage.cut(&mut party, cut, away);
        for (Guest { path, phone, .. }, call_id) in party.iter_mut().zip(calls) {
            let mediaserver = stage.mediaserver(path);
            re_offered(mediaserver, &mut mediaserver.dialog(&call_id));
            hang_up(phone, mediaserver, &call_id);
        }
    }
}

#[test]
fn a_call_that_rings_is_answered_after_a_cut() {
    let stage = Stage::new();
    let Some(mut party) = stage.party(&Library::ALL) else {
        return;
    };
    for (cut, away) in [LONG, UNHEARD] {
        let ringing = each(&mut party, |Guest { path, phone, user, .. }| {
            let invite = ring(phone, stage.mediaserver(path), user);
            (invite, phone.evaluate("phone.calls ?? null"))
        });
        stage.cut(&mut party, cut, away);
        for (guest, (invite, calls)) in party.iter_mut().zip(ringing) {
            let (mediaserver, phone) = (stage.mediaserver(guest.path), &mut guest.phone);
            if guest.library == Library::JsSip {
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
fn an_answer_that_comes_during_a_cut_or_after_it_arrives() {
    let stage = Stage::new();
    // JsSIP itself gives up a call of its own that is not answered when its WebSocket breaks.
    let Some(mut party) = stage.party(&[Library::SipJs]) else {
        return;
    };
    for ((cut, away), is_kept) in [(LONG, true), (SHORT, false), (UNHEARD, true), (UNHEARD, false)] {
        let calls = each(&mut party, |Guest { path, phone, .. }| {
            let call_id = dial(phone, stage.mediaserver(path), "ringing");
            phone.until("phone.call.state === 'ringing'");
            call_id
        });
        let answer = |party: &[Guest]| {
            for (guest, call_id) in party.iter().zip(&calls) {
                stage.mediaserver(guest.path).pick_up(call_id);
            }
        };
        if is_kept {
            stage.network.cut(cut, away);
            each(&mut party, |guest| guest.phone.until("!phone.registered"));
            answer(&party);
        } else {
            stage.cut(&mut party, cut, away);
            answer(&party);
        }
        for (Guest { path, phone, .. }, call_id) in party.iter_mut().zip(calls) {
            let mediaserver = stage.mediaserver(path);
            phone.until("phone.call.state === 'up'");
            mediaserver.wait_for("the ACK", |message| is(message, "ACK", &call_id));
            let bye = mediaserver.request(&mut mediaserver.dialog(&call_id), "BYE");
            assert_eq!(bye.status(), Some(200));
            phone.until("phone.call.state === 'ended'");
        }
    }
}

#[test]
fn a_caller_who_hangs_up_during_a_cut_is_heard() {
    let stage = Stage::new();
    let Some(mut party) = stage.party(&Library::ALL) else {
        return;
    };
    let mut dialogs = each(&mut party, |guest| {
        ring_and_answer(&mut guest.phone, stage.mediaserver(guest.path), guest.user)
    });
    let (cut, away) = LONG;
    stage.network.cut(cut, away);
    each(&mut party, |guest| guest.phone.until("!phone.registered"));
    let byes: Vec<Message> = party
        .iter()
        .zip(&mut dialogs)
        .map(|(guest, dialog)| stage.mediaserver(guest.path).send_request(dialog.request("BYE")))
        .collect();
    for (Guest { path, phone, .. }, bye) in party.iter_mut().zip(byes) {
        assert_eq!(stage.mediaserver(path).final_answer(&bye).status(), Some(200));
        phone.until("phone.call.state === 'ended'");
    }
}

#[test]
fn a_call_outlives_the_edge() {
    let mut stage = Stage::new();
    let Some(mut party) = stage.party(&Library::ALL) else {
        return;
    };
    let mut dialogs = each(&mut party, |guest| {
        ring_and_answer(&mut guest.phone, stage.mediaserver(guest.path), guest.user)
    });
    stage.restart(&mut party);
    for (Guest { path, phone, .. }, dialog) in party.iter_mut().zip(&mut dialogs) {
        let mediaserver = stage.mediaserver(path);
        re_offered(mediaserver, dialog);
        phone.until("phone.hold()");
        assert_eq!(mediaserver.request(dialog, "BYE").status(), Some(200));
        phone.until("phone.call.state === 'ended'");
    }
    let calls = each(&mut party, |Guest { path, phone, .. }| {
        let call_id = dial(phone, stage.mediaserver(path), "600");
        phone.until("phone.call.state === 'up'");
        call_id
    });
    stage.restart(&mut party);
    for (Guest { path, phone, .. }, call_id) in party.iter_mut().zip(calls) {
        let mediaserver = stage.mediaserver(path);
        re_offered(mediaserver, &mut mediaserver.dialog(&call_id));
        hang_up(phone, mediaserver, &call_id);
    }
}

/// Calls both ways, each held and resumed, hung up by either side; and a REGISTER on the way.
fn phones_do_all(phone: &mut Phone, mediaserver: &Mediaserver, user: &str) {
    // The telephone calls, holds, resumes and hangs up.
    let call_id = dial(phone, mediaserver, "600");
    phone.until("phone.call.state === 'up'");
    phone.until("phone.hold()");
    phone.until("phone.resume()");
    hang_up(phone, mediaserver, &call_id);
    phone.until("phone.call.state === 'ended'");

    // It is called, gets an offer, and the caller hangs up.
    let mut dialog = ring_and_answer(phone, mediaserver, user);
    re_offered(mediaserver, &mut dialog);
    phone.until("phone.call.offers === 1");
    let before = mediaserver.seen().len();
    phone.evaluate("void phone.registerAgain()");
    mediaserver.wait_for_after(before, "a REGISTER with credentials", |message| {
        message.method() == Some("REGISTER") && message.field("Authorization").is_some()
    });
    assert_eq!(mediaserver.request(&mut dialog, "BYE").status(), Some(200));
    phone.until("phone.call.state === 'ended'");

    refuse_and_give_up(phone, mediaserver, user);
}

/// The telephone refuses a call, and gives up one of its own.
fn refuse_and_give_up(phone: &mut Phone, mediaserver: &Mediaserver, user: &str) {
    let invite = ring(phone, mediaserver, user);
    phone.evaluate("void phone.hangUp()");
    let status = mediaserver.final_answer(&invite).status();
    assert!(matches!(status, Some(480 | 486 | 487 | 603)), "{status:?}");
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

/// The telephone hangs up.
fn hang_up(phone: &mut Phone, mediaserver: &Mediaserver, call_id: &str) {
    phone.evaluate("void phone.hangUp()");
    mediaserver.wait_for("the BYE", |message| is(message, "BYE", call_id));
}

/// The mediaserver sends a re-INVITE, which is accepted.
fn re_offered(mediaserver: &Mediaserver, dialog: &mut Dialog) {
    let offer = dialog
        .request("INVITE")
        .with("Contact", format_args!("<sip:pbx@{}>", mediaserver.address()))
        .with_body("application/sdp", &description("actpass", OFFER));
    let offer = mediaserver.send_request(offer);
    assert_eq!(mediaserver.final_answer(&offer).status(), Some(200));
    mediaserver.send_request(dialog.request("ACK"));
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
