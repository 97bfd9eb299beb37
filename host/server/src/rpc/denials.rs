//! Tells the log who was denied what. Callers are only told that it does not exist.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use wharf_schema::{Service, ServiceName};

use super::caller::Caller;
use super::sight::Sight;
use crate::plugins::Found;
use crate::plugins::table::Table;

/// Lines of the log in a minute. Whoever is denied can ask without end.
const LINES: NonZeroU32 = NonZeroU32::new(30).unwrap();

/// What was denied to callers.
pub(crate) struct Denials {
    lines: DefaultDirectRateLimiter,
    /// Denials since the last line.
    unsaid: AtomicU64,
}

impl Default for Denials {
    fn default() -> Self {
        let lines = RateLimiter::direct(Quota::per_minute(LINES));
        Denials { lines, unsaid: AtomicU64::new(0) }
    }
}

impl Denials {
    /// A service was not found. If it is there, it was denied.
    pub(super) fn note_service(&self, table: &Table, caller: &Caller, name: &ServiceName) {
        let sight = Sight::new(caller.who.clone());
        if let Found::One(slot) = table.find(name, |service| !sight.has(service))
            && slot.served().is_some()
        {
            self.say(caller, &slot.name.to_string());
        }
    }

    /// A method of a service was not found. If it is there, it was denied.
    pub(super) fn note_method(&self, service: &Service, caller: &Caller, name: &str) {
        let sight = Sight::new(caller.who.clone());
        if let Some(method) = service.method(name)
            && !sight.has_method(service.name(), &method.name)
        {
            self.say(caller, &format!("{}.{}", service.name(), method.name));
        }
    }

    fn say(&self, caller: &Caller, what: &str) {
        if self.lines.check().is_err() {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
        } else {
            let unsaid = self.unsaid.swap(0, Ordering::Relaxed);
            tracing::warn!(
                principal = caller.who.name(),
                peer = %caller.peer.ip(),
                door = caller.door.name(),
                unsaid,
                "{what} was denied: no pattern in this principal's calls allows it"
            );
        }
    }
}
