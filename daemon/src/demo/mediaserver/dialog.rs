//! What do two user agents share while a call lasts? A dialog (RFC 3261 section 12): tags, counters and a route set.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::{
    agent::{Agent, DialogKey, Invitation, Request, tag},
    sip::{Message, uri_of},
};
use crate::demo::directory::{hex, random};

/// RFC 3261 section 8.1.1.6.
const MAX_FORWARDS: &str = "70";

/// Our end of a dialog.
#[derive(Debug)]
pub(super) struct Dialog {
    agent: Rc<Agent>,
    key: DialogKey,
    /// Our From or To with its tag.
    local: String,
    /// The other side's.
    remote: String,
    /// The other side's Contact.
    target: String,
    routes: Vec<String>,
    cseq: u32,
    remote_cseq: Option<u32>,
    requests: mpsc::Receiver<Request>,
}

impl Dialog {
    /// The dialog that an INVITE asks for (RFC 3261 section 12.1.1).
    pub(super) fn accepting(agent: &Rc<Agent>, invite: &Message) -> Option<Self> {
        let tag = tag();
        let key = (invite.header("Call-ID")?.to_owned(), tag.clone());
        invite.tag("From")?;
        Some(Self {
            agent: Rc::clone(agent),
            local: format!("{};tag={tag}", invite.header("To")?),
            remote: invite.header("From")?.into(),
            target: uri_of(invite.values("Contact").next()?).into(),
            routes: invite.values("Record-Route").map(str::to_owned).collect(),
            cseq: 0,
            remote_cseq: invite.cseq().map(|(number, _)| number),
            requests: agent.open_dialog(key.clone()),
            key,
        })
    }

    /// A dialog that we ask for, and its INVITE, which goes by `path` to the Contact `target`.
    pub(super) fn calling(agent: &Rc<Agent>, from: &str, to: &str, target: &str, path: &[String]) -> (Self, Message) {
        let tag = tag();
        let key = (format!("{}@{}", hex(&random::<8>()), agent.local().ip()), tag.clone());
        let mut dialog = Self {
            agent: Rc::clone(agent),
            local: format!("<{from}>;tag={tag}"),
            remote: format!("<{to}>"),
            target: target.into(),
            routes: path.to_vec(),
            cseq: 0,
            remote_cseq: None,
            requests: agent.open_dialog(key.clone()),
            key,
        };
        let invite = dialog.invite();
        (dialog, invite)
    }

    /// Takes what the 2xx to our INVITE says (RFC 3261 section 12.1.2).
    pub(super) fn confirm(&mut self, response: &Message) -> Option<()> {
        response.tag("To")?;
        self.remote = response.header("To")?.into();
        self.target = uri_of(response.values("Contact").next()?).into();
        self.routes = response.values("Record-Route").rev().map(str::to_owned).collect();
        Some(())
    }

    /// The next request of the other side, in order.
    pub(super) async fn request(&mut self) -> Request {
        loop {
            let Some(request) = self.requests.recv().await else {
                // Nobody but we closes the dialog.
                std::future::pending::<()>().await;
                continue;
            };
            let Some((number, method)) = request.message.cseq() else {
                continue;
            };
            if method == "ACK" {
                return request;
            }
            // RFC 3261 section 12.2.2: what was overtaken is out of order.
            if self.remote_cseq.is_some_and(|last| number <= last) {
                self.respond(&request, 500);
                continue;
            }
            self.remote_cseq = Some(number);
            if method == "INVITE"
                && let Some(contact) = request.message.values("Contact").next()
            {
                self.target = uri_of(contact).into();
            }
            return request;
        }
    }

    /// A request within the dialog (RFC 3261 section 12.2.1.1).
    pub(super) fn new_request(&mut self, method: &str) -> Message {
        self.cseq += 1;
        self.numbered(method, self.cseq)
    }

    /// An INVITE within the dialog, or the one that asks for it.
    pub(super) fn invite(&mut self) -> Message {
        self.new_request("INVITE").with("Contact", self.contact())
    }

    /// Acknowledges the 2xx to an INVITE of ours (RFC 3261 section 13.2.2.4).
    pub(super) fn acknowledge(&self, invitation: &Invitation, response: &Message) {
        let number = response.cseq().map_or(self.cseq, |(number, _)| number);
        self.agent.acknowledge(invitation, self.numbered("ACK", number));
    }

    /// Answers a request within the dialog without a body.
    pub(super) fn respond(&self, request: &Request, status: u16) {
        self.agent.respond(request, &self.response(request, status));
    }

    pub(super) fn response(&self, request: &Request, status: u16) -> Message {
        let response = request.message.response(status, &self.key.1);
        match (request.message.method(), status) {
            ("INVITE", 101..300) => response.with("Contact", self.contact()),
            _ => response,
        }
    }

    /// Ends the call.
    pub(super) async fn bye(mut self) {
        let bye = self.new_request("BYE");
        // There is nothing to be done about a BYE that nobody answers.
        let _ = self.agent.exchange(bye).await;
    }

    fn numbered(&self, method: &str, number: u32) -> Message {
        let mut request = Message::request(method, &self.target)
            .with("From", self.local.clone())
            .with("To", self.remote.clone())
            .with("Call-ID", self.key.0.clone())
            .with("CSeq", format!("{number} {method}"))
            .with("Max-Forwards", MAX_FORWARDS);
        for route in &self.routes {
            request.push("Route", route.clone());
        }
        request
    }

    fn contact(&self) -> String {
        format!("<sip:{}>", self.agent.local())
    }
}

impl Drop for Dialog {
    fn drop(&mut self) {
        self.agent.close_dialog(&self.key);
    }
}
