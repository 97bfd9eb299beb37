//! The clock that measures how long hosts have been silent.

use std::time::{Duration, Instant};

/// Counts the time in which the registry was running.
///
/// It follows the monotonic clock, so setting the wall clock does not change it. A gap between two
/// readings counts as [`LivenessClock::MAX_STEP`] at most. A registry that was stopped or starved
/// heard no host in the gap, so the gap must not count as the hosts' silence.
#[derive(Debug)]
pub(crate) struct LivenessClock {
    last: Instant,
    elapsed: Duration,
}

/// What the clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The time that was counted. It never goes back.
    pub(crate) now: Duration,
    /// The real time since the previous reading.
    pub(crate) gap: Duration,
}

impl LivenessClock {
    /// Four times the sweep's period. A sweep that comes later than that was delayed.
    pub(crate) const MAX_STEP: Duration = Duration::from_secs(1);

    pub(crate) fn new(now: Instant) -> Self {
        LivenessClock { last: now, elapsed: Duration::ZERO }
    }

    pub(crate) fn read(&mut self, now: Instant) -> Reading {
        let gap = now.saturating_duration_since(self.last);
        self.last = self.last.max(now);
        self.elapsed += gap.min(Self::MAX_STEP);
        Reading { now: self.elapsed, gap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let start = Instant::now();
        let mut clock = LivenessClock::new(start);
        assert_eq!(clock.read(start + Duration::from_millis(300)).now, Duration::from_millis(300));
        let after_a_pause = clock.read(start + Duration::from_secs(3600));
        assert_eq!(after_a_pause.now, Duration::from_millis(300) + LivenessClock::MAX_STEP);
        assert!(after_a_pause.gap > Duration::from_secs(3599));
        let back = clock.read(start);
        assert_eq!(back.now, after_a_pause.now, "a clock that jumps back stands still");
        assert_eq!(back.gap, Duration::ZERO);
    }
}
