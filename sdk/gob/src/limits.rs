//! The limits of a stream.

/// What a stream may take. Go itself allows 1 GiB a message and a nesting of 10,000.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message.
    pub message: u64,
    /// Types that a stream may define.
    pub types: usize,
    /// Bytes of the definitions of all types of a stream.
    pub definitions: usize,
    /// How deeply values nest.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { message: 64 * 1024 * 1024, types: 1000, definitions: 256 * 1024, depth: 100 }
    }
}
