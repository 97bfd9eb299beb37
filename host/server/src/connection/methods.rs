//! The methods that a connection has resolved, by the index that its calls use.

use std::sync::Arc;

use bytes::Bytes;
use wharf_runtime::{BoundMethod, MethodIndex};
use wharf_schema::{Fingerprint, Method, MethodPath, Service, ServiceName};
use wharf_wire::{DetailKind, Status};

use crate::fail::Failure;
use crate::metrics::{MethodMetrics, Metrics};
use crate::table::{Found, Served, Slot, Table};

/// The most methods that one connection may have resolved.
const MAX_METHODS: usize = 10_000;

/// Names closer to the one asked for than this are suggested.
const SIMILAR: f64 = 0.7;

/// Names longer than this get no suggestion: nobody mistyped them, and comparing takes their length
/// times that of every name there is.
const SUGGESTED_FOR: usize = 64;

/// Resolved methods. Entries are never removed, so an index stays valid.
#[derive(Default)]
pub(super) struct Methods {
    entries: Vec<Entry>,
}

struct Entry {
    slot: Arc<Slot>,
    target: Arc<Target>,
    method: String,
    fingerprint: Fingerprint,
    /// Where the method is in the plugin of this generation.
    generation: u64,
    index: MethodIndex,
}

/// What does not change from call to call.
pub(super) struct Target {
    /// As in a message: `arith.multiply`.
    pub(super) name: String,
    pub(super) metrics: Arc<MethodMetrics>,
}

/// What a call needs.
pub(super) struct Callee {
    pub(super) method: BoundMethod,
    pub(super) target: Arc<Target>,
}

impl Methods {
    /// Finds a method by its name, and gives it an index.
    pub(super) fn resolve(
        &mut self,
        table: &Table,
        metrics: &Metrics,
        name: &str,
        wanted: Option<[u8; 16]>,
    ) -> Result<(u32, [u8; 16]), Failure> {
        let path = MethodPath::parse(name)
            .map_err(|error| Failure::refused(Status::InvalidArgument, error.to_string()))?;
        let (slot, served) = find(table, &path.service)?;
        let (index, method) = find_method(&served.service, &path.method)?;
        let name = format!("{}.{}", served.service.name().interface, method.name);
        let signature = method.signature.as_ref().map_err(|reason| {
            let message = format!("{name} cannot be called from outside: {reason}");
            Failure::refused(Status::Unimplemented, message)
        })?;
        let fingerprint = signature.fingerprint;
        if wanted.is_some_and(|wanted| wanted != fingerprint.0) {
            return Err(mismatch(&name, &served.service, method));
        }
        let index = MethodIndex { service: served.service_index, method: index };
        let known = self.entries.iter().position(|entry| {
            Arc::ptr_eq(&entry.slot, &slot)
                && entry.fingerprint == fingerprint
                && entry.method == method.name
        });
        let place = match known {
            Some(place) => place,
            None if self.entries.len() >= MAX_METHODS => {
                let message = format!("this connection has resolved {MAX_METHODS} methods already");
                return Err(Failure::refused(Status::ResourceExhausted, message));
            }
            None => {
                let metrics = metrics.method(&slot.name.to_string(), &method.name);
                self.entries.push(Entry {
                    slot,
                    target: Arc::new(Target { name, metrics }),
                    method: method.name.clone(),
                    fingerprint,
                    generation: served.generation,
                    index,
                });
                self.entries.len() - 1
            }
        };
        // Bounded by MAX_METHODS.
        Ok((u32::try_from(place).unwrap_or(u32::MAX), fingerprint.0))
    }

    /// A resolved method, whether or not it is served at this moment.
    pub(super) fn target(&self, method: u32) -> Option<&Arc<Target>> {
        self.entries.get(method as usize).map(|entry| &entry.target)
    }

