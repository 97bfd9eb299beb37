//! What the registry holds about a host, and how a request changes it.
//!
//! [`decide`] is the only place that says who may change what. It is pure: every store calls it on
//! the record that it holds, and does what the verdict says.

use std::sync::Arc;

use serde_json::{Map, Value};
use wharf_registry_api::{
    Condition, Declaration, EndpointSpec, EndpointState, Metadata, NetRpc, RpcProtocol,
};

use crate::upkeep::{Amendment, Silence, Upkeep};

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// A host, by its name.
    Host(Arc<str>),
    /// One address under one name, from the classic calls.
    Classic {
        /// As registered.
        name: Arc<str>,
        /// Where it listens.
        address: Arc<str>,
    },
}

impl Key {
    pub(crate) fn host(name: &str) -> Self {
        Key::Host(name.into())
    }

    pub(crate) fn classic(name: &str, address: &str) -> Self {
        Key::Classic { name: name.into(), address: address.into() }
    }

    /// What lists call the host of its endpoints.
    pub(crate) fn host_name(&self) -> Arc<str> {
        match self {
            Key::Host(name) => name.clone(),
            Key::Classic { name, address } => format!("{name}@{address}").into(),
        }
    }

    /// The name that rights are about: the host's, or as registered.
    pub(crate) fn name(&self) -> &str {
        match self {
            Key::Host(name) | Key::Classic { name, .. } => name,
        }
    }

    /// The key as stores write it. Names and addresses have no white space, so it can be read back.
    pub(crate) fn text(&self) -> String {
        match self {
            Key::Host(name) => format!("host/{name}"),
            Key::Classic { name, address } => format!("classic/{name} {address}"),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("host/") {
            return Some(Key::host(name));
        }
        let (name, address) = text.strip_prefix("classic/")?.split_once(' ')?;
        Some(Key::classic(name, address))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Host(name) => f.write_str(name),
            Key::Classic { name, address } => write!(f, "{name} at {address}"),
        }
    }
}

/// What a host declared, or a classic registration, which is one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) session: u64,
    pub(crate) address: String,
    /// Serving or draining.
    pub(crate) state: EndpointState,
    /// Identifies what was declared.
    pub(crate) digest: String,
    pub(crate) endpoints: Vec<EndpointSpec>,
    pub(crate) metadata: Metadata,
    /// How a classic registration is kept, if that is not by the registry's heartbeats.
    pub(crate) upkeep: Option<Arc<Upkeep>>,
    /// What a newer version of Wharf wrote of it, which this one does not know.
    pub(crate) unknown: Option<Arc<Unknown>>,
}

/// Fields that this version does not know. They stay when the record is written again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unknown {
    pub(crate) record: Map<String, Value>,
    /// Of each endpoint, in their order.
    pub(crate) endpoints: Vec<Map<String, Value>>,
}

/// What a classic registration says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) protocol: RpcProtocol,
    pub(crate) version: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Metadata,
    /// It speaks Go's net/rpc, as far as is known. Consul's clients register anything.
    pub(crate) is_net_rpc: bool,
    pub(crate) upkeep: Option<Upkeep>,
}

impl Record {
    /// The record of a classic registration: one endpoint, whose service has the name in kebab-case. The
    /// session is when it was registered, so that the newest one of a name can be told.
    pub(crate) fn classic(
        name: &str,
        address: &str,
        session: u64,
        registration: Registration,
    ) -> Self {
        let Registration { protocol, version, tags, mut metadata, is_net_rpc, upkeep } =
            registration;
        if is_net_rpc {
            NetRpc { name, protocol }.describe(&mut metadata);
        }
        let kebab = heck::ToKebabCase::to_kebab_case(name);
        let spec = EndpointSpec {
            // A name may be of signs only.
            service: if kebab.is_empty() { name.to_owned() } else { kebab },
            package: None,
            version,
            fingerprint: String::new(),
            condition: Condition::Serving,
            reason: None,
            tags,
            metadata,
        };
        Record {
            session,
            address: address.to_owned(),
            state: EndpointState::Serving,
            digest: String::new(),
            endpoints: vec![spec],
            metadata: Metadata::new(),
            upkeep: upkeep.map(Arc::new),
            unknown: None,
        }
        .settled()
    }

