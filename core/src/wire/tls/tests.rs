//! Is a ClientHello read right, however it is cut, and is everything else refused?

use proptest::prelude::*;

use super::*;

#[test]
fn names_and_protocols_are_read() {
    let check = |extensions: &[(u16, Vec<u8>)], name: Option<&str>, protocols: &[&[u8]]| {
        let bytes = hello(Some(extensions));
        let hello = ClientHello::parse(&bytes).unwrap().unwrap();
        assert_eq!(hello.server_name(), name);
        assert_eq!(hello.protocols().collect::<Vec<_>>(), protocols);
    };
    check(&[], None, &[]);
    check(&[(SERVER_NAME, sni("edge.example.com"))], Some("edge.example.com"), &[]);
    check(
        &[(SERVER_NAME, sni("Edge.example.com."))],
        Some("Edge.example.com"),
        &[],
    );
    check(&[(SERVER_NAME, sni("_x-1.example"))], Some("_x-1.example"), &[]);
    check(
        &[
            (43, vec![2, 3, 4]),
            (ALPN, alpn(&[b"h2", b"http/1.1"])),
            (SERVER_NAME, sni("a")),
        ],
        Some("a"),
        &[b"h2", b"http/1.1"],
    );
    // Addresses and names of other types are no name.
    check(&[(SERVER_NAME, sni("192.0.2.1"))], None, &[]);
    check(&[(SERVER_NAME, sni("2001:db8::1"))], None, &[]);
    check(&[(SERVER_NAME, vec![0, 3, 7, 1, 2])], None, &[]);
}

#[test]
fn a_hello_may_lack_extensions() {
    let bytes = hello(None);
    let hello = ClientHello::parse(&bytes).unwrap().unwrap();
    assert_eq!((hello.server_name(), hello.protocols().count()), (None, 0));
}

#[test]
fn what_is_malformed_is_refused() {
    let extensions = |list: &[(u16, Vec<u8>)]| assert_eq!(ClientHello::parse(&hello(Some(list))), Err(HelloError));
    extensions(&[(SERVER_NAME, sni("a")), (SERVER_NAME, sni("a"))]);
    extensions(&[(ALPN, alpn(&[b"a"])), (ALPN, alpn(&[b"a"]))]);
    for name in [
        "",
        ".",
        "a..b",
        ".a",
        "a b",
        "a/b",
        "\u{e9}.example",
        &"a".repeat(64),
        &"a.".repeat(128),
    ] {
        extensions(&[(SERVER_NAME, sni(name))]);
    }
    extensions(&[(SERVER_NAME, vec![])]);
    extensions(&[(SERVER_NAME, vec![0, 0])]);
    extensions(&[(SERVER_NAME, [sni("a"), vec![0]].concat())]);
    extensions(&[(SERVER_NAME, vec![0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'])]);
    extensions(&[(SERVER_NAME, vec![0, 4, 0, 0, 2, b'a'])]);
    extensions(&[(ALPN, vec![0, 0])]);
    extensions(&[(ALPN, vec![0, 1, 0])]);
    extensions(&[(ALPN, vec![0, 2, 2, b'a'])]);

    let bytes = |bytes: &[u8]| assert_eq!(ClientHello::parse(bytes), Err(HelloError), "{bytes:02x?}");
    bytes(b"GET /");
    bytes(&[22, 2]);
    bytes(&[22, 3, 1, 0, 0]);
    bytes(&[22, 3, 1, 0x40, 1]);
    // A ServerHello, and a hello that is too long.
    bytes(&[22, 3, 1, 0, 4, 2, 0, 0, 0]);
    bytes(&[22, 3, 1, 0, 4, 1, 1, 0, 0]);
    // Another record in the middle.
    bytes(&[22, 3, 1, 0, 1, 1, 21, 3, 1, 0, 2]);
    let mut shorter = hello(None);
    shorter[8] -= 1;
    bytes(&shorter);
    let mut longer = hello(None);
    longer.push(0);
    longer[4] += 1;
    longer[8] += 1;
    bytes(&longer);
}

#[test]
fn records_are_limited() {
    let whole = hello(Some(&[(21, vec![0; 500])]));
    let message = &whole[RECORD_HEADER_BYTES..];
    let cut = |len: usize| message.chunks(len).flat_map(record).collect::<Vec<u8>>();
    assert!(ClientHello::parse(&cut(message.len() / 60)).unwrap().is_some());
    assert_eq!(ClientHello::parse(&cut(1)), Err(HelloError));
}

#[test]
fn alerts_are_as_rfc_8446_has_them() {
    assert_eq!(Alert::UnrecognizedName.record(), [21, 3, 3, 0, 2, 2, 112]);
    assert_eq!(Alert::DecodeError.record()[6], 50);
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(cuts in prop::collection::vec(1_usize..80, 1..40), behind in prop::collection::vec(any::<u8>(), 0..9)) {
        let extensions = [(SERVER_NAME, sni("edge.example.com")), (ALPN, alpn(&[b"stun.turn"]))];
        let whole = hello(Some(&extensions));
        let mut message = &whole[RECORD_HEADER_BYTES..];
        let mut bytes = Vec::new();
        for cut in cuts {
            let (fragment, rest) = message.split_at(cut.min(message.len()));
            if !fragment.is_empty() {
                bytes.extend(record(fragment));
            }
            message = rest;
        }
        if !message.is_empty() {
            bytes.extend(record(message));
        }
        for len in 0..bytes.len() {
            prop_assert_eq!(ClientHello::parse(&bytes[..len]), Ok(None));
        }
        bytes.extend(behind);
        let hello = ClientHello::parse(&bytes).unwrap().unwrap();
        prop_assert_eq!(hello.server_name(), Some("edge.example.com"));
        prop_assert_eq!(hello.protocols().collect::<Vec<_>>(), [b"stun.turn"]);
    }

    #[test]
    fn garbage_does_no_harm(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let extensions = [(SERVER_NAME, sni("edge.example.com")), (ALPN, alpn(&[b"h2", b"http/1.1"]))];
        let mut bytes = hello(Some(&extensions));
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(Some(hello)) = ClientHello::parse(&bytes) {
            prop_assert!(hello.server_name().is_none_or(is_dns_name));
            prop_assert!(hello.protocols().all(|name| !name.is_empty()));
        }
    }
}

/// A ClientHello in one record.
fn hello(extensions: Option<&[(u16, Vec<u8>)]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; RANDOM_BYTES]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    if let Some(extensions) = extensions {
        let list = extensions.iter().flat_map(|(kind, data)| {
            let mut bytes = kind.to_be_bytes().to_vec();
            bytes.extend(vec16(data));
            bytes
        });
        body.extend(vec16(&list.collect::<Vec<u8>>()));
    }
    let mut message = vec![CLIENT_HELLO, 0];
    message.extend(vec16(&body));
    record(&message)
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, 3, 1][..], &vec16(fragment)].concat()
}

fn sni(name: &str) -> Vec<u8> {
    vec16(&[&[HOST_NAME][..], &vec16(name.as_bytes())].concat())
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let list = names.iter().flat_map(|name| [&[name.len() as u8][..], name].concat());
    vec16(&list.collect::<Vec<u8>>())
}

fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}
