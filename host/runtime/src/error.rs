//! Why a plugin does not load, and why a call returns no result.

use std::time::Duration;

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
    /// It needs features of WebAssembly that the engine does not run.
    #[error(
        "it needs WebAssembly features that Wharf does not run: {}; build it without",
        .0.join(", ")
    )]
    Features(Vec<&'static str>),
    /// A value of one of its types would not fit into any memory.
    #[error("{name} is too large: a value would take more than {} MiB", max / (1024 * 1024))]
    TypeTooLarge {
        /// The type, by its name, or by the function that uses it.
        name: String,
        /// The bound in bytes.
        max: u64,
    },
    /// It has no method that can be called.
    #[error("it exports no method that can be called: {}", nothing(.0))]
    NothingToCall(Uncallable),
    /// It has imports that Wharf does not provide.
    #[error(
        "it imports interfaces that Wharf does not provide: {}; build it without them",
        .0.join(", ")
    )]
    UnknownImports(Vec<String>),
    /// It imports another version of WASI.
    #[error(
        "it needs a version of WASI that Wharf does not run ({}); this version of Wharf runs WASI 0.2",
        .0.join(", ")
    )]
    OtherWasi(Vec<String>),
    /// It has imports that need a grant from the operator.
    #[error("its imports need grants: {}", ungranted(.0))]
    NotGranted(Vec<Import>),
    /// The first instance did not start.
    #[error("its first instance does not start: {0}")]
    DoesNotStart(InvokeError),
    /// Compiling it took too much.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl LoadError {
    /// Whether loading it again later may help, although nothing about the file changes.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            LoadError::DoesNotStart(error) => {
                matches!(error, InvokeError::HostFull | InvokeError::GuestMemory { .. })
            }
            LoadError::Compile(error) => error.is_passing(),
            _ => false,
        }
    }
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

/// What a component exports that cannot be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uncallable {
    /// Methods of its services, each with the reason.
    pub methods: Vec<(String, String)>,
    /// Functions outside any interface.
    pub stray_functions: Vec<String>,
    /// Interfaces that are no services.
    pub no_services: Vec<String>,
}

/// The most methods whose reasons are given.
const REASONS: usize = 10;

fn nothing(Uncallable { methods, stray_functions, no_services }: &Uncallable) -> String {
    let mut texts: Vec<String> =
        methods.iter().take(REASONS).map(|(name, reason)| format!("{name}: {reason}")).collect();
    if let Some(more) = methods.len().checked_sub(REASONS).filter(|more| *more > 0) {
        texts.push(format!("{more} more methods"));
    }
    if !stray_functions.is_empty() {
        texts.push(format!(
            "it exports functions outside any interface ({}); move them into an interface and export that",
            stray_functions.join(", ")
        ));
    }
    if !no_services.is_empty() {
        texts.push(format!(
            "{} belongs to WASI or to a toolchain, and is no service",
            no_services.join(", ")
        ));
    }
    if texts.is_empty() {
        return "a service is an exported WIT interface".to_owned();
    }
    texts.join("; ")
}

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// It took too much memory.
    #[error("compiling it took more than {} MiB of memory, the limit (--compile-memory): make its functions smaller, or raise the limit", limit / (1024 * 1024))]
    Memory {
        /// The limit in bytes.
        limit: u64,
    },
    /// It took too long.
    #[error(
        "compiling it took longer than {limit:?}, the limit (--compile-timeout): make its functions smaller, or raise the limit"
    )]
    Time {
        /// The limit.
        limit: Duration,
    },
    /// The child process was ended from outside, or the compiler has a fault.
    #[error("the process that compiled it ended without a result: {0}")]
    Ended(String),
    /// The child process cannot be started, or talked to.
    #[error("the process that compiles it cannot be used: {0}")]
    Process(#[from] std::io::Error),
}

impl CompileError {
    /// Whether compiling it again later may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, CompileError::Process(_))
    }
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
    /// The guest asked for more memory than all guests of the host may take together, and trapped
    /// when it did not get it.
    #[error("the guests of this host take all memory that they may ({} MiB, --guest-memory), and then the guest trapped: {cause}", limit / (1024 * 1024))]
    GuestMemory {
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
    /// Something panicked in the host under the call: the engine, or a data path.
    #[error("the call failed inside the host, by a fault of Wharf or of its engine: {0}")]
    Panicked(String),
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
            InvokeError::Trapped { .. }
                | InvokeError::MemoryLimit { .. }
                | InvokeError::GuestMemory { .. }
                | InvokeError::Exited(_)
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
            | InvokeError::GuestMemory { .. }
            | InvokeError::Trapped { .. }
            | InvokeError::Panicked(_)
            | InvokeError::Exited(_) => false,
        }
    }
}
