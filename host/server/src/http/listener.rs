//! Serves HTTP/1 with bounds: so many connections, so much time, so large a request.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections that may be open at once; the others wait in the system's backlog.
const MAX_CONNECTIONS: usize = 64;

/// How long the head of a request may take to arrive, and a connection may wait for the next one.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may live: whoever still needs it connects again.
const LIFE: Duration = Duration::from_secs(300);

/// Bytes that the head of a request may take.
const MAX_HEAD: usize = 16 * 1024;

/// How long accepting rests when the system has no file descriptors left.
const REST: Duration = Duration::from_millis(100);

/// Serves until it is dropped, and its connections with it.
pub(super) async fn serve(listener: TcpListener, routes: Router) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the HTTP side could not be accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let routes = TowerToHyperService::new(routes.clone());
        connections.spawn(async move {
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), routes);
            if let Ok(Err(error)) = tokio::time::timeout(LIFE, serving).await {
                tracing::debug!(%error, "a connection to the HTTP side broke");
            }
            drop(place);
        });
    }
}
