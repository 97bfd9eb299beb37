//! How one call is made.

use std::time::Duration;

use semver::VersionReq;
use wharf_schema::Fingerprint;
use wharf_wire::TraceParent;

/// Settings of one call. The client's defaults apply to the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// How long all its attempts may take together.
    pub timeout: Option<Duration>,
    /// The method may run more than once: a call is retried elsewhere even if it may have run, and
    /// can be hedged. Otherwise a call is retried only if it certainly did not run.
    pub idempotent: bool,
    /// Waits until the deadline for an endpoint that can be reached, also where there was none yet.
    /// Otherwise a call fails at once if no endpoint can be reached, unless it is idempotent and there
    /// was one before: that may be a restart.
    pub wait_for_ready: bool,
    /// For idempotent methods: if there is no answer after this time, the call is also sent to a
    /// second endpoint, and the first answer counts. A good value is the 95th percentile of the
    /// method's latency (Dean and Barroso, *The Tail at Scale*, 2013).
    pub hedge_after: Option<Duration>,
    /// The versions of the service to use, `^0.1`; the newest of them is called. By default this is
    /// the version in the method's name, or else the newest of all.
    pub version: Option<VersionReq>,
    /// The signature that the caller was built against. A host that serves another one refuses the
    /// call, and does not guess.
    pub fingerprint: Option<Fingerprint>,
    /// The trace that the call belongs to.
    pub trace_parent: Option<TraceParent>,
    /// Further metadata for the host: at most 32 entries and 4,096 bytes, with those of
    /// interceptors.
    pub metadata: Vec<(String, String)>,
}

/// Options of a call that sets none.
pub(crate) static PLAIN: CallOptions = CallOptions {
    timeout: None,
    idempotent: false,
    wait_for_ready: false,
    hedge_after: None,
    version: None,
    fingerprint: None,
    trace_parent: None,
    metadata: Vec::new(),
};
