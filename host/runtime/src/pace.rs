//! Whether a method's calls tend to end at once, learned from those that ran.

use std::sync::atomic::{AtomicU8, Ordering};

/// What one call that was interrupted counts for; each that was not takes one off.
const INTERRUPTED: u8 = 16;

/// From here on a method is slow: one interruption may be chance, since a thread can be held up by
/// others, and a second one soon after is none.
const SLOW: u8 = INTERRUPTED + 1;

/// No method counts for more, so that one that has become quick is soon known to be.
const MOST: u8 = 3 * INTERRUPTED;

/// How one method has done lately. Quick methods only ever read it.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU8);

impl Pace {
    pub(crate) fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) < SLOW
    }

    /// A call of the method ended, or was given up.
    pub(crate) fn note(&self, was_interrupted: bool) {
        let now = self.0.load(Ordering::Relaxed);
        let next = match was_interrupted {
            true => now.saturating_add(INTERRUPTED).min(MOST),
            false => now.saturating_sub(1),
        };
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
    fn one_interruption_is_chance_two_are_slow_and_a_slow_method_has_to_prove_itself() {
        let pace = Pace::default();
        pace.note(true);
        assert!(pace.is_quick());
        pace.note(true);
        assert!(!pace.is_quick());
        (0..15).for_each(|_| pace.note(false));
        assert!(!pace.is_quick());
        pace.note(false);
        assert!(pace.is_quick());
        (0..100).for_each(|_| pace.note(true));
        (0..u8::MAX).for_each(|_| pace.note(false));
        assert!(pace.is_quick());
    }
}
