//! What happens to a message from a browser? It goes to the mediaserver of its flow, whatever it says.

use arrayvec::ArrayVec;

use super::{
    branch::{Branch, Kind},
    bridge::{Bridge, DATAGRAM_MAX, FlowId},
    check::{self, Rejection, Request},
    flow::{AddressOfRecord, FAULTS_MAX, Registering, Registration},
    local::{self, Answer, TopVia, hop_request, put},
    rewrite::{self, Hops},
    token::{Identity, Token, TokenText},
    transaction::{Beginning, Cancel, Method, Reply, Side, State, Transaction},
};
use crate::{
    config::Reach,
    cx::Cx,
    slab::Key,
    wire::sip::{
        Framing, Message, Name, Start,
        field::{self, Address, addresses},
        uri::Uri,
        via::Via,
    },
};

/// After which time a browser may try again when there are too many requests, or no mediaserver.
const RETRY_AFTER_SECS: u32 = 5;

impl Bridge {
    /// One WebSocket message.
    pub fn from_flow(&mut self, cx: &mut Cx<'_>, flow: FlowId, message: &[u8]) {
        if self.flows.get(flow.0).is_none_or(|flow| flow.conn.is_none()) {
            return;
        }
        cx.stats.sip.from_flows += 1;
        if message.len() > self.sip().limits.message_bytes_max {
            self.shut(cx, flow, 1009, "message too big");
            return;
        }
        if message.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            self.keep_alive(cx, flow, message);
            return;
        }
        let Some(message) = Message::read(message, Framing::Message) else {
            self.fault(cx, flow);
            return;
        };
        match message.start() {
            Start::Request { .. } => self.request_from_flow(cx, flow, &message),
            Start::Response { status } => self.response_from_flow(cx, flow, &message, *status),
        }
    }

    /// RFC 5626 section 3.5.1: a double CRLF is a ping, a single one its pong.
    fn keep_alive(&mut self, cx: &mut Cx<'_>, flow: FlowId, message: &[u8]) {
        if message == b"\r\n\r\n" {
            let start = cx.made.len();
            cx.made.extend_from_slice(b"\r\n");
            self.send_flow(cx, flow, start..start + 2, None);
        }
    }

    /// A message that makes no sense, and cannot be answered.
    fn fault(&mut self, cx: &mut Cx<'_>, id: FlowId) {
        cx.stats.sip.dropped += 1;
        let Some(flow) = self.flows.get_mut(id.0) else { return };
        flow.faults += 1;
        if flow.faults >= FAULTS_MAX {
            self.shut(cx, id, 1008, "not SIP");
        }
    }

    fn request_from_flow(&mut self, cx: &mut Cx<'_>, flow: FlowId, message: &Message<'_>) {
        let Start::Request { method, .. } = message.start() else {
            return;
        };
        let is_ack = *method == b"ACK";
        let handled = check::request(message).and_then(|request| self.handle_flow_request(cx, flow, message, &request));
        match handled {
            Ok(()) => {}
            // RFC 3261 section 17.1.1.3: nothing answers an ACK.
            Err(_) if is_ack => cx.stats.sip.dropped += 1,
            Err(rejection) => self.reject_to_flow(cx, flow, message, rejection),
        }
    }

    fn reject_to_flow(&mut self, cx: &mut Cx<'_>, flow: FlowId, message: &Message<'_>, rejection: Rejection) {
        cx.stats.sip.refused += 1;
        let answer = Answer {
            status: rejection.status,
            reason: rejection.reason,
            detail: rejection.detail,
            tag: self.tag(message),
        };
        let start = cx.made.len();
        answer.write(message, TopVia::Kept, cx.made);
        let end = cx.made.len();
        self.send_flow(cx, flow, start..end, None);
    }

    fn handle_flow_request(
        &mut self,
        cx: &mut Cx<'_>,
        id: FlowId,
        message: &Message<'_>,
        request: &Request<'_>,
    ) -> Result<(), Rejection> {
        let server = self.server_id(Side::Up, request);
        let known = self
            .server(server)
            .filter(|key| self.transactions.get(*key).is_some_and(|known| known.flow == id));
        match request.method {
            Method::Ack => return self.ack_from_flow(cx, id, message, request, known),
            Method::Cancel => return self.cancel_from_flow(cx, id, message, known),
            _ => {}
        }
        if self.server(server).is_some() {
            // A repeat, which a reliable transport has no use for, or a branch that is not unique.
            cx.stats.sip.dropped += 1;
            return Ok(());
        }
        check::policy(message, request)?;
        self.check_sender(id, request)?;
        let (now, most) = (cx.now.mono, self.sip().limits.transactions_per_flow_max);
        let Some(flow) = self.flows.get_mut(id.0) else {
            return Ok(());
        };
        let (mediaserver, peer) = (flow.mediaserver, flow.peer.ip());
        if !flow.buckets.admit(now, request.method) || flow.pending >= most {
            return Err(Rejection::unavailable(RETRY_AFTER_SECS));
        }
        if !self.has_room() || !self.is_available(mediaserver) {
            return Err(Rejection::unavailable(RETRY_AFTER_SECS));
        }
        let credentials_of = message
            .field(Name::Credentials)
            .map(|_| self.hash(&(peer, claimed(request))));
        if credentials_of.is_some_and(|who| self.locks.is_locked(now, who)) {
            return Err(Rejection::new(403, "Forbidden"));
        }
        let (hops, own) = self.flow_route(message, request)?;
        let registering = match request.method {
            Method::Register => Some(self.registering(id, message, request)?),
            _ => None,
        };
        if let Some(registering) = &registering {
            self.come_back(cx, id, registering);
        }
        let mut transaction = Transaction::new(
            now,
            Beginning {
                side: Side::Up,
                method: request.method,
                flow: id,
                mediaserver,
                reply_to: self.address_of(mediaserver),
                server,
            },
        );
        transaction.registering = registering.map(Box::new);
        transaction.credentials_of = credentials_of;
        let key = self.begin(transaction);
        if request.method == Method::Invite {
            self.trying_to_flow(cx, id, message, request);
        }
        let branch = self.branch(Kind::Transaction, key);
        let bytes = self.write_up(cx, id, message, request, &hops, own, &branch, Some(key));
        if bytes.len() > DATAGRAM_MAX {
            self.end(key);
            return Err(Rejection::new(513, "Message Too Large"));
        }
        if let Some(transaction) = self.transactions.get_mut(key) {
            transaction.request = cx.made[bytes.clone()].to_vec();
        }
        self.send_onward(cx, key, bytes);
        Ok(())
    }

    /// 100 to an INVITE at once, made of the INVITE itself.
    fn trying_to_flow(&mut self, cx: &mut Cx<'_>, id: FlowId, message: &Message<'_>, request: &Request<'_>) {
        let Some(flow) = self.flows.get(id.0) else { return };
        let stamped = local::stamp(&request.via, flow.peer, true, &mut self.stamped);
        let top = if stamped {
            TopVia::Stamped(&request.via, &self.stamped)
        } else {
            TopVia::Kept
        };
        let start = cx.made.len();
        let answer = Answer {
            status: 100,
            reason: "Trying",
            detail: check::Detail::None,
            tag: 0,
        };
        answer.write(message, top, cx.made);
        let end = cx.made.len();
        self.send_flow(cx, id, start..end, None);
    }

    /// The Route of a request, and how many of its first values are ours.
    fn flow_route(&self, message: &Message<'_>, request: &Request<'_>) -> Result<(Hops, usize), Rejection> {
        let hops = rewrite::hops(message)?;
        if !request.is_in_dialog() {
            // Where a new request goes is not the browser's choice: none of it is kept.
            let all = hops.len();
            return Ok((hops, all));
        }
        let mut own = 0;
        for hop in &hops {
            let Ok(uri) = Uri::parse(hop.uri(message)) else { break };
            if matches!(self.own(&uri)?, Own::No) {
                break;
            }
            own += 1;
        }
        // A dialog that came about through us has us in its route set; any other route is none that we laid.
        let all = hops.len();
        Ok((hops, if own == 0 { all } else { own }))
    }

    /// Whether a URI is ours, and the token in it.
    ///
    /// # Errors
    /// RFC 5626 section 5.3: 403 when it claims to be ours and is not.
    pub(super) fn own(&self, uri: &Uri<'_>) -> Result<Own, Rejection> {
        let Some(user) = uri.user else {
            return Ok(if self.names.are_at(uri) { Own::Plain } else { Own::No });
        };
        // A mediaserver may have put the address it sees us at in place of our host; the user part stays.
        if Token::claim(user).is_none() && !self.names.are_at(uri) {
            return Ok(Own::No);
        }
        let token = self.open_token(user).ok_or(Rejection::new(403, "Forbidden"))?;
        Ok(Own::Token(token))
    }

    /// Reads a token of ours. Those of live flows are known by heart.
    fn open_token(&self, user: &[u8]) -> Option<Token> {
        let claim = Token::claim(user)?;
        let known = self.flows.get(claim.flow).is_some_and(|flow| flow.token.is(user));
        if known {
            Some(claim)
        } else {
            Token::open(user, &self.config.keys.flow)
        }
    }

    /// Once a flow has registered, it speaks for that address of record only.
    fn check_sender(&self, id: FlowId, request: &Request<'_>) -> Result<(), Rejection> {
        let own = self.flows.get(id.0).and_then(|flow| flow.address_of_record.as_ref());
        let (Some(own), false) = (own, request.is_in_dialog()) else {
            return Ok(());
        };
        let claimed = claimed(request);
        if own.is(claimed) || is_anonymous(claimed) {
            return Ok(());
        }
        Err(Rejection::new(403, "Forbidden"))
    }

    /// A user whose flow was lost is back, by what the token of the WebSocket says: nobody need wait for the mediaserver.
    fn come_back(&mut self, cx: &mut Cx<'_>, id: FlowId, registering: &Registering) {
        for (registration, removed) in &registering.contacts {
            let Some(old) = self
                .identities
                .get(&registration.identity)
                .copied()
                .filter(|old| *old != id)
            else {
                continue;
            };
            let (Some(lost), Some(flow)) = (self.flows.get(old.0), self.flows.get(id.0)) else {
                continue;
            };
            if !removed && lost.conn.is_none() && lost.subject.is_some() && lost.subject == flow.subject {
                self.identities.insert(registration.identity, id);
                if let Some(flow) = self.flows.get_mut(id.0) {
                    flow.register(registration.clone());
                }
                self.take_over(cx, old, id);
            }
        }
    }

    /// What a REGISTER asks for.
    fn registering(&self, id: FlowId, message: &Message<'_>, request: &Request<'_>) -> Result<Registering, Rejection> {
        let path_supported = rewrite::lists(message, Name::Supported, b"path");
        let mut registering = Registering {
            address_of_record: AddressOfRecord::of(request.to.uri),
            contacts: ArrayVec::new(),
            path_supported,
        };
        let Some(flow) = self.flows.get(id.0) else {
            return Ok(registering);
        };
        let mediaserver = &self.sip().mediaservers[flow.mediaserver];
        let default_expires = message.value(Name::Expires).and_then(field::number);
        for contact in message.all(Name::Contact) {
            let value = message.text(contact);
            if value == b"*" {
                continue;
            }
            for address in addresses(value) {
                let (_, _, address) = address.map_err(|_| Rejection::bad("Bad Contact"))?;
                let identity = identity(&mediaserver.name, request.to.uri, address.uri);
                let expires = address.params.value(b"expires").map_or(default_expires, field::number);
                let alias = (mediaserver.reach == Reach::Contact).then(|| self.alias(id, flow.mediaserver, identity));
                let registration = Registration {
                    identity,
                    alias,
                    contact: address.uri.into(),
                };
                let entry = (registration, expires == Some(0));
                registering
                    .contacts
                    .try_push(entry)
                    .map_err(|_| Rejection::bad("Too Many Contacts"))?;
            }
        }
        Ok(registering)
    }

    /// What the mediaserver is to know a contact by. It stays the same for as long as we remember it.
    fn alias(&self, id: FlowId, mediaserver: usize, identity: Identity) -> TokenText {
        let known = self.identities.get(&identity).and_then(|flow| self.flows.get(flow.0));
        let known = known.and_then(|flow| flow.registrations.iter().find(|known| known.identity == identity));
        known
            .and_then(|known| known.alias)
            .unwrap_or_else(|| self.token(id.0, mediaserver, identity))
    }

    /// Appends a request as it goes to the mediaserver. `own` Route values are taken off.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one message, all found by the caller"
    )]
    fn write_up(
        &mut self,
        cx: &mut Cx<'_>,
        id: FlowId,
        message: &Message<'_>,
        request: &Request<'_>,
        hops: &Hops,
        own: usize,
        branch: &[u8],
        key: Option<Key>,
    ) -> core::ops::Range<usize> {
        let Some(flow) = self.flows.get(id.0) else { return 0..0 };
        let splices = &mut self.splices;
        splices.clear();
        let stamped = local::stamp(&request.via, flow.peer, true, &mut self.stamped);
        let below = stamped.then_some((&request.via, &self.stamped[..]));
        rewrite::via(splices, message, [b"UDP", self.names.udp.as_bytes(), branch], below);
        if request.method.is_recorded() {
            rewrite::record_route(splices, message, &self.names, flow.token.as_bytes(), Side::Up);
        }
        rewrite::max_forwards(splices, message, request.max_forwards);
        rewrite::distrust(splices, message);
        rewrite::route(splices, message, request.uri, hops, own..hops.len());
        rewrite::content_length(splices, message);
        let transaction = key.and_then(|key| self.transactions.get(key));
        if let Some(registering) = transaction.and_then(|transaction| transaction.registering.as_deref()) {
            match self
                .config
                .sip
                .as_ref()
                .map(|sip| sip.mediaservers[flow.mediaserver].reach)
            {
                Some(Reach::Contact) => rewrite::hide_contacts(splices, message, &self.names, registering),
                _ => {
                    let identity = registering
                        .contacts
                        .first()
                        .map_or(Identity::NONE, |(first, _)| first.identity);
                    let token = self.token(id.0, flow.mediaserver, identity);
                    rewrite::path(
                        &mut self.splices,
                        message,
                        &self.names,
                        token.as_bytes(),
                        registering.path_supported,
                    );
                }
            }
        }
        rewrite::finish(&mut self.splices, message, cx.made)
    }

    fn ack_from_flow(
        &mut self,
        cx: &mut Cx<'_>,
        id: FlowId,
        message: &Message<'_>,
        request: &Request<'_>,
        known: Option<Key>,
    ) -> Result<(), Rejection> {
        if let Some(transaction) = known.and_then(|key| self.transactions.get_mut(key))
            && transaction.acknowledged(cx.now.mono)
        {
            // Ours to the mediaserver has gone already.
            return Ok(());
        }
        if request.max_forwards == Some(0) {
            return Err(Rejection::new(483, "Too Many Hops"));
        }
        // RFC 3261 section 16.11: an ACK to a 2xx passes without a transaction.
        let (hops, own) = self.flow_route(message, request)?;
        let unique = Key::from_parts(cx.rng.u32(), cx.rng.u32());
        let branch = self.branch(Kind::Stateless, unique);
        let bytes = self.write_up(cx, id, message, request, &hops, own, &branch, None);
        if let Some(flow) = self.flows.get(id.0)
            && bytes.len() <= DATAGRAM_MAX
        {
            self.send_trunk(cx, self.address_of(flow.mediaserver), bytes);
        }
        Ok(())
    }

    fn cancel_from_flow(
        &mut self,
        cx: &mut Cx<'_>,
        flow: FlowId,
        message: &Message<'_>,
        known: Option<Key>,
    ) -> Result<(), Rejection> {
        let key = known.ok_or(Rejection::new(481, "Call/Transaction Does Not Exist"))?;
        let answer = Answer {
            status: 200,
            reason: "OK",
            detail: check::Detail::None,
            tag: self.tag(message),
        };
        let start = cx.made.len();
        answer.write(message, TopVia::Kept, cx.made);
        let end = cx.made.len();
        self.send_flow(cx, flow, start..end, None);
        self.cancel(cx, key, &reasons(message));
        Ok(())
    }

    fn response_from_flow(&mut self, cx: &mut Cx<'_>, flow: FlowId, message: &Message<'_>, status: u16) {
        if self.try_response_from_flow(cx, flow, message, status).is_none() {
            cx.stats.sip.dropped += 1;
        }
    }

    fn try_response_from_flow(
        &mut self,
        cx: &mut Cx<'_>,
        flow: FlowId,
        message: &Message<'_>,
        status: u16,
    ) -> Option<()> {
        let response = Response::read(message)?;
        let key = self.transaction_of(&response.branch)?;
        let transaction = self.transactions.get_mut(key)?;
        // A browser answers for itself only.
        if transaction.side != Side::Down || transaction.flow != flow || !self.names.ws.is_sent_by(&response.via) {
            return None;
        }
        if response.is_to_cancel(transaction.method) {
            transaction.cancel_answered();
            return Some(());
        }
        // RFC 3261 section 16.7, item 3: without another Via it was meant for us.
        if !response.goes_on || response.method.is_invite() != transaction.method.is_invite() {
            return None;
        }
        let reply = transaction.response(cx.now.mono, status);
        if reply == Reply::ForwardAndAck || reply == Reply::Ack {
            let start = cx.made.len();
            if let Some(forwarded) = Message::read(&transaction.request, Framing::Datagram) {
                hop_request(b"ACK", &forwarded, message.value(Name::To), b"", cx.made);
                let end = cx.made.len();
                self.send_flow(cx, flow, start..end, None);
            }
        }
        if reply == Reply::ForwardAndAck || reply == Reply::Forward {
            self.forward_down_response(cx, key, message, &response, status);
        }
        self.after_provisional(cx, key);
        self.settle(key);
        Some(())
    }

    /// Writes a browser's response as it goes to the mediaserver.
    fn forward_down_response(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        message: &Message<'_>,
        response: &Response<'_>,
        status: u16,
    ) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let splices = &mut self.splices;
        splices.clear();
        rewrite::pop_via(splices, message, &response.via);
        rewrite::distrust(splices, message);
        rewrite::content_length(splices, message);
        // RFC 3261 section 12.1.1: the route set is what the request recorded. Whoever could change it here could aim
        // the mediaserver's requests at anybody.
        if transaction.method.is_recorded()
            && (101..300).contains(&status)
            && let Some(forwarded) = Message::read(&transaction.request, Framing::Datagram)
        {
            for field in forwarded.all(Name::RecordRoute) {
                rewrite::add_top(splices, message, &[b"Record-Route: ", forwarded.text(field), b"\r\n"]);
            }
        }
        let bytes = rewrite::finish(splices, message, cx.made);
        if bytes.len() > DATAGRAM_MAX {
            cx.stats.sip.dropped += 1;
            return;
        }
        transaction.response.clear();
        transaction.response.extend_from_slice(&cx.made[bytes.clone()]);
        let to = transaction.reply_to;
        if transaction.is_spent() {
            transaction.request = Vec::new();
        }
        self.send_trunk(cx, to, bytes);
    }

    /// A CANCEL may have waited for a provisional response.
    pub(super) fn after_provisional(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        if let (State::Proceeding, Cancel::Wanted(reason)) = (transaction.state(), &mut transaction.cancel) {
            let reason = core::mem::take(reason);
            self.send_cancel(cx, key, &reason);
        }
    }

    /// A tag for what we answer without state: the same for the same request (RFC 3261 section 8.2.7).
    pub(super) fn tag(&self, message: &Message<'_>) -> u64 {
        self.hash(&(
            message.value(Name::CallId),
            message.value(Name::From),
            message.value(Name::Via),
            message.value(Name::CSeq),
        ))
    }
}

