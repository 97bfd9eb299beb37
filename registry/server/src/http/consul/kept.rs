//! Answers that many wait for, encoded once for each index.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// The most bytes of all kept answers together.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The most answers.
const MAX_ANSWERS: usize = 10_000;

/// Answers to plain queries for the health of a service.
#[derive(Default)]
pub(in super::super) struct Kept(Mutex<Answers>);

#[derive(Default)]
struct Answers {
    by_question: HashMap<Asked, Answer>,
    /// Of all bodies together.
    bytes: usize,
}

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
        let answer = kept.by_question.get(&(service.to_owned(), passing))?;
        (answer.index == index).then(|| answer.body.clone())
    }

    /// Keeps an answer of which there is something to keep: there are names without end that nobody has.
    pub(super) fn keep(&self, service: &str, passing: bool, index: u64, body: Bytes) {
        if body.len() > MAX_BYTES || body.len() <= "[]".len() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + body.len() > MAX_BYTES || kept.by_question.len() >= MAX_ANSWERS {
            *kept = Answers::default();
        }
        kept.bytes += body.len();
        let before = kept.by_question.insert((service.to_owned(), passing), Answer { index, body });
        kept.bytes -= before.map_or(0, |before| before.body.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_answers_are_bounded_and_what_nobody_has_is_not_kept() {
        let kept = Kept::default();
        for number in 0..20_000 {
            kept.keep(&format!("none-{number}"), true, 1, Bytes::from_static(b"[]"));
        }
        assert_eq!(kept.0.lock().unwrap().by_question.len(), 0);
        let large = Bytes::from(vec![b' '; MAX_BYTES / 3]);
        for number in 0..10 {
            kept.keep("a", true, number, large.clone());
            assert_eq!(kept.get("a", true, number), Some(large.clone()));
            assert_eq!(kept.get("a", true, number + 1), None);
            assert_eq!(kept.0.lock().unwrap().bytes, large.len());
            kept.keep(&format!("b-{number}"), false, number, large.clone());
            assert!(kept.0.lock().unwrap().bytes <= MAX_BYTES);
            *kept.0.lock().unwrap() = Answers::default();
        }
        for number in 0..2 * MAX_ANSWERS {
            kept.keep(&format!("c-{number}"), false, 1, Bytes::from_static(b"[1]"));
        }
        assert!(kept.0.lock().unwrap().by_question.len() <= MAX_ANSWERS);
    }
}
