//! What is an executor made of, and does this system let us have it? The limits of io_uring, in words for whoever has to
//! raise them.

use std::{
    cell::Cell,
    fs,
    future::{Future, poll_fn},
    io,
    time::{Duration, Instant},
};

use futures_lite::future::{or, yield_now};
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement, Task, TaskQueueHandle, timer::sleep};
use io_uring::{IoUring, Probe, opcode};
use rlimit::Resource;

/// Requests that go to the kernel in one call, in each of the three rings of an executor. More wait their turn.
const RING_DEPTH: usize = 128;

/// Memory for files, of which there are none: the least that glommio takes.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// How long tasks may run before the ring is looked at: as good as for ever, since the one that waits for all others
/// gives the ring its turn (`nap.rs`). An executor that is interrupted before its first task might sleep over it.
const PREEMPT: Duration = Duration::from_secs(3600);

/// Threads that look names up, of each shard.
const RESOLVERS: usize = 2;

/// An executor whose tasks all wait looks at its ring, and finds that so short a time is over.
const ROUND: Duration = Duration::from_micros(1);

/// What glommio wants to be allowed to lock, whatever it needs.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// Memory that one executor locks: in three rings the one for files, and before Linux 5.12 the rings themselves.
const LOCKED_BYTES: u64 = 3 * (IO_MEMORY_BYTES + RING_DEPTH * 128) as u64;

/// Where the kernel says whether anybody may have a ring.
const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";

thread_local! {
    /// How often a task of this thread has run.
    static RUNS: Cell<u64> = const { Cell::new(0) };
}

/// Runs a shard on this thread. It goes to no CPU of its own, since others may want that one too.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let builder = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(RESOLVERS));
    Ok(builder.make()?.run(counted(future)))
}

/// Starts a task of this thread, which runs when those before it have: `glommio::spawn_local` would run it in the middle of
/// whoever starts it, who holds the driver.
pub(crate) fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    glommio::spawn_local_into(counted(future), TaskQueueHandle::default()).expect("the first queue is always there")
}

/// Lets all tasks run that wait for their turn, and returns whether there was any.
pub(crate) async fn others() -> bool {
    let runs = RUNS.get();
    yield_now().await;
    // The task that asks has run again as well.
    RUNS.get() - runs > 1
}

/// Has the executor look at its ring, its timers and what other threads have done.
pub(crate) async fn round() {
    sleep(ROUND).await;
}

fn counted<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let mut future = Box::pin(future);
    poll_fn(move |cx| {
        RUNS.set(RUNS.get() + 1);
        future.as_mut().poll(cx)
    })
}

/// What a future comes to, or `None` when that is not by then.
pub(crate) async fn timeout_at<T>(at: Instant, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        sleep(at.saturating_duration_since(Instant::now())).await;
        None
    };
    or(async { Some(future.await) }, late).await
}

/// What a future comes to, or `None` when that takes too long.
pub(crate) async fn timeout<T>(after: Duration, future: impl Future<Output = T>) -> Option<T> {
    timeout_at(Instant::now() + after, future).await
}

/// Whether this system has rings for so many shards.
///
/// # Errors
/// What is in the way and who can take it out of there, in words for the administrator.
pub(crate) fn check(shards: u16) -> Result<(), String> {
    check_locked_memory(shards)?;
    let disabled = fs::read_to_string(SWITCH).unwrap_or_default();
    try_ring().map_err(|error| {
        format!(
            "{}; `edgeward` does without io_uring",
            obstacle(&error, disabled.trim())
        )
    })
}

/// Raises the limit of locked memory as far as is needed and allowed.
fn check_locked_memory(shards: u16) -> Result<(), String> {
    let wanted = wanted_bytes(shards);
    let (soft, hard) = Resource::MEMLOCK
        .get()
        .map_err(|error| format!("no limit of locked memory is told: {error}"))?;
    if soft >= wanted || (hard >= wanted && Resource::MEMLOCK.set(wanted, hard).is_ok()) {
        return Ok(());
    }
    Err(too_little(hard, wanted, shards))
}

