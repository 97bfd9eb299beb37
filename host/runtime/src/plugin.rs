//! A plugin, from the bytes of its file to calls of its methods.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use wasmtime::component::Component;
use wharf_schema::{Service, ServiceName, Type, TypeId};

use crate::callable::Callable;
use crate::compile::Origin;
use crate::contain::contained;
#[cfg(test)]
use crate::contain::inject::{self, Stage};
use crate::error::{InvokeError, LoadError};
use crate::imports::{Import, Need};
use crate::inspect::{Inspection, inspect};
use crate::instance::Blueprint;
use crate::output::Output;
use crate::pace::Pace;
use crate::pool::{Leased, Pool, PoolReport};
use crate::result_size::ResultSize;
use crate::splice::{EXPORT, MAX_RESULT, MethodNumbers, Spliced, splice};
use crate::threads::Running;
use crate::{Engine, Grants, Settings, turns};

/// A component that exports services and is not compiled yet.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The component, with its codec if it has one.
    bytes: Arc<Vec<u8>>,
    size: usize,
    /// The numbers of the methods that its codec calls.
    numbers: MethodNumbers,
    services: Vec<Arc<Service>>,
    exports: Vec<String>,
    imports: Vec<Import>,
}

/// A plugin that is compiled and has started an instance. Clones share it.
#[derive(Clone)]
pub struct Plugin(Arc<Inner>);

struct Inner {
    services: Vec<Arc<Service>>,
    /// All callable methods.
    callables: Vec<Callable>,
    /// Their names, as `arith.multiply`.
    names: Arc<[String]>,
    /// For each method of each service, its index in `callables`.
    places: Vec<Vec<Option<usize>>>,
    pool: Arc<Pool>,
    origin: Origin,
}

/// A plugin that does not keep it loaded.
#[derive(Clone)]
pub struct WeakPlugin(Weak<Inner>);

impl WeakPlugin {
    /// The plugin, if something still uses it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Plugin> {
        self.0.upgrade().map(Plugin)
    }
}

/// A method of a plugin that is ready to be called.
#[derive(Clone, Debug)]
pub struct BoundMethod {
    plugin: Plugin,
    place: usize,
    caller: u64,
}

/// A method of a plugin, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodIndex {
    /// Index into [`Plugin::services`].
    pub service: usize,
    /// Index into that service's methods.
    pub method: usize,
}

impl Candidate {
    /// Reads what a file exports and imports. This takes milliseconds of processor time, on a
    /// thread of its own.
    ///
    /// # Errors
    /// Why the bytes cannot be a plugin.
    pub async fn read(bytes: Vec<u8>) -> Result<Self, LoadError> {
        let read = tokio::task::spawn_blocking(move || {
            let inspection = inspect(&bytes)?;
            if let Some(uncallable) = inspection.nothing_to_call() {
                return Err(LoadError::NothingToCall(uncallable));
            }
            let Inspection { services, exports, imports, .. } = inspection;
            let size = bytes.len();
            let Spliced { bytes, numbers } = splice(&bytes, &services, &exports)
                .unwrap_or(Spliced { bytes, numbers: MethodNumbers::default() });
            let services = services.into_iter().map(Arc::new).collect();
            Ok(Candidate { bytes: Arc::new(bytes), size, numbers, services, exports, imports })
        });
        read.await.map_err(|_| {
            LoadError::Invalid("the decoder failed, so the file is probably malformed".into())
        })?
    }

    /// The services that it would serve.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// Keeps only the services that are wanted.
    ///
    /// # Errors
    /// When none is wanted: the names of all.
    pub fn choose(&mut self, wanted: impl Fn(&ServiceName) -> bool) -> Result<(), Vec<String>> {
        let keep: Vec<bool> = self.services.iter().map(|service| wanted(service.name())).collect();
        if !keep.contains(&true) {
            return Err(self.services.iter().map(|service| service.name().to_string()).collect());
        }
        let kept = |index: &mut usize| {
            let kept = keep.get(*index).copied().unwrap_or(false);
            *index += 1;
            kept
        };
        let (mut service, mut export) = (0, 0);
        self.services.retain(|_| kept(&mut service));
        self.exports.retain(|_| kept(&mut export));
        self.numbers.retain_services(&keep);
        Ok(())
    }

