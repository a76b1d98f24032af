//! Which requests does a connection hold, and how are they forwarded?
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward_fuzz::http::body(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    edgeward_fuzz::replay(edgeward_fuzz::http::body)
}
