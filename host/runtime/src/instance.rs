//! One instance of a plugin: a store with its limits, and the calls in it.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wharf_schema::printable;

use crate::callable::{Callable, PathError};
use crate::capacity::{Needs, Room};
use crate::clock::TICK;
use crate::codec_path::Codec;
use crate::contain::contained;
#[cfg(test)]
use crate::contain::inject::{self, Stage};
use crate::memory::{MemoryBudget, RefusedBy};
use crate::output::{Output, Scene};
use crate::store::StoreData;
use crate::turns::{self, Flow};
use crate::{Engine, Grants, InvokeError, Isolation, Limits, Settings, val_path, wording};

/// Bytes of encoded arguments that a codec's memory holds, in addition to results.
const ARGUMENTS: usize = 64 * 1024 * 1024;

/// Bytes of a codec's memory that an instance may always keep between calls.
const CODEC_KEPT: usize = 16 * 1024 * 1024;

/// At most this many bytes of a backtrace are logged.
const BACKTRACE: usize = 4 * 1024;

thread_local! {
    /// When the guest that runs on this thread was last entered: at its start, or when it
    /// continued. The clock's callback reads it on the same thread.
    static ENTERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What all instances of a plugin are made from.
pub(crate) struct Blueprint {
    pub(crate) engine: Engine,
    pub(crate) plugin: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) isolation: Isolation,
    /// The flow under which the plugin's guests take turns.
    pub(crate) flow: Flow,
    grants: Arc<Grants>,
    needs: Needs,
    pre: InstancePre<StoreData>,
    /// The codec that is spliced into the component, if one is.
    codec: Option<ComponentExportIndex>,
    /// Bytes of values that a guest may return in one call, as wasmtime counts them.
    fuel: usize,
    stdout: Output,
    stderr: Output,
}

/// One instance. Its owner is its only user.
pub(crate) struct Instance {
    blueprint: Arc<Blueprint>,
    store: Store<StoreData>,
    instance: wasmtime::component::Instance,
    codec: Option<Codec>,
    /// Calls that it has served.
    served: u32,
    /// With more bytes of memory than this, it serves no more calls.
    high_water: usize,
    /// When its last call began, or it was made.
    used: Instant,
    scene: Arc<Scene>,
    /// Given back after the store is dropped, because fields are dropped in this order.
    _room: Room,
}

/// The output of a guest that ran.
struct Ran<T> {
    output: T,
    /// Whether one poll of it took a whole tick.
    for_a_tick: bool,
}

/// A guest was stopped because the deadline of its call has passed.
#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
struct DeadlinePassed;

