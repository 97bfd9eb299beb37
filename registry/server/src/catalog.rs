//! Who serves what: the state of the registry, without clocks, locks or HTTP.
//!
//! Every call is handed the time, as [`crate::clock::LivenessClock`] counts it, and tells which
//! services it changed. A heartbeat costs O(1), a sweep O(hosts that were due).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use wharf_registry_api::{
    Condition, Declaration, Endpoint, EndpointSpec, ServiceSummary, State, limits,
};

/// Names of services whose lists changed.
pub(crate) type Changed = BTreeSet<String>;

/// The hosts and what they declared.
#[derive(Debug)]
pub(crate) struct Catalog {
    ttl: Duration,
    hosts: HashMap<String, Host>,
    services: BTreeMap<String, Service>,
    /// Grows with each change.
    number: u64,
    /// The number of the last change that made a service vanish: the index of every service that
    /// is not there, so that no index ever goes back.
    floor: u64,
    /// When to look at each host next; a heartbeat leaves it as it is, the look puts it off.
    due: BinaryHeap<Reverse<(Duration, u64, String)>>,
    generation: u64,
    /// Endpoints of all hosts together.
    endpoints: usize,
}

#[derive(Debug)]
struct Host {
    declaration: Declaration,
    digest: String,
    state: State,
    last_heard: Duration,
    /// Tells this host from an earlier one of its name in `due`.
    generation: u64,
}

impl Host {
    fn state_of(&self, spec: &EndpointSpec) -> State {
        self.state.of_service(spec.condition)
    }
}

#[derive(Debug)]
struct Service {
    /// The number of its last change.
    number: u64,
    hosts: BTreeSet<String>,
}

/// Why a host's request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such host.
    Unknown,
    /// This newer session owns it.
    Superseded(u64),
    /// There is no room for more hosts or endpoints.
    Full,
}

/// What became of a declaration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) created: bool,
    pub(crate) changed: Changed,
}

impl Catalog {
    pub(crate) fn new(ttl: Duration) -> Self {
        Catalog {
            ttl,
            hosts: HashMap::new(),
            services: BTreeMap::new(),
            number: 1,
            floor: 1,
            due: BinaryHeap::new(),
            generation: 0,
            endpoints: 0,
        }
    }

    /// The number of the last change.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The number of a service's last change; also of one that is not there.
    pub(crate) fn service_number(&self, service: &str) -> u64 {
        self.services.get(service).map_or(self.floor, |service| service.number)
    }

    /// Takes a host's whole set of endpoints.
    pub(crate) fn declare(
        &mut self,
        now: Duration,
        name: &str,
        declaration: Declaration,
        digest: String,
    ) -> Result<Accepted, Refusal> {
        let known = self.hosts.get(name);
        if let Some(host) = known
            && declaration.session < host.declaration.session
        {
            return Err(Refusal::Superseded(host.declaration.session));
        }
        let created = known.is_none();
        let before = known.map_or(0, |host| host.declaration.endpoints.len());
        let endpoints = self.endpoints - before + declaration.endpoints.len();
        if (created && self.hosts.len() >= limits::HOSTS) || endpoints > limits::ALL_ENDPOINTS {
            return Err(Refusal::Full);
        }
        let same_session = known.filter(|host| host.declaration.session == declaration.session);
        let state = same_session.map_or(State::Serving, |host| host.state);
        let unchanged = known.is_some_and(|host| {
            host.state == state
                && host.declaration.address == declaration.address
                && host.declaration.endpoints == declaration.endpoints
        });
        let mut changed = Changed::new();
        if !unchanged {
            changed.extend(self.detach(name));
            changed.extend(declaration.endpoints.iter().map(|e| e.service.clone()));
        }
        let generation = match self.hosts.get(name) {
            Some(host) => host.generation,
            None => {
                self.generation += 1;
                self.due.push(Reverse((now + self.ttl, self.generation, name.to_owned())));
                self.generation
            }
        };
        if !unchanged {
            for endpoint in &declaration.endpoints {
                let service = self.services.entry(endpoint.service.clone());
                let service =
                    service.or_insert_with(|| Service { number: 0, hosts: BTreeSet::new() });
                service.hosts.insert(name.to_owned());
            }
        }
        let host = Host { declaration, digest, state, last_heard: now, generation };
        self.hosts.insert(name.to_owned(), host);
        self.endpoints = endpoints;
        self.forget_stale_looks();
        self.mark(&changed);
        Ok(Accepted { created, changed })
    }

