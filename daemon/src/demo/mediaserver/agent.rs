//! How do requests and responses find each other over UDP? Transactions (RFC 3261 section 17) and the table of dialogs.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_local},
    time::{sleep, timeout},
};

pub(super) use self::client::Invitation;
#[cfg(test)]
pub(super) use self::client::branch;
use self::client::{Client, ClientKey};
use super::sip::{Message, Start, param, split_list};
use crate::demo::directory::{hex, random};

mod client;

/// RFC 3261 section 17.1.1.1: an estimate of the round-trip time.
pub(super) const T1: Duration = Duration::from_millis(500);
/// Longest wait between two repeats.
const T2: Duration = Duration::from_secs(4);
/// RFC 3261 section 17.1.1.2: when a transaction ends, answered or not (Timers B, F, H, J).
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(32);
/// A request that nobody answers is forgotten after this.
const UNANSWERED_MAX: Duration = Duration::from_secs(300);
/// Requests of one dialog, or responses of one transaction, that wait to be looked at.
const QUEUE_MAX: usize = 16;
/// Transactions kept at once; what comes on top is dropped, and its sender repeats it.
const TRANSACTIONS_MAX: usize = 4096;

/// The SIP side of the mediaserver: one socket, its transactions and dialogs.
#[derive(Debug)]
pub(super) struct Agent {
    socket: UdpSocket,
    local: SocketAddr,
    servers: RefCell<HashMap<ServerKey, Server>>,
    clients: RefCell<HashMap<ClientKey, Client>>,
    dialogs: RefCell<HashMap<DialogKey, mpsc::Sender<Request>>>,
}

/// RFC 3261 section 17.2.3: branch, sent-by and method name a request; ACK and CANCEL go to that of their INVITE.
type ServerKey = (String, String, String);

/// Call-ID and our own tag. The other side's tag need not be known yet.
pub(super) type DialogKey = (String, String);

/// A request that was received.
#[derive(Debug)]
struct Server {
    /// The last response, for repeats.
    response: Option<Vec<u8>>,
    cancelled: watch::Sender<bool>,
    acknowledged: watch::Sender<bool>,
    ends: Instant,
}

/// A request for the application, and the way back.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) message: Message,
    key: ServerKey,
    back: SocketAddr,
    cancelled: watch::Receiver<bool>,
}

