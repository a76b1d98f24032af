//! RFC 8489 sections 9.2, 12 and 14: who is let in, and what strangers are told.

use core::net::Ipv4Addr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};

use super::*;
use crate::wire::stun::userhash;

const HERE: &str = "198.51.100.7:40000";

const METHODS: [Method; 4] = [
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
];

/// An ephemeral user and the password that goes with it.
fn ephemeral(user: &str, secret: &str) -> (String, String) {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(user.as_bytes());
    (user.into(), STANDARD.encode(mac.finalize().into_bytes()))
}

#[test]
fn a_binding_request_needs_no_credentials() {
    let mut lab = Lab::new();
    for client in [datagrams(HERE), datagrams("[2001:db8::7]:40000"), stream(1, HERE)] {
        let request = lab.draft(Method::BINDING).plain();
        let reply = lab.ask(client, &request).expect("an answer");
        let header = reply.message().header();
        assert_eq!((header.class, header.transaction), (Class::Success, lab.last()));
        assert_eq!(reply.addresses(Kind::XOR_MAPPED_ADDRESS), [client.source()]);
        assert!(!reply.message().has_fingerprint());
    }
    assert_eq!(lab.server.allocations(), 0);
}

#[test]
fn a_mapped_address_in_ipv6_clothes_is_ipv4() {
    let mut lab = Lab::new();
    let request = lab.draft(Method::BINDING).plain();
    let reply = lab
        .ask(datagrams("[::ffff:198.51.100.7]:40000"), &request)
        .expect("an answer");
    assert_eq!(reply.addresses(Kind::XOR_MAPPED_ADDRESS), [address(HERE)]);
}

#[test]
fn a_fingerprint_is_answered_with_a_fingerprint() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    for method in METHODS.into_iter().chain([Method::BINDING]) {
        let plain = lab.draft(method).fingerprint().plain();
        assert!(lab.ask(client, &plain).expect("an answer").message().has_fingerprint());
        let signed = lab.draft(method).fingerprint().signed(&login);
        assert!(lab.ask(client, &signed).expect("an answer").message().has_fingerprint());
    }
    // A wrong one means that the message is not what it seems.
    let mut damaged = lab.draft(Method::BINDING).fingerprint().plain();
    *damaged.last_mut().expect("a byte") ^= 1;
    assert_eq!(lab.client(client, &damaged), None);
}

#[test]
fn what_is_no_request_of_ours_is_not_answered() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let mut check = |bytes: &[u8]| assert_eq!(lab.client(client, bytes), None, "{bytes:02x?}");
    let draft = Lab::new().draft(Method::BINDING);
    check(b"");
    check(b"\0");
    check(b"GET / HTTP/1.1\r\n\r\n");
    check(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03");
    // Classic STUN (RFC 3489) has no magic cookie.
    check(b"\x00\x01\x00\x00transactionident");
    check(&draft.clone().indication().plain());
    for (class, method) in [
        (Class::Success, Method::BINDING),
        (Class::Error, Method::ALLOCATE),
        (Class::Indication, Method::DATA),
        (Class::Indication, Method::ALLOCATE),
        (Class::Request, Method::SEND),
        (Class::Request, Method::DATA),
        (Class::Request, Method(0x00a)),
        (Class::Request, Method(0xfff)),
    ] {
        let header = Header {
            class,
            method,
            ..draft.header
        };
        check(
            &Draft {
                header,
                ..draft.clone()
            }
            .plain(),
        );
    }
    // Two messages in one datagram are none.
    check(&[draft.plain(), draft.plain()].concat());
}

#[test]
fn a_malformed_request_is_a_bad_request() {
    let mut lab = Lab::new();
    for method in METHODS.into_iter().chain([Method::BINDING]) {
        let mut bytes = lab.draft(method).raw(Kind::LIFETIME, &[0; 4]).plain();
        bytes[23] = 5;
        let reply = lab.ask(datagrams(HERE), &bytes).expect("an answer");
        assert_eq!((reply.code(), reply.bytes.len()), (400, 28));
    }
}

