//! The messages of the API, as JSON. Field names are lowerCamelCase, times are milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names and values that describe a host or endpoint.
pub type Metadata = BTreeMap<String, String>;

/// A host's whole set of endpoints; it replaces whatever the host declared before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declaration {
    /// Identifies one life of the host's process. A larger session fences out all smaller ones.
    ///
    /// Microseconds since 1970 at the process's start, so that a JSON number holds it exactly.
    #[serde(deserialize_with = "whole")]
    pub session: u64,
    /// Where all the endpoints are served, `host:port`.
    pub address: String,
    /// What is served there. No service occurs twice in one version.
    pub endpoints: Vec<EndpointSpec>,
    /// Describes the host: its zone, its kind of machine.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// One service in one version at a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// The short name in kebab-case, `arith`.
    pub service: String,
    /// The WIT package, `demo:arith`, where the service has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The version, where the package has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The fingerprint of the service's methods: 32 hexadecimal digits.
    pub fingerprint: String,
    /// Whether the host can take calls for it; serving by default.
    #[serde(default, skip_serializing_if = "Condition::is_serving")]
    pub condition: Condition,
    /// For a person: why it does not serve, or what happened to the plugin that should replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Labels by which callers choose among endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Describes this endpoint.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// Whether one service at a host is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Condition {
    /// It serves.
    #[default]
    Serving,
    /// Its plugin is being compiled. It will serve after that.
    Compiling,
    /// Its plugin does not load; the reason says why.
    Refused,
    /// A check of it fails; the reason says how.
    Failing,
}

impl Condition {
    /// Whether it is the default, which is left out of the JSON.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self == Condition::Serving
    }
}

/// The answer to a declaration that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declared {
    /// Without a heartbeat for this long, the host is dropped.
    pub ttl_ms: u64,
    /// When the next heartbeat is expected.
    pub heartbeat_ms: u64,
    /// Identifies what was declared. Heartbeats send it back.
    pub digest: String,
    /// The registry's index after this change.
    pub index: Index,
}

/// "I am alive, and I declared this."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heartbeat {
    /// As declared.
    #[serde(deserialize_with = "whole")]
    pub session: u64,
    /// From [`Declared`].
    pub digest: String,
}

/// The answer to a heartbeat that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatReply {
    /// When the next one is expected.
    pub heartbeat_ms: u64,
    /// The registry does not hold what the host declared: declare again.
    pub resync: bool,
}

/// Whether a host, or a service at it, takes new calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndpointState {
    /// It takes new calls.
    Serving,
    /// It takes no new calls, and finishes those in flight.
    Draining,
    /// It takes no calls yet: its plugin is being compiled. Only services have this state.
    Compiling,
    /// It takes no calls: its plugin does not load. Only services have this state.
    Refused,
    /// It should get no calls: a check of it fails. Only services that are checked have this state.
    Failing,
}

impl EndpointState {
    /// A state by its name.
    #[must_use]
    pub fn parse(text: &str) -> Option<EndpointState> {
        [
            EndpointState::Serving,
            EndpointState::Draining,
            EndpointState::Compiling,
            EndpointState::Refused,
            EndpointState::Failing,
        ]
        .into_iter()
        .find(|state| state.to_string() == text)
    }

    /// The state of a service with this condition, if its host is in this state.
    #[must_use]
    pub fn of_service(self, condition: Condition) -> EndpointState {
        match condition {
            Condition::Serving => self,
            Condition::Compiling => EndpointState::Compiling,
            Condition::Refused => EndpointState::Refused,
            Condition::Failing => EndpointState::Failing,
        }
    }
}

impl std::fmt::Display for EndpointState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EndpointState::Serving => "serving",
            EndpointState::Draining => "draining",
            EndpointState::Compiling => "compiling",
            EndpointState::Refused => "refused",
            EndpointState::Failing => "failing",
        })
    }
}

