//! Does the binary tell an administrator what is wrong, and what would run?

#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A directory with a configuration and everything that the examples name.
struct Place {
    directory: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let edge = rcgen::generate_simple_self_signed(["edge.example.com".to_owned()]).unwrap();
        let certificate = edge.cert.pem();
        for (file, text) in [
            ("fullchain.pem", certificate.as_str()),
            ("lan-ca.pem", &certificate),
            ("dmz-ca.pem", &certificate),
            ("privkey.pem", &edge.signing_key.serialize_pem()),
            ("turn-secret", "the secret that XiVO has as well\n"),
            ("asterisk-password", "the password in rtp.conf\n"),
        ] {
            fs::write(directory.join(file), text).unwrap();
        }
        Self { directory }
    }

    fn check(&self, text: &str) -> Output {
        fs::write(self.directory.join("edgeward.toml"), text).unwrap();
        self.edgeward(&["check", "--config", "edgeward.toml"])
    }

    fn check_example(&self, name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        // Its folders are those of a host with the package.
        let text = fs::read_to_string(path).unwrap().replace("/var/lib/edgeward/", "");
        let output = self.check(&text);
        assert!(output.status.success(), "{name}: {output:?}");
        stdout(&output)
    }

    fn edgeward(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_edgeward"))
            .args(arguments)
            .current_dir(&self.directory)
            .output()
            .unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|other| other.trim() == *line),
            "no line {line:?} in\n{text}"
        );
    }
}

#[test]
fn one_host() {
    let place = Place::new("one-host");
    let summary = place.check_example("edgeward.toml");
    assert_has(
        &summary,
        &[
            "https  TCP 0.0.0.0:443 as edge.example.com",
            "/xuc/api/2.0/cti/...              -> cc https://10.0.0.10:443, WebSockets too",
            "/meetingrooms/token/validate/...  -> xivo https://10.0.0.2:443",
            "sip    UDP 192.0.2.10:5060; WebSockets at wss://edge.example.com, with a token",
            "/wssip-mds2  -> mds2 10.0.0.3:5060, reached back by Path",
            "may relay to 10.0.0.9 UDP 10000",
            "may relay to default (10.0.0.2) UDP 10000-20000",
            "realm edge.example.com; shared secrets: 1; users: asterisk from 10.0.0.2 and 10.0.0.3",
            "server one worker for each CPU; stops within 10 s, WebSockets over 5 s",
        ],
    );
    assert!(!place.directory.join("keys").exists(), "a check makes no files");
}

#[test]
fn the_flows_of_one_host() {
    let summary = Place::new("flows").check_example("edgeward.toml");
    let flows = &summary[summary.find("Flows").unwrap()..];
    let expected = "\
Flows that the firewalls have to let through, and their answers:

From the outside (WAN to DMZ)
  From  To          Ports to open       Usage
  any   this host   TCP/443             HTTPS: web pages, SIP over WebSocket, TURN over TLS
  any   this host   UDP/3478, TCP/3478  STUN and TURN
  any   192.0.2.10  UDP/30000-39999     Media from clients to relays

To the outside (DMZ to WAN)
  From        To          Ports to open   Usage
  192.0.2.10  any public  UDP/1024-65535  Media from relays to public peers

To the inside (DMZ to LAN)
  From        To                                   Ports to open    Usage
  this host   cc (10.0.0.10)                       TCP/443          Web pages and their WebSockets
  this host   xivo (10.0.0.2)                      TCP/443          Web pages and their WebSockets
  192.0.2.10  default (10.0.0.2), mds2 (10.0.0.3)  UDP/5060         SIP to mediaservers
  192.0.2.10  default (10.0.0.2), mds2 (10.0.0.3)  UDP/10000-20000  Media from relays to peers
  192.0.2.10  10.0.0.9                             UDP/10000        Media from relays to peers

From the inside (LAN to DMZ)
  From                                           To          Ports to open       Usage
  UC clients                                     this host   TCP/443             \
HTTPS: web pages, SIP over WebSocket, TURN over TLS
  UC clients                                     this host   UDP/3478, TCP/3478  STUN and TURN
  default (10.0.0.2), mds2 (10.0.0.3)            192.0.2.10  UDP/5060            SIP from mediaservers
  default (10.0.0.2), mds2 (10.0.0.3), 10.0.0.9  this host   UDP/3478, TCP/3478  \
STUN and TURN, for peers that use it
  default (10.0.0.2), mds2 (10.0.0.3), 10.0.0.9  192.0.2.10  UDP/30000-39999     Media from peers to relays
";
    assert!(flows == expected, "\n--- found\n{flows}\n--- expected\n{expected}");
}

