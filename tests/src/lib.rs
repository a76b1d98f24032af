//! Clients, servers and helpers for the black-box tests of the built binaries, and a world to simulate the core in.
//!
//! Nothing here uses the code of the edge, but for [`drive`], which is one, and for who drives the core in the simulated
//! [`world`]: every peer reads and writes its protocol itself or by a library of others, so that a mistake of ours is not
//! made twice. A test waits for events; [`PATIENCE`] only bounds how long it waits for
//! one that never comes.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

pub mod bench;
pub mod chance;
pub mod devtools;
pub mod drive;
pub mod edge;
pub mod peers;
pub mod process;
pub mod scene;
pub mod site;
pub mod tidy;
pub mod tls;
pub mod world;

/// How long a test waits for an event before it fails. Generous, since a busy machine is no fault of the product.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The moment at which a wait that begins now fails.
pub fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// What is left until then, or `None` when it is over.
pub(crate) fn remaining(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

/// What `look` finds, as soon as it finds something.
///
/// # Panics
/// When it never does.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = deadline();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(remaining(deadline).is_some(), "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Random bytes, for names and transaction ids that must not meet those of another test; in a world of its own, from the
/// seed of that.
///
/// # Panics
/// When the operating system has none.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if !chance::fill(&mut bytes) {
        tls::provider().secure_random.fill(&mut bytes).expect("random bytes");
    }
    bytes
}

/// A random word of hexadecimal digits.
pub fn word() -> String {
    hex(&random::<8>())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Says on the terminal what a test has done with programs of others, past the capture of the test harness.
pub fn ran(what: &str) {
    let _ = writeln!(std::io::stderr(), "RAN: {what}");
}

/// Whether there is such a program, and else a word on the terminal.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skipped(&format!("no {program}: what it would see is not looked at"));
    }
    found
}

/// Says on the terminal that a test could not be done here, past the capture of the test harness.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}