impl Blueprint {
    /// # Errors
    /// When the linker does not provide the component's imports, or when the component needs more
    /// than an instance can have.
    pub(crate) fn new(
        engine: Engine,
        (plugin, (stdout, stderr)): (Arc<str>, (Output, Output)),
        settings: Settings,
        component: &Component,
        codec: Option<ComponentExportIndex>,
        results_have_flags: bool,
    ) -> wasmtime::Result<Self> {
        let Settings { limits, isolation, grants } = settings;
        let pre = engine.linker.instantiate_pre(component)?;
        // wasmtime's values take several times the bytes of a result's encoding. wasmtime counts
        // these bytes. For flags, it counts only the names, and makes a string of each.
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

    /// How much memory an instance that started with so much may keep between calls. There is always
    /// some of its limit left, so a guest that leaks a little in each call is replaced before a call
    /// fails.
    fn high_water(&self, started_with: usize) -> usize {
        let limit = self.limits.memory;
        let wanted = self.isolation.high_water.unwrap_or(limit / 4);
        let left = limit.saturating_sub(started_with);
        wanted.max(started_with.saturating_mul(2)).min(started_with.saturating_add(left / 2))
    }

    /// Takes room for one more instance, if the host has any left.
    pub(crate) fn room(&self) -> Option<Room> {
        self.engine.capacity.take(self.needs)
    }

    /// Makes an instance and runs its start functions.
    ///
    /// # Errors
    /// Why it does not start. Cancel-safe: dropping the future drops the instance.
    pub(crate) async fn instantiate(self: &Arc<Self>, room: Room) -> Result<Instance, InvokeError> {
        let made = {
            let make = pin!(self.make(room));
            contained(make).await
        };
        made.unwrap_or_else(|panic| {
            tracing::error!(plugin = %self.plugin, panic, "making an instance failed inside the host");
            Err(InvokeError::Panicked(panic))
        })
    }

    async fn make(self: &Arc<Self>, room: Room) -> Result<Instance, InvokeError> {
        #[cfg(test)]
        inject::reach(Stage::Instantiate, &self.plugin);
        let now = Instant::now();
        let deadline = now + self.limits.start_timeout;
        let codec_limit = self.limits.result_size.saturating_mul(2).saturating_add(ARGUMENTS);
        let guests = self.engine.guests.clone();
        let memory = MemoryBudget::new(self.limits.memory, codec_limit, guests);
        let scene = Arc::default();
        let output = (self.stdout.of(&scene), self.stderr.of(&scene));
        let data = StoreData::new(&self.grants, output, memory, deadline)
            .map_err(InvokeError::CannotStart)?;
        let mut store = Store::new(&self.engine.wasmtime, data);
        store.limiter(|data| &mut data.memory);
        let clock = self.engine.clock.clone();
        store.epoch_deadline_callback(move |mut context| {
            clock.guest_runs();
            let (data, now) = (context.data_mut(), Instant::now());
            if now >= data.deadline {
                return Err(DeadlinePassed.into());
            }
            // The guest was entered less than a tick ago: a quick call may begin just before a
            // tick.
            if now.saturating_duration_since(ENTERED.get().unwrap_or(now)) < TICK {
                return Ok(UpdateDeadline::Continue(1));
            }
            data.interrupted = true;
            Ok(UpdateDeadline::Yield(1))
        });
        store.set_epoch_deadline(1);
        store.set_hostcall_fuel(self.fuel);
        let made = {
            let made = pin!(self.pre.instantiate_async(&mut store));
            tokio::time::timeout_at(deadline.into(), self.run(now, made, true)).await
        };
        match made {
            Ok(Ran { output: Ok(instance), .. }) => {
                let codec = self.codec.and_then(|codec| instance.get_func(&mut store, codec));
                let codec = codec.map(|codec| Codec::new(codec, &mut store)).transpose();
                let codec = codec.map_err(|error| self.explain(&error, &store, &scene))?;
                store.data_mut().count_handles();
                let high_water = self.high_water(store.data().memory.all());
                let blueprint = self.clone();
                Ok(Instance {
                    blueprint,
                    store,
                    instance,
                    codec,
                    served: 0,
                    high_water,
                    used: now,
                    scene,
                    _room: room,
                })
            }
            Ok(Ran { output: Err(error), .. }) => Err(self.explain(&error, &store, &scene)),
            Err(_) => Err(InvokeError::DeadlineExceeded { executed: true }),
        }
    }

    /// Runs a guest that is entered `now`. The clock interrupts it, and it takes turns with other
    /// plugins. Making an instance begins with work of the host, which takes long if the component is
    /// large.
    ///
    /// The guest is passed by reference. By value, it would take its full size in each future that
    /// contains it.
    async fn run<F: Future>(
        &self,
        now: Instant,
        mut guest: Pin<&mut F>,
        begins: bool,
    ) -> Ran<F::Output> {
        let mut for_a_tick = false;
        // On a thread with turns, the guest is entered only when it gets its turn.
        let mut entered = Some(now).filter(|_| !turns::are_needed_on_this_thread());
        let timed = pin!(std::future::poll_fn(|cx| {
            let begun = entered.take().unwrap_or_else(Instant::now);
            ENTERED.set(Some(begun));
            let polled = guest.as_mut().poll(cx);
            // The clock cannot interrupt work that the host does for the guest, so measure it here.
            for_a_tick |= begun.elapsed() >= TICK;
            polled.map(|output| Ran { output, for_a_tick })
        }));
        let in_turn = pin!(self.engine.threads.turns.run(self.flow, timed, begins));
        self.engine.clock.during(in_turn).await
    }

    /// Turns an error of the guest into one for its caller. The details go to the log.
    fn explain(
        &self,
        error: &wasmtime::Error,
        store: &Store<StoreData>,
        scene: &Scene,
    ) -> InvokeError {
        if error.is::<DeadlinePassed>() {
            return InvokeError::DeadlineExceeded { executed: true };
        }
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return InvokeError::Exited(exit.0);
        }
        let cause = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => error.root_cause().to_string(),
        };
        let cause = cause.trim_start_matches("wasm trap: ").to_owned();
        if wording::is_out_of_copying_fuel(&cause) {
            return InvokeError::ResultTooLarge { limit: self.fuel };
        }
        let memory = &store.data().memory;
        if self.stderr.permit() {
            let backtrace = error.downcast_ref::<WasmBacktrace>();
            let frames = backtrace.map(ToString::to_string).unwrap_or_default();
            // The guest chooses the names in it, so they are escaped.
            let frames = printable(&frames[..frames.floor_char_boundary(BACKTRACE)]);
            tracing::warn!(plugin = %self.plugin, cause, backtrace = %frames, memory = memory.used, "a guest trapped; its instance is dropped");
        }
        // An interpreter prints why it gave up, and then traps.
        let cause = match scene.last_words() {
            Some(words) => format!("{cause}; its last words were: {words}"),
            None => cause,
        };
        match memory.refused {
            Some(RefusedBy::Plugin) => InvokeError::MemoryLimit { limit: memory.limit, cause },
            Some(RefusedBy::Guests) => {
                InvokeError::GuestMemory { limit: self.engine.guests.limit(), cause }
            }
            None => InvokeError::Trapped { cause },
        }
    }
}