    /// The size of its file, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many bytes its codec adds; 0 without a codec.
    #[must_use]
    pub fn codec_size(&self) -> usize {
        self.bytes.len().saturating_sub(self.size)
    }

    /// The same candidate without a codec. Its calls use dynamic values, which is slow. Tests
    /// compare codecs with it.
    #[must_use]
    pub fn without_codec(self) -> Self {
        Candidate { numbers: MethodNumbers::default(), ..self }
    }

    /// The same candidate with a codec only for the methods whose names are wanted. The others use
    /// dynamic values in the same instances, so one path can read what the other has written.
    #[must_use]
    pub fn with_codec_for(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        let services = &self.services;
        self.numbers.retain(|service, method| {
            let method = services.get(service).and_then(|service| service.methods().get(method));
            method.is_some_and(|method| wanted(&method.name))
        });
        self
    }

    /// Compiles it, unless its code is in the cache, and starts its first instance. `name` is for
    /// the log.
    ///
    /// Compiling can take minutes of processor time, at a low priority: in a process of its own, if the
    /// engine has a [`crate::CompilerProcess`].
    ///
    /// # Errors
    /// Why it cannot serve. Cancel-safe: dropping the future ends a process that compiles. A thread that compiles
    /// continues.
    pub async fn load(
        self,
        engine: &Engine,
        name: &str,
        settings: Settings,
    ) -> Result<Plugin, LoadError> {
        let Candidate { bytes, numbers, services, exports, imports, .. } = self;
        check(&settings.grants, &imports)?;
        let (component, origin) = engine.compiler.compile(&engine.wasmtime, name, bytes).await?;
        let (engine, name) = (engine.clone(), Arc::<str>::from(name));
        // With thousands of methods, this takes a while, and calls must not wait for it.
        let bound = tokio::task::spawn_blocking(move || {
            bind(&engine, name, settings, &component, (services, exports, numbers))
        });
        let bound = bound.await.map_err(|error| LoadError::Invalid(error.to_string()))?;
        let Bound { services, callables, names, places, blueprint } = bound?;
        let pool = Pool::new(Arc::new(blueprint));
        pool.warm().await.map_err(LoadError::DoesNotStart)?;
        Ok(Plugin(Arc::new(Inner { services, callables, names, places, pool, origin })))
    }
}

impl Plugin {
    /// Reads, compiles and starts a plugin: [`Candidate::read`] and [`Candidate::load`] in one.
    ///
    /// # Errors
    /// Why the bytes cannot be a plugin.
    pub async fn load(
        engine: &Engine,
        name: &str,
        bytes: Vec<u8>,
        settings: Settings,
    ) -> Result<Self, LoadError> {
        Candidate::read(bytes).await?.load(engine, name, settings).await
    }

    /// A reference that does not keep it loaded.
    #[must_use]
    pub fn downgrade(&self) -> WeakPlugin {
        WeakPlugin(Arc::downgrade(&self.0))
    }

