//! Does a telephone in a browser work with a mediaserver? Registrations and calls, also when datagrams are lost.

use std::{
    hint,
    time::{Duration, Instant},
};

use edgeward_tests::{
    deadline,
    peers::{
        ip_witness::IpWitness,
        mediaserver::{Fault, Mediaserver, Seen, Way},
        sip::{Dialog, Message, address, socket_address},
        sip_browser::{Account, SipBrowser},
        udp_peer::UdpPeer,
        websocket::{Event, Handshake},
    },
    scene::{CONFIG, Scene},
    word,
};

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

/// The mediaserver takes part in the call of this request.
fn is_of<'a>(request: &'a Message) -> impl Fn(&Message, &str) -> bool + 'a {
    move |message, method| message.call_id() == request.call_id() && message.method() == Some(method)
}

/// Calls from the browser and hangs up there.
fn browser_calls(browser: &mut SipBrowser, mediaserver: &Mediaserver) {
    let invite = browser.invite("600", SDP);
    browser.provisional(&invite, 180);
    let (_, mut dialog) = browser.answered(&invite);
    let of = is_of(&invite);
    mediaserver.wait_for("the ACK", |message| of(message, "ACK"));
    assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));
    mediaserver.wait_for("the BYE", |message| of(message, "BYE"));
}

/// Calls the browser and hangs up at the mediaserver.
fn mediaserver_calls(browser: &mut SipBrowser, mediaserver: &Mediaserver) {
    let invite = mediaserver.call(&browser.account().user, SDP);
    let incoming = browser.invited();
    assert_eq!(incoming.call_id(), invite.call_id());
    let user = browser.contact().split(['@', ';']).next().expect("a user").to_owned();
    let uri = incoming.uri().expect("a request");
    assert!(
        uri.starts_with(&user),
        "the browser knows itself as {user}, not as {uri}"
    );
    // RFC 3261 section 13.3.1: the 200 is acknowledged by the caller, end to end.
    browser.send(Message::answer(&incoming, 180, "Ringing", "tag"));
    mediaserver.wait_for("180", |message| {
        message.status() == Some(180) && message.call_id() == invite.call_id()
    });
    let accepted = Message::answer(&incoming, 200, "OK", "tag")
        .with("Contact", format_args!("<{}>", browser.contact()))
        .with_body("application/sdp", SDP);
    browser.send(accepted);
    let (answer, mut dialog) = mediaserver.answered(&invite);
    assert_eq!(answer.body, SDP);
    browser.expect("the ACK", |message| {
        message.method() == Some("ACK") && message.call_id() == invite.call_id()
    });
    let bye = mediaserver.send_request(dialog.request("BYE"));
    browser.requested("BYE");
    assert_eq!(mediaserver.final_answer(&bye).status(), Some(200));
}

#[test]
fn a_browser_registers() {
    let scene = Scene::new();
    let mut browser = SipBrowser::open(&scene.telephone(100, "/wssip"), Account::of("alice")).expect("a WebSocket");
    assert_eq!(browser.socket.protocol.as_deref(), Some("sip"));
    let accepted = browser.register();
    // JsSIP looks for its own Contact.
    assert_eq!(accepted.contact(), Some(browser.contact()));
    let binding = scene.mediaserver.binding("alice").expect("a registration");
    assert_eq!(binding.contact, browser.contact());
    assert_eq!(binding.from, scene.sip());
    assert_eq!(binding.path.len(), 1, "{:?}", binding.path);
    let path = address(&binding.path[0]).expect("a URI");
    assert_eq!(socket_address(path), Some(scene.sip()));
    assert!(path.contains(";lr"), "{path}");
    let register = scene
        .mediaserver
        .wait_for("a REGISTER", |message| message.method() == Some("REGISTER"));
    let via = register.field("Via").expect("a Via");
    assert!(via.starts_with(&format!("SIP/2.0/UDP {}", scene.sip())), "{via}");
    let no_invalid = register.all("Via").count();
    assert_eq!(no_invalid, 2, "the Via of the browser stays below ours");
}

#[test]
fn a_wrong_password_is_refused_by_the_mediaserver() {
    let scene = Scene::new();
    let account = Account {
        password: "wrong".into(),
        ..Account::of("alice")
    };
    let mut browser = SipBrowser::open(&scene.telephone(100, "/wssip"), account).expect("a WebSocket");
    let challenge = browser.try_register(None);
    assert_eq!(challenge.status(), Some(401));
    assert!(
        challenge
            .field("WWW-Authenticate")
            .is_some_and(|value| value.contains("pbx.test"))
    );
    assert!(scene.mediaserver.binding("alice").is_none());
}

#[test]
fn both_sides_call_and_hang_up() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    for _ in 0..3 {
        browser_calls(&mut browser, &scene.mediaserver);
        mediaserver_calls(&mut browser, &scene.mediaserver);
    }
    // And the other way round: who was called hangs up.
    let invite = browser.invite("600", SDP);
    let (_, _) = browser.answered(&invite);
    let mut dialog = scene.mediaserver.dialog(invite.call_id().expect("a Call-ID"));
    let bye = scene.mediaserver.send_request(dialog.request("BYE"));
    browser.requested("BYE");
    assert_eq!(scene.mediaserver.final_answer(&bye).status(), Some(200));
    let invite = scene.mediaserver.call("alice", SDP);
    let incoming = browser.invited();
    let accepted =
        Message::answer(&incoming, 200, "OK", "tag").with("Contact", format_args!("<{}>", browser.contact()));
    browser.send(accepted.clone());
    scene.mediaserver.answered(&invite);
    let mut dialog = Dialog::of_callee(&incoming, &accepted);
    assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));
}

