//! What does a relayed packet cost, and an allocation? The edge and coturn.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use self::{
    field::{Field, Traffic},
    user::User,
};
use super::{
    Plan, report,
    rounds::{Figure, Load, figure, measure},
    server::{Recipe, Server, edges},
};
use crate::{
    deadline,
    peers::stun::{Message, method},
    process::Process,
    remaining,
    site::Site,
};

mod field;
mod user;

/// The port for clients.
const PORT: u16 = 3478;
/// coturn stands on this host.
const COTURN: u8 = 11;
/// Clients come from this host and those behind it, so many on each.
const CLIENTS: u8 = 100;
const CLIENTS_PER_HOST: usize = 1000;
/// The peers are on this host.
const PEER: u8 = 120;
/// The user and its password.
const USER: (&str, &str) = ("alice", "the password of alice");
/// Payload of a voice packet, and of a video packet.
const VOICE_BYTES: usize = 160;
const VIDEO_BYTES: usize = 1200;
/// How long an idle server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// Measures everything and returns the page.
pub fn run(plan: &Plan) -> String {
    let site = Site::new();
    site.write_certificate();
    let mut servers = Server::start_all(recipes(&site, plan));
    let loads = loads(&site, plan);
    let results = measure(plan, &mut servers, &loads);
    report::page("turn", plan, &["coturn"], &loads, &results)
}

/// All loads that the plan wants.
fn loads<'a>(site: &'a Site, plan: &Plan) -> Vec<Load<'a>> {
    let mut loads = Vec::new();
    let mut traffic = |name: &str, goal, open: fn(&Site, SocketAddr, usize) -> Field, flows, traffic: Traffic| {
        loads.push(Load {
            name: name.to_owned(),
            goal,
            repeats: true,
            offer: Box::new(move |server, window| {
                let mut field = open(site, server.at(), flows);
                relay(server, &mut field, traffic, window)
            }),
        });
    };
    let voice = Traffic {
        bytes: VOICE_BYTES,
        train: 1,
        packets_per_second: 50_000,
    };
    let video = Traffic {
        bytes: VIDEO_BYTES,
        ..voice
    };
    for (flows, goal) in [
        (10, "ratio <= 0.60"),
        (100, "ratio <= 0.60"),
        (1000, "ratio <= 0.50 up, 0.55 down"),
    ] {
        if plan.quick && flows == 100 {
            continue;
        }
        traffic(
            &format!("160 B, {flows} allocations, up"),
            goal,
            Field::up,
            flows,
            voice,
        );
        traffic(
            &format!("160 B, {flows} allocations, down"),
            goal,
            Field::down,
            flows,
            voice,
        );
        if !plan.quick {
            traffic(
                &format!("1200 B, {flows} allocations, up"),
                "ratio <= 0.60",
                Field::up,
                flows,
                video,
            );
            traffic(
                &format!("1200 B, {flows} allocations, down"),
                "ratio <= 0.60",
                Field::down,
                flows,
                video,
            );
        }
    }
    let trains = Traffic { train: 8, ..video };
    traffic(
        "1200 B in trains of 8, 100 allocations, up",
        "ratio <= 0.60",
        Field::up,
        100,
        trains,
    );
    traffic(
        "1200 B in trains of 8, 100 allocations, down",
        "ratio <= 0.60",
        Field::down,
        100,
        trains,
    );
    let light = Traffic {
        packets_per_second: 5_000,
        ..voice
    };
    traffic(
        "160 B, 100 allocations, 5,000/s, up",
        "ratio <= 0.90, no added delay",
        Field::up,
        100,
        light,
    );
    traffic(
        "160 B, 100 allocations, 5,000/s, down",
        "ratio <= 0.90, no added delay",
        Field::down,
        100,
        light,
    );
    traffic(
        "160 B, 1000 allocations in pairs",
        "ratio <= 0.45 of turn-rs",
        Field::pairs,
        1000,
        voice,
    );
    let stream = Traffic {
        packets_per_second: 20_000,
        ..voice
    };
    traffic(
        "160 B, 100 allocations over TCP, 20,000/s, up",
        "ratio <= 0.60",
        Field::stream_up,
        100,
        stream,
    );
    traffic(
        "160 B, 100 allocations over TCP, 20,000/s, down",
        "ratio <= 0.60",
        Field::stream_down,
        100,
        stream,
    );

    let cycles = plan.size(2000, 500);
    loads.push(Load {
        name: format!("{cycles} allocation cycles: 401, Allocate, permission, channel, Refresh 0"),
        goal: "ratio <= 0.60",
        repeats: true,
        offer: Box::new(move |server, _| cycle(site, server, cycles)),
    });
    loads.push(Load {
        name: "from start to the first allocation".into(),
        goal: "<= 25 ms",
        repeats: true,
        offer: Box::new(move |server, _| start(site, server)),
    });
    let again = plan.size(500, 100);
    loads.push(Load {
        name: format!("Allocate right after Refresh 0 on the same 5-tuple, {again} times"),
        goal: "0 failures",
        repeats: false,
        offer: Box::new(move |server, _| again_at_once(site, server, again)),
    });
    let counts = plan.size([1000, 5000, 9000], [500, 1000, 2000]);
    loads.push(Load {
        name: format!("memory of an idle allocation with a channel, of {counts:?}"),
        goal: "<= 4 KiB, flat",
        repeats: false,
        offer: Box::new(move |server, _| idle(site, server, counts)),
    });
    loads.retain(|load| plan.only.is_empty() || plan.only.iter().any(|word| load.name.contains(word)));
    loads
}

