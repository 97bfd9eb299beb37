//! Checks by themselves: what watchers such as Traefik, fabio and consul_exporter follow to notice that
//! instances come and go.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde_json::Value;
use wharf_registry_api::Problem;

use super::super::Refused;
use super::super::parameters::{Name, invalid, path};
use super::{Knows, Query, answer, entries, list, node_check, service_check};
use crate::directory::Directory;
use crate::listing::{self, HostSnapshot};

/// All checks in a state, or in any.
pub(in super::super) async fn in_state(
    State(directory): State<Arc<Directory>>,
    state: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let (state, query) = (path(state)?, Query::parse(query.as_deref(), Knows::Nodes)?);
    check_state(&state)?;
    let (index, hosts) = list(&directory, None, &query).await?;
    let mut checks: Vec<Value> = hosts.iter().flat_map(of_host).collect();
    checks.retain(|check| state == "any" || check["Status"] == *state);
    Ok(answer(&directory, index, checks))
}

/// The checks of a service's endpoints.
pub(in super::super) async fn of_service(
    State(directory): State<Arc<Directory>>,
    service: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::parse(query.as_deref(), Knows::Services)?;
    let (index, entries) = entries(&directory, &path(service)?, &query).await?;
    let checks: Vec<Value> = entries.iter().map(|(_, endpoint)| service_check(endpoint)).collect();
    Ok(answer(&directory, index, checks))
}

/// The checks of a node: its own, and those of its endpoints.
pub(in super::super) async fn of_node(
    State(directory): State<Arc<Directory>>,
    node: Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let (node, query) = (path(node)?, Query::parse(query.as_deref(), Knows::Nodes)?);
    let (index, hosts) = list(&directory, None, &query).await?;
    let host = hosts.iter().find(|host| *host.name == *node);
    Ok(answer(&directory, index, host.map(of_host).unwrap_or_default()))
}

fn of_host(host: &HostSnapshot) -> Vec<Value> {
    let endpoint = |spec| {
        let endpoint = listing::endpoint(&host.name, &host.record, spec);
        service_check(&endpoint)
    };
    std::iter::once(node_check(host)).chain(host.record.endpoints.iter().map(endpoint)).collect()
}

fn check_state(state: &str) -> Result<(), Problem> {
    match state {
        "any" | "passing" | "warning" | "critical" | "maintenance" => Ok(()),
        other => Err(invalid(format!(
            "'{other}' is no state of a check: ask for any, passing, warning or critical"
        ))),
    }
}
