//! Does a real browser call through the edge? Headless Chromium on the page of the demonstration.

use std::net::{TcpListener, UdpSocket};

use edgeward_tests::{
    edge::run,
    peers::chromium::{Chromium, Page},
    process::Process,
    site::Site,
    skipped,
};

/// Packets that must have gone each way until a call is believed: a second of sound.
const PACKETS: u64 = 50;

/// Starts the demonstration on ports that are free, and gives the address of its page.
fn demonstration(site: &Site) -> (Process, String) {
    let https = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let sip = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let turn = (0..100)
        .find_map(|_| {
            let udp = UdpSocket::bind("127.0.0.1:0").ok()?;
            let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
            Some((udp, tcp))
        })
        .expect("a port that is free for UDP and TCP");
    let https_port = https.local_addr().expect("bound").port().to_string();
    let sip_port = sip.local_addr().expect("bound").port().to_string();
    let turn_port = turn.0.local_addr().expect("bound").port().to_string();
    drop((https, sip, turn));
    let mut arguments = vec!["demo", "--workers", "2", "--https-port", &https_port];
    arguments.extend(["--sip-port", &sip_port, "--turn-port", &turn_port]);
    // Below the ports that the system hands out, of which the three are.
    arguments.extend(["--relay-ports", "22000-22999"]);
    let demo = run(site, "demo", &arguments);
    demo.wait_until("that it is ready", |line| line.ends_with(" ready"));
    (demo, format!("https://127.0.0.1:{https_port}/ucassistant/"))
}

/// The call is up, sound goes both ways, and it goes through the relay.
fn talk(page: &mut Page) {
    page.wait_for("edgeward.call?.state === 'up'");
    page.wait_for(&format!(
        "edgeward.stats?.sent.packets > {PACKETS} && edgeward.stats?.received.packets > {PACKETS}"
    ));
    assert_eq!(page.evaluate("edgeward.stats.pair.local.type"), "relay");
    // A call sends sound all the time, and nearly all of it comes back; both ends may be busy.
    let lost = page.evaluate("edgeward.stats.received.lost");
    assert!(
        lost.as_u64().is_some_and(|lost| lost < PACKETS / 5),
        "{lost} packets lost"
    );
}

fn hang_up(page: &mut Page) {
    page.evaluate("edgeward.hangUp()");
    page.wait_for("edgeward.call?.state === 'ended'");
    assert_eq!(page.evaluate("edgeward.error"), serde_json::Value::Null);
}

#[test]
fn chromium_calls_and_is_called() {
    let Some(program) = Chromium::find() else {
        skipped("the call of a real browser: chromium is not installed");
        return;
    };
    let site = Site::new();
    let (_demo, url) = demonstration(&site);
    let chromium = Chromium::start(&program, site.folder());
    let mut page = chromium.open(&url);
    page.wait_for("window.edgeward");
    page.evaluate("edgeward.logIn('alice', 'wonderland')");
    page.wait_for("edgeward.registered");

    // 600 is an echo; over every transport that a browser has for TURN.
    for transport in ["udp", "tcp", "tls"] {
        page.evaluate(&format!("edgeward.choose({{ transport: '{transport}' }})"));
        page.evaluate("edgeward.dial('600')");
        talk(&mut page);
        assert_eq!(page.evaluate("edgeward.stats.pair.local.relayProtocol"), transport);
        hang_up(&mut page);
    }

    // 601 hangs up and calls back.
    page.evaluate("edgeward.dial('601')");
    page.wait_for("edgeward.call?.state === 'incoming'");
    page.evaluate("edgeward.accept()");
    talk(&mut page);
    hang_up(&mut page);

    // Two browsers call each other: the mediaserver is between them, and a relay at each end.
    let mut other = chromium.open(&url);
    other.wait_for("window.edgeward");
    other.evaluate("edgeward.logIn('bob', 'builder')");
    other.wait_for("edgeward.registered");
    page.evaluate("edgeward.dial('bob')");
    other.wait_for("edgeward.call?.state === 'incoming'");
    other.evaluate("edgeward.accept()");
    talk(&mut page);
    talk(&mut other);
    other.evaluate("edgeward.hangUp()");
    page.wait_for("edgeward.call?.state === 'ended'");
}
