//! What one plugin may take.

use std::time::Duration;

/// The bounds of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory and tables that one instance may hold, all its memories together.
    pub memory: usize,
    /// The longest that a call may take, whatever its caller allows.
    pub call_timeout: Duration,
    /// The longest that an instance may take to start.
    pub start_timeout: Duration,
    /// Instances that may exist at once.
    pub instances: usize,
    /// Calls that may wait for an instance.
    pub queue: usize,
    /// Bytes that an encoded result may take.
    pub result_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 256 * 1024 * 1024,
            call_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(10),
            instances: 16,
            queue: 1024,
            result_size: 16 * 1024 * 1024,
        }
    }
}
