//! Does the mediaserver keep to the rules, seen through its socket? The tests play the edge and the browsers behind it.

use std::net::SocketAddr;

use str0m::{
    Candidate, Event, Input, Output, Rtc, RtcConfig,
    change::{SdpAnswer, SdpPendingOffer},
    media::{Direction, MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::RtpWrite,
};
use tokio::{
    net::UdpSocket,
    task::{LocalSet, spawn_local},
    time::{sleep_until, timeout},
};

use super::{
    agent::{T1, branch},
    sip::param,
    *,
};

const PASSWORD: &str = "secret";
/// Everything here happens on loopback, within milliseconds or by a timer of SIP: this is only the end of a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Stands for the audio of 20 ms.
const SOUND: &[u8] = b"a frame that no decoder has to understand";

#[test]
fn options_are_answered_and_nonsense_is_not() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        for nonsense in [
            b"".as_slice(),
            b"\r\n\r\n",
            b"INVITE",
            b"\xff\xfe",
            b"SIP/2.0 200 OK\r\n\r\n",
        ] {
            alice.socket.send_to(nonsense, server).await.expect("sent");
        }
        let options = alice.request("OPTIONS", "sip:lan.example");
        alice.send(&options);
        assert_eq!(alice.response(200).await.header("Allow"), Some(ALLOW));

        let bye = alice.request("BYE", "sip:lan.example").with("X", "");
        let mut stray = bye.clone();
        stray.set("To", "<sip:600@lan.example>;tag=unknown".into());
        alice.send(&stray);
        alice.response(481).await;
        let message = alice.request("MESSAGE", "sip:lan.example");
        alice.send(&message);
        alice.response(405).await;
    });
}

#[test]
fn a_phone_registers_and_leaves() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        for qop in [false, true] {
            let ok = alice.register(qop, 60).await;
            assert_eq!(ok.header("Path").map(uri_of), Some(alice.route.as_str()));
            assert!(
                ok.header("Contact")
                    .is_some_and(|contact| contact.contains("r4nd0m@phone.invalid"))
            );
            let ok = alice.register(qop, 0).await;
            assert_eq!(ok.header("Contact"), None);
        }
        alice.name = "bob".into();
        let mut register = alice.request("REGISTER", "sip:lan.example");
        alice.name = "alice".into();
        let challenge = alice.challenge(&register).await;
        alice.authorize(&mut register, &challenge, true);
        alice.send(&register);
        alice.response(403).await;
    });
}

#[test]
fn the_echo_sends_back_what_it_hears_also_after_a_hold() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        let mut media = Caller::new().await;
        let ok = alice.invite("600", media.offer(Direction::SendRecv)).await;
        media.answered(&ok.body);
        alice.in_dialog(&ok, "ACK");
        media.hear(1).await;

        let mut hold = alice.build(&ok, "INVITE");
        hold.push("Contact", alice.contact());
        alice.send(&hold.with_sdp(media.offer(Direction::SendOnly)));
        let held = alice.final_response(200).await;
        assert!(held.body.contains("a=recvonly"), "{}", held.body);
        media.answered(&held.body);
        alice.in_dialog(&held, "ACK");

        let mut resume = alice.build(&ok, "INVITE");
        resume.push("Contact", alice.contact());
        alice.send(&resume.with_sdp(media.offer(Direction::SendRecv)));
        let resumed = alice.final_response(200).await;
        assert!(resumed.body.contains("a=sendrecv"), "{}", resumed.body);
        media.answered(&resumed.body);
        alice.in_dialog(&resumed, "ACK");
        media.hear(20).await;

        alice.in_dialog(&ok, "BYE");
        alice.response(200).await;
        alice.in_dialog(&ok, "BYE");
        alice.response(481).await;
    });
}

#[test]
fn a_success_is_repeated_until_it_is_acknowledged() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        let mut media = Caller::new().await;
        let ok = alice.invite("echo", media.offer(Direction::SendRecv)).await;
        let start = Instant::now();
        let again = alice.response(200).await;
        assert!(start.elapsed() > T1 / 2);
        assert_eq!(again, ok);
        alice.in_dialog(&ok, "ACK");
        alice.in_dialog(&ok, "OPTIONS");
        assert_eq!(alice.response(200).await.method(), "OPTIONS");
    });
}

