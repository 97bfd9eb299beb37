//! The one wasmtime engine of a process, and the clock that interrupts its guests.

use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, EngineWeak};

use crate::instance::State;

/// How often running guests are interrupted, to look at their deadline and to let others run.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Native stack that a guest may use before it is told that its stack overflowed.
const GUEST_STACK: usize = 512 * 1024;

/// Compiles and runs plugins. One serves a whole process; clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
}

/// An engine that cannot be made on this machine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not support this machine, or a setting of ours.
    #[error("the WebAssembly engine cannot start: {0}")]
    Wasmtime(String),
    /// No thread for the clock.
    #[error("no thread for the engine's clock")]
    Thread(#[from] std::io::Error),
}

impl Engine {
    /// An engine, with the thread that ticks for it as long as a clone of it lives.
    ///
    /// # Errors
    /// When the machine supports no engine.
    pub fn new() -> Result<Self, EngineError> {
        let mut config = Config::new();
        config
            // Five times as fast a call, for plugins without async exports: all of ours.
            .concurrency_support(false)
            .epoch_interruption(true)
            .wasm_component_model_fixed_length_lists(true)
            .max_wasm_stack(GUEST_STACK);
        let failed = |error: wasmtime::Error| EngineError::Wasmtime(format!("{error:#}"));
        let wasmtime = wasmtime::Engine::new(&config).map_err(failed)?;
        let mut linker = Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(failed)?;
        let weak = wasmtime.weak();
        std::thread::Builder::new().name("wharf-epoch".into()).spawn(move || tick(&weak))?;
        Ok(Engine { wasmtime, linker })
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which does nothing but this")]
fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        std::thread::sleep(TICK);
    }
}
