//! Is a head that we accept the same to others?
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward_fuzz::http::head(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    edgeward_fuzz::replay(edgeward_fuzz::http::head)
}
