//! The accept loop: a bounded number of connections, each a task of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::Config;
use crate::connection;
use crate::metrics::Metrics;
use crate::table::Table;

/// How long accepting rests when the system has no file descriptors left.
const REST: Duration = Duration::from_millis(100);

/// What all connections share; nothing in it is locked on the way of a call.
pub(crate) struct Shared {
    pub(crate) table: Arc<Table>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: Config,
    /// Bytes of arguments of all calls that did not finish where they arrived.
    pub(crate) held: Arc<AtomicU64>,
}

impl Shared {
    pub(crate) fn new(table: Arc<Table>, metrics: Arc<Metrics>, config: Config) -> Arc<Self> {
        Arc::new(Shared { table, metrics, config, held: Arc::default() })
    }
}

/// A connection among those that are counted.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.metrics.connections.inc();
        Open(shared.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

/// Accepts connections until it is told to drain, and then waits for them.
pub(crate) struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
}

impl Server {
    pub(crate) fn new(
        listener: TcpListener,
        shared: Arc<Shared>,
        drain: watch::Receiver<bool>,
    ) -> Self {
        Server { listener, shared, drain }
    }

    pub(crate) async fn run(mut self) {
        let room = Arc::new(Semaphore::new(self.shared.config.max_connections));
        let mut connections = JoinSet::new();
        loop {
            // A place first: beyond the bound, connections wait in the system's backlog.
            let place = tokio::select! {
                place = room.clone().acquire_owned() => place,
                _ = self.drain.wait_for(|drain| *drain) => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = self.drain.wait_for(|drain| *drain) => break,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    let serve =
                        connection::serve(stream, peer, self.shared.clone(), self.drain.clone());
                    let open = Open::new(&self.shared);
                    connections.spawn(async move {
                        serve.await;
                        drop((place, open));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REST).await;
                }
            }
        }
        // Whoever connects now is told by the system that nobody listens.
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        let cap = self.shared.config.drain_timeout;
        if tokio::time::timeout(cap, all).await.is_err() {
            tracing::warn!(cap = ?cap, connections = connections.len(), "calls were still in flight when the time to drain was over");
        }
    }
}
