//! The methods that a client has called by name. Each name is parsed once, and found without a
//! lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::named::Named;

/// The most names that are kept.
const MAX_NAMES: usize = 10_000;

/// Two maps, as in Go's `sync.Map`. The published one is read without a lock, and only replaced as
/// a whole. The other one is behind a lock and has all names. When it has served as many lookups as
/// it has names, it is copied and published. So copying costs a constant per lookup, and soon all
/// lookups find their names in the published map.
#[derive(Default)]
pub(crate) struct Names {
    published: ArcSwap<HashMap<String, Arc<Named>>>,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    names: HashMap<String, Arc<Named>>,
    /// Lookups that found their name here, but not in the published map.
    missed: usize,
}

impl Names {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Named>> {
        if let Some(named) = self.published.load().get(name) {
            return Some(named.clone());
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let named = all.names.get(name)?.clone();
        all.missed += 1;
        if all.missed >= all.names.len() {
            all.missed = 0;
            self.published.store(Arc::new(all.names.clone()));
        }
        Some(named)
    }

    pub(crate) fn insert(&self, name: String, named: Arc<Named>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.names.len() >= MAX_NAMES {
            *all = All::default();
            self.published.store(Arc::default());
        }
        all.names.insert(name, named);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binds::Binds;

    fn named(name: &str) -> Arc<Named> {
        Arc::new(Named::parse(name, None, &[], &Binds::default()).unwrap())
    }

    #[test]
    fn a_name_is_found_at_once_and_soon_without_the_lock() {
        let names = Names::default();
        for name in ["a.b", "a.c"] {
            assert!(names.get(name).is_none());
            names.insert(name.to_owned(), named(name));
            assert!(names.get(name).is_some());
        }
        (0..2).for_each(|_| assert!(names.get("a.c").is_some()));
        assert_eq!(names.published.load().len(), 2);
    }

    #[test]
    fn names_without_end_are_not_kept_without_end() {
        let names = Names::default();
        let one = named("a.b");
        for count in 0..2 * MAX_NAMES {
            names.insert(format!("a.b{count}"), one.clone());
            assert!(names.get(&format!("a.b{count}")).is_some());
        }
        assert!(names.all.lock().unwrap().names.len() <= MAX_NAMES);
        assert!(names.published.load().len() <= MAX_NAMES);
    }
}
