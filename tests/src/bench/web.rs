//! What does a proxied request cost, a handshake, a WebSocket? The edge, nginx and HAProxy before the same upstream.

use std::{
    collections::VecDeque,
    fs,
    net::IpAddr,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, client::Resumption};

use self::upstream::Upstream;
use super::{
    Plan,
    fleet::{Count, Fleet, offer, tls, until},
    frame::{self, Side},
    report,
    rounds::{Delays, Figure, Load, Offer, figure, measure},
    server::{self, Recipe, Server, edges, nginx},
};
use crate::{
    process::Process,
    site::{NAME, Site},
};

mod upstream;

/// The port for HTTPS.
const PORT: u16 = 8443;
/// nginx and HAProxy stand on these hosts, the upstream on the third.
const NGINX: u8 = 11;
const HAPROXY: u8 = 12;
const UPSTREAM: u8 = 20;
/// Clients come from this host and those behind it.
const CLIENTS: u8 = 100;
const HOSTS: usize = 100;
/// Bytes of an echoed message.
const ECHO_BYTES: usize = 200;
/// How long an idle server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);
/// Handshakes that may be under way at once while many connections are opened.
const OPENING_MAX: usize = 32;
const PORTION: usize = 500;

/// Measures everything and returns the page.
pub fn run(plan: &Plan) -> String {
    let site = Site::new();
    site.write_certificate();
    let mut servers = Server::start_all(recipes(&site, plan));
    let loads = loads(&site, plan);
    let results = measure(plan, &mut servers, &loads);
    report::page("web", plan, &["nginx", "haproxy"], &loads, &results)
}

/// All loads that the plan wants.
fn loads<'a>(site: &'a Site, plan: &Plan) -> Vec<Load<'a>> {
    let mut loads = Vec::new();
    let mut repeated = |name: String, goal, offer: Offer<'a>| {
        loads.push(Load {
            name,
            goal,
            repeats: true,
            offer,
        });
    };
    repeated(
        "GET of 1 KiB on 64 kept connections, 10,000/s".into(),
        "ratio <= 0.77 (aim 0.63), not above HAProxy",
        Box::new(|server, window| kept(site, server, window, 64, 10_000)),
    );
    repeated(
        "full handshake, GET, close, 500/s".into(),
        "ratio <= 0.50 (aim 0.40)",
        Box::new(|server, window| handshakes(site, server, window, 500, Resumption::disabled())),
    );
    repeated(
        "resumed handshake, GET, close, 500/s".into(),
        "ratio <= 0.67",
        Box::new(|server, window| handshakes(site, server, window, 500, Resumption::in_memory_sessions(256))),
    );
    let sockets = plan.size(500, 200);
    repeated(
        format!("echo of 200 B through {sockets} WebSockets, 10,000/s"),
        "ratio <= 0.77 (aim 0.63)",
        Box::new(move |server, window| echoes(site, server, window, sockets, 10_000)),
    );
    let idle_sockets = plan.size(9000, 1000);
    loads.push(Load {
        name: format!("memory of an idle WebSocket, of {idle_sockets}"),
        goal: "<= 12 KiB",
        repeats: false,
        offer: Box::new(move |server, _| idle(site, server, idle_sockets)),
    });
    loads.retain(|load| plan.only.is_empty() || plan.only.iter().any(|word| load.name.contains(word)));
    loads
}

/// Clients, and the upstream behind the proxy.
struct World<'a> {
    site: &'a Site,
    fleet: Fleet,
    upstream: Upstream,
    opened: usize,
}

impl<'a> World<'a> {
    fn new(site: &'a Site, server: &Server<'_>, tls: Arc<ClientConfig>) -> Self {
        Self {
            site,
            fleet: Fleet::new(server.at(), tls),
            upstream: Upstream::bind(site.at(UPSTREAM, 8080)),
            opened: 0,
        }
    }

    /// Connects another client, from another host than the one before.
    fn open(&mut self) -> usize {
        self.opened += 1;
        self.fleet.open(client(self.site, self.opened))
    }

    /// Looks after the upstream and the clients, and tells of each client that something has happened to.
    fn turn(&mut self, happened: impl FnMut(&mut Fleet, usize)) {
        self.upstream.turn();
        self.fleet.turn(happened);
    }

    /// Opens so many more connections, a few at once; `greeting` is sent first on each, and it is open once answered.
    fn fill(&mut self, count: usize, greeting: &str) {
        // In portions, so that the patience is for a portion.
        let mut left = count;
        while left > 0 {
            let portion = left.min(PORTION);
            self.fill_portion(portion, greeting);
            left -= portion;
        }
    }

    fn fill_portion(&mut self, count: usize, greeting: &str) {
        let (mut begun, mut ready) = (0, 0);
        until(self, |world| {
            if begun < count && begun - ready < OPENING_MAX {
                begun += 1;
                let number = world.open();
                world.fleet.link(number).send(greeting.as_bytes());
            }
            world.turn(|fleet, number| {
                let link = fleet.link(number);
                assert!(!link.ended, "the server has closed a connection");
                if let Some(length) = response_bytes(&link.inbox) {
                    link.inbox.drain(..length);
                    ready += 1;
                }
            });
            ready == count
        });
    }
}

