//! How does a request of ours get its answer? Client transactions (RFC 3261 section 17.1).

use std::{net::SocketAddr, rc::Rc};

use tokio::{
    sync::mpsc,
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    super::sip::{Message, Uri, param, uri_of},
    Agent, QUEUE_MAX, T1, T2, TRANSACTION_TIMEOUT,
};
use crate::demo::directory::{hex, random};

/// RFC 3261 section 17.1.3: branch and method of a request of ours.
pub(super) type ClientKey = (String, String);

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Client {
    responses: mpsc::Sender<Message>,
    /// What a repeated final response of an INVITE is answered with.
    ack: Option<(Vec<u8>, SocketAddr)>,
}

impl Agent {
    /// Sends a request that is no INVITE and waits for its final response; nothing when none comes.
    pub(in super::super) async fn exchange(self: &Rc<Self>, request: Message) -> Option<Message> {
        self.exchange_on(request, &branch()).await
    }

    async fn exchange_on(self: &Rc<Self>, request: Message, branch: &str) -> Option<Message> {
        let mut sent = self.begin(request, branch)?;
        let answered = async {
            loop {
                let response = sent.responses.recv().await?;
                if response.status() >= 200 {
                    return Some(response);
                }
            }
        };
        tokio::select! {
            response = answered => response,
            () = self.repeat(&sent.bytes, sent.to, T1, T2) => None,
        }
    }

    /// Sends an INVITE.
    pub(in super::super) fn invite(self: &Rc<Self>, request: Message) -> Option<Invitation> {
        let sent = self.begin(request.clone(), &branch())?;
        Some(Invitation {
            agent: Rc::clone(self),
            request,
            answered: false,
            sent,
        })
    }

    /// Sends an ACK for a 2xx, again for each repeat of it. Its branch is new (RFC 3261 section 13.2.2.4).
    pub(in super::super) fn acknowledge(self: &Rc<Self>, invitation: &Invitation, ack: Message) {
        self.remember_ack(invitation, ack, &branch());
    }

    /// Brings a response to its request.
    pub(super) fn response(&self, message: Message) {
        let Some(branch) = message.values("Via").next().and_then(|via| param(via, "branch")) else {
            return;
        };
        let clients = self.clients.borrow();
        let Some(client) = clients.get(&(branch.to_owned(), message.method().to_owned())) else {
            return;
        };
        match &client.ack {
            // RFC 3261 sections 13.2.2.4 and 17.1.1.2: each repeat of the final response is acknowledged.
            Some((ack, to)) if message.status() >= 200 => self.send(ack, *to),
            _ => {
                let _ = client.responses.try_send(message);
            }
        }
    }

    /// Sends a request for the first time, to the first of its route set or else to its Request-URI.
    fn begin(self: &Rc<Self>, request: Message, branch: &str) -> Option<Sent> {
        let key = (branch.to_owned(), request.method().to_owned());
        let (bytes, to) = self.address(request, branch)?;
        let (sender, responses) = mpsc::channel(QUEUE_MAX);
        let client = Client {
            responses: sender,
            ack: None,
        };
        self.clients.borrow_mut().insert(key.clone(), client);
        self.send(&bytes, to);
        Some(Sent {
            agent: Rc::clone(self),
            key,
            bytes,
            to,
            responses,
        })
    }

    /// Puts our Via on top and finds out where a request goes.
    fn address(&self, mut request: Message, branch: &str) -> Option<(Vec<u8>, SocketAddr)> {
        // RFC 3261 section 8.1.2; all proxies here are loose routers.
        let next = request.values("Route").next().map_or_else(|| request.uri(), uri_of);
        let to = Uri::parse(next)?.address()?;
        request.push_front("Via", format!("SIP/2.0/UDP {};branch={branch};rport", self.local));
        Some((request.write(), to))
    }

    fn remember_ack(&self, invitation: &Invitation, ack: Message, branch: &str) {
        let Some((bytes, to)) = self.address(ack, branch) else {
            return;
        };
        self.send(&bytes, to);
        if let Some(client) = self.clients.borrow_mut().get_mut(&invitation.sent.key) {
            client.ack = Some((bytes, to));
        }
    }
}

/// A request on its way.
#[derive(Debug)]
struct Sent {
    agent: Rc<Agent>,
    key: ClientKey,
    bytes: Vec<u8>,
    to: SocketAddr,
    responses: mpsc::Receiver<Message>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        let key = std::mem::take(&mut self.key);
        let mut clients = self.agent.clients.borrow_mut();
        if clients.get(&key).is_none_or(|client| client.ack.is_none()) {
            clients.remove(&key);
            return;
        }
        // Repeats of its final response are still to be acknowledged for a while.
        let agent = Rc::clone(&self.agent);
        spawn_local(async move {
            sleep(TRANSACTION_TIMEOUT).await;
            agent.clients.borrow_mut().remove(&key);
        });
    }
}

/// An INVITE of ours.
#[derive(Debug)]
pub(in super::super) struct Invitation {
    agent: Rc<Agent>,
    request: Message,
    answered: bool,
    sent: Sent,
}

impl Invitation {
    /// The next response, provisional or final; nothing when there is none in time. A failure is acknowledged here.
    pub(in super::super) async fn response(&mut self) -> Option<Message> {
        let response = if self.answered {
            self.sent.responses.recv().await?
        } else {
            // RFC 3261 section 17.1.1.2: repeated (Timer A, without the limit of T2) until anything answers.
            tokio::select! {
                response = self.sent.responses.recv() => response?,
                () = self.agent.repeat(&self.sent.bytes, self.sent.to, T1, TRANSACTION_TIMEOUT) => return None,
            }
        };
        self.answered = true;
        if response.status() >= 300 {
            let mut ack = self.hop_by_hop("ACK");
            ack.set("To", response.header("To")?.to_owned());
            self.agent.remember_ack(self, ack, &self.sent.key.0);
        }
        Some(response)
    }

    /// Takes the INVITE back (RFC 3261 section 9.1) and waits for its end: a success may have been faster.
    pub(in super::super) async fn cancel(&mut self) -> Option<Message> {
        // A CANCEL may only follow a provisional response.
        while !self.answered {
            let response = self.response().await?;
            if response.status() >= 200 {
                return Some(response);
            }
        }
        let (agent, cancel, branch) = (
            Rc::clone(&self.agent),
            self.hop_by_hop("CANCEL"),
            self.sent.key.0.clone(),
        );
        spawn_local(async move { agent.exchange_on(cancel, &branch).await });
        let end = async {
            loop {
                let response = self.response().await?;
                if response.status() >= 200 {
                    return Some(response);
                }
            }
        };
        timeout(TRANSACTION_TIMEOUT, end).await.ok().flatten()
    }

    /// RFC 3261 sections 9.1 and 17.1.1.3: what a request that belongs to the INVITE's own hop is made of.
    fn hop_by_hop(&self, method: &str) -> Message {
        let mut request = Message::request(method, self.request.uri());
        for route in self.request.values("Route") {
            request.push("Route", route);
        }
        for name in ["From", "To", "Call-ID", "Max-Forwards"] {
            request.push(name, self.request.header(name).unwrap_or_default());
        }
        let number = self.request.cseq().map_or(0, |(number, _)| number);
        request.with("CSeq", format!("{number} {method}"))
    }
}

/// RFC 3261 section 8.1.1.7: unique in space and time.
pub(in super::super) fn branch() -> String {
    format!("z9hG4bK{}", hex(&random::<12>()))
}
