//! Do all drivers do what `edgeward` does? Every black-box test again, against the binaries of the others.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use edgeward_tests::{
    edge::{self, BINARY, DRIVERS},
    skipped,
};
use serde_json::Value;

/// Files that are not run again, and why.
const LEFT_OUT: [(&str, &str); 6] = [
    ("browser", "the demonstration is a part of `edgeward` alone"),
    ("drivers", "it is this one"),
    ("peers", "no edge takes part"),
    ("tidy", "it reads the sources"),
    ("world", "it drives the core itself"),
    (
        "web_tools",
        "it looks for minutes at what is the core's: heads, deadlines, TLS",
    ),
];

#[test]
fn every_driver_is_tried_here() {
    assert_eq!(DRIVERS, ["edgeward", "edgeward-glommio", "edgeward-mio"]);
}

#[test]
fn glommio() {
    check("edgeward-glommio");
}

#[test]
fn mio() {
    check("edgeward-mio");
}

/// Runs the suite against this driver. Two of these go on at once, since most tests wait most of the time.
#[track_caller]
fn check(driver: &str) {
    if let Some(asked) = env::var_os(BINARY) {
        return skipped(&format!("{driver}: the tests are about {} alone", asked.display()));
    }
    let binary = edge::build(driver);
    if let Some(obstacle) = edge::obstacle(&binary) {
        return skipped(&format!("{driver}: {obstacle}"));
    }
    let mut failed = Vec::new();
    for (name, executable) in suite() {
        // What is skipped goes straight to the terminal.
        let output = Command::new(executable)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env(BINARY, &binary)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stdout));
            failed.push(name.as_str());
        }
    }
    assert!(
        failed.is_empty(),
        "{driver} fails in {}; to see that again: {BINARY}={driver} cargo test -p edgeward-tests --test {}",
        failed.join(", "),
        failed[0],
    );
}

/// The test executables that are run again, by name; built already, where all tests are run.
fn suite() -> &'static BTreeMap<String, PathBuf> {
    static SUITE: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    SUITE.get_or_init(|| {
        let mut names = files();
        for (name, why) in LEFT_OUT {
            let place = names.iter().position(|found| found == name);
            names.remove(place.unwrap_or_else(|| panic!("there is no {name}.rs, which is left out: {why}")));
        }
        let mut cargo = edge::cargo("test");
        cargo.args(["--quiet", "--no-run", "--message-format", "json"]);
        for name in &names {
            cargo.args(["--test", name]);
        }
        let output = cargo.stderr(Stdio::inherit()).output().expect("cargo");
        assert!(output.status.success(), "the tests do not build");
        let suite: BTreeMap<String, PathBuf> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(executable)
            .filter(|(name, _)| names.contains(name))
            .collect();
        assert_eq!(
            suite.len(),
            names.len(),
            "cargo did not name all executables: {suite:?}"
        );
        suite
    })
}

/// The files of black-box tests, without their endings.
fn files() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = fs::read_dir(folder).expect("the folder of the tests");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

/// The test and its executable that a line of cargo tells of.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let name = message["target"]["name"].as_str()?;
    let executable = message["executable"].as_str()?;
    let is_test = message["target"]["kind"] == serde_json::json!(["test"]);
    is_test.then(|| (name.to_owned(), executable.into()))
}
