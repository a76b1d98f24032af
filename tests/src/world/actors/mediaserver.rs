//! What does a mediaserver do? It registers telephones, answers their calls, calls them, and repeats what UDP loses.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    chance::Dice,
    peers::sip::{self, Dialog, Digested, Message},
    word,
    world::{
        actor::{Actor, Cx},
        agenda::{MS, SEC, Time},
        history::Seen,
        net::{End, Faults, Notice, Owner},
    },
};

mod transactions;

/// A registrar, callee and caller by UDP.
#[derive(Debug)]
pub struct Mediaserver {
    at: SocketAddr,
    /// What the dice of all lines follow from.
    seed: u64,
    /// Users that have registered, by the number in their name.
    lines: BTreeMap<u64, Line>,
    /// Requests that came, by branch and method, with the last answer.
    served: BTreeMap<(String, String), Option<(Message, Way)>>,
    /// What is said until somebody answers, by token.
    repeated: BTreeMap<u64, Repeated>,
    tokens: u64,
    /// INVITEs that are answered later, by token.
    late: BTreeMap<u64, (Message, Way, String)>,
    /// Connections of the edge, and what came of a message that is not whole.
    streams: BTreeMap<End, Vec<u8>>,
    /// Until when it does nothing, as if its machine were busy.
    deaf_until: Time,
    is_resting: bool,
}

/// How something came, and goes back.
#[derive(Debug, Clone, Copy)]
enum Way {
    Udp(SocketAddr),
    Tcp(End),
}

/// What the mediaserver does with one user. It has dice of its own, so that no user changes what happens to another.
#[derive(Debug)]
struct Line {
    /// What the mediaserver does by itself.
    dice: Dice,
    /// When it answers.
    answers: Dice,
    /// Where the user is: Contact and Path.
    binding: Option<(String, Vec<String>)>,
    calls: Vec<Dialog>,
}

#[derive(Debug)]
struct Repeated {
    message: Message,
    to: Way,
    interval: Time,
    until: Time,
    /// A provisional answer ends the repeats of an INVITE (RFC 3261 section 17.1.1.2).
    is_proceeding: bool,
}

/// Do nothing for a while.
const BE_DEAF: u64 = 0;
/// Do something with a user, whose number is added.
const GO_ON: u64 = 1 << 34;
/// Answer an INVITE, by token.
const ANSWER: u64 = 1 << 32;
/// Say something again, by token.
const REPEAT: u64 = 1 << 33;

/// RFC 3261 section 17.1.1.1.
const T1: Time = 500 * MS;
const T2: Time = 4 * SEC;

impl Mediaserver {
    /// A mediaserver there.
    pub fn new(at: SocketAddr) -> Self {
        Self {
            at,
            seed: 0,
            lines: BTreeMap::new(),
            served: BTreeMap::new(),
            repeated: BTreeMap::new(),
            tokens: 0,
            late: BTreeMap::new(),
            streams: BTreeMap::new(),
            deaf_until: 0,
            is_resting: false,
        }
    }

    fn hear_sip(&mut self, cx: &mut Cx<'_>, bytes: &[u8], from: Way) {
        let Some(message) = std::str::from_utf8(bytes).ok().and_then(Message::parse) else {
            return cx.checkers.fail("a mediaserver was sent no SIP".into());
        };
        if cx.now() < self.deaf_until {
            return;
        }
        cx.see(&Seen::TrunkDown { message: &message });
        let Some(method) = message.method().map(str::to_owned) else {
            return self.answered(cx, &message);
        };
        if method == "ACK" {
            let call = message.call_id().map(str::to_owned);
            self.repeated.retain(|_, repeated| {
                repeated.message.status().is_none() || repeated.message.call_id() != call.as_deref()
            });
            return;
        }
        let key = (message.branch().unwrap_or_default().to_owned(), method.clone());
        match self.served.get(&key) {
            Some(Some((answer, to))) => {
                let (answer, to) = (answer.clone(), *to);
                self.transmit(cx, &answer, to);
            }
            Some(None) => {}
            None => {
                self.served.insert(key, None);
                self.serve(cx, &method, &message, from);
            }
        }
    }

