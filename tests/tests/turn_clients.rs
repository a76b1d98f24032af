//! Do the TURN and STUN clients of others get what they want, and the million of a flood nothing? Those of coturn and
//! aioice, and clients by hand that move, drip and lie. Which of them ran is said on the terminal.

use std::{
    env,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
    thread,
    time::Duration,
};

use edgeward_tests::{
    deadline,
    peers::{
        stun::{Class, Message, RawClient, UDP, attribute, channel_data, method},
        turn_client::{Credentials, TurnClient},
        udp_peer::UdpPeer,
    },
    ran,
    scene::{ALICE, CONFIG, SECRETS, Scene},
    site::NAME,
    skipped,
};
use rustls::ClientConnection;

/// The configuration of the scene with more lines in `[turn]`.
fn config(lines: &str) -> String {
    CONFIG.replace("realm = \"edge.test\"", &format!("realm = \"edge.test\"\n{lines}"))
}

/// Whether a program is there, and a word about it where it is not.
fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("-h").output().is_ok();
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}

/// Runs a program of coturn to its end, but no longer than so many seconds.
fn coturn(program: &str, secs: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args([secs, program]).args(arguments);
    command.output().expect("a program that was there")
}

/// How often something is said.
fn count(output: &Output, what: &str) -> usize {
    String::from_utf8_lossy(&output.stdout).matches(what).count()
}

#[test]
fn clients_find_out_how_their_nat_behaves() {
    if !is_installed("turnutils_natdiscovery") {
        return;
    }
    let four = r#"nat_discovery = true
listen_udp = ["$net.1:3479", "$net.2:3478", "$net.2:3479"]"#;
    let scene = Scene::with(&config(four));
    let (client, server) = (scene.client(100).to_string(), scene.site.host(1).to_string());
    // Without a NAT between: mapped as sent, and reached from every corner, with long messages too.
    let output = coturn(
        "turnutils_natdiscovery",
        "60",
        &["-m", "-f", "-P", "-L", &client, &server],
    );
    assert_eq!(count(&output, "No NAT!"), 2, "{output:?}");
    assert_eq!(
        count(&output, "NAT with Endpoint Independent Filtering!"),
        1,
        "{output:?}"
    );
    for (corner, times) in [("1:3478", 3), ("2:3478", 1), ("2:3479", 1)] {
        let (host, port) = corner.split_once(':').expect("a corner");
        let corner = scene
            .site
            .at(host.parse().expect("a host"), port.parse().expect("a port"));
        let said = count(&output, &format!("Response origin: : {corner}"));
        assert!(said >= times.min(1), "{corner}: {output:?}");
    }
    let output = coturn("turnutils_stunclient", "60", &["-f", "-L", &client, &server]);
    assert_eq!(count(&output, "RFC 5780 response"), 3, "{output:?}");
    ran("coturn's turnutils_natdiscovery -m -f -P and turnutils_stunclient -f");
}

/// How a run of `turnutils_uclient` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All that was sent came back.
    Whole,
    /// Half of what was sent comes back, as from coturn's server: the passive end does not count what it gets.
    Half,
    /// It is refused.
    Refused,
    /// What it sends is broken now and then, so that not everything comes back.
    Somehow,
}

