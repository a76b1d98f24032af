//! Where is the built binary, and how does a test start and stop it?

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::OnceLock,
};

use rustix::process::Signal;

use crate::{process::Process, site::Site};

/// Every driver of the core, by the name of its binary; the first one is the product, and the others behave as it does.
pub const DRIVERS: [&str; 3] = ["edgeward", "edgeward-glommio", "edgeward-mio"];

/// Set to one of the [`DRIVERS`] or to the path of a binary, the tests run that one instead of `edgeward`.
pub const BINARY: &str = "EDGEWARD_BIN";

/// Set to a filter like `debug`, edges log that much.
pub const LOG: &str = "EDGEWARD_LOG";

/// A running edge. It is killed when the value goes, and its log is printed when the test fails.
#[derive(Debug)]
pub struct Edge {
    process: Process,
}

impl Edge {
    /// Starts an edge with this configuration, in which `$net` stands for the network of the site, and waits until it
    /// serves. `edge.pem`, `edge.key` and `ca.pem` lie in the folder that it runs in.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(site: &Site, config: &str) -> Self {
        Self::start_named(site, "edge", config)
    }

    /// As [`Edge::start`], with more on the command line.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_with(site: &Site, config: &str, arguments: &[&str]) -> Self {
        site.write_certificate();
        site.write("edge.toml", &site.fill(config));
        let arguments = [&["run", "--config", "edge.toml"], arguments].concat();
        let process = run(site, "edge", &arguments);
        process.wait_until("that it is ready", |line| line.contains("ready"));
        Self { process }
    }

    /// As [`Edge::start`], for tests with several.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_named(site: &Site, name: &str, config: &str) -> Self {
        site.write_certificate();
        let process = Self::launch(site, name, config);
        process.wait_until("that it is ready", |line| line.ends_with(" ready"));
        Self { process }
    }

    /// Starts a program that need not come so far as to serve.
    ///
    /// # Panics
    /// When there is no such program.
    pub fn launch(site: &Site, name: &str, config: &str) -> Process {
        let file = format!("{name}.toml");
        site.write(&file, &site.fill(config));
        let log = env::var(LOG).unwrap_or_else(|_| "info".into());
        run(site, name, &["run", "--log", &log, "--config", &file])
    }

    /// Its log.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Puts another configuration in the place of the one it was started with, and has it read that.
    ///
    /// # Panics
    /// When it does not take it.
    pub fn reload(&self, site: &Site, config: &str) {
        site.write("edge.toml", &site.fill(config));
        self.process.signal(Signal::HUP);
        self.process.wait_for("the new configuration is in effect");
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Sends a signal and gives the process back, to wait for its end.
    pub fn signal(self, signal: Signal) -> Process {
        self.process.signal(signal);
        self.process
    }
}

/// Runs the binary with these arguments, in the folder of the site.
///
/// # Panics
/// When it cannot be built or started.
pub fn run(site: &Site, name: &str, arguments: &[&str]) -> Process {
    let binary = binary();
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(site.folder());
    // So that a test that fails tells which one it was.
    let file = binary.file_name().expect("the path of a binary").to_string_lossy();
    Process::spawn(&format!("{name} ({file})"), &mut command)
}

/// The binary that is tested; built when the first test asks for it.
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY_PATH: OnceLock<PathBuf> = OnceLock::new();
    BINARY_PATH.get_or_init(|| match env::var_os(BINARY) {
        None => build(DRIVERS[0]),
        Some(wanted) => match DRIVERS.into_iter().find(|driver| wanted == *driver) {
            Some(driver) => build(driver),
            None => wanted.into(),
        },
    })
}

/// Where cargo puts what it makes of this profile.
///
/// # Panics
/// When this is neither a test nor a binary of cargo.
fn profile_folder() -> PathBuf {
    // target/PROFILE/deps/TEST, or target/PROFILE/bench
    let running = env::current_exe().expect("the path of this test");
    let folder = running.parent().expect("a target folder");
    match folder.ends_with("deps") {
        true => folder.parent().expect("a target folder").to_owned(),
        false => folder.to_owned(),
    }
}

/// Where cargo puts what it makes.
pub(crate) fn target_folder() -> PathBuf {
    profile_folder().parent().expect("a target folder").to_owned()
}

/// Builds the binary of a driver.
///
/// # Panics
/// When it does not build.
pub fn build(driver: &str) -> PathBuf {
    let built = cargo("build").args(["--quiet", "--bin", driver]).status();
    assert!(built.expect("cargo").success(), "{driver} does not build");
    profile_folder().join(format!("{driver}{}", env::consts::EXE_SUFFIX))
}

/// What keeps a driver from running on this machine: it says so before it finds out that an address is not ours.
///
/// # Panics
/// When it cannot be started, or takes that address.
pub fn obstacle(binary: &Path) -> Option<String> {
    let site = Site::new();
    let turn = "[turn]\nlisten = \"192.0.2.1:3478\"\nrelay = \"192.0.2.1\"\nrelay_ports = \"30000-30099\"\n\
                realm = \"edge.test\"\nsecrets = [\"a secret of thirty-two characters\"]\n";
    site.write("edge.toml", turn);
    let mut command = Command::new(binary);
    command.args(["run", "--config", "edge.toml"]);
    let output = command.current_dir(site.folder()).output();
    let output = output.expect("a binary that starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    said.contains("io_uring").then_some(said)
}

/// A test of one package does not build the binaries of another, so this asks cargo: in the same target folder and
/// profile, and for the whole workspace, since that is how `cargo test --workspace` chooses features.
///
/// # Panics
/// When this is neither a test nor a binary of cargo.
pub fn cargo(command: &str) -> Command {
    let profile = profile_folder();
    let profile = profile.file_name().expect("a profile");
    let profile = match profile.to_str().expect("a profile in ASCII") {
        "debug" => "dev",
        other => other,
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([command, "--workspace", "--profile", profile, "--target-dir"])
        .arg(target_folder());
    // What cargo told this test about its own package is not true for the others.
    for (name, _) in env::vars_os() {
        let own = |name: &str| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"]
                .iter()
                .any(|start| name.starts_with(start))
        };
        if name.to_str().is_some_and(own) {
            cargo.env_remove(name);
        }
    }
    cargo
}