    /// Takes whole messages off a connection (RFC 3261 section 18.3); empty lines between them keep it alive.
    fn read(&mut self, cx: &mut Cx<'_>, end: End, bytes: &[u8]) {
        let Some(incoming) = self.streams.get_mut(&end) else {
            return;
        };
        incoming.extend_from_slice(bytes);
        while let Some(incoming) = self.streams.get_mut(&end) {
            let blank = incoming.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            incoming.drain(..blank);
            let Some(head) = incoming.windows(4).position(|window| window == b"\r\n\r\n") else {
                return;
            };
            let text = String::from_utf8_lossy(&incoming[..head]).to_ascii_lowercase();
            let length = text
                .split("\r\n")
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let Some(whole) = length.map(|length: usize| head + 4 + length) else {
                return cx.checkers.fail("a mediaserver got SIP without a length by TCP".into());
            };
            if incoming.len() < whole {
                return;
            }
            let message: Vec<u8> = incoming.drain(..whole).collect();
            cx.met("a mediaserver heard something by TCP");
            self.hear_sip(cx, &message, Way::Tcp(end));
        }
    }

    fn serve(&mut self, cx: &mut Cx<'_>, method: &str, request: &Message, from: Way) {
        match method {
            "REGISTER" => self.register(cx, request, from),
            "INVITE" => self.invited(cx, request, from),
            "CANCEL" => {
                self.answer(cx, request, Message::answer(request, 200, "OK", &word()), from);
                let found = self.late.iter();
                let mut found = found.filter(|(_, (invite, ..))| invite.branch() == request.branch());
                if let Some(token) = found.next().map(|(token, _)| *token)
                    && let Some((invite, from, tag)) = self.late.remove(&token)
                {
                    let refusal = Message::answer(&invite, 487, "Request Terminated", &tag);
                    self.answer(cx, &invite, refusal, from);
                }
            }
            _ => {
                if method == "BYE" {
                    let calls = &mut self.line(user_number(request)).calls;
                    calls.retain(|call| Some(call.call_id.as_str()) != request.call_id());
                }
                self.answer(cx, request, Message::answer(request, 200, "OK", &word()), from);
            }
        }
    }

    fn register(&mut self, cx: &mut Cx<'_>, request: &Message, from: Way) {
        let user = request
            .field("To")
            .and_then(sip::address)
            .and_then(user_of)
            .unwrap_or_default();
        let proof = request.field("Authorization").and_then(Digested::parse);
        let password = format!("secret of {user}");
        if !proof.is_some_and(|proof| proof.get("username") == Some(user) && proof.proves(&password, "REGISTER")) {
            let challenge = format!(
                "Digest realm=\"pbx.test\", nonce=\"{}\", algorithm=MD5, qop=\"auth\"",
                word()
            );
            let answer = Message::answer(request, 401, "Unauthorized", &word());
            return self.answer(cx, request, answer.with("WWW-Authenticate", challenge), from);
        }
        let path = request.list("Path");
        let mut accepted = Message::answer(request, 200, "OK", &word());
        for step in &path {
            accepted = accepted.with("Path", step);
        }
        if let Some(contact) = request.contact() {
            accepted = accepted.with("Contact", format_args!("<{contact}>;expires=600"));
            let number = user_number(request);
            let line = self.line(number);
            let is_new = line.binding.replace((contact.to_owned(), path)).is_none();
            let first = line.dice.from_to(SEC, 10 * SEC);
            if is_new {
                cx.after(first, GO_ON + number);
            }
        }
        self.answer(cx, request, accepted, from);
    }

    fn invited(&mut self, cx: &mut Cx<'_>, invite: &Message, from: Way) {
        let tag = word();
        self.transmit(cx, &Message::answer(invite, 100, "Trying", &tag), from);
        let callee = invite.uri().and_then(user_of).unwrap_or_default();
        if callee == "busy" {
            return self.answer(cx, invite, Message::answer(invite, 486, "Busy Here", &tag), from);
        }
        let ringing =
            Message::answer(invite, 180, "Ringing", &tag).with("Contact", format_args!("<sip:pbx@{}>", self.at));
        self.transmit(cx, &ringing, from);
        self.tokens += 1;
        self.late.insert(self.tokens, (invite.clone(), from, tag));
        let wait = if callee == "late" { 25 * SEC } else { 2 * SEC };
        let wait = self.line(user_number(invite)).answers.from_to(10 * MS, wait);
        cx.after(wait, ANSWER + self.tokens);
    }

    /// The telephone that is called here picks up.
    fn pick_up(&mut self, cx: &mut Cx<'_>, token: u64) {
        let Some((invite, from, tag)) = self.late.remove(&token) else {
            return;
        };
        let accepted = Message::answer(&invite, 200, "OK", &tag)
            .with("Contact", format_args!("<sip:pbx@{}>", self.at))
            .with_body("application/sdp", "v=0\r\n");
        let dialog = Dialog::of_callee(&invite, &accepted);
        self.line(user_number(&invite)).calls.push(dialog);
        self.answer(cx, &invite, accepted, from);
    }

