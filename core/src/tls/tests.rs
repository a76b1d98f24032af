//! Do both sides of TLS understand each other, and does each client see the right certificate?

use core::net::IpAddr;

use bytes::BytesMut;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd,
};
use rustls::SignatureScheme;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::wire::tls::ClientHello;

/// 2026-09-21.
const NOW: UnixTime = UnixTime(1_790_000_000);
const DAY: u64 = 24 * 60 * 60;

fn provider() -> Provider {
    let provider = Provider::for_tests();
    provider.set_time(NOW);
    provider
}

fn pair(names: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (made.cert.pem().into(), made.signing_key.serialize_pem().into())
}

pub(super) fn both(names: &[&str], ask: &str) -> (Tls, Tls) {
    let (cert, key) = pair(names);
    let certificate = Certificate::new(&provider(), "`a.pem`", &cert, &key).expect("a certificate");
    let server = ServerTls::new(&provider(), vec![certificate]).expect("a server");
    let client = ClientTls::new(&provider(), &cert, ask).expect("a client");
    (
        Tls::client(&client).expect("a client"),
        Tls::server(&server, Protocols::HttpAndTurn, None).expect("a server"),
    )
}

/// Carries bytes between both in pieces of `piece` until nobody has more to say.
fn shake(client: &mut Tls, server: &mut Tls, piece: usize) -> Result<(), TlsError> {
    let (mut up, mut down, mut plain) = (BytesMut::new(), BytesMut::new(), Vec::new());
    client.receive(&mut [], &mut plain, &mut up)?;
    while !up.is_empty() || !down.is_empty() {
        let (mut to_server, mut to_client) = (up.split(), down.split());
        for bytes in to_server.chunks_mut(piece) {
            server.receive(bytes, &mut plain, &mut down)?;
        }
        for bytes in to_client.chunks_mut(piece) {
            client.receive(bytes, &mut plain, &mut up)?;
        }
    }
    assert_eq!(plain, b"");
    Ok(())
}

#[test]
fn data_passes_whatever_the_pieces() {
    let data: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    for piece in [1, 7, 1000, 100_000] {
        let (mut client, mut server) = both(&["edge.example.org"], "edge.example.org");
        shake(&mut client, &mut server, piece).expect("a handshake");
        assert!(client.is_ready() && server.is_ready());
        let (mut wire, mut plain) = (BytesMut::new(), Vec::new());
        client.seal(&data, &mut wire).expect("sealed");
        client.close(&mut wire);
        for bytes in wire.chunks_mut(piece) {
            server.receive(bytes, &mut plain, &mut BytesMut::new()).expect("opened");
        }
        assert!(plain == data, "the plaintext differs with pieces of {piece}");
        assert!(server.peer_closed());
        let (mut wire, mut plain) = (BytesMut::new(), Vec::new());
        server.seal(b"half closed", &mut wire).expect("sealed");
        client
            .receive(&mut wire, &mut plain, &mut BytesMut::new())
            .expect("opened");
        assert_eq!(plain, b"half closed");
    }
}

#[test]
fn the_other_direction_works_in_the_middle_of_a_record() {
    let (mut client, mut server) = both(&["a.example"], "a.example");
    shake(&mut client, &mut server, 4096).expect("a handshake");
    let (mut up, mut down, mut plain) = (BytesMut::new(), BytesMut::new(), Vec::new());
    client.seal(b"question", &mut up).expect("sealed");
    let (first, second) = up.split_at_mut(9);
    server.receive(first, &mut plain, &mut down).expect("half a record");
    server.seal(b"unasked", &mut down).expect("sealed");
    server.receive(second, &mut plain, &mut down).expect("the other half");
    assert_eq!(plain, b"question");
    plain.clear();
    client
        .receive(&mut down, &mut plain, &mut BytesMut::new())
        .expect("opened");
    assert_eq!(plain, b"unasked");
}

