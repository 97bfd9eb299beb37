//! One service at one endpoint, and what calls to it have shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wharf_registry_api::State;
use wharf_schema::{Fingerprint, ServiceName};
use wharf_wire::Status;

use super::load::Load;
use super::outlier::Outlier;
use crate::channel::Condition;
use crate::endpoints::Endpoint;
use crate::error::Failure;

/// The longest that an endpoint's word is taken for not to be asked.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// A service at an endpoint, as one list of the registry has it. Later lists share what is known of
/// its health.
pub(crate) struct Node {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) name: Arc<ServiceName>,
    /// Of all its methods, where the registry knows it.
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) state: State,
    health: Arc<Mutex<Health>>,
}

struct Health {
    load: Load,
    outlier: Outlier,
    /// The endpoint asked not to be called before this.
    rests_until: Option<Instant>,
}

/// How a node stands with one that looks for somebody to call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fitness {
    /// It is called if it weighs less than another one.
    Fit(f64),
    /// Nobody has connected to it: it is called if nobody else is fit.
    Untried,
    /// It failed often, asked for a rest, or does not answer: it is called if there is no other.
    Unfit(f64),
    /// It cannot be connected to: it is tried if nothing else is left.
    Down,
}

/// A call in flight at a node. Dropped, it was given up.
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
        state: State,
    ) -> Self {
        let load = Load::new(Instant::now());
        let health = Health { load, outlier: Outlier::default(), rests_until: None };
        Node { endpoint, name, fingerprint, state, health: Arc::new(Mutex::new(health)) }
    }

    /// Goes on with what an earlier list's node has shown, if it is the same one.
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
            Condition::Ready => {}
            Condition::Untried => return Fitness::Untried,
            Condition::Down => return Fitness::Down,
        }
        let health = self.health();
        let weight = health.load.weight(now);
        let rests = health.rests_until.is_some_and(|until| now < until);
        if rests || health.outlier.is_ejected(now) || health.load.is_stalled(now) {
            return Fitness::Unfit(weight);
        }
        Fitness::Fit(weight)
    }

    /// A call is sent there.
    pub(crate) fn begin(&self, now: Instant) -> InFlight<'_> {
        self.health().load.begin(now);
        InFlight { node: self, begun: now, ended: false }
    }

    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.health().outlier.is_ejected(now)
    }

    /// Leaves it out for a while.
    pub(crate) fn eject(&self, now: Instant) -> Duration {
        self.health().outlier.eject(now)
    }

    /// Calls in flight, and the latency to expect.
    pub(crate) fn load(&self, now: Instant) -> (u32, Duration) {
        let health = self.health();
        (health.load.in_flight(), health.load.latency(now))
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.ended = true;
        let latency = now.saturating_duration_since(self.begun);
        let mut health = self.node.health();
        health.load.end(now, Some(latency));
        health.outlier.succeeded();
    }

    /// The call failed; whether that was once too often.
    pub(crate) fn failed(mut self, now: Instant, failure: &Failure) -> bool {
        self.ended = true;
        let elapsed = now.saturating_duration_since(self.begun);
        let mut health = self.node.health();
        let answered = matches!(failure, Failure::Remote(_));
        // A refusal comes quickly, and says nothing of how quick a result would be.
        let latency = (answered && failure.may_have_executed()).then_some(elapsed);
        health.load.end(now, latency);
        if let Failure::DeadlineExceeded { .. } = failure {
            health.load.observe_at_least(now, elapsed);
        }
        if let Failure::Remote(remote) = failure
            && let Some(after) = remote.retry_after.filter(|_| remote.not_executed)
        {
            health.rests_until = Some(now + after.min(LONGEST_REST));
        }
        match fault(failure) {
            Some(true) => health.outlier.failed(),
            Some(false) => {
                health.outlier.succeeded();
                false
            }
            None => false,
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let now = Instant::now();
            let mut health = self.node.health();
            health.load.end(now, None);
            // It would have taken at least as long.
            health.load.observe_at_least(now, now.saturating_duration_since(self.begun));
        }
    }
}

/// Whether a failure is the endpoint's fault; `None` where it says nothing either way.
fn fault(failure: &Failure) -> Option<bool> {
    match failure {
        // A way that is down is known to be.
        Failure::Connect(_) | Failure::ConnectionLost { not_executed: true, .. } => None,
        Failure::ConnectionLost { .. } | Failure::DeadlineExceeded { .. } => Some(true),
        Failure::Remote(remote) => Some(matches!(
            remote.status,
            Status::Unavailable | Status::Internal | Status::Unknown | Status::DataLoss
        )),
        _ => None,
    }
}
