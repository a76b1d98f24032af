//! Does the TURN server relay TCP as RFC 6062 has it, for clients of ours and of others?

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use edgeward_tests::{
    PATIENCE, deadline,
    peers::{
        relay_client::RelayClient,
        stream::Stream,
        stun::{self, Class, Message, attribute, method},
    },
    scene::{ALICE, CONFIG, Scene},
    site::NAME,
    skipped,
};
use socket2::{Domain, SockRef, Socket, Type};

/// More than all buffers between two ends.
const MANY: usize = 24 * 1024 * 1024;

fn scene() -> Scene {
    Scene::with(&CONFIG.replace("realm = \"edge.test\"", "realm = \"edge.test\"\ntcp_relay = true"))
}

/// A connection to the TURN server from this client.
fn client(scene: &Scene, number: u8) -> RelayClient {
    let stream = Stream::connect(scene.client(number), scene.turn()).expect("a connection");
    RelayClient::new(stream, ALICE)
}

fn tls_client(scene: &Scene, number: u8, to: SocketAddr) -> RelayClient {
    let stream = Stream::connect_tls(scene.client(number), to, scene.site.client(), NAME).expect("a connection");
    RelayClient::new(stream, ALICE)
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    (stream, from)
}

/// A peer that calls from a port of its choice.
fn call(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.bind(&from.into()).expect("a free port");
    socket.connect_timeout(&to.into(), PATIENCE).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream
}

fn read(from: &mut impl std::io::Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).expect("as many bytes");
    bytes
}

fn permit(client: &mut RelayClient, peer: SocketAddr) {
    let answer = client.ask(Message::request(method::CREATE_PERMISSION).with_peer(peer));
    assert_eq!(answer.class, Class::Success, "{:?}", answer.error_code());
}

#[test]
fn a_client_calls_peers_over_every_transport_and_shard() {
    let scene = scene();
    let listener = TcpListener::bind(scene.site.at(120, 20_000)).expect("a peer");
    let ways: [(&str, SocketAddr, bool); 3] = [
        ("TCP", scene.turn(), false),
        ("TLS", scene.turn(), true),
        ("TLS on the port for HTTPS", scene.https(), true),
    ];
    for (way, to, tls) in ways {
        // Three shards, and each connection lands where the kernel likes.
        for round in 0..6 {
            let connect = || match tls {
                true => tls_client(&scene, 100 + round, to),
                false => client(&scene, 100 + round),
            };
            let mut control = connect();
            let relayed = control.allocate();
            assert_eq!(relayed.ip(), scene.site.host(1));
            let id = control.connect(scene.site.at(120, 20_000)).expect(way);
            let (mut peer, from) = accept(&listener);
            assert_eq!(from, relayed, "{way}");
            // What comes before somebody binds is not lost, nor what shares a segment with the bind.
            peer.write_all(b"welcome").expect("sent");
            assert_eq!(control.connect(scene.site.at(120, 20_000)), Err(446), "{way}");
            let (mut data, early) = connect().bind(&id, b"early").expect(way);
            assert_eq!(read(&mut peer, 5), b"early", "{way}");
            let rest = read(&mut data, 7 - early.len());
            assert_eq!([early, rest].concat(), b"welcome", "{way}");
            data.write_all(&[1; 100_000]).expect("sent");
            assert_eq!(read(&mut peer, 100_000), [1; 100_000], "{way}");
            peer.write_all(&[2; 100_000]).expect("sent");
            assert_eq!(read(&mut data, 100_000), [2; 100_000], "{way}");
            // The end of one is the end of the other.
            if round % 2 == 0 {
                drop(peer);
                assert_eq!(data.read_to_close(deadline()), b"", "{way}");
            } else {
                drop(data);
                assert_eq!(peer.read(&mut [0; 10]).expect("the end"), 0, "{way}");
            }
        }
    }
}

