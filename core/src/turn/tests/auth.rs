//! RFC 8489 section 9.2 and 14: who is let in, and what strangers are told.

use super::*;

const HERE: &str = "198.51.100.7:40000";

#[test]
fn a_binding_request_needs_no_credentials() {
    let mut lab = Lab::new();
    for client in [datagrams(HERE), datagrams("[2001:db8::7]:40000"), stream(1, HERE)] {
        let request = lab.draft(Method::BINDING).plain();
        let reply = lab.ask(client, &request).expect("an answer");
        assert_eq!(
            (reply.class(), reply.message().header().transaction),
            (Class::Success, lab.last())
        );
        assert_eq!(reply.addresses(Kind::XOR_MAPPED_ADDRESS), [client.source()]);
        assert!(!reply.message().has_fingerprint());
    }
    assert_eq!(lab.server.allocations(), 0);
}
