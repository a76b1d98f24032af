//! Does each client meet the right certificate and the right machine, and who is believed about its address?

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use edgeward_tests::{
    deadline,
    edge::{Edge, run},
    has,
    peers::{
        http::Message as HttpMessage,
        http_client::Connection,
        stream::Stream,
        stun::{Class, Message},
        turn_client::{Credentials, TurnClient},
        upstream::Upstream,
    },
    process::Process,
    scene::ALICE,
    site::{NAME, Site},
    skipped,
};

const HTTPS: u16 = 8443;
const TURN: u16 = 3478;

const BINDING: u16 = 0x001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// Two names with certificates of their own, one of them of both kinds, and a third by a wildcard.
const CONFIG: &str = r#"
[server]
workers = 3
shutdown_secs = 1

[https]
listen = "$net.1:8443"
certificates = [
    { cert = "rsa.pem", key = "rsa.key" },
    { cert = "ecdsa.pem", key = "ecdsa.key" },
    { cert = "turn.pem", key = "turn.key" },
    { cert = "wild.pem", key = "wild.key" },
]
hosts = ["edge.test", "a.wild.test"]
turn_hosts = ["turn.test"]

[[web.upstream]]
name = "plain"
url = "http://$net.2:8080"

[[web.route]]
path = "/app"

[turn]
listen = "$net.1:3478"
relay = "$net.1"
relay_ports = "30000-30099"
realm = "edge.test"

[[turn.user]]
name = "alice"
password = "the password of alice"

[[turn.peer]]
net = "$net.120"
ports = 20000
"#;

/// An edge with the certificates of [`CONFIG`]. The edge ends first.
struct Place {
    edge: Edge,
    upstream: Upstream,
    site: Site,
}

impl Place {
    fn new(config: &str) -> Self {
        let site = Site::new();
        for (name, identity) in [
            ("rsa", site.authority().rsa_identity(&[NAME])),
            ("ecdsa", site.authority().identity(&[NAME])),
            ("turn", site.authority().identity(&["turn.test"])),
            ("wild", site.authority().identity(&["*.wild.test"])),
        ] {
            site.write(&format!("{name}.pem"), &identity.certificate);
            site.write(&format!("{name}.key"), &identity.key);
        }
        let upstream = Upstream::start(site.at(2, 8080));
        let edge = Edge::start(&site, config);
        Self { edge, upstream, site }
    }

    fn https(&self) -> SocketAddr {
        self.site.at(1, HTTPS)
    }

    fn turn(&self) -> SocketAddr {
        self.site.at(1, TURN)
    }

    /// What `openssl s_client` tells of a connection by this name.
    fn s_client(&self, to: SocketAddr, name: Option<&str>, more: &[&str], input: &str) -> String {
        let to = to.to_string();
        let mut arguments = vec!["s_client", "-connect", &to, "-CAfile", "ca.pem"];
        match name {
            Some(name) => arguments.extend(["-servername", name]),
            None => arguments.push("-noservername"),
        }
        arguments.extend(more);
        output(self.site.folder(), "openssl", &arguments, input)
    }

    /// Whether a client by this name gets the certificate in that file.
    #[track_caller]
    fn check_certificate(&self, to: SocketAddr, name: Option<&str>, more: &[&str], file: &str) {
        let said = self.s_client(to, name, more, "");
        let file = std::fs::read_to_string(self.site.folder().join(file)).expect("a certificate");
        assert!(normal(&said).contains(normal(&file).trim()), "{name:?} {said}");
        assert!(said.contains("Verification: OK"), "{name:?} {said}");
    }

    /// A request on a new connection that called the server by `name`.
    fn ask(&self, client: u8, name: &str, host: &str) -> HttpMessage {
        self.connect(client, name).ask(&get(host))
    }

    fn connect(&self, client: u8, name: &str) -> Connection {
        Connection::tls(self.site.host(client), self.https(), self.site.client(), name)
    }

