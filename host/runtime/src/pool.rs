//! The instances of one plugin: which calls use them, which calls wait for one, and when more are
//! made.
//!
//! A call never makes an instance: it takes an idle one, or it waits. Other tasks make and end
//! instances. Each plugin has its own lock, which is held for a few instructions only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::capacity::Room;
use crate::guests::Idle;
use crate::instance::{Blueprint, Instance};
use crate::line::Lines;
use crate::{InvokeError, contain};

/// The pool of one plugin.
pub(crate) struct Pool {
    blueprint: Arc<Blueprint>,
    state: Mutex<Occupancy>,
}

#[derive(Default)]
struct Occupancy {
    /// The instance that was used last is used first, so the memory of the others may become cold.
    idle: Vec<Instance>,
    waiting: Lines<oneshot::Sender<Result<Lease, InvokeError>>>,
    /// Instances that exist or are being made.
    live: usize,
    /// How many of `live` are being made.
    making: usize,
    /// The instances of `live` that have served their calls and must be ended.
    used_up: Vec<Instance>,
    /// Whether a task will soon end the instances in `used_up`.
    replacing: bool,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolReport {
    /// Instances that exist or are being made.
    pub instances: usize,
    /// How many of these wait for a call.
    pub idle: usize,
    /// Calls that wait for an instance.
    pub waiting: usize,
}

/// The use of an instance by one call. If the lease is dropped before [`Lease::done`], its instance
/// is dropped too: no later call may meet a guest that was interrupted.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    instance: Option<Instance>,
    clean: bool,
}

/// The answer to a request for an instance.
pub(crate) enum Leased {
    Now(Lease),
    Later(Place),
}

/// A place in the queue for an instance. If it is dropped, the next call in the queue is served
/// instead.
pub(crate) struct Place(oneshot::Receiver<Result<Lease, InvokeError>>);

impl Place {
    /// Waits until an instance is free.
    ///
    /// # Errors
    /// When the deadline passes, or no instance can be made.
    pub(crate) async fn wait(self, deadline: Instant) -> Result<Lease, InvokeError> {
        match tokio::time::timeout_at(deadline.into(), self.0).await {
            Ok(Ok(leased)) => leased,
            Ok(Err(_)) => Err(InvokeError::CannotStart("the plugin was unloaded".into())),
            Err(_) => Err(InvokeError::DeadlineExceeded { executed: false }),
        }
    }
}

impl Pool {
    pub(crate) fn new(blueprint: Arc<Blueprint>) -> Arc<Self> {
        let pool = Arc::new(Pool { blueprint, state: Mutex::default() });
        let weak: Weak<Pool> = Arc::downgrade(&pool);
        pool.blueprint.engine.guests.add(weak);
        pool
    }

    pub(crate) fn blueprint(&self) -> &Arc<Blueprint> {
        &self.blueprint
    }

    /// Makes the first instance, so that the first call finds one.
    pub(crate) async fn warm(self: &Arc<Self>) -> Result<(), InvokeError> {
        let room = self.blueprint.room().ok_or(InvokeError::HostFull)?;
        self.begin_making(&mut self.state());
        let making = Making::new(self);
        let instance = self.blueprint.instantiate(room).await?;
        making.made(instance);
        self.grow();
        Ok(())
    }

