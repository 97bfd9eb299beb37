//! Consul's API, for programs that can already talk to Consul: Prometheus, consul-template, Traefik,
//! frameworks that register themselves. A host is a node, an endpoint is a service with a check. What is
//! registered here is a classic registration with checks.
//!
//! A parameter that is not supported is refused: if a filter were ignored, the answer would contain
//! too much. What the registry does not have at all (keys and values, sessions) says so.
//! <https://developer.hashicorp.com/consul/api-docs>

mod absent;
mod agent;
mod catalog;
mod definition;
mod filter;
mod health;
mod kept;
mod query;
mod shapes;

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, put};
use serde::Serialize;
use wharf_registry_api::{Code, Problem, limits};

use self::query::Query;
use super::Source;
use crate::directory::Directory;
use crate::listing::HostSnapshot;
use crate::view::Scope;

pub(super) use definition::{Asking, classic_check};
pub(super) use kept::Kept;

/// The only datacenter. Consul's API needs a name for it.
pub(crate) const DATACENTER: &str = "dc1";

/// How long a query waits if it names no time (as long as in Consul), and at most.
const WAITS: (Duration, Duration) = (Duration::from_secs(300), limits::WAIT);

pub(super) fn routes() -> Router<Source> {
    let mut routes = Router::new()
        .route("/v1/agent/self", get(agent::about))
        .route("/v1/agent/members", get(agent::members))
        .route("/v1/agent/services", get(agent::services))
        .route("/v1/agent/checks", get(agent::checks))
        .route("/v1/agent/service/{id}", get(agent::service))
        .route("/v1/agent/service/register", put(agent::register))
        .route("/v1/agent/service/deregister/{id}", put(agent::deregister))
        .route("/v1/agent/service/maintenance/{id}", put(agent::maintenance))
        .route("/v1/agent/check/register", put(agent::add_check))
        .route("/v1/agent/check/deregister/{id}", put(agent::remove_check))
        .route("/v1/agent/check/pass/{id}", put(agent::pass))
        .route("/v1/agent/check/warn/{id}", put(agent::warn))
        .route("/v1/agent/check/fail/{id}", put(agent::fail))
        .route("/v1/agent/check/update/{id}", put(agent::update))
        .route("/v1/status/leader", get(catalog::leader))
        .route("/v1/status/peers", get(catalog::peers))
        .route("/v1/catalog/datacenters", get(catalog::datacenters))
        .route("/v1/catalog/services", get(catalog::services))
        .route("/v1/catalog/service/{name}", get(catalog::service))
        .route("/v1/catalog/nodes", get(catalog::nodes))
        .route("/v1/catalog/node/{name}", get(catalog::node))
        .route("/v1/catalog/register", put(catalog::register))
        .route("/v1/catalog/deregister", put(catalog::deregister))
        .route("/v1/health/service/{name}", get(health::service))
        .route("/v1/health/state/{state}", get(health::in_state))
        .route("/v1/health/checks/{name}", get(health::of_service))
        .route("/v1/health/node/{name}", get(health::of_node));
    for path in absent::PATHS {
        routes = routes.route(path, any(absent::answer));
    }
    routes
}

/// An answer with Consul's headers. Its clients refuse an answer that lacks some of them.
fn answer(directory: &Directory, index: u64, body: impl Serialize) -> Response {
    (headers(directory, index), Json(body)).into_response()
}

fn headers(directory: &Directory, index: u64) -> HeaderMap {
    let known = if directory.readiness().is_ok() { "true" } else { "false" };
    let mut headers = HeaderMap::new();
    headers.insert("x-consul-index", HeaderValue::from(index));
    headers.insert("x-consul-knownleader", HeaderValue::from_static(known));
    headers.insert("x-consul-lastcontact", HeaderValue::from_static("0"));
    headers
}

/// Waits as long as a query asks for.
async fn wait(directory: &Directory, scope: Scope<'_>, query: &Query) -> Result<(), Problem> {
    directory.settled()?;
    if query.consistent
        && let Err(why) = directory.readiness()
    {
        return Err(Problem::new(Code::StoreUnavailable, why.into_owned()));
    }
    if let Some(index) = query.index.filter(|index| *index > 0) {
        let wait = query.wait.unwrap_or(WAITS.0);
        directory.other_than(scope, index, wait).await?;
    }
    Ok(())
}

/// Waits as long as a query asks for. Then lists hosts, with the index of the list.
async fn list(
    directory: &Directory,
    scope: Scope<'_>,
    query: &Query,
) -> Result<(u64, Vec<HostSnapshot>), Problem> {
    wait(directory, scope, query).await?;
    let (index, mut hosts) = directory.listed(scope);
    hosts.retain(|host| query.takes(host));
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((index, hosts))
}
