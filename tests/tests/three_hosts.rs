//! Do the three roles work on hosts of their own? Three processes, and a call through all of them.

use std::{net::TcpListener, sync::mpsc};

use edgeward_tests::{
    edge::Edge,
    peers::{
        http_client::Connection,
        media::{Caller, Media, Path},
        mediaserver::Mediaserver,
        sip_browser::SipBrowser,
        turn_client::{Credentials, TurnClient},
        upstream::Upstream,
        websocket::Handshake,
    },
    scene::ALICE,
    site::{NAME, Site},
};

/// On host 1: what browsers reach, but TURN.
const WEB: &str = r#"
[server]
workers = 2

[https]
listen = "$net.1:$https"
certificates = [{ cert = "edge.pem", key = "edge.key" }]
hosts = ["edge.test"]

[[web.upstream]]
name = "cc"
url = "http://$net.10:8080"

[[web.upstream]]
name = "sip"
url = "https://$net.2:$https"
ca = "ca.pem"

[[web.route]]
upstream = "cc"
path = "/ucassistant"

[[web.route]]
upstream = "sip"
path = ["/wssip", "/wssip-mds2"]
websocket = true
"#;

/// On host 2: SIP, behind the web role.
const SIP: &str = r#"
[access_log]

[server]
workers = 2

[https]
listen = "$net.2:$https"
certificates = [{ cert = "edge.pem", key = "edge.key" }]
hosts = ["edge.test"]
# On loopback, who dials does so from this address, whichever host he is.
trusted_proxies = ["127.0.0.1"]

[sip]
listen = "$net.2:5060"
public_host = "$public"
origins = ["https://$public"]

[[sip.mediaserver]]
name = "default"
address = "$net.11:5060"

[[sip.mediaserver]]
name = "mds2"
address = "$net.12:5060"
"#;

/// On host 3: TURN.
const TURN: &str = r#"
[server]
workers = 2

[https]
listen = []
certificates = [{ cert = "edge.pem", key = "edge.key" }]

[turn]
listen = "$net.3:3478"
relay = "$net.3"
relay_ports = "30000-30099"
realm = "edge.test"
secrets = ["the new secret of edge.test"]
mediaservers = [{ address = "$net.11", media_ports = "10000-10099" }, { address = "$net.12", media_ports = "10000-10099" }]

[[turn.user]]
name = "alice"
password = "the password of alice"
"#;

/// Three edges and what is behind them; the edges end first.
struct Hosts {
    web: Edge,
    sip: Edge,
    turn: Edge,
    upstream: Upstream,
    mediaserver: Mediaserver,
    second: Mediaserver,
    site: Site,
    https: u16,
}

impl Hosts {
    fn start() -> Self {
        let site = Site::new();
        // The port of the flow tables, where we may have it.
        let https = match TcpListener::bind(site.at(1, 443)) {
            Ok(_) => 443,
            Err(_) => 8443,
        };
        let public = if https == 443 {
            NAME.to_owned()
        } else {
            format!("{NAME}:{https}")
        };
        let fill = |config: &str| config.replace("$https", &https.to_string()).replace("$public", &public);
        Self {
            // "Started" means that the whole chain answers: nobody waits for another one here.
            web: Edge::start_named(&site, "web", &fill(WEB)),
            sip: Edge::start_named(&site, "sip", &fill(SIP)),
            turn: Edge::start_named(&site, "turn", &fill(TURN)),
            upstream: Upstream::start(site.at(10, 8080)),
            mediaserver: Mediaserver::start(site.at(11, 5060)),
            second: Mediaserver::start(site.at(12, 5060)),
            site,
            https,
        }
    }

    /// The sip role sees the WebSocket of a user come from this client. It says so when the WebSocket is closed.
    fn opens_by(&self, user: &str, handshake: &Handshake, client: u8) {
        drop(SipBrowser::registered(handshake, user));
        let client = format!("{} - - ", self.site.host(client));
        self.sip.process().wait_until("who opened the WebSocket", |line| {
            line.starts_with(&client) && line.contains("/wssip")
        });
    }

    fn handshake(&self, client: u8, host: u8, target: &str) -> Handshake {
        let to = self.site.at(host, self.https);
        let origin = if self.https == 443 {
            format!("https://{NAME}")
        } else {
            format!("https://{NAME}:{}", self.https)
        };
        Handshake::tls(self.site.host(client), to, self.site.client(), NAME, target).with("Origin", &origin)
    }
}