#[cfg(test)]
impl Drop for Instance {
    fn drop(&mut self) {
        inject::reach(Stage::EndInstance, &self.blueprint.plugin);
    }
}

impl Instance {
    /// Calls a function with encoded arguments. `now` is the current time.
    ///
    /// # Errors
    /// Why there is no result. After [`InvokeError::InvalidArgument`] and
    /// [`InvokeError::TooLarge`], the instance can still be used. After any other error it must be
    /// dropped.
    pub(crate) async fn call(
        &mut self,
        method: &Callable,
        arguments: &[u8],
        now: Instant,
        deadline: Instant,
    ) -> Result<Bytes, InvokeError> {
        self.served = self.served.saturating_add(1);
        self.used = now;
        self.scene.begin(self.served, method.place);
        let data = self.store.data_mut();
        data.deadline = deadline;
        data.interrupted = false;
        data.memory.refused = None;
        self.store.set_epoch_deadline(1);
        let blueprint = &*self.blueprint;
        let limit = blueprint.limits.result_size;
        let (store, instance, codec) = (&mut self.store, &self.instance, self.codec);
        let fuel = blueprint.fuel;
        let called = {
            let call = pin!(async {
                #[cfg(test)]
                inject::reach(Stage::Guest, &blueprint.plugin);
                if let (Some(codec), Some(number)) = (codec, method.codec) {
                    // For wasmtime, the result of a codec is one list of bytes.
                    store.set_hostcall_fuel(fuel.max(limit.saturating_add(1)));
                    return codec.call(store, number, method, arguments, limit).await;
                }
                store.set_hostcall_fuel(fuel);
                let function = instance.get_func(&mut *store, method.export);
                let function = function.ok_or_else(|| {
                    PathError::Guest(wasmtime::Error::msg("the function is not exported"))
                })?;
                Box::pin(val_path::call(store, function, method, arguments, limit)).await
            });
            let mut run = pin!(blueprint.run(now, call, false));
            // The epoch stops a guest that computes. The timer stops a guest that waits in a host
            // call. A guest that finishes in its first poll needs no timer.
            let mut timer = None;
            std::future::poll_fn(|cx| {
                if let Poll::Ready(called) = run.as_mut().poll(cx) {
                    return Poll::Ready(Some(called));
                }
                let timer = timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
                // The timer is polled without tokio's cooperative budget: a guest that used up the
                // budget must not delay its own timer.
                pin!(tokio::task::coop::unconstrained(timer.as_mut())).poll(cx).map(|()| None)
            })
            .await
        };
        let called = called.map(|Ran { output, for_a_tick }| {
            self.store.data_mut().interrupted |= for_a_tick;
            output
        });
        self.store.data_mut().count_handles();
        #[cfg(test)]
        inject::reach(Stage::Result, &self.blueprint.plugin);
        match called {
            Some(Ok(result)) => Ok(result),
            Some(Err(PathError::Arguments(error))) => Err(InvokeError::InvalidArgument(error)),
            Some(Err(PathError::TooLarge(what))) => Err(InvokeError::TooLarge(what)),
            Some(Err(PathError::Guest(error))) => {
                Err(blueprint.explain(&error, &self.store, &self.scene))
            }
            None => Err(InvokeError::DeadlineExceeded { executed: true }),
        }
    }

    /// Whether its last call computed for a tick or longer.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.store.data().interrupted
    }

    /// Whether it has served as many calls as it is allowed to.
    pub(crate) fn is_used_up(&self) -> bool {
        self.blueprint.isolation.reuse.is_some_and(|reuse| self.served >= reuse.get())
    }

    /// When its last call began, or it was made.
    pub(crate) fn last_used(&self) -> Instant {
        self.used
    }

    /// The codec's memory is the host's, and no part of the plugin's limit.
    fn codec_high_water(&self) -> usize {
        self.high_water.max(CODEC_KEPT)
    }

    /// Whether it has more memory than an instance may keep between calls.
    pub(crate) fn is_too_large(&self) -> bool {
        let memory = &self.store.data().memory;
        memory.all() > self.high_water || memory.codec > self.codec_high_water()
    }
}
