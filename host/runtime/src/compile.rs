//! Turns a component into code: out of the cache, or by compiling on a few threads of low priority.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;
use wasmtime::component::Component;

use crate::cache::Cache;
use crate::{LoadError, threads};

/// How often a compilation that goes on says so.
const PROGRESS: Duration = Duration::from_secs(2);

/// Components from this size on, in bytes, are compiled apart, so that small ones need not wait
/// minutes for one of them.
const LARGE: usize = 2 * 1024 * 1024;

/// Compiles. Clones share the threads and the cache.
#[derive(Clone)]
pub(crate) struct Compiler {
    small: Arc<ThreadPool>,
    large: Arc<ThreadPool>,
    cache: Option<Cache>,
}

/// How code came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was compiled, which took this long.
    Compiled(Duration),
    /// An earlier run had compiled it.
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
                // Whoever waits for the result notices; the others go on.
                .panic_handler(|_| {});
            pool.build().map(Arc::new)
        };
        // One core stays free for calls, where there are several.
        Ok(Compiler { small: threads(1)?, large: threads(cores.saturating_sub(1).max(1))?, cache })
    }

    /// The component's code. Dropping the future does not stop a compilation that has begun.
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
            // Nobody may be waiting any more.
            let _ = finish.send(compiled);
        });
        let mut progress = tokio::time::interval_at((begun + PROGRESS).into(), PROGRESS);
        let compiled = loop {
            tokio::select! {
                compiled = &mut finished => break compiled,
                _ = progress.tick() => {
                    tracing::info!(plugin = name, bytes = len, so_far = ?begun.elapsed(), "compiling goes on");
                }
            }
        };
        let compiled = compiled.map_err(|_| {
            LoadError::Invalid("compiling it made the compiler fail: the file is malformed".into())
        })?;
        let component = compiled.map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
        Ok((component, Origin::Compiled(begun.elapsed())))
    }

    /// Removes entries of the cache that are beyond its bound.
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