fn wanted_bytes(shards: u16) -> u64 {
    (u64::from(shards) * LOCKED_BYTES).max(LOCKED_BYTES_MIN)
}

fn too_little(limit: u64, wanted: u64, shards: u16) -> String {
    let (limit, wanted_kib) = (limit / 1024, wanted.div_ceil(1024));
    format!(
        "io_uring needs {wanted_kib} KiB of locked memory for {shards} shards, and the limit is {limit} KiB: raise it to \
         {wanted_kib} KiB (systemd: LimitMEMLOCK={wanted_kib}K; container: --ulimit memlock={wanted}; shell: ulimit -l \
         {wanted_kib}); `edgeward` does without io_uring"
    )
}

/// Makes and uses rings of both kinds that glommio has, which itself would not say what goes wrong.
fn try_ring() -> io::Result<()> {
    let ring = IoUring::new(1)?;
    ring.submit()?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    // The youngest of those that glommio uses.
    let codes = [
        opcode::Send::CODE,
        opcode::Recv::CODE,
        opcode::OpenAt::CODE,
        opcode::Statx::CODE,
    ];
    if !codes.into_iter().all(|code| probe.is_supported(code)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let polled: IoUring = IoUring::builder().setup_iopoll().build(1)?;
    polled.submit().map(|_| ())
}

/// What an error of io_uring means, and what to do about it; `disabled` is what the kernel says of who may have a ring.
fn obstacle(error: &io::Error, disabled: &str) -> String {
    let what = match (error.kind(), disabled) {
        (io::ErrorKind::PermissionDenied, "1") => {
            "the kernel gives io_uring to the privileged alone: set the sysctl kernel.io_uring_disabled to 0"
        }
        (io::ErrorKind::PermissionDenied, "2") => {
            "the kernel gives io_uring to nobody: set the sysctl kernel.io_uring_disabled to 0"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "io_uring is forbidden here, as the seccomp profiles of containers do: allow io_uring_setup, \
             io_uring_enter and io_uring_register, with a profile of your own or --security-opt seccomp=unconfined"
        }
        (io::ErrorKind::Unsupported, _) => {
            "the kernel has no io_uring, or one that is too old: it takes Linux 5.8; in a container, allow io_uring_setup, \
             io_uring_enter and io_uring_register in its seccomp profile"
        }
        (io::ErrorKind::OutOfMemory, _) => {
            "io_uring gets too little locked memory: raise the limit (systemd: LimitMEMLOCK=; container: --ulimit \
             memlock=; shell: ulimit -l)"
        }
        _ => "io_uring does not work here",
    };
    format!("{what} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_system_is_judged_as_it_is() {
        // A machine that has no io_uring must at least be told why.
        if let Err(error) = check(1) {
            assert!(error.contains("io_uring") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn each_obstacle_has_its_remedy() {
        let check = |error: i32, disabled: &str, remedy: &str| {
            let told = obstacle(&io::Error::from_raw_os_error(error), disabled);
            assert!(told.contains(remedy) && !told.contains('\n'), "{told}");
        };
        let [denied, missing, memory] = [1, 38, 12];
        check(denied, "2", "kernel.io_uring_disabled");
        check(denied, "1", "kernel.io_uring_disabled");
        check(denied, "0", "seccomp");
        check(denied, "", "seccomp");
        check(missing, "", "Linux 5.8");
        check(memory, "0", "LimitMEMLOCK");
    }

    #[test]
    fn a_limit_is_told_with_the_value_that_is_needed() {
        let told = too_little(65_536, wanted_bytes(1), 1);
        for part in [
            "512 KiB",
            "64 KiB",
            "LimitMEMLOCK=512K",
            "memlock=524288",
            "ulimit -l 512",
        ] {
            assert!(told.contains(part), "{told}");
        }
        assert!(wanted_bytes(64) > wanted_bytes(1));
    }
}
