//! What does the one user of a TURN server say?

use super::*;
use crate::wire::stun::{Class, Header, Integrity, Key, Kind, Method, TransactionId, Writer};

/// 203.0.113.1:4080 as XOR-PEER-ADDRESS.
pub(super) const PEER: [u8; 8] = [0, 1, 0x21 ^ 0x0f, 0x12 ^ 0xf0, 203 ^ 0x21, 0x12, 113 ^ 0xa4, 1 ^ 0x42];

/// A TURN server with one user, and further keys of `[turn]`.
pub(super) fn config(more: &str) -> SharedConfig {
    let text = format!(
        r#"
[[turn.user]]
name = "alice"
password = "down the rabbit-hole"

[turn]
listen = "192.0.2.1:3478"
realm = "example.org"
{more}
"#
    );
    let mut files = Files {
        provider: Provider::for_tests(),
        cert: vec![],
        key: vec![],
    };
    let keys = Keys {
        nonce: [1; 32],
        flow: vec![[2; 32]],
    };
    Arc::new(Config::parse(&text, &mut files, keys).expect("a configuration"))
}

/// A request; signed by the user where there is a nonce.
pub(super) fn request(method: Method, attributes: &[(Kind, Vec<u8>)], nonce: Option<&[u8]>) -> Vec<u8> {
    let mut made = Vec::new();
    let mut writer = Writer::new(
        &mut made,
        Header {
            class: Class::Request,
            method,
            transaction: TransactionId(*b"transaction!"),
        },
    );
    for (kind, value) in attributes {
        writer.attribute(*kind, value);
    }
    if let Some(nonce) = nonce {
        writer.attribute(Kind::USERNAME, b"alice");
        writer.attribute(Kind::REALM, b"example.org");
        writer.attribute(Kind::NONCE, nonce);
        writer.sign(
            Integrity::Sha1,
            &Key::md5(b"alice", b"example.org", b"down the rabbit-hole"),
        );
    }
    let _ = writer.finish();
    made
}