    /// Returns an instance, or a place in the queue for one. Places are shared among callers.
    ///
    /// # Errors
    /// When the queue is full, or the caller has more than its share of a nearly full one.
    pub(crate) fn lease(self: &Arc<Self>, caller: u64) -> Result<Leased, InvokeError> {
        let (idle, place, grow, replace) = {
            let mut state = self.state();
            let idle = state.idle.pop();
            let mut place = None;
            if idle.is_none() {
                state.waiting.retain(|waiting| !waiting.is_closed());
                let queue = self.blueprint.limits.queue;
                if !state.waiting.has_place(caller, queue) {
                    // If the queue's limit is 0, no other call makes sure that an instance exists.
                    let grow = self.wants_another(&state);
                    drop(state);
                    if grow {
                        self.grow();
                    }
                    return Err(InvokeError::QueueFull { queue });
                }
                let (give, queued) = oneshot::channel();
                state.waiting.push(caller, give);
                place = Some(queued);
            }
            let grow = self.wants_another(&state);
            (idle, place, grow, self.replacing_is_due(&mut state))
        };
        if grow {
            self.grow();
        }
        if replace {
            self.replace();
        }
        Ok(match place {
            Some(place) => Leased::Later(Place(place)),
            None => Leased::Now(Lease { pool: self.clone(), instance: idle, clean: true }),
        })
    }

    pub(crate) fn report(&self) -> PoolReport {
        let state = self.state();
        let waiting = state.waiting.iter().filter(|waiting| !waiting.is_closed()).count();
        PoolReport { instances: state.live, idle: state.idle.len(), waiting }
    }

    fn state(&self) -> MutexGuard<'_, Occupancy> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another instance should be made. There should be one for each waiting call, and some
    /// idle ones.
    fn wants_another(&self, state: &Occupancy) -> bool {
        let ready = match self.blueprint.isolation.reuse {
            // Each instance is soon used up, so keep as many ready as the limit allows.
            Some(_) => self.blueprint.limits.instances,
            None => 1,
        };
        let wanted = state.waiting.len().max(ready);
        state.live < self.blueprint.limits.instances && state.idle.len() + state.making < wanted
    }

    fn begin_making(&self, state: &mut Occupancy) {
        state.live += 1;
        state.making += 1;
    }

    /// Makes as many instances as are wanted, in tasks of their own.
    fn grow(self: &Arc<Self>) {
        loop {
            let room = {
                let mut state = self.state();
                state.waiting.retain(|waiting| !waiting.is_closed());
                if !self.wants_another(&state) {
                    return;
                }
                let Some(room) = self.blueprint.room() else {
                    let alone = state.live == 0;
                    let mut waiting =
                        if alone { std::mem::take(&mut state.waiting) } else { Lines::default() };
                    drop(state);
                    // No instance exists and none can be made, so no one else would answer these.
                    while let Some(waiting) = waiting.pop() {
                        // The call may have stopped waiting.
                        let _ = waiting.send(Err(InvokeError::HostFull));
                    }
                    return;
                };
                self.begin_making(&mut state);
                room
            };
            // Not under the lock: a runtime that is shutting down drops the future at once, and
            // dropping it takes the lock.
            self.make(room);
        }
    }

    fn make(self: &Arc<Self>, room: Room) {
        let making = Making::new(self);
        self.blueprint.engine.threads.spawn(async move {
            let pool = making.pool.clone();
            match pool.blueprint.instantiate(room).await {
                Ok(instance) => making.made(instance),
                Err(error) => {
                    drop(making);
                    // Each failed attempt answers one waiting call. So a plugin that cannot start
                    // is tried once per call, and not in an endless loop.
                    if pool.refuse_one(&error) {
                        pool.grow();
                    }
                }
            }
        });
    }

    /// Answers one waiting call with this error. Returns whether there was one.
    fn refuse_one(&self, error: &InvokeError) -> bool {
        loop {
            let Some(waiting) = self.state().waiting.pop() else { return false };
            if waiting.send(Err(InvokeError::CannotStart(error.to_string()))).is_ok() {
                return true;
            }
        }
    }