#[test]
fn a_peer_calls_a_client() {
    let scene = scene();
    let mut control = client(&scene, 100);
    let relayed = control.allocate();
    // Who has no permission is closed at once, and nobody hears of it.
    let mut stranger = call(scene.site.at(120, 20_001), relayed);
    assert!(matches!(stranger.read(&mut [0; 10]), Ok(0) | Err(_)));
    permit(&mut control, scene.site.at(120, 0));
    let mut wrong = call(scene.site.at(120, 19_999), relayed);
    assert!(matches!(wrong.read(&mut [0; 10]), Ok(0) | Err(_)));
    for round in 0..6 {
        let from = scene.site.at(120, 20_010 + round);
        let mut peer = call(from, relayed);
        peer.write_all(b"hello").expect("sent");
        let (id, who) = control.attempt();
        assert_eq!(who, from);
        let (mut data, early) = client(&scene, 101).bind(&id, b"").expect("bound");
        let rest = read(&mut data, 5 - early.len());
        assert_eq!([early, rest].concat(), b"hello");
        data.write_all(b"world").expect("sent");
        assert_eq!(read(&mut peer, 5), b"world");
        // A peer that has said all it has to say still gets its answer.
        peer.shutdown(Shutdown::Write).expect("half closed");
        assert_eq!(data.read(&mut [0; 10]).expect("the end"), 0);
        data.write_all(b"goodbye").expect("sent");
        assert_eq!(read(&mut peer, 7), b"goodbye");
    }
}

#[test]
fn policy_holds_for_tcp() {
    let scene = scene();
    let mut control = client(&scene, 100);
    let relayed = control.allocate();
    let refused = [
        "127.0.0.1:80".parse().expect("an address"),
        "0.0.0.0:80".parse().expect("an address"),
        "10.0.0.1:80".parse().expect("an address"),
        "169.254.169.254:80".parse().expect("an address"),
        "192.168.1.1:443".parse().expect("an address"),
        scene.turn(),
        scene.https(),
        scene.site.at(1, 22),
        scene.site.at(2, 8080),
        scene.site.at(3, 22),
        scene.site.at(120, 19_999),
        scene.site.at(120, 20_100),
        scene.site.at(120, 0),
        relayed,
    ];
    for peer in refused {
        assert_eq!(control.connect(peer), Err(403), "{peer}");
    }
    // Nobody is there.
    assert_eq!(control.connect(scene.site.at(120, 20_099)), Err(447));
    assert_eq!(
        control.connect("[2001:db8::1]:80".parse().expect("an address")),
        Err(443)
    );
    // Without an allocation, and over UDP.
    assert_eq!(client(&scene, 101).connect(scene.site.at(120, 20_000)), Err(437));
    let mut datagrams = scene.raw_turn(102);
    let request = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, stun::TCP);
    assert_eq!(datagrams.ask_signed(request.clone()).error_code(), Some(400));
    let bind = Message::request(method::CONNECTION_BIND).with(attribute::CONNECTION_ID, [1; 4]);
    assert_eq!(datagrams.ask_signed(bind).error_code(), Some(400));

    // Where it is not switched on, there is no such transport.
    let scene = Scene::new();
    assert_eq!(client(&scene, 100).ask(request).error_code(), Some(442));
}

#[test]
fn a_connection_belongs_to_who_asked_for_it() {
    let scene = scene();
    let listener = TcpListener::bind(scene.site.at(120, 20_000)).expect("a peer");
    let mut control = client(&scene, 100);
    control.allocate();
    let id = control.connect(scene.site.at(120, 20_000)).expect("a connection");
    let (mut peer, _) = accept(&listener);
    for guess in [
        id.iter().map(|byte| byte ^ 0xff).collect(),
        vec![0; 4],
        vec![0, 0, 0, 1],
    ] {
        assert_eq!(client(&scene, 101).bind(&guess, b"").err(), Some(400));
    }
    let credentials =
        edgeward_tests::peers::turn_client::Credentials::rest(edgeward_tests::scene::SECRETS[0], "mallory", 60);
    let stream = Stream::connect(scene.client(102), scene.turn()).expect("a connection");
    let mallory = RelayClient::new(stream, (&credentials.user, &credentials.password));
    assert_eq!(mallory.bind(&id, b"").err(), Some(400));
    let (mut data, _) = client(&scene, 103).bind(&id, b"mine").expect("bound");
    assert_eq!(read(&mut peer, 4), b"mine");
    assert_eq!(client(&scene, 104).bind(&id, b"").err(), Some(400));
    // With the allocation goes all that it had.
    drop(control);
    assert_eq!(peer.read(&mut [0; 10]).expect("the end"), 0);
    assert_eq!(data.read_to_close(deadline()), b"");
}

