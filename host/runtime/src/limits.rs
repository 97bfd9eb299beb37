//! The limits of one plugin, and how its calls are isolated from each other.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::Grants;

/// How one plugin is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Its limits.
    pub limits: Limits,
    /// How its calls are isolated from each other.
    pub isolation: Isolation,
    /// What it may access.
    pub grants: Grants,
}

/// The limits of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory and tables that one instance may hold, all its memories together.
    pub memory: usize,
    /// The longest time that a call may take, even if its caller allows more.
    pub call_timeout: Duration,
    /// The longest time that an instance may take to start.
    pub start_timeout: Duration,
    /// How many instances may exist at once.
    pub instances: usize,
    /// How many calls may wait for an instance.
    pub queue: usize,
    /// The largest encoded result, in bytes.
    pub result_size: usize,
}

/// How far the calls of one plugin are isolated from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// How many calls an instance serves, one after the other, before a new one replaces it. With
    /// 1, each call gets a fresh instance. With `None`, an instance serves until a call fails in it
    /// or it grows too large.
    pub reuse: Option<NonZeroU32>,
    /// If an instance has grown to hold more bytes of memory than this, it serves no further call.
    /// Otherwise one large call would keep its memory for ever. An instance may always hold twice
    /// the memory that it started with, as long as half of what is left to its limit stays free.
    /// `None`: a quarter of the limit.
    pub high_water: Option<usize>,
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
