//! What a registry's watch reports, and how much of it to believe. This is plain state: the time is
//! an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wharf_registry_api::{Endpoint, EndpointId, Index, WatchEvent};

/// If a list suddenly becomes empty, it is not believed for this long. A registry that has just
/// started knows no hosts yet, and a registry that is cut off from all hosts has dropped them. Both
/// have usually recovered after this time.
const DOUBT: Duration = Duration::from_secs(15);

/// The most endpoints of one service that are kept, whatever the registry sends.
const MAX_ENDPOINTS: usize = 100_000;

/// The endpoints of one service.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    told: BTreeMap<EndpointId, Endpoint>,
    /// A snapshot that is not complete yet.
    gathering: Option<BTreeMap<EndpointId, Endpoint>>,
    believed: Vec<Endpoint>,
    /// Where a watch can be resumed.
    index: Option<Index>,
    /// When an empty list is believed.
    doubted_until: Option<Instant>,
}

impl Listing {
    /// The endpoints that calls choose from.
    pub(crate) fn believed(&self) -> &[Endpoint] {
        &self.believed
    }

    /// Where a watch can be resumed, once there was a bookmark.
    pub(crate) fn index(&self) -> Option<Index> {
        self.index
    }

    /// Starts with a saved list.
    pub(crate) fn recall(&mut self, kept: Vec<Endpoint>) {
        self.believed = kept;
    }

    /// Applies an event. Returns whether the believed list has changed.
    ///
    /// Changes that belong together end with a bookmark. They are believed then, all at once.
    pub(crate) fn apply(&mut self, event: WatchEvent, now: Instant) -> bool {
        match event {
            WatchEvent::Snapshot => self.gathering = Some(BTreeMap::new()),
            WatchEvent::Upsert(endpoint) => {
                let list = self.gathering.as_mut().unwrap_or(&mut self.told);
                let id = endpoint.id();
                if list.len() < MAX_ENDPOINTS || list.contains_key(&id) {
                    list.insert(id, *endpoint);
                }
            }
            WatchEvent::Delete(id) => {
                self.gathering.as_mut().unwrap_or(&mut self.told).remove(&id);
            }
            WatchEvent::Bookmark(index) => {
                self.index = Some(index);
                if let Some(whole) = self.gathering.take() {
                    self.told = whole;
                }
                return self.settle(now);
            }
            WatchEvent::Resync | WatchEvent::Goodbye => {}
        }
        false
    }

    /// The watch has ended. The changes that it reported stay, but an incomplete snapshot is
    /// dropped. Nothing confirms an empty list any more, so the doubt starts again.
    pub(crate) fn interrupted(&mut self) {
        self.gathering = None;
        self.doubted_until = None;
    }

    /// When [`Listing::settle`] has something to do.
    pub(crate) fn doubted_until(&self) -> Option<Instant> {
        self.doubted_until
    }

