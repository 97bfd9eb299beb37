//! Runs plugins: reads their services, compiles them, pools and limits their instances, calls them.
//!
//! This crate knows wasmtime and nothing of sockets, registries or folders; nobody else knows
//! wasmtime. A plugin is loaded from bytes ([`Plugin::load`]) and called with bytes
//! ([`Plugin::call`]).

mod cache;
mod capacity;
mod clock;
mod codec_path;
mod compile;
mod documentation;
mod engine;
mod error;
mod grants;
mod inspect;
mod instance;
mod limits;
mod outgoing;
mod output;
mod pace;
mod plugin;
mod pool;
mod splice;
mod threads;
mod turns;
mod val_path;

pub use cache::CacheError;
pub use compile::Origin;
pub use engine::{Engine, EngineError};
pub use error::{CallError, LoadError};
pub use grants::{DirGrant, GrantError, Grants, HttpHost, TcpAddress};
pub use inspect::{Import, Inspection, Need, inspect};
pub use limits::{Isolation, Limits, Settings};
pub use plugin::{Candidate, MethodIndex, Plugin};
pub use pool::PoolReport;
pub use threads::Running;