#[test]
fn a_ringing_call_is_cancelled_and_its_failure_repeated_until_acknowledged() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        let mut media = Caller::new().await;
        let invite = alice.start_invite("602", media.offer(Direction::SendRecv)).await;
        alice.response(100).await;
        alice.response(180).await;
        alice.send(&invite);
        // A repeat brings the last response again, and no second call.
        alice.response(180).await;
        let cancel = alice.same_hop(&invite, "CANCEL");
        alice.send(&cancel);
        assert_eq!(alice.response(200).await.method(), "CANCEL");
        let terminated = alice.response(487).await;
        assert_eq!(alice.response(487).await, terminated);
        let mut ack = alice.same_hop(&invite, "ACK");
        ack.set("To", terminated.header("To").expect("To").into());
        alice.send(&ack);
        let mut late = alice.same_hop(&invite, "CANCEL");
        late.set("Via", alice.via(&branch()));
        alice.send(&late);
        alice.response(481).await;
    });
}

#[test]
fn calls_that_cannot_be_are_refused() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        alice.start_invite("600", "v=0\r\n".into()).await;
        alice.final_response(488).await;
        alice.start_invite("nobody", "v=0\r\n".into()).await;
        alice.final_response(404).await;
        alice.start_invite("bob", "v=0\r\n".into()).await;
        alice.final_response(480).await;
    });
}

#[test]
fn the_callback_number_hangs_up_and_calls_back_through_the_path() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        alice.register(true, 60).await;
        let mut media = Caller::new().await;
        let ok = alice.invite("601", media.offer(Direction::SendRecv)).await;
        alice.in_dialog(&ok, "ACK");
        let bye = alice.incoming("BYE").await;
        // The route set of the dialog, in the order that the callee sees it.
        let routes: Vec<_> = bye.values("Route").map(uri_of).collect();
        assert_eq!(routes, [alice.route.as_str(), "sip:tok@localhost:8443;transport=ws;lr"]);
        assert_eq!(bye.uri(), uri_of(&alice.contact()));
        alice.send(&bye.response(200, ""));

        let invite = alice.incoming("INVITE").await;
        assert_eq!(invite.uri(), uri_of(&alice.contact()));
        assert_eq!(
            invite.values("Route").map(uri_of).collect::<Vec<_>>(),
            [alice.route.as_str()]
        );
        let mut media = Caller::new().await;
        let answer = media.answer(&invite.body);
        alice.send(&alice.answer(&invite, 180));
        let ok = alice.answer(&invite, 200).with_sdp(answer);
        alice.send(&ok);
        let ack = alice.incoming("ACK").await;
        // A repeated success is acknowledged again.
        alice.send(&ok);
        assert_eq!(alice.incoming("ACK").await, ack);
        media.hear(5).await;
        let bye = alice.callee_request(&invite, "BYE");
        alice.send(&bye);
        alice.response(200).await;
    });
}

#[test]
fn two_users_are_connected_and_either_may_hang_up() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        let mut bob = Phone::new("bob", server).await;
        bob.register(true, 60).await;

        alice.start_invite("bob", "v=0\r\ns=offer\r\n".into()).await;
        let invite = bob.incoming("INVITE").await;
        assert_eq!(invite.body, "v=0\r\ns=offer\r\n");
        assert_eq!(invite.header("From").map(uri_of), Some("sip:alice@lan.example"));
        bob.send(&bob.answer(&invite, 180));
        alice.response(100).await;
        alice.response(180).await;
        bob.send(&bob.answer(&invite, 200).with_sdp("v=0\r\ns=answer\r\n".into()));
        bob.incoming("ACK").await;
        let ok = alice.response(200).await;
        assert_eq!(ok.body, "v=0\r\ns=answer\r\n");
        alice.in_dialog(&ok, "ACK");

        let hold = alice.build(&ok, "INVITE").with("Contact", alice.contact());
        alice.send(&hold.with_sdp("v=0\r\ns=hold\r\n".into()));
        let hold = bob.incoming("INVITE").await;
        assert_eq!(hold.body, "v=0\r\ns=hold\r\n");
        bob.send(&bob.answer(&hold, 200).with_sdp("v=0\r\ns=held\r\n".into()));
        let held = alice.final_response(200).await;
        assert_eq!(held.body, "v=0\r\ns=held\r\n");
        alice.in_dialog(&held, "ACK");
        bob.incoming("ACK").await;

        let bye = bob.callee_request(&invite, "BYE");
        bob.send(&bye);
        bob.response(200).await;
        let bye = alice.incoming("BYE").await;
        alice.send(&bye.response(200, ""));
    });
}

