//! Bodies of whole lists, which many readers get the same, until the next change of their service.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// The most bytes of all kept bodies together.
const MAX_BODIES: usize = 64 * 1024 * 1024;

/// Kept bodies, by service.
#[derive(Default)]
pub(super) struct Bodies(HashMap<Arc<str>, Kept>);

/// The body of a list in which no host is unverified.
struct Kept {
    body: Bytes,
    /// Before this time, no host in it can become unverified. After it, the hosts have to be
    /// checked again.
    sure_until: Duration,
}

impl Bodies {
    /// The kept body, if it still holds. `sure_until` checks the hosts in it.
    pub(super) fn get(
        &mut self,
        service: &str,
        now: Duration,
        sure_until: impl FnOnce() -> Duration,
    ) -> Option<Bytes> {
        let kept = self.0.get_mut(service)?;
        if now >= kept.sure_until {
            kept.sure_until = sure_until();
        }
        (now < kept.sure_until).then(|| kept.body.clone())
    }

    pub(super) fn keep(&mut self, service: &str, body: Bytes, sure_until: Duration) {
        if body.len() > MAX_BODIES {
            return;
        }
        let held: usize = self.0.values().map(|kept| kept.body.len()).sum();
        if held + body.len() > MAX_BODIES {
            self.0.clear();
        }
        self.0.insert(service.into(), Kept { body, sure_until });
    }

    pub(super) fn forget(&mut self, service: &str) {
        self.0.remove(service);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
