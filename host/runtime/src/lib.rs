//! Runs plugins: reads their services, compiles them, pools and limits their instances, calls them.
//!
//! This crate knows wasmtime and nothing of sockets, registries or folders; nobody else knows
//! wasmtime. A plugin is loaded from bytes ([`Plugin::load`]) and called with bytes
//! ([`Plugin::call`]).

mod documentation;
mod engine;
mod inspect;
mod instance;
mod limits;
mod output;
mod plugin;
mod pool;
mod val_path;

pub use engine::{Engine, EngineError};
pub use inspect::{Import, Inspection, Need, inspect};
pub use limits::Limits;
pub use plugin::{CallError, LoadError, MethodIndex, Plugin};
