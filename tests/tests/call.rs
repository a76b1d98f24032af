//! Does a call work from end to end? REGISTER, INVITE, sound both ways through the relay, BYE; also under fire.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
};

use edgeward_tests::{
    deadline,
    peers::{
        media::{Caller, Media, Path},
        sip::{Dialog, Message},
        sip_browser::SipBrowser,
        stream::Stream,
        turn_client::TurnClient,
        udp_peer::UdpPeer,
    },
    random,
    scene::Scene,
};

/// Lets the mediaserver answer with sound, and gives its end of each call.
fn with_sound(scene: &Scene) -> Receiver<Media> {
    let (media, calls) = mpsc::channel();
    let address = scene.site.at(3, 10_000);
    scene.mediaserver.answer_with(move |offer| {
        let (endpoint, answer) = Media::answer("mediaserver", Path::direct(address), offer);
        media.send(endpoint).expect("somebody waits for the call");
        answer
    });
    calls
}

/// A call that is up: both ends hear each other, and only through the relay.
struct Call {
    relayed: SocketAddr,
    here: Media,
    there: Media,
    dialog: Dialog,
}

impl Call {
    /// The browser calls 600.
    fn begin(browser: &mut SipBrowser, mut relay: TurnClient, calls: &Receiver<Media>) -> Self {
        let relayed = relay.allocate().expect("an allocation");
        let caller = Caller::new(Path::Relayed(Box::new(relay)));
        let invite = browser.invite("600", caller.offer());
        let (answer, dialog) = browser.answered(&invite);
        Self {
            relayed,
            here: caller.start("browser", &answer.body),
            there: calls.recv().expect("the call at the mediaserver"),
            dialog,
        }
    }

    fn talk(&self, frames: usize) {
        assert!(self.here.hear(frames).last.starts_with(b"mediaserver "));
        let heard = self.there.hear(frames);
        assert!(heard.last.starts_with(b"browser "));
        assert_eq!(heard.senders, [self.relayed], "all media comes from the relay");
    }

    /// The browser hangs up, and the relay is given back.
    fn end(mut self, browser: &mut SipBrowser) {
        assert_eq!(browser.request(&mut self.dialog, "BYE").status(), Some(200));
        drop(self.there);
        let Path::Relayed(mut relay) = self.here.stop() else {
            unreachable!("the call went through a relay");
        };
        relay.delete();
    }
}

#[test]
fn a_call_has_sound_over_every_transport() {
    let scene = Scene::new();
    let calls = with_sound(&scene);
    let mut browser = scene.registered(100, "alice");
    for (_, relay) in scene.turn_clients() {
        let call = Call::begin(&mut browser, relay, &calls);
        call.talk(25);
        call.end(&mut browser);
    }
}

#[test]
fn a_call_from_the_mediaserver_has_sound() {
    let scene = Scene::new();
    let mut browser = scene.registered(100, "alice");
    let caller = Caller::new(Path::direct(scene.site.at(3, 10_000)));
    let invite = scene.mediaserver.call("alice", caller.offer());
    let incoming = browser.invited();
    let (callee, answer) = Media::answer("browser", Path::Relayed(Box::new(scene.allocated(100))), &incoming.body);
    browser.send(Message::answer(&incoming, 180, "Ringing", "tag"));
    let accepted = Message::answer(&incoming, 200, "OK", "tag")
        .with("Contact", format_args!("<{}>", browser.contact()))
        .with_body("application/sdp", &answer);
    browser.send(accepted);
    let (answer, mut dialog) = scene.mediaserver.answered(&invite);
    let caller = caller.start("mediaserver", &answer.body);
    assert!(callee.hear(25).last.starts_with(b"mediaserver "));
    assert!(caller.hear(25).last.starts_with(b"browser "));
    let bye = scene.mediaserver.send_request(dialog.request("BYE"));
    browser.requested("BYE");
    assert_eq!(scene.mediaserver.final_answer(&bye).status(), Some(200));
}

#[test]
fn several_calls_at_once_keep_apart() {
    let scene = Scene::new();
    let calls = with_sound(&scene);
    let mut talking: Vec<(SipBrowser, Call)> = scene
        .turn_clients()
        .into_iter()
        .zip(100..)
        .map(|((_, relay), client)| {
            let mut browser = scene.registered(client, &format!("user{client}"));
            let call = Call::begin(&mut browser, relay, &calls);
            (browser, call)
        })
        .collect();
    for (_, call) in &talking {
        call.talk(25);
    }
    for (mut browser, call) in talking.drain(..) {
        call.end(&mut browser);
    }
}

