//! The wasmtime engine of a process, with its threads, its clock and its cache.

use std::sync::Arc;

use wasmtime::component::Linker;

use crate::cache::{Cache, CacheDirectory, CacheError};
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::compile::{Compiler, CompilerProcess};
use crate::config;
use crate::guests::Guests;
use crate::store::{self, StoreData};
use crate::threads::Threads;

/// Compiles and runs plugins. One engine serves a whole process; clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<StoreData>,
    pub(crate) clock: Clock,
    pub(crate) capacity: Capacity,
    pub(crate) guests: Guests,
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

/// What an engine is made with. The default keeps nothing, and compiles on threads of its own.
#[derive(Default)]
pub struct EngineOptions<'a> {
    /// Where compiled code is kept.
    pub cache: Option<CacheDirectory<'a>>,
    /// How to start a process that compiles, with limits. Without it, compilations are not limited.
    pub compiler: Option<CompilerProcess>,
    /// Bytes that the guests of all plugins may take together. Without it, half of the machine's
    /// memory.
    pub guest_memory: Option<u64>,
}

impl Engine {
    /// An engine that keeps compiled code in the directory `cache`, if one is given.
    ///
    /// # Errors
    /// When the machine does not support the engine, or the directory is not safe.
    pub fn new(cache: Option<CacheDirectory<'_>>) -> Result<Self, EngineError> {
        Engine::with(EngineOptions { cache, ..EngineOptions::default() })
    }

    /// An engine with these options.
    ///
    /// # Errors
    /// As for [`Engine::new`].
    pub fn with(options: EngineOptions<'_>) -> Result<Self, EngineError> {
        let EngineOptions { cache, compiler, guest_memory } = options;
        let mut config = config::new();
        let failed = |error: wasmtime::Error| EngineError::Wasmtime(format!("{error:#}"));
        let (wasmtime, capacity) =
            Capacity::provide(&mut config, wasmtime::Engine::new).map_err(failed)?;
        let linker = store::linker(&wasmtime).map_err(failed)?;
        let cache = cache.map(|directory| Cache::open(directory, &wasmtime)).transpose()?;
        let threads = |error| EngineError::Threads(std::io::Error::other(error));
        let threads_for_guests = Arc::new(Threads::start().map_err(EngineError::Threads)?);
        let guests = Guests::new(guest_memory);
        guests.watch(&threads_for_guests);
        Ok(Engine {
            clock: Clock::start(wasmtime.weak()).map_err(EngineError::Threads)?,
            threads: threads_for_guests,
            compiler: Compiler::start(cache, compiler).map_err(threads)?,
            capacity,
            guests,
            linker,
            wasmtime,
        })
    }

    /// If the cache is larger than its limit, removes the entries that were unused for longest.
    pub fn prune_cache(&self) {
        self.compiler.prune_cache();
    }

    /// The bytes that guests take now, and those that they may take.
    #[must_use]
    pub fn guest_memory(&self) -> (usize, usize) {
        (self.guests.taken(), self.guests.limit())
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