#[test]
fn what_the_edge_does_not_know_passes_as_it_is() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let call_id = format!("{}@{{odd}}-'call'", word());
    let body = "line one\r\nline two \u{e4}\u{20ac}\r\n".repeat(200);
    let message = Message::request("MESSAGE", "sip:600@pbx.test")
        .with("Max-Forwards", 70)
        .with("From", "\"Ali, ce\" <sip:alice@pbx.test>;tag=f;x=\"y z\"")
        .with("To", "<sip:600@pbx.test>")
        .with("Call-ID", &call_id)
        .with("CSeq", "4 MESSAGE")
        .with("Alert-Info", "xivo-autoanswer")
        .with("X-Unknown", "  kept, as (it is) ; \u{e4} ")
        .with_body("text/plain; charset=utf-8", &body);
    let sent = browser.send(message);
    assert_eq!(browser.final_answer(&sent).status(), Some(200));
    let seen = scene
        .mediaserver
        .wait_for("the MESSAGE", |message| message.method() == Some("MESSAGE"));
    assert_eq!(seen.body, body);
    for name in ["From", "To", "Call-ID", "CSeq", "Alert-Info", "Content-Type"] {
        assert_eq!(seen.field(name), sent.field(name), "{name}");
    }
    assert_eq!(seen.field("X-Unknown"), Some("kept, as (it is) ; \u{e4}"));
    assert_eq!(seen.field("Max-Forwards"), Some("69"));
}

#[test]
fn a_call_can_be_taken_back_or_refused() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let invite = browser.invite("ringing", SDP);
    browser.provisional(&invite, 180);
    assert_eq!(browser.cancel(&invite).status(), Some(200));
    assert_eq!(browser.final_answer(&invite).status(), Some(487));
    let of = is_of(&invite);
    // RFC 3261 section 17.1.1.3: the edge acknowledges a failure itself.
    scene.mediaserver.wait_for("the ACK", |message| of(message, "ACK"));

    let invite = browser.invite("busy", SDP);
    assert_eq!(browser.final_answer(&invite).status(), Some(486));
    let of = is_of(&invite);
    scene.mediaserver.wait_for("the ACK", |message| of(message, "ACK"));

    let invite = scene.mediaserver.call("alice", SDP);
    let incoming = browser.invited();
    browser.send(Message::answer(&incoming, 486, "Busy Here", "tag"));
    assert_eq!(scene.mediaserver.final_answer(&invite).status(), Some(486));

    let invite = scene.mediaserver.call("alice", SDP);
    let incoming = browser.invited();
    browser.send(Message::answer(&incoming, 180, "Ringing", "tag"));
    scene.mediaserver.wait_for("180", |message| {
        message.status() == Some(180) && message.call_id() == invite.call_id()
    });
    let cancelled = scene.mediaserver.cancel(&invite);
    let cancel = browser.requested("CANCEL");
    assert_eq!(cancel.branch(), incoming.branch(), "the CANCEL names the INVITE");
    assert_eq!(scene.mediaserver.final_answer(&cancelled).status(), Some(200));
    browser.send(Message::answer(&incoming, 487, "Request Terminated", "tag"));
    assert_eq!(scene.mediaserver.final_answer(&invite).status(), Some(487));
}

#[test]
fn what_udp_loses_is_sent_again() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    // The first of everything is lost, in both directions.
    let mut before = Vec::new();
    scene.mediaserver.weather(move |way, message| {
        let kind = (
            way == Way::In,
            message.call_id()?.to_owned(),
            message.start.clone(),
            message.cseq(),
        );
        if before.contains(&kind) {
            return None;
        }
        before.push(kind);
        // A provisional answer is not sent again; a 200 to an INVITE and its ACK are the concern of both ends.
        let is_ends = message.method() == Some("ACK")
            || (way, message.status(), message.cseq_method()) == (Way::In, Some(200), Some("INVITE"));
        let is_lost = !is_ends && message.status().is_none_or(|status| status >= 200);
        is_lost.then_some(Fault::Lost)
    });
    browser_calls(&mut browser, &scene.mediaserver);
    mediaserver_calls(&mut browser, &scene.mediaserver);
}

