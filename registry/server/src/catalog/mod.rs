//! Who serves what: all records, and the services that they make up.
//!
//! Plain state without clocks, locks or HTTP. It takes records that a store has accepted, in the
//! order of their numbers, and returns which endpoints changed.

mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use wharf_registry_api::{Endpoint, EndpointId, EndpointSpec, limits};

pub(crate) use self::names::Named;
use self::names::{Names, names};
use crate::listing::{endpoint, identity};
use crate::record::{Key, Record, Records};
use crate::upkeep::Upkeep;

/// The records and what they declare.
#[derive(Debug)]
pub(crate) struct Catalog {
    records: HashMap<Key, Entry>,
    /// The records with a name of Consul's: an ID of a service or check, or a node.
    named: HashMap<Named, BTreeSet<Key>>,
    /// The records with checks that the registry makes.
    probed: BTreeSet<Key>,
    /// How many checks a second the registry has to make for them.
    probe_rate: f64,
    /// The number of the last change of `probed`, or of a record in it.
    probes: u64,
    hosts: usize,
    /// Addresses that were registered through the classic calls, by name.
    classic: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    services: BTreeMap<Arc<str>, Service>,
    /// The number of the last change.
    number: u64,
    /// The number of the last change that removed a record.
    removed: u64,
    /// The number at which it was last noted who is unverified.
    marked: u64,
    /// The number of the last change that removed a service. It is the index of every service that
    /// does not exist, so that no index ever goes back.
    floor: u64,
    /// Endpoints of all records together.
    endpoints: usize,
    /// Bytes of all records' texts together.
    bytes: usize,
}

/// A record, and the numbers of its changes.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: Arc<Record>,
    /// Of its first appearance.
    pub(crate) created: u64,
    /// Of its last change.
    pub(crate) modified: u64,
    /// When it was last noted whether it is unverified.
    marked: u64,
}

/// Checks that the registry makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probing {
    /// Of one record, a second.
    pub(crate) own: f64,
    /// How many records have some.
    pub(crate) services: usize,
    /// Of all records, a second.
    pub(crate) all: f64,
}

#[derive(Debug)]
struct Service {
    /// The number of its last change.
    number: u64,
    /// When it was last noted which of its endpoints are unverified.
    marked: u64,
    /// The records that have it: hosts, then classic registrations.
    keys: BTreeSet<Key>,
}

/// One endpoint that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Upsert(Box<Endpoint>),
    Delete(EndpointId),
}

impl Event {
    pub(crate) fn service(&self) -> &str {
        match self {
            Event::Upsert(endpoint) => &endpoint.spec.service,
            Event::Delete(id) => &id.service,
        }
    }
}

impl Catalog {
    pub(crate) fn new(number: u64) -> Self {
        Catalog {
            records: HashMap::new(),
            named: HashMap::new(),
            probed: BTreeSet::new(),
            probe_rate: 0.0,
            probes: number,
            hosts: 0,
            classic: BTreeMap::new(),
            services: BTreeMap::new(),
            number,
            removed: number,
            marked: number,
            floor: number,
            endpoints: 0,
            bytes: 0,
        }
    }

    /// The number of the last change.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The number of a service's last change. A service that does not exist has one too.
    pub(crate) fn service_number(&self, service: &str) -> u64 {
        self.services.get(service).map_or(self.floor, |service| service.number)
    }

    /// The number of the last change of a service, or of all, that also counts who is unverified.
    pub(crate) fn marked_number(&self, service: Option<&str>) -> u64 {
        let Some(service) = service else { return self.number.max(self.marked) };
        self.services.get(service).map_or(self.floor, |service| service.number.max(service.marked))
    }

    /// The same of the records of a node. One that is not there has a number too.
    pub(crate) fn node_number(&self, node: &str) -> u64 {
        let of = |(_, entry): (&Key, &Entry)| entry.modified.max(entry.marked);
        self.of_node(node).map(of).chain([self.removed]).max().unwrap_or_default()
    }

