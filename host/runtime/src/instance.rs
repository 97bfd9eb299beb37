//! One running instance of a plugin: a store, its bounds, and a call in it.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, ResourceTable};
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wharf_schema::{Signature, Types};

use crate::capacity::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLES, Needs, Room};
use crate::clock::TICK;
use crate::codec_path::Codec;
use crate::outgoing::Outgoing;
use crate::output::{Output, printable};
use crate::splice::MAX_BYTES;
use crate::turns::{self, Flow};
use crate::val_path::{self, PathError};
use crate::{CallError, Engine, Grants, Isolation, Limits, Settings};

/// Handles (streams, pollables) that an instance may hold: each takes memory of the host's.
const MAX_HANDLES: usize = 1024;

/// Random bytes that a guest may ask for at once: it waits for them where nothing interrupts it.
const MAX_RANDOM: u64 = 64 * 1024;

/// Bytes of encoded arguments that a codec has room for, beside its results.
const ARGUMENTS: usize = 64 * 1024 * 1024;

/// Bytes of a backtrace that are logged.
const BACKTRACE: usize = 4 * 1024;

thread_local! {
    /// When the guest that runs on this thread began, or went on: the clock interrupts it where it was
    /// entered.
    static ENTERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What all instances of a plugin are made from.
pub(crate) struct Blueprint {
    pub(crate) engine: Engine,
    pub(crate) plugin: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) isolation: Isolation,
    /// Among which the plugin's guests take turns.
    pub(crate) flow: Flow,
    grants: Arc<Grants>,
    needs: Needs,
    pre: InstancePre<State>,
    /// The codec that is spliced into the component, if one is.
    codec: Option<ComponentExportIndex>,
    /// Bytes of values that a guest may hand over in one call, as wasmtime counts them.
    fuel: usize,
    stdout: Output,
    stderr: Output,
}

/// What a store holds beside the guest.
pub(crate) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    pub(crate) grants: Arc<Grants>,
    table: ResourceTable,
    deadline: Instant,
    /// Whether it has computed for a whole tick.
    interrupted: bool,
    memory: Memory,
}

/// Counts all memories and tables of one instance together, against one bound; the codec's memory
/// apart, since it is ours.
struct Memory {
    used: usize,
    limit: usize,
    refused: bool,
    codec: usize,
    codec_limit: usize,
}

/// One instance. Whoever holds it is its only user.
pub(crate) struct Instance {
    store: Store<State>,
    instance: wasmtime::component::Instance,
    codec: Option<Codec>,
    /// Calls that it has served.
    served: u32,
    /// Bytes of memory above which it serves no more.
    high_water: usize,
    /// Given back after the store is gone: fields are dropped in this order.
    _room: Room,
}

/// A guest that was stopped since its call's time is over.
#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
struct DeadlinePassed;

/// What a call needs to know of its method.
pub(crate) struct Callee<'a> {
    pub(crate) export: &'a ComponentExportIndex,
    /// By which number the codec calls it, if it does.
    pub(crate) codec: Option<u32>,
    pub(crate) types: &'a Types,
    pub(crate) signature: &'a Signature,
}

