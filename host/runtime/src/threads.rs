//! The threads for guests that compute for long. They are separate from the threads that serve
//! sockets.
//!
//! They have a lower priority. So neither a connection nor a call of a few microseconds waits
//! behind guests that compute for whole ticks.

use tokio::runtime::{Handle, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

use crate::turns::{self, Turns};

/// How much is added to the nice value of the guests' threads, and of threads and processes that
/// compile. When the
/// processor is busy, five steps leave a thread about a third of the usual share: long calls
/// continue, slowly.
pub(crate) const NICENESS: i32 = 5;

/// Extra threads, for work that needs no turn.
const SPARE: usize = 2;

/// Runs calls that do not finish in their first poll, and makes and ends instances.
pub(crate) struct Threads {
    /// `None` only while this is being dropped.
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
        // If there are several cores, one is left for sockets and quick calls. Otherwise the
        // system's scheduler would let them wait for milliseconds behind guests that compute.
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
            // Guests that still run stop at their next tick. This does not wait for them.
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of this thread, on systems where each thread has its own priority.
pub(crate) fn be_nice() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};

        // A thread inherits the nice value of the thread that starts it, which may be raised
        // already.
        static USUAL: std::sync::OnceLock<i32> = std::sync::OnceLock::new();
        let own = || getpriority_process(None).unwrap_or_default();
        let nice = *USUAL.get_or_init(own) + NICENESS;
        if own() < nice
            && let Err(error) = setpriority_process(None, nice)
        {
            tracing::debug!(%error, "cannot lower the priority of a thread");
        }
    }
}

/// A call on the guests' threads. Dropping this stops the call.
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
