//! The threads on which guests compute for long, apart from those that serve sockets.
//!
//! They have a lower priority: a call that only needs microseconds never waits behind guests that
//! take whole ticks, and neither does a connection.

use tokio::runtime::{Handle, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

use crate::turns::{self, Turns};

/// By how much the guests' threads, and those that compile, are nicer than the others. Five steps
/// weigh about a third, where there is not enough for all: long calls go on, slowly.
const NICENESS: i32 = 5;

/// Threads beyond the turns there are: for whatever needs no turn.
const SPARE: usize = 2;

/// Runs calls that do not end at once, and makes and ends instances.
pub(crate) struct Threads {
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    pub(crate) turns: Turns,
}

impl Threads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores + SPARE)
            .thread_name("wharf-guests")
            .enable_all()
            .on_thread_start(|| {
                be_nice();
                turns::needed_on_this_thread();
            })
            .build()?;
        let handle = runtime.handle().clone();
        // One core is left to sockets and quick calls, where there are several: the system's own
        // scheduler would let them wait for milliseconds behind guests that compute.
        let turns = Turns::new(cores.saturating_sub(1).max(1));
        Ok(Threads { runtime: Some(runtime), handle, turns })
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(future)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Guests that still run stop at their next tick; nobody waits for them.
            runtime.shutdown_background();
        }
    }
}

/// Lets other threads go first, where the system can tell threads apart.
pub(crate) fn be_nice() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};

        // A thread begins as nice as the one that starts it, and those may be nice already.
        static USUAL: std::sync::OnceLock<i32> = std::sync::OnceLock::new();
        let own = || getpriority_process(None).unwrap_or_default();
        let nice = *USUAL.get_or_init(own) + NICENESS;
        if own() < nice
            && let Err(error) = setpriority_process(None, nice)
        {
            tracing::debug!(%error, "a thread keeps its priority");
        }
    }
}

/// A call on the guests' threads; dropped, it is stopped.
#[derive(Debug)]
pub struct Running(AbortHandle);

impl Running {
    pub(crate) fn new<T>(task: &JoinHandle<T>) -> Self {
        Running(task.abort_handle())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
