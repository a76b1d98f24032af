//! Where does a test take place? A network of loopback addresses, an authority and a folder that are its own.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::ClientConfig;

use crate::{
    random,
    tls::{Authority, Identity},
    word,
};

/// Networks are claimed by holding this port on their last address.
const CLAIM: u16 = 61_999;

/// The host name of the edge, which its certificate bears beside its address.
pub const NAME: &str = "edge.test";

/// A `127.x.y.0/24` that no other test uses while this value lives, so port numbers may be the usual ones.
#[derive(Debug)]
pub struct Site {
    net: [u8; 3],
    _claim: UdpSocket,
    authority: Authority,
    identity: OnceLock<Identity>,
    folder: PathBuf,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// Claims a network and makes the folder.
    ///
    /// # Panics
    /// When there is no free network or no folder can be made.
    pub fn new() -> Self {
        let (net, claim) = (0..1000)
            .find_map(|_| {
                let [second, third] = random::<2>();
                // Low numbers are left to whoever else runs on this machine.
                let net = [127, second.clamp(16, 254), third];
                let claim = UdpSocket::bind((host(net, 254), CLAIM)).ok()?;
                Some((net, claim))
            })
            .expect("a free network in 127.0.0.0/8");
        let folder = std::env::temp_dir().join(format!("edgeward-tests-{}", word()));
        fs::create_dir(&folder).expect("a folder");
        let site = Self {
            net,
            _claim: claim,
            authority: Authority::new(),
            identity: OnceLock::new(),
            folder,
        };
        site.write("ca.pem", site.authority.pem());
        site
    }

    /// An address of this network.
    pub fn host(&self, number: u8) -> IpAddr {
        host(self.net, number).into()
    }

    /// An address of this network and a port.
    pub fn at(&self, number: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.host(number), port)
    }

    /// Puts this network in the place of each `$net`: `$net.1:8443` becomes `127.20.30.1:8443`.
    pub fn fill(&self, text: &str) -> String {
        let [first, second, third] = self.net;
        text.replace("$net", &format!("{first}.{second}.{third}"))
    }

    /// The authority, whose certificate is `ca.pem` in the folder.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A TLS client that trusts the authority.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.authority.client()
    }

    /// The folder, which is removed in the end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file into the folder.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).expect("a file in the folder of the test");
    }

    /// The certificate of edges, for [`NAME`] and the first four hosts.
    pub fn identity(&self) -> &Identity {
        self.identity.get_or_init(|| {
            let hosts: Vec<String> = (1..=4).map(|number| self.host(number).to_string()).collect();
            let names: Vec<&str> = [NAME].into_iter().chain(hosts.iter().map(String::as_str)).collect();
            self.authority.identity(&names)
        })
    }

    /// Writes `edge.pem` and `edge.key` into the folder.
    pub fn write_certificate(&self) {
        let identity = self.identity();
        self.write("edge.pem", &identity.certificate);
        self.write("edge.key", &identity.key);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn host(net: [u8; 3], number: u8) -> Ipv4Addr {
    let [first, second, third] = net;
    Ipv4Addr::new(first, second, third, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sites_never_share_a_network() {
        let (one, other) = (Site::new(), Site::new());
        assert_ne!(one.host(1), other.host(1));
        assert_eq!(one.fill("a=$net.1:5060"), format!("a={}", one.at(1, 5060)));
    }

    #[test]
    fn the_folder_goes_with_the_site() {
        let site = Site::new();
        let folder = site.folder().to_owned();
        assert!(folder.join("ca.pem").exists());
        drop(site);
        assert!(!folder.exists());
    }
}
