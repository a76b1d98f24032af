//! What does a call cost, and a registration? The edge, and nginx before Kamailio, between browsers and one mediaserver.

use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use self::world::World;
use super::{
    Plan,
    fleet::offer,
    report,
    rounds::{Delays, Figure, Load, figure, measure},
    server::{self, Recipe, Server, edges, nginx},
};
use crate::{process::Process, site::Site};

mod world;

/// The port for WebSockets, and the one for SIP over UDP of every server and of the mediaserver.
const PORT: u16 = 8443;
const SIP: u16 = 5060;
/// nginx and Kamailio stand on this host, the mediaserver on the other.
const CHAIN: u8 = 11;
const MEDIASERVER: u8 = 20;
/// How long an idle server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);
/// Browsers that come a second, when that is not what is measured.
const ARRIVALS: u32 = 300;

/// Measures everything and returns the page.
pub fn run(plan: &Plan) -> String {
    let site = Site::new();
    site.write_certificate();
    // One for all, so that no server misses the answers to its health checks while another has its turn.
    let mediaserver = UdpSocket::bind(site.at(MEDIASERVER, SIP)).expect("an address");
    mediaserver.set_nonblocking(true).expect("an option");
    let mut servers = Server::start_all(recipes(&site, plan));
    let loads = loads(&site, &mediaserver, plan);
    let results = measure(plan, &mut servers, &loads);
    report::page("sip", plan, &["nginx", "kamailio"], &loads, &results)
}

/// All loads that the plan wants.
fn loads<'a>(site: &'a Site, mediaserver: &'a UdpSocket, plan: &Plan) -> Vec<Load<'a>> {
    let mut loads = Vec::new();
    let browsers = plan.size(500, 200);
    let mut repeated = |name: String, goal, unit, per_second, begin: fn(&mut World<'a>, Instant)| {
        loads.push(Load {
            name,
            goal,
            repeats: true,
            offer: Box::new(move |server, window| {
                let mut world = World::new(site, mediaserver, server.at());
                world.arrive(browsers, ARRIVALS);
                fixed(server, &mut world, window, unit, per_second, begin)
            }),
        });
    };
    repeated(
        "call, browser to mediaserver, 200/s".into(),
        "ratio <= 0.25 (aim 0.17), <= 225 µs, p99 <= 1000 µs",
        "CPU µs a call",
        200,
        World::call_up,
    );
    repeated(
        "call, mediaserver to browser, 200/s".into(),
        "ratio <= 0.25 (aim 0.17), <= 225 µs, p99 <= 1000 µs",
        "CPU µs a call",
        200,
        World::call_down,
    );
    repeated(
        format!("REGISTER again with its 401, {browsers}/s"),
        "ratio <= 0.25",
        "CPU µs a registration",
        browsers as u32,
        World::register_next,
    );
    let (crowd, per_second) = plan.size((9000, 600), (1200, 300));
    loads.push(Load {
        name: format!("{crowd} browsers open and register, {per_second}/s"),
        goal: "<= 8 KiB each, all succeed, p99 <= 100 ms",
        repeats: false,
        offer: Box::new(move |server, _| storm(site, mediaserver, server, crowd, per_second)),
    });
    loads.retain(|load| plan.only.is_empty() || plan.only.iter().any(|word| load.name.contains(word)));
    loads
}

/// Offers calls or registrations for a window, after a moment that is not charged.
fn fixed<'a>(
    server: &Server<'_>,
    world: &mut World<'a>,
    window: Duration,
    unit: &'static str,
    per_second: u32,
    begin: fn(&mut World<'a>, Instant),
) -> Vec<Figure> {
    offer(world, per_second, window / 5, begin, World::turn);
    world.delays = Delays::default();
    let (count, cost) = server.charged(|| offer(world, per_second, window, begin, World::turn));
    vec![
        figure(unit, cost.as_secs_f64() * 1e6 / count.done as f64),
        figure("offered/s", count.offered as f64 / window.as_secs_f64()),
        figure("lost %", count.lost_percent()),
        figure("p50 µs", world.delays.micros(0.5)),
        figure("p99 µs", world.delays.micros(0.99)),
    ]
}

/// All browsers come back at once, as fast as the load says, and stay.
fn storm(
    site: &Site,
    mediaserver: &UdpSocket,
    server: &mut Server<'_>,
    browsers: usize,
    per_second: u32,
) -> Vec<Figure> {
    server.restart();
    let mut world = World::new(site, mediaserver, server.at());
    // A few, so that what is made with the first ones is not theirs.
    let first = 10;
    world.arrive(first, ARRIVALS);
    thread::sleep(SETTLE);
    let before = server.memory_kib();
    world.delays = Delays::default();
    let (count, cost) = server.charged(|| world.try_to_arrive(browsers - first, per_second));
    thread::sleep(SETTLE);
    let (after, idle_cost) = server.charged(|| {
        let after = server.memory_kib();
        thread::sleep(SETTLE);
        after
    });
    vec![
        figure("KiB each", (after - before) / count.done as f64),
        figure("KiB in all", after),
        figure("CPU µs to arrive", cost.as_secs_f64() * 1e6 / count.done as f64),
        figure("lost %", count.lost_percent()),
        figure("REGISTER p50 ms", world.delays.micros(0.5) / 1e3),
        figure("p99 ms", world.delays.micros(0.99) / 1e3),
        figure("idle CPU %", idle_cost.as_secs_f64() * 100.0 / SETTLE.as_secs_f64()),
    ]
}