/// Whether a URI is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    No,
    /// It leads to us, and no further.
    Plain,
    Token(Token),
}

/// What a response says, as far as a proxy asks.
#[derive(Debug)]
pub(super) struct Response<'a> {
    pub(super) via: Via<'a>,
    pub(super) branch: Branch,
    pub(super) method: Method,
    method_text: &'a [u8],
    /// Whether there is a Via below ours.
    pub(super) goes_on: bool,
}

impl<'a> Response<'a> {
    /// Reads a response to a request that we forwarded; `None` when it is broken, or is for somebody else.
    pub(super) fn read(message: &Message<'a>) -> Option<Self> {
        if message.fault().is_some() {
            return None;
        }
        let via = message.value(Name::Via).and_then(Via::first)?;
        let branch = via.branch().and_then(Branch::read)?;
        let (_, method_text) = check::single(message, Name::CSeq).and_then(field::cseq)?;
        for name in [Name::From, Name::To] {
            check::single(message, name).and_then(Address::parse)?;
        }
        check::single(message, Name::CallId)?;
        let goes_on = message.value(Name::Via).is_some_and(|value| via.end < value.len());
        Some(Self {
            goes_on: goes_on || message.count(Name::Via) > 1,
            via,
            branch,
            method: Method::of(method_text),
            method_text,
        })
    }

