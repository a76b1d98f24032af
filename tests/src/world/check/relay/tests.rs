//! Does the checker find what must not be relayed?

use super::*;

const CLIENT: &str = "198.51.100.1:1000";
const RELAYED: &str = "192.0.2.1:30000";
const PEER: &str = "10.0.0.2:10000";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn request(method: u16) -> Message {
    Message::request(method).with(attribute::USERNAME, site::TURN_USERS[0].0)
}

fn sign(request: &Message) -> Vec<u8> {
    let (name, password) = site::TURN_USERS[0];
    request.encode_signed(&long_term_key(name, site::REALM.as_bytes(), password))
}

/// A client with an allocation and a permission for a peer since time 0.
fn allocated() -> Relay {
    let mut relay = Relay::default();
    let allocate = request(method::ALLOCATE);
    let mut granted = Message {
        class: Class::Success,
        attributes: Vec::new(),
        ..allocate.clone()
    }
    .with_peer(at(RELAYED))
    .with(attribute::LIFETIME, 600_u32.to_be_bytes());
    granted.attributes[0].0 = attribute::XOR_RELAYED_ADDRESS;
    relay
        .see(
            0,
            &Seen::Relay {
                at: at(RELAYED),
                is_there: true,
            },
        )
        .expect("a socket");
    grant(&mut relay, &allocate, &granted);
    let permit = request(method::CREATE_PERMISSION).with_peer(at(PEER));
    let granted = Message {
        class: Class::Success,
        attributes: Vec::new(),
        ..permit.clone()
    };
    grant(&mut relay, &permit, &granted);
    relay
}

fn grant(relay: &mut Relay, request: &Message, answer: &Message) {
    to_edge(relay, 0, CLIENT, &site::TURN.to_string(), &sign(request)).expect("a request");
    from_edge(relay, 0, &site::TURN.to_string(), CLIENT, &answer.encode()).expect("an answer");
}

fn to_edge(relay: &mut Relay, now: Time, from: &str, to: &str, bytes: &[u8]) -> Result<(), String> {
    let (from, to) = (at(from), at(to));
    relay.see(now, &Seen::ToEdge { from, to, bytes })
}

fn from_edge(relay: &mut Relay, now: Time, from: &str, to: &str, bytes: &[u8]) -> Result<(), String> {
    let (from, to) = (at(from), at(to));
    relay.see(now, &Seen::FromEdge { from, to, bytes })
}

fn send(peer: &str) -> Vec<u8> {
    let send = Message::indication(method::SEND).with_peer(at(peer));
    send.with(attribute::DATA, *b"data").encode()
}

#[test]
fn what_may_not_be_relayed_to_a_peer_is_found() {
    let check = |now, peer, payload: &[u8]| {
        let relay = &mut allocated();
        to_edge(relay, now, CLIENT, &site::TURN.to_string(), &send(peer)).expect("an indication");
        from_edge(relay, now, RELAYED, peer, payload)
    };
    assert_eq!(check(PERMISSION, PEER, b"data"), Ok(()));
    check(PERMISSION + 1, PEER, b"data").expect_err("a permission that has ended");
    check(0, PEER, b"dat").expect_err("other data");
    check(0, "10.0.0.3:10000", b"data").expect_err("a peer without a permission");
    check(0, "10.0.0.2:22", b"data").expect_err("a peer that nobody may reach");
}

#[test]
fn what_may_not_be_relayed_to_a_client_is_found() {
    let check = |now, peer: &str, payload: &[u8]| {
        let relay = &mut allocated();
        to_edge(relay, now, peer, RELAYED, b"data").expect("a datagram");
        let data = Message::indication(method::DATA).with_peer(at(peer));
        let data = data.with(attribute::DATA, payload).encode();
        from_edge(relay, now, &site::TURN.to_string(), CLIENT, &data)
    };
    assert_eq!(check(PERMISSION, PEER, b"data"), Ok(()));
    check(PERMISSION + 1, PEER, b"data").expect_err("a permission that has ended");
    check(0, PEER, b"atad").expect_err("other data");
    check(0, "10.0.0.3:10000", b"data").expect_err("a peer without a permission");
    let mut unbound = allocated();
    let data = stun::channel_data(0x4000, b"data");
    from_edge(&mut unbound, 0, &site::TURN.to_string(), CLIENT, &data).expect_err("a channel that is not bound");
}

#[test]
fn what_is_granted_without_a_password_is_found() {
    let permit = request(method::CREATE_PERMISSION).with_peer(at(PEER));
    let wrong = [permit.encode(), permit.encode_signed(b"wrong")];
    let granted = Message {
        class: Class::Success,
        attributes: Vec::new(),
        ..permit
    };
    for bytes in wrong {
        let relay = &mut Relay::default();
        to_edge(relay, 0, CLIENT, &site::TURN.to_string(), &bytes).expect("a request");
        from_edge(relay, 0, &site::TURN.to_string(), CLIENT, &granted.encode()).expect_err("no password");
    }
}
