//! Where records are kept, and who decides about changes of them.
//!
//! A store takes a [`Write`], decides it in one order with all others, makes it durable, and feeds
//! the view with it; only then is it acknowledged.

pub(crate) mod etcd;
pub(crate) mod file;
pub(crate) mod local;
mod stored;

use std::sync::Arc;

use crate::record::{Key, Refusal, Write};
use crate::view::View;

/// The store of one registry.
pub(crate) enum Backend {
    /// In memory, or in a file: this process alone has it.
    Local {
        /// The way to it.
        local: local::Local,
        /// What it feeds.
        view: Arc<View>,
    },
    /// In etcd: any number of processes have it.
    Etcd(etcd::Etcd),
}

impl Backend {
    pub(crate) fn view(&self) -> &Arc<View> {
        match self {
            Backend::Local { view, .. } => view,
            Backend::Etcd(etcd) => etcd.view(),
        }
    }

    /// Makes a change. Cancel-safe: a change whose caller is gone may still be made.
    pub(crate) async fn write(&self, key: Key, write: Write) -> Result<Written, WriteError> {
        match self {
            Backend::Local { local, .. } => local.write(key, write).await,
            Backend::Etcd(etcd) => etcd.write(key, write).await,
        }
    }

    /// Keeps a record alive that the view has.
    pub(crate) async fn renew(&self, key: &Key) -> Result<(), WriteError> {
        match self {
            Backend::Local { view, .. } => {
                view.hear(key);
                Ok(())
            }
            Backend::Etcd(etcd) => etcd.renew(key).await,
        }
    }

    /// Waits until the view has everything that any process was told is made.
    pub(crate) async fn catch_up(&self) -> Result<(), WriteError> {
        match self {
            Backend::Local { .. } => Ok(()),
            Backend::Etcd(etcd) => etcd.catch_up().await,
        }
    }

    /// Waits until the view is complete up to an index's number; whether it can ever be.
    pub(crate) async fn completed(&self, number: u64) -> bool {
        match self {
            Backend::Local { view, .. } => number <= view.complete(),
            Backend::Etcd(etcd) => {
                etcd.view().completed(number).await;
                true
            }
        }
    }

    /// Whether it takes changes; if not, why.
    pub(crate) fn readiness(&self) -> Result<(), &'static str> {
        match self {
            Backend::Local { local, .. } if local.fails() => {
                Err("the store does not take changes; lists are answered")
            }
            Backend::Local { .. } => Ok(()),
            Backend::Etcd(etcd) => etcd.readiness(),
        }
    }

    /// Whether this process looks for the silent itself.
    pub(crate) fn is_swept_here(&self) -> bool {
        matches!(self, Backend::Local { .. })
    }

    /// Completes when it can take no more changes for good.
    pub(crate) async fn ended(&self) {
        match self {
            Backend::Local { local, .. } => local.ended().await,
            Backend::Etcd(etcd) => etcd.replaced().await,
        }
    }
}

/// A change that a store has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// There was no record before.
    pub(crate) created: bool,
    /// There is none any more.
    pub(crate) removed: bool,
    /// An endpoint changed.
    pub(crate) visible: bool,
    /// The view is complete up to here, and so is every answer that is given from now on.
    pub(crate) number: u64,
}

/// A change that a store has not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// It may not be made.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// Too many are asked for at once.
    #[error("more changes wait than are taken at once")]
    Busy,
    /// It is larger than the store takes.
    #[error("it has {bytes} bytes, and the store takes at most {most}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// The store fails; whether the change was made is not known.
    #[error("the store fails: {0}")]
    Unavailable(String),
}