#[test]
fn the_client_of_coturn_is_served_in_every_mode() {
    if !is_installed("turnutils_uclient") || !is_installed("turnutils_peer") {
        return;
    }
    // An address of IPv6 that every machine has, and a port of it that nobody else listens on.
    let v6 = UdpSocket::bind("[::1]:0").expect("IPv6 on loopback");
    let (port, peer_port) = (v6.local_addr().expect("an address").port(), 20_010);
    drop(v6);
    let lines = format!(
        r#"mobility = true
tcp_relay = true
listen_udp = "[::1]:{port}"
peer = [
    {{ net = "::1/128", ports = "{peer_port}-{}" }},
    {{ net = "$net.128/25", ports = "1024-65535" }},
]"#,
        peer_port + 1
    );
    let config = config(&lines)
        .replace("relay = \"$net.1\"", "relay = [\"$net.1\", \"::1\"]")
        // So many clients at once, and ports rest before they are given again.
        .replace("30000-30099", "30000-32999")
        .replace("[[turn.peer]]\nnet = \"$net.120/32\"\nports = \"20000-20099\"\n", "")
        .replace(
            "peer = [",
            "peer = [\n    { net = \"$net.120/32\", ports = \"20000-20099\" },",
        );
    let scene = Scene::with(&config);
    let (server, peer) = (scene.site.host(1).to_string(), scene.site.host(120).to_string());
    let _peers = [(peer.as_str(), "20000"), ("::1", "20010")].map(|(at, port)| {
        let mut command = Command::new("turnutils_peer");
        edgeward_tests::process::Process::spawn("peer", command.args(["-L", at, "-p", port]))
    });
    let password = ["-u", ALICE.0, "-w", ALICE.1];
    let (v4, v6) = (["-e", &peer, "-r", "20000"], ["-e", "::1", "-r", "20010"]);
    let port = port.to_string();
    let (v6_port, v6_df) = (["-x", "-p", &port], ["-x", "-g", "-p", &port]);
    // RFC 8656 section 12 leaves the channels above 0x4FFF to others, and this client draws them too: with Send
    // indications only, then. Channels are shown by aioice, turn-client-proto and Chromium.
    // Nor `-Z`: in Debian's version it asks for a second family by the number of a draft (0x8032), which a server ignores
    // (RFC 8489 section 14), and then refreshes, by chance, the family that it did not get.
    let modes: [(&str, &[&[&str]], End); 16] = [
        ("UDP", &[&password, &v4], End::Whole),
        ("UDP, DF", &[&password, &v4, &["-X", "-g"]], End::Whole),
        ("UDP, many requests", &[&password, &v4, &["-G"]], End::Whole),
        ("UDP, that disconnects", &[&password, &v4, &["-B"]], End::Whole),
        ("UDP, negative tests", &[&password, &v4, &["-N"]], End::Whole),
        ("UDP, broken messages", &[&password, &v4, &["-R"]], End::Somehow),
        ("UDP, client to client", &[&password, &["-y"]], End::Whole),
        ("UDP, REST secret", &[&["-u", "bob", "-W", SECRETS[0]], &v4], End::Whole),
        (
            "UDP, wrong password",
            &[&["-u", ALICE.0, "-w", "wrong"], &v4],
            End::Refused,
        ),
        ("UDP, mobility", &[&password, &v4, &["-M"]], End::Whole),
        ("TCP", &[&password, &v4, &["-t"]], End::Whole),
        ("TCP, client to client", &[&password, &["-t", "-y"]], End::Whole),
        ("TCP, mobility", &[&password, &v4, &["-t", "-M"]], End::Whole),
        ("TLS", &[&password, &v4, &["-t", "-S", "-p", "3478"]], End::Whole),
        // RFC 6062: one of two allocations calls the other one, which is called.
        ("TCP relay, active", &[&password, &["-t", "-T", "-y"]], End::Whole),
        // Here it is the peer too, which calls.
        ("TCP relay, passive", &[&password, &["-t", "-T", "-P", "-y"]], End::Half),
    ];
    thread::scope(|scope| {
        for (client, (mode, arguments, end)) in (130..).zip(modes) {
            let (scene, server) = (&scene, &server);
            scope.spawn(move || uclient(mode, end, &scene.client(client).to_string(), arguments, server));
        }
        for (mode, arguments) in [
            ("UDP, IPv6", [&password[..], &v6, &v6_port]),
            ("UDP, IPv6, DF", [&password, &v6, &v6_df]),
        ] {
            scope.spawn(move || uclient(mode, End::Whole, "::1", &arguments, "::1"));
        }
    });
}

