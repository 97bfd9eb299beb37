//! Calls to an etcd cluster: each with a bound of time, and to the next member when one does not
//! answer. The client's own balancing would go on asking a member that is merely stopped.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::sync::watch;

use super::EtcdConfig;

/// How long a member may take to answer a call.
const CALL: Duration = Duration::from_secs(2);

/// How long connecting to a member may take.
const CONNECT: Duration = Duration::from_secs(1);

/// How often each member is asked, before a call fails.
const ROUNDS: usize = 2;

/// The members of a cluster; clones share which one is asked.
#[derive(Clone)]
pub(super) struct Cluster {
    members: Arc<[Client]>,
    /// The position of the member that is asked.
    current: Arc<watch::Sender<usize>>,
}

/// A call that no member answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    /// The last one's error.
    #[error("etcd refuses: {0}")]
    Refused(#[from] Error),
    /// The last one did not answer in time.
    #[error("no member of the etcd cluster answers in time")]
    Silent,
}

impl Cluster {
    pub(super) async fn connect(config: &EtcdConfig) -> Result<Self, EtcdError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            // As often as members allow it, or they close the connection.
            .with_keep_alive(Duration::from_secs(6), Duration::from_secs(3))
            .with_require_leader(true);
        if let Some((user, password)) = &config.user {
            options = options.with_user(user, password).with_auto_token_refresh(true);
        }
        if config.encrypted {
            let mut tls = TlsOptions::new();
            if let Some(pem) = &config.authorities {
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            if let Some(pem) = &config.certificate {
                tls = tls.identity(Identity::from_pem(pem, pem));
            }
            options = options.with_tls(tls);
        }
        let scheme = if config.encrypted { "https" } else { "http" };
        let mut members = Vec::new();
        for endpoint in &config.endpoints {
            let endpoint = format!("{scheme}://{endpoint}");
            let connecting = Client::connect([endpoint], Some(options.clone()));
            match tokio::time::timeout(CALL, connecting).await {
                Ok(Ok(member)) => members.push(member),
                // Only a login is done now, and another member may take it.
                Ok(Err(error)) if config.user.is_none() => return Err(error.into()),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a member of the etcd cluster is left out");
                }
                Err(_) => {
                    tracing::warn!("a member of the etcd cluster does not answer, and is left out");
                }
            }
        }
        if members.is_empty() {
            return Err(EtcdError::Silent);
        }
        Ok(Cluster { members: members.into(), current: Arc::new(watch::Sender::new(0)) })
    }

    /// Does a call that may be repeated.
    pub(super) async fn call<T, C>(&self, mut call: impl FnMut(Client) -> C) -> Result<T, EtcdError>
    where
        C: Future<Output = Result<T, Error>>,
    {
        let mut last = EtcdError::Silent;
        for _ in 0..ROUNDS * self.members.len() {
            let (position, member) = self.current();
            last = match tokio::time::timeout(CALL, call(member)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => EtcdError::Refused(error),
                Err(_) => EtcdError::Silent,
            };
            self.move_on(position);
        }
        Err(last)
    }

    /// The member that is asked now, and its position.
    pub(super) fn current(&self) -> (usize, Client) {
        let position = *self.current.borrow();
        (position, self.member(position))
    }

    /// Completes when another member than this one is asked.
    pub(super) async fn moved_on(&self, from: usize) {
        // The sender lives as long as the cluster.
        let _ = self.current.subscribe().wait_for(|current| *current != from).await;
    }

    /// Asks the next member from now on, unless somebody has moved on already.
    pub(super) fn move_on(&self, from: usize) {
        let next = (from + 1) % self.members.len();
        self.current.send_if_modified(|current| {
            let moves = *current == from && next != from;
            if moves {
                *current = next;
            }
            moves
        });
    }

    fn member(&self, position: usize) -> Client {
        self.members[position % self.members.len()].clone()
    }
}
