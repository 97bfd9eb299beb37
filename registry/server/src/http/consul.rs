//! Consul's read API, for programs that can already ask Consul: Prometheus, consul-template,
//! Traefik, client libraries. A host is a node. An endpoint is a service with a check.
//!
//! A parameter that is not supported is refused: if a filter were ignored, the answer would contain
//! too much. <https://developer.hashicorp.com/consul/api-docs>

pub(super) mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use wharf_registry_api::{Code, Endpoint, EndpointState, Problem, limits};

use super::Refused;
use super::parameters::{Name, invalid, path};
use crate::directory::Directory;
use crate::listing::{self, HostSnapshot};

/// The only datacenter. Consul's API needs a name for it.
const DATACENTER: &str = "dc1";

/// How long a query waits if it names no time (as long as in Consul), and at most.
const WAITS: (Duration, Duration) = (Duration::from_secs(300), limits::WAIT);

/// The most parameters of a query.
const MAX_PARAMETERS: usize = 64;

/// What a query asks for.
#[derive(Default)]
struct Query {
    index: Option<u64>,
    wait: Option<Duration>,
    tags: Vec<String>,
    node_meta: Vec<(String, String)>,
    passing: bool,
    consistent: bool,
}

/// Which parameters a path knows, besides those that all paths know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knows {
    Nodes,
    Services,
    Health,
}

impl Query {
    fn parse(query: Option<&str>, knows: Knows) -> Result<Self, Problem> {
        let mut parsed = Query::default();
        let pairs = form(query.unwrap_or_default())?;
        for (name, value) in pairs {
            match name.as_str() {
                "index" => {
                    let index = value
                        .parse()
                        .map_err(|_| invalid(format!("index={value}: write a number")));
                    parsed.index = Some(index?);
                }
                "wait" => {
                    let wait = humantime::parse_duration(&value).map_err(|error| {
                        invalid(format!("wait={value}: {error}; write it like 30s or 120000ms"))
                    });
                    parsed.wait = Some(wait?.min(WAITS.1));
                }
                // Every answer is as new as the registry knows.
                "stale" | "cached" | "pretty" => {}
                // The order of an answer means nothing here.
                "near" if value == "_agent" => {}
                "consistent" => parsed.consistent = true,
                "dc" if value.is_empty() || value == DATACENTER => {}
                "ns" | "partition" if value.is_empty() || value == "default" => {}
                "tag" if knows != Knows::Nodes => parsed.tags.push(value),
                "node-meta" => {
                    let (name, value) = value
                        .split_once(':')
                        .ok_or_else(|| invalid(format!("node-meta={value}: write NAME:VALUE")))?;
                    parsed.node_meta.push((name.to_owned(), value.to_owned()));
                }
                "passing" if knows == Knows::Health => {
                    parsed.passing = match value.as_str() {
                        "" | "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(invalid(format!("passing={value}: write passing=1"))),
                    };
                }
                _ => {
                    return Err(invalid(format!(
                        "this registry does not support Consul's parameter {name}={value} here: leave it out"
                    )));
                }
            }
        }
        if parsed.wait.is_some() && parsed.index.is_none() {
            // As in Consul: without an index there is nothing to wait for.
            parsed.wait = None;
        }
        Ok(parsed)
    }

    fn takes(&self, host: &HostSnapshot) -> bool {
        let metadata = &host.record.metadata;
        self.node_meta.iter().all(|(name, value)| metadata.get(name) == Some(value))
    }
}

/// A query's pairs, which may repeat a name.
fn form(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let url = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build();
    let url = url.map_err(|error| invalid(format!("the query cannot be read: {error}")))?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&url);
    let axum::extract::Query(pairs) = pairs.map_err(|rejection| invalid(rejection.body_text()))?;
    if pairs.len() > MAX_PARAMETERS {
        return Err(invalid(format!("a query of more than {MAX_PARAMETERS} parameters")));
    }
    Ok(pairs)
}

/// An answer with Consul's headers. Its clients refuse an answer that lacks some of them.
fn answer(directory: &Directory, index: u64, body: impl Serialize) -> Response {
    let known = if directory.readiness().is_ok() { "true" } else { "false" };
    let mut headers = HeaderMap::new();
    headers.insert("x-consul-index", HeaderValue::from(index));
    headers.insert("x-consul-knownleader", HeaderValue::from_static(known));
    headers.insert("x-consul-lastcontact", HeaderValue::from_static("0"));
    (headers, Json(body)).into_response()
}

/// Waits as long as a query asks for. Then lists the hosts of a service, or all hosts, with the
/// index of the list.
async fn list(
    directory: &Directory,
    service: Option<&str>,
    query: &Query,
) -> Result<(u64, Vec<HostSnapshot>), Problem> {
    directory.settled()?;
    if let Err(why) = directory.readiness()
        && query.consistent
    {
        return Err(Problem::new(Code::StoreUnavailable, why.into_owned()));
    }
    if let Some(index) = query.index.filter(|index| *index > 0) {
        let wait = query.wait.unwrap_or(WAITS.0);
        directory.other_than(service, index, wait).await?;
    }
    let (index, mut hosts) = directory.hosts(service);
    hosts.retain(|host| query.takes(host));
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((directory.plain_index(index), hosts))
}