#[test]
fn a_stranger_is_refused_with_an_alert() {
    let (_, mut server) = both(&["a.example"], "a.example");
    let (mut client, _) = both(&["a.example"], "a.example");
    let refused = shake(&mut client, &mut server, 4096);
    assert!(refused.is_err(), "another authority signed that certificate");
    let (mut alert, mut plain) = (BytesMut::new(), Vec::new());
    let garbage = server.receive(&mut b"\x16\x03\x01\x00\x04abcd".to_owned(), &mut plain, &mut alert);
    assert!(garbage.is_err());
}

#[test]
fn garbage_is_answered_by_an_alert_and_nothing_more() {
    let (_, mut server) = both(&["a.example"], "a.example");
    let (mut alert, mut plain) = (BytesMut::new(), Vec::new());
    server
        .receive(&mut b"GET / HTTP/1.1\r\n\r\n".to_owned(), &mut plain, &mut alert)
        .expect_err("not TLS");
    assert_eq!((alert.first(), plain.len()), (Some(&21), 0));
}

#[test]
fn a_client_is_told_that_no_protocol_is_shared() {
    let (cert, key) = pair(&["a.example"]);
    let certificate = Certificate::new(&provider(), "a", &cert, &key).expect("a certificate");
    let tls = ServerTls::new(&provider(), vec![certificate]).expect("a server");
    let client = ClientTls::new(&provider(), &cert, "a.example")
        .expect("a client")
        .speaking(b"h2");
    let mut server = Tls::server(&tls, Protocols::HttpAndTurn, None).expect("a server");
    let mut client = Tls::client(&client).expect("a client");
    let (mut up, mut down, mut plain) = (BytesMut::new(), BytesMut::new(), Vec::new());
    client.receive(&mut [], &mut plain, &mut up).expect("a hello");
    server.receive(&mut up, &mut plain, &mut down).expect_err("no protocol");
    // Behind the ServerHello, which was on its way already.
    let told = client.receive(&mut down, &mut plain, &mut up).expect_err("an alert");
    assert!(told.to_string().contains("NoApplicationProtocol"), "{told}");
}

#[test]
fn our_own_hello_is_read() {
    let (mut client, _) = both(&["edge.example.org"], "edge.example.org");
    let mut hello = BytesMut::new();
    client.receive(&mut [], &mut Vec::new(), &mut hello).expect("a hello");
    let hello = ClientHello::parse(&hello).expect("a hello").expect("a whole one");
    assert_eq!(hello.server_name(), Some("edge.example.org"));
}

#[test]
fn certificates_are_found_by_name_and_by_what_can_be_verified() {
    let authority = Authority::new();
    let make = |label: &str, names: &[&str], algorithm| {
        let (cert, key) = authority.signs(names, algorithm, NOW.0 - DAY, NOW.0 + 90 * DAY);
        Certificate::new(&provider(), label, &cert, &key).expect("a certificate")
    };
    let ecdsa = &PKCS_ECDSA_P256_SHA256;
    let tls = ServerTls::new(
        &provider(),
        vec![
            make("rsa", &["edge.example.org", "www.example.org"], &PKCS_RSA_SHA256),
            make("ecdsa", &["edge.example.org", "www.example.org"], ecdsa),
            make("wildcard", &["*.example.org"], ecdsa),
            make("turn", &["Turn.example.org", "192.0.2.1"], ecdsa),
        ],
    )
    .expect("a server");
    let both = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];
    let check = |name, schemes: &[SignatureScheme], expected: Option<&str>| {
        let found = tls.resolver().choose(name, schemes).map(|key| {
            let all = tls.certificates();
            let shown = all.iter().find(|certificate| Arc::ptr_eq(&certificate.key(), &key));
            shown.expect("one of ours").label().to_owned()
        });
        assert_eq!(found.as_deref(), expected, "{name:?}");
    };
    check(None, &both, Some("ecdsa"));
    check(None, &both[..1], Some("rsa"));
    check(Some("EDGE.example.org"), &both, Some("ecdsa"));
    check(Some("edge.example.org"), &both[..1], Some("rsa"));
    check(Some("turn.example.org"), &both, Some("turn"));
    check(Some("turn.example.org"), &both[..1], None);
    check(Some("other.example.org"), &both, Some("wildcard"));
    check(Some("a.b.example.org"), &both, Some("ecdsa"));
    check(Some("example.org"), &both, Some("ecdsa"));

    for host in ["www.example.org", "x.EXAMPLE.org", "192.0.2.1"] {
        assert!(tls.has(host), "{host}");
    }
    assert!(!tls.has("example.com") && !tls.has("192.0.2.2"));
    assert!(tls.is_same_server("www.example.org", "edge.example.org"));
    assert!(tls.is_same_server("turn.example.org", "192.0.2.1"));
    assert!(!tls.is_same_server("turn.example.org", "edge.example.org"));
    assert_eq!(tls.names().len(), 6);
}

