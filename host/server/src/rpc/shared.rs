//! The state that all connections share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use wharf_net::budget::Budget;

use super::denials::Denials;
use super::kept::Kept;
use super::tools::Tools;
use crate::config::RpcConfig;
use crate::metrics::Metrics;
use crate::plugins::table::Table;

/// Bytes that each caller may hold, however many callers there are: arguments or a reply of one frame.
const SMALL: u64 = 128 * 1024;

/// The state that all connections share. A call takes no lock on it.
pub(crate) struct Shared {
    pub(crate) table: Arc<Table>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: RpcConfig,
    /// Bytes of arguments of all calls that did not end where they arrived, counted as they arrive.
    pub(crate) held: Arc<Budget>,
    /// Calls that did not end where they arrived, and run.
    pub(super) running: Arc<AtomicU64>,
    /// Descriptions of what is served, for generators of clients.
    pub(super) documents: Kept<Bytes>,
    /// Tells the log who was denied what.
    pub(super) denials: Denials,
    /// What models may call.
    pub(super) tools: Kept<Arc<Tools>>,
    /// Bytes of replies that wait for callers to read them.
    pub(crate) unread: Arc<Budget>,
}

impl Shared {
    pub(crate) fn new(table: Arc<Table>, metrics: Arc<Metrics>, config: RpcConfig) -> Arc<Self> {
        let held = Budget::new(config.calls.max_held, SMALL);
        let unread = Budget::new(config.max_unread, SMALL);
        let (running, documents, denials, tools) = Default::default();
        Arc::new(Shared {
            table,
            metrics,
            config,
            held,
            unread,
            running,
            documents,
            denials,
            tools,
        })
    }
}
