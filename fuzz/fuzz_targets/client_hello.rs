//! Which server does a TLS client want?
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward_fuzz::opening::client_hello(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    edgeward_fuzz::replay(edgeward_fuzz::opening::client_hello)
}