    /// Whether it answers the CANCEL of an INVITE, which has the same branch.
    pub(super) fn is_to_cancel(&self, method: Method) -> bool {
        self.method_text == b"CANCEL" && method == Method::Invite
    }
}

/// The Reason fields of a CANCEL go along (RFC 3326 section 2).
pub(super) fn reasons(message: &Message<'_>) -> Vec<u8> {
    let mut reasons = Vec::new();
    for field in message.all(Name::Reason) {
        put(&mut reasons, &[b"Reason: ", message.text(field), b"\r\n"]);
    }
    reasons
}

/// Whom a request says it is of.
fn claimed<'a>(request: &Request<'a>) -> &'a [u8] {
    match request.method {
        Method::Register => request.to.uri,
        _ => request.from.uri,
    }
}

/// RFC 3323 section 4.1.1.3: who does not want to be known.
fn is_anonymous(uri: &[u8]) -> bool {
    Uri::parse(uri).is_ok_and(|uri| uri.host.eq_ignore_ascii_case(b"anonymous.invalid"))
}

/// Who registers what, without what may differ from time to time: parameters, and the case of hosts.
fn identity(mediaserver: &str, address_of_record: &[u8], contact: &[u8]) -> Identity {
    let essence = |uri: &[u8]| match Uri::parse(uri) {
        Ok(uri) => {
            let mut essence = uri.user.unwrap_or_default().to_vec();
            put(&mut essence, &[b"@", &uri.host.to_ascii_lowercase(), b":"]);
            put(
                &mut essence,
                &[uri.port.map(super::names::text).unwrap_or_default().as_bytes()],
            );
            essence
        }
        Err(_) => uri.to_vec(),
    };
    Identity::of(mediaserver, &essence(address_of_record), &essence(contact))
}
