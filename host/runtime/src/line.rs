//! The calls that wait for an instance, in a line for each caller. Callers take turns, so one that has
//! many calls in line keeps another waiting for one call at most.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// All lines of one plugin.
pub(crate) struct Lines<T> {
    by_caller: BTreeMap<u64, VecDeque<T>>,
    len: usize,
    /// Whose turn it was last.
    last: u64,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Lines { by_caller: BTreeMap::new(), len: 0, last: 0 }
    }
}

impl<T> Lines<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.by_caller.values().flatten()
    }

    /// Whether a caller may add another call, if `max` may wait in all. The first three quarters of the
    /// places go to whoever comes. Each caller in line has a share of the rest.
    pub(crate) fn has_place(&self, caller: u64, max: usize) -> bool {
        let own = self.by_caller.get(&caller).map_or(0, VecDeque::len);
        let callers = self.by_caller.len() + usize::from(own == 0);
        let share = (max / 4 / callers).max(1);
        self.len < max && (self.len < max - max / 4 || own < share)
    }

    pub(crate) fn push(&mut self, caller: u64, call: T) {
        self.by_caller.entry(caller).or_default().push_back(call);
        self.len += 1;
    }

    /// The first call of the caller whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let next = self.by_caller.range(after).next().or_else(|| self.by_caller.iter().next());
        let caller = *next?.0;
        let line = self.by_caller.get_mut(&caller)?;
        let call = line.pop_front();
        if line.is_empty() {
            self.by_caller.remove(&caller);
        }
        self.last = caller;
        self.len -= usize::from(call.is_some());
        call
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.by_caller.retain(|_, line| {
            line.retain(&keep);
            !line.is_empty()
        });
        self.len = self.by_caller.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_take_turns_whatever_they_have_in_line() {
        let mut lines = Lines::default();
        for call in 0..4 {
            lines.push(7, (7, call));
        }
        lines.push(3, (3, 0));
        lines.push(9, (9, 0));
        let order: Vec<_> = std::iter::from_fn(|| lines.pop()).collect();
        assert_eq!(order, [(3, 0), (7, 0), (9, 0), (7, 1), (7, 2), (7, 3)]);
        assert!(lines.is_empty() && lines.pop().is_none());
    }

    #[test]
    fn one_caller_gets_most_places_and_not_all() {
        let mut lines = Lines::default();
        let mut taken = 0;
        while lines.has_place(1, 100) {
            lines.push(1, ());
            taken += 1;
        }
        assert_eq!(taken, 75);
        for caller in 2..=26 {
            assert!(lines.has_place(caller, 100), "{caller}");
            lines.push(caller, ());
        }
        assert!(!lines.has_place(99, 100), "all are taken");
        lines.retain(|()| false);
        assert_eq!((lines.len(), lines.has_place(1, 100)), (0, true));
        assert!(!lines.has_place(1, 0) && lines.has_place(1, 1));
    }
}
