//! The RPC port, and the protocols on it.
//!
//! `detect` recognizes the protocol of a connection by its first byte. A protocol only translates:
//! from bytes to a method and its arguments, and from an outcome to bytes. `invoke` decides for all
//! protocols which calls are admitted, what their deadlines are, which trace they belong to, and
//! how they are counted.

mod detect;
mod invoke;
mod last_words;
mod shared;
mod wharf;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use wharf_net::Stream;
use wharf_net::listener::{self, Bounds};
use wharf_wire::limits;

use self::detect::Protocol;
pub(crate) use self::shared::Shared;

/// Accepts connections until it is told to drain. Then waits until they end, at most for the drain
/// timeout.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
) {
    let cap = shared.config.drain_timeout;
    let bounds = Bounds::new(shared.config.max_connections, cap);
    let connection = {
        let drain = drain.clone();
        let shared = shared.clone();
        move |stream, peer| connection(stream, peer, shared.clone(), drain.clone())
    };
    let cut_off = listener::serve(listener, &bounds, drain, connection).await;
    if cut_off > 0 {
        // Their tasks end a moment later.
        let calls = shared.running.load(std::sync::atomic::Ordering::Relaxed);
        tracing::warn!(
            ?cap,
            calls,
            connections = cut_off,
            "calls did not finish within the drain timeout, and were ended"
        );
    }
}

async fn connection(
    mut stream: Stream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<bool>,
) {
    let _open = shared.metrics.connection_opened();
    let open_by = Instant::now() + limits::HELLO_TIMEOUT;
    let detected = tokio::select! {
        detected = tokio::time::timeout_at(open_by, detect::detect(&mut stream)) => detected,
        _ = drain.wait_for(|drain| *drain) => return,
    };
    match detected {
        Ok(Ok(Some(Protocol::Wharf))) => wharf::serve(stream, peer, shared, drain, open_by).await,
        Ok(Ok(Some(Protocol::Http))) => {
            tracing::debug!(%peer, "a connection speaks HTTP, which is not served here");
            last_words::say(stream, detect::http_answer().as_bytes()).await;
        }
        Ok(Ok(Some(Protocol::Unknown))) => {
            tracing::debug!(%peer, "a connection speaks an unknown protocol");
        }
        Ok(Ok(None)) => tracing::debug!(%peer, "a connection ended without sending anything"),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection did not open"),
        Err(_) => tracing::debug!(%peer, "a connection sent nothing in time"),
    }
}
