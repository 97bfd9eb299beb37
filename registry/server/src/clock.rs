//! The clock by which hosts live and die.

use std::time::{Duration, Instant};

/// Counts the time that the registry was awake.
///
/// It follows the monotonic clock, so nobody who sets the wall clock moves it. A gap between two
/// readings counts for [`LivenessClock::MAX_STEP`] at most: a registry that was stopped, or starved,
/// heard nobody in the meantime, and must not hold it against them.
#[derive(Debug)]
pub(crate) struct LivenessClock {
    last: Instant,
    elapsed: Duration,
}

/// What the clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Never goes back.
    pub(crate) now: Duration,
    /// How long nobody had read it.
    pub(crate) gap: Duration,
}

impl LivenessClock {
    /// Four times the sweep's period: a sweep that comes later than that was held up.
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
