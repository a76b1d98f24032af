//! Does the binary say what stands in its way, and which limit to raise to which value?

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    thread,
};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

const BINARY: &str = env!("CARGO_BIN_EXE_edgeward-glommio");

/// TURN for four shards, on an address that is not ours: whoever came so far as to bind it would say that.
const CONFIG: &str = "[server]\nworkers = 4\n\
                      [turn]\nlisten = \"192.0.2.1:3478\"\nrelay = \"192.0.2.1\"\nrelay_ports = \"30000-30099\"\n\
                      realm = \"edge.test\"\nsecrets = [\"a secret of thirty-two characters\"]\n";

fn config(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("limits-{name}-{}.toml", std::process::id()));
    fs::write(&path, CONFIG).expect("a file");
    path
}

/// Runs it and expects that it ends at once, with one line that says all of this.
#[track_caller]
fn check(name: &str, program: &str, arguments: &[&str], told: &[&str]) {
    let config = config(name);
    let mut command = Command::new(program);
    command.args(arguments).arg("run").arg("--config").arg(&config);
    let Output { status, stderr, .. } = command.output().expect("it can be started");
    fs::remove_file(config).expect("a file");
    let stderr = String::from_utf8(stderr).expect("text");
    assert_eq!(status.code(), Some(1), "{stderr}");
    for part in told {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn too_little_locked_memory_is_told_with_what_is_needed() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no prlimit");
        return;
    }
    let arguments = ["--memlock=65536:65536", BINARY];
    let told = [
        "4 shards",
        "the limit is 64 KiB",
        "LimitMEMLOCK=",
        "ulimit -l",
        "`edgeward` does without",
    ];
    check("memlock", "prlimit", &arguments, &told);
}

#[test]
fn a_seccomp_profile_without_io_uring_is_told() {
    // As Docker refuses, and as Podman does.
    for (errno, told) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "Linux 5.8")] {
        let refused = move || {
            // A filter belongs to a thread and to what it starts.
            apply_filter(&without_io_uring(errno)).expect("a filter");
            check(
                "seccomp",
                BINARY,
                &[],
                &[told, "io_uring_setup", "`edgeward` does without"],
            );
        };
        thread::spawn(refused).join().expect("what it says");
    }
}

fn without_io_uring(errno: i32) -> BpfProgram {
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    let rules = [(libc::SYS_io_uring_setup, Vec::new())].into();
    let refused = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).expect("a filter");
    filter.try_into().expect("a program")
}
