//! What does a telephone say by SIP, and what does it answer?

use super::{CALLEES, GIVE_UP, GO_ON, PICK_UP, Phone, Stage};
use crate::{
    peers::sip::{self, Dialog, Digested, Message},
    word,
    world::{
        actor::Cx,
        agenda::{MS, SEC},
        history::Seen,
        site, ws,
    },
};

impl Phone {
    pub(super) fn register(&mut self, cx: &mut Cx<'_>, authorization: Option<&str>) {
        self.registration.2 += 1;
        let (call_id, tag, cseq) = self.registration.clone();
        let uri = format!("sip:{}@pbx.test", self.user());
        let mut request = Message::request("REGISTER", "sip:pbx.test")
            .with("Max-Forwards", 70)
            .with("From", format_args!("<{uri}>;tag={tag}"))
            .with("To", format_args!("<{uri}>"))
            .with("Call-ID", call_id)
            .with("CSeq", format_args!("{cseq} REGISTER"))
            .with("Contact", format_args!("<{}>;expires=600", self.contact))
            .with("Supported", "path, outbound");
        if let Some(authorization) = authorization {
            request = request.with("Authorization", authorization);
        }
        self.say(cx, request);
    }

    /// Would like to get the calls of somebody else.
    pub(super) fn register_as_another(&mut self, cx: &mut Cx<'_>) {
        let uri = format!("sip:user{}@pbx.test", self.number + 1);
        let request = Message::request("REGISTER", "sip:pbx.test")
            .with("Max-Forwards", 70)
            .with("From", format_args!("<{uri}>;tag={}", word()))
            .with("To", format_args!("<{uri}>"))
            .with("Call-ID", word())
            .with("CSeq", "1 REGISTER")
            .with("Contact", format_args!("<{}>;expires=600", self.contact));
        self.say(cx, request);
    }