#[test]
fn a_request_without_integrity_is_challenged() {
    let mut lab = Lab::new();
    for client in [datagrams(HERE), stream(1, HERE)] {
        for method in METHODS {
            let request = lab.draft(method).plain();
            let reply = lab.ask(client, &request).expect("a challenge");
            assert_eq!(reply.code(), 401);
            let kinds: Vec<Kind> = reply.message().attributes().map(|attribute| attribute.kind).collect();
            let expected = [Kind::ERROR_CODE, Kind::REALM, Kind::NONCE, Kind::PASSWORD_ALGORITHMS];
            assert_eq!(
                (kinds.as_slice(), reply.message().integrity()),
                (expected.as_slice(), None)
            );
            assert_eq!(reply.value(Kind::REALM).as_deref(), Some(REALM.as_bytes()));
            assert_eq!(
                reply.value(Kind::PASSWORD_ALGORITHMS).as_deref(),
                Some([0, 2, 0, 0, 0, 1, 0, 0].as_slice())
            );
            // The cookie, and the bits of the features: password algorithms.
            assert!(
                reply
                    .value(Kind::NONCE)
                    .is_some_and(|nonce| nonce.starts_with(b"obMatJos2gAAA"))
            );
        }
    }
    assert_eq!((lab.stats.turn.challenged, lab.stats.turn.refused), (8, 0));
}

#[test]
fn an_answer_to_a_stranger_is_hardly_longer_than_the_question() {
    let mut lab = Lab::new();
    let stale = lab
        .login(datagrams(HERE), ALICE)
        .with(|login| login.nonce = b"stale".into());
    let mut requests = vec![
        lab.draft(Method::BINDING).plain(),
        lab.draft(Method::BINDING).raw(Kind(0x7abc), b"").plain(),
        lab.draft(Method::REFRESH).signed(&stale),
        lab.draft(Method::REFRESH)
            .signed(&stale.with(|login| login.password = b"wrong".into())),
        b"\x00\x03\x00\x04\x21\x12\xa4\x42transaction!\x00\x08\x00\x14".to_vec(),
    ];
    for method in METHODS {
        // A bare header, which no client sends, and the shortest request that could be meant.
        requests.push(lab.draft(method).plain());
        requests.push(lab.draft(method).raw(Kind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]).plain());
    }
    for request in requests {
        lab.pass(1);
        let reply = lab.ask(datagrams(HERE), &request).expect("an answer");
        let (answer, question) = (reply.bytes.len(), request.len());
        assert!(answer <= 4 * question, "{} to {question}: {answer}", reply.code());
    }
}

#[test]
fn nobody_learns_why_credentials_are_wrong() {
    let mut lab = Lab::with(|turn| turn.users[1].sources = vec!["10.0.0.0/8".parse().expect("a net")]);
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let draft = lab.allocate();
    let expired = ephemeral(&format!("{}:alice", START.0 - 1), SECRET);
    let forged = ephemeral(&format!("{}:alice", START.0 + 1000), "a guess");
    let replies: Vec<Reply> = [
        ("alice", "wrong"),
        ("nobody", "wonderland"),
        ("", ""),
        ("99999999999999999999999999999999:alice", "x"),
        BOB,
        (&expired.0, &expired.1),
        (&forged.0, &forged.1),
    ]
    .into_iter()
    .map(|(user, password)| {
        let login = login.with(|login| (login.user, login.password) = (user.into(), password.into()));
        lab.ask(client, &draft.signed(&login)).expect("an answer")
    })
    .collect();
    assert_eq!((replies[0].code(), replies[0].message().integrity()), (401, None));
    assert!(replies.windows(2).all(|pair| pair[0] == pair[1]));
    // Nor by the hash of a name that nobody has.
    let request = draft.with_credentials(&login, Kind::USERHASH, &userhash(b"nobody", REALM.as_bytes()));
    assert_eq!(lab.ask(client, &request).as_ref(), Some(&replies[0]));
    assert_eq!(lab.server.allocations(), 0);
}

#[test]
fn a_signed_request_needs_user_realm_and_nonce() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let all = [
        (Kind::USERNAME, login.user.as_slice()),
        (Kind::REALM, &login.realm),
        (Kind::NONCE, &login.nonce),
    ];
    for missing in 0..3 {
        let mut draft = lab.allocate();
        for (n, (kind, value)) in all.iter().enumerate() {
            if n != missing {
                draft = draft.raw(*kind, value);
            }
        }
        let request = draft.finish(|writer| writer.sign(Integrity::Sha1, &login.key()));
        let reply = lab.ask(client, &request).expect("an answer");
        // RFC 8489 section 9.2.4: no NONCE, no REALM, no integrity.
        assert_eq!((reply.code(), reply.bytes.len()), (400, 28), "{missing}");
    }
    let long = login.with(|login| login.user = vec![b'a'; 764]);
    let request = lab.allocate().signed(&long);
    assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(400));
}

