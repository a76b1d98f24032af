//! Does each SIP message reach whom it is for, and does each request get one final answer?

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    peers::sip::{self, Message},
    world::{
        agenda::{SEC, Time},
        history::Seen,
    },
};

/// Who has asked what.
#[derive(Debug, Default)]
pub struct Sip {
    flows: BTreeMap<u64, Flow>,
    /// Requests of browsers, by branch and method.
    asked: BTreeMap<(String, String), Asked>,
    /// Requests of mediaservers, with the final status.
    called: BTreeMap<(String, String), Option<u16>>,
    /// What browsers have said of themselves: the users of their Contacts.
    contacts: BTreeMap<usize, BTreeSet<String>>,
    /// Call-ID, number and method of everything that a browser has asked.
    known: BTreeSet<(String, u32, String)>,
    /// By which WebSocket a call began, by its Call-ID.
    callers: BTreeMap<String, u64>,
    /// Which user registers, by Call-ID.
    registrants: BTreeMap<String, usize>,
    is_draining: bool,
    /// Until when a mediaserver does not answer.
    deaf_until: Time,
    /// Connections with mediaservers may be among those that were cut: what was said there is lost.
    has_cut: bool,
}

#[derive(Debug)]
struct Flow {
    user: usize,
    tcp: u32,
    is_open: bool,
    /// The network has broken it, which the browser may not know.
    is_cut: bool,
}

#[derive(Debug)]
struct Asked {
    flow: u64,
    at: Time,
    /// Whether somebody is told of it.
    is_ringing: bool,
    status: Option<u16>,
}

/// How long a request may be without a final answer: RFC 3261 section 17.1.2.2 gives up after 32 s, and a stream may stall;
/// a callee of ours rings for 25 s at the most.
const PATIENCE: Time = 60 * SEC;
const PATIENCE_RINGING: Time = 120 * SEC;

