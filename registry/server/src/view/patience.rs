//! For how much silence of its members the view waits.

use std::time::Duration;

use crate::clock::LivenessClock;
use crate::upkeep::Silence;

/// For how much silence the view waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(super) ttl: Duration,
    /// The first part of each time to live is a lease, after which the view hears of the silence.
    lease: Option<fn(Duration) -> Duration>,
}

impl Patience {
    /// The view hears every heartbeat itself.
    pub(crate) fn whole(ttl: Duration) -> Self {
        Patience { ttl, lease: None }
    }

    /// The first part is a lease.
    pub(crate) fn after_lease(ttl: Duration, lease: fn(Duration) -> Duration) -> Self {
        Patience { ttl, lease: Some(lease) }
    }

    pub(super) fn of(&self, silence: Silence) -> Option<Duration> {
        let left = |ttl: Duration| match self.lease {
            Some(lease) => ttl.saturating_sub(lease(ttl)).max(LivenessClock::MAX_STEP),
            None => ttl,
        };
        match silence {
            Silence::AsAll => Some(left(self.ttl)),
            Silence::Within(ttl) => Some(left(ttl)),
            Silence::Over(time) => Some(time),
            Silence::Never => None,
        }
    }
}
