//! What is relayed for users who have proved who they are?
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward_fuzz::turn::ops(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    edgeward_fuzz::replay(edgeward_fuzz::turn::ops)
}
