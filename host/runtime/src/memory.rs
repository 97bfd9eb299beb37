//! Limits the memory of one instance.

use wasmtime::ResourceLimiter;

use crate::capacity::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLES};
use crate::splice::MAX_BYTES;

/// Counts all memories and tables of one instance together against one limit. The codec's memory
/// belongs to the host, so it has a separate limit.
pub(crate) struct MemoryBudget {
    /// Bytes that the guest has.
    pub(crate) used: usize,
    /// Bytes that it may have.
    pub(crate) limit: usize,
    /// Whether a request for more was refused since this was last cleared.
    pub(crate) refused: bool,
    /// Bytes of the codec's memory.
    pub(crate) codec: usize,
    codec_limit: usize,
}

impl MemoryBudget {
    pub(crate) fn new(limit: usize, codec_limit: usize) -> Self {
        MemoryBudget { used: 0, limit, refused: false, codec: 0, codec_limit }
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let wanted = self.used.saturating_add(desired.saturating_sub(current));
        if wanted > self.limit {
            self.refused = true;
            return false;
        }
        self.used = wanted;
        true
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
            let allowed = desired <= self.codec_limit.min(MAX_BYTES);
            self.codec = if allowed { desired } else { self.codec };
            return Ok(allowed);
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
