//! How does SIPp behave? The scenarios of `tests/clients/sipp/`, on a UDP socket.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use crate::{deadline, process::Process, remaining, site::Site, skipped};

/// Whether SIPp is here; says so aloud when it is not.
pub fn is_installed() -> bool {
    let found = Command::new("sipp").arg("-v").output().is_ok();
    if !found {
        skipped("SIPp is not installed, so it was not tried");
    }
    found
}

/// SIPp with a scenario, from this address to that one, for so many calls. It listens when this returns.
///
/// # Panics
/// When it does not start.
pub fn start(
    site: &Site,
    scenario: &str,
    at: SocketAddr,
    to: SocketAddr,
    calls: usize,
    keys: &[(&str, &str)],
) -> Process {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/sipp");
    let mut command = Command::new("sipp");
    command
        .current_dir(site.folder())
        .env("TERM", "xterm")
        .arg("-sf")
        .arg(folder.join(scenario).with_extension("xml"))
        .args(["-i", &at.ip().to_string(), "-p", &at.port().to_string()])
        .args([
            "-m",
            &calls.to_string(),
            "-r",
            "20",
            "-timeout",
            "20s",
            "-timeout_error",
        ])
        .args(["-nostdin", "-trace_err", "-error_file", &format!("{scenario}.log")]);
    for (name, value) in keys {
        command.args(["-key", name, value]);
    }
    command.arg(to.to_string());
    let sipp = Process::spawn(&format!("SIPp as {scenario}"), &mut command);
    wait_until_bound(at);
    sipp
}

/// Whoever binds a UDP port says nothing of it, but the system has a list.
fn wait_until_bound(at: SocketAddr) {
    let IpAddr::V4(ip) = at.ip() else {
        panic!("{at} is not IPv4")
    };
    let entry = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), at.port());
    let deadline = deadline();
    let is_bound = || {
        fs::read_to_string("/proc/net/udp")
            .expect("a list of sockets")
            .contains(&entry)
    };
    while !is_bound() {
        assert!(remaining(deadline).is_some(), "SIPp does not listen");
        thread::sleep(LOOK);
    }
}

/// How often to look for the socket of SIPp.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until SIPp has done all its calls.
///
/// # Panics
/// When one of them went otherwise than the scenario says.
pub fn finish(site: &Site, scenario: &str, mut sipp: Process) {
    let status = sipp.wait();
    let errors = fs::read_to_string(site.folder().join(format!("{scenario}.log"))).unwrap_or_default();
    assert!(status.success(), "SIPp as {scenario} is not content: {errors}");
}