    /// The record that a store accepted last under a key.
    pub(crate) fn record(&self, key: &Key) -> Option<&Arc<Record>> {
        self.records.get(key).map(|entry| &entry.record)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.records.iter()
    }

    /// The records with a name of Consul's.
    pub(crate) fn named(&self, name: &Named) -> impl Iterator<Item = (&Key, &Entry)> {
        let keys = self.named.get(name).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.records.get(key)?)))
    }

    /// The records of a node of Consul's: a host is one, and so is a registration, unless it was registered
    /// for another node.
    pub(crate) fn of_node(&self, node: &str) -> impl Iterator<Item = (&Key, &Entry)> {
        let classic = node.rsplit_once('@').map(|(name, address)| Key::classic(name, address));
        let own = [Some(Key::host(node)), classic].into_iter().flatten();
        let own = own.filter_map(|key| self.records.get_key_value(&key));
        let own = own.filter(|(_, entry)| entry.record.node().is_none());
        let registered = self.named.get(&Named::Node(node.to_owned())).into_iter().flatten();
        own.chain(registered.filter_map(|key| self.records.get_key_value(key)))
    }

    /// The records with checks that the registry makes, if there is a change later than this number; and
    /// its number.
    pub(crate) fn probed(&self, later_than: Option<u64>) -> Option<(u64, Records)> {
        if later_than.is_some_and(|number| self.probes <= number) {
            return None;
        }
        let records =
            self.probed.iter().filter_map(|key| Some((key.clone(), self.record(key)?.clone())));
        Some((self.probes, records.collect()))
    }

    /// How many checks the registry has to make, for a record and in all.
    pub(crate) fn probing(&self, key: &Key) -> Probing {
        let upkeep = self.record(key).and_then(|record| record.upkeep.as_deref());
        Probing {
            own: upkeep.map_or(0.0, Upkeep::probes_per_second),
            services: self.probed.len(),
            all: self.probe_rate,
        }
    }

    pub(crate) fn entry(&self, key: &Key) -> Option<(&Key, &Entry)> {
        self.records.get_key_value(key)
    }

    /// Notes under a number which records may have turned unverified, or are not any more. Returns their
    /// services.
    pub(crate) fn mark(
        &mut self,
        keys: impl IntoIterator<Item = Key>,
        number: u64,
    ) -> BTreeSet<Arc<str>> {
        let mut marked = BTreeSet::new();
        for key in keys {
            let Some(entry) = self.records.get_mut(&key) else { continue };
            entry.marked = number;
            for spec in &entry.record.endpoints {
                if let Some((name, _)) = self.services.get_key_value(&spec.service[..]) {
                    marked.insert(name.clone());
                }
            }
        }
        for service in &marked {
            if let Some(service) = self.services.get_mut(service) {
                service.marked = number;
            }
        }
        if !marked.is_empty() {
            self.marked = number;
        }
        marked
    }

    /// Hosts, classic registrations, services and endpoints.
    pub(crate) fn counts(&self) -> [usize; 4] {
        let classic = self.records.len() - self.hosts;
        [self.hosts, classic, self.services.len(), self.endpoints]
    }

    /// Whether there is room for a record, in place of the previous one under its key.
    pub(crate) fn has_room(&self, key: &Key, record: &Record) -> bool {
        let known = self.record(key);
        let before = known.map_or((0, 0), |record| (record.endpoints.len(), record.bytes()));
        let endpoints = self.endpoints - before.0 + record.endpoints.len();
        let bytes = self.bytes - before.1 + record.bytes();
        let [hosts, classic, ..] = self.counts();
        let is_one_of_few = match key {
            Key::Host(_) => hosts < limits::HOSTS,
            Key::Classic { .. } => classic < limits::CLASSIC_REGISTRATIONS,
        };
        (known.is_some() || is_one_of_few)
            && endpoints <= limits::ALL_ENDPOINTS
            && bytes <= limits::ALL_BYTES
    }

    /// Takes a record that a store accepted under `number`, and returns which endpoints changed.
    ///
    /// A record that changes no endpoint leaves all indices unchanged.
    pub(crate) fn apply(
        &mut self,
        key: &Key,
        record: Option<&Arc<Record>>,
        number: u64,
    ) -> Vec<Event> {
        let before = self.records.remove(key);
        if let Some(record) = record {
            let (created, modified, marked) =
                before.as_ref().map_or((number, number, 0), |b| (b.created, b.modified, b.marked));
            let entry = Entry { record: record.clone(), created, modified, marked };
            self.records.insert(key.clone(), entry);
        }
        let known = before.map(|before| before.record);
        match key {
            Key::Host(_) => {
                self.hosts =
                    self.hosts + usize::from(record.is_some()) - usize::from(known.is_some());
            }
            Key::Classic { name, address } => {
                self.note_classic(name, address, record.is_some());
            }
        }
        let events = difference(&key.host_name(), known.as_deref(), record.map(|record| &**record));
        let old = known.as_deref().map(|known| &known.endpoints[..]).unwrap_or_default();
        let new = record.map(|record| &record.endpoints[..]).unwrap_or_default();
        self.endpoints = self.endpoints - old.len() + new.len();
        self.bytes = self.bytes - known.as_deref().map_or(0, Record::bytes)
            + record.map_or(0, |record| record.bytes());
        if events.is_empty() {
            return events;
        }
        self.number = number;
        match self.records.get_mut(key) {
            Some(entry) => entry.modified = number,
            None => self.removed = number,
        }
        self.note_names(key, known.as_deref(), record.map(|record| &**record), number);
        let still: BTreeSet<&str> = new.iter().map(|spec| &spec.service[..]).collect();
        let changed: BTreeSet<&str> = events.iter().map(Event::service).collect();
        for service in changed {
            if still.contains(service) {
                let entry = match self.services.get_mut(service) {
                    Some(entry) => entry,
                    None => self.services.entry(service.into()).or_insert_with(|| Service {
                        number,
                        marked: 0,
                        keys: BTreeSet::new(),
                    }),
                };
                entry.number = number;
                entry.keys.insert(key.clone());
            } else if let Some(entry) = self.services.get_mut(service) {
                entry.number = number;
                entry.keys.remove(key);
                if entry.keys.is_empty() {
                    self.services.remove(service);
                    self.floor = number;
                }
            }
        }
        events
    }

    fn note_names(&mut self, key: &Key, old: Option<&Record>, new: Option<&Record>, number: u64) {
        let names = |record: Option<&Record>| record.map(|record| names(key, record));
        let (old, new) = (names(old).unwrap_or_default(), names(new).unwrap_or_default());
        for gone in old.names.difference(&new.names) {
            if matches!(gone, Named::Node(_)) {
                // It went to another node.
                self.removed = number;
            }
            if let Some(keys) = self.named.get_mut(gone) {
                keys.remove(key);
                if keys.is_empty() {
                    self.named.remove(gone);
                }
            }
        }
        for name in new.names.difference(&old.names) {
            self.named.entry(name.clone()).or_default().insert(key.clone());
        }
        let is_probed = |names: &Names| names.probes_per_second > 0.0;
        if is_probed(&new) {
            self.probed.insert(key.clone());
        } else {
            self.probed.remove(key);
        }
        self.probe_rate += new.probes_per_second - old.probes_per_second;
        if self.probed.is_empty() {
            // Sums of fractions are not exact.
            self.probe_rate = 0.0;
        }
        if is_probed(&old) || is_probed(&new) {
            self.probes = number;
        }
    }

    fn note_classic(&mut self, name: &Arc<str>, address: &Arc<str>, there: bool) {
        if there {
            self.classic.entry(name.clone()).or_default().insert(address.clone());
        } else if let Some(addresses) = self.classic.get_mut(name) {
            addresses.remove(address);
            if addresses.is_empty() {
                self.classic.remove(name);
            }
        }
    }

    /// The records that have a service, in order.
    pub(crate) fn records_of(&self, service: &str) -> impl Iterator<Item = (&Key, &Entry)> {
        let keys = self.services.get(service).into_iter().flat_map(|service| &service.keys);
        keys.filter_map(|key| Some((key, self.records.get(key)?)))
    }

    /// All services, in the order of their names.
    pub(crate) fn service_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.services.keys()
    }

    /// The addresses of a classic name, with the times of their registration and in their order.
    pub(crate) fn classic_addresses(&self, name: &str) -> Vec<(u64, Arc<str>)> {
        let Some((name, addresses)) = self.classic.get_key_value(name) else { return Vec::new() };
        let registered = |address: &Arc<str>| {
            let key = Key::Classic { name: name.clone(), address: address.clone() };
            self.records.get(&key).map(|entry| (entry.record.session, address.clone()))
        };
        let mut all: Vec<_> = addresses.iter().filter_map(registered).collect();
        all.sort();
        all
    }

    /// Classic names with their addresses.
    pub(crate) fn classic(&self) -> &BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        &self.classic
    }
}

