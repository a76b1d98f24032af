//! Who calls whom through the SIP proxy? Browsers on WebSockets and a mediaserver, which answer at once.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use super::{PORT, sip_address};
use crate::{
    bench::{
        fleet::{Count, Fleet, offer, tls},
        frame::{self, Side},
        rounds::Delays,
    },
    peers::sip::{Dialog, Digested, Message, branch},
    site::{NAME, Site},
    word,
};

/// Browsers of one server and the mediaserver behind it.
pub(super) struct World<'a> {
    site: &'a Site,
    fleet: Fleet,
    browsers: Vec<Browser>,
    mediaserver: &'a UdpSocket,
    /// Where the server under load takes SIP over UDP.
    server: SocketAddr,
    /// What the mediaserver knows of users: Contact and Path.
    bindings: HashMap<String, (String, Vec<String>)>,
    /// When each call that is not answered yet was due.
    calls: HashMap<String, Instant>,
    /// Whose turn it is.
    next: usize,
    /// What has ended since the last look.
    done: usize,
    /// From an INVITE to its 200, and from a REGISTER to the 200 after its 401.
    pub(super) delays: Delays,
    datagram: Vec<u8>,
}

/// One browser; the fleet knows its connection by the same number.
struct Browser {
    user: String,
    host: String,
    contact: String,
    is_open: bool,
    /// When the registration that is under way was begun.
    registering: Option<Instant>,
    call_id: String,
    cseq: u32,
}

const CLIENTS: u8 = 100;
const HOSTS: usize = 100;

impl<'a> World<'a> {
    pub(super) fn new(site: &'a Site, mediaserver: &'a UdpSocket, server: SocketAddr) -> Self {
        Self {
            site,
            fleet: Fleet::new(server, tls(site)),
            browsers: Vec::new(),
            mediaserver,
            server: sip_address(server),
            bindings: HashMap::new(),
            calls: HashMap::new(),
            next: 0,
            done: 0,
            delays: Delays::default(),
            datagram: vec![0; 65_536],
        }
    }

    /// So many more browsers open WebSockets and register; all must succeed.
    pub(super) fn arrive(&mut self, count: usize, per_second: u32) {
        let arrived = self.try_to_arrive(count, per_second);
        assert_eq!(arrived.done, arrived.offered, "browsers that registered");
    }

    /// So many more browsers open WebSockets and register.
    pub(super) fn try_to_arrive(&mut self, count: usize, per_second: u32) -> Count {
        let span = Duration::from_secs(1) * count as u32 / per_second;
        offer(self, per_second, span, |world, _| world.open(), Self::turn)
    }

    /// The next browser calls the mediaserver.
    pub(super) fn call_up(&mut self, due: Instant) {
        let number = self.next_browser();
        let browser = &self.browsers[number];
        let call_id = word();
        let invite = Message::request("INVITE", "sip:600@pbx.test")
            .with("Via", browser.via())
            .with("Max-Forwards", 70)
            .with("From", format_args!("<sip:{}@pbx.test>;tag={}", browser.user, word()))
            .with("To", "<sip:600@pbx.test>")
            .with("Call-ID", &call_id)
            .with("CSeq", "1 INVITE")
            .with("Contact", format_args!("<{}>;ob", browser.contact))
            .with(
                "Allow",
                "INVITE, ACK, CANCEL, BYE, UPDATE, MESSAGE, OPTIONS, REFER, INFO, NOTIFY",
            )
            .with("Supported", "outbound, path")
            .with("User-Agent", "bench")
            .with_body("application/sdp", &sdp());
        self.calls.insert(call_id, due);
        self.say(number, &invite);
    }

    /// The mediaserver calls the next browser.
    pub(super) fn call_down(&mut self, due: Instant) {
        let number = self.next_browser();
        let user = &self.browsers[number].user;
        let (contact, path) = &self.bindings[user];
        let own = self.own();
        let call_id = word();
        let mut invite = Message::request("INVITE", contact).with("Via", self.via());
        for step in path {
            invite = invite.with("Route", step);
        }
        let invite = invite
            .with("Max-Forwards", 70)
            .with("From", format_args!("<sip:600@pbx.test>;tag={}", word()))
            .with("To", format_args!("<sip:{user}@pbx.test>"))
            .with("Call-ID", &call_id)
            .with("CSeq", "1 INVITE")
            .with("Contact", format_args!("<sip:600@{own}>"))
            .with(
                "Allow",
                "OPTIONS, REGISTER, SUBSCRIBE, NOTIFY, PUBLISH, INVITE, ACK, BYE, CANCEL, UPDATE, INFO",
            )
            .with("User-Agent", "bench")
            .with_body("application/sdp", &sdp());
        self.calls.insert(call_id, due);
        self.tell(&invite, self.server);
    }

