//! The registry: stores which host serves what, drops hosts that fall silent, and answers clients.
//!
//! [`Registry`] serves the HTTP API of `wharf-registry-api` on a listener. It must not know of
//! wasm, of the RPC protocol or of what a service's types look like.
//!
//! Inside, `record` decides who may change what. A `store` puts changes in order and makes them
//! durable. `view` is what this process knows; it consists of `catalog`, `liveness` and `journal`,
//! which are plain state. `http` translates.

mod address;
pub mod backup;
mod catalog;
mod clock;
mod directory;
mod dns;
pub mod etcd;
mod http;
pub mod identity;
mod journal;
mod listing;
mod liveness;
mod metrics;
mod probing;
mod record;
mod registrations;
mod store;
mod upkeep;
mod validate;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::watch;
use wharf_net::listener::Bounds;
use wharf_net::principals::Principals;

pub use crate::dns::Dns;
pub use crate::store::etcd::EtcdConfig;
pub use crate::store::file::{OPENING_THREAD, OpenError};
pub use crate::validate::kebab;
pub use wharf_net::tls::{Tls, TlsError, TlsFiles};

use crate::directory::Directory;
use crate::identity::Issuer;
use crate::store::Backend;
use crate::store::file::File;
use crate::store::local::Local;
use crate::view::{Patience, View};

/// How long connections may take to end at shutdown. A request that never ends must not block it.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// How a registry behaves.
#[derive(Clone)]
pub struct Config {
    /// A host or service that is silent for this long is dropped.
    pub ttl: Duration,
    /// How often hosts must send heartbeats.
    pub heartbeat: Duration,
    /// A critical service of Consul's clients is not dropped sooner, whatever its
    /// `DeregisterCriticalServiceAfter` says.
    pub shortest_drop: Duration,
    /// Connections that may be open at once; more wait to be accepted.
    pub max_connections: usize,
    /// Where records are kept.
    pub store: Store,
    /// Who may do what. Without it, everyone who reaches the registry may do everything.
    pub principals: Option<Principals>,
    /// TLS. Without it, connections are not encrypted.
    pub tls: Option<Tls>,
    /// Gives out certificates to the members of its trust domain. The listener then shows the domain's
    /// certificate, whatever `tls` says.
    pub issuer: Option<Issuer>,
}

/// Where records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Store {
    /// In memory: hosts declare themselves again after a restart.
    Memory,
    /// In a file. Every acknowledged change survives a crash of the process.
    File(PathBuf),
    /// In an etcd cluster, which any number of registries share.
    Etcd(EtcdConfig),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ttl: Duration::from_secs(15),
            heartbeat: Duration::from_secs(5),
            shortest_drop: Duration::from_secs(60),
            max_connections: 16_384,
            store: Store::Memory,
            principals: None,
            tls: None,
            issuer: None,
        }
    }
}

impl Config {
    /// A config for another time to live. The heartbeat is a third of it, so two may be lost.
    #[must_use]
    pub fn with_ttl(ttl: Duration) -> Self {
        Config { ttl, heartbeat: ttl / 3, ..Config::default() }
    }

    fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::new(self.max_connections, LAST_ANSWERS);
        let issued = self.issuer.as_ref().map(|issuer| issuer.tls().clone());
        bounds.tls = issued.or_else(|| self.tls.clone());
        bounds
    }
}

/// Why a registry does not start, or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Its store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The system refuses something that the registry needs.
    #[error("the registry cannot be started")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store failed, and its contents cannot be trusted any more.
    #[error(
        "the registry's store failed; the log above says why; restart the registry to read the store again"
    )]
    StoreEnded,
}

/// A registry that is ready to serve.
pub struct Registry {
    directory: Arc<Directory>,
    metrics: Arc<metrics::Metrics>,
    config: Config,
    dns: Option<Dns>,
    stop: watch::Sender<bool>,
}

