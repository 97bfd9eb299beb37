//! How a registration is kept, if not by heartbeats within the registry's time to live: by heartbeats
//! within a time of its own, by checks, or until somebody withdraws it.
//!
//! The checks are those of Consul's API: their owner reports a status within a time to live, or the
//! registry connects to the service itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wharf_registry_api::limits;

/// How one registration is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Upkeep {
    /// What its owner calls it: Consul's ID of a service. Unique among those at one machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The node that it was registered for, in Consul's terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// It is dropped after this much silence, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttl_ms: Option<u64>,
    /// It stays, however silent it is.
    pub(crate) stays: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) checks: Vec<Check>,
    /// Why it takes no calls for now, if somebody said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) maintenance: Option<String>,
    /// What a newer version wrote, which this one does not know.
    #[serde(flatten)]
    pub(crate) unknown: Map<String, Value>,
}

/// The most checks of one service.
pub(crate) const MAX_CHECKS: usize = 8;

/// Checks are not made more often.
pub(crate) const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a check may take at most.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time of an upkeep. Stores and backups may say anything, and a clock has an end.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A time as an upkeep has it.
fn time(millis: u64) -> Duration {
    Duration::from_millis(millis).min(LONGEST)
}

/// What is said of a check that was critical when its service registered again.
pub(crate) const AGAIN: &str = "registered again, and not checked yet";

/// One check of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) notes: String,
    pub(crate) kind: Kind,
    pub(crate) status: Status,
    /// What was said or seen last.
    #[serde(default)]
    pub(crate) output: String,
    /// The registration is dropped once the check is critical for this long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drop_after_ms: Option<u64>,
    /// What a newer version wrote, which this one does not know.
    #[serde(default, flatten)]
    pub(crate) unknown: Map<String, Value>,
}

/// How a check gets its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// The owner reports it within this time, in milliseconds.
    Reported { ttl_ms: u64 },
    /// The registry tries it.
    Probed(Probe),
    /// It was said with the registration, and stays so.
    Stated,
}

/// How the registry tries a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Probe {
    /// `host:port` to connect to.
    pub(crate) address: String,
    /// What to GET there; without it, a connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<HttpProbe>,
    pub(crate) interval_ms: u64,
    pub(crate) timeout_ms: u64,
    /// How many successes in a row it takes to pass, and failures to be critical.
    #[serde(default)]
    pub(crate) patience: [u32; 2],
    /// The machine of the registry that took the check, if it is of that machine's loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<String>,
}

/// What is asked for by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpProbe {
    /// The `Host` header.
    pub(crate) host: String,
    /// Path and query.
    pub(crate) path: String,
}

/// How a check stands, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Passing,
    Warning,
    Critical,
}

/// A change of how a registration is kept.
#[derive(Clone, Debug)]
pub(crate) enum Amendment {
    /// A check has this status now, because its owner says so or the registry has found it.
    Report { check: String, status: Status, output: String, by_owner: bool },
    /// It takes no calls until further notice, for this reason; or takes them again.
    Maintain(Option<String>),
    /// A check that is new, or replaces the one with its id.
    Add(Box<Check>),
    /// A check is not made any more.
    Remove(String),
}

/// When a record is dropped, or changes, because nobody was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// After the registry's time to live.
    AsAll,
    /// After this time.
    Within(Duration),
    /// After this time, in which nobody has to be heard any more.
    Over(Duration),
    /// Never.
    Never,
}

impl Status {
    /// As Consul writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::Passing => "passing",
            Status::Warning => "warning",
            Status::Critical => "critical",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Status::Passing, Status::Warning, Status::Critical]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

impl Check {
    /// For how long it may be critical.
    pub(crate) fn drop_after(&self) -> Option<Duration> {
        self.drop_after_ms.map(time)
    }
}

impl Probe {
    /// How often it is made.
    pub(crate) fn interval(&self) -> Duration {
        time(self.interval_ms).max(SHORTEST_INTERVAL)
    }