impl Sip {
    /// Something has happened.
    ///
    /// # Errors
    /// With what must not be.
    pub fn see(&mut self, now: Time, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::FlowOpened { flow, user, tcp } => {
                let opened = Flow {
                    user: *user,
                    tcp: *tcp,
                    is_open: true,
                    is_cut: false,
                };
                self.flows.insert(*flow, opened);
                Ok(())
            }
            Seen::TokenShown { status, holds } => match (*status, *holds) {
                (101, false) => Err("a WebSocket opened to a token that does not hold".into()),
                (401 | 403, true) => Err(format!("a token that holds was refused with {status}")),
                _ => Ok(()),
            },
            Seen::FlowClosed { flow } => {
                if let Some(flow) = self.flows.get_mut(flow) {
                    flow.is_open = false;
                }
                Ok(())
            }
            Seen::Deaf { until } => {
                self.deaf_until = self.deaf_until.max(*until);
                Ok(())
            }
            Seen::Cut { tcp } => {
                self.has_cut = true;
                let cut = self.flows.values_mut().filter(|flow| flow.tcp == *tcp);
                cut.for_each(|flow| flow.is_cut = true);
                Ok(())
            }
            Seen::SipUp { flow, message } => {
                self.said(now, *flow, message);
                Ok(())
            }
            Seen::SipDown { flow, message } => self.heard(*flow, message),
            Seen::TrunkUp { message } => {
                if let Some(method) = message.method() {
                    self.called.entry(key(message, method)).or_default();
                }
                Ok(())
            }
            Seen::TrunkDown { message } => self.trunk_heard(message),
            Seen::Draining => {
                self.is_draining = true;
                Ok(())
            }
            Seen::Held { shard: 0, .. } => self.overdue(now),
            _ => Ok(()),
        }
    }

    fn said(&mut self, now: Time, flow: u64, message: &Message) {
        let user = self.flows[&flow].user;
        if let Some(contact) = message.contact().and_then(user_of) {
            self.contacts.entry(user).or_default().insert(contact.to_owned());
        }
        let Some(method) = message.method() else { return };
        let known = (message.call_id(), message.cseq());
        if let (Some(call), Some(cseq)) = known {
            self.known.insert((call.to_owned(), cseq, method.to_owned()));
        }
        if let ("INVITE", Some(call)) = (method, message.call_id()) {
            self.callers.insert(call.to_owned(), flow);
        }
        if let ("REGISTER", Some(call)) = (method, message.call_id()) {
            self.registrants.insert(call.to_owned(), user);
        }
        if method != "ACK" {
            let asked = Asked {
                flow,
                at: now,
                is_ringing: false,
                status: None,
            };
            self.asked.insert(key(message, method), asked);
        }
    }

    fn heard(&mut self, flow: u64, message: &Message) -> Result<(), String> {
        let user = self.flows[&flow].user;
        let Some(status) = message.status() else {
            let called = message.uri().and_then(user_of).unwrap_or_default();
            let is_own = self
                .contacts
                .get(&user)
                .is_some_and(|contacts| contacts.contains(called));
            return match is_own {
                true => Ok(()),
                false => Err(format!(
                    "user {user} was sent {}, which is for somebody else",
                    message.start
                )),
            };
        };
        let method = message.cseq_method().unwrap_or_default();
        let Some(asked) = self.asked.get_mut(&key(message, method)) else {
            return Err(format!("user {user} was sent {status} to {method}, which nobody asked"));
        };
        let asker = &self.flows[&asked.flow];
        if asker.user != user {
            return Err(format!(
                "user {user} was sent {status} to {method} of user {}",
                asker.user
            ));
        }
        if asker.is_open && asked.flow != flow {
            return Err(format!(
                "{status} to {method} of flow {:#x} came by {flow:#x}",
                asked.flow
            ));
        }
        if status < 200 {
            asked.is_ringing |= status > 100;
            return match asked.status {
                Some(last) => Err(format!("user {user} was sent {status} to {method} behind {last}")),
                None => Ok(()),
            };
        }
        // RFC 3261 section 16.7: a 200 to INVITE is passed on as often as it comes. A refusal whose ACK was lost with the
        // WebSocket is said again on the next one.
        let may_repeat = (200..300).contains(&status) || asked.flow != flow;
        let is_again = method == "INVITE" && asked.status == Some(status) && may_repeat;
        match asked.status.replace(status) {
            Some(last) if !is_again => Err(format!("user {user} was sent {status} to {method}, and {last} before")),
            _ => Ok(()),
        }
    }

    fn trunk_heard(&mut self, message: &Message) -> Result<(), String> {
        if let Some(status) = message.status() {
            let method = message.cseq_method().unwrap_or_default();
            let Some(last) = self.called.get_mut(&key(message, method)) else {
                return Err(format!(
                    "a mediaserver was sent {status} to {method}, which it had not asked"
                ));
            };
            if status < 200 {
                return Ok(());
            }
            return match last.replace(status) {
                Some(last) if last != status => Err(format!(
                    "a mediaserver was sent {status} to {method}, and {last} before"
                )),
                _ => Ok(()),
            };
        }
        let method = message.method().unwrap_or_default();
        let (call, cseq) = (
            message.call_id().unwrap_or_default(),
            message.cseq().unwrap_or_default(),
        );
        let is_known = |method: &str| self.known.contains(&(call.to_owned(), cseq, method.to_owned()));
        let registrant = self.registrants.get(call).filter(|_| method == "REGISTER");
        if let (Some(user), Some(to)) = (registrant, message.field("To").and_then(sip::address).and_then(user_of))
            && to != format!("user{user}")
        {
            return Err(format!("user {user} has registered as {to}"));
        }
        // What the edge says by itself: whether somebody is there, what ends an INVITE hop by hop, and what ends a call
        // that was answered when its caller had gone.
        let caller = self.callers.get(call).and_then(|flow| self.flows.get(flow));
        let is_own = match method {
            "OPTIONS" => true,
            "ACK" | "CANCEL" => is_known("INVITE"),
            "BYE" => self.is_draining || caller.is_some_and(|flow| !flow.is_open || flow.is_cut),
            _ => false,
        };
        match is_known(method) || is_own {
            true => Ok(()),
            false => Err(format!("a mediaserver was sent {method}, which no browser had said")),
        }
    }

    /// Whether a request has waited for too long, although nothing stood in its way.
    fn overdue(&self, now: Time) -> Result<(), String> {
        if self.is_draining {
            return Ok(());
        }
        let waiting = self.asked.iter().filter(|(_, asked)| asked.status.is_none());
        for ((branch, method), asked) in waiting {
            let flow = &self.flows[&asked.flow];
            let patience = if asked.is_ringing { PATIENCE_RINGING } else { PATIENCE };
            // RFC 4320 section 4.2: what is not an INVITE, and is lost, gets no 408. Only what is large goes by TCP.
            let is_lost = method != "INVITE" && asked.at < self.deaf_until || self.has_cut && method == "MESSAGE";
            if flow.is_open && !flow.is_cut && !is_lost && now > asked.at + patience {
                return Err(format!("user {} was never answered {method} ({branch})", flow.user));
            }
        }
        Ok(())
    }
}

fn key(message: &Message, method: &str) -> (String, String) {
    (message.branch().unwrap_or_default().to_owned(), method.to_owned())
}