    /// A TURN client with an allocation, over TLS, with these protocols offered.
    fn allocate(&self, client: u8, to: SocketAddr, name: &str, protocols: &[&str]) -> TurnClient {
        let mut config = Arc::unwrap_or_clone(self.site.client());
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let credentials = Credentials::new(ALICE.0, ALICE.1);
        let mut client = TurnClient::tls(self.site.host(client), to, config.into(), name, &credentials);
        client.allocate().expect("an allocation");
        client
    }
}

#[test]
fn each_name_has_its_certificate() {
    let place = Place::new(CONFIG);
    if !has("openssl") {
        return;
    }
    for to in [place.https(), place.turn()] {
        place.check_certificate(to, Some(NAME), &[], "ecdsa.pem");
        place.check_certificate(to, Some(NAME), &["-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"], "rsa.pem");
        place.check_certificate(
            to,
            Some(NAME),
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            "rsa.pem",
        );
        place.check_certificate(to, Some("TURN.test"), &[], "turn.pem");
        place.check_certificate(to, Some("a.wild.test"), &[], "wild.pem");
        // Who calls no name, or an address, gets the first.
        place.check_certificate(to, None, &[], "ecdsa.pem");
        place.check_certificate(to, Some("192.0.2.1"), &[], "ecdsa.pem");
    }
    // RFC 6066 section 3.
    for name in ["other.test", "wild.test", "b.a.wild.test"] {
        let said = place.s_client(place.https(), Some(name), &[], "");
        assert!(said.contains("unrecognized name"), "{name}: {said}");
        assert!(!said.contains("BEGIN CERTIFICATE"), "{name}: {said}");
    }
    let said = place.edge.process().wait_for("a server name that is not ours");
    assert!(
        said.contains("reason=\"host\"") && said.contains("about=\"other.test\""),
        "{said}"
    );
}

#[test]
fn strangers_are_served_where_that_is_wanted() {
    let place = Place::new(&CONFIG.replace("turn_hosts =", "refuse_unknown_names = false\nturn_hosts ="));
    if has("openssl") {
        place.check_certificate(place.https(), Some("other.test"), &[], "ecdsa.pem");
    }
}

#[test]
fn a_request_is_for_the_server_that_was_called() {
    let place = Place::new(CONFIG);
    let status = |name: &str, host: &str| place.ask(100, name, host).status();
    assert_eq!(status(NAME, "edge.test:8443"), Some(200));
    assert_eq!(status("a.wild.test", "a.wild.test"), Some(200));
    // RFC 9110 section 15.5.20: another server of the same edge.
    assert_eq!(status(NAME, "a.wild.test"), Some(421));
    assert_eq!(status("a.wild.test", NAME), Some(421));
    assert_eq!(status(NAME, "other.test"), Some(421));
    assert_eq!(place.upstream.requests().len(), 2);
    if has("curl") {
        let to = format!("{NAME}:{HTTPS}:{}", place.site.host(1));
        let url = format!("https://{NAME}:{HTTPS}/app/");
        let curl = |more: &[&str]| {
            let mut arguments = vec![
                "-sS",
                "-w",
                "%{http_code}",
                "-o",
                "/dev/null",
                "--cacert",
                "ca.pem",
                "--resolve",
            ];
            arguments.extend([to.as_str(), &url]);
            arguments.extend(more);
            output(place.site.folder(), "curl", &arguments, "")
        };
        assert_eq!(curl(&[]), "200");
        assert_eq!(curl(&["-H", "Host: a.wild.test"]), "421");
    }
}

