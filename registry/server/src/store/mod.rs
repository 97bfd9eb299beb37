//! Where records are kept, and where changes of them are decided.
//!
//! A store takes a [`Write`] and decides it; there is one order of all writes. It makes the change
//! durable and feeds the view with it. Only then does it acknowledge the change.

pub(crate) mod etcd;
pub(crate) mod file;
pub(crate) mod local;
pub(crate) mod stored;

use std::borrow::Cow;
use std::sync::Arc;

use crate::record::{Key, Refusal, Write};
use crate::view::View;

/// The store of one registry.
pub(crate) enum Backend {
    /// In memory or in a file. Only this process uses it.
    Local {
        /// The handle to the store.
        local: local::Local,
        /// The view that it feeds.
        view: Arc<View>,
    },
    /// In etcd. Any number of processes share it.
    Etcd(etcd::Etcd),
}

impl Backend {
    pub(crate) fn view(&self) -> &Arc<View> {
        match self {
            Backend::Local { view, .. } => view,
            Backend::Etcd(etcd) => etcd.view(),
        }
    }

    /// Makes a change. Cancel-safe: if the caller is gone, the change may still be made.
    pub(crate) async fn write(&self, key: Key, write: Write) -> Result<Written, WriteError> {
        match self {
            Backend::Local { local, .. } => local.write(key, write).await,
            Backend::Etcd(etcd) => etcd.write(key, write).await,
        }
    }

    /// Keeps a record of the view alive.
    pub(crate) async fn renew(&self, key: &Key) -> Result<(), WriteError> {
        match self {
            Backend::Local { view, .. } => {
                view.hear(key);
                Ok(())
            }
            Backend::Etcd(etcd) => etcd.renew(key).await,
        }
    }

    /// Waits until the view has every change that was acknowledged to any process.
    pub(crate) async fn catch_up(&self) -> Result<(), WriteError> {
        match self {
            Backend::Local { .. } => Ok(()),
            Backend::Etcd(etcd) => etcd.catch_up().await,
        }
    }

    /// Waits until the view is complete up to an index's number. Returns false if it cannot become
    /// so.
    pub(crate) async fn completed(&self, number: u64) -> bool {
        match self {
            Backend::Local { view, .. } => number <= view.complete(),
            Backend::Etcd(etcd) => {
                etcd.view().completed(number).await;
                true
            }
        }
    }

    /// Whether it takes changes. If not, the error says why.
    pub(crate) fn readiness(&self) -> Result<(), Cow<'static, str>> {
        match self {
            Backend::Local { local, .. } if local.fails() => {
                Err("the store does not take changes; lists are still served".into())
            }
            Backend::Local { .. } => Ok(()),
            Backend::Etcd(etcd) => etcd.readiness(),
        }
    }

    /// Looks after itself, every second or so.
    pub(crate) fn look(&self) {
        if let Backend::Local { local, .. } = self {
            local.look();
        }
    }

    /// Tells others that share it that this process ends.
    pub(crate) async fn resign(&self) {
        if let Backend::Etcd(etcd) = self {
            etcd.resign().await;
        }
    }

    /// Whether this process looks for silent hosts itself. With etcd, an elected process does.
    pub(crate) fn is_swept_here(&self) -> bool {
        matches!(self, Backend::Local { .. })
    }

    /// Whether this process makes the checks of registrations: the only one of its store, or the elected
    /// one.
    pub(crate) fn is_checked_here(&self) -> bool {
        match self {
            Backend::Local { .. } => true,
            Backend::Etcd(etcd) => etcd.is_elected(),
        }
    }

    /// Completes when it can never take a change again.
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
    /// There is no record any more.
    pub(crate) removed: bool,
    /// An endpoint changed.
    pub(crate) visible: bool,
    /// The view is complete up to this number, and so is every answer from now on.
    pub(crate) number: u64,
}

/// A change that a store has not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// The change is not allowed.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// Too many changes are asked for at once.
    #[error("too many changes are waiting to be written")]
    Busy,
    /// It is larger than the store takes.
    #[error("it has {bytes} bytes, and the store takes at most {most}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// The store fails. It is not known whether the change was made.
    #[error("the store fails: {0}")]
    Unavailable(String),
}
