//! How connections are made and kept.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::security::Security;

/// How connections are made and kept.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The token for hosts.
    pub(crate) token: Vec<u8>,
    /// The number of connections to each endpoint.
    pub(crate) connections: NonZeroUsize,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) security: Security,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            token: Vec::new(),
            connections: NonZeroUsize::MIN,
            keep_alive: KeepAlive::default(),
            security: Security::default(),
        }
    }
}

/// How the client detects a peer that is stopped, cut off from the network, or whose machine is
/// gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// If the peer is silent for this long while calls are in flight, it is pinged; 1 second by
    /// default. While no call is in flight, it is pinged after ten times as long.
    pub ask_after: Duration,
    /// If nothing arrives for this long after the ping, the connection is given up, with the calls
    /// on it; 3 seconds by default. Both times are checked twice a second.
    pub give_up_after: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        KeepAlive { ask_after: Duration::from_secs(1), give_up_after: Duration::from_secs(3) }
    }
}