    pub(super) fn invite(&mut self, cx: &mut Cx<'_>) {
        let callee = *self.choices.pick(&CALLEES);
        let target = format!("sip:{callee}@pbx.test");
        let uri = format!("sip:{}@pbx.test", self.user());
        let request = Message::request("INVITE", &target)
            .with("Max-Forwards", 70)
            .with("From", format_args!("<{uri}>;tag={}", word()))
            .with("To", format_args!("<{target}>"))
            .with("Call-ID", word())
            .with("CSeq", "1 INVITE")
            .with("Contact", format_args!("<{}>", self.contact))
            .with_body("application/sdp", "v=0\r\n");
        let sent = self.say(cx, request);
        self.invites.push((sent, false));
        cx.met("a telephone called");
    }

    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>) {
        let Some((invite, is_cancelled)) = self.invites.iter_mut().find(|(_, is_cancelled)| !is_cancelled) else {
            return;
        };
        *is_cancelled = true;
        let take = |name: &str| invite.field(name).expect("a complete request").to_owned();
        let cancel = Message::request("CANCEL", invite.uri().expect("a request"))
            .with("Via", take("Via"))
            .with("Max-Forwards", 70)
            .with("From", take("From"))
            .with("To", take("To"))
            .with("Call-ID", take("Call-ID"))
            .with("CSeq", "1 CANCEL");
        cx.met("a call was taken back");
        self.say(cx, cancel);
    }

    pub(super) fn within(&mut self, cx: &mut Cx<'_>, method: &str) {
        if self.calls.is_empty() {
            return;
        }
        let place = self.choices.place(self.calls.len());
        let request = self.calls[place].request(method);
        if method == "BYE" {
            self.calls.remove(place);
            cx.met("a telephone hung up");
        }
        self.say(cx, request);
    }

    pub(super) fn message(&mut self, cx: &mut Cx<'_>) {
        let uri = format!("sip:{}@pbx.test", self.user());
        let length = match self.choices.from_to(0, 4) {
            0 => self.choices.from_to(1_000, 9_000),
            _ => self.choices.from_to(0, 300),
        };
        let request = Message::request("MESSAGE", "sip:echo@pbx.test")
            .with("Max-Forwards", 70)
            .with("From", format_args!("<{uri}>;tag={}", word()))
            .with("To", "<sip:echo@pbx.test>")
            .with("Call-ID", word())
            .with("CSeq", "1 MESSAGE")
            .with_body("text/plain", &"m".repeat(length as usize));
        self.say(cx, request);
    }

    /// Says something; a request gets a Via where it has none.
    fn say(&mut self, cx: &mut Cx<'_>, mut message: Message) -> Message {
        if let Some(method) = message.method().map(str::to_owned) {
            if message.field("Via").is_none() {
                let via = format!("SIP/2.0/WSS {};branch={}", self.host, sip::branch());
                message.fields.insert(0, ("Via".to_owned(), via));
            }
            if !matches!(method.as_str(), "ACK" | "CANCEL") {
                self.tokens += 1;
                let branch = message.branch().expect("written above").to_owned();
                self.asked.insert(branch, self.tokens);
                cx.after(45 * SEC, GIVE_UP + self.tokens);
            }
        }
        let flow = self.flow;
        cx.see(&Seen::SipUp {
            flow,
            message: &message,
        });
        cx.note(|| format!("says {}", site::sip_words(&message)));
        self.frame(cx, ws::TEXT, message.to_string().as_bytes());
        message
    }

    pub(super) fn hear_sip(&mut self, cx: &mut Cx<'_>, payload: &[u8]) {
        let Some(message) = std::str::from_utf8(payload).ok().and_then(Message::parse) else {
            if !payload.iter().all(u8::is_ascii_whitespace) {
                cx.checkers.fail(format!("phone {}: no SIP came", self.number));
            }
            return;
        };
        let flow = self.flow;
        cx.see(&Seen::SipDown {
            flow,
            message: &message,
        });
        cx.note(|| format!("hears {}", site::sip_words(&message)));
        match message.status() {
            Some(status) => self.answered(cx, status, &message),
            None => self.requested(cx, &message),
        }
    }

    fn answered(&mut self, cx: &mut Cx<'_>, status: u16, answer: &Message) {
        if status < 200 {
            return;
        }
        let branch = answer.branch().unwrap_or_default().to_owned();
        let method = answer.cseq_method().unwrap_or_default().to_owned();
        if method != "CANCEL" {
            self.asked.remove(&branch);
            // An answer to a challenge comes with the next request.
            self.outcome.push(format!("{method}: {status}"));
        }
        match (method.as_str(), status) {
            ("REGISTER", 401) => {
                let challenge = answer.field("WWW-Authenticate").and_then(Digested::parse);
                let Some(challenge) = challenge else {
                    return cx.checkers.fail("a challenge without one".into());
                };
                let user = self.user();
                let proof = challenge.answer(&user, &format!("secret of {user}"), "REGISTER", "sip:pbx.test");
                self.register(cx, Some(&proof));
            }
            ("REGISTER", 200) => {
                cx.met("a telephone registered");
                if !std::mem::replace(&mut self.is_registered, true) {
                    cx.between(10 * MS, 3 * SEC, GO_ON);
                }
            }
            ("REGISTER", 403) => cx.met("a telephone could not register as another"),
            ("INVITE", 200..300) => {
                // Each 200 is acknowledged (RFC 3261 section 13.2.2.4).
                let mut dialog = Dialog::of_caller(answer);
                let acknowledgement = dialog.request("ACK");
                if self.take_invite(&branch).is_some() {
                    cx.met("a call of a telephone was answered");
                    self.calls.push(dialog);
                }
                self.say(cx, acknowledgement);
            }
            ("INVITE", _) => {
                // RFC 3261 section 17.1.1.3: to the next hop, with the branch of the INVITE.
                if let Some(invite) = self.take_invite(&branch) {
                    let take = |name: &str| invite.field(name).expect("a complete request").to_owned();
                    let acknowledgement = Message::request("ACK", invite.uri().expect("a request"))
                        .with("Via", take("Via"))
                        .with("Max-Forwards", 70)
                        .with("From", take("From"))
                        .with("To", answer.field("To").unwrap_or_default())
                        .with("Call-ID", take("Call-ID"))
                        .with("CSeq", "1 ACK");
                    self.say(cx, acknowledgement);
                }
            }
            _ => {}
        }
    }

    fn take_invite(&mut self, branch: &str) -> Option<Message> {
        let place = self
            .invites
            .iter()
            .position(|(invite, _)| invite.branch() == Some(branch))?;
        Some(self.invites.remove(place).0)
    }

    fn requested(&mut self, cx: &mut Cx<'_>, request: &Message) {
        match request.method() {
            Some("ACK") => {}
            Some("INVITE") => {
                cx.met("a telephone was called");
                self.tokens += 1;
                let tag = word();
                self.say(cx, Message::answer(request, 180, "Ringing", &tag));
                self.ringing.insert(self.tokens, (request.clone(), tag));
                cx.between(100 * MS, 12 * SEC, PICK_UP + self.tokens);
            }
            Some("CANCEL") => {
                self.say(cx, Message::answer(request, 200, "OK", &word()));
                let found = self.ringing.iter();
                let mut found = found.filter(|(_, (invite, _))| invite.branch() == request.branch());
                if let Some(token) = found.next().map(|(token, _)| *token)
                    && let Some((invite, tag)) = self.ringing.remove(&token)
                {
                    self.say(cx, Message::answer(&invite, 487, "Request Terminated", &tag));
                }
            }
            Some(method) => {
                if method == "BYE" {
                    self.calls
                        .retain(|call| Some(call.call_id.as_str()) != request.call_id());
                }
                self.say(cx, Message::answer(request, 200, "OK", &word()));
            }
            None => {}
        }
    }

    pub(super) fn pick_up(&mut self, cx: &mut Cx<'_>, token: u64) {
        let Some((invite, tag)) = self.ringing.remove(&token) else {
            return;
        };
        if !matches!(self.stage, Stage::Open) {
            return;
        }
        if cx.dice.happens(2_000) {
            self.say(cx, Message::answer(&invite, 603, "Decline", &tag));
            return;
        }
        let accepted = Message::answer(&invite, 200, "OK", &tag)
            .with("Contact", format_args!("<{}>", self.contact))
            .with_body("application/sdp", "v=0\r\n");
        cx.met("a telephone picked up");
        self.calls.push(Dialog::of_callee(&invite, &accepted));
        self.say(cx, accepted);
    }
}
