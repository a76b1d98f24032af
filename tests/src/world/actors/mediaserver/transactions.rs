//! What does a mediaserver say again, and until when? Its transactions (RFC 3261 section 17).

use super::{Mediaserver, REPEAT, Repeated, T1, T2, Way, user_number};
use crate::{
    peers::sip::{self, Dialog, Message},
    world::{actor::Cx, history::Seen, site},
};

impl Mediaserver {
    /// Sends a final answer, that to an INVITE until it is acknowledged.
    pub(super) fn answer(&mut self, cx: &mut Cx<'_>, request: &Message, answer: Message, to: Way) {
        let method = request.method().unwrap_or_default().to_owned();
        let key = (request.branch().unwrap_or_default().to_owned(), method.clone());
        self.served.insert(key, Some((answer.clone(), to)));
        self.transmit(cx, &answer, to);
        if method == "INVITE" {
            self.repeat(cx, answer, to);
        }
    }

    fn repeat(&mut self, cx: &mut Cx<'_>, message: Message, to: Way) {
        self.tokens += 1;
        let repeated = Repeated {
            message,
            to,
            interval: T1,
            until: cx.now() + 64 * T1,
            is_proceeding: false,
        };
        self.repeated.insert(self.tokens, repeated);
        cx.after(T1, REPEAT + self.tokens);
    }

    pub(super) fn say_again(&mut self, cx: &mut Cx<'_>, token: u64) {
        let Some(repeated) = self.repeated.get_mut(&token) else {
            return;
        };
        if cx.now() >= repeated.until {
            self.repeated.remove(&token);
            return;
        }
        let is_invite = repeated.message.method() == Some("INVITE");
        repeated.interval = match is_invite {
            true => repeated.interval * 2,
            false => (repeated.interval * 2).min(T2),
        };
        let (message, to, interval) = (repeated.message.clone(), repeated.to, repeated.interval);
        if !repeated.is_proceeding {
            self.transmit(cx, &message, to);
        }
        cx.after(interval, REPEAT + token);
    }

    /// Sends a request of ours to where its Route or its URI points, until it is answered.
    pub(super) fn ask(&mut self, cx: &mut Cx<'_>, mut request: Message) {
        let via = format!("SIP/2.0/UDP {};rport;branch={}", self.at, sip::branch());
        request.fields.insert(0, ("Via".to_owned(), via));
        let next = request.field("Route").and_then(sip::address).or(request.uri());
        let Some(to) = next.and_then(sip::socket_address).map(Way::Udp) else {
            return cx
                .checkers
                .fail(format!("a mediaserver knows no way for {}", request.start));
        };
        self.transmit(cx, &request, to);
        if request.method() != Some("ACK") {
            self.repeat(cx, request, to);
        }
    }

    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, answer: &Message) {
        let status = answer.status().unwrap_or_default();
        let found = self.repeated.iter_mut().find(|(_, repeated)| {
            repeated.message.method() == answer.cseq_method() && repeated.message.branch() == answer.branch()
        });
        let is_invite = answer.cseq_method() == Some("INVITE");
        match (found, status) {
            (Some((_, repeated)), 100..200) => repeated.is_proceeding = is_invite,
            (Some((token, _)), 200..300) => {
                let token = *token;
                self.repeated.remove(&token);
                if is_invite {
                    cx.met("a call of a mediaserver was answered");
                    let mut dialog = Dialog::of_caller(answer);
                    let acknowledgement = dialog.request("ACK");
                    self.line(user_number(answer)).calls.push(dialog);
                    self.ask(cx, acknowledgement);
                }
            }
            // A 200 that was repeated is acknowledged again.
            (None, 200..300) if is_invite => {
                let acknowledgement = Dialog::of_caller(answer).request("ACK");
                self.ask(cx, acknowledgement);
            }
            (Some((token, repeated)), 300..) => {
                let (token, invite, to) = (*token, repeated.message.clone(), repeated.to);
                self.repeated.remove(&token);
                if is_invite {
                    self.acknowledge(cx, &invite, answer, to);
                }
            }
            _ => {}
        }
    }

    /// RFC 3261 section 17.1.1.3.
    fn acknowledge(&self, cx: &mut Cx<'_>, invite: &Message, answer: &Message, to: Way) {
        let copied = |name: &str| invite.field(name).unwrap_or_default().to_owned();
        let mut acknowledgement = Message::request("ACK", invite.uri().unwrap_or_default()).with("Via", copied("Via"));
        for route in invite.all("Route") {
            acknowledgement = acknowledgement.with("Route", route);
        }
        let acknowledgement = acknowledgement
            .with("Max-Forwards", 70)
            .with("From", copied("From"))
            .with("To", answer.field("To").unwrap_or_default())
            .with("Call-ID", copied("Call-ID"))
            .with("CSeq", "1 ACK");
        self.transmit(cx, &acknowledgement, to);
    }

    pub(super) fn transmit(&self, cx: &mut Cx<'_>, message: &Message, to: Way) {
        cx.see(&Seen::TrunkUp { message });
        match to {
            Way::Udp(to) => cx.send(self.at, to, message.to_string().as_bytes()),
            Way::Tcp(end) => {
                cx.met("a mediaserver spoke by TCP");
                cx.note(|| format!("says by TCP {}", site::sip_words(message)));
                cx.net.send(end, message.to_string().as_bytes());
            }
        }
    }
}