    /// Gives a usable instance to the next waiting call. If no call waits, it becomes idle.
    fn give(self: &Arc<Self>, instance: Instance) {
        let mut lease = Lease { pool: self.clone(), instance: Some(instance), clean: true };
        loop {
            let next = {
                let mut state = self.state();
                let next = state.waiting.pop();
                if next.is_none() {
                    state.idle.extend(lease.instance.take());
                    return;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Ok(lease)) {
                Ok(()) => return,
                Err(Ok(refused)) => lease = refused,
                Err(Err(_)) => return,
            }
        }
    }

    /// Sets an instance aside that has served its calls. Such instances are replaced many at a
    /// time. Waking a thread takes longer than a quick call, so not every call should pay for it.
    fn use_up(self: &Arc<Self>, instance: Instance) {
        let due = {
            let mut state = self.state();
            state.used_up.push(instance);
            self.replacing_is_due(&mut state)
        };
        if due {
            self.replace();
        }
    }

    /// Whether the used-up instances should be replaced now. A caller that gets `true` must do it.
    fn replacing_is_due(&self, state: &mut Occupancy) -> bool {
        let few = state.idle.len() <= self.blueprint.limits.instances / 2;
        let due =
            !state.used_up.is_empty() && !state.replacing && (few || !state.waiting.is_empty());
        state.replacing |= due;
        due
    }

    fn replace(self: &Arc<Self>) {
        let pool = self.clone();
        self.blueprint.engine.threads.spawn(async move {
            let used_up = {
                let mut state = pool.state();
                state.replacing = false;
                std::mem::take(&mut state.used_up)
            };
            let count = used_up.len();
            contain::drop_value(used_up);
            pool.state().live -= count;
            pool.grow();
        });
    }

    /// Ends an instance in a task of its own, and makes another one if one is wanted.
    fn retire(self: &Arc<Self>, instance: Option<Instance>) {
        let pool = self.clone();
        self.blueprint.engine.threads.spawn(async move {
            contain::drop_value(instance);
            pool.state().live -= 1;
            pool.grow();
        });
    }
}

/// Idle instances make room for other plugins. The instance that was used last is the last of `idle`.
impl Idle for Pool {
    fn oldest(&self) -> Option<Instant> {
        self.state().idle.first().map(Instance::last_used)
    }

    fn end_oldest(&self) -> bool {
        let mut state = self.state();
        if state.idle.is_empty() {
            return false;
        }
        let oldest = state.idle.remove(0);
        state.live -= 1;
        drop(state);
        contain::drop_value(oldest);
        true
    }

    fn end_unused_since(&self, before: Instant) {
        // With a limited reuse, instances are kept ready for calls to come.
        if self.blueprint.isolation.reuse.is_some() {
            return;
        }
        let is_unused = |pool: &Pool| {
            let state = pool.state();
            let oldest = state.idle.first().map(Instance::last_used);
            state.idle.len() > 1 && oldest.is_some_and(|used| used < before)
        };
        while is_unused(self) && self.end_oldest() {}
    }
}

/// An instance that is being made. It counts as live until making it fails.
struct Making {
    pool: Arc<Pool>,
    made: bool,
}

impl Making {
    fn new(pool: &Arc<Pool>) -> Self {
        Making { pool: pool.clone(), made: false }
    }

    fn made(mut self, instance: Instance) {
        // The instance stays counted as live; from now on, its lease or the pool counts it out.
        self.made = true;
        let pool = self.pool.clone();
        drop(self);
        pool.give(instance);
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.making -= 1;
        state.live -= usize::from(!self.made);
    }
}

impl Lease {
    /// Returns the instance. Until [`Lease::done`], it counts as interrupted.
    pub(crate) fn begin(&mut self) -> Option<&mut Instance> {
        self.clean = false;
        self.instance.as_mut()
    }

    /// The instance has finished its call cleanly, and may serve another.
    pub(crate) fn done(&mut self) {
        self.clean = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.instance.take() {
            Some(instance) if self.clean && !instance.is_too_large() => {
                if instance.is_used_up() {
                    self.pool.use_up(instance);
                } else {
                    self.pool.give(instance);
                }
            }
            // `give` has taken the instance out of this lease, so nothing has to be counted out.
            None if self.clean => {}
            used => self.pool.retire(used),
        }
    }
}
