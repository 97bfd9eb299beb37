//! What the store of an instance holds beside the guest, and what guests can import. Everything
//! that a guest can access is added here, and nowhere else.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup;
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::Grants;
use crate::memory::{HANDLE, MemoryBudget};
use crate::outgoing::{GrantedNames, NameLookup, Outgoing};
use crate::output::Output;

/// Handles (streams, pollables, fields, bodies) that an instance may hold. Each takes memory of the host,
/// so an instance with less memory may hold fewer.
const HANDLES: RangeInclusive<usize> = 64..=1024;

/// The most bytes of the fields of one HTTP message.
const MAX_FIELDS: usize = 16 * 1024;

/// Random bytes that a guest may request at once. The clock cannot interrupt such a request.
const MAX_RANDOM: u64 = 64 * 1024;

/// What a store holds beside the guest.
pub(crate) struct StoreData {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    grants: Arc<Grants>,
    table: ResourceTable,
    /// When the guest must have finished.
    pub(crate) deadline: Instant,
    /// Whether the guest has computed for a whole tick.
    pub(crate) interrupted: bool,
    pub(crate) memory: MemoryBudget,
}

impl StoreData {
    /// # Errors
    /// When a grant cannot be applied: which one, and why.
    pub(crate) fn new(
        grants: &Arc<Grants>,
        (stdout, stderr): (Output, Output),
        memory: MemoryBudget,
        deadline: Instant,
    ) -> Result<Self, String> {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(stdout).stderr(stderr).max_random_size(MAX_RANDOM);
        grants.apply(&mut wasi)?;
        let mut table = ResourceTable::new();
        table.set_max_capacity((memory.limit / HANDLE).clamp(*HANDLES.start(), *HANDLES.end()));
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELDS);
        Ok(StoreData {
            wasi: wasi.build(),
            http,
            outgoing: Outgoing(grants.clone()),
            grants: grants.clone(),
            table,
            deadline,
            interrupted: false,
            memory,
        })
    }
}

impl StoreData {
    /// Counts the handles that the guest holds. It is called between calls.
    pub(crate) fn count_handles(&mut self) {
        // Most guests have none, and counting would take time.
        let handles = if self.table.is_empty() { 0 } else { self.table.iter_mut().count() };
        self.memory.note_handles(handles);
    }
}

/// Everything that guests can import.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<StoreData>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // This replaces wasmtime's own lookup, which allows either all names or none.
    linker.allow_shadowing(true);
    ip_name_lookup::add_to_linker::<StoreData, NameLookup>(&mut linker, |data| {
        let sockets = WasiSocketsCtxView { ctx: data.wasi.sockets(), table: &mut data.table };
        GrantedNames { grants: data.grants.clone(), sockets }
    })?;
    linker.allow_shadowing(false);
    Ok(linker)
}

impl WasiHttpView for StoreData {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

impl WasiView for StoreData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