/// Requests on connections that are kept.
fn kept(site: &Site, server: &Server<'_>, window: Duration, connections: usize, per_second: u32) -> Vec<Figure> {
    let mut world = World::new(site, server, tls(site));
    world.fill(connections, &get("keep-alive"));
    let run = |world: &mut World<'_>, window| {
        let mut delays = Delays::default();
        let mut idle: VecDeque<usize> = (0..connections).collect();
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let mut asked = vec![None; connections];
        let state = &mut (world, &mut idle, &mut waiting, &mut asked);
        let request = get("keep-alive");
        let count = offer(
            state,
            per_second,
            window,
            |(_, _, waiting, _), due| waiting.push_back(due),
            |(world, idle, waiting, asked)| {
                let mut done = 0;
                while let Some(number) = idle.front().copied()
                    && let Some(due) = waiting.pop_front()
                {
                    idle.pop_front();
                    asked[number] = Some(due);
                    world.fleet.link(number).send(request.as_bytes());
                }
                world.turn(|fleet, number| {
                    let link = fleet.link(number);
                    assert!(!link.ended, "the server has closed a kept connection");
                    if let Some(length) = response_bytes(&link.inbox)
                        && let Some(due) = asked[number].take()
                    {
                        link.inbox.drain(..length);
                        delays.push(due.elapsed());
                        idle.push_back(number);
                        done += 1;
                    }
                });
                done
            },
        );
        (count, delays)
    };
    run(&mut world, window / 10);
    let ((count, delays), cost) = server.charged(|| run(&mut world, window));
    figures("CPU µs a request", cost, window, count, delays)
}

/// Connections that are used once.
fn handshakes(
    site: &Site,
    server: &Server<'_>,
    window: Duration,
    per_second: u32,
    resumption: Resumption,
) -> Vec<Figure> {
    let mut config = (*tls(site)).clone();
    config.resumption = resumption;
    let mut world = World::new(site, server, Arc::new(config));
    let mut resumed = 0;
    let mut run = |world: &mut World<'_>, window| {
        let mut delays = Delays::default();
        let mut due_of = Vec::new();
        let request = get("close");
        resumed = 0;
        let count = offer(
            &mut (world, &mut due_of),
            per_second,
            window,
            |(world, due_of), due| {
                let number = world.open();
                world.fleet.link(number).send(request.as_bytes());
                due_of.resize(due_of.len().max(number + 1), None);
                due_of[number] = Some(due);
            },
            |(world, due_of)| {
                let mut done = 0;
                world.turn(|fleet, number| {
                    let link = fleet.link(number);
                    if response_bytes(&link.inbox).is_some() {
                        // One that is left over from the warm-up does not count.
                        if let Some(due) = due_of.get_mut(number).and_then(Option::take) {
                            delays.push(due.elapsed());
                            resumed += usize::from(link.is_resumed());
                            done += 1;
                        }
                        fleet.close(number);
                    } else if link.ended {
                        fleet.close(number);
                    }
                });
                done
            },
        );
        (count, delays)
    };
    // Brings the first tickets, where there are any.
    run(&mut world, window / 10);
    let ((count, delays), cost) = server.charged(|| run(&mut world, window));
    let mut figures = figures("CPU µs a connection", cost, window, count, delays);
    figures.push(figure("resumed %", resumed as f64 * 100.0 / count.done as f64));
    figures
}

/// Messages through WebSockets and back.
fn echoes(site: &Site, server: &Server<'_>, window: Duration, sockets: usize, per_second: u32) -> Vec<Figure> {
    let mut world = World::new(site, server, tls(site));
    world.fill(sockets, &upgrade());
    let run = |world: &mut World<'_>, window| {
        let mut delays = Delays::default();
        let mut next = 0;
        // When each message was due that a WebSocket has not echoed yet.
        let mut asked = vec![VecDeque::new(); sockets];
        let count = offer(
            &mut (world, &mut asked),
            per_second,
            window,
            |(world, asked), due| {
                let mut message = Vec::new();
                frame::write(&mut message, Side::Client, frame::TEXT, &[b'e'; ECHO_BYTES]);
                world.fleet.link(next).send(&message);
                asked[next].push_back(due);
                next = (next + 1) % sockets;
            },
            |(world, asked)| {
                let mut done = 0;
                world.turn(|fleet, number| {
                    let link = fleet.link(number);
                    while let Some(frame) = frame::read(&mut link.inbox) {
                        link.inbox.drain(..frame.payload.end);
                        if frame.opcode == frame::TEXT
                            && let Some(due) = asked[number].pop_front()
                        {
                            delays.push(due.elapsed());
                            done += 1;
                        }
                    }
                });
                done
            },
        );
        (count, delays)
    };
    run(&mut world, window / 10);
    let ((count, delays), cost) = server.charged(|| run(&mut world, window));
    figures("CPU µs an echo", cost, window, count, delays)
}