    /// The services that it serves.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.0.services
    }

    /// Whether it was compiled or came from the cache.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Whether some of its methods are called through a codec.
    #[must_use]
    pub fn uses_codec(&self) -> bool {
        self.0.callables.iter().any(|callable| callable.codec.is_some())
    }

    /// Its callable methods that no codec calls, as `arith.multiply`.
    #[must_use]
    pub fn methods_without_codec(&self) -> Vec<String> {
        let slow = self.0.callables.iter().filter(|callable| callable.codec.is_none());
        slow.filter_map(|callable| self.0.names.get(callable.place).cloned()).collect()
    }

    /// What it may access.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        self.0.pool.blueprint().grants()
    }

    /// How full its pool is now.
    #[must_use]
    pub fn pool(&self) -> PoolReport {
        self.0.pool.report()
    }

    /// Runs a call, and the code that handles its result, on the guests' threads, where plugins
    /// take turns. Dropping the returned value stops it.
    #[must_use]
    pub fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) -> Running {
        Running::new(&self.0.pool.blueprint().engine.threads.spawn(call))
    }

    /// Returns a method that is ready to be called.
    ///
    /// # Errors
    /// [`InvokeError::NotCallable`], with the reason.
    pub fn bind(self, method: MethodIndex) -> Result<BoundMethod, InvokeError> {
        let MethodIndex { service, method: number } = method;
        let place = self.0.places.get(service).and_then(|places| *places.get(number)?);
        match place {
            Some(place) => Ok(BoundMethod { plugin: self, place, caller: 0 }),
            None => Err(InvokeError::NotCallable(self.why_not(method))),
        }
    }

    fn why_not(&self, method: MethodIndex) -> String {
        let service = self.0.services.get(method.service);
        let method = service.and_then(|service| service.methods().get(method.method));
        match method.map(|method| &method.signature) {
            Some(Err(reason)) => reason.clone(),
            Some(Ok(_)) | None => "there is no such method".to_owned(),
        }
    }

    /// Calls a method: [`Plugin::bind`] and [`BoundMethod::call`] in one.
    ///
    /// # Errors
    /// Why there is no result, and whether the guest ran ([`InvokeError::not_executed`]).
    pub async fn call(
        self,
        method: MethodIndex,
        arguments: Bytes,
        now: Instant,
        deadline: Instant,
    ) -> Result<Bytes, InvokeError> {
        self.bind(method)?.call(arguments, now, deadline).await
    }
}

impl BoundMethod {
    /// The plugin that it belongs to.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// The same method, called for somebody. If calls have to wait for an instance, callers with
    /// different numbers take turns.
    #[must_use]
    pub fn for_caller(self, caller: u64) -> Self {
        BoundMethod { caller, ..self }
    }

