//! The methods of one connection: the indices that their calls use, and the requests that wait for
//! an index.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use wharf_schema::Fingerprint;

use crate::id_hasher::IdHasher;

/// A method, as a caller names it. Each is resolved once per connection.
#[derive(Debug)]
pub(crate) struct MethodKey {
    pub(crate) name: Arc<str>,
    /// The signature that the caller was built against, if the caller gave it.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The first signature that a host served, for callers that give none. Bytes that were encoded
    /// for one signature are never sent to another, not even after a plugin was replaced, or at
    /// another endpoint.
    pub(crate) first_seen: Arc<OnceLock<Fingerprint>>,
    /// The hash of name and fingerprint. Each call is looked up by it.
    hash: u64,
}

impl MethodKey {
    pub(crate) fn new(
        name: Arc<str>,
        fingerprint: Option<Fingerprint>,
        first_seen: Arc<OnceLock<Fingerprint>>,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        (&name, fingerprint).hash(&mut hasher);
        MethodKey { name, fingerprint, first_seen, hash: hasher.finish() }
    }

    /// The signature that a host must serve, if it is known yet.
    pub(crate) fn wanted(&self) -> Option<Fingerprint> {
        self.fingerprint.or_else(|| self.first_seen.get().copied())
    }

    /// Whether bytes for this method may be sent where `served` is the signature. If the caller
    /// gave no signature, the first one that was served decides. If the caller gave one, the host
    /// compares.
    pub(crate) fn accepts(&self, served: Fingerprint) -> bool {
        self.fingerprint.is_some() || *self.first_seen.get_or_init(|| served) == served
    }
}

impl PartialEq for MethodKey {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.fingerprint) == (&other.name, other.fingerprint)
    }
}

impl Eq for MethodKey {}

impl Hash for MethodKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// What is known of a method on this connection.
enum Resolution<R> {
    /// Calls use this index, for this signature.
    Known(u32, Fingerprint),
    /// The host was asked for it; these requests wait for the answer.
    Asked(Vec<R>),
}

/// All methods that were called on a connection. `R` is a request that can wait.
pub(crate) struct Methods<R> {
    resolutions: HashMap<Arc<MethodKey>, Resolution<R>, BuildHasherDefault<IdHasher>>,
    /// The resolutions that were asked for, by the id of the question.
    questions: HashMap<u64, Arc<MethodKey>>,
    /// The number of waiting requests, of all methods.
    waiting: usize,
}

/// What the answer to a question leads to.
pub(crate) enum Resolved<R> {
    /// These may be sent, each if its own method accepts the served signature.
    Send(Vec<R>),
    /// These were encoded for another signature.
    Mismatch(Vec<R>, Arc<MethodKey>),
}

impl<R> Methods<R> {
    pub(crate) fn new() -> Self {
        Methods { resolutions: HashMap::default(), questions: HashMap::new(), waiting: 0 }
    }

    /// Requests that wait for a resolution.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The index of a method and the signature behind it, once they are known.
    pub(crate) fn index(&self, method: &MethodKey) -> Option<(u32, Fingerprint)> {
        match self.resolutions.get(method)? {
            Resolution::Known(index, served) => Some((*index, *served)),
            Resolution::Asked(_) => None,
        }
    }

    /// Lets a request wait for its method's index. Returns whether the host has to be asked for it.
    pub(crate) fn wait(&mut self, method: &Arc<MethodKey>, request: R) -> bool {
        self.waiting += 1;
        if let Some(Resolution::Asked(waiting)) = self.resolutions.get_mut(method) {
            waiting.push(request);
            return false;
        }
        self.resolutions.insert(method.clone(), Resolution::Asked(vec![request]));
        true
    }

    /// Records the id under which the host was asked for the index.
    pub(crate) fn asked(&mut self, id: u64, method: Arc<MethodKey>) {
        self.questions.insert(id, method);
    }

    /// The host has answered with a method's index, and the signature that it serves.
    pub(crate) fn resolved(
        &mut self,
        id: u64,
        index: u32,
        served: Fingerprint,
    ) -> Option<Resolved<R>> {
        let method = self.questions.remove(&id)?;
        if !method.accepts(served) {
            // Another endpoint was asked at the same time, answered first, and serves another
            // signature.
            let waiting = self.give_up(&method);
            return Some(Resolved::Mismatch(waiting, method));
        }
        let before = self.resolutions.insert(method, Resolution::Known(index, served));
        Some(Resolved::Send(self.no_longer_waiting(before)))
    }

