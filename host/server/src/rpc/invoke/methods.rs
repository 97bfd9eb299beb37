//! The methods that a connection has resolved. Its calls refer to them by index.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use wharf_runtime::{BoundMethod, MethodIndex};
use wharf_schema::{Fingerprint, Method, MethodPath, Service, ServiceName, did_you_mean};
use wharf_wire::{DetailKind, Status};

use super::CallFailure;
use crate::metrics::MethodMetrics;
use crate::plugins::Found;
use crate::plugins::slot::{Served, Slot};
use crate::plugins::table::Table;
use crate::rpc::Shared;

/// The most methods that one connection may have resolved.
const MAX_METHODS: usize = 10_000;

/// Resolved methods. Entries are never removed, so an index stays valid.
#[derive(Default)]
pub(super) struct Methods {
    entries: Vec<Entry>,
    /// The places of entries, by what tells them apart: the slot, the fingerprint and the method.
    places: HashMap<(usize, Fingerprint, String), usize>,
}

struct Entry {
    slot: Arc<Slot>,
    resolved: Arc<ResolvedMethod>,
    method: String,
    fingerprint: Fingerprint,
    /// The generation of the plugin that `index` is valid for.
    generation: u64,
    index: MethodIndex,
}

/// The parts of a resolved method that stay the same for all calls.
pub(super) struct ResolvedMethod {
    /// The name for messages: `arith.multiply`.
    pub(super) name: String,
    pub(super) metrics: Arc<MethodMetrics>,
}

/// A resolved method, as it is served now.
pub(super) struct ServedMethod {
    pub(super) method: BoundMethod,
    pub(super) resolved: Arc<ResolvedMethod>,
}

impl Methods {
    /// Finds a method by its name. Returns its index and its fingerprint.
    pub(super) fn resolve(
        &mut self,
        Shared { table, metrics, .. }: &Shared,
        name: &str,
        wanted: Option<[u8; 16]>,
        may_hint: impl FnOnce() -> bool,
    ) -> Result<(u32, [u8; 16]), CallFailure> {
        let path = MethodPath::parse(name)
            .map_err(|error| CallFailure::refused(Status::InvalidArgument, error.to_string()))?;
        let mut may_hint = Some(may_hint);
        let mut may_hint = || may_hint.take().is_some_and(|may_hint| may_hint());
        let (slot, served) = find(table, &path.service, &mut may_hint)?;
        let (index, method) = find_method(&served.service, &path.method, &mut may_hint)?;
        let name = format!("{}.{}", served.service.name().interface, method.name);
        let signature = method.signature.as_ref().map_err(|reason| {
            let message = format!("{name} cannot be called from outside: {reason}");
            CallFailure::refused(Status::Unimplemented, message)
        })?;
        let fingerprint = signature.fingerprint;
        if wanted.is_some_and(|wanted| wanted != fingerprint.0) {
            return Err(mismatch(&name, &served.service, method));
        }
        let index = MethodIndex { service: served.service_index, method: index };
        // A slot lives as long as the entry that has it, so its address stays its own.
        let key = (Arc::as_ptr(&slot).addr(), fingerprint, method.name.clone());
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None if self.entries.len() >= MAX_METHODS => {
                let message =
                    format!("this connection has resolved {MAX_METHODS} methods, its limit");
                return Err(CallFailure::refused(Status::ResourceExhausted, message));
            }
            None => {
                let metrics = metrics.method(&slot.name.to_string(), &method.name);
                self.entries.push(Entry {
                    slot,
                    resolved: Arc::new(ResolvedMethod { name, metrics }),
                    method: method.name.clone(),
                    fingerprint,
                    generation: served.generation,
                    index,
                });
                let place = self.entries.len() - 1;
                self.places.insert(key, place);
                place
            }
        };
        // Bounded by MAX_METHODS.
        Ok((u32::try_from(place).unwrap_or(u32::MAX), fingerprint.0))
    }

    /// A resolved method, whether or not it is served now.
    pub(super) fn resolved(&self, method: u32) -> Option<&Arc<ResolvedMethod>> {
        self.entries.get(method as usize).map(|entry| &entry.resolved)
    }

    /// Finds the plugin that serves a resolved method now.
    ///
    /// # Errors
    /// When its service is gone, or the method has another signature in the new version.
    pub(super) fn served(&mut self, method: u32) -> Result<ServedMethod, CallFailure> {
        let entry = self.entries.get_mut(method as usize).ok_or_else(|| {
            let message =
                format!("this connection has resolved no method {method}: send a Resolve first");
            CallFailure::refused(Status::InvalidArgument, message)
        })?;
        let served = entry.slot.served();
        let Some(served) = &*served else {
            let message = format!(
                "{}: the plugin was removed from this host: resolve again, or call another host",
                entry.resolved.name
            );
            return Err(CallFailure::refused(Status::Unavailable, message));
        };
        if served.generation != entry.generation {
            // The plugin was replaced. A method with the same signature keeps its index.
            let (index, method) = find_method(&served.service, &entry.method, || true)?;
            let same = method.signature.as_ref().is_ok_and(|s| s.fingerprint == entry.fingerprint);
            if !same {
                return Err(mismatch(&entry.resolved.name, &served.service, method));
            }
            entry.generation = served.generation;
            entry.index = MethodIndex { service: served.service_index, method: index };
        }
        let method = served.plugin.clone().bind(entry.index);
        let method = method.map_err(|error| CallFailure::of_call(&entry.resolved.name, &error))?;
        Ok(ServedMethod { method, resolved: entry.resolved.clone() })
    }
}