    /// What serves a resolved method at this moment.
    ///
    /// # Errors
    /// When its service is gone, or was replaced by one in which the method is another.
    pub(super) fn callee(&mut self, method: u32) -> Result<Callee, Failure> {
        let entry = self.entries.get_mut(method as usize).ok_or_else(|| {
            let message =
                format!("this connection has resolved no method {method}: send a Resolve first");
            Failure::refused(Status::InvalidArgument, message)
        })?;
        let served = entry.slot.served();
        let Some(served) = &*served else {
            let message = format!(
                "{}: the plugin was removed from this host: resolve again, or call another",
                entry.target.name
            );
            return Err(Failure::refused(Status::Unavailable, message));
        };
        if served.generation != entry.generation {
            // The plugin was replaced. The same signature goes on under the same index.
            let (index, method) = find_method(&served.service, &entry.method)?;
            let same = method.signature.as_ref().is_ok_and(|s| s.fingerprint == entry.fingerprint);
            if !same {
                return Err(mismatch(&entry.target.name, &served.service, method));
            }
            entry.generation = served.generation;
            entry.index = MethodIndex { service: served.service_index, method: index };
        }
        let method = served.plugin.clone().bind(entry.index);
        let method = method.map_err(|error| Failure::of_call(&entry.target.name, &error))?;
        Ok(Callee { method, target: entry.target.clone() })
    }
}

/// The description of a service.
pub(super) fn describe(table: &Table, name: &str) -> Result<Bytes, Failure> {
    let name = ServiceName::parse(name)
        .map_err(|error| Failure::refused(Status::InvalidArgument, error.to_string()))?;
    find(table, &name).map(|(_, served)| served.document.clone())
}

fn find(table: &Table, name: &ServiceName) -> Result<(Arc<Slot>, Arc<Served>), Failure> {
    match table.find(name) {
        Found::One(slot) => match slot.served().clone() {
            Some(served) => Ok((slot, served)),
            None => Err(Failure::refused(
                Status::NotFound,
                format!("the service '{name}' was just removed from this host"),
            )),
        },
        Found::Ambiguous(names) => {
            let message =
                format!("'{name}' means several services here: say which of {}", names.join(", "));
            Err(Failure::refused(Status::InvalidArgument, message))
        }
        Found::None => {
            let known = table.short_names();
            let message = format!(
                "this host has no service '{name}'{}",
                suggestion(&name.interface, known.iter().map(String::as_str))
            );
            Err(Failure::refused(Status::NotFound, message))
        }
    }
}

fn find_method<'s>(service: &'s Service, name: &str) -> Result<(usize, &'s Method), Failure> {
    let method = service.method(name);
    let found =
        method.and_then(|m| Some((service.methods().iter().position(|o| o.name == m.name)?, m)));
    found.ok_or_else(|| {
        let known = service.methods().iter().map(|method| &method.name[..]);
        let message = format!(
            "the service '{}' has no method '{name}'{}",
            service.name(),
            suggestion(name, known)
        );
        Failure::refused(Status::Unimplemented, message)
    })
}

fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    if name.len() > SUGGESTED_FOR {
        return String::new();
    }
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= SIMILAR)
        .map(|(_, known)| format!("; did you mean '{known}'?"))
        .unwrap_or_default()
}

fn mismatch(name: &str, service: &Service, method: &Method) -> Failure {
    let notation = service.notation(method);
    Failure {
        detail: (DetailKind::SchemaMismatch, format!("{notation}\n\n{}", service.wit())),
        ..Failure::refused(
            Status::FailedPrecondition,
            format!("{name}: the caller was built against another signature; served is {notation}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_names_are_suggested() {
        let known = || ["arith", "textkit"].into_iter();
        assert_eq!(suggestion("arih", known()), "; did you mean 'arith'?");
        assert_eq!(suggestion("zzz", known()), "");
        assert_eq!(suggestion(&"arith".repeat(20), known()), "");
    }
}
