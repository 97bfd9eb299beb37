//! One running instance of a plugin: a store, its bounds, and a call in it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, ResourceTable};
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};
use wharf_schema::{Signature, Types};

use crate::output::{Output, printable};
use crate::val_path::{self, PathError};
use crate::{CallError, Engine, Limits};

/// Handles (streams, pollables) that an instance may hold: each takes memory of the host's.
const MAX_HANDLES: usize = 1024;

/// Random bytes that a guest may ask for at once: it waits for them where nothing interrupts it.
const MAX_RANDOM: u64 = 64 * 1024;

/// Core instances, memories and tables of one instance. Each memory reserves 4 GiB of addresses,
/// however little it holds.
const MAX_CORE_INSTANCES: usize = 256;
const MAX_MEMORIES: usize = 16;
const MAX_TABLES: usize = 256;

/// Bytes of a backtrace that are logged.
const BACKTRACE: usize = 4 * 1024;

/// What all instances of a plugin are made from.
pub(crate) struct Blueprint {
    pub(crate) engine: Engine,
    pub(crate) plugin: Arc<str>,
    pub(crate) limits: Limits,
    pre: InstancePre<State>,
    /// Bytes of values that a guest may hand over in one call, as wasmtime counts them.
    fuel: usize,
    stdout: Output,
    stderr: Output,
}

/// What a store holds beside the guest.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    deadline: Instant,
    memory: Memory,
}

/// Counts all memories and tables of one instance together, against one bound.
struct Memory {
    used: usize,
    limit: usize,
    refused: bool,
}

/// One instance. Whoever holds it is its only user.
pub(crate) struct Instance {
    store: Store<State>,
    instance: wasmtime::component::Instance,
}

/// A guest that was stopped since its call's time is over.
#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
struct DeadlinePassed;

/// What a call needs to know of its method.
pub(crate) struct Callee<'a> {
    pub(crate) export: &'a ComponentExportIndex,
    pub(crate) types: &'a Types,
    pub(crate) signature: &'a Signature,
}

impl Blueprint {
    pub(crate) fn new(
        engine: Engine,
        plugin: Arc<str>,
        limits: Limits,
        component: &Component,
        results_have_flags: bool,
    ) -> wasmtime::Result<Self> {
        let pre = engine.linker.instantiate_pre(component)?;
        let (stdout, stderr) = Output::pair(plugin.clone());
        // wasmtime's values take some multiple of a result's encoding; it counts their bytes, but
        // of flags only the names, which it makes a string each.
        let fuel = limits.result_size.saturating_mul(8).max(1 << 20);
        let fuel = if results_have_flags { fuel / 16 } else { fuel };
        Ok(Blueprint { engine, plugin, limits, pre, fuel, stdout, stderr })
    }

    /// Makes an instance and runs its start functions.
    ///
    /// # Errors
    /// Why it does not start. Cancel-safe: dropping the future drops the instance.
    pub(crate) async fn instantiate(&self) -> Result<Instance, CallError> {
        let deadline = Instant::now() + self.limits.start_timeout;
        let wasi = WasiCtx::builder()
            .stdout(self.stdout.clone())
            .stderr(self.stderr.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .max_random_size(MAX_RANDOM)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let memory = Memory { used: 0, limit: self.limits.memory, refused: false };
        let state = State { wasi, table, deadline, memory };
        let mut store = Store::new(&self.engine.wasmtime, state);
        store.limiter(|state| &mut state.memory);
        let clock = self.engine.clock.clone();
        store.epoch_deadline_callback(move |context| {
            clock.guest_runs();
            if Instant::now() >= context.data().deadline {
                return Err(DeadlinePassed.into());
            }
            Ok(UpdateDeadline::Yield(1))
        });
        store.set_epoch_deadline(1);
        store.set_hostcall_fuel(self.fuel);
        let made = self.pre.instantiate_async(&mut store);
        let made = tokio::time::timeout_at(deadline.into(), made);
        match self.engine.clock.during(made).await {
            Ok(Ok(instance)) => Ok(Instance { store, instance }),
            Ok(Err(error)) => Err(self.explain(&error, &store)),
            Err(_) => Err(CallError::DeadlineExceeded { executed: true }),
        }
    }

    /// What went wrong inside a guest, for its caller; the whole story goes to the log.
    fn explain(&self, error: &wasmtime::Error, store: &Store<State>) -> CallError {
        if error.is::<DeadlinePassed>() {
            return CallError::DeadlineExceeded { executed: true };
        }
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return CallError::Exited(exit.0);
        }
        let cause = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => error.root_cause().to_string(),
        };
        let cause = cause.trim_start_matches("wasm trap: ").to_owned();
        if cause.contains("too much data is being copied") {
            return CallError::ResultTooLarge { limit: self.fuel };
        }
        let memory = &store.data().memory;
        if self.stderr.permit() {
            let backtrace = error.downcast_ref::<WasmBacktrace>();
            let frames = backtrace.map(ToString::to_string).unwrap_or_default();
            // Names in it are the guest's own.
            let frames = printable(&frames[..frames.floor_char_boundary(BACKTRACE)]);
            tracing::warn!(plugin = %self.plugin, cause, backtrace = %frames, memory = memory.used, "a guest trapped; its instance is dropped");
        }
        if memory.refused {
            return CallError::MemoryLimit { limit: memory.limit, cause };
        }
        CallError::Trapped { cause }
    }
}

impl Instance {
    /// Calls a function with encoded arguments.
    ///
    /// # Errors
    /// Why there is no result. Only after [`CallError::InvalidArgument`] and
    /// [`CallError::TooLarge`] is the instance as it was; after any other it must be dropped.
    pub(crate) async fn call(
        &mut self,
        blueprint: &Blueprint,
        callee: &Callee<'_>,
        arguments: &[u8],
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let function = self
            .instance
            .get_func(&mut self.store, callee.export)
            .ok_or_else(|| CallError::Trapped { cause: "the function is not exported".into() })?;
        let state = self.store.data_mut();
        state.deadline = deadline;
        state.memory.refused = false;
        self.store.set_epoch_deadline(1);
        let limit = blueprint.limits.result_size;
        let call = val_path::call(&mut self.store, function, callee, arguments, limit);
        // The epoch stops a guest that computes, the timer one that is parked in a host call.
        let call = tokio::time::timeout_at(deadline.into(), call);
        match blueprint.engine.clock.during(call).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(PathError::Arguments(error))) => Err(CallError::InvalidArgument(error)),
            Ok(Err(PathError::TooLarge(what))) => Err(CallError::TooLarge(what)),
            Ok(Err(PathError::Guest(error))) => Err(blueprint.explain(&error, &self.store)),
            Err(_) => Err(CallError::DeadlineExceeded { executed: true }),
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Memory {
    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let wanted = self.used.saturating_add(desired.saturating_sub(current));
        if wanted > self.limit {
            self.refused = true;
            return false;
        }
        self.used = wanted;
        true
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // What the guest's own maximum forbids is not to be counted.
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(current, desired))
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(size_of::<usize>());
        let allowed = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(allowed && self.grow(bytes(current), bytes(desired)))
    }
}