#[test]
fn an_acknowledgement_that_was_lost_is_sent_again() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let mut lost = 0;
    scene.mediaserver.weather(move |_, message| {
        lost += usize::from(message.method() == Some("ACK"));
        (message.method() == Some("ACK") && lost == 1).then_some(Fault::Lost)
    });
    let invite = browser.invite("600", SDP);
    let (_, mut dialog) = browser.answered(&invite);
    // RFC 3261 section 13.2.2.4: each 200 that comes is acknowledged, so each has to come through.
    let again = browser.final_answer(&invite);
    assert_eq!(again.status(), Some(200));
    browser.send(dialog.request("ACK"));
    let of = is_of(&invite);
    scene.mediaserver.wait_for("the ACK", |message| of(message, "ACK"));
    assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));

    // The other way round: the 200 of the browser is lost, and it sends it again.
    let mut lost = 0;
    scene.mediaserver.weather(move |way, message| {
        let is_answer = (way, message.status(), message.cseq_method()) == (Way::In, Some(200), Some("INVITE"));
        lost += usize::from(is_answer);
        (is_answer && lost == 1).then_some(Fault::Lost)
    });
    let invite = scene.mediaserver.call("alice", SDP);
    let incoming = browser.invited();
    let accepted =
        Message::answer(&incoming, 200, "OK", "tag").with("Contact", format_args!("<{}>", browser.contact()));
    browser.send(accepted.clone());
    browser.send(accepted);
    scene.mediaserver.answered(&invite);
    browser.expect("the ACK", |message| message.method() == Some("ACK"));
}

#[test]
fn what_udp_doubles_is_passed_on_once() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    scene.mediaserver.weather(|_, _| Some(Fault::Twice));
    browser_calls(&mut browser, &scene.mediaserver);
    mediaserver_calls(&mut browser, &scene.mediaserver);
    let of_method = |message: &Message| message.method().map(str::to_owned);
    // A MESSAGE as the last thing: what came before it twice is in the inbox by then.
    let last = scene
        .mediaserver
        .send_request(scene.mediaserver.prepare("MESSAGE", "alice"));
    browser.requested("MESSAGE");
    assert_eq!(scene.mediaserver.final_answer(&last).status(), Some(200));
    let mut left = Vec::new();
    while let Some(message) = browser.receive(Instant::now()) {
        left.extend(of_method(&message).filter(|method| method != "ACK"));
    }
    assert!(left.is_empty(), "the browser saw {left:?} once more");
}

#[test]
fn large_messages_pass_in_both_directions() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    for length in [2_000, 7_000, 30_000, 60_000] {
        let body = "a=candidate and so on\r\n".repeat(length / 23);
        let invite = browser.invite("600", &body);
        let (_, mut dialog) = browser.answered(&invite);
        let seen = scene.mediaserver.wait_for("the INVITE", |message| {
            message.method() == Some("INVITE") && message.call_id() == invite.call_id()
        });
        assert!(seen.body == body, "{length} bytes to the mediaserver");
        browser.request(&mut dialog, "BYE");

        scene.mediaserver.call("alice", &body);
        let incoming = browser.invited();
        assert!(incoming.body == body, "{length} bytes to the browser");
        browser.send(Message::answer(&incoming, 486, "Busy Here", "tag"));
    }
}

#[test]
fn large_datagrams_may_be_fragmented() {
    let scene = Scene::new();
    let Some(mut at_mediaserver) = IpWitness::at(scene.mediaserver.address().ip()) else {
        return;
    };
    let mut browser = scene.registered(100, "alice");
    for length in [10, 2_000, 60_000] {
        let body = "x".repeat(length);
        let call_id = browser.invite("600", &body).call_id().expect("a Call-ID").to_owned();
        let is_ours = |payload: &[u8]| {
            let text = String::from_utf8_lossy(payload);
            text.starts_with("INVITE ") && text.contains(&call_id)
        };
        let seen = loop {
            let seen = at_mediaserver.see(scene.mediaserver.address().port());
            if is_ours(&seen.payload) {
                break seen;
            }
        };
        // Loopback takes them whole, but a router may not: RFC 791 lets it cut only what has DF clear.
        assert!(seen.payload.len() > length && !seen.dont_fragment, "{length} bytes");
    }
}

#[test]
fn the_largest_datagram_passes_in_both_directions() {
    /// The largest payload of UDP over IPv4.
    const LARGEST: usize = 65_507;
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let fill = |length: usize| "x".repeat(length);
    let down = |length: usize| {
        let message = scene.mediaserver.prepare("MESSAGE", "alice");
        scene
            .mediaserver
            .send_request(message.with_body("text/plain", &fill(length)))
    };
    let overhead = down(10_000).to_string().len() - 10_000;
    browser.requested("MESSAGE");
    let sent = down(LARGEST - overhead);
    assert_eq!(sent.to_string().len(), LARGEST);
    assert_eq!(browser.requested("MESSAGE").body, sent.body);
    assert_eq!(scene.mediaserver.final_answer(&sent).status(), Some(200));

    let mut up = |length: usize| {
        let message = Message::request("MESSAGE", "sip:600@pbx.test")
            .with("Max-Forwards", 70)
            .with("From", "<sip:alice@pbx.test>;tag=f")
            .with("To", "<sip:600@pbx.test>")
            .with("Call-ID", word())
            .with("CSeq", "1 MESSAGE")
            .with_body("text/plain", &fill(length));
        let sent = browser.send(message);
        (browser.final_answer(&sent).status(), sent)
    };
    let length_of = |sent: &Message| {
        let seen = scene.mediaserver.seen();
        let of = |message: &Message| message.call_id() == sent.call_id() && message.method() == Some("MESSAGE");
        let found = seen.iter().find(|seen| seen.message.as_ref().is_some_and(of));
        found.map(|seen| seen.bytes.len())
    };
    let (status, sent) = up(10_000);
    assert_eq!(status, Some(200));
    let overhead = length_of(&sent).expect("a MESSAGE") - 10_000;
    let (status, sent) = up(LARGEST - overhead);
    assert_eq!((status, length_of(&sent)), (Some(200), Some(LARGEST)));
    let (status, sent) = up(LARGEST - overhead + 1);
    assert_eq!((status, length_of(&sent)), (Some(513), None));
}

