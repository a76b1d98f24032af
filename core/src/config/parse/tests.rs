//! Texts with everything that is wrong with them, and texts with what becomes of them.

use core::time::Duration;
use std::collections::BTreeMap;

use super::*;
use crate::config::{
    AlternateWhen, Health, Host, HttpLimits, Limit, PeerRule, Reach, Relay, Route, SecretHash, SipLimits, SipPolicy,
    Square, TokenRule, TrunkTransport, TurnLimits,
};

/// A world with some files and variables.
struct World {
    provider: Provider,
    files: BTreeMap<&'static str, Vec<u8>>,
    variables: BTreeMap<&'static str, &'static str>,
}

impl World {
    fn new() -> Self {
        let certificate = |names: &[&str]| {
            let names: Vec<String> = names.iter().copied().map(String::from).collect();
            rcgen::generate_simple_self_signed(names).unwrap()
        };
        let edge = certificate(&["Edge.example.com", "*.example.org"]);
        let other = certificate(&["other.example.com"]);
        let files = [
            ("edge.pem", edge.cert.pem().into_bytes()),
            ("edge.key", edge.signing_key.serialize_pem().into_bytes()),
            ("other.pem", other.cert.pem().into_bytes()),
            ("other.key", other.signing_key.serialize_pem().into_bytes()),
            ("secret", b"a secret of the file\n".to_vec()),
            ("short", b"short\n".to_vec()),
            ("empty", b"\n".to_vec()),
        ];
        Self {
            provider: Provider::for_tests(),
            files: files.into(),
            variables: [("TURN_SECRET", "a secret of the environment")].into(),
        }
    }
}

impl Sources for World {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.files.get(path).cloned().ok_or_else(|| "no such file".into())
    }

    fn env(&mut self, name: &str) -> Option<String> {
        self.variables.get(name).map(ToString::to_string)
    }

    fn keys(&mut self, path: &str) -> Result<Keys, String> {
        match path {
            "keys" => Ok(keys(2)),
            _ => Err(format!("`{path}` cannot be written")),
        }
    }

    fn provider(&self) -> &Provider {
        &self.provider
    }
}

fn keys(byte: u8) -> Keys {
    Keys {
        nonce: [byte; 32],
        flow: vec![[byte; 32]],
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, &mut World::new(), keys(1))
}

