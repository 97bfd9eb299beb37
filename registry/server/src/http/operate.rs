//! For operators and their monitoring: health, readiness, metrics.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Source;

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

pub(super) async fn metrics(State(source): State<Source>) -> Response {
    match source.metrics.render(&source.directory.view.census()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
