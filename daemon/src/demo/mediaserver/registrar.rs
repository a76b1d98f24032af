//! Where is a user now? Bindings made by REGISTER (RFC 3261 section 10), reached through their Path (RFC 3327).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::sip::{Message, param, uri_of};

/// Shortest binding, so that a client cannot keep us busy.
const EXPIRES_MIN: u64 = 10;
/// Longest binding, and the one of a client that asks for none.
const EXPIRES_MAX: u64 = 600;

/// The bindings. A user has one at most, the newest: what Asterisk does by `max_contacts=1, remove_existing=yes`, and
/// the only way that a page that was closed does not go on ringing.
#[derive(Debug, Default)]
pub(super) struct Registrar {
    bindings: BTreeMap<String, Binding>,
}

/// Where a user can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    /// The Contact, to be used as Request-URI.
    pub(super) contact: String,
    /// The Path, to be used as route set.
    pub(super) path: Vec<String>,
    expires: Instant,
    call_id: String,
    cseq: u32,
}

impl Registrar {
    /// Does what a REGISTER of a known user asks for and answers it.
    pub(super) fn register(&mut self, now: Instant, user: &str, request: &Message, tag: &str) -> Message {
        let path: Vec<String> = request.values("Path").map(str::to_owned).collect();
        // RFC 3327 section 5.3: a Path that the client does not know of may have been slipped in.
        if !path.is_empty() && !request.supports("path") {
            return request.response(420, tag).with("Unsupported", "path");
        }
        let (Some(call_id), Some((cseq, _))) = (request.header("Call-ID"), request.cseq()) else {
            return request.response(400, tag);
        };
        // RFC 3261 section 10.3 step 7: a request that was overtaken by a newer one does nothing.
        if self
            .binding(now, user)
            .is_some_and(|old| old.call_id == call_id && old.cseq >= cseq)
        {
            return request.response(500, tag);
        }
        for contact in request.values("Contact") {
            let Some(expires) = lifetime(request, contact) else {
                return request.response(400, tag);
            };
            match expires {
                0 => {
                    let gone = |old: &Binding| contact == "*" || old.contact == uri_of(contact);
                    if self.bindings.get(user).is_some_and(gone) {
                        self.bindings.remove(user);
                    }
                }
                _ if contact == "*" => return request.response(400, tag),
                1..EXPIRES_MIN => {
                    return request.response(423, tag).with("Min-Expires", EXPIRES_MIN.to_string());
                }
                _ => {
                    let binding = Binding {
                        contact: uri_of(contact).into(),
                        path: path.clone(),
                        expires: now + Duration::from_secs(expires.min(EXPIRES_MAX)),
                        call_id: call_id.into(),
                        cseq,
                    };
                    self.bindings.insert(user.into(), binding);
                }
            }
        }
        let mut response = request.response(200, tag);
        if let Some(binding) = self.binding(now, user) {
            let left = binding.expires.duration_since(now).as_secs();
            response.push("Contact", format!("<{}>;expires={left}", binding.contact));
        }
        if !path.is_empty() {
            response.push("Path", path.join(", "));
            response.push("Supported", "path");
        }
        response
    }

    /// Where to reach a user.
    pub(super) fn binding(&self, now: Instant, user: &str) -> Option<&Binding> {
        self.bindings.get(user).filter(|binding| binding.expires > now)
    }

    /// Forgets a binding that leads nowhere any more, unless there is a newer one.
    pub(super) fn forget(&mut self, user: &str, binding: &Binding) {
        if self.bindings.get(user) == Some(binding) {
            self.bindings.remove(user);
        }
    }

    /// Forgets what has run out; whether there was anything.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.bindings.len();
        self.bindings.retain(|_, binding| binding.expires > now);
        self.bindings.len() != before
    }

    /// Everybody who can be reached.
    pub(super) fn users(&self) -> impl Iterator<Item = &str> {
        self.bindings.keys().map(String::as_str)
    }
}

