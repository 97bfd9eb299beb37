//! Finds out who asks, and whether they may.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wharf_net::http::{Certified, Peer, bearer};
use wharf_net::principals::{Callee, Principal, Principals};
use wharf_net::tls::Names;
use wharf_registry_api::{Code, EndpointSpec, Problem};

use super::parameters::form;
use super::{Refused, Source};

/// Who asks.
#[derive(Clone)]
pub(super) enum Caller {
    /// There are no principals, so everybody may do everything.
    Anybody,
    /// There are principals, and this caller showed no secret. What it may do is what was written for
    /// such callers when it asked.
    Nobody(Arc<Principal>),
    /// The caller showed the secret of this principal, or its certificate with these names.
    Known(Arc<Principal>, Option<Arc<Names>>),
}

impl Caller {
    /// Whether this caller may change what belongs to a host, or to a classic name.
    pub(super) fn may_write(&self, host: &str) -> Result<(), Problem> {
        match self {
            Caller::Anybody => Ok(()),
            Caller::Nobody(_) => Err(missing()),
            Caller::Known(principal, _) if principal.may_write(host) => Ok(()),
            Caller::Known(principal, _) => {
                let detail = format!(
                    "the principal '{}' may not write '{host}': add the name to its hosts in the registry's file of principals",
                    principal.name()
                );
                Err(Problem::new(Code::Forbidden, detail))
            }
        }
    }

    /// Whether this caller may do everything.
    pub(super) fn may_administer(&self) -> Result<(), Problem> {
        match self {
            Caller::Anybody => Ok(()),
            Caller::Nobody(_) => Err(missing()),
            Caller::Known(principal, _) if principal.administers() => Ok(()),
            Caller::Known(principal, _) => {
                let detail = format!(
                    "the principal '{}' does not have the scope \"admin\"",
                    principal.name()
                );
                Err(Problem::new(Code::Forbidden, detail))
            }
        }
    }

    /// Whether the hosts of this caller may announce these services. (Short names lead callers to whoever
    /// announces them.)
    pub(super) fn may_announce(&self, endpoints: &[EndpointSpec]) -> Result<(), Problem> {
        let Caller::Known(principal, _) = self else { return Ok(()) };
        for EndpointSpec { package, service, .. } in endpoints {
            let package = package.as_deref().unwrap_or_default();
            if !principal.may_announce(Callee { package, interface: service }) {
                let slash = if package.is_empty() { "" } else { "/" };
                let detail = format!(
                    "the principal '{}' may not announce {package}{slash}{service}: add it to its announces in the registry's file of principals",
                    principal.name()
                );
                return Err(Problem::new(Code::Forbidden, detail));
            }
        }
        Ok(())
    }

    /// Whether this caller may change anything at all.
    fn writes_at_all(&self) -> Result<(), Problem> {
        match self {
            Caller::Anybody => Ok(()),
            Caller::Nobody(_) => Err(missing()),
            Caller::Known(principal, _) if principal.writes() => Ok(()),
            Caller::Known(principal, _) => {
                let detail = format!(
                    "the principal '{}' does not have the scope \"write\"",
                    principal.name()
                );
                Err(Problem::new(Code::Forbidden, detail))
            }
        }
    }

    /// Completes when this caller may not read any more, or its rights have changed.
    pub(super) async fn revoked(self, principals: Option<Principals>) {
        let Some(principals) = principals else { return std::future::pending().await };
        let (who, names) = match self {
            Caller::Anybody => return std::future::pending().await,
            Caller::Nobody(principal) => (principal, None),
            Caller::Known(principal, names) => (principal, names),
        };
        principals.withdrawn(&who, names.as_deref()).await;
    }

    fn may_read(&self) -> Result<(), Problem> {
        match self {
            Caller::Known(principal, _) if !principal.may_read() => {
                let detail = format!(
                    "the principal '{}' does not have the scope \"read\"",
                    principal.name()
                );
                Err(Problem::new(Code::Forbidden, detail))
            }
            Caller::Nobody(principal) if !principal.may_read() => Err(missing()),
            Caller::Anybody | Caller::Known(..) | Caller::Nobody(_) => Ok(()),
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
    let certified = request.extensions().get::<Certified>().map(|Certified(names)| names.clone());
    let caller = match caller(&source, request.headers(), request.uri().query(), certified.as_ref())
    {
        Ok(caller) => caller,
        Err(Turned::Rate(refused)) => return *refused,
        Err(Turned::WrongSecret) => {
            source.metrics.denied();
            let peer = request.extensions().get::<Peer>();
            if let Some((principals, Peer(peer))) = source.principals.as_ref().zip(peer) {
                tokio::time::sleep(principals.note_wrong(*peer)).await;
            }
            let detail = "the token is not known: was it changed or removed in the registry's file of principals?";
            return Refused(Problem::new(Code::Unauthenticated, detail)).into_response();
        }
    };
    if reads(&request)
        && let Err(problem) = caller.may_read()
    {
        return Refused(problem).into_response();
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

/// Why a request is turned away whatever it asks for.
enum Turned {
    WrongSecret,
    /// With the answer.
    Rate(Box<Response>),
}

fn caller(
    source: &Source,
    headers: &HeaderMap,
    query: Option<&str>,
    certified: Option<&Arc<Names>>,
) -> Result<Caller, Turned> {
    let Some(principals) = &source.principals else { return Ok(Caller::Anybody) };
    let known = principals.known();
    let secret = secret(headers, query);
    let secret = secret.as_deref();
    if secret.is_none() && certified.is_none() {
        return Ok(Caller::Nobody(known.anonymous().clone()));
    }
    let Ok(principal) = known.recognise(secret, certified) else {
        return Err(Turned::WrongSecret);
    };
    if let Err(wait) = principal.count() {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        let detail =
            format!("the principal '{}' exceeds its rate: retry in {seconds} s", principal.name());
        let mut response = Refused(Problem::new(Code::RateLimited, detail)).into_response();
        if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        return Err(Turned::Rate(Box::new(response)));
    }
    Ok(Caller::Known(principal, certified.filter(|_| secret.is_none()).cloned()))
}

/// The secret of a bearer token, or from the header or the parameter that Consul's clients send.
fn secret<'r>(headers: &'r HeaderMap, query: Option<&str>) -> Option<Cow<'r, [u8]>> {
    let consul = || headers.get("x-consul-token").map(|value| value.as_bytes().trim_ascii());
    let shown = bearer(headers).or_else(consul).map(Cow::Borrowed);
    let parameter = || {
        let pairs = query.filter(|query| query.contains("token=")).map(form)?.ok()?;
        let (_, token) = pairs.into_iter().find(|(name, _)| name == "token")?;
        Some(Cow::Owned(token.into_bytes()))
    };
    shown.or_else(parameter).filter(|secret| !secret.is_empty())
}

fn missing() -> Problem {
    let detail = "this registry requires a token or a certificate: send 'Authorization: Bearer SECRET' (wharf's commands take it from WHARF_REGISTRY_TOKEN, or the certificate from WHARF_IDENTITY)";
    Problem::new(Code::Unauthenticated, detail)
}

/// Whether a request only reads. The classic calls change something even as a GET.
pub(super) fn reads(request: &Request) -> bool {
    let classic = matches!(request.uri().path(), "/register" | "/heartbeat" | "/deregister");
    matches!(*request.method(), Method::GET | Method::HEAD) && !classic
}