/// One run with Send indications, without RTCP.
fn uclient(mode: &str, end: End, local: &str, arguments: &[&[&str]], server: &str) {
    let common = ["-s", "-c", "-n", "5", "-m", "1", "-l", "170", "-L", local];
    let arguments: Vec<&str> = common.into_iter().chain(arguments.concat()).chain([server]).collect();
    // Who breaks its own messages may wait for an answer for ever.
    let secs = if end == End::Somehow { "10" } else { "60" };
    let output = coturn("turnutils_uclient", secs, &arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let total = said.lines().rev().find_map(|line| line.split_once(": tot_send_msgs="));
    let counts = total.and_then(|(_, rest)| rest.split_once(", tot_recv_msgs="));
    match end {
        End::Whole => {
            let (sent, received) = counts.unwrap_or_else(|| panic!("{mode}: {said}"));
            assert!(sent == received && sent != "0", "{mode}: {said}");
        }
        End::Half => {
            let (sent, received) = counts.unwrap_or_else(|| panic!("{mode}: {said}"));
            let [sent, received] = [sent, received].map(|count| count.trim().parse().unwrap_or(0));
            assert!(sent == 2 * received && sent != 0, "{mode}: {said}");
        }
        End::Refused => assert!(!output.status.success() && counts.is_none(), "{mode}: {said}"),
        End::Somehow => {}
    }
    ran(&format!("coturn's turnutils_uclient: {mode}"));
}

/// A Python with aioice, made in the target folder when there is none.
fn aioice() -> Result<PathBuf, String> {
    let test = env::current_exe().expect("the path of this test");
    // target/PROFILE/deps/TEST
    let folder = test.ancestors().nth(3).expect("a target folder").join("aioice");
    let python = folder.join("bin/python");
    let has_aioice = || {
        Command::new(&python)
            .args(["-c", "import aioice"])
            .output()
            .is_ok_and(|it| it.status.success())
    };
    if has_aioice() {
        return Ok(python);
    }
    let make = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg(&folder).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !make("python3", &["-m", "venv"]) {
        return Err("python3 makes no virtual environment".into());
    }
    let mut pip = Command::new(&python);
    let _ = pip.args(["-m", "pip", "install", "--quiet", "aioice==0.10.1"]).output();
    if has_aioice() {
        Ok(python)
    } else {
        Err("aioice cannot be installed".into())
    }
}

#[test]
fn aioice_is_served_over_udp_tcp_and_tls() {
    let python = match aioice() {
        Ok(python) => python,
        Err(why) => return skipped(&why),
    };
    let scene = Scene::new();
    scene.site.write("client.py", include_str!("../clients/aioice.py"));
    for transport in ["udp", "tcp", "tls"] {
        let peer = UdpPeer::bind(scene.site.at(120, 20_020));
        let (server, address) = (scene.turn().to_string(), peer.address().to_string());
        let mut command = Command::new("timeout");
        command.current_dir(scene.site.folder()).args(["60"]).arg(&python);
        command.args(["client.py", &server, transport, ALICE.0, ALICE.1, &address]);
        let client = thread::spawn(move || command.output().expect("a client"));
        for number in 0..3 {
            let (data, relayed) = peer.receive();
            assert_eq!(data, format!("datagram {number}").as_bytes(), "{transport}");
            peer.send(relayed, &data);
        }
        let output = client.join().expect("a thread that ends");
        assert!(output.status.success(), "{transport}: {output:?}");
        ran(&format!("aioice: {transport}, by channels"));
    }
}

/// RFC 7443: a client that says what it will speak is told that it is understood, on both ports.
#[test]
fn turn_is_agreed_on_by_alpn() {
    let scene = Scene::new();
    for (at, protocol) in [
        (scene.turn(), b"stun.turn".as_slice()),
        (scene.turn(), b"stun.nat-discovery"),
        (scene.https(), b"stun.turn"),
        (scene.https(), b"stun.nat-discovery"),
    ] {
        let mut config = (*scene.site.client()).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = NAME.try_into().expect("a host name");
        let mut session = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut socket = TcpStream::connect(at).expect("a connection");
        let mut stream = rustls::Stream::new(&mut session, &mut socket);
        let binding = Message::request(method::BINDING);
        stream.write_all(&binding.encode()).expect("sent");
        let mut answer = [0; 32];
        stream.read_exact(&mut answer).expect("an answer");
        let answer = Message::decode(&answer).expect("STUN");
        assert_eq!(
            (answer.class, answer.transaction),
            (Class::Success, binding.transaction)
        );
        assert_eq!(session.alpn_protocol(), Some(protocol), "{at}");
    }
}

/// RFC 8656 section 7.2: one Allocate request, a relayed address of each family, and both relay.
#[test]
fn a_dual_allocation_relays_by_both_families() {
    let config = CONFIG
        .replace("relay = \"$net.1\"", "relay = [\"$net.1\", \"::1\"]")
        .replace("relay_ports = \"30000-30099\"", "relay_ports = \"30000-32999\"");
    let scene = Scene::with(&format!(
        "{config}\n[[turn.peer]]\nnet = \"::1/128\"\nports = \"1024-65535\"\n"
    ));
    let peers = [
        scene.site.at(120, 20_040),
        SocketAddr::new("::1".parse().expect("an address"), 0),
    ]
    .map(UdpPeer::bind);
    let mut client = TurnClient::dual(scene.client(100), scene.turn(), &Credentials::new(ALICE.0, ALICE.1));
    let mut relayed = [client.allocate(), client.allocate()].map(|it| it.expect("both are to be had"));
    relayed.sort_by_key(SocketAddr::is_ipv6);
    for (peer, relayed) in peers.iter().zip(relayed) {
        client.permit(peer.address().ip()).expect("a peer that is listed");
        client.send(peer.address(), b"by the family of the peer");
        let (data, from) = peer.receive();
        assert_eq!(
            (data.as_slice(), from),
            (b"by the family of the peer".as_slice(), relayed)
        );
        peer.send(relayed, b"and back");
        assert_eq!(client.receive_from(peer.address()), b"and back");
    }
}

/// RFC 8016: the kernel gives each of these addresses to one shard or another.
#[test]
fn an_allocation_follows_its_client_to_every_shard() {
    let scene = Scene::with(&config("mobility = true"));
    let peer = UdpPeer::bind(scene.site.at(120, 20_030));
    let mut client = scene.raw_turn(100);
    let request = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, UDP);
    let answer = client.ask_signed(request.with(attribute::MOBILITY_TICKET, []));
    let relayed = answer
        .address(attribute::XOR_RELAYED_ADDRESS)
        .expect("a relayed address");
    let mut ticket = answer.attribute(attribute::MOBILITY_TICKET).expect("a ticket").to_vec();
    let bind = Message::request(method::CHANNEL_BIND).with(attribute::CHANNEL_NUMBER, [0x40, 0, 0, 0]);
    assert_eq!(client.ask_signed(bind.with_peer(peer.address())).class, Class::Success);
    for number in 101..113 {
        let old = client;
        client = scene.raw_turn(number);
        let refresh = Message::request(method::REFRESH).with(attribute::MOBILITY_TICKET, ticket.clone());
        let answer = client.ask_signed(refresh);
        assert_eq!((answer.class, answer.error_code()), (Class::Success, None), "{number}");
        let next = answer.attribute(attribute::MOBILITY_TICKET).expect("a ticket").to_vec();
        assert_ne!(next, ticket);
        ticket = next;
        // Until data comes from the new address, the old one is good.
        relays(&old, &peer, relayed, b"old");
        relays(&client, &peer, relayed, b"new");
        assert_eq!(
            RawClient::receive(&old, std::time::Instant::now() + Duration::from_millis(1)),
            None
        );
    }
    let last = Message::request(method::REFRESH).with(attribute::LIFETIME, [0; 4]);
    assert_eq!(client.ask_signed(last).class, Class::Success);
    let again = Message::request(method::REFRESH).with(attribute::MOBILITY_TICKET, ticket);
    assert_eq!(scene.raw_turn(120).ask_signed(again).error_code(), Some(437));
}

