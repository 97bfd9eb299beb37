//! Meters: how often a peer may do something in a row, and how soon it may do it again.

/// Counts what one connection may still do. It is refilled at regular times.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    left: u32,
    burst: u32,
    refill: u32,
}

impl Meter {
    /// A full meter: `burst` times in a row, and `refill` more at each [`Meter::refill`].
    #[must_use]
    pub fn new(burst: u32, refill: u32) -> Self {
        Meter { left: burst, burst, refill }
    }

    /// Counts one. Returns whether it was allowed.
    #[must_use]
    pub fn count(&mut self) -> bool {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether nothing more is allowed until it is refilled.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// Allows one more.
    pub fn allow_one(&mut self) {
        self.add(1);
    }

    /// Allows as many more as the meter is refilled with.
    pub fn refill(&mut self) {
        self.add(self.refill);
    }

    fn add(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_comes_back_with_time_and_never_beyond_the_burst() {
        let mut meter = Meter::new(2, 1);
        assert!(meter.count() && !meter.is_used_up() && meter.count());
        assert!(meter.is_used_up() && !meter.count() && !meter.count());
        meter.refill();
        assert!(meter.count() && !meter.count());
        (0..10).for_each(|_| meter.refill());
        meter.allow_one();
        assert!(meter.count() && meter.count() && !meter.count());
    }
}