#[test]
fn the_realm_has_to_be_ours() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let draft = lab.allocate();
    let other = login.with(|login| login.realm = b"example.com".into());
    assert_eq!(lab.code(client, &other, draft), 401);
    // Nor is it enough to sign with our realm and to name another.
    let request = lab.allocate().finish(|writer| {
        writer.attribute(Kind::USERNAME, &login.user);
        writer.attribute(Kind::REALM, b"example.com");
        writer.attribute(Kind::NONCE, &login.nonce);
        writer.sign(Integrity::Sha1, &login.key());
    });
    assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(401));
}

#[test]
fn a_nonce_lasts_an_hour() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    for secs in [500, 1500, 1500] {
        lab.pass(secs);
        assert_eq!(lab.refresh(client, &login, 3600), 0);
    }
    lab.pass(100);
    let request = lab.draft(Method::REFRESH).signed(&login);
    let reply = lab.ask(client, &request).expect("a challenge");
    assert_eq!((reply.code(), reply.message().integrity()), (438, None));
    assert_eq!(reply.value(Kind::REALM).as_deref(), Some(REALM.as_bytes()));
    assert!(reply.value(Kind::PASSWORD_ALGORITHMS).is_some());
    let nonce = reply.value(Kind::NONCE).expect("a nonce");
    assert_ne!(nonce, login.nonce);
    let fresh = login.with(|login| login.nonce = nonce);
    assert_eq!(lab.refresh(client, &fresh, 3600), 0);
}

#[test]
fn a_nonce_is_good_only_for_its_client() {
    let mut lab = Lab::new();
    let login = lab.login(datagrams(HERE), ALICE);
    for (client, code) in [
        (datagrams("198.51.100.7:40001"), 438),
        (datagrams("198.51.100.8:40000"), 438),
        (datagrams(HERE), 0),
    ] {
        let draft = lab.allocate();
        assert_eq!(lab.code(client, &login, draft), code);
    }
    for nonce in [b"".as_slice(), b"obMatJos2", b"obMatJos2gAAAaaaaaaa", b"anything"] {
        let client = datagrams("198.51.100.9:1");
        let login = login.with(|login| login.nonce = nonce.into());
        let draft = lab.allocate();
        assert_eq!(lab.code(client, &login, draft), 438);
    }
    assert_eq!(lab.server.allocations(), 1);
}

#[test]
fn a_wrong_password_is_wrong_whatever_the_nonce() {
    // RFC 8489 section 9.2.4 checks the integrity first, then the nonce.
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE).with(|login| {
        login.nonce = b"stale".into();
        login.password = b"wrong".into();
    });
    let draft = lab.allocate();
    assert_eq!(lab.code(client, &login, draft), 401);
}

#[test]
fn every_strength_of_rfc8489_is_understood() {
    for strength in [Strength::Old, Strength::Md5, Strength::Sha256] {
        for user in [
            ALICE,
            (
                &*ephemeral("1800000000:x", SECRET).0,
                &*ephemeral("1800000000:x", SECRET).1,
            ),
        ] {
            let mut lab = Lab::new();
            let client = datagrams(HERE);
            let login = lab.login(client, user).with(|login| login.strength = strength);
            // The reply's integrity is checked within.
            lab.allocated(client, &login, |draft| draft);
            assert_eq!(lab.permit(client, &login, &["203.0.113.1:0"]), 0);
            assert_eq!(lab.permit(client, &login, &["127.0.0.1:0"]), 403);
            // The algorithm may change between requests.
            for other in [Strength::Old, Strength::Md5, Strength::Sha256] {
                let login = login.with(|login| login.strength = other);
                assert_eq!(lab.refresh(client, &login, 600), 0);
            }
        }
    }
}