    /// The same, with a state that says how its checks stand.
    fn settled(mut self) -> Self {
        let Some(upkeep) = &self.upkeep else { return self };
        let (state, condition, reason) = match (&upkeep.maintenance, upkeep.failing()) {
            (Some(reason), _) => (
                EndpointState::Draining,
                Condition::Serving,
                Some(format!("maintenance: {reason}")),
            ),
            (None, Some(check)) => {
                let said = format!("{}: {}", check.name, check.output);
                (EndpointState::Serving, Condition::Failing, Some(said))
            }
            (None, None) => (EndpointState::Serving, Condition::Serving, None),
        };
        self.state = state;
        for spec in &mut self.endpoints {
            spec.condition = condition;
            spec.reason = reason.as_deref().map(crate::upkeep::one_line);
        }
        self
    }

    /// The node that it was registered for, in Consul's terms.
    pub(crate) fn node(&self) -> Option<&str> {
        self.upkeep.as_ref()?.node.as_deref()
    }

    /// What follows when nobody is heard.
    pub(crate) fn silence(&self) -> Silence {
        self.upkeep.as_ref().map_or(Silence::AsAll, |upkeep| upkeep.silence())
    }

    /// The bytes of its texts: the part of its memory that a caller controls.
    pub(crate) fn bytes(&self) -> usize {
        let texts = |metadata: &Metadata| -> usize {
            metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
        };
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let endpoint = |spec: &EndpointSpec| {
            spec.service.len()
                + optional(&spec.package)
                + optional(&spec.version)
                + spec.fingerprint.len()
                + optional(&spec.reason)
                + spec.tags.iter().map(String::len).sum::<usize>()
                + texts(&spec.metadata)
        };
        self.address.len()
            + self.upkeep.as_ref().map_or(0, |upkeep| upkeep.bytes())
            + texts(&self.metadata)
            + self.endpoints.iter().map(endpoint).sum::<usize>()
    }

    /// The state of one of its services.
    pub(crate) fn state_of(&self, spec: &EndpointSpec) -> EndpointState {
        self.state.of_service(spec.condition)
    }
}

/// Records with their keys.
pub(crate) type Records = Vec<(Key, Arc<Record>)>;

/// A change that is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// A host's whole set of endpoints.
    Declare { declaration: Declaration, digest: String },
    /// Whether a host takes new calls.
    SetState { session: u64, state: EndpointState },
    /// A host withdraws.
    Withdraw { session: u64 },
    /// A classic registration. `session` is the time, unless it was the newest of its name already.
    Register { session: Option<u64>, registration: Registration },
    /// How a classic registration is kept, or stands.
    Amend(Amendment),
    /// A check was critical for as long as its registration said: it is dropped, unless that has changed.
    Overdue { check: String },
    /// A record of a backup, unless there is one.
    Restore(Box<Record>),
    /// It was silent for too long.
    Evict,
}

impl Write {
    /// Whether it shows that the record's owner lives.
    pub(crate) fn is_sign_of_life(&self) -> bool {
        match self {
            Write::Declare { .. } | Write::SetState { .. } | Write::Register { .. } => true,
            Write::Amend(Amendment::Report { by_owner, .. }) => *by_owner,
            // Its time to live begins.
            Write::Amend(Amendment::Add(_)) => true,
            Write::Amend(_)
            | Write::Withdraw { .. }
            | Write::Overdue { .. }
            | Write::Restore(_)
            | Write::Evict => false,
        }
    }
}

/// Why a host's request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such host.
    Unknown,
    /// A newer session asks than this one, which declared the host.
    Undeclared(u64),
    /// This newer session owns it.
    Superseded(u64),
    /// There is no room for more hosts or endpoints.
    Full,
}

/// What happens to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Unchanged,
    Replace(Arc<Record>),
    Remove,
}

