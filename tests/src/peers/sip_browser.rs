//! How does a telephone in a browser behave? A SIP user agent over WebSocket (RFC 7118).

use std::{collections::VecDeque, time::Instant};

use crate::{
    deadline,
    peers::{
        sip::{self, Dialog, Digested, Message},
        websocket::{Declined, Event, Handshake, WebSocketClient},
    },
    word,
};

/// A SIP user agent that has a WebSocket and an account.
#[derive(Debug)]
pub struct SipBrowser {
    /// The WebSocket, for what a user agent would not do.
    pub socket: WebSocketClient,
    account: Account,
    /// The host that stands for this page (RFC 7118 section 5.2).
    host: String,
    contact: String,
    registration: Registration,
    inbox: VecDeque<Message>,
}

/// Who a user agent registers as.
#[derive(Debug, Clone)]
pub struct Account {
    /// User part of the address of record.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Domain of the address of record.
    pub domain: String,
}

#[derive(Debug)]
struct Registration {
    call_id: String,
    tag: String,
    cseq: u32,
}

impl Account {
    /// The account that the model of a mediaserver has for every name.
    pub fn of(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: format!("secret of {user}"),
            domain: "pbx.test".to_owned(),
        }
    }

    /// The address of record.
    pub fn uri(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }
}

impl SipBrowser {
    /// Opens the WebSocket; nothing is sent yet.
    ///
    /// # Errors
    /// When the server does not open it.
    pub fn open(handshake: &Handshake, account: Account) -> Result<Self, Declined> {
        let socket = handshake.clone().with("Sec-WebSocket-Protocol", "sip").open()?;
        let host = format!("{}.invalid", word());
        Ok(Self {
            socket,
            contact: format!("sip:{}@{host};transport=ws", word()),
            host,
            account,
            registration: Registration {
                call_id: word(),
                tag: word(),
                cseq: 0,
            },
            inbox: VecDeque::new(),
        })
    }

    /// The same user agent on a new WebSocket, as after a loss of the network.
    ///
    /// # Errors
    /// When the server does not open it.
    pub fn reopen(&mut self, handshake: &Handshake) -> Result<(), Declined> {
        self.socket = handshake.clone().with("Sec-WebSocket-Protocol", "sip").open()?;
        Ok(())
    }

    /// Opens the WebSocket and registers.
    ///
    /// # Panics
    /// When either fails.
    pub fn registered(handshake: &Handshake, user: &str) -> Self {
        let mut browser = Self::open(handshake, Account::of(user)).expect("a WebSocket");
        browser.register();
        browser
    }

    /// Registers for 600 seconds, with the answer to the challenge, and returns the 200.
    ///
    /// # Panics
    /// When it is refused.
    pub fn register(&mut self) -> Message {
        let challenge = self.try_register(None);
        assert_eq!(challenge.status(), Some(401), "{challenge}");
        let challenge = challenge.field("WWW-Authenticate").and_then(Digested::parse);
        let uri = format!("sip:{}", self.account.domain);
        let authorization =
            challenge
                .expect("a challenge")
                .answer(&self.account.user, &self.account.password, "REGISTER", &uri);
        let accepted = self.try_register(Some(&authorization));
        assert_eq!(accepted.status(), Some(200), "{accepted}");
        accepted
    }

