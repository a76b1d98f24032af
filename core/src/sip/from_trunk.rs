//! What happens to a message from a mediaserver? It goes to the browser whose flow token it carries.

use core::net::SocketAddr;

use super::{
    branch::{BRANCH_LEN, Kind},
    bridge::{Bridge, FlowId},
    check::{self, Rejection, Request},
    flows::Own,
    local::{self, Answer, TopVia, reasons},
    rewrite::{self, Route},
    transaction::{Beginning, Method, Side, State, Transaction},
};
use crate::{
    cx::Cx,
    refusal::{Role, refused},
    slab::Key,
    time::Instant,
    wire::sip::{Framing, Message, Name, Start, uri::Uri, via::Via},
};

/// Who sent a message: an address of a mediaserver.
#[derive(Debug, Clone, Copy)]
struct Sender {
    address: SocketAddr,
    /// Whether it came by TCP.
    by_stream: bool,
}

/// Where a request goes, and as what.
struct Target {
    flow: FlowId,
    route: Route,
    /// The Request-URI that the browser knows, if it is not the one that came.
    uri: Option<Vec<u8>>,
}

impl Sender {
    /// Where responses go (RFC 3261 section 18.2.2): by TCP back to where the request came from.
    fn reply_address(&self, via: &Via<'_>) -> SocketAddr {
        match self.by_stream {
            true => self.address,
            false => local::reply_address(via, self.address),
        }
    }
}

impl Bridge {
    /// One datagram from the SIP socket; whoever is not a mediaserver gets no answer.
    pub fn from_trunk(&mut self, cx: &mut Cx<'_>, from: SocketAddr, datagram: &[u8]) {
        if !self.is_trunk(from) {
            cx.stats.sip.dropped += 1;
            refused(
                Role::Sip,
                from.ip(),
                "stranger",
                "a datagram that is from no mediaserver",
            );
            return;
        }
        let sender = Sender {
            address: from,
            by_stream: false,
        };
        self.message_from_trunk(cx, sender, datagram);
    }

    /// One message from a TCP connection with a mediaserver.
    pub fn from_link(&mut self, cx: &mut Cx<'_>, from: SocketAddr, message: &[u8]) {
        let sender = Sender {
            address: from,
            by_stream: true,
        };
        if self.is_trunk(from) {
            self.message_from_trunk(cx, sender, message);
        }
    }

    fn message_from_trunk(&mut self, cx: &mut Cx<'_>, from: Sender, bytes: &[u8]) {
        cx.stats.sip.from_trunk += 1;
        let Some(message) = Message::read(bytes, Framing::Datagram) else {
            // Empty lines keep a way through a NAT open (RFC 5626 section 3.5.1).
            cx.stats.sip.dropped += u64::from(!bytes.trim_ascii().is_empty());
            return;
        };
        match message.start() {
            Start::Request { .. } => {
                self.heard(cx.now.mono, from.address);
                self.request_from_trunk(cx, from, &message);
            }
            Start::Response { .. } => {
                if self.response_from_trunk(cx, from.address, &message).is_none() {
                    cx.stats.sip.dropped += 1;
                }
            }
        }
    }

    fn request_from_trunk(&mut self, cx: &mut Cx<'_>, from: Sender, message: &Message<'_>) {
        let Start::Request { method, .. } = message.start() else {
            return;
        };
        let is_ack = *method == b"ACK";
        let handled = check::request(message).and_then(|request| self.handle_trunk_request(cx, from, &request));
        match handled {
            Ok(()) => {}
            Err(_) if is_ack => cx.stats.sip.dropped += 1,
            Err(rejection) => self.answer_to_trunk(cx, from, message, rejection),
        }
    }

    /// Answers a request in our own name, without a transaction. A repeat of it gets the same answer.
    fn answer_to_trunk(&mut self, cx: &mut Cx<'_>, from: Sender, message: &Message<'_>, answer: Rejection) {
        cx.stats.sip.refused += u64::from(answer.status >= 300);
        let Some(value) = message.value(Name::Via) else {
            // Nobody could tell what this would be an answer to.
            cx.stats.sip.dropped += 1;
            return;
        };
        let tag = self.tag(message);
        let via = Via::first(value);
        let stamped = via
            .as_ref()
            .filter(|via| local::stamp(via, from.address, false, &mut self.stamped));
        let top = stamped.map_or(TopVia::Kept, |via| TopVia::Stamped(via, &self.stamped));
        let to = via.map_or(from.address, |via| from.reply_address(&via));
        let answer = Answer {
            status: answer.status,
            reason: answer.reason,
            detail: answer.detail,
            tag,
        };
        let start = cx.made.len();
        answer.write(message, top, cx.made);
        let end = cx.made.len();
        self.send_remote(cx, to, from.by_stream, start..end);
    }

