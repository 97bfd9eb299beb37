//! Which endpoints of a list can take a call.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use wharf_registry_api::{Endpoint, EndpointState, NetRpc};
use wharf_schema::{Fingerprint, ServiceName};

use super::Selection;
use super::node::{NetRpcName, Node};
use crate::endpoints::Endpoints;
use crate::error::Failure;

/// The most services that an error names.
const MOST_NAMED: usize = 10;

/// All endpoints with a service's short name, in all packages, versions and states.
#[derive(Default)]
pub(crate) struct KnownNodes {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// Whether this list or an earlier one had any.
    had_some: bool,
}

/// The service that a call wants.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) service: ServiceName,
    /// Endpoints with exactly these methods are preferred.
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl KnownNodes {
    /// The nodes of a list from the registry. A node that was in the earlier list keeps its health.
    pub(crate) fn of<'e>(
        list: impl IntoIterator<Item = &'e Endpoint>,
        endpoints: &Endpoints,
        earlier: &KnownNodes,
    ) -> Self {
        let known: HashMap<(&str, &ServiceName), &Arc<Node>> = earlier
            .nodes
            .iter()
            .map(|node| ((&**node.endpoint.address(), &*node.name), node))
            .collect();
        let node = |listed: &Endpoint| {
            let spec = &listed.spec;
            // An invalid version counts as no version: it matches only a name without one.
            let version = spec.version.as_ref().and_then(|text| text.parse().ok());
            let package = spec.package.clone();
            let interface = spec.service.clone();
            let name = ServiceName { package, interface, version, requirement: None };
            let fingerprint = spec.fingerprint.parse().ok();
            let endpoint = endpoints.at(&listed.address, &listed.host);
            let net_rpc = NetRpc::of(spec).map(|net_rpc| NetRpcName {
                service: net_rpc.name.into(),
                protocol: net_rpc.protocol,
            });
            let node = Node::new(endpoint, Arc::new(name), fingerprint, listed.state);
            let node = node.speaking(net_rpc);
            let earlier = known.get(&(&listed.address[..], &*node.name)).copied();
            Arc::new(match earlier {
                Some(earlier) => node.succeeding(earlier),
                None => node,
            })
        };
        let nodes: Vec<Arc<Node>> = list.into_iter().map(node).collect();
        let had_some = earlier.had_some || !nodes.is_empty();
        KnownNodes { nodes, had_some }
    }
}

/// A single endpoint of which only the address is known.
pub(crate) fn direct(endpoints: &Endpoints, address: &str, host: &str) -> Selection {
    let interface = String::new();
    let anything = ServiceName { package: None, interface, version: None, requirement: None };
    let node =
        Node::new(endpoints.at(address, host), Arc::new(anything), None, EndpointState::Serving);
    Selection::new(vec![Arc::new(node)])
}

/// The endpoints that take calls, in the newest version that matches.
pub(crate) fn select(wanted: &Wanted, listed: &KnownNodes) -> Result<Selection, Failure> {
    let Wanted { service, fingerprint } = wanted;
    let named = || wharf_nodes(service, listed);
    if service.package.is_none() {
        // Whoever may announce a service could take over the calls of a short name.
        let packages: BTreeSet<_> = named().map(|node| &node.name.package).collect();
        if packages.len() > 1 {
            let services: BTreeSet<String> = named().map(|node| node.name.to_string()).collect();
            let services = services.into_iter().take(MOST_NAMED).collect();
            return Err(Failure::Ambiguous { service: service.to_string(), services });
        }
    }
    let serving = || named().filter(|node| node.state == EndpointState::Serving);
    // If there are endpoints with exactly the interface that the caller was built against, only
    // those.
    let exact = fingerprint.is_some() && serving().any(|node| node.fingerprint == *fingerprint);
    let suitable = || serving().filter(|node| !exact || node.fingerprint == *fingerprint);
    let newest = suitable().map(|node| &node.name.version).max();
    let nodes: Vec<Arc<Node>> =
        suitable().filter(|node| Some(&node.name.version) == newest).cloned().collect();
    if !nodes.is_empty() {
        return Ok(Selection::new(nodes));
    }
    if !net_rpc_nodes(service, listed).is_empty() {
        return Err(Failure::NetRpc { service: service.to_string() });
    }
    let (matching, all) = (named().count(), listed.nodes.len());
    let was_there = matching > 0 || all == 0 && listed.had_some;
    let reason = match (matching, all) {
        (0, 0) => String::new(),
        (0, others) => format!(
            ": {others} endpoints have this short name, but none matches its package and version"
        ),
        _ => format!(": none takes calls now ({})", states(named())),
    };
    Err(Failure::NoEndpoint { service: service.to_string(), reason, was_there })
}

fn wharf_nodes<'n>(
    service: &'n ServiceName,
    listed: &'n KnownNodes,
) -> impl Iterator<Item = &'n Arc<Node>> {
    listed.nodes.iter().filter(|node| node.net_rpc.is_none() && service.matches(&node.name))
}

/// The endpoints that speak Go's net/rpc. They are called only where no other takes calls.
pub(crate) fn net_rpc_nodes(service: &ServiceName, listed: &KnownNodes) -> Vec<Arc<Node>> {
    let serves = |node: &&Arc<Node>| {
        node.net_rpc.is_some()
            && node.state == EndpointState::Serving
            && service.matches(&node.name)
    };
    listed.nodes.iter().filter(serves).cloned().collect()
}

