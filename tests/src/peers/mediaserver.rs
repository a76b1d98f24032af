//! How does a mediaserver behave? A model of Asterisk: registrar, callee and caller of SIP over UDP, with losses to order,
//! and over TCP where it is told to.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead, BufReader, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    deadline,
    peers::sip::{self, Dialog, Digested, Message},
    remaining, word,
};

/// T1 of RFC 3261 section 17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// T2 of RFC 3261 section 17.1.1.1.
const T2: Duration = Duration::from_secs(4);

/// A mediaserver with a socket and a thread that answers. What it does with an INVITE depends on who is called:
/// `busy` is, `ringing` rings for ever, `silent` says nothing, everybody else answers.
#[derive(Debug)]
pub struct Mediaserver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    tcp: Option<JoinHandle<()>>,
}

/// A datagram that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Who sent it.
    pub from: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it says, when it is SIP.
    pub message: Option<Message>,
}

/// Where somebody is registered (RFC 3261 section 10.3, RFC 3327 section 5.3).
#[derive(Debug, Clone)]
pub struct Binding {
    /// The URI to call.
    pub contact: String,
    /// Values of Path, which become the Route.
    pub path: Vec<String>,
    /// Who sent the REGISTER.
    pub from: SocketAddr,
}

/// What goes wrong with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is lost.
    Lost,
    /// It comes twice.
    Twice,
}

/// Which way a datagram goes, seen from the mediaserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It came.
    In,
    /// It goes.
    Out,
}

/// Makes the SDP answer to an offer.
type Answerer = Box<dyn FnMut(&str) -> String + Send>;
/// Decides on the fault of a datagram.
type Weather = Box<dyn FnMut(Way, &Message) -> Option<Fault> + Send>;

struct Shared {
    socket: UdpSocket,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    seen: Vec<Seen>,
    bindings: BTreeMap<String, Binding>,
    /// INVITEs that wait for a CANCEL or an ACK, with our answer to them.
    invited: Vec<Invited>,
    /// What is repeated until something answers it.
    repeats: Vec<Repeat>,
    /// TCP connections by who has made them; what came by one is answered by it.
    streams: BTreeMap<SocketAddr, TcpStream>,
    takes_tcp: bool,
    answerer: Answerer,
    weather: Weather,
    stopped: bool,
}

#[derive(Debug, Clone)]
struct Invited {
    invite: Message,
    from: SocketAddr,
    tag: String,
}

#[derive(Debug)]
struct Repeat {
    message: Message,
    to: SocketAddr,
    due: Instant,
    interval: Duration,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Mediaserver {
    /// Starts one that answers offers with a few lines of SDP.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn start(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("the address of the mediaserver");
        let shared = Arc::new(Shared {
            socket,
            state: Mutex::new(State {
                seen: Vec::new(),
                bindings: BTreeMap::new(),
                invited: Vec::new(),
                repeats: Vec::new(),
                streams: BTreeMap::new(),
                takes_tcp: false,
                answerer: Box::new(|_| "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".to_owned()),
                weather: Box::new(|_, _| None),
                stopped: false,
            }),
            changed: Condvar::new(),
        });
        let thread = thread::spawn({
            let shared = shared.clone();
            move || shared.run()
        });
        Self {
            shared,
            thread: Some(thread),
            tcp: None,
        }
    }