pub(super) async fn agent(RawQuery(query): RawQuery) -> Result<Json<Value>, Refused> {
    Query::parse(query.as_deref(), Knows::Nodes)?;
    let name = "wharf-registry";
    Ok(Json(json!({
        "Config": {
            "Datacenter": DATACENTER,
            "PrimaryDatacenter": DATACENTER,
            "NodeName": name,
            "NodeID": uuid(name),
            "Server": true,
            "Revision": "",
            "Version": env!("CARGO_PKG_VERSION"),
        },
        "Member": { "Name": name, "Addr": "127.0.0.1", "Tags": {}, "Status": 1 },
        "Meta": {},
        "Stats": {},
    })))
}

pub(super) async fn leader() -> Json<&'static str> {
    Json("127.0.0.1:8300")
}

pub(super) async fn peers() -> Json<[&'static str; 1]> {
    Json(["127.0.0.1:8300"])
}

pub(super) async fn datacenters() -> Json<[&'static str; 1]> {
    Json([DATACENTER])
}

/// Names of services, each with all its tags.
pub(super) async fn services(
    State(directory): State<Arc<Directory>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::parse(query.as_deref(), Knows::Nodes)?;
    let (index, hosts) = list(&directory, None, &query).await?;
    let mut services = BTreeMap::<&str, BTreeSet<&str>>::new();
    for spec in hosts.iter().flat_map(|host| &host.record.endpoints) {
        let tags = services.entry(&spec.service).or_default();
        tags.extend(spec.tags.iter().map(String::as_str));
    }
    Ok(answer(&directory, index, services))
}

pub(super) async fn nodes(
    State(directory): State<Arc<Directory>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::parse(query.as_deref(), Knows::Nodes)?;
    let (index, hosts) = list(&directory, None, &query).await?;
    Ok(answer(&directory, index, hosts.iter().map(node_json).collect::<Vec<_>>()))
}

pub(super) async fn node(
    State(directory): State<Arc<Directory>>,
    name: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let (name, query) = (path(name)?, Query::parse(query.as_deref(), Knows::Nodes)?);
    let (index, hosts) = list(&directory, None, &query).await?;
    let Some(host) = hosts.iter().find(|host| *host.name == *name) else {
        return Ok(answer(&directory, index, Value::Null));
    };
    let services: BTreeMap<String, Value> = host
        .record
        .endpoints
        .iter()
        .map(|spec| {
            let endpoint = listing::endpoint(&host.name, &host.record, spec);
            (service_id(&endpoint), service_json(&endpoint))
        })
        .collect();
    Ok(answer(&directory, index, json!({ "Node": node_json(host), "Services": services })))
}

/// A service's endpoints, each in one flat object with its node.
pub(super) async fn service(
    State(directory): State<Arc<Directory>>,
    name: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::parse(query.as_deref(), Knows::Services)?;
    let (index, entries) = entries(&directory, &path(name)?, &query).await?;
    let entry = |(host, endpoint): &(HostSnapshot, Endpoint)| {
        let mut entry = node_json(host);
        let service = service_json(endpoint);
        if let (Value::Object(entry), Value::Object(service)) = (&mut entry, service) {
            entry.insert("NodeMeta".to_owned(), json!(host.record.metadata));
            for (name, value) in service {
                let name = match name.as_str() {
                    "Service" => "ServiceName".to_owned(),
                    _ => format!("Service{name}"),
                };
                entry.insert(name, value);
            }
        }
        entry
    };
    Ok(answer(&directory, index, entries.iter().map(entry).collect::<Vec<_>>()))
}

/// A service's endpoints with their nodes and checks.
pub(super) async fn health(
    State(directory): State<Arc<Directory>>,
    name: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::parse(query.as_deref(), Knows::Health)?;
    let (index, entries) = entries(&directory, &path(name)?, &query).await?;
    let entry = |(host, endpoint): &(HostSnapshot, Endpoint)| {
        json!({
            "Node": node_json(host),
            "Service": service_json(endpoint),
            "Checks": [node_check(host), service_check(endpoint)],
        })
    };
    Ok(answer(&directory, index, entries.iter().map(entry).collect::<Vec<_>>()))
}

async fn entries(
    directory: &Directory,
    service: &str,
    query: &Query,
) -> Result<(u64, Vec<(HostSnapshot, Endpoint)>), Problem> {
    let service = crate::validate::service(service)?;
    let (index, hosts) = list(directory, Some(&service), query).await?;
    let mut entries = Vec::new();
    for host in hosts {
        let one = [host];
        let wanted: Vec<Endpoint> = listing::endpoints(&one, &service, |spec, state| {
            query.tags.iter().all(|tag| spec.tags.contains(tag))
                && (!query.passing || state == EndpointState::Serving)
        })
        .collect();
        let [host] = one;
        entries.extend(wanted.into_iter().map(|endpoint| (host.clone(), endpoint)));
    }
    Ok((index, entries))
}

