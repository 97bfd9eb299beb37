//! Parses what comes with a request, with limits and clear errors.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, Path, Query, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use wharf_registry_api::{Code, Index, Problem, limits};

use super::Refused;

pub(super) type Name = Result<Path<String>, PathRejection>;
pub(super) type Parameters<T> = Result<Query<T>, QueryRejection>;

/// The parameters of a path that has none.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// The most parameters of a query.
const MAX_PARAMETERS: usize = 64;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How long a list waits for a change when its caller names no time.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);

/// A body of up to this size, in bytes, is always read at once. Heartbeats are smaller.
const SMALL: u64 = 64 * 1024;

/// How many larger bodies may be read at the same time.
static LARGE: Semaphore = Semaphore::const_new(32);

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

/// A body of JSON of a path whose bodies are small, so that reading one takes no place of a large one.
pub(super) struct SmallBody<T>(pub(super) T);

/// Any body, whatever its type is said to be.
pub(super) struct Anything(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Anything {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        arriving(request, state).await.map(Anything)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for SmallBody<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        plain(request.headers())?;
        let body = in_time(Bytes::from_request(request, state)).await?;
        read(&body).map(SmallBody)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        read(&arriving(request, state).await?).map(Body)
    }
}

/// Waits for a body. Large ones have to wait for a place.
async fn arriving<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refused> {
    plain(request.headers())?;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    in_time(async {
        // The semaphore is never closed.
        let _place = match length {
            Some(0..=SMALL) => None,
            _ => LARGE.acquire().await.ok(),
        };
        Bytes::from_request(request, state).await
    })
    .await
}

/// Refuses a body that is compressed, which would be read as broken JSON.
fn plain(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let detail = format!(
                "a body with 'Content-Encoding: {}' is not read: send it as it is",
                String::from_utf8_lossy(encoding.as_bytes())
            );
            Err(Problem::new(Code::UnknownEncoding, detail))
        }
        _ => Ok(()),
    }
}

async fn in_time(
    arriving: impl Future<Output = Result<Bytes, BytesRejection>>,
) -> Result<Bytes, Refused> {
    let body = tokio::time::timeout(BODY_TIME, arriving).await.map_err(|_| {
        let detail = format!("the whole body has to arrive within {} s", BODY_TIME.as_secs());
        Problem::new(Code::TooSlow, detail)
    })?;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail =
                format!("a body may have at most {} bytes, and fewer on some paths", limits::BODY);
            Problem::new(Code::TooLarge, detail)
        }
        _ => invalid(rejection.body_text()),
    })?;
    Ok(body)
}

/// Reads a JSON object.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("the body has to be a JSON object").into());
    }
    let value = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("the body is not what this path takes: {error}")))?;
    Ok(value)
}

/// A query's pairs, which may repeat a name.
pub(super) fn form(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let url = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build();
    let url = url.map_err(|error| invalid(format!("the query cannot be read: {error}")))?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&url);
    let axum::extract::Query(pairs) = pairs.map_err(|rejection| invalid(rejection.body_text()))?;
    if pairs.len() > MAX_PARAMETERS {
        return Err(invalid(format!("a query of more than {MAX_PARAMETERS} parameters")));
    }
    Ok(pairs)
}

pub(super) fn path(path: Name) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|rejection| invalid(rejection.body_text()))
}

pub(super) fn query<T>(query: Parameters<T>) -> Result<T, Problem> {
    query.map(|Query(parameters)| parameters).map_err(|rejection| invalid(rejection.body_text()))
}

/// Parses `index` and `wait` of a blocking query.
pub(super) fn wait(
    index: Option<&str>,
    wait: Option<&str>,
) -> Result<Option<(Index, Duration)>, Problem> {
    let Some(index) = index else {
        return match wait {
            None => Ok(None),
            Some(_) => Err(invalid("wait also needs the index of an earlier answer")),
        };
    };
    let index = self::index(index)?;
    let wait = match wait {
        None => DEFAULT_WAIT,
        Some(text) => humantime::parse_duration(text).map_err(|error| {
            invalid(format!("wait={text}: {error}; write it like 30s or 1500ms"))
        })?,
    };
    Ok(Some((index, wait.min(limits::WAIT))))
}

pub(super) fn index(text: &str) -> Result<Index, Problem> {
    text.parse().map_err(|error| invalid(format!("index={text}: {error}")))
}

pub(super) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Invalid, detail)
}
