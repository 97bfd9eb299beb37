//! Finds out who asks, and whether they may.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wharf_registry_api::{Code, Problem};

use super::{Refused, Source};
use crate::access::{Token, TokenFile, Tokens};

/// Who asks.
#[derive(Clone)]
pub(super) enum Caller {
    /// There are no tokens, so everybody may do everything.
    Anybody,
    /// There are tokens, and this caller showed none.
    Nobody,
    /// The caller holds this token.
    Holder(Arc<Token>),
}

impl Caller {
    /// Whether this caller may change what belongs to a host, or to a classic name.
    pub(super) fn may_write(&self, host: &str) -> Result<(), Problem> {
        match self {
            Caller::Anybody => Ok(()),
            Caller::Nobody => Err(missing()),
            Caller::Holder(token) if token.may_write(host) => Ok(()),
            Caller::Holder(token) => {
                let detail = format!(
                    "the token '{}' may not write '{host}': add the name to the token's hosts in the registry's token file",
                    token.name
                );
                Err(Problem::new(Code::Forbidden, detail))
            }
        }
    }

    /// Whether this caller may change anything at all.
    fn writes_at_all(&self) -> Result<(), Problem> {
        match self {
            Caller::Anybody => Ok(()),
            Caller::Nobody => Err(missing()),
            Caller::Holder(token) if token.writes() => Ok(()),
            Caller::Holder(token) => {
                let detail =
                    format!("the token '{}' does not have the scope \"write\"", token.name);
                Err(Problem::new(Code::Forbidden, detail))
            }
        }
    }

    /// Completes when this caller may not read any more, because the tokens have changed.
    pub(super) async fn revoked(self, file: Option<TokenFile>) {
        let Some(file) = file else { return std::future::pending().await };
        let mut changes = file.changes();
        let reads = |tokens: &Arc<Tokens>| match &self {
            Caller::Anybody => true,
            Caller::Nobody => tokens.anonymous_reads(),
            Caller::Holder(token) => tokens.still_reads(token),
        };
        if changes.wait_for(|tokens| !reads(tokens)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn may_read(&self) -> Result<(), Problem> {
        match self {
            Caller::Holder(token) if !token.may_read() => {
                let detail = format!("the token '{}' does not have the scope \"read\"", token.name);
                Err(Problem::new(Code::Forbidden, detail))
            }
            Caller::Anybody | Caller::Holder(_) => Ok(()),
            Caller::Nobody => Err(missing()),
        }
    }
}

/// Finds out who asks. A list is refused here to callers that may not read. A change is refused
/// here only to callers that may change nothing: the handler decides about the particular host or
/// name.
pub(super) async fn authorize(
    State(source): State<Source>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match caller(&source, request.headers()) {
        Ok(caller) => caller,
        Err(refused) => return *refused,
    };
    if reads(&request) {
        let open = source.tokens.as_ref().is_some_and(|file| file.current().anonymous_reads());
        if let Err(problem) = caller.may_read()
            && !(open && matches!(caller, Caller::Nobody))
        {
            return Refused(problem).into_response();
        }
    }
    if !reads(&request)
        && let Err(problem) = caller.writes_at_all()
    {
        // It is refused before any of its body is read.
        return Refused(problem).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn caller(source: &Source, headers: &HeaderMap) -> Result<Caller, Box<Response>> {
    let Some(file) = &source.tokens else { return Ok(Caller::Anybody) };
    let Some(secret) = secret(headers) else { return Ok(Caller::Nobody) };
    let tokens = file.current();
    let Some(token) = tokens.find(secret) else {
        source.metrics.denied();
        let detail =
            "the token is not known: was it changed or removed in the registry's token file?";
        return Err(Box::new(Refused(Problem::new(Code::Unauthenticated, detail)).into_response()));
    };
    if let Err(wait) = token.admit() {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        let detail = format!("the token '{}' exceeds its rate: retry in {seconds} s", token.name);
        let mut response = Refused(Problem::new(Code::RateLimited, detail)).into_response();
        if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        return Err(Box::new(response));
    }
    Ok(Caller::Holder(token.clone()))
}

/// The secret of a bearer token (RFC 6750), or from the header that Consul's clients send.
fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, secret) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(secret)
    });
    let consul = || headers.get("x-consul-token").map(HeaderValue::as_bytes);
    bearer.or_else(consul).map(<[u8]>::trim_ascii).filter(|secret| !secret.is_empty())
}

fn missing() -> Problem {
    let detail = "this registry requires a token: send 'Authorization: Bearer SECRET' (wharf's commands take it from WHARF_REGISTRY_TOKEN)";
    Problem::new(Code::Unauthenticated, detail)
}

/// Whether a request only reads. The classic calls change something even as a GET.
pub(super) fn reads(request: &Request) -> bool {
    let classic = matches!(request.uri().path(), "/register" | "/heartbeat");
    matches!(*request.method(), Method::GET | Method::HEAD) && !classic
}
