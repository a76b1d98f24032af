//! What is said in the name of a browser that has gone for good? A call that is answered only now is hung up, and where the
//! configuration wants it, its contacts are removed at the mediaserver. Nobody else would, and whoever calls would wait.

use core::net::SocketAddr;

use super::{
    branch::{BRANCH_LEN, Kind},
    bridge::{Bridge, FlowId},
    flow::Registration,
    flows::Own,
    local::put,
    names::text,
    transaction::{Beginning, Method, ServerId, Side, Transaction},
    trunk::TrunkId,
};
use crate::{
    cx::Cx,
    slab::Key,
    wire::sip::{
        Framing, Message, Name, Start,
        field::{self, Address, addresses},
        uri::Uri,
    },
};

impl Bridge {
    /// Acknowledges a 2xx to INVITE, and ends the call unless that is under way (RFC 3261 sections 13.2.2.4 and 15).
    /// `gone` is the flow that it was for, `from` where it came from, if that is known.
    pub(super) fn hang_up(
        &mut self,
        cx: &mut Cx<'_>,
        (gone, trunk, from): (FlowId, TrunkId, Option<SocketAddr>),
        answer: &Message<'_>,
    ) {
        let contact = answer.value(Name::Contact).and_then(Address::first);
        let contact = contact.and_then(|(contact, _)| Uri::parse(contact.uri).ok());
        let preferred = contact.and_then(|uri| self.trunk(trunk).named_by(&uri)).or(from);
        let Some(to) = self.trunk(trunk).pick(cx.now.mono, preferred, &[]) else {
            return;
        };
        let unique = Key::from_parts(cx.rng.u32(), cx.rng.u32());
        let branch = self.branch(Kind::Stateless, unique);
        let start = cx.made.len();
        if self.write_in_dialog(b"ACK", 0, answer, &branch, cx.made).is_none() {
            return;
        }
        let end = cx.made.len();
        self.send_trunk(cx, to, start..end);
        // The same for each repeat of the answer.
        let server = self.hash(&(b"BYE", answer.value(Name::CallId), answer.value(Name::To)));
        self.say_for(cx, (gone, trunk, to), (Method::Other, server), |bridge, branch, out| {
            bridge.write_in_dialog(b"BYE", 1, answer, branch, out)
        });
    }

    /// Removes a contact at the mediaserver as the browser would have: its last REGISTER again, with no time to live
    /// (RFC 3261 section 10.2.2). A registrar that wants a fresh digest refuses that, and nobody here knows the password.
    pub(super) fn unregister(&mut self, cx: &mut Cx<'_>, gone: FlowId, trunk: TrunkId, registration: &Registration) {
        let home = self.flows.get(gone.0).and_then(|flow| flow.home);
        let to = self.trunk(trunk).pick(cx.now.mono, home, &[]);
        let (Some(register), Some(to)) = (registration.register.as_deref(), to) else {
            return;
        };
        let server = self.hash(&(b"REGISTER", register, cx.rng.u32()));
        let contact = match &registration.alias {
            None => registration.contact.to_vec(),
            Some(alias) => [b"sip:", alias.as_bytes(), b"@", self.names.udp.as_bytes()].concat(),
        };
        self.say_for(
            cx,
            (gone, trunk, to),
            (Method::Register, server),
            |bridge, branch, out| {
                let message = Message::read(register, Framing::Datagram)?;
                bridge.write_removal(&message, &contact, branch, out)
            },
        );
    }