fn user_of(uri: &str) -> Option<&str> {
    Some(uri.split_once(':')?.1.split_once('@')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Message {
        Message::request("INVITE", "sip:echo@pbx.test")
            .with("Via", "SIP/2.0/WSS a.invalid;branch=z9hG4bKa")
            .with("Call-ID", "call")
            .with("CSeq", "1 INVITE")
            .with("Contact", "<sip:me@a.invalid>")
    }

    fn answer(status: u16) -> Message {
        Message::answer(&invite(), status, "Whatever", "tag")
    }

    /// Two users, of whom the first has called.
    fn check(then: &[(Time, Seen<'_>)]) -> Result<(), String> {
        let mut sip = Sip::default();
        for (flow, user, tcp) in [(1, 1, 1), (2, 2, 2)] {
            sip.see(0, &Seen::FlowOpened { flow, user, tcp })?;
        }
        let message = &invite();
        sip.see(0, &Seen::SipUp { flow: 1, message })?;
        then.iter().try_for_each(|(now, seen)| sip.see(*now, seen))
    }

    #[test]
    fn answers_that_go_wrong_are_found() {
        let down = |flow, message| (0, Seen::SipDown { flow, message });
        let (ringing, ok, busy) = (&answer(180), &answer(200), &answer(486));
        assert_eq!(check(&[down(1, ringing), down(1, ok), down(1, ok)]), Ok(()));
        check(&[down(2, ringing)]).expect_err("somebody else");
        check(&[down(1, busy), down(1, busy)]).expect_err("twice");
        check(&[down(1, ok), down(1, busy)]).expect_err("both");
        check(&[down(1, ok), down(1, ringing)]).expect_err("too late");
        let mut other = answer(200);
        other.fields[0].1 = "SIP/2.0/WSS a.invalid;branch=z9hG4bKb".into();
        check(&[down(1, &other)]).expect_err("nobody asked");
    }

    #[test]
    fn a_token_that_is_misjudged_is_found() {
        let shown = |status, holds| check(&[(0, Seen::TokenShown { status, holds })]);
        assert_eq!(
            [shown(101, true), shown(401, false), shown(503, true)],
            [Ok(()), Ok(()), Ok(())]
        );
        shown(101, false).expect_err("it does not hold");
        shown(401, true).expect_err("it holds");
    }

    #[test]
    fn who_registers_as_another_is_found() {
        let register = |user: &str| {
            Message::request("REGISTER", "sip:pbx.test")
                .with("To", format_args!("<sip:{user}@pbx.test>"))
                .with("Call-ID", "registration")
                .with("CSeq", "1 REGISTER")
        };
        let heard =
            |message: &Message| check(&[(0, Seen::SipUp { flow: 1, message }), (0, Seen::TrunkDown { message })]);
        assert_eq!(heard(&register("user1")), Ok(()));
        heard(&register("user2")).expect_err("another user");
    }

    #[test]
    fn a_request_without_an_answer_is_found() {
        let look_at = |time| (time, Seen::Held { shard: 0, gauges: &[] });
        let look = || look_at(121 * SEC);
        let late = |first| check(&[(0, first), look()]);
        check(&[look()]).expect_err("never answered");
        let message = &answer(180);
        let ringing = (0, Seen::SipDown { flow: 1, message });
        assert_eq!(check(&[ringing, look_at(119 * SEC)]), Ok(()));
        let ringing = (0, Seen::SipDown { flow: 1, message });
        check(&[ringing, look()]).expect_err("never answered, although it rang");
        let message = &answer(486);
        assert_eq!(late(Seen::SipDown { flow: 1, message }), Ok(()));
        assert_eq!(late(Seen::FlowClosed { flow: 1 }), Ok(()));
        assert_eq!(late(Seen::Cut { tcp: 1 }), Ok(()));
        late(Seen::Cut { tcp: 2 }).expect_err("another one was cut");
    }

    #[test]
    fn requests_that_go_wrong_are_found() {
        let for_first = &Message::request("BYE", "sip:me@a.invalid");
        assert_eq!(
            check(&[(
                0,
                Seen::SipDown {
                    flow: 1,
                    message: for_first
                }
            )]),
            Ok(())
        );
        check(&[(
            0,
            Seen::SipDown {
                flow: 2,
                message: for_first,
            },
        )])
        .expect_err("for somebody else");
        let message = &invite();
        assert_eq!(check(&[(0, Seen::TrunkDown { message })]), Ok(()));
        let message = &Message {
            start: "MESSAGE sip:a@b SIP/2.0".into(),
            ..invite()
        };
        check(&[(0, Seen::TrunkDown { message })]).expect_err("nobody said that");
        let message = &answer(200);
        check(&[(0, Seen::TrunkDown { message })]).expect_err("no mediaserver asked that");
    }
}
