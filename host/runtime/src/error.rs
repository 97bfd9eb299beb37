//! Why a plugin does not load, and why a call returns no result.

use wharf_schema::ValueError;

use crate::imports::{Import, Need};

/// Why a file cannot be a plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It is not WebAssembly at all.
    #[error(
        "it is not WebAssembly: build a component, with 'cargo build --target wasm32-wasip2' for example"
    )]
    NotWebAssembly,
    /// It is a core module, not a component.
    #[error(
        "it is a core WebAssembly module, not a component: build it for wasm32-wasip2, or wrap it with 'wasm-tools component new'"
    )]
    CoreModule,
    /// It has only types.
    #[error("it is a WIT package, types without code: build a component that implements it")]
    WitPackage,
    /// It is cut off.
    #[error("it is cut off after {len} bytes: copy the complete file again")]
    Truncated {
        /// How long the file is, in bytes.
        len: usize,
    },
    /// It is damaged, or exceeds a limit of the engine.
    #[error("it is not a valid component: {0}")]
    Invalid(String),
    /// It has no method that can be called. Holds the functions outside any interface.
    #[error("it exports no interface with a method that can be called{}", stray(.0))]
    NothingToCall(Vec<String>),
    /// It has imports that Wharf does not provide.
    #[error(
        "it imports interfaces that Wharf does not provide: {}; build it without them",
        .0.join(", ")
    )]
    UnknownImports(Vec<String>),
    /// It has imports that need a grant from the operator.
    #[error("its imports need grants: {}", ungranted(.0))]
    NotGranted(Vec<Import>),
    /// The first instance did not start.
    #[error("its first instance does not start: {0}")]
    DoesNotStart(InvokeError),
}

/// Which imports need which grant, and how to write each grant.
fn ungranted(imports: &[Import]) -> String {
    let mut texts = Vec::new();
    for need in Need::GRANTED {
        let of_need = imports.iter().filter(|import| import.need == need);
        let names: Vec<&str> = of_need.map(|import| import.name.as_str()).collect();
        let (false, Some((example, nothing))) = (names.is_empty(), need.grant()) else { continue };
        let names = names.join(", ");
        texts.push(format!("{names} (write '{example}', or '{nothing}' to grant none)"));
    }
    format!("{}; write the grants under [grants] in the plugin's .toml file", texts.join("; "))
}

fn stray(functions: &[String]) -> String {
    if functions.is_empty() {
        return ": a service is an exported WIT interface".to_owned();
    }
    format!(
        ": it exports functions outside any interface ({}); move them into an interface and export that",
        functions.join(", ")
    )
}

/// Why a call returns no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvokeError {
    /// The arguments do not fit the method's types.
    #[error("the arguments do not fit: {0}")]
    InvalidArgument(ValueError),
    /// The arguments or the result are too large.
    #[error("{0}")]
    TooLarge(String),
    /// The result needs more memory than the data path has for it.
    #[error("the result is too large: its values take more than {} MiB of memory, the limit of this plugin", limit / (1024 * 1024))]
    ResultTooLarge {
        /// The bound, in bytes of the guest's values.
        limit: usize,
    },
    /// The method's types cannot be sent over the network.
    #[error("the method cannot be called from outside: {0}")]
    NotCallable(String),
    /// The queue is full: too many calls wait for an instance.
    #[error("the queue of this plugin is full, {queue} calls wait already: retry later")]
    QueueFull {
        /// The bound.
        queue: usize,
    },
    /// The host has no room for an instance of the plugin.
    #[error("the host has no room for another instance of any plugin: retry later")]
    HostFull,
    /// The deadline has passed.
    #[error("{}", if *executed { "the deadline passed while the guest ran" } else { "the deadline passed while the call waited for an instance" })]
    DeadlineExceeded {
        /// Whether the guest ran for this call.
        executed: bool,
    },
    /// The guest asked for more memory than its limit allows, and trapped when it did not get it.
    #[error("the guest reached its memory limit of {} MiB, and then trapped: {cause}", limit / (1024 * 1024))]
    MemoryLimit {
        /// The bound in bytes.
        limit: usize,
        /// The trap that followed.
        cause: String,
    },
    /// The guest trapped.
    #[error("the guest trapped: {cause}")]
    Trapped {
        /// The trap, in wasmtime's words.
        cause: String,
    },
    /// The guest called `exit`.
    #[error("the guest called exit({0})")]
    Exited(i32),
    /// No instance can be started for the call.
    #[error("no instance of the plugin can be started: {0}")]
    CannotStart(String),
}

impl InvokeError {
    /// Whether the guest failed: it trapped, or called `exit`.
    #[must_use]
    pub fn is_trap(&self) -> bool {
        matches!(
            self,
            InvokeError::Trapped { .. } | InvokeError::MemoryLimit { .. } | InvokeError::Exited(_)
        )
    }

    /// Whether the guest certainly ran no code for the call, so that the call may be retried.
    #[must_use]
    pub fn not_executed(&self) -> bool {
        match self {
            InvokeError::InvalidArgument(_)
            | InvokeError::NotCallable(_)
            | InvokeError::QueueFull { .. }
            | InvokeError::HostFull
            | InvokeError::CannotStart(_) => true,
            InvokeError::DeadlineExceeded { executed } => !executed,
            InvokeError::TooLarge(_)
            | InvokeError::ResultTooLarge { .. }
            | InvokeError::MemoryLimit { .. }
            | InvokeError::Trapped { .. }
            | InvokeError::Exited(_) => false,
        }
    }
}
