//! What must hold for any bytes at all? One function for each door of the core that strangers write to.
//!
//! Each takes bytes, drives the core with them and panics when a property is broken. They are ordinary code: `cargo test`
//! replays the committed corpora through them, `cargo +nightly fuzz run NAME` looks for new bytes.

use std::{path::Path, process::ExitCode};

pub mod config;
pub mod http;
pub mod opening;
pub mod sequence;
pub mod shard;
pub mod sip;
pub mod split;
pub mod stun;
pub mod turn;
pub mod ws;

/// A function that is fuzzed, by the name of its target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("channel_stream", stun::stream),
    ("client_hello", opening::client_hello),
    ("config", config::file),
    ("http_body", http::body),
    ("http_head", http::head),
    ("proxy_header", opening::proxy_header),
    ("shard_ops", shard::ops),
    ("sip", sip::message),
    ("sip_ops", sip::ops),
    ("stun", stun::message),
    ("turn_ops", turn::ops),
    ("ws", ws::frames),
];

/// The `main` of a target without a fuzzer: runs it on the files that are named on the command line.
pub fn replay(target: fn(&[u8])) -> ExitCode {
    let files: Vec<_> = std::env::args_os().skip(1).collect();
    if files.is_empty() {
        eprintln!("Name the files to replay, or look for new ones with `cargo +nightly fuzz run TARGET`.");
        return ExitCode::FAILURE;
    }
    for file in files {
        let path = Path::new(&file);
        match std::fs::read(path) {
            Ok(bytes) => target(&bytes),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
