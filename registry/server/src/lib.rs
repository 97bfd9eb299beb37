//! The registry: stores which host serves what, drops who falls silent, and tells who asks.
//!
//! [`run`] serves the HTTP API of `wharf-registry-api` on a listener. It must not know of wasm,
//! of the RPC protocol or of what a service's types look like.
//!
//! Inside, `catalog` and `classic` are plain state that is handed the time; `registry` owns
//! them, wakes whoever waits and sweeps; `http` translates.

mod bounded_listener;
mod catalog;
mod classic;
mod clock;
mod http;
mod registry;
mod validate;

use std::time::Duration;

use tokio::net::TcpListener;

pub use crate::validate::kebab;

/// How long connections may take to end at shutdown: a request that never comes to its end must not
/// hold the process.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// How a registry behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A host or service that is silent for this long is dropped.
    pub ttl: Duration,
    /// How often hosts are asked to show that they live.
    pub heartbeat: Duration,
    /// Connections that may be open at once; more wait to be accepted.
    pub max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ttl: Duration::from_secs(15),
            heartbeat: Duration::from_secs(5),
            max_connections: 16_384,
        }
    }
}

impl Config {
    /// A config for another time to live, with a heartbeat that leaves two to be lost.
    #[must_use]
    pub fn with_ttl(ttl: Duration) -> Self {
        Config { ttl, heartbeat: ttl / 3, ..Config::default() }
    }
}

/// Serves until `shutdown` completes; then waiting callers are answered and connections closed.
///
/// # Errors
/// When the listener fails for good.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let registry = registry::Registry::new(&config, stopped);
    let sweeper = tokio::spawn(registry.clone().sweep());
    let listener = bounded_listener::BoundedListener::new(listener, config.max_connections);
    let mut stopping = stop.subscribe();
    let serve = axum::serve(listener, http::routes(registry)).with_graceful_shutdown(async move {
        shutdown.await;
        // Nobody is left to hear it only if serving has ended already.
        let _ = stop.send(true);
    });
    let served = tokio::select! {
        served = serve => served,
        () = async {
            let _ = stopping.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(LAST_ANSWERS).await;
        } => Ok(()),
    };
    sweeper.abort();
    served
}
