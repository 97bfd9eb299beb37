//! Calls to an etcd cluster: each with a bound of time, and to the next member when one does not
//! answer. The client's own balancing would go on asking a member that is merely stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::EtcdConfig;
use crate::etcd::{Error, Member};

/// How long a member may take to answer a call.
const CALL: Duration = Duration::from_secs(2);

/// How often each member is asked, before a call fails.
const ROUNDS: usize = 2;

/// The members of a cluster; clones share which one is asked.
#[derive(Clone)]
pub(super) struct Cluster {
    members: Arc<[Member]>,
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
        let mut members = Vec::new();
        for endpoint in &config.endpoints {
            let member = Member::new(endpoint, &config.credentials)?;
            // Connecting waits for the first call; only a login is done now, and another member may
            // take it.
            match tokio::time::timeout(CALL, member.log_in()).await {
                Ok(Ok(())) => members.push(member),
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
    pub(super) async fn call<T, C>(&self, mut call: impl FnMut(Member) -> C) -> Result<T, EtcdError>
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
    pub(super) fn current(&self) -> (usize, Member) {
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

    fn member(&self, position: usize) -> Member {
        self.members[position % self.members.len()].clone()
    }
}