    /// The host has refused to give an index. Returns the requests that waited for it, if `id` was
    /// such a question.
    pub(crate) fn refused(&mut self, id: u64) -> Option<Vec<R>> {
        let method = self.questions.remove(&id)?;
        Some(self.give_up(&method))
    }

    /// An index no longer stands for its method: the next call resolves the method again.
    pub(crate) fn stale(&mut self, method: &MethodKey, index: u32) {
        if self.index(method).is_some_and(|(known, _)| known == index) {
            self.resolutions.remove(method);
        }
    }

    /// All waiting requests, because there will be no answer.
    pub(crate) fn give_up_all(&mut self) -> Vec<R> {
        let methods: Vec<Arc<MethodKey>> =
            self.questions.drain().map(|(_, method)| method).collect();
        methods.iter().flat_map(|method| self.give_up(method)).collect()
    }

    /// Removes requests that nobody waits for.
    pub(crate) fn retain(&mut self, mut wanted: impl FnMut(&R) -> bool) {
        for resolution in self.resolutions.values_mut() {
            if let Resolution::Asked(waiting) = resolution {
                let before = waiting.len();
                waiting.retain(&mut wanted);
                self.waiting -= before - waiting.len();
            }
        }
    }

    fn give_up(&mut self, method: &MethodKey) -> Vec<R> {
        let resolution = self.resolutions.remove(method);
        self.no_longer_waiting(resolution)
    }

    fn no_longer_waiting(&mut self, resolution: Option<Resolution<R>>) -> Vec<R> {
        let Some(Resolution::Asked(waiting)) = resolution else { return Vec::new() };
        self.waiting -= waiting.len();
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(name: &str) -> Arc<MethodKey> {
        Arc::new(MethodKey::new(name.into(), None, Arc::default()))
    }

    #[test]
    fn a_late_failure_on_a_stale_index_leaves_those_alone_who_wait_for_the_next() {
        let mut methods = Methods::new();
        let multiply = method("multiply");
        assert!(methods.wait(&multiply, "first"));
        methods.asked(1, multiply.clone());
        assert!(matches!(methods.resolved(1, 0, Fingerprint([1; 16])), Some(Resolved::Send(_))));
        methods.stale(&multiply, 0);
        assert!(methods.wait(&multiply, "second"));
        methods.stale(&multiply, 0);
        assert_eq!(methods.waiting(), 1);
        methods.asked(2, multiply.clone());
        let Some(Resolved::Send(ready)) = methods.resolved(2, 1, Fingerprint([1; 16])) else {
            panic!("the same signature is resolved again")
        };
        assert_eq!((ready, methods.waiting()), (vec!["second"], 0));
    }

    #[test]
    fn bytes_for_one_signature_are_not_sent_to_another() {
        let mut methods = Methods::new();
        let multiply = method("multiply");
        methods.wait(&multiply, "first");
        methods.asked(1, multiply.clone());
        methods.resolved(1, 0, Fingerprint([1; 16]));
        assert_eq!(multiply.wanted(), Some(Fingerprint([1; 16])));
        methods.stale(&multiply, 0);
        methods.wait(&multiply, "second");
        methods.asked(2, multiply.clone());
        let resolved = methods.resolved(2, 0, Fingerprint([2; 16]));
        assert!(matches!(resolved, Some(Resolved::Mismatch(waiting, _)) if waiting == ["second"]));
        assert_eq!(methods.waiting(), 0);
    }

    #[test]
    fn nobody_waits_for_an_answer_that_will_not_come() {
        let mut methods = Methods::new();
        for (id, name) in [(1, "a"), (2, "b")] {
            methods.wait(&method(name), name);
            methods.asked(id, method(name));
        }
        assert_eq!(methods.refused(1), Some(vec!["a"]));
        assert_eq!(methods.refused(7), None);
        assert_eq!(methods.give_up_all(), ["b"]);
        assert_eq!(methods.waiting(), 0);
    }
}
