//! A loaded plugin: its services, and calls of their methods.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Handle;
use wasmtime::component::{Component, ComponentExportIndex};
use wharf_schema::{Service, Type, TypeId, ValueError};

use crate::inspect::{Inspection, Need, inspect};
use crate::instance::{Blueprint, Callee};
use crate::pool::Pool;
use crate::{Engine, Limits};

/// A plugin that is compiled and has shown that it starts. Clones share it.
#[derive(Clone)]
pub struct Plugin(Arc<Inner>);

struct Inner {
    services: Vec<Arc<Service>>,
    /// Of each service's methods; `None` for those that cannot be called.
    exports: Vec<Vec<Option<ComponentExportIndex>>>,
    pool: Arc<Pool>,
}

/// A method of a plugin, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodIndex {
    /// Index into [`Plugin::services`].
    pub service: usize,
    /// Index into that service's methods.
    pub method: usize,
}

/// Why a file cannot be a plugin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Something else altogether.
    #[error(
        "it is not WebAssembly: build a component, with 'cargo build --target wasm32-wasip2' for example"
    )]
    NotWebAssembly,
    /// A module of the time before components.
    #[error(
        "it is a core WebAssembly module, not a component: build it for wasm32-wasip2, or wrap it with 'wasm-tools component new'"
    )]
    CoreModule,
    /// Types only.
    #[error("it is a WIT package, types without code: build a component that implements them")]
    WitPackage,
    /// Cut off.
    #[error("it ends in the middle, after {len} bytes: the copy is not complete; copy it again")]
    Truncated {
        /// How long the file is, in bytes.
        len: usize,
    },
    /// Damaged, or beyond what the engine takes.
    #[error("it is not a valid component: {0}")]
    Invalid(String),
    /// Nothing that could be called.
    #[error("it exports no interface with a method that can be called{}", stray(.0))]
    NothingToCall(Vec<String>),
    /// Imports that nobody provides.
    #[error("it imports what wharf does not provide: {}", .0.join(", "))]
    UnknownImports(Vec<String>),
    /// The first instance did not come up.
    #[error("its first instance does not start: {0}")]
    DoesNotStart(CallError),
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

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The arguments do not fit the method's types.
    #[error("the arguments do not fit: {0}")]
    InvalidArgument(ValueError),
    /// Arguments or result beyond a bound.
    #[error("{0}")]
    TooLarge(String),
    /// The result takes more memory than the data path has for it.
    #[error("the result is too large: its values take more than the {} MiB that this plugin's data path has for them", limit / (1024 * 1024))]
    ResultTooLarge {
        /// The bound, in bytes of the guest's values.
        limit: usize,
    },
    /// The method's types cannot be transported.
    #[error("the method cannot be called from outside: {0}")]
    NotCallable(String),
    /// Too many calls wait for an instance.
    #[error("{queue} calls wait for this plugin already")]
    QueueFull {
        /// The bound.
        queue: usize,
    },
    /// Out of time.
    #[error("{}", if *executed { "the deadline passed while the guest ran" } else { "the deadline passed while the call waited for an instance" })]
    DeadlineExceeded {
        /// Whether the guest ran for this call.
        executed: bool,
    },
    /// The guest asked for more memory than it may have, and did not cope with the refusal.
    #[error("the guest reached its memory limit of {} MiB, and then trapped: {cause}", limit / (1024 * 1024))]
    MemoryLimit {
        /// The bound in bytes.
        limit: usize,
        /// The trap that followed.
        cause: String,
    },
    /// The guest broke.
    #[error("the guest trapped: {cause}")]
    Trapped {
        /// wasmtime's word for it.
        cause: String,
    },
    /// The guest ended itself.
    #[error("the guest called exit({0})")]
    Exited(i32),
    /// No instance for the call.
    #[error("no instance of the plugin can be started: {0}")]
    CannotStart(String),
}

impl CallError {
    /// Whether no code of the guest ran for the call, so that it may be tried again.
    #[must_use]
    pub fn not_executed(&self) -> bool {
        match self {
            CallError::InvalidArgument(_)
            | CallError::NotCallable(_)
            | CallError::QueueFull { .. }
            | CallError::CannotStart(_) => true,
            CallError::DeadlineExceeded { executed } => !executed,
            CallError::TooLarge(_)
            | CallError::ResultTooLarge { .. }
            | CallError::MemoryLimit { .. }
            | CallError::Trapped { .. }
            | CallError::Exited(_) => false,
        }
    }
}

