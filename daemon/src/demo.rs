//! What is behind the edge in the demonstration? A LAN in a box: a web server with a page, and a mediaserver.
//!
//! Both are in this process, but on a thread and a runtime of their own, and reached through real sockets only: to the
//! edge they are what a UC server and an Asterisk would be.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    rc::Rc,
    thread,
    time::Duration,
};

use edgeward_core::{config::Sources, tls::Provider};
use tokio::{sync::oneshot, task::LocalSet};

use crate::cli::Demo;

use self::{
    certificate::Certificate,
    directory::{Directory, hex, random},
    mediaserver::Mediaserver,
    upstream::Upstream,
};

mod certificate;
mod directory;
mod mediaserver;
mod upstream;

/// Who presses Ctrl-C does not want to wait.
pub(crate) const SHUTDOWN: Duration = Duration::from_millis(700);

/// The LAN in a box. It runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Lan {
    /// The web server, plain HTTP.
    pub(crate) upstream: SocketAddr,
    /// The mediaserver, SIP over UDP.
    pub(crate) mediaserver: SocketAddr,
    /// Who may log in, with their passwords.
    pub(crate) users: Vec<(String, String)>,
    /// What the web server shares with the TURN server of the edge.
    pub(crate) turn_secret: String,
    options: Demo,
    certificate: Certificate,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Lan {
    /// Starts the web server and the mediaserver. When it returns, both have their sockets and answer.
    ///
    /// # Errors
    /// When there is no socket, no thread or no certificate to be had.
    pub(crate) fn start(options: &Demo) -> io::Result<Self> {
        let (listener, socket) = open()?;
        listener.set_nonblocking(true)?;
        socket.set_nonblocking(true)?;
        let (upstream, mediaserver) = (listener.local_addr()?, socket.local_addr()?);
        let users = USERS
            .map(|(name, password)| (name.to_owned(), password.to_owned()))
            .to_vec();
        let turn_secret = hex(&random::<16>());
        let certificate = Certificate::new(&host_names(options.address))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = {
            let (users, turn_secret, options) = (users.clone(), turn_secret.clone(), options.clone());
            async move || {
                let directory = Rc::new(Directory::new(&users));
                let upstream = Rc::new(Upstream {
                    directory: Rc::clone(&directory),
                    turn: SocketAddr::new(options.address, options.turn_port),
                    turn_secret,
                });
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                let mediaserver = Mediaserver::new(socket, options.media_ports, directory)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    ended = upstream.run(listener) => ended,
                    ended = mediaserver.run() => ended,
                    _ = stopped => Ok(()),
                }
            }
        };
        let thread = thread::Builder::new().name("lan".into()).spawn(move || {
            if let Err(error) = LocalSet::new().block_on(&runtime, serve()) {
                tracing::error!(%error, "the LAN in the box has failed");
            }
        })?;
        Ok(Self {
            upstream,
            mediaserver,
            users,
            turn_secret,
            options: options.clone(),
            certificate,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The configuration of the edge before this LAN, as an administrator would write it.
    pub(crate) fn config_text(&self) -> String {
        let Self {
            upstream,
            mediaserver,
            turn_secret,
            options,
            ..
        } = self;
        let Demo {
            address,
            https_port,
            turn_port,
            sip_port,
            relay_ports,
            media_ports,
            ..
        } = options;
        let hosts = host_names(*address);
        let public_host = self.public_host();
        let [https, turn] = [*https_port, *turn_port].map(|port| SocketAddr::new(*address, port));
        let sip = SocketAddr::new(sip_address(*address).into(), *sip_port);
        let [relay_ports, media_ports] = [relay_ports, media_ports].map(|r| format!("{}-{}", r.start(), r.end()));
        format!(
            r#"# The edge of the demonstration. The certificate is in memory only.

[https]
listen = "{https}"
certificates = [{{ cert = "{CERTIFICATE_FILE}", key = "{KEY_FILE}" }}]
hosts = {hosts:?}

[[web.upstream]]
name = "uc"
url = "http://{upstream}"

[[web.route]]
path = "/"
exact = true

[[web.route]]
path = ["/ucassistant", "/xuc"]

[[web.route]]
path = "/xuc/api/2.0/cti"
exact = true
websocket = true

[sip]
listen = "{sip}"
public_host = "{public_host}"
token_required = true

[[sip.mediaserver]]
name = "default"
address = "{mediaserver}"
media_ports = "{media_ports}"

[turn]
listen = "{turn}"
relay = "{address}"
relay_ports = "{relay_ports}"
realm = "edgeward.demo"
secrets = ["{turn_secret}"]
"#
        )
    }

    /// Certificate and private key, made at the start, as PEM.
    pub(crate) fn certificate(&self) -> (&str, &str) {
        (&self.certificate.cert_pem, &self.certificate.key_pem)
    }

    /// Where the text of [`config_text`](Self::config_text) finds its files.
    pub(crate) fn sources(&self, provider: Provider) -> LanSources<'_> {
        LanSources { lan: self, provider }
    }

    /// What to tell who has started it: what to open, who may log in, what to expect.
    pub(crate) fn banner(&self) -> String {
        let Demo {
            address,
            https_port,
            turn_port,
            sip_port,
            relay_ports,
            media_ports,
            ..
        } = &self.options;
        let Self {
            upstream, mediaserver, ..
        } = self;
        let url = format!("https://{}/", self.public_host());
        let spki = &self.certificate.spki_sha256;
        let sip = SocketAddr::new(sip_address(*address).into(), *sip_port);
        let users: Vec<_> = self
            .users
            .iter()
            .map(|(name, password)| format!("{name} / {password}"))
            .collect();
        let users = users.join(" or ");
        let firefox = if address.is_loopback() {
            "\n  Firefox relays nothing through loopback: start with --address and an address of this machine.\n"
        } else {
            ""
        };
        format!(
            "
  Edgeward: an edge, and a LAN in a box behind it

  Open      {url}
            Your browser warns of the certificate: it was made a moment ago and nobody has signed it. Go on.
  Log in    {users}
  Call      600  an echo: you hear yourself
            601  hangs up after two seconds and calls you back
            602  rings and is not answered
            bob  once he has logged in too, in a private window

  Signalling goes by WebSocket to the edge and by SIP over UDP to the mediaserver; all media goes through the TURN
  relay. The page shows the candidate pair, packets, round trip, loss and jitter. TURN over TLS works once the browser
  trusts the certificate, for example:

    chromium --user-data-dir=/tmp/edgeward-demo {url} \\
      --ignore-certificate-errors-spki-list={spki}
{firefox}
  Edge      HTTPS {address}:{https_port}, SIP {sip}
            TURN {address}:{turn_port} by UDP, TCP and TLS, relays on {}-{}
  LAN       UC server http://{upstream}
            mediaserver {mediaserver}, media on {}-{}

  Ctrl-C ends it.
",
            relay_ports.start(),
            relay_ports.end(),
            media_ports.start(),
            media_ports.end(),
        )
    }

    /// Host and port as browsers name us.
    fn public_host(&self) -> String {
        let Demo {
            address, https_port, ..
        } = &self.options;
        match address {
            address if is_localhost(*address) => format!("localhost:{https_port}"),
            address => SocketAddr::new(*address, *https_port).to_string(),
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Its end drops the sender, which tells the thread.
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed already.
            let _ = thread.join();
        }
    }
}

/// Gives the configuration the certificate from memory.
#[derive(Debug)]
pub(crate) struct LanSources<'a> {
    lan: &'a Lan,
    provider: Provider,
}

