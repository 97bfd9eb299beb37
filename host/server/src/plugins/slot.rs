//! The place of one service, and the plugin that serves it now.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use wharf_runtime::Plugin;
use wharf_schema::{Service, ServiceName};

/// One version of one service. It outlives the plugins that serve it.
pub(crate) struct Slot {
    pub(crate) name: ServiceName,
    pub(super) served: ArcSwapOption<Served>,
}

/// A plugin that serves a service.
pub(crate) struct Served {
    pub(crate) plugin: Plugin,
    /// Index into the plugin's services.
    pub(crate) service_index: usize,
    pub(crate) service: Arc<Service>,
    /// The encoded description of the service.
    pub(crate) document: Bytes,
    /// The positions of the methods that are tools for models.
    pub(crate) tools: Box<[usize]>,
    /// A different number for every load of every plugin.
    pub(crate) generation: u64,
    pub(crate) file: String,
}

impl Slot {
    pub(super) fn new(name: ServiceName) -> Self {
        Slot { name, served: ArcSwapOption::empty() }
    }

    /// The plugin that serves now. A call keeps it until the call ends.
    pub(crate) fn served(&self) -> arc_swap::Guard<Option<Arc<Served>>> {
        self.served.load()
    }
}