#[test]
fn a_caller_who_gives_up_stops_the_ringing() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        let mut bob = Phone::new("bob", server).await;
        bob.register(true, 60).await;
        let invite = alice.start_invite("bob", "v=0\r\n".into()).await;
        let ringing = bob.incoming("INVITE").await;
        bob.send(&bob.answer(&ringing, 180));
        alice.response(100).await;
        alice.response(180).await;
        alice.send(&alice.same_hop(&invite, "CANCEL"));
        alice.response(200).await;
        let cancel = bob.incoming("CANCEL").await;
        let branch_of = |m: &Message| {
            m.values("Via")
                .next()
                .and_then(|via| param(via, "branch"))
                .map(str::to_owned)
        };
        assert_eq!(branch_of(&cancel), branch_of(&ringing));
        bob.send(&cancel.response(200, "bob"));
        bob.send(&bob.answer(&ringing, 487));
        bob.incoming("ACK").await;
        alice.response(487).await;
    });
}

#[test]
fn a_user_whose_flow_has_failed_is_not_there_any_more() {
    run(async |server| {
        let mut alice = Phone::new("alice", server).await;
        let mut bob = Phone::new("bob", server).await;
        bob.register(true, 60).await;
        alice.start_invite("bob", "v=0\r\n".into()).await;
        let invite = bob.incoming("INVITE").await;
        bob.send(&bob.answer(&invite, 430));
        alice.final_response(480).await;
        assert_eq!(bob.receive().await.method(), "ACK");
        alice.start_invite("bob", "v=0\r\n".into()).await;
        alice.final_response(480).await;
        assert!(bob.socket.try_recv(&mut bob.buffer).is_err());
    });
}

/// Runs a test against a mediaserver of its own.
fn run(test: impl AsyncFnOnce(SocketAddr)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let users = ["alice", "bob"].map(|user| (user.to_owned(), PASSWORD.to_owned()));
        let socket = open().await;
        let mediaserver = Mediaserver::new(socket, 10000..=20000, Rc::new(Directory::new(&users))).expect("started");
        let address = mediaserver.agent.local();
        let serving = spawn_local(mediaserver.run());
        test(address).await;
        assert!(!serving.is_finished());
    });
}

async fn open() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.writable().await.expect("writable");
    socket
}

/// A browser and the edge before it, in one socket: requests to it go by its Path or Record-Route.
struct Phone {
    name: String,
    socket: UdpSocket,
    server: SocketAddr,
    route: String,
    call_id: String,
    cseq: u32,
    buffer: Vec<u8>,
}

impl Phone {
    async fn new(name: &str, server: SocketAddr) -> Self {
        let socket = open().await;
        Self {
            name: name.into(),
            route: format!("sip:tok@{};lr", socket.local_addr().expect("bound")),
            socket,
            server,
            call_id: branch(),
            cseq: 0,
            buffer: vec![0; MESSAGE_BYTES_MAX],
        }
    }

    fn contact(&self) -> String {
        "<sip:r4nd0m@phone.invalid;transport=ws>".into()
    }

    fn via(&self, branch: &str) -> String {
        let edge = self.socket.local_addr().expect("bound");
        format!("SIP/2.0/UDP {edge};branch={branch};rport, SIP/2.0/WSS phone.invalid;branch={branch}")
    }

    /// A request outside of a dialog.
    fn request(&mut self, method: &str, uri: &str) -> Message {
        self.cseq += 1;
        let to = if method == "REGISTER" {
            format!("sip:{}@lan.example", self.name)
        } else {
            uri.into()
        };
        Message::request(method, uri)
            .with("Via", self.via(&branch()))
            .with("From", format!("<sip:{}@lan.example>;tag=phone", self.name))
            .with("To", format!("<{to}>"))
            .with("Call-ID", self.call_id.clone())
            .with("CSeq", format!("{} {method}", self.cseq))
    }

    fn send(&self, message: &Message) {
        self.socket.try_send_to(&message.write(), self.server).expect("sent");
    }

    async fn receive(&mut self) -> Message {
        let received = timeout(PATIENCE, self.socket.recv_from(&mut self.buffer)).await;
        let (len, _) = received.expect("something in time").expect("received");
        Message::parse(&self.buffer[..len]).expect("a message")
    }

