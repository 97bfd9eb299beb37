//! Ejection of endpoints that fail repeatedly. This is plain state: the time is an argument.

use std::time::{Duration, Instant};

/// After this many failures in a row, an endpoint is ejected. This number and the times are Envoy's
/// (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier>).
const FAILURES: u32 = 5;

/// How long the first ejection lasts. Each further one lasts longer by this much.
const BASE: Duration = Duration::from_secs(30);

/// The longest ejection.
const LONGEST: Duration = Duration::from_secs(300);

/// The failures of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Outlier {
    in_a_row: u32,
    times: u32,
    until: Option<Instant>,
    /// It was ejected, and no answer has arrived since.
    is_unproven: bool,
}

impl Outlier {
    /// An answer arrived. Whatever it says, the endpoint is alive.
    pub(crate) fn succeeded(&mut self) {
        self.in_a_row = 0;
        self.is_unproven = false;
    }

    /// A call failed. Returns whether this was one failure too many.
    pub(crate) fn failed(&mut self) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.in_a_row >= FAILURES || self.is_unproven
    }

    /// Ejects the endpoint. Returns for how long.
    pub(crate) fn eject(&mut self, now: Instant) -> Duration {
        // For each `BASE` of time since the last ejection ended, one earlier ejection is forgiven.
        let well = self.until.map_or(Duration::ZERO, |until| now.saturating_duration_since(until));
        let forgiven = u32::try_from(well.as_secs() / BASE.as_secs()).unwrap_or(u32::MAX);
        self.times = self.times.saturating_sub(forgiven).saturating_add(1);
        let time = BASE.saturating_mul(self.times).min(LONGEST);
        self.until = Some(now + time);
        self.in_a_row = 0;
        self.is_unproven = true;
        time
    }

    /// Whether it was ejected, and nothing has shown since that it is well. One call at a time finds
    /// out.
    pub(crate) fn is_on_probation(&self, now: Instant) -> bool {
        self.is_unproven && !self.is_ejected(now)
    }

    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// How many of this many endpoints may be ejected at once: a tenth, at least one, never all.
pub(crate) fn most_ejected(endpoints: usize) -> usize {
    (endpoints / 10).max(1).min(endpoints.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_are_too_many_and_each_time_out_is_longer() {
        let now = Instant::now();
        let mut outlier = Outlier::default();
        for _ in 0..3 {
            assert!((0..4).all(|_| !outlier.failed()));
            outlier.succeeded();
        }
        assert!((0..4).all(|_| !outlier.failed()));
        assert!(outlier.failed());
        assert_eq!(outlier.eject(now), BASE);
        assert!(outlier.is_ejected(now + BASE - Duration::from_millis(1)));
        assert!(!outlier.is_ejected(now + BASE));
        assert_eq!(outlier.eject(now + BASE), 2 * BASE);
        assert_eq!(outlier.eject(now + 3 * BASE), 3 * BASE);
        let well = now + 6 * BASE + 2 * BASE;
        assert_eq!(outlier.eject(well), 2 * BASE, "two times are forgiven, one is added");
        assert!((0..20).all(|n| outlier.eject(well + n * LONGEST) <= LONGEST));
    }

    #[test]
    fn after_an_ejection_one_failure_is_too_many_and_one_answer_is_enough() {
        let now = Instant::now();
        let mut outlier = Outlier::default();
        outlier.eject(now);
        assert!(!outlier.is_on_probation(now), "nobody calls it yet");
        assert!(outlier.is_on_probation(now + BASE));
        assert!(outlier.failed());
        outlier.succeeded();
        assert!(!outlier.is_on_probation(now + BASE));
        assert!((0..4).all(|_| !outlier.failed()));
    }

    #[test]
    fn never_all_are_left_out() {
        let most: Vec<usize> = [0, 1, 2, 3, 19, 20, 100].map(most_ejected).to_vec();
        assert_eq!(most, [0, 0, 1, 1, 1, 2, 10]);
    }
}
