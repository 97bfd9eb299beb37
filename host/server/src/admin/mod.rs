//! The host's HTTP side, for operators and their monitoring: health, metrics, services.
//!
//! It only reads, and binds to loopback by default. If there are principals, metrics and services are for
//! those with the scope to read.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use wharf_net::http::{Certified, names_this_machine};
use wharf_net::listener::{self, Bounds};
use wharf_runtime::Engine;

use crate::metrics::Memory;
use crate::plugins::slot::Served;
use crate::plugins::table::{FileReport, FileState};
use crate::rpc::Shared;

/// Connections that may be open at once. Others wait in the system's backlog.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may stay open. A client that still needs it can connect again.
const LIFE: Duration = Duration::from_secs(300);

/// How long the head of a request may take to arrive, and a connection may wait for the next request.
const HEAD: Duration = Duration::from_secs(10);

/// The state that the responses are made from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine,
    /// Whether the files that existed at the start are loaded or refused.
    pub(crate) ready: watch::Receiver<bool>,
    /// Whether the host takes no new calls.
    pub(crate) draining: watch::Receiver<bool>,
}

/// Serves for as long as the host does.
pub(crate) async fn serve(listener: TcpListener, source: Source) {
    let mut bounds = Bounds::new(MAX_CONNECTIONS, Duration::ZERO);
    bounds.tls.clone_from(&source.shared.config.tls);
    // Over TLS browsers have checked the name.
    let on_loopback = source.shared.config.tls.is_none()
        && listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/services", get(services))
        .layer(middleware::from_fn_with_state(source.clone(), ask_who))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(any(unknown_path))
        .with_state(source)
        .layer(middleware::from_fn_with_state(on_loopback, refuse_rebound));
    // It serves until it is dropped, even while the host drains.
    let (_stop, stopped) = watch::channel(false);
    let told = stopped.clone();
    let connection = move |stream, peer| {
        let serving = wharf_net::http::serve(stream, routes.clone(), HEAD, told.clone());
        async move {
            if let Ok(Err(error)) = tokio::time::timeout(LIFE, serving).await {
                tracing::debug!(%peer, %error, "a connection to the HTTP side broke");
            }
        }
    };
    listener::serve(listener, &bounds, stopped, connection).await;
}

/// On loopback, refuses a web page whose own name was made to lead to this machine.
async fn refuse_rebound(State(on_loopback): State<bool>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    if on_loopback && !names_this_machine(host) {
        let why = "this side of the host listens on loopback, so it answers only if the Host header is 127.0.0.1, [::1] or localhost\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    next.run(request).await
}

/// Lets only those read who may, if there are principals.
async fn ask_who(State(source): State<Source>, request: Request, next: Next) -> Response {
    let known = source.shared.config.principals.known();
    let shown = wharf_net::http::bearer(request.headers());
    let certified = request.extensions().get::<Certified>().map(|Certified(names)| names);
    let who = known.recognise(shown, certified);
    let is_wrong = who.is_err();
    if known.is_open() || who.is_ok_and(|who| who.may_read()) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<wharf_net::http::Peer>();
    if let Some(peer) = peer.filter(|_| is_wrong) {
        tokio::time::sleep(source.shared.config.principals.note_wrong(peer.0)).await;
    }
    let why = "whoever reads this needs the scope \"read\" in the file of principals: send 'Authorization: Bearer SECRET'\n";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], why).into_response()
}

/// The process is alive and responds.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The host takes calls.
async fn readyz(State(source): State<Source>) -> (StatusCode, &'static str) {
    if *source.draining.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining: the host takes no new calls\n");
    }
    if !*source.ready.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting: plugins are still being loaded\n");
    }
    (StatusCode::OK, "ok\n")
}

async fn metrics(State(source): State<Source>) -> Response {
    let loaded = source.shared.table.loaded();
    let pools = loaded.into_iter().map(|(file, plugin)| (file, plugin.pool()));
    let memory = Memory {
        held: source.shared.held.taken(),
        unread: source.shared.unread.taken(),
        guests: source.engine.guest_memory().0 as u64,
    };
    match source.shared.metrics.render(pools, memory) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn unknown_path() -> (StatusCode, &'static str) {
    let hint = "this is a Wharf host: try GET /healthz, /readyz, /metrics or /services\n";
    (StatusCode::NOT_FOUND, hint)
}

#[derive(Serialize)]
struct Overview {
    services: Vec<ServiceView>,
    files: Vec<FileView>,
}

#[derive(Serialize)]
struct ServiceView {
    service: String,
    fingerprint: String,
    file: String,
    /// A different number for each load of each file. It tells which load serves now.
    generation: u64,
    docs: String,
    wit: String,
    methods: Vec<MethodView>,
    instances: usize,
    idle: usize,
    waiting: usize,
}

#[derive(Serialize)]
struct MethodView {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    /// Why it cannot be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    untransportable: Option<String>,
}

#[derive(Serialize)]
struct FileView {
    file: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// How long it has been read and compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    compiling_for_seconds: Option<u64>,
    services: Vec<String>,
    /// Services that it has and does not serve, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

async fn services(State(source): State<Source>) -> Response {
    // Describing thousands of methods takes long. Calls must not wait for it.
    let described = tokio::task::spawn_blocking(move || {
        let table = &source.shared.table;
        let overview = Overview {
            services: table.all_served().iter().map(|served| service_view(served)).collect(),
            files: table.files_report().into_iter().map(file_view).collect(),
        };
        Json(overview).into_response()
    });
    match described.await {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn service_view(served: &Served) -> ServiceView {
    let (service, pool) = (&served.service, served.plugin.pool());
    let methods = service.methods().iter().map(|method| {
        let signature = method.signature.as_ref();
        MethodView {
            name: method.name.clone(),
            signature: signature.is_ok().then(|| service.notation(method)),
            fingerprint: signature.ok().map(|signature| signature.fingerprint.to_string()),
            untransportable: signature.err().cloned(),
        }
    });
    ServiceView {
        service: service.name().to_string(),
        fingerprint: service.fingerprint().to_string(),
        file: served.file.clone(),
        generation: served.generation,
        docs: service.docs().to_owned(),
        wit: service.wit().to_owned(),
        methods: methods.collect(),
        instances: pool.instances,
        idle: pool.idle,
        waiting: pool.waiting,
    }
}

fn file_view(
    (file, FileReport { services, state, left_out, .. }): (String, FileReport),
) -> FileView {
    let (state, reason, since) = match state {
        FileState::Compiling(since) => {
            let seconds = since.elapsed().unwrap_or_default().as_secs();
            ("compiling", None, Some(seconds))
        }
        FileState::Serving => ("serving", None, None),
        FileState::Withdrawing => ("withdrawing", None, None),
        FileState::Refused(reason) => ("refused", Some(reason), None),
    };
    FileView { file, state, reason, compiling_for_seconds: since, services, left_out }
}
