//! RFC 8656 section 7: what a client gets, and when it gets nothing.

use super::*;

const HERE: &str = "198.51.100.7:40000";

#[test]
fn an_allocation_is_made_and_carries_data() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, relay, relayed) = lab.allocation(client);
    assert_eq!(relayed.ip(), address("192.0.2.10:0").ip());
    assert_eq!(lab.permit(client, &login, &["203.0.113.1:0"]), 0);
    let sent = lab.send(client, "203.0.113.1:5000", b"hello").expect("relayed");
    let to = To::Datagram {
        socket: SocketId::Relay(relay),
        peer: address("203.0.113.1:5000"),
        local: None,
    };
    assert_eq!((sent.to, sent.bytes.as_slice()), (to, b"hello".as_slice()));
    let sent = lab.peer(relay, "203.0.113.1:5000", b"world").expect("relayed");
    let reply = Reply::read(sent.bytes);
    assert_eq!(reply.value(Kind::DATA).as_deref(), Some(b"world".as_slice()));
    assert_eq!(lab.bind(client, &login, 0x4000, "203.0.113.1:5000"), 0);
    assert_eq!(
        lab.channel(client, 0x4000, b"hi").map(|sent| sent.bytes),
        Some(b"hi".to_vec())
    );
    let sent = lab.peer(relay, "203.0.113.1:5000", b"ho").expect("relayed");
    assert_eq!(sent.bytes, b"\x40\x00\x00\x02ho");
    assert_eq!(lab.refresh(client, &login, 0), 0);
    assert_eq!(lab.closed, [relay]);
    assert_eq!(lab.server.allocations(), 0);
}