#[test]
fn a_message_may_be_binary_and_in_fragments() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let request = |id: &str| {
        Message::request("MESSAGE", "sip:600@pbx.test")
            .with("Via", format_args!("SIP/2.0/WSS a.invalid;branch=z9hG4bK{id}"))
            .with("Max-Forwards", 70)
            .with("From", "<sip:alice@pbx.test>;tag=f")
            .with("To", "<sip:600@pbx.test>")
            .with("Call-ID", id)
            .with("CSeq", "1 MESSAGE")
            .with_body("text/plain", "in pieces")
            .to_string()
    };
    browser.socket.send_binary(request("binary").as_bytes());
    // Masked with zeros, in fragments of one byte, with a ping in the middle.
    let text = request("fragments");
    for (number, byte) in text.bytes().enumerate() {
        let first = u8::from(number == 0);
        let last = if number + 1 == text.len() { 0x80 } else { 0 };
        browser.socket.send_raw(&[last | first, 0x81, 0, 0, 0, 0, byte]);
        if number == 100 {
            browser.socket.send_raw(&[0x89, 0x80, 0, 0, 0, 0]);
        }
    }
    for id in ["binary", "fragments"] {
        let answer = browser.expect(id, |message| message.call_id() == Some(id));
        assert_eq!(answer.status(), Some(200));
        let seen = scene.mediaserver.wait_for(id, |message| message.call_id() == Some(id));
        assert_eq!(seen.body, "in pieces");
    }
}

#[test]
fn what_is_not_utf8_comes_as_a_binary_message() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let mut say = |subject: &[u8]| {
        let mut request = scene.mediaserver.prepare("MESSAGE", "alice").with("Subject", "?");
        let via = format!("SIP/2.0/UDP {};branch=z9hG4bK{}", scene.site.at(3, 5060), word());
        request.fields.insert(0, ("Via".into(), via));
        let text = request.to_string();
        let (before, after) = text.split_once('?').expect("the subject");
        let bytes = [before.as_bytes(), subject, after.as_bytes()].concat();
        scene.mediaserver.send_raw(&bytes, scene.sip());
        browser.socket.next(deadline()).expect("a message")
    };
    // RFC 7118 section 4.2. A gateway's caller names are in Latin-1 now and then.
    let latin1 = b"Ren\xe9";
    match say(latin1) {
        Event::Binary(bytes) => assert!(bytes.windows(latin1.len()).any(|part| part == latin1)),
        event => panic!("{event:?}"),
    }
    assert!(matches!(say("Ren\u{e9}".as_bytes()), Event::Text(_)));
}

#[test]
fn a_browser_that_does_not_read_is_let_go() {
    let scene = Scene::new();
    let mut other = scene.registered(101, "bob");
    let deaf = scene.registered(100, "alice");
    let before = scene.edge.process().resident_kib();
    let body = "0123456789abcdef".repeat(2_000);
    let deadline = deadline();
    // Until its buffers are full and the edge has had enough.
    loop {
        let message = scene
            .mediaserver
            .prepare("MESSAGE", "alice")
            .with_body("text/plain", &body);
        let sent = scene.mediaserver.send_request(message);
        scene.mediaserver.forget(&sent);
        let tick = scene
            .mediaserver
            .send_request(scene.mediaserver.prepare("OPTIONS", "bob"));
        other.requested("OPTIONS");
        assert_eq!(scene.mediaserver.final_answer(&tick).status(), Some(200));
        let refused = scene.mediaserver.seen().iter().any(|seen| {
            let message = seen.message.as_ref();
            message.is_some_and(|message| {
                message.branch() == sent.branch() && message.status().is_some_and(|status| status >= 400)
            })
        });
        if refused {
            break;
        }
        assert!(Instant::now() < deadline, "the edge waits for ever");
    }
    let grown = scene.edge.process().resident_kib().saturating_sub(before);
    assert!(grown < 30_000, "{grown} KiB more for a browser that does not read");
    drop(deaf);
}

#[test]
fn messages_keep_their_order() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    for burst in 0..5 {
        let sent: Vec<Message> = (0..40)
            .map(|number| {
                let notify = scene.mediaserver.prepare("NOTIFY", "alice");
                scene
                    .mediaserver
                    .send_request(notify.with("X-Number", burst * 40 + number))
            })
            .collect();
        let numbers: Vec<String> = sent
            .iter()
            .map(|_| {
                browser
                    .requested("NOTIFY")
                    .field("X-Number")
                    .expect("a number")
                    .to_owned()
            })
            .collect();
        let expected: Vec<String> = (burst * 40..(burst + 1) * 40)
            .map(|number: i32| number.to_string())
            .collect();
        assert_eq!(numbers, expected);
        for request in &sent {
            assert_eq!(scene.mediaserver.final_answer(request).status(), Some(200));
        }
    }
}

