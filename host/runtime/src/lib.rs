//! Runs plugins: reads their services, compiles them, pools and limits their instances, calls them.
//!
//! This is the only crate that uses wasmtime. It knows nothing of sockets, registries or folders. A
//! plugin is loaded from bytes ([`Plugin::load`]) and called with bytes ([`Plugin::call`]).

mod cache;
mod callable;
mod capacity;
mod clock;
mod codec_path;
mod compile;
mod config;
mod contain;
mod documentation;
mod engine;
mod error;
mod features;
mod grants;
mod guests;
mod imports;
mod inspect;
mod instance;
mod limits;
mod line;
mod memory;
mod outgoing;
mod output;
mod pace;
mod plugin;
mod pool;
mod result_size;
mod splice;
mod store;
mod threads;
mod turns;
mod type_sizes;
mod val_path;
mod wit_text;
mod wording;

pub use cache::{CacheDirectory, CacheError};
pub use compile::{CompilerProcess, Origin, compile_in_this_process};
pub use documentation::with_documentation;
pub use engine::{Engine, EngineError, EngineOptions};
pub use error::{CompileError, InvokeError, LoadError, Uncallable};
pub use grants::{DirGrant, GrantError, Grants, HttpHost, TcpAddress};
pub use imports::{Import, Need};
pub use inspect::{Inspection, inspect};
pub use limits::{Isolation, Limits, Settings};
pub use plugin::{BoundMethod, Candidate, MethodIndex, Plugin, WeakPlugin};
pub use pool::PoolReport;
pub use threads::Running;
