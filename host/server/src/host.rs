//! A running host: starts its parts, and stops them in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use wharf_net::private::PrivateError;
use wharf_registry_api::{METRICS, METRICS_SCHEME};
use wharf_runtime::{CacheDirectory, Engine, EngineError, EngineOptions};

use crate::announce::{Announcer, Farewell};
use crate::config::{Config, PluginsConfig};
use crate::metrics::Metrics;
use crate::plugins::granting;
use crate::plugins::table::{FileReport, Table};
use crate::plugins::{Folder, Loader};
use crate::{admin, rpc};

/// How long the first declaration waits for plugins that are still loading.
const GATHERING: Duration = Duration::from_secs(1);

/// A running host. Dropping it stops it at once. [`Host::drain`] shuts it down in order.
pub struct Host {
    address: SocketAddr,
    table: Arc<Table>,
    ready: watch::Receiver<bool>,
    /// The revision of the table that the registry accepted last.
    announced: watch::Receiver<u64>,
    loader: JoinHandle<()>,
    server: JoinHandle<()>,
    http: Option<JoinHandle<()>>,
    /// Tells the server to drain.
    draining: watch::Sender<bool>,
    announcer: Option<(JoinHandle<()>, oneshot::Sender<Farewell>)>,
}

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The plugins folder cannot be read.
    #[error("the plugins folder {} cannot be read: create it, or name another with --plugins", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Others may write to the plugins folder, so they could run anything with the rights of this user.
    #[error("the plugins folder {} is not safe, and sidecars in it grant what this user may do; mend it, or start with --plugins-shared, where sidecars grant nothing", path.display())]
    FolderShared {
        /// The folder.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        #[source]
        source: PrivateError,
    },
    /// The listener has no address.
    #[error("the listener has no address")]
    Listener(#[source] std::io::Error),
    /// The WebAssembly engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A mistake in the names of metrics.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(String),
}

impl Host {
    /// Starts a host on `listener`, with its HTTP side on `http`, if given.
    ///
    /// # Errors
    /// When the folder cannot be read, the cache is not safe or the engine cannot start. A plugin
    /// that does not load is not an error.
    pub fn start(
        listener: TcpListener,
        http: Option<TcpListener>,
        config: Config,
    ) -> Result<Self, StartError> {
        let address = listener.local_addr().map_err(StartError::Listener)?;
        let Config { plugins, rpc, announce } = config;
        let folder = Folder::watch(&plugins.folder)
            .map_err(|source| StartError::Folder { path: plugins.folder.clone(), source })?;
        granting::check_folder(&plugins.granting, &plugins.folder)
            .map_err(|source| StartError::FolderShared { path: plugins.folder.clone(), source })?;
        let engine = engine(&plugins)?;
        let metrics = Metrics::new().map_err(|error| StartError::Metrics(error.to_string()))?;
        let metrics = Arc::new(metrics);
        let table = Arc::new(Table::new());
        let (announced, taken) =
            watch::channel(if announce.registry.is_some() { 0 } else { u64::MAX });
        let (ready_sender, ready) = watch::channel(false);
        let loader = Loader {
            engine: engine.clone(),
            settings: plugins.settings,
            max_size: plugins.max_size,
            compatible: plugins.compatible,
            granting: Arc::new(plugins.granting),
            folder,
            table: table.clone(),
            metrics: metrics.clone(),
            announced: taken.clone(),
            ready: ready_sender,
        };
        let (draining, drain) = watch::channel(false);
        let announcer = announce.registry.clone().map(|registry| {
            let mut metadata = announce.metadata.clone();
            if let Some(http) = http.as_ref().and_then(|http| http.local_addr().ok()) {
                metadata.insert(METRICS.to_owned(), announce.advertise.beside(http));
                if rpc.tls.is_some() {
                    metadata.insert(METRICS_SCHEME.to_owned(), "https".to_owned());
                }
            }
            let announcer = Announcer::new(registry, announce, metadata, table.clone(), announced);
            let (farewell, heard) = oneshot::channel();
            let ready = ready.clone();
            let announce = async move {
                // Declare all plugins at once, and not each one as it is loaded. Plugins that take
                // longer are announced as compiling.
                let mut ready = ready;
                let _ = tokio::time::timeout(GATHERING, ready.wait_for(|ready| *ready)).await;
                announcer.run(heard).await;
            };
            (tokio::spawn(announce), farewell)
        });
        let shared = rpc::Shared::new(table.clone(), metrics, rpc);
        let source = admin::Source {
            shared: shared.clone(),
            engine,
            ready: ready.clone(),
            draining: draining.subscribe(),
        };
        Ok(Host {
            address,
            table,
            ready,
            announced: taken,
            loader: tokio::spawn(loader.run()),
            server: tokio::spawn(rpc::serve(listener, shared, drain)),
            http: http.map(|listener| tokio::spawn(admin::serve(listener, source))),
            draining,
            announcer,
        })
    }

    /// The address where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes once every file that existed at the start is loaded or refused.
    pub async fn ready(&self) {
        // The sender lives as long as the loader. Without a loader there is nothing to wait for.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    /// Completes once the registry knows everything that is served now. Completes at once if the
    /// host announces nothing. Waits as long as the registry is unreachable.
    pub async fn announced(&self) {
        let (revision, _) = self.table.endpoints();
        let _ = self.announced.clone().wait_for(|announced| *announced >= revision).await;
    }

    /// Counts the changes of what the files serve, and of their states.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.table.revisions()
    }

    /// The state of each file of the plugins folder.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, FileReport> {
        self.table.files_report()
    }

    /// Shuts down in order: tells the registry, takes no new calls, lets the calls in flight finish
    /// within the drain timeout, then withdraws from the registry.
    pub async fn drain(mut self) {
        self.loader.abort();
        let mut withdraw = None;
        if let Some((announcer, farewell)) = self.announcer.take() {
            let (told, heard) = oneshot::channel();
            let (finished, done) = oneshot::channel();
            if farewell.send(Farewell { told, done }).is_ok() {
                // If the announcer ended without a reply, there is nothing to wait for.
                let _ = heard.await;
            }
            withdraw = Some((announcer, finished));
        }
        self.draining.send_replace(true);
        if let Err(error) = (&mut self.server).await
            && !error.is_cancelled()
        {
            tracing::error!(%error, "the server failed");
        }
        if let Some((announcer, finished)) = withdraw {
            let _ = finished.send(());
            let _ = announcer.await;
        }
    }
}

fn engine(config: &PluginsConfig) -> Result<Engine, EngineError> {
    let check: fn(&Path) -> _ = |path| Ok(wharf_net::private::check(path)?);
    let cache = config.cache.as_deref().map(|path| CacheDirectory { path, check });
    let options = |cache| EngineOptions {
        cache,
        compiler: config.compiler.clone(),
        guest_memory: config.guest_memory,
    };
    match Engine::with(options(cache)) {
        Err(EngineError::Cache(error)) if !config.require_cache => {
            let error = wharf_net::chain(&error);
            tracing::warn!(
                "the cache cannot be used, so every start compiles all plugins: {error}"
            );
            Engine::with(options(None))
        }
        engine => engine,
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.loader.abort();
        self.server.abort();
        if let Some(http) = &self.http {
            http.abort();
        }
        if let Some((announcer, _)) = &self.announcer {
            announcer.abort();
        }
    }
}
