//! Which peers are allowed? The matrix of addresses, rule by rule.

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{
    Health, Https, Keys, Mediaserver, Metrics, PeerRule, Rates, Reach, Server, Sip, SipLimits, SipPolicy,
    TrunkTransport, Turn, TurnLimits,
};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A policy with these rules (`net:first-last`), one relay address, and everything that is ours.
fn policy(rules: &[&str], public_peers: bool) -> Policy {
    let rule = |text: &&str| {
        let (net, ports) = text.rsplit_once(':').expect("net and ports");
        let (first, last) = ports.split_once('-').expect("two ports");
        PeerRule {
            net: net.parse().expect("a net"),
            ports: first.parse().expect("a port")..=last.parse().expect("a port"),
        }
    };
    let sip = Sip {
        listen: address("10.0.0.2:5060"),
        advertise: address("10.0.0.2:5060"),
        public_host: "edge.example.org".into(),
        mediaservers: vec![Mediaserver {
            name: "default".into(),
            addresses: vec![address("10.0.0.9:5060").into()],
            transport: TrunkTransport::Udp,
            reach: Reach::Path,
            media_ports: 10_000..=20_000,
        }],
        health: Health::default(),
        resolve: Duration::from_secs(30),
        origins: vec![],
        token_required: false,
        policy: SipPolicy::default(),
        limit: None,
        limits: SipLimits::default(),
    };
    let turn = Turn {
        listen_udp: vec![address("0.0.0.0:3478")],
        listen_tcp: vec![address("[::]:3478"), address("192.0.2.10:5349")],
        proxy_protocol_from: vec![],
        relays: vec![Relay {
            bind: ip("10.0.0.2"),
            advertise: ip("192.0.2.10"),
        }],
        relay_ports: 30_000..=39_999,
        realm: "example.org".into(),
        secrets: vec![],
        secret_hashes: vec![],
        strict_expiry: false,
        users: vec![],
        peers: rules.iter().map(rule).collect(),
        tcp_relay: false,
        public_peers,
        mobility: false,
        discovery: vec![],
        alternate: None,
        limits: TurnLimits::default(),
    };
    let config = Config {
        server: Server {
            drain: Duration::ZERO,
            connections_max: 1,
            connections_per_address_max: 1,
            ..Server::default()
        },
        https: None::<Https>,
        web: None,
        sip: Some(sip),
        turn: Some(turn),
        token: None,
        rates: Rates::default(),
        metrics: Some(Metrics {
            listen: address("10.0.0.2:9464"),
        }),
        access_log: None,
        keys: Keys {
            nonce: [0; 32],
            flow: vec![],
        },
    };
    Policy::new(&config, config.turn.as_ref().expect("the turn role"))
}

/// Whether a peer passes both questions that are asked about it.
fn allows(policy: &Policy, text: &str) -> bool {
    let peer = policy.seen(address(text));
    let allowed = policy.allows(peer);
    // An address with an allowed port is an allowed address.
    assert!(!allowed || policy.allows_address(policy.seen_address(peer.ip())));
    allowed
}

