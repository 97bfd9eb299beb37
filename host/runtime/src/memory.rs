//! Limits the memory of one instance.

use wasmtime::ResourceLimiter;

use crate::capacity::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLES};
use crate::guests::Guests;
use crate::splice::MAX_BYTES;

/// What a handle may make the host hold, in bytes: the fields or the body of an HTTP message.
pub(crate) const HANDLE: usize = 64 * 1024;

/// Counts all memories and tables of one instance together against one limit, and against the budget of
/// all guests. The codec's memory belongs to the host, so it has a separate limit.
pub(crate) struct MemoryBudget {
    /// Bytes that the guest has.
    pub(crate) used: usize,
    /// Bytes that it may have.
    pub(crate) limit: usize,
    /// Whose limit refused a request for more, since this was last cleared.
    pub(crate) refused: Option<RefusedBy>,
    /// Bytes of the codec's memory.
    pub(crate) codec: usize,
    codec_limit: usize,
    /// Bytes that the host holds for the guest's handles.
    held: usize,
    guests: Guests,
}

/// The limit that a guest reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedBy {
    /// Its own.
    Plugin,
    /// That of all guests.
    Guests,
}

impl MemoryBudget {
    pub(crate) fn new(limit: usize, codec_limit: usize, guests: Guests) -> Self {
        MemoryBudget { used: 0, limit, refused: None, codec: 0, codec_limit, held: 0, guests }
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let more = desired.saturating_sub(current);
        let wanted = self.used.saturating_add(more);
        if wanted > self.limit {
            self.refused = Some(RefusedBy::Plugin);
            return false;
        }
        if !self.guests.take(more) {
            self.refused = Some(RefusedBy::Guests);
            return false;
        }
        self.used = wanted;
        true
    }

    fn grow_codec(&mut self, desired: usize) -> bool {
        if desired > self.codec_limit.min(MAX_BYTES) {
            return false;
        }
        if !self.guests.take(desired.saturating_sub(self.codec)) {
            self.refused = Some(RefusedBy::Guests);
            return false;
        }
        self.codec = desired.max(self.codec);
        true
    }

    /// The guest has this many handles now. What the host may hold for them counts.
    pub(crate) fn note_handles(&mut self, handles: usize) {
        let held = handles.saturating_mul(HANDLE);
        if held == self.held {
            // Nearly always. All plugins share the budget's counter.
            return;
        }
        self.guests.take_anyway(held);
        self.guests.give_back(std::mem::replace(&mut self.held, held));
    }

    /// Bytes that the guest has, and that the host holds for it.
    pub(crate) fn all(&self) -> usize {
        self.used.saturating_add(self.held)
    }
}

impl Drop for MemoryBudget {
    fn drop(&mut self) {
        self.guests.give_back(self.all().saturating_add(self.codec));
    }
}

impl ResourceLimiter for MemoryBudget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum == Some(MAX_BYTES) {
            // Only the codec's memory has this maximum: a component with such a memory gets no
            // codec.
            return Ok(self.grow_codec(desired));
        }
        // Growth beyond the memory's own maximum fails anyway, so it is not counted.
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.grow(current, desired))
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(size_of::<usize>());
        let allowed = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(allowed && self.grow(bytes(current), bytes(desired)))
    }
}
