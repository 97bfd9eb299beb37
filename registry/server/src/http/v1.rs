//! The `/v1` API.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wharf_registry_api::{
    Code, Declaration, Heartbeat, HeartbeatReply, Index, Problem, State as HostState, StateChange,
    limits,
};

use super::Refused;
use crate::registry::Registry;

type Body = Result<Bytes, BytesRejection>;
type HostName = Result<Path<String>, PathRejection>;
type Parameters<T> = Result<Query<T>, QueryRejection>;

/// How long a list waits for a change when its caller names no time.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);

pub(super) async fn declare(
    State(registry): State<Arc<Registry>>,
    host: HostName,
    body: Body,
) -> Result<Response, Refused> {
    let (created, declared) = registry.declare(&path(host)?, json::<Declaration>(body)?)?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(declared)).into_response())
}

pub(super) async fn heartbeat(
    State(registry): State<Arc<Registry>>,
    host: HostName,
    body: Body,
) -> Result<Json<HeartbeatReply>, Refused> {
    let heartbeat: Heartbeat = json(body)?;
    Ok(Json(registry.heartbeat(&path(host)?, heartbeat.session, &heartbeat.digest)?))
}

pub(super) async fn set_state(
    State(registry): State<Arc<Registry>>,
    host: HostName,
    body: Body,
) -> Result<Json<StateChange>, Refused> {
    let change: StateChange = json(body)?;
    if !matches!(change.state, HostState::Serving | HostState::Draining) {
        let message = format!("a host is serving or draining, and not {}", change.state);
        return Err(invalid(message).into());
    }
    registry.set_state(&path(host)?, change.session, change.state)?;
    Ok(Json(change))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WithdrawParameters {
    session: u64,
}

pub(super) async fn withdraw(
    State(registry): State<Arc<Registry>>,
    host: HostName,
    parameters: Parameters<WithdrawParameters>,
) -> Result<StatusCode, Refused> {
    registry.withdraw(&path(host)?, query(parameters)?.session)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServicesParameters {
    index: Option<String>,
    wait: Option<String>,
}

pub(super) async fn services(
    State(registry): State<Arc<Registry>>,
    parameters: Parameters<ServicesParameters>,
) -> Result<Response, Refused> {
    let parameters = query(parameters)?;
    if let Some((index, wait)) = wait(parameters.index.as_deref(), parameters.wait.as_deref())?
        && !registry.newer_than(None, index, wait).await?
    {
        return Ok(not_modified(index));
    }
    let list = registry.services();
    Ok((etag(list.index), Json(list)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointsParameters {
    version: Option<String>,
    passing: Option<String>,
    index: Option<String>,
    wait: Option<String>,
}

pub(super) async fn endpoints(
    State(registry): State<Arc<Registry>>,
    service: HostName,
    parameters: Parameters<EndpointsParameters>,
) -> Result<Response, Refused> {
    let service = crate::kebab(&path(service)?);
    crate::validate::name("service's name", &service)?;
    let parameters = query(parameters)?;
    let passing = match parameters.passing.as_deref() {
        None | Some("0" | "false") => false,
        Some("" | "1" | "true") => true,
        Some(other) => {
            return Err(invalid(format!("passing={other}: write passing=1 or leave it out")).into());
        }
    };
    let version = parameters.version.as_deref().map(|text| {
        semver::VersionReq::parse(text).map_err(|error| {
            invalid(format!("version={text}: {error}; write a requirement like ^0.1 or =0.1.0"))
        })
    });
    let version = version.transpose()?;
    if let Some((index, wait)) = wait(parameters.index.as_deref(), parameters.wait.as_deref())?
        && !registry.newer_than(Some(&service), index, wait).await?
    {
        return Ok(not_modified(index));
    }
    let list = registry.endpoints(&service, |spec, state| {
        let of_version = version.as_ref().is_none_or(|wanted| {
            let found = spec.version.as_deref().and_then(|v| semver::Version::parse(v).ok());
            found.is_some_and(|found| wanted.matches(&found))
        });
        of_version && (!passing || state == HostState::Serving)
    });
    Ok((etag(list.index), Json(list)).into_response())
}

/// `index` and `wait`, as a blocking query has them.
fn wait(index: Option<&str>, wait: Option<&str>) -> Result<Option<(Index, Duration)>, Problem> {
    let Some(index) = index else {
        return match wait {
            None => Ok(None),
            Some(_) => Err(invalid("wait needs the index of an earlier answer beside it")),
        };
    };
    let index = index.parse().map_err(|error| invalid(format!("index={index}: {error}")))?;
    let wait = match wait {
        None => DEFAULT_WAIT,
        Some(text) => humantime::parse_duration(text).map_err(|error| {
            invalid(format!("wait={text}: {error}; write it like 30s or 1500ms"))
        })?,
    };
    Ok(Some((index, wait.min(limits::WAIT))))
}

fn not_modified(index: Index) -> Response {
    (StatusCode::NOT_MODIFIED, etag(index)).into_response()
}

fn etag(index: Index) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("\"{index}\""));
    value.map(|value| HeaderMap::from_iter([(header::ETAG, value)])).unwrap_or_default()
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Invalid, detail)
}

fn path(path: HostName) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|rejection| invalid(rejection.body_text()))
}

fn query<T>(query: Parameters<T>) -> Result<T, Problem> {
    query.map(|Query(parameters)| parameters).map_err(|rejection| invalid(rejection.body_text()))
}

fn json<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(Code::TooLarge, format!("a body may have at most {} bytes", limits::BODY))
        }
        _ => invalid(rejection.body_text()),
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| invalid(format!("the body is not what this path takes: {error}")))
}
