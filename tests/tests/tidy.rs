//! Do the sources keep the rules of ARCHITECTURE.md? Who may import whom, and what may stand in the core.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use edgeward_tests::tidy::{Breach, Source, sources};

/// The protocols of the core know nothing of one another.
const PROTOCOLS: [&str; 4] = ["http", "ws", "sip", "turn"];

/// What a runtime may name of the core.
const EDGE: [&str; 7] = ["Shard", "action", "config", "stats", "time", "tls", "wire"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn core() -> Vec<Source> {
    sources(&root().join("core/src"))
}

#[track_caller]
fn check(rule: &str, breaches: impl IntoIterator<Item = Breach>) {
    let breaches: Vec<String> = breaches
        .into_iter()
        .map(|breach| format!("{}:{}: {}", breach.file.display(), breach.line, breach.text))
        .collect();
    assert!(breaches.is_empty(), "{rule}:\n{}", breaches.join("\n"));
}

#[test]
fn protocols_never_import_one_another() {
    let core = core();
    for protocol in PROTOCOLS {
        let files = core.iter().filter(|source| source.module() == protocol);
        let breaches = files.flat_map(|source| {
            source.own_modules(|name| {
                matches!(name, "conn" | "shard" | "Shard") || (PROTOCOLS.contains(&name) && name != protocol)
            })
        });
        check(
            &format!("{protocol} imports no other protocol, nor conn, nor shard"),
            breaches,
        );
    }
}

#[test]
fn wire_imports_nothing_of_ours() {
    let core = core();
    let files = core.iter().filter(|source| source.module() == "wire");
    check(
        "wire imports nothing of ours",
        files.flat_map(|source| source.own_modules(|name| name != "wire")),
    );
}

#[test]
fn tls_is_the_only_one_to_name_rustls() {
    let (tls, others): (Vec<_>, Vec<_>) = core().into_iter().partition(|source| source.module() == "tls");
    check(
        "rustls is named in tls only",
        others.iter().flat_map(|source| source.holds("rustls")),
    );
    check(
        "tls imports only time, rng and wire",
        tls.iter()
            .flat_map(|source| source.own_modules(|name| !matches!(name, "tls" | "time" | "rng" | "wire"))),
    );
}

#[test]
fn shard_is_named_by_the_edge_only() {
    let core = core();
    let files = core.iter().filter(|source| !matches!(source.module(), "shard" | "lib"));
    check(
        "nothing below imports shard",
        files.flat_map(|source| source.own_modules(|name| matches!(name, "shard" | "Shard"))),
    );
}

#[test]
fn the_core_does_nothing_by_itself() {
    let forbidden = [
        "unsafe",
        "async",
        "Instant::now",
        "SystemTime",
        "TcpStream",
        "UdpSocket",
        "thread::spawn",
        "std::fs",
        "std::env",
        "rand::random",
    ];
    let core = core();
    for word in forbidden {
        check(
            &format!("the core is pure: no {word}"),
            core.iter().flat_map(|source| source.holds(word)),
        );
    }
}

#[test]
fn runtimes_import_the_edge_of_the_core_only() {
    for folder in ["daemon/src", "runtime-tokio/src", "runtime-glommio/src", "udp/src"] {
        let breaches = sources(&root().join(folder));
        let breaches = breaches
            .iter()
            .flat_map(|source| source.names_behind("edgeward_core::", |name| !EDGE.contains(&name)));
        check(&format!("{folder} imports only the edge of the core"), breaches);
    }
}

#[test]
fn the_tests_share_no_code_with_the_edge() {
    let tests = sources(&root().join("tests"));
    let is_driver = |source: &&Source| {
        let drive = [
            "src/drive.rs",
            "src/drive",
            "src/bin/edgeward-mio.rs",
            "src/world/driver.rs",
            "src/world/driver",
            "src/world/site.rs",
        ];
        drive.iter().any(|path| source.file.starts_with(path))
    };
    let (drivers, others): (Vec<_>, Vec<_>) = tests.iter().partition(is_driver);
    check(
        "the drivers import only the edge of the core",
        drivers
            .iter()
            .flat_map(|source| source.names_behind("edgeward_core::", |name| !EDGE.contains(&name))),
    );
    let words = ["edgeward_core", "edgeward_daemon", "edgeward_udp"];
    check(
        "a mistake of the edge is not made again by its tests",
        words
            .iter()
            .flat_map(|word| others.iter().flat_map(|source| source.holds(word))),
    );
}

#[test]
fn unsafe_stands_in_the_udp_crate_only() {
    for folder in [
        "daemon/src",
        "runtime-tokio/src",
        "runtime-glommio/src",
        "runtime-glommio/tests",
        "tests/src",
        "tests/tests",
    ] {
        let sources = sources(&root().join(folder));
        check(
            &format!("no unsafe in {folder}"),
            sources.iter().flat_map(|source| source.holds("unsafe")),
        );
    }
}

#[test]
fn every_file_says_which_question_it_answers() {
    for folder in [
        "core/src",
        "udp/src",
        "daemon/src",
        "runtime-tokio/src",
        "runtime-glommio/src",
        "tests/src",
        "tests/tests",
    ] {
        for source in sources(&root().join(folder)) {
            let path = root().join(folder).join(&source.file);
            let text = fs::read_to_string(&path).expect("a source file");
            assert!(text.starts_with("//! "), "{} does not begin with //!", path.display());
        }
    }
}

#[test]
fn the_tests_that_the_page_of_the_tests_names_are_there() {
    let page = fs::read_to_string(root().join("tests/README.md")).expect("a page");
    // A test may stand behind its module or file, and dots for the rest of its name.
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let is_name = |name: &&str| {
        let mut bytes = name.trim_end_matches("...").bytes();
        name.contains('_') && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let named: BTreeSet<&str> = quoted
        .filter_map(|quoted| quoted.rsplit([' ', ':']).next())
        .filter(is_name)
        .collect();
    assert!(named.len() > 150, "the tables are gone");
    let mut there = BTreeSet::new();
    for folder in ["core/src", "udp/tests", "tests/tests"] {
        for source in sources(&root().join(folder)) {
            let text = fs::read_to_string(root().join(folder).join(&source.file)).expect("a source file");
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
            there.extend(names.map(String::from));
        }
    }
    let is_there = |name: &str| match name.strip_suffix("...") {
        Some(start) => there.iter().any(|there| there.starts_with(start)),
        None => there.contains(name),
    };
    let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(
        missing.is_empty(),
        "tests/README.md names tests that are not there: {missing:?}"
    );
}

#[test]
fn the_code_map_names_every_module_of_the_core() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("a page");
    for source in core().iter().filter(|source| source.file.components().count() == 1) {
        let name = source.module();
        let is_there = name == "lib" || map.contains(&format!("`{name}.rs`")) || map.contains(&format!("`{name}/`"));
        assert!(is_there, "ARCHITECTURE.md does not name core/src/{name}.rs");
    }
}

#[test]
fn the_changelog_says_nothing_twice() {
    let page = fs::read_to_string(root().join("CHANGELOG.md")).expect("a page");
    let mut seen = BTreeSet::new();
    let twice: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("- ") || line.starts_with('#'))
        .filter(|line| !seen.insert(*line))
        .collect();
    // Merged line by line, it takes both sides of a change: then one of them has to go.
    assert!(twice.is_empty(), "CHANGELOG.md has lines twice: {twice:?}");
}

#[test]
fn the_pages_are_there_and_name_what_is_there() {
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"] {
        assert!(root().join(page).is_file(), "{page} is missing");
    }
    for page in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(page)).expect("a page");
        let paths = text.split('`').skip(1).step_by(2).filter(|quoted| {
            let is_path = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
            quoted.contains('/') && quoted.ends_with(".rs") && quoted.chars().all(is_path)
        });
        for path in paths {
            assert!(root().join(path).is_file(), "{page} names `{path}`, which is not there");
        }
    }
}