/// Sends two messages 0.1 ms apart, which is less than any of them takes to get through.
fn close_together<T>(mut send: impl FnMut() -> T) -> [T; 2] {
    let first = send();
    let sent = Instant::now();
    while sent.elapsed() < Duration::from_micros(100) {
        hint::spin_loop();
    }
    [first, send()]
}

#[test]
fn of_two_messages_close_together_none_overtakes_the_other() {
    const PAIRS: usize = 100;
    let scene = Scene::new();
    // Many enough for every shard to have some: a thousand pairs each way.
    let mut browsers: Vec<(SipBrowser, [Dialog; 2])> = (100..110)
        .map(|client| {
            let mut browser = scene.registered(client, &format!("user{client}"));
            let invite = browser.invite("600", SDP);
            let (_, dialog) = browser.answered(&invite);
            let other_side = scene.mediaserver.dialog(invite.call_id().expect("a Call-ID"));
            (browser, [dialog, other_side])
        })
        .collect();
    let mut numbers = Vec::new();
    for _ in 0..PAIRS {
        for (_, [_, other_side]) in &mut browsers {
            close_together(|| scene.mediaserver.send_request(other_side.request("NOTIFY")));
        }
        for (browser, [dialog, _]) in &mut browsers {
            // Both requests and both answers, in the order of their sending.
            for request in [0; 2].map(|_| browser.expect("a NOTIFY", |message| message.method() == Some("NOTIFY"))) {
                numbers.push((browser.account().user.clone(), request.cseq().expect("a number")));
                browser.send(Message::answer(&request, 200, "OK", "tag"));
            }
            for sent in close_together(|| browser.send(dialog.request("MESSAGE"))) {
                assert_eq!(browser.final_answer(&sent).status(), Some(200));
            }
        }
    }
    for (browser, [dialog, _]) in &browsers {
        let user = &browser.account().user;
        let to_browser: Vec<u32> = numbers
            .iter()
            .filter(|(of, _)| of == user)
            .map(|(_, number)| *number)
            .collect();
        assert_eq!(to_browser.len(), 2 * PAIRS);
        assert!(
            to_browser.is_sorted_by(|a, b| a < b),
            "NOTIFYs to {user}: {to_browser:?}"
        );
        let seen = scene.mediaserver.seen();
        let of_call = seen.iter().filter_map(|seen| seen.message.as_ref());
        let of_call: Vec<&Message> = of_call
            .filter(|message| message.call_id() == Some(&dialog.call_id))
            .collect();
        let sequence = |what: &str, wanted: &dyn Fn(&&&Message) -> bool| {
            let mut order: Vec<u32> = Vec::new();
            for number in of_call.iter().filter(wanted).filter_map(|message| message.cseq()) {
                // On a busy machine something may have been sent again.
                if !order.contains(&number) {
                    order.push(number);
                }
            }
            assert_eq!(order.len(), 2 * PAIRS, "{what} of {user}");
            assert!(order.is_sorted(), "{what} of {user}: {order:?}");
        };
        sequence("MESSAGEs", &|message| message.method() == Some("MESSAGE"));
        sequence("answers", &|message| {
            message.status() == Some(200) && message.cseq_method() == Some("NOTIFY")
        });
    }
}

#[test]
fn many_browsers_on_every_shard_are_told_apart() {
    let scene = Scene::new();
    let mut browsers: Vec<SipBrowser> = (100..120)
        .map(|client| scene.registered(client, &format!("user{client}")))
        .collect();
    for browser in &mut browsers {
        browser_calls(browser, &scene.mediaserver);
        mediaserver_calls(browser, &scene.mediaserver);
    }
    // All calls at once.
    let invites: Vec<Message> = browsers
        .iter()
        .map(|browser| scene.mediaserver.call(&browser.account().user, SDP))
        .collect();
    for (browser, invite) in browsers.iter_mut().zip(&invites) {
        let incoming = browser.invited();
        assert_eq!(incoming.call_id(), invite.call_id());
        browser.send(Message::answer(&incoming, 603, "Decline", "tag"));
        assert_eq!(scene.mediaserver.final_answer(invite).status(), Some(603));
    }
}

#[test]
fn the_path_chooses_the_mediaserver_and_nothing_else_does() {
    let scene = Scene::new();
    let mut browser = SipBrowser::registered(&scene.telephone(100, "/wssip-mds2"), "bob");
    assert!(scene.second.binding("bob").is_some() && scene.mediaserver.binding("bob").is_none());
    let trap = UdpPeer::bind(scene.site.at(120, 5060));
    // Neither the Request-URI nor a Route leads elsewhere.
    let message = Message::request("MESSAGE", &format!("sip:600@{}", trap.address()))
        .with("Route", format_args!("<sip:{};lr>", trap.address()))
        .with("Route", format_args!("<sip:{};lr>", scene.mediaserver.address()))
        .with("Max-Forwards", 70)
        .with("From", "<sip:bob@pbx.test>;tag=f")
        .with("To", "<sip:600@pbx.test>")
        .with("Call-ID", word())
        .with("CSeq", "1 MESSAGE");
    let sent = browser.send(message);
    assert_eq!(browser.final_answer(&sent).status(), Some(200));
    let seen = scene
        .second
        .wait_for("the MESSAGE", |message| message.method() == Some("MESSAGE"));
    assert!(seen.field("Route").is_none(), "{seen}");
    assert!(trap.receive_until(Instant::now()).is_none());
    // The other one is asked for its health, and nothing else.
    let asked = |seen: &Seen| seen.message.as_ref().and_then(Message::method) == Some("OPTIONS");
    assert!(scene.mediaserver.seen().iter().all(asked));
}

