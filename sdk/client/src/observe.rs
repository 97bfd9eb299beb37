//! Interceptors, which add to all calls of a program, and observers, which learn how they ended.

use std::time::Duration;

use wharf_wire::{Metadata, MetadataError};

use crate::error::{Failure, RpcError};
use crate::named::Named;

/// Adds metadata to calls (trace context, the caller's identity), or refuses them.
pub trait Interceptor: Send + Sync + 'static {
    /// Sees a call before its first attempt. Its additions go with all attempts.
    ///
    /// It runs in the caller's task, on every call. So it must be quick and must not block.
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

    /// The service, with the package and version as far as the caller gave them:
    /// `demo:arith/arith@^0.1.0`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.named.service()
    }

    /// How long all its attempts may take together.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The call's metadata so far.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        Metadata::over(self.metadata).iter()
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When all entries together would exceed 4,096 bytes or 32 entries.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), MetadataError> {
        append(self.metadata, key, value)
    }
}

impl std::fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Metadata may contain secrets.
        f.debug_struct("Outgoing").field("method", &self.method()).finish_non_exhaustive()
    }
}

/// Adds an entry to metadata, within their limits.
pub(crate) fn append(metadata: &mut Vec<u8>, key: &str, value: &str) -> Result<(), MetadataError> {
    let before = metadata.len();
    Metadata::append(metadata, key, value)?;
    Metadata::over(metadata).check().inspect_err(|_| metadata.truncate(before))
}

/// Learns how calls went, for metrics.
///
/// Both methods run in the caller's task. So they must be quick and must not block. A call whose
/// future is dropped is reported to neither.
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
#[non_exhaustive]
pub struct Attempt<'c> {
    /// The method, `arith.multiply`: always in this form, however it is called.
    pub method: &'c str,
    /// The service, with the package and version as far as the caller gave them.
    pub service: &'c str,
    /// Where, `host:port`.
    pub endpoint: &'c str,
    /// The first is 1.
    pub number: u32,
    /// How long it took, including connecting.
    pub elapsed: Duration,
    /// Why it failed, if it did.
    pub failure: Option<&'c Failure>,
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Ended<'c> {
    /// The method, `arith.multiply`: always in this form, however it is called.
    pub method: &'c str,
    /// The service, with the package and version as far as the caller gave them.
    pub service: &'c str,
    /// Where the last attempt was made, if one was.
    pub endpoint: Option<&'c str>,
    /// Attempts, hedges included.
    pub attempts: u32,
    /// How long it took, with all attempts.
    pub elapsed: Duration,
    /// Why the call failed, if it did. A method's own error is not a failure of the call.
    pub error: Option<&'c RpcError>,
}