/// Throws what is nothing at every listener of the edge, until it goes.
struct Fire {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Fire {
    fn at(scene: &Scene) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        let mut fire = |mut shot: Box<dyn FnMut() + Send>| {
            let (stop, rounds) = (stop.clone(), rounds.clone());
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    shot();
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            }));
        };
        // A stranger, and the mediaserver itself gone mad.
        for (from, to) in [
            (scene.site.at(150, 0), scene.turn()),
            (scene.site.at(151, 0), scene.sip()),
            (scene.site.at(3, 0), scene.sip()),
        ] {
            let peer = UdpPeer::bind(from);
            fire(Box::new(move || {
                for garbage in garbage() {
                    peer.send(to, &garbage);
                }
                thread::yield_now();
            }));
        }
        for (from, to) in [(152, scene.turn()), (153, scene.https())] {
            let from: IpAddr = scene.client(from);
            fire(Box::new(move || {
                for garbage in garbage() {
                    let Ok(mut stream) = Stream::connect(from, to) else {
                        continue;
                    };
                    let _ = stream.write_all(&garbage);
                }
            }));
        }
        let (config, from, to) = (scene.site.client(), scene.client(154), scene.https());
        fire(Box::new(move || {
            for garbage in garbage() {
                let stream = Stream::connect_tls(from, to, config.clone(), edgeward_tests::site::NAME);
                let Ok(mut stream) = stream else { continue };
                let _ = stream.write_all(&garbage).and_then(|()| stream.flush());
            }
        }));
        let telephone = scene.telephone(155, "/wssip").with("Sec-WebSocket-Protocol", "sip");
        fire(Box::new(move || {
            for garbage in garbage() {
                let Ok(mut socket) = telephone.open() else { continue };
                socket.send_binary(&garbage);
                socket.close();
            }
        }));
        Self { stop, rounds, threads }
    }

    /// Waits until so many more rounds are over.
    fn burn(&self, rounds: usize) {
        let (deadline, wanted) = (deadline(), self.rounds.load(Ordering::SeqCst) + rounds);
        while self.rounds.load(Ordering::SeqCst) < wanted {
            assert!(std::time::Instant::now() < deadline, "the fire goes out");
            thread::yield_now();
        }
    }
}

impl Drop for Fire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Noise, and what looks right at first.
fn garbage() -> Vec<Vec<u8>> {
    let noise = random::<300>();
    let begun = |start: &[u8]| [start, &noise[..]].concat();
    vec![
        Vec::new(),
        noise.to_vec(),
        begun(&[0, 1, 0, 200, 0x21, 0x12, 0xa4, 0x42]),
        begun(&[0x40, 0, 1, 0]),
        begun(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]),
        begun(b"INVITE sip:alice@pbx.test SIP/2.0\r\nVia: "),
        begun(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK"),
        begun(b"GET /app/ HTTP/1.1\r\nHost: edge.test\r\nX: "),
        begun(b"POST /app/echo HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ]
}

#[test]
fn a_call_goes_on_while_garbage_hits_every_listener() {
    let scene = Scene::new();
    let calls = with_sound(&scene);
    let mut browser = scene.registered(100, "alice");
    let mut relays = scene.turn_clients();
    let (_, udp) = relays.remove(0);
    let call = Call::begin(&mut browser, udp, &calls);
    call.talk(10);

    let fire = Fire::at(&scene);
    fire.burn(200);
    call.talk(100);
    // Signalling goes on as well, and so do new calls.
    let mut other = scene.registered(110, "bob");
    let (_, tls) = relays.pop().expect("a TURN client over TLS");
    let second = Call::begin(&mut other, tls, &calls);
    second.talk(50);
    second.end(&mut other);
    fire.burn(200);
    call.talk(50);
    call.end(&mut browser);
    drop(fire);

    let said = scene.edge.process().lines().join("\n");
    assert!(
        !said.contains("fault of ours") && !said.contains("panicked"),
        "the edge blames itself"
    );
}