#[test]
fn who_does_not_read_holds_up_who_writes() {
    let scene = scene();
    let listener = TcpListener::bind(scene.site.at(120, 20_000)).expect("a peer");
    let mut control = client(&scene, 100);
    control.allocate();
    let id = control.connect(scene.site.at(120, 20_000)).expect("a connection");
    let (mut peer, _) = accept(&listener);
    let (mut data, _) = client(&scene, 101).bind(&id, b"").expect("bound");
    peer.set_nonblocking(true).expect("a socket");
    let mut sent = 0;
    let mut idle_since = Instant::now();
    // Until nothing has moved for a while: the client reads nothing, so the peer must come to a stop.
    while sent < 4 * MANY && idle_since.elapsed() < Duration::from_millis(500) {
        match peer.write(&[7; 65_536]) {
            Ok(written) => {
                sent += written;
                idle_since = Instant::now();
            }
            Err(_) => thread::yield_now(),
        }
    }
    assert!(sent < MANY, "{sent} bytes went into the relay and nobody read them");
    let reader = thread::spawn(move || read(&mut data, sent).iter().all(|byte| *byte == 7));
    assert!(reader.join().expect("a reader"));
}

#[test]
fn a_peer_that_resets_is_gone_before_anybody_comes_for_it() {
    let scene = scene();
    let address = scene.site.at(120, 20_000);
    let listener = TcpListener::bind(address).expect("a peer");
    let mut control = client(&scene, 100);
    let relayed = control.allocate();
    // One that was called, and one that calls, with something to say that nobody reads.
    let called = control.connect(address).expect("a connection");
    let (dialled, _) = accept(&listener);
    permit(&mut control, scene.site.at(120, 0));
    let caller = call(scene.site.at(120, 20_001), relayed);
    let (calling, _) = control.attempt();
    for (mut peer, id) in [(dialled, called), (caller, calling)] {
        let from = peer.local_addr().expect("an address");
        peer.write_all(b"unread").expect("sent");
        SockRef::from(&peer)
            .set_linger(Some(Duration::ZERO))
            .expect("an option");
        drop(peer);
        // There is no second connection between two addresses while the first one lasts.
        let deadline = deadline();
        while control.connect(from) == Err(446) {
            assert!(Instant::now() < deadline, "{from} is still there");
        }
        let refused = client(&scene, 101).bind(&id, b"").map(|_| ());
        assert_eq!(refused, Err(400));
    }
}

#[test]
fn the_client_of_coturn_is_served() {
    if Command::new("turnutils_uclient").arg("-h").output().is_err() {
        return skipped("turnutils_uclient is not installed");
    }
    // In its passive mode the client is its own peer, from any port.
    let config = CONFIG.replace("realm = \"edge.test\"", "realm = \"edge.test\"\ntcp_relay = true");
    let scene = Scene::with(&(config + "\n[[turn.peer]]\nnet = \"$net.100/32\"\nports = \"1-65535\"\n"));
    // What it sends, and what comes back: its passive mode has peers that only send.
    for (modes, expected) in [
        (["-T"].as_slice(), "tot_send_msgs=40, tot_recv_msgs=40"),
        (&["-T", "-S"], "tot_send_msgs=40, tot_recv_msgs=40"),
        (&["-P"], "tot_send_msgs=40, tot_recv_msgs=20"),
    ] {
        let mut command = Command::new("timeout");
        command.args(["60", "turnutils_uclient", "-n", "20", "-m", "2", "-l", "500"]);
        command.args(["-u", ALICE.0, "-w", ALICE.1]).args(modes);
        command.args(["-L", &scene.client(100).to_string(), "-p", "3478"]);
        let output = command.arg(scene.site.host(1).to_string()).output().expect("a client");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{modes:?}: {}\n{said}", output.status);
        assert!(said.contains(expected), "{modes:?}: not {expected}\n{said}");
    }
}