impl Registry {
    /// Opens the store and reads its contents. Waits for an etcd cluster that does not answer yet.
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
                let patience = Patience::after_lease(config.ttl, store::etcd::lease);
                let view =
                    |epoch, number| Arc::new(View::new(patience, config.heartbeat, epoch, number));
                let metrics = metrics.clone();
                let frame = http::frame;
                Backend::Etcd(
                    store::etcd::Etcd::start(etcd, config.ttl, view, frame, metrics).await,
                )
            }
        };
        let (stop, stopped) = watch::channel(false);
        let directory = Arc::new(Directory::new(&config, store, metrics.clone(), stopped));
        Ok(Registry { directory, metrics, config, dns: None, stop })
    }

    /// Like [`Registry::open`]. Meanwhile it answers on the listener that it will serve on: that it
    /// is alive, and that it cannot answer anything else yet.
    ///
    /// # Errors
    /// As for [`Registry::open`].
    pub async fn open_on(listener: &TcpListener, config: Config) -> Result<Self, RunError> {
        let (stop, stopped) = watch::channel(false);
        let bounds = config.bounds();
        let meanwhile = serve(listener, &bounds, stopped, http::meanwhile());
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

    /// Answers DNS too while it serves.
    #[must_use]
    pub fn with_dns(mut self, dns: Option<Dns>) -> Self {
        self.dns = dns;
        self
    }

    /// Serves until `shutdown` completes. Then answers waiting callers, tells watchers, and closes
    /// connections.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), RunError> {
        let Registry { directory, metrics, config, dns, stop } = self;
        let sweeper = tokio::spawn(directory.clone().sweep());
        let prober = tokio::spawn(probing::probe(directory.clone()));
        let naming =
            dns.map(|dns| tokio::spawn(dns::serve(dns, directory.clone(), stop.subscribe())));
        let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let bounds = config.bounds();
        let following = config.issuer.clone().map(|issuer| tokio::spawn(issuer.follow()));
        let is_encrypted = bounds.tls.is_some();
        // Who belongs to the trust domain is known by certificate.
        let principals = config.principals;
        let principals =
            principals.or_else(|| config.issuer.as_ref().map(|_| Principals::certified()));
        let trusts_this_machine = local && principals.is_none() && !is_encrypted;
        let source = http::Source::new(
            directory.clone(),
            metrics,
            principals,
            trusts_this_machine,
            config.issuer,
        );
        let routes = http::routes(source);
        let serving = serve(&listener, &bounds, stop.subscribe(), routes);
        let mut serving = std::pin::pin!(serving);
        let served = tokio::select! {
            // It ends only when it is told to.
            () = &mut serving => return Ok(()),
            () = shutdown => Ok(()),
            () = directory.store_ended() => Err(RunError::StoreEnded),
        };
        stop.send_replace(true);
        // Another one takes over while the last answers are given.
        let resigned = tokio::time::timeout(LAST_ANSWERS, directory.resign());
        let _ = tokio::join!(serving, resigned);
        sweeper.abort();
        prober.abort();
        naming.inspect(tokio::task::JoinHandle::abort);
        following.inspect(tokio::task::JoinHandle::abort);
        served
    }
}

/// Serves on a listener until `stopped`, and then lets the current answers finish.
async fn serve(
    listener: &TcpListener,
    bounds: &Bounds,
    stopped: watch::Receiver<bool>,
    routes: axum::Router,
) {
    let told = stopped.clone();
    let connection = move |stream, peer| {
        let (routes, told) = (routes.clone(), told.clone());
        async move {
            if let Err(error) =
                wharf_net::http::serve(stream, routes, wharf_net::http::HEAD, told).await
            {
                tracing::debug!(%peer, %error, "a connection broke");
            }
        }
    };
    let cut_off = wharf_net::listener::serve(listener, bounds, stopped, connection).await;
    if cut_off > 0 {
        tracing::warn!(cut_off, "some connections were cut off before their answers were complete");
    }
}

/// A store that only this process uses.
fn local(
    config: &Config,
    file: Option<File>,
    records: record::Records,
    metrics: &Arc<metrics::Metrics>,
) -> Result<Backend, RunError> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // It tells this run of the registry from others. Plain indices also need it to grow from run to
    // run.
    let epoch = since_1970.map_or(1, |time| u64::try_from(time.as_micros()).unwrap_or(1));
    let view = Arc::new(View::new(Patience::whole(config.ttl), config.heartbeat, epoch, 1));
    view.load(records);
    let local = Local::start(view.clone(), file, http::frame, metrics.clone())
        .map_err(|error| RunError::Start(error.into()))?;
    Ok(Backend::Local { local, view })
}