    /// How long it may take.
    pub(crate) fn timeout(&self) -> Duration {
        time(self.timeout_ms).min(LONGEST_TIMEOUT)
    }
}

impl Upkeep {
    /// The check that its owner reports. There is at most one.
    pub(crate) fn reported(&self) -> Option<(&Check, Duration)> {
        self.checks.iter().find_map(|check| match check.kind {
            Kind::Reported { ttl_ms } => Some((check, time(ttl_ms))),
            Kind::Probed(_) | Kind::Stated => None,
        })
    }

    /// The checks that the registry makes.
    pub(crate) fn probes(&self) -> impl Iterator<Item = (&Check, &Probe)> {
        self.checks.iter().filter_map(|check| match &check.kind {
            Kind::Probed(probe) => Some((check, probe)),
            Kind::Reported { .. } | Kind::Stated => None,
        })
    }

    /// Whether it has no more checks than it may have.
    pub(crate) fn is_within_bounds(&self) -> bool {
        let reported = |check: &&Check| matches!(check.kind, Kind::Reported { .. });
        self.checks.len() <= MAX_CHECKS && self.checks.iter().filter(reported).count() <= 1
    }

    /// How many checks a second the registry makes.
    pub(crate) fn probes_per_second(&self) -> f64 {
        self.probes().map(|(_, probe)| 1.0 / probe.interval().as_secs_f64()).sum()
    }

    /// The first check that is critical.
    pub(crate) fn failing(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.status == Status::Critical)
    }

    pub(crate) fn silence(&self) -> Silence {
        if !self.stays {
            return self.ttl_ms.map_or(Silence::AsAll, |ttl| Silence::Within(time(ttl)));
        }
        match self.reported() {
            Some((check, ttl)) if check.status != Status::Critical => Silence::Within(ttl),
            Some((Check { drop_after_ms: Some(after), .. }, _)) => Silence::Over(time(*after)),
            _ => Silence::Never,
        }
    }

    /// What becomes of it when nobody was heard for so long; `None`: it is dropped.
    pub(crate) fn after_silence(&self) -> Option<Upkeep> {
        let (check, ttl) = self.reported().filter(|_| self.stays)?;
        if check.status == Status::Critical {
            return check.drop_after_ms.is_none().then(|| self.clone());
        }
        let (id, mut next) = (check.id.clone(), self.clone());
        let expired = next.checks.iter_mut().find(|check| check.id == id)?;
        expired.status = Status::Critical;
        expired.output = format!("not reported for {ttl:?}");
        Some(next)
    }

    /// Whether a check is critical, and was since its service registered.
    pub(crate) fn is_critical(&self, check: &str) -> bool {
        let known = self.checks.iter().find(|known| known.id == check);
        known.is_some_and(|known| known.status == Status::Critical && known.output != AGAIN)
    }

    /// The same with a change; `None` if the check that it is about is not there.
    pub(crate) fn amended(&self, amendment: Amendment) -> Option<Upkeep> {
        let mut next = self.clone();
        match amendment {
            Amendment::Report { check, status, output, .. } => {
                let check = next.checks.iter_mut().find(|known| known.id == check)?;
                (check.status, check.output) = (status, output);
            }
            Amendment::Maintain(reason) => next.maintenance = reason,
            Amendment::Add(check) => {
                match next.checks.iter_mut().find(|known| known.id == check.id) {
                    Some(known) => *known = *check,
                    None => next.checks.push(*check),
                }
                next.stays = true;
            }
            Amendment::Remove(check) => next.checks.retain(|known| known.id != check),
        }
        Some(next)
    }

    /// Takes over how things stand from the registration that this one replaces.
    pub(crate) fn succeed(&mut self, before: &Upkeep) {
        self.maintenance.clone_from(&before.maintenance);
        for check in &mut self.checks {
            let known = before.checks.iter().find(|known| known.id == check.id);
            if let Some(known) = known.filter(|_| check.kind != Kind::Stated) {
                check.status = known.status;
                check.output = match (&check.kind, known.status) {
                    // It gets its time anew, and is tried at once.
                    (Kind::Probed(_), Status::Critical) => AGAIN.to_owned(),
                    _ => known.output.clone(),
                };
            }
        }
    }

    /// The bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let check = |check: &Check| {
            let probe = match &check.kind {
                Kind::Reported { .. } | Kind::Stated => 0,
                Kind::Probed(Probe { address, http, .. }) => {
                    let http = http.as_ref().map_or(0, |http| http.host.len() + http.path.len());
                    address.len() + http
                }
            };
            check.id.len() + check.name.len() + check.notes.len() + check.output.len() + probe
        };
        optional(&self.id)
            + optional(&self.node)
            + optional(&self.maintenance)
            + self.checks.iter().map(check).sum::<usize>()
    }
}