impl Sources for LanSources<'_> {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let (cert, key) = self.lan.certificate();
        match path {
            CERTIFICATE_FILE => Ok(cert.into()),
            KEY_FILE => Ok(key.into()),
            _ => Err(format!("the demonstration has no file {path}")),
        }
    }

    fn env(&mut self, _name: &str) -> Option<String> {
        None
    }

    fn provider(&self) -> &Provider {
        &self.provider
    }
}

/// The sockets of the LAN, on an address of its own where the system has more than one on loopback. The usual SIP port
/// when it is free, else another.
fn open() -> io::Result<(TcpListener, UdpSocket)> {
    let ips = [LAN_ADDRESS, Ipv4Addr::LOCALHOST];
    let ip = ips.into_iter().find(|ip| UdpSocket::bind((*ip, 0)).is_ok());
    let ip = ip.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let port = if ip == LAN_ADDRESS { 5060 } else { 0 };
    let socket = UdpSocket::bind((ip, port)).or_else(|_| UdpSocket::bind((ip, 0)))?;
    Ok((TcpListener::bind((ip, 0))?, socket))
}

/// Whether browsers find the address by the name `localhost`, which not all of 127.0.0.0/8 have.
fn is_localhost(address: IpAddr) -> bool {
    address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST
}

/// Where the edge speaks SIP with the LAN, which is on loopback: on the address for browsers when that is, too, so that
/// several demonstrations can run at once.
fn sip_address(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) if address.is_loopback() => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