#[test]
fn only_the_mediaserver_reaches_a_browser() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let request = |number: u32| {
        let path = &scene.mediaserver.binding("alice").expect("a registration").path;
        let mut request = Message::request("MESSAGE", browser.contact()).with(
            "Via",
            format_args!("SIP/2.0/UDP {};branch=z9hG4bK{}", scene.site.at(3, 5060), word()),
        );
        for path in path {
            request = request.with("Route", path);
        }
        request
            .with("Max-Forwards", 70)
            .with("From", "<sip:evil@pbx.test>;tag=e")
            .with("To", "<sip:alice@pbx.test>")
            .with("Call-ID", word())
            .with("CSeq", "1 MESSAGE")
            .with("X-Number", number)
            .to_string()
    };
    let strangers = [
        UdpPeer::bind(scene.site.at(120, 5060)),
        // The right address, another port; and the mediaserver of another path.
        UdpPeer::bind(scene.site.at(3, 5061)),
    ];
    for (number, stranger) in (0..).zip(&strangers) {
        stranger.send(scene.sip(), request(number).as_bytes());
    }
    scene.second.send_raw(request(2).as_bytes(), scene.sip());
    let honest = scene
        .mediaserver
        .send_request(scene.mediaserver.prepare("MESSAGE", "alice"));
    let received = browser.requested("MESSAGE");
    assert_eq!(received.field("X-Number"), None, "{received}");
    assert_eq!(scene.mediaserver.final_answer(&honest).status(), Some(200));
    for stranger in &strangers {
        assert!(
            stranger.receive_until(Instant::now()).is_none(),
            "strangers hear nothing"
        );
    }
}

#[test]
fn a_token_of_somebody_else_or_none_leads_nowhere() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let binding = scene.mediaserver.binding("alice").expect("a registration");
    let path = address(&binding.path[0]).expect("a URI").to_owned();
    let (scheme, rest) = path.split_once(':').expect("a scheme");
    let (token, host) = rest.split_once('@').expect("a token");
    let mut forged = token.to_owned();
    let last = if forged.ends_with('A') { "B" } else { "A" };
    forged.replace_range(forged.len() - 1.., last);
    for token in [
        forged.as_str(),
        "nonsense",
        &token[..token.len() / 2],
        &format!("{token}A"),
    ] {
        let request = scene.mediaserver.prepare("INVITE", "alice");
        let fields = request.fields.iter().map(|(name, value)| match name.as_str() {
            "Route" => (name.clone(), format!("<{scheme}:{token}@{host}>")),
            _ => (name.clone(), value.clone()),
        });
        let request = Message {
            fields: fields.collect(),
            ..request.clone()
        };
        let sent = scene.mediaserver.send_request(request);
        let status = scene.mediaserver.final_answer(&sent).status().expect("a status");
        assert!(matches!(status, 403 | 404 | 430), "{status} for {token}");
    }
    mediaserver_calls(&mut browser, &scene.mediaserver);
}

#[test]
fn a_closed_websocket_is_known_at_once() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    browser.socket.close();
    assert_eq!(browser.socket.closed(), Some(1000));
    drop(browser);
    let began = Instant::now();
    let invite = scene.mediaserver.call("alice", SDP);
    let status = scene.mediaserver.final_answer(&invite).status();
    assert!(matches!(status, Some(430 | 480)), "{status:?}");
    // Well before the 500 ms after which the INVITE would be repeated.
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
}

#[test]
fn a_browser_that_is_gone_leaves_nothing_behind() {
    let policy = "[sip.policy]\ngone_status = 480\nunregister_gone = true\n\n[[sip.mediaserver]]\nname = \"default\"";
    let scene = Scene::with(&CONFIG.replace("[[sip.mediaserver]]\nname = \"default\"", policy));
    let mut browser = scene.registered(100, "alice");
    let contact = browser.contact().to_owned();
    let ringing = scene.mediaserver.call("alice", SDP);
    let incoming = browser.invited();
    browser.send(Message::answer(&incoming, 180, "Ringing", "tag"));
    let own = browser.invite("ringing", SDP);
    browser.provisional(&own, 180);
    // The CANCEL is lost, and the mediaserver says 200 before it comes again.
    let mut lost = false;
    scene.mediaserver.weather(move |way, message| {
        let is_lost = !lost && way == Way::In && message.method() == Some("CANCEL");
        lost |= is_lost;
        is_lost.then_some(Fault::Lost)
    });
    browser.socket.close();
    assert_eq!(browser.socket.closed(), Some(1000));
    // Who rings it hears that it is gone.
    assert_eq!(scene.mediaserver.final_answer(&ringing).status(), Some(480));
    // Its contact is taken back; this mediaserver takes a digest twice.
    scene.mediaserver.wait_for("the end of the registration", |message| {
        message.method() == Some("REGISTER")
            && message.field("Contact") == Some(&format!("<{contact}>;expires=0"))
            && message.field("Authorization").is_some()
    });
    // Its own call is answered too late, and hung up.
    scene.mediaserver.pick_up(own.call_id().expect("a Call-ID"));
    for method in ["ACK", "BYE"] {
        let of = is_of(&own);
        scene.mediaserver.wait_for(method, |message| of(message, method));
    }
}

