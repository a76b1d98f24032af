//! Who answers in the LAN? A mediaserver that speaks SIP over UDP: registrar, numbers to call, and an echo.

use std::{
    cell::RefCell,
    io,
    ops::RangeInclusive,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, task::JoinSet, time::interval};

use self::{
    agent::{Agent, Request, tag},
    digest::{Authenticator, Refused},
    registrar::{Binding, Registrar},
    sip::{MESSAGE_BYTES_MAX, Message, Uri, uri_of},
};
use super::directory::Directory;

mod agent;
mod call;
mod dialog;
mod digest;
mod media;
mod registrar;
mod sip;
#[cfg(test)]
mod tests;

/// The domain of the users, which is the realm of their passwords as well.
pub(super) const DOMAIN: &str = "lan.example";
/// Calls at once.
const CALLS_MAX: usize = 100;
/// How often is looked for what has run out.
const SWEEP: Duration = Duration::from_secs(1);
/// Methods that mean something here.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, INFO";

/// The mediaserver.
#[derive(Debug)]
pub(super) struct Mediaserver {
    agent: Rc<Agent>,
    directory: Rc<Directory>,
    authenticator: Authenticator,
    registrar: RefCell<Registrar>,
    media_ports: RangeInclusive<u16>,
}

impl Mediaserver {
    /// A mediaserver on this socket, its media on these ports of the same address.
    pub(super) fn new(
        socket: UdpSocket,
        media_ports: RangeInclusive<u16>,
        directory: Rc<Directory>,
    ) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            agent: Agent::new(socket)?,
            directory,
            authenticator: Authenticator::new(DOMAIN),
            registrar: RefCell::default(),
            media_ports,
        }))
    }

    /// Serves until dropped or the socket fails. To be run within a `LocalSet`.
    pub(super) async fn run(self: Rc<Self>) -> io::Result<()> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let mut calls = JoinSet::new();
        let mut sweep = interval(SWEEP);
        loop {
            tokio::select! {
                request = self.agent.next(&mut buffer) => self.handle(request?, &mut calls),
                Some(_ended) = calls.join_next() => {}
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    /// A request that begins something.
    fn handle(self: &Rc<Self>, request: Request, calls: &mut JoinSet<()>) {
        let message = &request.message;
        let response = match message.method() {
            "OPTIONS" => message
                .response(200, &tag())
                .with("Allow", ALLOW)
                .with("Accept", "application/sdp"),
            "REGISTER" => match self.authenticate(message, "To") {
                Ok(user) => self.register(&user, message),
                Err(response) => response,
            },
            "INVITE" => match self.authenticate(message, "From") {
                Ok(user) => return self.invite(request, user, calls),
                Err(response) => response,
            },
            _ => message.response(405, &tag()).with("Allow", ALLOW),
        };
        self.agent.respond(&request, &response);
    }

    /// The user who sent a request, and who must be the one it speaks for.
    fn authenticate(&self, request: &Message, speaks_for: &str) -> Result<String, Message> {
        let now = Instant::now();
        let user = match self.authenticator.check(now, request, &self.directory) {
            Ok(user) => user,
            Err(Refused::Challenge { stale }) => {
                let challenge = self.authenticator.challenge(now, stale);
                return Err(request.response(401, &tag()).with("WWW-Authenticate", challenge));
            }
            Err(Refused::Forbidden) => return Err(request.response(403, &tag())),
        };
        let named = request.header(speaks_for).map(uri_of).and_then(Uri::parse);
        if named.is_none_or(|uri| uri.user != user) {
            return Err(request.response(403, &tag()));
        }
        Ok(user.into())
    }

    fn register(&self, user: &str, request: &Message) -> Message {
        let mut registrar = self.registrar.borrow_mut();
        let response = registrar.register(Instant::now(), user, request, &tag());
        self.directory.set_registered(registrar.users());
        response
    }

    fn invite(self: &Rc<Self>, request: Request, caller: String, calls: &mut JoinSet<()>) {
        let this = Rc::clone(self);
        let message = &request.message;
        let called = Uri::parse(message.uri()).map(|uri| uri.user).unwrap_or_default();
        if calls.len() >= CALLS_MAX {
            return self.agent.respond(&request, &message.response(503, &tag()));
        }
        if !matches!(called, "600" | "601" | "602" | "echo") && self.directory.user(called).is_none() {
            return self.agent.respond(&request, &message.response(404, &tag()));
        }
        self.agent.respond(&request, &message.response(100, ""));
        match called {
            "600" | "echo" => calls.spawn_local(this.echo(request, caller, None)),
            "601" => calls.spawn_local(this.call_back(request, caller)),
            "602" => calls.spawn_local(this.ring(request, caller)),
            _ => {
                let callee = called.to_owned();
                calls.spawn_local(this.connect(request, caller, callee))
            }
        };
    }

    fn binding(&self, user: &str) -> Option<Binding> {
        self.registrar.borrow().binding(Instant::now(), user).cloned()
    }

    /// RFC 5626 section 5.3.1: the flow of a binding has failed, so calls need not try it again.
    fn unreachable(&self, user: &str, binding: &Binding) {
        let mut registrar = self.registrar.borrow_mut();
        registrar.forget(user, binding);
        self.directory.set_registered(registrar.users());
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.agent.expire(now);
        let mut registrar = self.registrar.borrow_mut();
        if registrar.expire(now) {
            self.directory.set_registered(registrar.users());
        }
    }

    fn address_of(&self, user: &str) -> String {
        format!("sip:{user}@{DOMAIN}")
    }
}
