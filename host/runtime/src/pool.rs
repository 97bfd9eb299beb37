//! The instances of one plugin: who uses them, who waits for them, and when more are made.
//!
//! Calls never make an instance: they take an idle one or wait, and instances are made beside
//! them. The lock is the plugin's own and held for a few instructions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::CallError;
use crate::instance::{Blueprint, Instance};

/// The pool of one plugin.
pub(crate) struct Pool {
    blueprint: Arc<Blueprint>,
    state: Mutex<State>,
    /// Where instances are made; a lease may be dropped anywhere.
    runtime: Handle,
}

#[derive(Default)]
struct State {
    idle: Vec<Instance>,
    waiting: VecDeque<oneshot::Sender<Result<Lease, CallError>>>,
    /// Instances that exist or are being made.
    live: usize,
}

/// The use of an instance. Dropped before [`Lease::done`], it takes the instance with it: whatever
/// a guest was interrupted in, nobody meets it again.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    instance: Option<Instance>,
    clean: bool,
}

impl Pool {
    pub(crate) fn new(blueprint: Arc<Blueprint>, runtime: Handle) -> Arc<Self> {
        Arc::new(Pool { blueprint, state: Mutex::default(), runtime })
    }

    pub(crate) fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Makes the first instance, so that calls find one.
    pub(crate) async fn warm(self: &Arc<Self>) -> Result<(), CallError> {
        self.state().live += 1;
        let making = Making(self.clone());
        let instance = self.blueprint.instantiate().await?;
        making.made(instance);
        Ok(())
    }

    /// An instance, at once or as soon as one is free.
    ///
    /// # Errors
    /// When too many calls wait already, the deadline passes, or no instance can be made.
    /// Cancel-safe: a place in the queue that is given up is passed on.
    pub(crate) async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease, CallError> {
        let place = {
            let mut state = self.state();
            if let Some(instance) = state.idle.pop() {
                return Ok(Lease { pool: self.clone(), instance: Some(instance), clean: true });
            }
            state.waiting.retain(|waiting| !waiting.is_closed());
            let queue = self.blueprint.limits.queue;
            if state.waiting.len() >= queue {
                return Err(CallError::QueueFull { queue });
            }
            let (give, place) = oneshot::channel();
            state.waiting.push_back(give);
            place
        };
        self.grow();
        match tokio::time::timeout_at(deadline.into(), place).await {
            Ok(Ok(leased)) => leased,
            Ok(Err(_)) => Err(CallError::CannotStart("the plugin was unloaded".into())),
            Err(_) => Err(CallError::DeadlineExceeded { executed: false }),
        }
    }

    /// Instances that exist, or are being made.
    pub(crate) fn live(&self) -> usize {
        self.state().live
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes another instance beside the calls, if one is waited for and there may be one more.
    fn grow(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.waiting.retain(|waiting| !waiting.is_closed());
            if state.waiting.is_empty() || state.live >= self.blueprint.limits.instances {
                return;
            }
            state.live += 1;
        }
        // Not under the lock: a runtime that shuts down drops the future at once.
        let making = Making(self.clone());
        self.runtime.spawn(async move {
            let pool = making.0.clone();
            match pool.blueprint.instantiate().await {
                Ok(instance) => making.made(instance),
                Err(error) => {
                    drop(making);
                    pool.refuse_one(&error);
                    pool.grow();
                }
            }
        });
    }

    /// One failed attempt answers one waiting call: a plugin that cannot start is tried as often as
    /// it is called, and not in a loop.
    fn refuse_one(&self, error: &CallError) {
        loop {
            let Some(waiting) = self.state().waiting.pop_front() else { return };
            if waiting.send(Err(CallError::CannotStart(error.to_string()))).is_ok() {
                return;
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
}

/// An instance in the making, which counts as live until it turns out that it is none.
struct Making(Arc<Pool>);

impl Making {
    fn made(self, instance: Instance) {
        let pool = self.0.clone();
        // It goes on being counted, now by whoever uses it.
        pool.state().live += 1;
        drop(self);
        pool.give(instance);
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.0.state().live -= 1;
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
            Some(instance) if self.clean => self.pool.give(instance),
            // A lease that was emptied by `give` is clean and has no instance to count out.
            None if self.clean => {}
            interrupted => {
                drop(interrupted);
                self.pool.state().live -= 1;
                self.pool.grow();
            }
        }
    }
}