#[test]
fn a_browser_that_comes_back_takes_its_calls_over() {
    let scene = Scene::new();
    let handshake = scene.telephone(100, "/wssip");
    let mut browser = SipBrowser::registered(&handshake, "alice");
    let invite = browser.invite("600", SDP);
    let (_, mut dialog) = browser.answered(&invite);
    let mut other_side = scene.mediaserver.dialog(invite.call_id().expect("a Call-ID"));
    // The network is gone without a word; then it is back.
    browser.reopen(&handshake).expect("a WebSocket");
    browser.register();
    let update = scene.mediaserver.send_request(other_side.request("UPDATE"));
    browser.requested("UPDATE");
    assert_eq!(scene.mediaserver.final_answer(&update).status(), Some(200));
    mediaserver_calls(&mut browser, &scene.mediaserver);
    assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));
}

#[test]
fn nobody_takes_over_what_the_mediaserver_did_not_give_him() {
    let scene = Scene::new();
    let mut alice = scene.registered(100, "alice");
    let mut mallory = SipBrowser::open(&scene.telephone(101, "/wssip"), Account::of("mallory")).expect("a WebSocket");
    // Alice's Contact in a REGISTER that is refused, and in one that is accepted for somebody else.
    mallory.pretend(alice.contact());
    assert_eq!(mallory.try_register(None).status(), Some(401));
    mediaserver_calls(&mut alice, &scene.mediaserver);
    mediaserver_calls(&mut alice, &scene.mediaserver);
    assert!(mallory.receive(Instant::now()).is_none());
}

#[test]
fn a_mediaserver_without_path_reaches_the_browser_by_its_contact() {
    let config = CONFIG.replace("name = \"mds2\"", "name = \"mds2\"\nreach = \"contact\"");
    let scene = Scene::with(&config);
    let handshake = scene.telephone(100, "/wssip-mds2");
    let mut browser = SipBrowser::open(&handshake, Account::of("alice")).expect("a WebSocket");
    let accepted = browser.register();
    assert_eq!(accepted.contact(), Some(browser.contact()));
    let binding = scene.second.binding("alice").expect("a registration");
    assert!(binding.path.is_empty());
    assert_eq!(socket_address(&binding.contact), Some(scene.sip()));
    browser_calls(&mut browser, &scene.second);
    mediaserver_calls(&mut browser, &scene.second);
}

#[test]
fn a_websocket_for_sip_opens_only_for_a_telephone() {
    let scene = Scene::new();
    let good = scene.telephone(100, "/wssip").with("Sec-WebSocket-Protocol", "sip");
    assert!(good.open().is_ok());
    let with = |name: &str, value: &str| {
        let mut handshake = good.clone();
        handshake.fields.retain(|(other, _)| other != name);
        if value.is_empty() {
            handshake
        } else {
            handshake.with(name, value)
        }
    };
    let target = |target: &str| Handshake {
        target: target.into(),
        ..good.clone()
    };
    let refused = [
        with("Origin", "https://evil.test"),
        with("Origin", "null"),
        with("Sec-WebSocket-Protocol", ""),
        with("Sec-WebSocket-Protocol", "xmpp"),
        with("Sec-WebSocket-Version", "7"),
        target("/wssip"),
        target("/wssip?token="),
        target("/wssip-other?token=t"),
        target("/wssip/more?token=t"),
    ];
    for handshake in refused {
        let declined = handshake.open().expect_err("no WebSocket");
        assert!(
            (400..=426).contains(&declined.status),
            "{} for {handshake:?}",
            declined.status
        );
    }
}

#[test]
fn a_websocket_for_sip_opens_only_under_a_name_of_the_edge() {
    let scene = Scene::new();
    let telephone = scene.telephone(100, "/wssip").with("Sec-WebSocket-Protocol", "sip");
    let check = |host: &str, refused: Option<u16>| {
        let opened = telephone.clone().with("Host", host).open();
        assert_eq!(opened.err().map(|declined| declined.status), refused, "{host}");
    };
    let own = scene.https();
    for host in ["edge.test", "EDGE.test:8443", &own.to_string()] {
        check(host, None);
    }
    // A page whose name was made to lead here has the wrong name all the same.
    for host in [
        "evil.test",
        "edge.test.evil.test",
        "127.0.0.1:8443",
        "notedge.test:8443",
    ] {
        check(host, Some(421));
    }
    check("", Some(400));
    check("edge.test:8443, evil.test", Some(400));
}

