//! What happens to a message from a browser? It goes to the mediaserver of its flow, whatever it says.

use core::{net::IpAddr, ops::Range};

use super::{
    branch::{BRANCH_LEN, Kind},
    bridge::{Bridge, DATAGRAM_MAX, FlowId},
    check::{self, Rejection, Request},
    flow::{FAULTS_MAX, Flow, Registering},
    flows::Own,
    limit::{Attempt, Suspects},
    local::{self, Answer, TopVia, reasons},
    register::claimed,
    rewrite::{self, Route},
    transaction::{Beginning, Method, Side, Transaction},
    trunks::Destination,
};
use crate::{
    cx::Cx,
    refusal::{Role, refused},
    slab::Key,
    time::Instant,
    wire::sip::{Framing, Message, Name, Start, field, uri::Uri, via::Via},
};

/// After which time a browser may try again when there are too many requests, or no mediaserver.
pub(super) const RETRY_AFTER_SECS: u32 = 5;

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
            Start::Response { .. } => {
                if self.response_from_flow(cx, flow, &message).is_none() {
                    cx.stats.sip.dropped += 1;
                }
            }
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

    fn request_from_flow(&mut self, cx: &mut Cx<'_>, id: FlowId, message: &Message<'_>) {
        let Start::Request { method, .. } = message.start() else {
            return;
        };
        let is_ack = *method == b"ACK";
        let handled = check::request(message).and_then(|request| self.handle_flow_request(cx, id, &request));
        let Err(rejection) = handled else { return };
        let flow = self.flows.get_mut(id.0);
        // RFC 3261 section 17.1.1.3: nothing answers an ACK.
        if is_ack || flow.is_none_or(|flow| !flow.admit_stateless(cx.now.mono)) {
            cx.stats.sip.dropped += 1;
            return;
        }
        self.answer_to_flow(cx, id, message, rejection);
        if self.flows.get(id.0).is_some_and(Flow::is_to_be_shut_out) {
            self.shut(cx, id, 1008, "too many failures");
        }
    }

    /// Answers a request in our own name.
    fn answer_to_flow(&mut self, cx: &mut Cx<'_>, id: FlowId, message: &Message<'_>, answer: Rejection) {
        let Some(flow) = self.flows.get(id.0) else { return };
        cx.stats.sip.refused += u64::from(answer.status >= 300);
        if answer.status == 403 {
            refused(Role::Sip, flow.peer.ip(), "forbidden", answer.reason);
        }
        let via = message.value(Name::Via).and_then(Via::first);
        let stamped = via
            .as_ref()
            .filter(|via| local::stamp(via, flow.peer, true, &mut self.stamped));
        let top = stamped.map_or(TopVia::Kept, |via| TopVia::Stamped(via, &self.stamped));
        let answer = Answer {
            status: answer.status,
            reason: answer.reason,
            detail: answer.detail,
            tag: self.tag(message),
        };
        let start = cx.made.len();
        answer.write(message, top, cx.made);
        let end = cx.made.len();
        self.send_flow(cx, id, start..end, None);
    }

    fn handle_flow_request(&mut self, cx: &mut Cx<'_>, id: FlowId, request: &Request<'_>) -> Result<(), Rejection> {
        let server = self.server_id(Side::Up, request);
        let known = self.server(server);
        // A browser speaks of its own transactions only.
        let own = known.filter(|key| self.transactions.get(*key).is_some_and(|known| known.flow == id));
        match request.method {
            Method::Ack => return self.ack_from_flow(cx, id, request, own),
            Method::Cancel => {
                let key = own.ok_or(Rejection::new(481, "Call/Transaction Does Not Exist"))?;
                self.answer_to_flow(cx, id, request.message, Rejection::new(200, "OK"));
                self.cancel(cx, key, &reasons(request.message));
                return Ok(());
            }
            _ => {}
        }
        if known.is_some() {
            // A repeat, which a reliable transport has no use for, or a branch that is not unique.
            cx.stats.sip.dropped += 1;
            return Ok(());
        }
        if self.is_scanner(request.message) {
            // Any answer would tell that there is something to scan.
            cx.stats.sip.dropped += 1;
            return Ok(());
        }
        check::policy(request)?;
        self.check_sender(id, request)?;
        let attempt = self.admit(cx.now.mono, id, request)?;
        let route = self.flow_route(request)?;
        let mut registering = match request.method {
            Method::Register => Some(self.registering(id, request)?),
            _ => None,
        };
        if let Some(registering) = &registering {
            self.come_back(cx, id, registering);
        }
        let Some(flow) = self.flows.get(id.0) else {
            return Ok(());
        };
        let destination = self.destination(cx.now.mono, flow, request, &route);
        let destination = destination.ok_or(Rejection::unavailable(RETRY_AFTER_SECS))?;
        let transaction = Transaction::new(
            cx.now.mono,
            Beginning {
                side: Side::Up,
                method: request.method,
                flow: id,
                trunk: flow.trunk,
                remote: destination.address,
                by_stream: false,
                server,
            },
        );
        let key = self.begin(transaction);
        let branch = self.branch(Kind::Transaction, key);
        let bytes = self.write_up(cx, id, request, &route, &branch, registering.as_ref());
        if bytes.len() > DATAGRAM_MAX {
            self.end(key);
            return Err(Rejection::new(513, "Message Too Large"));
        }
        if let Some(registering) = registering.as_mut().filter(|_| self.sip().policy.unregister_gone) {
            registering.keep(&cx.made[bytes.clone()]);
        }
        if let Some(transaction) = self.transactions.get_mut(key) {
            transaction.forwarded(&cx.made[bytes.clone()], request.message.body().len());
            transaction.registering = registering.map(Box::new);
            transaction.attempt = attempt;
        }
        self.depart(cx, key, destination.asks_stream, bytes);
        Ok(())
    }

    /// Whether there is room for one more transaction of a flow. Returns who is to blame if it is refused, unless it
    /// tries no password and comes from somebody who has registered, or in a dialog.
    fn admit(&mut self, now: Instant, id: FlowId, request: &Request<'_>) -> Result<Option<Attempt>, Rejection> {
        let (has_room, most) = (self.has_room(), self.sip().limits.transactions_per_flow_max);
        let busy = Rejection::unavailable(RETRY_AFTER_SECS);
        let flow = self.flows.get_mut(id.0).ok_or(busy)?;
        if !has_room || flow.pending >= most || !flow.admit(now, request.method) {
            return Err(busy);
        }
        let trunk = flow.trunk;
        if !self.trunk(trunk).is_available() {
            return Err(busy);
        }
        let has_credentials = request.message.field(Name::Credentials).is_some();
        let flow = self.flows.get(id.0).ok_or(busy)?;
        if !has_credentials && (flow.address_of_record.is_some() || request.is_in_dialog()) {
            return Ok(None);
        }
        let who = self.suspects(flow, request);
        if self.locks.is_locked(now, &who) {
            if let Some(flow) = self.flows.get_mut(id.0) {
                flow.lockouts = flow.lockouts.saturating_add(1);
            }
            return Err(Rejection::new(403, "Too Many Failures"));
        }
        Ok(Some(Attempt { who, has_credentials }))
    }

    /// Who is to blame if a request is refused.
    fn suspects(&self, flow: &Flow, request: &Request<'_>) -> Suspects {
        let address = match flow.peer.ip() {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            // A site has a whole /64.
            IpAddr::V6(address) => address.to_bits() >> 64,
        };
        Suspects {
            user: self.hash(&(b"user", address, claimed(request))),
            subject: flow.subject.as_ref().map(|subject| self.hash(&(b"subject", subject))),
            address: self.hash(&(b"address", address)),
        }
    }

    /// Whether the User-Agent of a request is that of a scanner.
    fn is_scanner(&self, message: &Message<'_>) -> bool {
        let Some(agent) = message.value(Name::UserAgent) else {
            return false;
        };
        let is_in_agent = |scanner: &String| {
            let mut starts = agent.windows(scanner.len().max(1));
            starts.any(|start| start.eq_ignore_ascii_case(scanner.as_bytes()))
        };
        self.sip().policy.scanners.iter().any(is_in_agent)
    }

    /// What is left of the Route of a request once our own values are taken off.
    fn flow_route(&self, request: &Request<'_>) -> Result<Route, Rejection> {
        let hops = rewrite::hops(request.message)?;
        let mut keep = 0..hops.len();
        // Where a new request goes is not the browser's choice: none of it is kept.
        while request.is_in_dialog() && keep.start < keep.end {
            match Uri::parse(hops[keep.start].uri(request.message)) {
                Ok(uri) if self.own(&uri)? != Own::No => keep.start += 1,
                _ => break,
            }
        }
        // A dialog that came about through us has us in its route set; any other route is none that we laid.
        if keep.start == 0 {
            keep.start = keep.end;
        }
        Ok(Route { hops, keep })
    }

    /// Appends a request as it goes to the mediaserver.
    fn write_up(
        &mut self,
        cx: &mut Cx<'_>,
        id: FlowId,
        request: &Request<'_>,
        route: &Route,
        branch: &[u8; BRANCH_LEN],
        registering: Option<&Registering>,
    ) -> Range<usize> {
        let Some(flow) = self.flows.get(id.0) else { return 0..0 };
        let message = request.message;
        let register_max = self.sip().policy.register_max;
        let splices = &mut self.splices;
        splices.clear();
        let stamped = local::stamp(&request.via, flow.peer, true, &mut self.stamped);
        let below = stamped.then_some((&request.via, &self.stamped[..]));
        rewrite::via(
            splices,
            message,
            [rewrite::UDP, self.names.udp.as_bytes(), branch],
            below,
        );
        if request.method.is_recorded() {
            rewrite::record_route(splices, message, &self.names, flow.token.as_bytes(), Side::Up);
        }
        rewrite::max_forwards(splices, message, request.max_forwards);
        rewrite::max_breadth(splices, message);
        rewrite::distrust(splices, message, &self.strip);
        rewrite::route(splices, message, route, None);
        rewrite::content_length(splices, message);
        if let Some(registering) = registering {
            rewrite::cap_expires(splices, message, register_max.as_secs());
            match registering.path {
                None => rewrite::hide_contacts(splices, message, &self.names, registering),
                Some(token) => rewrite::path(splices, message, &self.names, &token, registering),
            }
        }
        rewrite::finish(splices, message, cx.made)
    }

    fn ack_from_flow(
        &mut self,
        cx: &mut Cx<'_>,
        id: FlowId,
        request: &Request<'_>,
        known: Option<Key>,
    ) -> Result<(), Rejection> {
        if let Some(transaction) = known.and_then(|key| self.transactions.get_mut(key))
            && transaction.acknowledged(cx.now.mono)
        {
            // Ours to the mediaserver has gone already.
            return Ok(());
        }
        if self.is_to_us(request) {
            return Ok(());
        }
        let Some(flow) = self.flows.get_mut(id.0) else {
            return Ok(());
        };
        if !flow.admit_stateless(cx.now.mono) {
            cx.stats.sip.dropped += 1;
            return Ok(());
        }
        if request.max_forwards == Some(0) {
            return Err(Rejection::new(483, "Too Many Hops"));
        }
        // RFC 3261 section 16.11: an ACK to a 2xx passes without a transaction.
        let route = self.flow_route(request)?;
        let Some(flow) = self.flows.get(id.0) else {
            return Ok(());
        };
        let trunk = flow.trunk;
        let Some(Destination { address, asks_stream }) = self.destination(cx.now.mono, flow, request, &route) else {
            return Ok(());
        };
        let unique = Key::from_parts(cx.rng.u32(), cx.rng.u32());
        let branch = self.branch(Kind::Stateless, unique);
        let bytes = self.write_up(cx, id, request, &route, &branch, None);
        if bytes.len() <= DATAGRAM_MAX {
            let by_stream = self.is_for_stream(cx, trunk, address, asks_stream, bytes.len());
            if by_stream {
                rewrite::set_transport(&mut cx.made[bytes.clone()], rewrite::TCP);
            }
            self.send_remote(cx, address, by_stream, bytes);
        }
        Ok(())
    }

    /// A tag for what we answer without state: the same for the same request and its ACK (RFC 3261 section 8.2.7).
    pub(super) fn tag(&self, message: &Message<'_>) -> u64 {
        let via = message.value(Name::Via);
        let branch = via.and_then(Via::first).and_then(|via| via.branch());
        let cseq = message
            .value(Name::CSeq)
            .and_then(field::cseq)
            .map(|(number, _)| number);
        self.hash(&(message.value(Name::CallId), message.value(Name::From), branch, cseq))
    }

    /// Whether an ACK is for an answer of our own that has no transaction.
    pub(super) fn is_to_us(&self, request: &Request<'_>) -> bool {
        request
            .to
            .tag()
            .is_some_and(|tag| tag == local::tag_text(self.tag(request.message)).as_bytes())
    }
}
