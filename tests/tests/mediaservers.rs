//! Do calls go on when a mediaserver does not? Several addresses for one, names, and TCP for what is large.

use std::{cell::RefCell, collections::BTreeMap, sync::mpsc};

use edgeward_tests::{
    PATIENCE, eventually,
    peers::{
        mediaserver::{Fault, Mediaserver},
        sip::Message,
        sip_browser::{Account, SipBrowser},
        turn_client::{Credentials, TurnClient},
        udp_peer::UdpPeer,
    },
    scene::{ALICE, CONFIG, SIP, Scene},
};

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

/// The shards of the edge in [`CONFIG`].
const SHARDS: usize = 3;

/// [`CONFIG`] with something else in place of the address of the first mediaserver, and quick health checks.
fn config(address: &str) -> String {
    let health = "[sip.health]\ninterval_secs = 0.5\nfailover_secs = 1\n\n[[sip.mediaserver]]\nname = \"default\"";
    CONFIG
        .replace("address = \"$net.4:5060\"", "address = \"$net.5:5060\"")
        .replace("address = \"$net.3:5060\"", address)
        .replace("[[sip.mediaserver]]\nname = \"default\"", health)
}

/// A scene whose first mediaserver has two addresses: `mediaserver` is the first choice, `second` the other.
fn scene_of_two() -> Scene {
    Scene::with(&config("address = [\"$net.3:5060\", \"$net.4:5060\"]"))
}

/// Waits until every shard has asked a mediaserver after its health so many times more; the answer to each question but
/// the last is known by then.
fn asked_by_all_shards(mediaserver: &Mediaserver, times: usize) {
    // The Call-ID is one for each shard.
    let asker = |message: &Message| match message.method() {
        Some("OPTIONS") => message.call_id().map(str::to_owned),
        _ => None,
    };
    let mut before: BTreeMap<String, usize> = BTreeMap::new();
    for shard in mediaserver
        .seen()
        .iter()
        .filter_map(|seen| asker(seen.message.as_ref()?))
    {
        *before.entry(shard).or_default() += 1;
    }
    let asked: RefCell<BTreeMap<String, usize>> = RefCell::default();
    mediaserver.wait_for("questions after its health", |message| {
        let mut asked = asked.borrow_mut();
        if let Some(shard) = asker(message) {
            *asked.entry(shard).or_default() += 1;
        }
        let enough = |(shard, count): (&String, &usize)| *count >= times + before.get(shard).copied().unwrap_or(0);
        asked.len() >= SHARDS && asked.iter().all(enough)
    });
}

fn silence(mediaserver: &Mediaserver) {
    mediaserver.weather(|_, _| Some(Fault::Lost));
}

/// Calls from the browser and hangs up there.
fn browser_calls(browser: &mut SipBrowser, mediaserver: &Mediaserver, offer: &str) -> Message {
    let invite = browser.invite("600", offer);
    let (_, mut dialog) = browser.answered(&invite);
    let of =
        |message: &Message, method: &str| message.call_id() == invite.call_id() && message.method() == Some(method);
    let seen = mediaserver.wait_for("the INVITE", |message| of(message, "INVITE"));
    mediaserver.wait_for("the ACK", |message| of(message, "ACK"));
    assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));
    mediaserver.wait_for("the BYE", |message| of(message, "BYE"));
    seen
}

/// Calls the browser and hangs up at the mediaserver.
fn mediaserver_calls(browser: &mut SipBrowser, mediaserver: &Mediaserver) {
    let invite = mediaserver.call(&browser.account().user, SDP);
    let incoming = browser.invited();
    assert_eq!(incoming.call_id(), invite.call_id());
    let accepted =
        Message::answer(&incoming, 200, "OK", "tag").with("Contact", format_args!("<{}>", browser.contact()));
    browser.send(accepted);
    let (_, mut dialog) = mediaserver.answered(&invite);
    let bye = mediaserver.send_request(dialog.request("BYE"));
    browser.requested("BYE");
    assert_eq!(mediaserver.final_answer(&bye).status(), Some(200));
}

#[test]
fn when_the_first_one_stops_everything_goes_on_with_the_second() {
    let mut scene = scene_of_two();
    let mut alice = scene.registered(100, "alice");
    browser_calls(&mut alice, &scene.mediaserver, SDP);
    mediaserver_calls(&mut alice, &scene.mediaserver);
    assert!(scene.second.binding("alice").is_none());
    // Its port is closed, which the network says at once.
    let spare = Mediaserver::start(scene.site.at(6, SIP));
    drop(std::mem::replace(&mut scene.mediaserver, spare));
    browser_calls(&mut alice, &scene.second, SDP);
    alice.register();
    assert!(scene.second.binding("alice").is_some());
    mediaserver_calls(&mut alice, &scene.second);
    // The first one is back: new users go there, alice stays where she is.
    scene.mediaserver = Mediaserver::start(scene.site.at(3, SIP));
    asked_by_all_shards(&scene.mediaserver, 2);
    let mut bob = scene.registered(101, "bob");
    assert!(scene.mediaserver.binding("bob").is_some() && scene.second.binding("bob").is_none());
    browser_calls(&mut bob, &scene.mediaserver, SDP);
    browser_calls(&mut alice, &scene.second, SDP);
    mediaserver_calls(&mut alice, &scene.second);
    mediaserver_calls(&mut bob, &scene.mediaserver);
}