impl Plugin {
    /// Compiles a plugin and starts its first instance. `name` is for the log.
    ///
    /// Compiling takes up to seconds of processor time, on threads of its own. It must be called
    /// within a tokio runtime, which then also makes the plugin's instances.
    ///
    /// # Errors
    /// Why the bytes cannot be a plugin.
    pub async fn load(
        engine: &Engine,
        name: &str,
        bytes: Vec<u8>,
        limits: Limits,
    ) -> Result<Self, LoadError> {
        let (engine, name) = (engine.clone(), Arc::from(name));
        let runtime = Handle::current();
        let compiled =
            tokio::task::spawn_blocking(move || compile(engine, name, &bytes, limits, runtime));
        let plugin = compiled.await.map_err(|_| {
            LoadError::Invalid("reading it made the decoder fail: the file is malformed".into())
        })??;
        plugin.0.pool.warm().await.map_err(LoadError::DoesNotStart)?;
        Ok(plugin)
    }

    /// What it serves.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.0.services
    }

    /// The bounds it was loaded with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.pool.blueprint().limits
    }

    /// Instances that exist at the moment.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.0.pool.live()
    }

    /// Calls a method with encoded arguments; the answer is the encoded result.
    ///
    /// `deadline` is capped by the plugin's own. Dropping the future stops the guest at its next
    /// tick and drops its instance.
    ///
    /// # Errors
    /// Why there is no result, and whether the guest ran ([`CallError::not_executed`]).
    pub async fn call(
        self,
        method: MethodIndex,
        arguments: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let inner = &*self.0;
        let unknown = || CallError::NotCallable("there is no such method".into());
        let service = inner.services.get(method.service).ok_or_else(unknown)?;
        let signature = match &service.methods().get(method.method).ok_or_else(unknown)?.signature {
            Ok(signature) => signature,
            Err(reason) => return Err(CallError::NotCallable(reason.clone())),
        };
        let export = inner.exports[method.service][method.method].as_ref().ok_or_else(unknown)?;
        let callee = Callee { export, types: service.types(), signature };
        let blueprint = inner.pool.blueprint();
        let deadline = Instant::now()
            .checked_add(blueprint.limits.call_timeout)
            .map_or(deadline, |cap| cap.min(deadline));
        let mut lease = inner.pool.lease(deadline).await?;
        let instance =
            lease.begin().ok_or_else(|| CallError::CannotStart("the instance is gone".into()))?;
        let result = instance.call(blueprint, &callee, &arguments, deadline).await;
        if matches!(result, Ok(_) | Err(CallError::InvalidArgument(_) | CallError::TooLarge(_))) {
            lease.done();
        }
        result
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.0.services.iter().map(|s| s.name().to_string()).collect();
        f.debug_tuple("Plugin").field(&names).finish()
    }
}

fn compile(
    engine: Engine,
    name: Arc<str>,
    bytes: &[u8],
    limits: Limits,
    runtime: Handle,
) -> Result<Plugin, LoadError> {
    let Inspection { services, exports, stray_functions, imports } = inspect(bytes)?;
    if !services.iter().any(|s| s.methods().iter().any(|m| m.signature.is_ok())) {
        return Err(LoadError::NothingToCall(stray_functions));
    }
    let unknown: Vec<String> =
        imports.into_iter().filter(|i| i.need == Need::Unknown).map(|i| i.name).collect();
    if !unknown.is_empty() {
        return Err(LoadError::UnknownImports(unknown));
    }
    let invalid = |error: wasmtime::Error| LoadError::Invalid(format!("{error:#}"));
    let component = Component::from_binary(&engine.wasmtime, bytes).map_err(invalid)?;
    let exports = services.iter().zip(exports).map(|(service, export)| {
        let instance = component.get_export_index(None, &export);
        let function = |name: &str| component.get_export_index(instance.as_ref(), name);
        service
            .methods()
            .iter()
            .map(|m| m.signature.as_ref().ok().and_then(|_| function(&m.name)))
            .collect()
    });
    let exports = exports.collect();
    let has_flags = services.iter().any(results_have_flags);
    let blueprint = Blueprint::new(engine, name, limits, &component, has_flags).map_err(invalid)?;
    Ok(Plugin(Arc::new(Inner {
        exports,
        services: services.into_iter().map(Arc::new).collect(),
        pool: Pool::new(Arc::new(blueprint), runtime),
    })))
}

/// Whether flags may be part of some method's result.
fn results_have_flags(service: &Service) -> bool {
    let signatures = service.methods().iter().filter_map(|method| method.signature.as_ref().ok());
    let mut to_visit: Vec<TypeId> = signatures.filter_map(|signature| signature.result).collect();
    let mut visited = HashSet::new();
    while let Some(ty) = to_visit.pop() {
        if matches!(service.types()[ty], Type::Flags(_)) {
            return true;
        }
        if visited.insert(ty) {
            to_visit.extend(service.types()[ty].parts());
        }
    }
    false
}