    /// Hears that a host lives. Whether it has to declare again: the digests differ.
    pub(crate) fn heartbeat(
        &mut self,
        now: Duration,
        name: &str,
        session: u64,
        digest: &str,
    ) -> Result<bool, Refusal> {
        let host = self.owned(name, session)?;
        host.last_heard = now;
        Ok(host.declaration.session != session || host.digest != digest)
    }

    /// Sets whether a host takes new calls.
    pub(crate) fn set_state(
        &mut self,
        now: Duration,
        name: &str,
        session: u64,
        state: State,
    ) -> Result<Changed, Refusal> {
        let host = self.owned(name, session)?;
        host.last_heard = now;
        if host.state == state {
            return Ok(Changed::new());
        }
        host.state = state;
        let changed = host.declaration.endpoints.iter().map(|e| e.service.clone()).collect();
        self.mark(&changed);
        Ok(changed)
    }

    /// Removes a host; one that is not there is removed already.
    pub(crate) fn withdraw(&mut self, name: &str, session: u64) -> Result<Changed, Refusal> {
        match self.owned(name, session) {
            Ok(_) => Ok(self.remove(name)),
            Err(Refusal::Unknown) => Ok(Changed::new()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Drops every host that was silent for the time to live, and tells who.
    pub(crate) fn sweep(&mut self, now: Duration) -> (Vec<String>, Changed) {
        let (mut dropped, mut changed) = (Vec::new(), Changed::new());
        while let Some(Reverse((due, ..))) = self.due.peek()
            && *due <= now
        {
            let Some(Reverse((_, generation, name))) = self.due.pop() else { break };
            let Some(host) = self.hosts.get(&name).filter(|h| h.generation == generation) else {
                continue;
            };
            let due = host.last_heard + self.ttl;
            if due > now {
                self.due.push(Reverse((due, generation, name)));
            } else {
                changed.extend(self.remove(&name));
                dropped.push(name);
            }
        }
        (dropped, changed)
    }

    /// Where a service can be called, in the order of hosts.
    pub(crate) fn endpoints<'a>(
        &'a self,
        service: &'a str,
        matches: impl Fn(&EndpointSpec, State) -> bool + 'a,
    ) -> impl Iterator<Item = Endpoint> + 'a {
        let hosts = self.services.get(service).into_iter().flat_map(|service| &service.hosts);
        let hosts = hosts.filter_map(|name| Some((name, self.hosts.get(name)?)));
        hosts.flat_map(move |(name, host)| {
            let own = host.declaration.endpoints.iter().filter(|spec| spec.service == service);
            let matching: Vec<_> = own.filter(|spec| matches(spec, host.state_of(spec))).collect();
            matching.into_iter().map(move |spec| Endpoint {
                state: host.state_of(spec),
                spec: EndpointSpec { condition: Condition::Serving, ..spec.clone() },
                host: name.clone(),
                address: host.declaration.address.clone(),
            })
        })
    }

    /// Every service in every version.
    pub(crate) fn services(&self) -> Vec<ServiceSummary> {
        let mut versions = BTreeMap::<_, (usize, usize)>::new();
        for host in self.hosts.values() {
            for spec in &host.declaration.endpoints {
                let key = (&spec.service, &spec.package, &spec.version);
                let (endpoints, serving) = versions.entry(key).or_default();
                *endpoints += 1;
                *serving += usize::from(host.state_of(spec) == State::Serving);
            }
        }
        let summary = |((service, package, version), (endpoints, serving))| ServiceSummary {
            service: String::clone(service),
            package: Option::clone(package),
            version: Option::clone(version),
            endpoints,
            serving,
        };
        versions.into_iter().map(summary).collect()
    }

    /// For each service one address that takes calls, and when its host was heard last.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, &str, Duration)> {
        self.services.iter().filter_map(|(service, entry)| {
            let hosts = entry.hosts.iter().filter_map(|name| self.hosts.get(name));
            let serving = hosts.filter(|host| {
                let mut own = host.declaration.endpoints.iter().filter(|e| e.service == *service);
                own.any(|spec| host.state_of(spec) == State::Serving)
            });
            let newest = serving.max_by_key(|host| host.last_heard)?;
            Some((&service[..], &newest.declaration.address[..], newest.last_heard))
        })
    }

    fn owned(&mut self, name: &str, session: u64) -> Result<&mut Host, Refusal> {
        let host = self.hosts.get_mut(name).ok_or(Refusal::Unknown)?;
        if host.declaration.session > session {
            return Err(Refusal::Superseded(host.declaration.session));
        }
        Ok(host)
    }

