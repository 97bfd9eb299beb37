//! Joining the chunks of large payloads.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::{Bytes, BytesMut};

/// Chunks that do not fit together, or would take too much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssemblyError {
    /// One payload is larger than the announced limit.
    #[error("a payload of {total} bytes, at most {max} are accepted")]
    TooLarge {
        /// The size that its first frame announced.
        total: u64,
        /// The largest size that we accept.
        max: u64,
    },
    /// All unfinished payloads of the connection together are too large.
    #[error("unfinished payloads on this connection would take more than {0} bytes")]
    TooMuch(u64),
    /// More bytes than announced.
    #[error("a payload goes beyond the {0} bytes announced for it")]
    Overrun(u64),
    /// A second payload began under an id whose first payload is unfinished.
    #[error("call {0} began twice")]
    Duplicate(u64),
}

/// The unfinished payloads of one connection, each with the context (`T`) from its first frame.
///
/// Memory grows with the bytes received, never with the size that a header announces.
#[derive(Debug)]
pub struct Assembler<T> {
    partial: HashMap<u64, Partial<T>>,
    reserved: u64,
    max_message: u64,
    max_total: u64,
}

#[derive(Debug)]
struct Partial<T> {
    context: T,
    total: u64,
    bytes: BytesMut,
}

impl<T> Assembler<T> {
    /// Accepts payloads up to `max_message` bytes, and `max_total` bytes for all unfinished
    /// payloads together.
    #[must_use]
    pub fn new(max_message: u64, max_total: u64) -> Self {
        Assembler { partial: HashMap::new(), reserved: 0, max_message, max_total }
    }

    /// Begins a payload of `total` bytes; `first` are its first bytes. Returns the payload if they
    /// are already all of it.
    ///
    /// # Errors
    /// When the payload would exceed a limit, its id is in use, or `first` is longer than `total`.
    /// Nothing of it is kept.
    pub fn begin(
        &mut self,
        id: u64,
        context: T,
        total: u64,
        first: &[u8],
    ) -> Result<Option<(T, Bytes)>, AssemblyError> {
        if total > self.max_message {
            return Err(AssemblyError::TooLarge { total, max: self.max_message });
        }
        if self.reserved.saturating_add(total) > self.max_total {
            return Err(AssemblyError::TooMuch(self.max_total));
        }
        match self.partial.entry(id) {
            Entry::Occupied(_) => return Err(AssemblyError::Duplicate(id)),
            Entry::Vacant(vacant) => {
                vacant.insert(Partial { context, total, bytes: BytesMut::new() });
                self.reserved += total;
            }
        }
        self.push(id, first)
    }

    /// Takes the next bytes of payload `id`. Returns the whole payload once it is complete.
    ///
    /// Chunks of an unknown id are ignored: they were in flight when their call was cancelled.
    ///
    /// # Errors
    /// When there are more bytes than announced; the payload is dropped.
    pub fn push(&mut self, id: u64, chunk: &[u8]) -> Result<Option<(T, Bytes)>, AssemblyError> {
        let Entry::Occupied(mut entry) = self.partial.entry(id) else {
            return Ok(None);
        };
        let partial = entry.get_mut();
        let len = (partial.bytes.len() + chunk.len()) as u64;
        if len < partial.total {
            partial.bytes.extend_from_slice(chunk);
            return Ok(None);
        }
        let mut partial = entry.remove();
        self.reserved -= partial.total;
        if len > partial.total {
            return Err(AssemblyError::Overrun(partial.total));
        }
        partial.bytes.extend_from_slice(chunk);
        Ok(Some((partial.context, partial.bytes.freeze())))
    }

    /// The context of payload `id`, if it is unfinished.
    pub fn context(&mut self, id: u64) -> Option<&mut T> {
        Some(&mut self.partial.get_mut(&id)?.context)
    }

    /// Forgets payload `id`, which nobody waits for any more.
    pub fn discard(&mut self, id: u64) -> Option<T> {
        // Most payloads arrive in one frame, so the map is usually empty. Keep that case cheap.
        if self.partial.is_empty() {
            return None;
        }
        let partial = self.partial.remove(&id)?;
        self.reserved -= partial.total;
        Some(partial.context)
    }

    /// Forgets all payloads for which `expired` is true, and returns their ids.
    pub fn discard_where(&mut self, mut expired: impl FnMut(&T) -> bool) -> Vec<u64> {
        let ids: Vec<u64> =
            self.partial.iter().filter(|(_, p)| expired(&p.context)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.discard(*id);
        }
        ids
    }

    /// The announced sizes of all unfinished payloads together, in bytes.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The number of unfinished payloads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.partial.len()
    }

    /// Whether every payload that began is complete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_payloads_are_joined_apart() {
        let mut assembler = Assembler::new(100, 100);
        assert_eq!(assembler.begin(1, "one", 4, b"ab"), Ok(None));
        assert_eq!(assembler.begin(2, "two", 2, b""), Ok(None));
        assert_eq!(assembler.push(2, b"xy"), Ok(Some(("two", Bytes::from_static(b"xy")))));
        assert_eq!(assembler.push(1, b"cd"), Ok(Some(("one", Bytes::from_static(b"abcd")))));
        assert!(assembler.is_empty());
    }

    #[test]
    fn an_announced_size_takes_no_memory_until_bytes_come() {
        let mut assembler = Assembler::new(1 << 40, 1 << 41);
        assert_eq!(assembler.begin(1, (), 1 << 40, b"x"), Ok(None));
        assert!(assembler.partial[&1].bytes.capacity() < 1024);
    }

    #[test]
    fn bounds_are_checked_before_anything_is_kept() {
        let mut assembler = Assembler::new(10, 15);
        assert_eq!(
            assembler.begin(1, (), 11, b""),
            Err(AssemblyError::TooLarge { total: 11, max: 10 })
        );
        assert_eq!(assembler.begin(1, (), 10, b""), Ok(None));
        assert_eq!(assembler.begin(1, (), 2, b""), Err(AssemblyError::Duplicate(1)));
        assert_eq!(assembler.begin(2, (), 6, b""), Err(AssemblyError::TooMuch(15)));
        assert_eq!(assembler.push(1, &[0; 11]), Err(AssemblyError::Overrun(10)));
        assert_eq!(assembler.begin(2, (), 6, b""), Ok(None), "a dropped payload frees its share");
        assert_eq!(assembler.discard_where(|()| true), [2]);
        assert_eq!(assembler.begin(3, (), 10, b""), Ok(None));
    }

    #[test]
    fn chunks_of_a_forgotten_call_are_ignored() {
        let mut assembler = Assembler::<()>::new(10, 10);
        assert_eq!(assembler.push(7, b"late"), Ok(None));
    }
}
