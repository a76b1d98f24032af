//! The binary `edgeward-mio`: the edge on the driver that is to be read, see `tests/src/drive.rs`.

use std::process::ExitCode;

use edgeward_daemon::Runtime;
use edgeward_tests::drive;

fn main() -> ExitCode {
    edgeward_daemon::main(&Runtime {
        name: "edgeward-mio",
        check: |_shards| Ok(()),
        run: drive::run,
    })
}