#[test]
fn password_algorithms_have_to_come_back_as_they_were_offered() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let offered = [0, 2, 0, 0, 0, 1, 0, 0].as_slice();
    let mut check = |algorithm: Option<&[u8]>, algorithms: Option<&[u8]>, code: u16| {
        let request = lab.allocate().finish(|writer| {
            writer.attribute(Kind::USERNAME, &login.user);
            writer.attribute(Kind::REALM, &login.realm);
            writer.attribute(Kind::NONCE, &login.nonce);
            for (kind, value) in [
                (Kind::PASSWORD_ALGORITHM, algorithm),
                (Kind::PASSWORD_ALGORITHMS, algorithms),
            ] {
                if let Some(value) = value {
                    writer.attribute(kind, value);
                }
            }
            let key = login.with(|login| {
                login.strength = if algorithm == Some(&[0, 2, 0, 0]) {
                    Strength::Sha256
                } else {
                    Strength::Old
                };
            });
            writer.sign(Integrity::Sha256, &key.key());
        });
        let reply = lab.ask(client, &request).expect("an answer");
        assert_eq!(reply.code(), code, "{algorithm:?} {algorithms:?}");
        if code == 400 {
            assert_eq!(reply.bytes.len(), 28);
        }
    };
    check(Some(&[0, 2, 0, 0]), None, 400);
    check(None, Some(offered), 400);
    // Somebody on the way has taken SHA-256 out of the list.
    check(Some(&[0, 1, 0, 0]), Some(&[0, 1, 0, 0]), 400);
    check(Some(&[0, 1, 0, 0]), Some(&[0, 1, 0, 0, 0, 2, 0, 0]), 400);
    // Not from the list, and malformed.
    check(Some(&[0, 3, 0, 0]), Some(offered), 400);
    check(Some(&[0, 2]), Some(offered), 400);
    check(Some(&[0, 2, 0, 4, 1, 2, 3, 4]), Some(offered), 400);
    check(Some(&[0, 2, 0, 0]), Some(offered), 0);
}

#[test]
fn taking_the_features_out_of_the_nonce_makes_it_stale() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    for cookie in [b"obMatJos2AAAA".as_slice(), b"obMatJos2wAAA", b"obMatJos3gAAA"] {
        let weakened = login.with(|login| login.nonce[..13].copy_from_slice(cookie));
        let draft = lab.allocate();
        assert_eq!(lab.code(client, &weakened, draft), 438);
    }
}

#[test]
fn with_both_integrity_attributes_sha256_decides() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let wrong = login.with(|login| login.password = b"wrong".into()).key();
    let mut check = |sha1: &Key, sha256: &Key, code: u16| {
        let request = lab.allocate().finish(|writer| {
            writer.attribute(Kind::USERNAME, &login.user);
            writer.attribute(Kind::REALM, &login.realm);
            writer.attribute(Kind::NONCE, &login.nonce);
            writer.sign(Integrity::Sha1, sha1);
            writer.sign(Integrity::Sha256, sha256);
        });
        assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(code));
    };
    check(&login.key(), &wrong, 401);
    check(&wrong, &login.key(), 0);
}

#[test]
fn a_truncated_integrity_is_wrong() {
    // RFC 8489 section 14.6: only a usage that says so may truncate; TURN does not.
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE).with(|login| login.strength = Strength::Sha256);
    let mut request = lab.allocate().signed(&login);
    for len in [28, 24, 20, 16] {
        request.truncate(request.len() - 4);
        let at = request.len() - len - 1;
        request[at] = len as u8;
        request[3] -= 4;
        assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(401), "{len}");
    }
}

#[test]
fn what_follows_the_integrity_changes_nothing() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (login, ..) = lab.allocation(client);
    let mut request = lab.draft(Method::REFRESH).lifetime(1200).signed(&login);
    // Appended by somebody on the way: delete the allocation, and something that is not understood.
    request.extend_from_slice(b"\x00\x0d\x00\x04\0\0\0\0\x7f\xff\x00\x04abcd");
    request[3] += 16;
    let reply = lab.ask(client, &request).expect("an answer");
    assert_eq!((reply.code(), reply.u32(Kind::LIFETIME)), (0, Some(1200)));
}

