//! The connections to all endpoints: one each, made when it is needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::connection::Connection;
use crate::error::{ConnectError, Failure};

/// How long connecting may take at most, whatever the call's deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// All endpoints that were ever used.
pub(crate) struct Endpoints {
    token: Vec<u8>,
    by_address: Mutex<HashMap<String, Arc<Endpoint>>>,
}

struct Endpoint {
    address: String,
    connection: ArcSwapOption<Connection>,
    /// Held by the one who connects; others wait for what comes of it.
    connecting: tokio::sync::Mutex<()>,
}

impl Endpoints {
    pub(crate) fn new(token: Vec<u8>) -> Self {
        Endpoints { token, by_address: Mutex::default() }
    }

    /// An open connection to an address.
    pub(crate) async fn connection(
        &self,
        address: &str,
        deadline: Instant,
    ) -> Result<Arc<Connection>, Failure> {
        let endpoint = {
            let mut all = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            match all.get(address) {
                Some(endpoint) => endpoint.clone(),
                None => {
                    // Addresses come and go; those without a connection are nothing to keep.
                    all.retain(|_, endpoint| {
                        endpoint.current().is_some() || Arc::strong_count(endpoint) > 1
                    });
                    let endpoint = Arc::new(Endpoint::new(address));
                    all.insert(address.to_owned(), endpoint.clone());
                    endpoint
                }
            }
        };
        endpoint.connection(&self.token, deadline).await
    }
}

impl Endpoint {
    fn new(address: &str) -> Self {
        Endpoint {
            address: address.to_owned(),
            connection: ArcSwapOption::empty(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    fn current(&self) -> Option<Arc<Connection>> {
        self.connection.load_full().filter(|connection| connection.is_open())
    }

    async fn connection(
        &self,
        token: &[u8],
        deadline: Instant,
    ) -> Result<Arc<Connection>, Failure> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let timeout = deadline.saturating_duration_since(Instant::now()).min(CONNECT_TIMEOUT);
        let connecting = async {
            let _only_one = self.connecting.lock().await;
            if let Some(connection) = self.current() {
                return Ok(connection);
            }
            let connection = Arc::new(Connection::open(&self.address, token, timeout).await?);
            self.connection.store(Some(connection.clone()));
            Ok(connection)
        };
        match tokio::time::timeout(timeout, connecting).await {
            Ok(connection) => connection.map_err(Failure::Connect),
            Err(_) => Err(Failure::Connect(ConnectError::TimedOut(timeout))),
        }
    }
}
