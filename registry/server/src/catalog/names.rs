//! The names by which others speak of records.

use std::collections::BTreeSet;

use crate::record::{Key, Record};

/// A name by which Consul's clients, or DNS, speak of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Named {
    Service(String),
    Check(String),
    /// The node that it was registered for.
    Node(String),
    /// The node in lower case, if that is another name. DNS knows no capitals.
    LowerNode(String),
}

/// What a record is indexed by.
#[derive(Default)]
pub(super) struct Names {
    pub(super) names: BTreeSet<Named>,
    /// How many checks the registry makes for it.
    pub(super) probes_per_second: f64,
}

pub(super) fn names(key: &Key, record: &Record) -> Names {
    let mut names = BTreeSet::new();
    let node = record.node().map_or_else(|| key.host_name().to_string(), str::to_owned);
    let lower = node.to_ascii_lowercase();
    if lower != node {
        names.insert(Named::LowerNode(lower));
    }
    let Some(upkeep) = &record.upkeep else { return Names { names, probes_per_second: 0.0 } };
    names.extend(upkeep.id.clone().map(Named::Service));
    names.extend(upkeep.node.clone().map(Named::Node));
    names.extend(upkeep.checks.iter().map(|check| Named::Check(check.id.clone())));
    Names { names, probes_per_second: upkeep.probes_per_second() }
}
