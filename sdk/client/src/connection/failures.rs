//! Why a connection ended, and how what a host refuses is put into words.

use std::io;
use std::time::Duration;

use wharf_wire::{DetailKind, FrameError, Status};

use crate::error::{Failure, Remote};
use crate::methods::MethodKey;

/// Two endpoints serve the same name with different signatures.
pub(super) fn mismatch(method: &MethodKey) -> Failure {
    Failure::Remote(Box::new(Remote {
        status: Status::FailedPrecondition,
        message: format!(
            "{}: the signature here differs from the first one that this client has met; if the plugin was updated, restart the client",
            method.name
        ),
        not_executed: true,
        retry_after: None,
        served_wit: Some(String::new()),
    }))
}

pub(super) fn remote(fail: &wharf_wire::Fail<'_>, detail: &[u8]) -> Remote {
    Remote {
        status: fail.status,
        message: fail.message.to_owned(),
        not_executed: fail.not_executed,
        retry_after: fail.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        served_wit: (fail.detail == DetailKind::SchemaMismatch)
            .then(|| String::from_utf8_lossy(detail).into_owned()),
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("it is no longer used")]
    Unused,
    #[error("the host closed it")]
    Closed,
    #[error("the host closed it as announced")]
    GoneAway,
    #[error("the host was silent for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the host broke the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the host broke the protocol: a frame that only callers send")]
    OutOfPlace,
    #[error("the host sends pings faster than they can be answered")]
    Pings,
}
