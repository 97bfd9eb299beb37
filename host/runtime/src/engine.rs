//! The wasmtime engine of a process, with its threads, its clock and its cache.

use std::sync::Arc;

use wasmtime::Config;
use wasmtime::component::Linker;

use crate::cache::{Cache, CacheDirectory, CacheError};
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::compile::Compiler;
use crate::store::{self, StoreData};
use crate::threads::Threads;

/// Bytes of native stack that a guest may use before it traps with a stack overflow.
const GUEST_STACK: usize = 512 * 1024;

/// Bytes of native stack of a call: the guest's part, and the part that host functions need.
const CALL_STACK: usize = 1024 * 1024;

/// Compiles and runs plugins. One engine serves a whole process; clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<StoreData>,
    pub(crate) clock: Clock,
    pub(crate) capacity: Capacity,
    pub(crate) threads: Arc<Threads>,
    pub(crate) compiler: Compiler,
}

/// Why an engine cannot start on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// wasmtime does not support this machine, or one of our settings.
    #[error("the WebAssembly engine cannot start: {0}")]
    Wasmtime(String),
    /// The threads for guests, compiler or clock cannot be started.
    #[error("the engine's threads cannot be started")]
    Threads(#[source] std::io::Error),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Engine {
    /// An engine that keeps compiled code in the directory `cache`, if one is given.
    ///
    /// # Errors
    /// When the machine does not support the engine, or the directory is not safe.
    pub fn new(cache: Option<CacheDirectory<'_>>) -> Result<Self, EngineError> {
        let mut config = Config::new();
        config
            // Calls are five times as fast without it. Only async exports need it, and plugins have
            // none.
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

    /// If the cache is larger than its limit, removes the entries that were unused for longest.
    pub fn prune_cache(&self) {
        self.compiler.prune_cache();
    }

    /// Whether the clock rests because no guest has run for a while. Only tests need this.
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
