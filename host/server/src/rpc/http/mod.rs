//! HTTP on the RPC port: calls with JSON, JSON-RPC, and what describes the services.

mod answer;
mod body;
mod call;
mod connect;
mod cross_site;
mod mcp;
mod openapi;
mod rpc;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, Method, Request, header};
use axum::response::Response;
use tokio::sync::watch;
use tower::Service;
use wharf_net::Stream;
use wharf_net::budget::Taken;
use wharf_net::http::bearer;
use wharf_wire::{Status, TraceParent};

use super::Shared;
use super::caller::Caller;
use super::invoke::{Alone, CallFailure, Invoker, Load, Named, Outcome};
use super::sight::Sight;
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

/// The most doors and principals that one connection keeps what it has found for.
const MAX_INVOKERS: usize = 32;

/// Whether anything is served over HTTP.
pub(super) fn is_open(doors: &Doors) -> bool {
    [Door::Http, Door::JsonRpc, Door::Mcp].into_iter().any(|door| doors.has(door))
}

/// An answer before any request is read.
pub(super) fn refuse(status: &str, why: &str) -> String {
    let head = "content-type: text/plain\r\nconnection: close\r\n";
    format!("HTTP/1.1 {status}\r\n{head}content-length: {}\r\n\r\n{why}\n", why.len() + 1)
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
    let service = Requests(Arc::new(Lasting {
        shared,
        caller,
        invokers: Mutex::default(),
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

/// An invoker for requests of several tasks.
type SharedInvoker = Arc<Mutex<Invoker>>;

/// What the requests of one connection share.
struct Lasting {
    shared: Arc<Shared>,
    /// Each request shows anew who asks.
    caller: Caller,
    /// For each door, because calls are counted by door, and for each principal, because a proxy's
    /// connection has the requests of many. They are made when they are needed.
    invokers: Mutex<HashMap<(Door, u64), SharedInvoker>>,
    hints: Mutex<u32>,
}

/// The connection, as one request sees it.
struct Connection {
    shared: Arc<Shared>,
    caller: Caller,
    lasting: Arc<Lasting>,
    /// Those that it has used. What one of them has found means nothing to another.
    invokers: [OnceLock<SharedInvoker>; Door::ALL.len()],
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
    /// Begins or finds something, for this request's principal. That is done one after the other for all
    /// requests of a connection, and nobody waits meanwhile.
    fn with_invoker<T>(&self, door: Door, act: impl FnOnce(&mut Invoker) -> T) -> T {
        let invoker =
            self.invokers[door as usize].get_or_init(|| self.lasting.invoker(door, &self.caller));
        act(&mut invoker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this request's principal sees.
    fn sight(&self) -> Sight {
        Sight::new(self.caller.who.clone())
    }

    /// Finds a method by its name.
    fn named(&self, door: Door, name: &str) -> Result<Named, CallFailure> {
        let may_hint = || {
            let mut hints = self.lasting.hints.lock().unwrap_or_else(PoisonError::into_inner);
            let allowed = *hints > 0;
            *hints = hints.saturating_sub(1);
            allowed
        };
        self.with_invoker(door, |invoker| invoker.named(name, may_hint))
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
            let arrived = if arguments.1.is_some() { 0 } else { len };
            let size = (Load::default(), len, arrived);
            Poll::Ready(self.with_invoker(door, |invoker| {
                let call = invoker.admit(named.index, size, terms.timeout, terms.trace, now)?;
                invoker.begin_alone(cx, call, arguments, now)
            }))
        })
        .await?;
        match begun {
            Alone::Ended(ended) => ended.outcome(Instant::now()),
            Alone::Running(awaited) => awaited.outcome().await,
        }
    }
}

/// Somebody who may call nothing.
struct Stranger {
    /// Whether it shows a secret that belongs to nobody.
    shows_wrong_secret: bool,
}

impl Lasting {
    /// The connection as a request with these headers sees it.
    ///
    /// # Errors
    /// When whoever shows what it shows may call nothing.
    fn seen_by(self: &Arc<Self>, headers: &HeaderMap) -> Result<Connection, Stranger> {
        // What is no bearer token belongs to nobody, but it is not nothing either.
        let other = || headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let shown = bearer(headers).or_else(other);
        let known = self.shared.config.principals.known();
        let who = match shown {
            None if known.has(&self.caller.who, self.caller.names.as_deref()) => {
                self.caller.who.clone()
            }
            shown => known
                .recognise(shown, self.caller.names.as_ref())
                .map_err(|_| Stranger { shows_wrong_secret: true })?,
        };
        if who.calls().is_nothing() {
            return Err(Stranger { shows_wrong_secret: false });
        }
        let (shared, caller) = (self.shared.clone(), Caller { who, ..self.caller.clone() });
        let invokers = Default::default();
        Ok(Connection { shared, caller, lasting: self.clone(), invokers })
    }

    /// What calls for a principal. It is kept for later requests.
    fn invoker(&self, door: Door, caller: &Caller) -> SharedInvoker {
        let mut invokers = self.invokers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (door, caller.who.id());
        if invokers.len() >= MAX_INVOKERS && !invokers.contains_key(&key) {
            invokers.clear();
        }
        let made = invokers.entry(key).or_insert_with(|| {
            let caller = Caller { door, ..caller.clone() };
            Arc::new(Mutex::new(Invoker::new(self.shared.clone(), caller)))
        });
        made.clone()
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Requests(Arc<Lasting>);

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
async fn respond(connection: &Arc<Lasting>, request: Request<Body>) -> Response {
    let config = &connection.shared.config;
    let from = (connection.caller.peer, config.tls.is_some());
    let cross = match cross_site::check(&request, from, &config.allowed_origins) {
        Ok(cross) => cross,
        Err(refused) => return answer::failure(&refused),
    };
    if request.method() == Method::OPTIONS {
        return cross.answer(answer::options());
    }
    let id = request.headers().get(answer::REQUEST_ID).cloned();
    let mut response = match connection.seen_by(request.headers()) {
        Ok(connection) => routed(&connection, request).await,
        Err(Stranger { shows_wrong_secret }) => {
            if shows_wrong_secret {
                let principals = &connection.shared.config.principals;
                tokio::time::sleep(principals.note_wrong(connection.caller.peer.ip())).await;
            }
            let message = Door::Http.how_to_show_a_token();
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
        _ if reads && path == "/" => {
            let sight = connection.sight();
            answer::welcome(&connection.shared.table, |service| sight.has(service))
        }
        _ if reads && path.ends_with(openapi::FILE) => {
            let of = path.trim_end_matches(openapi::FILE).to_owned();
            openapi::answer(connection, of).await
        }
        _ => call::answer(connection, request).await,
    }
}