#[test]
fn a_call_goes_through_three_hosts() {
    let hosts = Hosts::start();
    let mut page = Connection::tls(
        hosts.site.host(100),
        hosts.site.at(1, hosts.https),
        hosts.site.client(),
        NAME,
    );
    let get = format!("GET /ucassistant/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    assert_eq!(page.ask(&get).text(), "hello");
    assert_eq!(hosts.upstream.requests().len(), 1);

    let (media, callee) = mpsc::channel();
    let media_address = hosts.site.at(11, 10_000);
    hosts.mediaserver.answer_with(move |offer| {
        let (endpoint, answer) = Media::answer("mediaserver", Path::direct(media_address), offer);
        media.send(endpoint).expect("somebody waits");
        answer
    });
    let mut browser = SipBrowser::registered(&hosts.handshake(100, 1, "/wssip?token=t"), "alice");
    let binding = hosts.mediaserver.binding("alice").expect("a registration");
    assert_eq!(binding.from, hosts.site.at(2, 5060));

    let credentials = Credentials::new(ALICE.0, ALICE.1);
    let mut relay = TurnClient::tls(
        hosts.site.host(100),
        hosts.site.at(3, 3478),
        hosts.site.client(),
        NAME,
        &credentials,
    );
    let relayed = relay.allocate().expect("an allocation");
    let caller = Caller::new(Path::Relayed(Box::new(relay)));
    let invite = browser.invite("600", caller.offer());
    let (answer, mut dialog) = browser.answered(&invite);
    let caller = caller.start("browser", &answer.body);
    let callee = callee.recv().expect("an endpoint");
    assert!(caller.hear(25).last.starts_with(b"mediaserver "));
    let heard = callee.hear(25);
    assert!(heard.last.starts_with(b"browser "));
    assert_eq!(heard.senders, [relayed]);
    assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));
    drop((caller, callee));

    let mut bob = SipBrowser::registered(&hosts.handshake(101, 1, "/wssip-mds2?token=t"), "bob");
    let invite = hosts.second.call("bob", "v=0\r\n");
    let incoming = bob.invited();
    bob.send(edgeward_tests::peers::sip::Message::answer(
        &incoming,
        486,
        "Busy Here",
        "tag",
    ));
    assert_eq!(hosts.second.final_answer(&invite).status(), Some(486));
}

#[test]
fn the_address_of_the_client_is_not_lost() {
    let hosts = Hosts::start();
    // Through the web role, whatever the client says about itself.
    let lie = hosts
        .handshake(100, 1, "/wssip?token=t")
        .with("X-Forwarded-For", "203.0.113.9");
    hosts.opens_by("alice", &lie, 100);
    // Past it, where nobody is believed.
    let lie = hosts
        .handshake(101, 2, "/wssip?token=t")
        .with("X-Forwarded-For", "203.0.113.9");
    hosts.opens_by("mallory", &lie, 101);
    let said = [hosts.web.process().lines(), hosts.sip.process().lines()]
        .concat()
        .join("\n");
    assert!(!said.contains("203.0.113.9"), "{said}");
}

#[test]
fn a_host_that_stops_takes_no_other_along() {
    let mut hosts = Hosts::start();
    let mut browser = SipBrowser::registered(&hosts.handshake(100, 1, "/wssip?token=t"), "alice");
    assert_eq!(hosts.turn.stop().code(), Some(0));
    let invite = browser.invite("600", "v=0\r\n");
    let (_, mut dialog) = browser.answered(&invite);
    assert_eq!(browser.request(&mut dialog, "BYE").status(), Some(200));
    // The sip role says goodbye through the web role, which then has nobody to open a WebSocket with.
    assert_eq!(hosts.sip.stop().code(), Some(0));
    assert_eq!(browser.socket.closed(), Some(1012));
    let declined = hosts
        .handshake(101, 1, "/wssip?token=t")
        .with("Sec-WebSocket-Protocol", "sip")
        .open();
    assert_eq!(declined.expect_err("no WebSocket").status, 502);
    let get = format!("GET /ucassistant/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let mut page = Connection::tls(
        hosts.site.host(100),
        hosts.site.at(1, hosts.https),
        hosts.site.client(),
        NAME,
    );
    assert_eq!(page.ask(&get).text(), "hello");
}
