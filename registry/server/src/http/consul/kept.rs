//! Answers that many wait for, encoded once for each index.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// The most bytes of all kept answers together.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Answers to plain queries for the health of a service.
#[derive(Default)]
pub(in super::super) struct Kept(Mutex<HashMap<Asked, Answer>>);

/// A service, and whether only what passes was asked for.
type Asked = (String, bool);

struct Answer {
    index: u64,
    body: Bytes,
}

impl Kept {
    /// The answer with this index.
    pub(super) fn get(&self, service: &str, passing: bool, index: u64) -> Option<Bytes> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = kept.get(&(service.to_owned(), passing))?;
        (answer.index == index).then(|| answer.body.clone())
    }

    pub(super) fn keep(&self, service: &str, passing: bool, index: u64, body: Bytes) {
        if body.len() > MAX_BYTES {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = kept.values().map(|answer| answer.body.len()).sum();
        if held + body.len() > MAX_BYTES {
            kept.clear();
        }
        kept.insert((service.to_owned(), passing), Answer { index, body });
    }
}