#[test]
fn a_replaced_certificate_is_shown_next() {
    let authority = Authority::new();
    let make = |name| {
        let (cert, key) = authority.signs(&[name], &PKCS_ECDSA_P256_SHA256, NOW.0 - DAY, NOW.0 + 90 * DAY);
        Certificate::new(&provider(), name, &cert, &key).expect("a certificate")
    };
    let tls = ServerTls::new(&provider(), vec![make("old.example")]).expect("a server");
    let client = |name: &str| ClientTls::new(&provider(), authority.pem.as_bytes(), name).expect("a client");
    let shakes = |name: &str| {
        let mut server = Tls::server(&tls, Protocols::Http, Some(name)).expect("a server");
        let mut client = Tls::client(&client(name)).expect("a client");
        shake(&mut client, &mut server, 4096).map(|()| (client, server))
    };
    let (mut client, mut server) = shakes("old.example").expect("a handshake");
    assert_eq!(server.server_name(), Some("old.example"));
    tls.clone().replace(vec![make("new.example")]);
    assert!(shakes("new.example").is_ok());
    assert!(shakes("old.example").is_err());
    // Who is connected notices nothing.
    let (mut wire, mut plain) = (BytesMut::new(), Vec::new());
    client.seal(b"still here", &mut wire).expect("sealed");
    server
        .receive(&mut wire, &mut plain, &mut BytesMut::new())
        .expect("opened");
    assert_eq!(plain, b"still here");
}

#[test]
fn only_an_authority_gets_the_answer_for_it() {
    let (cert, key) = pair(&["edge.example.org"]);
    let tls = ServerTls::new(&provider(), Vec::new()).expect("a server");
    let client = ClientTls::new(&provider(), &cert, "edge.example.org").expect("a client");
    let client = client.speaking(ALPN_ACME);
    let shakes = |protocols| {
        let mut server = Tls::server(&tls, protocols, None).expect("a server");
        shake(&mut Tls::client(&client).expect("a client"), &mut server, 4096).map(|()| server)
    };
    assert!(shakes(Protocols::Challenge).is_err());
    tls.answer_challenge(&provider(), "Edge.example.org", &cert, &key)
        .expect("a certificate");
    let server = shakes(Protocols::Challenge).expect("a handshake");
    assert_eq!(server.alpn(), Some(ALPN_ACME));
    assert!(shakes(Protocols::HttpAndTurn).is_err());
    tls.end_challenge("edge.example.org");
    assert!(shakes(Protocols::Challenge).is_err());
}

#[test]
fn what_cannot_serve_is_named() {
    let (cert, key) = pair(&["a.example"]);
    let (_, other) = pair(&["b.example"]);
    let check = |cert: &[u8], key: &[u8], expected: &str| {
        let error = Certificate::new(&provider(), "`a.pem`", cert, key).expect_err("unusable");
        assert!(error.0.contains(expected), "{error}");
    };
    check(&cert, &other, "not that of the certificate");
    check(&cert, b"", "no private key");
    check(b"", &key, "no certificate");
    assert!(ClientTls::new(&provider(), &cert, "not a name").is_err());
    assert!(ClientTls::with(&provider(), &Trust::default(), None, "a.example").is_err());
}