/// Sends by channel, there and back.
fn relays(client: &RawClient, peer: &UdpPeer, relayed: SocketAddr, data: &[u8]) {
    client.socket().send(&channel_data(0x4000, data)).expect("sent");
    assert_eq!(peer.receive(), (data.to_vec(), relayed));
    peer.send(relayed, data);
    assert_eq!(client.receive(deadline()), Some(channel_data(0x4000, data)));
}

#[test]
fn mobility_is_off_unless_it_is_wanted() {
    let scene = Scene::new();
    let request = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, UDP);
    let answer = scene
        .raw_turn(100)
        .ask_signed(request.with(attribute::MOBILITY_TICKET, []));
    assert_eq!(answer.error_code(), Some(405));
}

#[test]
fn a_client_that_sends_a_byte_now_and_then_is_cut() {
    let scene = Scene::with(&(CONFIG.to_owned() + "\n[turn.limits]\nstream_idle_secs = 1\n"));
    let mut stream = TcpStream::connect(scene.turn()).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    // Half an hour's worth of a message, at this pace.
    for _ in 0..100 {
        // Zeros are the beginning of a STUN message that is never complete.
        let written = stream.write_all(&[0]);
        match stream.read(&mut [0; 16]) {
            Err(error) if written.is_ok() && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return,
        }
    }
    panic!("it may go on for ever");
}

/// Set to a number, so many strangers flood the edge: a million takes minutes.
const FLOOD: &str = "EDGEWARD_FLOOD";

#[test]
fn a_flood_of_strangers_takes_no_memory() {
    let strangers = env::var(FLOOD)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_000);
    let scene = Scene::with(&CONFIG.replace("workers = 3", "workers = 1"));
    // A mediaserver is always answered: what came before is done with by then.
    let witness = RawClient::new(scene.site.host(3), scene.turn(), ALICE.0, ALICE.1);
    let allocate = || Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, UDP);
    let forged = allocate()
        .with(attribute::USERNAME, ALICE.0.as_bytes())
        .with(attribute::REALM, b"edge.test".as_slice())
        .with(attribute::NONCE, b"obMatJos2gAAAaaaaaaa".as_slice());
    let packets = [
        Message::request(method::BINDING).encode(),
        allocate().encode(),
        forged.encode_signed(b"no key of ours.."),
        [22, 3, 1, 0, 200].to_vec(),
        channel_data(0x4000, b"data"),
    ];
    let flood = |strangers: u32| {
        for (number, packet) in (0..strangers).zip(packets.iter().cycle()) {
            let host = 100 + (number / 7 % 150) as u8;
            let stranger = UdpSocket::bind((scene.client(host), 0)).expect("a socket");
            stranger.send_to(packet, scene.turn()).expect("sent");
            if number % 50 == 49 {
                assert_eq!(witness.ask(&Message::request(method::BINDING)).class, Class::Success);
            }
        }
    };
    // Buffers that are made once are not counted.
    flood(2_000);
    let before = scene.edge.process().resident_kib();
    flood(strangers);
    let after = scene.edge.process().resident_kib();
    assert!(after < before + 1024, "{before} KiB, then {after} KiB");
    ran(&format!(
        "a flood of {strangers} strangers: {} KiB more",
        after.saturating_sub(before)
    ));
}
