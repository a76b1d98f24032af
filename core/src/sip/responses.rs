//! What happens to a response? It goes back the way that its request came, and no other (RFC 3261 section 16.7).

use core::net::SocketAddr;

use super::{
    bridge::{Bridge, DATAGRAM_MAX, FlowId},
    check::Response,
    ghosts::is_answer,
    limit::Attempt,
    local::hop_request,
    rewrite,
    transaction::{Method, Reply, Side, Transaction},
    transactions::Answered,
};
use crate::{
    cx::Cx,
    slab::Key,
    wire::sip::{Framing, Message, Name},
};

impl Bridge {
    /// From a browser to the mediaserver that asked; `None` when nobody did.
    pub(super) fn response_from_flow(&mut self, cx: &mut Cx<'_>, flow: FlowId, message: &Message<'_>) -> Option<()> {
        let response = Response::read(message)?;
        let admitted = response.status >= 300 || self.flows.get_mut(flow.0)?.admit_stateless(cx.now.mono);
        if !admitted || !self.names.ws.is_sent_by(&response.via) {
            return None;
        }
        // A browser answers for itself only.
        let is_asked = |asked: &Transaction| asked.side == Side::Down && asked.flow == flow;
        let Answered::Request(key) = self.answered(&response, is_asked)? else {
            return Some(());
        };
        let transaction = self.transactions.get_mut(key)?;
        let reply = transaction.response(cx.now.mono, response.status);
        if reply == Reply::ForwardAndAck || reply == Reply::Ack {
            let start = cx.made.len();
            if let Some(forwarded) = Message::read(&transaction.request, Framing::Datagram) {
                hop_request(b"ACK", &forwarded, message.value(Name::To), b"", cx.made);
                let end = cx.made.len();
                self.send_flow(cx, flow, start..end, None);
            }
        }
        if reply == Reply::ForwardAndAck || reply == Reply::Forward {
            self.forward_down_response(cx, key, &response);
        }
        self.after_response(cx, key);
        Some(())
    }

    /// Writes a browser's response as it goes to the mediaserver.
    fn forward_down_response(&mut self, cx: &mut Cx<'_>, key: Key, response: &Response<'_>) {
        let message = response.message;
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let splices = &mut self.splices;
        splices.clear();
        rewrite::pop_via(splices, message, &response.via);
        rewrite::distrust(splices, message, &self.strip);
        rewrite::content_length(splices, message);
        // RFC 3261 section 12.1.1: the route set is what the request recorded. Whoever could change it here could aim
        // the mediaserver's requests at anybody.
        if transaction.method.is_recorded()
            && (101..300).contains(&response.status)
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
        let (to, by_stream) = (transaction.remote, transaction.by_stream);
        self.send_remote(cx, to, by_stream, bytes);
    }

    /// From a mediaserver to the browser that asked, or to us; `None` when nobody did.
    pub(super) fn response_from_trunk(
        &mut self,
        cx: &mut Cx<'_>,
        from: SocketAddr,
        message: &Message<'_>,
    ) -> Option<()> {
        let response = Response::read(message)?;
        if !self.names.udp.is_sent_by(&response.via) {
            return None;
        }
        if response.status == 503 {
            self.told_to_wait(cx.now.mono, from, message);
        }
        if self.take_pong(cx.now.mono, from, &response.branch, response.status) {
            return Some(());
        }
        self.heard(cx.now.mono, from);
        let is_asked = |asked: &Transaction| asked.side == Side::Up && asked.remote == from;
        let Answered::Request(key) = self.answered(&response, is_asked)? else {
            return Some(());
        };
        // RFC 3261 section 21.5.4: a proxy that receives 503 should try an alternate server. That of a server which has said
        // something else before is about the call.
        let goes_elsewhere = response.status == 503 && self.fail_over(cx, key);
        let Some(transaction) = self.transactions.get_mut(key) else {
            return goes_elsewhere.then_some(());
        };
        let reply = transaction.response(cx.now.mono, response.status);
        match reply {
            Reply::Drop => {}
            Reply::Trying => self.trying(cx, key),
            Reply::Forward => self.forward_up_response(cx, key, &response),
            Reply::ForwardAndAck => {
                self.ack_to_trunk(cx, key, message);
                self.forward_up_response(cx, key, &response);
            }
            Reply::Ack => self.ack_again(cx, key),
        }
        self.after_response(cx, key);
        Some(())
    }

