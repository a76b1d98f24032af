//! Can it be operated while people call? Another configuration, an orderly end, logs and numbers.

use edgeward_tests::{
    peers::{
        sip_browser::{Account, SipBrowser},
        turn_client::{Credentials, TurnClient},
        udp_peer::UdpPeer,
        websocket::Event,
    },
    scene::{ALICE, CONFIG, SECRETS, Scene},
    site::NAME,
};
use rustix::process::Signal;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}:8443\r\n\r\n")
}

#[test]
fn another_configuration_comes_and_nobody_is_cut_off() {
    let scene = Scene::new();
    let mut telephone = scene.registered(100, "alice");
    let invite = telephone.invite("600", SDP);
    let (_, mut dialog) = telephone.answered(&invite);
    let mut tunnel = scene.handshake(101, "/socket/ws").open().expect("a WebSocket");
    let mut page = scene.connect(102);
    assert_eq!(page.ask(&get("/app/")).status(), Some(200));
    let mut download = scene.connect(103);
    download.send(get("/app/fixed/3000000"));
    assert_eq!(download.head().status(), Some(200));
    let mut relay = scene.allocated(104);
    let peer = UdpPeer::bind(scene.site.at(120, 20_000));
    relay.permit(scene.site.host(120)).expect("a permission");

    // Other routes, another user in place of alice, another secret, another mediaserver.
    let config = CONFIG
        .replace("path = \"/app\"", "path = \"/new\"")
        .replace("\"the password of alice\"", "\"another password of alice\"")
        .replace("name = \"mds2\"", "name = \"mds3\"");
    scene.edge.reload(&scene.site, &config);
    let said = scene.edge.process().wait_for("is read again");
    for changed in ["[[web.route]]", "[[turn.user]]", "[[sip.mediaserver]]"] {
        assert!(said.contains(changed), "{said}");
    }
    assert!(!said.contains("password"), "{said}");

    // Whoever was there goes on.
    tunnel.send_text("still there");
    assert!(matches!(tunnel.message(), Event::Text(text) if text.contains("still there")));
    let mut length = download.rest().len();
    while length < 3_000_000 {
        length += download.read_some(edgeward_tests::deadline()).len();
    }
    relay.send(peer.address(), b"media");
    assert_eq!(peer.receive().0, b"media");
    assert_eq!(telephone.request(&mut dialog, "BYE").status(), Some(200));
    // On the same connection the new routes hold.
    assert_eq!(page.ask(&get("/app/")).status(), Some(404));
    assert_eq!(page.ask(&get("/new/")).status(), Some(200));

    // Whoever comes meets the new configuration.
    assert!(scene.telephone(105, "/wssip-mds2").open().is_err());
    SipBrowser::open(&scene.telephone(105, "/wssip-mds3"), Account::of("bob")).expect("a WebSocket");
    let allocate = |client, password| {
        let credentials = Credentials::new(ALICE.0, password);
        TurnClient::udp(scene.client(client), scene.turn(), &credentials).allocate()
    };
    assert!(allocate(106, ALICE.1).is_err());
    allocate(107, "another password of alice").expect("an allocation");
    let before = Credentials::rest(SECRETS[1], "bob", 60);
    let mut bob = TurnClient::udp(scene.client(108), scene.turn(), &before);
    bob.allocate().expect("an allocation");
}

#[test]
fn a_wrong_configuration_changes_nothing_and_all_of_it_is_told() {
    let scene = Scene::new();
    let check = |config: String, expected: &[&str]| {
        scene.site.write("edge.toml", &scene.site.fill(&config));
        scene.edge.process().signal(Signal::HUP);
        for text in expected {
            scene.edge.process().wait_for(text);
        }
        let mut client = scene.connect(100);
        assert_eq!(client.ask(&get("/app/")).status(), Some(200));
        assert_eq!(client.ask(&get("/new/")).status(), Some(404));
    };
    let new = CONFIG.replace("path = \"/app\"", "path = \"/new\"");
    check(
        new.replace("workers = 3", "workers = \"three\"")
            .replace("edge.key", "missing.key"),
        &[
            "\"three\"",
            "missing.key",
            "the new configuration is wrong; the old one stays",
        ],
    );
    check(
        new.replace("workers = 3", "workers = 2")
            .replace("30000-30099", "31000-31099"),
        &["restart=\"[server] workers, [turn] relay_ports\""],
    );
    check(
        new.replace("$net.1:8443\"", "$net.1:8444\"")
            .replace("$net.1:5060", "$net.1:5061"),
        &["restart=\"[https] listen, [sip] listen\""],
    );
    scene.edge.reload(&scene.site, &new);
    assert_eq!(scene.connect(100).ask(&get("/new/")).status(), Some(200));
}