    /// The next browser registers again.
    pub(super) fn register_next(&mut self, due: Instant) {
        let number = self.next_browser();
        self.register(number, due);
    }

    /// Looks after everybody; returns how many calls or registrations have ended.
    pub(super) fn turn(&mut self) -> usize {
        while let Ok((length, from)) = self.mediaserver.recv_from(&mut self.datagram) {
            let text = std::str::from_utf8(&self.datagram[..length]).ok();
            if let Some(message) = text.and_then(Message::parse) {
                self.told(&message, from);
            }
        }
        let mut happened = Vec::new();
        self.fleet.turn(|_, number| happened.push(number));
        for number in happened {
            self.hear(number);
        }
        std::mem::take(&mut self.done)
    }

    fn open(&mut self) {
        let number = self
            .fleet
            .open(self.site.host(CLIENTS + (self.browsers.len() % HOSTS) as u8));
        assert_eq!(number, self.browsers.len(), "nobody leaves");
        let browser = Browser::new(number);
        // The key of RFC 6455 section 1.3: no server cares that it is not random.
        let upgrade = format!(
            "GET /wssip?token={} HTTP/1.1\r\nHost: {NAME}:{PORT}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Origin: https://{NAME}:{PORT}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            browser.user
        );
        self.fleet.link(number).send(upgrade.as_bytes());
        self.browsers.push(browser);
    }

    /// Takes in what a browser got.
    fn hear(&mut self, number: usize) {
        let link = self.fleet.link(number);
        assert!(!link.ended, "the server has closed the WebSocket of a browser");
        let mut bytes = std::mem::take(&mut link.inbox);
        let mut used = 0;
        if !self.browsers[number].is_open {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                self.fleet.link(number).inbox = bytes;
                return;
            };
            let head = String::from_utf8_lossy(&bytes[..end]);
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            self.browsers[number].is_open = true;
            self.register(number, Instant::now());
            used = end + 4;
        }
        while let Some(frame) = frame::read(&mut bytes[used..]) {
            let payload = &bytes[used..][frame.payload.clone()];
            if frame.opcode == frame::PING {
                let mut pong = Vec::new();
                frame::write(&mut pong, Side::Client, frame::PONG, payload);
                self.fleet.link(number).send(&pong);
            } else if let Some(message) = std::str::from_utf8(payload).ok().and_then(Message::parse) {
                self.heard(number, &message);
            }
            used += frame.payload.end;
        }
        bytes.drain(..used);
        self.fleet.link(number).inbox = bytes;
    }

    /// A message for a browser.
    fn heard(&mut self, number: usize, message: &Message) {
        let contact = format!("<{}>;ob", self.browsers[number].contact);
        if message.method().is_some() {
            for answer in answers(message, &contact) {
                self.say(number, &answer);
            }
        } else if message.cseq_method() == Some("REGISTER") {
            self.registered(number, message);
        } else {
            for request in self.answered(message) {
                let request = with_via(request, self.browsers[number].via());
                self.say(number, &request);
            }
        }
    }

    /// A message for the mediaserver.
    fn told(&mut self, message: &Message, from: SocketAddr) {
        match message.method() {
            Some("REGISTER") => self.tell(&self.registrar(message), from),
            Some(_) => {
                let contact = format!("<sip:600@{}>", self.own());
                for answer in answers(message, &contact) {
                    self.tell(&answer, from);
                }
            }
            None => {
                for request in self.answered(message) {
                    let request = with_via(request, self.via());
                    self.tell(&request, from);
                }
            }
        }
        if message.method() == Some("REGISTER")
            && message.field("Authorization").is_some()
            && let (Some(user), Some(contact)) = (message.field("To").and_then(user), message.contact())
        {
            let binding = (contact.to_owned(), message.list("Path"));
            self.bindings.insert(user.to_owned(), binding);
        }
    }

    /// What whoever called says to an answer; the call ends when its BYE is answered.
    fn answered(&mut self, answer: &Message) -> Vec<Message> {
        match (answer.cseq_method(), answer.status()) {
            (Some("INVITE"), Some(200)) => {
                let call_id = answer.call_id().unwrap_or_default();
                let Some(due) = self.calls.remove(call_id) else {
                    return Vec::new();
                };
                self.delays.push(due.elapsed());
                let mut dialog = Dialog::of_caller(answer);
                vec![dialog.request("ACK"), dialog.request("BYE")]
            }
            (Some("BYE"), Some(200)) => {
                self.done += 1;
                Vec::new()
            }
            (_, Some(status)) if status >= 300 => panic!("{answer}"),
            _ => Vec::new(),
        }
    }

    fn register(&mut self, number: usize, since: Instant) {
        let browser = &mut self.browsers[number];
        browser.registering = Some(since);
        let register = browser.register();
        self.say(number, &register);
    }

    /// An answer to the REGISTER of a browser.
    fn registered(&mut self, number: usize, answer: &Message) {
        let browser = &mut self.browsers[number];
        match answer.status() {
            Some(401) => {
                let challenge = answer
                    .field("WWW-Authenticate")
                    .and_then(Digested::parse)
                    .expect("a challenge");
                let proof = challenge.answer(&browser.user, "secret", "REGISTER", "sip:pbx.test");
                let register = browser.register().with("Authorization", proof);
                self.say(number, &register);
            }
            Some(200) => {
                if let Some(since) = browser.registering.take() {
                    self.delays.push(since.elapsed());
                    self.done += 1;
                }
            }
            _ => {}
        }
    }

    /// The mediaserver's answer to a REGISTER; any password is right.
    fn registrar(&self, register: &Message) -> Message {
        if register.field("Authorization").is_none() {
            return Message::answer(register, 401, "Unauthorized", "pbx").with(
                "WWW-Authenticate",
                format_args!(
                    "Digest realm=\"pbx.test\", nonce=\"{}\", algorithm=MD5, qop=\"auth\"",
                    word()
                ),
            );
        }
        let mut accepted = Message::answer(register, 200, "OK", "pbx");
        for step in register.list("Path") {
            accepted = accepted.with("Path", step);
        }
        accepted.with(
            "Contact",
            format_args!("<{}>;expires=600", register.contact().unwrap_or_default()),
        )
    }

    fn next_browser(&mut self) -> usize {
        self.next = (self.next + 1) % self.browsers.len();
        self.next
    }

    /// A browser sends.
    fn say(&mut self, number: usize, message: &Message) {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, Side::Client, frame::TEXT, message.to_string().as_bytes());
        self.fleet.link(number).send(&bytes);
    }

    /// The mediaserver sends. What the kernel does not take is lost, and counted as such.
    fn tell(&self, message: &Message, to: SocketAddr) {
        let _ = self.mediaserver.send_to(message.to_string().as_bytes(), to);
    }

    /// A Via of the mediaserver.
    fn via(&self) -> String {
        format!("SIP/2.0/UDP {};rport;branch={}", self.own(), branch())
    }

    fn own(&self) -> SocketAddr {
        self.mediaserver.local_addr().expect("a bound socket")
    }
}

