//! HTTP: paths, parameters and bodies, translated to the registry's terms and back.

mod classic;
mod cross_site;
mod v1;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use axum::{Json, Router};
use wharf_registry_api::{Code, PROBLEM_JSON, Problem, limits};

use crate::registry::Registry;

/// All paths of the registry.
pub(crate) fn routes(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/v1/hosts/{host}", put(v1::declare).delete(v1::withdraw))
        .route("/v1/hosts/{host}/heartbeat", post(v1::heartbeat))
        .route("/v1/hosts/{host}/state", put(v1::set_state))
        .route("/v1/services", get(v1::services))
        .route("/v1/services/{name}/endpoints", get(v1::endpoints))
        .route("/register", get(classic::register).post(classic::register))
        .route("/heartbeat", get(classic::heartbeat).post(classic::heartbeat))
        .route("/services", get(classic::services))
        .fallback(any(unknown_path))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::middleware::from_fn(cross_site::refuse))
        .layer(DefaultBodyLimit::max(limits::BODY))
        .with_state(registry)
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
        let later = matches!(problem.code, Code::Full | Code::ShuttingDown);
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if later {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

async fn unknown_path() -> Refused {
    let detail = "this is a Wharf registry: try GET /v1/services, GET /v1/services/NAME/endpoints or GET /services";
    Problem::new(Code::UnknownPath, detail).into()
}

async fn method_not_allowed() -> Refused {
    let detail = "the path exists, but not with this method: see the Allow header";
    Problem::new(Code::MethodNotAllowed, detail).into()
}
