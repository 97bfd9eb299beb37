//! What a query of Consul's API asks for.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use wharf_registry_api::Problem;

use super::filter::{Fields, Filter};
use super::{DATACENTER, WAITS};
use crate::http::parameters::{form, invalid};
use crate::listing::HostSnapshot;

/// How long filtering an answer may take.
const FILTERING: Duration = Duration::from_millis(500);

/// What a query asks for.
#[derive(Default)]
pub(super) struct Query {
    pub(super) index: Option<u64>,
    pub(super) wait: Option<Duration>,
    pub(super) tags: Vec<String>,
    pub(super) node_meta: Vec<(String, String)>,
    pub(super) passing: bool,
    pub(super) consistent: bool,
    pub(super) filter: Option<Filter>,
    /// When filtering began.
    began: OnceLock<Instant>,
}

/// Which parameters a path knows, besides those that all paths know.
#[derive(Clone, Copy, Default)]
pub(super) struct Knows {
    pub(super) tags: bool,
    pub(super) passing: bool,
    /// The fields that a filter can speak of; none: it has no filter.
    pub(super) filter: Option<&'static Fields>,
}

impl Query {
    pub(super) fn parse(query: Option<&str>, knows: Knows) -> Result<Self, Problem> {
        let mut parsed = Query::default();
        for (name, value) in form(query.unwrap_or_default())? {
            match name.as_str() {
                "index" => {
                    let index = value
                        .parse()
                        .map_err(|_| invalid(format!("index={value}: write a number")));
                    parsed.index = Some(index?);
                }
                "wait" => {
                    let wait = humantime::parse_duration(&value).map_err(|error| {
                        invalid(format!("wait={value}: {error}; write it like 30s or 120000ms"))
                    });
                    parsed.wait = Some(wait?.min(WAITS.1));
                }
                // Every answer is as new as the registry knows. Who asks was found out before.
                "stale" | "cached" | "pretty" | "token" => {}
                // The order of an answer means nothing here.
                "near" if value == "_agent" => {}
                "consistent" => parsed.consistent = true,
                "dc" if value.is_empty() || value == DATACENTER => {}
                "ns" | "partition" if value.is_empty() || value == "default" => {}
                "tag" if knows.tags => parsed.tags.push(value),
                "node-meta" => {
                    let (name, value) = value
                        .split_once(':')
                        .ok_or_else(|| invalid(format!("node-meta={value}: write NAME:VALUE")))?;
                    parsed.node_meta.push((name.to_owned(), value.to_owned()));
                }
                "filter" if value.is_empty() => {}
                "filter" => {
                    let fields = knows.filter.ok_or_else(|| {
                        invalid("this list takes no filter: leave it out, or filter health/service")
                    })?;
                    if parsed.filter.is_some() {
                        return Err(invalid("there are two filters: join them by 'and'"));
                    }
                    let filter = Filter::parse(&value, fields)
                        .map_err(|why| invalid(format!("filter={value}: {why}")))?;
                    parsed.filter = Some(filter);
                }
                "passing" if knows.passing => {
                    parsed.passing = match value.as_str() {
                        "" | "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(invalid(format!("passing={value}: write passing=1"))),
                    };
                }
                _ => {
                    return Err(invalid(format!(
                        "this registry does not support Consul's parameter {name}={value} here: leave it out"
                    )));
                }
            }
        }
        if parsed.wait.is_some() && parsed.index.is_none() {
            // As in Consul: without an index there is nothing to wait for.
            parsed.wait = None;
        }
        Ok(parsed)
    }

    pub(super) fn takes(&self, host: &HostSnapshot) -> bool {
        let metadata = &host.record.metadata;
        self.node_meta.iter().all(|(name, value)| metadata.get(name) == Some(value))
    }

    /// Whether it leaves nothing out, but for what does not pass.
    pub(super) fn is_plain(&self) -> bool {
        self.tags.is_empty() && self.node_meta.is_empty() && self.filter.is_none()
    }

    /// Whether its filter takes an entry, as the answer has it. Once filtering took too long, nothing is
    /// taken any more: see [`Query::finished`].
    pub(super) fn filters_in(&self, entry: &serde_json::Value) -> bool {
        let Some(filter) = &self.filter else { return true };
        let began = *self.began.get_or_init(Instant::now);
        began.elapsed() < FILTERING && filter.takes(entry)
    }

    /// Refuses a query whose filter took too long.
    pub(super) fn finished(&self) -> Result<(), Problem> {
        match self.began.get() {
            Some(began) if began.elapsed() >= FILTERING => Err(invalid(
                "the filter takes too long on so many entries: ask for one service, or leave 'matches' out",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::consul::shapes;

    const SERVICES: Knows = Knows { tags: true, passing: false, filter: None };
    const HEALTH: Knows = Knows { tags: true, passing: true, filter: Some(shapes::HEALTH) };

    #[test]
    fn parameters_are_answered_or_refused_and_never_passed_over() {
        let query = "index=7&wait=120000ms&stale=&dc=dc1&ns=default&tag=a&tag=b&node-meta=zone:z1&passing=1&filter=Service.Port%3D%3D80";
        let parsed = Query::parse(Some(query), HEALTH).ok().unwrap();
        assert_eq!((parsed.index, parsed.wait), (Some(7), Some(Duration::from_secs(120))));
        assert_eq!(parsed.tags, ["a", "b"]);
        assert!(parsed.passing && parsed.filter.is_some());
        let nodes = Knows::default();
        for (query, knows) in [
            ("filter=x", HEALTH),
            ("filter=Service.Port%3D%3D80", SERVICES),
            ("near=elsewhere", HEALTH),
            ("dc=elsewhere", nodes),
            ("ns=other", nodes),
            ("tag=a", nodes),
            ("passing=1", SERVICES),
            ("passing=maybe", HEALTH),
            ("index=-1", nodes),
            ("wait=soon", nodes),
            ("node-meta=zone", nodes),
            ("merge-central-config=", HEALTH),
        ] {
            assert!(Query::parse(Some(query), knows).is_err(), "{query}");
        }
    }
}
