//! Who is at the other end of this WebSocket? Flows, what they have registered, and what waits for them while they are
//! lost (RFC 5626 section 5.3).

use alloc::{collections::VecDeque, sync::Arc};
use core::net::SocketAddr;

use arrayvec::ArrayVec;

use super::{
    FlowId,
    limit::Buckets,
    token::{Identity, TokenText},
    transaction::Method,
    trunk::TrunkId,
};
use crate::{
    action::ConnId,
    refusal::{Role, refused},
    slab::Key,
    time::Instant,
    wire::sip::uri::Uri,
};

/// Contacts that one flow may have registered.
pub(super) const REGISTRATIONS_MAX: usize = 4;
/// Messages that wait for a lost flow.
pub(super) const HELD_MAX: usize = 64;
/// Messages that cannot be read, after which a WebSocket is closed.
pub(super) const FAULTS_MAX: u32 = 16;
/// Requests while it is locked out, after which a WebSocket is closed.
pub(super) const LOCKOUTS_MAX: u32 = 4;

/// A browser, by its WebSocket.
#[derive(Debug)]
pub(super) struct Flow {
    /// Its WebSocket; `None` while it is lost.
    pub(super) conn: Option<ConnId>,
    /// Where its requests go, whatever they say.
    pub(super) trunk: TrunkId,
    /// The address of the mediaserver that has its registration.
    pub(super) home: Option<SocketAddr>,
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    pub(super) subject: Option<String>,
    /// Whom it speaks for, once the mediaserver has accepted that.
    pub(super) address_of_record: Option<AddressOfRecord>,
    /// User part of our URIs in its dialogs.
    pub(super) token: TokenText,
    pub(super) registrations: ArrayVec<Registration, REGISTRATIONS_MAX>,
    /// Its transactions; each knows its place here.
    pub(super) transactions: Vec<Key>,
    /// Of those, how many wait for a final response.
    pub(super) pending: usize,
    /// What could not be delivered, in order.
    pub(super) held: VecDeque<Held>,
    pub(super) held_bytes: usize,
    /// When a lost flow is given up.
    pub(super) grace: Option<Instant>,
    buckets: Buckets,
    pub(super) faults: u32,
    /// Requests that were refused because of a lock.
    pub(super) lockouts: u32,
}

/// A message for a lost flow.
#[derive(Debug)]
pub(super) struct Held {
    /// The transaction whose request it is, if it is one.
    pub(super) request_of: Option<Key>,
    pub(super) bytes: Box<[u8]>,
}

/// A contact that the mediaserver has accepted.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub(super) identity: Identity,
    /// What the mediaserver knows in place of the browser's Contact URI, where it may not know that.
    pub(super) alias: Option<TokenText>,
    /// The browser's Contact URI, as written; empty where only a token tells of the registration.
    pub(super) contact: Box<[u8]>,
    /// The REGISTER as it went to the mediaserver, where it may have to be taken back.
    pub(super) register: Option<Arc<[u8]>>,
}

/// A user of a domain (RFC 3261 section 10), by what makes it differ from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddressOfRecord {
    user: Box<[u8]>,
    /// In lower case. Of a URI that is not SIP, all of it.
    host: Box<[u8]>,
}

impl AddressOfRecord {
    pub(super) fn of(uri: &[u8]) -> Self {
        let (user, host) = user_and_host(uri);
        Self {
            user: user.into(),
            host: host.to_ascii_lowercase().into(),
        }
    }

    /// Whether a URI names it.
    pub(super) fn is(&self, uri: &[u8]) -> bool {
        let (user, host) = user_and_host(uri);
        *self.user == *user && self.host.eq_ignore_ascii_case(host)
    }
}

fn user_and_host(uri: &[u8]) -> (&[u8], &[u8]) {
    match Uri::parse(uri) {
        Ok(uri) => (uri.user.unwrap_or_default(), uri.host),
        Err(_) => (&[], uri),
    }
}

/// What a REGISTER on its way asks for.
#[derive(Debug)]
pub(super) struct Registering {
    pub(super) address_of_record: AddressOfRecord,
    /// Its contacts, each with whether it asks to forget it.
    pub(super) contacts: ArrayVec<(Registration, bool), REGISTRATIONS_MAX>,
    /// What stands in the Path that it gets; `None` where the mediaserver is told a Contact of ours instead.
    pub(super) path: Option<TokenText>,
    /// Whether the browser understands Path in the response (RFC 3327 section 5.3).
    pub(super) path_supported: bool,
    /// Whether it registers a flow (`reg-id`, RFC 5626 section 4.2).
    pub(super) is_of_flow: bool,
    /// Whether it asks to forget all contacts there are (RFC 3261 section 10.2.2).
    pub(super) removes_all: bool,
}

impl Registering {
    /// Remembers the REGISTER as it goes out.
    pub(super) fn keep(&mut self, register: &[u8]) {
        let register: Arc<[u8]> = register.into();
        for (registration, _) in &mut self.contacts {
            registration.register = Some(register.clone());
        }
    }
}

impl Flow {
    /// A flow that has not registered.
    pub(super) fn new(conn: Option<ConnId>, trunk: TrunkId, peer: SocketAddr, token: TokenText) -> Self {
        Self {
            conn,
            trunk,
            home: None,
            peer,
            secure: true,
            subject: None,
            address_of_record: None,
            token,
            registrations: ArrayVec::new(),
            transactions: Vec::new(),
            pending: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            grace: None,
            buckets: Buckets::default(),
            faults: 0,
            lockouts: 0,
        }
    }

    /// Whether one more request is within its rate; it is told of if it is not.
    pub(super) fn admit(&mut self, now: Instant, method: Method) -> bool {
        let admitted = self.buckets.admit(now, method);
        self.tell_rate(admitted)
    }

    /// The same for what begins no transaction: ACKs, responses, and requests that are answered with an error.
    pub(super) fn admit_stateless(&mut self, now: Instant) -> bool {
        let admitted = self.buckets.admit_stateless(now);
        self.tell_rate(admitted)
    }

    fn tell_rate(&self, admitted: bool) -> bool {
        if !admitted {
            refused(
                Role::Sip,
                self.peer.ip(),
                "rate",
                "more messages than a telephone sends",
            );
        }
        admitted
    }

    /// Whether it has gone on trying while it was locked out. Who has registered is not: there may be
    /// a call on it, and others behind the same address may be to blame.
    pub(super) fn is_to_be_shut_out(&self) -> bool {
        self.lockouts >= LOCKOUTS_MAX && self.address_of_record.is_none()
    }

    /// The identity that its dialogs are known by.
    pub(super) fn identity(&self) -> Identity {
        self.registrations
            .first()
            .map_or(Identity::NONE, |registration| registration.identity)
    }

    /// Remembers an accepted contact; the latest of the same identity counts. Returns the oldest one, forgotten, when
    /// there are too many.
    pub(super) fn register(&mut self, registration: Registration) -> Option<Identity> {
        if let Some(known) = self
            .registrations
            .iter_mut()
            .find(|known| known.identity == registration.identity)
        {
            *known = registration;
            return None;
        }
        let forgotten = self
            .registrations
            .is_full()
            .then(|| self.registrations.remove(0).identity);
        self.registrations.push(registration);
        forgotten
    }
}

/// Wakes what a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// A transaction.
    Transaction(Key),
    /// A lost flow.
    Flow(FlowId),
    /// A mediaserver.
    Trunk(TrunkId),
}