    fn go_on(&mut self, cx: &mut Cx<'_>, user: u64) {
        if self.is_resting {
            return;
        }
        match self.line(user).dice.from_to(0, 5) {
            0..=1 => self.call(cx, user, "INVITE"),
            2 => self.call(cx, user, "MESSAGE"),
            3 => self.within(cx, user, "BYE"),
            4 => self.within(cx, user, "INFO"),
            _ => {}
        }
        let wait = self.line(user).dice.from_to(200 * MS, 12 * SEC);
        cx.after(wait, GO_ON + user);
    }

    fn call(&mut self, cx: &mut Cx<'_>, user: u64, method: &str) {
        let Some((contact, path)) = self.line(user).binding.clone() else {
            return;
        };
        let mut request = Message::request(method, &contact);
        for step in path {
            request = request.with("Route", step);
        }
        let mut request = request
            .with("Max-Forwards", 70)
            .with("From", format_args!("<sip:pbx@{}>;tag={}", self.at, word()))
            .with("To", format_args!("<sip:user{user}@pbx.test>"))
            .with("Call-ID", word())
            .with("CSeq", format_args!("1 {method}"))
            .with("Contact", format_args!("<sip:pbx@{}>", self.at));
        if method == "INVITE" {
            cx.met("a mediaserver called");
            request = request.with_body("application/sdp", "v=0\r\n");
        }
        self.ask(cx, request);
    }

    fn within(&mut self, cx: &mut Cx<'_>, user: u64, method: &str) {
        let line = self.line(user);
        if line.calls.is_empty() {
            return;
        }
        let place = line.dice.place(line.calls.len());
        let request = line.calls[place].request(method);
        if method == "BYE" {
            line.calls.remove(place);
        }
        cx.met("a mediaserver said something in a call");
        self.ask(cx, request);
    }

    fn line(&mut self, user: u64) -> &mut Line {
        let seed = self.seed;
        self.lines.entry(user).or_insert_with(|| Line {
            dice: Dice::new(seed, 2 * user),
            answers: Dice::new(seed, 2 * user + 1),
            binding: None,
            calls: Vec::new(),
        })
    }
}

impl Actor for Mediaserver {
    fn start(&mut self, cx: &mut Cx<'_>) {
        cx.net.bind(self.at, Owner::Actor(cx.me));
        self.seed = cx.dice.u64();
        cx.net.listen(self.at, Owner::Actor(cx.me));
        if cx.net.faults != Faults::NONE && cx.dice.happens(2_500) {
            cx.between(10 * SEC, 200 * SEC, BE_DEAF);
        }
    }

    fn hear(&mut self, cx: &mut Cx<'_>, notice: Notice) {
        match notice {
            Notice::Datagram { from, bytes, .. } => self.hear_sip(cx, &bytes, Way::Udp(from)),
            Notice::Accepted { end, .. } => {
                self.streams.insert(end, Vec::new());
            }
            Notice::Bytes { end, bytes } => self.read(cx, end, &bytes),
            Notice::Eof(end) => {
                self.streams.remove(&end);
                cx.net.close(end, &[]);
            }
            Notice::Reset(end) | Notice::TimedOut(end) => {
                self.streams.remove(&end);
            }
            _ => {}
        }
    }

    fn wake(&mut self, cx: &mut Cx<'_>, token: u64) {
        match token {
            BE_DEAF => {
                cx.met("a mediaserver was deaf");
                cx.note(|| "is deaf".into());
                self.deaf_until = cx.now() + cx.dice.from_to(SEC, 90 * SEC);
                let until = self.deaf_until;
                cx.see(&Seen::Deaf { until });
            }
            token if token & GO_ON != 0 => self.go_on(cx, token - GO_ON),
            token if token & REPEAT != 0 => self.say_again(cx, token - REPEAT),
            token => self.pick_up(cx, token - ANSWER),
        }
    }

    fn rest(&mut self) {
        self.is_resting = true;
    }

    fn leave(&mut self, _: &mut Cx<'_>) {
        self.rest();
    }

    fn outcome(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The user of a SIP URI.
fn user_of(uri: &str) -> Option<&str> {
    Some(uri.split_once(':')?.1.split_once('@')?.0)
}

/// The user of ours who says this, or who is told it.
fn user_number(message: &Message) -> u64 {
    let ends = ["From", "To"].into_iter().filter_map(|name| message.field(name));
    let users = ends.filter_map(sip::address).filter_map(user_of);
    let mut numbers = users.filter_map(|user| user.strip_prefix("user")?.parse().ok());
    numbers.next().unwrap_or_default()
}
