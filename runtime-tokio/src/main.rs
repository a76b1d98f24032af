//! The binary: arguments, configuration, threads.

fn main() {}
