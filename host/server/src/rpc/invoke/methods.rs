//! The methods that a connection has resolved. Its calls refer to them by index.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use wharf_runtime::{BoundMethod, MethodIndex};
use wharf_schema::{
    Fingerprint, Method, MethodPath, Service, ServiceName, Signature, did_you_mean,
};
use wharf_wire::{DetailKind, Status};

use super::{CallFailure, Missing};
use crate::doors::Door;
use crate::metrics::MethodMetrics;
use crate::plugins::Found;
use crate::plugins::slot::{Served, Slot};
use crate::plugins::table::Table;
use crate::rpc::Shared;
use crate::rpc::caller::Caller;
use crate::rpc::sight::Sight;

/// When to come back to a host that is still loading its plugins, in milliseconds.
const LOADING_MS: u32 = 100;

/// The most methods that one connection may have resolved.
const MAX_METHODS: usize = 10_000;

/// Resolved methods. Entries are never removed, so an index stays valid.
pub(super) struct Methods {
    /// Calls are counted by the door that they come through.
    door: Door,
    /// Who resolves them. Whatever it may not call does not exist for it.
    caller: Caller,
    sight: Sight,
    entries: Vec<Entry>,
    /// The places of entries, by what tells them apart: the slot, the fingerprint and the method.
    places: HashMap<(usize, Fingerprint, String), usize>,
    /// Methods by the names that the peer gives them, for protocols that send a name with each call.
    named: HashMap<String, Named>,
    /// The loads of plugins that `named` reflects. After another load, names may mean other methods.
    named_at: u64,
}

/// A method that was found by its name, with the description that its values are translated by.
#[derive(Clone)]
pub(crate) struct Named {
    /// Its index for calls.
    pub(crate) index: u32,
    pub(crate) service: Arc<Service>,
    /// Its position in the service.
    method: usize,
    slot: Arc<Slot>,
    /// The generation of the plugin that was found.
    generation: u64,
}

impl Named {
    pub(crate) fn method(&self) -> &Method {
        &self.service.methods()[self.method]
    }

    /// Whether the plugin that serves it now offers it to models.
    pub(crate) fn is_tool(&self) -> bool {
        let served = self.slot.served();
        served.as_ref().is_some_and(|served| served.tools.contains(&self.method))
    }

    /// Its parameters and its result.
    ///
    /// # Errors
    /// Never for a method that was found, because only callable ones are.
    pub(crate) fn signature(&self) -> Result<&Signature, CallFailure> {
        self.method().signature.as_ref().map_err(|reason| not_callable(&self.method().name, reason))
    }
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
    pub(super) fn new(caller: &Caller) -> Self {
        Methods {
            door: caller.door,
            sight: Sight::new(caller.who.clone()),
            caller: caller.clone(),
            entries: Vec::new(),
            places: HashMap::new(),
            named: HashMap::new(),
            named_at: 0,
        }
    }