    /// Believes the reported list, unless it is suddenly empty. Returns whether the believed list
    /// has changed.
    pub(crate) fn settle(&mut self, now: Instant) -> bool {
        if self.told.is_empty() && !self.believed.is_empty() {
            let until = *self.doubted_until.get_or_insert(now + DOUBT);
            if now < until {
                return false;
            }
        }
        self.doubted_until = None;
        let changed = !self.told.values().eq(&self.believed);
        if changed {
            self.believed = self.told.values().cloned().collect();
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_registry_api::{Condition, EndpointSpec, EndpointState};

    fn endpoint(host: &str) -> Endpoint {
        let spec = EndpointSpec {
            service: "arith".into(),
            package: None,
            version: None,
            fingerprint: String::new(),
            condition: Condition::Serving,
            reason: None,
            tags: Vec::new(),
            metadata: Default::default(),
        };
        let (host, address) = (host.to_owned(), format!("{host}:1"));
        Endpoint { spec, host, address, state: EndpointState::Serving, unverified: false }
    }

    fn upsert(host: &str) -> WatchEvent {
        WatchEvent::Upsert(Box::new(endpoint(host)))
    }

    fn bookmark(number: u64) -> WatchEvent {
        WatchEvent::Bookmark(Index { epoch: 1, number })
    }

    fn apply(listing: &mut Listing, events: Vec<WatchEvent>, now: Instant) -> bool {
        let mut changed = false;
        for event in events {
            changed |= listing.apply(event, now);
        }
        changed
    }

    fn hosts(listing: &Listing) -> Vec<&str> {
        listing.believed().iter().map(|endpoint| &endpoint.host[..]).collect()
    }

    #[test]
    fn a_snapshot_counts_when_it_is_whole_and_changes_count_with_their_bookmark() {
        let now = Instant::now();
        let mut listing = Listing::default();
        assert!(!apply(&mut listing, vec![WatchEvent::Snapshot, upsert("a"), upsert("b")], now));
        assert!(hosts(&listing).is_empty());
        assert!(apply(&mut listing, vec![bookmark(1)], now));
        assert_eq!(hosts(&listing), ["a", "b"]);
        let gone = WatchEvent::Delete(endpoint("a").id());
        assert!(apply(&mut listing, vec![gone, upsert("c"), bookmark(2)], now));
        assert_eq!(hosts(&listing), ["b", "c"]);
        assert_eq!(listing.index().map(|index| index.number), Some(2));
        // An incomplete snapshot changes nothing.
        apply(&mut listing, vec![WatchEvent::Snapshot, upsert("x")], now);
        listing.interrupted();
        assert!(!apply(&mut listing, vec![bookmark(3)], now));
        assert_eq!(hosts(&listing), ["b", "c"]);
    }

    #[test]
    fn a_list_that_is_suddenly_empty_is_believed_only_after_a_while_in_which_it_stays_so() {
        let now = Instant::now();
        let empty = |number| vec![WatchEvent::Snapshot, bookmark(number)];
        let gone = |number| vec![WatchEvent::Delete(endpoint("a").id()), bookmark(number)];
        for suddenly in [empty(2), gone(2)] {
            let mut listing = Listing::default();
            apply(&mut listing, vec![WatchEvent::Snapshot, upsert("a"), bookmark(1)], now);
            assert!(!apply(&mut listing, suddenly, now));
            assert_eq!(hosts(&listing), ["a"]);
            let until = listing.doubted_until().unwrap();
            assert!(!listing.settle(until - Duration::from_millis(1)));
            // An endpoint that comes back ends the doubt.
            assert!(apply(&mut listing, vec![upsert("b"), bookmark(3)], now));
            assert_eq!((hosts(&listing), listing.doubted_until()), (vec!["b"], None));
        }
        let mut listing = Listing::default();
        apply(&mut listing, vec![WatchEvent::Snapshot, upsert("a"), bookmark(1)], now);
        apply(&mut listing, empty(2), now);
        // While the watch is broken, nothing confirms the empty list.
        listing.interrupted();
        assert_eq!(listing.doubted_until(), None);
        apply(&mut listing, empty(3), now + DOUBT);
        assert_eq!(hosts(&listing), ["a"]);
        assert!(listing.settle(now + 2 * DOUBT));
        assert!(hosts(&listing).is_empty());
    }

    #[test]
    fn a_list_from_an_earlier_time_stands_until_the_registry_tells_another() {
        let now = Instant::now();
        let mut listing = Listing::default();
        listing.recall(vec![endpoint("kept")]);
        assert!(apply(&mut listing, vec![WatchEvent::Snapshot, upsert("a"), bookmark(1)], now));
        assert_eq!(hosts(&listing), ["a"]);
        // A list that was empty from the beginning is not doubted.
        let mut listing = Listing::default();
        apply(&mut listing, vec![WatchEvent::Snapshot, bookmark(1)], now);
        assert_eq!((hosts(&listing).len(), listing.doubted_until()), (0, None));
    }
}