impl Request {
    /// Waits until the client takes an INVITE back.
    pub(super) async fn cancelled(&mut self) {
        if self.cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Agent {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Rc<Self>> {
        let local = socket.local_addr()?;
        Ok(Rc::new(Self {
            socket,
            local,
            servers: RefCell::default(),
            clients: RefCell::default(),
            dialogs: RefCell::default(),
        }))
    }

    /// Where we are reached.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next request that begins something. All else is brought to where it belongs.
    pub(super) async fn next(self: &Rc<Self>, buffer: &mut [u8]) -> io::Result<Request> {
        loop {
            let (len, from) = match self.socket.recv_from(buffer).await {
                Ok(received) => received,
                // An ICMP error of something sent before says nothing about what comes.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let Some(message) = Message::parse(&buffer[..len]) else {
                continue;
            };
            match message.start {
                Start::Request { .. } => {
                    if let Some(request) = self.request(message, from) {
                        return Ok(request);
                    }
                }
                Start::Response { .. } => self.response(message),
            }
        }
    }

    /// Answers a request, and later repeats of it.
    pub(super) fn respond(self: &Rc<Self>, request: &Request, response: &Message) {
        let bytes = response.write();
        self.send(&bytes, request.back);
        let mut servers = self.servers.borrow_mut();
        let Some(server) = servers.get_mut(&request.key) else {
            return;
        };
        server.response = Some(bytes.clone());
        if response.status() >= 200 {
            server.ends = Instant::now() + TRANSACTION_TIMEOUT;
        }
        if request.message.method() == "INVITE" && response.status() >= 300 {
            // RFC 3261 section 17.2.1: repeated (Timer G) until it is acknowledged or Timer H ends it.
            let mut acknowledged = server.acknowledged.subscribe();
            let (agent, back) = (Rc::clone(self), request.back);
            spawn_local(async move {
                let repeat = agent.repeat(&bytes, back, T1, T2);
                tokio::select! {
                    _ = acknowledged.wait_for(|yes| *yes) => {}
                    () = repeat => {}
                }
            });
        }
    }

    /// Answers an INVITE with 2xx, which is repeated until the guard is dropped (RFC 3261 section 13.3.1.4).
    pub(super) fn accept(self: &Rc<Self>, request: &Request, response: &Message) -> Repeat {
        self.respond(request, response);
        let (agent, back, bytes) = (Rc::clone(self), request.back, response.write());
        Repeat(spawn_local(async move { agent.repeat(&bytes, back, T1, T2).await }))
    }

    /// Lets requests of a dialog through to whoever holds the receiver.
    pub(super) fn open_dialog(&self, key: DialogKey) -> mpsc::Receiver<Request> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        self.dialogs.borrow_mut().insert(key, sender);
        receiver
    }

    pub(super) fn close_dialog(&self, key: &DialogKey) {
        self.dialogs.borrow_mut().remove(key);
    }

    /// Forgets transactions that have ended.
    pub(super) fn expire(&self, now: Instant) {
        self.servers.borrow_mut().retain(|_, server| server.ends > now);
    }

    fn request(self: &Rc<Self>, mut message: Message, from: SocketAddr) -> Option<Request> {
        let (key, back) = top_via(&mut message, from)?;
        let method = message.method().to_owned();
        if method == "ACK" {
            self.acknowledgement(key, message, back);
            return None;
        }
        let mut servers = self.servers.borrow_mut();
        if let Some(server) = servers.get(&key) {
            if let Some(response) = &server.response {
                self.send(response, back);
            }
            return None;
        }
        if servers.len() >= TRANSACTIONS_MAX {
            return None;
        }
        let (cancelled, cancel) = watch::channel(false);
        let server = Server {
            response: None,
            cancelled,
            acknowledged: watch::Sender::new(false),
            ends: Instant::now() + UNANSWERED_MAX,
        };
        servers.insert(key.clone(), server);
        let invited = (key.0.clone(), key.1.clone(), "INVITE".to_owned());
        let invite = servers.get(&invited).filter(|_| method == "CANCEL");
        if let Some(invite) = invite {
            // RFC 3261 section 9.2: nobody listens any more once there is a final response.
            invite.cancelled.send_replace(true);
        }
        let known = invite.is_some();
        drop(servers);
        let request = Request {
            message,
            key,
            back,
            cancelled: cancel,
        };
        if method == "CANCEL" {
            let status = if known { 200 } else { 481 };
            self.respond(&request, &request.message.response(status, &tag()));
            return None;
        }
        let Some(dialog) = dialog_key(&request.message) else {
            return Some(request);
        };
        // RFC 3261 section 12.2.2: a request within a dialog that does not exist.
        let status = match self.dialogs.borrow().get(&dialog) {
            Some(queue) => match queue.try_send(request.clone()) {
                Ok(()) => return None,
                Err(mpsc::error::TrySendError::Full(_)) => 500,
                Err(mpsc::error::TrySendError::Closed(_)) => 481,
            },
            None => 481,
        };
        self.respond(&request, &request.message.response(status, &dialog.1));
        None
    }

    /// An ACK stops the repeats of a failure here, those of a success in its dialog.
    fn acknowledgement(&self, key: ServerKey, message: Message, back: SocketAddr) {
        let invite = (key.0.clone(), key.1.clone(), "INVITE".to_owned());
        if let Some(server) = self.servers.borrow().get(&invite) {
            server.acknowledged.send_replace(true);
            return;
        }
        let dialogs = self.dialogs.borrow();
        if let Some(dialog) = dialog_key(&message).and_then(|key| dialogs.get(&key)) {
            let (_, cancelled) = watch::channel(false);
            // A full queue loses it, and the repeated 2xx brings another.
            let _ = dialog.try_send(Request {
                message,
                key,
                back,
                cancelled,
            });
        }
    }

    /// Sends again and again, in doubled steps, until the transaction has no time left.
    async fn repeat(&self, bytes: &[u8], to: SocketAddr, first: Duration, longest: Duration) {
        let mut wait = first;
        let repeats = async {
            loop {
                sleep(wait).await;
                self.send(bytes, to);
                wait = longest.min(wait * 2);
            }
        };
        let _: Result<(), _> = timeout(TRANSACTION_TIMEOUT, repeats).await;
    }

    fn send(&self, bytes: &[u8], to: SocketAddr) {
        // UDP may lose it, and so may we: every message that matters is repeated.
        if let Err(error) = self.socket.try_send_to(bytes, to) {
            tracing::debug!(%to, %error, "SIP message not sent");
        }
    }
}

/// Repeats a 2xx until dropped.
#[derive(Debug)]
pub(super) struct Repeat(JoinHandle<()>);

impl Repeat {
    /// Waits until there is no hope of an ACK any more.
    pub(super) async fn gave_up(&mut self) {
        // It is never aborted but by our own drop, and does not panic.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Repeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Completes the top Via by where the request came from, and says what names its transaction and where responses go.
fn top_via(message: &mut Message, from: SocketAddr) -> Option<(ServerKey, SocketAddr)> {
    let line = message.header("Via")?;
    let via = split_list(line).next()?;
    let rest = line[via.len()..].to_owned();
    let sent_by = via.split_once(' ')?.1.split(';').next()?.trim();
    let key = (
        param(via, "branch")?.to_owned(),
        sent_by.to_owned(),
        message.method().to_owned(),
    );
    let port = match sent_by.rsplit_once(':') {
        Some((_, port)) => port.parse().ok()?,
        None => 5060,
    };
    // RFC 3581 section 4: rport asks to be answered at the port the request came from.
    let asks = param(via, "rport") == Some("");
    let mut completed: String = via
        .split(';')
        .filter(|param| !(asks && param.trim().eq_ignore_ascii_case("rport")))
        .collect::<Vec<_>>()
        .join(";");
    completed += &format!(";received={}", from.ip());
    if asks {
        completed += &format!(";rport={}", from.port());
    }
    message.set("Via", completed + &rest);
    Some((key, if asks { from } else { SocketAddr::new(from.ip(), port) }))
}

/// The dialog that a request is for; none when it has no To tag.
fn dialog_key(message: &Message) -> Option<DialogKey> {
    Some((message.header("Call-ID")?.into(), message.tag("To")?.into()))
}

/// RFC 3261 section 19.3: at least 32 random bits.
pub(super) fn tag() -> String {
    hex(&random::<6>())
}