#[test]
fn unknown_attributes_are_told_after_the_credentials() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    let strange = |draft: Draft| {
        draft
            .raw(Kind(0x7ffe), b"a")
            .raw(Kind(0xfffe), b"b")
            .raw(Kind(0x0003), b"")
    };
    for method in METHODS {
        let draft = strange(lab.draft(method));
        assert_eq!(lab.ask(client, &draft.plain()).map(|reply| reply.code()), Some(401));
        let reply = lab.ask(client, &draft.signed(&login)).expect("an answer");
        assert_eq!(reply.code(), 420);
        assert!(reply.is_signed_by(&login));
        let unknown = reply.value(Kind::UNKNOWN_ATTRIBUTES);
        assert_eq!(unknown.as_deref(), Some(b"\x7f\xfe\x00\x03".as_slice()));
    }
    let draft = strange(lab.draft(Method::BINDING));
    assert_eq!(lab.ask(client, &draft.plain()).map(|reply| reply.code()), Some(420));
    // What may be ignored is.
    let draft = lab.draft(Method::BINDING).raw(Kind(0x8022), b"software");
    assert_eq!(lab.ask(client, &draft.plain()).map(|reply| reply.code()), Some(0));
}

#[test]
fn a_user_may_be_named_by_a_hash() {
    let mut lab = Lab::with(|turn| turn.secrets.clear());
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE).with(|login| login.strength = Strength::Sha256);
    // Both bits: password algorithms and username anonymity.
    assert!(login.nonce.starts_with(b"obMatJos2wAAA"));
    let alice = userhash(b"alice", REALM.as_bytes());
    let request = lab.allocate().with_credentials(&login, Kind::USERHASH, &alice);
    let reply = lab.ask(client, &request).expect("an answer");
    assert!(reply.code() == 0 && reply.is_signed_by(&login));
    // It is the same user by either name, and another one by neither.
    assert_eq!(lab.refresh(client, &login, 600), 0);
    let bob = lab.login(client, BOB);
    let request =
        lab.draft(Method::REFRESH)
            .with_credentials(&bob, Kind::USERHASH, &userhash(b"bob", REALM.as_bytes()));
    assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(441));
    let request = lab
        .draft(Method::REFRESH)
        .with_credentials(&login, Kind::USERHASH, b"short");
    assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(401));
}

#[test]
fn names_are_not_hidden_where_ephemeral_users_are() {
    // RFC 8489 section 9.2.5 has a client use USERHASH when it sees the bit; no hash leads to an ephemeral user.
    let mut lab = Lab::new();
    assert!(lab.login(datagrams(HERE), ALICE).nonce.starts_with(b"obMatJos2gAAA"));
    let mut lab = Lab::with(|turn| turn.users.clear());
    assert!(lab.login(datagrams(HERE), ALICE).nonce.starts_with(b"obMatJos2gAAA"));
}

#[test]
fn ephemeral_users_are_let_in_until_they_expire() {
    let check = |user: &str, secret: &str, code: u16| {
        let mut lab = Lab::new();
        let (user, password) = ephemeral(user, secret);
        let login = lab.login(datagrams(HERE), (&user, &password));
        let draft = lab.allocate();
        assert_eq!(lab.code(datagrams(HERE), &login, draft), code, "{user} {secret}");
    };
    let now = START.0;
    check(&format!("{}:alice", now + 3600), SECRET, 0);
    check(&format!("{now}:alice"), SECRET, 0);
    check(&format!("{}:alice", now - 1), SECRET, 401);
    check(&format!("{}", now + 3600), SECRET, 0);
    check(&format!("{}:", now + 3600), SECRET, 0);
    check(&format!("{}:a:b:c", now + 3600), SECRET, 0);
    // Each secret is good, so that they can be rotated.
    check(&format!("{}:alice", now + 3600), "an old secret", 0);
    check(&format!("{}:alice", now + 3600), "another", 401);
    // Behind 2^32 seconds, which is in 2106, and behind 2^63.
    check("4294967296:alice", SECRET, 0);
    check("4102444800:alice", SECRET, 0);
    check("9223372036854775808:alice", SECRET, 0);
    check("18446744073709551616:alice", SECRET, 401);
    check("4294967296x:alice", SECRET, 401);
    check("-1:alice", SECRET, 401);
    check(":alice", SECRET, 401);
    check("alice:4294967296", SECRET, 401);
}