#[test]
fn one_name_is_enough_for_all() {
    let place = Place::new(CONFIG);
    let https = place.https();
    place.allocate(100, https, NAME, &["stun.turn"]);
    place.allocate(101, https, NAME, &["stun.nat-discovery"]);
    place.allocate(102, https, NAME, &[]);
    place.allocate(103, place.turn(), NAME, &["stun.turn"]);
    place.allocate(104, https, "turn.test", &[]);
    place.allocate(105, https, "turn.test", &["http/1.1", "stun.turn"]);
    assert_eq!(place.ask(106, NAME, NAME).status(), Some(200));

    // What the name or the agreed protocol excludes.
    let said = place.connect(107, "turn.test").ask(&get(NAME)).text();
    assert_eq!(said, "this port speaks TURN");
    if has("openssl") {
        let said = place.s_client(https, Some("turn.test"), &["-alpn", "http/1.1"], "");
        assert!(said.contains("no application protocol"), "{said}");
        let said = place.s_client(https, Some(NAME), &["-alpn", "h2,http/1.1"], "");
        assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
        // No authority is asked, so none is answered.
        let said = place.s_client(https, Some(NAME), &["-alpn", "acme-tls/1"], "");
        assert!(said.contains("no application protocol"), "{said}");
    }
    // TURN without TLS is a choice.
    let refused = bind(Stream::connect(place.site.host(108), https).expect("a connection"), b"");
    assert_eq!(refused, None);
}

#[test]
fn turn_without_tls_may_share_the_port() {
    let place = Place::new(&CONFIG.replace("turn_hosts =", "plain_turn = true\nturn_hosts ="));
    let stream = Stream::connect(place.site.host(100), place.https()).expect("a connection");
    let local = stream.local_addr();
    assert_eq!(bind(stream, b""), Some(local));
    assert_eq!(place.ask(101, NAME, NAME).status(), Some(200));
}

#[test]
fn certificates_follow_their_files_and_nobody_is_cut_off() {
    let place = Place::new(CONFIG);
    let mut page = place.connect(100, NAME);
    assert_eq!(page.ask(&get(NAME)).status(), Some(200));
    let mut relay = place.allocate(101, place.turn(), NAME, &[]);

    // A key that does not belong to it: the old one stays.
    let old = std::fs::read_to_string(place.site.folder().join("ecdsa.pem")).expect("a certificate");
    let new = place.site.authority().identity(&[NAME]);
    place.site.write("ecdsa.pem", &new.certificate);
    let said = place
        .edge
        .process()
        .wait_for("the private key is not that of the certificate");
    for part in ["ERROR", "`ecdsa.pem`", "fix="] {
        assert!(said.contains(part), "{said}");
    }
    place.site.write("old.pem", &old);
    if has("openssl") {
        place.check_certificate(place.https(), Some(NAME), &[], "old.pem");
    }

    place.site.write("ecdsa.key", &new.key);
    place.edge.process().wait_for("the certificates have been read again");
    if has("openssl") {
        place.check_certificate(place.https(), Some(NAME), &[], "ecdsa.pem");
        place.check_certificate(place.turn(), Some(NAME), &[], "ecdsa.pem");
    }
    assert_eq!(page.ask(&get(NAME)).status(), Some(200));
    relay.permit(place.site.host(120)).expect("a permission");
}

#[test]
fn sessions_outlive_certificates_and_configurations() {
    let place = Place::new(CONFIG);
    if !has("openssl") {
        return;
    }
    let request = format!("GET /app/ HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    for version in ["-tls1_3", "-tls1_2"] {
        let said = place.s_client(
            place.https(),
            Some(NAME),
            &[version, "-ign_eof", "-sess_out", "session"],
            &request,
        );
        assert!(said.contains("New, TLSv1."), "{said}");
        let resumed = |times| {
            for _ in 0..times {
                let said = place.s_client(
                    place.https(),
                    Some(NAME),
                    &[version, "-ign_eof", "-sess_in", "session"],
                    &request,
                );
                assert!(said.contains("Reused, TLSv1."), "{said}");
            }
        };
        // Several connections meet several shards.
        resumed(8);
        place.edge.reload(&place.site, &format!("{CONFIG}\n# {version}"));
        place
            .edge
            .process()
            .wait_until("that it goes on", |line| line.contains("is in effect"));
        resumed(2);
    }
}