/// Decides what a change does to a record.
pub(crate) fn decide(key: &Key, known: Option<&Record>, write: Write) -> Result<Verdict, Refusal> {
    match write {
        Write::Declare { declaration, digest } => {
            let state = match known {
                Some(known) => {
                    owned(known, declaration.session)?;
                    // A new session serves, whatever state its predecessor was in.
                    let same = known.session == declaration.session;
                    if same { known.state } else { EndpointState::Serving }
                }
                None => EndpointState::Serving,
            };
            let Declaration { session, address, endpoints, metadata } = declaration;
            let (upkeep, unknown) = (None, None);
            let record =
                Record { session, address, state, digest, endpoints, metadata, upkeep, unknown };
            Ok(replace(known, record))
        }
        Write::SetState { session, state } => {
            let known = known.ok_or(Refusal::Unknown)?;
            owned(known, session)?;
            if known.session < session {
                // A newer session has to declare itself before it may change the host's state.
                return Err(Refusal::Undeclared(known.session));
            }
            Ok(replace(Some(known), Record { state, ..known.clone() }))
        }
        Write::Withdraw { session } => match known {
            Some(known) => owned(known, session).map(|()| Verdict::Remove),
            None => Ok(Verdict::Unchanged),
        },
        Write::Register { session, mut registration } => {
            let Key::Classic { name, address } = key else { return Err(Refusal::Unknown) };
            let before = known.and_then(|known| known.upkeep.as_deref());
            if let Some((upkeep, before)) = registration.upkeep.as_mut().zip(before) {
                upkeep.succeed(before);
            }
            let session = session.or(known.map(|known| known.session)).unwrap_or_default();
            Ok(replace(known, Record::classic(name, address, session, registration)))
        }
        Write::Amend(amendment) => {
            let known = known.ok_or(Refusal::Unknown)?;
            let upkeep = match known.upkeep.as_deref() {
                Some(upkeep) => upkeep.amended(amendment),
                None => Upkeep::default().amended(amendment),
            };
            let upkeep = upkeep.ok_or(Refusal::Unknown)?;
            if !upkeep.is_within_bounds() {
                // Another check was added meanwhile.
                return Err(Refusal::Full);
            }
            Ok(replace(Some(known), with_upkeep(known, upkeep)))
        }
        Write::Overdue { check } => {
            let upkeep = known.and_then(|known| known.upkeep.as_deref());
            let overdue = upkeep.is_some_and(|upkeep| upkeep.is_critical(&check));
            Ok(if overdue { Verdict::Remove } else { Verdict::Unchanged })
        }
        Write::Restore(record) => Ok(match known {
            Some(_) => Verdict::Unchanged,
            None => Verdict::Replace(Arc::new(*record)),
        }),
        Write::Evict => {
            let Some(known) = known else { return Ok(Verdict::Unchanged) };
            let Some(upkeep) = &known.upkeep else { return Ok(Verdict::Remove) };
            Ok(match upkeep.after_silence() {
                Some(upkeep) => replace(Some(known), with_upkeep(known, upkeep)),
                None if known.silence() == Silence::Never => Verdict::Unchanged,
                None => Verdict::Remove,
            })
        }
    }
}

fn with_upkeep(known: &Record, upkeep: Upkeep) -> Record {
    Record { upkeep: Some(Arc::new(upkeep)), ..known.clone() }.settled()
}

/// Whether a session may act for a host.
pub(crate) fn owned(known: &Record, session: u64) -> Result<(), Refusal> {
    if known.session > session { Err(Refusal::Superseded(known.session)) } else { Ok(()) }
}