/// What must never be reached because the internet may be. Each with the first and the last of its range.
pub(in crate::turn) const MATRIX: &[&str] = &[
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.255",
    "192.88.99.0",
    "192.88.99.255",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "224.0.0.0",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:0.0.0.0",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:255.255.255.255",
    "::ffff:0:127.0.0.1",
    "64:ff9b::",
    "64:ff9b::127.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::",
    "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
    "100::1",
    "2001::",
    "2001::1",
    "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:10::1",
    "2001:1ff:ffff::",
    "2002::",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "4000::1",
    "5f00::1",
    "fc00::",
    "fd00::1",
    "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe00::1",
    "fe80::",
    "fe80::1",
    "febf:ffff::1",
    "fec0::",
    "feff:ffff::1",
    "ff00::",
    "ff02::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];

#[test]
fn the_address_matrix_is_refused() {
    for public_peers in [true, false] {
        let policy = policy(&["0.0.0.0/0:1-65535", "::/0:1-65535"], public_peers);
        for text in MATRIX {
            let refused = policy.seen_address(ip(text));
            let exceptions = [ip("10.0.0.2")];
            assert!(
                !policy.allows_address(refused) || exceptions.contains(&ip(text)),
                "{text}"
            );
            for port in [1, 80, 443, 3478, 5060, 9641, 12_000, 30_000, 65_535] {
                let peer = policy.seen(SocketAddr::new(ip(text), port));
                assert!(!policy.allows(peer), "{text} {port}");
            }
        }
    }
}

#[test]
fn the_internet_is_allowed_only_where_it_is_wanted() {
    for text in [
        "1.1.1.1:1024",
        "8.8.8.8:65535",
        "9.255.255.255:1024",
        "11.0.0.0:1024",
        "100.63.255.255:1024",
        "100.128.0.0:1024",
        "126.255.255.255:1024",
        "128.0.0.0:1024",
        "169.253.255.255:1024",
        "169.255.0.0:1024",
        "172.15.255.255:1024",
        "172.32.0.0:1024",
        "192.0.1.0:1024",
        "192.88.98.255:1024",
        "192.88.100.0:1024",
        "192.167.255.255:1024",
        "192.169.0.0:1024",
        "198.17.255.255:1024",
        "198.20.0.0:1024",
        "223.255.255.255:1024",
        "[2000::1]:1024",
        "[2001:200::]:1024",
        "[2003::1]:1024",
        "[2606:4700::1]:1024",
        "[3fff:ffff::1]:1024",
        "[::ffff:8.8.8.8]:1024",
    ] {
        assert!(allows(&policy(&[], true), text), "{text}");
        assert!(!allows(&policy(&[], false), text), "{text}");
        assert!(
            allows(&policy(&["0.0.0.0/0:1-65535", "::/0:1-65535"], false), text),
            "{text}"
        );
    }
}

#[test]
fn services_on_the_internet_are_peers_only_by_name() {
    for (rules, text, allowed) in [
        (&[][..], "8.8.8.8:53", false),
        (&[], "8.8.8.8:1023", false),
        (&[], "8.8.8.8:1024", true),
        (&["8.8.8.8/32:443-443"], "8.8.8.8:443", true),
        (&["8.8.8.8/32:443-443"], "8.8.4.4:443", false),
    ] {
        assert_eq!(allows(&policy(rules, true), text), allowed, "{rules:?} {text}");
    }
}

#[test]
fn port_0_is_nobodys() {
    let policy = policy(&["10.1.0.0/16:0-65535"], true);
    for text in ["8.8.8.8:0", "10.1.0.1:0", "192.0.2.10:0", "[2606:4700::1]:0"] {
        assert!(!allows(&policy, text), "{text}");
    }
}

#[test]
fn a_rule_is_address_and_port() {
    let policy = policy(
        &[
            "10.1.2.3/32:10000-20000",
            "fd00:1::/64:5000-5000",
            "198.51.100.1/32:7-7",
        ],
        false,
    );
    for (text, allowed) in [
        ("10.1.2.3:10000", true),
        ("10.1.2.3:20000", true),
        ("[::ffff:10.1.2.3]:15000", true),
        ("10.1.2.3:9999", false),
        ("10.1.2.3:20001", false),
        ("10.1.2.3:5060", false),
        ("10.1.2.2:15000", false),
        ("[fd00:1::ffff]:5000", true),
        ("[fd00:1::ffff]:5001", false),
        ("[fd00:2::1]:5000", false),
        ("198.51.100.1:7", true),
        ("198.51.100.1:8", false),
        ("198.51.100.2:7", false),
    ] {
        assert_eq!(allows(&policy, text), allowed, "{text}");
    }
    for (text, allowed) in [
        ("10.1.2.3", true),
        ("10.1.2.4", false),
        ("fd00:1::1", true),
        ("8.8.8.8", false),
    ] {
        assert_eq!(policy.allows_address(ip(text)), allowed, "{text}");
    }
}

#[test]
fn a_special_range_is_opened_only_by_a_rule_within_it() {
    let check = |rule: &str, text: &str, allowed: bool| {
        assert_eq!(allows(&policy(&[rule], false), text), allowed, "{rule} {text}");
    };
    check("127.0.0.0/8:1-65535", "127.0.0.1:9", true);
    check("127.0.0.1/32:1-65535", "127.0.0.1:9", true);
    check("::1/128:1-65535", "[::1]:9", true);
    check("10.0.0.0/8:1-65535", "10.1.1.1:9", true);
    check("192.168.0.0/16:1-65535", "192.168.1.1:9", true);
    check("fe80::/10:1-65535", "[fe80::1]:9", true);
    check("64:ff9b::/96:1-65535", "[64:ff9b::808:808]:9", true);
    // Wider than the range: it was hardly meant.
    check("126.0.0.0/7:1-65535", "127.0.0.1:9", false);
    check("8.0.0.0/5:1-65535", "10.1.1.1:9", false);
    check("192.0.0.0/4:1-65535", "192.168.1.1:9", false);
    check("f000::/4:1-65535", "[fe80::1]:9", false);
    // These are never peers (RFC 8656 section 21.4 for the tunnels).
    check("0.0.0.0/8:1-65535", "0.0.0.1:9", false);
    check("224.0.0.0/4:1-65535", "224.0.0.1:9", false);
    check("255.255.255.255/32:1-65535", "255.255.255.255:9", false);
    check("::/128:1-65535", "[::]:9", false);
    check("ff02::/16:1-65535", "[ff02::1]:9", false);
    check("2001::/32:1-65535", "[2001::1]:9", false);
    check("2002::/16:1-65535", "[2002:808:808::1]:9", false);
}

#[test]
fn what_we_listen_on_is_never_a_peer() {
    let unnamed = policy(&[], true);
    let policy = policy(
        &["10.0.0.0/8:1-65535", "127.0.0.0/8:1-65535", "192.0.2.10/32:1-65535"],
        true,
    );
    for (text, allowed) in [
        // Bound to any address: on every address that is known to be ours.
        ("192.0.2.10:3478", false),
        ("10.0.0.2:3478", false),
        ("127.0.0.1:3478", false),
        ("10.0.0.3:3478", true),
        ("10.0.0.2:5060", false),
        ("10.0.0.2:9464", false),
        ("10.0.0.3:5060", true),
        ("192.0.2.10:5349", false),
        // What else runs on our host may be named, but is not part of the internet.
        ("192.0.2.10:12345", true),
        ("10.0.0.2:12345", true),
    ] {
        assert_eq!(allows(&policy, text), allowed, "{text}");
    }
    assert!(!allows(&unnamed, "192.0.2.10:12345"));
}

#[test]
fn relayed_addresses_of_ours_are_always_allowed() {
    let policy = policy(&[], false);
    for (text, allowed) in [
        ("192.0.2.10:30000", true),
        ("192.0.2.10:39999", true),
        ("10.0.0.2:30000", true),
        ("[::ffff:10.0.0.2]:30000", true),
        ("192.0.2.10:29999", false),
        ("192.0.2.10:40000", false),
        ("10.0.0.2:22", false),
        ("192.0.2.11:30000", false),
    ] {
        assert_eq!(allows(&policy, text), allowed, "{text}");
    }
    assert!(policy.allows_address(policy.seen_address(ip("10.0.0.2"))));
}

#[test]
fn mediaservers_are_followed() {
    let mut policy = policy(&["10.0.0.7/32:7000-7000"], false);
    let moved = PeerRule::one_host(ip("::ffff:10.0.0.8"), 10_000..=20_000);
    policy.follow(core::slice::from_ref(&moved));
    assert!(allows(&policy, "10.0.0.8:10000") && allows(&policy, "10.0.0.7:7000"));
    assert!(!allows(&policy, "10.0.0.8:5060") && !allows(&policy, "10.0.0.9:10000"));
    // A new configuration says what is written, until names are known again.
    let mut policy = self::policy(&[], false).after(&mut policy);
    assert!(allows(&policy, "10.0.0.8:10000") && allows(&policy, "10.0.0.9:10000"));
    policy.follow(&[]);
    assert!(!allows(&policy, "10.0.0.8:10000") && !allows(&policy, "10.0.0.9:10000"));
}

#[test]
fn media_ports_of_mediaservers_are_allowed() {
    let policy = policy(&[], false);
    for (text, allowed) in [
        ("10.0.0.9:10000", true),
        ("10.0.0.9:20000", true),
        ("10.0.0.9:5060", false),
        ("10.0.0.8:10000", false),
    ] {
        assert_eq!(allows(&policy, text), allowed, "{text}");
    }
}

#[test]
fn relayed_addresses_have_one_name_and_one_way() {
    let policy = policy(&[], true);
    for (text, seen, reached) in [
        ("10.0.0.2:30000", "192.0.2.10:30000", "10.0.0.2:30000"),
        ("192.0.2.10:30000", "192.0.2.10:30000", "10.0.0.2:30000"),
        ("10.0.0.2:22", "10.0.0.2:22", "10.0.0.2:22"),
        ("8.8.8.8:30000", "8.8.8.8:30000", "8.8.8.8:30000"),
        ("[::ffff:8.8.8.8]:1", "8.8.8.8:1", "8.8.8.8:1"),
    ] {
        assert_eq!(policy.seen(address(text)), address(seen), "{text}");
        assert_eq!(policy.reached(address(seen)), address(reached), "{text}");
    }
    assert_eq!(policy.seen_address(ip("10.0.0.2")), ip("192.0.2.10"));
    assert_eq!(policy.seen_address(ip("8.8.8.8")), ip("8.8.8.8"));
}

#[test]
fn those_we_are_here_for_are_trusted() {
    let policy = policy(
        &["10.1.0.0/16:1-2", "203.0.113.5/32:1-2", "0.0.0.0/0:1-2", "::/0:1-2"],
        false,
    );
    for (text, trusted) in [
        ("10.0.0.9", true),
        ("10.1.2.3", true),
        ("203.0.113.5", true),
        ("203.0.113.6", false),
        ("10.2.0.1", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(policy.is_trusted(ip(text)), trusted, "{text}");
    }
}

proptest! {
    /// The ranges again, written down in another way.
    #[test]
    fn no_encoding_of_an_ipv4_address_escapes(bits in any::<u32>(), port in any::<u16>()) {
        let policy = policy(&["0.0.0.0/0:1-65535", "::/0:1-65535"], true);
        let v4 = Ipv4Addr::from_bits(bits);
        let [a, b, c, _] = v4.octets();
        let special = a == 0 || a == 10 || a == 127 || a >= 224
            || a == 100 && b & 0xc0 == 64
            || a == 169 && b == 254
            || a == 172 && b & 0xf0 == 16
            || a == 192 && (b == 168 || b == 0 && c == 0 || b == 88 && c == 99)
            || a == 198 && b & 0xfe == 18;
        let plain = policy.allows(policy.seen(SocketAddr::new(v4.into(), port)));
        prop_assert!(!plain || !special);
        let mapped = policy.allows(policy.seen(SocketAddr::new(v4.to_ipv6_mapped().into(), port)));
        prop_assert_eq!(plain, mapped);
        let [high, low] = [(bits >> 16) as u16, bits as u16];
        for clothes in [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !high, !low),
        ] {
            prop_assert!(!policy.allows(policy.seen(SocketAddr::new(clothes.into(), port))), "{}", clothes);
        }
    }

    /// Compared as numbers, not byte by byte.
    #[test]
    fn ipv6_rules_are_prefixes(bits in any::<u128>(), len in 3_u8..=128, other in any::<u128>(), shift in 0_u32..128) {
        let inside = 0x2a00 << 112 | bits >> 16;
        let net = Ipv6Net::new(Ipv6Addr::from_bits(inside), len.max(16)).expect("a net");
        let policy = policy(&[&format!("{}:1-65535", net.trunc())], false);
        let near = inside ^ (other | 1) >> shift;
        let expected = near >> (128 - u32::from(net.prefix_len())) == inside >> (128 - u32::from(net.prefix_len()));
        let peer = SocketAddr::new(Ipv6Addr::from_bits(near).into(), 9);
        prop_assert_eq!(policy.allows(policy.seen(peer)), expected && near >> 125 == 1);
    }
}
