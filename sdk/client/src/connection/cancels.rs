//! The calls that were given up and whose host is still to be told. The host takes so many a second;
//! further ones wait here, and none is lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often waiting ids are looked at.
pub(super) const PACE: Duration = Duration::from_millis(5);

/// Cancels of one connection, within the rate that its host has announced.
pub(super) struct Cancels {
    waiting: VecDeque<u64>,
    /// A second's worth.
    rate: u32,
    /// How many may be sent now; with the part of one that has come since.
    allowed: f64,
    counted: Instant,
}

impl Cancels {
    /// `rate` is how many the host takes a second, and at once.
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        // A host that takes none at all would never learn what was given up.
        let rate = rate.max(1);
        Cancels { waiting: VecDeque::new(), rate, allowed: rate.into(), counted: now }
    }

    pub(super) fn push(&mut self, id: u64) {
        self.waiting.push_back(id);
    }

    /// The number of calls that the host still runs, as far as it was told.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The call has ended, so its host need not be told.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(at) = self.waiting.iter().position(|waiting| *waiting == id) {
            self.waiting.remove(at);
        }
    }

    /// Takes those that may be sent now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<u64> {
        let elapsed = now.duration_since(self.counted).as_secs_f64();
        self.allowed = (self.allowed + elapsed * f64::from(self.rate)).min(self.rate.into());
        self.counted = now;
        let mut due = Vec::new();
        while self.allowed >= 1.0
            && let Some(id) = self.waiting.pop_front()
        {
            self.allowed -= 1.0;
            due.push(id);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_hosts_rate_ids_wait_in_their_order_and_none_is_lost() {
        let begun = Instant::now();
        let mut cancels = Cancels::new(100, begun);
        (0..250).for_each(|id| cancels.push(id));
        cancels.forget(3);
        let mut sent = cancels.due(begun);
        assert_eq!((sent.len(), cancels.due(begun).len(), cancels.len()), (100, 0, 149));
        for tick in 1..=300 {
            let due = cancels.due(begun + PACE * tick);
            assert!(due.len() <= 1, "100 a second");
            sent.extend(due);
        }
        assert!(sent.iter().copied().eq((0..250).filter(|id| *id != 3)));
    }

    #[test]
    fn what_is_saved_up_is_at_most_a_second_and_a_host_that_takes_none_gets_them_slowly() {
        let begun = Instant::now();
        let mut cancels = Cancels::new(0, begun);
        (0..5).for_each(|id| cancels.push(id));
        assert_eq!(cancels.due(begun + Duration::from_secs(3600)), [0]);
        assert_eq!(cancels.due(begun + Duration::from_secs(3601)), [1]);
    }
}
