//! The instances of one plugin: who uses them, who waits for them, and when more are made.
//!
//! Calls never make an instance: they take an idle one or wait, and instances are made beside
//! them. The lock is the plugin's own and held for a few instructions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::CallError;
use crate::instance::{Blueprint, Instance};

/// The pool of one plugin.
pub(crate) struct Pool {
    blueprint: Arc<Blueprint>,
    state: Mutex<State>,
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
    pub(crate) fn new(blueprint: Arc<Blueprint>) -> Arc<Self> {
        Arc::new(Pool { blueprint, state: Mutex::default() })
    }

    pub(crate) fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Makes the first instance, so that calls find one.
    pub(crate) async fn warm(self: &Arc<Self>) -> Result<(), CallError> {
        self.state().live += 1;
        // A lease counts itself out wherever it is dropped, this future included.
        let mut lease = Lease { pool: self.clone(), instance: None, clean: false };
        lease.fill(self.blueprint.instantiate().await?);
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
            self.grow(&mut state);
            place
        };
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
    fn grow(self: &Arc<Self>, state: &mut State) {
        if state.waiting.is_empty() || state.live >= self.blueprint.limits.instances {
            return;
        }
        state.live += 1;
        let mut lease = Lease { pool: self.clone(), instance: None, clean: false };
        tokio::spawn(async move {
            match lease.pool.blueprint.instantiate().await {
                Ok(instance) => lease.fill(instance),
                Err(error) => {
                    // One attempt answers one waiting call: a plugin that cannot start is tried
                    // as often as it is called, and not in a loop.
                    let mut state = lease.pool.state();
                    let waiting = std::iter::from_fn(|| state.waiting.pop_front());
                    for waiting in waiting {
                        let error = CallError::CannotStart(error.to_string());
                        if waiting.send(Err(error)).is_ok() {
                            break;
                        }
                    }
                }
            }
        });
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

impl Lease {
    /// A new instance, for whoever is next once this lease is dropped.
    fn fill(&mut self, instance: Instance) {
        self.instance = Some(instance);
        self.clean = true;
    }

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
                let mut state = self.pool.state();
                state.live -= 1;
                self.pool.grow(&mut state);
            }
        }
    }
}
