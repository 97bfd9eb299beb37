//! A hasher for ids, for maps that are used on every frame.

use std::hash::Hasher;

/// This side counts the ids, so a peer cannot choose ids that collide.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((self.0 << 8) | u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // Fibonacci hashing (Knuth): neighbours are spread over all bits.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
