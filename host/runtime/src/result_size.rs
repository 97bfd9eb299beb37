//! How large the results of a method are. This is learned from earlier calls.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Results up to this many bytes are not worth knowing: there is always room for them.
const SMALL: usize = 64 * 1024;

/// The size of one method's recent results. The calls of methods with small results only read it.
#[derive(Debug, Default)]
pub(crate) struct ResultSize(AtomicUsize);

impl ResultSize {
    /// The size to expect of the next result, in bytes; 0 if it is likely to be small.
    pub(crate) fn expected(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Records a result. A smaller one after a large one may be chance, so it lowers what is expected by
    /// an eighth only.
    pub(crate) fn note(&self, len: usize) {
        let now = self.0.load(Ordering::Relaxed);
        let next = len.max(now - now / 8);
        let next = if next > SMALL { next } else { 0 };
        // If two calls store at once, one update is lost, and the next result corrects it.
        if next != now {
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_results_are_expected_at_once_and_small_ones_only_after_many() {
        let size = ResultSize::default();
        size.note(SMALL);
        assert_eq!(size.expected(), 0);
        size.note(1 << 20);
        assert_eq!(size.expected(), 1 << 20);
        size.note(10);
        assert_eq!(size.expected(), (1 << 20) - (1 << 17));
        size.note(1 << 22);
        assert_eq!(size.expected(), 1 << 22);
        (0..20).for_each(|_| size.note(10));
        assert!(size.expected() > SMALL);
        (0..20).for_each(|_| size.note(10));
        assert_eq!(size.expected(), 0);
    }
}