fn replace(known: Option<&Record>, record: Record) -> Verdict {
    if known == Some(&record) { Verdict::Unchanged } else { Verdict::Replace(Arc::new(record)) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use wharf_registry_api::Condition;

    pub(crate) fn spec(service: &str) -> EndpointSpec {
        EndpointSpec {
            service: service.to_owned(),
            package: None,
            version: Some("0.1.0".to_owned()),
            fingerprint: "0".repeat(32),
            condition: Condition::Serving,
            reason: None,
            tags: Vec::new(),
            metadata: Metadata::new(),
        }
    }

    pub(crate) fn record(session: u64, services: &[&str]) -> Record {
        let endpoints = services.iter().map(|service| spec(service)).collect();
        Record { session, endpoints, ..classic("127.0.0.1:1") }
    }

    pub(crate) fn classic(address: &str) -> Record {
        let registration = Registration { is_net_rpc: true, ..Registration::default() };
        Record::classic("Arith", address, 0, registration)
    }

    fn declaration(session: u64) -> Declaration {
        Declaration {
            session,
            address: "127.0.0.1:1".to_owned(),
            endpoints: Vec::new(),
            metadata: Metadata::new(),
        }
    }

    fn declare(known: Option<&Record>, session: u64) -> Result<Verdict, Refusal> {
        let write = Write::Declare { declaration: declaration(session), digest: "d".to_owned() };
        decide(&Key::host("h"), known, write)
    }

    fn declared(session: u64) -> Record {
        match declare(None, session) {
            Ok(Verdict::Replace(record)) => (*record).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_newer_session_fences_the_older_one_out() {
        let known = declared(2);
        assert_eq!(declare(Some(&known), 1), Err(Refusal::Superseded(2)));
        let host = Key::host("h");
        for write in [
            Write::Withdraw { session: 1 },
            Write::SetState { session: 1, state: EndpointState::Draining },
        ] {
            assert_eq!(decide(&host, Some(&known), write), Err(Refusal::Superseded(2)));
        }
        let early = Write::SetState { session: 3, state: EndpointState::Draining };
        assert_eq!(decide(&host, Some(&known), early), Err(Refusal::Undeclared(2)));
        assert!(matches!(declare(Some(&known), 3), Ok(Verdict::Replace(_))), "kept, to fence 2");
        assert_eq!(
            decide(&host, Some(&known), Write::Withdraw { session: 2 }),
            Ok(Verdict::Remove)
        );
    }

    #[test]
    fn the_same_declaration_again_writes_nothing() {
        assert_eq!(declare(Some(&declared(1)), 1), Ok(Verdict::Unchanged));
    }

    #[test]
    fn a_session_keeps_its_state_and_a_new_one_serves() {
        let drained = Record { state: EndpointState::Draining, ..declared(1) };
        assert_eq!(declare(Some(&drained), 1), Ok(Verdict::Unchanged));
        let Ok(Verdict::Replace(next)) = declare(Some(&drained), 2) else { panic!() };
        assert_eq!(next.state, EndpointState::Serving);
    }

    #[test]
    fn whoever_is_absent_is_withdrawn_already_and_has_no_state() {
        let host = Key::host("h");
        assert_eq!(decide(&host, None, Write::Withdraw { session: 1 }), Ok(Verdict::Unchanged));
        let state = Write::SetState { session: 1, state: EndpointState::Draining };
        assert_eq!(decide(&host, None, state), Err(Refusal::Unknown));
    }

    #[test]
    fn a_service_that_registers_again_is_not_dropped_for_what_was_before() {
        let probe = crate::upkeep::Probe {
            address: "10.0.0.1:1".to_owned(),
            http: None,
            interval_ms: 30_000,
            timeout_ms: 1_000,
            patience: [0, 0],
            machine: None,
        };
        let check = crate::upkeep::Check {
            id: "c".to_owned(),
            name: "c".to_owned(),
            notes: String::new(),
            kind: crate::upkeep::Kind::Probed(probe),
            status: crate::upkeep::Status::Critical,
            output: "refused".to_owned(),
            drop_after_ms: Some(60_000),
            unknown: Map::new(),
        };
        let upkeep = Upkeep { stays: true, checks: vec![check], ..Upkeep::default() };
        let registration = Registration { upkeep: Some(upkeep), ..Registration::default() };
        let key = Key::classic("Arith", "10.0.0.1:1");
        let known = Record::classic("Arith", "10.0.0.1:1", 1, registration.clone());
        let overdue = || Write::Overdue { check: "c".to_owned() };
        assert_eq!(decide(&key, Some(&known), overdue()), Ok(Verdict::Remove));
        let again = Write::Register { session: None, registration };
        let Ok(Verdict::Replace(known)) = decide(&key, Some(&known), again) else { panic!() };
        assert_eq!(decide(&key, Some(&known), overdue()), Ok(Verdict::Unchanged));
        let upkeep = known.upkeep.as_ref().unwrap();
        assert!(upkeep.failing().is_some(), "it does not pass before it was tried");
        let report = Amendment::Report {
            check: "c".to_owned(),
            status: crate::upkeep::Status::Critical,
            output: "refused".to_owned(),
            by_owner: false,
        };
        let write = Write::Amend(report);
        let Ok(Verdict::Replace(known)) = decide(&key, Some(&known), write) else { panic!() };
        assert_eq!(decide(&key, Some(&known), overdue()), Ok(Verdict::Remove));
    }

    #[test]
    fn keys_can_be_read_back() {
        for key in [Key::host("box/1"), Key::classic("Arith", "[::1]:7"), Key::host("classic/x")] {
            assert_eq!(Key::parse(&key.text()), Some(key));
        }
        for text in ["", "other/x", "classic/x"] {
            assert_eq!(Key::parse(text), None);
        }
    }
}