    /// Takes TCP connections from now on, at the same address.
    ///
    /// # Panics
    /// When that is taken.
    pub fn take_tcp(&mut self) {
        let listener = TcpListener::bind(self.address()).expect("the address of the mediaserver");
        self.shared.state().takes_tcp = true;
        let shared = self.shared.clone();
        self.tcp = Some(thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if !shared.take(stream) {
                    return;
                }
            }
        }));
    }

    /// Takes no TCP connections any more, and ends those that there are.
    pub fn refuse_tcp(&mut self) {
        let Some(thread) = self.tcp.take() else { return };
        let streams = {
            let mut state = self.shared.state();
            state.takes_tcp = false;
            std::mem::take(&mut state.streams)
        };
        for stream in streams.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // A connection of our own wakes the thread.
        let _ = TcpStream::connect(self.address());
        let _ = thread.join();
    }

    /// Waits until there are so many TCP connections.
    ///
    /// # Panics
    /// When there never are.
    pub fn wait_for_tcp(&self, count: usize) {
        let deadline = deadline();
        let mut state = self.shared.state();
        while state.streams.len() < count {
            let Some(left) = remaining(deadline) else {
                let there = state.streams.len();
                drop(state);
                panic!("the mediaserver waits for {count} TCP connections, has {there}");
            };
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.expect("nobody panics with the lock").0;
        }
    }

    /// Answers offers with this from now on.
    pub fn answer_with(&self, answerer: impl FnMut(&str) -> String + Send + 'static) {
        self.shared.state().answerer = Box::new(answerer);
    }

    /// Treats datagrams with SIP in them like this from now on.
    pub fn weather(&self, weather: impl FnMut(Way, &Message) -> Option<Fault> + Send + 'static) {
        self.shared.state().weather = Box::new(weather);
    }

    /// Its address.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn address(&self) -> SocketAddr {
        self.shared.socket.local_addr().expect("a bound socket")
    }

    /// Where this user is registered.
    pub fn binding(&self, user: &str) -> Option<Binding> {
        self.shared.state().bindings.get(user).cloned()
    }

    /// Everything that came until now.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Waits for a message, also among those that came before.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        self.wait_for_after(0, what, wanted)
    }

    /// Waits for a message, but for the first `read` of those that have [come](Self::seen).
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for_after(&self, mut read: usize, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        let deadline = deadline();
        let mut state = self.shared.state();
        loop {
            let fresh = state.seen[read..].iter().filter_map(|seen| seen.message.as_ref());
            if let Some(message) = fresh.into_iter().find(|message| wanted(message)) {
                return message.clone();
            }
            read = state.seen.len();
            let Some(left) = remaining(deadline) else {
                let seen: Vec<String> = state.seen.iter().map(Seen::summary).collect();
                drop(state);
                panic!("the mediaserver waits for {what}, has seen {seen:#?}");
            };
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .expect("nobody panics with the lock")
                .0;
        }
    }

    /// Waits for the final answer to a request of ours.
    ///
    /// # Panics
    /// When it does not come.
    pub fn final_answer(&self, request: &Message) -> Message {
        self.wait_for(&format!("a final answer to {}", request.start), |message| {
            message.status().is_some_and(|status| status >= 200)
                && message.branch() == request.branch()
                && message.cseq_method() == request.method()
        })
    }

    /// Calls a registered user and returns the INVITE as it went.
    ///
    /// # Panics
    /// When the user is not registered.
    pub fn call(&self, user: &str, offer: &str) -> Message {
        let invite = self.prepare("INVITE", user).with_body("application/sdp", offer);
        self.send_request(invite)
    }

    /// A request to a registered user outside of a dialog, complete but for its Via.
    ///
    /// # Panics
    /// When the user is not registered.
    pub fn prepare(&self, method: &str, user: &str) -> Message {
        let binding = self.binding(user).unwrap_or_else(|| panic!("{user} is not registered"));
        let mut request = Message::request(method, &binding.contact);
        for path in &binding.path {
            request = request.with("Route", path);
        }
        let own = self.address();
        request
            .with("Max-Forwards", 70)
            .with("From", format_args!("<sip:pbx@{own}>;tag={}", word()))
            .with("To", format_args!("<sip:{user}@pbx.test>"))
            .with("Call-ID", word())
            .with("CSeq", format_args!("1 {method}"))
            .with("Contact", format_args!("<sip:pbx@{own}>"))
    }

    /// Waits for the 200 to an INVITE of ours, acknowledges it, and returns it with its dialog.
    ///
    /// # Panics
    /// When another final answer comes, or none.
    pub fn answered(&self, invite: &Message) -> (Message, Dialog) {
        let answer = self.final_answer(invite);
        assert_eq!(answer.status(), Some(200), "{answer}");
        let mut dialog = Dialog::of_caller(&answer);
        let acknowledgement = dialog.request("ACK");
        self.send_request(acknowledgement);
        (answer, dialog)
    }

    /// Takes back an INVITE of ours that has no final answer yet (RFC 3261 section 9.1); returns the CANCEL as it went.
    ///
    /// # Panics
    /// When it was no INVITE of ours.
    pub fn cancel(&self, invite: &Message) -> Message {
        let mut cancel = Message::request("CANCEL", invite.uri().expect("a request"));
        let kept = ["Via", "Route", "Max-Forwards", "From", "To", "Call-ID"];
        let copied = invite.fields.iter().filter(|(name, _)| kept.contains(&name.as_str()));
        cancel.fields.extend(copied.cloned());
        self.transmit(cancel.with("CSeq", "1 CANCEL"))
    }

    /// Sends a request within a dialog and returns its final answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn request(&self, dialog: &mut Dialog, method: &str) -> Message {
        let sent = self.send_request(dialog.request(method));
        self.final_answer(&sent)
    }

    /// Answers an INVITE that has rung until now.
    ///
    /// # Panics
    /// When there is none with this Call-ID.
    pub fn pick_up(&self, call_id: &str) {
        let mut state = self.shared.state();
        let rings = |invited: &&Invited| invited.invite.call_id() == Some(call_id);
        let invited = state.invited.iter().find(rings).expect("a call that rings").clone();
        self.shared.accept(&mut state, &invited);
    }

    /// The dialog of an INVITE that this mediaserver answered.
    ///
    /// # Panics
    /// When it did not.
    pub fn dialog(&self, call_id: &str) -> Dialog {
        let state = self.shared.state();
        let invited = state
            .invited
            .iter()
            .find(|invited| invited.invite.call_id() == Some(call_id));
        let Invited { invite, tag, .. } = invited.expect("a call that was answered");
        Dialog::of_callee(invite, &Message::answer(invite, 200, "OK", tag))
    }

    /// Sends a request with a Via of our own to where its Route or its URI points, and repeats it until it is answered;
    /// returns it as it went.
    ///
    /// # Panics
    /// When neither names an address.
    pub fn send_request(&self, mut request: Message) -> Message {
        let via = format!("SIP/2.0/UDP {};rport;branch={}", self.address(), sip::branch());
        request.fields.insert(0, ("Via".to_owned(), via));
        self.transmit(request)
    }

    fn transmit(&self, request: Message) -> Message {
        let next = request.field("Route").and_then(sip::address).or(request.uri());
        let to = next
            .and_then(sip::socket_address)
            .unwrap_or_else(|| panic!("no way for {request}"));
        let mut state = self.shared.state();
        if request.method() != Some("ACK") {
            state.repeats.push(Repeat {
                message: request.clone(),
                to,
                due: Instant::now() + T1,
                interval: T1,
            });
        }
        self.shared.send(&mut state, &request, to);
        request
    }

    /// Waits no longer for the answer to a request: it is not sent again.
    pub fn forget(&self, request: &Message) {
        let mut state = self.shared.state();
        state
            .repeats
            .retain(|repeat| repeat.message.branch() != request.branch());
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When they do not fit a datagram.
    pub fn send_raw(&self, bytes: &[u8], to: SocketAddr) {
        self.shared.socket.send_to(bytes, to).expect("sent");
    }
}

