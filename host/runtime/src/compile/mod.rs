//! Turns a component into machine code. The code comes from the cache, or a few threads of low
//! priority compile it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;
use wasmtime::component::Component;

use crate::cache::Cache;
use crate::{LoadError, threads};

/// How often a long compilation logs that it is still running.
const PROGRESS: Duration = Duration::from_secs(2);

/// Components of at least this many bytes are compiled on threads of their own. Otherwise a small
/// component could wait minutes for a large one.
const LARGE: usize = 2 * 1024 * 1024;

/// Compiles components. Clones share the threads and the cache.
#[derive(Clone)]
pub(crate) struct Compiler {
    small: Arc<ThreadPool>,
    large: Arc<ThreadPool>,
    cache: Option<Cache>,
}

/// Where the code of a plugin came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was compiled, which took this long.
    Compiled(Duration),
    /// It was in the cache: an earlier run had compiled it.
    Cached,
}

impl Compiler {
    pub(crate) fn start(cache: Option<Cache>) -> Result<Self, rayon::ThreadPoolBuildError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = |count| {
            let pool = ThreadPoolBuilder::new()
                .num_threads(count)
                .thread_name(|index| format!("wharf-compile-{index}"))
                .start_handler(|_| threads::be_nice())
                // The caller that waits for this result sees that its channel is closed. The other
                // compilations continue.
                .panic_handler(|_| {});
            pool.build().map(Arc::new)
        };
        // If there are several cores, large compilations leave one free for calls.
        Ok(Compiler { small: threads(1)?, large: threads(cores.saturating_sub(1).max(1))?, cache })
    }

    /// Returns the component's code. Dropping the future does not stop a compilation that has
    /// begun.
    pub(crate) async fn compile(
        &self,
        engine: &wasmtime::Engine,
        name: &str,
        bytes: Arc<Vec<u8>>,
    ) -> Result<(Component, Origin), LoadError> {
        if let Some(component) = self.cached(engine, bytes.clone()).await {
            return Ok((component, Origin::Cached));
        }
        let (finish, mut finished) = oneshot::channel();
        let (engine, cache) = (engine.clone(), self.cache.clone());
        let len = bytes.len();
        let begun = Instant::now();
        let threads = if len < LARGE { &self.small } else { &self.large };
        if len >= LARGE {
            tracing::info!(plugin = name, bytes = len, "compiling a large plugin");
        }
        threads.spawn(move || {
            let compiled = Component::from_binary(&engine, &bytes);
            if let (Ok(component), Some(cache)) = (&compiled, &cache) {
                cache.store(cache.key(&bytes), component);
            }
            // The caller may have stopped waiting.
            let _ = finish.send(compiled);
        });
        let mut progress = tokio::time::interval_at((begun + PROGRESS).into(), PROGRESS);
        let compiled = loop {
            tokio::select! {
                compiled = &mut finished => break compiled,
                _ = progress.tick() => {
                    tracing::info!(plugin = name, bytes = len, so_far = ?begun.elapsed(), "still compiling");
                }
            }
        };
        let compiled = compiled.map_err(|_| {
            LoadError::Invalid("the compiler failed, so the file is probably malformed".into())
        })?;
        let component = compiled.map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
        Ok((component, Origin::Compiled(begun.elapsed())))
    }

    /// Removes entries of the cache if it is larger than its limit.
    pub(crate) fn prune_cache(&self) {
        if let Some(cache) = self.cache.clone() {
            self.small.spawn(move || cache.prune());
        }
    }

    async fn cached(&self, engine: &wasmtime::Engine, bytes: Arc<Vec<u8>>) -> Option<Component> {
        let (cache, engine) = (self.cache.clone()?, engine.clone());
        let load = tokio::task::spawn_blocking(move || cache.load(cache.key(&bytes), &engine));
        load.await.ok().flatten()
    }
}