    /// Sends one REGISTER and returns its final answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn try_register(&mut self, authorization: Option<&str>) -> Message {
        self.registration.cseq += 1;
        let uri = self.account.uri();
        let mut request = Message::request("REGISTER", &format!("sip:{}", self.account.domain))
            .with("Max-Forwards", 70)
            .with("From", format_args!("<{uri}>;tag={}", self.registration.tag))
            .with("To", format_args!("<{uri}>"))
            .with("Call-ID", &self.registration.call_id)
            .with("CSeq", format_args!("{} REGISTER", self.registration.cseq))
            .with("Contact", format_args!("<{}>;expires=600", self.contact))
            .with("Supported", "path, outbound");
        if let Some(authorization) = authorization {
            request = request.with("Authorization", authorization);
        }
        let sent = self.send(request);
        self.final_answer(&sent)
    }

    /// Uses the Contact of somebody else from now on.
    pub fn pretend(&mut self, contact: &str) {
        contact.clone_into(&mut self.contact);
    }

    /// Our Contact.
    pub fn contact(&self) -> &str {
        &self.contact
    }

    /// The account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Sends an INVITE for this user of our domain.
    pub fn invite(&mut self, user: &str, offer: &str) -> Message {
        let uri = self.account.uri();
        let target = format!("sip:{user}@{}", self.account.domain);
        let request = Message::request("INVITE", &target)
            .with("Max-Forwards", 70)
            .with("From", format_args!("<{uri}>;tag={}", word()))
            .with("To", format_args!("<{target}>"))
            .with("Call-ID", word())
            .with("CSeq", "1 INVITE")
            .with("Contact", format_args!("<{}>", self.contact))
            .with_body("application/sdp", offer);
        self.send(request)
    }

    /// Waits for the 200 to an INVITE of ours, acknowledges it, and returns it with its dialog.
    ///
    /// # Panics
    /// When another final answer comes, or none.
    pub fn answered(&mut self, invite: &Message) -> (Message, Dialog) {
        let answer = self.final_answer(invite);
        assert_eq!(answer.status(), Some(200), "{answer}");
        let mut dialog = Dialog::of_caller(&answer);
        let acknowledgement = dialog.request("ACK");
        self.send(acknowledgement);
        (answer, dialog)
    }

    /// Takes back an INVITE that has no final answer yet (RFC 3261 section 9.1); returns the answer to the CANCEL.
    ///
    /// # Panics
    /// When none comes.
    pub fn cancel(&mut self, invite: &Message) -> Message {
        let take = |name: &str| invite.field(name).expect("a complete request").to_owned();
        let cancel = Message::request("CANCEL", invite.uri().expect("a request"))
            .with("Via", take("Via"))
            .with("Max-Forwards", 70)
            .with("From", take("From"))
            .with("To", take("To"))
            .with("Call-ID", take("Call-ID"))
            .with("CSeq", "1 CANCEL");
        let sent = self.send(cancel);
        self.final_answer(&sent)
    }

    /// Waits for an INVITE.
    ///
    /// # Panics
    /// When none comes.
    pub fn invited(&mut self) -> Message {
        self.expect("an INVITE", |message| message.method() == Some("INVITE"))
    }

    /// Accepts an INVITE, waits for the ACK, and returns the dialog.
    ///
    /// # Panics
    /// When no ACK comes.
    pub fn accept(&mut self, invite: &Message, answer: &str) -> Dialog {
        let tag = word();
        self.send(Message::answer(invite, 180, "Ringing", &tag));
        let accepted = Message::answer(invite, 200, "OK", &tag)
            .with("Contact", format_args!("<{}>", self.contact))
            .with_body("application/sdp", answer);
        self.send(accepted.clone());
        self.expect("an ACK", |message| {
            message.method() == Some("ACK") && message.call_id() == invite.call_id()
        });
        Dialog::of_callee(invite, &accepted)
    }

    /// Sends a request within a dialog and returns its final answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn request(&mut self, dialog: &mut Dialog, method: &str) -> Message {
        let request = dialog.request(method);
        let sent = self.send(request);
        self.final_answer(&sent)
    }

    /// Waits for a request with this method and answers it with 200.
    ///
    /// # Panics
    /// When none comes.
    pub fn requested(&mut self, method: &str) -> Message {
        let request = self.expect(method, |message| message.method() == Some(method));
        self.send(Message::answer(&request, 200, "OK", &word()));
        request
    }

    /// Sends a message, with a Via of our own where it is a request without one; returns it as it went.
    pub fn send(&mut self, mut message: Message) -> Message {
        if message.method().is_some() && message.field("Via").is_none() {
            let via = format!("SIP/2.0/WSS {};branch={}", self.host, sip::branch());
            message.fields.insert(0, ("Via".to_owned(), via));
        }
        self.socket.send_text(&message.to_string());
        message
    }

    /// The final answer to a request; provisional ones are passed over.
    ///
    /// # Panics
    /// When none comes.
    pub fn final_answer(&mut self, request: &Message) -> Message {
        self.expect(&format!("a final answer to {}", request.start), |message| {
            message.status().is_some_and(|status| status >= 200) && answers(message, request)
        })
    }

    /// A provisional answer to a request.
    ///
    /// # Panics
    /// When none comes.
    pub fn provisional(&mut self, request: &Message, status: u16) -> Message {
        self.expect(&format!("{status} to {}", request.start), |message| {
            message.status() == Some(status) && answers(message, request)
        })
    }

    /// Waits for a message; others are kept in their order.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        if let Some(place) = self.inbox.iter().position(&wanted) {
            return self.inbox.remove(place).expect("a message at that place");
        }
        let deadline = deadline();
        loop {
            let Some(message) = self.read(deadline) else {
                panic!("{} waits for {what}, has {:?}", self.account.user, self.inbox);
            };
            if wanted(&message) {
                return message;
            }
            self.inbox.push_back(message);
        }
    }

    /// The next message in the order of their coming.
    pub fn receive(&mut self, deadline: Instant) -> Option<Message> {
        self.inbox.pop_front().or_else(|| self.read(deadline))
    }

    fn read(&mut self, deadline: Instant) -> Option<Message> {
        loop {
            let text = match self.socket.next(deadline)? {
                Event::Text(text) => text,
                Event::Binary(bytes) => String::from_utf8(bytes).expect("a SIP message"),
                Event::Ping | Event::Pong => continue,
                end @ (Event::Close(_) | Event::Gone) => {
                    panic!("the WebSocket of {} ended: {end:?}", self.account.user);
                }
            };
            // RFC 5626 section 3.5.1: an empty line keeps the flow alive.
            if !text.trim().is_empty() {
                return Some(Message::parse(&text).unwrap_or_else(|| panic!("no SIP message: {text:?}")));
            }
        }
    }
}

/// RFC 3261 section 17.1.3.
fn answers(message: &Message, request: &Message) -> bool {
    message.branch() == request.branch() && message.cseq_method() == request.method()
}
