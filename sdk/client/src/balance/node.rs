//! One service at one endpoint, and what calls have shown about it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use wharf_registry_api::{EndpointState, RpcProtocol};
use wharf_schema::{Fingerprint, ServiceName};
use wharf_wire::Status;

use super::load::Load;
use super::outlier::Outlier;
use crate::channel::LinkState;
use crate::endpoints::Endpoint;
use crate::error::Failure;

/// The longest time for which an endpoint's `retry_after` is respected.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// A service at an endpoint, from one list of the registry. Later lists share its health.
pub(crate) struct Node {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) name: Arc<ServiceName>,
    /// The fingerprint of all its methods, if the registry knows it.
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) state: EndpointState,
    /// It speaks Go's net/rpc, and not Wharf's protocol.
    pub(crate) net_rpc: Option<NetRpcName>,
    health: Arc<Health>,
}

/// A service of net/rpc at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetRpcName {
    /// As it registered itself.
    pub(crate) service: Arc<str>,
    pub(crate) protocol: RpcProtocol,
}

struct Health {
    /// Calls in flight. They are counted outside the lock, so that calls do not wait for each
    /// other.
    in_flight: AtomicU32,
    /// Whether the last recorded outcome was a failure.
    failing: AtomicBool,
    shown: Mutex<Shown>,
}

/// What calls have shown about the node.
struct Shown {
    load: Load,
    outlier: Outlier,
    /// The endpoint asked not to be called before this.
    rests_until: Option<Instant>,
}

/// How suitable a node is for the next call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fitness {
    /// It is connected and healthy. The node with the lower weight is called.
    Fit(f64),
    /// It was not connected yet: it is called if no node is fit.
    Untried,
    /// It is ejected, or was and is probed by a call; it asked for a pause, is stalled, or refused the
    /// method: it is called if no node is fit or untried.
    Unfit(f64),
    /// It cannot be connected to: it is called if nothing else is left.
    Down,
}

/// A call in flight at a node. Dropping it means that the caller gave up.
pub(crate) struct InFlight<'n> {
    node: &'n Node,
    begun: Instant,
    ended: bool,
}

