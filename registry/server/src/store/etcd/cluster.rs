//! Calls to an etcd cluster. Each has a timeout. If a member does not answer, the next one is
//! called. gRPC's own load balancing would keep calling a member whose process is stopped.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::EtcdConfig;
use crate::etcd::{Certificates, Credentials, Error, Member};

/// How long a member may take to answer a call.
const CALL: Duration = Duration::from_secs(2);

/// How often each member is tried before a call fails.
const ROUNDS: usize = 2;

/// The members of a cluster. Clones share the choice of the current member.
#[derive(Clone)]
pub(super) struct Cluster {
    members: Arc<[Slot]>,
    /// The position of the current member.
    current: Arc<watch::Sender<usize>>,
    credentials: Arc<Credentials>,
    /// What was in the files of the credentials when they were read last.
    certificates: Arc<Mutex<Certificates>>,
}

/// One member, and where it is.
struct Slot {
    address: String,
    member: ArcSwap<Member>,
}

/// A call that no member answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    /// The error of the last attempt.
    #[error("the call to etcd failed: {0}")]
    Refused(#[from] Error),
    /// The last attempt was not answered in time.
    #[error("no member of the etcd cluster answered in time")]
    Silent,
}

impl Cluster {
    pub(super) async fn connect(config: &EtcdConfig) -> Result<Self, EtcdError> {
        let mut members = Vec::new();
        for endpoint in &config.endpoints {
            let member = Member::new(endpoint, &config.credentials)?;
            // The connection is opened by the first call. Only the login is done now. A member that
            // does not accept it is left out.
            match tokio::time::timeout(CALL, member.log_in()).await {
                Ok(Ok(())) => members.push(Slot {
                    address: endpoint.clone(),
                    member: ArcSwap::from_pointee(member),
                }),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a member of the etcd cluster is left out: the login failed");
                }
                Err(_) => {
                    tracing::warn!(
                        "a member of the etcd cluster is left out: it did not answer the login"
                    );
                }
            }
        }
        if members.is_empty() {
            return Err(EtcdError::Silent);
        }
        Ok(Cluster {
            members: members.into(),
            current: Arc::new(watch::Sender::new(0)),
            credentials: Arc::new(config.credentials.clone()),
            certificates: Arc::new(Mutex::new(config.credentials.read()?)),
        })
    }

    /// Makes a call that may be repeated.
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

    /// The current member, and its position.
    pub(super) fn current(&self) -> (usize, Member) {
        let position = *self.current.borrow();
        (position, self.member(position))
    }

    /// Completes when this member is no longer the current one.
    pub(super) async fn moved_on(&self, from: usize) {
        // The sender lives as long as the cluster.
        let _ = self.current.subscribe().wait_for(|current| *current != from).await;
    }

    /// Makes the next member the current one, unless another call has done so already.
    pub(super) fn move_on(&self, from: usize) {
        self.look_at_certificates();
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
        (**self.members[position % self.members.len()].member.load()).clone()
    }

    /// Connects anew if the files of the credentials have others in them: that may be why a call failed.
    fn look_at_certificates(&self) {
        if !self.credentials.encrypted {
            return;
        }
        let mut known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.credentials.read().and_then(|now| {
            if now == *known {
                return Ok(false);
            }
            for Slot { address, member } in &*self.members {
                let renewed = member.load().with_certificates(address, &now)?;
                member.store(Arc::new(renewed));
            }
            *known = now;
            Ok(true)
        });
        match changed {
            Ok(false) => {}
            Ok(true) => tracing::info!("the certificates for etcd were exchanged"),
            // They may be in the middle of being exchanged.
            Err(error) => tracing::warn!(%error, "the certificates for etcd stay as they were"),
        }
    }
}
