//! How is a server under load started, ended, and charged for what it uses?

use std::{
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use super::{Plan, cost};
use crate::{deadline, edge, process::Process, remaining, site::Site, skipped};

/// A server under load: one program or, where one stands before another, several.
pub struct Server<'a> {
    recipe: Recipe<'a>,
    processes: Vec<Process>,
}

/// How to start a server.
pub struct Recipe<'a> {
    /// Its name in the tables.
    pub name: String,
    /// Whether it is ours.
    pub is_edge: bool,
    /// Programs that must be installed.
    pub needs: &'static [&'static str],
    /// Where clients reach it; it is up when this port takes connections.
    pub at: SocketAddr,
    /// Starts it.
    pub launch: Box<dyn Fn() -> Vec<Process> + 'a>,
}

/// How long a server may take to end before it is killed.
const END: Duration = Duration::from_secs(5);

/// How often to look whether something has happened.
const LOOK: Duration = Duration::from_millis(1);

/// Descriptors that the generator and the servers need for 9,000 tunnels, each with two ends.
const DESCRIPTORS: u64 = 19_000;

impl<'a> Server<'a> {
    /// Starts each server whose programs are installed, and says which are skipped.
    pub fn start_all(recipes: Vec<Recipe<'a>>) -> Vec<Self> {
        raise_descriptor_limit();
        recipes
            .into_iter()
            .filter(|recipe| {
                let missing = recipe.needs.iter().find(|program| !Path::new(program).exists());
                if let Some(missing) = missing {
                    skipped(&format!("{}: there is no {missing}", recipe.name));
                }
                missing.is_none()
            })
            .map(|recipe| {
                let mut server = Self {
                    recipe,
                    processes: Vec::new(),
                };
                server.restart();
                server
            })
            .collect()
    }

    /// Ends it and starts it anew.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
        let deadline = deadline();
        while TcpStream::connect(self.at()).is_err() {
            assert!(
                remaining(deadline).is_some(),
                "{} does not start: {:?}",
                self.name(),
                self.said()
            );
            thread::sleep(LOOK);
        }
    }

    /// Ends it.
    pub fn stop(&mut self) {
        for process in self.processes.drain(..) {
            let family = cost::family(&[process.id()]);
            process.signal(Signal::TERM);
            let since = Instant::now();
            while since.elapsed() < END && !process.has_ended() {
                thread::sleep(LOOK);
            }
            // Dropping it kills the first of the family; these are the rest.
            if !process.has_ended() {
                for id in family.into_iter().filter(|id| *id != process.id()) {
                    if let Some(id) = Pid::from_raw(id.cast_signed()) {
                        // It may have ended just now.
                        let _ = kill_process(id, Signal::KILL);
                    }
                }
            }
        }
    }

    /// Starts it, after [`Server::stop`], without waiting until it is up.
    pub fn launch(&mut self) {
        self.processes = (self.recipe.launch)();
    }

    /// Its name in the tables.
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    /// Whether it is ours.
    pub fn is_edge(&self) -> bool {
        self.recipe.is_edge
    }

    /// Where clients reach it.
    pub fn at(&self) -> SocketAddr {
        self.recipe.at
    }

    /// Runs `work` and returns the processor time that the server used meanwhile.
    pub fn charged<T>(&self, work: impl FnOnce() -> T) -> (T, Duration) {
        let family = self.family();
        let before = cost::processor(&family);
        let result = work();
        (result, cost::processor(&family).saturating_sub(before))
    }

    /// Its memory in KiB.
    pub fn memory_kib(&self) -> f64 {
        cost::memory_kib(&self.family())
    }

    fn family(&self) -> Vec<u32> {
        let roots: Vec<u32> = self.processes.iter().map(Process::id).collect();
        cost::family(&roots)
    }

    fn said(&self) -> Vec<String> {
        self.processes.iter().flat_map(Process::lines).collect()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The edge on both runtimes, or each of the edges that the plan names, on hosts from 1 on. `config` gives the
/// configuration for a host.
pub fn edges<'a>(site: &'a Site, plan: &Plan, port: u16, config: impl Fn(u8) -> String) -> Vec<Recipe<'a>> {
    let edges = match &plan.edges[..] {
        [] => runtimes(),
        [edge] => vec![("edge".to_owned(), edge.clone())],
        edges => (1..)
            .zip(edges)
            .map(|(number, edge)| (format!("edge {number}"), edge.clone()))
            .collect(),
    };
    (1..)
        .zip(edges)
        .map(|(host, (name, binary))| {
            let file = format!("edge{host}.toml");
            site.write(&file, &site.fill(&config(host)));
            Recipe {
                name,
                is_edge: true,
                needs: &[],
                at: site.at(host, port),
                launch: Box::new(move || {
                    let mut command = Command::new(&binary);
                    command.current_dir(site.folder());
                    command.args(["run", "--log", "warn", "--config", &file]);
                    vec![Process::spawn("edge", &mut command)]
                }),
            }
        })
        .collect()
}

/// The binaries of both runtimes, where this machine lets them run, by their names in the tables.
fn runtimes() -> Vec<(String, PathBuf)> {
    let glommio = edge::build("edgeward-glommio");
    let mut runtimes = vec![("edge".to_owned(), edge::binary().to_owned())];
    match edge::obstacle(&glommio) {
        Some(obstacle) => skipped(&format!("edge on glommio: {obstacle}")),
        None => runtimes.push(("edge on glommio".into(), glommio)),
    }
    runtimes
}

/// Where nginx is installed.
pub const NGINX: &str = "/usr/sbin/nginx";

/// Starts nginx with TLS at this address. `http` and `server` are what goes into these blocks of its configuration beside
/// what every load wants.
pub fn nginx(site: &Site, listen: SocketAddr, http: &str, server: &str) -> Process {
    let config = NGINX_CONF
        .replace("$listen", &listen.to_string())
        .replace("$http_block", http)
        .replace("$server_block", server);
    site.write("nginx.conf", &site.fill(&config));
    let mut command = Command::new(NGINX);
    let folder = format!("{}/", site.folder().display());
    command.args(["-p", &folder, "-c", "nginx.conf", "-e", "stderr"]);
    Process::spawn("nginx", &mut command)
}

const NGINX_CONF: &str = "
daemon off;
user root;
pid nginx.pid;
worker_processes auto;
error_log stderr warn;
events { worker_connections 19000; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    $http_block
    server {
        listen $listen ssl reuseport;
        server_name edge.test;
        ssl_certificate edge.pem;
        ssl_certificate_key edge.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;
        $server_block
    }
}
";

/// Raises the limit of open files of this process, which those that it starts inherit, to what the system allows.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() || maximum.is_some_and(|maximum| maximum < DESCRIPTORS) {
        skipped(&format!(
            "raising the limit of open files to {DESCRIPTORS}: loads with thousands of clients may fail"
        ));
    }
}