#[test]
fn an_administrator_is_warned() {
    let authority = Authority::new();
    let check = |chain: &[&[u8]], key: &[u8], host: &str, expected: &[&str]| {
        let certificate = Certificate::new(&provider(), "`a.pem`", &chain.concat(), key).expect("a certificate");
        let tls = ServerTls::new(&provider(), vec![certificate]).expect("a server");
        let findings = tls.findings(NOW, &[host.to_owned()]);
        let said: Vec<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(said, expected);
    };
    let ca = authority.pem.as_bytes();
    let sign = |begin: u64, end: u64| authority.signs(&["a.example"], &PKCS_ECDSA_P256_SHA256, begin, end);
    let (good, key) = sign(NOW.0 - DAY, NOW.0 + 15 * DAY);
    check(&[&good, ca], &key, "a.example", &[]);
    check(
        &[&good],
        &key,
        "a.example",
        &[
            "`a.pem` comes without an intermediate certificate: clients that do not know its issuer, CN=Authority, will \
           refuse it",
        ],
    );
    check(
        &[&good, ca],
        &key,
        "b.example",
        &[
            "`a.pem` is for none of the hosts that are answered",
            "no certificate is for b.example: browsers will refuse it",
        ],
    );
    check(
        &[&good, &good],
        &key,
        "a.example",
        &["`a.pem` has a gap in its chain: the certificate of CN=Authority does not follow"],
    );
    let (soon, key) = sign(NOW.0 - DAY, NOW.0 + 13 * DAY);
    check(&[&soon, ca], &key, "a.example", &["`a.pem` expires 13 days from now"]);
    let (ended, key) = sign(NOW.0 - 9 * DAY, NOW.0 - DAY);
    check(&[&ended, ca], &key, "a.example", &["`a.pem` has expired 1 day ago"]);
    let (early, key) = sign(NOW.0 + 3600, NOW.0 + 99 * DAY);
    let expected = "`a.pem` is not valid yet: it begins 1 hours from now";
    check(&[&early, ca], &key, "a.example", &[expected]);
    // One that is signed by itself has no issuer to be missing.
    let (own, key) = pair(&["a.example"]);
    check(&[&own], &key, "a.example", &[]);
}

#[test]
fn weak_keys_and_signatures_are_seen() {
    // Made by openssl: RSA of 1024 bits, signed with SHA-1 by an RSA key of 2048 bits.
    let chain = chain(include_bytes!("tests/weak.pem")).expect("a certificate");
    let findings = examine::examine(&chain).findings("`a.pem`", UnixTime(0));
    let said: Vec<&str> = findings.iter().map(|finding| finding.what.as_str()).collect();
    assert!(said.contains(&"`a.pem` has a weak key: RSA of 1024 bits"), "{said:?}");
    assert!(said.contains(&"`a.pem` has a weak signature: SHA-1"), "{said:?}");
}