    /// Whether a call is likely to end within a tick of the clock. Then it may be polled once on a
    /// thread that serves sockets. Other calls belong into [`Plugin::spawn`].
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.callable().is_none_or(|callable| callable.pace.is_quick())
    }

    /// The size to expect of the result, in bytes; 0 if it is likely to be small.
    #[must_use]
    pub fn expected_result(&self) -> usize {
        self.callable().map_or(0, |callable| callable.results.expected())
    }

    /// Always `Some`, because `bind` has checked the index.
    fn callable(&self) -> Option<&Callable> {
        self.plugin.0.callables.get(self.place)
    }

    /// Calls the method with encoded arguments, and returns the encoded result.
    ///
    /// `now` is the current time. The plugin's own call timeout can shorten `deadline`. Dropping
    /// the future stops the guest at its next tick and drops its instance. Each poll takes at most
    /// one tick.
    ///
    /// # Errors
    /// Why there is no result, and whether the guest ran ([`InvokeError::not_executed`]).
    pub async fn call(
        self,
        arguments: Bytes,
        now: Instant,
        deadline: Instant,
    ) -> Result<Bytes, InvokeError> {
        let result = {
            let call = pin!(self.enter(arguments, now, deadline));
            contained(call).await
        };
        // The guest's instance was dropped by the panic.
        result.unwrap_or_else(|panic| {
            let plugin = &*self.plugin.0.pool.blueprint().plugin;
            let method = self.plugin.0.names.get(self.place).map(String::as_str);
            tracing::error!(plugin, method, panic, "a call failed inside the host");
            Err(InvokeError::Panicked(panic))
        })
    }

    async fn enter(
        &self,
        arguments: Bytes,
        mut now: Instant,
        deadline: Instant,
    ) -> Result<Bytes, InvokeError> {
        let pool = &self.plugin.0.pool;
        #[cfg(test)]
        inject::reach(Stage::Begin, &pool.blueprint().plugin);
        let unbound = || InvokeError::NotCallable("there is no such method".to_owned());
        let callable = self.callable().ok_or_else(unbound)?;
        if turns::are_needed_on_this_thread() {
            // The call has waited for this thread. That time does not count as the guest's.
            now = Instant::now();
        }
        let cap = now.checked_add(pool.blueprint().limits.call_timeout);
        let deadline = cap.map_or(deadline, |cap| cap.min(deadline));
        let mut lease = match pool.lease(self.caller)? {
            Leased::Now(lease) => lease,
            Leased::Later(place) => {
                // Boxed: most calls do not wait, so their futures should not hold room for it.
                let lease = Box::pin(place.wait(deadline)).await?;
                now = Instant::now();
                lease
            }
        };
        let instance =
            lease.begin().ok_or_else(|| InvokeError::CannotStart("the instance is gone".into()))?;
        let unfinished = callable.pace.unfinished();
        let result = instance.call(callable, &arguments, now, deadline).await;
        unfinished.ends(instance.was_interrupted());
        if let Ok(result) = &result {
            callable.results.note(result.len());
        }
        if matches!(result, Ok(_) | Err(InvokeError::InvalidArgument(_) | InvokeError::TooLarge(_)))
        {
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

/// The methods of a compiled component, and what its instances are made from.
struct Bound {
    services: Vec<Arc<Service>>,
    callables: Vec<Callable>,
    names: Arc<[String]>,
    places: Vec<Vec<Option<usize>>>,
    blueprint: Blueprint,
}

fn bind(
    engine: &Engine,
    name: Arc<str>,
    settings: Settings,
    component: &Component,
    (services, exports, numbers): (Vec<Arc<Service>>, Vec<String>, MethodNumbers),
) -> Result<Bound, LoadError> {
    let (mut callables, mut names, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for ((index, service), name) in services.iter().enumerate().zip(exports) {
        let instance = component.get_export_index(None, &name);
        let methods = service.methods().iter().enumerate().map(|(number, method)| {
            let signature = method.signature.as_ref().ok()?.clone();
            callables.push(Callable {
                place: callables.len(),
                export: component.get_export_index(instance.as_ref(), &method.name)?,
                codec: numbers.of(index, number),
                service: service.clone(),
                signature,
                pace: Pace::default(),
                results: ResultSize::default(),
            });
            names.push(format!("{}.{}", service.name().interface, method.name));
            Some(callables.len() - 1)
        });
        places.push(methods.collect());
    }
    let has_flags = services.iter().any(|service| results_have_flags(service));
    // A codec has its own limit for results.
    let with_codec = !numbers.is_empty() && settings.limits.result_size <= MAX_RESULT;
    let codec = if with_codec { component.get_export_index(None, EXPORT) } else { None };
    let names: Arc<[String]> = names.into();
    let output = Output::pair(name.clone(), names.clone());
    let blueprint =
        Blueprint::new(engine.clone(), (name, output), settings, component, codec, has_flags)
            .map_err(|error| LoadError::Invalid(format!("{error:#}")))?;
    Ok(Bound { services, callables, names, places, blueprint })
}

/// Checks that every import of a component is provided and granted.
fn check(grants: &Grants, imports: &[Import]) -> Result<(), LoadError> {
    let missing = grants.missing(imports);
    let of = |need: Need| {
        let imports = missing.iter().filter(|import| import.need == need);
        imports.map(|import| import.name.clone()).collect::<Vec<_>>()
    };
    let (unknown, other) = (of(Need::Unknown), of(Need::OtherWasi));
    if !other.is_empty() {
        return Err(LoadError::OtherWasi(other));
    }
    if !unknown.is_empty() {
        return Err(LoadError::UnknownImports(unknown));
    }
    if !missing.is_empty() {
        return Err(LoadError::NotGranted(missing.into_iter().cloned().collect()));
    }
    Ok(())
}

/// Whether the result of some method may contain flags.
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
