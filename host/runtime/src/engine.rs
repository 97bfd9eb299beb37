//! The one wasmtime engine of a process, with the threads, the clock and the cache around it.

use std::sync::Arc;

use wasmtime::Config;
use wasmtime::component::Linker;

use crate::cache::{Cache, CacheDirectory, CacheError};
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::compile::Compiler;
use crate::store::{self, StoreData};
use crate::threads::Threads;

/// Native stack that a guest may use before it is told that its stack overflowed.
const GUEST_STACK: usize = 512 * 1024;

/// Native stack of a call: the guest's, and what the host's functions need beyond.
const CALL_STACK: usize = 1024 * 1024;

/// Compiles and runs plugins. One serves a whole process; clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<StoreData>,
    pub(crate) clock: Clock,
    pub(crate) capacity: Capacity,
    pub(crate) threads: Arc<Threads>,
    pub(crate) compiler: Compiler,
}

/// An engine that cannot be made on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// wasmtime does not support this machine, or a setting of ours.
    #[error("the WebAssembly engine cannot start: {0}")]
    Wasmtime(String),
    /// No threads for guests, compiler or clock.
    #[error("the engine's threads cannot be started")]
    Threads(#[source] std::io::Error),
    /// The cache is of no use.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Engine {
    /// An engine that keeps compiled code in the directory `cache`, if one is given.
    ///
    /// # Errors
    /// When the machine supports no engine, or the directory is not safe.
    pub fn new(cache: Option<CacheDirectory<'_>>) -> Result<Self, EngineError> {
        let mut config = Config::new();
        config
            // Five times as fast a call, for plugins without async exports: all of ours.
            .concurrency_support(false)
            .epoch_interruption(true)
            .wasm_component_model_fixed_length_lists(true)
            .max_wasm_stack(GUEST_STACK)
            .async_stack_size(CALL_STACK);
        let failed = |error: wasmtime::Error| EngineError::Wasmtime(format!("{error:#}"));
        let (wasmtime, capacity) =
            Capacity::provide(&mut config, wasmtime::Engine::new).map_err(failed)?;
        let linker = store::linker(&wasmtime).map_err(failed)?;
        let cache = cache.map(|directory| Cache::open(directory, &wasmtime)).transpose()?;
        let threads = |error| EngineError::Threads(std::io::Error::other(error));
        Ok(Engine {
            clock: Clock::start(wasmtime.weak()).map_err(EngineError::Threads)?,
            threads: Arc::new(Threads::start().map_err(EngineError::Threads)?),
            compiler: Compiler::start(cache).map_err(threads)?,
            capacity,
            linker,
            wasmtime,
        })
    }

    /// Removes the entries of the cache that were unused for longest, where it is over its bound.
    pub fn prune_cache(&self) {
        self.compiler.prune_cache();
    }

    /// Whether the clock rests since no guest has run for a while; for tests of just that.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.clock.is_resting()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}
