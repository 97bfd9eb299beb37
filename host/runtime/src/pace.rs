//! Whether a method's calls tend to end at once, learned from those that ran.

use std::sync::atomic::{AtomicU8, Ordering};

/// Calls in a row that must end within a tick before a slow method counts as quick again.
const PROBATION: u8 = 32;

/// How one method has done lately. Quick methods only ever read it.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU8);

impl Pace {
    pub(crate) fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// A call of the method ended, or was interrupted for the first time.
    pub(crate) fn note(&self, was_interrupted: bool) {
        let now = self.0.load(Ordering::Relaxed);
        let next = if was_interrupted { PROBATION } else { now.saturating_sub(1) };
        // Counts that cross each other only shift a little when it is quick again.
        if next != now {
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_method_has_to_prove_itself() {
        let pace = Pace::default();
        assert!(pace.is_quick());
        pace.note(true);
        for _ in 0..PROBATION {
            assert!(!pace.is_quick());
            pace.note(false);
        }
        assert!(pace.is_quick());
    }
}
