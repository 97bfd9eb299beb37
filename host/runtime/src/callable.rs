//! A method that can be called: where it is in its component, and what goes in and out.

use std::sync::Arc;

use wasmtime::component::ComponentExportIndex;
use wharf_schema::{Service, Signature, Types, ValueError};

use crate::pace::Pace;

/// A method of a plugin, found once when the plugin is loaded.
pub(crate) struct Callable {
    pub(crate) export: ComponentExportIndex,
    /// By which number the codec calls it, if it does.
    pub(crate) codec: Option<u32>,
    pub(crate) service: Arc<Service>,
    pub(crate) signature: Signature,
    pub(crate) pace: Pace,
}

impl Callable {
    /// The types that its signature refers to.
    pub(crate) fn types(&self) -> &Types {
        self.service.types()
    }
}

/// Why a data path has no result.
pub(crate) enum PathError {
    /// The arguments do not fit; the guest was not entered.
    Arguments(ValueError),
    /// Arguments or result are too large for the host.
    TooLarge(String),
    /// The guest failed.
    Guest(wasmtime::Error),
}