#[test]
fn credentials_that_expire_do_not_end_an_allocation() {
    let mut lab = Lab::new();
    let client = datagrams(HERE);
    let (user, password) = ephemeral(&format!("{}:alice", START.0 + 60), SECRET);
    let login = lab.login(client, (&user, &password));
    lab.allocated(client, &login, |draft| draft);
    lab.pass(500);
    for strength in [Strength::Old, Strength::Sha256] {
        let login = login.with(|login| login.strength = strength);
        assert_eq!(lab.refresh(client, &login, 600), 0);
        assert_eq!(lab.permit(client, &login, &["203.0.113.1:0"]), 0);
    }
    // A new allocation is another matter.
    let elsewhere = datagrams("198.51.100.7:40001");
    let login = lab.login(elsewhere, (&user, &password));
    let draft = lab.allocate();
    assert_eq!(lab.code(elsewhere, &login, draft), 401);
}

#[test]
fn with_strict_expiry_no_refresh_outlives_the_credentials() {
    let mut lab = Lab::with(|turn| turn.strict_expiry = true);
    let client = datagrams(HERE);
    let (user, password) = ephemeral(&format!("{}:alice", START.0 + 60), SECRET);
    let login = lab.login(client, (&user, &password));
    lab.allocated(client, &login, |draft| draft);
    lab.pass(60);
    assert_eq!(lab.refresh(client, &login, 600), 0);
    lab.pass(1);
    for strength in [Strength::Old, Strength::Sha256] {
        let login = login.with(|login| login.strength = strength);
        for method in [Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND] {
            let draft = lab.draft(method);
            assert_eq!(lab.code(client, &login, draft), 401);
        }
    }
    // Those who do not end are not concerned.
    let client = datagrams("198.51.100.7:40001");
    let (login, ..) = lab.allocation(client);
    assert_eq!(lab.refresh(client, &login, 600), 0);
}

#[test]
fn the_password_of_an_ephemeral_user_may_be_an_hmac_sha256() {
    use crate::config::SecretHash::{self, Sha1, Sha256};
    let user = format!("{}:alice", START.0 + 60);
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(user.as_bytes());
    let sha256 = STANDARD.encode(mac.finalize().into_bytes());
    let (_, sha1) = ephemeral(&user, SECRET);
    let check = |hashes: &[SecretHash], password: &str, code: u16| {
        let mut lab = Lab::with(|turn| turn.secret_hashes = hashes.into());
        let login = lab.login(datagrams(HERE), (&user, password));
        let draft = lab.allocate();
        assert_eq!(lab.code(datagrams(HERE), &login, draft), code, "{hashes:?}");
    };
    check(&[Sha1, Sha256], &sha1, 0);
    check(&[Sha1, Sha256], &sha256, 0);
    check(&[Sha1], &sha1, 0);
    check(&[Sha1], &sha256, 401);
    check(&[Sha256], &sha1, 401);
    check(&[Sha256], &sha256, 0);
}

#[test]
fn a_static_user_may_be_tied_to_its_network() {
    let mut lab = Lab::with(|turn| turn.users[0].sources = vec!["10.0.0.0/8".parse().expect("a net")]);
    for (client, code) in [
        (datagrams("10.1.2.3:5000"), 0),
        (datagrams("[::ffff:10.1.2.4]:5000"), 0),
        (stream(1, "10.1.2.3:5001"), 0),
        (datagrams("11.1.2.3:5000"), 401),
        (stream(2, "[2001:db8::1]:5000"), 401),
    ] {
        let login = lab.login(client, ALICE);
        let draft = lab.allocate();
        assert_eq!(lab.code(client, &login, draft), code, "{client:?}");
    }
}

#[test]
fn a_source_that_proves_nothing_gets_ten_answers_a_second() {
    let mut lab = Lab::new();
    let wrong = lab
        .login(datagrams(HERE), ALICE)
        .with(|login| login.password = b"wrong".into());
    lab.pass(10);
    let mut answers = 0;
    for port in 1..=1000 {
        let client = datagrams(&format!("198.51.100.7:{port}"));
        let bytes = match port % 4 {
            0 => lab.allocate().plain(),
            1 => lab.allocate().signed(&wrong),
            2 => lab
                .allocate()
                .finish(|writer| writer.sign(Integrity::Sha1, &wrong.key())),
            _ => lab.draft(Method::BINDING).raw(Kind(0x7fff), b"").plain(),
        };
        answers += usize::from(lab.client(client, &bytes).is_some());
    }
    assert_eq!((answers, lab.stats.turn.withheld), (10, 990));
    // Others are answered, and who has proved to be somebody is.
    lab.login(datagrams("198.51.100.8:1"), ALICE);
    lab.pass(1);
    let client = datagrams(HERE);
    let login = lab.login(client, ALICE);
    for _ in 0..100 {
        let draft = lab.draft(Method::REFRESH);
        assert_eq!(lab.code(client, &login, draft), 437);
    }
}

