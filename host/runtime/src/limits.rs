//! What one plugin may take, and how its calls are kept apart.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::Grants;

/// How one plugin is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What it may take.
    pub limits: Limits,
    /// How its calls are kept apart.
    pub isolation: Isolation,
    /// What it may reach.
    pub grants: Grants,
}

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

/// How far the calls of one plugin are kept apart from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// Calls that an instance serves, one after the other, before another takes its place; 1 gives
    /// each call a fresh one. Without a number, an instance serves as long as it does well.
    pub reuse: Option<NonZeroU32>,
    /// An instance that has grown to hold more bytes of memory than this does not serve again, so
    /// that one large call does not keep its memory for ever. One that starts with more may hold
    /// twice what it started with.
    pub high_water: usize,
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

impl Default for Isolation {
    fn default() -> Self {
        Isolation { reuse: None, high_water: 64 * 1024 * 1024 }
    }
}