fn node_json(host: &HostSnapshot) -> Value {
    let (address, _) = split(&host.record.address);
    json!({
        "ID": uuid(&host.name),
        "Node": &*host.name,
        "Address": address,
        "Datacenter": DATACENTER,
        "TaggedAddresses": { "lan": address, "wan": address },
        "Meta": host.record.metadata,
        "CreateIndex": 1,
        "ModifyIndex": 1,
    })
}

fn service_json(endpoint: &Endpoint) -> Value {
    let (address, port) = split(&endpoint.address);
    let mut meta = endpoint.spec.metadata.clone();
    let own = [
        ("version", endpoint.spec.version.as_deref()),
        ("package", endpoint.spec.package.as_deref()),
        ("fingerprint", Some(endpoint.spec.fingerprint.as_str())),
    ];
    for (name, value) in own {
        if let Some(value) = value {
            meta.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    json!({
        "ID": service_id(endpoint),
        "Service": endpoint.spec.service,
        "Tags": endpoint.spec.tags,
        "Address": address,
        "Port": port,
        "Meta": meta,
        "Weights": { "Passing": 1, "Warning": 1 },
        "TaggedAddresses": { "lan": { "Address": address, "Port": port } },
        "EnableTagOverride": false,
        "CreateIndex": 1,
        "ModifyIndex": 1,
    })
}

/// This check always passes. If the registry does not hear a host, that is no reason to send its
/// callers away: they notice sooner than the registry whether the host is gone.
fn node_check(host: &HostSnapshot) -> Value {
    let output = if host.unverified { "not heard lately" } else { "heard within its time to live" };
    check(&host.name, "serfHealth", "Registry's hearing", "passing", output, None)
}

fn service_check(endpoint: &Endpoint) -> Value {
    let status = if endpoint.state == EndpointState::Serving { "passing" } else { "critical" };
    let mut output = endpoint.state.to_string();
    if let Some(reason) = &endpoint.spec.reason {
        output = format!("{output}: {reason}");
    }
    let id = format!("service:{}", service_id(endpoint));
    check(&endpoint.host, &id, "Service's state", status, &output, Some(endpoint))
}

fn check(
    node: &str,
    id: &str,
    name: &str,
    status: &str,
    output: &str,
    endpoint: Option<&Endpoint>,
) -> Value {
    json!({
        "Node": node,
        "CheckID": id,
        "Name": name,
        "Status": status,
        "Notes": "",
        "Output": output,
        "ServiceID": endpoint.map(service_id).unwrap_or_default(),
        "ServiceName": endpoint.map(|e| e.spec.service.as_str()).unwrap_or_default(),
        "ServiceTags": endpoint.map(|e| e.spec.tags.as_slice()).unwrap_or_default(),
        "Type": "ttl",
        "CreateIndex": 1,
        "ModifyIndex": 1,
    })
}

fn service_id(endpoint: &Endpoint) -> String {
    let Endpoint { spec, host, .. } = endpoint;
    let mut id = format!("{host}/{}", spec.service);
    if let Some(package) = &spec.package {
        id = format!("{host}/{package}/{}", spec.service);
    }
    if let Some(version) = &spec.version {
        id = format!("{id}@{version}");
    }
    id
}

/// Host and port of an address, which was checked when it was declared.
fn split(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, port.parse().unwrap_or(0))
}

/// A stable id for a name, in the form of Consul's ids.
fn uuid(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let part = |from: usize, to: usize| &hash[from..to];
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_answered_or_refused_and_never_passed_over() {
        let query = "index=7&wait=120000ms&stale=&dc=dc1&ns=default&tag=a&tag=b&node-meta=zone:z1&passing=1";
        let parsed = Query::parse(Some(query), Knows::Health).ok().unwrap();
        assert_eq!((parsed.index, parsed.wait), (Some(7), Some(Duration::from_secs(120))));
        assert_eq!(parsed.tags, ["a", "b"]);
        assert!(parsed.passing);
        for (query, knows) in [
            ("filter=x", Knows::Health),
            ("near=elsewhere", Knows::Health),
            ("dc=elsewhere", Knows::Nodes),
            ("ns=other", Knows::Nodes),
            ("tag=a", Knows::Nodes),
            ("passing=1", Knows::Services),
            ("passing=maybe", Knows::Health),
            ("index=-1", Knows::Nodes),
            ("wait=soon", Knows::Nodes),
            ("node-meta=zone", Knows::Nodes),
            ("merge-central-config=", Knows::Health),
        ] {
            assert!(Query::parse(Some(query), knows).is_err(), "{query}");
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(split("10.0.0.7:7400"), ("10.0.0.7", 7400));
        assert_eq!(split("[::1]:7400"), ("::1", 7400));
        assert_eq!(uuid("h").len(), 36);
    }
}