/// The names that browsers may use for the edge.
fn host_names(address: IpAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    if !is_localhost(address) {
        names.push(address.to_string());
    }
    if let Ok(name) = fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(name.trim().to_lowercase());
    }
    names.sort_unstable();
    names.dedup();
    names
}

const LAN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const USERS: [(&str, &str); 2] = [("alice", "wonderland"), ("bob", "builder")];
const CERTIFICATE_FILE: &str = "demo-certificate.pem";
const KEY_FILE: &str = "demo-key.pem";

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(arguments: &[&str]) -> Demo {
        let cli = Cli::try_parse_from(["edgeward", "demo"].iter().chain(arguments)).expect("options");
        let Command::Demo(demo) = cli.command else {
            panic!("another command")
        };
        demo
    }

    #[test]
    fn the_lan_starts_answers_and_ends() {
        let lan = Lan::start(&options(&[])).expect("started");
        let mut stream = TcpStream::connect(lan.upstream).expect("connected");
        stream.write_all(b"GET /ucassistant/ HTTP/1.0\r\n\r\n").expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("a page");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");

        let phone = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let local = phone.local_addr().expect("bound");
        let options = format!(
            "OPTIONS sip:lan.example SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n"
        );
        phone.send_to(options.as_bytes(), lan.mediaserver).expect("sent");
        let mut buffer = [0; 2048];
        let len = phone.recv(&mut buffer).expect("a response");
        assert!(buffer[..len].starts_with(b"SIP/2.0 200 OK\r\n"));

        let upstream = lan.upstream;
        drop(lan);
        TcpStream::connect(upstream).expect_err("the web server has ended");
    }

    #[test]
    fn an_address_of_its_own_is_named_by_itself() {
        for (address, url, sip) in [
            ("127.0.0.1", "https://localhost:8443/", "127.0.0.1:5060"),
            ("127.1.2.3", "https://127.1.2.3:8443/", "127.1.2.3:5060"),
            ("::1", "https://localhost:8443/", "127.0.0.1:5060"),
            ("192.0.2.1", "https://192.0.2.1:8443/", "127.0.0.1:5060"),
        ] {
            let lan = Lan::start(&options(&["--address", address])).expect("started");
            assert!(lan.banner().contains(&format!("Open      {url}\n")), "{address}");
            assert!(
                lan.config_text().contains(&format!("[sip]\nlisten = \"{sip}\"")),
                "{address}"
            );
        }
    }

    #[test]
    fn the_texts_name_what_is_there() {
        let lan = Lan::start(&options(&["--https-port", "9443"])).expect("started");
        let (config, banner) = (lan.config_text(), lan.banner());
        for text in [lan.upstream.to_string(), lan.mediaserver.to_string(), "9443".into()] {
            assert!(config.contains(&text) && banner.contains(&text), "{text}");
        }
        assert!(banner.contains("alice / wonderland"));
        assert!(!banner.contains(&lan.turn_secret));
        assert!(banner.lines().all(|line| line.len() <= 120), "{banner}");
    }
}