impl Browser {
    fn new(number: usize) -> Self {
        let (user, host) = (format!("user{number}"), format!("{}.invalid", word()));
        Self {
            contact: format!("sip:{user}@{host};transport=ws"),
            user,
            host,
            is_open: false,
            registering: None,
            call_id: word(),
            cseq: 0,
        }
    }

    fn register(&mut self) -> Message {
        self.cseq += 1;
        let user = format!("<sip:{}@pbx.test>", self.user);
        Message::request("REGISTER", "sip:pbx.test")
            .with("Via", self.via())
            .with("Max-Forwards", 70)
            .with("From", format_args!("{user};tag=from"))
            .with("To", user)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format_args!("{} REGISTER", self.cseq))
            .with("Contact", format_args!("<{}>;expires=600;reg-id=1", self.contact))
            .with("Expires", 600)
            .with("Supported", "path, outbound, gruu")
            .with("User-Agent", "bench")
    }

    fn via(&self) -> String {
        format!("SIP/2.0/WSS {};branch={}", self.host, branch())
    }
}

/// What whoever is called says to a request.
fn answers(request: &Message, contact: &str) -> Vec<Message> {
    let ok = || Message::answer(request, 200, "OK", "callee");
    match request.method() {
        Some("INVITE") => vec![
            Message::answer(request, 180, "Ringing", "callee").with("Contact", contact),
            ok().with("Contact", contact).with_body("application/sdp", &sdp()),
        ],
        Some("ACK") => Vec::new(),
        _ => vec![ok()],
    }
}

fn with_via(mut request: Message, via: String) -> Message {
    request.fields.insert(0, ("Via".to_owned(), via));
    request
}

/// The user part of the URI of an address.
fn user(value: &str) -> Option<&str> {
    let (user, _) = value.split_once("sip:")?.1.split_once('@')?;
    Some(user)
}

/// As long as what browsers offer: an INVITE with it has about 2 KiB.
fn sdp() -> String {
    let candidate = "a=candidate:1467250027 1 udp 2122260223 192.0.2.10 46243 typ host generation 0 network-id 1\r\n";
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0 8\r\n{}",
        candidate.repeat(14)
    )
}
