//! Whether the calls of a method are usually quick. This is learned from earlier calls.

use std::sync::atomic::{AtomicU8, Ordering};

/// How much an interrupted call adds to the count. Each call that was not interrupted subtracts
/// one.
const INTERRUPTED: u8 = 16;

/// A method with this count or more is slow. One interruption may be chance, because other threads
/// can delay this one. A second interruption soon after is not chance.
const SLOW: u8 = INTERRUPTED + 1;

/// The largest count. It is small, so that a method that becomes quick is soon treated as quick.
const MOST: u8 = 3 * INTERRUPTED;

/// The recent pace of one method. The calls of quick methods only read it.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU8);

impl Pace {
    pub(crate) fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) < SLOW
    }

    /// A call of the method begins. If it is dropped before it ends, it was not quick.
    pub(crate) fn unfinished(&self) -> Unfinished<'_> {
        Unfinished(Some(self))
    }

    fn note(&self, was_interrupted: bool) {
        let now = self.0.load(Ordering::Relaxed);
        let next = match was_interrupted {
            true => now.saturating_add(INTERRUPTED).min(MOST),
            false => now.saturating_sub(1),
        };
        // If two calls store at once, one update is lost. That only shifts a little when the method
        // counts as quick again.
        if next != now {
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

/// A call that has not ended.
pub(crate) struct Unfinished<'p>(Option<&'p Pace>);

impl Unfinished<'_> {
    pub(crate) fn ends(mut self, was_interrupted: bool) {
        if let Some(pace) = self.0.take() {
            pace.note(was_interrupted);
        }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(pace) = self.0 {
            pace.note(true);
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
        drop((pace.unfinished(), pace.unfinished()));
        assert!(!pace.is_quick(), "calls that were dropped were not quick");
        pace.unfinished().ends(false);
        (0..100).for_each(|_| pace.note(true));
        (0..u8::MAX).for_each(|_| pace.note(false));
        assert!(pace.is_quick());
    }
}
