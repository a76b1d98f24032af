//! How do the telephones behave that others have made? JsSIP and SIP.js, in Node and in Chromium, and SIPml5 in Chromium.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command},
    sync::OnceLock,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    devtools::{Page, awaited, chromium},
    edge, hex,
    peers::sip_browser::Account,
    process::Process,
    site::Site,
    skipped, word,
};

/// Who made a telephone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// versatica/JsSIP.
    JsSip,
    /// onsip/SIP.js.
    SipJs,
    /// DoubangoTelecom/sipml5, which runs in browsers only.
    Sipml5,
}

/// A telephone. What it can do is in `tests/clients/phones/`; what it shows is the state of `phone`.
#[derive(Debug)]
pub struct Phone {
    host: Host,
}

/// What a telephone runs in.
#[derive(Debug)]
enum Host {
    Node {
        process: Process,
        input: ChildStdin,
        asked: u64,
    },
    Chromium(Box<Page>),
}

/// How a telephone reaches its server.
#[derive(Debug, Clone)]
pub struct Line {
    /// Origin of the page.
    pub origin: String,
    /// Path and query of the WebSocket.
    pub target: String,
    /// Whom it belongs to.
    pub account: Account,
}

impl Library {
    /// Those that run everywhere.
    pub const ALL: [Self; 2] = [Self::JsSip, Self::SipJs];

    /// Its name in `tests/clients/`.
    fn name(self) -> &'static str {
        match self {
            Self::JsSip => "jssip",
            Self::SipJs => "sipjs",
            Self::Sipml5 => "sipml",
        }
    }
}

impl Phone {
    /// A telephone in Node that is registered; `None`, said aloud, where there is no Node or no package.
    ///
    /// # Panics
    /// When it does not register.
    pub fn in_node(site: &Site, library: Library, line: &Line) -> Option<Self> {
        let script = bundle(site, "node.js", "node")?;
        let mut command = Command::new("node");
        command
            .arg(script)
            .env("NODE_EXTRA_CA_CERTS", site.folder().join("ca.pem"));
        let name = format!("{} of {}", library.name(), line.account.user);
        let (process, input) = Process::spawn_with_input(&name, &mut command);
        let host = Host::Node {
            process,
            input,
            asked: 0,
        };
        Some(Self::make(host, library, line))
    }

    /// A telephone on a page of Chromium that is registered; `None`, said aloud, where there is no Chromium, no Node or
    /// no package.
    ///
    /// # Panics
    /// When it does not register.
    pub fn in_chromium(site: &Site, library: Library, line: &Line) -> Option<Self> {
        if chromium().is_none() {
            skipped("Chromium is not installed, so telephones were not tried in it");
            return None;
        }
        let script = bundle(site, "page.js", "browser")?;
        let script = fs::read_to_string(script).expect("a bundle");
        // Any page of the edge does, as long as it is one: the script comes by the back door.
        let url = format!("{}/app/page", line.origin);
        let mut page = Page::open(site, &url, &site.identity().trusted, STATE);
        page.until("document.body");
        if library == Library::Sipml5 {
            let file = modules()?.join("sipml/SIPml-api.js");
            page.evaluate(&fs::read_to_string(file).expect("a script"));
        }
        page.evaluate(&format!("(() => {{ {script}\n}})()"));
        Some(Self::make(Host::Chromium(Box::new(page)), library, line))
    }

    fn make(host: Host, library: Library, line: &Line) -> Self {
        let mut phone = Self { host };
        let account = json!({
            "server": format!("{}{}", line.origin.replacen("http", "ws", 1), line.target),
            "origin": line.origin,
            "user": line.account.user,
            "password": line.account.password,
            "domain": line.account.domain,
        });
        phone.evaluate(&format!("makePhone({}, {account})", json!(library.name())));
        phone.evaluate("phone.start()");
        phone.until("phone.registered");
        phone
    }