#[test]
fn a_connection_is_challenged_always_but_may_not_guess() {
    let mut lab = Lab::new();
    let wrong = lab
        .login(stream(0, HERE), ALICE)
        .with(|login| login.password = b"wrong".into());
    for number in 0..100 {
        lab.login(stream(number, HERE), ALICE);
    }
    let guesses = (0..100).filter(|_| {
        let request = lab.allocate().signed(&wrong);
        lab.client(stream(0, HERE), &request).is_some()
    });
    assert_eq!(guesses.count(), 10);
}

#[test]
fn mediaservers_always_get_an_answer() {
    let mut lab = Lab::new();
    let client = stream(0, "10.0.0.5:40000");
    let wrong = lab.login(client, ALICE).with(|login| login.password = b"wrong".into());
    for client in [client, datagrams("10.0.0.5:40001")] {
        for _ in 0..100 {
            let request = lab.allocate();
            assert_eq!(lab.ask(client, &request.plain()).map(|reply| reply.code()), Some(401));
            assert_eq!(
                lab.ask(client, &request.signed(&wrong)).map(|reply| reply.code()),
                Some(401)
            );
            let request = lab.draft(Method::BINDING).plain();
            assert_eq!(lab.ask(client, &request).map(|reply| reply.code()), Some(0));
        }
    }
}

#[test]
fn asterisk_is_answered_at_once_whatever_happens() {
    // It speaks TURN by TCP with static credentials, from a mediaserver's address, and does nothing until it is answered.
    let client = |number| stream(number, &format!("10.0.0.5:{}", 40_000 + number));
    let mut lab = Lab::with(|turn| {
        turn.users[0].sources = vec!["10.0.0.5/32".parse().expect("a net")];
        turn.limits.allocations_per_user_max = 1;
        turn.limits.allocations_max = 2;
    });
    let (first, second) = (client(1), client(2));
    let bob = lab.login(second, BOB);
    // Errors, as often as it makes them: no credentials, wrong ones, an old nonce, nonsense, a method without allocation.
    for _ in 0..100 {
        let alice = lab.login(first, ALICE);
        let draft = lab.allocate();
        assert_eq!(
            lab.code(first, &alice.with(|login| login.password = b"wrong".into()), draft),
            401
        );
        let draft = lab.allocate();
        assert_eq!(
            lab.code(first, &alice.with(|login| login.nonce = b"old".into()), draft),
            438
        );
        let draft = lab.draft(Method::ALLOCATE);
        assert_eq!(lab.code(first, &alice, draft), 400);
        assert_eq!(lab.refresh(first, &alice, 600), 437);
    }
    // No socket can be bound.
    let alice = lab.login(first, ALICE);
    let request = lab.allocate().signed(&alice);
    assert_eq!(lab.client(first, &request), None);
    let [(relay, _)] = lab.binds()[..] else {
        panic!("one socket")
    };
    let answer = lab.bound(relay, Err(BindError::Failed)).expect("an answer");
    assert_eq!(Reply::read(answer.bytes).code(), 508);
    // The quota, a server that is full, a drain.
    let draft = lab.allocate();
    assert_eq!(lab.code(first, &alice, draft), 0);
    let third = client(3);
    let again = lab.login(third, ALICE);
    let draft = lab.allocate();
    assert_eq!(lab.code(third, &again, draft), 486);
    let draft = lab.allocate();
    assert_eq!(lab.code(second, &bob, draft), 0);
    let rest = ephemeral("1800000000:x", SECRET);
    let other = lab.login(third, (&rest.0, &rest.1));
    let draft = lab.allocate();
    assert_eq!(lab.code(third, &other, draft), 508);
    assert_eq!(lab.refresh(second, &bob, 0), 0);
    lab.server.drain();
    let draft = lab.allocate();
    assert_eq!(lab.code(second, &bob, draft), 508);
    // What it has goes on.
    assert_eq!(lab.refresh(first, &alice, 600), 0);
    assert_eq!(lab.permit(first, &alice, &["127.0.0.1:1"]), 403);
}

