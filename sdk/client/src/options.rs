//! How one call is made.

use std::time::Duration;

use semver::VersionReq;
use wharf_schema::Fingerprint;
use wharf_wire::TraceParent;

/// How one call is made; what it does not say is as the client has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// How long all its attempts may take together.
    pub timeout: Option<Duration>,
    /// The method may be executed more than once: a call is tried elsewhere also when it may have
    /// been executed, and can be hedged. Without it, only what was surely not executed is tried again.
    pub idempotent: bool,
    /// Of an idempotent method: when there is no answer after so long, another endpoint is asked
    /// beside the first, and the first answer counts. A good value is the 95th percentile of the
    /// method's latency (Dean and Barroso, *The Tail at Scale*, 2013).
    pub hedge_after: Option<Duration>,
    /// Versions of the service that would do, `^0.1`; the newest of them is called. Otherwise the
    /// newest of all, or the one that the name says.
    pub version: Option<VersionReq>,
    /// The signature that the caller was built against: another one is refused by the host, and
    /// not guessed at.
    pub fingerprint: Option<Fingerprint>,
    /// The trace that the call belongs to.
    pub trace_parent: Option<TraceParent>,
    /// Further metadata for the host: at most 32 entries and 4,096 bytes, interceptors' included.
    pub metadata: Vec<(String, String)>,
}

/// What holds where nothing is said.
pub(crate) static PLAIN: CallOptions = CallOptions {
    timeout: None,
    idempotent: false,
    hedge_after: None,
    version: None,
    fingerprint: None,
    trace_parent: None,
    metadata: Vec::new(),
};