#[test]
fn an_ocsp_response_is_shown_as_long_as_it_is_good() {
    // Made by openssl for the certificate of serial number 0x1234; the second one says that it is revoked.
    let good: &[u8] = include_bytes!("tests/ocsp-good.der");
    let revoked: &[u8] = include_bytes!("tests/ocsp-revoked.der");
    let check = |der: &[u8], serial: &[u8], expected| assert_eq!(ocsp::good_until(der, serial), expected);
    let until = ocsp::good_until(good, &[0x12, 0x34]).expect("a good response");
    check(good, &[0x12, 0x35], Err("is for another certificate"));
    check(revoked, &[0x12, 0x34], Err("does not say that the certificate is good"));
    check(b"garbage", &[0x12, 0x34], Err("is no OCSP response in DER form"));
    check(
        &good[..good.len() - 1],
        &[0x12, 0x34],
        Err("is no OCSP response in DER form"),
    );
    // RFC 6960 section 4.2.1: tryLater, without a body.
    check(
        &[0x30, 3, 0x0a, 1, 3],
        &[0x12, 0x34],
        Err("is an error of the responder"),
    );

    let certificate = || {
        let (cert, key) = (include_bytes!("tests/ocsp.pem"), include_bytes!("tests/ocsp.key"));
        Certificate::new(&provider(), "`a.pem`", cert, key).expect("a certificate")
    };
    let stapled = certificate().with_ocsp("a.ocsp", Ok(good));
    assert_eq!(stapled.shown(UnixTime(until.0 - 1)).ocsp.as_deref(), Some(good));
    assert_eq!(stapled.shown(until).ocsp, None);
    let said = |certificate: &Certificate, now| {
        let findings = certificate.findings(now, &[]);
        findings.iter().any(|finding| finding.what.contains("OCSP"))
    };
    assert!(!said(&stapled, UnixTime(until.0 - 1)) && said(&stapled, until));
    let unstapled = certificate().with_ocsp("a.ocsp", Err("no such file"));
    assert_eq!(unstapled.shown(NOW).ocsp, None);
    assert!(said(&unstapled, NOW));
}

#[test]
fn addresses_are_hosts_too() {
    let (cert, key) = pair(&["a.example", "192.0.2.1", "2001:db8::1"]);
    let certificate = Certificate::new(&provider(), "a", &cert, &key).expect("a certificate");
    for host in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]", "A.example"] {
        assert!(certificate.is_for(host), "{host}");
    }
    let mapped: IpAddr = "::ffff:192.0.2.1".parse().expect("an address");
    assert!(certificate.is_for(&mapped.to_string()));
    assert!(!certificate.is_for("192.0.2.2") && !certificate.is_for("[2001:db8::2]"));
}

/// Who signs the certificates of these tests.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A chain and its key, good from one second to another.
    fn signs(
        &self,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        begin: u64,
        end: u64,
    ) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names or addresses");
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(begin);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
        let pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        (pem.into(), key.serialize_pem().into())
    }
}

#[test]
fn a_pinned_key_is_believed_and_no_other() {
    let (cert, key) = pair(&["a.example"]);
    let certificate = Certificate::new(&provider(), "`a.pem`", &cert, &key).expect("a certificate");
    let server = ServerTls::new(&provider(), vec![certificate]).expect("a server");
    let der = chain(&cert).expect("a certificate").remove(0);
    let entity = webpki::EndEntityCert::try_from(&der).expect("a certificate");
    let pin: [u8; 32] = Sha256::digest(&*entity.subject_public_key_info()).into();
    let (stranger, _) = pair(&["a.example"]);
    let check = |authorities: Option<&Vec<u8>>, pins: &[[u8; 32]], name: &str, is_believed: bool| {
        let trust = Trust {
            authorities: authorities.cloned(),
            pins: pins.to_vec(),
        };
        let client = ClientTls::with(&provider(), &trust, None, name).expect("a client");
        let mut client = Tls::client(&client).expect("a client");
        let mut server = Tls::server(&server, Protocols::HttpAndTurn, None).expect("a server");
        let result = shake(&mut client, &mut server, 4096);
        assert_eq!(result.is_ok(), is_believed, "{trust:?} {result:?}");
    };
    check(None, &[pin], "any.example", true);
    check(None, &[[0; 32], pin], "any.example", true);
    check(None, &[[0; 32]], "a.example", false);
    check(Some(&cert), &[pin], "a.example", true);
    check(Some(&cert), &[pin], "b.example", false);
    check(Some(&cert), &[[0; 32]], "a.example", false);
    check(Some(&stranger), &[pin], "a.example", false);
}