    /// Sends a request of our own, which is repeated until it is answered.
    fn say_for(
        &mut self,
        cx: &mut Cx<'_>,
        (gone, trunk, to): (FlowId, TrunkId, SocketAddr),
        (method, server): (Method, u64),
        write: impl FnOnce(&Self, &[u8; BRANCH_LEN], &mut Vec<u8>) -> Option<()>,
    ) {
        let server = ServerId(u128::from(server));
        if self.server(server).is_some() || !self.has_room() {
            return;
        }
        let transaction = Transaction::new(
            cx.now.mono,
            Beginning {
                side: Side::Up,
                method,
                flow: gone,
                trunk,
                remote: to,
                by_stream: false,
                server,
            },
        );
        let key = self.begin(transaction);
        let branch = self.branch(Kind::Transaction, key);
        let start = cx.made.len();
        if write(self, &branch, cx.made).is_none() {
            self.end(key);
            return;
        }
        let bytes = start..cx.made.len();
        if let Some(transaction) = self.transactions.get_mut(key) {
            transaction.forwarded(&cx.made[bytes.clone()], 0);
        }
        self.depart(cx, key, false, bytes);
    }

    /// Appends a request of the caller in the dialog that `answer` makes (RFC 3261 section 12.2.1.1), `later` requests
    /// after its INVITE.
    fn write_in_dialog(
        &self,
        method: &[u8],
        later: u32,
        answer: &Message<'_>,
        branch: &[u8; BRANCH_LEN],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let contact = answer.value(Name::Contact).and_then(Address::first)?.0;
        let (number, _) = answer.value(Name::CSeq).and_then(field::cseq)?;
        put(out, &[method, b" ", contact.uri, b" SIP/2.0\r\n"]);
        self.write_via(branch, out);
        // RFC 3261 section 12.1.2: in reverse order, but for ours, which lead here.
        let recorded: Vec<&[u8]> = answer
            .all(Name::RecordRoute)
            .flat_map(|field| addresses(answer.text(field)).map_while(Result::ok))
            .map(|(_, _, address)| address.uri)
            .filter(|uri| Uri::parse(uri).is_ok_and(|uri| self.own(&uri) == Ok(Own::No)))
            .collect();
        for uri in recorded.iter().rev() {
            put(out, &[b"Route: <", uri, b">\r\n"]);
        }
        put(out, &[b"From: ", answer.value(Name::From)?, b"\r\n"]);
        put(out, &[b"To: ", answer.value(Name::To)?, b"\r\n"]);
        put(out, &[b"Call-ID: ", answer.value(Name::CallId)?, b"\r\n"]);
        put(out, &[b"CSeq: ", text(number + later).as_bytes(), b" ", method]);
        put(out, &[b"\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"]);
        Some(())
    }

    /// Appends a REGISTER that removes one contact of `register`, a REGISTER as it went to the mediaserver.
    fn write_removal(
        &self,
        register: &Message<'_>,
        contact: &[u8],
        branch: &[u8; BRANCH_LEN],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let Start::Request { uri, .. } = register.start() else {
            return None;
        };
        let (number, _) = register.value(Name::CSeq).and_then(field::cseq)?;
        put(out, &[b"REGISTER ", &register.bytes()[uri.clone()], b" SIP/2.0\r\n"]);
        self.write_via(branch, out);
        for field in register.fields() {
            let is_kept = matches!(
                field.name,
                Name::From | Name::To | Name::CallId | Name::Path | Name::Supported | Name::Credentials
            );
            if is_kept {
                put(out, &[&register.bytes()[field.line()]]);
            }
        }
        put(out, &[b"CSeq: ", text(number + 1).as_bytes(), b" REGISTER\r\n"]);
        put(out, &[b"Contact: <", contact, b">;expires=0\r\nExpires: 0\r\n"]);
        put(out, &[b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"]);
        Some(())
    }

    fn write_via(&self, branch: &[u8; BRANCH_LEN], out: &mut Vec<u8>) {
        put(out, &[b"Via: SIP/2.0/UDP ", self.names.udp.as_bytes()]);
        put(out, &[b";branch=", branch, b";rport\r\n"]);
    }
}

/// Whether a message is a 2xx to INVITE, which makes a call (RFC 3261 section 13.2.2.4).
pub(super) fn is_answer(message: &Message<'_>) -> bool {
    let to_invite = || {
        message
            .value(Name::CSeq)
            .and_then(field::cseq)
            .map(|(_, method)| method)
            == Some(b"INVITE")
    };
    matches!(message.start(), Start::Response { status: 200..300 }) && to_invite()
}
