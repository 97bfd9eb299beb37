//! What is said over the API, as JSON. Field names are lowerCamelCase, times are milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names and values that say more about a host or endpoint.
pub type Metadata = BTreeMap<String, String>;

/// A host's whole set of endpoints; it replaces whatever the host declared before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declaration {
    /// One life of the host's process. A larger one fences out all smaller ones.
    ///
    /// Microseconds since 1970 at the process's start, so that a JSON number holds it exactly.
    #[serde(deserialize_with = "whole")]
    pub session: u64,
    /// Where all the endpoints are served, `host:port`.
    pub address: String,
    /// What is served there; no service twice in one version.
    pub endpoints: Vec<EndpointSpec>,
    /// Of the host: its zone, its kind of machine.
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
    /// Of the service's methods: 32 hexadecimal digits.
    pub fingerprint: String,
    /// Whether the host could take calls for it; serving where nothing is said.
    #[serde(default, skip_serializing_if = "Condition::is_serving")]
    pub condition: Condition,
    /// For a person: why it does not serve, or what became of a replacement that it was to get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// By which callers choose among endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Of this endpoint.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// How far one service at a host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It serves.
    #[default]
    Serving,
    /// Its plugin is being compiled, and it will serve then.
    Compiling,
    /// Its plugin does not load; the reason says why.
    Refused,
}

impl Condition {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self == Condition::Serving
    }
}

/// A declaration was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declared {
    /// Without a heartbeat for this long, the host is dropped.
    pub ttl_ms: u64,
    /// When the next heartbeat is expected.
    pub heartbeat_ms: u64,
    /// Identifies what was declared; heartbeats carry it back.
    pub digest: String,
    /// The registry's index after this change.
    pub index: Index,
}

/// "I live, and I declared this."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heartbeat {
    /// As declared.
    #[serde(deserialize_with = "whole")]
    pub session: u64,
    /// From [`Declared`].
    pub digest: String,
}

/// A heartbeat was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatReply {
    /// When the next one is expected.
    pub heartbeat_ms: u64,
    /// What the registry holds is not what the host declared: declare again.
    pub resync: bool,
}

/// Whether a host, or a service at it, takes new calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It does.
    Serving,
    /// It finishes those that it has.
    Draining,
    /// Not yet: its plugin is being compiled. Only of a service.
    Compiling,
    /// No: its plugin does not load. Only of a service.
    Refused,
}

impl State {
    /// A state by its name.
    #[must_use]
    pub fn parse(text: &str) -> Option<State> {
        [State::Serving, State::Draining, State::Compiling, State::Refused]
            .into_iter()
            .find(|state| state.to_string() == text)
    }

    /// The state of a service at a host that is in this one.
    #[must_use]
    pub fn of_service(self, condition: Condition) -> State {
        match condition {
            Condition::Serving => self,
            Condition::Compiling => State::Compiling,
            Condition::Refused => State::Refused,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Serving => "serving",
            State::Draining => "draining",
            State::Compiling => "compiling",
            State::Refused => "refused",
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
    pub state: State,
}

/// Where a service can be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// What is served. Its condition is part of `state`, and left out here.
    #[serde(flatten)]
    pub spec: EndpointSpec,
    /// By which host.
    pub host: String,
    /// Where, `host:port`.
    pub address: String,
    /// Whether it takes new calls.
    pub state: State,
    /// Its host was not heard for a time to live, or since the registry came up, and may be gone.
    ///
    /// It says how sure the registry is at the moment of the answer: it comes and goes without a
    /// new index, and no event of a watch tells of it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unverified: bool,
}

/// A whole number, however JSON spells it: `7`, `7.0` and `7e0` are the same there.
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
            // Beyond that, a floating-point number is not exact.
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
    /// What tells it from all other endpoints.
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

/// What tells an endpoint from all others: one service in one version at one host.
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
    /// By which host it is served.
    pub host: String,
}

/// One event of a watch. Whoever applies them in order holds the list of endpoints as it was at
/// the index of each bookmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Forget what you hold: the whole list follows as upserts, and a bookmark ends it.
    Snapshot,
    /// An endpoint is there, or is another one now.
    Upsert(Box<Endpoint>),
    /// An endpoint is gone.
    Delete(EndpointId),
    /// All changes up to this index were told; a watch can be resumed here.
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
    /// Of this list; to wait for its next change.
    pub index: Index,
    /// In the order of their hosts.
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
    /// Hosts that serve it.
    pub endpoints: usize,
    /// Of these, those that take new calls.
    pub serving: usize,
    /// Of all, those whose host may be gone, as [`Endpoint::unverified`].
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
    /// Of this list; to wait for its next change.
    pub index: Index,
    /// In the order of their names and versions.
    pub services: Vec<ServiceSummary>,
}

/// A point in the history of one registry's life: `epoch.number`.
///
/// Numbers of another epoch mean nothing: whoever holds one lists again.
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
