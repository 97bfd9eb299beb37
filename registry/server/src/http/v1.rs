//! The `/v1` API, except its watch.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use wharf_registry_api::{
    Declaration, EndpointSpec, EndpointState, Heartbeat, HeartbeatReply, Index, Problem,
    StateChange, limits,
};

use super::Refused;
use super::authorize::Caller;
use super::parameters::{Body, Name, Parameters, invalid, path, query, wait};
use crate::directory::Directory;

pub(super) async fn declare(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    host: Name,
    Body(declaration): Body<Declaration>,
) -> Result<Response, Refused> {
    let host = named(host)?;
    caller.may_write(&host)?;
    caller.may_announce(&declaration.endpoints)?;
    let (created, declared) = directory.declare(&host, declaration).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(declared)).into_response())
}

pub(super) async fn heartbeat(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    host: Name,
    Body(heartbeat): Body<Heartbeat>,
) -> Result<Json<HeartbeatReply>, Refused> {
    let host = named(host)?;
    caller.may_write(&host)?;
    session(heartbeat.session)?;
    crate::validate::digest(&heartbeat.digest)?;
    Ok(Json(directory.heartbeat(&host, heartbeat.session, &heartbeat.digest).await?))
}

pub(super) async fn set_state(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    host: Name,
    Body(change): Body<StateChange>,
) -> Result<Json<StateChange>, Refused> {
    let host = named(host)?;
    caller.may_write(&host)?;
    session(change.session)?;
    if !matches!(change.state, EndpointState::Serving | EndpointState::Draining) {
        let message = format!("a host is serving or draining, not {}", change.state);
        return Err(invalid(message).into());
    }
    directory.set_state(&host, change.session, change.state).await?;
    Ok(Json(change))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WithdrawParameters {
    session: String,
}

pub(super) async fn withdraw(
    State(directory): State<Arc<Directory>>,
    Extension(caller): Extension<Caller>,
    host: Name,
    parameters: Parameters<WithdrawParameters>,
) -> Result<StatusCode, Refused> {
    let host = named(host)?;
    caller.may_write(&host)?;
    let text = query(parameters)?.session;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    let number = number.ok_or_else(|| invalid(format!("session={text}: write a number")))?;
    session(number)?;
    directory.withdraw(&host, number).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn named(host: Name) -> Result<String, Problem> {
    let host = path(host)?;
    crate::validate::name("host's name", &host)?;
    Ok(host)
}

fn session(session: u64) -> Result<(), Problem> {
    crate::validate::session(session)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServicesParameters {
    index: Option<String>,
    wait: Option<String>,
}

pub(super) async fn services(
    State(directory): State<Arc<Directory>>,
    headers: HeaderMap,
    parameters: Parameters<ServicesParameters>,
) -> Result<Response, Refused> {
    let parameters = query(parameters)?;
    if let Some((index, wait)) = wait(parameters.index.as_deref(), parameters.wait.as_deref())?
        && !directory.newer_than(None, index, wait).await?
    {
        return Ok(not_modified(index));
    }
    let list = directory.services();
    if is_known(&headers, list.index) {
        return Ok(not_modified(list.index));
    }
    Ok((etag(list.index), Json(list)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointsParameters {
    version: Option<String>,
    fingerprint: Option<String>,
    state: Option<String>,
    passing: Option<String>,
    tag: Option<String>,
    index: Option<String>,
    wait: Option<String>,
}

/// Which endpoints are asked for.
struct Filter {
    version: Option<semver::VersionReq>,
    fingerprint: Option<String>,
    state: Option<EndpointState>,
    tag: Option<String>,
}

impl Filter {
    fn new(parameters: &EndpointsParameters) -> Result<Self, Problem> {
        let passing = match parameters.passing.as_deref() {
            None | Some("0" | "false") => false,
            Some("" | "1" | "true") => true,
            Some(other) => {
                return Err(invalid(format!("passing={other}: write passing=1 or leave it out")));
            }
        };
        let version = parameters.version.as_deref().map(|text| {
            if text.len() > limits::NAME {
                return Err(invalid("version: it is too long for a requirement"));
            }
            semver::VersionReq::parse(text).map_err(|error| {
                invalid(format!("version={text}: {error}; write a requirement like ^0.1 or =0.1.0"))
            })
        });
        let state = match parameters.state.as_deref() {
            None => passing.then_some(EndpointState::Serving),
            Some(_) if passing => {
                return Err(invalid("passing=1 means state=serving: leave one of them out"));
            }
            Some(text) => Some(EndpointState::parse(text).ok_or_else(|| {
                invalid(format!("state={text}: write serving, draining, compiling or refused"))
            })?),
        };
        if let Some(fingerprint) = &parameters.fingerprint {
            crate::validate::fingerprint(fingerprint)?;
        }
        parameters.tag.as_deref().map_or(Ok(()), crate::validate::tag)?;
        Ok(Filter {
            version: version.transpose()?,
            fingerprint: parameters.fingerprint.as_deref().map(str::to_ascii_lowercase),
            state,
            tag: parameters.tag.clone(),
        })
    }

    fn is_none(&self) -> bool {
        let Filter { version, fingerprint, state, tag } = self;
        version.is_none() && fingerprint.is_none() && state.is_none() && tag.is_none()
    }

    fn matches(&self, spec: &EndpointSpec, state: EndpointState) -> bool {
        let Filter { version, fingerprint, state: wanted, tag } = self;
        let of_version = version.as_ref().is_none_or(|wanted| {
            let found = spec.version.as_deref().and_then(|v| semver::Version::parse(v).ok());
            found.is_some_and(|found| wanted.matches(&found))
        });
        of_version
            && wanted.is_none_or(|wanted| state == wanted)
            && fingerprint.as_ref().is_none_or(|f| spec.fingerprint.eq_ignore_ascii_case(f))
            && tag.as_ref().is_none_or(|tag| spec.tags.contains(tag))
    }
}

pub(super) async fn endpoints(
    State(directory): State<Arc<Directory>>,
    headers: HeaderMap,
    service: Name,
    parameters: Parameters<EndpointsParameters>,
) -> Result<Response, Refused> {
    let service = crate::validate::service(&path(service)?)?;
    let parameters = query(parameters)?;
    let filter = Filter::new(&parameters)?;
    if let Some((index, wait)) = wait(parameters.index.as_deref(), parameters.wait.as_deref())?
        && !directory.newer_than(Some(&service), index, wait).await?
    {
        return Ok(not_modified(index));
    }
    if filter.is_none() {
        let (index, body) = directory.endpoints_body(&service)?;
        if is_known(&headers, index) {
            return Ok(not_modified(index));
        }
        return Ok((etag(index), JsonBytes(body)).into_response());
    }
    let list = directory.endpoints(&service, |spec, state| filter.matches(spec, state));
    Ok((etag(list.index), Json(list)).into_response())
}

/// JSON that is already encoded.
struct JsonBytes(Bytes);

impl IntoResponse for JsonBytes {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// Whether a caller already holds the list with this index.
fn is_known(headers: &HeaderMap, index: Index) -> bool {
    let held = headers.get(header::IF_NONE_MATCH).and_then(|held| held.to_str().ok());
    held.is_some_and(|held| {
        held.trim().trim_start_matches("W/").trim_matches('"') == index.to_string()
    })
}

fn not_modified(index: Index) -> Response {
    (StatusCode::NOT_MODIFIED, etag(index)).into_response()
}

fn etag(index: Index) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("\"{index}\""));
    value.map(|value| HeaderMap::from_iter([(header::ETAG, value)])).unwrap_or_default()
}
