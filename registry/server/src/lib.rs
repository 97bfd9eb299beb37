//! The registry: stores which host serves what, drops who falls silent, and tells who asks.
//!
//! [`Registry`] serves the HTTP API of `wharf-registry-api` on a listener. It must not know of wasm,
//! of the RPC protocol or of what a service's types look like.
//!
//! Inside, `record` decides who may change what; a `store` puts changes in order and makes them
//! durable; `view` is what the process knows, made of `catalog`, `liveness` and `journal`, which are
//! plain state; `http` translates.

mod access;
mod catalog;
mod clock;
pub mod etcd;
mod http;
mod journal;
mod listener;
mod listing;
mod liveness;
mod metrics;
mod record;
mod registry;
mod store;
mod tls;
mod validate;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;

pub use crate::access::{TokenFile, TokenFileError};
pub use crate::store::etcd::EtcdConfig;
pub use crate::store::file::{OPENING_THREAD, OpenError};
pub use crate::tls::{Tls, TlsError, TlsFiles};
pub use crate::validate::kebab;

use crate::store::Backend;
use crate::store::file::File;
use crate::store::local::Local;
use crate::view::View;

/// How a registry behaves.
#[derive(Clone)]
pub struct Config {
    /// A host or service that is silent for this long is dropped.
    pub ttl: Duration,
    /// How often hosts are asked to show that they live.
    pub heartbeat: Duration,
    /// Connections that may be open at once; more wait to be accepted.
    pub max_connections: usize,
    /// Where records are kept.
    pub store: Store,
    /// Who may do what; without, whoever reaches the registry may do everything.
    pub tokens: Option<TokenFile>,
    /// Without, connections are not encrypted.
    pub tls: Option<Tls>,
}

/// Where records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory: hosts declare themselves again after a restart.
    Memory,
    /// In a file, in which every acknowledged change survives the process.
    File(PathBuf),
    /// In an etcd cluster, which any number of registries share.
    Etcd(EtcdConfig),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ttl: Duration::from_secs(15),
            heartbeat: Duration::from_secs(5),
            max_connections: 16_384,
            store: Store::Memory,
            tokens: None,
            tls: None,
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

/// Why a registry does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The system does not give it what it needs.
    #[error("the registry cannot be started")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What makes changes durable broke, and nothing that it holds is to be trusted any more.
    #[error("the registry's store broke; what is wrong is said above, and a restart reads it anew")]
    StoreEnded,
}

/// A registry that is ready to serve.
pub struct Registry {
    registry: Arc<registry::Registry>,
    metrics: Arc<metrics::Metrics>,
    config: Config,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Registry {
    /// Opens the store and reads what it holds. Waits for an etcd cluster that is not there yet.
    ///
    /// # Errors
    /// When the store cannot be opened, or is damaged.
    pub async fn open(config: Config) -> Result<Self, RunError> {
        let metrics = metrics::Metrics::new().map_err(|error| RunError::Start(error.into()))?;
        let store = match &config.store {
            Store::Memory => local(&config, None, Vec::new(), &metrics)?,
            Store::File(path) => {
                let (file, records) = File::open(path)?;
                tracing::info!(store = %path.display(), records = records.len(), "the store is open");
                local(&config, Some(file), records, &metrics)?
            }
            Store::Etcd(etcd) => {
                // The lease counts first, and what is left of the time to live after it.
                let left = config.ttl.saturating_sub(store::etcd::lease(config.ttl));
                let left = left.max(clock::LivenessClock::MAX_STEP);
                let view =
                    |epoch, number| Arc::new(View::new(left, config.heartbeat, epoch, number));
                let metrics = metrics.clone();
                let frame = http::frame;
                Backend::Etcd(
                    store::etcd::Etcd::start(etcd, config.ttl, view, frame, metrics).await,
                )
            }
        };
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let registry = Arc::new(registry::Registry::new(&config, store, metrics.clone(), stopped));
        Ok(Registry { registry, metrics, config, stop })
    }

    /// As [`Registry::open`], and answers meanwhile on the listener that it will serve on: that it lives,
    /// and that it cannot answer anything else yet.
    ///
    /// # Errors
    /// As [`Registry::open`].
    pub async fn open_on(listener: &TcpListener, config: Config) -> Result<Self, RunError> {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let tls = config.tls.clone();
        let max_connections = config.max_connections;
        let meanwhile = listener::serve(listener, tls, http::meanwhile(), max_connections, stopped);
        let mut meanwhile = std::pin::pin!(meanwhile);
        let opened = tokio::select! {
            opened = Registry::open(config) => opened,
            // It ends only when it is told to.
            () = &mut meanwhile => return Err(RunError::StoreEnded),
        };
        stop.send_replace(true);
        meanwhile.await;
        opened
    }

    /// Serves until `shutdown` completes; then waiting callers are answered, watchers told, and
    /// connections closed.
    ///
    /// # Errors
    /// When the store breaks.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), RunError> {
        let Registry { registry, metrics, config, stop } = self;
        let sweeper = tokio::spawn(registry.clone().sweep());
        let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let routes = http::routes(http::Source {
            registry: registry.clone(),
            trusts_this_machine: local && config.tokens.is_none() && config.tls.is_none(),
            tokens: config.tokens,
            metrics,
        });
        let stopped = stop.subscribe();
        let serving =
            listener::serve(&listener, config.tls, routes, config.max_connections, stopped);
        let mut serving = std::pin::pin!(serving);
        let served = tokio::select! {
            // It ends only when it is told to.
            () = &mut serving => return Ok(()),
            () = shutdown => Ok(()),
            () = registry.store_ended() => Err(RunError::StoreEnded),
        };
        stop.send_replace(true);
        serving.await;
        sweeper.abort();
        served
    }
}

/// A store that this process has for itself.
fn local(
    config: &Config,
    file: Option<File>,
    records: store::file::Records,
    metrics: &Arc<metrics::Metrics>,
) -> Result<Backend, RunError> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // Only told apart from the epochs of other lives, never compared as a time.
    let epoch = since_1970.map_or(1, |time| u64::try_from(time.as_micros()).unwrap_or(1));
    let view = Arc::new(View::new(config.ttl, config.heartbeat, epoch, 1));
    view.load(records);
    let local = Local::start(view.clone(), file, http::frame, metrics.clone())
        .map_err(|error| RunError::Start(error.into()))?;
    Ok(Backend::Local { local, view })
}