impl Blueprint {
    /// # Errors
    /// When the component's imports do not fit what there is, or it needs more than there can be.
    pub(crate) fn new(
        engine: Engine,
        plugin: Arc<str>,
        settings: Settings,
        component: &Component,
        codec: Option<ComponentExportIndex>,
        results_have_flags: bool,
    ) -> wasmtime::Result<Self> {
        let Settings { limits, isolation, grants } = settings;
        let pre = engine.linker.instantiate_pre(component)?;
        let (stdout, stderr) = Output::pair(plugin.clone());
        // wasmtime's values take some multiple of a result's encoding; it counts their bytes, but
        // of flags only the names, which it makes a string each.
        let fuel = limits.result_size.saturating_mul(8).max(1 << 20);
        let fuel = if results_have_flags { fuel / 16 } else { fuel };
        Ok(Blueprint {
            flow: engine.threads.turns.flow(),
            grants: Arc::new(grants),
            needs: Needs::of(component),
            engine,
            plugin,
            limits,
            isolation,
            pre,
            codec,
            fuel,
            stdout,
            stderr,
        })
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Room for one more instance, if the host has any left.
    pub(crate) fn room(&self) -> Option<Room> {
        self.engine.capacity.take(self.needs)
    }

    /// Makes an instance and runs its start functions.
    ///
    /// # Errors
    /// Why it does not start. Cancel-safe: dropping the future drops the instance.
    pub(crate) async fn instantiate(&self, room: Room) -> Result<Instance, CallError> {
        let deadline = Instant::now() + self.limits.start_timeout;
        let mut wasi = WasiCtx::builder();
        wasi.stdout(self.stdout.clone()).stderr(self.stderr.clone()).max_random_size(MAX_RANDOM);
        self.grants.apply(&mut wasi).map_err(CallError::CannotStart)?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let state = State {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outgoing: Outgoing(self.grants.clone()),
            grants: self.grants.clone(),
            table,
            deadline,
            interrupted: false,
            memory: Memory {
                used: 0,
                limit: self.limits.memory,
                refused: false,
                codec: 0,
                codec_limit: self.limits.result_size.saturating_mul(2).saturating_add(ARGUMENTS),
            },
        };
        let mut store = Store::new(&self.engine.wasmtime, state);
        store.limiter(|state| &mut state.memory);
        let clock = self.engine.clock.clone();
        store.epoch_deadline_callback(move |mut context| {
            clock.guest_runs();
            let (state, now) = (context.data_mut(), Instant::now());
            if now >= state.deadline {
                return Err(DeadlinePassed.into());
            }
            // A quick call may begin just before a tick.
            if now.saturating_duration_since(ENTERED.get().unwrap_or(now)) < TICK {
                return Ok(UpdateDeadline::Continue(1));
            }
            state.interrupted = true;
            Ok(UpdateDeadline::Yield(1))
        });
        store.set_epoch_deadline(1);
        store.set_hostcall_fuel(self.fuel);
        let made = {
            let made = pin!(self.pre.instantiate_async(&mut store));
            tokio::time::timeout_at(deadline.into(), self.run(Instant::now(), made)).await
        };
        match made {
            Ok((Ok(instance), _)) => {
                let codec = self.codec.and_then(|codec| instance.get_func(&mut store, codec));
                let codec = codec.map(|codec| Codec::new(codec, &mut store)).transpose();
                let codec = codec.map_err(|error| self.explain(&error, &store))?;
                let started_with = store.data().memory.used;
                let high_water = self.isolation.high_water.max(started_with.saturating_mul(2));
                Ok(Instance { store, instance, codec, served: 0, high_water, _room: room })
            }
            Ok((Err(error), _)) => Err(self.explain(&error, &store)),
            Err(_) => Err(CallError::DeadlineExceeded { executed: true }),
        }
    }

    /// Runs a guest that is entered `now`, interrupted by the clock and in turn with other plugins; and
    /// the longest time that it went on without a pause.
    ///
    /// By reference: what is handed on by value takes its place in each future on the way.
    async fn run<F: Future>(&self, now: Instant, mut guest: Pin<&mut F>) -> (F::Output, Duration) {
        let mut longest = Duration::ZERO;
        // With turns, it is entered when it has one.
        let mut entered = Some(now).filter(|_| !turns::are_needed_on_this_thread());
        let timed = pin!(std::future::poll_fn(|cx| {
            let begun = entered.take().unwrap_or_else(Instant::now);
            ENTERED.set(Some(begun));
            let polled = guest.as_mut().poll(cx);
            // The clock does not tell of work that is done for a guest and outside of it.
            longest = longest.max(begun.elapsed());
            polled.map(|output| (output, longest))
        }));
        let in_turn = pin!(self.engine.threads.turns.run(self.flow, timed));
        self.engine.clock.during(in_turn).await
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
    /// Calls a function with encoded arguments, `now`.
    ///
    /// # Errors
    /// Why there is no result. Only after [`CallError::InvalidArgument`] and
    /// [`CallError::TooLarge`] is the instance as it was; after any other it must be dropped.
    pub(crate) async fn call(
        &mut self,
        blueprint: &Blueprint,
        callee: &Callee<'_>,
        arguments: &[u8],
        now: Instant,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        self.served = self.served.saturating_add(1);
        let state = self.store.data_mut();
        state.deadline = deadline;
        state.interrupted = false;
        state.memory.refused = false;
        self.store.set_epoch_deadline(1);
        let limit = blueprint.limits.result_size;
        let (store, instance, codec) = (&mut self.store, &self.instance, self.codec);
        let fuel = blueprint.fuel;
        let called = {
            let call = pin!(async {
                if let (Some(codec), Some(number)) = (codec, callee.codec) {
                    // The result is one list of bytes then, whatever is in it.
                    store.set_hostcall_fuel(fuel.max(limit.saturating_add(1)));
                    return codec.call(store, number, callee, arguments, limit).await;
                }
                store.set_hostcall_fuel(fuel);
                let function = instance.get_func(&mut *store, callee.export);
                let function = function.ok_or_else(|| {
                    PathError::Guest(wasmtime::Error::msg("the function is not exported"))
                })?;
                Box::pin(val_path::call(store, function, callee, arguments, limit)).await
            });
            let mut run = pin!(blueprint.run(now, call));
            // The epoch stops a guest that computes, the timer one that is parked in a host call. One
            // that comes to its end at once needs none.
            let mut timer = None;
            std::future::poll_fn(|cx| {
                if let Poll::Ready(called) = run.as_mut().poll(cx) {
                    return Poll::Ready(Some(called));
                }
                let timer = timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
                // A guest that has used up what a task may do at once must not keep it from its timer.
                pin!(tokio::task::coop::unconstrained(timer.as_mut())).poll(cx).map(|()| None)
            })
            .await
        };
        let called = called.map(|(result, longest)| {
            self.store.data_mut().interrupted |= longest >= TICK;
            result
        });
        match called {
            Some(Ok(result)) => Ok(result),
            Some(Err(PathError::Arguments(error))) => Err(CallError::InvalidArgument(error)),
            Some(Err(PathError::TooLarge(what))) => Err(CallError::TooLarge(what)),
            Some(Err(PathError::Guest(error))) => Err(blueprint.explain(&error, &self.store)),
            None => Err(CallError::DeadlineExceeded { executed: true }),
        }
    }

    /// Whether its last call computed for longer than a tick.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.store.data().interrupted
    }

    /// Whether it has served as many calls as it may.
    pub(crate) fn is_used_up(&self, isolation: &Isolation) -> bool {
        isolation.reuse.is_some_and(|reuse| self.served >= reuse.get())
    }

    /// Whether it has grown beyond what an instance may keep from call to call.
    pub(crate) fn is_too_large(&self) -> bool {
        let memory = &self.store.data().memory;
        memory.used > self.high_water || memory.codec > self.high_water
    }
}

impl State {
    pub(crate) fn ctx_sockets(&mut self) -> WasiSocketsCtxView<'_> {
        WasiSocketsCtxView { ctx: self.wasi.sockets(), table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
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
        if maximum == Some(MAX_BYTES) {
            // No other memory has this bound: a component that has one gets no codec.
            let allowed = desired <= self.codec_limit.min(MAX_BYTES);
            self.codec = if allowed { desired } else { self.codec };
            return Ok(allowed);
        }
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