/// Offers packets for a window, after a moment that is not charged.
fn relay(server: &Server<'_>, field: &mut Field, traffic: Traffic, window: Duration) -> Vec<Figure> {
    field.offer(traffic, window / 10);
    let (relayed, cost) = server.charged(|| field.offer(traffic, window));
    let mut delays = relayed.delays;
    let arrived = delays.len() as f64;
    vec![
        figure("CPU µs a packet", cost.as_secs_f64() * 1e6 / arrived),
        figure("offered/s", relayed.sent as f64 / window.as_secs_f64()),
        figure("lost %", (relayed.sent as f64 - arrived) * 100.0 / relayed.sent as f64),
        figure("p50 µs", delays.micros(0.5)),
        figure("p99 µs", delays.micros(0.99)),
    ]
}

/// Makes and deletes allocations, one after the other.
fn cycle(site: &Site, server: &Server<'_>, cycles: usize) -> Vec<Figure> {
    let peer = site.at(PEER, 10_000);
    let start = Instant::now();
    let ((), cost) = server.charged(|| {
        for number in 0..cycles {
            let (mut user, _) = User::allocated(User::udp, client(site, number), server.at());
            user.permit(peer);
            user.bind(peer);
            user.refresh(0);
        }
    });
    vec![
        figure("CPU µs a cycle", cost.as_secs_f64() * 1e6 / cycles as f64),
        figure("cycles/s", cycles as f64 / start.elapsed().as_secs_f64()),
    ]
}

/// Starts the server anew and allocates as soon as it lets us.
fn start(site: &Site, server: &mut Server<'_>) -> Vec<Figure> {
    server.stop();
    let since = Instant::now();
    server.launch();
    let deadline = deadline();
    loop {
        assert!(remaining(deadline).is_some(), "no allocation");
        let socket = UdpSocket::bind((client(site, 0), 0)).expect("a socket");
        socket.connect(server.at()).expect("an address");
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .expect("a timeout above zero");
        // Until it has bound its port, the kernel answers in its place.
        let asked = socket.send(&Message::request(method::BINDING).encode());
        if asked.and_then(|_| socket.recv(&mut [0; 1024])).is_ok() {
            break;
        }
    }
    User::allocated(User::udp, client(site, 1), server.at());
    let took = since.elapsed();
    // Others than the first may still be starting.
    thread::sleep(SETTLE);
    vec![figure("ms", took.as_secs_f64() * 1e3)]
}