/// A host changes its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateChange {
    /// As declared.
    #[serde(deserialize_with = "whole")]
    pub session: u64,
    /// The new state: serving or draining.
    pub state: EndpointState,
}

/// Where a service can be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// What is served. Its condition is part of `state`, so it is left out here.
    #[serde(flatten)]
    pub spec: EndpointSpec,
    /// The host that serves it.
    pub host: String,
    /// The host's address, `host:port`.
    pub address: String,
    /// Whether it takes new calls.
    pub state: EndpointState,
    /// The registry has not heard the host for one time to live, or not since the registry started.
    /// The host may be gone.
    ///
    /// This shows what the registry knows at the moment of the answer. It changes without a new
    /// index, and no event of a watch reports it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unverified: bool,
}

/// A whole number in any spelling of JSON: `7`, `7.0` and `7e0` are the same.
fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Whole;

    impl serde::de::Visitor<'_> for Whole {
        type Value = u64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a whole number that is not negative")
        }

        fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }

        fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<u64, E> {
            // Beyond this limit, floating-point numbers are not exact.
            let exact = 0.0..=crate::limits::SESSION as f64;
            if value.fract() != 0.0 || !exact.contains(&value) {
                return Err(E::invalid_value(serde::de::Unexpected::Float(value), &self));
            }
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is whole and within the bounds"
            )]
            Ok(value as u64)
        }
    }

    deserializer.deserialize_any(Whole)
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Endpoint {
    /// Its id, which no other endpoint has.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        EndpointId {
            service: self.spec.service.clone(),
            package: self.spec.package.clone(),
            version: self.spec.version.clone(),
            host: self.host.clone(),
        }
    }
}

/// Identifies an endpoint: one service in one version at one host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointId {
    /// The short name, `arith`.
    pub service: String,
    /// The WIT package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The host that serves it.
    pub host: String,
}

/// One event of a watch. A reader that applies the events in order has, at each bookmark, the list
/// of endpoints as it was at the bookmark's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Forget the list that you hold. The whole list follows as upserts, and a bookmark ends it.
    Snapshot,
    /// An endpoint is new, or has changed.
    Upsert(Box<Endpoint>),
    /// An endpoint is gone.
    Delete(EndpointId),
    /// All changes up to this index were sent. A watch can be resumed here.
    Bookmark(Index),
    /// The reader was too slow for the changes, or away for too long: a snapshot follows.
    Resync,
    /// The registry shuts down: resume elsewhere, or here later.
    Goodbye,
}

/// The endpoints of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointList {
    /// The index of this list. Use it to wait for the list's next change.
    pub index: Index,
    /// Ordered by host.
    pub endpoints: Vec<Endpoint>,
}

/// One service in one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSummary {
    /// The short name, `arith`.
    pub service: String,
    /// The WIT package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The number of its endpoints.
    pub endpoints: usize,
    /// How many of them take new calls.
    pub serving: usize,
    /// How many of all its endpoints are [`Endpoint::unverified`]: their host may be gone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unverified: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// All services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceList {
    /// The index of this list. Use it to wait for the list's next change.
    pub index: Index,
    /// Ordered by name and version.
    pub services: Vec<ServiceSummary>,
}

/// A point in the history of one registry's life: `epoch.number`.
///
/// A number from another epoch means nothing. A client that holds one must list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Index {
    /// The life of the registry.
    pub epoch: u64,
    /// Grows with each change.
    pub number: u64,
}

impl std::fmt::Display for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}.{}", self.epoch, self.number)
    }
}

impl std::str::FromStr for Index {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ERROR: &str = "an index is EPOCH.NUMBER, as an earlier answer gave it";
        let (epoch, number) = text.split_once('.').ok_or(ERROR)?;
        if epoch.starts_with('+') || number.starts_with('+') {
            return Err(ERROR);
        }
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| ERROR)?;
        Ok(Index { epoch, number: number.parse().map_err(|_| ERROR)? })
    }
}

impl Serialize for Index {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
