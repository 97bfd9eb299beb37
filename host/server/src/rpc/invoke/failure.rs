//! The failure of a call, in a form that every protocol can translate.

use wharf_runtime::InvokeError;
use wharf_wire::{DetailKind, Status};

/// A failure that is sent to the caller. Its message says which method failed, why, and what to do
/// next.
#[derive(Clone, Debug)]
pub(crate) struct CallFailure {
    pub(crate) status: Status,
    pub(crate) not_executed: bool,
    pub(crate) retry_after_ms: Option<u32>,
    pub(crate) message: String,
    pub(crate) detail: (DetailKind, String),
    pub(crate) missing: Option<Missing>,
}

/// What a call asked for that is not here. Some protocols have words of their own for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The service.
    Service,
    /// The method.
    Method,
}

impl Missing {
    /// What Go's net/rpc says of it.
    pub(crate) fn in_go(self, name: &str) -> String {
        match self {
            Missing::Service => format!("rpc: can't find service {name}"),
            Missing::Method => format!("rpc: can't find method {name}"),
        }
    }
}

impl CallFailure {
    /// The failure of a call that did not begin.
    pub(crate) fn refused(status: Status, message: impl Into<String>) -> Self {
        CallFailure {
            status,
            not_executed: true,
            retry_after_ms: None,
            message: message.into(),
            detail: (DetailKind::None, String::new()),
            missing: None,
        }
    }

    /// The failure of a call that asks for something that is not here.
    pub(crate) fn missing(missing: Missing, message: impl Into<String>) -> Self {
        let status = match missing {
            Missing::Service => Status::NotFound,
            Missing::Method => Status::Unimplemented,
        };
        CallFailure { missing: Some(missing), ..CallFailure::refused(status, message) }
    }

    /// The same failure, with the time after which the caller may retry.
    pub(crate) fn retry_after(mut self, milliseconds: u32) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// The failure of a call that reached the runtime.
    pub(crate) fn of_call(method: &str, error: &InvokeError) -> Self {
        let status = match error {
            InvokeError::InvalidArgument(_) => Status::InvalidArgument,
            InvokeError::TooLarge(_)
            | InvokeError::ResultTooLarge { .. }
            | InvokeError::QueueFull { .. }
            | InvokeError::HostFull
            | InvokeError::MemoryLimit { .. }
            | InvokeError::GuestMemory { .. } => Status::ResourceExhausted,
            InvokeError::NotCallable(_) => Status::Unimplemented,
            InvokeError::DeadlineExceeded { .. } => Status::DeadlineExceeded,
            InvokeError::Trapped { .. } | InvokeError::Exited(_) | InvokeError::Panicked(_) => {
                Status::Internal
            }
            InvokeError::CannotStart(_) => Status::Unavailable,
            // A new error of the runtime that has no status here yet.
            _ => Status::Unknown,
        };
        let failure = CallFailure {
            not_executed: error.not_executed(),
            ..CallFailure::refused(status, format!("{method}: {error}"))
        };
        match error {
            InvokeError::QueueFull { .. } | InvokeError::HostFull => failure.retry_after(50),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_inside_the_host_is_internal_and_what_lacks_room_is_not() {
        let panicked = InvokeError::Panicked("a panic".to_owned());
        let full = InvokeError::GuestMemory { limit: 1 << 20, cause: "unreachable".to_owned() };
        for (error, status) in [(panicked, Status::Internal), (full, Status::ResourceExhausted)] {
            let failure = CallFailure::of_call("arith.multiply", &error);
            assert_eq!((failure.status, failure.not_executed), (status, false), "{error}");
            assert!(failure.message.starts_with("arith.multiply: "), "{}", failure.message);
        }
    }
}
