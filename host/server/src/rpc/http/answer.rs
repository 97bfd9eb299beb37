//! Answers, and failures in the words of Connect's unary protocol.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use wharf_schema::ServiceName;

use super::connect;
use crate::plugins::table::Table;
use crate::rpc::invoke::CallFailure;

/// The header by which callers find their requests in logs. It is sent back.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is sent back, in bytes.
pub(super) const MAX_REQUEST_ID: usize = 256;

/// The type of the detail that says whether a call may be repeated.
const DETAIL: &str = "wharf.Failure";

/// An answer with JSON.
pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let json = HeaderValue::from_static("application/json");
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// A failed call. It says whether the call may be repeated, in a detail and in `Retry-After`.
pub(super) fn failure(failure: &CallFailure) -> Response {
    let (code, status) = connect::code(failure.status);
    let mut told = json!({ "notExecuted": failure.not_executed });
    if let Some(milliseconds) = failure.retry_after_ms {
        told["retryAfterMs"] = milliseconds.into();
    }
    if !failure.detail.1.is_empty() {
        told["detail"] = Value::from(&failure.detail.1[..]);
    }
    let value = STANDARD_NO_PAD.encode(told.to_string());
    let body = json!({
        "code": code,
        "message": failure.message,
        "details": [{ "type": DETAIL, "value": value, "debug": told }],
    });
    let mut response = json(status, body.to_string());
    let headers = response.headers_mut();
    if let Some(milliseconds) = failure.retry_after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(milliseconds.div_ceil(1000)));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A method of HTTP that a path does not take.
pub(super) fn not_allowed(allowed: &'static str) -> Response {
    let body = json!({
        "code": "unimplemented",
        "message": format!("this path takes {allowed}"),
    });
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, body.to_string());
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A content type or encoding that is not read here.
pub(super) fn unsupported(message: &str) -> Response {
    let body = json!({ "code": "unimplemented", "message": message });
    let mut response = json(StatusCode::UNSUPPORTED_MEDIA_TYPE, body.to_string());
    let headers = response.headers_mut();
    headers.insert("accept-post", HeaderValue::from_static("application/json"));
    response
}

/// The answer to a question about what is allowed.
pub(super) fn options() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, OPTIONS"));
    response
}

/// What somebody sees who comes with a browser.
pub(super) fn welcome(table: &Table, is_seen: impl Fn(&ServiceName) -> bool) -> Response {
    let mut text = "This is a Wharf host. Call a method with POST /SERVICE/METHOD and JSON; \
                    GET /openapi.json describes all of them.\n\n"
        .to_owned();
    let all = table.all_served();
    let names = all.iter().map(|served| served.service.name());
    for name in names.filter(|name| is_seen(name)).take(100) {
        text.push_str(&name.to_string());
        text.push('\n');
    }
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Bytes::from(text)).into_response()
}