    fn handle_trunk_request(&mut self, cx: &mut Cx<'_>, from: Sender, request: &Request<'_>) -> Result<(), Rejection> {
        let server = self.server_id(Side::Down, request);
        let known = self.server(server);
        match request.method {
            Method::Ack => return self.ack_from_trunk(cx, from, request, known),
            Method::Cancel => {
                let key = known.ok_or(Rejection::new(481, "Call/Transaction Does Not Exist"))?;
                self.answer_to_trunk(cx, from, request.message, Rejection::new(200, "OK"));
                self.cancel(cx, key, &reasons(request.message));
                return Ok(());
            }
            _ => {}
        }
        if let Some(key) = known {
            self.repeat_to_trunk(cx, key);
            return Ok(());
        }
        if let Some(rejection) = self.refusals.find(cx.now.mono, server) {
            return Err(rejection);
        }
        check::policy(request)?;
        let target = self.target(cx.now.mono, from, request).inspect_err(|rejection| {
            if request.method == Method::Invite {
                self.refusals.add(cx.now.mono, server, *rejection);
            }
        });
        let Some(target) = target? else {
            return Ok(());
        };
        if !self.has_room() {
            return Err(Rejection::unavailable(1));
        }
        let Some(flow) = self.flows.get(target.flow.0) else {
            return Ok(());
        };
        if flow.pending >= self.sip().limits.transactions_per_flow_max {
            return Err(Rejection::unavailable(1));
        }
        let trunk = flow.trunk;
        let held_until = match flow.conn {
            Some(_) => None,
            // A call goes on: whoever is in it had better wait than be cut off.
            None if request.is_in_dialog() => flow.grace,
            None => Some(cx.now.mono + self.sip().limits.hold),
        };
        let mut transaction = Transaction::new(
            cx.now.mono,
            Beginning {
                side: Side::Down,
                method: request.method,
                flow: target.flow,
                trunk,
                remote: from.reply_address(&request.via),
                by_stream: from.by_stream,
                server,
            },
        );
        if let Some(until) = held_until {
            transaction.hold(until);
        }
        let key = self.begin(transaction);
        let branch = self.branch(Kind::Transaction, key);
        let bytes = self.write_down(cx, from, request, &target, &branch);
        if let Some(transaction) = self.transactions.get_mut(key) {
            transaction.forwarded(&cx.made[bytes.clone()], request.message.body().len());
        }
        if request.method == Method::Invite {
            // RFC 3261 section 16.2: at once, so that the mediaserver repeats nothing.
            self.trying(cx, key);
        }
        self.send_flow(cx, target.flow, bytes, Some(key));
        Ok(())
    }

    /// A request came again: so does its answer, if there is one.
    fn repeat_to_trunk(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(transaction) = self.transactions.get(key) else {
            return;
        };
        // RFC 6026 section 7.1: after a 2xx the browser repeats it, not we.
        if matches!(transaction.state(), State::Accepted | State::Confirmed) || transaction.response.is_empty() {
            return;
        }
        let (start, to, by_stream) = (cx.made.len(), transaction.remote, transaction.by_stream);
        cx.made.extend_from_slice(&transaction.response);
        cx.stats.sip.retransmitted += 1;
        let end = cx.made.len();
        self.send_remote(cx, to, by_stream, start..end);
    }

    fn ack_from_trunk(
        &mut self,
        cx: &mut Cx<'_>,
        from: Sender,
        request: &Request<'_>,
        known: Option<Key>,
    ) -> Result<(), Rejection> {
        if let Some(key) = known
            && let Some(transaction) = self.transactions.get_mut(key)
            && transaction.acknowledged(cx.now.mono)
        {
            self.settle(key);
            return Ok(());
        }
        if self.is_to_us(request) {
            return Ok(());
        }
        if request.max_forwards == Some(0) {
            return Err(Rejection::new(483, "Too Many Hops"));
        }
        // RFC 3261 section 16.11: an ACK to a 2xx passes without a transaction.
        let Some(target) = self.target(cx.now.mono, from, request)? else {
            return Ok(());
        };
        let unique = Key::from_parts(cx.rng.u32(), cx.rng.u32());
        let branch = self.branch(Kind::Stateless, unique);
        let bytes = self.write_down(cx, from, request, &target, &branch);
        self.send_flow(cx, target.flow, bytes, None);
        Ok(())
    }

