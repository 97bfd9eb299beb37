//! Builds lists from hosts that the view has handed out, so that no lock is held meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use wharf_registry_api::{Condition, Endpoint, EndpointSpec, EndpointState, ServiceSummary};

use crate::record::{Key, Record};

/// A host, or a classic registration, as it was at one moment.
#[derive(Clone, Debug)]
pub(crate) struct HostSnapshot {
    pub(crate) key: Key,
    pub(crate) name: Arc<str>,
    pub(crate) record: Arc<Record>,
    pub(crate) unverified: bool,
    /// It was silent for so long that it is most likely gone.
    pub(crate) doubted: bool,
    /// When it was heard last, as far as this process knows.
    pub(crate) heard: Option<SystemTime>,
    /// It is a classic registration.
    pub(crate) is_classic: bool,
    /// The name as a client of Consul registered it.
    pub(crate) registered: Option<Arc<str>>,
    /// The numbers of its first and of its last change.
    pub(crate) created: u64,
    pub(crate) modified: u64,
}

/// Identifies an endpoint among those of one host.
type Identity<'r> = (&'r str, Option<&'r str>, Option<&'r str>);

pub(crate) fn identity(spec: &EndpointSpec) -> Identity<'_> {
    (&spec.service, spec.package.as_deref(), spec.version.as_deref())
}

/// One endpoint of a host. The caller sets `unverified`.
pub(crate) fn endpoint(host: &str, record: &Record, spec: &EndpointSpec) -> Endpoint {
    Endpoint {
        state: record.state_of(spec),
        spec: EndpointSpec { condition: Condition::Serving, ..spec.clone() },
        host: host.to_owned(),
        address: record.address.clone(),
        unverified: false,
    }
}

/// The endpoints of a service at these hosts that match.
pub(crate) fn endpoints<'h>(
    hosts: &'h [HostSnapshot],
    service: &'h str,
    matches: impl Fn(&EndpointSpec, EndpointState) -> bool + 'h,
) -> impl Iterator<Item = Endpoint> + 'h {
    let pairs = hosts.iter().flat_map(move |host| {
        let own = host.record.endpoints.iter().filter(move |spec| spec.service == service);
        own.map(move |spec| (host, spec))
    });
    pairs.filter(move |(host, spec)| matches(spec, host.record.state_of(spec))).map(
        |(host, spec)| Endpoint {
            unverified: host.unverified,
            ..endpoint(&host.name, &host.record, spec)
        },
    )
}

/// Every service of these hosts in every version, in order.
pub(crate) fn services(hosts: &[HostSnapshot]) -> Vec<ServiceSummary> {
    let mut versions = BTreeMap::<_, [usize; 3]>::new();
    for HostSnapshot { record, unverified, .. } in hosts {
        for spec in &record.endpoints {
            let counts = versions.entry(identity(spec)).or_default();
            counts[0] += 1;
            counts[1] += usize::from(record.state_of(spec) == EndpointState::Serving);
            counts[2] += usize::from(*unverified);
        }
    }
    let summary = |((service, package, version), counts): (Identity<'_>, [usize; 3])| {
        let [endpoints, serving, unverified] = counts;
        ServiceSummary {
            service: service.to_owned(),
            package: package.map(str::to_owned),
            version: version.map(str::to_owned),
            endpoints,
            serving,
            unverified,
        }
    };
    versions.into_iter().map(summary).collect()
}

/// For each service, one of the hosts that take calls for it: the host that was heard last. Classic
/// registrations are not hosts.
pub(crate) fn newest(hosts: &[HostSnapshot]) -> BTreeMap<&str, &HostSnapshot> {
    let mut newest = BTreeMap::<&str, &HostSnapshot>::new();
    for host in hosts.iter().filter(|host| !host.is_classic) {
        let record = &host.record;
        for spec in record.endpoints.iter().filter(|s| record.state_of(s) == EndpointState::Serving)
        {
            let known = newest.entry(&spec.service).or_insert(host);
            if known.heard < host.heard {
                *known = host;
            }
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{record, spec};
    use std::time::Duration;

    fn listed(name: &str, record: Record, unverified: bool) -> HostSnapshot {
        HostSnapshot {
            key: Key::host(name),
            name: name.into(),
            record: Arc::new(record),
            unverified,
            doubted: unverified,
            heard: None,
            is_classic: false,
            registered: None,
            created: 1,
            modified: 1,
        }
    }

    #[test]
    fn a_draining_host_is_listed_but_does_not_serve() {
        let draining = Record { state: EndpointState::Draining, ..record(1, &["a"]) };
        let hosts = [listed("h", draining, false)];
        let states: Vec<EndpointState> =
            endpoints(&hosts, "a", |_, _| true).map(|e| e.state).collect();
        assert_eq!(states, [EndpointState::Draining]);
        assert_eq!(endpoints(&hosts, "a", |_, state| state == EndpointState::Serving).count(), 0);
        assert_eq!(services(&hosts)[0].serving, 0);
        assert!(newest(&hosts).is_empty());
    }

    #[test]
    fn a_service_that_is_compiled_or_refused_takes_no_calls_and_says_so() {
        let mut declared = record(1, &["a", "b", "c"]);
        declared.endpoints[1].condition = Condition::Compiling;
        declared.endpoints[2] = EndpointSpec {
            condition: Condition::Refused,
            reason: Some("it is not WebAssembly".to_owned()),
            ..spec("c")
        };
        let hosts = [listed("h", declared, true)];
        let state = |service| {
            let listed: Vec<_> = endpoints(&hosts, service, |_, _| true).collect();
            (listed[0].state, listed[0].spec.reason.clone())
        };
        assert_eq!(state("a"), (EndpointState::Serving, None));
        assert_eq!(state("b"), (EndpointState::Compiling, None));
        assert_eq!(state("c"), (EndpointState::Refused, Some("it is not WebAssembly".to_owned())));
        let summaries = services(&hosts);
        assert_eq!(summaries.iter().map(|s| s.serving).collect::<Vec<_>>(), [1, 0, 0]);
        assert_eq!(summaries.iter().map(|s| s.unverified).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(newest(&hosts).into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn of_several_hosts_the_one_that_was_heard_last_stands_for_a_service() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let heard = |name, seconds| HostSnapshot {
            heard: at(seconds),
            ..listed(name, record(1, &["a"]), false)
        };
        let hosts = [heard("x", 5), heard("y", 9), heard("z", 1)];
        assert_eq!(&*newest(&hosts)["a"].name, "y");
    }
}