#[test]
fn an_ocsp_response_is_never_fatal() {
    let with = r#"{ cert = "ecdsa.pem", key = "ecdsa.key", ocsp = "ecdsa.ocsp" }"#;
    let place = Place::new(&CONFIG.replace(r#"{ cert = "ecdsa.pem", key = "ecdsa.key" }"#, with));
    let said = place
        .edge
        .process()
        .wait_for("the OCSP response `ecdsa.ocsp` cannot be read");
    assert!(said.contains("WARN"), "{said}");
    assert_eq!(place.ask(100, NAME, NAME).status(), Some(200));
}

#[test]
fn listed_proxies_name_the_client_and_nobody_else_may() {
    let listed = "proxy_protocol_from = [\"$net.10/31\"]";
    let config = CONFIG
        .replace("turn_hosts =", &format!("plain_turn = true\n{listed}\nturn_hosts ="))
        .replace("[turn]", &format!("[turn]\n{listed}"));
    let place = Place::new(&config);
    let client = "198.51.100.7:50007".parse().expect("an address");
    let client6 = "[2001:db8::7]:7".parse().expect("an address");
    let line = b"PROXY TCP4 198.51.100.7 192.0.2.10 50007 443\r\n".to_vec();
    let line6 = b"PROXY TCP6 2001:db8::7 2001:db8::10 7 443\r\n".to_vec();
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc6\x33\x64\x07\xc0\0\x02\x0a\xc3\x57\x01\xbb\x04\0\0".to_vec();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    let bound = |from: u8, to: SocketAddr, header: &[u8]| {
        let stream = Stream::connect(place.site.host(from), to).expect("a connection");
        let own = stream.local_addr();
        (bind(stream, header), own)
    };
    for to in [place.turn(), place.https()] {
        assert_eq!(bound(10, to, &line).0, Some(client));
        assert_eq!(bound(10, to, &line6).0, Some(client6));
        assert_eq!(bound(11, to, &binary).0, Some(client));
        let (mapped, own) = bound(11, to, &local);
        assert_eq!(mapped, Some(own));
        // A listed source must, ...
        assert_eq!(bound(10, to, b"").0, None);
        assert_eq!(bound(10, to, b"PROXY TCP4 198.51.100.7\r\n").0, None);
        // ... and nobody else may.
        assert_eq!(bound(12, to, &line).0, None);
        let (mapped, own) = bound(12, to, b"");
        assert_eq!(mapped, Some(own));
    }
    place
        .edge
        .process()
        .wait_for("no PROXY header, but proxy_protocol_from lists the sender");
    place
        .edge
        .process()
        .wait_for("proxy_protocol_from does not list the sender");
    if has("curl") {
        let from = place.site.host(10).to_string();
        let url = format!("https://{}:{HTTPS}/app/curl", place.site.host(1));
        let arguments = [
            "-sS",
            "-k",
            "--haproxy-protocol",
            "--interface",
            &from,
            "-H",
            "Host: edge.test",
            &url,
        ];
        output(place.site.folder(), "curl", &arguments, "");
        let request = place.upstream.wait_for("/app/curl");
        assert_eq!(request.request.field("x-forwarded-for"), Some(from.as_str()));
    }
}

#[test]
fn a_certificate_is_checked_before_it_runs() {
    let site = Site::new();
    let soon = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "edge.key", "-out", "edge.pem",
        ])
        .args([
            "-days",
            "3",
            "-subj",
            "/CN=edge.test",
            "-addext",
            "subjectAltName=DNS:edge.test",
        ])
        .current_dir(site.folder())
        .stderr(Stdio::null())
        .status();
    if !soon.is_ok_and(|status| status.success()) {
        return skipped("no openssl: nothing that ends soon can be made");
    }
    let config = CONFIG
        .replace("rsa.", "edge.")
        .replace("\"a.wild.test\"", "\"more.test\"");
    let lines: Vec<&str> = config
        .lines()
        .filter(|line| !["ecdsa", "turn.pem", "wild"].iter().any(|word| line.contains(word)))
        .collect();
    site.write("check.toml", &site.fill(&lines.join("\n")));
    let mut check = run(&site, "check", &["check", "--config", "check.toml"]);
    assert!(check.wait().success());
    for warning in [
        "`edge.pem` expires",
        "no certificate is for more.test",
        "no certificate is for turn.test",
    ] {
        check.wait_for(warning);
    }
}