    fn remove(&mut self, name: &str) -> Changed {
        let changed = self.detach(name);
        if let Some(host) = self.hosts.remove(name) {
            self.endpoints -= host.declaration.endpoints.len();
        }
        self.mark(&changed);
        changed
    }

    /// Hosts that come and go leave looks behind; they never become more than the living ones.
    fn forget_stale_looks(&mut self) {
        if self.due.len() > 2 * self.hosts.len() + 64 {
            let hosts = &self.hosts;
            self.due.retain(|Reverse((_, generation, name))| {
                hosts.get(name).is_some_and(|host| host.generation == *generation)
            });
        }
    }

    /// Takes a host out of the services that it has declared.
    fn detach(&mut self, name: &str) -> Changed {
        let host = self.hosts.get(name);
        let declared = host.into_iter().flat_map(|host| &host.declaration.endpoints);
        let services: Changed = declared.map(|endpoint| endpoint.service.clone()).collect();
        for service in &services {
            if let Some(service) = self.services.get_mut(service) {
                service.hosts.remove(name);
            }
        }
        services
    }

    /// Gives the next number to the services that changed.
    fn mark(&mut self, changed: &Changed) {
        if changed.is_empty() {
            return;
        }
        self.number += 1;
        for name in changed {
            match self.services.get_mut(name) {
                Some(service) if service.hosts.is_empty() => {
                    self.services.remove(name);
                    self.floor = self.number;
                }
                Some(service) => service.number = self.number,
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn declaration(session: u64, services: &[&str]) -> Declaration {
        let spec = |service: &&str| EndpointSpec {
            service: (*service).to_owned(),
            package: None,
            version: Some("0.1.0".to_owned()),
            fingerprint: "0".repeat(32),
            condition: Condition::Serving,
            reason: None,
        };
        Declaration {
            session,
            address: "127.0.0.1:1".to_owned(),
            endpoints: services.iter().map(spec).collect(),
        }
    }

    fn declare(
        catalog: &mut Catalog,
        now: u64,
        host: &str,
        session: u64,
        services: &[&str],
    ) -> Accepted {
        catalog.declare(at(now), host, declaration(session, services), "d".into()).unwrap()
    }

    fn hosts(catalog: &Catalog, service: &str) -> Vec<String> {
        catalog.endpoints(service, |_, _| true).map(|endpoint| endpoint.host).collect()
    }

    #[test]
    fn a_declaration_replaces_the_whole_set() {
        let mut catalog = Catalog::new(TTL);
        assert!(declare(&mut catalog, 0, "h", 1, &["a", "b"]).created);
        let accepted = declare(&mut catalog, 0, "h", 1, &["b", "c"]);
        assert_eq!(accepted.changed.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(hosts(&catalog, "a").is_empty());
        assert_eq!(hosts(&catalog, "c"), ["h"]);
    }

    #[test]
    fn the_same_declaration_again_changes_no_index() {
        let mut catalog = Catalog::new(TTL);
        declare(&mut catalog, 0, "h", 1, &["a"]);
        let number = catalog.number();
        let accepted = declare(&mut catalog, 5, "h", 2, &["a"]);
        assert!(accepted.changed.is_empty());
        assert_eq!(catalog.number(), number);
    }

    #[test]
    fn a_newer_session_fences_the_older_one_out() {
        let mut catalog = Catalog::new(TTL);
        declare(&mut catalog, 0, "h", 2, &["a"]);
        let late = catalog.declare(at(1), "h", declaration(1, &[]), "d".into());
        assert_eq!(late, Err(Refusal::Superseded(2)));
        assert_eq!(catalog.heartbeat(at(1), "h", 1, "d"), Err(Refusal::Superseded(2)));
        assert_eq!(catalog.withdraw("h", 1), Err(Refusal::Superseded(2)));
        assert_eq!(hosts(&catalog, "a"), ["h"]);
        assert!(catalog.withdraw("h", 2).is_ok());
        assert_eq!(catalog.withdraw("h", 1), Ok(Changed::new()), "absent is withdrawn already");
    }

    #[test]
    fn only_the_silent_are_dropped_and_only_after_the_ttl() {
        let mut catalog = Catalog::new(TTL);
        declare(&mut catalog, 0, "silent", 1, &["a"]);
        declare(&mut catalog, 0, "alive", 1, &["a"]);
        assert_eq!(catalog.heartbeat(at(14), "alive", 1, "d"), Ok(false));
        assert!(catalog.sweep(at(14)).0.is_empty());
        assert_eq!(catalog.sweep(at(15)).0, ["silent"]);
        assert_eq!(hosts(&catalog, "a"), ["alive"]);
        assert!(catalog.sweep(at(28)).0.is_empty());
        assert_eq!(catalog.sweep(at(29)).0, ["alive"]);
        assert_eq!(catalog.heartbeat(at(29), "alive", 1, "d"), Err(Refusal::Unknown));
    }

    #[test]
    fn a_host_that_came_back_is_not_dropped_for_its_earlier_life() {
        let mut catalog = Catalog::new(TTL);
        declare(&mut catalog, 0, "h", 1, &["a"]);
        catalog.withdraw("h", 1).unwrap();
        declare(&mut catalog, 10, "h", 2, &["a"]);
        assert!(catalog.sweep(at(24)).0.is_empty());
        assert_eq!(catalog.sweep(at(25)).0, ["h"]);
        assert!(catalog.due.is_empty());
    }

    #[test]
    fn hosts_that_come_and_go_leave_nothing_behind() {
        let mut catalog = Catalog::new(TTL);
        for session in 1..10_000 {
            declare(&mut catalog, 0, "h", session, &["a"]);
            catalog.withdraw("h", session).unwrap();
        }
        assert!(catalog.due.len() < 100, "{} looks", catalog.due.len());
        assert_eq!((catalog.endpoints, catalog.services.len()), (0, 0));
    }

    #[test]
    fn a_different_digest_asks_for_a_resync() {
        let mut catalog = Catalog::new(TTL);
        declare(&mut catalog, 0, "h", 1, &["a"]);
        assert_eq!(catalog.heartbeat(at(1), "h", 1, "other"), Ok(true));
        assert_eq!(catalog.heartbeat(at(1), "h", 2, "d"), Ok(true));
    }

    #[test]
    fn an_index_never_goes_back_even_when_its_service_vanishes() {
        let mut catalog = Catalog::new(TTL);
        let absent = catalog.service_number("a");
        declare(&mut catalog, 0, "h", 1, &["a"]);
        let there = catalog.service_number("a");
        catalog.withdraw("h", 1).unwrap();
        let gone = catalog.service_number("a");
        declare(&mut catalog, 0, "h", 2, &["a"]);
        let back = catalog.service_number("a");
        assert!(absent < there && there < gone && gone < back);
    }

    #[test]
    fn a_change_of_one_service_leaves_the_others_indices() {
        let mut catalog = Catalog::new(TTL);
        declare(&mut catalog, 0, "h", 1, &["a"]);
        let before = catalog.service_number("a");
        declare(&mut catalog, 0, "g", 1, &["b"]);
        assert_eq!(catalog.service_number("a"), before);
    }

    #[test]
    fn a_draining_host_is_listed_but_does_not_pass() {
        let mut catalog = Catalog::new(TTL);
        declare(&mut catalog, 0, "h", 1, &["a"]);
        assert_eq!(catalog.set_state(at(0), "h", 1, State::Draining).unwrap().len(), 1);
        assert_eq!(hosts(&catalog, "a"), ["h"]);
        assert_eq!(catalog.endpoints("a", |_, state| state == State::Serving).count(), 0);
        assert_eq!(catalog.services()[0].serving, 0);
        assert_eq!(catalog.addresses().count(), 0);
    }

    #[test]
    fn a_service_that_is_compiled_or_refused_takes_no_calls_and_says_so() {
        let mut catalog = Catalog::new(TTL);
        let mut declared = declaration(1, &["a", "b", "c"]);
        declared.endpoints[1].condition = Condition::Compiling;
        declared.endpoints[2].condition = Condition::Refused;
        declared.endpoints[2].reason = Some("it is not WebAssembly".to_owned());
        catalog.declare(at(0), "h", declared, String::new()).unwrap();
        let state = |service| {
            let listed: Vec<_> = catalog.endpoints(service, |_, _| true).collect();
            (listed[0].state, listed[0].spec.reason.clone())
        };
        assert_eq!(state("a"), (State::Serving, None));
        assert_eq!(state("b"), (State::Compiling, None));
        assert_eq!(state("c"), (State::Refused, Some("it is not WebAssembly".to_owned())));
        let serving: Vec<usize> = catalog.services().iter().map(|s| s.serving).collect();
        assert_eq!(serving, [1, 0, 0]);
        assert_eq!(catalog.addresses().map(|(service, ..)| service).collect::<Vec<_>>(), ["a"]);
    }
}
