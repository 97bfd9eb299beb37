//! A web page must not be able to change a registry that its visitor can reach.

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wharf_registry_api::{Code, Problem};

use super::Refused;

/// Refuses changes that a browser sends on behalf of another origin.
///
/// Browsers say so themselves, in `Sec-Fetch-Site`, `Origin` or `Referer`; programs send none of
/// them. The classic calls are changes even as a GET. (A page may keep all three back for a plain
/// GET to an address that is not loopback; who may write at all is for tokens to say.)
pub(super) async fn refuse(request: Request, next: Next) -> Response {
    let reads = request.method() == Method::GET
        && !matches!(request.uri().path(), "/register" | "/heartbeat");
    if !reads && from_elsewhere(request.headers()) {
        let detail = "a web page of another origin may not change the registry";
        return Refused(Problem::new(Code::CrossSite, detail)).into_response();
    }
    next.run(request).await
}

fn from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    [header::ORIGIN, header::REFERER].iter().filter_map(|name| headers.get(name)).any(|from| {
        let from = from.to_str().ok().and_then(|from| from.split_once("://"));
        let from = from.map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        from.is_none() || from != host
    })
}
