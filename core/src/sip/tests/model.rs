//! Transactions over a network that loses, doubles and reorders datagrams, against models of both ends that keep to
//! RFC 3261 on their own account.

use alloc::collections::{BTreeMap, BTreeSet};

use proptest::prelude::proptest;

use super::*;

/// How bad the network is, in percent.
#[derive(Debug, Clone, Copy)]
struct Weather {
    loss: u32,
    doubling: u32,
    delay_max_ms: u32,
}

/// What happens at some time.
#[derive(Debug, Clone)]
enum Event {
    /// A datagram reaches the bridge.
    ToBridge(String),
    /// A datagram reaches the mediaserver.
    ToMediaserver(String),
    /// The mediaserver's own timer: this request is sent again unless it is answered.
    RepeatRequest { branch: String, interval_ms: u64 },
    /// The mediaserver's own timer: this final response is sent again unless it is acknowledged.
    RepeatResponse { branch: String, interval_ms: u64 },
    /// The mediaserver's user says something to a request.
    Say { branch: String, status: &'static str },
    /// The browser says something to a request.
    BrowserSays { request: String, status: &'static str },
    /// The browser has said 200 to an INVITE, and says it again until the ACK comes (RFC 3261 section 13.3.1.4).
    BrowserRepeats { request: String, interval_ms: u64 },
    /// The browser cancels its INVITE.
    BrowserCancels(String),
    /// The mediaserver's caller gives up.
    MediaserverCancels(String),
}

/// A request that the mediaserver received, by its branch.
#[derive(Debug)]
struct Server {
    request: String,
    method: String,
    last: Option<String>,
    is_final: bool,
    acknowledged: bool,
}

/// A request that the mediaserver sent, by its branch.
#[derive(Debug)]
struct Client {
    request: String,
    provisional: bool,
    finals: Vec<String>,
}

struct Model {
    world: World,
    flow: FlowId,
    path: String,
    chance: Rng,
    weather: Weather,
    start: Instant,
    /// By time in microseconds, then in the order of their making.
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    servers: BTreeMap<String, Server>,
    clients: BTreeMap<String, Client>,
    /// Responses that the browser got, by the branch of its request.
    browser_got: BTreeMap<String, Vec<String>>,
    /// INVITEs that the browser got, by branch.
    browser_rings: BTreeMap<String, String>,
    /// Requests that the browser has answered for good, by branch.
    browser_said: BTreeSet<String>,
    /// Calls whose ACK the browser got.
    browser_acknowledged: BTreeSet<String>,
    /// Requests that the browser got, by branch and method.
    browser_asked: BTreeMap<(String, String), u32>,
}

const LASTING: Duration = Duration::from_secs(900);

proptest! {
    #[test]
    fn whatever_the_weather(seed: u64, loss in 0u32..45, doubling in 0u32..40, delay_max_ms in 1u32..900) {
        run(seed, Weather { loss, doubling, delay_max_ms });
    }
}

#[test]
fn in_tolerable_weather_everything_is_answered() {
    for seed in 0..100 {
        let weather = Weather {
            loss: 20,
            doubling: 20,
            delay_max_ms: 300,
        };
        let model = run(seed, weather);
        for (branch, responses) in &model.browser_got {
            assert!(
                responses.iter().any(|status| is_final(status)),
                "seed {seed}, {branch}: {responses:?}"
            );
        }
        for client in model.clients.values() {
            assert!(!client.finals.is_empty(), "seed {seed}: {}", client.request);
        }
        for server in model.servers.values().filter(|server| server.method == "INVITE") {
            assert!(server.acknowledged, "seed {seed}: {}", server.request);
        }
        let calls = model
            .browser_asked
            .keys()
            .filter(|(_, method)| method == "INVITE")
            .count();
        assert_eq!(model.browser_acknowledged.len(), calls, "seed {seed}");
    }
}

fn run(seed: u64, weather: Weather) -> Model {
    let mut world = World::new(Reach::Path);
    let flow = world.open(1);
    let path = fields(&world.register(flow, "x1@a.invalid"), "Path")[0].to_owned();
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let start = world.now;
    let mut model = Model {
        world,
        flow,
        path,
        chance: Rng::new(key),
        weather,
        start,
        events: BTreeMap::new(),
        made: 0,
        servers: BTreeMap::new(),
        clients: BTreeMap::new(),
        browser_got: BTreeMap::new(),
        browser_rings: BTreeMap::new(),
        browser_said: BTreeSet::new(),
        browser_acknowledged: BTreeSet::new(),
        browser_asked: BTreeMap::new(),
    };
    for number in 0..6 {
        model.browser_asks(number);
        model.mediaserver_asks(number);
        model.go_on(Duration::from_millis(700));
    }
    model.go_on(LASTING);
    model.check();
    model
}

impl Model {
    fn now_us(&self) -> u64 {
        (self.world.now - self.start).as_micros() as u64
    }

    fn later(&mut self, millis: u64, event: Event) {
        self.made += 1;
        let key = (self.now_us() + millis * 1000, self.made);
        self.events.insert(key, event);
    }

    fn one_in(&mut self, percent: u32) -> bool {
        self.chance.below(100) < percent
    }

    /// A datagram leaves; what becomes of it is up to the weather.
    fn transmit(&mut self, arrives: impl Fn() -> Event) {
        for copy in 0..2 {
            if copy == 1 && !self.one_in(self.weather.doubling) || self.one_in(self.weather.loss) {
                continue;
            }
            let delay = u64::from(self.chance.below(self.weather.delay_max_ms));
            self.later(delay, arrives());
        }
    }

    /// Lets time pass for all three.
    fn go_on(&mut self, duration: Duration) {
        let end = self.world.now + duration;
        loop {
            let event = self
                .events
                .first_key_value()
                .map(|((at, _), _)| self.start + Duration::from_micros(*at));
            let timer = self.world.bridge.poll_timeout();
            let Some(next) = [event, timer].into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.world.now = self.world.now.max(next);
            if event == Some(next) {
                let (_, event) = self.events.pop_first().expect("there is one");
                self.happen(event);
            } else {
                let sent = self.world.call(|bridge, cx| bridge.timeout(cx)).1;
                self.take(sent);
            }
        }
        self.world.now = end;
    }

    fn take(&mut self, sent: Vec<Sent>) {
        for sent in sent {
            match sent {
                Sent::Trunk(_, text) if text.starts_with("OPTIONS sip:10.") => {}
                Sent::Trunk(_, text) => self.transmit(|| Event::ToMediaserver(text.clone())),
                Sent::Browser(_, text) => self.browser_gets(text),
                other => panic!("{other:?}"),
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToBridge(text) => {
                let sent = self.world.trunk(&text);
                self.take(sent);
            }
            Event::ToMediaserver(text) if text.starts_with("SIP/2.0") => self.mediaserver_gets_response(&text),
            Event::ToMediaserver(text) => self.mediaserver_gets_request(text),
            Event::RepeatRequest { branch, interval_ms } => {
                let client = &self.clients[&branch];
                let method = client.request.split(' ').next().unwrap_or_default().to_owned();
                let waits = client.finals.is_empty() && !(method == "INVITE" && client.provisional);
                if waits && interval_ms < 32_000 {
                    self.mediaserver_sends(client.request.clone());
                    let next = if method == "INVITE" {
                        interval_ms * 2
                    } else {
                        (interval_ms * 2).min(4000)
                    };
                    self.later(
                        next,
                        Event::RepeatRequest {
                            branch,
                            interval_ms: next,
                        },
                    );
                }
            }
            Event::RepeatResponse { branch, interval_ms } => {
                let server = &self.servers[&branch];
                if !server.acknowledged && interval_ms < 32_000 {
                    let text = server.last.clone().expect("a final response");
                    self.mediaserver_sends(text);
                    self.later(
                        (interval_ms * 2).min(4000),
                        Event::RepeatResponse {
                            branch,
                            interval_ms: interval_ms * 2,
                        },
                    );
                }
            }
            Event::Say { branch, status } => self.mediaserver_says(branch, status),
            Event::BrowserSays { request, status } => {
                // Not once it is cancelled.
                let over = !status.starts_with('1') && !self.browser_said.insert(branch_of(&request).to_owned());
                if over {
                    return;
                }
                self.browser_sends(&reply(&request, status, ""));
                if status == "200 OK" && request.starts_with("INVITE") {
                    let interval_ms = 500;
                    self.later(interval_ms, Event::BrowserRepeats { request, interval_ms });
                }
            }
            Event::BrowserRepeats { request, interval_ms } => {
                let call = fields(&request, "Call-ID")[0];
                if interval_ms < 32_000 && !self.browser_acknowledged.contains(call) {
                    self.browser_sends(&reply(&request, "200 OK", ""));
                    let again = Event::BrowserRepeats {
                        request,
                        interval_ms: interval_ms * 2,
                    };
                    self.later((interval_ms * 2).min(4000), again);
                }
            }
            Event::BrowserCancels(invite) => {
                self.browser_sends(&invite.replace("INVITE", "CANCEL"));
            }
            Event::MediaserverCancels(invite) => {
                // RFC 3261 section 9.1: not before a provisional response, not after a final one.
                let client = &self.clients[branch_of(&invite)];
                if client.provisional && client.finals.is_empty() {
                    self.mediaserver_sends(invite.replace("INVITE", "CANCEL"));
                }
            }
        }
    }

    fn browser_sends(&mut self, text: &str) {
        let sent = self.world.browser(self.flow, text);
        self.take(sent);
    }

    fn mediaserver_sends(&mut self, text: String) {
        self.transmit(|| Event::ToBridge(text.clone()));
    }

    fn browser_asks(&mut self, number: u32) {
        let method = if self.one_in(60) { "INVITE" } else { "MESSAGE" };
        let branch = format!("z9hG4bKup{number}");
        let request = lines(&[
            &format!("{method} sip:200@xivo SIP/2.0"),
            &format!("Via: SIP/2.0/WSS a.invalid;branch={branch}"),
            "From: <sip:alice@xivo>;tag=a1",
            "To: <sip:200@xivo>",
            &format!("Call-ID: up-{number}"),
            &format!("CSeq: 1 {method}"),
        ]);
        self.browser_got.insert(branch, Vec::new());
        self.browser_sends(&request);
        if method == "INVITE" && self.one_in(30) {
            let delay = u64::from(self.chance.below(3000));
            self.later(delay, Event::BrowserCancels(request));
        }
    }

    fn mediaserver_asks(&mut self, number: u32) {
        let method = if self.one_in(60) { "INVITE" } else { "NOTIFY" };
        let branch = format!("z9hG4bKdown{number}");
        let request = lines(&[
            &format!("{method} sip:x1@a.invalid SIP/2.0"),
            &format!("Via: SIP/2.0/UDP 10.0.0.2:5060;rport;branch={branch}"),
            "From: <sip:200@xivo>;tag=b1",
            "To: <sip:x1@a.invalid>",
            &format!("Call-ID: down-{number}"),
            &format!("CSeq: 1 {method}"),
            &format!("Route: {}", self.path),
        ]);
        let client = Client {
            request: request.clone(),
            provisional: false,
            finals: Vec::new(),
        };
        self.clients.insert(branch.clone(), client);
        self.mediaserver_sends(request.clone());
        self.later(
            500,
            Event::RepeatRequest {
                branch,
                interval_ms: 500,
            },
        );
        if method == "INVITE" && self.one_in(30) {
            let delay = u64::from(self.chance.below(3000));
            self.later(delay, Event::MediaserverCancels(request));
        }
    }

    fn browser_gets(&mut self, text: String) {
        if text.starts_with("SIP/2.0") {
            let branch = branch_of(&text).to_owned();
            let status = text[8..11].to_owned();
            let method = fields(&text, "CSeq")[0]
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .to_owned();
            if method == "CANCEL" {
                return;
            }
            let is_final = status.as_bytes()[0] >= b'2';
            self.browser_got
                .get_mut(&branch)
                .expect("an answer to what it asked")
                .push(status.clone());
            if method == "INVITE" && is_final {
                // To a 2xx with a branch of its own, else with that of the INVITE.
                let ack = if status.starts_with('2') {
                    format!("{branch}ack")
                } else {
                    branch
                };
                let ack = lines(&[
                    "ACK sip:200@10.0.0.2 SIP/2.0",
                    &format!("Via: SIP/2.0/WSS a.invalid;branch={ack}"),
                    "From: <sip:alice@xivo>;tag=a1",
                    &format!("To: {}", fields(&text, "To")[0]),
                    &format!("Call-ID: {}", fields(&text, "Call-ID")[0]),
                    "CSeq: 1 ACK",
                ]);
                self.browser_sends(&ack);
            }
            return;
        }
        let method = text.split(' ').next().unwrap_or_default().to_owned();
        let asked = self
            .browser_asked
            .entry((branch_of(&text).to_owned(), method.clone()))
            .or_default();
        *asked += 1;
        match method.as_str() {
            "ACK" => {
                self.browser_acknowledged.insert(fields(&text, "Call-ID")[0].to_owned());
            }
            "CANCEL" => {
                self.browser_sends(&reply(&text, "200 OK", ""));
                let request = self.browser_rings[branch_of(&text)].clone();
                let status = "487 Request Terminated";
                self.happen(Event::BrowserSays { request, status });
            }
            "INVITE" => {
                self.browser_rings.insert(branch_of(&text).to_owned(), text.clone());
                let delay = u64::from(self.chance.below(2000));
                if self.one_in(80) {
                    self.later(
                        delay,
                        Event::BrowserSays {
                            request: text.clone(),
                            status: "180 Ringing",
                        },
                    );
                }
                let status = if self.one_in(50) { "200 OK" } else { "486 Busy Here" };
                let answer_after = delay + u64::from(self.chance.below(6000));
                self.later(answer_after, Event::BrowserSays { request: text, status });
            }
            _ => {
                let delay = u64::from(self.chance.below(6000));
                self.later(
                    delay,
                    Event::BrowserSays {
                        request: text,
                        status: "200 OK",
                    },
                );
            }
        }
    }

    fn mediaserver_gets_request(&mut self, text: String) {
        let branch = branch_of(&text).to_owned();
        let method = text.split(' ').next().unwrap_or_default().to_owned();
        match method.as_str() {
            "ACK" => {
                let call = fields(&text, "Call-ID")[0];
                let of_call =
                    |server: &&mut Server| server.method == "INVITE" && fields(&server.request, "Call-ID")[0] == call;
                let server = self.servers.values_mut().find(of_call).expect("an ACK to something");
                assert!(server.is_final, "an ACK before the answer");
                server.acknowledged = true;
            }
            "CANCEL" => {
                self.mediaserver_sends(reply(&text, "200 OK", ""));
                // RFC 3261 section 9.2: it finds the INVITE by its branch, unless that was lost.
                if self.servers.get(&branch).is_some_and(|server| !server.is_final) {
                    self.mediaserver_says(branch, "487 Request Terminated");
                }
            }
            _ => match self.servers.get(&branch) {
                Some(server) => {
                    assert_eq!(server.request, text, "a repeat is the same bytes");
                    // RFC 6026 section 7.1: after a 2xx a repeat is absorbed.
                    let repeat = server
                        .last
                        .clone()
                        .filter(|last| !(method == "INVITE" && last.starts_with("SIP/2.0 2")));
                    if let Some(last) = repeat {
                        self.mediaserver_sends(last);
                    }
                }
                None => self.mediaserver_is_asked(branch, method, text),
            },
        }
    }

    fn mediaserver_is_asked(&mut self, branch: String, method: String, request: String) {
        let invite = method == "INVITE";
        let server = Server {
            request,
            method,
            last: None,
            is_final: false,
            acknowledged: false,
        };
        self.servers.insert(branch.clone(), server);
        let delay = u64::from(self.chance.below(3000));
        if invite && self.one_in(70) {
            self.later(
                delay / 2,
                Event::Say {
                    branch: branch.clone(),
                    status: "100 Trying",
                },
            );
        }
        if invite && self.one_in(70) {
            self.later(
                delay,
                Event::Say {
                    branch: branch.clone(),
                    status: "180 Ringing",
                },
            );
        }
        let status = if !invite || self.one_in(50) {
            "200 OK"
        } else {
            "486 Busy Here"
        };
        let answer_after = delay + u64::from(self.chance.below(3000));
        self.later(answer_after, Event::Say { branch, status });
    }

    fn mediaserver_says(&mut self, branch: String, status: &'static str) {
        let server = self.servers.get_mut(&branch).expect("a request that it got");
        if server.is_final {
            return;
        }
        let text = reply(&server.request, status, "");
        server.last = Some(text.clone());
        server.is_final = !status.starts_with('1');
        if server.is_final && server.method == "INVITE" {
            self.later(
                500,
                Event::RepeatResponse {
                    branch,
                    interval_ms: 500,
                },
            );
        }
        self.mediaserver_sends(text);
    }

    fn mediaserver_gets_response(&mut self, text: &str) {
        let (branch, status) = (branch_of(text).to_owned(), &text[8..11]);
        let cseq = fields(text, "CSeq")[0];
        if cseq.ends_with("CANCEL") {
            return;
        }
        let client = self.clients.get_mut(&branch).expect("an answer to what it asked");
        if status.starts_with('1') {
            client.provisional = true;
            return;
        }
        client.finals.push(status.to_owned());
        if !cseq.ends_with("INVITE") {
            return;
        }
        let branch = if status.starts_with('2') {
            format!("{branch}ack")
        } else {
            branch
        };
        let recorded: Vec<_> = fields(text, "Record-Route").into_iter().rev().collect();
        let route = if recorded.is_empty() {
            self.path.clone()
        } else {
            recorded.join(", ")
        };
        let ack = lines(&[
            "ACK sip:x1@a.invalid SIP/2.0",
            &format!("Via: SIP/2.0/UDP 10.0.0.2:5060;rport;branch={branch}"),
            "From: <sip:200@xivo>;tag=b1",
            &format!("To: {}", fields(text, "To")[0]),
            &format!("Call-ID: {}", fields(text, "Call-ID")[0]),
            "CSeq: 1 ACK",
            &format!("Route: {route}"),
        ]);
        self.mediaserver_sends(ack);
    }

    /// What must hold when all is over.
    fn check(&self) {
        assert_eq!(self.world.bridge.transactions(), 0, "every transaction ends");
        for (branch, responses) in &self.browser_got {
            let finals: Vec<_> = responses.iter().filter(|status| is_final(status)).collect();
            // A final response comes once, but that a 2xx to INVITE is repeated until its ACK arrives.
            let repeats = finals.iter().all(|status| status.starts_with('2'));
            assert!(finals.len() <= 1 || repeats, "{branch}: {responses:?}");
            let first = responses
                .iter()
                .position(|status| is_final(status))
                .unwrap_or(responses.len());
            assert!(
                responses[first..].iter().all(|status| is_final(status)),
                "{branch}: {responses:?}"
            );
        }
        for ((branch, method), times) in &self.browser_asked {
            // The transport is reliable: nothing comes twice, but an ACK to a repeated 2xx or to a failure.
            assert!(*times == 1 || method == "ACK", "{method} {branch}: {times}");
        }
        for client in self.clients.values() {
            let first = client.finals.first();
            assert!(
                client.finals.iter().all(|status| Some(status) == first),
                "{:?}",
                client.finals
            );
            assert!(!(client.request.starts_with("NOTIFY") && first.is_some_and(|status| status == "408")));
        }
    }
}

fn is_final(status: &str) -> bool {
    !status.starts_with('1')
}

fn branch_of(message: &str) -> &str {
    let via = fields(message, "Via")[0];
    let start = via.find("branch=").expect("a branch") + 7;
    via[start..].split(';').next().unwrap_or_default()
}
