//! Are the clients and servers of these tests right? They meet each other, and a TURN server of others.

use std::{path::Path, process::Command, time::Duration};

use edgeward_tests::{
    peers::{
        http::pattern,
        http_client::{Connection, agent},
        mediaserver::Fault,
        mediaserver::{Mediaserver, Way},
        sip::Message,
        stun::{self, RawClient, attribute, method},
        turn_client::{Credentials, TurnClient},
        udp_peer::UdpPeer,
        upstream::Upstream,
        websocket::{Event, Handshake},
    },
    process::Process,
    site::{NAME, Site},
    skipped,
};

#[test]
fn the_upstream_answers_as_its_paths_say() {
    let site = Site::new();
    let upstream = Upstream::start(site.at(2, 8080));
    let mut client = Connection::plain(site.host(100), site.at(2, 8080));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: upstream\r\n\r\n");
    assert_eq!(client.ask(&get("/")).text(), "hello");
    assert_eq!(client.ask(&get("/fixed/100000")).body, pattern(100_000));
    assert_eq!(client.ask(&get("/chunked/100000")).body, pattern(100_000));
    assert_eq!(client.ask(&get("/status/204")).status(), Some(204));
    let echo = "POST /echo HTTP/1.1\r\nHost: upstream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(client.ask(echo).text(), "abc");
    assert_eq!(client.ask(&get("/to-end/5000")).body, pattern(5000));
    assert!(client.closed().is_empty());
    assert_eq!((upstream.requests().len(), upstream.connections()), (6, 1));
}

#[test]
fn the_library_client_trusts_the_authority_and_nobody_else() {
    let site = Site::new();
    let identity = site.authority().identity(&[NAME]);
    let _upstream = Upstream::start_tls(site.at(2, 8443), identity.server());
    let url = format!("https://{NAME}:8443/fixed/3000000");
    let known = agent(site.authority(), site.at(2, 8443));
    let mut response = known.get(&url).call().expect("a response");
    assert!(response.body_mut().read_to_vec().expect("a body") == pattern(3_000_000));
    let other = Site::new();
    let stranger = agent(other.authority(), site.at(2, 8443));
    assert!(stranger.get(&url).call().is_err());
}

#[test]
fn a_websocket_echoes() {
    let site = Site::new();
    let identity = site.authority().identity(&[NAME]);
    let _upstream = Upstream::start_tls(site.at(2, 8443), identity.server());
    let handshake = Handshake::tls(site.host(100), site.at(2, 8443), site.client(), NAME, "/ws");
    let mut socket = handshake.open().expect("a WebSocket");
    socket.send_text("hello");
    assert_eq!(socket.message(), Event::Text("hello".into()));
    socket.send_binary(&pattern(100_000));
    assert_eq!(socket.message(), Event::Binary(pattern(100_000)));
    socket.close();
    assert_eq!(socket.closed(), Some(1000));
    let declined = Handshake {
        target: "/".into(),
        ..handshake
    }
    .open()
    .expect_err("no WebSocket");
    assert_eq!(declined.status, 200);
}

#[test]
fn the_mediaserver_repeats_until_it_is_answered() {
    let site = Site::new();
    let mediaserver = Mediaserver::start(site.at(3, 5060));
    let caller = UdpPeer::bind(site.at(1, 5060));
    let mut lost = 0;
    mediaserver.weather(move |way, message| {
        lost += usize::from(way == Way::Out && message.status() == Some(200));
        (lost == 1).then_some(Fault::Lost)
    });
    let invite = Message::request("INVITE", "sip:600@pbx.test")
        .with("Via", format_args!("SIP/2.0/UDP {};branch=z9hG4bK1", site.at(1, 5060)))
        .with("From", "<sip:alice@pbx.test>;tag=1")
        .with("To", "<sip:600@pbx.test>")
        .with("Call-ID", "c")
        .with("CSeq", "1 INVITE")
        .with("Contact", format_args!("<sip:alice@{}>", site.at(1, 5060)));
    caller.send(mediaserver.address(), invite.to_string().as_bytes());
    let mut statuses = Vec::new();
    while statuses.last() != Some(&200) {
        let (datagram, _) = caller.receive();
        let answer = Message::parse(str::from_utf8(&datagram).expect("text")).expect("SIP");
        statuses.push(answer.status().expect("an answer"));
    }
    assert_eq!(statuses, [100, 180, 200]);
}

/// coturn, where it is installed: what these clients say is understood by a server that is not ours.
#[test]
fn the_turn_clients_agree_with_coturn() {
    if !Path::new("/usr/bin/turnserver").exists() {
        skipped("the TURN clients against coturn: there is no /usr/bin/turnserver");
        return;
    }
    let site = Site::new();
    site.write_certificate();
    let address = site.host(1).to_string();
    let mut command = Command::new("/usr/bin/turnserver");
    command
        .current_dir(site.folder())
        .args(["-n", "-L", &address, "-E", &address, "-p", "3478", "-a", "-r", "test"]);
    command.args([
        "-u",
        "alice:secret",
        "--no-cli",
        "--allow-loopback-peers",
        "--log-file",
        "stdout",
        "--simple-log",
    ]);
    command.args([
        "--min-port",
        "30000",
        "--max-port",
        "30099",
        "--cert",
        "edge.pem",
        "--pkey",
        "edge.key",
    ]);
    command.args(["--pidfile", "turnserver.pid", "--userdb", "turn.db", "--no-dtls"]);
    let coturn = Process::spawn("coturn", &mut command);
    coturn.wait_for("admin thread");
    let server = site.at(1, 3478);
    let credentials = Credentials::new("alice", "secret");
    for mut client in [
        TurnClient::udp(site.host(100), server, &credentials),
        TurnClient::tcp(site.host(101), server, &credentials),
        TurnClient::tls(site.host(102), server, site.client(), NAME, &credentials),
    ] {
        let relayed = client.allocate().expect("an allocation");
        let peer = UdpPeer::bind(site.at(120, 0));
        client.permit(peer.address().ip()).expect("a permission");
        client.send(peer.address(), b"there");
        assert_eq!(peer.receive(), (b"there".to_vec(), relayed));
        peer.send(relayed, b"back");
        assert_eq!(client.receive_from(peer.address()), b"back");
        client.bind(peer.address()).expect("a channel");
        client.send(peer.address(), b"by channel");
        assert_eq!(peer.receive(), (b"by channel".to_vec(), relayed));
        peer.send(relayed, b"back");
        assert_eq!(client.receive_from(peer.address()), b"back");
        client.advance(Duration::from_secs(900));
        client.delete();
    }
    let mut raw = RawClient::new(site.host(104), server, "alice", "secret");
    let answer = raw.ask(&stun::Message::request(method::BINDING));
    let seen = raw.socket().local_addr().expect("a bound socket");
    assert_eq!(answer.address(attribute::XOR_MAPPED_ADDRESS), Some(seen));
    raw.allocate();
    let refused = raw.ask_signed(stun::Message::request(method::CREATE_PERMISSION));
    assert_eq!(refused.error_code(), Some(400));
    let mut stranger = RawClient::new(site.host(105), server, "alice", "wrong");
    let request = stun::Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::UDP);
    assert_eq!(stranger.ask_signed(request).error_code(), Some(401));
}