impl Node {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        name: Arc<ServiceName>,
        fingerprint: Option<Fingerprint>,
        state: EndpointState,
    ) -> Self {
        let load = Load::new(Instant::now());
        let shown = Shown { load, outlier: Outlier::default(), rests_until: None };
        let health = Health {
            in_flight: AtomicU32::new(0),
            failing: AtomicBool::new(false),
            shown: Mutex::new(shown),
        };
        Node { endpoint, name, fingerprint, state, net_rpc: None, health: Arc::new(health) }
    }

    /// The same node, which speaks net/rpc if it has a name there.
    pub(crate) fn speaking(self, net_rpc: Option<NetRpcName>) -> Self {
        Node { net_rpc, ..self }
    }

    /// Takes over the health of the same node in an earlier list.
    pub(crate) fn succeeding(self, earlier: &Node) -> Self {
        Node { health: earlier.health.clone(), ..self }
    }

    /// Whether both are the same service at the same address.
    pub(crate) fn is_same(&self, other: &Node) -> bool {
        Arc::ptr_eq(&self.health, &other.health)
            || (self.endpoint.address() == other.endpoint.address() && self.name == other.name)
    }

    pub(crate) fn fitness(&self, now: Instant) -> Fitness {
        match self.endpoint.condition() {
            LinkState::Ready => {}
            LinkState::Untried => return Fitness::Untried,
            LinkState::Down => return Fitness::Down,
        }
        let in_flight = self.health.in_flight.load(Ordering::Relaxed);
        let shown = self.shown();
        let weight = shown.load.weight(now, in_flight);
        let rests = shown.rests_until.is_some_and(|until| now < until);
        let is_probed = in_flight > 0 && shown.outlier.is_on_probation(now);
        if rests
            || is_probed
            || shown.outlier.is_ejected(now)
            || shown.load.is_stalled(now, in_flight)
        {
            return Fitness::Unfit(weight);
        }
        Fitness::Fit(weight)
    }

    /// A call to this node begins.
    pub(crate) fn begin(&self, now: Instant) -> InFlight<'_> {
        let alone = self.health.in_flight.load(Ordering::Relaxed) == 0;
        if alone {
            // Set this before the count goes up, so that a reader of the new count also sees it.
            self.shown().load.first_begins(now);
        }
        if self.health.in_flight.fetch_add(1, Ordering::Relaxed) == 0 && !alone {
            // All other calls have ended in the meantime.
            self.shown().load.first_begins(now);
        }
        InFlight { node: self, begun: now, ended: false }
    }

    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.shown().outlier.is_ejected(now)
    }

    /// Ejects the node. Returns for how long.
    pub(crate) fn eject(&self, now: Instant) -> Duration {
        self.shown().outlier.eject(now)
    }

    /// Calls in flight, and the expected latency.
    pub(crate) fn load(&self, now: Instant) -> (u32, Duration) {
        (self.health.in_flight.load(Ordering::Relaxed), self.shown().load.latency(now))
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.health.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'n> InFlight<'n> {
    pub(crate) fn node(&self) -> &'n Node {
        self.node
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// The call was answered with a result.
    pub(crate) fn answered(mut self, now: Instant) {
        self.end();
        let latency = now.saturating_duration_since(self.begun);
        let health = &self.node.health;
        let mut shown = if health.failing.load(Ordering::Relaxed) {
            self.node.shown()
        } else {
            match health.shown.try_lock() {
                Ok(shown) => shown,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // The lock is taken: skip this answer. One answer changes little for a healthy
                // endpoint.
                Err(TryLockError::WouldBlock) => return,
            }
        };
        health.failing.store(false, Ordering::Relaxed);
        shown.load.answered(now, latency);
        shown.outlier.succeeded();
    }

    fn end(&mut self) {
        self.ended = true;
        self.node.health.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The call failed. Returns whether the endpoint has now failed too often.
    pub(crate) fn failed(mut self, now: Instant, failure: &Failure) -> bool {
        self.end();
        let elapsed = now.saturating_duration_since(self.begun);
        let mut shown = self.node.shown();
        let answered = matches!(failure, Failure::Remote(_));
        // A refusal comes quickly, and says nothing about the latency of a result.
        if answered && failure.may_have_executed() {
            shown.load.answered(now, elapsed);
        }
        if let Failure::DeadlineExceeded { .. } = failure {
            shown.load.observe_at_least(now, elapsed);
        }
        if let Failure::Remote(remote) = failure
            && let Some(after) = remote.retry_after.filter(|_| remote.not_executed)
        {
            shown.rests_until = Some(now + after.min(LONGEST_REST));
        }
        match fault(failure) {
            Some(true) => {
                self.node.health.failing.store(true, Ordering::Relaxed);
                shown.outlier.failed()
            }
            Some(false) => {
                shown.outlier.succeeded();
                false
            }
            None => false,
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
            let now = Instant::now();
            // Its latency would have been at least this.
            let waited = now.saturating_duration_since(self.begun);
            self.node.shown().load.observe_at_least(now, waited);
        }
    }
}

/// Whether a failure is the endpoint's fault; `None` if the failure does not tell.
fn fault(failure: &Failure) -> Option<bool> {
    match failure {
        // The channel itself tracks connections that are down.
        Failure::Connect(_) | Failure::ConnectionLost { not_executed: true, .. } => None,
        Failure::ConnectionLost { .. } | Failure::DeadlineExceeded { .. } => Some(true),
        Failure::Remote(remote) => Some(matches!(
            remote.status,
            Status::Unavailable | Status::Internal | Status::Unknown | Status::DataLoss
        )),
        _ => None,
    }
}
