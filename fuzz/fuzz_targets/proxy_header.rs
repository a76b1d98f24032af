//! For whom does a proxy come?
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward_fuzz::opening::proxy_header(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    edgeward_fuzz::replay(edgeward_fuzz::opening::proxy_header)
}
