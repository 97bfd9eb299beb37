//! Room for the replies of one connection: those that wait to be sent, and those that running calls are
//! expected to give. Calls for whose reply there is no room wait here, and hold up no other.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::rpc::invoke::Held;

/// The most bytes of replies that one connection holds, as far as their sizes were expected.
const REPLIES_MAX: usize = 64 * 1024 * 1024;

/// The calls of a connection whose replies are expected to be large.
#[derive(Default)]
pub(super) struct Replies {
    /// Those that wait, in their order.
    waiting: VecDeque<(u64, Held)>,
    /// What those that run are expected to give.
    expected: HashMap<u64, usize>,
    all_expected: usize,
    /// What the waiting calls hold of the connection's room for arguments.
    held: u64,
}

impl Replies {
    /// The room for one more reply, when `queued` bytes wait to be sent. If nothing does, a reply of any
    /// size has room.
    pub(super) fn room(&self, queued: usize) -> usize {
        if !self.waiting.is_empty() { 0 } else { self.left(queued) }
    }

    fn left(&self, queued: usize) -> usize {
        match queued.saturating_add(self.all_expected) {
            0 => usize::MAX,
            taken => REPLIES_MAX.saturating_sub(taken),
        }
    }

    pub(super) fn wait(&mut self, id: u64, held: Held) {
        self.held += held.held();
        self.waiting.push_back((id, held));
    }

    /// The number of calls that wait, and what they hold of the room for arguments.
    pub(super) fn waiting(&self) -> (usize, u64) {
        (self.waiting.len(), self.held)
    }

    /// The next call that has room now.
    pub(super) fn next(&mut self, queued: usize) -> Option<(u64, Held)> {
        let (_, next) = self.waiting.front()?;
        if next.expected > self.left(queued) {
            return None;
        }
        self.remove_waiting(0)
    }

    /// Takes a call that waits out of the row.
    pub(super) fn give_up(&mut self, id: u64) -> Option<Held> {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == id)?;
        self.remove_waiting(at).map(|(_, held)| held)
    }

    /// Takes a call whose deadline has passed out of the row.
    pub(super) fn late(&mut self, now: Instant) -> Option<u64> {
        let at = self.waiting.iter().position(|(_, held)| held.call.deadline <= now)?;
        self.remove_waiting(at).map(|(id, _)| id)
    }

    fn remove_waiting(&mut self, at: usize) -> Option<(u64, Held)> {
        let (id, held) = self.waiting.remove(at)?;
        self.held -= held.held();
        Some((id, held))
    }

    /// A call runs, and is expected to give so many bytes.
    pub(super) fn runs(&mut self, id: u64, expected: usize) {
        if expected > 0 {
            self.expected.insert(id, expected);
            self.all_expected += expected;
        }
    }

    /// A call that ran has ended.
    pub(super) fn ended(&mut self, id: u64) {
        if !self.expected.is_empty()
            && let Some(expected) = self.expected.remove(&id)
        {
            self.all_expected -= expected;
        }
    }
}
