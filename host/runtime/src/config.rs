//! The settings of wasmtime. The process that compiles a plugin and the one that runs it share them.

use wasmtime::Config;

/// Bytes of native stack that a guest may use before it traps with a stack overflow.
const GUEST_STACK: usize = 512 * 1024;

/// Bytes of native stack of a call: the guest's part, and the part that host functions need.
const CALL_STACK: usize = 1024 * 1024;

/// How wasmtime compiles and runs plugins. What compiles and what runs must agree.
pub(crate) fn new() -> Config {
    let mut config = Config::new();
    config
        // Calls are five times as fast without it. Only async exports need it, and plugins have
        // none.
        .concurrency_support(false)
        .epoch_interruption(true)
        .wasm_component_model_fixed_length_lists(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(CALL_STACK);
    config
}