#[track_caller]
fn parsed(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Compares what is shown for a text: `line: what` and `    fix: ...`.
#[track_caller]
fn check(text: &str, expected: &str) {
    let errors = match parse(text) {
        Ok(config) => panic!("nothing is wrong with {config:?}"),
        Err(errors) => errors.display("t"),
    };
    let expected: String = expected
        .trim_matches('\n')
        .lines()
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(errors == expected, "\n--- found\n{errors}\n--- expected\n{expected}");
}

/// Enough for the roles that need it; five lines.
const HTTPS: &str = "\
[https]
listen = '192.0.2.10:443'
hosts = ['edge.example.com']
certificates = [{ cert = 'edge.pem', key = 'edge.key' }]

";

#[track_caller]
fn check_https(text: &str, expected: &str) {
    check(&format!("{HTTPS}{text}"), expected);
}

#[test]
fn everything_has_a_default_but_what_only_the_administrator_knows() {
    let config = parsed(
        "
        [https]
        listen = '0.0.0.0:443'
        certificates = { cert = 'edge.pem', key = 'edge.key' }
        [web]
        upstream = { name = 'uc', url = 'http://10.0.0.10' }
        route = { path = '/ucassistant' }
        [sip]
        listen = '192.0.2.10'
        mediaserver = { address = '10.0.0.3' }
        [turn]
        listen = '192.0.2.10'
        realm = 'example.com'
        secrets = 'sixteen letters.'
        ",
    );
    assert_eq!(config.server.workers, None);
    assert_eq!(config.keys.nonce, [1; 32]);
    let https = config.https.unwrap();
    assert_eq!(https.hosts, ["edge.example.com"]);
    let web = config.web.unwrap();
    assert_eq!(web.upstreams[0].backends[0].host, Host::Address([10, 0, 0, 10].into()));
    assert_eq!(web.upstreams[0].backends[0].port, 80);
    assert_eq!(web.routes[0].path, "/ucassistant");
    assert!(web.routes[0].below && !web.routes[0].websocket);
    let sip = config.sip.unwrap();
    assert_eq!(sip.listen.to_string(), "192.0.2.10:5060");
    assert_eq!(sip.advertise, sip.listen);
    assert_eq!(sip.public_host, "edge.example.com");
    assert!(sip.token_required);
    let [mediaserver] = sip.mediaservers.as_slice() else {
        panic!("{:?}", sip.mediaservers);
    };
    assert_eq!(mediaserver.path(), "/wssip");
    assert_eq!(mediaserver.reach, Reach::Path);
    assert_eq!(mediaserver.addresses[0].to_string(), "10.0.0.3:5060");
    let turn = config.turn.unwrap();
    assert_eq!(turn.listen_udp, turn.listen_tcp);
    assert_eq!(turn.listen_udp[0].to_string(), "192.0.2.10:3478");
    let relay = [192, 0, 2, 10].into();
    assert_eq!(
        turn.relays,
        [Relay {
            bind: relay,
            advertise: relay
        }]
    );
    assert_eq!(turn.relay_ports, 30_000..=39_999);
    let rule = PeerRule {
        net: "10.0.0.3/32".parse().unwrap(),
        ports: 10_000..=20_000,
    };
    assert_eq!(turn.peers, [rule]);
    assert!(turn.public_peers);
    assert!(!turn.tcp_relay);
}

#[test]
fn everything_can_be_said() {
    let config = parsed(
        "
        [server]
        workers = 2
        shutdown_secs = 0.5
        connections_max = 1_000
        connections_per_address_max = 100
        coalesce_micros = 0
        key_file = 'keys'

        [https]
        listen = ['0.0.0.0:8443', '[::]:8443']
        certificates = [{ cert = 'edge.pem', key = 'edge.key' }, { cert = 'other.pem', key = 'other.key' }]
        hosts = ['Edge.Example.com', '192.0.2.10', '2001:DB8::1']
        trusted_proxies = ['10.0.0.0/8', '2001:db8::1']
        [https.limits]
        handshake_secs = 1
        line_bytes_max = '4 KiB'
        head_bytes_max = 0x4000

        [[web.upstream]]
        name = 'uc'
        url = 'https://uc.example.com:8443/'
        host = 'edge.example.com:444'
        ca = 'other.pem'
        [[web.upstream]]
        name = 'six'
        url = 'http://[2001:db8::2]'
        [[web.route]]
        path = ['/video/', '/', '/.well-known/x%20y']
        upstream = 'six'
        websocket = true
        body_bytes_max = '50MiB'
        [[web.route]]
        path = '/video/'
        exact = true
        upstream = 'uc'

        [sip]
        listen = '0.0.0.0:5060'
        advertise = '192.0.2.10'
        public_host = 'sip.example.com'
        origins = ['https://Edge.example.com', 'http://localhost:8080']
        token_required = false
        [sip.limits]
        ping_secs = 10
        flows_max = 5
        [sip.health]
        interval_secs = 2.5
        failures = 5
        successes = 2
        failover_secs = 1
        [[sip.mediaserver]]
        address = ['10.0.0.3:5070', '10.0.0.13', 'PBX.example.com:5080', 'pbx']
        transport = 'tcp-when-large'
        reach = 'contact'
        media_ports = '15000-15999'
        [[sip.mediaserver]]
        name = 'mds_2'
        address = '10.0.0.4'

        [turn]
        listen_udp = ['0.0.0.0:3478', '[::]:3478']
        listen_tcp = '0.0.0.0:3479'
        relay = [{ bind = '10.1.0.2', advertise = '192.0.2.10' }, '2001:db8::10']
        relay_ports = '40000-40999'
        realm = 'example.com'
        secrets = ['a secret in the text', { file = 'secret' }, { env = 'TURN_SECRET' }]
        mediaservers = ['10.0.0.4', { address = '10.0.0.5', media_ports = 7000 }]
        meetingroom = '10.0.0.9'
        public_peers = true
        secret_hashes = 'sha256'
        strict_expiry = true
        alternate = { servers = ['192.0.2.20', '[2001:db8::20]:5349'], domain = 'turn2.example.com', when = 'full' }
        tcp_relay = true
        [[turn.user]]
        name = 'asterisk'
        password = 'a password of his own'
        sources = ['10.0.0.3']
        [[turn.peer]]
        net = '10.2.0.0/16'
        ports = '20000-30000'
        [turn.limits]
        lifetime_max_secs = 1200
        channels_max = 16
        allocation_bytes_per_second = '2 MiB'
        user_bytes_per_second = 10000000
        returned_packets_per_second = 1000
        peer_connections_max = 8
        pending_peer_connections_max = 4
        ",
    );
    assert_eq!(config.server.workers, Some(2));
    assert_eq!(config.server.shutdown.as_millis(), 500);
    assert_eq!(config.server.connections_max, 1000);
    assert_eq!(config.server.coalesce, Duration::ZERO);
    assert_eq!(config.keys.nonce, [2; 32]);

    let offers: Vec<_> = config.tcp_listeners().iter().map(|(at, _)| at.to_string()).collect();
    assert_eq!(offers, ["0.0.0.0:8443", "[::]:8443", "0.0.0.0:3479"]);
    let https = config.https.unwrap();
    assert_eq!(https.hosts, ["edge.example.com", "192.0.2.10", "[2001:db8::1]"]);
    assert_eq!(https.trusted_proxies[1].to_string(), "2001:db8::1/128");
    assert_eq!(https.limits.handshake.as_secs(), 1);
    assert_eq!(
        (https.limits.line_bytes_max, https.limits.head_bytes_max),
        (4096, 16_384)
    );

    let web = config.web.unwrap();
    assert_eq!(web.upstreams[0].backends[0].host, Host::Name("uc.example.com".into()));
    assert_eq!(web.upstreams[0].backends[0].port, 8443);
    assert_eq!(web.upstreams[0].host_header.as_deref(), Some("edge.example.com:444"));
    assert!(web.upstreams[0].backends[0].tls.is_some() && web.upstreams[1].backends[0].tls.is_none());
    let routes: Vec<_> = web
        .routes
        .iter()
        .map(|route| (route.path.as_str(), route.below, route.upstream, route.websocket))
        .collect();
    assert_eq!(
        routes,
        [
            ("/video", true, Some(1), true),
            ("/", true, Some(1), true),
            ("/.well-known/x%20y", true, Some(1), true),
            ("/video/", false, Some(0), false),
        ]
    );
    assert_eq!(web.routes[0].body_bytes_max, 50 << 20);

    let sip = config.sip.unwrap();
    assert_eq!(sip.advertise.to_string(), "192.0.2.10:5060");
    assert_eq!(sip.origins, ["https://edge.example.com", "http://localhost:8080"]);
    assert_eq!(sip.mediaservers[0].reach, Reach::Contact);
    let addresses: Vec<_> = sip.mediaservers[0].addresses.iter().map(ToString::to_string).collect();
    let expected = ["10.0.0.3:5070", "10.0.0.13:5060", "pbx.example.com:5080", "pbx:5060"];
    assert_eq!(addresses, expected);
    assert_eq!(sip.mediaservers[0].transport, TrunkTransport::TcpWhenLarge);
    assert_eq!(sip.mediaservers[1].transport, TrunkTransport::Udp);
    assert_eq!(
        (sip.health.interval.as_millis(), sip.health.failover.as_secs()),
        (2500, 1)
    );
    assert_eq!(
        (sip.health.failures, sip.health.successes, sip.resolve.as_secs()),
        (5, 2, 30)
    );
    assert_eq!(sip.mediaservers[1].path(), "/wssip-mds_2");
    assert_eq!((sip.limits.ping.as_secs(), sip.limits.flows_max), (10, 5));

    let turn = config.turn.unwrap();
    assert_eq!(turn.relays[0].advertise.to_string(), "192.0.2.10");
    assert_eq!(turn.relays[1].bind, turn.relays[1].advertise);
    let secrets: Vec<_> = turn.secrets.iter().map(|secret| secret.expose()).collect();
    assert_eq!(
        secrets,
        [
            b"a secret in the text".as_slice(),
            b"a secret of the file",
            b"a secret of the environment"
        ]
    );
    assert_eq!(turn.users[0].sources[0].to_string(), "10.0.0.3/32");
    let peers: Vec<_> = turn
        .peers
        .iter()
        .map(|rule| format!("{} {}-{}", rule.net, rule.ports.start(), rule.ports.end()))
        .collect();
    assert_eq!(
        peers,
        [
            "10.0.0.3/32 15000-15999",
            "10.0.0.13/32 15000-15999",
            "10.0.0.4/32 10000-20000",
            "10.0.0.5/32 7000-7000",
            "10.0.0.9/32 10000-10000",
            "10.2.0.0/16 20000-30000",
        ]
    );
    assert_eq!((turn.limits.lifetime_max_secs, turn.limits.channels_max), (1200, 16));
    assert!(turn.tcp_relay);
    assert_eq!(
        (
            turn.limits.peer_connections_max,
            turn.limits.pending_peer_connections_max
        ),
        (8, 4)
    );
    assert_eq!(turn.limits.allocation_bytes_per_second, Some(2 << 20));
    assert_eq!(turn.limits.user_bytes_per_second, Some(10_000_000));
    assert_eq!(turn.limits.returned_packets_per_second, 1000);
    assert_eq!(
        (turn.secret_hashes, turn.strict_expiry),
        (vec![SecretHash::Sha256], true)
    );
    let alternate = turn.alternate.unwrap();
    assert_eq!(alternate.servers[0].to_string(), "192.0.2.20:3478");
    assert_eq!(alternate.servers[1].to_string(), "[2001:db8::20]:5349");
    assert_eq!(alternate.domain.as_deref(), Some("turn2.example.com"));
    assert_eq!(alternate.when, AlternateWhen::Full);
}

#[test]
fn what_turn_does_not_say_about_rates_and_other_servers_is_off() {
    let config = parsed(
        "
        [turn]
        listen = '192.0.2.10'
        realm = 'example.com'
        secrets = 'a secret in the text'
        mediaservers = '10.0.0.4'
        ",
    );
    let turn = config.turn.unwrap();
    assert_eq!(turn.secret_hashes, [SecretHash::Sha1, SecretHash::Sha256]);
    assert_eq!((turn.strict_expiry, turn.alternate), (false, None));
    let limits = turn.limits;
    assert_eq!(
        (limits.allocation_bytes_per_second, limits.user_bytes_per_second),
        (None, None)
    );
    assert_eq!((turn.discovery, turn.mobility), (vec![], false));
}

#[test]
fn names_and_passwords_are_what_clients_make_of_them() {
    let config = parsed(
        "
        [turn]
        listen = '192.0.2.10'
        realm = 'cafe\u{301}.example'
        user = { name = 'rene\u{301}e', password = 'sixteen\u{a0}letters, cafe\u{301}' }
        ",
    );
    let turn = config.turn.unwrap();
    assert_eq!(
        (turn.realm.as_str(), turn.users[0].name.as_str()),
        ("caf\u{e9}.example", "ren\u{e9}e")
    );
    assert_eq!(turn.users[0].password.expose(), "sixteen letters, caf\u{e9}".as_bytes());
}

#[test]
fn four_addresses_are_for_nat_discovery() {
    let parse = |listen_udp: &str| {
        let text = format!(
            "
            [turn]
            listen_tcp = '192.0.2.10'
            listen_udp = {listen_udp}
            nat_discovery = true
            mobility = true
            realm = 'example.com'
            secrets = 'a secret in the text'
            "
        );
        parsed(&text).turn.unwrap()
    };
    let four = "['192.0.2.10', '192.0.2.10:3479', '192.0.2.11', '192.0.2.11:3479']";
    let turn = parse(four);
    assert_eq!(turn.discovery, [Square([0, 1, 2, 3])]);
    assert!(turn.mobility);
    // A family that has fewer goes without.
    let turn = parse(&four.replace(']', ", '[2001:db8::10]:3478']"));
    assert_eq!(turn.discovery, [Square([0, 1, 2, 3])]);
}

#[test]
fn nat_discovery_without_four_addresses_is_an_error() {
    check(
        "[turn]
listen = '192.0.2.10'
realm = 'example.com'
secrets = 'a secret in the text'
nat_discovery = true
",
        r#"
t:5: `nat_discovery` takes two addresses and the same two ports on each, listened on by UDP
    fix: write listen_udp = ["192.0.2.10:3478", "192.0.2.10:3479", "192.0.2.11:3478", "192.0.2.11:3479"]
"#,
    );
}

#[test]
fn a_public_host_has_the_port_of_https() {
    let config = parsed(
        "
        [https]
        listen = '0.0.0.0:8443'
        certificates = { cert = 'edge.pem', key = 'edge.key' }
        [sip]
        listen = '192.0.2.10'
        mediaserver = { address = '10.0.0.3' }
        ",
    );
    assert_eq!(config.sip.unwrap().public_host, "edge.example.com:8443");
}

#[test]
fn certificates_alone_serve_turn_over_tls() {
    let text = "
        [https]
        listen = []
        certificates = { cert = 'edge.pem', key = 'edge.key' }
        [turn]
        listen = '192.0.2.10:3478'
        realm = 'example.com'
        secrets = 'sixteen letters.'
        public_peers = true
        ";
    assert!(parsed(text).https.unwrap().listen.is_empty());
    check(
        &text.replace("listen = '192", "listen_udp = '192"),
        r#"
t:2: [https] listens nowhere
    fix: write listen = "0.0.0.0:443"; an empty list is for a host with TURN over TLS alone
"#,
    );
}

#[test]
fn what_is_not_toml_gets_only_that() {
    check(
        "[https\nlisten = '0.0.0.0:443'\n",
        "
t:1: this is not TOML: unclosed table, expected `]`
    fix: write key = value, or [section], or # and a comment
",
    );
    check(
        "[https]\nlisten = 0.0.0.0:443\nworkers = 3\nworkers = 3\nname = \"never closed\nx y\n[server]\n",
        r#"
t:2: this is not TOML: invalid float
    fix: put text in quotes: key = "text"
t:4: this is not TOML: duplicate key
    fix: write each key and each [section] once; only [[double brackets]] may repeat
t:5: this is not TOML: invalid basic string, expected `"`
    fix: check quotes, brackets and commas
t:6: this is not TOML: key with no value, expected `=`
    fix: write key = value, or [section], or # and a comment
"#,
    );
}

/// A section as the errors name it, and the keys that it takes.
fn sections_and_keys() -> Vec<(String, Vec<String>)> {
    let text = "\
zzzzzzzz = 1
server = { zzzzzzzz = 1 }
access_log = { zzzzzzzz = 1 }
metrics = { zzzzzzzz = 1 }
rates = { zzzzzzzz = 1, zone = { zzzzzzzz = 1 } }
[https]
zzzzzzzz = 1
certificates = { zzzzzzzz = 1 }
acme = { zzzzzzzz = 1 }
limits = { zzzzzzzz = 1 }
[web]
preset = 'xivo'
zzzzzzzz = 1
upstream = { zzzzzzzz = 1, name = 'cc', url = 'http://10.0.0.10', check = { zzzzzzzz = 1 } }
route = { zzzzzzzz = 1 }
[token]
algorithm = 'HS256'
zzzzzzzz = 1
[sip]
zzzzzzzz = 1
health = { zzzzzzzz = 1 }
policy = { zzzzzzzz = 1 }
limits = { zzzzzzzz = 1 }
mediaserver = { zzzzzzzz = 1 }
[turn]
zzzzzzzz = 1
relay = { zzzzzzzz = 1 }
mediaservers = { zzzzzzzz = 1 }
alternate = { zzzzzzzz = 1 }
limits = { zzzzzzzz = 1 }
user = { zzzzzzzz = 1 }
peer = { zzzzzzzz = 1 }
";
    let asked = text.replace("algorithm = 'HS256'", "ask = '/a'");
    let errors = [text, &asked].map(|text| parse(text).expect_err("keys that nobody knows").0);
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for error in errors.iter().flatten() {
        let Some((section, keys)) = error
            .fix
            .strip_prefix("remove it; ")
            .and_then(|fix| fix.split_once(" takes "))
        else {
            continue;
        };
        let keys = keys.split(", ").map(String::from).collect();
        found.push((section.to_owned(), keys));
    }
    assert_eq!(found.len(), 2 * text.matches("zzzzzzzz").count(), "{found:?}");
    found
}

/// The lines of a section in the example, as they would be read: those that stand as comments, too.
fn example(section: &str) -> String {
    let lines = include_str!("../../../../examples/edgeward.toml").lines();
    let bare = |line: &'static str| line.strip_prefix("# ").unwrap_or(line);
    let mut is_within = false;
    let within = lines.map(bare).filter(|line| {
        let is_header = |rest: &str| {
            matches!(
                rest.trim_start_matches(']').trim_start().bytes().next(),
                None | Some(b'#')
            )
        };
        let header = line
            .split_once(']')
            .filter(|(start, rest)| start.starts_with('[') && is_header(rest));
        if let Some((header, _)) = header {
            is_within = header.trim_start_matches('[') == section;
            return false;
        }
        is_within
    });
    within.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_example_names_every_key_and_no_other() {
    let all = include_str!("../../../../examples/edgeward.toml");
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (section, keys) in sections_and_keys() {
        let name = section.trim_matches(['[', ']']).to_owned();
        known.entry(name).or_default().extend(keys);
    }
    for (section, keys) in &known {
        for key in keys {
            let is_there = match (section.as_str(), example(section)) {
                ("the configuration", _) => all.contains(&format!("[{key}]")) || all.contains(&format!("[[{key}.")),
                // What stands in braces.
                (_, text) if text.is_empty() => all.contains(&format!(" {key} = ")),
                (_, text) => {
                    let is_inner = all.contains(&format!("[{section}.{key}]"));
                    let mut lines = text.lines();
                    is_inner || lines.any(|line| line.starts_with(key) && line[key.len()..].starts_with(" = "))
                }
            };
            assert!(is_there, "the example does not name `{key}` of {section}");
        }
        for line in example(section).lines() {
            let key = line.split(" = ").next().filter(|key| key.len() < line.len());
            let is_key = |key: &&str| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if let Some(key) = key.filter(is_key) {
                assert!(keys.iter().any(|known| known == key), "{section} has no `{key}`");
            }
        }
    }
}

#[test]
fn what_the_example_calls_defaults_are_the_defaults() {
    let sections = ["https.limits", "sip.health", "sip.policy", "sip.limits", "turn.limits"].map(|section| {
        let text = example(section);
        let lines = text
            .lines()
            .filter(|line| line.contains(" = ") && !line.contains("when it is not said"));
        let lines: String = lines.map(|line| format!("{line}\n")).collect();
        assert!(!lines.is_empty(), "{section}");
        format!("[{section}]\n{lines}")
    });
    let config = parsed(&format!(
        "{HTTPS}[sip]\nlisten = '192.0.2.10'\nmediaserver = {{ address = '10.0.0.3' }}\n\
         [turn]\nlisten = '192.0.2.10'\nrealm = 'example.com'\nsecrets = 'sixteen letters.'\n{}",
        sections.concat()
    ));
    let (https, sip, turn) = (config.https.unwrap(), config.sip.unwrap(), config.turn.unwrap());
    assert_eq!(format!("{:?}", https.limits), format!("{:?}", HttpLimits::default()));
    assert_eq!(format!("{:?}", sip.health), format!("{:?}", Health::default()));
    assert_eq!(format!("{:?}", sip.policy), format!("{:?}", SipPolicy::default()));
    assert_eq!(format!("{:?}", sip.limits), format!("{:?}", SipLimits::default()));
    assert_eq!(format!("{:?}", turn.limits), format!("{:?}", TurnLimits::default()));
}

#[test]
fn circles_and_promises_that_nothing_keeps() {
    check_https(
        "\
[[web.upstream]]
name = 'us'
url = ['http://10.0.0.10', 'http://192.0.2.10:443']
[[web.route]]
path = '/'
[sip]
listen = '192.0.2.10:5060'
advertise = '192.0.2.20:5060'
mediaserver = [{ address = ['10.0.0.3', '192.0.2.10'] }, { name = 'b', address = '192.0.2.20' }]
[sip.policy]
token_names_user = true
[server]
shutdown_secs = 5
drain_secs = 6
",
        r#"
t:8: `us` is this edge itself, listening in line 2: requests would go round in a circle
    fix: write the URL of the server behind it
t:14: 192.0.2.10:5060 is where [sip] listens itself: requests would go round in a circle
    fix: write the address of the mediaserver
t:14: 192.0.2.20:5060 is where [sip] listens itself: requests would go round in a circle
    fix: write the address of the mediaserver
t:16: `token_names_user` without [token]: nothing says which user a token names
    fix: add [token], which verifies tokens and reads their user
t:19: WebSockets cannot be closed over 6 s: what is left is cut 5 s after a stop was asked for
    fix: make drain_secs no longer than shutdown_secs
"#,
    );
    // Nor may numbers and health stand where relays are.
    check(
        "\
[turn]
listen = '192.0.2.10:3478'
realm = 'example.com'
secrets = 'sixteen letters.'
tcp_relay = true
[metrics]
listen = '0.0.0.0:30001'
",
        r#"
t:1: the relay ports 30000-39999 contain TCP 0.0.0.0:30001, listened on in line 7
    fix: move one of the two
"#,
    );
}

#[test]
fn there_must_be_something_to_do() {
    let expected = "
t:1: there is nothing to do: no role is configured
    fix: add at least one of [web], [sip] and [turn]
";
    check("", expected);
    check("[server]\nworkers = 1", expected);
    check(HTTPS, expected);
}

#[test]
fn web_and_sip_need_https() {
    check(
        "[web]\nupstream = { name = 'a', url = 'http://a' }\nroute = { path = '/' }\n\
         [sip]\nlisten = '192.0.2.10'\nmediaserver = { address = '10.0.0.3' }",
        r#"
t:1: [web] needs [https]: browsers come by TLS only
    fix: add
         [https]
         listen = "0.0.0.0:443"
         certificates = [{ cert = "fullchain.pem", key = "privkey.pem" }]
t:4: [sip] needs [https]: browsers come by TLS only
    fix: add
         [https]
         listen = "0.0.0.0:443"
         certificates = [{ cert = "fullchain.pem", key = "privkey.pem" }]
"#,
    );
}

#[test]
fn keys_that_nobody_knows() {
    check(
        "
[serve]
[server]
worker = 2
colour = 'blue'
[turn]
listen = '192.0.2.10'
realm = 'example.com'
secret = 'sixteen letters.'
secrets = { file = 'secret', env = 'TURN_SECRET' }
public_peers = true
[turn.limit]
",
        r#"
t:2: the configuration has no key `serve`
    fix: write [server]
t:4: [server] has no key `worker`
    fix: write workers
t:5: [server] has no key `colour`
    fix: remove it; [server] takes workers, shutdown_secs, drain_secs, connections_max, connections_per_address_max, coalesce_micros, key_file
t:9: [turn] has no key `secret`
    fix: write secrets
t:10: a secret comes from one place
    fix: write { file = "/etc/edgeward/secret" } or { env = "NAME" }
t:12: [turn] has no key `limit`
    fix: write limits
"#,
    );
}

#[test]
fn numbers() {
    check(
        "
[server]
workers = 0
shutdown_secs = -1
connections_max = '9'
key_file = 'elsewhere'
[turn]
listen = '192.0.2.10'
realm = 'example.com'
secrets = 'sixteen letters.'
public_peers = 1
[turn.limits]
stream_idle_secs = 1e9
buffer_bytes_max = '64 kB'
channels_max = 5000
",
        r#"
t:3: `0` is not a number from 1 to 1024
    fix: write such a number, without quotes
t:4: `-1` is not a number of seconds from 0.001 to 604800
    fix: write such a number, without quotes
t:5: `'9'` is not a number from 1 to 10000000
    fix: write such a number, without quotes
t:6: `elsewhere` cannot be written
    fix: name a file that this user may read, or make in its directory
t:11: `1` is not true or false
    fix: write true or false, without quotes
t:13: `1e9` is not a number of seconds from 0.001 to 604800
    fix: write such a number, without quotes
t:14: `'64 kB'` is not a number of bytes from 65536 to 16777216
    fix: write 65536 or "64 KiB"; there are KiB, MiB and GiB
t:15: `5000` is not a number from 1 to 4096
    fix: write such a number, without quotes
"#,
    );
}

#[test]
fn what_https_says_of_turn_and_of_authorities() {
    check(
        "
[https]
listen = '192.0.2.10:443'
turn_hosts = ['turn.example.com', 'turns:turn.example.com']
proxy_protocol_from = ['10.0.0.1/8']
refuse_unknown_names = 'no'
[https.acme]
domains = []
contact = 'mailto:a@example.com'
[web]
upstream = [{ name = 'cc', url = 'http://10.0.0.10' }]
route = [{ path = '/' }]
",
        r#"
t:2: [https] answers to no host name
    fix: add hosts = ["edge.example.com"]: the names that browsers use
t:4: `'turns:turn.example.com'` is not a host name
    fix: write it like "edge.example.com", without scheme and port
t:5: `'10.0.0.1/8'` is not a network: it has bits behind its prefix
    fix: write "10.0.0.0/8", or "10.0.0.1" for the one address
t:6: `'no'` is not true or false
    fix: write true or false, without quotes
t:7: [https.acme] needs your agreement to the terms of the authority
    fix: read them, and write terms_agreed = true
t:8: [https.acme] asks for no name
    fix: write domains = ["edge.example.com"]
t:9: [https.acme] has no key `contact`
    fix: write contacts
"#,
    );
    check(
        "
[https]
listen = '192.0.2.10:443'
certificates = [{ cert = 'edge.pem', key = 'edge.key', ocsp = 'no such file' }]
plain_turn = true
[web]
upstream = [{ name = 'cc', url = 'http://10.0.0.10' }]
route = [{ path = '/' }]
",
        "
t:2: [https] names `turn_hosts` or `plain_turn`, but there is no TURN server
    fix: add [turn], or remove both from [https]
",
    );
}

#[test]
fn https() {
    check(
        "
[https]
listen = ['192.0.2.10', 'edge.example.com:443', '192.0.2.10:0', '2001:db8::1', 443]
certificates = [{ cert = 'missing.pem', key = 'edge.key' }, { cert = 'edge.pem', key = 'other.key' }, { cert = 'edge.pem' }]
hosts = ['https://edge.example.com', 'edge.example.com:443', '*.example.com']
trusted_proxies = ['10.0.0.1/8', '::ffff:10.0.0.1', 'proxy']
[https.limits]
line_bytes_max = '60 KiB'
fields_max = 2000
[turn]
listen = '192.0.2.10'
realm = 'example.com'
secrets = 'sixteen letters.'
public_peers = true
",
        r#"
t:3: `'192.0.2.10'` is not an address with a port
    fix: write "192.0.2.10:PORT"
t:3: `'edge.example.com:443'` is not an address with a port
    fix: write it like "192.0.2.10:443" or "[2001:db8::10]:443"
t:3: `'192.0.2.10:0'` is not an address with a port that others can know
    fix: write another port
t:3: `'2001:db8::1'` is not an address with a port
    fix: write "[2001:db8::1]:PORT"
t:3: `443` is not an address with a port
    fix: write it like "192.0.2.10:443" or "[2001:db8::10]:443"
t:4: `missing.pem` cannot be read: no such file
    fix: name a file that exists and that this user may read
t:4: the certificate `edge.pem` cannot be used: the private key is not that of the certificate
    fix: `cert` is the PEM file with the chain, `key` the PEM file with the private key that belongs to it
t:4: a certificate has no `key`
    fix: add key = "privkey.pem"
t:5: `'https://edge.example.com'` is not a host name
    fix: write it like "edge.example.com", without scheme and port
t:5: `'edge.example.com:443'` is not a host name
    fix: write it like "edge.example.com", without scheme and port
t:5: `'*.example.com'` is not a host name
    fix: write it like "edge.example.com", without scheme and port
t:6: `'10.0.0.1/8'` is not a network: it has bits behind its prefix
    fix: write "10.0.0.0/8", or "10.0.0.1" for the one address
t:6: `'::ffff:10.0.0.1'` is not written in its own family
    fix: write 10.0.0.1 instead
t:6: `'proxy'` is not a network
    fix: write it like "10.0.0.0/8", or one address
t:8: a line of 61440 bytes does not fit into a head of 32768
    fix: make line_bytes_max smaller or head_bytes_max larger
t:9: `2000` is not a number from 8 to 1000
    fix: write such a number, without quotes
"#,
    );
}

#[test]
fn web() {
    check_https(
        "\
[[web.upstream]]
name = 'uc'
url = '10.0.0.10'
[[web.upstream]]
name = 'uc'
url = 'https://10.0.0.10'
[[web.upstream]]
name = 'a b'
url = 'http://10.0.0.10/path'
[[web.upstream]]
name = 'other'
url = 'http://10.0.0.300'
ca = 'edge.key'
[[web.upstream]]
name = 'third'
url = 'http://name'
ca = 'edge.pem'
[[web.upstream]]
name = 'fourth'
url = 'https://name'
ca = 'edge.key'
[[web.route]]
path = ['ucassistant', '/a/../b', '//', '/x?y', '/é', '/%41%2F', '/%2f', '/%', '/a']
upstream = 'othre'
[[web.route]]
path = '/a/'
upstream = 'elsewhere'
[[web.route]]
path = '/c'
",
        r#"
t:8: `'10.0.0.10'` is not the URL of a server
    fix: write it like "https://10.0.0.10" or "http://name:8080"
t:9: there are two upstreams with the name `uc`
    fix: give each a name of its own
t:11: nothing says which certificate of `uc` is to be believed
    fix: add ca = "upstream-ca.pem", the authority that signed it, or use an http:// URL
t:13: `'a b'` is not a name of letters, digits, `-`, `_` and `.`
    fix: write it like "main"
t:14: `'http://10.0.0.10/path'` is not the URL of a whole server: it has a path
    fix: write "http://10.0.0.10"; paths are passed on as they come
t:17: `'http://10.0.0.300'` is not the URL of a server
    fix: write it like "https://10.0.0.10" or "http://name:8080"
t:21: a `ca`, a `pin` or a `certificate` has no use without TLS
    fix: write https:// or remove it
t:26: this `ca`, `pin` or `certificate` cannot be used: the certificate file holds no certificate in PEM form
    fix: name the PEM file of the authority that signed the certificate of the upstream
t:28: `'ucassistant'` is not a path: it does not begin with /
    fix: write "/ucassistant"
t:28: `'/a/../b'` is not a path in its normal form
    fix: write it without empty, `.` and `..` segments
t:28: `'//'` is not a path in its normal form
    fix: write it without empty, `.` and `..` segments
t:28: `'/x?y'` is not a path alone
    fix: write "/x"
t:28: `'/é'` is not a path as it is sent
    fix: write other characters as %XX
t:28: `'/%41%2F'` is not a path in its normal form
    fix: write %XX in capitals, and only where it must be
t:28: `'/%2f'` is not a path in its normal form
    fix: write %XX in capitals, and only where it must be
t:28: `'/%'` is not a path in its normal form
    fix: write %XX in capitals, and only where it must be
t:29: there is no upstream `othre`
    fix: write "other"
t:32: there is no upstream `elsewhere`
    fix: write one of these: uc, uc, other, third, fourth
t:33: [[web.route]] has no `upstream`
    fix: add upstream = "NAME", one of [[web.upstream]], or "none"
"#,
    );
}

#[test]
fn a_path_is_taken_once() {
    check_https(
        "\
[[web.upstream]]
name = 'uc'
url = 'http://10.0.0.10'
[[web.route]]
path = ['/a', '/b', '/a/']
[[web.route]]
path = '/b'
exact = true
[[web.route]]
path = '/wssip'
[sip]
listen = '192.0.2.10'
[[sip.mediaserver]]
address = '10.0.0.3'
",
        r#"
t:10: `/a/...` is taken already, in line 10
    fix: remove one of the two
t:18: `/wssip/...` is taken already, in line 15
    fix: remove one of the two
"#,
    );
}

#[test]
fn a_web_role_forwards_something() {
    check_https(
        "[web]",
        r#"
t:6: [web] has no `upstream`
    fix: add upstream = ..., or better a block
         [[web.upstream]]
         name = "uc"
         url = "http://10.0.0.10"
t:6: [web] has no `route`
    fix: add route = ..., or better a block
         [[web.route]]
         path = "/ucassistant"
"#,
    );
}

#[test]
fn sip() {
    check_https(
        "\
[sip]
listen = '0.0.0.0:5060'
public_host = 'https://edge.example.com'
origins = ['edge.example.com', 'https://edge.example.com/']
[sip.limits]
message_bytes_max = '1 MiB'
[[sip.mediaserver]]
address = '10.0.0.3'
reach = 'via'
[[sip.mediaserver]]
address = '10.0.0.3'
media_ports = '0-10'
[[sip.mediaserver]]
name = 'mds1'
address = '2001:db8::3'
[[sip.mediaserver]]
name = 'mds2'
address = ['asterisk example.com', '10.0.0.7', '10.0.0.7:5060']
[[sip.mediaserver]]
name = 'mds3'
address = '0.0.0.0'
media_ports = 'all'
[[sip.mediaserver]]
name = 'mds1'
[[sip.mediaserver]]
name = 'mds4'
address = []
transport = 'tls'
[sip.health]
failures = 0
failover_sec = 1
",
        r#"
t:7: 0.0.0.0:5060 is no address that a mediaserver can answer to
    fix: listen on one address, or add advertise = "192.0.2.10:5060", the one that mediaservers see
t:8: `'https://edge.example.com'` is not a host name
    fix: write it like "edge.example.com", with ":port" when that is not 443
t:9: `'edge.example.com'` is not an origin
    fix: write it like "https://edge.example.com", without a path
t:9: `'https://edge.example.com/'` is not an origin
    fix: write it like "https://edge.example.com", without a path
t:11: `'1 MiB'` is not a number of bytes from 4096 to 65536
    fix: write 65536 or "64 KiB"; there are KiB, MiB and GiB
t:14: `'via'` is not a way to be reached
    fix: write "path" (RFC 3327) or "contact" (for a mediaserver without support_path)
t:15: there are two mediaservers with the name `default`
    fix: give each a name of its own; browsers reach NAME by /wssip-NAME
t:16: there are two mediaservers at 10.0.0.3:5060
    fix: name each mediaserver once
t:17: `'0-10'` is not a range of ports: there is no port 0
    fix: write "1-10"
t:20: the mediaserver is IPv6, but [sip] listens on IPv4
    fix: write an IPv4 address, or change listen
t:23: `'asterisk example.com'` is not an address or a name, with or without a port
    fix: write it like "10.0.0.3:5060" or "pbx.example.com"
t:23: there are two mediaservers at 10.0.0.7:5060
    fix: name each mediaserver once
t:26: `'0.0.0.0'` is not the address of a mediaserver
    fix: write the one it can be reached by
t:27: `'all'` is not a range of ports
    fix: write it like "10000-20000", or one port like 10000
t:28: [[sip.mediaserver]] has no `address`
    fix: add address = "10.0.0.3:5060"
t:32: `[]` is not one address, or a list of up to 8
    fix: write it like ["10.0.0.3:5060", "10.0.0.4:5060"], the first choice first
t:33: `'tls'` is not a transport
    fix: write "udp" or "tcp-when-large"
t:35: `0` is not a number from 1 to 100
    fix: write such a number, without quotes
t:36: [sip.health] has no key `failover_sec`
    fix: write failover_secs
"#,
    );
}

#[test]
fn what_browsers_may_say() {
    let config = |policy: &str| {
        parsed(&format!(
            "[https]\nlisten = '0.0.0.0:443'\ncertificates = [{{ cert = 'edge.pem', key = 'edge.key' }}]\n\
             [sip]\nlisten = '192.0.2.10:5060'\n[[sip.mediaserver]]\naddress = '10.0.0.3'\n{policy}"
        ))
    };
    let policy = config("").sip.unwrap().policy;
    assert_eq!((policy.gone_status, policy.unregister_gone), (430, false));
    assert_eq!((policy.token_names_user, policy.register_max.as_secs()), (false, 3600));
    assert!(policy.hide.is_empty());
    let sip = config(
        "[sip.limits]
        grace_secs = 20
        hold_secs = 3
        [sip.policy]
        gone_status = 480
        unregister_gone = true
        token_names_user = true
        register_secs_max = 120
        strip = 'X-Own-*'
        hide = ['Server', 'user-agent']
        scanners = []
        [token]
        algorithm = 'HS256'
        key = 'a key of thirty-two bytes or more'",
    )
    .sip
    .unwrap();
    assert_eq!((sip.limits.grace.as_secs(), sip.limits.hold.as_secs()), (20, 3));
    let policy = sip.policy;
    assert_eq!((policy.gone_status, policy.unregister_gone), (480, true));
    assert_eq!((policy.token_names_user, policy.register_max.as_secs()), (true, 120));
    assert_eq!(
        (policy.strip, policy.hide),
        (vec!["X-Own-*".into()], vec!["Server".into(), "user-agent".into()])
    );
    assert!(policy.scanners.is_empty());

    check_https(
        "\
[sip]
listen = '192.0.2.10:5060'
[sip.policy]
gone_status = 404
strip = ['X-*', 'c*', 'v', 'a b', '*']
scanners = [7]
[[sip.mediaserver]]
address = '10.0.0.3'
",
        r#"
t:9: `404` is not a status for a browser that is gone
    fix: write 430 (Flow Failed) or 480
t:10: `'c*'` is not a header field that can be left out
    fix: write one like "User-Agent" or "X-*"
t:10: `'v'` is not a header field that can be left out
    fix: write one like "User-Agent" or "X-*"
t:10: `'a b'` is not a header field that can be left out
    fix: write one like "User-Agent" or "X-*"
t:10: `'*'` is not a header field that can be left out
    fix: write one like "User-Agent" or "X-*"
t:11: `7` is not a part of a User-Agent
    fix: write it like "friendly-scanner"
"#,
    );
}

#[test]
fn turn() {
    check(
        "
[turn]
listen = '0.0.0.0:3478'
relay_ports = 30000
realm = ''
mediaservers = ['10.0.0.5:5060', { address = '10.0.0.6', port = 1 }]
meetingroom = '0.0.0.0'
[[turn.peer]]
net = '10.0.0.0/8'
",
        r#"
t:2: [turn] has no `relay`: the address that peers and clients see
    fix: add relay = "192.0.2.10", or behind a NAT
         relay = { bind = "10.1.0.2", advertise = "192.0.2.10" }
t:2: [turn] lets nobody in: it has neither `secrets` nor a [[turn.user]]
    fix: add secrets = [{ file = "/etc/edgeward/turn-secret" }], the same secret as in the UC server
t:5: `''` is not a realm
    fix: write your domain: "example.com"
t:6: `'10.0.0.5:5060'` is not an address
    fix: write it like "192.0.2.10" or "2001:db8::10", without a port
t:6: a mediaserver has no key `port`
    fix: remove it; a mediaserver takes address, media_ports
t:7: `'0.0.0.0'` is not an address that can be reached
    fix: write the one of the meeting room
t:8: [[turn.peer]] has no `ports`
    fix: add ports = "10000-20000"
"#,
    );
    check(
        "
[turn]
realm = 'example.com'
relay = ['0.0.0.0', { bind = '10.1.0.2', advertise = '2001:db8::1' }, { advertise = '192.0.2.10' }, { bind = '0.0.0.0', advertise = '::' }]
secrets = ['', 'too short', { file = 'short' }, { file = 'empty' }, { env = 'NOTHING' }, 7, {}]
[[turn.user]]
name = 'a:b'
password = 'sixteen letters.'
sources = 'nowhere'
[[turn.user]]
name = 'asterisk'
password = 'sixteen letters.'
[[turn.user]]
name = 'asterisk'
",
        r#"
t:2: [turn] has no `listen`
    fix: add listen = "0.0.0.0:3478", which is for UDP and TCP
t:4: 0.0.0.0 is no address to relay by: packets would leave from any address of this machine
    fix: write one address of this machine, like "192.0.2.10", or behind a NAT
         relay = { bind = "10.1.0.2", advertise = "192.0.2.10" }
t:4: 10.1.0.2 and 2001:db8::1 are of two families
    fix: make two relays, one for IPv4 and one for IPv6
t:4: a relay has no `bind`
    fix: add bind = "10.1.0.2"
t:4: `'::'` is not an address that can be reached
    fix: write the one that others use
t:5: this secret is empty
    fix: take what this prints: openssl rand -base64 32
t:5: this secret can be guessed: it has 9 of 16 characters
    fix: take what this prints: openssl rand -base64 32
t:5: this secret can be guessed: it has 5 of 16 characters
    fix: take what this prints: openssl rand -base64 32
t:5: this secret is empty
    fix: take what this prints: openssl rand -base64 32
t:5: there is no variable NOTHING in the environment
    fix: set NOTHING before the start
t:5: this is not a secret
    fix: write "..." or { file = "/etc/edgeward/secret" } or { env = "NAME" }
t:5: a secret comes from one place
    fix: write { file = "/etc/edgeward/secret" } or { env = "NAME" }
t:7: `'a:b'` is not a user name: a colon marks one that ends
    fix: write it without a colon
t:9: `'nowhere'` is not a network
    fix: write it like "10.0.0.0/8", or one address
t:13: [[turn.user]] has no `password`
    fix: add password = { file = "/etc/edgeward/asterisk-password" }
t:14: there are two users with the name `asterisk`
    fix: give each a name of its own
"#,
    );
}

#[test]
fn turn_needs_somebody_to_relay_to() {
    check(
        "[turn]\nlisten = '192.0.2.10'\nrealm = 'example.com'\nsecrets = 'sixteen letters.'\npublic_peers = false",
        r#"
t:1: [turn] may relay to nobody
    fix: add mediaservers = ["10.0.0.5"], or a block [[turn.peer]], or public_peers = true
"#,
    );
}

#[test]
fn an_address_is_listened_on_once() {
    check_https(
        "\
[sip]
listen = '192.0.2.10:3478'
mediaserver = { address = '10.0.0.3' }
[turn]
listen = '0.0.0.0:3478'
listen_tcp = ['192.0.2.10:443', '192.0.2.10:444', '[2001:db8::1]:443']
relay = ['192.0.2.10', '192.0.2.11']
realm = 'example.com'
secrets = 'sixteen letters.'
",
        r#"
t:10: UDP 0.0.0.0:3478 is taken by 192.0.2.10:3478 in line 7
    fix: give each of them a port or an address of its own
t:11: TCP 192.0.2.10:443 is taken by 192.0.2.10:443 in line 2
    fix: give each of them a port or an address of its own
t:12: 192.0.2.11 is a second relay for IPv4
    fix: keep one for each family
"#,
    );
}

#[test]
fn relay_ports_are_for_the_relay_alone() {
    check_https(
        "\
[sip]
listen = '192.0.2.10:5060'
mediaserver = { address = '10.0.0.3' }
[turn]
listen_udp = ['0.0.0.0:3478', '192.0.2.11:3479']
listen_tcp = '192.0.2.10:3000'
relay = '192.0.2.10'
relay_ports = '3000-6000'
realm = 'example.com'
secrets = 'sixteen letters.'
",
        r#"
t:13: the relay ports 3000-6000 contain UDP 192.0.2.10:5060, listened on in line 7
    fix: move one of the two
t:13: the relay ports 3000-6000 contain UDP 0.0.0.0:3478, listened on in line 10
    fix: move one of the two
"#,
    );
    // Where TCP is relayed, nor is a TCP listener within.
    check(
        "\
[turn]
listen_tcp = '192.0.2.10:3478'
relay_ports = '3000-6000'
realm = 'example.com'
secrets = 'sixteen letters.'
tcp_relay = true
",
        r#"
t:3: the relay ports 3000-6000 contain TCP 192.0.2.10:3478, listened on in line 2
    fix: move one of the two
"#,
    );
}

#[test]
fn the_wrong_shape() {
    check(
        "https = 1\nturn = 'yes'\n[server]\nworkers = [1]\nshutdown_secs = { secs = 1 }\nkey_file = 5",
        r#"
t:1: [https] must be a table
    fix: write [https], and its keys below it
t:2: [turn] must be a table
    fix: write [turn], and its keys below it
t:4: `[1]` is not a number from 1 to 1024
    fix: write such a number, without quotes
t:5: a table is not a number of seconds from 0.001 to 604800
    fix: write such a number, without quotes
t:6: `5` is not text
    fix: write it in quotes: "..."
"#,
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(\\[{0,2}(server|https|web.route|turn)\\]{0,2}|[a-z]{0,6}( = )?|['\"=\\[\\]{},.0-9é]|\n){0,40}") {
        let _ = parse(&text);
    }
}

#[test]
fn turn_to_other_servers() {
    check(
        "
[turn]
listen = '192.0.2.10'
realm = 'example.com'
secrets = 'a secret in the text'
mediaservers = '10.0.0.4'
secret_hashes = ['sha1', 'md5']
strict_expiry = 'yes'
alternate = { servers = ['192.0.2.20', '192.0.2.21'], domain = 'a b', when = 'never' }
[turn.limits]
user_bytes_per_second = 10
",
        r#"
t:7: `'md5'` is not one or both of "sha1" and "sha256"
    fix: write ["sha1", "sha256"]
t:8: `'yes'` is not true or false
    fix: write true or false, without quotes
t:9: `['192.0.2.20', '192.0.2.21']` is not an address to go to, or one of each family
    fix: write "192.0.2.20:3478"
t:9: `'a b'` is not a domain name
    fix: write "turn2.example.com"
t:9: `'never'` is not "draining", "full" or "always"
    fix: write "draining"
t:11: `10` is not a number of bytes from 1024 to 1099511627776
    fix: write 65536 or "64 KiB"; there are KiB, MiB and GiB
"#,
    );
}

const XIVO: &str = r#"
[https]
listen = "0.0.0.0:443"
certificates = [{ cert = "edge.pem", key = "edge.key" }]

[web]
preset = "xivo"

[[web.upstream]]
name = "xivo"
url = "http://10.0.0.2"

[[web.upstream]]
name = "cc"
url = "http://10.0.0.10"

[[web.upstream]]
name = "meetingroom"
url = "http://10.0.0.9"

[sip]
listen = "10.0.0.1:5060"

[[sip.mediaserver]]
address = "10.0.0.2"
"#;

/// `path upstream zone burst mode`, and what else is special.
fn route_lines(config: &Config) -> Vec<String> {
    let web = config.web.as_ref().unwrap();
    let line = |route: &Route| {
        let limit = route.limit.map_or_else(String::new, |Limit { zone, tolerance }| {
            format!(
                " {} {} {:?}",
                config.rates.zones[zone].name, tolerance.burst, tolerance.mode
            )
        });
        let below = if route.below { "/..." } else { "" };
        let websocket = if route.websocket { " websocket" } else { "" };
        let token = if route.token == TokenRule::Segments {
            " token"
        } else {
            ""
        };
        let upstream = route
            .upstream
            .map_or("nobody", |upstream| &web.upstreams[upstream].name);
        format!("{}{below} {upstream}{limit}{websocket}{token}", route.path)
    };
    web.routes.iter().map(line).collect()
}

#[test]
fn one_line_is_a_whole_xivo() {
    let config = parsed(XIVO);
    assert_eq!(
        route_lines(&config),
        [
            "/ccagent/... cc webapp 20 Delay",
            "/ucassistant/... cc webapp 20 Delay",
            "/switchboard/... cc webapp 20 Delay",
            "/assets/... cc webapp 50 NoDelay",
            "/config/... cc webapp 50 NoDelay",
            "/pwa-worker.js cc webapp 50 NoDelay",
            "/static/offline.html cc webapp 50 NoDelay",
            "/video/css/... meetingroom webapp 50 NoDelay",
            "/video/images/... meetingroom webapp 50 NoDelay",
            "/video/lang/... meetingroom webapp 50 NoDelay",
            "/video/libs/... meetingroom webapp 50 NoDelay",
            "/video/sounds/... meetingroom webapp 50 NoDelay",
            "/xuc/... cc apis 10 Delay",
            "/version/... cc apis 10 Delay",
            "/video/external_api.js meetingroom apis 10 NoDelay",
            "/xuc/api/2.0/auth/login/... cc auth 12 NoDelay",
            "/invitation/video/... cc auth 12 NoDelay",
            "/meetingrooms/token/validate/... xivo auth 12 NoDelay",
            "/xuc/api/2.0/cti/... cc auth 12 NoDelay websocket token",
            "/install/win64/... cc dapp 15 NoDelay",
            "/updates/win64/... cc dapp 15 NoDelay",
            "/updates/debian/... cc dapp 15 NoDelay",
            "/video/... meetingroom video 12 NoDelay",
            "/video/xmpp-websocket/... meetingroom video 12 NoDelay websocket",
            "/video/colibri-ws/... meetingroom video 12 NoDelay websocket",
        ]
    );
    let rates: Vec<_> = config
        .rates
        .zones
        .iter()
        .map(|zone| (zone.name.as_str(), zone.interval.as_micros()))
        .collect();
    assert_eq!(
        rates,
        [
            ("webapp", 33_333),
            ("apis", 33_333),
            ("auth", 3_000_000),
            ("dapp", 3_000_000),
            ("video", 50_000)
        ]
    );
    let sip = config.sip.unwrap();
    assert_eq!(
        sip.limit.map(|limit| (limit.zone, limit.tolerance.burst)),
        Some((2, 12))
    );
    let exempt: Vec<_> = config.rates.exempt.iter().map(ToString::to_string).collect();
    assert_eq!(exempt, ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]);
}

#[test]
fn everything_of_the_preset_can_be_written_otherwise() {
    let own = r#"
[rates]
exempt = []

[[rates.zone]]
name = "auth"
rate = "60/min"
burst = 30

[[web.route]]
path = "/ccagent"
upstream = "cc"

[[web.route]]
path = "/install/win64"
upstream = "none"

[[web.route]]
path = "/xuc"
upstream = "cc"
zone = "apis"
burst = 100
mode = "nodelay"
"#;
    let text = XIVO.replace("preset = \"xivo\"", "preset = \"xivo\"\nassets_burst = 80");
    let text = text.replace("listen = \"10.0.0.1:5060\"", "listen = \"10.0.0.1:5060\"\nburst = 3") + own;
    let config = parsed(&text);
    let lines = route_lines(&config);
    for expected in [
        "/ccagent/... cc",
        "/install/win64/... nobody",
        "/xuc/... cc apis 100 NoDelay",
        "/assets/... cc webapp 80 NoDelay",
        "/invitation/video/... cc auth 30 NoDelay",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected} is not in {lines:#?}"
        );
    }
    assert_eq!(lines.len(), 25);
    assert!(config.rates.exempt.is_empty());
    assert_eq!(config.sip.unwrap().limit.unwrap().tolerance.burst, 3);
}

#[test]
fn what_a_preset_cannot_do() {
    let check = |text: &str, burst: &'static str, expected: &str| {
        let mut world = World::new();
        world.variables.insert("ASSETS_BURST", burst);
        let errors = Config::parse(text, &mut world, keys(1)).expect_err("something wrong");
        let whats: Vec<String> = errors
            .0
            .iter()
            .map(|error| format!("{} -> {}", error.what, error.fix))
            .collect();
        assert_eq!(whats, [expected]);
    };
    check(
        XIVO,
        "abc",
        "ASSETS_BURST in the environment is \"abc\", which is no number -> \
         set it like ASSETS_BURST=50, or write assets_burst = 50",
    );
    let sip = "[[web.upstream]]\nname = \"sip\"\nurl = \"http://192.0.2.11\"\n\n[sip]";
    check(
        &XIVO.replace("[sip]", sip),
        "50",
        "`/wssip` is taken already, in line 7 -> \
         the preset forwards it to the upstream `sip`: remove that upstream, or [sip]",
    );
}

#[test]
fn the_preset_serves_what_there_is() {
    let start = XIVO.find("[[web.upstream]]\nname = \"meetingroom\"").unwrap();
    let end = XIVO.find("[sip]").unwrap();
    let config = parsed(
        &[
            &XIVO[..start],
            "[[web.upstream]]\nname = \"sip\"\nurl = \"http://192.0.2.11\"\n",
        ]
        .concat(),
    );
    let lines = route_lines(&config);
    assert!(
        lines.contains(&"/video/... cc video 12 NoDelay".to_owned()),
        "{lines:#?}"
    );
    assert!(
        lines.contains(&"/wssip sip auth 12 NoDelay websocket".to_owned()),
        "{lines:#?}"
    );
    check(
        &XIVO.replace("name = \"cc\"", "name = \"other\""),
        "t:7: this preset needs an upstream `cc`\n    \
         fix: add a block\n         [[web.upstream]]\n         name = \"cc\"\n         url = \"https://10.0.0.10\"\n         \
         and, for a Meetingroom, `xivo` and `meetingroom`\n",
    );
    assert!(parse(&XIVO[..end]).is_ok());
}

#[test]
fn wrong_rates() {
    let rates = r#"
[rates]
exempt = ["privat"]
[[rates.zone]]
name = "a"
rate = "30"
[[rates.zone]]
name = "b"
rate = "1/min"
burst = 2
mode = "delay"
[[rates.zone]]
name = "b"
rate = "1/s"
mode = "later"
"#;
    let web = r#"
[https]
listen = "0.0.0.0:443"
certificates = [{ cert = "edge.pem", key = "edge.key" }]
[[web.upstream]]
name = "cc"
url = "http://10.0.0.10"
[[web.route]]
path = "/a"
zone = "bb"
[[web.route]]
path = "/b"
burst = 5
[[web.route]]
path = "/c"
token = "some"
"#;
    check(
        &[rates, web].concat(),
        "t:3: `\"privat\"` is not a network\n    \
         fix: write it like \"10.0.0.0/8\", or one address\n\
         t:6: `\"30\"` is not a rate\n    \
         fix: write it like \"30/s\" or \"20/min\"\n\
         t:11: a request may be held for 120 s\n    \
         fix: write mode = \"nodelay\", or a burst that the rate serves in 30 s\n\
         t:12: there are two zones with the name `b`\n    \
         fix: give each a name of its own\n\
         t:15: `\"later\"` is not a mode\n    \
         fix: write \"delay\" (a burst is served at the rate) or \"nodelay\" (at once)\n\
         t:25: there is no zone `bb`\n    \
         fix: add a block\n         [[rates.zone]]\n         name = \"bb\"\n         rate = \"30/s\"\n\
         t:28: `burst` has no use without a zone\n    \
         fix: add zone = \"NAME\"\n\
         t:31: `\"some\"` is not what a request must bring\n    \
         fix: write \"none\", \"present\" or \"segments\" (three, as a JWT has)\n",
    );
}