/// RFC 3261 section 10.2.1.1: the contact's own parameter goes before the header.
fn lifetime(request: &Message, contact: &str) -> Option<u64> {
    match param(contact, "expires").or_else(|| request.header("Expires")) {
        Some(seconds) => seconds.parse().ok(),
        None => Some(EXPIRES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTACT: &str = "<sip:r4nd0m@df7jal23ls0d.invalid;transport=ws>";
    const PATH: &str = "<sip:tok@127.0.0.1:5060;lr;ob>";

    fn register(cseq: u32) -> Message {
        Message::request("REGISTER", "sip:lan.example")
            .with("Call-ID", "id")
            .with("CSeq", format!("{cseq} REGISTER"))
    }

    #[test]
    fn bindings_come_and_go() {
        let mut registrar = Registrar::default();
        let now = Instant::now();
        let mut check = |request: Message, status: u16, contact: Option<&str>| {
            let response = registrar.register(now, "alice", &request, "tag");
            assert_eq!(
                (response.status(), response.header("Contact")),
                (status, contact),
                "{request:?}"
            );
        };
        let bound = "<sip:r4nd0m@df7jal23ls0d.invalid;transport=ws>;expires=60";
        check(register(1), 200, None);
        check(
            register(2).with("Contact", CONTACT).with("Expires", "60"),
            200,
            Some(bound),
        );
        check(register(2).with("Contact", CONTACT).with("Expires", "0"), 500, None);
        check(register(3), 200, Some(bound));
        check(register(4).with("Contact", format!("{CONTACT};expires=5")), 423, None);
        check(register(4).with("Contact", format!("{CONTACT};expires=x")), 400, None);
        check(register(4).with("Contact", "*").with("Expires", "60"), 400, None);
        check(
            register(4).with("Contact", "<sip:other@y.invalid>;expires=0"),
            200,
            Some(bound),
        );
        check(register(5).with("Contact", "*").with("Expires", "0"), 200, None);
    }

    #[test]
    fn a_path_is_kept_and_echoed() {
        let mut registrar = Registrar::default();
        let now = Instant::now();
        let request = register(1).with("Contact", CONTACT).with("Path", PATH);
        assert_eq!(registrar.register(now, "alice", &request, "tag").status(), 420);
        let response = registrar.register(now, "alice", &request.with("Supported", "path"), "tag");
        assert_eq!((response.status(), response.header("Path")), (200, Some(PATH)));
        let binding = registrar.binding(now, "alice").expect("a binding");
        assert_eq!(binding.path, [PATH]);
        assert_eq!(binding.contact, "sip:r4nd0m@df7jal23ls0d.invalid;transport=ws");
    }

    #[test]
    fn a_dead_binding_is_forgotten_but_not_the_one_after_it() {
        let mut registrar = Registrar::default();
        let now = Instant::now();
        registrar.register(now, "alice", &register(1).with("Contact", CONTACT), "tag");
        let old = registrar.binding(now, "alice").cloned().expect("a binding");
        registrar.register(now, "alice", &register(2).with("Contact", CONTACT), "tag");
        registrar.forget("alice", &old);
        let new = registrar.binding(now, "alice").cloned().expect("a binding");
        registrar.forget("alice", &new);
        assert_eq!(registrar.binding(now, "alice"), None);
    }

    #[test]
    fn a_binding_runs_out() {
        let mut registrar = Registrar::default();
        let now = Instant::now();
        let request = register(1).with("Contact", CONTACT).with("Expires", "999999");
        registrar.register(now, "alice", &request, "tag");
        let end = now + Duration::from_secs(EXPIRES_MAX);
        assert!(registrar.binding(end - Duration::from_secs(1), "alice").is_some());
        assert_eq!(registrar.binding(end, "alice"), None);
        assert!(registrar.expire(end));
        assert_eq!(registrar.users().count(), 0);
    }
}
