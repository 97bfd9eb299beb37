//! What can go wrong with a call.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use wharf_registry_api::RegistryError;
use wharf_schema::{DocumentError, NameError, ValueError};
use wharf_wire::{AssemblyError, FrameError, HelloError, MetadataError, Status};

/// A typed call without a result: the method's own error, or the reason why there is none.
#[derive(Debug)]
pub enum CallError<E = Infallible> {
    /// The method ran, and returned the Err of its WIT `result`.
    Application(E),
    /// The method gave no answer, or none that was received.
    Rpc(RpcError),
}

impl<E> CallError<E> {
    /// Why there is no answer of the method, if there is none.
    #[must_use]
    pub fn rpc(&self) -> Option<&RpcError> {
        match self {
            CallError::Application(_) => None,
            CallError::Rpc(error) => Some(error),
        }
    }

    /// The method's own error, if it returned one.
    #[must_use]
    pub fn application(&self) -> Option<&E> {
        match self {
            CallError::Application(error) => Some(error),
            CallError::Rpc(_) => None,
        }
    }
}

impl<E> From<RpcError> for CallError<E> {
    fn from(error: RpcError) -> Self {
        CallError::Rpc(error)
    }
}

impl<E: std::fmt::Debug> std::fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Application(error) => write!(f, "the method returned an error: {error:?}"),
            CallError::Rpc(error) => error.fmt(f),
        }
    }
}

impl<E: std::fmt::Debug> std::error::Error for CallError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Application(_) => None,
            CallError::Rpc(error) => error.source(),
        }
    }
}

/// A call without an answer: what failed, where, and whether it may have been executed.
#[derive(Debug)]
pub struct RpcError {
    /// The method, as it was called.
    pub method: String,
    /// The endpoint of the last attempt, `host:port`; `None` when none was reached for.
    pub endpoint: Option<String>,
    /// How many attempts were made, hedges included.
    pub attempts: u32,
    /// Whether code of the plugin may have run, in any of the attempts.
    pub may_have_executed: bool,
    /// What failed, in the last of them.
    pub failure: Failure,
}

impl RpcError {
    /// The failure as one of gRPC's status codes.
    #[must_use]
    pub fn status(&self) -> Status {
        self.failure.status()
    }

    /// A failure that no endpoint had a part in.
    pub(crate) fn local(method: &str, failure: Failure) -> Self {
        let may_have_executed = failure.may_have_executed();
        RpcError {
            method: method.to_owned(),
            endpoint: None,
            attempts: 0,
            may_have_executed,
            failure,
        }
    }
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.method)?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " at {endpoint}")?;
        }
        if self.attempts > 1 {
            write!(f, " (attempt {})", self.attempts)?;
        }
        write!(f, ": {}", self.failure)
    }
}

