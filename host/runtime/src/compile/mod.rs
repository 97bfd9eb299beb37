//! Turns a component into machine code. The code comes from the cache, or is compiled: in a child
//! process with limits, or, for programs that have no such process, on a few threads of low priority.

mod child;
mod ends;
mod lanes;
mod process;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;
use wasmtime::component::Component;

pub use self::child::compile_in_this_process;
use self::lanes::Lanes;
use self::process::Compiled;
pub use self::process::CompilerProcess;
use crate::cache::{self, Cache};
use crate::{LoadError, threads};

/// How often a long compilation logs that it is still running.
const PROGRESS: Duration = Duration::from_secs(2);

/// Components of at least this many bytes are large. They are compiled apart from the others, which
/// could otherwise wait minutes for a large one.
const LARGE: usize = 2 * 1024 * 1024;

/// Compiles components. Clones share the lanes, the threads and the cache.
#[derive(Clone)]
pub(crate) struct Compiler {
    way: Way,
    cache: Option<Cache>,
}

/// Where components are compiled.
#[derive(Clone)]
enum Way {
    Process(Arc<CompilerProcess>, Lanes),
    Threads { small: Arc<ThreadPool>, large: Arc<ThreadPool> },
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
    pub(crate) fn start(
        cache: Option<Cache>,
        process: Option<CompilerProcess>,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if let Some(process) = process {
            let way = Way::Process(Arc::new(process), Lanes::new(cores));
            return Ok(Compiler { way, cache });
        }
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
        let way =
            Way::Threads { small: threads(1)?, large: threads(cores.saturating_sub(1).max(1))? };
        Ok(Compiler { way, cache })
    }

    /// Returns the component's code. Dropping the future ends a child process that compiles. It does
    /// not stop a thread that does.
    pub(crate) async fn compile(
        &self,
        engine: &wasmtime::Engine,
        name: &str,
        bytes: Arc<Vec<u8>>,
    ) -> Result<(Component, Origin), LoadError> {
        let key = self.cache.as_ref().map(|cache| cache.key(&bytes));
        if let Some(component) = self.cached(engine, key).await {
            return Ok((component, Origin::Cached));
        }
        let len = bytes.len();
        let begun = Instant::now();
        if len >= LARGE {
            tracing::info!(plugin = name, bytes = len, "compiling a large plugin");
        }
        let mut compiling = std::pin::pin!(self.compile_now(engine, bytes));
        let mut progress = tokio::time::interval_at((begun + PROGRESS).into(), PROGRESS);
        let code = loop {
            tokio::select! {
                compiled = &mut compiling => break compiled?,
                _ = progress.tick() => {
                    tracing::info!(plugin = name, bytes = len, so_far = ?begun.elapsed(), "still compiling");
                }
            }
        };
        let took = begun.elapsed();
        let (engine, cache) = (engine.clone(), self.cache.clone());
        let made = tokio::task::spawn_blocking(move || {
            if let (Some(cache), Some(key)) = (cache, key) {
                cache.store(key, &code);
            }
            cache::deserialize(&engine, &code)
        });
        let component = made.await.map_err(|error| LoadError::Invalid(error.to_string()))?;
        let component = component.map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
        Ok((component, Origin::Compiled(took)))
    }

    /// Compiles a component to code in the form that the cache keeps.
    async fn compile_now(
        &self,
        engine: &wasmtime::Engine,
        bytes: Arc<Vec<u8>>,
    ) -> Result<Vec<u8>, LoadError> {
        let threads = match &self.way {
            Way::Process(process, lanes) => {
                return match lanes.compile(process, &bytes).await? {
                    Compiled::Code(code) => Ok(code),
                    Compiled::Invalid(why) => Err(LoadError::Invalid(why)),
                };
            }
            Way::Threads { small, .. } if bytes.len() < LARGE => small,
            Way::Threads { large, .. } => large,
        };
        let (finish, finished) = oneshot::channel();
        let engine = engine.clone();
        threads.spawn(move || {
            // The caller may have stopped waiting.
            let _ = finish.send(engine.precompile_component(&bytes));
        });
        let compiled = finished.await.map_err(|_| {
            LoadError::Invalid("the compiler failed, so the file is probably malformed".into())
        })?;
        compiled.map_err(|error| LoadError::Invalid(format!("{error:#}")))
    }

    /// Removes entries of the cache if it is larger than its limit.
    pub(crate) fn prune_cache(&self) {
        if let Some(cache) = self.cache.clone() {
            // Without a runtime there is nobody who would wait for it, and it is not urgent.
            std::thread::spawn(move || cache.prune());
        }
    }

    async fn cached(
        &self,
        engine: &wasmtime::Engine,
        key: Option<cache::Key>,
    ) -> Option<Component> {
        let (cache, key, engine) = (self.cache.clone()?, key?, engine.clone());
        let load = tokio::task::spawn_blocking(move || cache.load(key, &engine));
        load.await.ok().flatten()
    }
}
