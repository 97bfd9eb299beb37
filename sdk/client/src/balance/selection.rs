//! Which endpoints of a list serve what is meant.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use semver::VersionReq;
use wharf_registry_api::{Endpoint, State};
use wharf_schema::{Fingerprint, ServiceName};

use super::Selection;
use super::node::Node;
use crate::endpoints::Endpoints;
use crate::error::Failure;

/// All endpoints of a service's short name, in all packages, versions and states.
#[derive(Default)]
pub(crate) struct Listed {
    pub(crate) nodes: Vec<Arc<Node>>,
}

/// What a call means.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) service: ServiceName,
    /// Versions that would do; all, if it names none.
    pub(crate) requirement: Option<VersionReq>,
    /// Endpoints with exactly these methods come first.
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl Listed {
    /// A list of the registry; what earlier lists have of it goes on.
    pub(crate) fn of<'e>(
        list: impl IntoIterator<Item = &'e Endpoint>,
        endpoints: &Endpoints,
        earlier: &Listed,
    ) -> Self {
        let known: HashMap<(&str, &ServiceName), &Arc<Node>> = earlier
            .nodes
            .iter()
            .map(|node| ((&**node.endpoint.address(), &*node.name), node))
            .collect();
        let node = |listed: &Endpoint| {
            let spec = &listed.spec;
            // A version that is none can match only a name without one.
            let version = spec.version.as_ref().and_then(|text| text.parse().ok());
            let package = spec.package.clone();
            let name = ServiceName { package, interface: spec.service.clone(), version };
            let fingerprint = spec.fingerprint.parse().ok();
            let endpoint = endpoints.at(&listed.address);
            let node = Node::new(endpoint, Arc::new(name), fingerprint, listed.state);
            let earlier = known.get(&(&listed.address[..], &*node.name)).copied();
            Arc::new(match earlier {
                Some(earlier) => node.succeeding(earlier),
                None => node,
            })
        };
        Listed { nodes: list.into_iter().map(node).collect() }
    }
}

/// One endpoint, of which nothing is known but its address.
pub(crate) fn direct(endpoints: &Endpoints, address: &str) -> Selection {
    let anything = ServiceName { package: None, interface: String::new(), version: None };
    let node = Node::new(endpoints.at(address), Arc::new(anything), None, State::Serving);
    Selection { nodes: vec![Arc::new(node)] }
}

/// The endpoints of the newest version that is meant and takes calls.
pub(crate) fn select(wanted: &Wanted, listed: &Listed) -> Result<Selection, Failure> {
    let Wanted { service, requirement, fingerprint } = wanted;
    let meant = |node: &&Arc<Node>| {
        let allowed = requirement.as_ref().is_none_or(|requirement| {
            node.name.version.as_ref().is_some_and(|version| requirement.matches(version))
        });
        service.matches(&node.name) && allowed
    };
    let named = || listed.nodes.iter().filter(meant);
    let serving = || named().filter(|node| node.state == State::Serving);
    // Of those that serve just what the caller was built against, if there are any.
    let exact = fingerprint.is_some() && serving().any(|node| node.fingerprint == *fingerprint);
    let suitable = || serving().filter(|node| !exact || node.fingerprint == *fingerprint);
    let newest = suitable().map(|node| &node.name.version).max();
    let nodes: Vec<Arc<Node>> =
        suitable().filter(|node| Some(&node.name.version) == newest).cloned().collect();
    if !nodes.is_empty() {
        return Ok(Selection { nodes });
    }
    let version = requirement.as_ref().map(|r| format!(" in a version {r}")).unwrap_or_default();
    let reason = match (named().count(), listed.nodes.len()) {
        (0, 0) => String::new(),
        (0, others) => format!("{version} (of {others} others by that short name, none matches)"),
        _ => format!("{version} that takes calls ({})", states(named())),
    };
    Err(Failure::NoEndpoint { service: service.to_string(), reason })
}

/// How many endpoints are in which state: `1 draining, 2 compiling`.
fn states<'n>(nodes: impl Iterator<Item = &'n Arc<Node>>) -> String {
    let mut counts = BTreeMap::<State, usize>::new();
    for node in nodes {
        *counts.entry(node.state).or_default() += 1;
    }
    let texts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    texts.join(", ")
}