    /// RFC 3261 section 17.1.1.3: the ACK to a final response that is not 2xx goes one hop.
    fn ack_to_trunk(&mut self, cx: &mut Cx<'_>, key: Key, message: &Message<'_>) {
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        let start = cx.made.len();
        if let Some(forwarded) = Message::read(&transaction.request, Framing::Datagram) {
            hop_request(b"ACK", &forwarded, message.value(Name::To), b"", cx.made);
        }
        let bytes = start..cx.made.len();
        transaction.request = cx.made[bytes.clone()].to_vec();
        self.send_onward(cx, key, bytes);
    }

    /// The final response was repeated, so its ACK was lost.
    fn ack_again(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(transaction) = self
            .transactions
            .get(key)
            .filter(|transaction| !transaction.request.is_empty())
        else {
            return;
        };
        let start = cx.made.len();
        cx.made.extend_from_slice(&transaction.request);
        cx.stats.sip.retransmitted += 1;
        let end = cx.made.len();
        self.send_onward(cx, key, start..end);
    }

    /// Writes a mediaserver's response as it goes to the browser.
    fn forward_up_response(&mut self, cx: &mut Cx<'_>, key: Key, response: &Response<'_>) {
        let (message, status) = (response.message, response.status);
        let Some(transaction) = self.transactions.get_mut(key) else {
            return;
        };
        if self.flows.get(transaction.flow.0).is_none() {
            let (flow, trunk, from) = (transaction.flow, transaction.trunk, transaction.remote);
            if is_answer(message) {
                self.hang_up(cx, (flow, trunk, Some(from)), message);
            }
            return;
        }
        let splices = &mut self.splices;
        splices.clear();
        rewrite::pop_via(splices, message, &response.via);
        if let Some(registering) = transaction.registering.as_deref() {
            rewrite::restore_contacts(splices, message, registering);
            // RFC 3327 section 5.3: Path is for those who understand it. RFC 5626 section 5.4: Flow-Timer is the edge's
            // to give, and we ping ourselves.
            if !registering.path_supported {
                rewrite::remove_all(splices, message, Name::Path);
            }
            rewrite::remove_all(splices, message, Name::FlowTimer);
        }
        self.hide.remove(splices, message);
        let bytes = rewrite::finish(splices, message, cx.made);
        let flow = transaction.flow;
        let (from, is_register) = (transaction.remote, transaction.method == Method::Register);
        if let Some(Attempt { who, has_credentials }) = transaction.attempt {
            let is_known = self
                .flows
                .get(flow.0)
                .is_some_and(|flow| flow.address_of_record.is_some());
            match status {
                200..300 if has_credentials => self.locks.accepted(&who),
                401 | 407 if has_credentials => self.locks.denied(cx.now.mono, &who),
                // Whoever has not registered asks for users until there is one; whoever has dials a wrong number.
                403 | 404 if is_register || !is_known => self.locks.denied(cx.now.mono, &who),
                _ => {}
            }
        }
        let accepted = transaction.registering.take().filter(|_| (200..300).contains(&status));
        self.answer_browser(cx, key, status, bytes);
        if is_register
            && matches!(status, 200..300 | 401 | 407)
            && let Some(flow) = self.flows.get_mut(flow.0)
        {
            // The one that gave the challenge knows the answer to it.
            flow.home = Some(from);
        }
        if let Some(registering) = accepted {
            self.registered(cx, flow, *registering);
        }
    }
}