    async fn response(&mut self, status: u16) -> Message {
        let response = self.receive().await;
        assert_eq!(response.status(), status, "{response:#?}");
        // What the client put into its Vias comes back.
        assert!(
            response
                .values("Via")
                .last()
                .is_some_and(|via| via.starts_with("SIP/2.0/WSS phone.invalid"))
        );
        response
    }

    async fn final_response(&mut self, status: u16) -> Message {
        loop {
            let response = self.receive().await;
            if response.status() >= 200 {
                assert_eq!(response.status(), status, "{response:#?}");
                return response;
            }
        }
    }

    /// The next request, repeats of the one before left out.
    async fn incoming(&mut self, method: &str) -> Message {
        let request = self.receive().await;
        assert_eq!(request.method(), method, "{request:#?}");
        assert_eq!(request.status(), 0);
        request
    }

    async fn challenge(&mut self, request: &Message) -> String {
        self.send(request);
        let refused = self.final_response(401).await;
        if request.method() == "INVITE" {
            self.send(&self.same_hop(request, "ACK"));
        }
        refused.header("WWW-Authenticate").expect("a challenge").into()
    }

    fn authorize(&mut self, request: &mut Message, challenge: &str, qop: bool) {
        let (method, uri) = (request.method().to_owned(), request.uri().to_owned());
        let answer = digest::answer(challenge, &self.name, PASSWORD, &method, &uri, qop);
        self.cseq += 1;
        request.set("CSeq", format!("{} {method}", self.cseq));
        request.set("Via", self.via(&branch()));
        request.push("Authorization", answer);
    }

    async fn register(&mut self, qop: bool, expires: u64) -> Message {
        let mut register = self
            .request("REGISTER", "sip:lan.example")
            .with("Contact", self.contact())
            .with("Path", format!("<{}>", self.route))
            .with("Supported", "path, outbound")
            .with("Expires", expires.to_string());
        let challenge = self.challenge(&register).await;
        self.authorize(&mut register, &challenge, qop);
        self.send(&register);
        self.response(200).await
    }

    /// Sends an INVITE that is challenged first.
    async fn start_invite(&mut self, number: &str, sdp: String) -> Message {
        let mut invite = self
            .request("INVITE", &format!("sip:{number}@lan.example"))
            .with("Contact", self.contact())
            .with(
                "Record-Route",
                format!("<{}>, <sip:tok@localhost:8443;transport=ws;lr>", self.route),
            )
            .with_sdp(sdp);
        let challenge = self.challenge(&invite).await;
        self.authorize(&mut invite, &challenge, true);
        self.send(&invite);
        invite
    }

    async fn invite(&mut self, number: &str, sdp: String) -> Message {
        self.start_invite(number, sdp).await;
        self.response(100).await;
        self.response(180).await;
        let ok = self.response(200).await;
        let routes: Vec<_> = ok.values("Record-Route").map(uri_of).collect();
        assert_eq!(routes, [self.route.as_str(), "sip:tok@localhost:8443;transport=ws;lr"]);
        ok
    }

    /// What goes with the INVITE from hop to hop: its ACK for a failure, its CANCEL.
    fn same_hop(&self, invite: &Message, method: &str) -> Message {
        let mut request = Message::request(method, invite.uri());
        for name in ["Via", "From", "To", "Call-ID"] {
            request.push(name, invite.header(name).expect("it has one"));
        }
        let (number, _) = invite.cseq().expect("a number");
        request.with("CSeq", format!("{number} {method}"))
    }

    /// A request of the caller within the dialog that a 2xx made.
    fn build(&mut self, ok: &Message, method: &str) -> Message {
        let number = if method == "ACK" {
            ok.cseq().expect("a number").0
        } else {
            self.cseq += 1;
            self.cseq
        };
        let target = uri_of(ok.header("Contact").or(Some("sip:x@127.0.0.1")).expect("a target"));
        let mut request = Message::request(method, target).with("Via", self.via(&branch()));
        for name in ["From", "To", "Call-ID"] {
            request.push(name, ok.header(name).expect("it has one"));
        }
        request.with("CSeq", format!("{number} {method}"))
    }

    fn in_dialog(&mut self, ok: &Message, method: &str) {
        let request = self.build(ok, method);
        self.send(&request);
    }

    /// A response of the callee.
    fn answer(&self, invite: &Message, status: u16) -> Message {
        let mut response = invite.response(status, "callee").with("Contact", self.contact());
        if invite.tag("To").is_none() {
            response.push("Record-Route", format!("<{}>", self.route));
        }
        // The response of the real phone would carry the Via of the edge as well.
        let via = format!("{}, SIP/2.0/WSS phone.invalid", invite.header("Via").expect("a Via"));
        response.set("Via", via);
        response
    }

