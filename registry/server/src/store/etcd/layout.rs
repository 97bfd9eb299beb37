//! The keys in etcd, and their contents.
//!
//! `PREFIX/v1/spec/KEY` holds a record until it is removed. `PREFIX/v1/live/KEY` holds its session,
//! and disappears with its lease. Records have no lease, because then an outage of all registries
//! would erase the fleet.

use crate::record::Key;

/// Names of keys under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: String,
}

/// What a key is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A record.
    Spec(Key),
    /// That a record is alive.
    Live(Key),
    /// That the elected process gave up the election.
    Handover,
    /// Any other key, of this version or a later one.
    Other,
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Layout { root: format!("{prefix}/v1/") }
    }

    /// The prefix of all keys.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn spec(&self, key: &Key) -> String {
        format!("{}spec/{}", self.root, key.text())
    }

    pub(super) fn live(&self, key: &Key) -> String {
        format!("{}live/{}", self.root, key.text())
    }

    /// This key is written every few seconds. A process that sees the write has seen everything
    /// before it.
    pub(super) fn tick(&self) -> String {
        format!("{}tick", self.root)
    }

    /// The key of the election. The elected process, which drops silent hosts, holds it.
    pub(super) fn reaper(&self) -> String {
        format!("{}reaper", self.root)
    }

    /// This key is written by an elected process that ends in good order, once it is not elected any more.
    pub(super) fn handover(&self) -> String {
        format!("{}handover", self.root)
    }

    pub(super) fn parse(&self, key: &[u8]) -> Name {
        let text = std::str::from_utf8(key).ok().and_then(|text| text.strip_prefix(&self.root));
        if text == Some("handover") {
            return Name::Handover;
        }
        let Some((kind, text)) = text.and_then(|text| text.split_once('/')) else {
            return Name::Other;
        };
        match (kind, Key::parse(text)) {
            ("spec", Some(key)) => Name::Spec(key),
            ("live", Some(key)) => Name::Live(key),
            _ => Name::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_read_back() {
        let layout = Layout::new("/wharf");
        let key = Key::classic("Arith", "[::1]:7");
        assert_eq!(layout.parse(layout.spec(&key).as_bytes()), Name::Spec(key.clone()));
        assert_eq!(layout.parse(layout.live(&key).as_bytes()), Name::Live(key));
        assert_eq!(layout.parse(layout.handover().as_bytes()), Name::Handover);
        for other in [layout.tick(), layout.reaper(), "/other/v1/spec/host/h".to_owned()] {
            assert_eq!(layout.parse(other.as_bytes()), Name::Other);
        }
    }
}