/// WebSockets on which nothing happens.
fn idle(site: &Site, server: &mut Server<'_>, sockets: usize) -> Vec<Figure> {
    server.restart();
    let mut world = World::new(site, server, tls(site));
    // A few, so that what is made with the first ones is not theirs.
    let first = 10;
    world.fill(first, &upgrade());
    thread::sleep(SETTLE);
    let before = server.memory_kib();
    world.fill(sockets - first, &upgrade());
    thread::sleep(SETTLE);
    let (after, cost) = server.charged(|| {
        let after = server.memory_kib();
        thread::sleep(SETTLE);
        after
    });
    vec![
        figure("KiB each", (after - before) / (sockets - first) as f64),
        figure("KiB in all", after),
        figure("idle CPU %", cost.as_secs_f64() * 100.0 / SETTLE.as_secs_f64()),
    ]
}

fn figures(name: &'static str, cost: Duration, window: Duration, count: Count, mut delays: Delays) -> Vec<Figure> {
    vec![
        figure(name, cost.as_secs_f64() * 1e6 / count.done as f64),
        figure("offered/s", count.offered as f64 / window.as_secs_f64()),
        figure("lost %", count.lost_percent()),
        figure("p50 µs", delays.micros(0.5)),
        figure("p99 µs", delays.micros(0.99)),
    ]
}

fn get(connection: &str) -> String {
    format!(
        "GET /app/page HTTP/1.1\r\nHost: {NAME}:{PORT}\r\nUser-Agent: bench\r\nAccept: */*\r\n\
         Accept-Language: en\r\nConnection: {connection}\r\n\r\n"
    )
}

fn upgrade() -> String {
    // The key of RFC 6455 section 1.3: no server cares that it is not random.
    format!(
        "GET /socket HTTP/1.1\r\nHost: {NAME}:{PORT}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Origin: https://{NAME}:{PORT}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Length of the response at the front where it is whole; one without a Content-Length has no body.
fn response_bytes(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head in ASCII");
    assert!(
        text.starts_with("HTTP/1.1 200") || text.starts_with("HTTP/1.1 101"),
        "{text}"
    );
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"))
        .map_or(0, |(_, value)| value.trim().parse().expect("a length"));
    (bytes.len() >= head + length).then_some(head + length)
}

/// The address of a client.
fn client(site: &Site, number: usize) -> IpAddr {
    site.host(CLIENTS + (number % HOSTS) as u8)
}

fn recipes<'a>(site: &'a Site, plan: &Plan) -> Vec<Recipe<'a>> {
    let mut recipes = edges(site, plan, PORT, |host| EDGE.replace("$host", &host.to_string()));
    recipes.push(Recipe {
        name: "nginx".into(),
        is_edge: false,
        needs: &[server::NGINX],
        at: site.at(NGINX, PORT),
        launch: Box::new(|| vec![nginx(site, site.at(NGINX, PORT), NGINX_HTTP, NGINX_SERVER)]),
    });
    site.write("haproxy.cfg", &site.fill(HAPROXY_CFG));
    let read = |name| fs::read_to_string(site.folder().join(name)).expect("a file of the site");
    // HAProxy wants both in one file.
    site.write("edge.pair.pem", &(read("edge.pem") + &read("edge.key")));
    recipes.push(Recipe {
        name: "HAProxy".into(),
        is_edge: false,
        needs: &["/usr/sbin/haproxy"],
        at: site.at(HAPROXY, PORT),
        launch: Box::new(|| {
            let mut command = Command::new("/usr/sbin/haproxy");
            command.current_dir(site.folder()).args(["-db", "-f", "haproxy.cfg"]);
            vec![Process::spawn("HAProxy", &mut command)]
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

[https.limits]
tunnel_idle_secs = 3600

[[web.upstream]]
name = "upstream"
url = "http://$net.20:8080"

[[web.route]]
path = "/app"

[[web.route]]
path = "/socket"
websocket = true
"#;

const NGINX_HTTP: &str = "
    keepalive_requests 100000000;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    upstream backend { server $net.20:8080; keepalive 64; keepalive_requests 100000000; }
";

const NGINX_SERVER: &str = "
        location /app { proxy_pass http://backend; proxy_set_header Connection \"\"; }
        location /socket {
            proxy_pass http://backend;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 3600s;
        }
";

const HAPROXY_CFG: &str = "
global
    maxconn 9200
    stats timeout 10s
defaults
    mode http
    http-reuse always
    option forwardfor
    timeout connect 3s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend https
    bind $net.12:8443 ssl crt edge.pair.pem alpn http/1.1
    http-request deny unless { path_beg /app } || { path /socket }
    default_backend upstream
backend upstream
    server one $net.20:8080
";
