//! What operators ask a registry: how it is, which hosts it has, a backup of its records.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{EndpointState, Index, Metadata};

/// How a registry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryStatus {
    /// Wharf's version.
    pub version: String,
    /// Where records are kept: `memory`, `file` or `etcd`.
    pub store: String,
    /// It answers lists and takes changes.
    pub ready: bool,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// It drops silent hosts and makes checks: the only one of its store, or the elected one.
    pub elected: bool,
    /// For how long it has been up.
    pub uptime_ms: u64,
    /// A host that is silent for so long is dropped.
    pub ttl_ms: u64,
    /// How often hosts send heartbeats.
    pub heartbeat_ms: u64,
    /// The index of the last change.
    pub index: Index,
    /// Hosts.
    pub hosts: usize,
    /// Classic registrations, and those of Consul's clients.
    pub registrations: usize,
    /// Services, by their short names.
    pub services: usize,
    /// Endpoints of all of them.
    pub endpoints: usize,
    /// Hosts and registrations that may be gone.
    pub unverified: usize,
    /// Those that would be dropped, if not so many were silent at once.
    pub silent: usize,
}

/// All hosts and registrations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostList {
    /// The index of this list.
    pub index: Index,
    /// Ordered by name.
    pub hosts: Vec<HostSummary>,
}

/// A host, or a registration that is listed like one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSummary {
    /// Its name; `NAME@ADDRESS` for a registration.
    pub host: String,
    /// It registered itself by `/register`, or as a client of Consul.
    #[serde(default, skip_serializing_if = "is_false")]
    pub registration: bool,
    /// Where it is called, `host:port`.
    pub address: String,
    /// One life of its process. For a registration, when it was made.
    pub session: u64,
    /// Serving or draining; failing, if a check of it fails.
    pub state: EndpointState,
    /// Why it does not serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The number of its endpoints.
    pub endpoints: usize,
    /// It may be gone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unverified: bool,
    /// How long ago it was heard, if it was since the registry started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms_ago: Option<u64>,
    /// As declared.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// A record in a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRecord {
    /// What it is about, in the registry's own words.
    pub key: String,
    /// Its content, as stores write it.
    pub record: Box<RawValue>,
}

/// Records to restore.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// At most as many as fit into a body.
    pub records: Vec<BackupRecord>,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// They are there again.
    pub restored: usize,
    /// They stay as they are: there was a record already.
    pub present: usize,
}

fn is_false(flag: &bool) -> bool {
    !flag
}