    /// The flow that a request is for (RFC 3261 sections 16.4 and 16.5, RFC 5626 section 5.3); `None` when there is
    /// nothing to say.
    fn target(&mut self, now: Instant, from: Sender, request: &Request<'_>) -> Result<Option<Target>, Rejection> {
        let message = request.message;
        let hops = rewrite::hops(message)?;
        let (mut keep, mut uri, mut token, mut alias) = (0..hops.len(), None, None, None);
        let own_uri = Uri::parse(request.uri).ok();
        // A user of ours in the Request-URI that is no token is somebody whom we do not know.
        let own = own_uri.map_or(Own::No, |uri| self.own(&uri).unwrap_or(Own::Plain));
        if let (Own::Token(found), Some(own_uri)) = (own, own_uri) {
            if own_uri.is_loose() {
                // RFC 3261 section 16.4: a strict router has put our Record-Route where the Request-URI belongs.
                token = Some(found);
                if let Some(last) = hops.last() {
                    uri = Some(last.uri(message).to_vec());
                    keep.end -= 1;
                }
            } else {
                alias = Some(found);
            }
        }
        while keep.start < keep.end {
            let Ok(route) = Uri::parse(hops[keep.start].uri(message)) else {
                break;
            };
            match self.own(&route)? {
                Own::No => break,
                Own::Plain => {}
                Own::Token(found) => token = token.or(Some(found)),
            }
            keep.start += 1;
        }
        let Some(token) = token.or(alias) else {
            return Err(match (own, request.method) {
                // RFC 3261 section 11: a question after our own health.
                (Own::Plain, Method::Options) => Rejection::new(200, "OK"),
                _ => Rejection::new(404, "Not Found"),
            });
        };
        let found = match self.resolve(&token) {
            None if request.is_in_dialog() => self.revive(now, &token),
            found => found,
        };
        let belongs = |flow: &FlowId| {
            let trunk = self.flows.get(flow.0).map(|flow| self.trunk(flow.trunk));
            trunk.is_some_and(|trunk| trunk.node(from.address).is_some() && trunk.mark == token.mediaserver)
        };
        let Some(flow) = found.filter(belongs) else {
            return match request.method {
                // Any answer would keep the contact alive for a mediaserver that asks whether it is.
                Method::Options => Ok(None),
                _ => Err(self.flow_failed()),
            };
        };
        if request.method == Method::Options && self.flows.get(flow.0).is_some_and(|flow| flow.conn.is_none()) {
            return Ok(None);
        }
        if let Some(alias) = alias {
            let registrations = self.flows.get(flow.0).map(|flow| &flow.registrations);
            let known = registrations.and_then(|all| all.iter().find(|known| known.identity == alias.identity));
            let known = known.ok_or(Rejection::new(404, "Not Found"))?;
            if known.contact.is_empty() {
                return Err(self.flow_failed());
            }
            uri = Some(known.contact.to_vec());
        }
        let route = Route { hops, keep };
        Ok(Some(Target { flow, route, uri }))
    }

    /// Appends a request as it goes to the browser.
    fn write_down(
        &mut self,
        cx: &mut Cx<'_>,
        from: Sender,
        request: &Request<'_>,
        target: &Target,
        branch: &[u8; BRANCH_LEN],
    ) -> core::ops::Range<usize> {
        let Some(flow) = self.flows.get(target.flow.0) else {
            return 0..0;
        };
        let message = request.message;
        let protocol = if flow.secure { &b"WSS"[..] } else { b"WS" };
        let splices = &mut self.splices;
        splices.clear();
        let stamped = local::stamp(&request.via, from.address, false, &mut self.stamped);
        let below = stamped.then_some((&request.via, &self.stamped[..]));
        rewrite::via(splices, message, [protocol, self.names.ws.as_bytes(), branch], below);
        if request.method.is_recorded() {
            rewrite::record_route(splices, message, &self.names, flow.token.as_bytes(), Side::Down);
        }
        rewrite::max_forwards(splices, message, request.max_forwards);
        rewrite::max_breadth(splices, message);
        self.hide.remove(splices, message);
        rewrite::route(splices, message, &target.route, target.uri.as_deref());
        rewrite::finish(splices, message, cx.made)
    }
}
