//! Which web pages may call. A page in somebody's browser reaches whatever that browser reaches, so a
//! page may only if its origin is allowed.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use axum::response::Response;
use wharf_net::http::names_this_machine;
use wharf_wire::Status;

use super::connect;
use crate::rpc::invoke::CallFailure;

/// How long a browser may keep the answer to its question, in seconds.
const KEPT: &str = "7200";

/// What the answer has to tell a browser.
pub(super) enum Cross {
    /// No page asks.
    No,
    /// A page of this origin asks, and may.
    Allowed { origin: HeaderValue, asks_for_network: bool },
}

/// Whether a request may be answered.
///
/// Browsers name the origin of the page in `Origin`, whatever the page does; programs leave it out.
/// With DNS rebinding a page's own name leads to this machine, and then a plain GET has no `Origin`.
/// So a caller on loopback has to name this machine in `Host`; over TLS browsers have checked the name.
///
/// # Errors
/// Why it may not.
pub(super) fn check(
    request: &Request<Body>,
    (peer, is_encrypted): (SocketAddr, bool),
    allowed: &[String],
) -> Result<Cross, CallFailure> {
    let headers = request.headers();
    let refused = |message: String| CallFailure::refused(Status::PermissionDenied, message);
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = text(headers, &header::HOST).or(authority);
    let is_here = peer.ip().to_canonical().is_loopback() && !is_encrypted;
    if is_here && !names_this_machine(host) {
        let why = "a call from this machine has to name it in the Host header: 127.0.0.1, [::1] or \
                   localhost";
        return Err(refused(why.to_owned()));
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        let elsewhere = text(headers, &HeaderName::from_static("sec-fetch-site"))
            .is_some_and(|site| site != "same-origin" && site != "none");
        return match elsewhere {
            true => Err(refused("a web page of another site may not read this".to_owned())),
            false => Ok(Cross::No),
        };
    };
    let known = origin.to_str().unwrap_or_default();
    if !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(known)) {
        let shown = &known[..known.floor_char_boundary(100)];
        let why = format!(
            "web pages of the origin '{shown}' may not call: start the host with --allow-origin {shown}"
        );
        return Err(refused(why));
    }
    let asks_for_network = headers.contains_key("access-control-request-private-network");
    Ok(Cross::Allowed { origin: origin.clone(), asks_for_network })
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    // What is no text names nothing.
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

impl Cross {
    /// The answer, with what a browser has to know to hand it to the page.
    pub(super) fn answer(self, mut response: Response) -> Response {
        let Cross::Allowed { origin, asks_for_network } = self else { return response };
        let headers = response.headers_mut();
        let fixed = HeaderValue::from_static;
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, fixed("origin"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, POST"));
        let names = format!(
            "authorization, content-type, connect-protocol-version, {}, traceparent, x-request-id, \
             mcp-protocol-version, mcp-method, mcp-name",
            connect::TIMEOUT
        );
        if let Ok(names) = HeaderValue::from_str(&names) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, fixed("retry-after, x-request-id"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, fixed(KEPT));
        if asks_for_network {
            headers.insert("access-control-allow-private-network", fixed("true"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(headers: &[(&str, &str)], peer: &str) -> Result<bool, String> {
        let mut request = Request::builder().uri("/arith/multiply");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let allowed = ["https://app.example".to_owned()];
        check(&request, (peer.parse().unwrap(), false), &allowed)
            .map(|cross| matches!(cross, Cross::Allowed { .. }))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn programs_may_call_and_pages_only_if_their_origin_is_allowed() {
        let (near, far) = ("127.0.0.1:1", "10.0.0.1:1");
        assert_eq!(checked(&[], near), Ok(false));
        assert_eq!(checked(&[("host", "localhost:7400")], near), Ok(false));
        assert_eq!(checked(&[("host", "wharf.internal:7400")], far), Ok(false));
        assert_eq!(checked(&[("origin", "https://app.example")], far), Ok(true));
        for headers in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "https://app.example.evil.example")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            assert!(checked(headers, far).is_err(), "{headers:?}");
        }
        let rebound = checked(&[("host", "evil.example:7400")], near);
        assert!(rebound.unwrap_err().contains("name it in the Host header"));
    }
}
