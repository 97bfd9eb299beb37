//! What a replacement changes for callers, and whether it may.

use std::sync::Arc;

use serde::Deserialize;
use wharf_schema::{Broken, Difference, Service, differences};

/// The most changes that the log and a refusal list.
const SHOWN: usize = 12;

/// Whether a replacement may break those who call what it replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compatible {
    /// It may; the log warns of it.
    #[default]
    Any,
    /// It does not load, and what serves goes on.
    Required,
}

/// What is different after a replacement.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<Difference>);

impl Changes {
    /// Comparing takes time that grows with the types.
    pub(super) fn between(before: &[Arc<Service>], after: &[Arc<Service>]) -> Self {
        let [before, after] = [before, after].map(|services| services.iter().map(AsRef::as_ref));
        Changes(differences(before, after))
    }

    /// What breaks whom, or nothing if nobody breaks.
    pub(super) fn breaking(&self) -> Option<String> {
        let breaking = self.0.iter().filter(|change| change.broken != Broken::Nobody);
        list(breaking.map(|change| format!("{change} (breaks {})", change.broken)))
    }

    /// All of it, for the log.
    pub(super) fn all(&self) -> String {
        let all = list(self.0.iter().map(ToString::to_string));
        all.unwrap_or_else(|| "the same methods".to_owned())
    }
}

fn list(changes: impl Iterator<Item = String>) -> Option<String> {
    let mut changes = changes;
    let mut shown: Vec<String> = changes.by_ref().take(SHOWN).collect();
    let more = changes.count();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    (!shown.is_empty()).then(|| shown.join("; "))
}
