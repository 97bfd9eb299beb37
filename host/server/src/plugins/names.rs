//! Finds services by name, in full or in part. The time that it takes does not grow with the number of
//! services.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use wharf_schema::{ServiceName, did_you_mean};

use super::slot::Slot;

/// The most names that are compared to suggest a similar one.
const COMPARED: usize = 1000;

/// The slots of all services.
#[derive(Clone, Default)]
pub(crate) struct Names {
    /// By the full name.
    slots: BTreeMap<String, Arc<Slot>>,
    /// By the name of the interface: one slot for each package and version that has it.
    interfaces: HashMap<String, Vec<Arc<Slot>>>,
}

/// The service with a name.
pub(crate) enum Found {
    /// This service.
    One(Arc<Slot>),
    /// The name fits several services, which have these names.
    Ambiguous(Vec<String>),
    /// No service has this name.
    None,
}

impl Names {
    /// The slot with a full name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Slot>> {
        self.slots.get(name)
    }

    /// All full names and their slots, ordered by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Slot>)> {
        self.slots.iter()
    }

    /// The slot with a full name. It is added if there is none.
    pub(crate) fn get_or_add(&mut self, name: &ServiceName) -> &Arc<Slot> {
        let interfaces = &mut self.interfaces;
        self.slots.entry(name.to_string()).or_insert_with(|| {
            let slot = Arc::new(Slot::new(name.clone()));
            interfaces.entry(name.interface.clone()).or_default().push(slot.clone());
            slot
        })
    }

    /// Removes the slot with a full name.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Arc<Slot>> {
        let slot = self.slots.remove(name)?;
        if let Some(others) = self.interfaces.get_mut(&slot.name.interface) {
            others.retain(|other| !Arc::ptr_eq(other, &slot));
            if others.is_empty() {
                self.interfaces.remove(&slot.name.interface);
            }
        }
        Some(slot)
    }

    /// Finds the service with a name. A full name always means its own service. If a part fits several
    /// versions, it means the newest.
    pub(crate) fn find(&self, name: &ServiceName, is_seen: impl Fn(&ServiceName) -> bool) -> Found {
        let candidates = self.interfaces.get(&name.interface).map_or(&[][..], Vec::as_slice);
        let candidates = candidates.iter().filter(|slot| is_seen(&slot.name));
        if let Some(exact) = candidates.clone().find(|slot| slot.name == *name) {
            return Found::One(exact.clone());
        }
        let mut matching: Vec<&Arc<Slot>> =
            candidates.filter(|slot| name.matches(&slot.name)).collect();
        // If several packages have an interface with this name, the name must include the package.
        let packages: BTreeSet<_> = matching.iter().map(|slot| &slot.name.package).collect();
        if packages.len() > 1 {
            let mut names: Vec<String> =
                matching.iter().map(|slot| slot.name.to_string()).collect();
            names.sort_unstable();
            return Found::Ambiguous(names);
        }
        matching.sort_by(|a, b| a.name.version.cmp(&b.name.version));
        match matching.pop() {
            Some(slot) => Found::One(slot.clone()),
            None => Found::None,
        }
    }

    /// The end of an error's message, which suggests the most similar name of an interface, if any is
    /// similar. This takes time.
    pub(crate) fn similar(
        &self,
        interface: &str,
        is_seen: impl Fn(&ServiceName) -> bool,
    ) -> String {
        let all = self.interfaces.iter().take(COMPARED);
        let seen = all.filter(|(_, slots)| slots.iter().any(|slot| is_seen(&slot.name)));
        did_you_mean(interface, seen.map(|(interface, _)| &interface[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], wanted: &str) -> Result<String, Vec<String>> {
        let mut all = Names::default();
        for name in names {
            all.get_or_add(&ServiceName::parse(name).unwrap());
        }
        match all.find(&ServiceName::parse(wanted).unwrap(), |_| true) {
            Found::One(slot) => Ok(slot.name.to_string()),
            Found::Ambiguous(names) => Err(names),
            Found::None => Err(Vec::new()),
        }
    }

    #[test]
    fn a_full_name_is_never_ambiguous() {
        let names = ["api", "x:y/api", "z:z/api", "x:y/api@1.0.0"];
        for name in names {
            assert_eq!(found(&names, name).unwrap(), name);
        }
        assert_eq!(found(&["x:y/api", "z:z/api"], "api").unwrap_err(), ["x:y/api", "z:z/api"]);
    }

    #[test]
    fn a_part_of_a_name_means_the_newest_version() {
        let names = ["x:y/api@1.2.0", "x:y/api@1.10.0", "x:y/other@2.0.0"];
        assert_eq!(found(&names, "api").unwrap(), "x:y/api@1.10.0");
        assert_eq!(found(&names, "api@^1").unwrap(), "x:y/api@1.10.0");
        assert_eq!(found(&names, "api@1.2.0").unwrap(), "x:y/api@1.2.0");
        assert_eq!(found(&names, "missing").unwrap_err(), [""; 0]);
    }

    #[test]
    fn what_was_removed_is_not_found() {
        let mut names = Names::default();
        let name = ServiceName::parse("x:y/api").unwrap();
        names.get_or_add(&name);
        assert!(names.remove("x:y/api").is_some());
        assert!(matches!(names.find(&name, |_| true), Found::None));
        assert!(names.interfaces.is_empty() && names.get("x:y/api").is_none());
        assert_eq!(names.similar("apj", |_| true), "");
    }
}