/// A text on one line, not longer than a reason may be.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > limits::REASON {
        line.truncate(line.floor_char_boundary(limits::REASON));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(status: Status, drop_after_ms: Option<u64>) -> Upkeep {
        let check = Check {
            id: "service:a".to_owned(),
            name: String::new(),
            notes: String::new(),
            kind: Kind::Reported { ttl_ms: 1_000 },
            status,
            output: String::new(),
            drop_after_ms,
            unknown: Map::new(),
        };
        Upkeep { stays: true, checks: vec![check], ..Upkeep::default() }
    }

    #[test]
    fn what_is_not_reported_is_critical_first_and_dropped_only_if_it_asked_for_that() {
        let fine = reported(Status::Passing, Some(60_000));
        assert_eq!(fine.silence(), Silence::Within(Duration::from_secs(1)));
        let late = fine.after_silence().unwrap();
        assert_eq!(late.failing().unwrap().output, "not reported for 1s");
        assert_eq!(late.silence(), Silence::Over(Duration::from_secs(60)));
        assert_eq!(late.after_silence(), None);
        let late = reported(Status::Critical, None);
        assert_eq!(late.silence(), Silence::Never);
        assert_eq!(late.after_silence().as_ref(), Some(&late));
    }

    #[test]
    fn no_time_that_a_store_or_a_backup_says_is_longer_than_a_clock_or_shorter_than_can_be_done() {
        let mut upkeep = reported(Status::Critical, Some(u64::MAX));
        assert_eq!(upkeep.silence(), Silence::Over(LONGEST));
        upkeep.checks[0].kind = Kind::Reported { ttl_ms: u64::MAX };
        upkeep.checks[0].status = Status::Passing;
        assert_eq!(upkeep.silence(), Silence::Within(LONGEST));
        let upkeep = Upkeep { ttl_ms: Some(u64::MAX), ..Upkeep::default() };
        assert_eq!(upkeep.silence(), Silence::Within(LONGEST));
        let mut probe = Probe {
            address: "a:1".to_owned(),
            http: None,
            interval_ms: u64::MAX,
            timeout_ms: u64::MAX,
            patience: [0, 0],
            machine: None,
        };
        assert_eq!((probe.interval(), probe.timeout()), (LONGEST, LONGEST_TIMEOUT));
        probe.interval_ms = 0;
        assert_eq!(probe.interval(), SHORTEST_INTERVAL);
    }

    #[test]
    fn a_registration_that_comes_again_keeps_its_status_and_its_maintenance() {
        let mut before = reported(Status::Critical, None);
        before.maintenance = Some("new disk".to_owned());
        let mut again = reported(Status::Passing, None);
        again.succeed(&before);
        assert_eq!(again, before);
    }

    #[test]
    fn only_a_check_that_there_is_can_be_reported() {
        let known = reported(Status::Critical, None);
        let report = |check: &str| Amendment::Report {
            check: check.to_owned(),
            status: Status::Warning,
            output: "slow".to_owned(),
            by_owner: true,
        };
        assert_eq!(known.amended(report("other")), None);
        let now = known.amended(report("service:a")).unwrap();
        assert_eq!((now.checks[0].status, &now.checks[0].output[..]), (Status::Warning, "slow"));
        assert_eq!(now.failing(), None);
    }
}
