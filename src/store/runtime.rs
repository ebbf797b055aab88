//! The one runtime of the process.
//!
//! I/O is async inside; every caller outside (Python, the CLI, tests) is synchronous and enters through [`block_on`].
//! Worker threads drive sockets and timers only: file I/O and codecs run elsewhere.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

struct Process {
    runtime: Runtime,
    process: u32,
}

static PROCESS: OnceLock<Process> = OnceLock::new();

fn process() -> &'static Process {
    PROCESS.get_or_init(|| {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(128)
            // Hooks run on these threads, too: they have as much as Python gives its own.
            .thread_stack_size(8 << 20)
            .thread_name("regraft-io")
            .enable_all()
            .build()
            .expect("the operating system gives threads for the runtime");
        Process { runtime, process: std::process::id() }
    })
}

/// The runtime that drives all I/O; made at the first call.
///
/// # Panics
/// When the operating system refuses threads.
#[must_use]
pub fn runtime() -> &'static Runtime {
    &process().runtime
}

/// Whether this process was forked off after the runtime was made: its threads did not come along, so every I/O call
/// would hang. Bindings refuse to work then.
#[must_use]
pub fn forked() -> bool {
    PROCESS.get().is_some_and(|process| process.process != std::process::id())
}

/// Runs `future` to its end on the calling thread.
///
/// # Panics
/// When called from inside the runtime: async code awaits instead.
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}