    /// A request of the callee within the dialog of an INVITE that it took.
    fn callee_request(&mut self, invite: &Message, method: &str) -> Message {
        self.cseq += 1;
        Message::request(method, uri_of(invite.header("Contact").expect("a Contact")))
            .with("Via", self.via(&branch()))
            .with("From", format!("{};tag=callee", invite.header("To").expect("To")))
            .with("To", invite.header("From").expect("From"))
            .with("Call-ID", invite.header("Call-ID").expect("Call-ID"))
            .with("CSeq", format!("{} {method}", self.cseq))
    }
}

/// The media of a browser: sends numbered sounds and waits until they come back.
struct Caller {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    audio: Option<Mid>,
    offered: Option<SdpPendingOffer>,
    connected: bool,
    sent: u64,
    heard: u64,
}

impl Caller {
    async fn new() -> Self {
        let socket = open().await;
        let local = socket.local_addr().expect("bound");
        let config = RtcConfig::new()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false);
        let mut rtc = config.build(Instant::now());
        rtc.add_local_candidate(Candidate::host(local, "udp").expect("a candidate"));
        Self {
            rtc,
            socket,
            local,
            audio: None,
            offered: None,
            connected: false,
            sent: 0,
            heard: 0,
        }
    }

    fn offer(&mut self, direction: Direction) -> String {
        let mut change = self.rtc.sdp_api();
        match self.audio {
            Some(mid) => change.set_direction(mid, direction),
            None => self.audio = Some(change.add_media(MediaKind::Audio, direction, None, None, None)),
        }
        let (offer, pending) = change.apply().expect("a change");
        self.offered = Some(pending);
        offer.to_sdp_string()
    }

    fn answered(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).expect("an answer");
        let offered = self.offered.take().expect("an offer");
        self.rtc.sdp_api().accept_answer(offered, answer).expect("accepted");
    }

    fn answer(&mut self, offer: &str) -> String {
        let offer = str0m::change::SdpOffer::from_sdp_string(offer).expect("an offer");
        self.rtc
            .sdp_api()
            .accept_offer(offer)
            .expect("accepted")
            .to_sdp_string()
    }

    /// Talks until as many more sounds have come back.
    async fn hear(&mut self, sounds: u64) {
        let goal = self.heard + sounds;
        timeout(PATIENCE, async {
            while self.heard < goal {
                self.step().await;
            }
        })
        .await
        .expect("the echo of what was sent");
    }

    async fn step(&mut self) {
        let wake = loop {
            match self.rtc.poll_output().expect("alive") {
                Output::Timeout(at) => break at,
                Output::Transmit(transmit) => {
                    let sent = self.socket.try_send_to(&transmit.contents, transmit.destination);
                    sent.expect("sent");
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::MediaAdded(added)) => self.audio = Some(added.mid),
                Output::Event(Event::RtpPacket(packet)) => {
                    assert_eq!(&*packet.payload, SOUND);
                    self.heard += 1;
                }
                Output::Event(_) => {}
            }
        };
        // The next sound goes out when the one before is back: paced by events, not by a clock.
        if self.connected && self.sent <= self.heard {
            self.sent += 1;
            let mid = self.audio.expect("a medium");
            let pt = self
                .rtc
                .codec_config()
                .find(|codec| codec.spec().codec.is_audio())
                .expect("opus")
                .pt();
            let time = u32::try_from(self.sent * 960).expect("a short test");
            let write = RtpWrite::new(pt, self.sent.into(), time, Instant::now(), SOUND);
            self.rtc
                .direct_api()
                .stream_tx_by_mid(mid, None)
                .expect("a stream")
                .write_rtp(write);
            return;
        }
        let mut buffer = vec![0; 2048];
        tokio::select! {
            received = self.socket.recv_from(&mut buffer) => {
                let (len, source) = received.expect("received");
                let receive = Receive {
                    proto: Protocol::Udp,
                    source,
                    destination: self.local,
                    contents: buffer[..len].try_into().expect("WebRTC"),
                };
                self.rtc.handle_input(Input::Receive(Instant::now(), receive)).expect("alive");
            }
            () = sleep_until(wake.into()) => self.rtc.handle_input(Input::Timeout(Instant::now())).expect("alive"),
        }
    }
}
