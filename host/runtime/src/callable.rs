//! A callable method: where it is in its component, and its signature.

use std::sync::Arc;

use wasmtime::component::ComponentExportIndex;
use wharf_schema::{Service, Signature, Types, ValueError};

use crate::pace::Pace;
use crate::result_size::ResultSize;

/// A method of a plugin. It is looked up once, when the plugin is loaded.
pub(crate) struct Callable {
    /// Its place among the plugin's callable methods.
    pub(crate) place: usize,
    pub(crate) export: ComponentExportIndex,
    /// Its number in the codec. `None`: the codec does not call it.
    pub(crate) codec: Option<u32>,
    pub(crate) service: Arc<Service>,
    pub(crate) signature: Signature,
    pub(crate) pace: Pace,
    pub(crate) results: ResultSize,
}

impl Callable {
    /// The types that its signature refers to.
    pub(crate) fn types(&self) -> &Types {
        self.service.types()
    }
}

/// Why a data path returned no result.
pub(crate) enum PathError {
    /// The arguments do not fit the method's types. The guest was not entered.
    Arguments(ValueError),
    /// Arguments or result are too large for the host.
    TooLarge(String),
    /// The guest failed.
    Guest(wasmtime::Error),
}
