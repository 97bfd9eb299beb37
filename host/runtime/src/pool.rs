//! The instances of one plugin: who uses them, who waits for them, and when more are made.
//!
//! Calls never make an instance: they take an idle one or wait, and instances are made and ended
//! beside them. The lock is the plugin's own and held for a few instructions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::InvokeError;
use crate::capacity::Room;
use crate::instance::{Blueprint, Instance};

/// The pool of one plugin.
pub(crate) struct Pool {
    blueprint: Arc<Blueprint>,
    state: Mutex<Occupancy>,
}

#[derive(Default)]
struct Occupancy {
    /// The one used last is used first: the others' memory may go cold.
    idle: Vec<Instance>,
    waiting: VecDeque<oneshot::Sender<Result<Lease, InvokeError>>>,
    /// Instances that exist or are being made.
    live: usize,
    /// Of these, those that are being made.
    making: usize,
    /// Of these, those that have served their calls and are to be ended.
    used_up: Vec<Instance>,
    /// Whether somebody is about to end those.
    replacing: bool,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolReport {
    /// Instances that exist or are being made.
    pub instances: usize,
    /// Of these, those that wait for a call.
    pub idle: usize,
    /// Calls that wait for an instance.
    pub waiting: usize,
}

/// The use of an instance. Dropped before [`Lease::done`], it takes the instance with it: whatever
/// a guest was interrupted in, nobody meets it again.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    instance: Option<Instance>,
    clean: bool,
}

/// What asking for an instance comes to.
pub(crate) enum Leased {
    Now(Lease),
    Later(Place),
}

/// A place among those that wait for an instance; dropped, it is passed on.
pub(crate) struct Place(oneshot::Receiver<Result<Lease, InvokeError>>);

impl Place {
    /// An instance, as soon as one is free.
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
        Arc::new(Pool { blueprint, state: Mutex::default() })
    }

    pub(crate) fn blueprint(&self) -> &Arc<Blueprint> {
        &self.blueprint
    }

    /// Makes the first instance, so that calls find one.
    pub(crate) async fn warm(self: &Arc<Self>) -> Result<(), InvokeError> {
        let room = self.blueprint.room().ok_or(InvokeError::HostFull)?;
        self.begin_making(&mut self.state());
        let making = Making::new(self);
        let instance = self.blueprint.instantiate(room).await?;
        making.made(instance);
        self.grow();
        Ok(())
    }

    /// An instance, or a place among those that wait for one.
    ///
    /// # Errors
    /// When too many calls wait already.
    pub(crate) fn lease(self: &Arc<Self>) -> Result<Leased, InvokeError> {
        let (idle, place, grow, replace) = {
            let mut state = self.state();
            let idle = state.idle.pop();
            let mut place = None;
            if idle.is_none() {
                state.waiting.retain(|waiting| !waiting.is_closed());
                let queue = self.blueprint.limits.queue;
                if state.waiting.len() >= queue {
                    // With a queue of none, no other call would see to it that there is an instance.
                    let grow = self.wants_another(&state);
                    drop(state);
                    if grow {
                        self.grow();
                    }
                    return Err(InvokeError::QueueFull { queue });
                }
                let (give, queued) = oneshot::channel();
                state.waiting.push_back(give);
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

    /// Whether another instance should be made: for each call that waits, and to have some ready.
    fn wants_another(&self, state: &Occupancy) -> bool {
        let ready = match self.blueprint.isolation.reuse {
            // Each is soon used up: as many as there may be.
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

    /// Makes instances beside the calls, as many as are wanted.
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
                    let waiting =
                        if alone { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
                    drop(state);
                    // With no instance to wait for, nothing would ever answer these.
                    for waiting in waiting {
                        // Nobody may be waiting there any more.
                        let _ = waiting.send(Err(InvokeError::HostFull));
                    }
                    return;
                };
                self.begin_making(&mut state);
                room
            };
            // Not under the lock: a runtime that shuts down drops the future at once.
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
                    // One failed attempt answers one waiting call: a plugin that cannot start is
                    // tried as often as it is called, and not in a loop.
                    if pool.refuse_one(&error) {
                        pool.grow();
                    }
                }
            }
        });
    }

    /// Answers one waiting call, if there is any.
    fn refuse_one(&self, error: &InvokeError) -> bool {
        loop {
            let Some(waiting) = self.state().waiting.pop_front() else { return false };
            if waiting.send(Err(InvokeError::CannotStart(error.to_string()))).is_ok() {
                return true;
            }
        }
    }

    /// Hands a usable instance to the next waiting call, or lays it aside.
    fn give(self: &Arc<Self>, instance: Instance) {
        let mut lease = Lease { pool: self.clone(), instance: Some(instance), clean: true };
        loop {
            let next = {
                let mut state = self.state();
                let next = state.waiting.pop_front();
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

    /// Lays an instance aside that has served its calls. They are replaced many at a time: waking a
    /// thread takes longer than a quick call, so that not each call should have to do it.
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

    /// Whether the time has come to replace what is used up; whoever is told so has to do it.
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
            drop(used_up);
            pool.state().live -= count;
            pool.grow();
        });
    }

    /// Ends an instance beside the calls, and sees to it that another takes its place.
    fn retire(self: &Arc<Self>, instance: Option<Instance>) {
        let pool = self.clone();
        self.blueprint.engine.threads.spawn(async move {
            drop(instance);
            pool.state().live -= 1;
            pool.grow();
        });
    }
}

/// An instance in the making, which counts as live until it turns out that it is none.
struct Making {
    pool: Arc<Pool>,
    made: bool,
}

impl Making {
    fn new(pool: &Arc<Pool>) -> Self {
        Making { pool: pool.clone(), made: false }
    }

    fn made(mut self, instance: Instance) {
        // It goes on being counted, now by whoever uses it.
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
    /// The instance. Until [`Lease::done`], it counts as interrupted.
    pub(crate) fn begin(&mut self) -> Option<&mut Instance> {
        self.clean = false;
        self.instance.as_mut()
    }

    /// The instance came to the end of its call in good order, and may serve another.
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
            // A lease that was emptied by `give` is clean and has no instance to count out.
            None if self.clean => {}
            used => self.pool.retire(used),
        }
    }
}
