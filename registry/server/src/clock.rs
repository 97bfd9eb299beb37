//! The clock by which hosts live and die.

use std::time::{Duration, Instant};

/// Counts the time that the registry was awake.
///
/// It follows the monotonic clock, but a gap longer than [`LivenessClock::MAX_STEP`] between two
/// readings counts only that much: a registry that was stopped, or starved, heard nobody in the
/// meantime, and must not hold it against them.
#[derive(Debug)]
pub(crate) struct LivenessClock {
    last: Instant,
    elapsed: Duration,
}

impl LivenessClock {
    /// Four times the sweep's period: a sweep that comes later than that was held up.
    pub(crate) const MAX_STEP: Duration = Duration::from_secs(1);

    pub(crate) fn new(now: Instant) -> Self {
        LivenessClock { last: now, elapsed: Duration::ZERO }
    }

    /// The time at `now`, which never goes back.
    pub(crate) fn read(&mut self, now: Instant) -> Duration {
        let step = now.saturating_duration_since(self.last);
        self.last = self.last.max(now);
        self.elapsed += step.min(Self::MAX_STEP);
        self.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let start = Instant::now();
        let mut clock = LivenessClock::new(start);
        assert_eq!(clock.read(start + Duration::from_millis(300)), Duration::from_millis(300));
        let after_a_pause = clock.read(start + Duration::from_secs(3600));
        assert_eq!(after_a_pause, Duration::from_millis(300) + LivenessClock::MAX_STEP);
        assert_eq!(clock.read(start), after_a_pause, "a clock that jumps back stands still");
    }
}