impl std::error::Error for RpcError {
    /// The failure is part of the message, so what follows is its cause.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failure.source()
    }
}

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name is none of a method.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The arguments cannot be encoded.
    #[error("the arguments cannot be encoded")]
    Encode(#[source] postcard::Error),
    /// The result is not of the type that was asked for.
    #[error(
        "the result is not of the type that the caller expects: compare it with the method's WIT"
    )]
    Decode(#[source] postcard::Error),
    /// The JSON does not fit the method's types.
    #[error(transparent)]
    Json(#[from] ValueError),
    /// The result does not fit the description of its method.
    #[error("the result does not fit the method's types: {0}")]
    Result(ValueError),
    /// The service's description cannot be used.
    #[error("the service's description cannot be used")]
    Description(#[from] DocumentError),
    /// The registry refused, or is none.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry cannot be reached, and no earlier answer of it is known.
    #[error("{message}")]
    NoRegistry {
        /// Which registry, and what to do.
        message: String,
        /// Why.
        #[source]
        source: Arc<RegistryError>,
    },
    /// The registry has not answered within the call's time.
    #[error("the registry at {url} did not answer in time")]
    RegistrySilent {
        /// Which registry.
        url: String,
    },
    /// The service has no such method, or none that can be called.
    #[error("{0}")]
    Method(String),
    /// The registry knows no endpoint that would do.
    #[error("no endpoint of the service '{service}' is registered{}", .reason)]
    NoEndpoint {
        /// The service.
        service: String,
        /// More about it, for a person.
        reason: String,
    },
    /// The endpoint cannot be connected to.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// The connection was lost while the call was in flight.
    #[error("the connection was lost: {reason}")]
    ConnectionLost {
        /// Why.
        reason: String,
        /// The call was not handed to the host.
        not_executed: bool,
    },
    /// The caller's time is over.
    #[error("no answer within {}", humane(*.timeout))]
    DeadlineExceeded {
        /// What the caller allowed.
        timeout: Duration,
        /// The call was not handed to a host.
        not_executed: bool,
    },
    /// The call's own metadata break their bounds.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// An interceptor did not let the call out.
    #[error("an interceptor refused the call: {0}")]
    Intercepted(Box<dyn std::error::Error + Send + Sync>),
    /// The payload is more than the host accepts.
    #[error("the arguments have {len} bytes, and the host takes at most {max}")]
    TooLarge {
        /// Their size.
        len: u64,
        /// The host's bound.
        max: u64,
    },
    /// The reply breaks the bounds of what this client holds.
    #[error("the reply cannot be taken: {0}")]
    Reply(AssemblyError),
    /// The host answered with a failure.
    #[error(transparent)]
    Remote(Box<Remote>),
}

/// A failure that a host answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub struct Remote {
    /// What kind.
    pub status: Status,
    /// What, for a person.
    pub message: String,
    /// No code of the plugin ran.
    pub not_executed: bool,
    /// When to try there again at the earliest.
    pub retry_after: Option<Duration>,
    /// With a mismatch of signatures: the WIT that is served.
    pub served_wit: Option<String>,
}

/// Why an endpoint cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket.
    #[error("cannot connect")]
    Io(#[source] std::io::Error),
    /// Nobody answered in time.
    #[error("cannot connect: no answer within {}", humane(*.0))]
    TimedOut(Duration),
    /// The other side speaks something else.
    #[error("the other side does not speak Wharf's protocol")]
    Frame(#[from] FrameError),
    /// No common ground.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// It was connected, and lost again at once.
    #[error("the connection was lost at once: {0}")]
    Lost(String),
    /// The host said why it does not want us.
    #[error("the host refused the connection: {0}")]
    Refused(String),
}

fn humane(duration: Duration) -> String {
    format!("{duration:?}")
}

impl Failure {
    /// The failure as one of gRPC's status codes.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Failure::Name(_) | Failure::Encode(_) | Failure::Json(_) | Failure::Metadata(_) => {
                Status::InvalidArgument
            }
            Failure::Decode(_) | Failure::Result(_) | Failure::Description(_) => {
                Status::FailedPrecondition
            }
            Failure::Intercepted(_) => Status::Cancelled,
            Failure::Method(_) => Status::Unimplemented,
            Failure::Registry(_)
            | Failure::NoRegistry { .. }
            | Failure::Connect(_)
            | Failure::ConnectionLost { .. } => Status::Unavailable,
            Failure::NoEndpoint { .. } => Status::NotFound,
            Failure::DeadlineExceeded { .. } | Failure::RegistrySilent { .. } => {
                Status::DeadlineExceeded
            }
            Failure::TooLarge { .. } | Failure::Reply(_) => Status::ResourceExhausted,
            Failure::Remote(remote) => remote.status,
        }
    }

    /// Whether code of the plugin may have run for the call.
    #[must_use]
    pub fn may_have_executed(&self) -> bool {
        match self {
            Failure::ConnectionLost { not_executed, .. }
            | Failure::DeadlineExceeded { not_executed, .. } => !not_executed,
            Failure::Remote(remote) => !remote.not_executed,
            Failure::Decode(_) | Failure::Result(_) | Failure::Reply(_) => true,
            _ => false,
        }
    }

    /// When the host would like to be asked again, at the earliest.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Remote(remote) => remote.retry_after,
            _ => None,
        }
    }

    /// Whether the host serves another signature than the caller was built against.
    #[must_use]
    pub fn is_schema_mismatch(&self) -> bool {
        matches!(self, Failure::Remote(remote) if remote.served_wit.is_some())
    }
}
