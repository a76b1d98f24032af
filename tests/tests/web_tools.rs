//! Do the tools of others find fault with the web role? Load generators, an attacker who is slow, and a scanner of TLS.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use edgeward_tests::{
    has,
    scene::{CONFIG, HTTPS, Scene},
    site::NAME,
};

/// What a program says, on both of its outputs.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    [output.stdout, output.stderr]
        .map(|said| String::from_utf8_lossy(&said).into_owned())
        .concat()
}

fn url(scene: &Scene, path: &str) -> String {
    format!("https://{}{path}", scene.https())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}:{HTTPS}\r\n\r\n")
}

#[test]
fn h2load_gets_every_answer() {
    if !has("h2load") {
        return;
    }
    let scene = Scene::new();
    // Small and large, many and few connections; what does not fit them evenly is part of it.
    for (path, requests, connections) in [("/app/fixed/1000", 2001, 20), ("/secure/chunked/300000", 101, 7)] {
        let (requests, connections) = (requests.to_string(), connections.to_string());
        let report = said(
            "h2load",
            &["--h1", "-n", &requests, "-c", &connections, &url(&scene, path)],
        );
        let expected = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(report.contains(&expected), "{report}");
        assert!(report.contains(&format!("status codes: {requests} 2xx")), "{report}");
    }
}

#[test]
fn wrk_meets_no_error() {
    if !has("wrk") {
        return;
    }
    let scene = Scene::new();
    let report = said("wrk", &["-t2", "-c30", "-d2s", &url(&scene, "/app/fixed/1000")]);
    assert!(report.contains("Requests/sec"), "{report}");
    assert!(!report.contains("Socket errors"), "{report}");
    assert!(!report.contains("Non-2xx"), "{report}");
}

/// Who is slow is let go, and nobody else waits meanwhile.
#[test]
fn slowhttptest_denies_service_to_nobody() {
    if !has("slowhttptest") {
        return;
    }
    let limits = "response_secs = 2\nhead_secs = 2\nbody_idle_secs = 2\nkeep_alive_secs = 2";
    let scene = Scene::with(&CONFIG.replace("response_secs = 2", limits));
    let (page, upload) = (url(&scene, "/app/fixed/1000000"), url(&scene, "/app/echo"));
    // Heads that never end, bodies that drip, readers that hardly read.
    let attacks = [
        ["-H", "-i1", "-tGET", "-u", &page],
        ["-B", "-i1", "-tPOST", "-u", &upload],
        ["-X", "-n1", "-z1", "-u", &page],
    ];
    thread::scope(|scope| {
        let (sender, reported) = mpsc::channel();
        for (number, attack) in attacks.into_iter().enumerate() {
            let sender = sender.clone();
            scope.spawn(move || {
                let common = ["-c100", "-r100", "-l15", "-p5"];
                let report = said("slowhttptest", &[&attack[..], &common].concat());
                sender.send((number, report)).expect("somebody waits for it");
            });
        }
        drop(sender);
        let (mut slowest, mut reports) = (Duration::ZERO, BTreeMap::new());
        loop {
            let asked = Instant::now();
            assert_eq!(scene.connect(110).ask(&get("/app/")).text(), "hello");
            slowest = slowest.max(asked.elapsed());
            match reported.recv_timeout(Duration::from_millis(50)) {
                Ok((number, report)) => drop(reports.insert(number, report)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        assert!(slowest < Duration::from_secs(5), "somebody waited for {slowest:?}");
        let reports: Vec<String> = reports.into_values().collect();
        assert_eq!(reports.len(), attacks.len(), "reports");
        for report in &reports {
            assert!(!report.contains("service available:   NO"), "{report}");
        }
        // Who reads slowly has the answer in the buffers of the kernel; who sends slowly keeps nothing.
        for report in &reports[..2] {
            assert!(report.contains("No open connections left"), "{report}");
        }
    });
}

/// What a scanner calls by no worse name than a note.
#[test]
fn testssl_finds_nothing() {
    if !has("testssl") {
        return;
    }
    let scene = Scene::new();
    let findings = scene.site.folder().join("testssl.csv");
    let report = said(
        "testssl",
        &[
            "--quiet",
            "--color=0",
            "--warnings=batch",
            "--csvfile",
            findings.to_str().expect("a path"),
            // Protocols, ciphers by strength, forward secrecy, and each weakness that has a name.
            "--protocols",
            "--std",
            "--pfs",
            "--vulnerable",
            "--ip",
            &scene.client(1).to_string(),
            &format!("{NAME}:{HTTPS}"),
        ],
    );
    let findings = fs::read_to_string(findings).unwrap_or_default();
    // "id","fqdn/ip","port","severity","finding",...
    let severities: Vec<(&str, &str)> = findings
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.trim_matches('"').split("\",\"").collect();
            Some((*fields.first()?, *fields.get(3)?))
        })
        .collect();
    assert!(severities.len() > 20, "{report}");
    let bad: Vec<_> = severities
        .iter()
        .filter(|(id, severity)| !matches!(*severity, "OK" | "INFO") && *id != "engine_problem")
        .collect();
    assert!(bad.is_empty(), "{bad:?}\n{report}");
}
