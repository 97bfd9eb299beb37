//! The registry's HTTP API: its types, paths and errors, and a client for it.
//!
//! Hosts declare what they serve and keep it alive. Clients ask where a service is served. This
//! crate must not know how a registry stores anything, or what a service's types look like.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod error;
mod identity;
mod net_rpc;
mod operate;
mod pauses;
mod problem;
mod types;
#[cfg(feature = "client")]
mod watch;

#[cfg(feature = "client")]
pub use client::{Backup, ListOptions, RegistryClient, RegistryOptions, choose_cryptography};
#[cfg(feature = "client")]
pub use error::RegistryError;
pub use identity::{
    CertificateOrder, GrantedCertificate, JoinClaims, JoinToken, JoinTokenError, Renewal,
    TrustBundle,
};
pub use net_rpc::{NetRpc, RpcProtocol};
pub use operate::{BackupRecord, HostList, HostSummary, RegistryStatus, Restore, Restored};
pub use pauses::retry_pauses;
pub use problem::{Code, PROBLEM_JSON, Problem};
pub use types::{
    Condition, Declaration, Declared, Endpoint, EndpointId, EndpointList, EndpointSpec,
    EndpointState, Heartbeat, HeartbeatReply, Index, Metadata, ServiceList, ServiceSummary,
    StateChange, WatchEvent,
};
#[cfg(feature = "client")]
pub use watch::Watch;

/// The metadatum with the address of a host's `/metrics`, `host:port`. Hosts that serve HTTP have
/// it.
pub const METRICS: &str = "metrics";

/// The metadatum that says how [`METRICS`] is read: `https`, or `http` if it is missing.
pub const METRICS_SCHEME: &str = "metrics-scheme";

/// The media type of a watch's answer.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The API's description, an OpenAPI 3.1 document. Registries serve it at `/v1/openapi.json`.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// The port that a registry listens on by default.
pub const DEFAULT_PORT: u16 = 8500;

/// Limits of what a registry accepts.
pub mod limits {
    use std::time::Duration;

    /// The longest name of a host, service or package, in bytes.
    pub const NAME: usize = 256;

    /// The longest address, in bytes.
    pub const ADDRESS: usize = 300;

    /// The longest reason of an endpoint's condition, in bytes.
    pub const REASON: usize = 1024;

    /// The longest digest, in bytes.
    pub const DIGEST: usize = 64;

    /// The longest tag, in bytes.
    pub const TAG: usize = 512;

    /// The most tags of an endpoint.
    pub const TAGS: usize = 64;

    /// The longest name of a metadatum, in bytes.
    pub const METADATA_NAME: usize = 64;

    /// The longest value of a metadatum, in bytes.
    pub const METADATA_VALUE: usize = 512;

    /// The most metadata of a host or endpoint.
    pub const METADATA: usize = 32;

    /// The largest session: what a JSON number holds exactly everywhere.
    pub const SESSION: u64 = (1 << 53) - 1;

    /// The most endpoints that one host may declare.
    pub const ENDPOINTS: usize = 10_000;

    /// The most hosts that one registry holds.
    pub const HOSTS: usize = 50_000;

    /// The most endpoints that one registry holds, of all hosts together.
    pub const ALL_ENDPOINTS: usize = 1_000_000;

    /// The largest size of the declarations of all hosts together, in bytes of their texts.
    pub const ALL_BYTES: usize = 1024 * 1024 * 1024;

    /// The most addresses that are registered through the classic calls.
    pub const CLASSIC_REGISTRATIONS: usize = 100_000;

    /// The largest request body, in bytes.
    pub const BODY: usize = 4 * 1024 * 1024;

    /// The longest time that a list waits for a change, whatever its caller asks for.
    pub const WAIT: Duration = Duration::from_secs(600);
}