#[test]
fn three_hosts() {
    let place = Place::new("three-hosts");
    assert_has(
        &place.check_example("three-hosts/web.toml"),
        &[
            "https  TCP 192.0.2.10:443 as edge.example.com",
            "web    /wssip                            -> sip https://192.0.2.11:443, WebSockets too",
            "Inside the DMZ",
            "this host  sip (192.0.2.11)  TCP/443        WebSockets for SIP",
        ],
    );
    assert_has(
        &place.check_example("three-hosts/sip.toml"),
        &[
            "behind the proxies 192.0.2.10",
            "sip    UDP 192.0.2.11:5060; WebSockets at wss://edge.example.com, with a token",
            "192.0.2.10  192.0.2.11  TCP/443        HTTPS: SIP over WebSocket",
        ],
    );
    assert_has(
        &place.check_example("three-hosts/turn.toml"),
        &[
            "https  only certificates, for TURN over TLS",
            "relays by 10.1.0.12 UDP 30000-39999, advertised as 192.0.2.12",
            "realm edge.example.com; shared secrets: 1; users: asterisk from 10.0.0.2 and 10.0.0.3",
            "any   192.0.2.12  UDP/3478, TCP/3478  STUN and TURN",
        ],
    );
}

#[test]
fn flows_that_follow_from_names_proxies_and_authorities() {
    let output = Place::new("names").check(
        r#"
[metrics]
listen = "10.0.0.5:9464"

[https]
listen = "192.0.2.10:443"
hosts = ["edge.example.com"]
proxy_protocol_from = "192.0.2.1"
acme = { domains = ["edge.example.com"], terms_agreed = true, directory = "https://ca.example.com:14000/dir" }

[sip]
listen = "192.0.2.10:5060"

[[sip.mediaserver]]
address = "pbx.example.com"

[turn]
listen = "192.0.2.10:3478"
proxy_protocol_from = "192.0.2.1"
realm = "edge.example.com"
secrets = [{ file = "turn-secret" }]
public_peers = false
"#,
    );
    let text = stdout(&output);
    assert!(output.status.success(), "{text}");
    assert_has(
        &text,
        &[
            "this host  ca.example.com  TCP/14000      Certificates by ACME",
            "192.0.2.1  192.0.2.10  TCP/443        HTTPS: SIP over WebSocket, TURN over TLS",
            "192.0.2.1  192.0.2.10  TCP/3478       STUN and TURN",
            "any   192.0.2.10  UDP/3478         STUN and TURN",
            "192.0.2.10  default (pbx.example.com)  UDP/10000-20000  Media from relays to peers",
            "this host   its resolvers              UDP/53, TCP/53   Names of servers",
            "default (pbx.example.com)  192.0.2.10  UDP/30000-39999     Media from peers to relays",
            "monitoring                 10.0.0.5    TCP/9464            Numbers and health",
            "may relay to default (pbx.example.com) UDP 10000-20000",
        ],
    );
    assert!(!text.contains("certificates for"), "there are none yet\n{text}");
}

#[test]
fn folders_that_a_start_would_miss() {
    let output = Place::new("folders").check(
        r#"
[server]
key_file = "missing/keys"
[access_log]
file = "missing/access.log"
[turn]
listen = "192.0.2.10:3478"
realm = "edge.example.com"
secrets = [{ file = "turn-secret" }]
"#,
    );
    assert_eq!(output.status.code(), Some(1));
    let expected = "\
edgeward.toml:3: `missing/keys`: it is missing, and so is its folder missing
    fix: name a file that this user may read, or make in its directory
edgeward.toml:5: `missing/access.log`: it is missing, and so is its folder missing
    fix: name a file in a folder that this user may write to
";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn a_preset_is_shown_as_what_it_stands_for() {
    let place = Place::new("xivo");
    assert_has(
        &place.check_example("xivo.toml"),
        &[
            "web    /ccagent/...                      -> cc https://10.0.0.10:443; zone webapp burst 20 delay",
            "/assets/...                       -> cc https://10.0.0.10:443; zone webapp burst 50 nodelay",
            "/xuc/api/2.0/cti/...              -> cc https://10.0.0.10:443, WebSockets too, with a token of three segments; \
             zone auth burst 12 nodelay",
            "/meetingrooms/token/validate/...  -> xivo https://10.0.0.2:443; zone auth burst 12 nodelay",
            "sip    UDP 192.0.2.10:5060; WebSockets at wss://edge.example.com, with a token; zone auth burst 12 nodelay",
            "rates  webapp 30/s for each client",
            "auth 20/min for each client",
            "exempt: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7",
        ],
    );
}

