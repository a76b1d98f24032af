//! What does a connection show before anything is kept for it? The PROXY header and the ClientHello.

use edgeward_core::wire::{proxy, tls::ClientHello};
use rustls::server::Acceptor;

/// A PROXY header that is taken is taken when its last byte has come, and what follows does not matter.
pub fn proxy_header(bytes: &[u8]) {
    let Ok(Some((ends, len))) = proxy::parse(bytes) else {
        return;
    };
    assert!(len <= bytes.len() && proxy::is_likely(bytes));
    assert_eq!(proxy::parse(&bytes[..len]), Ok(Some((ends, len))));
    for cut in (0..8).map(|eighth| len * eighth / 8) {
        assert_eq!(proxy::parse(&bytes[..cut]), Ok(None), "byte {cut} of {len}");
    }
}

/// Of a ClientHello that both take, rustls and we read the same name and protocols; what we have taken, more bytes do not
/// change.
///
/// Which of them are taken is not compared: we refuse a message that is longer or in more records than browsers send, and
/// take what rustls refuses, since we look at two extensions only and it at all.
pub fn client_hello(bytes: &[u8]) {
    let ours = ClientHello::parse(bytes);
    if let Ok(Some(whole)) = &ours {
        for cut in (0..8).map(|eighth| bytes.len() * eighth / 8) {
            match ClientHello::parse(&bytes[..cut]) {
                Ok(None) => {}
                Ok(Some(early)) => assert_eq!(&early, whole, "bytes behind it changed its meaning"),
                Err(_) => panic!("it was refused at byte {cut}, and then taken"),
            }
        }
    }
    let mut acceptor = Acceptor::default();
    if acceptor.read_tls(&mut &*bytes).is_err() {
        return;
    }
    let (Ok(Some(accepted)), Ok(Some(ours))) = (acceptor.accept(), ours) else {
        return;
    };
    let theirs = accepted.client_hello();
    // rustls tells a name in lower case, we as it was sent; whoever asks for it minds no case.
    let name = ours.server_name().map(str::to_ascii_lowercase);
    assert_eq!(theirs.server_name(), name.as_deref());
    let protocols: Vec<&[u8]> = theirs.alpn().into_iter().flatten().collect();
    assert_eq!(protocols, ours.protocols().collect::<Vec<_>>());
}