    /// Finds a method by its name. Returns its index and its fingerprint.
    pub(super) fn resolve(
        &mut self,
        Shared { table, metrics, denials, .. }: &Shared,
        name: &str,
        wanted: Option<[u8; 16]>,
        may_hint: impl FnOnce() -> bool,
    ) -> Result<(u32, [u8; 16]), CallFailure> {
        let path = MethodPath::parse(name)
            .map_err(|error| CallFailure::refused(Status::InvalidArgument, error.to_string()))?;
        let mut may_hint = Some(may_hint);
        let mut may_hint = || may_hint.take().is_some_and(|may_hint| may_hint());
        let (slot, served) = find(table, &self.sight, &path.service, &mut may_hint)
            .inspect_err(|_| denials.note_service(table, &self.caller, &path.service))?;
        let seen = Some(&self.sight);
        let (index, method) = find_method(&served.service, seen, &path.method, &mut may_hint)
            .inspect_err(|_| denials.note_method(&served.service, &self.caller, &path.method))?;
        let name = format!("{}.{}", served.service.name().interface, method.name);
        let signature = method.signature.as_ref().map_err(|reason| not_callable(&name, reason))?;
        let fingerprint = signature.fingerprint;
        if wanted.is_some_and(|wanted| wanted != fingerprint.0) {
            return Err(mismatch(&name, &self.sight, &served, method));
        }
        let index = MethodIndex { service: served.service_index, method: index };
        // A slot lives as long as the entry that has it, so its address stays its own.
        let key = (Arc::as_ptr(&slot).addr(), fingerprint, method.name.clone());
        let place = match self.places.get(&key) {
            Some(place) => {
                // The plugin may have been replaced since by one with the same signature.
                if let Some(entry) = self.entries.get_mut(*place) {
                    (entry.generation, entry.index) = (served.generation, index);
                }
                *place
            }
            None if self.entries.len() >= MAX_METHODS => {
                let message =
                    format!("this connection has resolved {MAX_METHODS} methods, its limit");
                return Err(CallFailure::refused(Status::ResourceExhausted, message));
            }
            None => {
                let metrics = metrics.method(self.door, &slot.name.to_string(), &method.name);
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

    /// Finds a method by its name, for protocols that send a name with each call. A name that was
    /// found once costs one lookup, as long as no plugin is loaded.
    pub(super) fn named(
        &mut self,
        shared: &Shared,
        name: &str,
        may_hint: impl FnOnce() -> bool,
    ) -> Result<Named, CallFailure> {
        let loads = shared.table.loads();
        if self.named_at != loads || self.named.len() >= MAX_METHODS {
            self.named.clear();
            self.named_at = loads;
        }
        if let Some(known) = self.named.get(name)
            && known.slot.served().as_ref().is_some_and(|now| now.generation == known.generation)
        {
            return Ok(known.clone());
        }
        let (index, _) = self.resolve(shared, name, None, may_hint)?;
        let entry = self.entries.get(index as usize).ok_or_else(|| not_resolved(index))?;
        let served = entry.slot.served();
        let served = served.as_ref().filter(|served| served.generation == entry.generation);
        let Some(served) = served else {
            let message = format!("{}: the plugin is being replaced: retry", entry.resolved.name);
            return Err(CallFailure::refused(Status::Unavailable, message).retry_after(10));
        };
        let named = Named {
            index,
            service: served.service.clone(),
            method: entry.index.method,
            slot: entry.slot.clone(),
            generation: entry.generation,
        };
        self.named.insert(name.to_owned(), named.clone());
        Ok(named)
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
        let entry = self.entries.get_mut(method as usize).ok_or_else(|| not_resolved(method))?;
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
            let (index, method) = find_method(&served.service, None, &entry.method, || false)?;
            let same = method.signature.as_ref().is_ok_and(|s| s.fingerprint == entry.fingerprint);
            if !same {
                return Err(mismatch(&entry.resolved.name, &self.sight, served, method));
            }
            entry.generation = served.generation;
            entry.index = MethodIndex { service: served.service_index, method: index };
        }
        let method = served.plugin.clone().bind(entry.index);
        let method = method.map_err(|error| CallFailure::of_call(&entry.resolved.name, &error))?;
        Ok(ServedMethod { method, resolved: entry.resolved.clone() })
    }

    /// The description of a service.
    pub(super) fn describe(
        &self,
        Shared { table, denials, .. }: &Shared,
        name: &str,
        may_hint: impl FnOnce() -> bool,
    ) -> Result<Bytes, CallFailure> {
        let name = ServiceName::parse(name)
            .map_err(|error| CallFailure::refused(Status::InvalidArgument, error.to_string()))?;
        find(table, &self.sight, &name, may_hint)
            .inspect_err(|_| denials.note_service(table, &self.caller, &name))
            .map(|(_, served)| self.sight.document(&served))
    }
}

fn find(
    table: &Table,
    sight: &Sight,
    name: &ServiceName,
    may_hint: impl FnOnce() -> bool,
) -> Result<(Arc<Slot>, Arc<Served>), CallFailure> {
    let missing = |may_hint: bool| {
        let hint = match may_hint {
            true => table.similar(&name.interface, |service| sight.has(service)),
            false => String::new(),
        };
        let message = format!("this host has no service '{name}'{hint}");
        Err(CallFailure::missing(Missing::Service, message))
    };
    match table.find(name, |service| sight.has(service)) {
        Found::One(slot) => match slot.served().clone() {
            Some(served) if sight.has_any(&served.service) => Ok((slot, served)),
            // Of the methods that may be called, it has none.
            Some(_) => missing(false),
            None => Err(CallFailure::missing(
                Missing::Service,
                format!("the service '{name}' was just removed from this host"),
            )),
        },
        Found::Ambiguous(names) => {
            let message =
                format!("'{name}' is ambiguous on this host: use one of {}", names.join(", "));
            Err(CallFailure::refused(Status::InvalidArgument, message))
        }
        // After a start it may be there in a moment.
        Found::None if !table.is_complete() => {
            let message =
                format!("this host has no service '{name}' yet: it is still loading its plugins");
            Err(CallFailure::refused(Status::Unavailable, message).retry_after(LOADING_MS))
        }
        Found::None => missing(may_hint()),
    }
}

/// `None` sees all methods.
fn find_method<'s>(
    service: &'s Service,
    sight: Option<&Sight>,
    name: &str,
    may_hint: impl FnOnce() -> bool,
) -> Result<(usize, &'s Method), CallFailure> {
    let is_seen =
        |method: &&Method| sight.is_none_or(|sight| sight.has_method(service.name(), &method.name));
    let index = service.method_index(name);
    let found = index.and_then(|index| Some((index, service.methods().get(index)?)));
    found.filter(|(_, method)| is_seen(method)).ok_or_else(|| {
        let known = service.methods().iter().filter(is_seen).map(|method| &method.name[..]);
        let hint = if may_hint() { did_you_mean(name, known) } else { String::new() };
        let message = format!("the service '{}' has no method '{name}'{hint}", service.name());
        CallFailure::missing(Missing::Method, message)
    })
}

fn not_resolved(method: u32) -> CallFailure {
    let message = format!("this connection has resolved no method {method}: send a Resolve first");
    CallFailure::refused(Status::InvalidArgument, message)
}

fn not_callable(name: &str, reason: &str) -> CallFailure {
    let message = format!("{name} cannot be called from outside: {reason}");
    CallFailure::refused(Status::Unimplemented, message)
}

fn mismatch(name: &str, sight: &Sight, served: &Served, method: &Method) -> CallFailure {
    let notation = served.service.notation(method);
    let shown = sight.of(served);
    let wit = shown.as_ref().map_or("", |shown| shown.service.wit());
    CallFailure {
        detail: (DetailKind::SchemaMismatch, format!("{notation}\n\n{wit}")),
        ..CallFailure::refused(
            Status::FailedPrecondition,
            format!(
                "{name}: the caller was built against another signature; the host serves {notation}"
            ),
        )
    }
}
