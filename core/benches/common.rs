//! What do the benches share? A configuration from its text, rounds, and a table.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench has a clock and speaks"
)]

use std::time::Instant;

use edgeward_core::{
    config::{Config, Keys, Sources},
    tls::Provider,
};
use rustls::crypto::aws_lc_rs::default_provider;

/// Rounds of each figure.
const ROUNDS: usize = 9;

/// Reads a configuration; its certificate is `edge.pem` with the key `edge.key`, for `edge.example.org`.
pub(crate) fn config(text: &str) -> Config {
    let made = rcgen::generate_simple_self_signed(vec!["edge.example.org".to_owned()]).expect("a certificate");
    let mut files = Files {
        provider: Provider::new(default_provider(), || None),
        certificate: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    };
    let keys = Keys {
        nonce: [9; 32],
        flow: vec![[7; 32]],
    };
    Config::parse(text, &mut files, keys).expect("a good configuration")
}

struct Files {
    provider: Provider,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Sources for Files {
    fn file(&mut self, path: &str) -> Result<Vec<u8>, String> {
        Ok(if path == "edge.key" {
            self.key.clone()
        } else {
            self.certificate.clone()
        })
    }

    fn env(&mut self, _: &str) -> Option<String> {
        None
    }

    fn provider(&self) -> &Provider {
        &self.provider
    }
}

/// Prints the head of the table. From here on what is freed is used again, as in a process that has run for a while: once a
/// large block was freed, glibc returns nothing smaller to the kernel, and no round pays for fresh pages.
pub(crate) fn head() {
    drop(std::hint::black_box(vec![1_u8; 31 << 20]));
    println!("{:<48} {:>12} {:>12}", "what", "median", "best");
}

/// Prints the nanoseconds for one of `count`: the median of all rounds and, where a machine has other work as well, the
/// best one. `prepare` is not timed.
pub(crate) fn time<T>(what: &str, count: usize, mut prepare: impl FnMut() -> T, mut work: impl FnMut(T)) {
    let mut figures: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let prepared = prepare();
            let start = Instant::now();
            work(prepared);
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    println!("{what:<48} {:>12.1} {:>12.1} ns", figures[ROUNDS / 2], figures[0]);
}
