//! Decides when a file in the plugins folder is complete. Pure bookkeeping: callers pass in the
//! time.
//!
//! A file counts as complete once its writer has closed it (if the system reports that) or has
//! renamed it into place, and nothing has happened to it for a moment. If a copy pauses for less
//! than a minute, the file does not count as complete.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a file must be left alone. Short enough for "within a second" under load.
pub(crate) const QUIET: Duration = Duration::from_millis(100);

/// How long a new file must keep its size, if it was neither written to nor closed. If a file is
/// written in a single long operation, the system reports the writing only at its end.
pub(crate) const QUIET_AFTER_CREATION: Duration = Duration::from_millis(700);

/// A file that was written to counts as closed when it has kept its size for twice this long. Some
/// changes (a truncation by name, another time stamp) look like writing, but no closing follows.
pub(crate) const DOUBT: Duration = Duration::from_secs(60);

/// If the system does not report closing, a pause of this length counts as closing.
pub(crate) const QUIET_WITHOUT_CLOSE: Duration = Duration::from_millis(600);

/// A complete file that is replaced again and again is taken after this time, although something still
/// happens to it.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

/// Something that happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// It was created. Most likely somebody has it open and will write to it.
    Created,
    /// It is there, or had its metadata changed.
    Placed,
    /// It was renamed or removed. A process that still writes to it no longer writes to this name.
    Moved,
    /// Bytes were written to it.
    Written,
    /// A process that had it open for writing closed it.
    Closed,
}

/// Files to which something happened and that are not settled yet.
#[derive(Debug)]
pub(crate) struct Settling {
    files: HashMap<String, Pending>,
    /// Whether the system reports when a writer closes a file.
    closing_is_told: bool,
}

#[derive(Debug)]
struct Pending {
    /// Since when nobody writes to it, as far as is known. It may have been replaced since.
    whole_since: Option<Instant>,
    last: Instant,
    open: Open,
    /// Its size when it last seemed complete without having been closed.
    size: Option<u64>,
}

/// Whether somebody may be writing to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    No,
    /// It was created, and not closed.
    Perhaps,
    /// It was written to, and not closed.
    Yes,
}

impl Settling {
    pub(crate) fn new(closing_is_told: bool) -> Self {
        Settling { files: HashMap::new(), closing_is_told }
    }

    /// Something happened to `file` at `now`.
    pub(crate) fn happened(&mut self, file: &str, what: Happened, now: Instant) {
        let new = Pending { whole_since: None, last: now, open: Open::No, size: None };
        let pending = self.files.entry(file.to_owned()).or_insert(new);
        pending.last = now;
        match what {
            Happened::Created | Happened::Written => pending.whole_since = None,
            Happened::Closed | Happened::Moved | Happened::Placed => {
                pending.whole_since.get_or_insert(now);
            }
        }
        match what {
            Happened::Created => pending.open = Open::Perhaps,
            Happened::Written => pending.open = Open::Yes,
            Happened::Closed | Happened::Moved => pending.open = Open::No,
            Happened::Placed => {}
        }
    }

    /// Events were lost, so any open file may have been closed without an event.
    pub(crate) fn events_were_lost(&mut self) {
        self.files.values_mut().for_each(|pending| pending.open = Open::No);
    }

    /// From now on, the system does not report when a writer closes a file.
    pub(crate) fn closing_is_not_told(&mut self) {
        self.closing_is_told = false;
        self.events_were_lost();
    }

    /// Takes the files that are settled at `now`. `size` returns how large a file is at the moment.
    pub(crate) fn settled(&mut self, now: Instant, size: impl Fn(&str) -> u64) -> Vec<String> {
        let told = self.closing_is_told;
        let is_settled = |file: &String, pending: &mut Pending| {
            if pending.due(told) > now {
                return false;
            }
            if pending.open == Open::Perhaps || (pending.open == Open::Yes && told) {
                let size = Some(size(file));
                let grows = std::mem::replace(&mut pending.size, size) != size;
                if grows {
                    pending.last = now;
                    return false;
                }
            }
            true
        };
        self.files.extract_if(is_settled).map(|(file, _)| file).collect()
    }