/// Where a server that browsers reach here speaks SIP.
fn sip_address(server: SocketAddr) -> SocketAddr {
    SocketAddr::new(server.ip(), SIP)
}

fn recipes<'a>(site: &'a Site, plan: &Plan) -> Vec<Recipe<'a>> {
    let mut recipes = edges(site, plan, PORT, |host| EDGE.replace("$host", &host.to_string()));
    site.write("kamailio.cfg", &site.fill(KAMAILIO_CFG));
    recipes.push(Recipe {
        name: "nginx + Kamailio".into(),
        is_edge: false,
        needs: &[
            server::NGINX,
            "/usr/sbin/kamailio",
            "/usr/lib/x86_64-linux-gnu/kamailio/modules/websocket.so",
            "/usr/lib/x86_64-linux-gnu/kamailio/modules/outbound.so",
        ],
        at: site.at(CHAIN, PORT),
        launch: Box::new(|| {
            let folder = site.folder().display().to_string();
            let mut kamailio = Command::new("/usr/sbin/kamailio");
            kamailio.current_dir(site.folder());
            kamailio.args([
                "-f",
                "kamailio.cfg",
                "-DD",
                "-E",
                "-m",
                "2048",
                "-M",
                "32",
                "-Y",
                &folder,
            ]);
            kamailio.args(["-P", "kamailio.pid"]);
            let kamailio = Process::spawn("Kamailio", &mut kamailio);
            vec![nginx(site, site.at(CHAIN, PORT), "", NGINX_SERVER), kamailio]
        }),
    });
    recipes
}

const EDGE: &str = r#"
[server]
connections_per_address_max = 40000

[https]
listen = "$net.$host:8443"
certificates = [{ cert = "edge.pem", key = "edge.key" }]
hosts = ["edge.test"]

[sip]
listen = "$net.$host:5060"
public_host = "edge.test:8443"
origins = ["https://edge.test:8443"]

[[sip.mediaserver]]
name = "default"
address = "$net.20:5060"
"#;

const NGINX_SERVER: &str = "
        location /wssip {
            proxy_pass http://$net.11:8080;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 3600s;
        }
";

/// Between browsers and one mediaserver, with flow tokens (RFC 5626) in Path and Record-Route.
const KAMAILIO_CFG: &str = r#"#!KAMAILIO
debug=0
log_stderror=yes
auto_aliases=no
children=2
tcp_children=2
tcp_max_connections=19000
tcp_accept_no_cl=yes
tcp_connection_lifetime=3604
tcp_rd_buf_size=16384
listen=udp:$net.11:5060
listen=tcp:$net.11:8080
alias="edge.test:8443"

mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "kex.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "pv.so"
loadmodule "outbound.so"
loadmodule "rr.so"
loadmodule "path.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "sanity.so"
loadmodule "xhttp.so"
loadmodule "websocket.so"

modparam("outbound", "force_outbound_flag", 8)
modparam("websocket", "keepalive_timeout", 180)

request_route {
    if (!mf_process_maxfwd_header("10")) {
        sl_send_reply("483", "Too Many Hops");
        exit;
    }
    if (!sanity_check()) {
        exit;
    }
    if (proto == WS || proto == WSS) {
        setflag(8);
    }
    if (is_method("CANCEL")) {
        if (t_check_trans()) {
            t_relay();
        }
        exit;
    }
    if (is_method("OPTIONS") && uri == myself) {
        sl_send_reply("200", "OK");
        exit;
    }
    if (loose_route()) {
        if (is_method("INVITE|SUBSCRIBE")) {
            record_route();
        }
        t_relay();
        exit;
    }
    if (is_method("ACK")) {
        if (t_check_trans()) {
            t_relay();
        }
        exit;
    }
    t_check_trans();
    if (!(proto == WS || proto == WSS)) {
        sl_send_reply("403", "Forbidden");
        exit;
    }
    remove_hf("Route");
    if (is_method("REGISTER")) {
        add_path();
    } else if (is_method("INVITE|SUBSCRIBE")) {
        record_route();
    }
    $du = "sip:$net.20:5060";
    t_relay();
}

event_route[xhttp:request] {
    if ($hdr(Upgrade) =~ "websocket" && $rm =~ "GET") {
        ws_handle_handshake();
        exit;
    }
    xhttp_reply("404", "Not Found", "", "");
}
"#;
