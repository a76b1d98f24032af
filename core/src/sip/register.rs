//! Who is this browser? REGISTER on its way to the mediaserver and back: Path or Contact of ours, and what an accepted
//! one means for the flow.

use arrayvec::ArrayVec;

use super::{
    bridge::{Bridge, FlowId},
    check::{Rejection, Request},
    flow::{AddressOfRecord, Registering, Registration},
    local::put,
    names::text,
    rewrite,
    token::Identity,
    transaction::Method,
};
use crate::{
    config::Reach,
    cx::Cx,
    wire::sip::{
        Name,
        field::{self, addresses},
        uri::Uri,
    },
};

impl Bridge {
    /// A flow speaks for the user that its token names, and once it has registered, for that address of record only.
    pub(super) fn check_sender(&self, id: FlowId, request: &Request<'_>) -> Result<(), Rejection> {
        let (Some(flow), false) = (self.flows.get(id.0), request.is_in_dialog()) else {
            return Ok(());
        };
        let claimed = claimed(request);
        let is_anonymous = is_anonymous(claimed) && request.method != Method::Register;
        let is_named = |subject: &str| is_anonymous || names(subject, claimed);
        // A flow without a subject is older than the rule.
        if self.sip().policy.token_names_user && !flow.subject.as_deref().is_some_and(is_named) {
            return Err(Rejection::new(403, "Not The User Of The Token"));
        }
        if is_anonymous {
            return Ok(());
        }
        if flow.address_of_record.as_ref().is_some_and(|own| !own.is(claimed)) {
            return Err(Rejection::new(403, "Other Address Of Record"));
        }
        Ok(())
    }

    /// A user whose flow was lost is back, by what the token of the WebSocket says: nobody need wait for the mediaserver.
    pub(super) fn come_back(&mut self, cx: &mut Cx<'_>, id: FlowId, registering: &Registering) {
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
    pub(super) fn registering(&self, id: FlowId, request: &Request<'_>) -> Result<Registering, Rejection> {
        let message = request.message;
        let mut registering = Registering {
            address_of_record: AddressOfRecord::of(request.to.uri),
            contacts: ArrayVec::new(),
            path: None,
            removes_all: false,
            path_supported: rewrite::lists(message, Name::Supported, b"path"),
            is_of_flow: false,
        };
        let Some(flow) = self.flows.get(id.0) else {
            return Ok(registering);
        };
        let trunk = self.trunk(flow.trunk);
        let default_expires = message.value(Name::Expires).and_then(field::number);
        for field in message.all(Name::Contact) {
            let value = message.text(field);
            if value == b"*" {
                registering.removes_all = true;
                continue;
            }
            for address in addresses(value) {
                let (_, _, address) = address.map_err(|_| Rejection::bad("Bad Contact"))?;
                registering.is_of_flow |= address.params.get(b"reg-id").is_some();
                let expires = address.params.value(b"expires").map_or(default_expires, field::number);
                let identity = identity(&trunk.name, request.to.uri, address.uri);
                let registration = Registration {
                    identity,
                    // It outlives the flow, so that a mediaserver sees one contact and not a new one each time.
                    alias: (trunk.reach == Reach::Contact).then(|| self.token_of(flow.trunk, identity)),
                    contact: address.uri.into(),
                    register: None,
                };
                let contact = (registration, expires == Some(0));
                let pushed = registering.contacts.try_push(contact);
                pushed.map_err(|_| Rejection::bad("Too Many Contacts"))?;
            }
        }
        if trunk.reach == Reach::Path {
            let identity = registering.contacts.first().map(|(first, _)| first.identity);
            registering.path = Some(self.token(id.0, flow.trunk, identity.unwrap_or(Identity::NONE)));
        }
        Ok(registering)
    }

    /// The mediaserver has accepted a REGISTER.
    pub(super) fn registered(&mut self, cx: &mut Cx<'_>, id: FlowId, registering: Registering) {
        let Some(flow) = self.flows.get_mut(id.0) else { return };
        flow.address_of_record.get_or_insert(registering.address_of_record);
        if registering.removes_all {
            for forgotten in flow.registrations.take() {
                self.disown(forgotten.identity, id);
            }
        }
        for (registration, removed) in registering.contacts {
            let identity = registration.identity;
            let Some(flow) = self.flows.get_mut(id.0) else { return };
            if removed {
                flow.registrations.retain(|known| known.identity != identity);
                self.disown(identity, id);
                continue;
            }
            let is_new = flow.registrations.iter().all(|known| known.identity != identity);
            if let Some(forgotten) = flow.register(registration) {
                self.disown(forgotten, id);
            }
            // The newest WebSocket counts, not the one that registered last: two that both live would take turns.
            let newest = self.identities.get(&identity).copied();
            if is_new || newest.is_none() {
                self.identities.insert(identity, id);
            }
            if is_new && let Some(old) = newest.filter(|old| *old != id) {
                self.succeed(cx, old, id);
            }
        }
        let Some(flow) = self.flows.get(id.0) else { return };
        let token = self.token(id.0, flow.trunk, flow.identity());
        if let Some(flow) = self.flows.get_mut(id.0) {
            flow.token = token;
        }
    }
}

/// Whom a request says it is of.
pub(super) fn claimed<'a>(request: &Request<'a>) -> &'a [u8] {
    match request.method {
        Method::Register => request.to.uri,
        _ => request.from.uri,
    }
}

/// Whether the subject of a token is the user of a URI, with or without its host.
fn names(subject: &str, uri: &[u8]) -> bool {
    let Ok(uri) = Uri::parse(uri) else { return false };
    let user = uri.user.unwrap_or_default();
    match subject.rsplit_once('@') {
        Some((name, host)) => name.as_bytes() == user && host.as_bytes().eq_ignore_ascii_case(uri.host),
        None => subject.as_bytes() == user,
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
            put(&mut essence, &[uri.port.map(text).unwrap_or_default().as_bytes()]);
            essence
        }
        Err(_) => uri.to_vec(),
    };
    Identity::of(mediaserver, &essence(address_of_record), &essence(contact))
}
