//! The latest events, for all watchers.
//!
//! There is one journal instead of a queue per watcher. Each watcher has a [`Cursor`] into it, so
//! ten thousand watchers cost no more memory than one. A watcher that falls behind the oldest event
//! of the journal has to start over from a snapshot. Events are encoded once, when they happen.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

/// The most events that are kept.
const MAX_EVENTS: usize = 32_768;

/// The most bytes of encoded events that are kept.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The latest events in the order in which they happened.
#[derive(Debug)]
pub(crate) struct Journal {
    events: VecDeque<Entry>,
    /// The position of the first event that is kept. Positions count all events that ever happened.
    first: u64,
    bytes: usize,
    /// All events with a number above this are kept.
    since: u64,
    /// Positions of the events of each service.
    services: HashMap<Arc<str>, VecDeque<u64>>,
    max_events: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    service: Arc<str>,
    frame: Bytes,
}

/// How far a watcher has read: the position of the next event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor(u64);

/// A watcher's next events.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next events, possibly none, and whether there are more.
    Events { frames: Vec<Bytes>, more: bool },
    /// Events that the watcher has not read yet are no longer kept.
    Lost,
}

impl Journal {
    /// An empty journal that begins after `number`.
    pub(crate) fn new(number: u64) -> Self {
        Journal::with_room(number, MAX_EVENTS)
    }

    fn with_room(number: u64, max_events: usize) -> Self {
        Journal {
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            since: number,
            services: HashMap::new(),
            max_events,
        }
    }

    /// Adds an event; numbers never go back.
    pub(crate) fn push(&mut self, number: u64, service: &str, frame: Bytes) {
        let service = match self.services.get_key_value(service) {
            Some((known, _)) => known.clone(),
            None => service.into(),
        };
        let position = self.end().0;
        self.services.entry(service.clone()).or_default().push_back(position);
        self.bytes += frame.len();
        self.events.push_back(Entry { number, service, frame });
        while self.events.len() > self.max_events || self.bytes > MAX_BYTES {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(entry) = self.events.pop_front() else { return };
        self.first += 1;
        self.bytes -= entry.frame.len();
        self.since = entry.number;
        if let Some(positions) = self.services.get_mut(&entry.service) {
            positions.pop_front();
            if positions.is_empty() {
                self.services.remove(&entry.service);
            }
        }
    }

    /// The position after the last event.
    pub(crate) fn end(&self) -> Cursor {
        Cursor(self.first + self.events.len() as u64)
    }

    /// The position after the last event of `number`, if all later events are kept.
    pub(crate) fn after(&self, number: u64) -> Option<Cursor> {
        if number < self.since {
            return None;
        }
        let read = self.events.partition_point(|entry| entry.number <= number);
        Some(Cursor(self.first + read as u64))
    }

    /// Reads at most `max` events from a cursor on, of one service or of all. Moves the cursor.
    pub(crate) fn read(&self, cursor: &mut Cursor, service: Option<&str>, max: usize) -> Next {
        if cursor.0 < self.first {
            return Next::Lost;
        }
        let positions = service.map(|service| self.services.get(service));
        let (frames, more): (Vec<Bytes>, bool) = match positions {
            None => {
                let start = usize::try_from(cursor.0 - self.first).unwrap_or(usize::MAX);
                let end = self.events.len().min(start.saturating_add(max));
                let frames = self.events.range(start.min(end)..end).map(|e| e.frame.clone());
                cursor.0 = self.first + end as u64;
                (frames.collect(), end < self.events.len())
            }
            Some(None) => (Vec::new(), false),
            Some(Some(positions)) => {
                let start = positions.partition_point(|position| *position < cursor.0);
                let end = positions.len().min(start.saturating_add(max));
                let at = |position: &u64| {
                    let index = usize::try_from(position - self.first).ok()?;
                    self.events.get(index).map(|entry| entry.frame.clone())
                };
                let frames = positions.range(start..end).filter_map(at).collect();
                let more = end < positions.len();
                if more {
                    cursor.0 = positions[end];
                }
                (frames, more)
            }
        };
        if !more {
            *cursor = self.end();
        }
        Next::Events { frames, more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(max: usize, events: &[(u64, &str)]) -> Journal {
        let mut journal = Journal::with_room(1, max);
        for (number, service) in events {
            journal.push(*number, service, Bytes::from(format!("{service}{number}")));
        }
        journal
    }

    fn read(journal: &Journal, cursor: &mut Cursor, service: Option<&str>) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            match journal.read(cursor, service, 2) {
                Next::Events { frames, more } => {
                    texts.extend(frames.iter().map(|f| String::from_utf8_lossy(f).into_owned()));
                    if !more {
                        return texts;
                    }
                }
                Next::Lost => panic!("lost"),
            }
        }
    }

    #[test]
    fn a_watcher_reads_each_event_once_of_all_services_or_of_its_own() {
        let mut journal = journal(100, &[(2, "a"), (3, "b"), (3, "a"), (4, "a"), (5, "b")]);
        let mut all = journal.after(1).unwrap();
        assert_eq!(read(&journal, &mut all, None), ["a2", "b3", "a3", "a4", "b5"]);
        let mut own = journal.after(2).unwrap();
        assert_eq!(read(&journal, &mut own, Some("a")), ["a3", "a4"]);
        assert!(read(&journal, &mut own, Some("a")).is_empty());
        journal.push(6, "a", Bytes::from_static(b"a6"));
        assert_eq!(read(&journal, &mut own, Some("a")), ["a6"]);
        assert_eq!(read(&journal, &mut all, None), ["a6"]);
        let mut absent = journal.after(1).unwrap();
        assert!(read(&journal, &mut absent, Some("c")).is_empty());
    }

    #[test]
    fn whoever_is_slower_than_the_journal_is_long_is_told_so() {
        let journal = journal(3, &[(2, "a"), (3, "b"), (4, "a"), (5, "b"), (6, "b")]);
        assert_eq!(journal.after(2), None);
        assert_eq!(journal.read(&mut Cursor(1), Some("a"), 9), Next::Lost);
        let mut cursor = journal.after(3).unwrap();
        assert_eq!(read(&journal, &mut cursor, None), ["a4", "b5", "b6"]);
        let mut own = journal.after(3).unwrap();
        assert_eq!(read(&journal, &mut own, Some("b")), ["b5", "b6"]);
    }

    #[test]
    fn a_number_of_which_some_events_are_gone_is_gone_whole() {
        let journal = journal(2, &[(2, "a"), (3, "a"), (3, "b"), (3, "c")]);
        assert_eq!(journal.after(2), None);
        assert!(journal.after(3).is_some());
    }

    #[test]
    fn services_without_events_leave_nothing_behind() {
        let mut journal = Journal::with_room(1, 2);
        for number in 2..1_000 {
            journal.push(number, &format!("s{number}"), Bytes::from_static(b"x"));
        }
        assert_eq!((journal.services.len(), journal.events.len(), journal.bytes), (2, 2, 2));
    }
}
