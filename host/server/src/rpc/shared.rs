//! The state that all connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::RpcConfig;
use crate::metrics::Metrics;
use crate::plugins::table::Table;

/// The state that all connections share. A call takes no lock on it.
pub(crate) struct Shared {
    pub(crate) table: Arc<Table>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: RpcConfig,
    /// Bytes of arguments of all calls that did not end where they arrived.
    pub(super) held: Arc<AtomicU64>,
}

impl Shared {
    pub(crate) fn new(table: Arc<Table>, metrics: Arc<Metrics>, config: RpcConfig) -> Arc<Self> {
        Arc::new(Shared { table, metrics, config, held: Arc::default() })
    }

    /// Bytes of arguments of all calls in flight.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}