#[test]
fn an_authority_gives_a_certificate() {
    if !has("pebble") || !has("pebble-challtestsrv") {
        return;
    }
    let site = Site::new();
    let authority = site.host(9).to_string();
    let identity = site.authority().identity(&[&authority]);
    site.write("pebble.pem", &identity.certificate);
    site.write("pebble.key", &identity.key);
    site.write(
        "pebble.json",
        &site.fill(
            r#"{ "pebble": {
                "listenAddress": "$net.9:14000", "managementListenAddress": "$net.9:15000",
                "certificate": "pebble.pem", "privateKey": "pebble.key",
                "httpPort": 5002, "tlsPort": 8443, "ocspResponderURL": "", "externalAccountBindingRequired": false
            } }"#,
        ),
    );
    let (dns, edge) = (site.at(9, 8053).to_string(), site.host(1).to_string());
    let management = site.at(9, 8055).to_string();
    let names = Process::spawn(
        "names",
        Command::new("pebble-challtestsrv")
            .args([
                "-dns01",
                &dns,
                "-management",
                &management,
                "-defaultIPv4",
                &edge,
                "-defaultIPv6",
                "",
            ])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""]),
    );
    names.wait_for("Starting management server");
    let pebble = Process::spawn(
        "pebble",
        Command::new("pebble")
            .args(["-config", "pebble.json", "-dnsserver", &dns])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .current_dir(site.folder()),
    );
    pebble.wait_for("ACME directory available");

    let config = r#"
[server]
workers = 2
[https]
listen = "$net.1:8443"
[https.acme]
domains = ["edge.test", "www.edge.test"]
directory = "https://$net.9:14000/dir"
ca = "ca.pem"
contacts = ["mailto:admin@edge.test"]
terms_agreed = true
[[web.upstream]]
name = "plain"
url = "http://$net.2:8080"
[[web.route]]
path = "/app"
"#;
    let first = Edge::start_named(&site, "acme", config);
    first.process().wait_for("the certificates have been read again");
    if has("openssl") {
        let to = site.at(1, HTTPS).to_string();
        let arguments = ["s_client", "-connect", &to, "-servername", "www.edge.test"];
        let said = output(site.folder(), "openssl", &arguments, "");
        assert!(said.contains("Pebble Intermediate CA"), "{said}");
    }
    drop(first);

    // The next process has it already, and the account too.
    let second = Edge::start_named(&site, "acme", config);
    assert!(Connection::plain(site.host(100), site.at(1, HTTPS)).try_send("\r\n"));
    second.process().wait_for("this port speaks HTTPS");
    let asked = |line: &String| line.contains("asking for a certificate");
    assert!(!second.process().lines().iter().any(asked));
    let state = site.folder().join("acme");
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
    };
    assert_eq!((mode(&state), mode(&state.join("certificate.pem"))), (0o700, 0o600));
}

fn get(host: &str) -> String {
    format!("GET /app/ HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Asks for the address of this client as the server sees it; `None` where the server closes instead.
fn bind(mut stream: Stream, header: &[u8]) -> Option<SocketAddr> {
    let request = Message::request(BINDING).encode();
    stream.write_all(&[header, &request].concat()).ok()?;
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read_until(deadline(), &mut buffer) {
            Ok(read) if read > 0 => said.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
        if let Some(answer) = Message::decode(&said) {
            assert_eq!(answer.class, Class::Success);
            return answer.address(XOR_MAPPED_ADDRESS);
        }
    }
}

/// Everything that a program says.
fn output(folder: &Path, program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that has seen enough reads no more.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let mut errors = child.stderr.take().expect("a pipe");
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        text
    });
    let mut said = Vec::new();
    child
        .stdout
        .take()
        .expect("a pipe")
        .read_to_end(&mut said)
        .expect("output");
    child.wait().expect("an end");
    said.extend(errors.join().expect("errors"));
    String::from_utf8_lossy(&said).into_owned()
}

fn normal(text: &str) -> String {
    text.replace('\r', "")
}