impl Drop for Mediaserver {
    fn drop(&mut self) {
        self.refuse_tcp();
        self.shared.state().stopped = true;
        // A datagram of our own wakes the thread.
        let _ = self.shared.socket.send_to(&[], self.address());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn summary(&self) -> String {
        match &self.message {
            Some(message) => format!("{} ({})", message.start, message.field("CSeq").unwrap_or_default()),
            None => format!("{} bytes that are no SIP", self.bytes.len()),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }

    fn run(&self) {
        let mut buffer = vec![0; 65_536];
        while !self.state().stopped {
            let wake = self.repeat();
            let timeout = wake.saturating_duration_since(Instant::now());
            let timeout = timeout.max(Duration::from_millis(1));
            self.socket
                .set_read_timeout(Some(timeout))
                .expect("a timeout above zero");
            if let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
                self.receive(&buffer[..length], from);
            }
        }
    }

    /// Sends again what is due; returns when the next is.
    fn repeat(&self) -> Instant {
        let mut state = self.state();
        let now = Instant::now();
        let mut due = Vec::new();
        for repeat in state.repeats.iter_mut().filter(|repeat| repeat.due <= now) {
            // RFC 3261 sections 13.3.1.4 and 17.1.2.1.
            repeat.interval = (repeat.interval * 2).min(T2);
            repeat.due = now + repeat.interval;
            due.push((repeat.message.clone(), repeat.to));
        }
        for (message, to) in due {
            self.send(&mut state, &message, to);
        }
        let next = state.repeats.iter().map(|repeat| repeat.due).min();
        next.unwrap_or(now + T2)
    }

    fn receive(&self, bytes: &[u8], from: SocketAddr) {
        let message = str::from_utf8(bytes).ok().and_then(Message::parse);
        let mut state = self.state();
        let times = match message.as_ref().and_then(|message| (state.weather)(Way::In, message)) {
            None => 1,
            Some(Fault::Lost) => 0,
            Some(Fault::Twice) => 2,
        };
        for _ in 0..times {
            state.seen.push(Seen {
                from,
                bytes: bytes.to_vec(),
                message: message.clone(),
            });
            if let Some(message) = &message {
                self.handle(&mut state, message, from);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn send(&self, state: &mut State, message: &Message, to: SocketAddr) {
        let times = match (state.weather)(Way::Out, message) {
            None => 1,
            Some(Fault::Lost) => 0,
            Some(Fault::Twice) => 2,
        };
        for _ in 0..times {
            // Nobody may listen any more.
            let _ = match state.streams.get_mut(&to) {
                Some(stream) => stream.write_all(message.to_string().as_bytes()),
                None => self.socket.send_to(message.to_string().as_bytes(), to).map(drop),
            };
        }
    }

    /// Reads what comes by a TCP connection, unless it is one of our own that only wakes.
    fn take(self: &Arc<Self>, stream: TcpStream) -> bool {
        let Ok(from) = stream.peer_addr() else { return true };
        let mut state = self.state();
        if !state.takes_tcp {
            return false;
        }
        let Ok(clone) = stream.try_clone() else { return true };
        state.streams.insert(from, clone);
        drop(state);
        self.changed.notify_all();
        let shared = self.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            while let Ok(Some(message)) = read_message(&mut reader) {
                shared.receive(&message, from);
            }
            shared.state().streams.remove(&from);
        });
        true
    }

    fn handle(&self, state: &mut State, message: &Message, from: SocketAddr) {
        let Some(method) = message.method() else {
            self.answered(state, message);
            return;
        };
        match method {
            "REGISTER" => self.register(state, message, from),
            "INVITE" => self.invite(state, message, from),
            "ACK" => state
                .repeats
                .retain(|repeat| repeat.message.status().is_none() || repeat.message.call_id() != message.call_id()),
            "CANCEL" => self.cancel(state, message, from),
            _ => self.send(state, &Message::answer(message, 200, "OK", &word()), from),
        }
    }

    /// Ends the repeats of a request; a failure of an INVITE is acknowledged (RFC 3261 section 17.1.1.3).
    fn answered(&self, state: &mut State, answer: &Message) {
        let place = state.repeats.iter().position(|repeat| {
            repeat.message.method() == answer.cseq_method() && repeat.message.branch() == answer.branch()
        });
        let sent = place.map(|place| state.repeats.remove(place));
        if answer.status().is_some_and(|status| status >= 300)
            && answer.cseq_method() == Some("INVITE")
            && let Some(Repeat {
                message: invite, to, ..
            }) = sent
        {
            let copied = |name: &str| invite.field(name).unwrap_or_default().to_owned();
            let mut acknowledgement = Message::request("ACK", invite.uri().unwrap_or_default());
            acknowledgement = acknowledgement.with("Via", copied("Via"));
            for route in invite.all("Route") {
                acknowledgement = acknowledgement.with("Route", route);
            }
            acknowledgement = acknowledgement
                .with("Max-Forwards", 70)
                .with("From", copied("From"))
                .with("To", answer.field("To").unwrap_or_default())
                .with("Call-ID", copied("Call-ID"))
                .with("CSeq", "1 ACK");
            self.send(state, &acknowledgement, to);
        }
    }

    fn register(&self, state: &mut State, request: &Message, from: SocketAddr) {
        let answer = |status, reason| Message::answer(request, status, reason, &word());
        let Some(user) = request.field("To").and_then(sip::address).and_then(user_of) else {
            self.send(state, &answer(400, "Bad Request"), from);
            return;
        };
        let proof = request.field("Authorization").and_then(Digested::parse);
        let password = format!("secret of {user}");
        if !proof.is_some_and(|proof| proof.get("username") == Some(user) && proof.proves(&password, "REGISTER")) {
            let challenge = format!(
                "Digest realm=\"pbx.test\", nonce=\"{}\", algorithm=MD5, qop=\"auth\"",
                word()
            );
            self.send(
                state,
                &answer(401, "Unauthorized").with("WWW-Authenticate", challenge),
                from,
            );
            return;
        }
        // RFC 3327 section 5.3: a Path of a client that does not know it is refused.
        let path = request.list("Path");
        if !path.is_empty() && !request.list("Supported").iter().any(|name| name == "path") {
            self.send(state, &answer(420, "Bad Extension").with("Unsupported", "path"), from);
            return;
        }
        let mut accepted = answer(200, "OK");
        for step in &path {
            accepted = accepted.with("Path", step);
        }
        if let Some(contact) = request.contact() {
            accepted = accepted.with("Contact", format_args!("<{contact}>;expires=600"));
            let binding = Binding {
                contact: contact.to_owned(),
                path,
                from,
            };
            state.bindings.insert(user.to_owned(), binding);
        }
        self.send(state, &accepted, from);
    }

    fn invite(&self, state: &mut State, invite: &Message, from: SocketAddr) {
        let callee = invite.uri().and_then(user_of).unwrap_or_default();
        let known = state
            .invited
            .iter()
            .find(|known| known.invite.branch() == invite.branch());
        if callee == "silent" || known.is_some() {
            return;
        }
        let tag = word();
        state.invited.push(Invited {
            invite: invite.clone(),
            from,
            tag: tag.clone(),
        });
        self.send(state, &Message::answer(invite, 100, "Trying", &tag), from);
        if callee == "busy" {
            let refusal = Message::answer(invite, 486, "Busy Here", &tag);
            self.send_until_acknowledged(state, refusal, from);
            return;
        }
        // RFC 3261 section 12.1.1: what makes a dialog names a contact, and SIP.js insists on it.
        let ringing = Message::answer(invite, 180, "Ringing", &tag).with("Contact", self.contact(callee));
        self.send(state, &ringing, from);
        if callee != "ringing" {
            let invited = state.invited.last().expect("the call").clone();
            self.accept(state, &invited);
        }
    }

    fn accept(&self, state: &mut State, Invited { invite, from, tag }: &Invited) {
        let callee = invite.uri().and_then(user_of).unwrap_or_default();
        let body = (state.answerer)(&invite.body);
        let accepted = Message::answer(invite, 200, "OK", tag)
            .with("Contact", self.contact(callee))
            .with_body("application/sdp", &body);
        self.send_until_acknowledged(state, accepted, *from);
    }

    fn contact(&self, user: &str) -> String {
        let own = self.socket.local_addr().expect("a bound socket");
        format!("<sip:{user}@{own}>")
    }

    fn cancel(&self, state: &mut State, cancel: &Message, from: SocketAddr) {
        self.send(state, &Message::answer(cancel, 200, "OK", &word()), from);
        // RFC 3261 section 9.2: the branch names the INVITE.
        let invited = state
            .invited
            .iter()
            .find(|invited| invited.invite.branch() == cancel.branch())
            .cloned();
        if let Some(Invited { invite, from, tag }) = invited {
            let ended = Message::answer(&invite, 487, "Request Terminated", &tag);
            self.send_until_acknowledged(state, ended, from);
        }
    }

    fn send_until_acknowledged(&self, state: &mut State, answer: Message, to: SocketAddr) {
        self.send(state, &answer, to);
        state.repeats.push(Repeat {
            message: answer,
            to,
            due: Instant::now() + T1,
            interval: T1,
        });
    }
}

/// Reads a message by its Content-Length (RFC 3261 section 18.3); `None` at the end of the stream.
fn read_message(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut message, mut length) = (Vec::new(), 0);
    loop {
        let start = message.len();
        if reader.read_until(b'\n', &mut message)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&message[start..]).into_owned();
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("Content-Length") => {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            // An empty line before a message keeps the connection alive.
            None if line == "\r\n" && start == 0 => message.clear(),
            None if line == "\r\n" => break,
            _ => {}
        }
    }
    let head = message.len();
    message.resize(head + length, 0);
    reader.read_exact(&mut message[head..])?;
    Ok(Some(message))
}

fn user_of(uri: &str) -> Option<&str> {
    let (user, _) = uri.split_once(':')?.1.split_once('@')?;
    Some(user)
}
