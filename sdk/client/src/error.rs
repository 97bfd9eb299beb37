//! What can go wrong with a call.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "discovery")]
use wharf_registry_api::RegistryError;
use wharf_schema::{DocumentError, NameError, ValueError};
use wharf_wire::{AssemblyError, FrameError, HelloError, MetadataError, Status};

/// Why a typed call has no result: the method's own error, or a failure of the call.
#[derive(Debug)]
pub enum CallError<E = Infallible> {
    /// The method ran, and returned the Err of its WIT `result`.
    Application(E),
    /// No answer of the method was received.
    Rpc(RpcError),
}

impl<E> CallError<E> {
    /// The failure of the call, if that is the reason.
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

/// A call that failed: what failed, where, and whether the call may have run.
#[derive(Debug)]
#[non_exhaustive]
pub struct RpcError {
    /// The method, as it was called.
    pub method: String,
    /// The endpoint of the last attempt, `host:port`; `None` if there was no attempt.
    pub endpoint: Option<String>,
    /// How many attempts were made, hedges included.
    pub attempts: u32,
    /// Whether code of the plugin may have run, in any of the attempts.
    pub may_have_executed: bool,
    /// The failure of the last attempt.
    pub failure: Failure,
}

impl RpcError {
    /// The failure as one of gRPC's status codes.
    #[must_use]
    pub fn status(&self) -> Status {
        self.failure.status()
    }

    /// A failure that no endpoint was involved in.
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
    /// The message contains the failure, so the source is the failure's own cause.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failure.source()
    }
}

/// What failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The name is not that of a method.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The arguments cannot be encoded.
    #[error("the arguments cannot be encoded")]
    Encode(#[source] postcard::Error),
    /// The result does not have the type that the caller expects.
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
    /// The registry refused, or the server is not a registry.
    #[cfg(feature = "discovery")]
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry cannot be reached, and there is no earlier list.
    #[cfg(feature = "discovery")]
    #[error("{message}")]
    NoRegistry {
        /// Which registry, and what to do.
        message: String,
        /// Why.
        #[source]
        source: Arc<RegistryError>,
    },
    /// The registry has not answered before the call's deadline.
    #[error("the registry at {url} did not answer in time")]
    RegistrySilent {
        /// Which registry.
        url: String,
    },
    /// The service has no such method, or none that can be called.
    #[error("{0}")]
    Method(String),
    /// Several packages have an interface with this name.
    #[error("'{service}' stands for the services of several packages: {}; call it by its full name, or bind the name to one of them", .services.join(", "))]
    Ambiguous {
        /// The name.
        service: String,
        /// The services that it stands for, in full.
        services: Vec<String>,
    },
    /// The registry knows no endpoint that can take the call.
    #[error("no endpoint found for the service '{service}'{}", .reason)]
    NoEndpoint {
        /// The service.
        service: String,
        /// More about it, for people.
        reason: String,
        /// Whether there was one that took calls, and may come back.
        was_there: bool,
    },
    /// All endpoints of the service speak Go's net/rpc, which has neither descriptions nor Wharf's
    /// values.
    #[error("'{service}' is served by Go's net/rpc: call it with JSON, by call_json")]
    NetRpc {
        /// The service.
        service: String,
    },
    /// The call was made outside of a Tokio runtime.
    #[error("the client needs a Tokio runtime: call it within one, or use wharf_client::blocking")]
    NoRuntime,
    /// The process was forked after the client was made, and the client's thread is not in the child.
    #[error("this process was forked after its client was made: make a client in the child")]
    Forked,
    /// Connecting to the endpoint failed.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// The connection was lost while the call was in flight.
    #[error("the connection was lost: {reason}")]
    ConnectionLost {
        /// Why.
        reason: String,
        /// No code of the plugin ran: the call was not handed to the host, or only a description
        /// was asked for.
        not_executed: bool,
    },
    /// The call's deadline has passed.
    #[error("no answer within {}", humane(*.timeout))]
    DeadlineExceeded {
        /// The timeout that the caller set.
        timeout: Duration,
        /// No code of the plugin ran: the call was not handed to a host, or only a description was
        /// asked for.
        not_executed: bool,
    },
    /// The call's metadata exceed their limits.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// An interceptor refused the call.
    #[error("an interceptor refused the call: {0}")]
    Intercepted(Box<dyn std::error::Error + Send + Sync>),
    /// The arguments are larger than the host accepts.
    #[error("the arguments have {len} bytes, and the host takes at most {max}")]
    TooLarge {
        /// Their size.
        len: u64,
        /// The host's limit.
        max: u64,
    },
    /// The reply exceeds the limits of this client.
    #[error("the reply cannot be received: {0}")]
    Reply(AssemblyError),
    /// The host answered with a failure.
    #[error(transparent)]
    Remote(Box<Remote>),
}

/// A failure that a host reported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub struct Remote {
    /// The kind of failure.
    pub status: Status,
    /// The message, for people.
    pub message: String,
    /// No code of the plugin ran.
    pub not_executed: bool,
    /// How long to wait at least before a retry at this host.
    pub retry_after: Option<Duration>,
    /// If the signatures do not match: the WIT that the host serves.
    pub served_wit: Option<String>,
}

/// Why an endpoint cannot be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The socket.
    #[error("cannot connect")]
    Io(#[source] std::io::Error),
    /// The peer did not answer in time.
    #[error("cannot connect: no answer within {}", humane(*.0))]
    TimedOut(Duration),
    /// The other side is not who it has to be. Nothing was sent to it.
    #[error("the other side could not be verified to be the host '{host}'")]
    Unverified {
        /// The host's name, as the registry has it.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The other side speaks no TLS, and this client calls nobody that it cannot verify.
    #[error(
        "the other side does not speak TLS, and this client has an identity: it calls nobody that it cannot verify"
    )]
    NoTls,
    /// The peer speaks another protocol.
    #[error("the other side does not speak Wharf's protocol")]
    Frame(#[from] FrameError),
    /// The two sides have no protocol version or limits in common.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The connection was opened, and lost at once.
    #[error("the connection was lost at once: {0}")]
    Lost(String),
    /// The host refused the connection, and said why.
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
            Failure::Name(_)
            | Failure::Encode(_)
            | Failure::Json(_)
            | Failure::Metadata(_)
            | Failure::Ambiguous { .. } => Status::InvalidArgument,
            Failure::Decode(_)
            | Failure::Result(_)
            | Failure::Description(_)
            | Failure::NoRuntime
            | Failure::Forked => Status::FailedPrecondition,
            Failure::Intercepted(_) => Status::Cancelled,
            Failure::Method(_) | Failure::NetRpc { .. } => Status::Unimplemented,
            #[cfg(feature = "discovery")]
            Failure::Registry(_) | Failure::NoRegistry { .. } => Status::Unavailable,
            Failure::Connect(_) | Failure::ConnectionLost { .. } => Status::Unavailable,
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

    /// Whether the host did not take the call, and says when it will.
    pub(crate) fn will_be_there(&self) -> bool {
        self.status() == Status::Unavailable
            && !self.may_have_executed()
            && self.retry_after().is_some()
    }

    /// How long the host asks to wait before a retry.
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
