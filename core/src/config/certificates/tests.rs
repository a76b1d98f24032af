//! What becomes of certificates whose files change?

use core::time::Duration;
use std::collections::BTreeMap;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::{
    config::{Config, Keys, Reloaded, Sources},
    time::UnixTime,
    tls::Provider,
};

/// 2026-09-21.
const NOW: UnixTime = UnixTime(1_790_000_000);
const DAY: u64 = 24 * 60 * 60;

const CONFIG: &str = "
[https]
listen = '192.0.2.1:443'
hosts = ['a.example', 'b.example']
certificates = [{ cert = 'a.pem', key = 'a.key', ocsp = 'a.ocsp' }, { cert = 'b.pem', key = 'b.key' }]
[turn]
listen = '192.0.2.1'
realm = 'a.example'
secrets = 'sixteen letters.'
";

/// Files that change.
struct World {
    provider: Provider,
    files: BTreeMap<String, Vec<u8>>,
}

impl World {
    fn new() -> Self {
        Self {
            provider: Provider::for_tests(),
            files: BTreeMap::new(),
        }
    }

    /// Puts a certificate into two files, or into one.
    fn install(&mut self, cert: &str, key: &str, names: &[&str], begin: u64, end: u64) {
        let pair = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let at = |secs| date_time_ymd(1970, 1, 1) + Duration::from_secs(secs);
        (params.not_before, params.not_after) = (at(begin), at(end));
        let chain = params.self_signed(&pair).expect("a certificate").pem();
        self.files.insert(key.into(), pair.serialize_pem().into());
        self.files.entry(cert.into()).or_default().splice(..0, chain.bytes());
    }

    fn replace(&mut self, cert: &str, key: &str, names: &[&str], begin: u64, end: u64) {
        self.files.remove(cert);
        self.install(cert, key, names, begin, end);
    }

    fn parse(&mut self, text: &str) -> Config {
        let keys = Keys {
            nonce: [0; 32],
            flow: vec![[0; 32]],
        };
        Config::parse(text, self, keys).unwrap_or_else(|errors| panic!("{errors}"))
    }
}

impl Sources for World {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.files.get(path).cloned().ok_or_else(|| "no such file".into())
    }

    fn env(&mut self, _: &str) -> Option<String> {
        None
    }

    fn provider(&self) -> &Provider {
        &self.provider
    }
}

fn said(reloaded: &Reloaded) -> Vec<&str> {
    reloaded.refused.iter().map(|finding| finding.what.as_str()).collect()
}

#[test]
fn a_bad_new_certificate_leaves_the_old_one() {
    let mut world = World::new();
    let good = (NOW.0 - DAY, NOW.0 + 90 * DAY);
    world.install("a.pem", "a.key", &["a.example"], good.0, good.1);
    world.install("b.pem", "b.key", &["b.example"], good.0, good.1);
    let config = world.parse(CONFIG);
    let https = config.https.as_ref().expect("a section");
    assert_eq!(https.tls.names(), ["a.example", "b.example"]);

    // One that is good comes through beside others that are not.
    world.files.insert("a.pem".into(), b"garbage".to_vec());
    world.replace("b.pem", "b.key", &["b.example", "c.example"], good.0, good.1);
    let reloaded = https.reload_certificates(&mut world, NOW);
    assert_eq!(
        said(&reloaded),
        ["the certificate `a.pem` cannot be used: the certificate file holds no certificate in PEM form"]
    );
    assert_eq!(https.tls.names(), ["a.example", "b.example", "c.example"]);

    world.replace("a.pem", "a.key", &["new.example"], NOW.0 - 9 * DAY, NOW.0 - DAY);
    let reloaded = https.reload_certificates(&mut world, NOW);
    assert_eq!(said(&reloaded), ["the certificate `a.pem` has expired 1 day ago"]);

    world.files.remove("a.pem");
    let reloaded = https.reload_certificates(&mut world, NOW);
    assert_eq!(said(&reloaded), ["`a.pem` cannot be read: no such file"]);
    assert_eq!(https.tls.names()[0], "a.example");

    world.replace(
        "a.pem",
        "a.key",
        &["a.example", "new.example"],
        good.0,
        NOW.0 + 10 * DAY,
    );
    let reloaded = https.reload_certificates(&mut world, NOW);
    assert_eq!(said(&reloaded), [""; 0]);
    assert_eq!(https.tls.names()[..2], ["a.example", "new.example"]);
    let warned: Vec<&str> = reloaded.warnings.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(
        warned,
        [
            "`a.pem` expires 10 days from now",
            "the OCSP response `a.ocsp` cannot be read: no such file: `a.pem` is shown without it",
        ]
    );
}

#[test]
fn a_certificate_is_asked_for_in_time() {
    let mut world = World::new();
    let config = world.parse(
        "
[https]
listen = '192.0.2.1:443'
[https.acme]
domains = ['a.example', 'b.example']
terms_agreed = true
[turn]
listen = '192.0.2.1'
realm = 'a.example'
secrets = 'sixteen letters.'
",
    );
    let https = config.https.as_ref().expect("a section");
    assert_eq!(https.hosts, ["a.example", "b.example"]);
    assert!(https.findings(NOW).is_empty());
    let wanted = |now: u64| https.wants_certificate(UnixTime(now)).is_some();
    assert!(wanted(NOW.0));

    let file = "acme/certificate.pem";
    let mut get = |names: &[&str]| {
        world.replace(file, "key", names, NOW.0, NOW.0 + 90 * DAY);
        let key = world.files["key"].clone();
        world.files.entry(file.into()).or_default().extend(key);
        let reloaded = https.reload_certificates(&mut world, NOW);
        assert_eq!(said(&reloaded), [""; 0]);
    };
    get(&["a.example"]);
    assert!(wanted(NOW.0), "a name is missing");
    get(&["a.example", "b.example"]);
    assert!(!wanted(NOW.0 + 59 * DAY));
    assert!(wanted(NOW.0 + 61 * DAY));
}
