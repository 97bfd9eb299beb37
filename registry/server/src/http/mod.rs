//! HTTP: paths, parameters and bodies, translated to the registry's terms and back.

mod authorize;
mod backup;
mod classic;
mod consul;
mod cross_site;
mod identity;
mod measure;
mod operate;
mod parameters;
mod prometheus;
mod refusals;
mod v1;
mod watch;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRef};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use axum::{Json, Router, middleware};
use wharf_registry_api::{Code, OPENAPI, PROBLEM_JSON, Problem, limits};

use crate::directory::Directory;
use crate::metrics::Metrics;

pub(crate) use consul::DATACENTER;
pub(crate) use watch::frame;

/// The state that requests are answered from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) directory: Arc<Directory>,
    pub(crate) principals: Option<wharf_net::principals::Principals>,
    /// The registry listens on loopback only, and everybody who reaches it may do anything.
    pub(crate) trusts_this_machine: bool,
    pub(crate) metrics: Arc<Metrics>,
    /// Gives out certificates, if there is a trust domain.
    pub(crate) issuer: Option<crate::identity::Issuer>,
    /// Answers in Consul's form, for many who wait for the same.
    consul: Arc<consul::Kept>,
    /// Logs what is refused.
    refusals: Arc<refusals::Refusals>,
}

impl Source {
    pub(crate) fn new(
        directory: Arc<Directory>,
        metrics: Arc<Metrics>,
        principals: Option<wharf_net::principals::Principals>,
        trusts_this_machine: bool,
        issuer: Option<crate::identity::Issuer>,
    ) -> Self {
        let (consul, refusals) = (Arc::default(), Arc::default());
        Source { directory, principals, trusts_this_machine, metrics, issuer, consul, refusals }
    }
}

impl FromRef<Source> for Arc<Directory> {
    fn from_ref(source: &Source) -> Self {
        source.directory.clone()
    }
}

/// All paths of the registry.
pub(crate) fn routes(source: Source) -> Router {
    Router::new()
        .route("/v1/hosts/{host}", put(v1::declare).delete(v1::withdraw))
        .route("/v1/hosts/{host}/heartbeat", post(v1::heartbeat))
        .route("/v1/hosts/{host}/state", put(v1::set_state))
        .route("/v1/status", get(operate::status))
        .route("/v1/hosts", get(operate::hosts))
        .route("/v1/backup", get(backup::backup))
        .route("/v1/restore", post(backup::restore))
        .route("/v1/services", get(v1::services))
        .route("/v1/services/{name}/endpoints", get(v1::endpoints))
        .route("/v1/watch", get(watch::watch))
        .route("/register", get(classic::register).post(classic::register))
        .route("/heartbeat", get(classic::heartbeat).post(classic::heartbeat))
        .route("/deregister", get(classic::deregister).post(classic::deregister))
        .route("/services", get(classic::services))
        .route("/metrics", get(operate::metrics))
        .route("/v1/sd/prometheus", get(prometheus::targets))
        .merge(consul::routes())
        .layer(middleware::from_fn_with_state(source.clone(), authorize::authorize))
        .route("/v1/identity/bundle", get(identity::bundle))
        .route(
            "/v1/identity/certificates",
            post(identity::certificates).layer(DefaultBodyLimit::max(identity::MAX_ORDER)),
        )
        .route("/v1/openapi.json", get(openapi))
        .route("/healthz", get(operate::healthz))
        .route("/readyz", get(operate::readyz))
        .layer(middleware::from_fn_with_state(source.clone(), cross_site::refuse))
        .layer(middleware::from_fn_with_state(source.clone(), measure::measure))
        .layer(DefaultBodyLimit::max(limits::BODY))
        .fallback(any(unknown_path))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(source)
}

/// The paths that are answered before the store is open.
pub(crate) fn meanwhile() -> Router {
    Router::new().route("/healthz", get(operate::healthz)).fallback(any(starting))
}

async fn starting() -> Refused {
    let detail = "the registry waits for its store: retry after the time in Retry-After, or ask another registry";
    Problem::new(Code::StoreUnavailable, detail).into()
}

/// A problem as a response.
struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Refused(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(problem) = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
        let code = problem.code;
        let why = refusals::Why(problem.detail.clone());
        let mut response = (status, Json(problem)).into_response();
        response.extensions_mut().insert(why);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // Clients that were refused together must not come back together.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(fastrand::u16(1..=3)));
        }
        if code == Code::Unauthenticated {
            let realm = HeaderValue::from_static("Bearer realm=\"wharf registry\"");
            headers.insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn unknown_path() -> Refused {
    let detail = "this is a Wharf registry: try GET /v1/services, GET /v1/services/NAME/endpoints or GET /services; all paths are in GET /v1/openapi.json";
    Problem::new(Code::UnknownPath, detail).into()
}

async fn method_not_allowed() -> Refused {
    let detail = "the path exists, but not with this method: see the Allow header";
    Problem::new(Code::MethodNotAllowed, detail).into()
}
