//! HTTP on the RPC port: calls with JSON, JSON-RPC, and what describes the services.

mod answer;
mod body;
mod call;
mod connect;
mod cross_site;
mod mcp;
mod openapi;
mod rpc;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Method, Request, header};
use axum::response::Response;
use tokio::sync::watch;
use tower::Service;
use wharf_net::Stream;
use wharf_net::budget::Taken;
use wharf_wire::{Status, TraceParent};

use super::Shared;
use super::invoke::{Alone, CallFailure, Caller, Invoker, Load, Named, Outcome};
use crate::doors::{Door, Doors};

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// How long the head of a request may take to arrive, and a connection may wait for the next request.
/// Callers keep connections in pools, for up to 90 seconds as a rule.
const QUIET: Duration = Duration::from_secs(100);

/// Names that do not exist and are answered with similar ones, on one connection. To find these takes
/// time.
const HINTS: u32 = 64;

/// Whether anything is served over HTTP.
pub(super) fn is_open(doors: &Doors) -> bool {
    [Door::Http, Door::JsonRpc, Door::Mcp].into_iter().any(|door| doors.has(door))
}

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: Stream,
    caller: Caller,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
    version: Version,
) {
    let peer = caller.peer;
    // The token comes with each request, and is checked there.
    let caller = Caller { is_known: true, ..caller };
    let service = Requests(Arc::new(Connection {
        shared,
        caller,
        invokers: Default::default(),
        hints: Mutex::new(HINTS),
    }));
    let served = match version {
        Version::One => wharf_net::http::serve(stream, service, QUIET, drain).await,
        Version::Two => wharf_net::http::serve_two(stream, service, QUIET, drain).await,
    };
    match served {
        Ok(()) => tracing::debug!(%peer, "a connection ended"),
        Err(error) => tracing::debug!(%peer, %error, "a connection broke"),
    }
}

/// What the requests of one connection share.
struct Connection {
    shared: Arc<Shared>,
    caller: Caller,
    /// For each door, because calls are counted by door. They are made when they are needed.
    invokers: [OnceLock<Mutex<Invoker>>; Door::ALL.len()],
    hints: Mutex<u32>,
}

/// What a request says of its call.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    timeout: Option<Duration>,
    trace: Option<TraceParent>,
}

impl Terms {
    /// The same, when so much of the time is over.
    fn after(self, elapsed: Duration) -> Self {
        Terms { timeout: self.timeout.map(|timeout| timeout.saturating_sub(elapsed)), ..self }
    }
}

impl Connection {
    /// Calls of a connection are begun one after the other, and nobody waits while one is begun.
    fn invoker(&self, door: Door) -> MutexGuard<'_, Invoker> {
        let invoker = self.invokers[door as usize].get_or_init(|| {
            let caller = Caller { door, ..self.caller.clone() };
            Mutex::new(Invoker::new(self.shared.clone(), caller))
        });
        invoker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a method by its name.
    fn named(&self, door: Door, name: &str) -> Result<Named, CallFailure> {
        let may_hint = || {
            let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
            let allowed = *hints > 0;
            *hints = hints.saturating_sub(1);
            allowed
        };
        self.invoker(door).named(name, may_hint)
    }

    /// Makes a call. Dropping the future cancels it. `taken` is the room that the body took while it
    /// arrived.
    async fn call(
        &self,
        door: Door,
        named: &Named,
        arguments: Bytes,
        terms: Terms,
        taken: Option<Taken>,
    ) -> Outcome {
        let (now, len) = (Instant::now(), arguments.len() as u64);
        let mut arguments = Some((arguments, taken));
        let begun = std::future::poll_fn(|cx| {
            let Some(arguments) = arguments.take() else { return Poll::Pending };
            let mut invoker = self.invoker(door);
            let load = Load::default();
            let arrived = if arguments.1.is_some() { 0 } else { len };
            let call =
                invoker.admit(named.index, (load, len, arrived), terms.timeout, terms.trace, now);
            Poll::Ready(call.and_then(|call| invoker.begin_alone(cx, call, arguments, now)))
        })
        .await?;
        match begun {
            Alone::Ended(ended) => ended.outcome(Instant::now()),
            Alone::Running(awaited) => awaited.outcome().await,
        }
    }

    /// Whether a request shows the host's token, if it wants one.
    fn is_let_in(&self, headers: &axum::http::HeaderMap) -> bool {
        let Some(token) = &self.shared.config.token else { return true };
        let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let shown = shown.and_then(|shown| {
            let (scheme, token) = shown.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
        });
        shown.is_some_and(|shown| token.matches(shown))
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Requests(Arc<Connection>);

impl<B> Service<Request<B>> for Requests
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let connection = self.0.clone();
        Box::pin(async move {
            let request = request.map(Body::new);
            Ok(respond(&connection, request).await)
        })
    }
}

/// Answers a request, by its path.
async fn respond(connection: &Connection, request: Request<Body>) -> Response {
    let config = &connection.shared.config;
    let cross = match cross_site::check(&request, connection.caller.peer, &config.allowed_origins) {
        Ok(cross) => cross,
        Err(refused) => return answer::failure(&refused),
    };
    if request.method() == Method::OPTIONS {
        return cross.answer(answer::options());
    }
    let id = request.headers().get(answer::REQUEST_ID).cloned();
    let mut response = match connection.is_let_in(request.headers()) {
        true => routed(connection, request).await,
        false => {
            let message = connection.caller.door.how_to_show_a_token();
            answer::failure(&CallFailure::refused(Status::Unauthenticated, message))
        }
    };
    if let Some(id) = id.filter(|id| id.len() <= answer::MAX_REQUEST_ID) {
        response.headers_mut().insert(answer::REQUEST_ID, id);
    }
    cross.answer(response)
}

async fn routed(connection: &Connection, request: Request<Body>) -> Response {
    let doors = &connection.shared.config.doors;
    let closed = |door: Door| {
        let message = format!("this host does not serve {}", door.name());
        answer::failure(&CallFailure::refused(Status::PermissionDenied, message))
    };
    let door = match request.uri().path() {
        "/rpc" => Door::JsonRpc,
        "/mcp" => Door::Mcp,
        _ => Door::Http,
    };
    if !doors.has(door) {
        return closed(door);
    }
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match door {
        Door::JsonRpc => rpc::answer(connection, request).await,
        Door::Mcp => mcp::answer(connection, request).await,
        _ if reads && path == "/" => answer::welcome(&connection.shared.table),
        _ if reads && path.ends_with(openapi::FILE) => {
            let of = path.trim_end_matches(openapi::FILE).to_owned();
            openapi::answer(&connection.shared, of).await
        }
        _ => call::answer(connection, request).await,
    }
}
