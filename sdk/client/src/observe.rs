//! What a program can add to all of its calls, and learn of them.

use std::time::Duration;

use wharf_wire::{Metadata, MetadataError};

use crate::error::{Failure, RpcError};
use crate::named::Named;

/// Adds metadata to calls (trace context, who calls), or refuses them.
pub trait Interceptor: Send + Sync + 'static {
    /// Sees a call before its first attempt. What it adds goes with all attempts.
    ///
    /// It runs in the caller's task, on every call: it must be quick, and not block.
    ///
    /// # Errors
    /// An error fails the call, as [`Failure::Intercepted`], and nothing is sent.
    fn outgoing(
        &self,
        call: &mut Outgoing<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// A call that is about to be made.
pub struct Outgoing<'c> {
    named: &'c Named,
    timeout: Duration,
    metadata: &'c mut Vec<u8>,
}

impl<'c> Outgoing<'c> {
    pub(crate) fn new(named: &'c Named, timeout: Duration, metadata: &'c mut Vec<u8>) -> Self {
        Outgoing { named, timeout, metadata }
    }

    /// The method, `arith.multiply`: always in this form, however it is called.
    #[must_use]
    pub fn method(&self) -> &str {
        self.named.short()
    }

    /// The service with the package and version that the caller means, as far as it says so:
    /// `demo:arith/arith@^0.1.0`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.named.service()
    }

    /// How long all its attempts may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The metadata that it has so far.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        Metadata::over(self.metadata).iter()
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When all entries together would pass 4,096 bytes, or be more than 32.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), MetadataError> {
        append(self.metadata, key, value)
    }
}

impl std::fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Metadata may be secrets.
        f.debug_struct("Outgoing").field("method", &self.method()).finish_non_exhaustive()
    }
}

/// Adds an entry to metadata, within their bounds.
pub(crate) fn append(metadata: &mut Vec<u8>, key: &str, value: &str) -> Result<(), MetadataError> {
    let before = metadata.len();
    Metadata::append(metadata, key, value)?;
    Metadata::over(metadata).check().inspect_err(|_| metadata.truncate(before))
}

/// Learns how calls went, for metrics.
///
/// Both run in the caller's task: they must be quick, and not block. A call whose future is dropped
/// is told to neither.
pub trait Observer: Send + Sync + 'static {
    /// An attempt of a call has ended.
    fn attempt_ended(&self, attempt: &Attempt<'_>) {
        let _ = attempt;
    }

    /// A call has ended, with all of its attempts.
    fn call_ended(&self, call: &Ended<'_>) {
        let _ = call;
    }
}

/// One attempt of a call.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'c> {
    /// The method, `arith.multiply`: always in this form, however it is called.
    pub method: &'c str,
    /// The service with the package and version that the caller means, as far as it says so.
    pub service: &'c str,
    /// Where, `host:port`.
    pub endpoint: &'c str,
    /// The first is 1.
    pub number: u32,
    /// From its begin to its end, connecting included.
    pub elapsed: Duration,
    /// Why it failed, if it did.
    pub failure: Option<&'c Failure>,
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'c> {
    /// The method, `arith.multiply`: always in this form, however it is called.
    pub method: &'c str,
    /// The service with the package and version that the caller means, as far as it says so.
    pub service: &'c str,
    /// Where the last attempt was made, if one was.
    pub endpoint: Option<&'c str>,
    /// Attempts, hedges included.
    pub attempts: u32,
    /// From its begin to its end.
    pub elapsed: Duration,
    /// Why there is no answer, if there is none. A method's own error is an answer.
    pub error: Option<&'c RpcError>,
}