/// The description of a service.
pub(super) fn describe(
    table: &Table,
    name: &str,
    may_hint: impl FnOnce() -> bool,
) -> Result<Bytes, CallFailure> {
    let name = ServiceName::parse(name)
        .map_err(|error| CallFailure::refused(Status::InvalidArgument, error.to_string()))?;
    find(table, &name, may_hint).map(|(_, served)| served.document.clone())
}

fn find(
    table: &Table,
    name: &ServiceName,
    may_hint: impl FnOnce() -> bool,
) -> Result<(Arc<Slot>, Arc<Served>), CallFailure> {
    match table.find(name) {
        Found::One(slot) => match slot.served().clone() {
            Some(served) => Ok((slot, served)),
            None => Err(CallFailure::refused(
                Status::NotFound,
                format!("the service '{name}' was just removed from this host"),
            )),
        },
        Found::Ambiguous(names) => {
            let message =
                format!("'{name}' is ambiguous on this host: use one of {}", names.join(", "));
            Err(CallFailure::refused(Status::InvalidArgument, message))
        }
        Found::None => {
            let hint = match may_hint() {
                true => table.similar(&name.interface),
                false => String::new(),
            };
            let message = format!("this host has no service '{name}'{hint}");
            Err(CallFailure::refused(Status::NotFound, message))
        }
    }
}

fn find_method<'s>(
    service: &'s Service,
    name: &str,
    may_hint: impl FnOnce() -> bool,
) -> Result<(usize, &'s Method), CallFailure> {
    let index = service.method_index(name);
    let found = index.and_then(|index| Some((index, service.methods().get(index)?)));
    found.ok_or_else(|| {
        let known = service.methods().iter().map(|method| &method.name[..]);
        let hint = if may_hint() { did_you_mean(name, known) } else { String::new() };
        let message = format!("the service '{}' has no method '{name}'{hint}", service.name());
        CallFailure::refused(Status::Unimplemented, message)
    })
}

fn mismatch(name: &str, service: &Service, method: &Method) -> CallFailure {
    let notation = service.notation(method);
    CallFailure {
        detail: (DetailKind::SchemaMismatch, format!("{notation}\n\n{}", service.wit())),
        ..CallFailure::refused(
            Status::FailedPrecondition,
            format!(
                "{name}: the caller was built against another signature; the host serves {notation}"
            ),
        )
    }
}