    /// Whether something happened to a file that is not settled yet.
    pub(crate) fn is_pending(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// When to ask again, if nothing happens before.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.files.values().map(|pending| pending.due(self.closing_is_told)).min()
    }
}

impl Pending {
    fn due(&self, closing_is_told: bool) -> Instant {
        match (self.open, closing_is_told) {
            (Open::No, _) => {
                let quiet = self.last + QUIET;
                self.whole_since.map_or(quiet, |since| quiet.min(since + PATIENCE))
            }
            (Open::Perhaps, _) => self.last + QUIET_AFTER_CREATION,
            (Open::Yes, false) => self.last + QUIET_WITHOUT_CLOSE,
            (Open::Yes, true) => self.last + DOUBT,
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
        settling.happened("a", Happened::Created, start);
        settling.happened("a", Happened::Written, start);
        let mut now = start;
        for size in 0..100 {
            now += DOUBT;
            assert!(settling.settled(now, |_| size).is_empty(), "it still grows now and then");
        }
        settling.happened("a", Happened::Written, now);
        settling.happened("a", Happened::Closed, now);
        assert!(settling.settled(now, |_| 0).is_empty());
        assert_eq!(settling.next(), Some(now + QUIET));
        assert_eq!(settling.settled(now + QUIET, |_| 0), ["a"]);
        assert_eq!(settling.next(), None);
    }

    #[test]
    fn a_file_that_seemed_to_be_written_and_that_nobody_closes_is_not_waited_for_for_ever() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Written, start);
        assert!(settling.settled(start + DOUBT, |_| 7).is_empty());
        assert_eq!(settling.settled(start + 2 * DOUBT, |_| 7), ["a"]);
    }

    #[test]
    fn a_file_renamed_into_place_settles_after_a_moment() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Placed, start);
        assert_eq!(settling.settled(start + QUIET, |_| 0), ["a"]);
    }

    #[test]
    fn a_file_that_is_replaced_without_end_is_taken_all_the_same() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        let mut taken = Vec::new();
        for step in 0..400 {
            let now = start + Duration::from_millis(10 * step);
            settling.happened("a", Happened::Moved, now);
            taken.extend(settling.settled(now, |_| 0).into_iter().map(|_| now - start));
        }
        assert_eq!(taken.len(), 2, "{taken:?}");
        assert_eq!(taken[0], PATIENCE);
    }

    #[test]
    fn a_file_that_is_moved_away_while_it_is_written_is_not_waited_for() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Written, start);
        settling.happened("a", Happened::Moved, start);
        assert_eq!(settling.settled(start + QUIET, |_| 0), ["a"]);
    }

    #[test]
    fn without_word_of_closing_a_pause_stands_for_it() {
        let start = Instant::now();
        let mut settling = Settling::new(false);
        settling.happened("a", Happened::Written, start);
        assert!(settling.settled(start + QUIET, |_| 0).is_empty());
        assert_eq!(settling.settled(start + QUIET_WITHOUT_CLOSE, |_| 0), ["a"]);
    }

    #[test]
    fn after_lost_events_nothing_waits_for_ever() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Written, start);
        settling.events_were_lost();
        assert_eq!(settling.settled(start + QUIET, |_| 0), ["a"]);
    }

    #[test]
    fn a_file_that_is_made_and_written_in_one_long_stride_is_not_taken_before_its_end() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Created, start);
        let mut now = start;
        for size in 0..5 {
            now += QUIET_AFTER_CREATION;
            assert!(settling.settled(now, |_| size).is_empty(), "it grows");
        }
        settling.happened("a", Happened::Written, now);
        settling.happened("a", Happened::Closed, now);
        assert_eq!(settling.settled(now + QUIET, |_| 5), ["a"]);
    }

    #[test]
    fn a_hard_link_settles_although_nobody_closes_it() {
        let start = Instant::now();
        let mut settling = Settling::new(true);
        settling.happened("a", Happened::Created, start);
        assert!(settling.settled(start + QUIET_AFTER_CREATION, |_| 7).is_empty());
        assert_eq!(settling.settled(start + 2 * QUIET_AFTER_CREATION, |_| 7), ["a"]);
    }
}
