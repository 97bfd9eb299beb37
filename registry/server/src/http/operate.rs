//! For operators and their monitoring: health, readiness, metrics.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use wharf_registry_api::{HostList, HostSummary, RegistryStatus};

use super::parameters::{Nothing, Parameters, query};
use super::{Refused, Source};
use crate::directory::Directory;

/// The process is alive and answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The registry answers lists and takes changes.
pub(super) async fn readyz(State(source): State<Source>) -> (StatusCode, String) {
    match source.directory.readiness() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

pub(super) async fn status(
    State(directory): State<Arc<Directory>>,
    parameters: Parameters<Nothing>,
) -> Result<Json<RegistryStatus>, Refused> {
    query(parameters)?;
    Ok(Json(directory.status()))
}

pub(super) async fn hosts(
    State(directory): State<Arc<Directory>>,
    parameters: Parameters<Nothing>,
) -> Result<Json<HostList>, Refused> {
    query(parameters)?;
    let (index, hosts) = directory.hosts(None);
    let now = SystemTime::now();
    let summary = |host: crate::listing::HostSnapshot| {
        let record = &host.record;
        let ago = host.heard.map(|heard| now.duration_since(heard).unwrap_or_default());
        // Only a registration, which has one endpoint, is checked.
        let only = record.endpoints.first().filter(|_| host.is_classic);
        HostSummary {
            host: host.name.to_string(),
            registration: host.is_classic,
            address: record.address.clone(),
            session: record.session,
            state: only.map_or(record.state, |spec| record.state_of(spec)),
            reason: only.and_then(|spec| spec.reason.clone()),
            endpoints: record.endpoints.len(),
            unverified: host.unverified,
            heard_ms_ago: ago.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            metadata: record.metadata.clone(),
        }
    };
    let mut hosts: Vec<HostSummary> = hosts.into_iter().map(summary).collect();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(Json(HostList { index, hosts }))
}

pub(super) async fn metrics(State(source): State<Source>) -> Response {
    match source.metrics.render(&source.directory.view.census()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
