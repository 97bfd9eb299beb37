//! Services with their checks, and checks by themselves. Watchers such as Traefik, fabio and
//! consul_exporter follow the latter to notice that instances come and go.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use wharf_registry_api::{Code, Problem};

use super::query::{Knows, Query};
use super::shapes::{self, Entry, node, node_check};
use super::{Kept, answer, headers, list, wait};
use crate::directory::Directory;
use crate::http::parameters::{Name, invalid, path};
use crate::http::{Refused, Source};
use crate::listing::HostSnapshot;
use crate::view::Scope;

/// A service's endpoints with their nodes and checks.
pub(super) async fn service(
    State(Source { directory, consul, .. }): State<Source>,
    name: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let knows = Knows { tags: true, passing: true, filter: Some(shapes::HEALTH) };
    let query = Query::parse(query.as_deref(), knows)?;
    let service = crate::validate::service(&path(name)?)?;
    let scope = Scope::Service(&service);
    wait(&directory, scope, &query).await?;
    let plain = query.is_plain();
    if plain && let Some(kept) = kept(&directory, &consul, &service, &query) {
        return Ok(kept);
    }
    let (index, hosts) = directory.listed(scope);
    let entries = entries(&hosts, &service, &query);
    query.finished()?;
    let body = serde_json::to_vec(&entries).map(Bytes::from).map_err(|error| {
        Problem::new(Code::Other, format!("the list cannot be written: {error}"))
    })?;
    if plain {
        consul.keep(&service, query.passing, index, body.clone());
    }
    Ok(encoded(&directory, index, body))
}

/// The answer that was encoded for the list's index, if there is one.
fn kept(directory: &Directory, consul: &Kept, service: &str, query: &Query) -> Option<Response> {
    let index = directory.plain_index(Scope::Service(service));
    let body = consul.get(service, query.passing, index)?;
    Some(encoded(directory, index, body))
}

fn encoded(directory: &Directory, index: u64, body: Bytes) -> Response {
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (headers(directory, index), json, body).into_response()
}

fn entries(hosts: &[HostSnapshot], service: &str, query: &Query) -> Vec<Value> {
    let mut hosts: Vec<&HostSnapshot> = hosts.iter().filter(|host| query.takes(host)).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let wanted = |entry: &Entry<'_>| {
        let spec = &entry.endpoint.spec;
        spec.service == service && query.tags.iter().all(|tag| spec.tags.contains(tag))
    };
    let all = hosts.into_iter().flat_map(Entry::of).filter(wanted).map(|entry| {
        let mut checks = vec![node_check(entry.host)];
        checks.extend(entry.checks());
        json!({ "Node": node(entry.host), "Service": entry.service(), "Checks": checks })
    });
    let passes = |entry: &Value| {
        let checks = entry["Checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        checks.iter().all(|check| check["Status"] == "passing")
    };
    all.filter(|entry| !query.passing || passes(entry))
        .filter(|entry| query.filters_in(entry))
        .collect()
}

const CHECKS: Knows = Knows { tags: false, passing: false, filter: Some(shapes::CHECKS) };

/// All checks in a state, or in any.
pub(super) async fn in_state(
    State(directory): State<Arc<Directory>>,
    state: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let (state, query) = (path(state)?, Query::parse(query.as_deref(), CHECKS)?);
    check_state(&state)?;
    let (index, hosts) = list(&directory, Scope::All, &query).await?;
    let mut checks: Vec<Value> = hosts.iter().flat_map(of_host).collect();
    checks.retain(|check| (state == "any" || check["Status"] == *state) && query.filters_in(check));
    query.finished()?;
    Ok(answer(&directory, index, checks))
}

/// The checks of a service's endpoints.
pub(super) async fn of_service(
    State(directory): State<Arc<Directory>>,
    service: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::parse(query.as_deref(), CHECKS)?;
    let service = crate::validate::service(&path(service)?)?;
    let (index, hosts) = list(&directory, Scope::Service(&service), &query).await?;
    let entries = hosts.iter().flat_map(Entry::of);
    let entries = entries.filter(|entry| entry.endpoint.spec.service == service);
    let mut checks: Vec<Value> = entries.flat_map(|entry| entry.checks()).collect();
    checks.retain(|check| query.filters_in(check));
    query.finished()?;
    Ok(answer(&directory, index, checks))
}

/// The checks of a node: its own, and those of its endpoints.
pub(super) async fn of_node(
    State(directory): State<Arc<Directory>>,
    node: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let (node, query) = (path(node)?, Query::parse(query.as_deref(), CHECKS)?);
    let (index, hosts) = list(&directory, Scope::Node(&node), &query).await?;
    let own = hosts.first().map(node_check);
    let rest = hosts.iter().flat_map(Entry::of).flat_map(|entry| entry.checks());
    let mut checks: Vec<Value> = own.into_iter().chain(rest).collect();
    checks.retain(|check| query.filters_in(check));
    query.finished()?;
    Ok(answer(&directory, index, checks))
}

fn of_host(host: &HostSnapshot) -> Vec<Value> {
    let checks = Entry::of(host).flat_map(|entry| entry.checks());
    std::iter::once(node_check(host)).chain(checks).collect()
}

fn check_state(state: &str) -> Result<(), Problem> {
    match state {
        "any" | "passing" | "warning" | "critical" => Ok(()),
        other => Err(invalid(format!(
            "'{other}' is no state of a check: ask for any, passing, warning or critical"
        ))),
    }
}