/// The endpoints of a host that its new record changes, ordered by service.
fn difference<'r>(host: &str, old: Option<&'r Record>, new: Option<&'r Record>) -> Vec<Event> {
    let by_identity = |record: Option<&'r Record>| -> BTreeMap<_, &'r EndpointSpec> {
        let specs = record.into_iter().flat_map(|record| &record.endpoints);
        specs.map(|spec| (identity(spec), spec)).collect()
    };
    let (olds, news) = (by_identity(old), by_identity(new));
    let mut events = Vec::new();
    for (id, spec) in &olds {
        if !news.contains_key(id) {
            events.push(Event::Delete(EndpointId {
                service: spec.service.clone(),
                package: spec.package.clone(),
                version: spec.version.clone(),
                host: host.to_owned(),
            }));
        }
    }
    let Some(record) = new else { return events };
    let of_host = |record: &'r Record| (&record.address, record.state, &record.upkeep);
    let same_host = old.is_some_and(|old| of_host(old) == of_host(record));
    for (id, spec) in &news {
        if !same_host || olds.get(id) != Some(spec) {
            events.push(Event::Upsert(Box::new(endpoint(host, record, spec))));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{classic, record};
    use wharf_registry_api::EndpointState;

    /// Applies a host's record under the next number. Returns the services that changed.
    fn apply(catalog: &mut Catalog, host: &str, record: Option<Record>) -> Vec<String> {
        let number = catalog.number() + 1;
        let events = catalog.apply(&Key::host(host), record.map(Arc::new).as_ref(), number);
        events.iter().map(|event| event.service().to_owned()).collect()
    }

    fn hosts(catalog: &Catalog, service: &str) -> Vec<String> {
        catalog.records_of(service).map(|(key, _)| key.host_name().to_string()).collect()
    }

    #[test]
    fn a_declaration_replaces_the_whole_set_and_tells_only_what_differs() {
        let mut catalog = Catalog::new(1);
        assert_eq!(apply(&mut catalog, "h", Some(record(1, &["a", "b"]))), ["a", "b"]);
        assert_eq!(apply(&mut catalog, "h", Some(record(1, &["b", "c"]))), ["a", "c"]);
        assert!(hosts(&catalog, "a").is_empty());
        assert_eq!(hosts(&catalog, "c"), ["h"]);
        assert_eq!(catalog.counts(), [1, 0, 2, 2]);
    }

    #[test]
    fn a_new_session_with_the_same_endpoints_changes_no_index() {
        let mut catalog = Catalog::new(1);
        apply(&mut catalog, "h", Some(record(1, &["a"])));
        let number = catalog.number();
        assert!(apply(&mut catalog, "h", Some(record(2, &["a"]))).is_empty());
        assert_eq!(catalog.number(), number);
        assert_eq!(catalog.record(&Key::host("h")).unwrap().session, 2);
    }

    #[test]
    fn an_index_never_goes_back_even_when_its_service_vanishes() {
        let mut catalog = Catalog::new(1);
        let absent = catalog.service_number("a");
        apply(&mut catalog, "h", Some(record(1, &["a"])));
        let there = catalog.service_number("a");
        apply(&mut catalog, "h", None);
        let gone = catalog.service_number("a");
        apply(&mut catalog, "h", Some(record(2, &["a"])));
        let back = catalog.service_number("a");
        assert!(absent < there && there < gone && gone < back);
    }

    #[test]
    fn a_change_of_one_service_leaves_the_others_indices() {
        let mut catalog = Catalog::new(1);
        apply(&mut catalog, "h", Some(record(1, &["a"])));
        let before = catalog.service_number("a");
        apply(&mut catalog, "g", Some(record(1, &["b"])));
        assert_eq!(catalog.service_number("a"), before);
    }

    #[test]
    fn another_state_or_address_of_a_host_changes_all_its_endpoints() {
        let mut catalog = Catalog::new(1);
        apply(&mut catalog, "h", Some(record(1, &["a", "b"])));
        let draining = Record { state: EndpointState::Draining, ..record(1, &["a", "b"]) };
        assert_eq!(apply(&mut catalog, "h", Some(draining.clone())), ["a", "b"]);
        let moved = Record { address: "127.0.0.1:2".to_owned(), ..draining };
        assert_eq!(apply(&mut catalog, "h", Some(moved)), ["a", "b"]);
    }

    #[test]
    fn what_hosts_say_of_themselves_is_bounded_by_all_its_bytes() {
        let mut catalog = Catalog::new(1);
        apply(&mut catalog, "g", Some(record(1, &["a"])));
        let mut large = record(1, &["a"]);
        large.metadata.insert("x".to_owned(), "y".repeat(1_000));
        apply(&mut catalog, "h", Some(large.clone()));
        assert_eq!(catalog.bytes, record(1, &["a"]).bytes() * 2 + 1_001);
        // As if other hosts took all the rest.
        catalog.bytes = limits::ALL_BYTES;
        assert!(catalog.has_room(&Key::host("h"), &large), "it takes its own place again");
        assert!(!catalog.has_room(&Key::host("new"), &large));
        large.metadata.insert("z".to_owned(), String::new());
        assert!(!catalog.has_room(&Key::host("h"), &large));
        catalog.bytes = record(1, &["a"]).bytes() * 2 + 1_001;
        apply(&mut catalog, "g", None);
        apply(&mut catalog, "h", None);
        assert_eq!(catalog.bytes, 0);
    }

    #[test]
    fn classic_registrations_are_endpoints_of_their_own() {
        let mut catalog = Catalog::new(1);
        apply(&mut catalog, "h", Some(record(1, &["arith"])));
        for (number, address) in [(3, "a:1"), (4, "b:1"), (5, "a:1")] {
            let there = Arc::new(classic(address));
            let events = catalog.apply(&Key::classic("Arith", address), Some(&there), number);
            assert_eq!(events.len(), usize::from(number < 5), "the second time nothing changes");
        }
        assert_eq!(catalog.counts(), [1, 2, 1, 3]);
        assert_eq!(hosts(&catalog, "arith"), ["h", "Arith@a:1", "Arith@b:1"]);
        assert_eq!(catalog.classic()["Arith"].len(), 2);
        catalog.apply(&Key::classic("Arith", "a:1"), None, 6);
        catalog.apply(&Key::classic("Arith", "b:1"), None, 7);
        assert_eq!(catalog.counts(), [1, 0, 1, 1]);
        assert!(catalog.classic().is_empty());
    }
}
