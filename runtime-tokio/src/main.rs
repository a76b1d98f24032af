//! The binary: arguments, configuration, threads.

#[cfg(feature = "demo")]
#[allow(dead_code)]
mod demo;

fn main() {}