/// Deletes an allocation and makes another one at once, from the same port to the same port.
fn again_at_once(site: &Site, server: &Server<'_>, times: usize) -> Vec<Figure> {
    let mut user = User::udp(client(site, 0), server.at());
    let (mut refused, mut mismatched) = (0, 0);
    for _ in 0..times {
        match user.try_allocate().error_code() {
            None => user.refresh(0),
            Some(437) => mismatched += 1,
            Some(_) => refused += 1,
        }
    }
    vec![
        figure("437 %", f64::from(mismatched) * 100.0 / times as f64),
        figure("other refusals %", f64::from(refused) * 100.0 / times as f64),
    ]
}

/// Starts the server anew and makes more and more allocations.
fn idle(site: &Site, server: &mut Server<'_>, counts: [usize; 3]) -> Vec<Figure> {
    server.restart();
    let mut users = Vec::new();
    let mut grow = |count| {
        while users.len() < count {
            let (mut user, _) = User::allocated(User::udp, client(site, users.len()), server.at());
            user.bind(site.at(PEER, 10_000));
            users.push(user);
        }
        thread::sleep(SETTLE);
        server.memory_kib()
    };
    // A few, so that what is made with the first ones is not theirs.
    let first = 10;
    let before = grow(first);
    let [few, some, many] = counts.map(|count| (grow(count) - before) / (count - first) as f64);
    let (all, cost) = server.charged(|| {
        thread::sleep(SETTLE);
        server.memory_kib()
    });
    vec![
        figure("KiB each at the 2nd", some),
        figure("at the 1st", few),
        figure("at the 3rd", many),
        figure("KiB in all", all),
        figure("idle CPU %", cost.as_secs_f64() * 100.0 / SETTLE.as_secs_f64()),
    ]
}

/// The address of a client.
fn client(site: &Site, number: usize) -> IpAddr {
    site.host(CLIENTS + (number / CLIENTS_PER_HOST % 20) as u8)
}

fn recipes<'a>(site: &'a Site, plan: &Plan) -> Vec<Recipe<'a>> {
    let mut recipes = edges(site, plan, PORT, |host| {
        format!(
            r#"
[turn]
listen = "$net.{host}:{PORT}"
relay = "$net.{host}"
relay_ports = "30000-39999"
realm = "edge.test"
public_peers = false

[[turn.user]]
name = "{}"
password = "{}"

[[turn.peer]]
net = "$net.{PEER}/32"
ports = "1024-65535"

[turn.limits]
allocations_per_user_max = 10000
unauthenticated_per_second = 1000000
returned_packets_per_second = 1000000
"#,
            USER.0, USER.1
        )
    });
    recipes.push(Recipe {
        name: "coturn".into(),
        is_edge: false,
        needs: &["/usr/bin/turnserver"],
        at: site.at(COTURN, PORT),
        launch: Box::new(|| {
            let address = site.host(COTURN).to_string();
            let mut command = Command::new("/usr/bin/turnserver");
            command.current_dir(site.folder());
            command.args(["-n", "-L", &address, "-E", &address, "-p", "3478"]);
            command.args(["-a", "-r", "edge.test", "-u", &format!("{}:{}", USER.0, USER.1)]);
            command.args(["--min-port", "30000", "--max-port", "39999", "--allow-loopback-peers"]);
            command.args([
                "--no-cli",
                "--no-tls",
                "--no-dtls",
                "--no-stdout-log",
                "--log-file",
                "/dev/null",
            ]);
            command.args(["--pidfile", "coturn.pid", "--userdb", "coturn.db"]);
            vec![Process::spawn("coturn", &mut command)]
        }),
    });
    recipes
}
