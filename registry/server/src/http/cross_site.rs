//! A web page must not be able to change a registry that its visitor can reach.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wharf_net::http::names_this_machine;
use wharf_registry_api::{Code, Problem};

use super::authorize::reads;
use super::{Refused, Source};

/// Refuses what a browser sends for a page of another origin.
///
/// Browsers say so themselves, in `Sec-Fetch-Site`, `Origin` or `Referer`; programs send none of
/// these. The classic calls are changes even as a GET.
///
/// With DNS rebinding, a page's own name resolves to this machine. Such a page looks like one of
/// our own, except for the name in `Host`. So where everybody who reaches the registry may do
/// everything, `Host` has to be a name of loopback.
///
/// Elsewhere, a page can leave out all of these headers in a plain GET. Only tokens protect against
/// that.
pub(super) async fn refuse(State(source): State<Source>, request: Request, next: Next) -> Response {
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        let detail = "the request has two Host headers: send one";
        return Refused(Problem::new(Code::Invalid, detail)).into_response();
    }
    let refused = |detail: &str| Refused(Problem::new(Code::CrossSite, detail)).into_response();
    if source.trusts_this_machine && !names_this_machine(host(request.headers())) {
        return refused(
            "this registry listens on loopback without tokens, so it answers only if the Host header is 127.0.0.1, [::1] or localhost",
        );
    }
    if !reads(&request) && from_elsewhere(request.headers()) {
        return refused("a web page from another origin may not change the registry");
    }
    next.run(request).await
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

fn from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let host = host(headers);
    [header::ORIGIN, header::REFERER].iter().filter_map(|name| headers.get(name)).any(|from| {
        let from = from.to_str().ok().and_then(|from| from.split_once("://"));
        let from = from.map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        from.is_none() || from != host
    })
}