#[test]
fn a_flood_of_messages_is_told_of() {
    let scene = Scene::new();
    let mut browser = SipBrowser::open(&scene.telephone(100, "/wssip"), Account::of("alice")).expect("a WebSocket");
    // Far more than a telephone sends in the second that this takes.
    let refused = (0..100).find_map(|_| {
        let answer = browser.try_register(None);
        (answer.status() == Some(503)).then_some(answer)
    });
    assert!(refused.expect("a refusal").field("Retry-After").is_some());
    let client = scene.client(100).to_string();
    scene.edge.process().wait_until("that it was refused", |line| {
        ["edgeward::security", "role=\"sip\"", "reason=\"rate\"", &client]
            .iter()
            .all(|part| line.contains(part))
    });
}

#[test]
fn what_is_no_sip_ends_nobody_elses_call() {
    let scene = Scene::new();
    let mut alice = scene.registered(100, "alice");
    let invite = alice.invite("600", SDP);
    let (_, mut dialog) = alice.answered(&invite);
    let garbage = [
        "hello",
        "INVITE\r\n\r\n",
        "INVITE sip:x@y SIP/2.0\r\n\r\n",
        "INVITE sip:x@y SIP/3.0\r\nVia: SIP/2.0/WSS a.invalid;branch=z9hG4bK1\r\n\r\n",
        "SIP/2.0 200 OK\r\n\r\n",
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 1.2.3.4;branch=z9hG4bKx\r\nCSeq: 1 INVITE\r\n\r\n",
        "\0\0\0\0",
        "BYE sip:600@pbx.test SIP/2.0\r\nVia: SIP/2.0/WSS a.invalid;branch=z9hG4bK2\r\nCSeq: 99999999999 BYE\r\n\r\n",
    ];
    for text in garbage {
        let mut stranger = SipBrowser::open(&scene.telephone(101, "/wssip"), Account::of("eve")).expect("a WebSocket");
        stranger.socket.send_text(text);
        // Dropped, answered or closed: in any case something else can be done afterwards.
        stranger.socket.ping();
        while !matches!(
            stranger.socket.next(deadline()),
            Some(Event::Pong | Event::Close(_) | Event::Gone)
        ) {}
    }
    // Frames that are none: reserved bits, an unmasked one, a control frame that is too long, text that is not UTF-8.
    let frames: [&[u8]; 4] = [
        &[0xf1, 0x80, 0, 0, 0, 0],
        &[0x81, 0x01, b'x'],
        &[&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat(),
        &[0x81, 0x81, 0, 0, 0, 0, 0xff],
    ];
    for frame in frames {
        let mut stranger = SipBrowser::open(&scene.telephone(102, "/wssip"), Account::of("eve")).expect("a WebSocket");
        stranger.socket.send_raw(frame);
        let code = stranger.socket.closed();
        assert!(matches!(code, Some(1002 | 1007)), "{code:?} for {frame:?}");
    }
    for datagram in [
        &b""[..],
        b"\r\n\r\n",
        b"\0",
        b"SIP/2.0 200 OK\r\n\r\n",
        &[0xff; 2000],
        b"INVITE sip:x SIP/2.0\r\n\r\n",
    ] {
        scene.mediaserver.send_raw(datagram, scene.sip());
    }
    assert_eq!(alice.request(&mut dialog, "BYE").status(), Some(200));
    browser_calls(&mut alice, &scene.mediaserver);
    mediaserver_calls(&mut alice, &scene.mediaserver);
}

#[test]
fn requests_that_may_not_go_on_are_answered() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let mut check = |max_forwards: u32, uri: &str, field: Option<(&str, &str)>, expected: u16| {
        let mut request = Message::request("MESSAGE", uri)
            .with("Max-Forwards", max_forwards)
            .with("From", "<sip:alice@pbx.test>;tag=f")
            .with("To", "<sip:600@pbx.test>")
            .with("Call-ID", word())
            .with("CSeq", "1 MESSAGE");
        if let Some((name, value)) = field {
            request = request.with(name, value);
        }
        let sent = browser.send(request);
        assert_eq!(browser.final_answer(&sent).status(), Some(expected), "{sent}");
    };
    check(0, "sip:600@pbx.test", None, 483);
    check(70, "sip:600@pbx.test", Some(("Proxy-Require", "something")), 420);
    check(70, "gopher:600", None, 416);
    check(70, "sip:600@pbx.test", None, 200);
}

#[test]
fn a_flow_is_kept_alive_and_a_dead_one_is_found() {
    let config = CONFIG.replace(
        "[[sip.mediaserver]]\nname = \"default\"",
        "[sip.limits]\nping_secs = 1\n\n[[sip.mediaserver]]\nname = \"default\"",
    );
    let scene = Scene::with(&config);
    let mut alive = scene.registered(100, "alice");
    // RFC 5626 section 3.5.1.
    alive.socket.send_text("\r\n\r\n");
    let deadline = deadline();
    let (mut pings, mut pongs) = (0, 0);
    while pings < 3 || pongs < 1 {
        match alive.socket.next(deadline).expect("a sign of life") {
            Event::Ping => pings += 1,
            Event::Text(text) if text == "\r\n" => pongs += 1,
            event => panic!("{event:?}"),
        }
    }
    drop(alive);
    // One that answers no pings, but does not close either.
    let mut silent = scene.registered(101, "bob");
    silent.socket.neglect();
    let invite = scene.mediaserver.call("bob", SDP);
    let status = scene.mediaserver.final_answer(&invite).status();
    assert!(matches!(status, Some(430 | 480)), "{status:?}");
}