    /// The value of an expression; when that is a promise, what comes of it.
    ///
    /// # Panics
    /// When it throws, or does not come in time.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        match &mut self.host {
            Host::Chromium(page) => page.evaluate(expression),
            Host::Node { process, input, asked } => {
                *asked += 1;
                writeln!(input, "{}", json!({ "id": asked, "expression": expression })).expect("Node listens");
                let start = format!("answer {{\"id\":{asked},");
                let line = process.wait_until(&format!("the value of {expression}"), |line| line.starts_with(&start));
                let line = line.strip_prefix("answer ").expect("what was waited for");
                let mut answer: Value = serde_json::from_str(line).expect("JSON");
                assert!(answer["error"].is_null(), "{expression}: {}", answer["error"]);
                answer["value"].take()
            }
        }
    }

    /// Waits until the value of an expression is a true one.
    ///
    /// # Panics
    /// When it throws, or does not become true in time.
    #[track_caller]
    pub fn until(&mut self, expression: &str) -> Value {
        match &mut self.host {
            Host::Chromium(page) => page.until(expression),
            Host::Node { .. } => self.evaluate(&awaited(expression).replace('\n', " ")),
        }
    }
}

/// A script of `tests/clients/` with all that it imports, as one file in the folder of the site; `None`, said aloud, where
/// that cannot be made.
fn bundle(site: &Site, script: &str, platform: &str) -> Option<PathBuf> {
    let modules = modules()?;
    let out = site.folder().join(script).with_extension("mjs");
    let format = if platform == "node" { "esm" } else { "iife" };
    let mut command = Command::new("node");
    command
        .arg(modules.join("esbuild/bin/esbuild"))
        .arg(clients().join(script))
        .args(["--bundle", "--log-level=warning"])
        .arg(format!("--platform={platform}"))
        .arg(format!("--format={format}"))
        .arg(format!("--outfile={}", out.display()))
        // Packages that are written for `require` need one.
        .args((platform == "node").then_some(REQUIRE))
        .env("NODE_PATH", modules);
    let mut bundler = Process::spawn("esbuild", &mut command);
    assert!(
        bundler.wait().success(),
        "{script} cannot be bundled: {:?}",
        bundler.lines()
    );
    Some(out)
}

/// The packages of `package-lock.json`, installed when a test first asks for them; `None`, said aloud, where they cannot be.
fn modules() -> Option<&'static Path> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED.get_or_init(install).as_deref()
}

/// Puts the packages into the target folder.
fn install() -> Option<PathBuf> {
    let lock = fs::read(clients().join("package-lock.json")).expect("the list of packages");
    let target = edge::target_folder();
    let folder = target.join(format!("clients-{}", fingerprint(&lock)));
    let modules = folder.join("node_modules");
    if modules.is_dir() {
        return Some(modules);
    }
    // Another run may do the same: whoever is first has it.
    let draft = target.join(format!("clients-{}", word()));
    fs::create_dir_all(&draft).expect("a folder");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(clients().join(file), draft.join(file)).expect("a copy");
    }
    let done = npm(&draft);
    if done.is_err() || fs::rename(&draft, &folder).is_err() {
        let _ = fs::remove_dir_all(&draft);
    }
    if let Err(why) = done {
        skipped(&format!("JsSIP, SIP.js and SIPml5 were not tried: {why}"));
        return None;
    }
    Some(modules)
}

fn npm(folder: &Path) -> Result<(), String> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(folder);
    let output = npm.output().map_err(|error| format!("npm: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn fingerprint(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

/// What a page shows when a test fails.
const STATE: &str =
    "globalThis.phone && { registered: phone.registered, state: phone.call?.state, why: phone.call?.why }";
/// Gives a bundle in which there is no `require` the one of Node.
const REQUIRE: &str =
    "--banner:js=import { createRequire } from 'module'; const require = createRequire(import.meta.url);";
