//! When a file in the plugins folder is complete: pure bookkeeping, handed the time.
//!
//! A file counts as complete once its writer has closed it (where the system tells that), or has
//! renamed it into place, and nothing has happened to it for a moment. A copy that pauses for
//! however long is not taken for the whole.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a file must be left alone. Short enough for "within a second" under load.
pub(crate) const QUIET: Duration = Duration::from_millis(100);

/// Where closing is not told, a pause of this length has to stand for it.
pub(crate) const QUIET_WITHOUT_CLOSE: Duration = Duration::from_millis(600);

/// Something that happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// It appeared, or had its metadata changed.
    Placed,
    /// It was renamed or removed: whoever writes to it still, no longer writes to this name.
    Moved,
    /// Bytes were written to it.
    Written,
    /// Whoever had it open for writing closed it.
    Closed,
}

/// Files to which something happened and that are not settled yet.
#[derive(Debug)]
pub(crate) struct Settling {
    files: HashMap<String, Pending>,
    /// Whether the system tells when a writer closes a file.
    closing_is_told: bool,
}

#[derive(Debug)]
struct Pending {
    last: Instant,
    open: bool,
}

impl Settling {
    pub(crate) fn new(closing_is_told: bool) -> Self {
        Settling { files: HashMap::new(), closing_is_told }
    }

    /// Something happened to `file` at `now`.
    pub(crate) fn happened(&mut self, file: &str, what: Happened, now: Instant) {
        let pending =
            self.files.entry(file.to_owned()).or_insert(Pending { last: now, open: false });
        pending.last = now;
        match what {
            Happened::Written => pending.open = true,
            Happened::Closed | Happened::Moved => pending.open = false,
            Happened::Placed => {}
        }
    }

    /// Events were lost: whatever was open may have been closed unheard.
    pub(crate) fn events_were_lost(&mut self) {
        self.files.values_mut().for_each(|pending| pending.open = false);
    }

    /// From now on, nobody tells when a writer closes a file.
    pub(crate) fn closing_is_not_told(&mut self) {
        self.closing_is_told = false;
        self.events_were_lost();
    }

    /// Takes the files that are settled at `now`.
    pub(crate) fn settled(&mut self, now: Instant) -> Vec<String> {
        let told = self.closing_is_told;
        let is_settled = |pending: &Pending| pending.due(told).is_some_and(|due| due <= now);
        self.files.extract_if(|_, pending| is_settled(pending)).map(|(file, _)| file).collect()
    }

    /// Whether something happened to a file that is not settled yet.
    pub(crate) fn is_pending(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// When to ask again, if nothing happens before.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.files.values().filter_map(|pending| pending.due(self.closing_is_told)).min()
    }
}

impl Pending {
    fn due(&self, closing_is_told: bool) -> Option<Instant> {
        match (self.open, closing_is_told) {
            (false, _) => Some(self.last + QUIET),
            (true, false) => Some(self.last + QUIET_WITHOUT_CLOSE),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_pauses_is_not_taken_for_the_whole() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Placed, start);
        settling.happened("a", Happened::Written, start);
        assert_eq!(settling.next(), None);
        assert!(settling.settled(start + Duration::from_secs(3600)).is_empty());
        let end = start + Duration::from_secs(3600);
        settling.happened("a", Happened::Written, end);
        settling.happened("a", Happened::Closed, end);
        assert!(settling.settled(end).is_empty());
        assert_eq!(settling.next(), Some(end + QUIET));
        assert_eq!(settling.settled(end + QUIET), ["a"]);
        assert_eq!(settling.next(), None);
    }

    #[test]
    fn a_file_renamed_into_place_settles_after_a_moment() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Placed, start);
        assert_eq!(settling.settled(start + QUIET), ["a"]);
    }

    #[test]
    fn a_file_that_is_moved_away_while_it_is_written_is_not_waited_for() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Written, start);
        settling.happened("a", Happened::Moved, start);
        assert_eq!(settling.settled(start + QUIET), ["a"]);
    }

    #[test]
    fn without_word_of_closing_a_pause_stands_for_it() {
        let start = Instant::now();
        let mut settling = Settling::new(false);
        settling.happened("a", Happened::Written, start);
        assert!(settling.settled(start + QUIET).is_empty());
        assert_eq!(settling.settled(start + QUIET_WITHOUT_CLOSE), ["a"]);
    }

    #[test]
    fn after_lost_events_nothing_waits_for_ever() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Written, start);
        settling.events_were_lost();
        assert_eq!(settling.settled(start + QUIET), ["a"]);
    }
}