#[test]
fn one_that_says_nothing_is_passed_over_and_nobody_is_offered_when_all_do() {
    let scene = scene_of_two();
    let mut alice = scene.registered(100, "alice");
    silence(&scene.mediaserver);
    browser_calls(&mut alice, &scene.second, SDP);
    // A dialog at one that says nothing is taken to the other, too.
    silence(&scene.second);
    let down = RefCell::new(0);
    scene
        .edge
        .process()
        .wait_until("that all are down, on every shard", |line| {
            *down.borrow_mut() += usize::from(line.contains("does not answer") && !line.contains("mds2"));
            *down.borrow() >= 2 * SHARDS
        });
    let refused = alice.invite("600", SDP);
    let refused = alice.final_answer(&refused);
    assert_eq!(refused.status(), Some(503));
    assert!(refused.field("Retry-After").is_some(), "{refused}");
    let declined = SipBrowser::open(&scene.telephone(101, "/wssip"), Account::of("bob")).expect_err("no WebSocket");
    assert_eq!(declined.status, 503);
    // One of them is back, which is found out by itself.
    scene.second.weather(|_, _| None);
    asked_by_all_shards(&scene.second, 2);
    let mut bob = scene.registered(101, "bob");
    browser_calls(&mut bob, &scene.second, SDP);
    browser_calls(&mut alice, &scene.second, SDP);
}

#[test]
fn a_mediaserver_may_be_named_and_turn_knows_where_it_is() {
    // The one name that every machine can look up.
    let mediaserver = Mediaserver::start("127.0.0.1:0".parse().expect("an address"));
    let peer = UdpPeer::bind("127.0.0.1:0".parse().expect("an address"));
    let (port, media) = (mediaserver.address().port(), peer.address().port());
    let named = format!("address = \"localhost:{port}\"");
    let config = config(&named).replacen(
        "media_ports = \"10000-10099\"",
        &format!("media_ports = \"{media}-{media}\""),
        1,
    );
    let scene = Scene::with(&config);
    asked_by_all_shards(&mediaserver, 1);
    let mut alice = scene.registered(100, "alice");
    browser_calls(&mut alice, &mediaserver, SDP);
    mediaserver_calls(&mut alice, &mediaserver);
    let mut relay = TurnClient::udp(scene.client(101), scene.turn(), &Credentials::new(ALICE.0, ALICE.1));
    relay.allocate().expect("an allocation");
    relay.permit(peer.address().ip()).expect("a permission");
    relay.send(peer.address(), b"media");
    assert_eq!(peer.receive().0, b"media");
    // Its port for SIP is not among those for media.
    assert!(relay.bind(mediaserver.address()).is_err());
}

#[test]
fn what_is_large_goes_by_tcp_while_there_is_a_connection() {
    let mut scene = Scene::with(&config("transport = \"tcp-when-large\"\naddress = \"$net.3:5060\""));
    let mut alice = scene.registered(100, "alice");
    let offer = format!("{SDP}{}", "a=candidate and so on\r\n".repeat(300));
    let transport = |seen: &Message| seen.field("Via").unwrap_or_default()[..11].to_owned();
    // It takes no TCP: nobody waits for that.
    let seen = browser_calls(&mut alice, &scene.mediaserver, &offer);
    assert_eq!(transport(&seen), "SIP/2.0/UDP");
    scene.mediaserver.take_tcp();
    for _ in 0..3 {
        scene.mediaserver.wait_for_tcp(SHARDS);
        // The edge learns a moment later than the mediaserver that there is a connection.
        let seen = eventually("a large request by TCP", || {
            let seen = browser_calls(&mut alice, &scene.mediaserver, &offer);
            (transport(&seen) == "SIP/2.0/TCP").then_some(seen)
        });
        assert_eq!(seen.body, offer);
        let seen = browser_calls(&mut alice, &scene.mediaserver, SDP);
        assert_eq!(transport(&seen), "SIP/2.0/UDP");
        // A call that is rejected, and one that is taken back.
        for (callee, status) in [("busy", 486), ("ringing", 487)] {
            let invite = alice.invite(callee, &offer);
            if callee == "ringing" {
                alice.provisional(&invite, 180);
                assert_eq!(alice.cancel(&invite).status(), Some(200));
            }
            assert_eq!(alice.final_answer(&invite).status(), Some(status));
            scene.mediaserver.wait_for("the ACK", |message| {
                message.method() == Some("ACK") && message.call_id() == invite.call_id()
            });
        }
        // The connections end, and calls go on by UDP until there are others.
        scene.mediaserver.refuse_tcp();
        mediaserver_calls(&mut alice, &scene.mediaserver);
        let invite = alice.invite("600", &offer);
        let (_, mut dialog) = alice.answered(&invite);
        assert_eq!(alice.request(&mut dialog, "BYE").status(), Some(200));
        scene.mediaserver.take_tcp();
    }
}

#[test]
fn a_request_on_its_way_by_tcp_outlives_the_connection() {
    let mut scene = Scene::with(&config("transport = \"tcp-when-large\"\naddress = \"$net.3:5060\""));
    scene.mediaserver.take_tcp();
    scene.mediaserver.wait_for_tcp(SHARDS);
    let mut alice = scene.registered(100, "alice");
    let offer = "a=candidate and so on\r\n".repeat(300);
    let by_tcp = |message: &Message| message.field("Via").is_some_and(|via| via.starts_with("SIP/2.0/TCP"));
    // What it reads by TCP is lost, as with a host that stops in the middle.
    let (lost, was_lost) = mpsc::channel();
    scene.mediaserver.weather(move |_, message| {
        by_tcp(message).then(|| {
            let _ = lost.send(());
            Fault::Lost
        })
    });
    let invite = alice.invite("600", &offer);
    was_lost.recv_timeout(PATIENCE).expect("the INVITE by TCP");
    scene.mediaserver.refuse_tcp();
    let (_, mut dialog) = alice.answered(&invite);
    assert_eq!(alice.request(&mut dialog, "BYE").status(), Some(200));
}