#[test]
fn two_messages_in_one_datagram_are_none() {
    let mut lab = Lab::new();
    let binding = lab.draft(Method::BINDING).plain();
    assert_eq!(
        lab.client(datagrams(HERE), &[binding.as_slice(), &binding].concat()),
        None
    );
    for end in 0..binding.len() {
        assert_eq!(lab.client(datagrams(HERE), &binding[..end]), None);
    }
}

#[test]
fn a_new_configuration_is_for_old_allocations_too() {
    let mut lab = Lab::new();
    let (client, other) = (datagrams(HERE), datagrams("198.51.100.7:1"));
    let (alice, _, at) = lab.allocation(client);
    let bob = lab.login(other, BOB);
    let (_, relayed) = lab.allocated(other, &bob, |draft| draft);
    assert_eq!(lab.permit(other, &bob, &[&at.to_string()]), 0);
    let peer = relayed.to_string();
    for (number, peer) in [
        (0x4000, "203.0.113.1:5000"),
        (0x4001, "10.0.0.5:10000"),
        (0x4002, &peer),
    ] {
        assert_eq!(lab.bind(client, &alice, number, peer), 0);
    }
    // Bob is gone, Alice has another password, the internet is closed, and so is half of the mediaserver's ports.
    let config = config(|turn| {
        turn.users.truncate(1);
        turn.users[0].password = Secret::new("looking-glass");
        turn.public_peers = false;
        turn.peers[0].ports = 15_000..=20_000;
        turn.limits.allocations_per_user_max = 1;
    });
    lab.server.configure(config, &mut lab.rng);
    assert_eq!(lab.refresh(client, &alice, 600), 401);
    assert_eq!(lab.refresh(other, &bob, 600), 401);
    let alice = alice.with(|login| login.password = b"looking-glass".into());
    assert_eq!(lab.refresh(client, &alice, 600), 0);
    assert_eq!(lab.channel(client, 0x4000, b"x"), None);
    assert_eq!(lab.channel(client, 0x4001, b"x"), None);
    assert!(lab.channel(client, 0x4002, b"x").is_some());
    assert_eq!(lab.send(client, "203.0.113.1:5000", b"x"), None);
    assert_eq!(lab.permit(client, &alice, &["203.0.113.1:5000"]), 403);
    assert_eq!(lab.bind(client, &alice, 0x4001, "10.0.0.5:15000"), 0);
    let third = datagrams("198.51.100.7:2");
    let login = lab.login(third, ("alice", "looking-glass"));
    let draft = lab.allocate();
    assert_eq!(lab.code(third, &login, draft), 486);
}

#[test]
fn a_flood_from_invented_sources_creates_no_state() {
    let mut lab = Lab::new();
    let login = lab.login(datagrams(HERE), ALICE);
    let forged = login.with(|login| login.nonce[19] ^= 1);
    let requests = [
        lab.draft(Method::BINDING).plain(),
        lab.allocate().plain(),
        lab.allocate().signed(&forged),
        lab.allocate()
            .signed(&login.with(|login| login.password = b"wrong".into())),
        lab.draft(Method::REFRESH).signed(&login),
        lab.draft(Method::SEND)
            .indication()
            .peer("203.0.113.1:4001")
            .raw(Kind::DATA, b"x")
            .plain(),
        b"\x40\x00\x00\x01x".to_vec(),
        b"\x16\x03\x01\x00\x00".to_vec(),
    ];
    for n in 0..20_000_u32 {
        let peer = SocketAddr::from((Ipv4Addr::from_bits(0x2000_0000 + n), 1000));
        let client = Client::Datagram {
            socket: SocketId::Turn(0),
            peer,
            local: None,
        };
        lab.client(client, &requests[n as usize % requests.len()]);
    }
    assert_eq!((lab.server.allocations(), lab.binds()), (0, vec![]));
    assert_eq!(lab.server.poll_timeout(), None);
    assert_eq!(lab.server.table_sizes(), [0; 8]);
}
