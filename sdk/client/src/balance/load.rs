//! The load of an endpoint, as this client sees it. This is plain state: the time is an argument.

use std::time::{Duration, Instant};

/// The time constant of the average: an observed latency loses half of its weight in about 7
/// seconds.
const DECAY: Duration = Duration::from_secs(10);

/// The weight of an endpoint that has calls in flight and has never answered: more than that of any
/// endpoint that has answered. So a new endpoint gets one call, and the next one only after it has
/// answered.
const UNKNOWN: f64 = 1e15;

/// An endpoint is stalled if it has answered none of its calls for `STALLED` times its latency, and
/// for at least `STALLED_AFTER`.
const STALLED: f64 = 8.0;
const STALLED_AFTER: Duration = Duration::from_millis(200);

/// The load is the number of calls in flight, times an exponentially weighted moving average of
/// latency that follows peaks: a slower answer counts at once, faster answers only gradually. As in
/// Finagle's `p2cPeakEwma`
/// (<https://twitter.github.io/finagle/guide/Clients.html#power-of-two-choices-p2c-least-loaded>).
///
/// There is one addition: while calls are in flight and none is answered, the time since the last
/// answer counts as a latency too. So calls avoid an endpoint that has stopped, before its pending
/// calls fail.
#[derive(Debug)]
pub(crate) struct Load {
    /// Nanoseconds, as of `observed`.
    average: f64,
    observed: Instant,
    /// When a call was last answered, or when the first one in flight began.
    progress: Instant,
}

impl Load {
    pub(crate) fn new(now: Instant) -> Self {
        Load { average: 0.0, observed: now, progress: now }
    }

    /// The expected latency, from answers only.
    pub(crate) fn latency(&self, now: Instant) -> Duration {
        Duration::try_from_secs_f64(self.decayed(now) / 1e9).unwrap_or(Duration::MAX)
    }

    /// A call begins while no other is in flight.
    pub(crate) fn first_begins(&mut self, now: Instant) {
        self.progress = now;
    }

    /// A call was answered with this latency.
    pub(crate) fn answered(&mut self, now: Instant, latency: Duration) {
        self.progress = now;
        self.observe(now, latency);
    }

    /// Counts a latency.
    fn observe(&mut self, now: Instant, latency: Duration) {
        let latency = latency.as_nanos() as f64;
        let weight = self.weight_of_past(now);
        self.average = if latency > self.average {
            latency
        } else {
            self.average * weight + latency * (1.0 - weight)
        };
        self.observed = now;
    }

    /// Counts a call without an answer: its latency would have been this or more.
    pub(crate) fn observe_at_least(&mut self, now: Instant, latency: Duration) {
        if latency > self.latency(now) {
            self.observe(now, latency);
        }
    }

    /// The weight of the endpoint if one more call joins those in flight. Of two endpoints, the one
    /// that weighs less gets the call.
    pub(crate) fn weight(&self, now: Instant, in_flight: u32) -> f64 {
        let expected = self.decayed(now);
        if in_flight == 0 {
            return expected;
        }
        let in_flight = f64::from(in_flight);
        if expected == 0.0 {
            return UNKNOWN * in_flight;
        }
        expected.max(self.waited(now)) * (in_flight + 1.0)
    }

    /// Whether calls are in flight and none was answered for far longer than expected.
    pub(crate) fn is_stalled(&self, now: Instant, in_flight: u32) -> bool {
        let bound = (self.decayed(now) * STALLED).max(STALLED_AFTER.as_nanos() as f64);
        in_flight > 0 && self.waited(now) > bound
    }

    /// The time since the last answer, in nanoseconds. It counts only while calls are in flight.
    fn waited(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.progress).as_nanos() as f64
    }

    /// The average at this time. It decays, so that an endpoint is tried again if it had no calls
    /// for a while.
    fn decayed(&self, now: Instant) -> f64 {
        self.average * self.weight_of_past(now)
    }

    fn weight_of_past(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.observed).as_secs_f64();
        (-elapsed / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn answered(load: &mut Load, now: &mut Instant, latency: Duration) {
        load.first_begins(*now);
        *now += latency;
        load.answered(*now, latency);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_by_and_by() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        answered(&mut load, &mut now, MS);
        answered(&mut load, &mut now, 200 * MS);
        assert_eq!(load.latency(now), 200 * MS);
        for _ in 0..100 {
            answered(&mut load, &mut now, MS);
        }
        assert!(load.latency(now) > 190 * MS, "a hundred quick ones in a tenth of a second");
        now += Duration::from_secs(60);
        assert!(load.latency(now) < MS, "{:?}", load.latency(now));
    }

    #[test]
    fn calls_in_flight_add_weight() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        answered(&mut load, &mut now, MS);
        let idle = load.weight(now, 0);
        load.first_begins(now);
        assert!((load.weight(now, 1) / idle - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_new_endpoint_is_asked_once_and_again_when_it_has_answered() {
        let mut now = Instant::now();
        let (mut new, mut old) = (Load::new(now), Load::new(now));
        answered(&mut old, &mut now, 100 * MS);
        assert!(new.weight(now, 0) < old.weight(now, 0));
        new.first_begins(now);
        assert!(new.weight(now, 1) > old.weight(now, 0));
        new.answered(now + MS, MS);
        assert!(new.weight(now + MS, 0) < old.weight(now + MS, 0));
    }

    #[test]
    fn an_endpoint_that_stopped_weighs_more_by_the_time_that_its_calls_hang() {
        let mut now = Instant::now();
        let (mut stopped, mut slow) = (Load::new(now), Load::new(now));
        answered(&mut stopped, &mut now, MS);
        answered(&mut slow, &mut now, 100 * MS);
        stopped.first_begins(now);
        slow.first_begins(now);
        assert!(stopped.weight(now, 1) < slow.weight(now, 1));
        now += 300 * MS;
        slow.answered(now, 100 * MS);
        slow.first_begins(now);
        assert!(stopped.weight(now, 1) > slow.weight(now, 1));
        assert!(stopped.is_stalled(now, 1) && !slow.is_stalled(now + 300 * MS, 1));
    }
}