/// How many endpoints are in which state: `1 draining, 2 compiling`.
fn states<'n>(nodes: impl Iterator<Item = &'n Arc<Node>>) -> String {
    let mut counts = BTreeMap::<EndpointState, usize>::new();
    for node in nodes {
        *counts.entry(node.state).or_default() += 1;
    }
    let texts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use wharf_registry_api::{Condition, EndpointSpec};

    fn endpoint(version: &str, address: &str, fingerprint: u8, state: EndpointState) -> Endpoint {
        let spec = EndpointSpec {
            service: "arith".into(),
            package: Some("demo:arith".into()),
            version: Some(version.into()),
            fingerprint: Fingerprint([fingerprint; 16]).to_string(),
            condition: Condition::Serving,
            reason: None,
            tags: Vec::new(),
            metadata: Default::default(),
        };
        Endpoint { spec, host: String::new(), address: address.into(), state, unverified: false }
    }

    fn endpoints() -> Endpoints {
        Endpoints::new(Settings::default())
    }

    fn listed() -> KnownNodes {
        let list = [
            endpoint("0.1.0", "a", 1, EndpointState::Serving),
            endpoint("0.1.2", "b", 2, EndpointState::Serving),
            endpoint("0.2.0", "c", 3, EndpointState::Serving),
            endpoint("0.10.0", "d", 4, EndpointState::Draining),
        ];
        KnownNodes::of(&list, &endpoints(), &KnownNodes::default())
    }

    fn chosen(name: &str, fingerprint: Option<u8>) -> Result<String, String> {
        let wanted = Wanted {
            service: ServiceName::parse(name).unwrap(),
            fingerprint: fingerprint.map(|byte| Fingerprint([byte; 16])),
        };
        let selection = select(&wanted, &listed()).map_err(|failure| failure.to_string())?;
        Ok(selection.nodes().iter().map(|node| node.endpoint.address().to_string()).collect())
    }

    #[test]
    fn the_newest_version_that_is_meant_and_takes_calls_is_chosen() {
        assert_eq!(chosen("Arith", None).unwrap(), "c");
        assert_eq!(chosen("arith@0.1.0", None).unwrap(), "a");
        assert_eq!(chosen("arith@^0.1", None).unwrap(), "b");
        assert_eq!(chosen("arith@=0.1.0", None).unwrap(), "a");
        assert_eq!(
            chosen("arith@0.10.0", None).unwrap_err(),
            "no endpoint found for the service 'arith@0.10.0': none takes calls now (1 draining)"
        );
        assert_eq!(
            chosen("acme:x/arith", None).unwrap_err(),
            "no endpoint found for the service 'acme:x/arith': 4 endpoints have this short name, but none matches its package and version"
        );
        assert_eq!(
            chosen("arith@^0.10", None).unwrap_err(),
            "no endpoint found for the service 'arith@^0.10': none takes calls now (1 draining)"
        );
    }

    #[test]
    fn a_short_name_of_several_packages_is_refused_and_a_full_one_is_not() {
        let mut foreign = endpoint("9.9.9", "evil", 1, EndpointState::Serving);
        foreign.spec.package = Some("evil:arith".into());
        let list = [endpoint("0.1.0", "a", 1, EndpointState::Serving), foreign];
        let listed = KnownNodes::of(&list, &endpoints(), &KnownNodes::default());
        let chosen = |name: &str, fingerprint| {
            let wanted = Wanted { service: ServiceName::parse(name).unwrap(), fingerprint };
            select(&wanted, &listed)
                .map(|selection| selection.nodes()[0].endpoint.address().clone())
        };
        for fingerprint in [None, Some(Fingerprint([1; 16]))] {
            let error = chosen("arith", fingerprint).err().unwrap();
            assert_eq!(
                error.to_string(),
                "'arith' stands for the services of several packages: demo:arith/arith@0.1.0, \
                 evil:arith/arith@9.9.9; call it by its full name, or bind the name to one of them"
            );
            assert_eq!(&*chosen("demo:arith/arith", fingerprint).unwrap(), "a");
        }
    }

    #[test]
    fn whoever_serves_just_what_the_caller_was_built_against_comes_first() {
        assert_eq!(chosen("arith@^0.1", Some(1)).unwrap(), "a");
        // If no endpoint does, the method may still be the same: its own fingerprint decides.
        assert_eq!(chosen("arith@^0.1", Some(9)).unwrap(), "b");
    }

    #[test]
    fn what_is_known_of_an_endpoint_outlives_the_list() {
        let endpoints = endpoints();
        let list = [endpoint("0.1.0", "a", 1, EndpointState::Serving)];
        let first = KnownNodes::of(&list, &endpoints, &KnownNodes::default());
        let node = first.nodes[0].clone();
        let in_flight = node.begin(std::time::Instant::now());
        let second = KnownNodes::of(&list, &endpoints, &first);
        drop(first);
        let load = |listed: &KnownNodes| listed.nodes[0].load(std::time::Instant::now()).0;
        assert_eq!(load(&second), 1);
        drop(in_flight);
        assert_eq!(load(&second), 0);
        let moved = [endpoint("0.1.0", "b", 1, EndpointState::Serving)];
        let third = KnownNodes::of(&moved, &endpoints, &second);
        assert!(!third.nodes[0].is_same(&second.nodes[0]));
    }
}