#[test]
fn every_error_is_told_at_once() {
    let output = Place::new("broken").check(
        r#"
[https]
listne = "0.0.0.0:443"
certificates = [{ cert = "fullchain.pem", key = "missing.pem" }]

[[web.upstream]]
name = "cc"
url = "10.0.0.10"

[[web.route]]
path = "ucassistant"
upstream = "xivo"

[sip]
listen = "0.0.0.0:5060"

[turn]
listen = "192.0.2.10:3478"
relay_ports = "39999-30000"
secrets = ["short"]
"#,
    );
    assert_eq!(output.status.code(), Some(1));
    let expected = r#"edgeward.toml:2: [https] has no `listen`
    fix: add listen = "0.0.0.0:443"
edgeward.toml:3: [https] has no key `listne`
    fix: write listen
edgeward.toml:4: `missing.pem` cannot be read: No such file or directory (os error 2)
    fix: name a file that exists and that this user may read
edgeward.toml:8: `"10.0.0.10"` is not the URL of a server
    fix: write it like "https://10.0.0.10" or "http://name:8080"
edgeward.toml:11: `"ucassistant"` is not a path: it does not begin with /
    fix: write "/ucassistant"
edgeward.toml:12: there is no upstream `xivo`
    fix: write one of these: cc
edgeward.toml:14: [sip] has no `mediaserver`
    fix: add mediaserver = ..., or better a block
         [[sip.mediaserver]]
         name = "default"
         address = "10.0.0.3:5060"
edgeward.toml:15: 0.0.0.0:5060 is no address that a mediaserver can answer to
    fix: listen on one address, or add advertise = "192.0.2.10:5060", the one that mediaservers see
edgeward.toml:17: [turn] has no `realm`
    fix: add realm = "edge.example.com"
edgeward.toml:19: `"39999-30000"` is not a range of ports: it ends before it begins
    fix: write "30000-39999"
edgeward.toml:20: this secret can be guessed: it has 5 of 16 characters
    fix: take what this prints: openssl rand -base64 32
"#;
    let found = stdout(&output);
    assert!(found == expected, "\n--- found\n{found}\n--- expected\n{expected}");
}

#[test]
fn a_configuration_that_is_not_there() {
    let output = Place::new("missing").edgeward(&["check", "--config", "elsewhere.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_has(
        &stdout(&output),
        &[
            "elsewhere.toml: cannot be read: No such file or directory (os error 2)",
            "fix: name the configuration with --config FILE",
        ],
    );
    let output = Place::new("folder").edgeward(&["check", "--config", "."]);
    assert_has(&stdout(&output), &["fix: name the file in that folder"]);
}

#[test]
fn help_teaches() {
    let place = Place::new("help");
    for (arguments, essentials) in [
        (
            ["--help"].as_slice(),
            [
                "run",
                "check",
                "--log",
                "edgeward check --config",
                "examples/edgeward.toml",
            ]
            .as_slice(),
        ),
        (
            &["run", "--help"],
            &[
                "--config <FILE>",
                "TERM",
                "shutdown_secs",
                "CAP_NET_BIND_SERVICE",
                "--record <FILE>",
                "[default: 64MiB]",
            ],
        ),
        (
            &["replay", "--help"],
            &["<FILE>", "--quiet", "Exits with 1", "--to 13.5"],
        ),
        (&["check", "--help"], &["--config <FILE>", "every error", "firewalls"]),
        #[cfg(feature = "demo")]
        (
            &["demo", "--help"],
            &[
                "--https-port",
                "[default: 8443]",
                "--relay-ports",
                "--address 192.168.1.20",
            ],
        ),
    ] {
        let output = place.edgeward(arguments);
        assert!(output.status.success());
        let help = stdout(&output);
        for essential in essentials {
            assert!(help.contains(essential), "{arguments:?}: no {essential:?} in\n{help}");
        }
    }
    let version = place.edgeward(&["--version"]);
    assert_eq!(stdout(&version), concat!("edgeward ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn what_is_mistyped_is_recognised() {
    let output = Place::new("mistyped").edgeward(&["chek"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("'check'"), "{message}");
}
